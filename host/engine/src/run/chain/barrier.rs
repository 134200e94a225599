//! What a barrier does to a chain: it passes link by link, and at each a snapshot takes what belongs to it; what was armed happens before the cut.
//! A snapshot goes on between the elements behind its barrier until it is complete, or given up: then the barrier only passes.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use millstream_model::{Watermark, ids::CheckpointId};

use super::{AtBarrier, Chain, Link, Role, Stop};
use crate::{
    checkpoint::manifest::SplitManifest,
    element::{Barrier, Element},
    graph::NodeIndex,
    operator::OperatorError,
    run::snapshot::{self, SnapshotFailed, SubtaskSnapshot, Taking, Wake},
};

impl Chain {
    /// All input has ended: from now on barriers come from the supervisor, and are for this subtask alone.
    pub(in crate::run) fn note_ended(&mut self) {
        self.ended = true;
    }

    /// Whether snapshots are taken.
    pub(in crate::run) fn is_durable(&self) -> bool {
        self.snapshots.is_some()
    }

    /// A barrier for a chain whose input has ended; whether it was new. One that passed before the end is sent again by a supervisor that hears of
    /// the end before the snapshot: cut once more, the chain would count rows to the checkpoint that came behind its barrier.
    pub(in crate::run) async fn accept_at_end(&mut self, barrier: Barrier) -> Result<bool, Stop> {
        if self.newest_barrier >= Some(barrier.checkpoint) {
            return Ok(false);
        }
        for link in 0..self.links.len() {
            self.current = link;
            self.on_barrier(link, barrier).await?;
        }
        Ok(true)
    }

    /// How far the splits of the source at the head were read at the barrier that was accepted just now.
    pub(in crate::run) fn set_splits(&mut self, splits: Vec<SplitManifest>, watermark: Option<Watermark>) {
        if let Some(taking) = &mut self.taking {
            taking.set_splits(splits, watermark);
        }
    }

    /// When [`Self::advance_snapshot`] has something to do.
    pub(in crate::run) fn snapshot_wake(&self) -> Wake {
        self.taking.as_ref().map_or(Wake::Never, Taking::wake)
    }

    /// Does a bounded part of the snapshot under way; a snapshot that is complete or failed, with its checkpoint.
    pub(in crate::run) fn advance_snapshot(&mut self) -> Option<(CheckpointId, Result<SubtaskSnapshot, SnapshotFailed>)> {
        let mut taking = self.taking.take()?;
        let checkpoint = taking.checkpoint;
        match taking.advance(&mut self.links) {
            snapshot::Step::Pending => {
                self.taking = Some(taking);
                None
            }
            snapshot::Step::Complete(snapshot) => Some((checkpoint, Ok(snapshot))),
            snapshot::Step::Failed { link, error } => {
                taking.abandon(&mut self.links);
                Some((checkpoint, Err(SnapshotFailed { operator: self.links[link].id.clone(), error })))
            }
        }
    }

    /// Checkpoints up to `checkpoint` are given up.
    pub(in crate::run) fn give_up(&mut self, checkpoint: CheckpointId) {
        self.given_up = self.given_up.max(Some(checkpoint));
        if let Some(taking) = self.taking.take_if(|taking| taking.checkpoint <= checkpoint) {
            taking.abandon(&mut self.links);
        }
    }

    /// Operators are about to be replaced, by these or by what ran before: a store keeps its declarations while it is cut, so the snapshot under way is
    /// given up if one of them changes them. Else it goes on: a job of many swaps must have checkpoints, too.
    pub(in crate::run) fn give_up_for(
        &mut self,
        replaced: &[(NodeIndex, Option<&(dyn Any + Send)>)],
    ) -> Option<(CheckpointId, SnapshotFailed)> {
        let redeclares = |link: &mut Link| {
            let by = replaced.iter().find(|(node, _)| *node == link.node).map(|(_, by)| *by);
            by.is_some_and(|by| link.operator().is_none_or(|operator| !operator.keeps_declarations(by)))
        };
        let operator = self.links.iter_mut().find_map(|link| redeclares(link).then(|| link.id.clone()))?;
        let taking = self.taking.take()?;
        let checkpoint = taking.checkpoint;
        taking.abandon(&mut self.links);
        Some((checkpoint, SnapshotFailed { operator, error: OperatorError::outside("it is being replaced by another version") }))
    }

    /// `checkpoint` is committed: the sinks publish what they staged for it.
    pub(in crate::run) async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), Stop> {
        for link in &mut self.links {
            if let Role::Sink(sink) = &mut link.role {
                let published = sink.on_committed(checkpoint).await;
                published.map_err(|error| link.failed(error))?;
            }
        }
        Ok(())
    }

    /// Takes the last barrier that passed the head since this was asked before.
    pub(in crate::run) fn take_passed_barrier(&mut self) -> Option<Barrier> {
        self.passed.take()
    }

    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    pub(super) fn note_aligning(&mut self, link: usize) {
        if link == 0 {
            self.aligning_since.get_or_insert_with(Instant::now);
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    pub(super) async fn on_barrier(&mut self, link: usize, barrier: Barrier) -> Result<(), Stop> {
        let began = Instant::now();
        if link == 0 {
            // Before the cut: what is written down of this checkpoint is of the version that comes behind it.
            if let Some((_, armed)) = self.armed.take_if(|(checkpoint, _)| *checkpoint <= barrier.checkpoint) {
                self.abandon_snapshot();
                match armed {
                    AtBarrier::Switch(switch) => switch.perform(self).await,
                    AtBarrier::Widen(widen) => self.widen(widen, barrier).await?,
                }
            }
            self.begin_snapshot(barrier);
        }
        if self.snapshots.is_some() && self.taking.is_none() {
            // It was given up, so nobody wants to know anything; it only passes.
            return self.broadcast(link, &Element::Barrier(barrier)).await;
        }
        let Link { role, id, .. } = &mut self.links[link];
        let remembered = match role {
            Role::Source => Ok(serde_json::Value::Null),
            Role::Operator(operator) => operator.on_barrier(barrier).await,
            Role::Sink(sink) => sink.on_barrier(barrier.checkpoint).await,
        };
        let value = remembered.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        if let Some(taking) = &mut self.taking {
            let cut = taking.add(&mut self.links, link, value, began.elapsed());
            cut.map_err(|error| self.links[link].failed(error))?;
        }
        self.broadcast(link, &Element::Barrier(barrier)).await
    }

    pub(super) fn abandon_snapshot(&mut self) {
        if let Some(taking) = self.taking.take() {
            taking.abandon(&mut self.links);
        }
    }

    /// The head is at `barrier`.
    pub(super) fn begin_snapshot(&mut self, barrier: Barrier) {
        self.passed = Some(barrier);
        self.newest_barrier = Some(barrier.checkpoint);
        let alignment = self.aligning_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let Some(settings) = self.snapshots.clone() else { return };
        self.abandon_snapshot();
        if self.given_up.is_none_or(|given_up| given_up < barrier.checkpoint) {
            self.taking = Some(Taking::new(barrier.checkpoint, settings, alignment));
        }
    }
}
