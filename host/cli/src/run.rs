//! `millstream run`: a job from its file to its end.
//!
//! The job runs on threads of its own; this module starts it ([`durable`]: from where its directory says) and [`watch`] follows it through its
//! handle: it shows progress, turns signals into commands and the outcome into a summary and an exit code.

mod crash;
mod durable;
mod stop;
mod watch;

use std::{io::IsTerminal, num::NonZeroUsize, path::PathBuf, sync::Arc, thread};

pub use crash::crash_points;
use millstream_engine::{
    graph::{JobPlan, NodeKind},
    run::{self, RunSettings, StateDirectory},
};
use millstream_state::{RocksShared, RocksSharedSettings};
pub use stop::StopRequest;
use tempfile::TempDir;

use crate::{
    egress::EgressArguments,
    job::{self, Job, JobArguments},
    machine,
    progress::{Mode, Progress},
    report::{Exit, Failure},
    signals::Signals,
};

/// Runs a job until its input ends, or, if its input has no end, until Ctrl-C.
///
/// With `--state DIR` the run is durable: it takes checkpoints, and whatever ends it (Ctrl-C, kill -9, a power cut), the same command again goes on
/// from the last one, as if nothing had happened. Without it the run is ephemeral: Ctrl-C (or SIGTERM) cancels a job whose input ends by itself and
/// leaves nothing half-written; a job without an end stops its sources and finishes what is on its way. A second Ctrl-C gives up at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream run job.yaml
  millstream run job.yaml --parallelism 4
  millstream run job.yaml --set sources.flights.files.path='data/2014/*.csv.gz'
  tail -f events.ndjson | millstream run job.yaml --progress
  millstream run job.yaml --state state              durable; again: goes on where it was
  millstream run job.yaml --state state --fresh      durable, from the beginning
  millstream run job.yaml --state fork --restore state/savepoints/monday

Exit codes:
  0    all input was read and everything is written (also when stopped, if the input has no end)
  1    the job failed; standard error says why
  2    the job file, or a component that it names, is wrong
  130  stopped by Ctrl-C or `millstream stop` before the end of its input (143: by SIGTERM)")]
pub struct Arguments {
    #[command(flatten)]
    pub job: JobArguments,
    /// Make the run durable: keep checkpoints, savepoints and what sources have accepted in this directory, and go on from what is there.
    #[arg(long, value_name = "DIR", help_heading = "Durable runs")]
    state: Option<PathBuf>,
    /// Start from the beginning although the directory holds checkpoints. What was written stays: sinks decide about it by their settings.
    #[arg(long, requires = "state", help_heading = "Durable runs")]
    fresh: bool,
    /// Start from a savepoint: a path, or the name of one in the directory.
    #[arg(long, value_name = "SAVEPOINT", requires = "state", help_heading = "Durable runs")]
    restore: Option<PathBuf>,
    /// With --restore: state that the savepoint holds and the job no longer has a place for; OPERATOR, or OPERATOR.STATE.
    #[arg(long, value_name = "NAME", requires = "restore", help_heading = "Durable runs")]
    allow_dropped_state: Vec<String>,
    /// With --restore: an operator, source or sink that has another name in the job file now.
    #[arg(long, value_name = "OLD=NEW", value_parser = rename, requires = "restore", help_heading = "Durable runs")]
    rename: Vec<(String, String)>,
    #[command(flatten)]
    egress: EgressArguments,
    /// Directory for state that does not fit into memory; this run uses one below it and removes it [default: the system's temporary one].
    #[arg(long, value_name = "DIR", conflicts_with = "state")]
    scratch: Option<PathBuf>,
    /// Show progress even if standard error is not a terminal: one line a second.
    #[arg(long)]
    progress: bool,
    /// Show neither progress nor summary.
    #[arg(long, short, conflicts_with = "progress")]
    quiet: bool,
    /// Write the summary, or the failure, to standard error as one JSON object.
    #[arg(long)]
    pub json: bool,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    // Before anything is planned: a plan may ask a broker.
    arguments.egress.close()?;
    let data = data_runtime()?;
    let ended = machine::block_on(watched(&arguments, data.handle()));
    // Whatever still runs belongs to a job that has ended or was given up.
    data.shutdown_background();
    ended
}

/// The threads that rows flow on. This thread stays free to watch, so that a signal is heard under full load.
fn data_runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let threads = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("millstream-data")
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, "the threads of the job cannot be started").because(&error))
}

async fn watched(arguments: &Arguments, data: &tokio::runtime::Handle) -> Result<Exit, Failure> {
    let mut signals = Signals::listen()?;
    let components = machine::component_runtime(machine::INSTANCES_TO_RUN)?;
    let sources = arguments.state.as_deref().map(durable::sources);
    let Job { plan, prints } = job::plan(&arguments.job, &components, sources).await?;
    let found = millstream_engine::plan::check_outside(&plan, arguments.state.is_some()).await;
    if let Some(failure) = millstream_server::failure::Failure::of_outside(&found) {
        return Err(failure.into());
    }
    let plan = Arc::new(plan);
    let progress = Progress::new(mode(arguments, prints));
    match &arguments.state {
        Some(directory) => durable::run(directory, arguments, plan, data, progress, &mut signals).await,
        None => ephemeral(arguments, plan, data, progress, &mut signals).await,
    }
}

async fn ephemeral(
    arguments: &Arguments,
    plan: Arc<JobPlan>,
    data: &tokio::runtime::Handle,
    progress: Progress,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let scratch = scratch(arguments.scratch.as_deref())?;
    let settings = RunSettings { runtime: data.clone(), state: Some(state(scratch.path())), ..RunSettings::new() };
    let is_bounded = is_bounded(&plan);
    let mut watch = watch::Watch::new(run::start(plan, settings), is_bounded, progress, None);
    let outcome = watch.until_ended(signals).await?;
    watch.report(&outcome, arguments)
}

/// Rows on the terminal and a display that is redrawn in place would write over each other.
fn mode(arguments: &Arguments, prints: bool) -> Mode {
    match Mode::choose(arguments.progress, arguments.quiet || arguments.json) {
        Mode::Display if prints && std::io::stdout().is_terminal() => Mode::Off,
        mode => mode,
    }
}

fn is_bounded(plan: &JobPlan) -> bool {
    plan.nodes.iter().all(|node| match &node.kind {
        NodeKind::Source(source) => source.source.is_bounded(),
        NodeKind::Operator(_) | NodeKind::Sink(_) => true,
    })
}

/// A directory of this run alone; it goes when the run does.
fn scratch(below: Option<&std::path::Path>) -> Result<TempDir, Failure> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("millstream-state-");
    let made = below.map_or_else(|| builder.tempdir(), |below| builder.tempdir_in(below));
    made.map_err(|error| {
        Failure::new(Exit::Failed, "the directory for state cannot be made").because(&error).fix("name another one with `--scratch`")
    })
}

/// Where state goes that does not fit into memory.
fn state(directory: &std::path::Path) -> StateDirectory {
    StateDirectory { path: directory.to_owned(), shared: Arc::new(RocksShared::new(RocksSharedSettings::default())) }
}

/// `OLD=NEW`.
fn rename(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((old, new)) if !old.is_empty() && !new.is_empty() => Ok((old.to_owned(), new.to_owned())),
        _ => Err("expected OLD=NEW, as aircraft=planes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_has_two_names() {
        assert_eq!(rename("a=b"), Ok(("a".into(), "b".into())));
        assert!(rename("a").is_err() && rename("=b").is_err() && rename("a=").is_err());
    }
}
