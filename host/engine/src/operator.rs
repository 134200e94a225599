//! The operator: one node of the job graph, and everything it may touch.
//!
//! Ladder of names: *spec* (one entry under `operators:` in the job file) → [`OperatorPlan`] (checked, typed; `graph` holds it) →
//! [`Operator`] (one instance in one subtask). Each built-in operator is one file under `operators/` that holds all three.

use std::{any::Any, collections::BTreeSet, hash::BuildHasherDefault, ops::Range, path::PathBuf, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_model::{
    Batch, ErrorKind, StreamType, Watermark,
    ids::{JobId, OperatorId, SubtaskIndex, TenantId},
};

use millstream_state::{KeyedStore, SnapshotPart};
use millstream_wasm::{InstanceContext, SubtaskLog, TracedLog};
use serde_json::Value;

use crate::{
    element::Barrier,
    operators::upgrade::Declared,
    rejected::Rejection,
    run::{Comparison, OperatorVersion, TrialMode, TrialRecord},
};

/// The clocks of one call. A repeated call gets the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The merged watermark of the operator's inputs; none yet: none.
    pub watermark: Option<Watermark>,
    /// Processing time, ms since epoch, from the injected clock.
    pub processing_time: i64,
}

/// Where a row leaves an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OutputPort {
    /// A declared output, by its number.
    Port(usize),
    /// Rows that came too late and were not used: the stream `<id>.late`, typed as the input.
    Late,
    /// Rows that can never succeed: the stream `<id>.rejected`, typed by [`crate::rejected::schema`].
    Rejected,
}

/// What an operator has emitted during one call, in order. The chain hands it to the next operators when the call returns.
#[derive(Debug, Default)]
pub struct Output {
    emitted: Vec<Emitted>,
    rejections: Vec<Rejection>,
}

/// Rows that were emitted, and the watermarks that stand between them.
#[derive(Clone, Debug)]
pub struct Emitted {
    /// Where the rows leave.
    pub port: OutputPort,
    /// The rows; at least one.
    pub batch: Batch,
    /// Watermarks of the operator's own making, rows ascending.
    pub marks: Vec<Mark>,
}

/// A watermark between rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// How many rows of the batch come before it.
    pub rows: usize,
    /// What is true from here on.
    pub watermark: Watermark,
}

impl Output {
    /// Emits rows on a declared output. Empty batches are dropped.
    pub fn emit(&mut self, port: usize, batch: Batch) {
        self.push(OutputPort::Port(port), batch, Vec::new());
    }

    /// Emits rows on a declared output, with watermarks of the operator's own making between them. Where something downstream depends on where
    /// watermarks stand, the rows are cut there; else they stay together and the last watermark follows them.
    pub fn emit_marked(&mut self, port: usize, batch: Batch, marks: Vec<Mark>) {
        self.push(OutputPort::Port(port), batch, marks);
    }

    /// Emits rows that came too late.
    pub fn emit_late(&mut self, batch: Batch) {
        self.push(OutputPort::Late, batch, Vec::new());
    }

    /// Hands over rows that can never succeed; the operator's `rejected` setting says what becomes of them.
    pub fn reject(&mut self, rejection: Rejection) {
        self.rejections.push(rejection);
    }

    /// Takes what was emitted, in order.
    pub fn take_emitted(&mut self) -> Vec<(OutputPort, Batch)> {
        self.take_marked().into_iter().map(|emitted| (emitted.port, emitted.batch)).collect()
    }

    /// Takes what was emitted, in order, with the watermarks that stand between the rows.
    pub fn take_marked(&mut self) -> Vec<Emitted> {
        std::mem::take(&mut self.emitted)
    }

    /// Takes the rejections, in order.
    pub fn take_rejections(&mut self) -> Vec<Rejection> {
        std::mem::take(&mut self.rejections)
    }

    fn push(&mut self, port: OutputPort, batch: Batch, marks: Vec<Mark>) {
        if batch.num_rows() > 0 {
            self.emitted.push(Emitted { port, batch, marks });
        }
    }
}

