//! The job of most tests here: numbers, counted by key in a component. Its result is arithmetic, so any cut in the middle can be checked.

use std::{collections::BTreeMap, fs, path::Path};

use millstream_job_tests::components;
use serde_json::Value;

use crate::binary::Place;

/// Keys of the rows: number modulo this.
pub const KEYS: u64 = 101;

/// Which version of the component counts.
pub const TALLY: &str = "tally";

/// Where a version of the component is.
pub fn component(name: &str) -> String {
    components::build();
    components::repository().join(format!("tests/jobs/operators/{name}/jobs-{name}.wasm")).display().to_string()
}

/// A job that counts the numbers below `rows`, at most `rate` a second; without `rows`: for ever.
pub fn job(rows: Option<u64>, rate: u64) -> String {
    let to = rows.map(|rows| format!("to: {}, ", rows - 1)).unwrap_or_default();
    format!(
        "job: counting
parallelism: 2
checkpoints: {{ interval: 100ms }}
sources:
  numbers: {{ sequence: {{ {to}rate: {rate} }} }}
operators:
  words: {{ input: numbers, compute: {{ word: \"cast(value % {KEYS} as varchar)\" }} }}
  counts: {{ input: words, key-by: [word], component: {{ path: {} }} }}
sinks:
  out: {{ input: counts, files: {{ path: out, format: ndjson }} }}
",
        component(TALLY)
    )
}

/// A place with that job.
pub fn place(rows: Option<u64>, rate: u64) -> Place {
    Place::with(&job(rows, rate))
}

/// Takes checkpoints of the running job until one holds state.
#[track_caller]
pub fn until_it_has_state(place: &Place, directory: &str) {
    for _ in 0..1_000 {
        place.says(&["checkpoint", "create", directory]).with_code(0);
        if place.join(directory).join("checkpoints/counting/files").exists() {
            return;
        }
    }
    panic!("a thousand checkpoints without state");
}

/// Every count that was written, by key, in order.
pub fn written(directory: &Path) -> BTreeMap<u64, Vec<u64>> {
    let mut counts: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
    for part in
        fs::read_dir(directory).unwrap().map(|part| part.unwrap()).filter(|part| !part.file_name().to_string_lossy().starts_with('.'))
    {
        for line in fs::read_to_string(part.path()).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let word: u64 = row["word"].as_str().unwrap().parse().unwrap();
            counts.entry(word).or_default().push(row["count"].as_u64().unwrap());
        }
    }
    counts.values_mut().for_each(|counts| counts.sort_unstable());
    counts
}

/// How often a key occurs among the numbers below `rows`.
pub fn times(key: u64, rows: u64) -> u64 {
    (rows + KEYS - 1 - key) / KEYS
}

/// Fails the test unless every row below `rows` was counted once.
#[track_caller]
pub fn check(directory: &Path, rows: u64) {
    let written = written(directory);
    assert_eq!(written.len() as u64, KEYS.min(rows), "{}", directory.display());
    for (key, counts) in written {
        let expected: Vec<u64> = (1..=times(key, rows)).collect();
        assert_eq!(counts, expected, "key {key} in {}", directory.display());
    }
}
