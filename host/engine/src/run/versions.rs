//! Which version of each operator runs, and ran: in memory ([`Running`]), and, in a durable run, written down ([`Versions`]) so that a crash goes on
//! with it although the job file names another one.
//!
//! Written before the first subtask switches, and again when the swap is settled or undone. Who goes on from a crash in between takes the old version if
//! it can read the state that the checkpoint holds, else the new one. What a job file says counts again as soon as it names another component or other
//! settings than when the swap was made.
//!
//! # Bytes
//! `<job>/versions/<incarnation>-<number>` (both of 20 digits; the highest holds): a [`Record`] as JSON. `<job>/components/<sha256>`: a component that was
//! swapped in. Both are created once; what the newest record does not need is removed after it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use millstream_model::ids::{JobId, OperatorId};
use millstream_storage::CheckpointStorage;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    job::lock,
    swap::{OperatorSwap, OperatorVersion, SwapId, SwapPhase, SwapStatus, VersionCause, VersionEntry},
    trial::{TrialId, TrialReport},
};
use crate::{
    checkpoint::manifest::Manifest,
    graph::{JobPlan, Node, NodeIndex, NodeKind},
    operator::{OperatorError, OperatorPlan, Version},
};

/// The format that this version writes.
const FORMAT: u32 = 1;
/// Versions of one operator that are remembered for people.
const HISTORY: usize = 100;
/// Settled swaps that can be undone, one after the other.
const WAYS_BACK: usize = 16;

/// Plans in the place of those that a job was planned with.
pub(super) type Plans = BTreeMap<NodeIndex, Arc<dyn OperatorPlan>>;

/// What runs and ran; outlives an attempt. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Running(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    swaps: u64,
    /// By node, what runs in the place of the planned version.
    swapped: Plans,
    history: BTreeMap<NodeIndex, Vec<VersionEntry>>,
    /// Settled swaps, and what they replaced.
    settled: Vec<(SwapId, Plans)>,
    last: Option<SwapStatus>,
    /// The attempt ended while `last` was under way: the next one decides.
    is_interrupted: bool,
    /// Every version that ran, so that it need not be loaded again.
    known: Vec<(NodeIndex, Arc<dyn OperatorPlan>)>,
    /// The job with the wider streams that a swap has asked for.
    widened: Option<Arc<JobPlan>>,
    trials: u64,
    /// The last trial that is over.
    last_trial: Option<TrialReport>,
}

impl Running {
    /// A number for the next swap.
    pub(super) fn next_swap(&self) -> SwapId {
        let mut state = lock(&self.0);
        state.swaps += 1;
        SwapId(state.swaps)
    }

    /// A number for the next trial.
    pub(super) fn next_trial(&self) -> TrialId {
        let mut state = lock(&self.0);
        state.trials += 1;
        TrialId(state.trials)
    }

    /// The last trial that is over.
    pub(super) fn last_trial(&self) -> Option<TrialReport> {
        lock(&self.0).last_trial.clone()
    }

    pub(super) fn set_last_trial(&self, report: TrialReport) {
        lock(&self.0).last_trial = Some(report);
    }

    /// What runs in the place of the version that `node` was planned with.
    pub(super) fn swapped(&self, node: NodeIndex) -> Option<Arc<dyn OperatorPlan>> {
        lock(&self.0).swapped.get(&node).cloned()
    }

    pub(super) fn all_swapped(&self) -> Plans {
        lock(&self.0).swapped.clone()
    }

    /// `node` runs this from now on.
    pub(super) fn set(&self, node: NodeIndex, plan: Arc<dyn OperatorPlan>) {
        let mut state = lock(&self.0);
        // The same version may have been planned again since: with another value of what its settings refer to.
        state.known.retain(|(of, known)| *of != node || known.version() != plan.version());
        state.known.push((node, plan.clone()));
        state.swapped.insert(node, plan);
    }

