//! The `millstream` command: from the words on a command line to an exit code.
//!
//! The flow: [`args`] (what may be said) → one module per command, which returns an [`Exit`] or a [`Failure`] → [`report`] prints it. A
//! command's module holds its arguments, its help and its work. Nothing here decides what a job means: that is the engine's.
//!
//! Standard output carries results only (rows of a `stdout` sink, a plan, a schema); progress, logs, summaries and failures go to
//! standard error.

#![forbid(unsafe_code)]

mod args;
mod build;
mod checkpoint;
mod client;
mod completions;
mod control;
mod doctor;
mod egress;
mod explain;
mod inspect;
mod job;
mod logging;
mod machine;
mod new;
mod progress;
mod report;
mod run;
mod runner;
mod savepoint;
mod schema;
mod serve;
mod signals;
mod state;
mod status;
mod stop;
mod summary;
mod terminal;
mod test;
mod topics;
mod validate;
mod why;

use std::{process::ExitCode, sync::Arc};

use clap::Parser;
use millstream_engine::clock::SystemClock;
use millstream_server::logs::Logs;

use crate::{
    args::{Cli, Command},
    client::{components, contexts, jobs, streams, swap, tenants, tokens, trial},
    report::{Exit, Failure},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    terminal::set_colors(cli.color);
    let logs = Logs::new(Arc::new(SystemClock), terminal::HIDDEN.clone());
    logging::start(&cli.log, matches!(cli.command, Command::Serve(_) | Command::Runner(_)).then(|| logs.clone()));
    let json = cli.command.wants_json();
    match execute(cli.command, logs) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            failure.print(json);
            failure.exit.into()
        }
    }
}

fn execute(command: Command, logs: Logs) -> Result<Exit, Failure> {
    match command {
        Command::Run(arguments) => run::execute(arguments),
        Command::Serve(arguments) => serve::execute(arguments, logs),
        Command::Runner(arguments) => runner::execute(arguments, logs),
        Command::CompileComponent(arguments) => serve::compile_component(&arguments),
        Command::Login(arguments) => contexts::login(arguments),
        Command::Context(arguments) => contexts::context(arguments),
        Command::Push(arguments) => components::push(arguments),
        Command::Component(arguments) => components::component(arguments),
        Command::Submit(arguments) => jobs::submit(arguments),
        Command::Jobs(arguments) => jobs::jobs(arguments),
        Command::Pause(arguments) => jobs::pause(arguments),
        Command::Resume(arguments) => jobs::resume(arguments),
        Command::Scale(arguments) => jobs::scale(arguments),
        Command::Delete(arguments) => jobs::delete(arguments),
        Command::Versions(arguments) => jobs::versions(arguments),
        Command::Swap(arguments) => swap::swap(arguments),
        Command::Rollback(arguments) => swap::rollback(arguments),
        Command::Trial(arguments) => trial::trial(arguments),
        Command::Logs(arguments) => streams::logs(arguments),
        Command::Tail(arguments) => streams::tail(arguments),
        Command::Results(arguments) => streams::results(arguments),
        Command::Events(arguments) => streams::events(arguments),
        Command::Tenant(arguments) => tenants::tenant(arguments),
        Command::Token(arguments) => tokens::token(arguments),
        Command::Secret(arguments) => tokens::secret(arguments),
        Command::Status(arguments) => status::execute(arguments),
        Command::Why(arguments) => why::execute(arguments),
        Command::Stop(arguments) => stop::execute(arguments),
        Command::Savepoint(arguments) => savepoint::execute(arguments),
        Command::Checkpoint(arguments) => checkpoint::execute(arguments),
        Command::State(arguments) => state::execute(arguments),
        Command::Topics(arguments) => topics::execute(arguments),
        Command::Validate(arguments) => validate::execute(arguments),
        Command::Explain(arguments) => explain::execute(arguments),
        Command::Schema(arguments) => schema::execute(arguments),
        Command::New(arguments) => new::execute(arguments),
        Command::Build(arguments) => build::execute(arguments),
        Command::Test(arguments) => test::execute(arguments),
        Command::Inspect(arguments) => inspect::execute(arguments),
        Command::Doctor(arguments) => doctor::execute(arguments),
        Command::Completions(arguments) => completions::execute(arguments),
    }
}
