//! How more columns come to an operator while the job runs, so that a version which reads them can take its place.
//!
//! What no operator reads is not read from the source and crosses no exchange (`plan::needs`). A version that reads more is therefore planned for streams
//! that carry more: the whole job is planned again, its operators as they run, its streams with those columns ([`Replan`]). [`widened`] compares that plan
//! with what runs, and says which nodes have to change with it. They change at one barrier: every row before it is narrow and every row behind it is wide,
//! on every edge, since a subtask reads nothing behind a barrier of one input before it has come on all. Who reads and who passes rows on
//! goes on where it was, with the version that it had; only then the swap itself begins, as any other ([`super::swapping`]). A way back leads to the old
//! version on wide streams, and nothing ever has to become narrow again while the job runs.
//!
//! Refused where rows that came before the barrier are still held: they lack the columns, and no value is invented for them.
//!
//! Words: *narrow* streams are those of before, *wide* ones carry more columns. Pure but for [`Replan`].

use std::{collections::BTreeSet, fmt, sync::Arc};

use arrow_schema::SchemaRef;
use async_trait::async_trait;

use super::swap::{SwapError, SwapRefusal};
use crate::{
    graph::{Edge, Exchange, JobPlan, Node, NodeIndex, NodeKind, OperatorNode, RowOrder, SourceNode},
    plan::AlsoRead,
};

/// What new versions read, and who plans the job with it.
#[derive(Clone)]
pub struct Widening {
    /// The columns that the new versions read.
    pub reads: AlsoRead,
    /// Plans the job as it runs.
    pub planner: Arc<dyn Replan>,
}

impl fmt::Debug for Widening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Widening").field("reads", &self.reads).finish_non_exhaustive()
    }
}

/// Plans a running job again.
#[async_trait]
pub trait Replan: Send + Sync {
    /// The job with the versions that run, as [`crate::plan::plan_with`] plans it.
    ///
    /// # Errors
    /// It cannot be planned; one clause.
    async fn replan(&self, also_read: &AlsoRead) -> Result<JobPlan, String>;
}

/// Knows whether what the settings of a job refer to (its secrets) has become something else.
#[async_trait]
pub trait Afresh: Send + Sync {
    /// Who plans the job with what it refers to now; none: that is what it was planned with.
    async fn changed(&self) -> Option<Arc<dyn Replan>>;
}

/// `running` as it is planned now.
///
/// # Errors
/// It cannot be planned, or is another job than `running` now; one clause.
pub(super) async fn planned_afresh(planner: &dyn Replan, running: &JobPlan) -> Result<JobPlan, String> {
    let planned = planner.replan(&carried(running)).await?;
    if is_same_job(running, &planned) { Ok(planned) } else { Err("its streams or operators would be others".into()) }
}

/// A running job with wider streams.
pub(super) struct Widened {
    pub(super) plan: JobPlan,
    /// Operators whose inputs are wider.
    pub(super) operators: Vec<NodeIndex>,
    /// Sources that read more.
    pub(super) sources: Vec<NodeIndex>,
}

/// What has to be carried for `reads`, together with what is carried already; none: everything is.
pub(super) fn missing(running: &JobPlan, reads: &AlsoRead) -> Option<AlsoRead> {
    let mut all = carried(running);
    let mut is_missing = false;
    for (operator, ports) in reads {
        let Some(known) = all.get_mut(operator) else { continue };
        for (known, wanted) in known.iter_mut().zip(ports) {
            is_missing |= !wanted.is_subset(known);
            known.extend(wanted.iter().cloned());
        }
    }
    is_missing.then_some(all)
}

fn carried(running: &JobPlan) -> AlsoRead {
    let names = |schema: &SchemaRef| -> BTreeSet<String> { schema.fields().iter().map(|field| field.name().clone()).collect() };
    let of = |node: &Node| match &node.kind {
        NodeKind::Operator(operator) => Some((node.id.clone(), operator.inputs.iter().map(|input| names(&input.schema)).collect())),
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
    };
    running.nodes.iter().filter_map(of).collect()
}

/// `running` with the streams of `wide`.
///
/// # Errors
/// `wide` is not the same job, or something holds rows that lack the columns.
pub(super) fn widened(running: &JobPlan, wide: JobPlan) -> Result<Widened, SwapError> {
    let mut widened = Widened { plan: running.clone(), operators: Vec::new(), sources: Vec::new() };
    let mut refusals = Vec::new();
    if running.nodes.len() != wide.nodes.len() {
        return Err(another_job());
    }
    for (index, (old, new)) in running.nodes.iter().zip(wide.nodes).enumerate() {
        if !is_same_place(old, &new) {
            return Err(another_job());
        }
        let node = &mut widened.plan.nodes[index];
        node.inputs = new.inputs;
        let wider = match (&old.kind, new.kind) {
            (NodeKind::Source(old), NodeKind::Source(new)) => wider_source(old, &new).map(|wider| {
                widened.sources.extend(wider.is_some().then_some(index));
                wider.map(NodeKind::Source)
            }),
            (NodeKind::Operator(old), NodeKind::Operator(new)) => wider_operator(old, new).map(|wider| {
                widened.operators.extend(wider.is_some().then_some(index));
                wider.map(NodeKind::Operator)
            }),
            (NodeKind::Sink(_), NodeKind::Sink(_)) => Ok(None),
            _ => return Err(another_job()),
        };
        match wider {
            Ok(Some(kind)) => node.kind = kind,
            Ok(None) => {}
            Err(reason) => refusals.push(SwapRefusal { operator: old.id.clone(), differences: vec![reason] }),
        }
    }
    if !refusals.is_empty() {
        return Err(SwapError::Incompatible { refusals });
    }
    if !sinks_are_as_they_were(running, &widened.plan) {
        return Err(another_job());
    }
    Ok(widened)
}

