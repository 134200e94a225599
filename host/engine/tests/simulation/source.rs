//! A source whose rows follow from the seed, in splits that are read again from any position.

use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use millstream_model::{Batch, Origin, Positions};
use serde_json::Value;
use tokio::task::yield_now;

use crate::world::{Row, World};

/// Rows of numbers.
pub struct Table {
    pub columns: Vec<&'static str>,
    pub splits: Vec<Vec<Row>>,
    /// Whether the engine is told that it ends: then watermarks stand behind every 1,024th row, else behind every batch.
    pub is_bounded: bool,
}

impl Table {
    pub fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(self.columns.iter().map(|&name| Field::new(name, DataType::Int64, false)).collect::<Vec<_>>()))
    }

    /// All rows.
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.splits.iter().flatten()
    }
}

/// Reads one of the tables of a world: `simulated: { table: <number> }`.
pub struct SimulatedSources {
    pub world: Arc<World>,
    pub tables: Vec<Arc<Table>>,
}

impl SourceConnector for SimulatedSources {
    fn name(&self) -> &'static str {
        "simulated"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::Schema::default()
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let number = request.settings["table"].as_u64().expect("jobs of simulations name a table");
        Ok(Arc::new(SimulatedSource::new(self.world.clone(), self.tables[number as usize].clone())))
    }
}

/// One table.
#[derive(Clone)]
pub struct SimulatedSource {
    world: Arc<World>,
    table: Arc<Table>,
    columns: Vec<usize>,
}

impl SimulatedSource {
    pub fn new(world: Arc<World>, table: Arc<Table>) -> Self {
        let columns = (0..table.columns.len()).collect();
        Self { world, table, columns }
    }
}

#[async_trait]
impl Source for SimulatedSource {
    fn schema(&self) -> SchemaRef {
        Arc::new(self.table.schema().project(&self.columns).expect("columns of the table"))
    }

    fn is_bounded(&self) -> bool {
        self.table.is_bounded
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        Arc::new(Self { columns: columns.iter().map(|&column| self.columns[column]).collect(), ..self.clone() })
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        self.world.pass(|| "splits".into()).await;
        let split = |number: usize| Split { id: format!("split-{number}").into(), detail: Value::from(number) };
        Ok((0..self.table.splits.len()).map(split).collect())
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        self.world.pass(|| format!("open {} at {position:?}", split.id)).await;
        let number = split.detail.as_u64().expect("a split of this source") as usize;
        let next = position.map_or(0, |position| position.as_u64().expect("a position of this source")) as usize;
        Ok(Box::new(SimulatedReader { source: self.clone(), split: split.id.clone(), number, next, pauses: None }))
    }
}

struct SimulatedReader {
    source: SimulatedSource,
    split: Arc<str>,
    number: usize,
    next: usize,
    /// Rounds that the read under way still waits; a read that is given up for something else goes on waiting with the next.
    pauses: Option<u64>,
}

impl SimulatedReader {
    async fn wait(&mut self) {
        let world = &self.source.world;
        let left = self.pauses.get_or_insert_with(|| world.below(world.troubles().pause_rounds.max(1)));
        while *left > 0 {
            yield_now().await;
            *left -= 1;
        }
        self.pauses = None;
    }
}

#[async_trait]
impl SplitReader for SimulatedReader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        self.wait().await;
        let world = self.source.world.clone();
        world.pass(|| format!("read {} from {}", self.split, self.next)).await;
        if world.happens(world.troubles().failing) {
            return Err(OperatorError::outside("injected: the source does not answer"));
        }
        let rows = &self.source.table.splits[self.number];
        let most = if self.source.table.is_bounded { 200 } else { 12 };
        let count = rows_max.min(1 + world.below(most) as usize).min(rows.len() - self.next);
        if count == 0 {
            return Ok(Read::End);
        }
        let rows = &rows[self.next..self.next + count];
        self.next += count;
        let column = |&column: &usize| -> ArrayRef { Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row[column]))) };
        let columns = self.source.columns.iter().map(column).collect();
        let batch = Batch::try_new(self.source.schema(), columns, count).expect("columns of the schema");
        let origin = Origin { split: self.split.clone(), positions: Positions::From(self.next as u64) };
        Ok(Read::Rows { batch: batch.with_origin(Some(origin)), rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        Value::from(self.next)
    }

    async fn on_committed(&mut self, position: &Value) -> Result<(), OperatorError> {
        let world = &self.source.world;
        world.pass(|| format!("{} may forget what lies before {position}", self.split)).await;
        Ok(())
    }
}
