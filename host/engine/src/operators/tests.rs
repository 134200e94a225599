//! The simple operators with rows: what comes out, what is rejected.

use std::{path::Path, sync::Arc};

use arrow_array::{Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, TimeUnit};
use async_trait::async_trait;
use millstream_model::{Batch, StreamType, Watermark, ids::SubtaskIndex, ids::TenantId};
use millstream_wasm::{Silent, SubtaskLog};
use serde_json::{Value, json};

use super::{ComponentLoader, Environment, PlanRequest, Ports, registry};
use crate::{
    clock::ManualClock,
    graph::RowOrder,
    operator::{Moment, Operator, OperatorContext, OperatorPlan, Output, StateContext},
    rejected::row_json,
};

struct NoComponents;

#[async_trait]
impl ComponentLoader for NoComponents {
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        let component = path.display().to_string().into();
        Err(millstream_wasm::Error::Unreadable { component, source: std::io::ErrorKind::NotFound.into() })
    }
}

fn flights() -> Batch {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let schema = Arc::new(Schema::new(vec![
        Field::new("origin", DataType::Utf8, false),
        Field::new("delay", DataType::Float64, true),
        Field::new("seats", DataType::Int64, false),
        Field::new("at", time, true),
    ]));
    let columns: Vec<arrow_array::ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["JFK", "LGA", "EWR"])),
        Arc::new(Float64Array::from(vec![Some(30.0), None, Some(-5.0)])),
        Arc::new(Int64Array::from(vec![10, 0, 5])),
        Arc::new(TimestampMillisecondArray::from(vec![Some(1_000), None, Some(3_000)])),
    ];
    Batch::try_new(schema, columns, 3).expect("columns of the schema").with_event_times(Some(vec![1, 2, 3].into()))
}

async fn planned(key: &str, settings: Value, input: StreamType) -> Arc<dyn OperatorPlan> {
    let kind = registry().iter().find(|kind| kind.key == key).expect("a known operator");
    let spec = (kind.parse)(settings).expect("settings");
    let environment = Environment { base_directory: Path::new("."), components: &NoComponents, clock: Arc::new(ManualClock::at(0)) };
    assert!(matches!(spec.ports(&environment).await, Ok(Ports::Named(names)) if names.len() == 1) || key == "union");
    let id = "op".into();
    let request = PlanRequest {
        id: &id,
        inputs: &[input],
        keys: None,
        order: RowOrder::Arrival,
        environment: &environment,
        tables: None,
        grant: None,
    };
    match spec.plan(request).await {
        Ok(planned) => planned.plan,
        Err(problems) => panic!("{problems:?}"),
    }
}

async fn created(key: &str, settings: Value) -> Box<dyn Operator> {
    let input = StreamType { schema: flights().schema(), event_times: true, changes: false };
    let plan = planned(key, settings, input).await;
    plan.create(context()).await.unwrap_or_else(|error| panic!("{error}"))
}

fn context() -> OperatorContext {
    OperatorContext {
        tenant: TenantId::local(),
        job: "job".into(),
        operator: "op".into(),
        subtask: SubtaskIndex(0),
        parallelism: 1,
        key_groups: 0..4_096,
        state: StateContext { directory: None, shared: None, memory_budget_bytes: 0 },
        log: SubtaskLog::new(Silent),
        restored: None,
        clock: Arc::new(ManualClock::at(0)),
        metrics: Arc::default(),
    }
}

/// Rows that come out and rows that are rejected, as text.
fn out(operator: &mut dyn Operator, batch: Batch) -> (Vec<String>, Vec<String>) {
    let mut out = Output::default();
    let now = Moment { watermark: None, processing_time: 0 };
    futures::executor::block_on(operator.on_batch(0, batch, now, &mut out)).unwrap_or_else(|error| panic!("{error}"));
    let emitted = out.take_emitted().into_iter().map(|(_, batch)| batch);
    let rows = emitted.flat_map(|batch| (0..batch.num_rows()).map(|row| shown(&batch, row)).collect::<Vec<_>>()).collect();
    let rejected = out.take_rejections().into_iter().map(|rejection| format!("{}: {}", rejection.reason, rejection.row)).collect();
    (rows, rejected)
}

fn shown(batch: &Batch, row: usize) -> String {
    let columns: Vec<usize> = (0..batch.columns().num_columns()).collect();
    format!("{} at {}", row_json(batch, row, &columns), batch.event_time(row).map_or(-1, |time| time.0))
}

fn run(key: &str, settings: Value) -> (Vec<String>, Vec<String>) {
    let mut operator = futures::executor::block_on(created(key, settings));
    out(operator.as_mut(), flights())
}

