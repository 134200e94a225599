//! Topic to topic, on a real broker that runs on this machine beside what is measured: [`throughput`] against a bare copy loop and per second of
//! CPU, [`latency`] from the moment when a record was due at its producer until a consumer of the output has it.
//!
//! Whoever fills and reads the topics ([`clients`]) uses the client library alone, with the settings that the sinks and sources of a job have.

mod clients;
mod latency;
mod throughput;

use std::{num::NonZeroU32, path::Path, sync::Arc};

use millstream_engine::graph::JobPlan;
use tempfile::TempDir;

use self::clients::Cluster;
use crate::{figures::Figure, guests::Guests, jobs};

/// The parts that can be measured alone.
pub const PARTS: [&str; 2] = ["kafka-throughput", "kafka-latency"];

/// The figures of one part.
///
/// # Errors
/// The broker does not start, or a job does not run.
pub async fn measure(part: &str, guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::start()?;
    match part {
        "kafka-throughput" => throughput::measure(guests, &cluster).await,
        _ => latency::measure(guests, &cluster).await,
    }
}

/// A job from topic to topic.
struct Job<'a> {
    format: &'a str,
    /// `schema:` of the source, with its line break; empty: none.
    schema: &'a str,
    /// The operator `work`, without its input.
    operator: &'a str,
    from: &'a str,
    to: &'a str,
    /// Where the source ends: a line, or nothing.
    end: &'a str,
    /// More settings of the sink.
    sink: &'a str,
    /// Settings of the job: lines.
    more: &'a str,
}

impl Job<'_> {
    async fn plan(&self, cluster: &Cluster, guests: &Guests, parallelism: u32) -> anyhow::Result<(Arc<JobPlan>, TempDir)> {
        let Self { format, schema, operator, from, to, end, sink, more } = self;
        let servers = cluster.address();
        let text = format!(
            "job: {from}
{more}sources:
  rows:
    kafka: {{ servers: \"{servers}\", topics: {from}, format: {format}{end} }}
{schema}operators:
  work: {{ input: rows, {operator} }}
sinks:
  out: {{ input: work, kafka: {{ servers: \"{servers}\", topic: {to}, format: {format}{sink} }} }}
"
        );
        let directory = tempfile::tempdir()?;
        let parallelism = NonZeroU32::new(parallelism).unwrap_or(NonZeroU32::MIN);
        let plan = jobs::planned(&text, Path::new("."), &millstream_connectors::all(), guests, parallelism).await?;
        Ok((plan, directory))
    }
}
