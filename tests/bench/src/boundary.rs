//! What the contract costs: components made with the Rust SDK (`host/wasm/guests`) against native Rust on the same Arrow columns, in turn.
//!
//! A filter that keeps a quarter of the rows, and text in upper case, at 1,024 and 4,096 rows per call, all checks of the host included; the fixed
//! cost of a call; a new instance; from a trap to the next result; loading. CPU time of the calling thread unless it says otherwise.

use std::{hint::black_box, sync::Arc};

use anyhow::ensure;
use arrow_array::{
    Array as _, ArrayRef, BooleanArray, Int64Array, StringArray, UInt32Array, builder::StringBuilder, cast::AsArray as _, types::Int64Type,
};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field};
use arrow_select::{filter::FilterBuilder, take::take};
use millstream_model::ids::OperatorId;
use millstream_wasm::{
    CallKeys, Component, From, InputSchema, InstanceContext, Moment, OperatorInstance, OperatorPlan, Rows, Runtime, RuntimeSettings, Turn,
};

use crate::{
    figures::{Figure, median, now, thread_cpu_ns},
    guests::Guests,
};

/// The clocks of every call.
pub const NOW: Moment = Moment { watermark: None, processing_time_ms: 0 };
/// Samples per figure; the median counts.
const SAMPLES: usize = 41;
/// Rows per sample, in calls of the size that is measured.
const ROWS_PER_SAMPLE: usize = 1 << 17;

/// All figures of this group.
///
/// # Errors
/// A component fails.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let (filter, upper, count) = (guests.component("filter").await?, guests.component("upper").await?, guests.component("count").await?);
    let mut figures = Vec::new();
    for rows in [1_024, 4_096] {
        figures.extend(measure_filter(&filter, Wide { name: "filter", numbers: 4, texts: 3 }, rows, Some(1.5)).await?);
        figures.extend(measure_filter(&filter, Wide { name: "filter of narrow rows", numbers: 3, texts: 1 }, rows, None).await?);
        figures.extend(measure_upper(&upper, rows).await?);
    }
    figures.push(measure_fixed_cost(&filter).await?);
    figures.extend(measure_instances(&count).await?);
    figures.extend(measure_loading(guests).await?);
    Ok(figures)
}

/// Whose an instance is.
pub fn context() -> InstanceContext {
    InstanceContext::unheard(Some(OperatorId::from("operator")))
}

fn input(columns: &[(&str, DataType)], keys: &[u32]) -> InputSchema {
    let fields = columns.iter().map(|(name, data_type)| Field::new(*name, data_type.clone(), false)).collect();
    InputSchema { fields, keys: keys.to_vec(), event_times: false, changes: false }
}

