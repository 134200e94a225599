//! Sources and sinks as the engine sees them. The connectors themselves live in `host/connectors`.
//!
//! Ladder of names: settings (what a user wrote under the connector's key) → [`Source`] / [`Sink`] (checked and typed, one per job) →
//! [`SplitReader`] / [`SinkWriter`] (one per split or subtask).

use std::{any::Any, collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_model::{
    Batch, StreamType,
    ids::{CheckpointId, JobId, SubtaskIndex},
};
use millstream_storage::{Claim, CommitRecord};
use serde_json::Value;

use crate::{clock::Clock, metrics::Gauge, operator::OperatorError, rejected::Rejection, requests::Client};

/// What a connector is told when a job is planned.
pub struct ConnectorRequest<'a> {
    /// The id of the source or sink in the job file.
    pub id: &'a str,
    /// The value under the connector's key in the job file.
    pub settings: &'a Value,
    /// The directory that relative paths start from: the job file's.
    pub base_directory: PathBuf,
    /// Sources: the columns the job file declares under `schema:`. Sinks: none.
    pub declared_schema: Option<SchemaRef>,
    /// Sinks: the stream to be written.
    pub input: Option<StreamType>,
    /// The clock of the job.
    pub clock: Arc<dyn Clock>,
    /// A directory of this source or sink alone that survives the run, for what it has accepted and must not lose (a log of pushed records);
    /// not made yet. None: the run is ephemeral.
    pub state_directory: Option<PathBuf>,
}

/// What becomes of a row when a run dies and another one goes on from its last checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Guarantee {
    /// It may be lost: the source cannot read it again.
    AtMostOnce,
    /// It is not lost, but what was written after the checkpoint may be written again.
    AtLeastOnce,
    /// It counts once, in state and in what is written.
    ExactlyOnce,
}

/// A mistake in a connector's settings: where (a path below the connector's key, such as `format` or `columns.0`) and what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsProblem {
    /// Path of keys below the connector's key, joined by dots; empty: the whole.
    pub path: String,
    /// One clause that says cause and fix.
    pub message: String,
}

/// One kind of source: what stands behind a key such as `files:`.
pub trait SourceConnector: Send + Sync {
    /// The key in the job file.
    fn name(&self) -> &'static str;
    /// JSON Schema of the settings.
    fn settings_schema(&self) -> schemars::Schema;
    /// Checks the settings and decides the columns.
    ///
    /// # Errors
    /// All mistakes in the settings at once.
    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>>;
}

/// One kind of sink.
pub trait SinkConnector: Send + Sync {
    /// The key in the job file.
    fn name(&self) -> &'static str;
    /// JSON Schema of the settings.
    fn settings_schema(&self) -> schemars::Schema;
    /// Checks the settings against the stream to be written.
    ///
    /// # Errors
    /// All mistakes in the settings at once.
    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>>;
}

/// A small table that is read whole, such as the file of a `lookup-join`.
#[derive(Clone, Debug)]
pub struct TableRequest {
    /// The file, already joined to the job file's directory.
    pub path: PathBuf,
    /// The name of its format; none: by the ending of its name.
    pub format: Option<String>,
    /// Its columns; none: what the format itself says, or what its first rows look like.
    pub schema: Option<SchemaRef>,
}

/// Reads small tables whole.
#[async_trait]
pub trait TableLoader: Send + Sync {
    /// Reads a table.
    ///
    /// # Errors
    /// All mistakes at once; paths are those of [`TableRequest`]: `file`, `format`, `schema`.
    async fn load(&self, request: TableRequest) -> Result<RecordBatch, Vec<SettingsProblem>>;
}

/// All connectors that a job file may name.
#[derive(Default)]
pub struct Connectors {
    /// Sources by key.
    pub sources: BTreeMap<&'static str, Box<dyn SourceConnector>>,
    /// Sinks by key.
    pub sinks: BTreeMap<&'static str, Box<dyn SinkConnector>>,
    /// Reads the tables of lookup joins; none: there can be no lookup join.
    pub tables: Option<Box<dyn TableLoader>>,
    /// Sends the requests of components that are granted HTTP; none: nobody is.
    pub requests: Option<Arc<dyn Client>>,
}

