//! `millstream run`: a job from its file to its end.
//!
//! The job runs on threads of its own; this module watches it through its handle: it shows progress, turns signals into commands and the
//! outcome into a summary and an exit code.

use std::{io::IsTerminal, num::NonZeroUsize, path::PathBuf, sync::Arc, thread, time::Duration};

use millstream_engine::{
    clock::{Clock, SystemClock},
    graph::{JobPlan, NodeKind},
    run::{self, JobError, JobHandle, JobOutcome, RunSettings, StateDirectory},
};
use millstream_state::{RocksShared, RocksSharedSettings};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    job::{self, Job, JobArguments},
    machine,
    progress::{self, Mode, Progress},
    report::{Exit, Failure},
    signals::Signals,
    summary, terminal,
};

/// Runs a job until its input ends, or, if its input has no end, until Ctrl-C.
///
/// Ctrl-C (or SIGTERM) cancels a job whose input ends by itself: nothing half-written is left. A job without an end stops its sources and
/// finishes what is on its way. A second Ctrl-C gives up at once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream run job.yaml
  millstream run job.yaml --parallelism 4
  millstream run job.yaml --set sources.flights.files.path='data/2014/*.csv.gz'
  tail -f events.ndjson | millstream run job.yaml --progress

Exit codes:
  0    all input was read and everything is written (also after Ctrl-C, if the input has no end)
  1    the job failed; standard error says why
  2    the job file, or a component that it names, is wrong
  130  cancelled by Ctrl-C (143: by SIGTERM)")]
pub struct Arguments {
    #[command(flatten)]
    pub job: JobArguments,
    /// Directory for state that does not fit into memory; this run uses one below it and removes it [default: the system's temporary one].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
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

/// A signal so soon after the first one is the same once more: timeout(1) sends it to the process and to its group.
const ECHO: Duration = Duration::from_millis(200);

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
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
    let Job { plan, prints } = job::plan(&arguments.job, &components).await?;
    let plan = Arc::new(plan);
    let scratch = scratch(arguments.state.as_deref())?;
    let settings = RunSettings { runtime: data.clone(), state: Some(state(&scratch)), ..RunSettings::new() };
    let mut watch = Watch {
        is_bounded: is_bounded(&plan),
        handle: run::start(plan, settings),
        progress: Progress::new(mode(arguments, prints)),
        started: now(),
        asked_to_stop: None,
    };
    let outcome = watch.until_ended(&mut signals).await?;
    watch.progress.clear();
    watch.report(&outcome, arguments)
}

/// A job that runs, and what is shown of it.
struct Watch {
    handle: JobHandle,
    /// Its input ends by itself.
    is_bounded: bool,
    progress: Progress,
    started: Instant,
    /// The first signal that was heard: the exit code it leads to, and when since the start.
    asked_to_stop: Option<(Exit, Duration)>,
}

impl Watch {
    /// Shows progress and hears signals until the job has ended.
    async fn until_ended(&mut self, signals: &mut Signals) -> Result<Arc<JobOutcome>, Failure> {
        let handle = self.handle.clone();
        let mut ended = std::pin::pin!(handle.wait());
        let mut looks = tokio::time::interval_at(self.started + progress::INTERVAL, progress::INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                outcome = &mut ended => return Ok(outcome),
                signal = signals.next() => self.on_signal(signal).await?,
                _ = looks.tick(), if !self.progress.is_off() => self.look().await,
            }
        }
    }

    /// The first signal asks the job to come to its end, the second one gives it up.
    async fn on_signal(&mut self, signal: Exit) -> Result<(), Failure> {
        let at = self.started.elapsed();
        if let Some((_, asked_at)) = self.asked_to_stop {
            if at - asked_at < ECHO {
                return Ok(());
            }
            return Err(Failure::new(
                signal,
                format!("job `{}` was given up: it had not ended when it was told to stop again", self.handle.job()),
            ));
        }
        self.asked_to_stop = Some((signal, at));
        if self.is_bounded {
            terminal::note("stopping; what is not finished will be removed (again to give up at once)");
            self.handle.cancel().await;
        } else {
            terminal::note("finishing what is on its way (again to give up at once)");
            self.handle.drain().await;
        }
        Ok(())
    }

    async fn look(&mut self) {
        if let Some(status) = self.handle.status().await {
            self.progress.show(&status, self.started.elapsed(), SystemClock.now_ms());
        }
    }

    fn report(&self, outcome: &JobOutcome, arguments: &Arguments) -> Result<Exit, Failure> {
        let (job, took) = (self.handle.job().as_str(), self.started.elapsed());
        match outcome {
            JobOutcome::Finished(done) => {
                if arguments.json {
                    terminal::note(&summary::to_json(job, done, took));
                } else if !arguments.quiet {
                    terminal::note(&summary::to_text(job, done, took));
                }
                Ok(Exit::Done)
            }
            JobOutcome::Failed(error) => Err(failure(job, error)),
            JobOutcome::Cancelled => Err(Failure::new(
                self.asked_to_stop.map_or(Exit::Failed, |(exit, _)| exit),
                format!("job `{job}` was cancelled after {}", summary::duration(took)),
            )),
        }
    }
}

/// Rows on the terminal and a display that is redrawn in place would write over each other.
fn mode(arguments: &Arguments, prints: bool) -> Mode {
    match Mode::choose(arguments.progress, arguments.quiet || arguments.json) {
        Mode::Display if prints && std::io::stdout().is_terminal() => Mode::Off,
        mode => mode,
    }
}

fn failure(job: &str, error: &JobError) -> Failure {
    let place = match (&error.operator, error.subtask) {
        (Some(operator), Some(subtask)) => format!(" in `{operator}` (subtask {})", subtask.0),
        (Some(operator), None) => format!(" in `{operator}`"),
        (None, _) => String::new(),
    };
    let mut failure = Failure::new(Exit::Failed, format!("job `{job}` failed{place}"));
    failure.problems[0].causes = error.causes.clone();
    failure
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
        Failure::new(Exit::Failed, "the directory for state cannot be made").because(&error).fix("name another one with `--state`")
    })
}

/// Where state goes that does not fit into memory.
fn state(scratch: &TempDir) -> StateDirectory {
    StateDirectory { path: scratch.path().to_owned(), shared: Arc::new(RocksShared::new(RocksSharedSettings::default())) }
}

#[expect(clippy::disallowed_methods, reason = "the duration is only shown")]
fn now() -> Instant {
    Instant::now()
}
