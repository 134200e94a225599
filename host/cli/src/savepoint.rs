//! `millstream savepoint`: checkpoints that a user names, each complete in its own directory.

mod copy;

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use millstream_engine::{
    checkpoint::manifest::OperatorManifest,
    clock::{Clock, SystemClock},
    run::{CheckpointReport, OperatorKind},
};
use millstream_model::ids::OperatorId;
use serde_json::json;

use crate::{
    control::{client, protocol::Request},
    kept::{self, Facts, Kept},
    machine,
    place::{Owner, Place},
    report::{Exit, Failure},
    terminal::{self, STRONG},
};

/// Makes, lists, inspects, deletes and moves savepoints.
///
/// A savepoint is a directory that needs nothing else: copy it, archive it, start other jobs from it. It holds the state of every operator, how far
/// the sources were read and what the sinks had written, at one moment.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream savepoint create before-upgrade --state state
  millstream savepoint list --state state
  millstream savepoint inspect before-upgrade --state state
  millstream savepoint export before-upgrade backup/monday --state state
  millstream savepoint import backup/monday --state other --name monday
  millstream run job.yaml --state other --restore monday

Exit codes:
  0  done
  1  it failed: nothing to make it from, no room, the name is taken, something is damaged
  2  there is no such job directory or savepoint, or the name is none")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Makes a savepoint: of the running job now, of a job that does not run from its last checkpoint.
    Create {
        /// Its name [default: the time, as 2013-01-05T03-00-00Z].
        name: Option<String>,
        /// Of this checkpoint, which is still kept, instead: `millstream checkpoint list DIR` shows them.
        #[arg(long, value_name = "NUMBER")]
        checkpoint: Option<u64>,
        #[command(flatten)]
        of: OfJob,
    },
    /// Lists the savepoints of a job.
    List(OfJob),
    /// Shows what a savepoint holds.
    Inspect {
        /// Its directory, or with --state its name.
        #[arg(value_name = "SAVEPOINT")]
        savepoint: PathBuf,
        /// The job directory.
        #[arg(long, value_name = "DIR")]
        state: Option<PathBuf>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Deletes a savepoint.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        of: OfJob,
    },
    /// Copies a savepoint to a directory outside, and verifies the copy.
    Export {
        /// Its name.
        name: String,
        /// A directory that does not exist yet.
        #[arg(value_name = "TO")]
        to: PathBuf,
        #[command(flatten)]
        of: OfJob,
    },
    /// Copies a savepoint from elsewhere into a job directory, and verifies the copy.
    Import {
        /// Its directory.
        #[arg(value_name = "FROM")]
        from: PathBuf,
        /// Its name here [default: the name of its directory].
        #[arg(long, value_name = "NAME")]
        name: Option<String>,
        #[command(flatten)]
        of: OfJob,
    },
}

#[derive(clap::Args)]
struct OfJob {
    /// The job directory: what `millstream run` was given as --state.
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        match &self.command {
            Command::Create { of, .. }
            | Command::List(of)
            | Command::Delete { of, .. }
            | Command::Export { of, .. }
            | Command::Import { of, .. } => of.json,
            Command::Inspect { json, .. } => *json,
        }
    }
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    machine::block_on(async {
        match arguments.command {
            Command::Create { name, checkpoint, of } => create(name, checkpoint, &of).await,
            Command::List(of) => list(&of).await,
            Command::Inspect { savepoint, state, json } => inspect(&savepoint, state.as_deref(), json).await,
            Command::Delete { name, of } => delete(&name, &of).await,
            Command::Export { name, to, of } => export(&name, &to, &of).await,
            Command::Import { from, name, of } => import(&from, name, &of).await,
        }
    })
}

/// A name is one part of a path that nobody has to quote.
pub fn check_name(name: &str) -> Result<(), Failure> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let is_good = (1..=100).contains(&name.len()) && !name.starts_with('.') && !name.starts_with('-') && name.bytes().all(is_plain);
    if is_good {
        return Ok(());
    }
    Err(Failure::new(Exit::Invalid, format!("`{name}` is no name for a savepoint"))
        .fix("use letters, digits, `-`, `_` and `.`, at most 100 of them, beginning with a letter or digit"))
}