impl Connectors {
    /// Adds a source.
    pub fn with_source(mut self, connector: impl SourceConnector + 'static) -> Self {
        self.sources.insert(connector.name(), Box::new(connector));
        self
    }

    /// Sets what reads tables.
    pub fn with_tables(mut self, tables: impl TableLoader + 'static) -> Self {
        self.tables = Some(Box::new(tables));
        self
    }

    /// Sets what sends requests of components.
    pub fn with_requests(mut self, client: impl Client + 'static) -> Self {
        self.requests = Some(Arc::new(client));
        self
    }

    /// Adds a sink.
    pub fn with_sink(mut self, connector: impl SinkConnector + 'static) -> Self {
        self.sinks.insert(connector.name(), Box::new(connector));
        self
    }
}

/// A part of a source that is read in order by one subtask: a file, a byte range, a generator's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Unique within the source and stable across runs.
    pub id: Arc<str>,
    /// What the source needs to open it.
    pub detail: Value,
}

/// A checked source of one job.
#[async_trait]
pub trait Source: Send + Sync {
    /// The columns it can produce.
    fn schema(&self) -> SchemaRef;

    /// Event times that the source itself knows (none: the job file's `event-time` is needed for a stream with event time).
    fn has_event_times(&self) -> bool {
        false
    }

    /// Whether its rows are changes of a table: updates and deletions among them.
    fn has_changes(&self) -> bool {
        false
    }

    /// Whether it ends by itself.
    fn is_bounded(&self) -> bool;

    /// The same source producing only these columns of [`Self::schema`], in this order; it must not do work for the others.
    fn project(&self, columns: &[usize]) -> Arc<dyn Source>;

    /// The splits that exist now, for a job that begins to read.
    ///
    /// # Errors
    /// The outside does not answer or the input cannot be listed.
    async fn splits(&self, parallelism: u32) -> Result<Vec<Split>, OperatorError>;

    /// The splits that exist now, for a job that reads already: asked of an unbounded source (a followed directory) every
    /// [`Self::discovery_interval`], and when a run goes on from a checkpoint. Those seen before are returned again and ignored; new ones are
    /// read from their start.
    ///
    /// # Errors
    /// As [`Self::splits`].
    async fn more_splits(&self, parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        self.splits(parallelism).await
    }

    /// How often to look for new splits; none: once.
    fn discovery_interval(&self) -> Option<Duration> {
        None
    }

    /// What it allows when it is read again from a position: [`Guarantee::ExactlyOnce`] if the same rows come again, in the same order per split.
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    /// Looks whether the outside has what the settings ask for, before the job runs; changes nothing. An answer that is missing is no mistake.
    ///
    /// # Errors
    /// It has not, and somebody must change something ([`crate::operator::Fault::User`]); or it does not answer.
    async fn check_outside(&self) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Whether a split that is being read can be opened again in the same run, at the position of its reader, which is gone by then: so that other
    /// columns are read from there on.
    fn reopens(&self) -> bool {
        self.guarantee() == Guarantee::ExactlyOnce
    }

    /// Total size for progress, in the unit of [`SplitReader::progress`]; none: unknown.
    fn size_hint(&self) -> Option<u64> {
        None
    }

    /// Opens a split at its start, or at a position that a reader of it returned before.
    ///
    /// # Errors
    /// It cannot be opened, or the position is not one of this split.
    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError>;
}

/// What a reader found.
#[derive(Debug)]
pub enum Read {
    /// Rows, with their [`millstream_model::Origin`], and records between them that could not be read.
    Rows {
        /// The rows that could be read; may be empty.
        batch: Batch,
        /// Records that could not.
        rejected: Vec<Rejection>,
    },
    /// The split is read to its end.
    End,
}

