//! Which nodes run fused in one subtask. Pure. The runtime builds its subtasks from it, `explain` prints it.
//!
//! A node joins the chain of its producers if all its inputs come from that chain, subtask by subtask, without moving a row: forward edges
//! of equal parallelism, and any edge between single subtasks. Every other node heads a chain of its own and is fed by queues. So edges
//! between chains lead to heads only, and the chains form an acyclic graph as the nodes do.

use super::{Edge, Exchange, JobPlan, NodeIndex};

/// The chains of a job.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// In topological order of their heads.
    pub chains: Vec<Chain>,
    /// The chain of each node.
    pub chain_of: Vec<usize>,
}

/// Nodes that run in one subtask.
#[derive(Debug, PartialEq, Eq)]
pub struct Chain {
    /// In topological order; the first is the head.
    pub nodes: Vec<NodeIndex>,
    /// Number of subtasks.
    pub parallelism: u32,
}

impl Chain {
    /// The node that is fed by queues or reads a source.
    pub fn head(&self) -> NodeIndex {
        self.nodes[0]
    }
}

/// The chains of `plan`. Every node is in exactly one.
pub fn layout(plan: &JobPlan) -> Layout {
    let mut layout = Layout { chains: Vec::new(), chain_of: Vec::with_capacity(plan.nodes.len()) };
    for (index, node) in plan.nodes.iter().enumerate() {
        let chain = match fused_into(plan, &layout, index) {
            Some(chain) => chain,
            None => {
                layout.chains.push(Chain { nodes: Vec::new(), parallelism: node.parallelism });
                layout.chains.len() - 1
            }
        };
        layout.chains[chain].nodes.push(index);
        layout.chain_of.push(chain);
    }
    layout
}

fn fused_into(plan: &JobPlan, layout: &Layout, index: NodeIndex) -> Option<usize> {
    let inputs = &plan.nodes[index].inputs;
    let chain = layout.chain_of[inputs.first()?.from];
    let fits = |edge: &Edge| layout.chain_of[edge.from] == chain && stays_in_subtask(plan, edge, index);
    inputs.iter().all(fits).then_some(chain)
}

/// Whether every row of the edge stays in the subtask of the same number.
pub fn stays_in_subtask(plan: &JobPlan, edge: &Edge, to: NodeIndex) -> bool {
    let (from, to) = (plan.nodes[edge.from].parallelism, plan.nodes[to].parallelism);
    from == to && (edge.exchange == Exchange::Forward || to == 1)
}
