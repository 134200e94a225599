//! What may be said on the command line. Each command's own arguments stand with the command.

use clap::{Parser, Subcommand};

use crate::{
    build, checkpoint, completions, doctor, explain, inspect, new, run, savepoint, schema, serve, state, status, stop, terminal::Colors,
    test, validate,
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
    CompileComponent(serve::CompileArguments),
    Status(status::Arguments),
    Stop(stop::Arguments),
    Savepoint(savepoint::Arguments),
    Checkpoint(checkpoint::Arguments),
    State(state::Arguments),
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
            Self::Status(arguments) => arguments.json,
            Self::Stop(arguments) => arguments.json,
            Self::Savepoint(arguments) => arguments.json(),
            Self::Checkpoint(arguments) => arguments.json(),
            Self::State(arguments) => arguments.json(),
            Self::Validate(arguments) => arguments.json,
            Self::Inspect(arguments) => arguments.json,
            Self::Doctor(arguments) => arguments.json,
            Self::CompileComponent(_)
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
