//! What the contract costs: the figures of `wit/README.md`, on this machine.
//!
//! Components made with the Rust SDK (`host/wasm/guests`) against native Rust on the same Arrow columns: a filter that keeps a quarter of
//! the rows, and text in upper case, at 1,024 and 4,096 rows per call, all checks of the host included; a keyed count whose values travel
//! with the batch; the fixed cost of a call; a new instance; and from a trap to the next result.
//!
//! Medians of CPU time of the calling thread, native and guest in turn. Dependencies are optimised in every profile, so the crate itself
//! only needs: `cargo bench -p millstream-wasm --profile dev --config profile.dev.opt-level=3 --config profile.dev.debug-assertions=false`.
//! With `-- --json`, one JSON object per figure.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark measures and prints")]
#![expect(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark measures, prints, and stops at what cannot be"
)]

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use arrow_array::{
    Array as _, ArrayRef, BooleanArray, Int64Array, StringArray, StructArray, UInt32Array, UInt64Array, builder::StringBuilder,
    cast::AsArray as _, types::Int64Type,
};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field};
use arrow_select::{filter::FilterBuilder, take::take};
use cpu_time::ThreadTime;
use millstream_model::ids::{JobId, OperatorId, SubtaskIndex, TenantId};
use millstream_wasm::{
    CallKeys, Component, InputSchema, InstanceContext, Moment, OperatorInstance, OperatorPlan, Rows, Runtime, RuntimeSettings, Silent,
    encode,
};

const NOW: Moment = Moment { watermark: None, processing_time_ms: 0 };
/// Samples per figure; the median counts.
const SAMPLES: usize = 41;
/// Rows per sample, in calls of the size that is measured.
const ROWS_PER_SAMPLE: usize = 1 << 17;

fn main() {
    let json = std::env::args().any(|argument| argument == "--json");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime on this thread");
    let figures = runtime.block_on(measure());
    for figure in &figures {
        if json {
            println!("{}", figure.json());
        } else {
            println!("{:<44} {:>10.3} {:<9} {:<8} {}", figure.name, figure.value, figure.unit, figure.bound(), figure.verdict());
        }
    }
}

async fn measure() -> Vec<Figure> {
    let guests = Guests::build();
    let runtime = Runtime::new(RuntimeSettings::default()).expect("addresses for the instances");
    let (filter, upper, count) =
        (guests.load(&runtime, "filter").await, guests.load(&runtime, "upper").await, guests.load(&runtime, "count").await);
    let mut figures = Vec::new();
    for rows in [1_024, 4_096] {
        figures.extend(measure_filter(&filter, "filter", 4, 3, rows, Some(1.5)).await);
        figures.extend(measure_filter(&filter, "filter-narrow", 3, 1, rows, None).await);
        figures.extend(measure_upper(&upper, rows).await);
    }
    for keys in [256, 4_096] {
        figures.push(measure_count(&count, 4_096, keys).await);
    }
    figures.push(measure_fixed_cost(&filter).await);
    figures.extend(measure_instances(&count).await);
    figures.extend(measure_loading(&guests).await);
    figures
}

/// One measured figure.
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    /// The most it may be.
    at_most: Option<f64>,
    how: &'static str,
}

impl Figure {
    fn new(name: impl Into<String>, value: f64, unit: &'static str, how: &'static str) -> Self {
        Self { name: name.into(), value, unit, at_most: None, how }
    }

    fn at_most(self, bound: f64) -> Self {
        Self { at_most: Some(bound), ..self }
    }

    fn is_met(&self) -> bool {
        self.at_most.is_none_or(|bound| self.value <= bound)
    }

    fn bound(&self) -> String {
        self.at_most.map(|bound| format!("<= {bound}")).unwrap_or_default()
    }

    fn verdict(&self) -> &'static str {
        match (self.at_most, self.is_met()) {
            (None, _) => "",
            (Some(_), true) => "met",
            (Some(_), false) => "NOT MET",
        }
    }

    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "name": self.name, "value": self.value, "unit": self.unit, "bound": self.bound(), "met": self.is_met(), "how": self.how })
    }
}

