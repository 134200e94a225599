//! Stopping a durable job so that the next run goes on from there: a last checkpoint, then, if asked for, a savepoint of it.
//!
//! Two may ask for it: a signal ([`Stops::begin`]) and the control socket ([`Stops::next_request`]). Whoever asks while it is under way gets the same
//! result. A job that could not take its last checkpoint runs on; after a signal it is cancelled, since its checkpoint before holds.

use millstream_engine::run::{CheckpointError, CheckpointReport, JobHandle};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

/// How stopping went; an error: there is no last checkpoint.
pub type Stopped = Result<CheckpointReport, CheckpointError>;

/// A wish to stop, and who waits for the result.
pub struct StopRequest {
    pub answer: oneshot::Sender<Stopped>,
}

/// How a wish to stop ended.
struct Ending {
    stopped: Stopped,
    runs_on: bool,
}

/// Stops one job.
pub struct Stops {
    handle: JobHandle,
    requests: mpsc::Receiver<StopRequest>,
    stopping: Option<JoinHandle<Ending>>,
    waiting: Vec<oneshot::Sender<Stopped>>,
}

impl Stops {
    pub fn new(handle: JobHandle, requests: mpsc::Receiver<StopRequest>) -> Self {
        Self { handle, requests, stopping: None, waiting: Vec::new() }
    }

    /// Begins to stop the job, unless that has begun. A job that cannot take a last checkpoint is cancelled.
    pub fn begin(&mut self) {
        self.stop(true);
    }

    /// Returns when a request was heard, or answered. Cancel-safe.
    pub async fn next_request(&mut self) -> Heard {
        tokio::select! {
            Some(StopRequest { answer }) = self.requests.recv() => {
                self.waiting.push(answer);
                self.stop(false);
                Heard::Begun
            }
            Ending { stopped, runs_on } = ended(&mut self.stopping), if self.stopping.is_some() => {
                self.stopping = None;
                self.answer(&stopped);
                if runs_on { Heard::RunsOn } else { Heard::Stops }
            }
            else => std::future::pending().await,
        }
    }

    /// Tells everybody who waits.
    fn answer(&mut self, stopped: &Stopped) {
        for answer in self.waiting.drain(..) {
            // Who asked may have left.
            let _told = answer.send(stopped.clone());
        }
    }

    /// The job has ended: whoever still waits is told how.
    pub async fn finish(&mut self) {
        if let Some(stopping) = self.stopping.take() {
            let ending = stopping.await.expect("stopping does not panic and is not cancelled");
            self.answer(&ending.stopped);
        }
    }

    fn stop(&mut self, or_cancel: bool) {
        if self.stopping.is_none() {
            self.stopping = Some(tokio::spawn(stop(self.handle.clone(), or_cancel)));
        }
    }
}

/// What became of a wish to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is being carried out.
    Begun,
    /// The job comes to its end, or has: behind its last checkpoint, or without one.
    Stops,
    /// There is no last checkpoint; the job runs on.
    RunsOn,
}

async fn stop(handle: JobHandle, or_cancel: bool) -> Ending {
    let stopped = handle.stop().await;
    let runs_on = match &stopped {
        // A job that waits to try again has nothing to keep, and ends at once.
        Ok(_) | Err(CheckpointError::Ended) => false,
        Err(_) if or_cancel => {
            handle.cancel().await;
            false
        }
        Err(_) => true,
    };
    Ending { stopped, runs_on }
}

async fn ended(stopping: &mut Option<JoinHandle<Ending>>) -> Ending {
    match stopping {
        Some(stopping) => stopping.await.expect("stopping does not panic and is not cancelled"),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_schema::Schema;
    use millstream_engine::{
        operator::OutputPort,
        run::{JobOutcome, RunSettings, start},
        testing::{DiscardSink, FedSource, JobBuilder},
    };

    use super::*;

    /// A job that waits for rows, and cannot take checkpoints.
    fn running() -> JobHandle {
        let mut job = JobBuilder::new();
        let rows = job.source("rows", FedSource::new(Arc::new(Schema::empty())), None, 1);
        job.sink("out", DiscardSink, rows, OutputPort::Port(0), 1);
        start(job.build(), RunSettings::new())
    }

    #[tokio::test]
    async fn a_job_that_has_ended_without_a_last_checkpoint_does_not_run_on() {
        let handle = running();
        handle.cancel().await;
        handle.wait().await;
        let (_send, requests) = mpsc::channel(1);
        let mut stops = Stops::new(handle, requests);
        stops.begin();
        assert_eq!(stops.next_request().await, Heard::Stops);
    }

    #[tokio::test]
    async fn a_job_without_a_last_checkpoint_is_cancelled_by_a_signal_and_runs_on_after_a_request() {
        let handle = running();
        let (send, requests) = mpsc::channel(1);
        let mut stops = Stops::new(handle.clone(), requests);
        let (answer, answered) = oneshot::channel();
        assert!(send.send(StopRequest { answer }).await.is_ok());
        assert_eq!((stops.next_request().await, stops.next_request().await), (Heard::Begun, Heard::RunsOn));
        assert!(matches!(answered.await, Ok(Err(CheckpointError::Ephemeral))));
        stops.begin();
        assert_eq!(stops.next_request().await, Heard::Stops);
        assert!(matches!(handle.wait().await.as_ref(), JobOutcome::Cancelled));
    }
}
