//! Reads conformance cases (`tests/conformance/README.md`) and runs them against Rust guests with the native harness.

#![forbid(unsafe_code)]

use std::{collections::BTreeMap, fs, path::PathBuf};

use millstream::{
    aggregate::Aggregate,
    http::{Failure, Response},
    operator::{self, Operator},
    testing::{AggregateHarness, DataType, Emitted, Harness, TestRow, json},
};
use serde::Deserialize;
use serde_json::{Map, Value};

/// How many rows go into one call; results must not depend on it.
const ROWS_PER_CALL: [usize; 3] = [1, 2, 8192];

/// A case for an operator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Case {
    guest: String,
    #[serde(rename = "about")]
    _about: String,
    #[serde(default = "no_settings")]
    settings: Value,
    inputs: BTreeMap<String, InputCase>,
    /// What comes back for requests over HTTP.
    http: Option<Vec<Canned>>,
    steps: Vec<Step>,
    /// Whether the rows of each output are compared in order.
    #[serde(default)]
    order: Order,
    expected: Expected,
}

fn no_settings() -> Value {
    Value::Object(Map::new())
}

#[derive(Deserialize, Default, PartialEq, Clone, Copy)]
#[serde(rename_all = "kebab-case")]
enum Order {
    #[default]
    Any,
    Exact,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct InputCase {
    schema: Map<String, Value>,
    #[serde(default)]
    key_by: Vec<String>,
    #[serde(default)]
    changes: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Canned {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: Value,
    failure: Option<CannedFailure>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum CannedFailure {
    Refused,
    Unreachable,
    Timeout,
    TooLarge,
}

fn get() -> String {
    "GET".into()
}

fn ok() -> u16 {
    200
}

impl Canned {
    fn answer(&self) -> Result<Response, Failure> {
        let body = match &self.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        match self.failure {
            None => {
                let headers = self.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect();
                Ok(Response { headers, ..Response::of(self.status, body) })
            }
            Some(CannedFailure::Refused) => Err(Failure::Refused("the case refuses it".into())),
            Some(CannedFailure::Unreachable) => Err(Failure::Unreachable("in this case nobody is there".into())),
            Some(CannedFailure::Timeout) => Err(Failure::Timeout),
            Some(CannedFailure::TooLarge) => Err(Failure::TooLarge),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Step {
    Rows(BTreeMap<String, Vec<RowCase>>),
    Watermark(i64),
    ProcessingTime(i64),
    /// Always `true`.
    End(#[expect(dead_code, reason = "there is nothing to choose")] bool),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RowCase {
    Change(Option<i64>, Map<String, Value>, String),
    Insert(Option<i64>, Map<String, Value>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    outputs: BTreeMap<String, Vec<RowCase>>,
    #[serde(default)]
    rejected: Vec<(Map<String, Value>, String)>,
}

const CHANGES: [&str; 4] = ["+I", "-U", "+U", "-D"];

impl RowCase {
    fn row(&self) -> TestRow {
        match self {
            Self::Insert(time, columns) => TestRow { columns: columns.clone(), time: *time, change: 0 },
            Self::Change(time, columns, kind) => {
                let change = CHANGES.iter().position(|known| known == kind).expect("a change is +I, -U, +U or -D");
                TestRow { columns: columns.clone(), time: *time, change: change as u8 }
            }
        }
    }
}

fn read(case: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../cases").join(format!("{case}.json"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Runs a case for operator `O`, with several numbers of rows per call.
///
/// # Panics
/// The case is not met.
pub fn run<O: Operator>(name: &str) {
    let case: Case = serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("case {name}: {error}"));
    for rows_per_call in ROWS_PER_CALL {
        let mut harness = Harness::<O>::with_settings(&case.settings.to_string()).rows_per_call(rows_per_call);
        prepare(&mut harness, &case);
        case.steps.iter().for_each(|step| take(&mut harness, step));
        check(&mut harness, &case, &format!("case {name} ({}), {rows_per_call} rows per call", case.guest));
    }
}

fn prepare<O: Operator>(harness: &mut Harness<O>, case: &Case) {
    if let Some(canned) = case.http.clone() {
        harness.answer_requests(move |request| {
            let found = canned.iter().find(|canned| canned.method == request.method && canned.url == request.url);
            found.map_or_else(|| Err(Failure::Refused("the case says nothing about it".into())), Canned::answer)
        });
    }
    for (name, input) in &case.inputs {
        let text = |data_type: &Value| data_type.as_str().expect("a data type is text").to_owned();
        let columns: Vec<_> = input.schema.iter().map(|(column, data_type)| (column.clone(), text(data_type))).collect();
        harness.schema(name, &columns);
        harness.key_input_by(name, &input.key_by);
        if input.changes {
            harness.carries_changes(name);
        }
    }
}

fn take<O: Operator>(harness: &mut Harness<O>, step: &Step) {
    match step {
        Step::Rows(inputs) => inputs.iter().for_each(|(input, rows)| harness.json_rows(input, rows.iter().map(RowCase::row).collect())),
        Step::Watermark(time) => harness.watermark(*time),
        Step::ProcessingTime(time) => harness.processing_time(*time),
        Step::End(_) => harness.end(),
    }
}

fn check<O: Operator>(harness: &mut Harness<O>, case: &Case, what: &str) {
    let mut outputs: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in harness.emitted() {
        outputs.entry(row.output.clone()).or_default().push(text(&row));
    }
    let expected = case.expected.outputs.iter().map(|(output, rows)| {
        let emitted = |row: TestRow| Emitted { output: output.clone(), columns: row.columns, time: row.time, change: row.change };
        (output.clone(), rows.iter().map(|row| text(&emitted(row.row()))).collect::<Vec<_>>())
    });
    let mut expected: BTreeMap<_, _> = expected.collect();
    if case.order == Order::Any {
        outputs.values_mut().chain(expected.values_mut()).for_each(|rows| rows.sort());
    }
    assert_eq!(outputs, expected, "{what}");
    let rejected: Vec<_> = harness.rejected().into_iter().map(|rejection| (sorted(&rejection.columns), rejection.reason)).collect();
    let expected: Vec<_> = case.expected.rejected.iter().map(|(columns, reason)| (sorted(columns), reason.clone())).collect();
    assert_eq!(rejected, expected, "{what}: rejected rows");
}

fn sorted(columns: &Map<String, Value>) -> BTreeMap<String, Value> {
    columns.clone().into_iter().collect()
}

fn text(row: &Emitted) -> String {
    let columns = serde_json::to_string(&sorted(&row.columns)).expect("JSON values can be written");
    format!("{} {} {columns}", row.time.map_or("-".into(), |time| time.to_string()), CHANGES[usize::from(row.change)])
}

/// A case for an aggregate.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AggregateCase {
    #[serde(rename = "guest")]
    _guest: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "about")]
    _about: String,
    #[serde(default = "no_settings")]
    settings: Value,
    columns: Map<String, Value>,
    steps: Vec<AggregateStep>,
    expected: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum AggregateStep {
    /// Rows: group and columns.
    Accumulate(Vec<(String, Map<String, Value>)>),
    /// Into the first group, the second.
    Merge((String, String)),
}

/// Runs a case for aggregate `A`.
///
/// # Panics
/// The case is not met.
pub fn run_aggregate<A: Aggregate>(name: &str) {
    let case: AggregateCase = serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("case {name}: {error}"));
    let columns: Vec<_> =
        case.columns.iter().map(|(column, data_type)| (column.as_str(), data_type.as_str().unwrap_or_default())).collect();
    for rows_per_call in ROWS_PER_CALL {
        let mut harness = AggregateHarness::<A>::new(&case.settings.to_string(), &columns);
        for step in &case.steps {
            match step {
                AggregateStep::Accumulate(rows) => {
                    let rows: Vec<_> = rows.iter().map(|(group, columns)| (group.as_str(), columns.clone())).collect();
                    rows.chunks(rows_per_call).for_each(|rows| harness.accumulate(rows));
                }
                AggregateStep::Merge((into, other)) => harness.merge(into, other),
            }
        }
        for (group, expected) in &case.expected {
            assert_eq!(harness.finish(group), *expected, "case {name}, group {group}, {rows_per_call} rows per call");
        }
    }
}

/// A case for state of older versions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationCase {
    #[serde(rename = "guest")]
    _guest: String,
    #[serde(rename = "kind")]
    _kind: String,
    #[serde(rename = "about")]
    _about: String,
    steps: Vec<MigrationStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MigrationStep {
    state: String,
    version: u32,
    #[serde(rename = "type")]
    data_type: String,
    values: Vec<Value>,
    to: Option<String>,
    expected: Option<Vec<Value>>,
    refused: Option<String>,
}

/// Runs a case of state of older versions for operator `O`.
///
/// # Panics
/// The case is not met.
pub fn run_migration<O: Operator>(name: &str) {
    let case: MigrationCase = serde_json::from_str(&read(name)).unwrap_or_else(|error| panic!("case {name}: {error}"));
    let parsed = |text: &str| DataType::parse(text).unwrap_or_else(|error| panic!("case {name}: {error}"));
    for (number, step) in case.steps.iter().enumerate() {
        let what = format!("case {name}, step {}", number + 1);
        let column = json::to_column(&parsed(&step.data_type), &step.values).unwrap_or_else(|error| panic!("{what}: {error}"));
        let migrated = operator::migrate::<O>(&step.state, (step.version, &step.data_type), &column);
        match (migrated, &step.to, &step.expected, &step.refused) {
            (Ok(column), Some(to), Some(expected), None) => {
                let found = json::from_column(&parsed(to), &column).unwrap_or_else(|error| panic!("{what}: {}", error.0));
                assert_eq!(found, *expected, "{what}");
            }
            (Err(refusal), None, None, Some(words)) => assert!(refusal.contains(words), "{what}: {refusal}"),
            (answer, ..) => panic!("{what}: {answer:?}"),
        }
    }
}
