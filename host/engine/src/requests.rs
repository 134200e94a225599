//! Requests that components send over HTTP, where the job grants it.
//!
//! A guest hands over a batch of requests (`millstream_wasm::http`) → [`Granted`], which belongs to one subtask, sends at most as many at once as the
//! operator may ([`Grant`], shared by its subtasks), repeats what may be repeated ([`repeat`]) and gives the answers back in order → a [`Client`], which is
//! passed in, sends one request once. Nobody waits longer than the job says, by the job's clock.
//!
//! Nothing is remembered: a call that is repeated after a failure sends its requests again.

mod repeat;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use futures::{StreamExt as _, stream};
use millstream_wasm::http::{Answer, Budget, Call, Failure, Request, Response, Sender, UsedUp};
use tokio::sync::Semaphore;

use crate::{
    clock::Clock,
    metrics::{OperatorMetrics, Waiting},
    operator::OperatorContext,
    spec::HttpSettings,
};
use repeat::{Attempt, Next};

/// Sends one request once: follows redirects, takes the answer whole, and connects only where whoever runs the job allows it.
#[async_trait]
pub trait Client: Send + Sync {
    /// The answer, whatever its status. Dropping the future gives up.
    ///
    /// # Errors
    /// There is none.
    async fn send(&self, request: &Request, room: Room<'_>) -> Result<Response, Failed>;
}

/// How much room there is for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Room<'a> {
    /// Most bytes that it may have, its headers included.
    pub bytes_max: u64,
    /// What answers that come at the same time may have together.
    pub together: &'a Budget,
}

/// Why a try has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// It is not allowed, or is no request; one clause.
    Refused(String),
    /// There was no connection, so nothing was sent; one clause.
    Unconnected(String),
    /// The connection broke; nobody knows what became of the request. One clause.
    Broken(String),
    /// It took too long.
    TimedOut,
    /// The answer is too large.
    TooLarge,
    /// All answers together are.
    UsedUp,
}

/// What an operator may do over HTTP; its subtasks and versions share it.
pub struct Grant {
    settings: HttpSettings,
    client: Arc<dyn Client>,
    at_once: Semaphore,
}

