//! `millstream stop`: ends a durable job so that the next run goes on from there.

use std::{fs::File, path::PathBuf};

use millstream_engine::run::CheckpointReport;

use millstream_server::{place::Place, savepoint};

use crate::{
    client::{
        Service, jobs,
        place::{self, Target},
    },
    control::{client, protocol::Request},
    machine,
    report::{Exit, Failure},
    terminal,
};

/// Stops the job of a directory: it takes a last checkpoint, or a savepoint, and the next run goes on from there.
///
/// Returns when the process has ended. What was written until then is published, once.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream stop state
  millstream stop state --savepoint before-upgrade && millstream run new.yaml --state state

Exit codes:
  0  stopped
  1  it does not run, or it ended without a checkpoint of its own (the one before holds)
  2  there is no such job directory")]
pub struct Arguments {
    /// The job directory: what `millstream run` was given as --state; or a job of the service. A directory that exists is one (`./NAME` to be
    /// sure), `job:NAME` is always a job of the service.
    #[arg(value_name = "DIR|JOB")]
    directory: PathBuf,
    /// Make a savepoint with this name of the last checkpoint.
    #[arg(long, value_name = "NAME")]
    savepoint: Option<String>,
    /// Without a last checkpoint, for a job of the service that takes none any more: the one before holds.
    #[arg(long)]
    at_once: bool,
    #[command(flatten)]
    pub service: Service,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    arguments.savepoint.as_deref().map_or(Ok(()), savepoint::check_name)?;
    let directory = match place::target(&arguments.directory, &arguments.service) {
        Target::Job(job) => return jobs::stop(&job, arguments.savepoint, arguments.at_once, &arguments.service),
        Target::Directory(directory) if arguments.at_once => {
            let message = format!("{} is a job directory, and only jobs of the service are stopped at once", directory.display());
            return Err(Failure::new(Exit::Invalid, message)
                .fix("end its process: whatever ends it, the next run goes on from the last checkpoint"));
        }
        Target::Directory(directory) => directory,
    };
    let (place, owner) = Place::existing(&directory)?;
    let report: Option<CheckpointReport> = client::ask(&place, &Request::Stop {})?;
    let report = report.ok_or_else(|| client::does_not_run(&place, &owner))?;
    // Whoever starts the job next must find the directory free.
    let ended = File::open(place.lock()).and_then(|lock| lock.lock_shared());
    ended.map_err(|error| Failure::new(Exit::Failed, "the end of the process cannot be waited for").because(&error))?;
    let savepoint = match &arguments.savepoint {
        Some(name) => Some(machine::block_on(savepoint::made(&place, &owner, name))?),
        None => None,
    };
    terminal::print(&if arguments.service.json {
        serde_json::json!({ "checkpoint": report, "savepoint": savepoint }).to_string()
    } else {
        let savepoint = arguments.savepoint.map(|name| format!(", savepoint `{name}`")).unwrap_or_default();
        format!("{} stopped at checkpoint {} ({}){savepoint}", owner.job, report.checkpoint.0, terminal::size(report.bytes_total))
    });
    Ok(Exit::Done)
}
