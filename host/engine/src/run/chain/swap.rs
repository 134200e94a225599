//! What a swap does to a chain: operators get another instance between two elements, all of a swap or none.

use std::{
    any::Any,
    time::{Duration, Instant},
};

use millstream_model::ids::{CheckpointId, OperatorId};

use super::{AtBarrier, Chain, Control, NodeIndex, OperatorError};

impl Chain {
    /// Puts these instances into the place of those that run. After an error all run as before.
    pub(in crate::run) async fn switch(
        &mut self,
        operators: Vec<(NodeIndex, Box<dyn Any + Send>)>,
        on_probation: bool,
    ) -> Result<(), OperatorError> {
        let several = operators.len() > 1;
        let mut switched = Vec::with_capacity(operators.len());
        for (node, replacement) in operators {
            // Kept at least until all have switched.
            let control = Control::Switch { replacement, on_probation: on_probation || several };
            if let Err(error) = self.on_control(node, control).await {
                self.roll_back(&switched).await?;
                return Err(error);
            }
            switched.push(node);
        }
        if on_probation {
            self.on_probation = switched;
        } else {
            self.settle_swap(&switched).await;
        }
        Ok(())
    }

    /// Notes what to do at the first barrier of `checkpoint` or a later one; given back if that has passed already.
    pub(in crate::run) fn arm(&mut self, checkpoint: CheckpointId, at_barrier: AtBarrier) -> Option<AtBarrier> {
        if self.newest_barrier >= Some(checkpoint) {
            return Some(at_barrier);
        }
        self.armed = Some((checkpoint, at_barrier));
        None
    }

    /// The old instances of `nodes` are not needed any more.
    pub(in crate::run) async fn settle_swap(&mut self, nodes: &[NodeIndex]) {
        for &node in nodes {
            // Nothing is left to be dropped where it was put back.
            let _ = self.on_control(node, Control::Settle).await;
        }
        self.on_probation.clear();
    }

    /// Puts the old instances of `nodes` back where they are kept; how long that took.
    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    pub(in crate::run) async fn roll_back(&mut self, nodes: &[NodeIndex]) -> Result<Duration, OperatorError> {
        let began = Instant::now();
        for &node in nodes {
            self.on_control(node, Control::RollBack).await?;
        }
        self.on_probation.clear();
        Ok(began.elapsed())
    }

    /// Takes which operator has put its old version back by itself, and why.
    pub(in crate::run) fn take_rolled_back(&mut self) -> Option<(OperatorId, String)> {
        if self.on_probation.is_empty() {
            return None;
        }
        self.links.iter_mut().find_map(|link| {
            let id = link.id.clone();
            Some((id, link.operator()?.take_rolled_back()?))
        })
    }
}
