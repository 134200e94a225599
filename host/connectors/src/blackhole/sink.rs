//! The sink.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, Guarantee, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter},
    operator::OperatorError,
};
use millstream_model::Batch;

use super::Settings;
use crate::settings::read;

/// The sink connector `blackhole`.
#[derive(Clone, Debug, Default)]
pub struct Blackhole {
    rows: Arc<AtomicU64>,
}

impl Blackhole {
    /// Rows that all its sinks have taken.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }
}

impl SinkConnector for Blackhole {
    fn name(&self) -> &'static str {
        "blackhole"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        read::<Settings>(request.settings)?;
        Ok(Arc::new(self.clone()))
    }
}

#[async_trait]
impl Sink for Blackhole {
    fn accepts_changes(&self) -> bool {
        true
    }

    /// Nothing outside can see a row twice.
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Blackhole {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        self.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::testing::{plan_sink, schema, writer};

    #[tokio::test]
    async fn it_counts_what_it_takes() {
        let blackhole = Blackhole::default();
        let columns = schema(&[]);
        let sink = plan_sink(&blackhole, &Value::Null, ".".as_ref(), columns.clone(), true).expect("there is nothing to set");
        let rows = Batch::try_new(columns, vec![], 7).expect("a row count is enough");
        for subtask in 0..2 {
            let mut writer = writer(&*sink, subtask).await.expect("opens");
            writer.write(&rows).await.expect("takes");
            writer.finish().await.expect("ends");
        }
        assert_eq!(blackhole.rows(), 14);
    }
}
