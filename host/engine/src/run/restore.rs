//! What a run goes on from: a committed checkpoint or a savepoint, matched with the plan and split among the subtasks of now.
//!
//! Sources, operators and sinks are found by their ids in the job file; what is found by no id is an error unless the user allows by name that it
//! be forgotten. With the parallelism of then every subtask goes on exactly where its predecessor was. With another one keyed state and
//! held rows go by key group, splits are assigned anew, and a watermark is the lowest that a subtask of then had: a row may be in time that
//! would have been late, but none is late that was in time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    path::Path,
    sync::Arc,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use millstream_model::{Batch, Watermark, ids::OperatorId, ids::SubtaskIndex, key::KeyGroup};
use millstream_state::SnapshotPart;
use millstream_storage::CheckpointStorage;
use serde_json::Value;

use super::{handle::OperatorKind, held, outlet::keys_of};
use crate::{
    checkpoint::{
        files::{self, FileWork},
        manifest::{Manifest, OperatorManifest, SplitManifest, StateManifest, SubtaskManifest},
    },
    graph::{JobPlan, Node, NodeIndex, NodeKind, OperatorNode},
    operator::{OperatorError, Restored},
};

/// Files that are fetched at the same time.
const FETCHES_AT_ONCE: usize = 8;

/// How the ids of a checkpoint become those of the job file.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    /// Id in the checkpoint → id in the job file.
    pub(super) renames: BTreeMap<String, String>,
    /// What may be forgotten: an operator's id, or `<id>.<state or timer>`.
    pub(super) allow_dropped: BTreeSet<String>,
    /// Another job goes on from it: what the sinks remember belongs to that one.
    pub(super) is_fork: bool,
}

/// Where what a manifest names is fetched from.
#[derive(Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) storage: &'a dyn CheckpointStorage,
    /// The path below which the files lie.
    pub(super) files_prefix: &'a str,
    /// Where they are checked.
    pub(super) file_work: FileWork,
}

/// What the nodes of a run go on from. Empty: a fresh start.
#[derive(Default)]
pub(super) struct RestoredJob {
    nodes: HashMap<NodeIndex, RestoredNode>,
    may_drop: Arc<BTreeSet<String>>,
}

/// What one node goes on from.
pub(super) struct RestoredNode {
    /// By subtask of then.
    subtasks: Vec<RestoredSubtask>,
}

struct RestoredSubtask {
    manifest: SubtaskManifest,
    state: Option<SnapshotPart>,
    held: Vec<(usize, Bytes)>,
}

/// What the plan makes of a manifest, before anything is fetched.
pub(super) struct Matched<'a> {
    nodes: Vec<(NodeIndex, &'a OperatorManifest)>,
}

/// Finds the node of everything that the manifest holds.
///
/// # Errors
/// Something is found by no id, or became something else.
pub(super) fn match_nodes<'a>(plan: &JobPlan, manifest: &'a Manifest, mapping: &Mapping) -> Result<Matched<'a>, OperatorError> {
    let mut nodes = Vec::new();
    let mut unmatched = Vec::new();
    if let Some(unknown) = mapping.renames.keys().find(|old| !manifest.operators.contains_key(&OperatorId::from(old.as_str()))) {
        return Err(OperatorError::user(format!("the checkpoint holds nothing of `{unknown}`, which is to be renamed")));
    }
    if let Some((old, new)) = mapping.renames.iter().find(|(_, new)| plan.nodes.iter().all(|node| node.id.as_str() != *new)) {
        return Err(OperatorError::user(format!("`{old}` is to be renamed to `{new}`, but the job has no `{new}`")));
    }
    for (id, operator) in &manifest.operators {
        let name = mapping.renames.get(id.as_str()).map_or(id.as_str(), String::as_str);
        match plan.nodes.iter().position(|node| node.id.as_str() == name) {
            Some(node) if kind_of(&plan.nodes[node]) == operator.kind => nodes.push((node, operator)),
            Some(_) if !holds_anything(operator) => {}
            Some(_) if mapping.allow_dropped.contains(id.as_str()) => {}
            Some(_) => {
                let was = OperatorKindName(operator.kind);
                return Err(OperatorError::user(format!("`{name}` was {was} when the checkpoint was taken, and is something else now")));
            }
            None if holds_anything(operator) && !mapping.allow_dropped.contains(id.as_str()) => unmatched.push(id.to_string()),
            None => {}
        }
    }
    match unmatched.as_slice() {
        [] => Ok(Matched { nodes }),
        [one] => Err(OperatorError::user(format!(
            "the checkpoint holds what `{one}` remembers, but the job has no `{one}`: say its new name, or allow by name that it be forgotten"
        ))),
        all => Err(OperatorError::user(format!(
            "the checkpoint holds what `{}` remember, which the job does not have: say their new names, or allow by name that they be forgotten",
            all.join("`, `")
        ))),
    }
}