/// One node of the job graph in one subtask. Calls never overlap and come in stream order. It touches only its arguments and what it was
/// created with: no channel, no wall clock.
#[async_trait]
pub trait Operator: Send {
    /// Handles one batch of input `input`.
    ///
    /// # Errors
    /// The call failed as a whole; nothing of it was applied.
    async fn on_batch(&mut self, input: usize, batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError>;

    /// The merged watermark of all inputs advanced to `now.watermark`; a row at or before it is late from now on. Called before the watermark
    /// is passed on, so what is emitted here comes before it downstream.
    ///
    /// # Errors
    /// As [`Self::on_batch`].
    async fn on_watermark(&mut self, _now: Moment, _out: &mut Output) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Whether the last [`Self::on_watermark`], [`Self::on_processing_time`] or [`Self::on_end`] stopped early so that what it emitted can
    /// flow on. It is then called again, with the same moment, before anything else: however much is due, memory stays bounded.
    fn has_more(&self) -> bool {
        false
    }

    /// Whether it sets event-time timers, so that `order: event-time` must also order rows against them.
    fn fires_event_timers(&self) -> bool {
        false
    }

    /// Fires the timers due at `now.watermark`, but of a key that has rows waiting only those before its next row. Called between the rounds
    /// of `order: event-time`, only if [`Self::fires_event_timers`].
    ///
    /// # Errors
    /// As [`Self::on_batch`].
    async fn on_timers_between_rows(&mut self, _next_rows: &NextRows, _now: Moment, _out: &mut Output) -> Result<(), OperatorError> {
        Ok(())
    }

    /// The watermark that this operator's output promises when its inputs promise `merged`; none: nothing. Operators that assign event times
    /// anew make their own ([`Output::emit_marked`]) and promise only the end.
    fn output_watermark(&self, merged: Watermark) -> Option<Watermark> {
        Some(merged)
    }

    /// When, in processing time (ms since epoch), [`Self::on_processing_time`] wants to be called next.
    fn next_processing_time(&self) -> Option<i64> {
        None
    }

    /// The time of [`Self::next_processing_time`] has come.
    ///
    /// # Errors
    /// As [`Self::on_batch`].
    async fn on_processing_time(&mut self, _now: Moment, _out: &mut Output) -> Result<(), OperatorError> {
        Ok(())
    }

    /// All inputs are aligned on the barrier. Keyed state is cut by the runtime ([`Self::with_store`]); this returns what else the operator
    /// must remember, such as a watermark of its own making. Null: nothing. It must not depend on the keys it owns, so that it can be restored at
    /// another parallelism: [`OperatorContext::restored`] hands all subtasks' values to every new instance.
    ///
    /// # Errors
    /// The operator cannot say.
    async fn on_barrier(&mut self, _barrier: Barrier) -> Result<Value, OperatorError> {
        Ok(Value::Null)
    }

    /// Lends its keyed state to the runtime, which snapshots it in slices between two elements; not called for operators without any.
    fn with_store(&mut self, _work: &mut dyn FnMut(&mut KeyedStore)) {}

    /// All inputs have ended and the watermark is [`Watermark::MAX`]; the last chance to emit.
    ///
    /// # Errors
    /// As [`Self::on_batch`].
    async fn on_end(&mut self, _now: Moment, _out: &mut Output) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Control messages that only some operators understand, such as a prepared new version. The default refuses.
    ///
    /// # Errors
    /// The operator does not understand the message.
    async fn on_control(&mut self, _control: Control) -> Result<(), OperatorError> {
        Err(OperatorError::internal("this operator takes no control message"))
    }

    /// Whether its keyed state would be declared as it is with what [`Control::Switch`] carries; none: with the version that [`Control::RollBack`] puts
    /// back. If not, a snapshot under way is given up for it.
    fn keeps_declarations(&self, _replacement: Option<&(dyn Any + Send)>) -> bool {
        false
    }

    /// Takes why a version on probation was put back by itself since this was asked before.
    fn take_rolled_back(&mut self) -> Option<String> {
        None
    }
}

/// The event time of the next row of each key that has rows waiting, by the key's encoded bytes.
#[derive(Clone, Debug, Default)]
pub struct NextRows {
    numbers: hashbrown::HashMap<Box<[u8]>, u32, BuildHasherDefault<std::hash::DefaultHasher>>,
    times: Vec<Option<i64>>,
}

impl NextRows {
    /// The event time of the next row of `key`; none: no row waits.
    pub fn of(&self, key: &[u8]) -> Option<i64> {
        self.numbers.get(key).and_then(|&number| self.times[number as usize])
    }

    /// The number by which [`Self::set`] knows `key`, counted from 0 in the order of first sight.
    pub(crate) fn number(&mut self, key: &[u8]) -> u32 {
        if let Some(&number) = self.numbers.get(key) {
            return number;
        }
        let number = u32::try_from(self.times.len()).expect("fewer than 4 G rows are released at once");
        self.numbers.insert(key.into(), number);
        self.times.push(None);
        number
    }