#[test]
fn filter_keeps_rows_where_the_condition_holds_with_their_event_times() {
    let (rows, rejected) = run("filter", json!("delay < 100 AND origin <> 'JFK'"));
    assert_eq!(rows, [r#"{"origin":"EWR","delay":-5.0,"seats":5,"at":"1970-01-01T00:00:03"} at 3"#]);
    assert_eq!(rejected, Vec::<String>::new());
}

#[test]
fn filter_rejects_the_rows_on_which_the_condition_fails() {
    let (rows, rejected) = run("filter", json!("100 / seats > 10"));
    assert_eq!(rows.len(), 1);
    assert_eq!(rejected, [r#"division by zero in `100 / seats > 10`: {"seats":0}"#]);
}

#[test]
fn project_picks_orders_and_renames() {
    let (rows, _) = run("project", json!({ "places": "seats", "from": "origin" }));
    assert_eq!(rows[0], r#"{"places":10,"from":"JFK"} at 1"#);
    assert_eq!(run("project", json!(["at", "origin"])).0[2], r#"{"at":"1970-01-01T00:00:03","origin":"EWR"} at 3"#);
}

#[test]
fn compute_appends_and_replaces_from_the_row_as_it_was() {
    let (rows, _) = run("compute", json!({ "delay": "delay / 60.0", "twice": "delay * 2", "seats": "seats" }));
    assert_eq!(rows[0], r#"{"origin":"JFK","delay":0.5,"seats":10,"at":"1970-01-01T00:00:01","twice":60.0} at 1"#);
}

#[test]
fn compute_rejects_a_failing_row_once() {
    let (rows, rejected) = run("compute", json!({ "a": "100 / seats", "b": "CAST(origin AS BIGINT) % seats", "seats": "seats + 1" }));
    assert_eq!(rows, Vec::<String>::new());
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(rejected[0].starts_with("division by zero in `100 / seats`"), "{rejected:?}");
}

#[test]
fn union_passes_rows_on_and_makes_their_schema_one() {
    assert_eq!(run("union", json!({})).0.len(), 3);
    let nullable = |field: &Arc<Field>| field.as_ref().clone().with_nullable(true);
    let schema = Arc::new(Schema::new(flights().schema().fields().iter().map(nullable).collect::<Vec<_>>()));
    let plan =
        futures::executor::block_on(planned("union", json!({}), StreamType { schema: schema.clone(), event_times: true, changes: false }));
    let mut operator = futures::executor::block_on(plan.create(context())).unwrap_or_else(|error| panic!("{error}"));
    let mut out = Output::default();
    let now = Moment { watermark: None, processing_time: 0 };
    futures::executor::block_on(operator.on_batch(0, flights(), now, &mut out)).unwrap_or_else(|error| panic!("{error}"));
    assert!(out.take_emitted().iter().all(|(_, batch)| batch.schema() == schema));
}

#[test]
fn assign_watermarks_gives_times_anew_and_rejects_rows_without() {
    let (rows, rejected) = run("assign-watermarks", json!({ "column": "at", "max-out-of-orderness": "1s" }));
    assert!(rows[0].ends_with("at 1000") && rows[1].ends_with("at 3000"), "{rows:?}");
    assert_eq!(rejected, [r#"no event time: {"at":null}"#]);
}

#[test]
fn assigned_watermarks_stand_at_fixed_rows_and_end_with_the_input() {
    let mut operator = futures::executor::block_on(created("assign-watermarks", json!({ "max-out-of-orderness": "10ms" })));
    let mut marks = |from: i64, to: i64| -> Vec<(usize, i64)> {
        let times: Vec<i64> = (from..to).collect();
        let batch = flights().take(&vec![0_u32; times.len()]).with_event_times(Some(times.into()));
        let (mut out, now) = (Output::default(), Moment { watermark: None, processing_time: 0 });
        futures::executor::block_on(operator.on_batch(0, batch, now, &mut out)).unwrap_or_else(|error| panic!("{error}"));
        out.take_marked().iter().flat_map(|emitted| emitted.marks.iter().map(|mark| (mark.rows, mark.watermark.0))).collect()
    };
    assert_eq!(marks(0, 1_023), []);
    assert_eq!(marks(1_023, 4_000), [(1, 1_023 - 11), (1_025, 2_047 - 11), (2_049, 3_071 - 11)]);
    assert_eq!(marks(4_000, 4_096), [(96, 4_095 - 11)]);
    assert_eq!(operator.output_watermark(Watermark(5)), None);
    assert_eq!(operator.output_watermark(Watermark::MAX), Some(Watermark::MAX));
}
