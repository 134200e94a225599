//! Rows as multisets, however a sink wrote them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use crate::components::repository;

/// What a sink shall have written.
pub struct Expected<'a> {
    /// The rows of the reference, NDJSON below the repository; none: nothing.
    reference: Option<&'a str>,
    /// The directory below `out/`.
    sink: &'a str,
}

/// How often each row is there; a row is its columns as text.
type Multiset = BTreeMap<String, i64>;

impl<'a> Expected<'a> {
    /// The rows in `reference`; only the columns that stand there are compared.
    pub fn new(reference: &'a str, sink: &'a str) -> Self {
        Self { reference: Some(reference), sink }
    }

    /// No row at all.
    pub fn nothing(sink: &'a str) -> Self {
        Self { reference: None, sink }
    }

    /// Compares what lies in `place` below `out/`; how many rows are the same.
    pub fn check(&self, place: &Path, context: &str) -> usize {
        let expected = self.reference.map(|file| ndjson(&repository().join(file))).unwrap_or_default();
        let written = written(&place.join("out").join(self.sink));
        if self.reference.is_none() {
            assert!(written.is_empty(), "{context}: {} holds rows, the first is {:?}", self.sink, written.first());
            return 0;
        }
        let columns: Vec<&String> = expected.first().expect("a reference holds rows").keys().collect();
        let mut balance = Multiset::new();
        expected.iter().for_each(|row| *balance.entry(text(row, &columns)).or_default() += 1);
        written.iter().for_each(|row| *balance.entry(text(row, &columns)).or_default() -= 1);
        balance.retain(|_, count| *count != 0);
        let first = balance.iter().next();
        assert!(
            balance.is_empty(),
            "{context}: {} differs in {} rows (+ missing, - too many); the first: {first:?}",
            self.sink,
            balance.len()
        );
        written.len()
    }
}

/// The columns of a row: numbers as floats, since an integer of one writer is a float of another; times without empty fractions.
fn text(row: &Map<String, Value>, columns: &[&String]) -> String {
    let canonical = |value: Option<&Value>| match value {
        None | Some(Value::Null) => "null".to_owned(),
        Some(Value::Number(number)) => format!("{:?}", number.as_f64().expect("a JSON number is a float")),
        Some(Value::String(text)) => format!("{:?}", text.replace(".000Z", "Z")),
        Some(other) => other.to_string(),
    };
    columns.iter().map(|column| format!("{column}={} ", canonical(row.get(*column)))).collect()
}

fn ndjson(file: &Path) -> Vec<Map<String, Value>> {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
}

/// The rows of all finished parts below `directory`.
fn written(directory: &Path) -> Vec<Map<String, Value>> {
    let parts = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let parts: Vec<PathBuf> = parts.map(|entry| entry.expect("a readable directory").path()).collect();
    let rows_of = |part: &PathBuf| match part.extension().and_then(|extension| extension.to_str()) {
        Some("ndjson") => ndjson(part),
        Some("parquet") => parquet(part),
        _ => panic!("{} is no finished part", part.display()),
    };
    parts.iter().flat_map(rows_of).collect()
}

fn parquet(file: &Path) -> Vec<Map<String, Value>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(file).expect("a readable part")).expect("a Parquet file");
    let mut lines = arrow_json::LineDelimitedWriter::new(Vec::new());
    for batch in reader.build().expect("a Parquet file") {
        lines.write(&batch.expect("a Parquet file")).expect("rows that JSON can say");
    }
    lines.finish().expect("memory takes all");
    let text = String::from_utf8(lines.into_inner()).expect("JSON is UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
}