// ---- guests ----

struct Guests {
    directory: PathBuf,
}

impl Guests {
    fn build() -> Self {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/Cargo.toml");
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target"), PathBuf::from);
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--release", "--target", "wasm32-unknown-unknown", "--examples", "--manifest-path"]).arg(manifest);
        assert!(cargo.status().expect("cargo runs").success(), "the guests build");
        Self { directory: target.join("wasm32-unknown-unknown/release/examples") }
    }

    fn component(&self, name: &str) -> Arc<[u8]> {
        let module = std::fs::read(self.directory.join(format!("{name}.wasm"))).expect("the guests were built");
        encode::component(&module, &[], name).expect("the module becomes a component").bytes.into()
    }

    async fn load(&self, runtime: &Runtime, name: &str) -> Component {
        runtime.load(self.component(name), name).await.expect("the component loads")
    }
}

fn context() -> InstanceContext {
    InstanceContext {
        tenant: TenantId::local(),
        job: JobId::from("bench"),
        operator: OperatorId::from("operator"),
        subtask: SubtaskIndex(0),
        log: Arc::new(Silent),
        metrics: Arc::new(Silent),
    }
}

fn input(columns: &[(&str, DataType)], keys: &[u32]) -> InputSchema {
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), false)).collect();
    InputSchema { fields, keys: keys.to_vec(), event_times: false, changes: false }
}

async fn opened(component: &Component, input: &InputSchema) -> (OperatorInstance, Arc<OperatorPlan>) {
    let mut instance = component.operator(context()).await.expect("an instance");
    let settings = serde_json::json!({});
    let plan = Arc::new(instance.plan(&settings, std::slice::from_ref(input)).await.expect("plans"));
    instance.open(&settings, std::slice::from_ref(input), plan.clone()).await.expect("opens");
    (instance, plan)
}

// ---- columns ----

/// Numbers spread over 0..1000, the same in every run.
fn numbers(rows: usize) -> ArrayRef {
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % 1000) as i64
    };
    Arc::new(Int64Array::from_iter_values(std::iter::repeat_with(next).take(rows).map(|number| if number == 13 { 14 } else { number })))
}

fn words(rows: usize) -> ArrayRef {
    Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("flight-{:08x}-{}", row.wrapping_mul(2_654_435_761), row % 97))))
}

fn rows(length: usize, columns: Vec<ArrayRef>) -> Rows {
    Rows { length: u32::try_from(length).expect("few rows"), columns, event_times: None, changes: None, keys: None }
}

// ---- clocks ----

fn thread_cpu() -> Duration {
    ThreadTime::now().as_duration()
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}

fn timed(calls: usize, mut call: impl FnMut()) -> f64 {
    let before = thread_cpu();
    (0..calls).for_each(|_| call());
    (thread_cpu() - before).as_nanos() as f64 / calls as f64
}

/// CPU time of one call of the guest, in ns.
async fn timed_guest(instance: &mut OperatorInstance, calls: usize, rows: &Rows) -> f64 {
    let before = thread_cpu();
    for _ in 0..calls {
        let (turn, _) = instance.process(NOW, 0, rows.clone(), None).await;
        black_box(turn.expect("the guest answers"));
    }
    (thread_cpu() - before).as_nanos() as f64 / calls as f64
}

/// Native and guest in turn, each measured by a function that gives CPU ns per row: both, and how many times the guest takes.
async fn compare(
    name: &str,
    length: usize,
    bound: Option<f64>,
    mut native: impl FnMut() -> f64,
    mut guest: impl AsyncFnMut() -> f64,
) -> Vec<Figure> {
    let (mut natives, mut guests, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        natives.push(native() / length as f64);
        guests.push(guest().await / length as f64);
        ratios.push(guests[guests.len() - 1] / natives[natives.len() - 1]);
    }
    let figure = |what: &str, samples, unit, how| Figure::new(format!("boundary/{name}/{length}/{what}"), median(samples), unit, how);
    let times = figure(
        "times",
        ratios,
        "×",
        "CPU time with a component of the Rust SDK, all checks included, over native Rust on the same Arrow columns",
    );
    vec![
        figure("native", natives, "ns/row", "native Rust on Arrow"),
        figure("guest", guests, "ns/row", "component of the Rust SDK, through the whole boundary"),
        match bound.filter(|_| length == 4_096) {
            Some(bound) => times.at_most(bound),
            None => times,
        },
    ]
}

