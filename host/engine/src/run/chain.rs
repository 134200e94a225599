//! A chain: fused nodes that run in one subtask, a tree of links below one head.
//!
//! What a link emits goes to the next links at once, depth first, by an explicit stack of [`Step`]s: no queue, no copy, no recursion. A step
//! that stops early (many timers are due) puts itself back behind what it emitted, so memory stays bounded. So when an element has been
//! accepted nothing is under way, and a barrier, which is an element, finds every link at rest.
//!
//! Here: what a link is, how elements come to it, and the stack. What they do there: [`barrier`] (snapshots), [`time`] (watermarks, timers, the end),
//! [`emit`] (what leaves it), [`swap`] and [`widen`] (other instances, wider rows).

mod barrier;
mod emit;
mod swap;
#[cfg(test)]
mod tests;
mod time;
mod widen;

use std::{sync::Arc, time::Instant};

use millstream_model::{
    Batch, Watermark,
    ids::{CheckpointId, OperatorId},
};

use super::{
    Stop,
    aligner::Aligner,
    entry::Entry,
    order::EventTimeOrder,
    outlet::{Outlet, Target},
    sink::SinkLink,
    snapshot::{SnapshotSettings, Taking},
    subtask::AtBarrier,
    tap::Tap,
};
use crate::{
    clock::Clock,
    element::{Barrier, Element},
    graph::{JobPlan, NodeIndex},
    metrics::OperatorMetrics,
    operator::{Control, Moment, Operator, OperatorError, Output, OutputPort},
    rejected::{RejectedPolicy, Rejection},
};

/// The links of one subtask. The first is its head.
pub(super) struct Chain {
    links: Vec<Link>,
    clock: Arc<dyn Clock>,
    /// Processing time of the current call, ms since epoch.
    now_ms: i64,
    /// Elapsed time of it.
    monotonic_ms: i64,
    steps: Vec<Step>,
    /// Steps that the current step asks for, in order.
    asked: Vec<Step>,
    /// The last barrier that passed the head, until that is reported.
    passed: Option<Barrier>,
    /// The checkpoint of the last barrier that passed the head.
    newest_barrier: Option<CheckpointId>,
    /// How snapshots are taken; none: barriers only pass.
    snapshots: Option<SnapshotSettings>,
    /// The snapshot under way.
    taking: Option<Taking>,
    /// Checkpoints up to this one were given up: their barriers only pass.
    given_up: Option<CheckpointId>,
    /// When the first input passed the barrier that others have not passed yet.
    aligning_since: Option<Instant>,
    /// All input has ended, and everything that follows from it was sent.
    ended: bool,
    /// The link that the last step was for.
    current: usize,
    /// What is done at the first barrier of this checkpoint or a later one.
    armed: Option<(CheckpointId, AtBarrier)>,
    /// The plan by which rows have become wider, until the driver of a source asks.
    widened: Option<Arc<JobPlan>>,
    /// The nodes whose old instances are kept.
    on_probation: Vec<NodeIndex>,
}

/// One node in one subtask.
pub(super) struct Link {
    pub(super) node: NodeIndex,
    pub(super) id: OperatorId,
    pub(super) role: Role,
    pub(super) aligner: Aligner,
    /// What stands before the operator, per input slot.
    pub(super) entries: Vec<Entry>,
    pub(super) outlets: Vec<Outlet>,
    pub(super) rejected: RejectedPolicy,
    pub(super) metrics: Arc<OperatorMetrics>,
    /// Somebody may look at what it emits.
    pub(super) tap: Arc<Tap>,
    /// The last watermark that was sent on.
    pub(super) sent: Option<Watermark>,
    /// Holds rows for `order: event-time`.
    pub(super) order: Option<EventTimeOrder>,
    /// Something downstream depends on where watermarks stand, so batches are cut at those that the operator makes.
    pub(super) cuts_at_watermarks: bool,
}

/// What a link does.
pub(super) enum Role {
    /// Passes on what the source driver reads.
    Source,
    Operator(Box<dyn Operator>),
    Sink(SinkLink),
}

/// One thing to do next.
enum Step {
    /// Hand an element to input `slot` of a link.
    Element { link: usize, slot: usize, element: Element },
    /// Deliver held rows up to the link's watermark.
    Release { link: usize },
    /// Tell the operator of its watermark, then pass it on.
    Watermark { link: usize },
    /// Tell the operator that the time it asked for has come.
    TimePassed { link: usize },
    /// Tell the operator of the end, then pass it on.
    End { link: usize },
}

impl Step {
    fn link(&self) -> usize {
        match *self {
            Self::Element { link, .. }
            | Self::Release { link }
            | Self::Watermark { link }
            | Self::TimePassed { link }
            | Self::End { link } => link,
        }
    }
}

