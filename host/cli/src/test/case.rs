//! A case as it is written: JSON, unknown keys refused.

use std::{collections::BTreeMap, fs, path::Path};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::report::{Exit, Failure, Problem};

/// One case. `millstream test --help` explains it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// What it shows, as a sentence.
    #[serde(default)]
    pub about: String,
    /// The operator's entry in a job file, without its input; empty: the component and nothing else.
    #[serde(default)]
    pub operator: Map<String, Value>,
    /// The columns of each input, by the name of its port.
    pub inputs: BTreeMap<String, Map<String, Value>>,
    /// What happens, in order.
    pub steps: Vec<Step>,
    /// Whether the input ends after the last step.
    #[serde(default = "yes")]
    pub ends: bool,
    /// What leaves the operator, by the name of its output; `rejected` and `late` are outputs too. Outputs that are not named are not compared.
    pub expect: BTreeMap<String, Vec<Row>>,
}

/// A row: its columns by name, and `@time` and `@change`.
pub type Row = Map<String, Value>;

/// One thing that happens.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// Rows arrive.
    Rows(RowsStep),
    /// The watermark advances.
    Watermark(WatermarkStep),
    /// The clock advances.
    ProcessingTime(ProcessingTimeStep),
}

/// Rows arrive on an input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RowsStep {
    /// The rows, one batch.
    pub rows: Vec<Row>,
    /// The port; it may be left out if there is only one.
    pub input: Option<String>,
}

/// The watermark advances.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WatermarkStep {
    /// To this time: RFC 3339, or ms since epoch.
    pub watermark: Value,
}

/// The clock advances.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ProcessingTimeStep {
    /// To this time: RFC 3339, or ms since epoch.
    pub processing_time: Value,
}

fn yes() -> bool {
    true
}

/// Reads a case.
pub fn read(path: &Path) -> Result<Case, Failure> {
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::new(Exit::Invalid, format!("the case `{}` cannot be read", path.display())).because(&error))?;
    serde_json::from_str(&text).map_err(|error| Failure { exit: Exit::Invalid, problems: vec![problem(path, &text, &error)] })
}

fn problem(path: &Path, text: &str, error: &serde_json::Error) -> Problem {
    let excerpt = error.line().checked_sub(1).and_then(|index| text.lines().nth(index)).map(str::to_owned);
    let (line, column) = (Some(error.line()), Some(error.column()));
    let fix = Some("`millstream test --help` shows what a case looks like".to_owned());
    Problem { file: Some(path.to_owned()), line, column, excerpt, message: format!("this is no case: {error}"), fix, ..Problem::default() }
}
