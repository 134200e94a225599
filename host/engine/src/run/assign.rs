//! Which subtask reads which split: an [`Assigner`] decides, [`Assignment`] remembers.

use std::{collections::BTreeSet, sync::Arc};

use millstream_model::ids::{OperatorId, SubtaskIndex};

use crate::{checkpoint::manifest::SplitManifest, connector::Split};

/// Places the splits of sources on subtasks. One of the seams where a job that runs in one process ends: this backend is [`InTurn`]; where
/// several processes run a job, the group that they form decides.
pub trait Assigner: Send + Sync {
    /// The subtask, below `parallelism`, that reads `split`: the split number `number` that was found of `source`, from 0. Asked once per
    /// split and attempt; a split stays with its subtask.
    fn subtask_of(&self, source: &OperatorId, split: &Split, number: usize, parallelism: u32) -> SubtaskIndex;
}

/// The embedded assigner: subtasks in turn, in the order in which splits are found.
#[derive(Clone, Copy, Debug, Default)]
pub struct InTurn;

impl Assigner for InTurn {
    fn subtask_of(&self, _source: &OperatorId, _split: &Split, number: usize, parallelism: u32) -> SubtaskIndex {
        SubtaskIndex((number % parallelism as usize) as u32)
    }
}

/// The splits of one source that have a subtask.
pub(super) struct Assignment {
    assigner: Arc<dyn Assigner>,
    source: OperatorId,
    parallelism: u32,
    known: BTreeSet<Arc<str>>,
}

impl Assignment {
    pub(super) fn new(assigner: Arc<dyn Assigner>, source: OperatorId, parallelism: u32) -> Self {
        Self { assigner, source, parallelism, known: BTreeSet::new() }
    }

    /// Splits that an earlier run has read in part, by subtask of then, per subtask: as they were, or assigned anew for another parallelism.
    pub(super) fn restore(&mut self, splits: Vec<Vec<SplitManifest>>) -> Vec<Vec<SplitManifest>> {
        self.known.extend(splits.iter().flatten().map(|split| Arc::from(split.id.as_str())));
        if splits.len() == self.parallelism as usize {
            return splits;
        }
        let mut assigned = vec![Vec::new(); self.parallelism as usize];
        let longest = splits.iter().map(Vec::len).max().unwrap_or(0);
        // In the order in which they were found, as far as that is known.
        let in_turn = (0..longest).flat_map(|place| splits.iter().filter_map(move |of_subtask| of_subtask.get(place)));
        for (number, found) in in_turn.enumerate() {
            let split = Split { id: found.id.as_str().into(), detail: found.detail.clone() };
            let subtask = self.assigner.subtask_of(&self.source, &split, number, self.parallelism);
            assigned[subtask.0 as usize].push(found.clone());
        }
        assigned
    }

    /// The new ones among `splits`, per subtask.
    pub(super) fn assign(&mut self, splits: Vec<Split>) -> Vec<Vec<Split>> {
        let mut assigned = vec![Vec::new(); self.parallelism as usize];
        for split in splits {
            let number = self.known.len();
            if self.known.insert(split.id.clone()) {
                let subtask = self.assigner.subtask_of(&self.source, &split, number, self.parallelism);
                assigned[subtask.0 as usize].push(split);
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
        let mut assignment = Assignment::new(Arc::new(InTurn), "source".into(), 2);
        assert_eq!(ids(&assignment.assign(vec![split("a"), split("b"), split("c")])), [vec!["a", "c"], vec!["b"]]);
        assert_eq!(ids(&assignment.assign(vec![split("a"), split("d"), split("b")])), [vec![], vec!["d"]]);
    }
}