impl Grant {
    /// As the job says.
    pub fn new(settings: HttpSettings, client: Arc<dyn Client>) -> Self {
        Self { at_once: Semaphore::new(settings.concurrency.get() as usize), settings, client }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Grant").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The requests of one subtask.
pub(crate) struct Granted {
    grant: Arc<Grant>,
    clock: Arc<dyn Clock>,
    metrics: Arc<OperatorMetrics>,
    /// What waits before repetitions are spread by.
    spread: AtomicU64,
}

impl Granted {
    /// For the subtask of this operator.
    pub(crate) fn new(grant: Arc<Grant>, context: &OperatorContext) -> Self {
        // Each begins elsewhere, so that they do not come back all at once.
        let spread = AtomicU64::new(u64::from(context.subtask.0) << 32);
        Self { grant, clock: context.clock.clone(), metrics: context.metrics.clone(), spread }
    }

    /// Sends a request until it has an answer that counts.
    async fn answer(&self, request: &Request, until_ms: i64, together: &Budget) -> Result<Answer, UsedUp> {
        let settings = &self.grant.settings;
        let mut number = 1;
        loop {
            let tried = self.try_once(request, until_ms, together).await;
            let attempt = Attempt { method: &request.method, number, tries: settings.tries.get(), tried: &tried };
            let Next::After(wait_ms) = repeat::next(&attempt, self.spread.fetch_add(1, Ordering::Relaxed)) else {
                return answer_of(tried);
            };
            let again_ms = self.clock.monotonic_ms().saturating_add(wait_ms);
            // What would come too late is not waited for: there is an answer, if not a good one.
            if again_ms >= until_ms {
                return answer_of(tried);
            }
            self.clock.sleep_until_monotonic(again_ms).await;
            number += 1;
        }
    }

    async fn try_once(&self, request: &Request, until_ms: i64, together: &Budget) -> Result<Response, Failed> {
        let settings = &self.grant.settings;
        let _permit = tokio::select! {
            biased;
            permit = self.grant.at_once.acquire() => permit.expect("it is never closed"),
            () = self.clock.sleep_until_monotonic(until_ms) => return Err(Failed::TimedOut),
        };
        let now_ms = self.clock.monotonic_ms();
        if now_ms >= until_ms {
            return Err(Failed::TimedOut);
        }
        let late_ms = until_ms.min(now_ms.saturating_add(settings.timeout.as_ms()));
        let room = Room { bytes_max: settings.response_bytes_max.as_bytes() as u64, together };
        let tried = tokio::select! {
            biased;
            tried = self.grant.client.send(request, room) => tried,
            () = self.clock.sleep_until_monotonic(late_ms) => Err(Failed::TimedOut),
        };
        self.count(request, &tried);
        tried
    }

    fn count(&self, request: &Request, tried: &Result<Response, Failed>) {
        if !matches!(tried, Err(Failed::Refused(_) | Failed::Unconnected(_))) {
            self.metrics.requests.add(1);
            self.metrics.request_bytes.add(bytes_of(request));
        }
        if let Ok(response) = tried {
            self.metrics.answer_bytes.add(response.body.len() as u64);
        }
    }
}

/// What goes over the wire, about: the line, the headers and the body.
fn bytes_of(Request { method, url, headers, body }: &Request) -> u64 {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    (method.len() + url.len() + headers + body.len()) as u64
}

fn answer_of(tried: Result<Response, Failed>) -> Result<Answer, UsedUp> {
    let failure = match tried {
        Ok(response) => return Ok(Ok(response)),
        Err(Failed::UsedUp) => return Err(UsedUp),
        Err(Failed::TimedOut) => Failure::Timeout,
        Err(Failed::TooLarge) => Failure::TooLarge,
        Err(Failed::Refused(reason)) => Failure::Refused(reason),
        Err(Failed::Unconnected(reason) | Failed::Broken(reason)) => Failure::Unreachable(reason),
    };
    Ok(Err(failure))
}

/// Shown for as long as it lives, also when the wait is given up.
struct Shown<'a>(&'a OperatorMetrics);

impl<'a> Shown<'a> {
    fn new(metrics: &'a OperatorMetrics, since_ms: i64, requests: usize) -> Self {
        metrics.waits.begin(since_ms, Waiting::Answers { requests });
        Self(metrics)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        self.0.waits.end();
    }
}

#[async_trait]
impl Sender for Granted {
    async fn send(&self, requests: Vec<Request>, call: &mut Call) -> Result<Vec<Answer>, UsedUp> {
        let began_ms = self.clock.monotonic_ms();
        let _shown = Shown::new(&self.metrics, began_ms, requests.len());
        let until_ms = began_ms.saturating_add(self.grant.settings.call_timeout.as_ms().saturating_sub(call.waited_ms));
        let together = &call.bytes;
        let all = requests.as_slice();
        let asked = (0..all.len()).map(|number| async move { (number, self.answer(&all[number], until_ms, together).await) });
        // No more than may be sent are begun, so that the requests of other subtasks come in between.
        let mut answered = stream::iter(asked).buffer_unordered(self.grant.settings.concurrency.get() as usize);
        let mut answers: Vec<Option<Answer>> = vec![None; requests.len()];
        while let Some((number, answer)) = answered.next().await {
            answers[number] = Some(answer?);
        }
        drop(answered);
        let waited_ms = self.clock.monotonic_ms().saturating_sub(began_ms);
        call.waited_ms = call.waited_ms.saturating_add(waited_ms);
        self.metrics.retrying_ns.add(u64::try_from(waited_ms).unwrap_or(0).saturating_mul(1_000_000));
        Ok(answers.into_iter().map(|answer| answer.expect("every request has its answer")).collect())
    }
}
