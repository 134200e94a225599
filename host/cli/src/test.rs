//! `millstream test`: a project's cases, run with its real component in the real host.
//!
//! The flow: build the project → read its cases ([`case`]) → plan and drive the operator ([`operator`]) or aggregate ([`aggregate`]) as a job
//! would, or give it state of older versions ([`migration`]), step by step, with one row per call, with two, and with all at once → [`compare`] what came out with what the case expects.
//! `cargo test` runs the same operator natively and faster; this is the proof that the component does the same.

mod aggregate;
mod case;
mod compare;
mod http;
mod migration;
mod operator;
mod rows;
mod values;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    build, machine,
    report::{Exit, Failure},
    terminal::{self, ERROR, FAINT, GOOD},
};
use case::Case;

/// How many rows a call gets at most. How rows are cut into calls may change no result.
const ROWS_PER_CALL: [usize; 3] = [1, 2, usize::MAX];

/// Runs the cases of a project, `tests/*.json`, with its component in the real host
///
/// A case gives rows, watermarks and clock times (in ms) to the operator, and says what must come out. Each case runs with one row per call,
/// with two, and with all at once.
///
/// {
///   "about": "hot readings stay",
///   "settings": { "at-least": 30 },
///   "inputs": { "in": { "schema": { "sensor": "Utf8", "celsius": "Float64?" }, "key-by": ["sensor"] } },
///   "steps": [
///     { "rows": { "in": [ [1000, { "sensor": "attic", "celsius": 31.5 }] ] } },
///     { "watermark": 2000 },
///     { "processing-time": 5000 },
///     { "end": true }
///   ],
///   "expected": { "outputs": { "out": [ [1000, { "sensor": "attic", "celsius": 31.5 }] ] }, "rejected": [] }
/// }
///
/// A row is [event time or null, {column: value}], with "+I", "-U", "+U" or "-D" behind it where it is a change. "order": "exact" compares the
/// rows of an output in their order. "http": [{ "url": "http://…", "status": 200, "body": "…" }] stands for whom the operator asks over HTTP.
/// `tests/conformance/README.md` in the source tells the rest: aggregates, and state of older versions that a component migrates.
#[derive(clap::Args)]
#[command(
    verbatim_doc_comment,
    after_help = "\
Examples:
  millstream test
  millstream test my-operator
  millstream test --component filter.wasm --cases tests/conformance/cases/filter.json"
)]
pub struct Arguments {
    #[command(flatten)]
    build: build::Arguments,
    /// Test this component instead of building one.
    #[arg(long, value_name = "FILE.wasm")]
    component: Option<PathBuf>,
    /// Run these cases: files, or directories of them [default: the directory `tests` of the project].
    #[arg(long, value_name = "PATH", num_args = 1..)]
    cases: Vec<PathBuf>,
}

/// A component and its cases.
struct Suite {
    component: PathBuf,
    cases: Vec<PathBuf>,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let suites = suites(&arguments)?;
    if suites.iter().all(|suite| suite.cases.is_empty()) {
        return Err(Failure::new(Exit::Invalid, "there are no cases to run").fix("write one in tests/, as `millstream test --help` shows"));
    }
    let failed = machine::block_on(run(&suites))?;
    let count: usize = suites.iter().map(|suite| suite.cases.len()).sum();
    terminal::print(&format!("{} passed, {failed} failed", count - failed));
    Ok(if failed == 0 { Exit::Done } else { Exit::Failed })
}

fn suites(arguments: &Arguments) -> Result<Vec<Suite>, Failure> {
    let cases_of = |project: &Path| match arguments.cases.as_slice() {
        [] => cases_below(&project.join("tests")),
        named => {
            let below = |path: &PathBuf| if path.is_dir() { cases_below(path) } else { Ok(vec![path.clone()]) };
            named.iter().map(below).collect::<Result<Vec<_>, _>>().map(|cases| cases.concat())
        }
    };
    if let Some(component) = &arguments.component {
        return Ok(vec![Suite { component: component.clone(), cases: cases_of(&arguments.build.directory)? }]);
    }
    let built = build::build(&arguments.build)?;
    built.into_iter().map(|built| Ok(Suite { cases: cases_of(&built.project)?, component: built.path })).collect()
}

/// The JSON files of a directory, by name; none if there is no such directory.
fn cases_below(directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    if !directory.is_dir() {
        return Ok(Vec::new());
    }
    let entries =
        fs::read_dir(directory).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
    let mut paths =
        entries.map_err(|error| Failure::new(Exit::Invalid, format!("`{}` cannot be listed", directory.display())).because(&error))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    Ok(paths)
}

/// Runs all cases and prints how each came out; the number of those that failed.
async fn run(suites: &[Suite]) -> Result<usize, Failure> {
    let components = machine::component_runtime(machine::INSTANCES_TO_PLAN)?;
    let mut failed = 0;
    for Suite { component, cases } in suites {
        for path in cases {
            let case = Case::read(path)?;
            let differences = outcome_of(&case, component, &components).await;
            failed += usize::from(!differences.is_empty());
            terminal::print(&outcome(path, case.about(), &differences));
        }
    }
    Ok(failed)
}

/// What is not as expected; empty: the case is good.
async fn outcome_of(case: &Case, component: &Path, components: &millstream_wasm::Runtime) -> Vec<String> {
    for rows_per_call in ROWS_PER_CALL {
        let differences = match case {
            Case::Operator(case) => operator::run(case, component, components, rows_per_call).await,
            Case::Aggregate(case) => aggregate::run(case, component, components, rows_per_call).await,
            Case::Migration(case) => migration::run(case, component, components, rows_per_call).await,
        };
        let differences = differences.unwrap_or_else(|reason| vec![reason]);
        if !differences.is_empty() {
            let cut = if rows_per_call == usize::MAX {
                "all rows in one call".to_owned()
            } else {
                format!("at most {rows_per_call} rows per call")
            };
            return differences.into_iter().map(|difference| format!("{difference}\n({cut})")).collect();
        }
    }
    Vec::new()
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn outcome(path: &Path, about: &str, differences: &[String]) -> String {
    let (style, word) = if differences.is_empty() { (GOOD, "good  ") } else { (ERROR, "failed") };
    let mut text = format!("{style}{word}{style:#}  {}  {FAINT}{about}{FAINT:#}\n", build::shown(path).display());
    for difference in differences {
        text += &format!("        {}\n", difference.replace('\n', "\n        "));
    }
    text
}
