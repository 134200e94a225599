//! How a run stands: the counters of its subtasks, added up for people.

use std::{sync::Arc, time::Duration};

use millstream_model::ids::{OperatorId, SubtaskIndex};

use super::{
    build::Board,
    handle::{DurableStatus, JobStatus, OperatorKind, OperatorStatus, Phase, SubtaskWait, Summary, WaitOn},
    versions::Running,
};
use crate::{
    clock::Clock,
    graph::{JobPlan, Node, NodeIndex, NodeKind, RowOrder},
    metrics::{OperatorMetrics, Waiting},
};

/// One run, as it is looked at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) plan: &'a JobPlan,
    pub(super) board: &'a Board,
    pub(super) running: &'a Running,
    pub(super) clock: &'a dyn Clock,
}

impl View<'_> {
    /// How the run stands.
    pub(super) fn status(self, phase: Phase, durable: Option<DurableStatus>) -> JobStatus {
        let trial = self.running.last_trial().map(|report| report.status);
        JobStatus { phase, at_ms: self.clock.now_ms(), operators: self.operators(), durable, swap: self.running.last_swap(), trial }
    }

    /// What it did.
    pub(super) fn summary(self) -> Summary {
        let operators = self.operators();
        let cut = operators.iter().filter(|operator| operator.timers_cut > 0);
        let notes = cut.map(|operator| {
            format!("`{}` set timers again and again that were due at once: {} were not set", operator.id, operator.timers_cut)
        });
        Summary { notes: notes.collect(), operators }
    }

    fn operators(self) -> Vec<OperatorStatus> {
        let nodes = self.plan.nodes.iter().zip(self.board).enumerate();
        let of_node = |(number, (node, metrics)): (usize, (&Node, &Vec<Arc<OperatorMetrics>>))| OperatorStatus {
            inputs: node.inputs.iter().map(|edge| self.id(edge.from)).collect(),
            waits: metrics.iter().enumerate().filter_map(|(subtask, metrics)| self.wait(SubtaskIndex(subtask as u32), metrics)).collect(),
            versions: self.running.history(number),
            watermark_since_ms: slowest(metrics).and_then(|slowest| slowest.watermark.since_ms()).map(|since_ms| self.shown_ms(since_ms)),
            ..operator_status(node, metrics)
        };
        let mut operators: Vec<OperatorStatus> = nodes.map(of_node).collect();
        self.add_times(&mut operators);
        operators
    }

    /// What each operator did with its time, the steps that are not done yet with it.
    fn add_times(self, operators: &mut [OperatorStatus]) {
        let now_ms = self.clock.monotonic_ms();
        let since = |from_ms: i64| Duration::from_millis(u64::try_from(now_ms.saturating_sub(from_ms)).unwrap_or(0));
        for (subtask, metrics) in self.board.iter().flat_map(|subtasks| subtasks.iter().enumerate()) {
            let Some((since_ms, node)) = metrics.waits.step() else { continue };
            match self.board[node].get(subtask).and_then(|metrics| metrics.waits.get()) {
                Some((waits_since_ms, Waiting::Room { .. })) => operators[node].backpressured_time += since(waits_since_ms),
                Some((_, Waiting::Retry { .. })) => {}
                _ => operators[node].busy_time += since(since_ms),
            }
        }
        for (operator, subtasks) in operators.iter_mut().zip(self.board) {
            let begun = subtasks.iter().map(|metrics| metrics.began_ms.get()).filter(|&began_ms| began_ms != i64::MIN);
            let passed: Duration = begun.map(since).sum();
            operator.idle_time = passed.saturating_sub(operator.busy_time + operator.backpressured_time);
        }
    }

    fn id(self, node: NodeIndex) -> OperatorId {
        self.plan.nodes[node].id.clone()
    }

    /// An elapsed time as people call it now.
    fn shown_ms(self, monotonic_ms: i64) -> i64 {
        self.clock.now_ms().saturating_sub(self.clock.monotonic_ms().saturating_sub(monotonic_ms))
    }

    fn wait(self, subtask: SubtaskIndex, metrics: &OperatorMetrics) -> Option<SubtaskWait> {
        let Some((since_ms, waiting)) = metrics.waits.get() else {
            let (since_ms, node) = metrics.waits.busy()?;
            return Some(SubtaskWait { subtask, since_ms: self.shown_ms(since_ms), on: WaitOn::Work { by: self.id(node) } });
        };
        let on = match waiting {
            Waiting::Splits { split, left } => WaitOn::Splits { split: split.map(|split| split.to_string()), left },
            Waiting::Others => WaitOn::Others,
            Waiting::Input { held_by } => WaitOn::Input { held_by: held_by.map(|node| self.id(node)) },
            Waiting::Barrier { checkpoint, missing } => {
                WaitOn::Barrier { checkpoint, missing: missing.into_iter().map(|node| self.id(node)).collect() }
            }
            Waiting::Room { to } => WaitOn::Room { to: self.id(to) },
            Waiting::Answers { requests } => WaitOn::Answers { requests },
            Waiting::Retry { reason, until_ms } => WaitOn::Retry { reason, until_ms: self.shown_ms(until_ms) },
        };
        Some(SubtaskWait { subtask, since_ms: self.shown_ms(since_ms), on })
    }
}