/// A savepoint is a copy of a committed checkpoint: of one that the running job takes now, or of the last one.
async fn create(name: Option<String>, checkpoint: Option<u64>, of: &OfJob) -> Result<Exit, Failure> {
    let (place, owner) = Place::existing(&of.state)?;
    let name = name.unwrap_or_else(|| terminal::time(SystemClock.now_ms()).replace(':', "-"));
    check_name(&name)?;
    let (facts, when) = match checkpoint {
        Some(number) => (copied_from(&kept_as(&place, &owner, number).await?, &place, &name).await?, String::new()),
        None => {
            let running: Option<CheckpointReport> = client::ask(&place, &Request::Checkpoint {})?;
            let when = if running.is_some() { " now" } else { " of the last checkpoint, as the job does not run" };
            (made(&place, &owner, &name).await?, when.to_owned())
        }
    };
    terminal::print(&if of.json {
        serde_json::to_string(&facts).expect("facts have string keys only")
    } else {
        format!("savepoint `{name}`{when}: {}, in {}", facts.shown(SystemClock.now_ms()), place.savepoints().join(&name).display())
    });
    Ok(Exit::Done)
}

/// The kept checkpoint with this number.
async fn kept_as(place: &Place, owner: &Owner, number: u64) -> Result<Kept, Failure> {
    let record = kept::record(place, owner).await?;
    let all = record.as_ref().map(kept::all).into_iter().flatten();
    let committed = all.into_iter().find(|committed| committed.checkpoint.0 == number).ok_or_else(|| {
        Failure::new(Exit::Invalid, format!("checkpoint {number} of job `{}` is not kept", owner.job))
            .fix("`millstream checkpoint list DIR` shows those that are")
    })?;
    Kept::committed(place, owner, &committed).await
}

/// Makes a savepoint of the last checkpoint.
pub async fn made(place: &Place, owner: &Owner, name: &str) -> Result<Facts, Failure> {
    let last = Kept::last(place, owner).await?.ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            format!("job `{}` has committed no checkpoint yet, so there is nothing to make a savepoint of", owner.job),
        )
    })?;
    copied_from(&last, place, name).await
}

/// Makes a savepoint of this checkpoint.
pub async fn copied_from(checkpoint: &Kept, place: &Place, name: &str) -> Result<Facts, Failure> {
    Ok(copy::copy(checkpoint, &place.savepoints().join(name), name).await?.facts())
}

