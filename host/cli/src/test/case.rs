//! A case as it is written: JSON in the form of `tests/conformance/README.md`, unknown keys refused.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::report::{Exit, Failure, Problem};

/// One case.
pub enum Case {
    /// Of an operator.
    Operator(OperatorCase),
    /// Of an aggregate.
    Aggregate(AggregateCase),
    /// Of state of older versions.
    Migration(MigrationCase),
}

/// What happens to an operator, and what must leave it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct OperatorCase {
    /// What it shows.
    #[serde(default)]
    pub about: String,
    /// `operator`, which may be left out.
    #[serde(rename = "kind")]
    _kind: Option<String>,
    /// The guest that a conformance case is for.
    #[serde(rename = "guest")]
    _guest: Option<String>,
    /// The operator's settings.
    #[serde(default = "no_settings")]
    pub settings: Value,
    /// The inputs by port.
    pub inputs: Map<String, Value>,
    /// What comes back for requests over HTTP, in place of the network.
    pub http: Option<Vec<Canned>>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// How rows of one output are compared.
    #[serde(default)]
    pub order: Order,
    /// What must come out.
    pub expected: Expected,
}

/// One input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Input {
    /// Column → data type, `?`: may be null.
    pub schema: Map<String, Value>,
    /// The columns of the key; none: not keyed.
    pub key_by: Option<Vec<String>>,
    /// It carries updates and deletions.
    #[serde(default)]
    pub changes: bool,
}

/// What comes back for a request.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Canned {
    /// The method that is meant. Default: GET.
    #[serde(default = "get")]
    pub method: String,
    /// The URL that is meant, whole.
    pub url: String,
    /// The status. Default: 200.
    #[serde(default = "ok")]
    pub status: u16,
    /// Headers by name.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The body: text as it is, anything else as JSON. Default: none.
    #[serde(default)]
    pub body: Value,
    /// There is no answer, for this reason.
    pub failure: Option<CannedFailure>,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CannedFailure {
    /// It is not sent.
    Refused,
    /// Nobody is there.
    Unreachable,
    /// Nobody answers in time.
    Timeout,
    /// The answer is too large.
    TooLarge,
}

fn get() -> String {
    "GET".to_owned()
}

fn ok() -> u16 {
    200
}

/// One thing that happens.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Rows arrive: input → rows.
    Rows(Map<String, Value>),
    /// The watermark advances, to ms since epoch.
    Watermark(i64),
    /// The clock advances, to ms since epoch.
    ProcessingTime(i64),
    /// The input ends.
    End(bool),
}

/// How rows of one output are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// As a multiset.
    #[default]
    Any,
    /// In order.
    Exact,
}

/// What must come out.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// Output → rows; an output that is left out has none.
    #[serde(default)]
    pub outputs: Map<String, Value>,
    /// The rows that are rejected, as they came in, with the reason.
    #[serde(default)]
    pub rejected: Vec<(Map<String, Value>, String)>,
}

/// A row: its event time, its columns, and its change kind where it has one.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(from = "RowForm")]
pub struct Row {
    /// Event time in ms since epoch, if it has one.
    pub time: Option<i64>,
    /// The columns by name.
    pub columns: Map<String, Value>,
    /// `+I`, `-U`, `+U` or `-D`.
    pub change: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RowForm {
    Insert(Option<i64>, Map<String, Value>),
    Change(Option<i64>, Map<String, Value>, String),
}

impl From<RowForm> for Row {
    fn from(form: RowForm) -> Self {
        match form {
            RowForm::Insert(time, columns) => Self { time, columns, change: None },
            RowForm::Change(time, columns, change) => Self { time, columns, change: Some(change) },
        }
    }
}

/// What happens to an aggregate, and what must be its result.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AggregateCase {
    /// What it shows.
    #[serde(default)]
    pub about: String,
    /// `aggregate`.
    #[serde(rename = "kind")]
    _kind: String,
    /// The guest that a conformance case is for.
    #[serde(rename = "guest")]
    _guest: Option<String>,
    /// The aggregate's settings.
    #[serde(default = "no_settings")]
    pub settings: Value,
    /// Column → data type, `?`: may be null.
    pub columns: Map<String, Value>,
    /// What happens, in order.
    pub steps: Vec<AggregateStep>,
    /// Group → result.
    pub expected: Map<String, Value>,
}

