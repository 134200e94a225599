//! `millstream topics`: Kafka's topics from the command line, without a job: which there are, what stands in one, filling one.
//!
//! [`cluster`] says which cluster, in the words of a job file; [`record`] how a record is written as text, and read from it; every other module is one
//! command. What is asked of a cluster is `millstream_connectors::kafka`'s.

mod cluster;
mod create;
mod list;
mod peek;
mod produce;
mod record;

use millstream_engine::operator::OperatorError;

use crate::report::{Exit, Failure};

/// Lists Kafka's topics, shows their records, makes and fills them.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream topics list --servers localhost:9092
  millstream topics create flights --partitions 3 --servers localhost:9092
  millstream topics peek flights --servers localhost:9092
  millstream topics peek alerts --connection job.yaml --follow
  zcat flights.ndjson.gz | millstream topics produce flights --key-field tailnum --servers localhost:9092

Exit codes:
  0  done
  1  the cluster does not answer, or did not take what was written
  2  there is no such topic, partition or offset; the command line, a connection or a line of input is wrong")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    List(list::Arguments),
    Create(create::Arguments),
    Peek(peek::Arguments),
    Produce(produce::Arguments),
}

impl Arguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        match &self.command {
            Command::List(arguments) => arguments.json,
            Command::Create(arguments) => arguments.json,
            Command::Peek(arguments) => arguments.json,
            Command::Produce(arguments) => arguments.json,
        }
    }
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::List(arguments) => list::execute(&arguments),
        Command::Create(arguments) => create::execute(&arguments),
        Command::Peek(arguments) => peek::execute(&arguments),
        Command::Produce(arguments) => produce::execute(&arguments),
    }
}

/// What a cluster answers, as a failure of the command.
fn failed(error: &OperatorError) -> Failure {
    Failure::from_error(Exit::of(error.kind()), error)
}
