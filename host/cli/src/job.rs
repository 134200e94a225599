//! From a job file to a planned job: what `run`, `validate` and `explain` have in common.

pub mod references;

use std::{
    fs,
    num::NonZeroU32,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use millstream_engine::{
    clock::SystemClock,
    connector::Connectors,
    graph::JobPlan,
    operators::Environment,
    plan::{self, PlanOptions},
    spec::{self, JobSpec},
};
use millstream_model::ids::TenantId;
use serde_json::Value;

use crate::{
    report::{Exit, Failure},
    terminal,
};

/// Which job, and what is different from its file.
#[derive(clap::Args)]
pub struct JobArguments {
    /// The job file, YAML or JSON.
    #[arg(value_name = "JOB")]
    pub file: PathBuf,
    /// Number of parallel subtasks of whatever the job file does not set itself [default: that of the job file, else the number of cores].
    #[arg(long, short, value_name = "N")]
    parallelism: Option<NonZeroU32>,
    /// Replace a value of the job file, by the keys that lead to it: sources.flights.files.path=data/*.csv
    #[arg(long, value_name = "KEYS=VALUE", value_parser = replacement)]
    set: Vec<(String, Value)>,
}

/// The connectors of this program.
pub fn connectors() -> Connectors {
    millstream_connectors::all()
}

/// A job that can run.
pub struct Job {
    /// Checked, typed and placed.
    pub plan: JobPlan,
    /// It has a sink that writes to standard output.
    pub prints: bool,
}

/// The job, checked, typed and placed. `state_directory` is where sources of a durable run keep what they have accepted.
pub async fn plan(
    arguments: &JobArguments,
    components: &millstream_wasm::Runtime,
    state_directory: Option<PathBuf>,
) -> Result<Job, Failure> {
    let file = &arguments.file;
    let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error))?;
    let name = file.display().to_string();
    let connectors = connectors();
    let base_directory = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let read = |replaced: &[(String, Value)]| {
        JobSpec::parse_with(&name, &text, replaced, &connectors).map_err(|problems| failure(problems, file, &text))
    };
    let mut replaced = replaced(arguments);
    let spec = read(&replaced)?;
    let references = references::resolve(spec.value(), base_directory);
    // Before anything is said that could hold one of them.
    terminal::HIDDEN.hide(&name, &references);
    replaced.extend(references.replacements(spec.value()));
    let mut spec = read(&replaced)?;
    references.tell(&mut spec);
    let environment = Environment { base_directory, components, clock: Arc::new(SystemClock) };
    let options = PlanOptions { tenant: TenantId::local(), parallelism: cores(), state_directory };
    let plan = plan::plan(&spec, &connectors, &environment, &options).await.map_err(|problems| failure(problems, file, &text))?;
    Ok(Job { plan, prints: spec.sinks.iter().any(|sink| sink.kind == "stdout") })
}

/// `--parallelism` is the shortest way to say `--set parallelism=…`.
fn replaced(arguments: &JobArguments) -> Vec<(String, Value)> {
    let parallelism = arguments.parallelism.map(|parallelism| ("parallelism".to_owned(), Value::from(parallelism.get())));
    arguments.set.iter().cloned().chain(parallelism).collect()
}

/// `KEYS=VALUE`; the value is JSON if it can be read as that, else text.
fn replacement(text: &str) -> Result<(String, Value), String> {
    let (keys, value) = text.split_once('=').ok_or("expected KEYS=VALUE, as parallelism=2")?;
    if keys.is_empty() {
        return Err("no keys before `=`".to_owned());
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((keys.to_owned(), value))
}

fn cores() -> NonZeroU32 {
    let cores = thread::available_parallelism().ok().and_then(|cores| NonZeroU32::try_from(cores).ok());
    cores.unwrap_or(NonZeroU32::MIN)
}

fn unreadable(file: &Path, error: &std::io::Error) -> Failure {
    Failure::new(Exit::Invalid, format!("the job file `{}` cannot be read", file.display())).because(error)
}

/// All mistakes of a job file, each with its line.
fn failure(problems: spec::Problems, file: &Path, text: &str) -> Failure {
    millstream_server::failure::Failure::of_spec(&problems, Some(file.to_owned()), text).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_value_is_json_if_it_can_be() {
        assert_eq!(replacement("parallelism=2"), Ok(("parallelism".into(), Value::from(2))));
        assert_eq!(replacement("sources.a.files.path=a=b*.csv"), Ok(("sources.a.files.path".into(), Value::from("a=b*.csv"))));
        assert!(replacement("parallelism").is_err());
        assert!(replacement("=2").is_err());
    }
}
