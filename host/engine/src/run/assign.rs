//! Which subtask reads which split: the embedded assigner, in turn by the order in which splits are found.

use std::{collections::BTreeSet, sync::Arc};

use crate::connector::Split;

/// Assigns the splits of one source to its subtasks.
pub(super) struct Assigner {
    known: BTreeSet<Arc<str>>,
    parallelism: usize,
}

impl Assigner {
    pub(super) fn new(parallelism: u32) -> Self {
        Self { known: BTreeSet::new(), parallelism: parallelism as usize }
    }

    /// The new ones among `splits`, per subtask. A split stays with its subtask.
    pub(super) fn assign(&mut self, splits: Vec<Split>) -> Vec<Vec<Split>> {
        let mut assigned = vec![Vec::new(); self.parallelism];
        for split in splits {
            let next = self.known.len() % self.parallelism;
            if self.known.insert(split.id.clone()) {
                assigned[next].push(split);
            }
        }
        assigned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(assigned: &[Vec<Split>]) -> Vec<Vec<&str>> {
        assigned.iter().map(|splits| splits.iter().map(|split| split.id.as_ref()).collect()).collect()
    }

    #[test]
    fn splits_are_assigned_once_and_in_turn() {
        let split = |id: &str| Split { id: id.into(), detail: serde_json::Value::Null };
        let mut assigner = Assigner::new(2);
        assert_eq!(ids(&assigner.assign(vec![split("a"), split("b"), split("c")])), [vec!["a", "c"], vec!["b"]]);
        assert_eq!(ids(&assigner.assign(vec![split("a"), split("d"), split("b")])), [vec![], vec!["d"]]);
    }
}
