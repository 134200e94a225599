//! `http`: POSTs rows in batches, as NDJSON ([`crate::formats::ndjson`]; a changelog gets the column `op` in front).
//!
//! Any 2xx takes a batch. Failures to connect, timeouts, 408, 425, 429 and 5xx are tried again, after 100 ms, then twice as long each time up to 10 s,
//! or as long as `Retry-After` says (at most a minute); other answers, and the last failed try, end the job with the answer in the error. Every
//! batch carries an `Idempotency-Key` (job, sink, writer, checkpoint, number of the batch since that checkpoint, hash of the body) that its
//! repetitions share, so a receiver can tell a repetition from new rows. Delivery is at least once: everything before a barrier is acknowledged
//! before the checkpoint may count it, and after a failure the rows since the last checkpoint are posted again. They have the keys that they had
//! where the batches are cut as they were, which the hash makes sure of; batches that `flush` cuts by time rarely are. Redirects are not followed.

mod settings;
mod sink;

pub use settings::Settings;
pub use sink::Http;

#[cfg(test)]
mod tests;
