//! Which nodes run fused in one subtask. The runtime builds its subtasks from it, `explain` prints it.
//!
//! A node joins the chain of its producers if all its inputs come from that chain and no row leaves its subtask on the way: forward edges
//! between equal parallelism, and any edge between single subtasks. Every other node heads a chain of its own and is fed by channels. So
//! edges between chains lead to heads only, a chain may branch and join again, and the chains form an acyclic graph as the nodes do.

use super::{Edge, Exchange, JobPlan, NodeIndex};

/// Nodes that run fused in one subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The nodes in topological order. The first is the head; every other one has all its inputs from nodes of the chain.
    pub nodes: Vec<NodeIndex>,
    /// Number of subtasks that run the chain.
    pub parallelism: u32,
}

impl Chain {
    /// The node that reads a source or is fed by channels.
    pub fn head(&self) -> NodeIndex {
        self.nodes[0]
    }
}

/// The chains of a job, in the order of their heads. Every node is in exactly one.
pub fn chains(plan: &JobPlan) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut chain_of: Vec<usize> = Vec::with_capacity(plan.nodes.len());
    for (index, node) in plan.nodes.iter().enumerate() {
        let chain = fused_into(plan, &chain_of, index).unwrap_or(chains.len());
        if chain == chains.len() {
            chains.push(Chain { nodes: Vec::new(), parallelism: node.parallelism });
        }
        chains[chain].nodes.push(index);
        chain_of.push(chain);
    }
    chains
}

/// The chain that a node joins; none: it begins one.
fn fused_into(plan: &JobPlan, chain_of: &[usize], index: NodeIndex) -> Option<usize> {
    let inputs = &plan.nodes[index].inputs;
    let chain = chain_of[inputs.first()?.from];
    inputs.iter().all(|edge| chain_of[edge.from] == chain && stays_in_subtask(plan, edge, index)).then_some(chain)
}

/// Whether every row of the edge into `to` stays in the subtask of the same number.
pub fn stays_in_subtask(plan: &JobPlan, edge: &Edge, to: NodeIndex) -> bool {
    let (producers, consumers) = (plan.nodes[edge.from].parallelism, plan.nodes[to].parallelism);
    producers == consumers && (edge.exchange == Exchange::Forward || consumers == 1)
}
