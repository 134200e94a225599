//! A source of rows with uniformly distributed keys: first every key once, so that all of them have state, then the rows that are measured.
//! It notes the CPU time of the process when the first measured row is asked for and when there are no more.
//!
//! ```yaml
//! uniform: { keys: 1000000, rows: 8000000, pool: 1024 }
//! ```

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use arrow_array::{ArrayRef, Int64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use millstream_model::Batch;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::figures::process_cpu_seconds;

/// Rows of a batch.
pub const BATCH: usize = 4_096;

/// What stands under `uniform:`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Number of keys.
    keys: u64,
    /// Rows that are measured; whole batches.
    rows: u64,
    /// So many batches are made before the run and repeated; none: every batch is made when it is asked for, as many rows take too much memory.
    pool: Option<usize>,
}

/// CPU seconds of the process at both ends of the measured rows of the last run.
#[derive(Clone, Default)]
pub struct Probe(Arc<Mutex<(f64, f64)>>);

impl Probe {
    /// The CPU seconds that the measured rows took.
    pub fn seconds(&self) -> f64 {
        let (started, ended) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ended - started
    }

    fn note(&self, note: impl FnOnce(&mut (f64, f64), f64)) {
        note(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), process_cpu_seconds());
    }
}

/// The connector.
pub struct Uniform(pub Probe);

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let column = |name: &str| Field::new(name, DataType::Int64, false);
    Arc::new(Schema::new(vec![column("key"), column("number")]))
});

impl SourceConnector for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let settings: Settings = serde_json::from_value(request.settings.clone())
            .map_err(|error| vec![SettingsProblem { path: String::new(), message: error.to_string() }])?;
        let pool = batches(settings.keys, settings.pool.unwrap_or(0)).into();
        Ok(Arc::new(Rows { settings, pool, probe: self.0.clone() }))
    }
}

/// `count` batches of rows with keys below `keys`, the same in every run.
pub fn batches(keys: u64, count: usize) -> Vec<Batch> {
    let mut random = Random::new();
    (0..count).map(|_| batch((0..BATCH).map(|_| random.below(keys)))).collect()
}

/// Batches that hold every key once.
pub fn every_key(keys: u64) -> impl Iterator<Item = Batch> {
    (0..keys).step_by(BATCH).map(move |start| batch(start..keys.min(start + BATCH as u64)))
}

fn batch(keys: impl Iterator<Item = u64>) -> Batch {
    let keys = Int64Array::from_iter_values(keys.map(u64::cast_signed));
    let numbers = Int64Array::from_iter_values(keys.values().iter().map(|key| key & 7));
    let rows = keys.values().len();
    let columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(numbers)];
    Batch::try_new(SCHEMA.clone(), columns, rows).expect("the columns are made to the schema")
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(limit)) >> 64) as u64
    }
}

struct Rows {
    settings: Settings,
    pool: Arc<[Batch]>,
    probe: Probe,
}

#[async_trait]
impl Source for Rows {
    fn schema(&self) -> SchemaRef {
        SCHEMA.clone()
    }

    fn is_bounded(&self) -> bool {
        true
    }

    /// The jobs that are measured read both columns.
    fn project(&self, _columns: &[usize]) -> Arc<dyn Source> {
        Arc::new(Self { settings: self.settings.clone(), pool: self.pool.clone(), probe: self.probe.clone() })
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(vec![Split { id: "uniform".into(), detail: Value::Null }])
    }

    async fn open(&self, _split: &Split, _position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let Settings { keys, rows, .. } = self.settings;
        let batches = (rows / BATCH as u64) as usize;
        let pool = self.pool.clone();
        let mut random = Random::new();
        let made = move |number: usize| match pool.len() {
            0 => batch((0..BATCH).map(|_| random.below(keys))),
            length => pool[number % length].clone(),
        };
        let measured = Box::new((0..batches).map(made));
        Ok(Box::new(Reader { first: Box::new(every_key(keys)), measured, has_started: false, probe: self.probe.clone() }))
    }
}

struct Reader {
    first: Box<dyn Iterator<Item = Batch> + Send>,
    measured: Box<dyn Iterator<Item = Batch> + Send>,
    has_started: bool,
    probe: Probe,
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, _rows_max: usize) -> Result<Read, OperatorError> {
        if let Some(batch) = self.first.next() {
            return Ok(Read::Rows { batch, rejected: Vec::new() });
        }
        if !std::mem::replace(&mut self.has_started, true) {
            self.probe.note(|(started, _), now| *started = now);
        }
        let Some(batch) = self.measured.next() else {
            self.probe.note(|(_, ended), now| *ended = now);
            return Ok(Read::End);
        };
        Ok(Read::Rows { batch, rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        Value::Null
    }
}