fn another_job() -> SwapError {
    SwapError::Invalid { reason: "the job that was planned to carry more columns is not the one that runs".into() }
}

fn is_same_place(old: &Node, new: &Node) -> bool {
    let is_same_edge = |(old, new): (&Edge, &Edge)| {
        let is_same_exchange = match (&old.exchange, &new.exchange) {
            (Exchange::Hash { keys, null_keys }, Exchange::Hash { keys: new_keys, null_keys: new_null_keys }) => {
                keys.len() == new_keys.len() && null_keys == new_null_keys
            }
            (old, new) => old == new,
        };
        (old.from, old.output, old.port) == (new.from, new.output, new.port) && is_same_exchange
    };
    (&old.id, old.parallelism) == (&new.id, new.parallelism)
        && old.inputs.len() == new.inputs.len()
        && old.inputs.iter().zip(&new.inputs).all(is_same_edge)
}

/// Whether these differ in nothing but the settings of their connectors, and in what settings of components stand for.
fn is_same_job(old: &JobPlan, new: &JobPlan) -> bool {
    let is_same = |(old, new): (&Node, &Node)| {
        let is_same_kind = match (&old.kind, &new.kind) {
            (NodeKind::Source(old), NodeKind::Source(new)) => old.output == new.output && old.source.schema() == new.source.schema(),
            (NodeKind::Operator(old), NodeKind::Operator(new)) => old.inputs == new.inputs && old.plan.version() == new.plan.version(),
            (NodeKind::Sink(_), NodeKind::Sink(_)) => true,
            _ => false,
        };
        is_same_kind && is_same_place(old, new)
    };
    old.nodes.len() == new.nodes.len() && old.nodes.iter().zip(&new.nodes).all(is_same) && sinks_are_as_they_were(old, new)
}

/// The source that runs, reading what `new` does; none: it does already.
fn wider_source(old: &SourceNode, new: &SourceNode) -> Result<Option<SourceNode>, String> {
    let wanted = new.source.schema();
    if old.source.schema().fields() == wanted.fields() && old.output == new.output {
        return Ok(None);
    }
    if !old.source.reopens() {
        return Err(format!(
            "it would have to read {} from here on, and cannot be opened again while it is read",
            more(&old.source.schema(), &wanted)
        ));
    }
    let whole = old.whole.schema();
    let columns: Result<Vec<usize>, _> = wanted.fields().iter().map(|field| whole.index_of(field.name())).collect();
    let columns = columns.map_err(|_| format!("it has no columns {} any more", more(&whole, &wanted)))?;
    Ok(Some(SourceNode { source: old.whole.project(&columns), whole: old.whole.clone(), ..new.clone() }))
}

/// The version that runs, planned for wider inputs; none: they are not wider.
fn wider_operator(old: &OperatorNode, new: OperatorNode) -> Result<Option<OperatorNode>, String> {
    if old.inputs == new.inputs {
        return Ok(None);
    }
    let added: Vec<String> = old.inputs.iter().zip(&new.inputs).map(|(old, new)| more(&old.schema, &new.schema)).collect();
    let added = added.join(", ");
    if old.order == RowOrder::EventTime {
        return Err(format!("it holds rows in event-time order that came without {added}"));
    }
    if old.plan.holds_rows() {
        return Err(format!("it holds rows, or what it has made of them, that came without {added}"));
    }
    if old.plan.version() != new.plan.version() {
        return Err("another version of it was planned than the one that runs".to_owned());
    }
    let declares = |node: &OperatorNode| node.plan.declared().map(|declared| (declared.states, declared.timers));
    if declares(old) != declares(&new) {
        return Err(format!("it declares other state where {added} can be read"));
    }
    Ok(Some(new))
}

fn more(old: &SchemaRef, new: &SchemaRef) -> String {
    let added = new.fields().iter().filter(|field| old.column_with_name(field.name()).is_none());
    added.map(|field| format!("`{}`", field.name())).collect::<Vec<_>>().join(", ")
}

fn sinks_are_as_they_were(old: &JobPlan, new: &JobPlan) -> bool {
    let sinks = old.nodes.iter().zip(&new.nodes).filter(|(node, _)| matches!(node.kind, NodeKind::Sink(_)));
    let mut edges = sinks.flat_map(|(before, after)| before.inputs.iter().zip(&after.inputs));
    edges.all(|(before, after)| crossing(old, before) == crossing(new, after))
}

/// The columns that cross an edge.
fn crossing(plan: &JobPlan, edge: &Edge) -> Option<SchemaRef> {
    let schema = plan.nodes[edge.from].output_type(edge.output)?.schema;
    match &edge.columns {
        Some(columns) => schema.project(columns).ok().map(Arc::new),
        None => Some(schema),
    }
}
