//! `millstream explain`: what will run, before it runs.

use millstream_engine::plan;

use crate::{
    job::{self, JobArguments},
    machine,
    report::{Exit, Failure},
    terminal,
};

/// Shows how a job will run: chains, exchanges, types, states and timers, and what each operator reads.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream explain job.yaml
  millstream explain job.yaml --parallelism 8")]
pub struct Arguments {
    #[command(flatten)]
    job: JobArguments,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let components = machine::component_runtime(machine::INSTANCES_TO_PLAN)?;
    let job = machine::block_on(job::plan(&arguments.job, &components, None))?;
    terminal::print(&plan::explain(&job.plan));
    Ok(Exit::Done)
}
