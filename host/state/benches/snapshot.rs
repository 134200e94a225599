//! What a snapshot of a million changed keys (100 MiB) costs the stream: the barrier, the longest slice, and each row while it is under way; how long
//! its files take to be written on another thread; and how long a store takes to be restored from it, also at another parallelism.
//!
//! `cargo bench -p millstream-state --bench snapshot` prints wall time and, of the thread alone, CPU time, as the machine may be busy.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark measures and prints")]

use std::{ops::Range, path::Path, sync::Arc, time::Instant};

use arrow_array::{ArrayRef, BinaryArray, Int64Array, StructArray};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Fields};
use millstream_model::{
    ids::SubtaskIndex,
    key::{KEY_GROUPS, KeyGroup, encode_keys},
    state::{StateDescriptor, StateKind, StateScope},
};
use millstream_state::{Backend, KeyedStore, Moment, RocksShared, RocksSharedSettings, SnapshotPart, SnapshotStep, StoreSettings};

const KEYS: u64 = 1_000_000;
const BATCH: usize = 4096;
/// With the key, the key group, the prefix, form and version: some 105 bytes per entry.
const VALUE_BYTES: usize = 90;
/// Entries of a slice.
const LIMIT: usize = 1024;
const NOW: Moment = Moment { watermark: None, processing_time: 0 };

fn main() {
    for (name, has_disk, is_fixed) in [("RocksDB", true, true), ("RocksDB", true, false), ("memory", false, false)] {
        let form = if is_fixed { "fixed width, in their rows" } else { "variable width, boxed" };
        println!("{name}, {KEYS} keys of {VALUE_BYTES} bytes ({form}), all of them changed");
        measure(has_disk, is_fixed);
    }
}

fn measure(has_disk: bool, is_fixed: bool) {
    let directory = tempfile::tempdir().unwrap();
    let mut store =
        KeyedStore::open(&settings(has_disk, &directory.path().join("first")), 0..KEY_GROUPS, states(is_fixed), vec![]).unwrap();
    put_all(&mut store);
    let mut stream = Stream::new();
    let before = stream.run(&mut store, 200);
    let part = snapshot(&mut store, &mut stream, &directory.path().join("snapshots/1"), before);
    let restored = restore("restore", has_disk, is_fixed, 0..KEY_GROUPS, std::slice::from_ref(&part), &directory.path().join("again"));
    drop(restored);
    let halves: Vec<SnapshotPart> = [0, 1]
        .map(|subtask| {
            let groups = KeyGroup::owned_by(SubtaskIndex(subtask), 2);
            let at = directory.path().join(format!("half-{subtask}"));
            let mut half = restore("restore a half", has_disk, is_fixed, groups, std::slice::from_ref(&part), &at);
            write(&mut half, &directory.path().join(format!("snapshots/half-{subtask}")))
        })
        .into();
    restore("restore from two halves", has_disk, is_fixed, 0..KEY_GROUPS, &halves, &directory.path().join("whole"));
}

fn settings(has_disk: bool, directory: &Path) -> StoreSettings {
    let shared = Arc::new(RocksShared::new(RocksSharedSettings::default()));
    let backend = if has_disk { Backend::RocksDb { directory: directory.to_owned(), shared } } else { Backend::Memory };
    StoreSettings { backend, memory_budget_bytes: 1 << 30 }
}

/// One state: a struct of numbers, or bytes.
fn states(is_fixed: bool) -> Vec<StateDescriptor> {
    let (kind, scope) = (StateKind::Value, StateScope::Keyed);
    let value_type = if is_fixed { DataType::Struct(numbers()) } else { DataType::Binary };
    vec![StateDescriptor { name: "v".into(), kind, scope, map_key_type: None, value_type, version: 1, ttl: None }]
}

fn numbers() -> Fields {
    (0..VALUE_BYTES / 8).map(|number| Field::new(format!("n{number}"), DataType::Int64, false)).collect()
}

fn put(store: &mut KeyedStore, keys: &[u64], fill: u8) {
    let column: ArrayRef = Arc::new(Int64Array::from_iter_values(keys.iter().map(|key| key.cast_signed())));
    let keys = store.resolve(encode_keys(std::slice::from_ref(&column), column.len()).unwrap()).unwrap();
    // Bytes that do not compress away.
    let noise = |number: usize, chunk: usize| (keys.hash(number) ^ chunk as u64 ^ u64::from(fill)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let value = |number: usize| {
        let mut value = [fill; VALUE_BYTES];
        for chunk in 0..VALUE_BYTES / 8 {
            value[chunk * 8..chunk * 8 + 8].copy_from_slice(&noise(number, chunk).to_le_bytes());
        }
        value
    };
    let numbers_of = |chunk: usize| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values((0..keys.len()).map(|number| noise(number, chunk).cast_signed())))
    };
    let values: ArrayRef = match store.states()[0].value_type {
        DataType::Struct(_) => Arc::new(StructArray::new(numbers(), (0..VALUE_BYTES / 8).map(numbers_of).collect(), None)),
        _ => Arc::new(BinaryArray::from_iter_values((0..keys.len()).map(value))),
    };
    store.update_values(0, &keys, &BooleanBuffer::new_set(keys.len()), &values, NOW).unwrap();
}

