//! A source that replays a generator from memory, so that a benchmark measures the engine and not the generator. It stands in the job file's
//! place of the `nexmark` connector, so the jobs are the ones that users run.

use std::sync::{Arc, Mutex, OnceLock, Weak};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use millstream_model::Batch;
use serde_json::Value;

/// The registry of everything that a planned job will replay.
#[derive(Clone, Default)]
pub struct Recorder {
    planned: Arc<Mutex<Vec<Weak<Replay>>>>,
}

/// The connector: plans like the generator it wraps.
pub struct ReplayConnector {
    inner: Box<dyn SourceConnector>,
    recorder: Recorder,
    rows_per_batch: usize,
}

impl ReplayConnector {
    /// Replays what `inner` generates, in batches of `rows_per_batch` rows.
    pub fn new(inner: Box<dyn SourceConnector>, recorder: Recorder, rows_per_batch: usize) -> Self {
        Self { inner, recorder, rows_per_batch }
    }
}

impl Recorder {
    /// Generates every batch of the sources that are still in use, in the order in which they were planned, in as many splits as the job has
    /// subtasks. To be called between planning and running.
    ///
    /// # Errors
    /// A source cannot be read.
    pub async fn record(&self, parallelism: u32) -> Result<Vec<Vec<Batch>>, OperatorError> {
        let sources: Vec<Arc<Replay>> = self.planned.lock().expect("no holder panics").iter().filter_map(Weak::upgrade).collect();
        let mut recorded = Vec::new();
        for source in sources {
            recorded.push(source.record(parallelism).await?);
        }
        Ok(recorded)
    }

    fn add(&self, inner: Arc<dyn Source>, rows_per_batch: usize) -> Arc<Replay> {
        let replay = Arc::new(Replay { inner, rows_per_batch, recorded: OnceLock::new(), recorder: self.clone() });
        self.planned.lock().expect("no holder panics").push(Arc::downgrade(&replay));
        replay
    }
}

impl SourceConnector for ReplayConnector {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn settings_schema(&self) -> schemars::Schema {
        self.inner.settings_schema()
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let inner = self.inner.plan(request)?;
        Ok(self.recorder.add(inner, self.rows_per_batch))
    }
}

/// The batches of each split.
type Recorded = Vec<(Split, Arc<[Batch]>)>;

struct Replay {
    inner: Arc<dyn Source>,
    rows_per_batch: usize,
    recorded: OnceLock<Recorded>,
    recorder: Recorder,
}

impl Replay {
    async fn record(&self, parallelism: u32) -> Result<Vec<Batch>, OperatorError> {
        let mut recorded = Vec::new();
        for split in self.inner.splits(parallelism).await? {
            let batches = self.read_all(&split).await?;
            recorded.push((split, batches.into()));
        }
        let all = recorded.iter().flat_map(|(_, batches): &(Split, Arc<[Batch]>)| batches.iter().cloned()).collect();
        drop(self.recorded.set(recorded));
        Ok(all)
    }

    async fn read_all(&self, split: &Split) -> Result<Vec<Batch>, OperatorError> {
        let mut reader = self.inner.open(split, None).await?;
        let mut batches = Vec::new();
        while let Read::Rows { batch, .. } = reader.read(self.rows_per_batch).await? {
            batches.push(batch.with_origin(None));
        }
        Ok(batches)
    }

    fn recorded(&self) -> Result<&Recorded, OperatorError> {
        self.recorded.get().ok_or_else(|| OperatorError::internal("the replay was not recorded before the run"))
    }
}

#[async_trait]
impl Source for Replay {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn has_event_times(&self) -> bool {
        self.inner.has_event_times()
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        self.recorder.add(self.inner.project(columns), self.rows_per_batch)
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(self.recorded()?.iter().map(|(split, _)| split.clone()).collect())
    }

    async fn open(&self, split: &Split, _position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let found = self.recorded()?.iter().find(|(recorded, _)| recorded.id == split.id);
        let (_, batches) = found.ok_or_else(|| OperatorError::internal("a split was opened that was not recorded"))?;
        Ok(Box::new(ReplayReader { batches: batches.clone(), next: 0 }))
    }
}

struct ReplayReader {
    batches: Arc<[Batch]>,
    next: usize,
}

#[async_trait]
impl SplitReader for ReplayReader {
    async fn read(&mut self, _rows_max: usize) -> Result<Read, OperatorError> {
        let Some(batch) = self.batches.get(self.next) else { return Ok(Read::End) };
        self.next += 1;
        Ok(Read::Rows { batch: batch.clone(), rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        self.next.into()
    }
}
