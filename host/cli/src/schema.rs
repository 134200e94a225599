//! `millstream schema`: what may stand in a job file, for editors and other programs.

use crate::{
    job,
    report::{Exit, Failure},
    terminal,
};

/// Prints the JSON Schema of job files.
///
/// An editor that knows it completes keys and explains them. In a YAML file, the first line can name it:
/// `# yaml-language-server: $schema=millstream.schema.json`
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream schema > millstream.schema.json
  millstream schema | jq '.properties | keys'")]
pub struct Arguments {}

pub fn execute(_arguments: Arguments) -> Result<Exit, Failure> {
    let schema = millstream_engine::spec::schema(&job::connectors());
    terminal::print(&serde_json::to_string_pretty(&schema).expect("a schema has string keys only"));
    Ok(Exit::Done)
}
