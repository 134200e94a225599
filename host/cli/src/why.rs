//! `millstream why`: one sentence that says what a job waits for.

use std::path::PathBuf;

use millstream_engine::run;
use millstream_server::{api::Why, place::Place};
use serde_json::json;

use crate::{
    client::{
        Service,
        jobs::path,
        place::{self, Target},
    },
    control::{
        client,
        protocol::{Request, Status},
    },
    report::{Exit, Failure},
    terminal::{self, STRONG},
};

/// Says in one sentence what a running job waits for: a source and its split, what holds event time back, what does not take rows, a swap, a barrier,
/// a failed connector and its next attempt.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream why state
  watch millstream why state

Exit codes:
  0  said
  1  the job does not run, or its process cannot be asked
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
        Target::Job(job) => {
            let why: Why = arguments.service.connect()?.get(&path(&job, "/why"))?;
            return Ok(arguments.service.show(&why, |why| format!("{STRONG}{job}{STRONG:#}: {}", why.sentence)));
        }
        Target::Directory(directory) => directory,
    };
    let (place, owner) = Place::existing(&directory)?;
    let job = &owner.job;
    let Some(running) = client::ask::<Status>(&place, &Request::Status {})? else {
        return Err(Failure::new(Exit::Failed, format!("job `{job}` does not run"))
            .fix(format!("`millstream status {}` says where it would go on", arguments.directory.display())));
    };
    let why = run::why(&running.status);
    terminal::print(&if arguments.service.json {
        json!({ "job": job, "phase": running.status.phase, "why": why }).to_string()
    } else {
        format!("{STRONG}{job}{STRONG:#}: {why}")
    });
    Ok(Exit::Done)
}