/// Whether every operator can go on from its keyed state, by names and types alone.
///
/// # Errors
/// One cannot; every reason is named.
pub(super) fn check_state(plan: &JobPlan, matched: &Matched<'_>, mapping: &Mapping) -> Result<(), OperatorError> {
    for (node, operator) in &matched.nodes {
        let (node, NodeKind::Operator(planned)) = (&plan.nodes[*node], &plan.nodes[*node].kind) else { continue };
        let Some(declared) = planned.plan.declared() else { continue };
        let restored = Restored { may_drop: Arc::new(mapping.allow_dropped.clone()), ..Restored::default() };
        let states = operator.subtasks.iter().filter_map(|subtask| subtask.state.as_ref());
        let check = |state: &StateManifest| declared.check(&state.description, |name| restored.may_forget(&node.id, name));
        if let Some(reasons) = states.map(check).find_map(Result::err) {
            let failed = OperatorError::user(format!("`{}` cannot go on from the state that the checkpoint holds", node.id));
            return Err(failed.because(reasons.join("; ")));
        }
    }
    Ok(())
}

struct OperatorKindName(OperatorKind);

impl std::fmt::Display for OperatorKindName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            OperatorKind::Source => "a source",
            OperatorKind::Operator => "an operator",
            OperatorKind::Sink => "a sink",
        })
    }
}

/// What a node is.
pub(super) fn kind_of(node: &Node) -> OperatorKind {
    match node.kind {
        NodeKind::Source(_) => OperatorKind::Source,
        NodeKind::Operator(_) => OperatorKind::Operator,
        NodeKind::Sink(_) => OperatorKind::Sink,
    }
}

/// Whether something would be lost with it. What a sink had staged is published, so it may go.
fn holds_anything(operator: &OperatorManifest) -> bool {
    operator.kind != OperatorKind::Sink
        && operator.subtasks.iter().any(|subtask| {
            subtask.state.is_some() || !subtask.held_rows.is_empty() || !subtask.value.is_null() || !subtask.splits.is_empty()
        })
}

impl RestoredJob {
    /// Fetches the files of a matched checkpoint into `directory`, each once.
    ///
    /// # Errors
    /// A file is missing or damaged, or the storage does not answer.
    pub(super) async fn fetch(matched: Matched<'_>, mapping: &Mapping, from: Origin<'_>, directory: &Path) -> Result<Self, files::Error> {
        let mut fetches: Vec<BoxFuture<'_, Result<(NodeIndex, RestoredSubtask), files::Error>>> = Vec::new();
        for (node, operator) in &matched.nodes {
            for (index, subtask) in operator.subtasks.iter().enumerate() {
                let into = directory.join(format!("{node}-{index}"));
                let fetch = async move { Ok((*node, RestoredSubtask::fetch(subtask, from, &into).await?)) };
                fetches.push(fetch.boxed());
            }
        }
        // In order: the subtasks of a node come as they were.
        let fetched: Vec<(NodeIndex, RestoredSubtask)> = stream::iter(fetches).buffered(FETCHES_AT_ONCE).try_collect().await?;
        let mut nodes: HashMap<NodeIndex, RestoredNode> = HashMap::new();
        for (node, mut subtask) in fetched {
            if mapping.is_fork {
                subtask.forget_staged(&matched, node);
            }
            nodes.entry(node).or_insert_with(|| RestoredNode { subtasks: Vec::new() }).subtasks.push(subtask);
        }
        Ok(Self { nodes, may_drop: Arc::new(mapping.allow_dropped.clone()) })
    }

    /// Whether operator `id` goes on from something. (Not a source or sink: those may fail because of the outside.)
    pub(super) fn is_of_operator(&self, plan: &JobPlan, id: &OperatorId) -> bool {
        self.nodes.keys().map(|&node| &plan.nodes[node]).any(|node| node.id == *id && matches!(node.kind, NodeKind::Operator(_)))
    }

    /// What `node` goes on from; none: it begins.
    pub(super) fn node(&self, node: NodeIndex) -> Option<&RestoredNode> {
        self.nodes.get(&node)
    }

    /// What one operator instance goes on from.
    pub(super) fn operator(&self, node: NodeIndex, index: SubtaskIndex, parallelism: u32) -> Option<Arc<Restored>> {
        let restored = self.node(node)?;
        Some(Arc::new(Restored {
            watermark: restored.watermark(index, parallelism),
            state: restored.state(&KeyGroup::owned_by(index, parallelism), index, parallelism),
            values: restored.values().filter(|value| !value.is_null()).cloned().collect(),
            may_drop: self.may_drop.clone(),
        }))
    }

    /// What the writers of a sink had returned, by subtask of then.
    pub(super) fn staged(&self, node: NodeIndex) -> Arc<[Value]> {
        self.node(node).map_or_else(Arc::default, |restored| restored.values().cloned().collect())
    }
}

