//! What the host's own work on keyed state costs, per row: encoding and hashing keys, finding their slots, gathering values, scattering them back.
//!
//! `cargo bench -p millstream-state --bench key_table [pattern]` prints ns/row for batches of 4,096 rows with uniformly distributed keys, the
//! median of several runs. It measures the thread's CPU time, as the machine may be busy. `native` is the same count in a hash map from i64 to
//! i64, the least that any of this could cost, to compare runs on different machines.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark measures and prints")]

use std::{hint::black_box, sync::Arc};

use arrow_array::{Array, ArrayRef, Int64Array, StringArray, StructArray, cast::AsArray, types::Int64Type};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field};
use hashbrown::HashTable;
use millstream_model::{
    key::{KEY_GROUPS, encode_keys},
    state::{StateDescriptor, StateKind, StateScope},
};
use millstream_state::{Backend, KeySet, KeyedStore, Moment, StoreSettings};

const BATCH: usize = 4096;
const NOW: Moment = Moment { watermark: None, processing_time: 0 };
const RUNS: usize = 7;

fn main() {
    let pattern = std::env::args().skip(1).find(|argument| !argument.starts_with("--")).unwrap_or_default();
    println!("{:<28} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "ns/row", "encode", "resolve", "load", "update", "all", "native");
    for (name, keys) in [("10 k", 10_000), ("1 M", 1_000_000), ("10 M", 10_000_000)] {
        for (kind, column) in [("i64", ints as fn(&[u64]) -> ArrayRef), ("bytes", texts), ("long bytes", long_texts)] {
            let label = format!("{name} {kind} keys");
            if label.contains(&pattern) {
                measure(&label, keys, column);
            }
        }
    }
}

fn ints(keys: &[u64]) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(keys.iter().map(|&key| key as i64)))
}

fn texts(keys: &[u64]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(keys.iter().map(|key| format!("user-{key:08}"))))
}

fn long_texts(keys: &[u64]) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(keys.iter().map(|key| format!("123e4567-e89b-12d3-a456-{key:012x}"))))
}

fn counter() -> StateDescriptor {
    let value_type = DataType::Struct(vec![Field::new("count", DataType::Int64, false)].into());
    let (kind, scope) = (StateKind::Value, StateScope::Keyed);
    StateDescriptor { name: "counter".into(), kind, scope, map_key_type: None, value_type, version: 1, ttl: None }
}

/// Where the time of some batches went, in ns.
#[derive(Clone, Copy, Default)]
struct Costs {
    encode: u64,
    resolve: u64,
    load: u64,
    update: u64,
}

fn measure(label: &str, keys: u64, column: fn(&[u64]) -> ArrayRef) {
    let settings = StoreSettings { backend: Backend::Memory, memory_budget_bytes: 8 << 30 };
    let mut store = KeyedStore::open(&settings, 0..KEY_GROUPS, vec![counter()], vec![]).expect("a good declaration");
    let all: Vec<u64> = (0..keys).collect();
    for chunk in all.chunks(BATCH) {
        step(&mut store, &column(chunk));
    }
    let numbers = uniform(keys, 256);
    let batches: Vec<ArrayRef> = numbers.iter().map(|numbers| column(numbers)).collect();
    let rows = (batches.len() * BATCH) as f64;
    let mut native = HashTable::with_capacity(keys as usize);
    all.iter().for_each(|&key| count_native(&mut native, key));
    let mut native_runs = Vec::new();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(run(&mut store, &batches));
        native_runs.push(run_native(&mut native, &numbers));
    }
    native_runs.sort_unstable();
    runs.sort_by_key(|costs| costs.encode + costs.resolve + costs.load + costs.update);
    let median = runs[RUNS / 2];
    let whole = median.encode + median.resolve + median.load + median.update;
    let columns = [median.encode, median.resolve, median.load, median.update, whole, native_runs[RUNS / 2]];
    let columns: Vec<String> = columns.iter().map(|&ns| format!("{:>8.1}", ns as f64 / rows)).collect();
    println!("{label:<28} {}", columns.join(" "));
}

fn run_native(counts: &mut HashTable<(u64, i64)>, batches: &[Vec<u64>]) -> u64 {
    let start = thread_cpu_ns();
    batches.iter().flatten().for_each(|&key| count_native(counts, key));
    thread_cpu_ns() - start
}

fn count_native(counts: &mut HashTable<(u64, i64)>, key: u64) {
    let hash = |key: u64| key.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    counts.entry(hash(key), |entry| entry.0 == key, |entry| hash(entry.0)).or_insert((key, 0)).get_mut().1 += 1;
}

/// Batches of uniformly distributed key numbers, the same each time (xorshift64*).
fn uniform(keys: u64, batches: usize) -> Vec<Vec<u64>> {
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        ((u128::from(random.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(keys)) >> 64) as u64
    };
    (0..batches).map(|_| (0..BATCH).map(|_| next()).collect()).collect()
}

fn run(store: &mut KeyedStore, batches: &[ArrayRef]) -> Costs {
    let mut costs = Costs::default();
    for column in batches {
        let batch = step(store, column);
        costs.encode += batch.encode;
        costs.resolve += batch.resolve;
        costs.load += batch.load;
        costs.update += batch.update;
    }
    costs
}

/// One batch of a keyed count; the counting itself is not measured.
fn step(store: &mut KeyedStore, column: &ArrayRef) -> Costs {
    let start = thread_cpu_ns();
    let encoded = encode_keys(std::slice::from_ref(column), column.len()).expect("a key type");
    let encode = thread_cpu_ns();
    let keys = store.resolve(encoded).expect("memory");
    let resolve = thread_cpu_ns();
    let values = store.load(0, &keys, NOW).expect("memory");
    let load = thread_cpu_ns();
    let counted = count(&keys, &values, column.len());
    let counted_at = thread_cpu_ns();
    store.update_values(0, &keys, &BooleanBuffer::new_set(keys.len()), &counted, NOW).expect("memory");
    drop((values, keys));
    Costs { encode: encode - start, resolve: resolve - encode, load: load - resolve, update: thread_cpu_ns() - counted_at }
}

fn count(keys: &KeySet, values: &ArrayRef, rows: usize) -> ArrayRef {
    let values = values.as_struct();
    let mut counts = values.column(0).as_primitive::<Int64Type>().values().to_vec();
    match keys.of_row() {
        Some(of_row) => of_row.iter().for_each(|&key| counts[key as usize] += 1),
        None => counts[..rows].iter_mut().for_each(|count| *count += 1),
    }
    black_box(Arc::new(StructArray::new(values.fields().clone(), vec![Arc::new(Int64Array::from(counts)) as ArrayRef], None)))
}

#[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU time")]
fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
