//! `millstream runner`: the process in which the jobs of one tenant of the service run. `millstream serve` starts it, walled in, one for each tenant; people
//! do not. And what it takes to see from inside that its walls stand.

use std::path::PathBuf;

use millstream_sandbox::{
    self as sandbox, Limits, Wall,
    probe::{self, Attempt, Targets},
};
use millstream_server::{
    logs::Logs,
    serve::connectors,
    workshop::child::{self, Program, Setup},
};
use serde_json::json;

use crate::{
    report::{Exit, Failure},
    run::crash_points,
    serve::{cores, runtime},
    terminal,
};

/// Runs the jobs of one tenant: the child of the service, which says everything else through standard input.
#[derive(clap::Args)]
pub struct Arguments {
    /// Try what the walls must refuse, in this directory, and say what came of it.
    #[arg(long, value_name = "DIR", requires = "foreign")]
    probe: Option<PathBuf>,
    /// A file that is none of a runner's.
    #[arg(long, value_name = "FILE")]
    foreign: Option<PathBuf>,
    /// A wall that is left out, to see that it is what refuses.
    #[arg(long, value_name = "WALL", requires = "probe")]
    without: Option<String>,
}

pub fn execute(arguments: Arguments, logs: Logs) -> Result<Exit, Failure> {
    match (arguments.probe, arguments.foreign) {
        (Some(own), Some(foreign)) => probed(own, foreign, arguments.without.as_deref()),
        _ => work(logs),
    }
}

fn work(logs: Logs) -> Result<Exit, Failure> {
    // Before the first thread: those that come later stand behind the same walls.
    let walled = child::enter()?;
    let data = runtime("millstream-data", cores())?;
    let control = runtime("millstream-control", 2)?;
    let program = Program { connectors: connectors(), logs, hidden: terminal::HIDDEN.clone(), crash: crash_points()? };
    let ended = control.block_on(walled.work(program, data.handle().clone()));
    data.shutdown_background();
    control.shutdown_background();
    ended.map(|()| Exit::Done).map_err(Failure::from)
}

/// The walls are those of a runner whose jobs and room lie in `own`.
fn probed(own: PathBuf, foreign: PathBuf, without: Option<&str>) -> Result<Exit, Failure> {
    let room = own.join("room");
    let mut settings = Setup::walls(&own, &room, Some(&own), Limits::default());
    if let Some(name) = without {
        let unknown = || Failure::new(Exit::Invalid, format!("there is no wall `{name}`"));
        settings.without = vec![serde_json::from_value::<Wall>(json!(name)).map_err(|_| unknown())?];
    }
    let walls = sandbox::enter(&settings).map_err(|error| Failure::from_error(Exit::Failed, &error))?;
    let attempts = probe::attempts(&Targets { own, foreign });
    terminal::print(&json!({ "refused": walls.refused(), "attempts": attempts }).to_string());
    Ok(if attempts.iter().all(Attempt::holds) { Exit::Done } else { Exit::Failed })
}
