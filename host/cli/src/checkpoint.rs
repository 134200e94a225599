//! `millstream checkpoint`: the checkpoints of a job directory.

use std::path::{Path, PathBuf};

use millstream_engine::{
    checkpoint::files,
    run::{CheckpointOutcome, CheckpointReport},
};
use serde_json::json;

use millstream_server::{
    kept::{self, Facts, Kept},
    place::Place,
    savepoint,
};

use crate::{
    control::{client, protocol::Request},
    machine,
    report::{Exit, Failure},
    summary,
    terminal::{self, ERROR, GOOD},
};

/// Lists, takes and verifies the checkpoints of a job.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream checkpoint list state          what the job could go on from
  millstream checkpoint create state        take one now
  millstream checkpoint history state       how long the last ones took, and why
  millstream checkpoint verify state        read every file and check every hash

Exit codes:
  0  done
  1  the job does not run, a checkpoint failed, or something is damaged
  2  there is no such job directory")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Shows the committed checkpoints that are kept; the last one is where the job goes on.
    List(Directory),
    /// Has the running job take a checkpoint now.
    Create(Directory),
    /// Shows the last checkpoints of the running job: sizes, durations, what waited for what.
    History(Directory),
    /// Reads every file of every checkpoint and savepoint and checks its hash.
    Verify(Directory),
}

#[derive(clap::Args)]
struct Directory {
    /// The job directory: what `millstream run` was given as --state.
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        let (Command::List(directory) | Command::Create(directory) | Command::History(directory) | Command::Verify(directory)) =
            &self.command;
        directory.json
    }
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::List(Directory { directory, json }) => machine::block_on(list(&directory, json)),
        Command::Create(Directory { directory, json }) => create(&directory, json),
        Command::History(Directory { directory, json }) => history(&directory, json),
        Command::Verify(Directory { directory, json }) => machine::block_on(verify(&directory, json)),
    }
}

async fn list(directory: &Path, json: bool) -> Result<Exit, Failure> {
    let (place, owner) = Place::existing(directory)?;
    // No record: nothing was committed yet.
    let record = kept::record(&place, &owner).await?.unwrap_or_default();
    let mut found: Vec<(u64, Result<Facts, Failure>)> = Vec::new();
    for committed in kept::all(&record) {
        // One that is damaged is why somebody looks for the others.
        let read = Kept::committed(&place, &owner, &committed).await;
        found.push((committed.checkpoint.0, read.map(|kept| kept.facts()).map_err(Failure::from)));
    }
    let last = record.checkpoint.map(|checkpoint| checkpoint.0);
    if json {
        let with_decision = |(number, facts): &(u64, Result<Facts, Failure>)| {
            let mut value = match facts {
                Ok(facts) => serde_json::to_value(facts).expect("facts have string keys only"),
                Err(failure) => serde_json::json!({ "number": number, "problems": failure.told.problems }),
            };
            value["committed"] = (Some(*number) == last).into();
            value
        };
        terminal::print(&serde_json::Value::from(found.iter().map(with_decision).collect::<Vec<_>>()).to_string());
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        terminal::note("no checkpoint is committed yet");
        return Ok(Exit::Done);
    }
    let row = |(number, facts): &(u64, Result<Facts, Failure>)| {
        let facts = match facts {
            Ok(facts) => facts,
            Err(failure) => {
                let problem = failure.told.problems.first().map_or("", |problem| problem.message.as_str());
                return [number.to_string(), String::new(), String::new(), String::new(), problem.to_owned()];
            }
        };
        let note = match (Some(facts.number) == last, facts.finished) {
            (true, true) => "the job has finished",
            (true, false) => "goes on from here",
            (false, _) => "",
        };
        [facts.number.to_string(), facts.created.clone(), terminal::size(facts.bytes), facts.files.to_string(), note.to_owned()]
    };
    terminal::print(&terminal::table(["NUMBER", "TAKEN", "SIZE", "FILES", ""], &found.iter().map(row).collect::<Vec<_>>()));
    Ok(Exit::Done)
}

