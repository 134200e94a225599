//! Where nodes run and how rows find them: parallelism and exchanges.
//!
//! An edge into a keyed operator is hashed, unless both sides have a single subtask and no row is dropped for its key. Any other edge is
//! forward if both sides have the same parallelism, else it is rebalanced.

use std::num::NonZeroU32;

use millstream_model::ids::TenantId;

use super::{
    draft::{Draft, DraftKind, DraftNode},
    durable,
    typed::{Planner, Typed, TypedEdge, TypedKind},
};
use crate::{
    graph::{Batching, Edge, Exchange, JobPlan, Node, NodeKind, NullKeys},
    spec::{BatchingSettings, ByteSize, JobSpec, child},
};

/// Memory for the state of a job that does not say otherwise.
const STATE_MEMORY_BYTES: usize = 256 << 20;
/// More parallelism than key groups is of no use.
const PARALLELISM_MAX: u32 = 4_096;

/// Reports parallelism that cannot be had.
pub(super) fn check(planner: &mut Planner<'_, '_>, draft: &Draft<'_>, typed: &[Option<Typed>], job: NonZeroU32) {
    if job.get() > PARALLELISM_MAX {
        planner.report.value("/parallelism", format!("parallelism is at most {PARALLELISM_MAX}, the number of key groups"), None);
    }
    for (node, typed) in draft.nodes.iter().zip(typed) {
        let Some(own) = own_parallelism(node) else { continue };
        let at = child(node.pointer, "parallelism");
        if own.get() > PARALLELISM_MAX {
            planner.report.value(&at, format!("parallelism is at most {PARALLELISM_MAX}, the number of key groups"), None);
        }
        if typed.as_ref().is_some_and(has_one_key) && own.get() > 1 {
            planner.report.value(
                &at,
                "all rows have one key, so one subtask does all the work",
                Some("say by which columns rows are grouped: `key-by`".into()),
            );
        }
        let Some(Typed { kind: TypedKind::Sink(sink), .. }) = typed else { continue };
        if let Some(max) = sink.parallelism_max().filter(|&max| own.get() > max) {
            planner.report.value(
                &at,
                format!("this sink has at most {max} parallel {}", if max == 1 { "writer" } else { "writers" }),
                None,
            );
        }
    }
}

fn own_parallelism(node: &DraftNode<'_>) -> Option<NonZeroU32> {
    match &node.kind {
        DraftKind::Source(entry) => entry.common.parallelism,
        DraftKind::Operator { entry, .. } => entry.common.parallelism,
        DraftKind::Sink(entry) => entry.common.parallelism,
        DraftKind::Broken { .. } => None,
    }
}

fn parallelism(node: &DraftNode<'_>, typed: &Typed, job: NonZeroU32) -> u32 {
    if let Some(own) = own_parallelism(node) {
        return own.get();
    }
    match &typed.kind {
        TypedKind::Operator { .. } if has_one_key(typed) => 1,
        TypedKind::Sink(sink) => sink.parallelism_max().unwrap_or(u32::MAX).min(job.get()),
        TypedKind::Source(_) | TypedKind::Operator { .. } => job.get(),
    }
}

/// Whether all rows have one key, so that further subtasks would have nothing to do.
fn has_one_key(typed: &Typed) -> bool {
    let TypedKind::Operator { node, .. } = &typed.kind else { return false };
    match &node.keys {
        Some(keys) => keys.iter().all(Vec::is_empty),
        None => node.plan.keeps_state(),
    }
}

/// Puts the job together. All nodes are planned.
pub(super) fn place(spec: &JobSpec, draft: &Draft<'_>, typed: Vec<Typed>, job: NonZeroU32, tenant: TenantId) -> JobPlan {
    let durability = durable::durability(&typed, &spec.settings);
    let mut nodes: Vec<Node> = Vec::with_capacity(typed.len());
    for (draft, typed) in draft.nodes.iter().zip(typed) {
        let parallelism = parallelism(draft, &typed, job);
        let inputs = typed.inputs.iter().map(|edge| place_edge(edge, &typed.kind, nodes[edge.from].parallelism, parallelism)).collect();
        let kind = match typed.kind {
            TypedKind::Source(source) => NodeKind::Source(source.node),
            TypedKind::Operator { node, .. } => NodeKind::Operator(node),
            TypedKind::Sink(sink) => NodeKind::Sink(sink),
        };
        nodes.push(Node { id: draft.id.into(), kind, parallelism, inputs, rejected: draft.rejected.clone() });
    }
    JobPlan {
        tenant,
        job: spec.job.clone(),
        nodes,
        batching: batching(&spec.settings.batching),
        state_memory_bytes: spec.settings.state_memory.map_or(STATE_MEMORY_BYTES, ByteSize::as_bytes),
        durability,
    }
}

fn place_edge(edge: &TypedEdge, to: &TypedKind, producers: u32, consumers: u32) -> Edge {
    Edge {
        from: edge.from,
        output: edge.output,
        port: edge.port,
        exchange: exchange(edge, to, producers, consumers),
        columns: edge.columns.clone(),
    }
}

fn exchange(edge: &TypedEdge, to: &TypedKind, producers: u32, consumers: u32) -> Exchange {
    if let TypedKind::Operator { node, null_keys, .. } = to
        && let Some(keys) = node.keys.as_ref().map(|keys| &keys[edge.port])
    {
        let always_has_key = keys.iter().any(|&column| !edge.stream.schema.field(column).is_nullable());
        let drops_rows = *null_keys != NullKeys::Keep && !always_has_key && !keys.is_empty();
        if producers != 1 || consumers != 1 || drops_rows {
            return Exchange::Hash { keys: keys.clone(), null_keys: *null_keys };
        }
    }
    if producers == consumers { Exchange::Forward } else { Exchange::Rebalance }
}

fn batching(settings: &BatchingSettings) -> Batching {
    let default = Batching::default();
    let bytes = |size: Option<ByteSize>, default: usize| size.map_or(default, |size| size.as_bytes().max(1));
    Batching {
        rows: settings.rows.map_or(default.rows, std::num::NonZeroUsize::get),
        bytes: bytes(settings.bytes, default.bytes),
        wait: settings.wait.map_or(default.wait, crate::spec::DurationMs::as_duration),
        edge_bytes: bytes(settings.edge_bytes, default.edge_bytes),
    }
}
