//! `millstream validate`: is it a job? Everything is checked that can be without running it, and outside systems are asked only when told to.

use millstream_engine::{
    graph::{JobPlan, NodeKind},
    plan::check_outside,
};
use millstream_server::failure;

use crate::{
    job::{self, JobArguments},
    machine,
    report::{Exit, Failure},
    terminal::{self, GOOD},
};

/// Checks a job file without running it: keys, names, expressions, components and the types along the whole graph.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream validate job.yaml
  millstream validate job.yaml --connect
  millstream validate job.yaml --json")]
pub struct Arguments {
    #[command(flatten)]
    pub job: JobArguments,
    /// Also ask brokers whether they have what the job needs: topics, rights, and limits for transactions, as `run --state` does.
    #[arg(long)]
    pub connect: bool,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let components = machine::component_runtime(machine::INSTANCES_TO_PLAN)?;
    let plan = machine::block_on(planned(&arguments, &components))?;
    terminal::print(&if arguments.json {
        serde_json::json!({ "job": plan.job.as_str(), "valid": true }).to_string()
    } else {
        format!("{}: {GOOD}good{GOOD:#}, {}", arguments.job.file.display(), counts(&plan))
    });
    Ok(Exit::Done)
}

async fn planned(arguments: &Arguments, components: &millstream_wasm::Runtime) -> Result<JobPlan, Failure> {
    let plan = job::plan(&arguments.job, components, None).await?.plan;
    let found = if arguments.connect { check_outside(&plan, true).await } else { Vec::new() };
    let failure = failure::Failure::of_outside(&found).or_else(|| failure::Failure::of_silence(&found));
    failure.map_or(Ok(plan), |failure| Err(failure.into()))
}

/// `1 source, 3 operators, 2 sinks`.
fn counts(plan: &JobPlan) -> String {
    let [mut sources, mut operators, mut sinks] = [0; 3];
    for node in &plan.nodes {
        match node.kind {
            NodeKind::Source(_) => sources += 1,
            NodeKind::Operator(_) => operators += 1,
            NodeKind::Sink(_) => sinks += 1,
        }
    }
    let counted = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
    [counted(sources, "source"), counted(operators, "operator"), counted(sinks, "sink")].join(", ")
}
