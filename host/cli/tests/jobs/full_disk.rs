//! A disk that is full or breaks, at every write that a durable job makes: checkpoints, the commit log, state on disk, output. The process says so
//! and ends; when there is room again the next one goes on, and nothing is lost or there twice.
//!
//! The writes of the real process fail at the real calls (`tests/faulty-disk`).

use std::{collections::BTreeMap, fs, path::Path};

use millstream_job_tests::components;
use serde_json::Value;

use crate::binary::{Ended, Place, ended, is_soak};

const ROWS: i64 = 3_000;
const KEYS: i64 = 7;
const WINDOW_MS: i64 = 250;
const JOB: &str = "job: sums
parallelism: 2
state-memory: 16KiB
checkpoints: { interval: 25ms, retained: 1 }
restart: { attempts: 1, first: 1ms }
sources:
  numbers: { sequence: { to: 2999, rate: 15000 }, event-time: { column: value } }
operators:
  keyed: { input: numbers, compute: { key: \"value % 7\" } }
  sums: { input: keyed, key-by: [key], window: { tumbling: 250ms, aggregates: { n: { count: \"*\" }, total: { sum: value } } } }
sinks:
  out: { input: sums, files: { path: out, format: ndjson } }
";

/// The sums of every window, by arithmetic.
fn expected() -> BTreeMap<(i64, i64), (i64, i64)> {
    let mut windows = BTreeMap::new();
    for value in 0..ROWS {
        let (count, total) = windows.entry((value % KEYS, value / WINDOW_MS)).or_insert((0, 0));
        (*count, *total) = (*count + 1, *total + value);
    }
    windows
}

fn check(directory: &Path, context: &str) {
    let mut found = BTreeMap::new();
    let mut rows = 0;
    for part in fs::read_dir(directory).unwrap().map(|part| part.unwrap()) {
        assert!(!part.file_name().to_string_lossy().starts_with('.'), "{context}: {part:?} is left hidden");
        for line in fs::read_to_string(part.path()).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            // `1970-01-01T00:00:02.750Z`
            let start = row["window_start"].as_str().unwrap();
            let seconds: f64 = start.split(':').nth(2).unwrap().trim_end_matches('Z').parse().unwrap();
            let window = (seconds * 1_000.0) as i64 / WINDOW_MS;
            let number = |name: &str| row[name].as_i64().unwrap();
            found.insert((number("key"), window), (number("n"), number("total")));
            rows += 1;
        }
    }
    assert_eq!(found, expected(), "{context}");
    assert_eq!(rows, expected().len(), "{context}: no window is there twice");
}

/// Runs the job on a disk whose writes fail from number `first` on.
fn run_on(place: &Place, library: &Path, first: u64, errno: u32) -> Ended {
    let mut run = place.run(&["--state", "state"]);
    let below = place.path().canonicalize().unwrap();
    ended(
        run.env("LD_PRELOAD", library)
            .env("FAULTY_DISK_BELOW", below)
            .env("FAULTY_DISK_FIRST", first.to_string())
            .env("FAULTY_DISK_ERRNO", errno.to_string()),
    )
}

/// Whether there was such a write.
fn fails_from(library: &Path, first: u64, errno: u32, named: &str) -> bool {
    let place = Place::with(JOB);
    let failed = run_on(&place, library, first, errno);
    let was_reached = failed.stderr.contains("faulty disk: write");
    let context = format!("write {first}, {named}:\n{}", failed.stderr);
    match failed.code {
        // Nothing that matters was left to do.
        Some(0) => check(&place.join("out"), &context),
        Some(1) => assert!(was_reached && failed.stderr.contains(named), "{context}"),
        code => panic!("{code:?}: {context}"),
    }
    if place.join("state/job.json").exists() && place.join("state/commit.log").exists() {
        place.says(&["checkpoint", "verify", "state"]).with_code(0);
    }
    let again = ended(&mut place.run(&["--state", "state"]));
    assert_eq!(again.code, Some(0), "{context}\nthen:\n{}", again.stderr);
    check(&place.join("out"), &context);
    was_reached
}

fn fails_at_every_write(errno: u32, named: &str) {
    let library = components::faulty_disk();
    let step = if is_soak() { 1 } else { 17 };
    let (mut first, mut tried) = (1, 0);
    while fails_from(&library, first, errno, named) {
        (first, tried) = (first + step, tried + 1);
    }
    println!("full disk: {named}: {tried} of some {first} writes were the first to fail");
    assert!(first > 100, "a durable job writes more than that");
}

#[test]
fn no_space_at_any_write_of_the_process_is_named_and_the_next_one_goes_on() {
    fails_at_every_write(28, "No space left on device");
}

#[test]
fn a_broken_device_at_any_write_of_the_process_is_named_and_the_next_one_goes_on() {
    fails_at_every_write(5, "Input/output error");
}