/// Reads one split. Owned by one subtask.
#[async_trait]
pub trait SplitReader: Send {
    /// The next rows, at most `rows_max`; waits when there are none yet. Cancel-safe: dropping the future loses nothing.
    ///
    /// # Errors
    /// The split cannot be read further; names split and position.
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError>;

    /// The position after the last row returned: what a checkpoint stores and [`Source::open`] takes.
    fn position(&self) -> Value;

    /// A checkpoint that holds `position` is committed: no run will ask for anything before it again. Idempotent.
    ///
    /// # Errors
    /// What is kept for replay cannot be cut.
    async fn on_committed(&mut self, _position: &Value) -> Result<(), OperatorError> {
        Ok(())
    }

    /// The job drains: takes nothing new from the outside from now on, and returns the rows that it has promised to somebody (answered with 202)
    /// and not yet returned, in order. [`Self::read`] is not called afterwards.
    fn stop(&mut self) -> Vec<Batch> {
        Vec::new()
    }

    /// How many rows of the split are there and were not read yet, about; negative: not known yet. The reader keeps it up to date by its own means, also
    /// while it is not asked for rows. None: it cannot know.
    fn lag(&self) -> Option<Arc<Gauge>> {
        None
    }

    /// How much of the split is read, in the unit of [`Source::size_hint`].
    fn progress(&self) -> u64 {
        0
    }
}

/// What a sink writer is given.
#[derive(Clone, Debug)]
pub struct SinkContext {
    /// The job.
    pub job: JobId,
    /// Which of the parallel writers this is.
    pub subtask: SubtaskIndex,
    /// Number of parallel writers.
    pub parallelism: u32,
    /// Checkpoints are taken: rows become visible by [`SinkWriter::on_committed`] only. Otherwise by [`SinkWriter::finish`], and as the sink rolls.
    pub is_durable: bool,
    /// What [`SinkWriter::on_barrier`] of *all* writers returned for the checkpoint that this run goes on from, by subtask of then; empty: a
    /// fresh start. [`Sink::recover`] was called with it before.
    pub restored: Arc<[Value]>,
    /// What [`Transaction::part`] returned; none: the job has no transaction, or takes no checkpoints.
    pub transaction: Option<Arc<dyn Any + Send + Sync>>,
}

/// A sink whose rows become visible by the commit of a checkpoint itself: its transaction holds the commit record too.
pub trait Transactional: Send + Sync {
    /// What one transaction spans, such as a cluster, for people. Sinks of a job whose spans differ cannot be committed as one.
    fn span(&self) -> String;

    /// Where its rows may go, such as topics.
    fn writes(&self) -> Vec<String>;

    /// The transaction of a job, which all its sinks of this span take part in. The outside is asked for nothing before it is claimed.
    ///
    /// # Errors
    /// The settings do not allow it.
    fn open(&self, request: TransactionRequest) -> Result<Arc<dyn Transaction>, OperatorError>;
}

/// What a transaction is told when it is opened.
#[derive(Clone)]
pub struct TransactionRequest {
    /// The job.
    pub job: JobId,
    /// The time between two of its checkpoints.
    pub checkpoint_interval: Duration,
    /// The clock of the job.
    pub clock: Arc<dyn Clock>,
    /// Where the rows of all sinks that take part may go, as [`Transactional::writes`] says.
    pub writes: Vec<String>,
}

/// Commits the rows of all sinks that take part together with the commit record: its commit is the decision. It lives as long as the run, over
/// all attempts; each begins with a claim.
#[async_trait]
pub trait Transaction: Send + Sync {
    /// Where the records are, for people.
    fn log_name(&self) -> String;

    /// As [`millstream_storage::CommitLog::claim`]: fences every earlier incarnation, then reads the last record, then claims (R3). Rows that were
    /// written and not committed are gone then. `lineage` tells directories of the same job apart; `before` counts as the last record where there
    /// is none.
    ///
    /// # Errors
    /// As there.
    async fn claim(&self, lineage: &str, before: Option<CommitRecord>, claim: Claim) -> Result<CommitRecord, millstream_storage::Error>;

