//! A sink that stages and publishes as the `files` sink does: parts are hidden until their checkpoint is committed, and published again without
//! harm.

use std::sync::Arc;

use arrow_array::{Array, cast::AsArray, types::Int64Type};
use arrow_cast::cast;
use arrow_schema::DataType;
use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, Guarantee, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter},
    operator::OperatorError,
};
use millstream_model::{Batch, ids::CheckpointId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::world::{Row, Shelf, World, lock};

/// Writes to a shelf of the world that is named as the sink.
pub struct SimulatedSinks {
    pub world: Arc<World>,
}

impl SinkConnector for SimulatedSinks {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::Schema::default()
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        Ok(Arc::new(SimulatedSink { world: self.world.clone(), name: request.id.into() }))
    }
}

/// One shelf.
#[derive(Clone)]
pub struct SimulatedSink {
    pub world: Arc<World>,
    pub name: String,
}

/// What a checkpoint remembers of a writer.
#[derive(Serialize, Deserialize)]
struct Remembered {
    /// Parts that its commit publishes.
    staged: Vec<String>,
    /// The number of the part to come.
    next: u64,
}

impl SimulatedSink {
    fn shelf<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> T {
        work(lock(&self.world.shelves).entry(self.name.clone()).or_default())
    }

    async fn publish(&self, part: &str) -> Result<(), OperatorError> {
        self.world.pass(|| format!("publish {part}")).await;
        if self.world.happens(self.world.troubles().failing) {
            return Err(OperatorError::outside("injected: the sink does not answer"));
        }
        self.shelf(|shelf| match shelf.staged.remove(part) {
            Some(rows) => drop(shelf.published.insert(part.to_owned(), rows)),
            None if shelf.published.contains_key(part) => {}
            None => self.world.must(false, || format!("part {part} of a committed checkpoint is there")),
        });
        self.world.pass(|| format!("published {part}")).await;
        Ok(())
    }
}

#[async_trait]
impl Sink for SimulatedSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn recover(&self, staged: &[Value]) -> Result<(), OperatorError> {
        let remembered = staged.iter().filter(|value| !value.is_null()).map(|value| Remembered::deserialize(value).expect("of this sink"));
        let parts: Vec<String> = remembered.flat_map(|writer| writer.staged).collect();
        for part in &parts {
            self.publish(part).await?;
        }
        for part in self.shelf(|shelf| shelf.staged.keys().cloned().collect::<Vec<_>>()) {
            self.world.pass(|| format!("remove {part}")).await;
            self.shelf(|shelf| shelf.staged.remove(&part));
        }
        Ok(())
    }

    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        let restored = context.restored.iter().filter_map(|value| Remembered::deserialize(value).ok());
        let next = restored.map(|writer| writer.next).max().unwrap_or(0);
        Ok(Box::new(SimulatedWriter { sink: self.clone(), subtask: context.subtask.0, next, rows: Vec::new(), staged: Vec::new() }))
    }
}

struct SimulatedWriter {
    sink: SimulatedSink,
    subtask: u32,
    next: u64,
    /// Since the last barrier.
    rows: Vec<Row>,
    /// Not published yet.
    staged: Vec<(CheckpointId, String)>,
}

#[async_trait]
impl SinkWriter for SimulatedWriter {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        let world = &self.sink.world;
        world.pass(|| format!("write {} rows", batch.num_rows())).await;
        if world.happens(world.troubles().failing) {
            return Err(OperatorError::outside("injected: the sink does not answer"));
        }
        self.rows.extend(rows_of(batch));
        Ok(())
    }

    async fn on_barrier(&mut self, checkpoint: CheckpointId) -> Result<Value, OperatorError> {
        if !self.rows.is_empty() {
            let part = format!("{}-{}-{}", self.sink.name, self.subtask, self.next);
            self.sink.world.pass(|| format!("stage {part}")).await;
            let rows = std::mem::take(&mut self.rows);
            let before = self.sink.shelf(|shelf| shelf.staged.insert(part.clone(), rows));
            let is_published = self.sink.shelf(|shelf| shelf.published.contains_key(&part));
            self.sink.world.must(before.is_none() && !is_published, || format!("part {part} is staged once"));
            self.next += 1;
            self.staged.push((checkpoint, part));
        }
        let staged = self.staged.iter().map(|(_, part)| part.clone()).collect();
        Ok(serde_json::to_value(Remembered { staged, next: self.next }).expect("plain data"))
    }

    async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), OperatorError> {
        while let Some((of, part)) = self.staged.first()
            && *of <= checkpoint
        {
            self.sink.publish(part).await?;
            self.staged.remove(0);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        let is_published = self.rows.is_empty() && self.staged.is_empty();
        self.sink.world.must(is_published, || "the last checkpoint publishes everything".into());
        Ok(())
    }
}

fn rows_of(batch: &Batch) -> Vec<Row> {
    let numbers = |column: &dyn Array| cast(column, &DataType::Int64).expect("columns of simulations are numbers and times");
    let columns: Vec<_> = batch.columns().columns().iter().map(|column| numbers(column)).collect();
    let value = |column: &dyn Array, row: usize| if column.is_null(row) { i64::MIN } else { column.as_primitive::<Int64Type>().value(row) };
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| value(column, row)).collect()).collect()
}
