//! A sink in a chain: its writer, when it is flushed, and how it ends.

use std::time::Duration;

use millstream_model::{Batch, ids::CheckpointId};

use crate::{connector::SinkWriter, operator::OperatorError};

/// The writer of one subtask.
pub(super) struct SinkLink {
    /// None once it is finished or aborted.
    writer: Option<Box<dyn SinkWriter>>,
    flush_interval: Duration,
    /// When rows that were written since the last flush are flushed, in elapsed time; none: there are none.
    flush_at_ms: Option<i64>,
}

impl SinkLink {
    pub(super) fn new(writer: Box<dyn SinkWriter>, flush_interval: Duration) -> Self {
        Self { writer: Some(writer), flush_interval, flush_at_ms: None }
    }

    pub(super) async fn on_batch(&mut self, batch: &Batch, monotonic_ms: i64) -> Result<(), OperatorError> {
        self.writer()?.write(batch).await?;
        let interval_ms = i64::try_from(self.flush_interval.as_millis()).unwrap_or(i64::MAX);
        self.flush_at_ms.get_or_insert(monotonic_ms.saturating_add(interval_ms));
        Ok(())
    }

    pub(super) fn next_flush_ms(&self) -> Option<i64> {
        self.flush_at_ms
    }

    pub(super) async fn flush(&mut self) -> Result<(), OperatorError> {
        self.flush_at_ms = None;
        self.writer()?.flush().await
    }

    pub(super) async fn on_barrier(&mut self, checkpoint: CheckpointId) -> Result<serde_json::Value, OperatorError> {
        self.writer()?.on_barrier(checkpoint).await
    }

    pub(super) async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), OperatorError> {
        self.writer()?.on_committed(checkpoint).await
    }

    /// Publishes what was written.
    pub(super) async fn finish(&mut self) -> Result<(), OperatorError> {
        self.flush_at_ms = None;
        match self.writer.take() {
            Some(writer) => writer.finish().await,
            None => Ok(()),
        }
    }

    /// Removes what was not published.
    pub(super) async fn abort(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.abort().await;
        }
    }

    fn writer(&mut self) -> Result<&mut Box<dyn SinkWriter>, OperatorError> {
        self.writer.as_mut().ok_or_else(|| OperatorError::internal("rows for a sink that has ended"))
    }
}