    /// Streams are those of `plan` from now on, and inputs of `operators` are wider: what was planned for narrow ones does not fit any more.
    pub(super) fn widen(&self, plan: Arc<JobPlan>, operators: &[NodeIndex]) {
        let mut state = lock(&self.0);
        state.known.retain(|(node, _)| !operators.contains(node));
        for node in operators {
            if let (Some(swapped), NodeKind::Operator(wider)) = (state.swapped.get_mut(node), &plan.nodes[*node].kind) {
                *swapped = wider.plan.clone();
            }
        }
        state.widened = Some(plan);
    }

    /// What [`Self::widen`] was told last; none: streams are as the job was planned.
    pub(super) fn widened(&self) -> Option<Arc<JobPlan>> {
        lock(&self.0).widened.clone()
    }

    /// The job was planned afresh: whatever was planned before has settings that may stand for something else by now.
    pub(super) fn planned_afresh(&self, widened: Option<Arc<JobPlan>>) {
        let mut state = lock(&self.0);
        state.known.clear();
        state.widened = widened;
    }

    /// An attempt begins with these in the place of what `base` says.
    pub(super) fn start(&self, base: &JobPlan, swapped: Plans, now_ms: i64) {
        lock(&self.0).swapped = swapped.clone();
        let planned = base.nodes.iter().enumerate().filter_map(|(node, of)| match &of.kind {
            NodeKind::Operator(planned) => Some((node, planned.plan.clone())),
            NodeKind::Source(_) | NodeKind::Sink(_) => None,
        });
        let mut plans: Plans = planned.collect();
        plans.extend(swapped);
        self.note(base, &plans, now_ms, &VersionCause::Start);
    }

    /// Remembers since when these run.
    pub(super) fn note(&self, _plan: &JobPlan, plans: &Plans, now_ms: i64, cause: &VersionCause) {
        let mut state = lock(&self.0);
        for (node, plan) in plans {
            let Some(version) = plan.version() else { continue };
            let history = state.history.entry(*node).or_default();
            let goes_on = *cause == VersionCause::Start && history.last().is_some_and(|last| last.version == version);
            if goes_on {
                continue;
            }
            if history.len() == HISTORY {
                history.remove(0);
            }
            history.push(VersionEntry { version, since_ms: now_ms, cause: cause.clone() });
        }
    }

    /// The versions of `node`, oldest first.
    pub(super) fn history(&self, node: NodeIndex) -> Vec<VersionEntry> {
        lock(&self.0).history.get(&node).cloned().unwrap_or_default()
    }

    /// `swap` is settled; `old` ran before.
    pub(super) fn settled(&self, swap: SwapId, old: Plans) {
        let mut state = lock(&self.0);
        if state.settled.len() == WAYS_BACK {
            state.settled.remove(0);
        }
        state.settled.push((swap, old));
    }

    /// The last settled swap is undone.
    pub(super) fn undone(&self) {
        lock(&self.0).settled.pop();
    }

    /// The last settled swap, and what ran before it.
    pub(super) fn before_last(&self) -> Option<(SwapId, Plans)> {
        lock(&self.0).settled.last().cloned()
    }

    pub(super) fn last_swap(&self) -> Option<SwapStatus> {
        lock(&self.0).last.clone()
    }

    pub(super) fn set_last_swap(&self, status: SwapStatus) {
        lock(&self.0).last = Some(status);
    }

    /// The attempt ends while a swap is under way that has touched something.
    pub(super) fn interrupt(&self, status: SwapStatus) {
        let mut state = lock(&self.0);
        state.last = Some(status);
        state.is_interrupted = true;
    }

    /// The next attempt runs `plan`: what has become of a swap that was under way.
    pub(super) fn resume(&self, plan: &JobPlan) {
        let mut state = lock(&self.0);
        let Some(last) = std::mem::take(&mut state.is_interrupted).then_some(state.last.as_mut()).flatten() else { return };
        let runs = |swap: &OperatorSwap| {
            let node = plan.nodes.iter().position(|node| node.id == swap.operator);
            node.and_then(|node| version_of(plan, node)).is_some_and(|version| version == swap.to)
        };
        last.probation_until_ms = None;
        last.phase = if last.operators.iter().all(runs) {
            SwapPhase::Settled
        } else {
            SwapPhase::RolledBack { reason: "the job went back to its last checkpoint before the swap was settled".into() }
        };
    }

