//! What may be said on the command line. Each command's own arguments stand with the command.

use clap::{Parser, Subcommand};

use crate::{
    build, checkpoint,
    client::{components, contexts, jobs, streams, swap, tenants, tokens, trial},
    completions, doctor, explain, inspect, new, run, runner, savepoint, schema, serve, state, status, stop,
    terminal::Colors,
    test, topics, validate, why,
};

/// Runs jobs on streams of rows whose logic is WebAssembly.
#[derive(Parser)]
#[command(name = "millstream", version, propagate_version = true, arg_required_else_help = true, after_help = EXIT_CODES, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    /// When to use colours: auto (on a terminal, unless NO_COLOR is set), always or never.
    #[arg(long, global = true, value_name = "WHEN", value_enum, default_value_t = Colors::Auto, hide_possible_values = true, help_heading = "Global options")]
    pub color: Colors,
    /// Which log lines to show on standard error, as `level` or `target=level,…`; guests log under the target `guest`.
    #[arg(
        long,
        global = true,
        value_name = "FILTER",
        help_heading = "Global options",
        env = "MILLSTREAM_LOG",
        default_value = "warn,guest=info"
    )]
    pub log: String,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    failed: the job, a build or a test
  2    wrong input: the command line, a job file, a component
  130  interrupted by Ctrl-C before it was done (143: by SIGTERM)

First steps:
  millstream new my-operator         a Rust operator with a test and a job to run it in
  millstream doctor                  is everything here that building one needs?";

/// The commands, in the order of their use.
#[derive(Subcommand)]
pub enum Command {
    Run(run::Arguments),
    Serve(serve::Arguments),
    #[command(hide = true)]
    Runner(runner::Arguments),
    #[command(hide = true)]
    CompileComponent(serve::CompileArguments),
    Login(contexts::LoginArguments),
    Context(contexts::ContextArguments),
    Push(components::PushArguments),
    Component(components::ComponentArguments),
    Submit(jobs::SubmitArguments),
    Jobs(jobs::JobsArguments),
    /// Stops a job of the service behind a checkpoint, to go on later.
    Pause(jobs::JobArguments),
    /// Has a job of the service run again, from its last checkpoint.
    Resume(jobs::JobArguments),
    Scale(jobs::ScaleArguments),
    Delete(jobs::DeleteArguments),
    /// Shows the versions of a job of the service, and how each came about.
    Versions(jobs::JobArguments),
    Swap(swap::SwapArguments),
    Rollback(swap::RollbackArguments),
    Trial(trial::TrialArguments),
    Logs(streams::LogsArguments),
    Tail(streams::TailArguments),
    Results(streams::ResultsArguments),
    Events(streams::EventsArguments),
    Tenant(tenants::TenantArguments),
    Token(tokens::TokenArguments),
    Secret(tokens::SecretArguments),
    Status(status::Arguments),
    Why(why::Arguments),
    Stop(stop::Arguments),
    Savepoint(savepoint::Arguments),
    Checkpoint(checkpoint::Arguments),
    State(state::Arguments),
    Topics(topics::Arguments),
    Validate(validate::Arguments),
    Explain(explain::Arguments),
    Schema(schema::Arguments),
    New(new::Arguments),
    Build(build::Arguments),
    Test(test::Arguments),
    Inspect(inspect::Arguments),
    Doctor(doctor::Arguments),
    Completions(completions::Arguments),
}

impl Command {
    /// Whether results and failures are wanted as JSON.
    pub fn wants_json(&self) -> bool {
        match self {
            Self::Run(arguments) => arguments.json,
            Self::Serve(arguments) => arguments.json,
            Self::Login(arguments) => arguments.json,
            Self::Push(arguments) => arguments.service.json,
            Self::Component(arguments) => arguments.json(),
            Self::Submit(arguments) => arguments.service.json,
            Self::Jobs(arguments) => arguments.service.json,
            Self::Pause(arguments) | Self::Resume(arguments) | Self::Versions(arguments) => arguments.service.json,
            Self::Scale(arguments) => arguments.service.json,
            Self::Delete(arguments) => arguments.service.json,
            Self::Swap(arguments) => arguments.service.json,
            Self::Rollback(arguments) => arguments.service.json,
            Self::Trial(arguments) => arguments.service.json,
            Self::Logs(arguments) => arguments.service.json,
            Self::Tail(arguments) => arguments.service.json,
            Self::Results(arguments) => arguments.service.json,
            Self::Events(arguments) => arguments.service.json,
            Self::Tenant(arguments) => arguments.json(),
            Self::Token(arguments) => arguments.json(),
            Self::Secret(arguments) => arguments.json(),
            Self::Status(arguments) => arguments.service.json,
            Self::Why(arguments) => arguments.service.json,
            Self::Stop(arguments) => arguments.service.json,
            Self::Savepoint(arguments) => arguments.json(),
            Self::Checkpoint(arguments) => arguments.json(),
            Self::State(arguments) => arguments.json(),
            Self::Topics(arguments) => arguments.json(),
            Self::Validate(arguments) => arguments.json,
            Self::Inspect(arguments) => arguments.json,
            Self::Doctor(arguments) => arguments.json,
            Self::CompileComponent(_)
            | Self::Runner(_)
            | Self::Context(_)
            | Self::Explain(_)
            | Self::Schema(_)
            | Self::New(_)
            | Self::Build(_)
            | Self::Test(_)
            | Self::Completions(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
