//! How elements cross between subtasks: the control plane of the exchange. It opens the two ends of every edge before rows flow.
//!
//! The ends are those of bounded queues in this process ([`super::queue`]), whatever lies between them, so rows cross without a virtual call.
//! In the embedded backend nothing lies between. A backend that reaches other processes makes a queue at either side, and moves what it reads
//! from the one to the other: on a topic, say. Which subtask a row goes to is not decided here but by the plan ([`crate::graph::Exchange`]).

use std::collections::HashMap;

use millstream_model::ids::JobId;

use super::queue::{Inbox, Sender, queues};
use crate::graph::NodeIndex;

/// Connects subtasks. One of the seams where a job that runs in one process ends: this backend is [`InProcess`].
pub trait Exchange: Send + Sync {
    /// The edges of one attempt to run `job`. Those of an earlier attempt carry nothing into it.
    fn open(&self, job: &JobId) -> Box<dyn Edges>;
}

/// The edges of one attempt. Opening an end does not fail: an end whose other side cannot be reached is disconnected when it is used.
pub trait Edges: Send {
    /// The receiving end of everything that comes into one subtask: edge `i` of the inbox is `edges[i]` and holds at most `bound_bytes`.
    fn receive(&mut self, edges: &[EdgeId], bound_bytes: usize) -> Inbox;

    /// The sending end of an edge.
    ///
    /// # Panics
    /// It was opened before, or its receiving end was not.
    fn send(&mut self, edge: EdgeId) -> Sender;
}

/// One edge: input number `input` of node `to`, from one subtask to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EdgeId {
    /// The node that reads.
    pub to: NodeIndex,
    /// Its input, by number.
    pub input: usize,
    /// The subtask that sends.
    pub producer: u32,
    /// The subtask that receives.
    pub consumer: u32,
}

/// The embedded exchange: both ends are in this process.
#[derive(Clone, Copy, Debug, Default)]
pub struct InProcess;

impl Exchange for InProcess {
    fn open(&self, _job: &JobId) -> Box<dyn Edges> {
        Box::new(InProcessEdges::default())
    }
}

/// The sending ends that nobody has taken yet.
#[derive(Default)]
struct InProcessEdges {
    senders: HashMap<EdgeId, Sender>,
}

impl Edges for InProcessEdges {
    fn receive(&mut self, edges: &[EdgeId], bound_bytes: usize) -> Inbox {
        let (senders, inbox) = queues(edges.iter().map(|edge| edge.input).collect(), bound_bytes);
        self.senders.extend(edges.iter().copied().zip(senders));
        inbox
    }

    fn send(&mut self, edge: EdgeId) -> Sender {
        self.senders.remove(&edge).expect("the receiving end of an edge is opened first, and each end once")
    }
}