    fn known(&self, node: NodeIndex, wanted: &Recorded) -> Option<Arc<dyn OperatorPlan>> {
        let state = lock(&self.0);
        let found = state.known.iter().find(|(of, plan)| *of == node && plan.version().is_some_and(|version| wanted.is(&version)));
        found.map(|(_, plan)| plan.clone())
    }
}

/// Versions that were swapped in, as written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Record {
    format: u32,
    operators: BTreeMap<OperatorId, RecordedOperator>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct RecordedOperator {
    /// What the job file said.
    planned: Recorded,
    /// What ran before the last swap; the same as `new` when that is settled.
    old: Recorded,
    /// What it put there.
    new: Recorded,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Recorded {
    name: String,
    /// SHA-256, hexadecimal.
    component: String,
    /// As they are written: what they refer to is looked up again by who goes on.
    settings: Value,
}

impl Recorded {
    fn of(version: OperatorVersion) -> Self {
        Self { name: version.name, component: version.component, settings: version.settings }
    }

    fn is(&self, version: &OperatorVersion) -> bool {
        self.component == version.component && self.settings == version.settings
    }
}

/// What a swap has come to.
pub(super) struct Applied<'a> {
    pub(super) new: &'a Plans,
    pub(super) old: &'a Plans,
    /// `new` counts, whatever happens.
    pub(super) is_settled: bool,
}

/// Where a durable run writes down its versions.
#[derive(Clone)]
pub(super) struct Versions {
    storage: Arc<dyn CheckpointStorage>,
    /// What the job file says.
    base: Arc<JobPlan>,
    incarnation: u64,
    written: Arc<Mutex<Written>>,
}

struct Written {
    number: u64,
    record: Record,
}

impl Versions {
    /// For the attempt with this incarnation, which found `record`.
    pub(super) fn new(storage: Arc<dyn CheckpointStorage>, base: Arc<JobPlan>, incarnation: u64, record: Option<Record>) -> Self {
        let record = record.unwrap_or(Record { format: FORMAT, operators: BTreeMap::new() });
        Self { storage, base, incarnation, written: Arc::new(Mutex::new(Written { number: 0, record })) }
    }

    /// Writes down what has changed, and the components that are new. What it returns is one clause.
    pub(super) fn write(
        &self,
        plan: &JobPlan,
        applied: Applied<'_>,
        components: BTreeMap<String, Bytes>,
    ) -> impl Future<Output = Result<(), String>> + Send + 'static + use<> {
        let (path, record) = {
            let mut written = lock(&self.written);
            written.number += 1;
            for (&node, new) in applied.new {
                let old = applied.old.get(&node).filter(|_| !applied.is_settled).unwrap_or(new);
                if let (Some(planned), Some(old), Some(new)) = (version_of(&self.base, node), old.version(), new.version()) {
                    let id = plan.nodes[node].id.clone();
                    let recorded = RecordedOperator { planned: Recorded::of(planned), old: Recorded::of(old), new: Recorded::of(new) };
                    written.record.operators.insert(id, recorded);
                }
            }
            let path = format!("{}/{:020}-{:020}", prefix(&self.base.job), self.incarnation, written.number);
            (path, written.record.clone())
        };
        let (storage, job) = (self.storage.clone(), self.base.job.clone());
        async move {
            for (sha256, bytes) in components {
                match storage.create(&component_path(&job, &sha256), bytes).await {
                    Ok(()) | Err(millstream_storage::Error::Exists(_)) => {}
                    Err(error) => return Err(with_causes(&error)),
                }
            }
            let bytes = serde_json::to_vec(&record).map_err(|error| error.to_string())?;
            storage.create(&path, bytes.into()).await.map_err(|error| with_causes(&error))?;
            if let Err(error) = clean(storage.as_ref(), &job, &path, &record).await {
                tracing::debug!(error = with_causes(&error), "what is no longer needed of versions could not be removed");
            }
            Ok(())
        }
    }

    /// The attempt goes on with `swapped` in the place of what the job file says. Nothing is written where nothing was, or would change.
    pub(super) async fn begin(&self, swapped: &Plans) -> Result<(), String> {
        let record = {
            let written = lock(&self.written);
            let nodes = self.base.nodes.iter().enumerate();
            let recorded = |(node, of): (NodeIndex, &Node)| {
                let version = Recorded::of(swapped.get(&node)?.version()?);
                let planned = Recorded::of(version_of(&self.base, node)?);
                Some((of.id.clone(), RecordedOperator { planned, old: version.clone(), new: version }))
            };
            let record = Record { format: FORMAT, operators: nodes.filter_map(recorded).collect() };
            if record == written.record {
                return Ok(());
            }
            record
        };
        lock(&self.written).record = record;
        self.write(&self.base, Applied { new: &Plans::new(), old: &Plans::new(), is_settled: true }, BTreeMap::new()).await
    }
}