fn create(directory: &Path, json: bool) -> Result<Exit, Failure> {
    let (place, owner) = Place::existing(directory)?;
    let report: Option<CheckpointReport> = client::ask(&place, &Request::Checkpoint {})?;
    let report = report.ok_or_else(|| client::does_not_run(&place, &owner))?;
    terminal::print(&if json {
        serde_json::to_string(&report).expect("a report has string keys only")
    } else {
        format!("checkpoint {} in {}, {}", report.checkpoint.0, milliseconds(report.total_ms), terminal::size(report.bytes_total))
    });
    Ok(Exit::Done)
}

fn history(directory: &Path, json: bool) -> Result<Exit, Failure> {
    let (place, owner) = Place::existing(directory)?;
    let reports: Option<Vec<CheckpointReport>> = client::ask(&place, &Request::Checkpoints {})?;
    let reports = reports.ok_or_else(|| client::does_not_run(&place, &owner))?;
    if json {
        terminal::print(&serde_json::to_string(&reports).expect("reports have string keys only"));
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = reports.iter().map(row).collect();
    terminal::print(&terminal::table(["NUMBER", "TAKEN", "TOOK", "ALIGNMENT", "SYNC", "SNAPSHOT", "SIZE", "NEW", "OUTCOME"], &rows));
    Ok(Exit::Done)
}

fn row(report: &CheckpointReport) -> [String; 9] {
    [
        report.checkpoint.0.to_string(),
        terminal::time(report.at_ms),
        milliseconds(report.total_ms),
        milliseconds(report.alignment_ms),
        milliseconds(report.sync_ms),
        milliseconds(report.snapshot_ms),
        terminal::size(report.bytes_total),
        terminal::size(report.bytes_new),
        match &report.outcome {
            CheckpointOutcome::Committed => "committed".to_owned(),
            CheckpointOutcome::GivenUp { reason } => format!("given up: {reason}"),
        },
    ]
}

fn milliseconds(milliseconds: u64) -> String {
    summary::duration(std::time::Duration::from_millis(milliseconds))
}

/// Reads everything. What is damaged does not keep it from reading the rest.
async fn verify(directory: &Path, json: bool) -> Result<Exit, Failure> {
    let (place, owner) = Place::existing(directory)?;
    // No record: nothing was committed yet.
    let record = kept::record(&place, &owner).await?.unwrap_or_default();
    let cut_short = kept::cut_short(&place).await?;
    let (mut checked, mut damage) = (0_usize, Vec::new());
    for committed in kept::all(&record) {
        checked += 1;
        examine(
            format!("checkpoint {}", committed.checkpoint.0),
            Kept::committed(&place, &owner, &committed).await.map_err(Failure::from),
            &mut damage,
        )
        .await;
    }
    for name in savepoint::names(&place)? {
        checked += 1;
        let kept = Kept::savepoint(&place.savepoints().join(&name)).await.map_err(Failure::from);
        examine(format!("savepoint `{name}`"), kept, &mut damage).await;
    }
    if json {
        terminal::print(&json!({ "checked": checked, "damage": damage, "cut-short": cut_short }).to_string());
    } else if damage.is_empty() {
        let good =
            if checked == 1 { "1 checkpoint or savepoint is".to_owned() } else { format!("{checked} checkpoints and savepoints are") };
        terminal::print(&format!("{good} {GOOD}good{GOOD:#}: every file is there and has its hash"));
    } else {
        terminal::print(&damage.iter().map(|line| format!("{ERROR}damaged{ERROR:#}  {line}\n")).collect::<String>());
    }
    if let (Some(file), false) = (&cut_short, json) {
        terminal::note(&format!(
            "the end of `{file}` is missing or damaged, as after a process that died while it wrote; nothing is lost, the next start writes it again from the other file"
        ));
    }
    Ok(if damage.is_empty() { Exit::Done } else { Exit::Failed })
}

/// Adds what is wrong with one of them.
async fn examine(what: String, kept: Result<Kept, Failure>, damage: &mut Vec<String>) {
    match kept {
        Ok(kept) => {
            let findings = files::verify(&*kept.storage, &kept.files_prefix, &kept.manifest).await;
            damage.extend(findings.into_iter().map(|finding| format!("{what}: {}", finding.error)));
        }
        Err(failure) => damage.extend(failure.told.problems.into_iter().map(|problem| format!("{what}: {}", problem.message))),
    }
}