async fn list(of: &OfJob) -> Result<Exit, Failure> {
    let (place, _) = Place::existing(&of.state)?;
    let mut found = Vec::new();
    for name in names(&place)? {
        found.push((Kept::savepoint(&place.savepoints().join(&name)).await, name));
    }
    if of.json {
        let shown = |(kept, name): &(Result<Kept, Failure>, String)| match kept {
            Ok(kept) => json!({ "name": name, "savepoint": kept.facts() }),
            Err(failure) => json!({ "name": name, "problems": failure.problems }),
        };
        terminal::print(&serde_json::Value::from(found.iter().map(shown).collect::<Vec<_>>()).to_string());
        return Ok(Exit::Done);
    }
    if found.is_empty() {
        terminal::note("no savepoints");
        return Ok(Exit::Done);
    }
    let row = |(kept, name): &(Result<Kept, Failure>, String)| match kept.as_ref().map(Kept::facts) {
        Ok(facts) => [name.clone(), facts.created.clone(), facts.job.clone(), facts.number.to_string(), terminal::size(facts.bytes)],
        Err(failure) => [name.clone(), failure.problems[0].message.clone(), String::new(), String::new(), String::new()],
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    terminal::print(&terminal::table(["NAME", "TAKEN", "JOB", "CHECKPOINT", "SIZE"], &rows));
    Ok(Exit::Done)
}

/// The names of the savepoints of a job, sorted.
pub fn names(place: &Place) -> Result<Vec<String>, Failure> {
    let entries = match fs::read_dir(place.savepoints()) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Failure::new(Exit::Failed, "the savepoints cannot be listed").because(&error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    // What begins with a dot is being made.
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    Ok(names)
}

async fn inspect(savepoint: &Path, state: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let place = state.map(Place::existing).transpose()?.map(|(place, _)| place);
    let directory = kept::savepoint_directory(savepoint, place.as_ref())?;
    let kept = Kept::savepoint(&directory).await?;
    let facts = kept.facts();
    if json {
        terminal::print(&json!({ "savepoint": facts, "manifest": kept.manifest }).to_string());
        return Ok(Exit::Done);
    }
    let mut text = format!(
        "{STRONG}{}{STRONG:#} of job {}: {}, {}, {} files\n",
        facts.savepoint.as_deref().unwrap_or("a checkpoint"),
        facts.job,
        facts.shown(SystemClock.now_ms()),
        kept::guarantee_text(facts.guarantee),
        facts.files
    );
    let row = |(id, operator): (&OperatorId, &OperatorManifest)| {
        let states = operator.subtasks.iter().filter_map(|subtask| subtask.state.as_ref());
        let bytes = states.flat_map(|state| state.files.values()).map(|file| file.bytes).sum();
        let splits: usize = operator.subtasks.iter().map(|subtask| subtask.splits.len()).sum();
        let key: Vec<&str> = operator.key.iter().map(|column| column.name.as_str()).collect();
        let kind = match operator.kind {
            OperatorKind::Source => "source",
            OperatorKind::Operator => "operator",
            OperatorKind::Sink => "sink",
        };
        [id.to_string(), kind.to_owned(), operator.subtasks.len().to_string(), key.join(", "), terminal::size(bytes), splits.to_string()]
    };
    let rows: Vec<_> = kept.manifest.operators.iter().map(row).collect();
    text += &terminal::table(["ID", "KIND", "SUBTASKS", "KEY", "STATE", "SPLITS"], &rows);
    terminal::print(&text);
    Ok(Exit::Done)
}

async fn delete(name: &str, of: &OfJob) -> Result<Exit, Failure> {
    let (place, _) = Place::existing(&of.state)?;
    check_name(name)?;
    remove(&place, name)?;
    terminal::print(&if of.json { json!({ "deleted": name }).to_string() } else { format!("savepoint `{name}` deleted") });
    Ok(Exit::Done)
}

/// Deletes a savepoint of a job.
pub fn remove(place: &Place, name: &str) -> Result<(), Failure> {
    let directory = kept::savepoint_directory(&place.savepoints().join(name), None)?;
    // Without its manifest it is no savepoint any more, however far the rest comes.
    let deleted = fs::remove_file(directory.join("manifest")).and_then(|()| fs::remove_dir_all(&directory));
    deleted.map_err(|error| Failure::new(Exit::Failed, format!("savepoint `{name}` cannot be deleted")).because(&error))
}

async fn export(name: &str, to: &Path, of: &OfJob) -> Result<Exit, Failure> {
    let (place, _) = Place::existing(&of.state)?;
    check_name(name)?;
    let from = Kept::savepoint(&kept::savepoint_directory(Path::new(name), Some(&place))?).await?;
    let facts = copy::copy(&from, to, name).await?.facts();
    copied(name, to, &facts, of.json)
}

async fn import(from: &Path, name: Option<String>, of: &OfJob) -> Result<Exit, Failure> {
    let place = Place::made(&of.state)?;
    let own = || from.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let name = name.unwrap_or_else(own);
    check_name(&name)?;
    let original = Kept::savepoint(&kept::savepoint_directory(from, None)?).await?;
    let to = place.savepoints().join(&name);
    let facts = copy::copy(&original, &to, &name).await?.facts();
    copied(&name, &to, &facts, of.json)
}

fn copied(name: &str, to: &Path, facts: &Facts, json: bool) -> Result<Exit, Failure> {
    terminal::print(&if json {
        serde_json::to_string(facts).expect("facts have string keys only")
    } else {
        format!("savepoint `{name}`, {} in {} files, copied to {} and verified", terminal::size(facts.bytes), facts.files, to.display())
    });
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_plain_part_of_a_path() {
        for good in ["a", "monday", "2013-01-05T03-00-00Z", "v1.2_x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", ".hidden", "-x", "a b", "ä", "a\n", &"a".repeat(101)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
