//! `millstream savepoint`: checkpoints that a user names, each complete in its own directory.

use std::path::{Path, PathBuf};

use millstream_engine::{
    checkpoint::manifest::OperatorManifest,
    clock::{Clock, SystemClock},
    run::OperatorKind,
};
use millstream_model::ids::OperatorId;
use serde_json::json;

use millstream_server::{
    kept::{self, Facts, Kept},
    place::Place,
    savepoint::{check_name, copied_from, copy, kept_as, made, names, remove},
};

use crate::{
    client::{Service, jobs},
    control::{client, protocol::Request},
    machine,
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
  millstream savepoint create before-upgrade --job flights     of a job of the service
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
        of: OfAny,
    },
    /// Lists the savepoints of a job.
    List(OfAny),
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
        of: OfAny,
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

/// A job directory, or a job of the service.
#[derive(clap::Args)]
struct OfAny {
    /// The job directory: what `millstream run` was given as --state.
    #[arg(long, value_name = "DIR", required_unless_present = "job")]
    state: Option<PathBuf>,
    /// A job of the service, in place of a directory.
    #[arg(long, value_name = "JOB", conflicts_with = "state")]
    job: Option<String>,
    #[command(flatten)]
    service: Service,
}

/// What is meant.
enum Of<'a> {
    Directory(OfJob),
    Job(&'a str),
}

impl OfAny {
    fn which(&self) -> Of<'_> {
        match (&self.job, &self.state) {
            (Some(job), _) => Of::Job(job),
            (None, state) => Of::Directory(OfJob { state: state.clone().unwrap_or_default(), json: self.service.json }),
        }
    }
}

impl Arguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        match &self.command {
            Command::Create { of, .. } | Command::List(of) | Command::Delete { of, .. } => of.service.json,
            Command::Export { of, .. } | Command::Import { of, .. } => of.json,
            Command::Inspect { json, .. } => *json,
        }
    }
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::Create { name, checkpoint, of } => match (of.which(), checkpoint) {
            (Of::Directory(directory), checkpoint) => machine::block_on(create(name, checkpoint, &directory)),
            (Of::Job(job), None) => jobs::take_savepoint(job, name, &of.service),
            (Of::Job(_), Some(_)) => {
                Err(Failure::new(Exit::Invalid, "--checkpoint is for job directories: the service takes savepoints of the present"))
            }
        },
        Command::List(of) => match of.which() {
            Of::Directory(directory) => machine::block_on(list(&directory)),
            Of::Job(job) => jobs::savepoints(job, &of.service),
        },
        Command::Inspect { savepoint, state, json } => machine::block_on(inspect(&savepoint, state.as_deref(), json)),
        Command::Delete { name, of } => match of.which() {
            Of::Directory(directory) => machine::block_on(delete(&name, &directory)),
            Of::Job(job) => jobs::delete_savepoint(job, &name, &of.service),
        },
        Command::Export { name, to, of } => machine::block_on(export(&name, &to, &of)),
        Command::Import { from, name, of } => machine::block_on(import(&from, name, &of)),
    }
}

/// A savepoint is a copy of a committed checkpoint: of one that the running job takes now, or of the last one.
async fn create(name: Option<String>, checkpoint: Option<u64>, of: &OfJob) -> Result<Exit, Failure> {
    let (place, owner) = Place::existing(&of.state)?;
    let name = name.unwrap_or_else(|| terminal::time(SystemClock.now_ms()).replace(':', "-"));
    check_name(&name)?;
    let (facts, when) = match checkpoint {
        Some(number) => (copied_from(&kept_as(&place, &owner, number).await?, &place, &name).await?, String::new()),
        None => {
            let running: Option<Facts> = client::ask(&place, &Request::Savepoint { name: name.clone() })?;
            match running {
                Some(facts) => (facts, " now".to_owned()),
                None => (made(&place, &owner, &name).await?, " of the last checkpoint, as the job does not run".to_owned()),
            }
        }
    };
    terminal::print(&if of.json {
        serde_json::to_string(&facts).expect("facts have string keys only")
    } else {
        format!("savepoint `{name}`{when}: {}, in {}", facts.shown(SystemClock.now_ms()), place.savepoints().join(&name).display())
    });
    Ok(Exit::Done)
}

async fn list(of: &OfJob) -> Result<Exit, Failure> {
    let (place, _) = Place::existing(&of.state)?;
    let mut found = Vec::new();
    for name in names(&place)? {
        found.push((Kept::savepoint(&place.savepoints().join(&name)).await.map_err(Failure::from), name));
    }
    if of.json {
        let shown = |(kept, name): &(Result<Kept, Failure>, String)| match kept {
            Ok(kept) => json!({ "name": name, "savepoint": kept.facts() }),
            Err(failure) => json!({ "name": name, "problems": failure.told.problems }),
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
        Err(failure) => [name.clone(), failure.told.problems[0].message.clone(), String::new(), String::new(), String::new()],
    };
    let rows: Vec<_> = found.iter().map(row).collect();
    terminal::print(&terminal::table(["NAME", "TAKEN", "JOB", "CHECKPOINT", "SIZE"], &rows));
    Ok(Exit::Done)
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
