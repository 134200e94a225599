//! The one place that touches the API.

use std::{path::Path, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, StringArray};
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_model::{
    Batch, ChangeKind, StreamType, Watermark,
    ids::{JobId, OperatorId, SubtaskIndex, TenantId},
    key::KEY_GROUPS,
};
use millstream_wasm::{Silent, SubtaskLog};
use serde_json::Value;

use crate::{
    clock::ManualClock,
    graph::RowOrder,
    operator::{Moment, Operator, OperatorContext, OperatorPlan, Output, OutputPort, StateContext},
    operators::{ComponentLoader, Environment, OperatorSpec, PlanRequest, Planned, Problem, window::Window},
};

/// A row of the input: key, event time, value, text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub key: Option<i64>,
    pub time: i64,
    pub value: i64,
    pub text: String,
}

pub fn row(key: i64, time: i64, value: i64) -> Row {
    Row { key: Some(key), time, value, text: format!("t{value}") }
}

pub fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("key", DataType::Int64, true),
        Field::new("value", DataType::Int64, false),
        Field::new("text", DataType::Utf8, false),
    ]))
}

pub fn batch(rows: &[Row]) -> Batch {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.key).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.value).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| Some(row.text.as_str())).collect::<StringArray>()),
    ];
    let times: Vec<i64> = rows.iter().map(|row| row.time).collect();
    Batch::try_new(schema(), columns, rows.len()).expect("the columns fit the schema").with_event_times(Some(times.into()))
}

/// No test here names a component by a path.
pub struct NoComponents;

#[async_trait]
impl ComponentLoader for NoComponents {
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        Err(millstream_wasm::Error::Unreadable { component: path.to_string_lossy().into(), source: std::io::ErrorKind::NotFound.into() })
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers").block_on(future)
}

/// The settings as the job file has them, planned on a stream of [`schema`].
pub fn plan_on(settings: Value, keys: Option<&[usize]>, event_times: bool, order: RowOrder) -> Result<Planned, Vec<Problem>> {
    let window: Window = serde_json::from_value(settings).map_err(|error| vec![Problem::at("", error.to_string())])?;
    let clock = Arc::new(ManualClock::at(0));
    let environment = Environment { base_directory: Path::new(""), components: &NoComponents, clock };
    let keys = keys.map(|keys| vec![keys.to_vec()]);
    let inputs = [StreamType { schema: schema(), event_times, changes: false }];
    let request = PlanRequest {
        id: &OperatorId::from("w"),
        inputs: &inputs,
        keys: keys.as_deref(),
        order,
        environment: &environment,
        tables: None,
        grant: None,
    };
    block_on(OperatorSpec::plan(&window, request))
}

pub fn context() -> OperatorContext {
    OperatorContext {
        tenant: TenantId::local(),
        job: JobId::from("test"),
        operator: OperatorId::from("w"),
        subtask: SubtaskIndex(0),
        parallelism: 1,
        key_groups: 0..KEY_GROUPS,
        state: StateContext { directory: None, shared: None, memory_budget_bytes: 256 << 20 },
        log: SubtaskLog::new(Silent),
        restored: None,
        metrics: Arc::default(),
        clock: Arc::new(ManualClock::at(0)),
    }
}

/// A running window operator, and what came out of it.
pub struct Run {
    operator: Box<dyn Operator>,
    now: Moment,
    /// Result rows as text: change, columns, event time.
    pub results: Vec<String>,
    /// Late rows as (key, time).
    pub late: Vec<(Option<i64>, i64)>,
    /// Reasons and rows of rejections.
    pub rejected: Vec<(String, String)>,
}

/// A keyed (by `key`) or unkeyed window operator.
pub fn run(settings: Value, keyed: bool) -> Run {
    let keys: Option<&[usize]> = if keyed { Some(&[0]) } else { None };
    let planned = plan_on(settings, keys, true, RowOrder::Arrival).expect("it is planned");
    Run::of(&*planned.plan)
}