impl RestoredSubtask {
    async fn fetch(manifest: &SubtaskManifest, from: Origin<'_>, into: &Path) -> Result<Self, files::Error> {
        let Origin { storage, files_prefix, file_work } = from;
        let state = match &manifest.state {
            Some(state) => Some(files::fetch_state(file_work, storage, files_prefix, state, into).await?),
            None => None,
        };
        let mut held = Vec::with_capacity(manifest.held_rows.len());
        for (port, file) in &manifest.held_rows {
            held.push((*port, files::fetch_bytes(storage, files_prefix, file).await?));
        }
        Ok(Self { manifest: manifest.clone(), state, held })
    }

    fn forget_staged(&mut self, matched: &Matched<'_>, node: NodeIndex) {
        if matched.nodes.iter().any(|(of, operator)| *of == node && operator.kind == OperatorKind::Sink) {
            self.manifest.value = Value::Null;
        }
    }
}

impl RestoredNode {
    fn values(&self) -> impl Iterator<Item = &Value> {
        self.subtasks.iter().map(|subtask| &subtask.manifest.value)
    }

    /// Whether subtask i of now is subtask i of then.
    fn is_same(&self, parallelism: u32) -> bool {
        self.subtasks.len() == parallelism as usize
    }

    fn lowest(&self, index: SubtaskIndex, parallelism: u32, of: fn(&SubtaskManifest) -> Option<i64>) -> Option<Watermark> {
        if self.is_same(parallelism) {
            return of(&self.subtasks[index.0 as usize].manifest).map(Watermark);
        }
        // None, nothing known yet, is the lowest of all.
        self.subtasks.iter().map(|subtask| of(&subtask.manifest)).min().flatten().map(Watermark)
    }

    /// The merged watermark that subtask `index` had.
    pub(super) fn watermark(&self, index: SubtaskIndex, parallelism: u32) -> Option<Watermark> {
        self.lowest(index, parallelism, |subtask| subtask.watermark)
    }

    /// The watermark that subtask `index` had sent on.
    pub(super) fn sent(&self, index: SubtaskIndex, parallelism: u32) -> Option<Watermark> {
        self.lowest(index, parallelism, |subtask| subtask.sent_watermark)
    }

    /// The snapshots that hold state of `groups`.
    fn state(&self, groups: &Range<u16>, index: SubtaskIndex, parallelism: u32) -> Vec<SnapshotPart> {
        if self.is_same(parallelism) {
            return self.subtasks[index.0 as usize].state.iter().cloned().collect();
        }
        let overlaps = |part: &&SnapshotPart| part.key_groups.start < groups.end && groups.start < part.key_groups.end;
        self.subtasks.iter().filter_map(|subtask| subtask.state.as_ref()).filter(overlaps).cloned().collect()
    }

    /// The splits of a source, by subtask of then.
    pub(super) fn splits(&self) -> Vec<Vec<SplitManifest>> {
        self.subtasks.iter().map(|subtask| subtask.manifest.splits.clone()).collect()
    }

    /// The held rows of subtask `index`, per port in the order of their arrival.
    ///
    /// # Errors
    /// They are damaged, or have not the columns that the operator reads now.
    pub(super) fn held(
        &self,
        operator: &OperatorNode,
        index: SubtaskIndex,
        parallelism: u32,
    ) -> Result<Vec<(usize, Batch)>, OperatorError> {
        let mut mine = Vec::new();
        for (number, subtask) in self.subtasks.iter().enumerate() {
            for (port, bytes) in &subtask.held {
                let place = Place { index, parallelism, is_same: self.is_same(parallelism), number };
                let Some(input) = operator.inputs.get(*port) else {
                    return Err(OperatorError::user(format!("rows are held for input {port}, which the operator no longer has")));
                };
                let runs = held::decode(bytes, &input.schema).map_err(|error| {
                    OperatorError::user("the rows that a checkpoint holds in event-time order cannot be given to the operator")
                        .because(error)
                })?;
                let keys = operator.keys.as_ref().map(|keys| &keys[*port][..]);
                mine.extend(runs.into_iter().filter_map(|run| place.rows_of(run, keys)).map(|run| (*port, run)));
            }
        }
        Ok(mine)
    }

    /// Whether rows are held.
    pub(super) fn holds_rows(&self) -> bool {
        self.subtasks.iter().any(|subtask| !subtask.held.is_empty())
    }
}

/// Which of the held rows of subtask `number` of then belong to subtask `index` of now.
struct Place {
    index: SubtaskIndex,
    parallelism: u32,
    is_same: bool,
    number: usize,
}

impl Place {
    fn rows_of(&self, run: Batch, keys: Option<&[usize]>) -> Option<Batch> {
        if self.is_same {
            return (self.number == self.index.0 as usize).then_some(run);
        }
        let Some(keys) = keys else {
            // Rows without a key may be anywhere.
            return (self.number % self.parallelism as usize == self.index.0 as usize).then_some(run);
        };
        let hashes = keys_of(&run, keys);
        let is_mine = |row: &u32| KeyGroup::of_hash(hashes.hashes()[*row as usize]).owner(self.parallelism) == self.index;
        let rows: Vec<u32> = (0..run.num_rows() as u32).filter(is_mine).collect();
        (!rows.is_empty()).then(|| run.take(&rows))
    }
}
