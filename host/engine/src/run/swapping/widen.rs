//! The part of a swap that comes before the switch where new versions read more than is carried: rows become wider, in all subtasks at one barrier.

use std::{collections::BTreeMap, sync::Arc};

use futures::future::join_all;
use millstream_model::ids::{CheckpointId, OperatorId};
use tokio::sync::oneshot;

use super::{Answered, Done, Order, Swapping, gather};
use crate::{
    graph::{JobPlan, NodeIndex},
    run::{
        subtask::{self, AtBarrier, SubtaskNumber, Swap, Widen, WiderOperator},
        widening::Widened,
    },
};

/// Wider streams, and instances that take them.
pub(in crate::run) struct PreparedWidening {
    plan: Arc<JobPlan>,
    sources: Vec<NodeIndex>,
    operators: Vec<NodeIndex>,
    instances: BTreeMap<SubtaskNumber, Vec<(NodeIndex, WiderOperator)>>,
}

impl PreparedWidening {
    pub(super) fn new(widened: Widened, instances: BTreeMap<SubtaskNumber, Vec<(NodeIndex, WiderOperator)>>) -> Self {
        let Widened { plan, operators, sources } = widened;
        Self { plan: Arc::new(plan), sources, operators, instances }
    }

    /// The sources and operators that carry more.
    pub(super) fn widens(&self) -> Vec<OperatorId> {
        let mut nodes: Vec<NodeIndex> = self.sources.iter().chain(&self.operators).copied().collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|node| self.plan.nodes[node].id.clone()).collect()
    }
}

impl Swapping {
    /// Tells all subtasks at which barrier rows become wider; none: they need not.
    pub(super) fn tell_to_widen(&mut self, next_barrier: CheckpointId) -> Option<Vec<Order>> {
        let widening = self.current.as_mut()?.widening.as_mut()?;
        let (plan, mut instances) = (widening.plan.clone(), std::mem::take(&mut widening.instances));
        let (mut orders, mut answers, mut all_armed) = (vec![Order::HoldBarriers], Vec::new(), Vec::new());
        for number in 0..self.members.len() {
            let ((answer, answered), (armed, known)) = (oneshot::channel(), oneshot::channel());
            let widen = Widen { plan: plan.clone(), operators: instances.remove(&number).unwrap_or_default(), answer };
            orders.push(Order::Tell(number, subtask::Command::Swap(Swap::At(next_barrier, AtBarrier::Widen(widen), armed))));
            answers.push(answered);
            all_armed.push(known);
        }
        let done = self.done.clone();
        self.settings.runtime.spawn(async move {
            join_all(all_armed).await;
            // Without a supervisor nobody needs to know.
            let _ = done.send(Done::Armed).await;
            let _ = done.send(Done::Widened { answers: join_all(answers).await }).await;
        });
        Some(orders)
    }

    /// Rows are wider everywhere: the switch itself follows.
    pub(super) fn on_widened(&mut self, answers: Vec<Answered>, next_barrier: CheckpointId) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let Some(widening) = current.widening.take() else { return Vec::new() };
        let (report, failure) = gather(current.status.swap, answers);
        if let Some(reason) = failure {
            // Some may send rows that others do not know: only the last checkpoint is sound.
            return vec![Order::Recover(reason)];
        }
        current.widening_pauses = report.pauses;
        self.running.widen(widening.plan.clone(), &widening.operators);
        self.plan = widening.plan;
        self.tell_to_switch(next_barrier)
    }
}