    /// As [`millstream_storage::CommitLog::commit`], with the rows that were written before the barrier of the checkpoint.
    ///
    /// # Errors
    /// As there.
    async fn commit(&self, record: &CommitRecord) -> Result<(), millstream_storage::Error>;

    /// What the writers of the current attempt take part by; asked for after the claim.
    fn part(&self) -> Arc<dyn Any + Send + Sync>;

    /// The run is over, and no writer is left: what was written and not committed is given up, so that no reader has to wait for it. Where that
    /// cannot be done soon, it is left to time.
    async fn end(&self);
}

/// A checked sink of one job.
#[async_trait]
pub trait Sink: Send + Sync {
    /// Whether it takes streams with updates and deletions.
    fn accepts_changes(&self) -> bool {
        false
    }

    /// The strongest guarantee that it can keep, if the sources allow it.
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    /// As [`Source::check_outside`]; `checkpoint_interval`: the time between two checkpoints, none where none are taken.
    ///
    /// # Errors
    /// As there.
    async fn check_outside(&self, _checkpoint_interval: Option<Duration>) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Its rows are committed with the checkpoint itself; none: they are published after it.
    fn transactional(&self) -> Option<&dyn Transactional> {
        None
    }

    /// A run is about to go on from a committed checkpoint, or to start fresh (`staged` is empty): publishes what the checkpoint staged and may
    /// not have published (a crash between commit and publish), and removes what was staged after it. Called before any writer is made, by
    /// one caller at a time, and idempotent: it may be called again with the same values after another crash.
    ///
    /// # Errors
    /// The target cannot be reached or written.
    async fn recover(&self, _staged: &[Value]) -> Result<(), OperatorError> {
        Ok(())
    }

    /// What a finished job has published, as a source that reads it, in an order that does not change; none: this sink cannot read it back.
    ///
    /// # Errors
    /// What was published is not there.
    fn published(&self) -> Result<Option<Arc<dyn Source>>, OperatorError> {
        Ok(None)
    }

    /// The most parallel writers it can have; none: any number.
    fn parallelism_max(&self) -> Option<u32> {
        None
    }

    /// Creates the writer of one subtask.
    ///
    /// # Errors
    /// The target cannot be reached or written.
    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError>;
}

/// Writes one subtask's rows. Owned by one subtask.
#[async_trait]
pub trait SinkWriter: Send {
    /// Takes rows; may buffer.
    ///
    /// # Errors
    /// The rows cannot be written (disk full, connection refused); names the target.
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError>;

    /// Makes what was written so far visible to an impatient reader, where the sink can; called on the flush interval.
    ///
    /// # Errors
    /// As [`Self::write`].
    async fn flush(&mut self) -> Result<(), OperatorError> {
        Ok(())
    }

    /// Stages everything before the barrier, durably and invisibly, and says what the checkpoint must remember of this writer: what a commit
    /// publishes, and what a restored writer goes on from. Null: nothing. Small: names and counters, not rows.
    ///
    /// # Errors
    /// As [`Self::write`].
    async fn on_barrier(&mut self, _checkpoint: CheckpointId) -> Result<Value, OperatorError> {
        Ok(Value::Null)
    }

    /// The checkpoint is committed: publishes what was staged up to its barrier. Idempotent. A checkpoint that was given up is followed by a
    /// later one, whose commit publishes what both staged.
    ///
    /// # Errors
    /// As [`Self::write`].
    async fn on_committed(&mut self, _checkpoint: CheckpointId) -> Result<(), OperatorError> {
        Ok(())
    }

    /// All input has been written: publish it (files: atomic rename). Nothing half-written is ever visible before. In a durable run the last
    /// checkpoint has been committed and published before.
    ///
    /// # Errors
    /// As [`Self::write`].
    async fn finish(self: Box<Self>) -> Result<(), OperatorError>;

    /// The job failed or was cancelled: remove what is not published.
    async fn abort(self: Box<Self>) {}
}