fn put_all(store: &mut KeyedStore) {
    let all: Vec<u64> = (0..KEYS).collect();
    all.chunks(BATCH).for_each(|chunk| put(store, chunk, 1));
}

/// Batches of uniformly distributed keys.
struct Stream(u64);

impl Stream {
    fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// CPU ns per row of so many batches.
    fn run(&mut self, store: &mut KeyedStore, batches: usize) -> f64 {
        let start = thread_cpu_ns();
        for _ in 0..batches {
            let keys: Vec<u64> = (0..BATCH).map(|_| self.next()).collect();
            put(store, &keys, 2);
        }
        (thread_cpu_ns() - start) as f64 / (batches * BATCH) as f64
    }

    /// xorshift64*.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        ((u128::from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)) * u128::from(KEYS)) >> 64) as u64
    }
}

/// Takes a snapshot while batches come in.
fn snapshot(store: &mut KeyedStore, stream: &mut Stream, directory: &Path, before: f64) -> SnapshotPart {
    let (start, cpu) = (Instant::now(), thread_cpu_ns());
    store.begin_snapshot(directory.to_owned()).unwrap();
    println!("  {:<34} {:>9.3} ms wall {:>9.3} ms CPU", "barrier", ms(start), cpu_ms(cpu));
    let (mut walls, mut cpus, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let cut = loop {
        let (start, cpu) = (Instant::now(), thread_cpu_ns());
        let step = store.continue_snapshot(LIMIT).unwrap();
        walls.push(ms(start));
        cpus.push(cpu_ms(cpu));
        match step {
            SnapshotStep::More => rows.push(stream.run(store, 1)),
            SnapshotStep::Cut(cut) => break cut,
        }
    };
    walls.sort_by(f64::total_cmp);
    cpus.sort_by(f64::total_cmp);
    let last = walls.len() - 1;
    println!("  {:<34} {:>9.3} ms wall {:>9.3} ms CPU", format!("longest of {} slices", walls.len()), walls[last], cpus[last]);
    println!("  {:<34} {:>9.3} ms wall {:>9.3} ms CPU", "99th of 100 slices", walls[last * 99 / 100], cpus[last * 99 / 100]);
    println!("  {:<34} {:>9.3} ms wall {:>9.3} ms CPU", "all slices", walls.iter().sum::<f64>(), cpus.iter().sum::<f64>());
    let under_way = rows.iter().sum::<f64>() / rows.len() as f64;
    println!("  {:<34} {:>9.1} ns CPU, {before:.1} before", "a row while it is under way", under_way);
    let start = Instant::now();
    let snapshot = std::thread::spawn(move || cut.write().unwrap()).join().unwrap();
    let bytes: u64 = snapshot.files.iter().map(|file| file.bytes).sum();
    println!("  {:<34} {:>9.3} ms wall, {:.1} MiB in {} files", "files written", ms(start), bytes as f64 / 1048576.0, snapshot.files.len());
    let start = Instant::now();
    store.finish_snapshot().unwrap();
    println!("  {:<34} {:>9.3} ms wall", "finish", ms(start));
    SnapshotPart { directory: snapshot.directory, key_groups: store.groups(), description: snapshot.description }
}

fn write(store: &mut KeyedStore, directory: &Path) -> SnapshotPart {
    store.begin_snapshot(directory.to_owned()).unwrap();
    let cut = loop {
        if let SnapshotStep::Cut(cut) = store.continue_snapshot(LIMIT).unwrap() {
            break cut;
        }
    };
    let snapshot = cut.write().unwrap();
    store.finish_snapshot().unwrap();
    SnapshotPart { directory: snapshot.directory, key_groups: store.groups(), description: snapshot.description }
}

fn restore(what: &str, has_disk: bool, is_fixed: bool, groups: Range<u16>, parts: &[SnapshotPart], to: &Path) -> KeyedStore {
    let (start, cpu) = (Instant::now(), thread_cpu_ns());
    let mut store = KeyedStore::restore(&settings(has_disk, to), groups, parts, states(is_fixed), vec![]).unwrap();
    println!("  {what:<34} {:>9.3} ms wall {:>9.3} ms CPU", ms(start), cpu_ms(cpu));
    let (start, cpu) = (Instant::now(), thread_cpu_ns());
    let mine: Vec<u64> = (0..4 * BATCH as u64).filter(|&key| is_mine(key, &store.groups())).take(BATCH).collect();
    put(&mut store, &mine, 3);
    println!("  {:<34} {:>9.3} ms wall {:>9.3} ms CPU", "  its first batch", ms(start), cpu_ms(cpu));
    store
}

fn is_mine(key: u64, groups: &Range<u16>) -> bool {
    let column: ArrayRef = Arc::new(Int64Array::from(vec![key.cast_signed()]));
    groups.contains(&encode_keys(std::slice::from_ref(&column), 1).unwrap().group(0).0)
}

fn ms(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn cpu_ms(start_ns: u64) -> f64 {
    (thread_cpu_ns() - start_ns) as f64 / 1e6
}

#[expect(unsafe_code, reason = "the standard library has no clock of a thread's CPU time")]
fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to, and the clock exists on every Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
