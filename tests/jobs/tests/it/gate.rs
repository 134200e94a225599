//! A gate in every source: rows stop in the middle of the input until a test opens it. So a swap happens at the same place every time, and
//! no test sleeps. And a sluice in every sink, which takes as many rows as a test lets through, so that rows wait on every edge before it.

use std::{sync::Arc, time::Duration};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    connector::{
        ConnectorRequest, Connectors, Guarantee, Read, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter, Source,
        SourceConnector, Split, SplitReader,
    },
    operator::OperatorError,
};
use millstream_model::{Batch, ids::CheckpointId};
use serde_json::Value;
use tokio::sync::watch;

/// Opens once, for all sources of a job.
#[derive(Clone)]
pub struct Gate {
    /// Rows of each split that pass before the gate.
    rows_before: usize,
    open: watch::Sender<bool>,
}

impl Gate {
    /// A closed gate behind the first `rows_before` rows of each split.
    pub fn behind(rows_before: usize) -> Self {
        Self { rows_before, open: watch::Sender::new(false) }
    }

    /// Lets all rows pass.
    pub fn open(&self) {
        self.open.send_replace(true);
    }

    /// The same connectors with this gate in every source.
    pub fn in_sources_of(&self, mut connectors: Connectors) -> Connectors {
        for inner in std::mem::take(&mut connectors.sources).into_values() {
            connectors = connectors.with_source(GatedConnector { inner, gate: self.clone() });
        }
        connectors
    }
}

struct GatedConnector {
    inner: Box<dyn SourceConnector>,
    gate: Gate,
}

impl SourceConnector for GatedConnector {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn settings_schema(&self) -> schemars::Schema {
        self.inner.settings_schema()
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        Ok(Arc::new(Gated { inner: self.inner.plan(request)?, gate: self.gate.clone() }))
    }
}

struct Gated {
    inner: Arc<dyn Source>,
    gate: Gate,
}

#[async_trait]
impl Source for Gated {
    fn schema(&self) -> SchemaRef {
        self.inner.schema()
    }

    fn has_event_times(&self) -> bool {
        self.inner.has_event_times()
    }

    fn is_bounded(&self) -> bool {
        self.inner.is_bounded()
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        Arc::new(Self { inner: self.inner.project(columns), gate: self.gate.clone() })
    }

    async fn splits(&self, parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        self.inner.splits(parallelism).await
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let inner = self.inner.open(split, position).await?;
        Ok(Box::new(GatedReader { inner, rows_left: self.gate.rows_before, open: self.gate.open.subscribe() }))
    }
}

struct GatedReader {
    inner: Box<dyn SplitReader>,
    rows_left: usize,
    open: watch::Receiver<bool>,
}

#[async_trait]
impl SplitReader for GatedReader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        if self.rows_left == 0 {
            self.open.wait_for(|open| *open).await.map_err(|_| OperatorError::internal("the test is gone"))?;
            return self.inner.read(rows_max).await;
        }
        let read = self.inner.read(rows_max.min(self.rows_left)).await?;
        if let Read::Rows { batch, .. } = &read {
            self.rows_left = self.rows_left.saturating_sub(batch.num_rows());
        }
        Ok(read)
    }

    fn position(&self) -> Value {
        self.inner.position()
    }
}

/// Lets each writer of all sinks of a job take so many rows, and more when it is told; a batch that is begun is taken whole.
#[derive(Clone)]
pub struct Sluice {
    rows: watch::Sender<usize>,
}

impl Sluice {
    /// Closed.
    pub fn closed() -> Self {
        Self { rows: watch::Sender::new(0) }
    }

    /// Lets each writer take some more rows.
    pub fn let_through(&self, rows: usize) {
        self.rows.send_modify(|through| *through = through.saturating_add(rows));
    }

    /// The same connectors with this sluice in every sink.
    pub fn in_sinks_of(&self, mut connectors: Connectors) -> Connectors {
        for inner in std::mem::take(&mut connectors.sinks).into_values() {
            connectors = connectors.with_sink(SlowConnector { inner, sluice: self.clone() });
        }
        connectors
    }
}

struct SlowConnector {
    inner: Box<dyn SinkConnector>,
    sluice: Sluice,
}

impl SinkConnector for SlowConnector {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn settings_schema(&self) -> schemars::Schema {
        self.inner.settings_schema()
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        Ok(Arc::new(Slow { inner: self.inner.plan(request)?, sluice: self.sluice.clone() }))
    }
}

struct Slow {
    inner: Arc<dyn Sink>,
    sluice: Sluice,
}

#[async_trait]
impl Sink for Slow {
    fn accepts_changes(&self) -> bool {
        self.inner.accepts_changes()
    }

    fn guarantee(&self) -> Guarantee {
        self.inner.guarantee()
    }

    async fn check_outside(&self, checkpoint_interval: Option<Duration>) -> Result<(), OperatorError> {
        self.inner.check_outside(checkpoint_interval).await
    }

    async fn recover(&self, staged: &[Value]) -> Result<(), OperatorError> {
        self.inner.recover(staged).await
    }

    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Ok(Box::new(SlowWriter { inner: self.inner.writer(context).await?, taken: 0, through: self.sluice.rows.subscribe() }))
    }
}

struct SlowWriter {
    inner: Box<dyn SinkWriter>,
    taken: usize,
    through: watch::Receiver<usize>,
}

#[async_trait]
impl SinkWriter for SlowWriter {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        let taken = self.taken;
        self.through.wait_for(|&through| taken < through).await.map_err(|_| OperatorError::internal("the test is gone"))?;
        self.taken += batch.num_rows();
        self.inner.write(batch).await
    }

    async fn on_barrier(&mut self, checkpoint: CheckpointId) -> Result<Value, OperatorError> {
        self.inner.on_barrier(checkpoint).await
    }

    async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), OperatorError> {
        self.inner.on_committed(checkpoint).await
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        self.inner.finish().await
    }

    async fn abort(self: Box<Self>) {
        self.inner.abort().await;
    }
}