async fn opened(component: &Component, input: &InputSchema) -> anyhow::Result<(OperatorInstance, Arc<OperatorPlan>)> {
    let mut instance = component.operator(context()).await?;
    let settings = serde_json::json!({});
    let plan = Arc::new(instance.plan(&settings, std::slice::from_ref(input)).await?);
    instance.open(&settings, std::slice::from_ref(input), plan.clone()).await?;
    Ok((instance, plan))
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

// ---- figures ----

/// CPU time of one call, in ns.
fn timed(calls: usize, mut call: impl FnMut()) -> f64 {
    let before = thread_cpu_ns();
    (0..calls).for_each(|_| call());
    (thread_cpu_ns() - before) / calls as f64
}

/// CPU time of one call of the guest, in ns; `then` is what the host does with the answer.
async fn timed_guest(instance: &mut OperatorInstance, calls: usize, rows: &Rows, then: impl Fn(Turn)) -> anyhow::Result<f64> {
    let before = thread_cpu_ns();
    for _ in 0..calls {
        then(instance.process(NOW, 0, rows.clone(), None).await.0?);
    }
    Ok((thread_cpu_ns() - before) / calls as f64)
}

/// Native and guest in turn, each measured by a function that gives CPU ns per call: both per row, and how many times the guest takes.
async fn compare(
    name: &str,
    length: usize,
    bound: Option<f64>,
    mut native: impl FnMut() -> f64,
    mut guest: impl AsyncFnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Vec<Figure>> {
    let (mut natives, mut guests, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let (native, guest) = (native(), guest().await?);
        natives.push(native / length as f64);
        guests.push(guest / length as f64);
        ratios.push(guest / native);
    }
    let name = |what: &str| format!("boundary, {name}, {length} rows{what}");
    let how = format!("CPU time of the thread, native and guest in turn, median of {SAMPLES}");
    let whole = format!("{how}; component of the Rust SDK, all checks of the host included, against native Rust on the same Arrow columns");
    Ok(vec![
        match bound.filter(|_| length == 4_096) {
            Some(bound) => Figure::at_most(name(", against native"), median(ratios), "times", bound, &whole),
            None => Figure::for_scale(name(", against native"), median(ratios), "times", &whole),
        },
        Figure::for_scale(name(""), median(guests), "ns/row", &whole),
        Figure::for_scale(name(", native"), median(natives), "ns/row", &how),
    ])
}

/// Rows of some numbers and texts, filtered by one of the numbers.
struct Wide {
    name: &'static str,
    numbers: usize,
    texts: usize,
}

/// A filter of rows like a bid of Nexmark (four numbers, three texts). Only the number that it reads crosses; the host gathers all by row
/// numbers, so that a wide row costs no more at the boundary than a narrow one.
async fn measure_filter(component: &Component, wide: Wide, length: usize, bound: Option<f64>) -> anyhow::Result<Vec<Figure>> {
    let number = numbers(length);
    let columns: Vec<ArrayRef> = [vec![number.clone(); wide.numbers], vec![words(length); wide.texts]].concat();
    let (mut instance, _) = opened(component, &input(&[("number", DataType::Int64)], &[])).await?;
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
    let gather = |turn: Turn| {
        for output in turn.outputs {
            let From::Rows(kept) = output.from else { continue };
            let kept = UInt32Array::new(kept, None);
            columns.iter().for_each(|column| drop(black_box(take(column, &kept, None).expect("rows are in range"))));
        }
    };
    compare(wide.name, length, bound, native, async || timed_guest(&mut instance, calls, &rows, gather).await).await
}

async fn measure_upper(component: &Component, length: usize) -> anyhow::Result<Vec<Figure>> {
    let column = words(length);
    let (mut instance, _) = opened(component, &input(&[("text", DataType::Utf8)], &[])).await?;
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
    let keep = |turn: Turn| drop(black_box(turn));
    compare("string map", length, Some(2.0), native, async || timed_guest(&mut instance, calls, &rows, keep).await).await
}

async fn measure_fixed_cost(component: &Component) -> anyhow::Result<Figure> {
    let (mut instance, _) = opened(component, &input(&[("number", DataType::Int64)], &[])).await?;
    let one = rows(1, vec![numbers(1)]);
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        samples.push(timed_guest(&mut instance, 2_000, &one, |turn| drop(black_box(turn))).await?);
    }
    let how = format!("a call with one row: what every call costs; CPU time of the thread, median of {SAMPLES}");
    Ok(Figure::for_scale("boundary, a call", median(samples), "ns", how))
}

async fn measure_instances(component: &Component) -> anyhow::Result<Vec<Figure>> {
    let schema = input(&[("key", DataType::Int64), ("number", DataType::Int64)], &[0]);
    let (_, plan) = opened(component, &schema).await?;
    let settings = serde_json::json!({});
    let value_type = &plan.states[0].value_type;
    let keyed = |number: i64| {
        let keys = CallKeys { length: 1, of_row: None, values: vec![arrow_array::new_null_array(value_type, 1)] };
        Rows { keys: Some(keys), ..rows(1, vec![Arc::new(Int64Array::from(vec![number]))]) }
    };
    let (mut made, mut recovered) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES * 5 {
        let before = thread_cpu_ns();
        let mut instance = component.operator(context()).await?;
        made.push((thread_cpu_ns() - before) / 1e3);
        instance.open(&settings, std::slice::from_ref(&schema), plan.clone()).await?;
        instance.process(NOW, 0, keyed(1), None).await.0?;

        let before = now();
        ensure!(instance.process(NOW, 0, keyed(13), None).await.0.is_err(), "the number 13 traps");
        drop(instance);
        let mut next = component.operator(context()).await?;
        next.open(&settings, std::slice::from_ref(&schema), plan.clone()).await?;
        next.process(NOW, 0, keyed(1), None).await.0?;
        recovered.push(before.elapsed().as_secs_f64() * 1e3);
    }
    let how = format!("trap, new instance, open, the next call; wall clock, median of {}", SAMPLES * 5);
    Ok(vec![
        Figure::for_scale("boundary, a new instance", median(made), "µs", "CPU time of the thread"),
        Figure::at_most("boundary, trap to next result", median(recovered), "ms", 1.0, how),
    ])
}

async fn measure_loading(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let bytes = guests.bytes("count")?;
    let cache = tempfile::tempdir()?;
    let settings = || RuntimeSettings { cache_dir: Some(cache.path().into()), ..RuntimeSettings::default() };
    let load = async || -> anyhow::Result<f64> {
        let runtime = Runtime::new(settings())?;
        let before = now();
        runtime.load(bytes.clone(), "count").await?;
        Ok(before.elapsed().as_secs_f64() * 1e3)
    };
    let before = now();
    drop(Runtime::new(settings())?);
    let started = before.elapsed().as_secs_f64() * 1e3;
    let compiled = load().await?;
    let mut cached = Vec::new();
    for _ in 0..SAMPLES {
        cached.push(load().await?);
    }
    Ok(vec![
        Figure::for_scale("boundary, size of a component", bytes.len() as f64 / 1024.0, "KiB", "the keyed count"),
        Figure::for_scale("boundary, runtime for 1,000 instances", started, "ms", "wall clock"),
        Figure::for_scale("boundary, load and compile", compiled, "ms", "inspect, compile and link the keyed count; wall clock"),
        Figure::for_scale("boundary, load from the cache", median(cached), "ms", "inspect, hash, take from the cache and link; wall clock"),
    ])
}
