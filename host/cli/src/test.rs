//! `millstream test`: a project's cases, run with its real component in the real host.
//!
//! The flow: build the project → read its cases ([`case`]) → plan and drive the operator as a job would, step by step ([`drive`]) → compare
//! what left it with what the case expects ([`compare`]). `cargo test` runs the same operator natively and faster; this is the proof that the
//! component does the same.

mod case;
mod compare;
mod drive;
mod rows;

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    build, machine,
    report::{Exit, Failure},
    terminal::{self, ERROR, FAINT, GOOD},
};

/// Runs the cases of a project, `tests/*.json`, with its component in the real host.
///
/// A case gives rows, watermarks and clock times to the operator in steps, and says what must leave it:
///
/// {
///   "about": "hot readings stay",
///   "operator": { "key-by": ["sensor"], "component": { "settings": { "at-least": 30 } } },
///   "inputs": { "input": { "sensor": "Utf8", "celsius": "Float64?" } },
///   "steps": [
///     { "rows": [ { "sensor": "attic", "celsius": 31.5, "@time": "2026-05-01T10:00:00Z" } ] },
///     { "watermark": "2026-05-01T11:00:00Z" },
///     { "processing-time": 1000 }
///   ],
///   "expect": { "output": [ { "sensor": "attic", "celsius": 31.5 } ], "rejected": [] }
/// }
///
/// `operator` is written as in a job file, without its input; the component needs no path, and without `operator` the component is all there
/// is. With several inputs a step names its own: "input": "left". `@time` is a row's event time and `@change` its kind of change; among the
/// expected rows they are compared where they stand. After the last step the input ends, unless the case says "ends": false. Expected rows
/// come in the order in which they leave the operator.
#[derive(clap::Args)]
#[command(verbatim_doc_comment, after_help = "\
Examples:
  millstream test
  millstream test my-operator
  millstream test --component filter.wasm --cases tests/conformance/cases/filter.json")]
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
        named => named.iter().map(|path| if path.is_dir() { cases_below(path) } else { Ok(vec![path.clone()]) }).collect::<Result<Vec<_>, _>>().map(|cases| cases.concat()),
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
    let entries = fs::read_dir(directory).and_then(|entries| entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>());
    let mut paths = entries.map_err(|error| Failure::new(Exit::Invalid, format!("`{}` cannot be listed", directory.display())).because(&error))?;
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
            let case = case::read(path)?;
            let differences = match drive::drive(&case, component, &components).await {
                Ok(seen) => compare::differences(&case, &seen),
                Err(reason) => vec![reason],
            };
            failed += usize::from(!differences.is_empty());
            terminal::print(&outcome(path, &case.about, &differences));
        }
    }
    Ok(failed)
}

fn outcome(path: &Path, about: &str, differences: &[String]) -> String {
    let (style, word) = if differences.is_empty() { (GOOD, "good  ") } else { (ERROR, "failed") };
    let mut text = format!("{style}{word}{style:#}  {}  {FAINT}{about}{FAINT:#}\n", path.display());
    for difference in differences {
        text += &format!("        {}\n", difference.replace('\n', "\n        "));
    }
    text
}
