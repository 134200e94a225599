//! The planned job: a typed, acyclic graph. `plan` makes it from a spec, `run` executes it, `explain` prints it.
//!
//! Nodes stand in topological order: every edge goes from a lower index to a higher one.

mod chains;
mod durability;

pub use chains::{Chain, chains, stays_in_subtask};
pub use durability::{Backups, Checkpoints, Durability, Restart};

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millstream_model::{
    StreamType,
    ids::{JobId, OperatorId, TenantId},
};

use crate::{
    connector::{Sink, Source},
    operator::{OperatorPlan, OutputPort},
    rejected::RejectedPolicy,
};

/// A job that can run: everything is checked, typed and placed.
#[derive(Clone)]
pub struct JobPlan {
    /// The owner.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The nodes, in topological order.
    pub nodes: Vec<Node>,
    /// How batches are cut and joined.
    pub batching: Batching,
    /// Memory for the state of the whole job, in bytes.
    pub state_memory_bytes: usize,
    /// What a durable run promises, and how.
    pub durability: Durability,
}

/// When rows are handed on: whichever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batching {
    /// Most rows of a batch. Default: 8,192.
    pub rows: usize,
    /// Most bytes of a batch. Default: 1 MiB.
    pub bytes: usize,
    /// Longest wait for more rows. Default: 5 ms.
    pub wait: Duration,
    /// Bound of the queue of one edge between subtasks, in bytes. Default: 256 KiB.
    pub edge_bytes: usize,
}

impl Default for Batching {
    fn default() -> Self {
        Self { rows: 8_192, bytes: 1 << 20, wait: Duration::from_millis(5), edge_bytes: 256 << 10 }
    }
}

/// Number of a node in [`JobPlan::nodes`].
pub type NodeIndex = usize;

/// One source, operator or sink.
#[derive(Clone)]
pub struct Node {
    /// Its id in the job file.
    pub id: OperatorId,
    /// What it does.
    pub kind: NodeKind,
    /// Number of parallel instances.
    pub parallelism: u32,
    /// Its inputs, in port order; a port fed by several streams (union, `inputs:` of a sink) has several edges.
    pub inputs: Vec<Edge>,
    /// What becomes of its rejected rows.
    pub rejected: RejectedPolicy,
}

/// What a node does.
#[derive(Clone)]
pub enum NodeKind {
    /// Reads a source and assigns event times.
    Source(SourceNode),
    /// Runs an operator.
    Operator(OperatorNode),
    /// Writes a sink.
    Sink(Arc<dyn Sink>),
}

/// A source and how its event times are found.
#[derive(Clone)]
pub struct SourceNode {
    /// The source, producing only the columns that the job reads (and those that event time needs).
    pub source: Arc<dyn Source>,
    /// The same with all its columns.
    pub whole: Arc<dyn Source>,
    /// Where event times come from; none: the stream has none.
    pub event_time: Option<EventTimePlan>,
    /// The stream that leaves the node.
    pub output: StreamType,
    /// Number of leading columns of the source that leave the node; columns read only for the event time stand behind them.
    pub columns_out: usize,
}

/// Event times and watermarks of a source.
#[derive(Clone)]
pub struct EventTimePlan {
    /// Where the event time of a row comes from.
    pub from: EventTimeFrom,
    /// How much older than the newest row of its split a row may be, in ms: W = max − bound − 1.
    pub bound_ms: i64,
    /// A split that was asked and had nothing for this long no longer holds the watermark; none: off. Bounded splits never idle.
    pub idle_timeout: Option<Duration>,
    /// A split whose watermark is ahead of the slowest one by more than this is not read; none: off.
    pub max_drift: Option<Duration>,
}

/// Where the event time of a row comes from.
#[derive(Clone)]
pub enum EventTimeFrom {
    /// The source sets it.
    Source,
    /// A timestamp column (any unit) or an Int64 column of ms since epoch, by number in the source's columns.
    Column(usize),
    /// An expression over the source's columns that gives a timestamp or Int64 ms since epoch.
    Expression(millstream_expr::Expression),
}

/// An operator with what the engine does around it.
#[derive(Clone)]
pub struct OperatorNode {
    /// The operator itself.
    pub plan: Arc<dyn OperatorPlan>,
    /// Types of its input ports.
    pub inputs: Vec<StreamType>,
    /// The key columns of each input port, by number; none: not keyed. All ports are keyed or none is.
    pub keys: Option<Vec<Vec<usize>>>,
    /// In which order rows of a key reach it.
    pub order: RowOrder,
}

/// In which order rows of a key reach an operator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RowOrder {
    /// As they come: per key, rows of one input in the order of their split.
    #[default]
    Arrival,
    /// Held until the watermark passes them, then sorted by (event time, arrival). What happens to a key, and in which order, does not depend
    /// on how far a watermark jumps: before a row of the key at time r its timers at t < r have fired (a timer at r fires after the
    /// row). So an operator that declares event-time timers gets at most one row per key in a call, rounds alternating with its due
    /// timers; one without gets whole batches. The watermark of a call is shared by its keys, so it does depend on what else is
    /// released: rows come under one ms before the earliest row that is still to be delivered (r − 1 where rows come one at a time),
    /// timers between them under the latest timer of their call.
    EventTime,
}

/// What becomes of rows whose key is null in every column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum NullKeys {
    /// A null key is a key.
    #[default]
    Keep,
    /// Dropped and counted.
    Drop,
    /// Rejected.
    Reject,
}

/// A stream into an input port.
#[derive(Clone, Debug)]
pub struct Edge {
    /// The node it comes from.
    pub from: NodeIndex,
    /// The output it comes from.
    pub output: OutputPort,
    /// The input port it feeds.
    pub port: usize,
    /// How rows find their subtask.
    pub exchange: Exchange,
    /// The columns of the producer's output that cross, by number; none: all.
    pub columns: Option<Vec<usize>>,
}

/// How rows find their subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// Subtask i to subtask i; both nodes have the same parallelism. No channel and no copy where [`chains`] fuses them into one chain.
    Forward,
    /// By the hash of the key to the owner of its key group.
    Hash {
        /// The key columns, by their numbers in the rows that cross.
        keys: Vec<usize>,
        /// What becomes of rows whose key is null.
        null_keys: NullKeys,
    },
    /// Every row to every subtask.
    Broadcast,
    /// Batches in turn to every subtask.
    Rebalance,
}

impl JobPlan {
    /// The same job with other versions of some operators, each planned for the same inputs.
    pub(crate) fn with_versions(&self, versions: &BTreeMap<NodeIndex, Arc<dyn OperatorPlan>>) -> Self {
        let mut plan = self.clone();
        for (&node, version) in versions {
            if let NodeKind::Operator(operator) = &mut plan.nodes[node].kind {
                operator.plan = version.clone();
            }
        }
        plan
    }
}

impl Node {
    /// The type of one of its outputs; none if it has no such output.
    pub fn output_type(&self, output: OutputPort) -> Option<StreamType> {
        match (&self.kind, output) {
            (NodeKind::Sink(_), _) => None,
            (_, OutputPort::Rejected) => Some(StreamType { schema: crate::rejected::schema(), event_times: false, changes: false }),
            (NodeKind::Source(source), OutputPort::Port(0)) => Some(source.output.clone()),
            (NodeKind::Source(_), _) => None,
            (NodeKind::Operator(operator), OutputPort::Port(port)) => operator.plan.outputs().get(port).map(|(_, stream)| stream.clone()),
            (NodeKind::Operator(operator), OutputPort::Late) => operator.inputs.first().cloned(),
        }
    }
}