    /// The next row of a key is at `time`; none: no row waits.
    pub(crate) fn set(&mut self, number: u32, time: Option<i64>) {
        self.times[number as usize] = time;
    }
}

/// A message from the job handle to the operator of one subtask, delivered at a batch boundary.
pub enum Control {
    /// Replaces the component instance by one that was prepared beside it: same ports, types and state.
    Switch {
        /// What [`OperatorPlan::create_replacement`] made.
        replacement: Box<dyn Any + Send>,
        /// Keep the old one, and put it back at the first failure of the new one, or when told.
        on_probation: bool,
    },
    /// The probation is over: the old instance goes.
    Settle,
    /// Put the old instance back, if it is still there.
    RollBack,
    /// Ask this version too what the running one is asked, until the record says that it is over.
    Try {
        /// What [`OperatorPlan::create_replacement`] made.
        candidate: Box<dyn Any + Send>,
        /// Where what is found is counted and judged.
        record: Arc<TrialRecord>,
    },
    /// The version on trial goes.
    EndTrial,
}

/// A version of an operator that is to be planned; what is none stays as it is.
#[derive(Clone, Debug, Default)]
pub struct Version {
    /// The component.
    pub component: Option<millstream_wasm::Component>,
    /// Its settings, as they are written.
    pub settings: Option<Value>,
}

/// A planned operator: everything decided and typed; creates one [`Operator`] per subtask.
#[async_trait]
pub trait OperatorPlan: Send + Sync {
    /// The declared outputs: name and type. The first is what a bare `<id>` names.
    fn outputs(&self) -> &[(String, StreamType)];

    /// What `millstream explain` prints below the operator, one fact per line: what it reads, its states and timers, its windows.
    fn explain(&self) -> Vec<String> {
        Vec::new()
    }

    /// Columns of input `input` that the operator needs, by number, to prune what sources generate; none: all.
    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        None
    }

    /// Whether input `input` may carry updates and deletions; the planner refuses a changelog into an operator that does not say so.
    fn accepts_changes(&self, _input: usize) -> bool {
        false
    }

    /// Whether it keeps state per key. Without `key-by` there is one key for all rows, so such an operator then runs in one subtask.
    fn keeps_state(&self) -> bool {
        false
    }

    /// Whether an instance holds rows, or what it has made of them, from one call to the next, besides keyed values of a guest's own and what
    /// [`Operator::on_barrier`] says. Where nothing is held an instance of the same version, planned for rows with more columns, can take its place.
    fn holds_rows(&self) -> bool {
        true
    }

    /// Which input's columns output `output` passes on (besides what the operator adds), for pruning; none: it makes all its columns.
    fn keeps(&self, _output: usize) -> Option<usize> {
        None
    }

    /// Whether anything it does depends on where watermarks stand between its rows: timers, windows, lateness, event times given to a guest.
    /// Where nothing downstream does, sources need not cut batches at watermarks.
    fn uses_watermarks(&self) -> bool {
        true
    }

    /// Whether its output has event times and watermarks that it makes itself, of its rows.
    fn makes_time(&self) -> bool {
        false
    }

    /// Which version it is; none: a built-in, which is part of the host.
    fn version(&self) -> Option<OperatorVersion> {
        None
    }

    /// What would change if a running instance of this plan were replaced by one of `new`, and what stands against it: ports and types stay as they
    /// are, and state can be read.
    fn compare(&self, _new: &dyn OperatorPlan) -> Comparison {
        Comparison { refusals: vec!["a built-in operator is part of the host and cannot be replaced".into()], ..Comparison::default() }
    }

    /// What stands against a trial of `new` beside an instance of this plan, besides what [`Self::compare`] refuses; one clause each.
    fn trial_refusals(&self, _new: &dyn OperatorPlan, _mode: TrialMode) -> Vec<String> {
        vec!["a built-in operator is part of the host, and nothing is tried beside it".into()]
    }

    /// This version, for [`Self::plan_version`].
    fn as_version(&self) -> Version {
        Version::default()
    }

    /// Another version, planned for the same inputs.
    ///
    /// # Errors
    /// It does not suit them, one clause each.
    async fn plan_version(&self, _operator: &OperatorId, _version: Version) -> Result<Arc<dyn OperatorPlan>, Vec<String>> {
        Err(vec!["a built-in operator is part of the host and cannot be replaced".into()])
    }

    /// A component for [`Self::plan_version`], from the bytes that a run has kept.
    ///
    /// # Errors
    /// They are no component.
    async fn load(&self, _name: &str, _bytes: Bytes) -> Result<millstream_wasm::Component, OperatorError> {
        Err(OperatorError::internal("only a component is loaded"))
    }

    /// What [`Control::Switch`] carries to an instance of an older plan: an instance of this one, opened beside it.
    ///
    /// # Errors
    /// As [`Self::create`].
    async fn create_replacement(self: Arc<Self>, _context: OperatorContext) -> Result<Box<dyn Any + Send>, OperatorError> {
        Err(OperatorError::internal("this operator cannot be replaced"))
    }

    /// What it keeps, and how it reads what another version kept; none: it keeps nothing, or only its instance knows.
    fn declared(&self) -> Option<Declared> {
        None
    }

