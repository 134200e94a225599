//! Topics of Apache Kafka, through librdkafka: the only module to name rdkafka.
//!
//! [`connection`] says how a cluster is reached, [`settings`] what a user may write; [`source`] reads topics, [`sink`] writes them, [`topics`] asks
//! about topics and makes them; [`registry`] knows schemas of values. The sinks of a job that write exactly once share one `transaction`, which holds
//! the commit record as well; the record lies in the `commit_topic`, and `lost_ends` writes what brokers forget. What the client library complains about goes through [`client`]. [`inspect`] and
//! [`produce`] are for people who look at topics, and fill them, without a job.
//!
//! No property of librdkafka can be passed through, and nothing on the way of a row waits for the library: what blocks runs on threads that may.

pub mod client;
mod commit_topic;
pub mod connection;
pub mod inspect;
mod lag;
mod lost_ends;
pub mod produce;
mod producer;
pub mod registry;
pub mod settings;
pub mod sink;
pub mod source;
#[cfg(test)]
mod tests;
pub mod topics;
mod transaction;

pub use connection::Machine;
pub use sink::KafkaSink;
pub use source::KafkaSource;

/// The key in the job file.
const NAME: &str = "kafka";
/// What the names of commit topics begin with; no pattern of a source matches them.
const COMMIT_TOPICS: &str = "millstream.commits.";
