//! What a running job answers: requests carried out through its handle.

use millstream_engine::run::{CheckpointError, JobHandle};
use millstream_model::ErrorKind;
use tokio::sync::{mpsc, oneshot};

use millstream_server::{
    failure::Failure,
    place::{Owner, Place},
    savepoint,
};

use super::{
    protocol::{Answer, Refusal, Request, Status},
    server::Respond,
};
use crate::run::StopRequest;

/// Answers for one job.
pub struct Responder {
    place: Place,
    owner: Owner,
    handle: JobHandle,
    /// Whoever watches the job stops it, so that a signal and a request do the same.
    stops: mpsc::Sender<StopRequest>,
}

impl Responder {
    /// For the job of `handle`, which runs in `place`.
    pub fn new(place: Place, owner: Owner, handle: JobHandle, stops: mpsc::Sender<StopRequest>) -> Self {
        Self { place, owner, handle, stops }
    }

    async fn savepoint(&self, name: &str) -> Answer {
        match savepoint::of_running(&self.place, &self.owner, &self.handle, name).await {
            Ok(facts) => Answer::done(&facts),
            Err(failure) => Answer::Error(failure.into()),
        }
    }

    async fn status(&self) -> Answer {
        match self.handle.status().await {
            Some(status) => Answer::done(&Status { pid: std::process::id(), status }),
            None => ended(),
        }
    }

    async fn stop(&self) -> Answer {
        let (answer, stopped) = oneshot::channel();
        if self.stops.send(StopRequest { answer }).await.is_err() {
            return ended();
        }
        match stopped.await {
            Ok(Ok(report)) => Answer::done(&report),
            Ok(Err(error)) => refused(&error),
            Err(_) => ended(),
        }
    }
}

impl Respond for Responder {
    async fn respond(&self, request: Request) -> Answer {
        match request {
            Request::Status {} => self.status().await,
            Request::Checkpoint {} => match self.handle.checkpoint().await {
                Ok(report) => Answer::done(&report),
                Err(error) => refused(&error),
            },
            Request::Savepoint { name } => self.savepoint(&name).await,
            Request::Checkpoints {} => Answer::done(&self.handle.checkpoints().await),
            Request::Stop {} => self.stop().await,
        }
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let kind = failure.kind;
        let problem = failure.problems.into_iter().next().expect("a failure has at least one problem");
        Self { causes: problem.causes, fix: problem.fix, ..Self::new(kind, problem.message) }
    }
}

fn refused(error: &CheckpointError) -> Answer {
    Answer::Error(Refusal::of(error.kind(), error))
}

fn ended() -> Answer {
    Answer::Error(Refusal::new(ErrorKind::Conflict, "the job has ended"))
}
