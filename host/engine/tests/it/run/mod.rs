//! Jobs that run: put together by hand, on the real runtime, mostly with real components.

mod components;
mod guests;
mod lifecycle;
mod recorder;
mod requests;
mod restored;
mod swaps;
mod time;
mod trials;
mod why;

use std::{path::Path, sync::Arc, time::Duration};

use arrow_array::{Int64Array, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    clock::ManualClock,
    graph::{Edge, EventTimeFrom, EventTimePlan, Exchange, JobPlan, NullKeys, OperatorNode, RowOrder},
    operator::OutputPort,
    operators::{ComponentLoader, Environment, PlanRequest, registry},
    run::{JobError, JobHandle, JobOutcome, RunSettings, Summary, start},
};
use millstream_model::{Batch, StreamType};

/// A column of names, all Int64 that may be null.
fn schema(columns: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(columns.iter().map(|&name| Field::new(name, DataType::Int64, true)).collect::<Vec<_>>()))
}

/// Rows of (key, number, event time in ms).
fn rows(rows: &[(i64, i64, i64)]) -> Batch {
    nullable_rows(&rows.iter().map(|&(key, number, at)| (Some(key), number, at)).collect::<Vec<_>>())
}

fn nullable_rows(rows: &[(Option<i64>, i64, i64)]) -> Batch {
    let fields = vec![
        Field::new("key", DataType::Int64, true),
        Field::new("number", DataType::Int64, false),
        Field::new("at", DataType::Int64, false),
    ];
    let keys = Int64Array::from_iter(rows.iter().map(|row| row.0));
    let numbers = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
    let times = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let columns: Vec<arrow_array::ArrayRef> = vec![Arc::new(keys), Arc::new(numbers), Arc::new(times)];
    Batch::try_new(Arc::new(Schema::new(fields)), columns, rows.len()).expect("the columns fit")
}

/// Key columns are not null in this schema: SDK rows are declared so.
fn keyed_rows(values: &[(i64, i64, i64)]) -> Batch {
    let names = ["key", "number", "at"];
    let fields: Vec<Field> = names.iter().map(|&name| Field::new(name, DataType::Int64, false)).collect();
    let column =
        |of: fn(&(i64, i64, i64)) -> i64| -> arrow_array::ArrayRef { Arc::new(Int64Array::from_iter_values(values.iter().map(of))) };
    let columns = vec![column(|row| row.0), column(|row| row.1), column(|row| row.2)];
    Batch::try_new(Arc::new(Schema::new(fields)), columns, values.len()).expect("the columns fit")
}

/// Event times from column `at`.
fn event_time(bound_ms: i64) -> Option<EventTimePlan> {
    Some(EventTimePlan { from: EventTimeFrom::Column(2), bound_ms, idle_timeout: Some(Duration::from_secs(30)), max_drift: None })
}

fn by_key(from: usize) -> Edge {
    by_key_with(from, NullKeys::Keep)
}

fn by_key_with(from: usize, null_keys: NullKeys) -> Edge {
    Edge { from, output: OutputPort::Port(0), port: 0, exchange: Exchange::Hash { keys: vec![0], null_keys }, columns: None }
}

struct NoComponents;

#[async_trait]
impl ComponentLoader for NoComponents {
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        panic!("{} is not needed", path.display());
    }
}

/// A built-in operator of one input and no key, planned from its settings as a job file gives them.
async fn built_in(key: &str, settings: serde_json::Value, input: StreamType) -> OperatorNode {
    let kind = registry().iter().find(|kind| kind.key == key).expect("a known operator");
    let spec = (kind.parse)(settings).expect("settings");
    let environment = Environment { base_directory: Path::new("."), components: &NoComponents, clock: Arc::new(ManualClock::at(0)) };
    let inputs = vec![input];
    let request = PlanRequest {
        id: &key.into(),
        inputs: &inputs,
        keys: None,
        order: RowOrder::Arrival,
        environment: &environment,
        tables: None,
        grant: None,
    };
    let planned = spec.plan(request).await.expect("it plans");
    OperatorNode { plan: planned.plan, inputs, keys: None, order: RowOrder::Arrival }
}

/// The rows of all batches, Int64 columns only.
fn values(batches: &[Batch]) -> Vec<Vec<i64>> {
    let row =
        |batch: &Batch, row: usize| batch.columns().columns().iter().map(|column| column.as_primitive::<Int64Type>().value(row)).collect();
    batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|number| row(batch, number)).collect::<Vec<_>>()).collect()
}

fn sorted(mut rows: Vec<Vec<i64>>) -> Vec<Vec<i64>> {
    rows.sort();
    rows
}

async fn finished(handle: &JobHandle) -> Summary {
    match handle.wait().await.as_ref() {
        JobOutcome::Finished(summary) => summary.clone(),
        other => panic!("the job should have finished: {other:?}"),
    }
}

async fn failed(handle: &JobHandle) -> JobError {
    match handle.wait().await.as_ref() {
        JobOutcome::Failed(error) => error.clone(),
        other => panic!("the job should have failed: {other:?}"),
    }
}

async fn run_to_end(plan: Arc<JobPlan>) -> Summary {
    finished(&start(plan, RunSettings::new())).await
}