// ---- figures ----

/// A filter of rows of some numbers and texts (four and three: a bid of Nexmark) by one of the numbers. Only that one crosses; the host
/// gathers all by row numbers, so that a wide row costs no more at the boundary than a narrow one.
async fn measure_filter(
    component: &Component,
    name: &str,
    n_numbers: usize,
    n_texts: usize,
    length: usize,
    bound: Option<f64>,
) -> Vec<Figure> {
    let number = numbers(length);
    let columns: Vec<ArrayRef> = [vec![number.clone(); n_numbers], vec![words(length); n_texts]].concat();
    let (mut instance, _) = opened(component, &input(&[("number", DataType::Int64)], &[])).await;
    let rows = rows(length, vec![number.clone()]);
    let calls = ROWS_PER_SAMPLE / length;
    let native = || {
        timed(calls, || {
            let number = number.as_primitive::<Int64Type>().values();
            let kept = BooleanArray::new(BooleanBuffer::collect_bool(number.len(), |row| number[row] < 250), None);
            let filter = FilterBuilder::new(&kept).optimize().build();
            columns.iter().for_each(|column| drop(black_box(filter.filter(column).expect("lengths are equal"))));
        })
    };
    let guest = async || {
        let before = thread_cpu();
        for _ in 0..calls {
            let turn = instance.process(NOW, 0, rows.clone(), None).await.0.expect("the guest answers");
            for output in turn.outputs {
                let millstream_wasm::From::Rows(kept) = output.from else { continue };
                let kept = UInt32Array::new(kept, None);
                columns.iter().for_each(|column| drop(black_box(take(column, &kept, None).expect("rows are in range"))));
            }
        }
        (thread_cpu() - before).as_nanos() as f64 / calls as f64
    };
    compare(name, length, bound, native, guest).await
}

async fn measure_upper(component: &Component, length: usize) -> Vec<Figure> {
    let column = words(length);
    let (mut instance, _) = opened(component, &input(&[("text", DataType::Utf8)], &[])).await;
    let rows = rows(length, vec![column.clone()]);
    let calls = ROWS_PER_SAMPLE / length;
    let native = || {
        timed(calls, || {
            let words = column.as_string::<i32>();
            let mut upper = StringBuilder::with_capacity(words.len(), words.value_data().len());
            words.iter().flatten().for_each(|word| upper.append_value(word.to_ascii_uppercase()));
            black_box(upper.finish());
        })
    };
    compare("upper", length, Some(2.0), native, async || timed_guest(&mut instance, calls, &rows).await).await
}

/// Without the host's key table: lowering values, the guest, checking and lifting the changed values.
async fn measure_count(component: &Component, length: usize, keys: usize) -> Figure {
    let (mut instance, plan) = opened(component, &input(&[("key", DataType::Int64), ("number", DataType::Int64)], &[0])).await;
    let DataType::Struct(fields) = &plan.states[0].value_type else { panic!("the state is a struct") };
    let counts: ArrayRef = Arc::new(UInt64Array::from_iter_values(0..keys as u64));
    let sums: ArrayRef = Arc::new(Int64Array::from_iter_values(0..keys as i64));
    let values: ArrayRef = Arc::new(StructArray::new(fields.clone(), vec![counts, sums], None));
    let of_row = (0..length).map(|row| (row.wrapping_mul(7_919) % keys) as u32).collect();
    let keyed = CallKeys { length: u32::try_from(keys).expect("few keys"), of_row: Some(of_row), values: vec![values] };
    let rows = Rows { keys: Some(keyed), ..rows(length, vec![numbers(length)]) };
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        samples.push(timed_guest(&mut instance, ROWS_PER_SAMPLE / length, &rows).await / length as f64);
    }
    let how = "keyed count and sum whose values travel with the batch; the host's key table is not part of this figure";
    Figure::new(format!("boundary/count/{length}/{keys}-keys"), median(samples), "ns/row", how)
}

