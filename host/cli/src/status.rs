//! `millstream status`: what a durable job does, or where it would go on.

use std::path::PathBuf;

use millstream_engine::clock::{Clock, SystemClock};
use serde_json::{Value, json};

use millstream_server::{
    kept::{self, Facts, Kept},
    place::{Owner, Place},
};

use crate::{
    client::{
        Service, jobs,
        place::{self, Target},
    },
    control::{
        client,
        protocol::{Request, Status},
    },
    machine,
    report::{Exit, Failure},
    summary,
    terminal::{self, GOOD, STRONG},
};

/// Shows what the job of a directory does now or, if it does not run, where it would go on.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream status state
  millstream status state --json | jq .status.phase

Exit codes:
  0  shown, whether the job runs or not
  1  the directory, or the process that runs the job, cannot be read
  2  there is no such job directory")]
pub struct Arguments {
    /// The job directory: what `millstream run` was given as --state; or a job of the service. A directory that exists is one (`./NAME` to be
    /// sure), `job:NAME` is always a job of the service.
    #[arg(value_name = "DIR|JOB")]
    directory: PathBuf,
    #[command(flatten)]
    pub service: Service,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let directory = match place::target(&arguments.directory, &arguments.service) {
        Target::Job(job) => return jobs::status(&job, &arguments.service),
        Target::Directory(directory) => directory,
    };
    let (place, owner) = Place::existing(&directory)?;
    let running: Option<Status> = client::ask(&place, &Request::Status {})?;
    let last = machine::block_on(Kept::last(&place, &owner))?.map(|kept| kept.facts());
    terminal::print(&if arguments.service.json {
        to_json(&owner, running.as_ref(), last.as_ref()).to_string()
    } else {
        to_text(&owner, running, last)
    });
    Ok(Exit::Done)
}

fn to_json(owner: &Owner, running: Option<&Status>, last: Option<&Facts>) -> Value {
    json!({
        "job": owner.job,
        "running": running.is_some(),
        "pid": running.map(|status| status.pid),
        "status": running.map(|status| &status.status),
        "checkpoint": last,
    })
}

fn to_text(owner: &Owner, running: Option<Status>, last: Option<Facts>) -> String {
    let job = &owner.job;
    let now_ms = SystemClock.now_ms();
    match (running, last) {
        (Some(status), last) => {
            let durable = status.status.durable.as_ref();
            let guarantee = durable.map_or("", |durable| kept::guarantee_text(durable.guarantee));
            let restarts = match durable.map_or(0, |durable| durable.restarts) {
                0 => String::new(),
                1 => ", restarted once".to_owned(),
                times => format!(", restarted {times} times"),
            };
            let last = last.map_or_else(|| "no checkpoint yet".to_owned(), |last| last.shown(now_ms));
            format!(
                "{STRONG}{job}{STRONG:#} {GOOD}running{GOOD:#} as process {}, {guarantee}{restarts}, {last}\n{}",
                status.pid,
                summary::operators(&status.status.operators)
            )
        }
        (None, Some(last)) if last.finished => format!("{STRONG}{job}{STRONG:#} does not run; it has finished: {}", last.shown(now_ms)),
        (None, Some(last)) => format!("{STRONG}{job}{STRONG:#} does not run; it would go on from {}", last.shown(now_ms)),
        (None, None) => format!("{STRONG}{job}{STRONG:#} does not run; it has no checkpoint and would start from the beginning"),
    }
}
