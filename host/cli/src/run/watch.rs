//! A job that runs, and what is shown of it: progress while it runs, signals turned into commands, its outcome as a summary or a failure.
//!
//! An ephemeral job is told to cancel or to drain. A durable one is stopped so that the next run goes on from there: [`super::stop`].

use std::{path::Path, sync::Arc, time::Duration};

use millstream_engine::{
    clock::{Clock, SystemClock},
    operator::Fault,
    run::{JobError, JobHandle, JobOutcome, JobStage},
};
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Arguments,
    durable::UNREADABLE_FIX,
    stop::{Heard, Stops},
};
use crate::{
    progress::{self, Progress},
    report::{Exit, Failure},
    signals::Signals,
    summary,
    terminal::{self, STRONG},
};

/// A signal so soon after the first one is the same once more: timeout(1) sends it to the process and to its group.
const ECHO: Duration = Duration::from_millis(200);

/// A job that runs, and what is shown of it.
pub struct Watch {
    handle: JobHandle,
    /// Its input ends by itself.
    is_bounded: bool,
    progress: Progress,
    started: Instant,
    /// The first signal that was heard: the exit code it leads to, and when since the start.
    asked_to_stop: Option<(Exit, Duration)>,
    /// How a durable job is stopped; none: it is ephemeral.
    stops: Option<Stops>,
}

impl Watch {
    pub fn new(handle: JobHandle, is_bounded: bool, progress: Progress, stops: Option<Stops>) -> Self {
        Self { handle, is_bounded, progress, started: now(), asked_to_stop: None, stops }
    }

    /// Shows progress and hears signals until the job has ended.
    pub async fn until_ended(&mut self, signals: &mut Signals) -> Result<Arc<JobOutcome>, Failure> {
        let handle = self.handle.clone();
        let mut ended = std::pin::pin!(handle.wait());
        let mut looks = tokio::time::interval_at(self.started + progress::INTERVAL, progress::INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            tokio::select! {
                biased;
                outcome = &mut ended => break outcome,
                signal = signals.next() => self.on_signal(signal).await?,
                heard = next_request(&mut self.stops) => self.on_heard(heard),
                _ = looks.tick(), if !self.progress.is_off() => self.look().await,
            }
        };
        self.progress.clear();
        if let Some(stops) = &mut self.stops {
            stops.finish().await;
        }
        Ok(outcome)
    }

    /// Somebody else asked the job to stop.
    fn on_heard(&mut self, heard: Heard) {
        match heard {
            Heard::Begun => self.asked_to_stop = self.asked_to_stop.or(Some((Exit::Interrupted, self.started.elapsed()))),
            Heard::Stops => {}
            Heard::RunsOn => self.asked_to_stop = None,
        }
    }

    /// The first signal asks the job to come to its end, the second one gives it up.
    async fn on_signal(&mut self, signal: Exit) -> Result<(), Failure> {
        let at = self.started.elapsed();
        if let Some((_, asked_at)) = self.asked_to_stop {
            return if at - asked_at < ECHO { Ok(()) } else { Err(self.given_up(signal)) };
        }
        self.asked_to_stop = Some((signal, at));
        if let Some(stops) = &mut self.stops {
            terminal::note("taking a last checkpoint (again to give up at once)");
            stops.begin();
        } else if self.is_bounded {
            terminal::note("stopping; what is not finished will be removed (again to give up at once)");
            self.handle.cancel().await;
        } else {
            terminal::note("finishing what is on its way (again to give up at once)");
            self.handle.drain().await;
        }
        Ok(())
    }

    fn given_up(&self, signal: Exit) -> Failure {
        let message = format!("job `{}` was given up: it had not ended when it was told to stop again", self.handle.job());
        Failure::new(signal, message)
    }

    async fn look(&mut self) {
        if let Some(status) = self.handle.status().await {
            self.progress.show(&status, self.started.elapsed(), SystemClock.now_ms());
        }
    }

    /// What became of a job, as an exit code and for people.
    pub fn report(&self, outcome: &JobOutcome, arguments: &Arguments) -> Result<Exit, Failure> {
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
            JobOutcome::Failed(error) => Err(failure(job, error, arguments.state.as_deref())),
            JobOutcome::Stopped(last) => {
                if arguments.json {
                    terminal::note(&serde_json::json!({ "job": job, "outcome": "stopped", "checkpoint": last }).to_string());
                } else if !arguments.quiet {
                    let size = terminal::size(last.bytes_total);
                    terminal::note(&format!(
                        "{STRONG}{job}{STRONG:#} stopped at checkpoint {} ({size}); run the same command again to go on from there",
                        last.checkpoint.0
                    ));
                }
                Ok(if self.is_bounded { self.exit_when_stopped() } else { Exit::Done })
            }
            JobOutcome::FinishedBefore { checkpoint, at_ms } => {
                if arguments.json {
                    terminal::note(&serde_json::json!({ "job": job, "outcome": "already-finished", "checkpoint": checkpoint }).to_string());
                } else if !arguments.quiet {
                    let at = terminal::time(*at_ms);
                    terminal::note(&format!(
                        "{STRONG}{job}{STRONG:#} has already finished, with checkpoint {} of {at}; --fresh starts it over",
                        checkpoint.0
                    ));
                }
                Ok(Exit::Done)
            }
            JobOutcome::Cancelled => {
                Err(Failure::new(self.exit_when_stopped(), format!("job `{job}` was cancelled after {}", summary::duration(took))))
            }
        }
    }

    /// The exit code of a job that was stopped before its end.
    fn exit_when_stopped(&self) -> Exit {
        self.asked_to_stop.map_or(Exit::Failed, |(exit, _)| exit)
    }
}

/// What becomes of the wishes of others to stop the job; nothing ever, if nobody can wish.
async fn next_request(stops: &mut Option<Stops>) -> Heard {
    match stops {
        Some(stops) => stops.next_request().await,
        None => std::future::pending().await,
    }
}

/// `directory`: where it keeps its checkpoints.
fn failure(job: &str, error: &JobError, directory: Option<&Path>) -> Failure {
    let place = match (&error.operator, error.subtask) {
        (Some(operator), Some(subtask)) => format!(" in `{operator}` (subtask {})", subtask.0),
        (Some(operator), None) => format!(" in `{operator}`"),
        (None, _) => String::new(),
    };
    // Nothing was touched, so it is the component (or the rest of the job file) that is wrong.
    let is_upgrade = error.stage == JobStage::Restoring && error.fault == Fault::User;
    let mut failure = if is_upgrade {
        Failure::new(Exit::Invalid, format!("job `{job}` cannot go on{place} from what is kept")).fix(UNREADABLE_FIX)
    } else {
        let failure = Failure::new(Exit::Failed, format!("job `{job}` failed{place}"));
        let fix = |directory: &Path| {
            format!(
                "mend the cause and run the same command again: the job goes on from its last checkpoint; `millstream checkpoint list {}` shows older ones",
                directory.display()
            )
        };
        match directory {
            Some(directory) => failure.fix(fix(directory)),
            None => failure,
        }
    };
    failure.told.problems[0].causes = error.causes.clone();
    failure
}

#[expect(clippy::disallowed_methods, reason = "the duration is only shown")]
fn now() -> Instant {
    Instant::now()
}
