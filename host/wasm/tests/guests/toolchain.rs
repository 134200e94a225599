//! Components of a real compiler: the Rust SDK for `wasm32-unknown-unknown`, and the standard library's WASI for `wasm32-wasip2`.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, LazyLock},
};

use arrow_array::{ArrayRef, Int64Array, StringArray, cast::AsArray as _, types::Int64Type};
use arrow_schema::DataType;
use millstream_model::ids::SubtaskIndex;
use millstream_wasm::{
    Component, From, InputSchema, InstanceContext, Limits, OperatorInstance, Rows, Runtime, RuntimeSettings, SubtaskLog, TurnOutput, encode,
};

use crate::{Lines, NOW, context, process, rows};

/// The operators of `host/wasm/guests` for one target; where its files are.
fn built(target: &str, examples: &[&str]) -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/Cargo.toml");
    let output =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--release", "--target", target, "--manifest-path"]).arg(manifest);
    examples.iter().for_each(|example| {
        cargo.args(["--example", example]);
    });
    assert!(cargo.status().expect("cargo runs").success(), "the guests build");
    output.join(target).join("release/examples")
}

static MODULES: LazyLock<PathBuf> = LazyLock::new(|| built("wasm32-unknown-unknown", &["count", "filter", "upper"]));
static WASI: LazyLock<PathBuf> = LazyLock::new(|| built("wasm32-wasip2", &["worldly"]));

fn read(directory: &Path, name: &str) -> Arc<[u8]> {
    std::fs::read(directory.join(format!("{name}.wasm"))).expect("was built").into()
}

/// More time for a call than elsewhere in these tests: machines that build also run this.
async fn load(bytes: Arc<[u8]>, seed: u64) -> Component {
    let settings = RuntimeSettings { pooled_instances: 4, random_seed: seed, ..RuntimeSettings::default() };
    Runtime::new(settings).expect("addresses").load(bytes, "guest.wasm").await.expect("loads")
}

fn input(name: &str, data_type: DataType) -> InputSchema {
    let fields = vec![Arc::new(arrow_schema::Field::new(name, data_type, false))].into();
    InputSchema { fields, keys: vec![], event_times: false, changes: false }
}

async fn opened(component: &Component, context: InstanceContext, input: InputSchema) -> OperatorInstance {
    let mut instance = component.operator(context).await.expect("starts");
    let plan = Arc::new(instance.plan(&serde_json::Value::Null, std::slice::from_ref(&input)).await.expect("plans"));
    instance.open(&serde_json::Value::Null, &[input], plan).await.expect("opens");
    instance
}

async fn output_of(instance: &mut OperatorInstance, column: ArrayRef) -> TurnOutput {
    let rows = Rows { columns: vec![column.clone()], ..rows(column.len() as u32) };
    process(instance, rows).await.expect("answers").outputs.remove(0)
}

#[tokio::test]
async fn a_filter_answers_with_row_numbers_alone() {
    let encoded = encode::component(&read(&MODULES, "filter"), &[], "filter.wasm").expect("becomes a component");
    assert!(encoded.inspection.imports.iter().all(|import| import.starts_with("millstream:operator/")), "{:?}", encoded.inspection.imports);
    assert!(!encoded.inspection.sends_requests(), "what the SDK can do and the operator does not is not imported");
    let mut instance = opened(&load(encoded.bytes.into(), 0).await, context(), input("number", DataType::Int64)).await;
    let output = output_of(&mut instance, Arc::new(Int64Array::from(vec![1, 900, 249, 250]))).await;
    assert_eq!(output.from, From::Rows(vec![0, 2].into()));
    assert!(output.columns.is_empty());
}

#[tokio::test]
async fn text_comes_back_as_columns() {
    let encoded = encode::component(&read(&MODULES, "upper"), &[], "upper.wasm").expect("becomes a component");
    let mut instance = opened(&load(encoded.bytes.into(), 0).await, context(), input("text", DataType::Utf8)).await;
    let output = output_of(&mut instance, Arc::new(StringArray::from(vec!["ab", "", "größe"]))).await;
    assert_eq!(output.columns[0].as_string::<i32>(), &StringArray::from(vec!["AB", "", "GRößE"]));
}

/// Wall clock, time slept, random, arguments, variables, files, bytes of standard input.
async fn world_of(seed: u64, context: InstanceContext) -> [i64; 7] {
    let mut instance = opened(&load(read(&WASI, "worldly"), seed).await, context, input("number", DataType::Int64)).await;
    let output = output_of(&mut instance, Arc::new(Int64Array::from(vec![3_600]))).await;
    std::array::from_fn(|column| output.columns[column].as_primitive::<Int64Type>().value(0))
}

#[tokio::test]
async fn the_world_of_a_standard_library_is_virtual_and_repeatable() {
    let lines = Arc::new(Lines::default());
    let first = world_of(1, InstanceContext { log: SubtaskLog::to(lines.clone()), ..context() }).await;
    let [wall_ms, slept_ms, random, arguments, variables, files, input_bytes] = first;
    assert_eq!(wall_ms, NOW.processing_time_ms);
    assert!((3_600_000..3_601_000).contains(&slept_ms), "an hour passed at once: {slept_ms}");
    assert_eq!([arguments, variables, files, input_bytes], [0; 4]);
    assert_eq!(*lines.0.lock().expect("no panic while held"), ["Info: to standard output", "Warn: to standard error"]);

    assert_eq!(world_of(1, context()).await, first, "the same seed, the same world");
    assert_ne!(world_of(2, context()).await[2], random);
    assert_ne!(world_of(1, InstanceContext { subtask: SubtaskIndex(1), ..context() }).await[2], random);
}

/// Each instance says two lines; not one fits into ten bytes a second.
#[tokio::test]
async fn the_limit_of_the_log_is_that_of_the_subtask_however_many_instances_follow_each_other() {
    let lines = Arc::new(Lines::default());
    let subtask = InstanceContext { log: SubtaskLog::to(lines.clone()), ..context() };
    let limits = Limits { log_bytes_per_second: 10, ..Limits::default() };
    let component = crate::runtime_with(limits).load(read(&WASI, "worldly"), "worldly.wasm").await.expect("loads");
    for _ in 0..2 {
        let mut instance = opened(&component, subtask.clone(), input("number", DataType::Int64)).await;
        output_of(&mut instance, Arc::new(Int64Array::from(vec![1]))).await;
    }
    assert_eq!(*lines.0.lock().expect("no panic while held"), [""; 0]);
    drop(subtask);
    let said = lines.0.lock().expect("no panic while held").clone();
    assert_eq!(said, ["Warn: 4 lines were dropped: the log is limited to 10 bytes per second"]);
}
