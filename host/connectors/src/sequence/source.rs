//! The source: number, step and pace.

use std::sync::{Arc, LazyLock};

use arrow_array::Int64Array;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use millstream_model::{Batch, Origin, Positions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Settings;
use crate::{
    pace::Pace,
    settings::{problem, read},
};

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)])));

/// The source connector `sequence`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sequence;

impl SourceConnector for Sequence {
    fn name(&self) -> &'static str {
        "sequence"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let settings: Settings = read(request.settings)?;
        if request.declared_schema.is_some() {
            return Err(vec![problem("", "the column of sequence is given (value Int64): remove `schema:` of the source")]);
        }
        let count = count(&settings);
        Ok(Arc::new(Numbers { settings, count, clock: request.clock, columns: vec![0] }))
    }
}

/// How many numbers there are; without end: as many as fit into 64 bits.
fn count(settings: &Settings) -> u64 {
    let (from, step) = (i128::from(settings.from), i128::from(settings.step.get()));
    let default_to = if step > 0 { i64::MAX } else { i64::MIN };
    let to = i128::from(settings.to.unwrap_or(default_to));
    let steps = (to - from) / step;
    if (to - from) * step.signum() < 0 { 0 } else { u64::try_from(steps + 1).unwrap_or(u64::MAX) }
}

struct Numbers {
    settings: Settings,
    count: u64,
    clock: Arc<dyn Clock>,
    /// As many times the only column as it was asked for: never or once, as a rule.
    columns: Vec<usize>,
}

/// What a checkpoint stores.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Position {
    /// Number of the next row.
    row: u64,
}

#[async_trait]
impl Source for Numbers {
    fn schema(&self) -> SchemaRef {
        Arc::new(SCHEMA.project(&self.columns).expect("the column exists"))
    }

    fn is_bounded(&self) -> bool {
        self.settings.to.is_some()
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        let columns = columns.iter().map(|&column| self.columns[column]).collect();
        Arc::new(Self { settings: self.settings.clone(), count: self.count, clock: self.clock.clone(), columns })
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(vec![Split { id: "sequence".into(), detail: Value::Null }])
    }

    fn size_hint(&self) -> Option<u64> {
        self.is_bounded().then_some(self.count)
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let resume: Option<Position> = position
            .map(|position| serde_json::from_value(position.clone()))
            .transpose()
            .map_err(|error| OperatorError::user("the position of the sequence is not one of it").because(error))?;
        Ok(Box::new(Reader {
            settings: self.settings.clone(),
            schema: self.schema(),
            split: split.id.clone(),
            clock: self.clock.clone(),
            next: resume.map_or(0, |position| position.row),
            count: self.count,
            pace: None,
        }))
    }
}

struct Reader {
    settings: Settings,
    schema: SchemaRef,
    split: Arc<str>,
    clock: Arc<dyn Clock>,
    next: u64,
    count: u64,
    pace: Option<Pace>,
}

impl Reader {
    /// The end of the rows that may be read now, at least one; waits for the first to be due.
    async fn due(&mut self, rows_max: usize) -> u64 {
        let end = self.count.min(self.next.saturating_add(rows_max.max(1) as u64));
        let Some(rate) = self.settings.rate else { return end };
        let pace = *self.pace.get_or_insert_with(|| Pace::starting(&*self.clock, self.next, rate.get()));
        while pace.due(&*self.clock) <= self.next {
            pace.wait_for(&*self.clock, self.next).await;
        }
        end.min(pace.due(&*self.clock))
    }

    /// The number of a row. `count` keeps it within 64 bits, so wrapping arithmetic is exact.
    fn number(&self, row: u64) -> i64 {
        self.settings.from.wrapping_add(self.settings.step.get().wrapping_mul(row.cast_signed()))
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        if self.next >= self.count {
            return Ok(Read::End);
        }
        let (start, end) = (self.next, self.due(rows_max).await);
        let numbers = Arc::new(Int64Array::from_iter_values((start..end).map(|row| self.number(row))));
        let columns = self.schema.fields().iter().map(|_| numbers.clone() as _).collect();
        self.next = end;
        let origin = Origin { split: self.split.clone(), positions: Positions::From(start) };
        let rows = usize::try_from(end - start).expect("it is at most rows_max");
        let batch = Batch::try_new(self.schema.clone(), columns, rows).expect("the column is made to the schema");
        Ok(Read::Rows { batch: batch.with_origin(Some(origin)), rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        serde_json::to_value(Position { row: self.next }).expect("numbers are JSON")
    }

    fn progress(&self) -> u64 {
        self.next
    }
}
