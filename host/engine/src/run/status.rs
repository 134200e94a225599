//! How a run stands: the counters of its subtasks, added up for people.

use std::{sync::Arc, time::Duration};

use super::{
    build::Board,
    handle::{DurableStatus, JobStatus, OperatorKind, OperatorStatus, Phase, Summary},
    versions::Running,
};
use crate::{
    graph::{JobPlan, Node, NodeKind},
    metrics::OperatorMetrics,
};

/// One run, as it is looked at.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) plan: &'a JobPlan,
    pub(super) board: &'a Board,
    pub(super) running: &'a Running,
}

impl View<'_> {
    /// How the run stands.
    pub(super) fn status(self, phase: Phase, durable: Option<DurableStatus>) -> JobStatus {
        JobStatus { phase, operators: self.operators(), durable, swap: self.running.last_swap() }
    }

    /// What it did.
    pub(super) fn summary(self) -> Summary {
        let operators = self.operators();
        let cut = operators.iter().filter(|operator| operator.timers_cut > 0);
        let notes = cut.map(|operator| {
            format!("`{}` set timers again and again after the end of input: {} were not set", operator.id, operator.timers_cut)
        });
        Summary { notes: notes.collect(), operators }
    }

    fn operators(self) -> Vec<OperatorStatus> {
        let nodes = self.plan.nodes.iter().zip(self.board).enumerate();
        nodes
            .map(|(number, (node, metrics))| OperatorStatus { versions: self.running.history(number), ..operator_status(node, metrics) })
            .collect()
    }
}

fn operator_status(node: &Node, metrics: &[Arc<OperatorMetrics>]) -> OperatorStatus {
    let sum = |of: fn(&OperatorMetrics) -> u64| metrics.iter().map(|metrics| of(metrics)).sum::<u64>();
    let (kind, progress_total) = match &node.kind {
        NodeKind::Source(source) => (OperatorKind::Source, source.source.size_hint()),
        NodeKind::Operator(_) => (OperatorKind::Operator, None),
        NodeKind::Sink(_) => (OperatorKind::Sink, None),
    };
    let watermark = metrics.iter().map(|metrics| metrics.watermark.get()).min();
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
        backpressured_time: Duration::from_nanos(sum(|metrics| metrics.backpressured_ns.get())),
        progress: sum(|metrics| metrics.progress.get()),
        progress_total,
        watermark: watermark.filter(|&watermark| watermark != i64::MIN),
        versions: Vec::new(),
    }
}