impl Link {
    fn moment(&self, now_ms: i64) -> Moment {
        Moment { watermark: self.aligner.watermark(), processing_time: now_ms }
    }

    fn failed(&self, error: OperatorError) -> Stop {
        Stop::Failed { operator: self.id.clone(), error }
    }

    /// The operator of this link, if it is one.
    pub(super) fn operator(&mut self) -> Option<&mut (dyn Operator + 'static)> {
        match &mut self.role {
            Role::Operator(operator) => Some(operator.as_mut()),
            Role::Source | Role::Sink(_) => None,
        }
    }
}

/// The time that steps take.
struct Stopwatch {
    began_ms: i64,
    began: Instant,
    lap: Instant,
}

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    fn start(began_ms: i64) -> Self {
        let began = Instant::now();
        Self { began_ms, began, lap: began }
    }

    /// When the last lap ended, as elapsed time.
    fn now_ms(&self) -> i64 {
        self.began_ms.saturating_add((self.lap - self.began).as_millis() as i64)
    }

    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    fn lap_ns(&mut self) -> u64 {
        let before = std::mem::replace(&mut self.lap, Instant::now());
        (self.lap - before).as_nanos() as u64
    }
}

impl Chain {
    pub(super) fn new(links: Vec<Link>, clock: Arc<dyn Clock>, snapshots: Option<SnapshotSettings>) -> Self {
        let monotonic_ms = clock.monotonic_ms();
        links.iter().for_each(|link| link.metrics.began_ms.set(monotonic_ms));
        Self {
            links,
            now_ms: clock.now_ms(),
            monotonic_ms,
            clock,
            steps: Vec::new(),
            asked: Vec::new(),
            passed: None,
            newest_barrier: None,
            snapshots,
            taking: None,
            given_up: None,
            aligning_since: None,
            ended: false,
            current: 0,
            armed: None,
            widened: None,
            on_probation: Vec::new(),
        }
    }

    /// Says again what every link had said of time before the run that this one goes on from was cut: consumers know again how far each of
    /// their inputs is. Before anything else.
    pub(super) async fn resume(&mut self) -> Result<(), Stop> {
        for link in 0..self.links.len() {
            if let Some(sent) = self.links[link].sent {
                self.broadcast(link, &Element::Watermark(sent)).await?;
                self.run().await?;
            }
        }
        Ok(())
    }

    /// The link that is fed by queues or a source.
    pub(super) fn head(&self) -> &Link {
        &self.links[0]
    }

    /// Rows of input `slot` of the head come as part of a batch of another input.
    pub(super) fn note_rows(&mut self, slot: usize) {
        self.links[0].aligner.on_row(slot);
    }

    /// The node that was called last: where a panic comes from.
    pub(super) fn current(&self) -> &OperatorId {
        &self.links[self.current].id
    }

    /// Hands an element to input `slot` of the head, and lets everything that follows from it happen.
    pub(super) async fn accept(&mut self, slot: usize, element: Element) -> Result<(), Stop> {
        self.look_at_clocks();
        self.steps.push(Step::Element { link: 0, slot, element });
        self.run().await
    }

    /// Records that the source could not use; its setting says what becomes of them.
    pub(super) async fn reject(&mut self, rejections: Vec<Rejection>) -> Result<(), Stop> {
        self.on_rejections(0, rejections).await?;
        self.run().await
    }

    /// Hands a control message to the operator of `node`.
    pub(super) async fn on_control(&mut self, node: NodeIndex, control: Control) -> Result<(), OperatorError> {
        let link = self.links.iter_mut().find(|link| link.node == node);
        match link.map(|link| &mut link.role) {
            Some(Role::Operator(operator)) => operator.on_control(control).await,
            _ => Err(OperatorError::internal("a control message for a node that runs elsewhere")),
        }
    }

    /// Publishes what the sinks wrote. All input has ended everywhere in the job.
    pub(super) async fn finish(&mut self) -> Result<(), Stop> {
        for link in &mut self.links {
            if let Role::Sink(sink) = &mut link.role {
                let finished = sink.finish().await;
                finished.map_err(|error| link.failed(error))?;
            }
        }
        Ok(())
    }

    /// Removes what the sinks have not published.
    pub(super) async fn abort(&mut self) {
        for link in &mut self.links {
            if let Role::Sink(sink) = &mut link.role {
                sink.abort().await;
            }
        }
    }

    /// Drops the operators, with their instances and state; keeps what others could see go: the sending ends.
    pub(super) fn into_ends(self) -> Vec<Outlet> {
        self.links.into_iter().flat_map(|link| link.outlets).collect()
    }

