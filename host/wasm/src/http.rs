//! Requests of guests over HTTP: what is asked, what comes back, and what stands in front of the network ([`Sender`]). Which operator has one, and where its
//! requests may go, is decided outside; a guest without one is told so, and its call fails.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use crate::{bindings::millstream::operator::http as raw, limits::Limits};

/// What a guest asks for. Nothing in it was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// As GET.
    pub method: String,
    /// Where to.
    pub url: String,
    /// Name and value, in order; a name may repeat.
    pub headers: Vec<(String, String)>,
    /// The body; empty: none.
    pub body: Vec<u8>,
}

/// An answer, whatever its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// As 200.
    pub status: u16,
    /// Name (in lower case) and value, in order; a name may repeat.
    pub headers: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is not sent, or not to where a redirect led, and never will be; one clause.
    Refused(String),
    /// No whole answer came; one clause.
    Unreachable(String),
    /// Not in time.
    Timeout,
    /// The answer has more bytes than it may.
    TooLarge,
}

/// What became of one request.
pub type Answer = Result<Response, Failure>;

/// What one call of a guest has left.
#[derive(Debug)]
pub struct Call {
    /// How long it has waited for answers, in ms.
    pub waited_ms: i64,
    /// Requests that it may still send.
    pub(crate) left: u32,
    /// Bytes that its answers may still have.
    pub bytes: Budget,
}

impl Call {
    /// A call that has sent nothing yet.
    pub fn new(limits: &Limits) -> Self {
        Self { waited_ms: 0, left: limits.requests_per_call, bytes: Budget::of(limits.answer_bytes_per_call) }
    }
}

/// Bytes that answers may still have, those that come at the same time together.
#[derive(Debug)]
pub struct Budget(AtomicU64);

impl Budget {
    /// So many.
    pub fn of(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// Takes so many bytes; false: there are not so many left, and nothing was taken.
    #[must_use]
    pub fn take(&self, bytes: u64) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes)).is_ok()
    }
}

/// The answers of one call have more bytes than all of them may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answers have more bytes than one call may take")]
pub struct UsedUp;

/// One call sends more requests than it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("one call sends no more requests")]
pub(crate) struct TooMany;

/// Sends the requests of a guest, and waits for their answers.
#[async_trait]
pub trait Sender: Send + Sync {
    /// The answers in the order of the requests. `call`: the one that asks, which may have asked before.
    ///
    /// # Errors
    /// All answers together are too large.
    async fn send(&self, requests: Vec<Request>, call: &mut Call) -> Result<Vec<Answer>, UsedUp>;
}

impl From<raw::Request> for Request {
    fn from(raw::Request { method, url, headers, body }: raw::Request) -> Self {
        Self { method, url, headers, body }
    }
}

/// As it goes to the guest.
pub(crate) fn lower(answer: Answer) -> Result<raw::Response, raw::Failure> {
    match answer {
        Ok(Response { status, headers, body }) => Ok(raw::Response { status, headers, body }),
        Err(Failure::Refused(reason)) => Err(raw::Failure::Refused(reason)),
        Err(Failure::Unreachable(reason)) => Err(raw::Failure::Unreachable(reason)),
        Err(Failure::Timeout) => Err(raw::Failure::Timeout),
        Err(Failure::TooLarge) => Err(raw::Failure::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_a_budget_takes_nothing_of_it() {
        let budget = Budget::of(10);
        assert!(budget.take(7) && !budget.take(4) && budget.take(3) && budget.take(0) && !budget.take(1));
    }
}
