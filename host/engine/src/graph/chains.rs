//! Which nodes run fused in one subtask. The runtime builds its subtasks from it, `explain` prints it.
//!
//! A node joins the chain of its producer when it has a single input edge and that edge is [`Exchange::Forward`]; everything else begins a
//! chain. So a chain is a tree: it may branch, but only its head is fed by channels. A forward edge into a node with several inputs is a
//! channel from subtask i to subtask i.

use super::{Exchange, JobPlan, Node, NodeIndex};

/// Nodes that run fused in one subtask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The nodes in topological order. The first is the head; every other one has its single input edge from a node of the chain.
    pub nodes: Vec<NodeIndex>,
    /// Number of subtasks that run the chain.
    pub parallelism: u32,
}

/// The chains of a job, in the order of their heads. Every node is in exactly one.
pub fn chains(plan: &JobPlan) -> Vec<Chain> {
    let mut chains: Vec<Chain> = Vec::new();
    let mut chain_of: Vec<usize> = Vec::with_capacity(plan.nodes.len());
    for (index, node) in plan.nodes.iter().enumerate() {
        let chain = fused_into(node).map_or(chains.len(), |producer| chain_of[producer]);
        if chain == chains.len() {
            chains.push(Chain { nodes: Vec::new(), parallelism: node.parallelism });
        }
        chains[chain].nodes.push(index);
        chain_of.push(chain);
    }
    chains
}

/// The node whose chain `node` joins; none: it begins one.
pub fn fused_into(node: &Node) -> Option<NodeIndex> {
    match node.inputs.as_slice() {
        [edge] if edge.exchange == Exchange::Forward => Some(edge.from),
        _ => None,
    }
}
