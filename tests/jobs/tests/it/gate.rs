//! A gate in every source: rows stop in the middle of the input until a test opens it. So a swap happens at the same place every time, and
//! no test sleeps.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, Connectors, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
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
