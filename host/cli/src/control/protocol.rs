//! What goes over the control socket: one JSON object per line, each request answered by one line, in order.
//!
//! ```text
//! > {"command":"checkpoint"}
//! < {"result":{"checkpoint":18,"bytes-new":40960, …}}
//! > {"command":"checkpont"}
//! < {"error":{"kind":"invalid","message":"…","causes":[…]}}
//! ```
//! A line is at most [`LINE_BYTES_MAX`] long with its end. A reader ignores keys of an answer that it does not know; a request with unknown keys
//! is refused, since what was asked for would not be done.

use std::fmt;

use millstream_engine::run::JobStatus;
use millstream_model::ErrorKind;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};

/// Longest request, in bytes.
pub const LINE_BYTES_MAX: usize = 64 << 10;
/// Longest answer that a client takes, in bytes: the history of checkpoints and the counters of the largest job.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;

/// What may be asked of a running job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// What it does now: [`Status`].
    Status {},
    /// A checkpoint, now: [`millstream_engine::run::CheckpointReport`] when it is committed.
    Checkpoint {},
    /// A checkpoint, now, and a copy of it in the job directory as a savepoint with this name: [`crate::kept::Facts`] when that is whole. The
    /// process makes the copy, since it knows what it must not remove meanwhile.
    Savepoint { name: String },
    /// The last checkpoints, oldest first.
    Checkpoints {},
    /// A last checkpoint, then the end; the next run goes on from there.
    Stop {},
}

/// What a running job does, and where.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// The process.
    pub pid: u32,
    /// The job.
    pub status: JobStatus,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was done.
    Result(Value),
    /// It was not.
    Error(Refusal),
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What the caller may do about it: `invalid`, `not-found`, `conflict`, `unavailable`, `corrupt`, `guest`, `internal`.
    pub kind: ErrorKind,
    /// One clause.
    pub message: String,
    /// What it is due to, nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// How to put it right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

impl Refusal {
    /// A refusal without causes.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), fix: None }
    }

    /// An error and its causes.
    pub fn of(kind: ErrorKind, error: &(dyn std::error::Error + 'static)) -> Self {
        let causes = std::iter::successors(error.source(), |cause| cause.source()).map(ToString::to_string).collect();
        Self { kind, message: error.to_string(), causes, fix: None }
    }
}

impl Answer {
    /// What was done, as data.
    pub fn done(result: &impl Serialize) -> Self {
        match serde_json::to_value(result) {
            Ok(value) => Self::Result(value),
            Err(error) => Self::Error(Refusal::new(ErrorKind::Internal, error.to_string())),
        }
    }

    /// The line that says it, with its end.
    pub fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }
}

impl Request {
    /// The line that says it, with its end.
    pub fn to_line(&self) -> Vec<u8> {
        to_line(self)
    }

    /// The request in a line.
    pub fn parse(line: &[u8]) -> Result<Self, Refusal> {
        parse(line).map_err(|error| Refusal::new(ErrorKind::Invalid, format!("the request is not understood: {error}")))
    }
}

/// A message in a line of JSON.
pub fn parse<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<T> {
    serde_json::from_slice(line)
}

fn to_line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("messages have string keys only");
    line.push(b'\n');
    line
}

/// Why a line could not be read.
#[derive(Debug)]
pub enum LineError {
    /// It is longer than allowed; the rest of it was not read.
    TooLong,
    /// The connection broke.
    Io(std::io::Error),
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("the line is too long"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// The next line without its end; none: the other side has closed. Reads at most `bytes_max` bytes of it.
pub async fn read_line(from: &mut (impl AsyncBufRead + Unpin), bytes_max: usize) -> Result<Option<Vec<u8>>, LineError> {
    let mut line = Vec::new();
    let limit = u64::try_from(bytes_max).unwrap_or(u64::MAX);
    from.take(limit).read_until(b'\n', &mut line).await.map_err(LineError::Io)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() + 1 == bytes_max => Err(LineError::TooLong),
        // The last line may lack its end.
        Some(last) => {
            line.push(last);
            Ok(Some(line))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_lines_of_json() {
        assert_eq!(Request::Stop {}.to_line(), b"{\"command\":\"stop\"}\n");
        assert_eq!(Request::parse(b"{\"command\":\"status\"}"), Ok(Request::Status {}));
    }

    #[test]
    fn what_is_not_understood_is_refused_and_not_half_done() {
        for line in [&b""[..], b"{", b"[]", b"{\"command\":\"stopp\"}", b"\xff\xfe", b"{\"command\":\"status\",\"x\":1}"] {
            let refusal = Request::parse(line).unwrap_err();
            assert_eq!(refusal.kind, ErrorKind::Invalid, "{refusal:?}");
        }
    }

    #[tokio::test]
    async fn a_line_ends_at_its_limit() {
        let mut input = &b"ab\nabc\nabcd\n"[..];
        assert_eq!(read_line(&mut input, 4).await.unwrap(), Some(b"ab".to_vec()));
        assert_eq!(read_line(&mut input, 4).await.unwrap(), Some(b"abc".to_vec()));
        assert!(matches!(read_line(&mut input, 4).await, Err(LineError::TooLong)));
    }

    #[tokio::test]
    async fn the_last_line_may_lack_its_end() {
        let mut input = &b"ab"[..];
        assert_eq!(read_line(&mut input, 9).await.unwrap(), Some(b"ab".to_vec()));
        assert_eq!(read_line(&mut input, 9).await.unwrap(), None);
    }
}