fn prefix(job: &JobId) -> String {
    format!("{job}/versions")
}

fn component_path(job: &JobId, sha256: &str) -> String {
    format!("{job}/components/{sha256}")
}

fn version_of(plan: &JobPlan, node: NodeIndex) -> Option<OperatorVersion> {
    match &plan.nodes[node].kind {
        NodeKind::Operator(planned) => planned.plan.version(),
        NodeKind::Source(_) | NodeKind::Sink(_) => None,
    }
}

/// Removes older records, and components that `record` does not name.
async fn clean(storage: &dyn CheckpointStorage, job: &JobId, newest: &str, record: &Record) -> Result<(), millstream_storage::Error> {
    for object in storage.list(&prefix(job)).await? {
        if object.path.as_str() < newest {
            storage.delete(&object.path).await?;
        }
    }
    let named =
        |sha256: &str| record.operators.values().any(|operator| [&operator.old, &operator.new].iter().any(|of| of.component == sha256));
    for object in storage.list(&format!("{job}/components")).await? {
        if object.path.rsplit('/').next().is_some_and(|sha256| !named(sha256)) {
            storage.delete(&object.path).await?;
        }
    }
    Ok(())
}

/// What was written down last; none: nothing was ever swapped.
///
/// # Errors
/// It cannot be read, or a newer version of Millstream wrote it.
pub(super) async fn read(storage: &dyn CheckpointStorage, job: &JobId) -> Result<Option<Record>, OperatorError> {
    let failed = |error: millstream_storage::Error| OperatorError::outside("reading which versions run failed").because(error);
    let Some(newest) = storage.list(&prefix(job)).await.map_err(failed)?.pop() else { return Ok(None) };
    let bytes = storage.read(&newest.path).await.map_err(failed)?;
    let damaged = |error: serde_json::Error| {
        OperatorError::user(format!("{} does not say which versions run: move it away to go on with what the job file says", newest.path))
            .because(error)
    };
    let record: Record = serde_json::from_slice(&bytes).map_err(damaged)?;
    if record.format > FORMAT {
        return Err(OperatorError::user(format!(
            "{} has format {}, but this version of Millstream reads {FORMAT}",
            newest.path, record.format
        )));
    }
    Ok(Some(record))
}

/// Whether a run of this job has swapped something in that the next one goes on with, so that its job file does not tell alone which versions run.
///
/// # Errors
/// The storage does not answer.
pub async fn has_swapped(storage: &dyn CheckpointStorage, job: &JobId) -> Result<bool, OperatorError> {
    Ok(read(storage, job).await?.is_some_and(|record| !record.operators.is_empty()))
}

