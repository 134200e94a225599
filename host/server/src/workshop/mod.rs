//! Where the jobs of one tenant run: a *workshop*. The service decides and writes down ([`crate::jobs`]); a workshop plans, runs and reads, and knows of
//! no other tenant. Code of the tenant runs nowhere else (but where a component is compiled, [`crate::components::compile`]).
//!
//! Everything that is asked of a workshop is a [`Request`], plain data, and its answer is plain data too, so a workshop may be [`Inside`] this process or
//! behind a wall, in a *runner* ([`remote`]): a process of its own, which is an [`Inside`] that is asked through a socket ([`child`]). The path is the same;
//! only who carries the question differs.
//!
//! ```text
//! jobs ── Request ──> Workshop ┬─ Inside                                       --isolation none
//!                              └─ Remote ── wire ──> child ── Inside           --isolation process
//! ```
//!
//! A workshop never asks back. What it has to tell (a job has ended, a log line) it tells when it is asked for [`Request::News`], which waits. So whoever
//! asks sets the pace, and a workshop that floods is read no faster.
//!
//! The words of a request's way: a [`Recipe`] (a version with its secrets and digests) → *prepared* (planned, under a number, in the workshop) → a *run*.

mod afresh;
pub mod child;
mod inside;
pub mod library;
mod look;
pub mod message;
pub mod remote;
mod runs;
mod secrets;
mod swap;
mod wire;

use async_trait::async_trait;
use millstream_model::{ErrorKind, ids::TenantId};
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use inside::{Inside, Means};
pub use message::{Ended, News, Prepared, Recipe, Request, TailEvents, WantedSwap, WantedTrial};

use crate::failure::Failure;

/// Where the jobs of one tenant run.
#[async_trait]
pub trait Workshop: Send + Sync + 'static {
    /// Carries a request out. What is begun is finished, even if nobody waits for the answer any more.
    ///
    /// # Errors
    /// It cannot be carried out, or the workshop is gone.
    async fn ask(&self, request: Request) -> Result<Value, Failure>;

    /// It has ended, with everything that ran in it: nothing more is answered.
    fn is_gone(&self) -> bool;

    /// The process that it is; none: it is in this one, or has ended.
    fn process(&self) -> Option<u32>;

    /// Ends it, where it is a process of its own; in this process there is nothing to end but its runs.
    fn end(&self);
}

/// What is said of everything that was asked of a runner and not answered when it ended.
pub fn lost(tenant: &TenantId) -> Failure {
    Failure::new(ErrorKind::Unavailable, format!("the runner of tenant `{tenant}` has ended"))
        .fix("its jobs go on from their last checkpoints by themselves; ask again in a moment")
}

impl dyn Workshop {
    /// Carries a request out, and reads the answer. What comes from a runner is not trusted to be an answer.
    ///
    /// # Errors
    /// It cannot be carried out, the workshop is gone, or the answer is none.
    pub async fn answer<T: DeserializeOwned>(&self, request: Request) -> Result<T, Failure> {
        let answer = self.ask(request).await?;
        serde_json::from_value(answer)
            .map_err(|error| Failure::new(ErrorKind::Internal, "the runner's answer is not understood").because(&error))
    }
}
