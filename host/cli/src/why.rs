//! `millstream why`: one sentence that says what a job waits for.

use std::path::PathBuf;

use millstream_engine::run;
use serde_json::json;

use millstream_server::place::Place;

use crate::{
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
    /// The job directory: what `millstream run` was given as --state.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let (place, owner) = Place::existing(&arguments.directory)?;
    let job = &owner.job;
    let Some(running) = client::ask::<Status>(&place, &Request::Status {})? else {
        return Err(Failure::new(Exit::Failed, format!("job `{job}` does not run"))
            .fix(format!("`millstream status {}` says where it would go on", arguments.directory.display())));
    };
    let why = run::why(&running.status);
    terminal::print(&if arguments.json {
        json!({ "job": job, "phase": running.status.phase, "why": why }).to_string()
    } else {
        format!("{STRONG}{job}{STRONG:#}: {why}")
    });
    Ok(Exit::Done)
}
