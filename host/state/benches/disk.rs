//! State that does not fit into memory: a keyed count over 10 million keys, uniform, on RocksDB, at the memory that a job with 1 GiB gives it.
//!
//! `cargo bench -p millstream-state --bench disk [rows]` prints millions of rows per CPU second of the whole process (RocksDB's own threads
//! included), the growth of its memory, and the size on disk. No operator, no Wasm: what state alone allows.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark measures and prints")]

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, StructArray, cast::AsArray, types::Int64Type};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field};
use millstream_model::{
    key::{KEY_GROUPS, encode_keys},
    state::{StateDescriptor, StateKind, StateScope},
};
use millstream_state::{Backend, KeyedStore, Moment, RocksShared, RocksSharedSettings, StoreSettings};

const KEYS: u64 = 10_000_000;
const BATCH: usize = 4096;
const NOW: Moment = Moment { watermark: None, processing_time: 0 };

fn main() {
    let rows: usize = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(4 << 20);
    let directory = tempfile::tempdir().unwrap();
    let shared = Arc::new(RocksShared::new(RocksSharedSettings::default()));
    let backend = Backend::RocksDb { directory: directory.path().join("state"), shared };
    let settings = StoreSettings { backend, memory_budget_bytes: 640 << 20 };
    let before = memory_mib("VmRSS");
    let mut store = KeyedStore::open(&settings, 0..KEY_GROUPS, vec![totals()], vec![]).unwrap();
    let began = process_cpu_seconds();
    for start in (0..KEYS).step_by(BATCH) {
        step(&mut store, start..KEYS.min(start + BATCH as u64));
    }
    let filled = process_cpu_seconds();
    println!("{:<40} {:>8.3} M rows per CPU second", "every key once", KEYS as f64 / (filled - began) / 1e6);
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        ((u128::from(random.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(KEYS)) >> 64) as u64
    };
    for part in 1..=4 {
        let began = process_cpu_seconds();
        for _ in 0..rows / BATCH / 4 {
            let keys: Vec<u64> = (0..BATCH).map(|_| next()).collect();
            step(&mut store, keys);
        }
        let seconds = process_cpu_seconds() - began;
        println!("{:<40} {:>8.3} M rows per CPU second", format!("uniform, quarter {part}"), rows as f64 / 4.0 / seconds / 1e6);
    }
    println!("{:<40} {:>8.1} MiB", "growth of memory", memory_mib("VmHWM") - before);
    println!(
        "{:<40} {:>8.3} M of {:.0} M, {:.3} M evicted",
        "keys in memory",
        store.stats().keys_in_table as f64 / 1e6,
        KEYS as f64 / 1e6,
        store.stats().keys_evicted as f64 / 1e6
    );
    println!("{:<40} {:>8.1} MiB", "on disk", store.stats().disk_bytes as f64 / f64::from(1 << 20));
}

fn totals() -> StateDescriptor {
    let field = |name: &str| Field::new(name, DataType::Int64, false);
    let value_type = DataType::Struct(vec![field("count"), field("sum")].into());
    let (kind, scope) = (StateKind::Value, StateScope::Keyed);
    StateDescriptor { name: "totals".into(), kind, scope, map_key_type: None, value_type, version: 1, ttl: None }
}

fn step(store: &mut KeyedStore, keys: impl IntoIterator<Item = u64>) {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.into_iter().map(u64::cast_signed)));
    let keys = store.resolve(encode_keys(std::slice::from_ref(&column), column.len()).unwrap()).unwrap();
    let values = store.load(0, &keys, NOW).unwrap();
    let values = values.as_struct();
    let changed = |number: usize| {
        let before = values.column(number).as_primitive::<Int64Type>().values();
        let after: Vec<i64> = before[..keys.len()].iter().map(|value| value + 1).collect();
        Arc::new(Int64Array::from(after)) as ArrayRef
    };
    let counted: ArrayRef = Arc::new(StructArray::new(values.fields().clone(), vec![changed(0), changed(1)], None));
    store.update_values(0, &keys, &BooleanBuffer::new_set(keys.len()), &counted, NOW).unwrap();
}

fn memory_mib(what: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(what)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

#[expect(unsafe_code, reason = "the standard library has no clock of a process's CPU time")]
fn process_cpu_seconds() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
