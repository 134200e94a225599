//! Looking into the state of a job: of a directory, whether the job runs or not, and of a savepoint.

use std::fs;

use serde_json::{Value, json};

use crate::{
    binary::{Place, ended},
    counting,
};

const ROWS: u64 = 1_000;

/// The counting job, done.
fn done() -> Place {
    let place = counting::place(Some(ROWS), 1_000_000);
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    place
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_states_of_a_job_are_listed_with_their_types() {
    let place = done();
    let listed = place.says(&["state", "list", "state"]).with_code(0).stdout;
    for part in ["counts", "seen", "value", "UInt32", "word"] {
        assert!(listed.contains(part), "`{part}` is not in\n{listed}");
    }
    let listed: Value = serde_json::from_str(&place.says(&["state", "list", "state", "--json"]).with_code(0).stdout).unwrap();
    assert_eq!(listed[0]["operator"], "counts");
}

#[test]
fn one_key_is_looked_up() {
    let place = done();
    let found = place.says(&["state", "get", "state", "counts", "--key", "word=7", "--json"]).with_code(0).stdout;
    assert_eq!(lines(&found), [json!({ "key": { "word": "7" }, "value": { "count": counting::times(7, ROWS) } })]);
    place.says(&["state", "get", "state", "counts", "--key", "word=none"]).with_code(1).saying(&["no state for this key"]);
    place.says(&["state", "get", "state", "counts", "--key", "wrd=7"]).with_code(2).saying(&["wrd", "word"]);
    place.says(&["state", "get", "state", "countz", "--key", "word=7"]).with_code(2).saying(&["countz", "counts"]);
    place.says(&["state", "get", "state", "counts", "--state-name", "sean", "--key", "word=7"]).with_code(2).saying(&["sean", "seen"]);
}

#[test]
fn all_keys_are_scanned_and_limited() {
    let place = done();
    let all = lines(&place.says(&["state", "scan", "state", "counts", "--json"]).with_code(0).stdout);
    let total: u64 = all.iter().map(|entry| entry["value"]["count"].as_u64().unwrap()).sum();
    assert_eq!((all.len() as u64, total), (counting::KEYS, ROWS));
    let some = lines(&place.says(&["state", "scan", "state", "counts", "--json", "--limit", "3"]).with_code(0).stdout);
    assert_eq!(some.len(), 3);
    let table = place.says(&["state", "scan", "state", "counts", "--limit", "3"]).with_code(0).stdout;
    assert!(table.contains("key.word") && table.contains("value.count"), "{table}");
}

#[test]
fn state_is_exported_in_three_formats() {
    let place = done();
    for format in ["json", "csv", "parquet"] {
        let file = format!("counts.{format}");
        place.says(&["state", "export", "state", "counts", "--format", format, "--output", &file]).with_code(0);
        assert!(fs::metadata(place.join(&file)).unwrap().len() > 100);
    }
    let csv = fs::read_to_string(place.join("counts.csv")).unwrap();
    assert!(csv.starts_with("key.word,value.count\n"), "{csv}");
    assert_eq!(csv.lines().count() as u64, counting::KEYS + 1);
    let parquet = fs::File::open(place.join("counts.parquet")).unwrap();
    let rows: usize = parquet::arrow::arrow_reader::ParquetRecordBatchReader::try_new(parquet, 1_024)
        .unwrap()
        .map(|batch| batch.unwrap().num_rows())
        .sum();
    assert_eq!(rows as u64, counting::KEYS);
    // A file that is there is somebody's.
    place.says(&["state", "export", "state", "counts", "--format", "csv", "--output", "counts.csv"]).with_code(1).saying(&["counts.csv"]);
}

#[test]
fn a_savepoint_is_looked_into_like_a_directory() {
    let place = done();
    place.says(&["savepoint", "create", "end", "--state", "state"]).with_code(0);
    fs::rename(place.join("state/savepoints/end"), place.join("end")).unwrap();
    let scanned = place.says(&["state", "scan", "end", "counts", "--json"]).with_code(0).stdout;
    assert_eq!(lines(&scanned).len() as u64, counting::KEYS);
}