    /// SHA-256 of the component that it runs, for the manifest of a checkpoint; none: a built-in.
    fn component(&self) -> Option<String> {
        None
    }

    /// Creates the instance of one subtask.
    ///
    /// # Errors
    /// The component cannot be instantiated or opened, or the state backend cannot be.
    async fn create(&self, context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError>;

    /// For the swap of a component: access to the concrete plan.
    fn as_any(&self) -> &dyn Any;
}

/// What one operator instance is given at construction.
#[derive(Clone)]
pub struct OperatorContext {
    /// The owner of the job.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The operator's id in the job file.
    pub operator: OperatorId,
    /// Which of the parallel instances this is.
    pub subtask: SubtaskIndex,
    /// Number of parallel instances.
    pub parallelism: u32,
    /// The key groups this instance owns.
    pub key_groups: Range<u16>,
    /// Where state goes and how much memory it may use.
    pub state: StateContext,
    /// Counters of this operator in this subtask.
    pub metrics: Arc<crate::metrics::OperatorMetrics>,
    /// The clock of the job, for what must be waited for; the time itself comes with each call.
    pub clock: Arc<dyn crate::clock::Clock>,
    /// Where its guests log.
    pub log: Arc<SubtaskLog>,
    /// What the checkpoint holds that this run goes on from; none: it starts fresh.
    pub restored: Option<Arc<Restored>>,
}

impl OperatorContext {
    /// Where the guests of a subtask log: all that follow each other have one log, so that a new one does not say more than the old.
    pub fn guest_log(tenant: &TenantId, job: &JobId, operator: &OperatorId, subtask: SubtaskIndex) -> Arc<SubtaskLog> {
        SubtaskLog::new(TracedLog::new(tenant.clone(), job.clone(), operator.clone(), subtask))
    }

    /// For the guests that the instance calls; they send no requests.
    pub(crate) fn guest(&self) -> InstanceContext {
        let Self { tenant, job, operator, subtask, log, .. } = self.clone();
        InstanceContext {
            tenant,
            job,
            operator: Some(operator),
            subtask,
            version: None,
            log,
            metrics: self.metrics.of_guest(subtask),
            http: None,
        }
    }
}

/// What an operator instance goes on from.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The operator's merged watermark at the barrier (the lowest of its subtasks of then).
    pub watermark: Option<Watermark>,
    /// Keyed state, in local directories of this run: the snapshots of all subtasks of then whose key groups overlap with those of this one.
    pub state: Vec<SnapshotPart>,
    /// What [`Operator::on_barrier`] of all subtasks of then returned; nulls left out.
    pub values: Vec<Value>,
    /// What the user allows to be forgotten: an operator's id, or `<id>.<state or timer>`.
    pub may_drop: Arc<BTreeSet<String>>,
}

impl Restored {
    /// Whether the user allows that state or timer `name` of `operator` is forgotten.
    pub fn may_forget(&self, operator: &OperatorId, name: &str) -> bool {
        self.may_drop.contains(operator.as_str()) || self.may_drop.contains(&format!("{operator}.{name}"))
    }
}

/// Where the state of one operator instance lives.
#[derive(Clone)]
pub struct StateContext {
    /// A directory of its own for a RocksDB backend (created at first spill); none: memory only.
    pub directory: Option<PathBuf>,
    /// What all RocksDB instances of the process share; needed with a directory.
    pub shared: Option<Arc<millstream_state::RocksShared>>,
    /// Memory for its key table, in bytes.
    pub memory_budget_bytes: usize,
}

/// Whose fault a failure is; decides whether a restart can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// The job's own logic or data: it would fail again, so the job is not restarted.
    User,
    /// Something outside: the job restarts from its last checkpoint.
    Outside,
    /// Ours: as outside, and a bug.
    Internal,
}

/// Why a call to an operator, source or sink failed. The runtime adds operator and subtask.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct OperatorError {
    /// Whose fault it is.
    pub fault: Fault,
    /// One lower-case clause naming the record, component and limit where there are such.
    pub message: String,
    /// What caused it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl OperatorError {
    /// A failure of the job's own logic or data.
    pub fn user(message: impl Into<String>) -> Self {
        Self { fault: Fault::User, message: message.into(), source: None }
    }

    /// A failure of something outside.
    pub fn outside(message: impl Into<String>) -> Self {
        Self { fault: Fault::Outside, message: message.into(), source: None }
    }

    /// A bug of ours.
    pub fn internal(message: impl Into<String>) -> Self {
        Self { fault: Fault::Internal, message: message.into(), source: None }
    }

    /// The same with its cause.
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self.fault {
            Fault::User => ErrorKind::Invalid,
            Fault::Outside => ErrorKind::Unavailable,
            Fault::Internal => ErrorKind::Internal,
        }
    }
}