/// The subtask whose watermark holds that of the operator.
fn slowest(metrics: &[Arc<OperatorMetrics>]) -> Option<&OperatorMetrics> {
    metrics.iter().map(Arc::as_ref).min_by_key(|metrics| (metrics.watermark.get(), std::cmp::Reverse(metrics.watermark.since_ms())))
}

fn operator_status(node: &Node, metrics: &[Arc<OperatorMetrics>]) -> OperatorStatus {
    let sum = |of: fn(&OperatorMetrics) -> u64| metrics.iter().map(|metrics| of(metrics)).sum::<u64>();
    let (kind, progress_total) = match &node.kind {
        NodeKind::Source(source) => (OperatorKind::Source, source.source.size_hint()),
        NodeKind::Operator(_) => (OperatorKind::Operator, None),
        NodeKind::Sink(_) => (OperatorKind::Sink, None),
    };
    let waits_for_time = match &node.kind {
        NodeKind::Operator(operator) => {
            let uses_time = operator.order == RowOrder::EventTime || operator.plan.uses_watermarks();
            uses_time && operator.inputs.iter().any(|stream| stream.event_times)
        }
        NodeKind::Source(_) | NodeKind::Sink(_) => false,
    };
    let watermark = slowest(metrics).map(|slowest| slowest.watermark.get());
    OperatorStatus {
        id: node.id.clone(),
        kind,
        parallelism: node.parallelism,
        rows_in: sum(|metrics| metrics.rows_in.get()),
        rows_out: sum(|metrics| metrics.rows_out.get()),
        rows_late: sum(|metrics| metrics.rows_late.get()),
        rows_rejected: sum(|metrics| metrics.rows_rejected.get()),
        rows_null_key: sum(|metrics| metrics.rows_null_key.get()),
        timers_cut: sum(|metrics| metrics.timers_cut.get()),
        traps: sum(|metrics| metrics.traps.get()),
        // The subtasks share them.
        guest_metrics: metrics.first().map(|metrics| metrics.guest.status()).unwrap_or_default(),
        guest_metrics_refused: metrics.first().map_or(0, |metrics| metrics.guest.refused()),
        guest_time: Duration::from_nanos(sum(|metrics| metrics.guest_ns.get())),
        busy_time: Duration::from_nanos(sum(|metrics| metrics.busy_ns.get())),
        idle_time: Duration::ZERO,
        requests: sum(|metrics| metrics.requests.get()),
        request_bytes: sum(|metrics| metrics.request_bytes.get()),
        answer_bytes: sum(|metrics| metrics.answer_bytes.get()),
        backpressured_time: Duration::from_nanos(sum(|metrics| metrics.backpressured_ns.get())),
        guest_memory_bytes: sum(|metrics| metrics.guest_memory_bytes.get()),
        state_memory_bytes: sum(|metrics| metrics.state.memory_bytes()),
        state_disk_bytes: sum(|metrics| metrics.state.disk_bytes()),
        progress: sum(|metrics| metrics.progress.get()),
        progress_total,
        lags: metrics.iter().flat_map(|metrics| metrics.lags.get()).collect(),
        watermark: watermark.filter(|&watermark| watermark != i64::MIN),
        watermark_since_ms: None,
        inputs: Vec::new(),
        waits_for_time,
        makes_time: matches!(&node.kind, NodeKind::Operator(operator) if operator.plan.makes_time()),
        waits: Vec::new(),
        versions: Vec::new(),
    }
}