/// What to go on with in the place of what `base` says, where something was swapped in. `base`: what the job file says, `file`, or that with wider streams.
/// `manifest`: what the attempt goes on from.
///
/// # Errors
/// A version cannot be loaded.
pub(super) async fn choose(
    file: &JobPlan,
    base: &JobPlan,
    running: &Running,
    storage: &dyn CheckpointStorage,
    record: &Record,
    manifest: Option<&Manifest>,
) -> Result<Plans, OperatorError> {
    let mut plans = Plans::new();
    for (id, recorded) in &record.operators {
        let Some(node) = base.nodes.iter().position(|node| node.id == *id) else { continue };
        let (NodeKind::Operator(said), NodeKind::Operator(planned)) = (&file.nodes[node].kind, &base.nodes[node].kind) else { continue };
        if !said.plan.version().is_some_and(|version| recorded.planned.is(&version)) {
            // The job file says something else than when the swap was made, so that is wanted now.
            continue;
        }
        let place = Place { base, running, storage, node, id, said: &said.plan, planned: &planned.plan };
        let old = place.plan_of(&recorded.old).await?;
        let chosen = if recorded.old == recorded.new || place.reads_state(old.as_ref(), manifest) {
            old
        } else {
            place.plan_of(&recorded.new).await?
        };
        if chosen.version() != said.plan.version() || !Arc::ptr_eq(&chosen, &planned.plan) {
            plans.insert(node, chosen);
        }
    }
    Ok(plans)
}

/// One operator that was swapped.
struct Place<'a> {
    base: &'a JobPlan,
    running: &'a Running,
    storage: &'a dyn CheckpointStorage,
    node: NodeIndex,
    id: &'a OperatorId,
    /// What the job file says.
    said: &'a Arc<dyn OperatorPlan>,
    planned: &'a Arc<dyn OperatorPlan>,
}

