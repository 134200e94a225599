//! Sources and sinks: where streams come from and go to.
//!
//! One folder per connector, each with the same files: `mod.rs` (what it is), `settings.rs` (what a user may write), `source.rs`, `sink.rs`.
//! [`formats`] turns bytes into columns and back; [`all`] is what a job file may name. A connector gets its clock and its settings when the
//! job is planned and touches nothing else of the engine. Beside them, [`tables`] reads small tables and [`requests`] sends what components ask for over HTTP.

#![forbid(unsafe_code)]

pub mod blackhole;
mod compression;
pub mod files;
pub mod formats;
pub mod http;
pub mod http_push;
pub mod kafka;
pub mod nexmark;
mod pace;
pub mod requests;
pub mod sequence;
mod settings;
pub mod stdin;
pub mod stdout;
pub mod tables;
#[cfg(test)]
mod testing;
mod value_schema;

use millstream_engine::connector::Connectors;

/// All connectors.
pub fn all() -> Connectors {
    Connectors::default()
        .with_source(files::FilesSource)
        .with_source(http_push::HttpPush::default())
        .with_source(kafka::KafkaSource(kafka::Machine::Own))
        .with_source(nexmark::Nexmark)
        .with_source(sequence::Sequence)
        .with_source(stdin::Stdin::default())
        .with_sink(files::FilesSink)
        .with_sink(http::Http)
        .with_sink(kafka::KafkaSink(kafka::Machine::Own))
        .with_sink(stdout::Stdout::default())
        .with_sink(blackhole::Blackhole::default())
        .with_tables(tables::Tables)
        .with_requests(requests::Web::default())
}