impl Run {
    pub fn of(plan: &dyn OperatorPlan) -> Self {
        let operator = block_on(plan.create(context())).expect("the operator opens");
        let now = Moment { watermark: None, processing_time: 0 };
        Self { operator, now, results: Vec::new(), late: Vec::new(), rejected: Vec::new() }
    }

    pub fn rows(&mut self, rows: &[Row]) {
        let mut out = Output::default();
        block_on(self.operator.on_batch(0, batch(rows), self.now, &mut out)).expect("rows are taken");
        self.take(&mut out);
    }

    pub fn watermark(&mut self, watermark: i64) {
        self.now.watermark = self.now.watermark.max(Some(Watermark(watermark)));
        self.repeat(async |operator, now, out| operator.on_watermark(now, out).await);
    }

    pub fn processing_time(&mut self, time: i64) {
        self.now.processing_time = time;
        if self.operator.next_processing_time().is_some_and(|next| next <= time) {
            self.repeat(async |operator, now, out| operator.on_processing_time(now, out).await);
        }
    }

    pub fn end(&mut self) {
        self.watermark(i64::MAX);
        self.repeat(async |operator, now, out| operator.on_end(now, out).await);
    }

    fn repeat(&mut self, call: impl AsyncFn(&mut Box<dyn Operator>, Moment, &mut Output) -> Result<(), crate::operator::OperatorError>) {
        loop {
            let mut out = Output::default();
            block_on(call(&mut self.operator, self.now, &mut out)).expect("the call succeeds");
            self.take(&mut out);
            if !self.operator.has_more() {
                return;
            }
        }
    }

    fn take(&mut self, out: &mut Output) {
        for (port, batch) in out.take_emitted() {
            match port {
                OutputPort::Port(0) => self.results.extend(texts(&batch)),
                OutputPort::Late => {
                    let keys = arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Int64Type>(batch.column(0));
                    self.late.extend(keys.iter().zip(batch.event_times().expect("late rows keep their times").iter().copied()));
                }
                other => unreachable!("nothing is emitted on {other:?}"),
            }
        }
        self.rejected.extend(out.take_rejections().into_iter().map(|rejection| (rejection.reason, rejection.row)));
    }

    /// The results so far, and forgets them.
    pub fn take_results(&mut self) -> Vec<String> {
        std::mem::take(&mut self.results)
    }

    /// As [`Self::take_results`], sorted.
    pub fn take_sorted(&mut self) -> Vec<String> {
        let mut results = self.take_results();
        results.sort();
        results
    }
}

/// Rows as text: change, values (windows in ms since epoch), event time.
fn texts(batch: &Batch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let plain = |column: &ArrayRef| match column.data_type() {
        DataType::Timestamp(_, _) => arrow_cast::cast(column, &DataType::Int64).expect("times are numbers"),
        _ => Arc::clone(column),
    };
    let columns: Vec<ArrayRef> = batch.columns().columns().iter().map(plain).collect();
    let shown: Vec<ArrayFormatter<'_>> =
        columns.iter().map(|column| ArrayFormatter::try_new(column, &options).expect("it can be shown")).collect();
    let text = |row: usize| {
        let change = match batch.changes().map_or(Some(ChangeKind::Insert), |changes| ChangeKind::from_byte(changes[row])) {
            Some(ChangeKind::Insert) => "+",
            Some(ChangeKind::UpdateBefore) => "<",
            Some(ChangeKind::UpdateAfter) => ">",
            Some(ChangeKind::Delete) => "-",
            None => unreachable!("a change kind is one of four"),
        };
        let values: Vec<String> = shown.iter().map(|column| column.value(row).to_string()).collect();
        let time = batch.event_time(row).map(|time| format!(" @{}", time.0)).unwrap_or_default();
        format!("{change} {}{time}", values.join(" "))
    };
    (0..batch.num_rows()).map(text).collect()
}