impl Place<'_> {
    async fn plan_of(&self, wanted: &Recorded) -> Result<Arc<dyn OperatorPlan>, OperatorError> {
        // What ran in this process comes first: what its settings refer to may have another value now than when the job was planned.
        if let Some(known) = self.running.known(self.node, wanted) {
            return Ok(known);
        }
        let planned = self.planned.version();
        if planned.as_ref().is_some_and(|version| wanted.is(version)) {
            return Ok(self.planned.clone());
        }
        let is_component = |version: Option<OperatorVersion>| version.is_some_and(|version| version.component == wanted.component);
        let component = if is_component(planned) {
            None
        } else if is_component(self.said.version()) {
            self.said.as_version().component
        } else {
            Some(self.load(wanted).await?)
        };
        let version = Version { component, settings: Some(wanted.settings.clone()) };
        let plan = self.planned.plan_version(self.id, version).await;
        plan.map_err(|reasons| {
            let message = format!("`{}` runs {} since a swap, which does not fit the job file any more", self.id, wanted.name);
            OperatorError::user(message).because(reasons.join("; "))
        })
    }

    async fn load(&self, wanted: &Recorded) -> Result<millstream_wasm::Component, OperatorError> {
        let path = component_path(&self.base.job, &wanted.component);
        let bytes = self.storage.read(&path).await;
        let bytes = bytes.map_err(|error| {
            let message = format!("`{}` runs {} since a swap, which is not to be found: name it in the job file", self.id, wanted.name);
            OperatorError::user(message).because(error)
        })?;
        self.planned.load(&wanted.name, bytes).await
    }

    /// Whether a version can go on from what the checkpoint holds of the operator.
    fn reads_state(&self, plan: &dyn OperatorPlan, manifest: Option<&Manifest>) -> bool {
        let (Some(declared), Some(held)) = (plan.declared(), manifest.and_then(|manifest| manifest.operators.get(self.id))) else {
            return true;
        };
        // What the new version alone keeps is not forgotten in silence.
        held.subtasks.iter().filter_map(|subtask| subtask.state.as_ref()).all(|state| declared.check(&state.description, |_| false).is_ok())
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let next = std::iter::successors(error.source(), |error| error.source());
    next.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use std::any::Any;

    use async_trait::async_trait;
    use millstream_model::StreamType;

    use super::*;
    use crate::{
        graph::{OperatorNode, RowOrder},
        operator::{Operator, OperatorContext, OutputPort},
        run::SwitchAt,
        testing::{JobBuilder, MemorySource, edge},
    };

    /// A version, and nothing else.
    struct Named(&'static str, Vec<(String, StreamType)>);

    #[async_trait]
    impl OperatorPlan for Named {
        fn outputs(&self) -> &[(String, StreamType)] {
            &self.1
        }

        fn version(&self) -> Option<OperatorVersion> {
            Some(version(self.0))
        }

        async fn create(&self, _context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
            Err(OperatorError::internal("it is never run"))
        }

        fn as_any(&self) -> &dyn Any {
            self
        }
    }

    fn version(name: &str) -> OperatorVersion {
        OperatorVersion { name: name.into(), version: "1".into(), component: name.into(), settings: Value::Null }
    }

    fn plan(name: &'static str) -> Arc<JobPlan> {
        let schema = Arc::new(arrow_schema::Schema::empty());
        let rows = millstream_model::Batch::try_new(schema, Vec::new(), 1).expect("a row without columns");
        let mut job = JobBuilder::new();
        let source = job.source("rows", MemorySource::new(vec![vec![rows]]), None, 1);
        let stream = job.output(source, OutputPort::Port(0));
        let named = Arc::new(Named(name, vec![("out".into(), stream.clone())]));
        let node = OperatorNode { plan: named, inputs: vec![stream], keys: None, order: RowOrder::Arrival };
        job.operator("op", node, 1, vec![edge(source, crate::graph::Exchange::Forward)]);
        job.build()
    }

    fn under_way() -> SwapStatus {
        let swap =
            OperatorSwap { operator: "op".into(), from: version("old"), to: version("new"), changes: Vec::new(), one_way: Vec::new() };
        SwapStatus {
            swap: SwapId(1),
            phase: SwapPhase::Probation,
            switch_at: SwitchAt::Batch,
            operators: vec![swap],
            widens: Vec::new(),
            prepared_ms: 0,
            switched_ms: Some(1),
            probation_until_ms: Some(2),
        }
    }

    /// Whoever watches a swap learns what has become of it although the attempt that carried it out has failed.
    #[test]
    fn a_swap_that_was_under_way_when_an_attempt_failed_is_what_the_next_attempt_runs() {
        for (runs, settled) in [("old", false), ("new", true)] {
            let running = Running::default();
            running.interrupt(under_way());
            assert_eq!(running.last_swap().map(|swap| swap.phase), Some(SwapPhase::Probation));
            running.resume(&plan(runs));
            let phase = running.last_swap().expect("it is remembered").phase;
            assert_eq!((phase == SwapPhase::Settled, matches!(phase, SwapPhase::RolledBack { .. })), (settled, !settled), "{runs}");
            running.set_last_swap(under_way());
            running.resume(&plan(runs));
            assert_eq!(running.last_swap().map(|swap| swap.phase), Some(SwapPhase::Probation), "it was not interrupted");
        }
    }

    /// What its settings refer to may have another value since it was planned: the plan that ran last is the one that goes on.
    #[tokio::test]
    async fn of_one_version_that_was_planned_twice_the_next_attempt_runs_the_later_plan() {
        let base = plan("same");
        let node = base.nodes.iter().position(|node| node.id.as_str() == "op").expect("it is there");
        let planned = |name: &'static str| -> Arc<dyn OperatorPlan> { Arc::new(Named(name, Vec::new())) };
        let (earlier, later, running) = (planned("same"), planned("same"), Running::default());
        running.set(node, earlier);
        running.set(node, later.clone());
        let recorded = Recorded::of(version("same"));
        let operator = RecordedOperator { planned: recorded.clone(), old: recorded.clone(), new: recorded };
        let record = Record { format: FORMAT, operators: BTreeMap::from([("op".into(), operator)]) };
        let directory = tempfile::tempdir().expect("a temporary directory");
        let storage = millstream_storage::LocalCheckpointStorage::open(directory.path()).expect("a directory");
        let chosen = choose(&base, &base, &running, &storage, &record, None).await.expect("nothing has to be loaded");
        assert!(Arc::ptr_eq(&chosen[&node], &later));
        let fresh = choose(&base, &base, &Running::default(), &storage, &record, None).await.expect("nothing has to be loaded");
        assert!(fresh.is_empty(), "another process plans it anew");
    }
}
