//! Real components in the real host: every way in which a guest can be wrong, and that what is right comes through unchanged.

#![allow(
    missing_docs,
    clippy::missing_errors_doc,
    clippy::allow_attributes_without_reason,
    clippy::unwrap_used,
    clippy::err_expect,
    reason = "a test"
)]
#![expect(clippy::panic, reason = "tests panic; helpers of tests too")]

mod aggregates;
mod agreement;
mod columns;
mod hostile;
mod loading;
mod migration;
mod toolchain;

use std::sync::{Arc, Mutex};

use arrow_schema::{DataType, Field, FieldRef};
use millstream_hostile::{contract, puppet};
use millstream_model::ids::{JobId, OperatorId};
use millstream_wasm::{
    CallKeys, Component, Error, Failure, GuestLog, InputSchema, InstanceContext, Limits, Moment, OperatorInstance, OperatorPlan, Rows,
    Runtime, RuntimeSettings, Said, Turn,
};

/// The clocks of every call in these tests.
pub const NOW: Moment = Moment { watermark: None, processing_time_ms: 1_700_000_000_000 };

pub fn context() -> InstanceContext {
    InstanceContext { job: JobId::from("job"), ..InstanceContext::unheard(Some(OperatorId::from("op"))) }
}

/// Small limits, so that tests are quick.
pub fn limits() -> Limits {
    Limits { cpu_per_call: std::time::Duration::from_millis(50), memory_bytes: 16 << 20, ..Limits::default() }
}

pub fn runtime() -> Runtime {
    runtime_with(limits())
}

pub fn runtime_with(limits: Limits) -> Runtime {
    Runtime::new(RuntimeSettings { limits, pooled_instances: 8, ..RuntimeSettings::default() }).expect("addresses for 8 instances")
}

pub async fn load(bytes: Arc<[u8]>) -> Result<Component, Error> {
    runtime().load(bytes, "puppet.wasm").await
}

pub async fn instance(bytes: Arc<[u8]>) -> OperatorInstance {
    load(bytes).await.expect("loads").operator(context()).await.expect("starts")
}

pub fn nullable(name: &str, data_type: DataType) -> FieldRef {
    Arc::new(Field::new(name, data_type, true))
}

/// One input of nullable columns.
pub fn input(columns: &[(&str, DataType)]) -> InputSchema {
    let fields = columns.iter().map(|(name, data_type)| nullable(name, data_type.clone())).collect();
    InputSchema { fields, keys: vec![], event_times: true, changes: false }
}

/// An instance that is planned and opened for `input`.
pub async fn opened(bytes: Arc<[u8]>, input: InputSchema) -> (OperatorInstance, Arc<OperatorPlan>) {
    let mut instance = instance(bytes).await;
    let settings = serde_json::json!({});
    let plan = Arc::new(instance.plan(&settings, std::slice::from_ref(&input)).await.expect("plans"));
    instance.open(&settings, &[input], plan.clone()).await.expect("opens");
    (instance, plan)
}

/// Rows without columns or keys.
pub fn rows(length: u32) -> Rows {
    Rows { length, columns: vec![], event_times: None, changes: None, keys: None }
}

/// Rows, each with a key of its own.
pub fn keyed_rows(length: u32, values: Vec<arrow_array::ArrayRef>) -> Rows {
    Rows { keys: Some(CallKeys { length, of_row: None, values }), ..rows(length) }
}

pub async fn process(instance: &mut OperatorInstance, rows: Rows) -> Result<Turn, Failure> {
    instance.process(NOW, 0, rows, None).await.0
}

/// Remembers log lines.
#[derive(Default)]
pub struct Lines(pub Mutex<Vec<String>>);

impl GuestLog for Lines {
    fn emit(&self, Said { level, message, .. }: &Said<'_>) {
        self.0.lock().expect("no panic while held").push(format!("{level:?}: {message}"));
    }
}