/// One thing that happens to an aggregate.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AggregateStep {
    /// Rows with their groups.
    Accumulate(Vec<(String, Map<String, Value>)>),
    /// The second group goes into the first, and is gone.
    Merge(String, String),
}

/// What older versions wrote, and what must become of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MigrationCase {
    /// What it shows.
    #[serde(default)]
    pub about: String,
    /// `migration`.
    #[serde(rename = "kind")]
    _kind: String,
    /// The guest that a conformance case is for.
    #[serde(rename = "guest")]
    _guest: Option<String>,
    /// Values, state by state.
    pub steps: Vec<MigrationStep>,
}

/// Values of one state of one version.
#[derive(Debug, Deserialize)]
pub struct MigrationStep {
    /// The name of the state.
    pub state: String,
    /// The version of its type.
    pub version: u32,
    /// The type that the values have.
    #[serde(rename = "type")]
    pub data_type: String,
    /// The values; null stays null.
    pub values: Vec<Value>,
    /// What must become of them.
    #[serde(flatten)]
    pub migrated: Migrated,
}

/// What must become of values.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Migrated {
    /// These, of this type.
    Expected {
        /// The type.
        to: String,
        /// The values.
        expected: Vec<Value>,
    },
    /// They are refused.
    Refused {
        /// With this among the words.
        refused: String,
    },
}

fn no_settings() -> Value {
    Value::Object(Map::new())
}

impl Case {
    /// Reads a case.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = fs::read_to_string(path)
            .map_err(|error| Failure::new(Exit::Invalid, format!("the case `{}` cannot be read", path.display())).because(&error))?;
        Self::parse(&text).map_err(|error| Failure::of(Exit::Invalid, vec![problem(path, &text, &error)]))
    }

    fn parse(text: &str) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Kind {
            kind: Option<String>,
        }
        match serde_json::from_str::<Kind>(text)?.kind.as_deref() {
            Some("aggregate") => serde_json::from_str(text).map(Self::Aggregate),
            Some("migration") => serde_json::from_str(text).map(Self::Migration),
            _ => serde_json::from_str(text).map(Self::Operator),
        }
    }

    /// What it shows.
    pub fn about(&self) -> &str {
        match self {
            Self::Operator(case) => &case.about,
            Self::Aggregate(case) => &case.about,
            Self::Migration(case) => &case.about,
        }
    }
}

fn problem(path: &Path, text: &str, error: &serde_json::Error) -> Problem {
    let excerpt = error.line().checked_sub(1).and_then(|index| text.lines().nth(index)).map(str::to_owned);
    let (line, column) = (Some(error.line()), Some(error.column()));
    let fix = Some("`millstream test --help` shows what a case looks like".to_owned());
    Problem { file: Some(path.to_owned()), line, column, excerpt, message: format!("this is no case: {error}"), fix, ..Problem::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_change_kind_only_where_it_says_so() {
        let rows: Vec<Row> = serde_json::from_str(r#"[[5, {"a": 1}], [null, {"a": 2}, "-D"]]"#).unwrap();
        assert_eq!((rows[0].time, rows[0].change.as_deref()), (Some(5), None));
        assert_eq!((rows[1].time, rows[1].change.as_deref()), (None, Some("-D")));
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let error = Case::parse(r#"{"inputs": {}, "steps": [], "expect": {}, "expected": {}}"#).err().unwrap();
        assert!(error.to_string().contains("unknown field `expect`"), "{error}");
    }
}
