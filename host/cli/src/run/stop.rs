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

/// Stops one job.
pub struct Stops {
    handle: JobHandle,
    requests: mpsc::Receiver<StopRequest>,
    stopping: Option<JoinHandle<Stopped>>,
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
            stopped = ended(&mut self.stopping), if self.stopping.is_some() => {
                self.stopping = None;
                self.answer(&stopped);
                if stopped.is_ok() { Heard::Stopped } else { Heard::RunsOn }
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
            let stopped = stopping.await.expect("stopping does not panic and is not cancelled");
            self.answer(&stopped);
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
    /// The job stops behind its last checkpoint.
    Stopped,
    /// There is no last checkpoint; the job runs on.
    RunsOn,
}

async fn stop(handle: JobHandle, or_cancel: bool) -> Stopped {
    let stopped = handle.stop().await;
    if stopped.is_err() && or_cancel {
        handle.cancel().await;
    }
    stopped
}

async fn ended(stopping: &mut Option<JoinHandle<Stopped>>) -> Stopped {
    match stopping {
        Some(stopping) => stopping.await.expect("stopping does not panic and is not cancelled"),
        None => std::future::pending().await,
    }
}
