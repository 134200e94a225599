//! The checkpoint under way: what has come of it so far, and what it becomes (a manifest, a report).

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use millstream_model::{
    ids::{CheckpointId, SubtaskIndex},
    types::type_text,
};

use super::{Answer, HeldAnswer, Swapped, Written};
use crate::{
    checkpoint::{
        coordinator::SavepointNumber,
        manifest::{KeyColumn, Manifest, OperatorManifest, SubtaskManifest},
    },
    clock::Clock,
    graph::{JobPlan, NodeIndex, NodeKind},
    run::{
        handle::{CheckpointOutcome, CheckpointReport, OperatorKind},
        job::lock,
        restore::kind_of,
        snapshot::Timings,
        upload::Uploaded,
    },
};

/// Checkpoints that are remembered for people.
const HISTORY: usize = 100;

/// Reports of past checkpoints; they outlive an attempt.
pub(in crate::run) type History = Arc<Mutex<VecDeque<CheckpointReport>>>;

/// The checkpoint under way.
pub(super) struct Current {
    pub(super) checkpoint: CheckpointId,
    /// Its barrier was sent: processing time, for people.
    pub(super) created_ms: i64,
    /// The same in elapsed time.
    pub(super) began_ms: i64,
    pub(super) answers: Vec<Answer>,
    pub(super) held_answers: BTreeMap<SavepointNumber, HeldAnswer>,
    pub(super) parts: BTreeMap<NodeIndex, BTreeMap<SubtaskIndex, SubtaskManifest>>,
    pub(super) timings: Timings,
    pub(super) bytes_new: u64,
    pub(super) bytes_total: u64,
    pub(super) manifest: Option<Written>,
}

impl Current {
    /// Its barrier is sent now.
    pub(super) fn begun(checkpoint: CheckpointId, clock: &dyn Clock) -> Self {
        Self {
            checkpoint,
            created_ms: clock.now_ms(),
            began_ms: clock.monotonic_ms(),
            answers: Vec::new(),
            held_answers: BTreeMap::new(),
            parts: BTreeMap::new(),
            timings: Timings::default(),
            bytes_new: 0,
            bytes_total: 0,
            manifest: None,
        }
    }

    /// Subtask `index` has uploaded what it holds.
    pub(super) fn add(&mut self, index: SubtaskIndex, uploaded: Uploaded) {
        self.bytes_new += uploaded.bytes_new;
        for (node, part) in uploaded.nodes {
            self.parts.entry(node).or_default().insert(index, part);
        }
    }

    /// What people are told of it.
    pub(super) fn report(&self, manifest: Option<String>, outcome: CheckpointOutcome, clock: &dyn Clock) -> CheckpointReport {
        CheckpointReport {
            checkpoint: self.checkpoint,
            at_ms: self.created_ms,
            manifest,
            bytes_new: self.bytes_new,
            bytes_total: self.bytes_total,
            alignment_ms: whole_ms(self.timings.alignment),
            sync_ms: whole_ms(self.timings.sync),
            snapshot_ms: whole_ms(self.timings.total),
            total_ms: u64::try_from(clock.monotonic_ms() - self.began_ms).unwrap_or(0),
            outcome,
        }
    }

    /// What it consists of, when all of it is uploaded.
    pub(super) fn take_manifest(&mut self, plan: &JobPlan, incarnation: u64, is_final: bool, swapped: &Swapped) -> Manifest {
        let mut operators = BTreeMap::new();
        for (node, subtasks) in std::mem::take(&mut self.parts) {
            let planned = &plan.nodes[node];
            let (component, key) = match &planned.kind {
                NodeKind::Operator(operator) => (swapped.get(&node).unwrap_or(&operator.plan).component(), key_columns(operator)),
                NodeKind::Source(_) | NodeKind::Sink(_) => (None, Vec::new()),
            };
            let kind: OperatorKind = kind_of(planned);
            let subtasks = subtasks.into_values().collect();
            operators.insert(planned.id.clone(), OperatorManifest { kind, component, key, subtasks });
        }
        let manifest = Manifest {
            tenant: plan.tenant.clone(),
            job: plan.job.clone(),
            incarnation,
            checkpoint: self.checkpoint,
            savepoint: None,
            created_ms: self.created_ms,
            is_finished: is_final,
            guarantee: plan.durability.guarantee,
            operators,
        };
        self.bytes_total = manifest.files().iter().map(|file| file.bytes).sum();
        manifest
    }
}

/// Adds a report; the oldest goes when there are too many.
pub(super) fn remember(history: &History, report: CheckpointReport) {
    let mut history = lock(history);
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(report);
}

fn key_columns(operator: &crate::graph::OperatorNode) -> Vec<KeyColumn> {
    let Some((keys, input)) = operator.keys.as_ref().and_then(|keys| keys.first()).zip(operator.inputs.first()) else { return Vec::new() };
    let column = |&key: &usize| {
        let field = input.schema.field(key);
        KeyColumn { name: field.name().clone(), data_type: type_text(field.data_type()) }
    };
    keys.iter().map(column).collect()
}

impl Timings {
    pub(super) fn longest(self, other: Self) -> Self {
        Self { alignment: self.alignment.max(other.alignment), sync: self.sync.max(other.sync), total: self.total.max(other.total) }
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