    /// Whether publishing is up to this chain.
    pub(super) fn has_sinks(&self) -> bool {
        self.links.iter().any(|link| matches!(link.role, Role::Sink(_)))
    }

    async fn run(&mut self) -> Result<(), Stop> {
        self.take_asked();
        let waits = &self.links[0].metrics.clone().waits;
        let mut stopwatch = Stopwatch::start(self.clock.monotonic_ms());
        waits.work_begins(stopwatch.began_ms);
        while let Some(step) = self.steps.pop() {
            self.current = step.link();
            let metrics = self.links[self.current].metrics.clone();
            waits.works(self.links[self.current].node, stopwatch.now_ms());
            let waited_ns = metrics.waited_ns();
            match step {
                Step::Element { link, slot, element } => self.on_element(link, slot, element).await?,
                Step::Release { link } => self.on_release(link).await?,
                Step::Watermark { link } => self.on_watermark(link).await?,
                Step::TimePassed { link } => self.on_time(link).await?,
                Step::End { link } => self.on_end(link).await?,
            }
            metrics.busy_ns.add(stopwatch.lap_ns().saturating_sub(metrics.waited_ns() - waited_ns));
            self.take_asked();
        }
        waits.work_ends();
        Ok(())
    }

    /// The steps that were asked for come before everything that waited already.
    fn take_asked(&mut self) {
        self.steps.extend(self.asked.drain(..).rev());
    }

    async fn on_element(&mut self, link: usize, slot: usize, element: Element) -> Result<(), Stop> {
        if matches!(self.links[link].role, Role::Source) {
            return self.on_source_element(element).await;
        }
        match element {
            Element::Batch(batch) => self.on_batch(link, slot, batch).await,
            Element::Watermark(watermark) => {
                let progress = self.links[link].aligner.on_watermark(slot, watermark);
                self.on_progress(link, progress).await
            }
            Element::Idle => {
                let progress = self.links[link].aligner.on_idle(slot);
                self.on_progress(link, progress).await
            }
            Element::Barrier(barrier) => match self.links[link].aligner.on_barrier(slot, barrier) {
                Some(aligned) => self.on_barrier(link, aligned).await,
                None => {
                    self.note_aligning(link);
                    Ok(())
                }
            },
            Element::End => {
                let (progress, barrier) = self.links[link].aligner.on_end(slot);
                if let Some(aligned) = barrier {
                    self.on_barrier(link, aligned).await?;
                }
                self.on_progress(link, progress).await?;
                if self.links[link].aligner.is_ended() {
                    self.asked.push(Step::End { link });
                }
                Ok(())
            }
        }
    }

    /// The driver merges the splits itself, so what it says is passed on as it is.
    async fn on_source_element(&mut self, element: Element) -> Result<(), Stop> {
        match element {
            Element::Batch(batch) => {
                self.links[0].metrics.rows_out.add(batch.num_rows() as u64);
                self.emit(0, OutputPort::Port(0), batch).await
            }
            Element::Watermark(watermark) => self.pass_watermark(0, Some(watermark)).await,
            Element::Barrier(barrier) => self.on_barrier(0, barrier).await,
            Element::Idle | Element::End => self.broadcast(0, &element).await,
        }
    }

    async fn on_batch(&mut self, link: usize, slot: usize, batch: Batch) -> Result<(), Stop> {
        let entered = &mut self.links[link];
        entered.metrics.rows_in.add(batch.num_rows() as u64);
        entered.aligner.on_row(slot);
        let (port, batch, rejections) = entered.entries[slot].admit(batch, &entered.metrics);
        if !rejections.is_empty() {
            self.on_rejections(link, rejections).await?;
        }
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let watermark = self.links[link].aligner.watermark();
        let batch = match &mut self.links[link].order {
            Some(order) => order.hold(port, batch, watermark),
            None => Some(batch),
        };
        match batch {
            Some(batch) => self.deliver(link, port, batch, watermark).await,
            None => Ok(()),
        }
    }

    /// Gives rows to the operator or sink of a link.
    async fn deliver(&mut self, link: usize, port: usize, batch: Batch, watermark: Option<Watermark>) -> Result<(), Stop> {
        let now = Moment { watermark, processing_time: self.now_ms };
        let Link { role, id, tap, .. } = &mut self.links[link];
        let mut out = Output::default();
        let handled = match role {
            Role::Source => Ok(()),
            Role::Operator(operator) => operator.on_batch(port, batch, now, &mut out).await,
            Role::Sink(sink) => {
                tap.offer(&batch);
                sink.on_batch(&batch, self.monotonic_ms).await
            }
        };
        handled.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        self.settle(link, out).await
    }
}