async fn measure_fixed_cost(component: &Component) -> Figure {
    let (mut instance, _) = opened(component, &input(&[("number", DataType::Int64)], &[])).await;
    let one = rows(1, vec![numbers(1)]);
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        samples.push(timed_guest(&mut instance, 2_000, &one).await);
    }
    Figure::new("boundary/call", median(samples), "ns", "a call with one row: what every call costs")
}

async fn measure_instances(component: &Component) -> Vec<Figure> {
    let schema = input(&[("key", DataType::Int64), ("number", DataType::Int64)], &[0]);
    let (_, plan) = opened(component, &schema).await;
    let settings = serde_json::json!({});
    let value_type = &plan.states[0].value_type;
    let keyed = |number: i64| {
        let keys = CallKeys { length: 1, of_row: None, values: vec![arrow_array::new_null_array(value_type, 1)] };
        Rows { keys: Some(keys), ..rows(1, vec![Arc::new(Int64Array::from(vec![number]))]) }
    };
    let (mut made, mut recovered) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES * 5 {
        let before = thread_cpu();
        let mut instance = component.operator(context()).await.expect("an instance");
        made.push((thread_cpu() - before).as_nanos() as f64 / 1e3);
        instance.open(&settings, std::slice::from_ref(&schema), plan.clone()).await.expect("opens");
        instance.process(NOW, 0, keyed(1), None).await.0.expect("answers");

        let before = std::time::Instant::now();
        instance.process(NOW, 0, keyed(13), None).await.0.expect_err("traps");
        drop(instance);
        let mut next = component.operator(context()).await.expect("an instance");
        next.open(&settings, std::slice::from_ref(&schema), plan.clone()).await.expect("opens");
        next.process(NOW, 0, keyed(1), None).await.0.expect("answers");
        recovered.push(before.elapsed().as_nanos() as f64 / 1e6);
    }
    vec![
        Figure::new("boundary/instance", median(made), "µs", "a new instance of a component"),
        Figure::new("boundary/trap-to-next-result", median(recovered), "ms", "trap, new instance, open, the next call; wall clock")
            .at_most(1.0),
    ]
}

async fn measure_loading(guests: &Guests) -> Vec<Figure> {
    let bytes = guests.component("count");
    let cache = tempfile::tempdir().expect("a temporary directory");
    let settings = || RuntimeSettings { cache_dir: Some(cache.path().into()), ..RuntimeSettings::default() };
    let load = async || {
        let runtime = Runtime::new(settings()).expect("a runtime");
        let before = std::time::Instant::now();
        runtime.load(bytes.clone(), "count").await.expect("loads");
        before.elapsed().as_nanos() as f64 / 1e6
    };
    let before = std::time::Instant::now();
    drop(Runtime::new(settings()).expect("a runtime"));
    let started = before.elapsed().as_nanos() as f64 / 1e6;
    let compiled = load().await;
    let mut cached = Vec::new();
    for _ in 0..SAMPLES {
        cached.push(load().await);
    }
    vec![
        Figure::new("boundary/component-size", bytes.len() as f64 / 1024.0, "KiB", "the keyed count, as a component"),
        Figure::new("boundary/runtime", started, "ms", "a runtime for 1,000 instances; wall clock"),
        Figure::new("boundary/load/compiled", compiled, "ms", "inspect, compile and link; wall clock"),
        Figure::new("boundary/load/cached", median(cached), "ms", "inspect, hash, take from the cache and link; wall clock"),
    ]
}
