//! `http-push`: programs POST NDJSON to this process.
//!
//! A request is taken whole or not at all. *202*: every line was read and waits in the bounded queue of the source (`{"accepted": n}`). *400*: a
//! line cannot be read; the answer (RFC 9457) names the lines, from 1, and nothing was taken. *429* with `Retry-After`: the queue had no room for a
//! while. *413*: the body is larger than it may be. *503*: the job is draining. The memory of bodies, queue included, is bounded by `queue-bytes`:
//! room is reserved before a body is read.
//!
//! The columns are declared in the job file; lines are read as [`crate::formats::ndjson`] says. One split, whose positions count the rows taken from 0.
//!
//! *In a durable run* a request is answered with *200* once it is in the log of the source and synced; requests that come meanwhile share the
//! next sync. What was answered with 200 is counted exactly once, whatever crashes: a run reads the log again from the position of its
//! checkpoint, and segments before that of a committed one are removed. If the log cannot be written, the answer is *503* and the job restarts.
//! *Otherwise* what waits in the queue is in memory only: it survives a drain, not a crash, and rows count at most once.
//!
//! The server listens on the loopback interface unless told otherwise, and knows no authentication: put a proxy in front of it before it is
//! reachable by others.

mod decode;
mod journal;
mod log;
mod queue;
mod server;
mod settings;
mod source;

pub use settings::Settings;
pub use source::HttpPush;

#[cfg(test)]
mod tests;
