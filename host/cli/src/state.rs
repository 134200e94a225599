//! `millstream state`: a look into the state of a job or a savepoint.
//!
//! What is looked into is a committed checkpoint: of a job directory the last one, whether the job runs or not. Its files are copied into a temporary
//! directory, verified, and read through a store of their own; nothing of the job is touched.

mod entries;
mod format;
mod key;

use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use entries::Entries;
use format::{Format, Writer};
use millstream_engine::checkpoint::manifest::{OperatorManifest, StateManifest};
use millstream_model::{
    state::{StateDescriptor, StateKind},
    types::type_text,
};
use serde::Serialize;

use crate::{
    kept::Kept,
    machine,
    report::{Exit, Failure},
    terminal,
};

/// Shows the state that operators keep, typed.
///
/// PLACE is a job directory (then its last committed checkpoint is read, whether the job runs or not) or the directory of a savepoint.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream state list state
  millstream state get state aircraft --key tailnum=N14228
  millstream state scan state aircraft --limit 20
  millstream state scan state aircraft --json | jq 'select(.value.flights > 100)'
  millstream state export state/savepoints/monday aircraft --format parquet --output aircraft.parquet

Exit codes:
  0  shown
  1  there is no state for the key, no checkpoint yet, or a file is damaged
  2  there is no such place, operator, state or key column")]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Lists operators with their keys, states, types and sizes.
    List {
        /// A job directory or a savepoint.
        #[arg(value_name = "PLACE")]
        place: PathBuf,
        /// Only this operator.
        operator: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Shows what is kept for one key.
    Get {
        #[command(flatten)]
        of: Of,
        /// A column of the key and its value; alone: null. Once for every column.
        #[arg(long, value_name = "COLUMN=VALUE", value_parser = key::said)]
        key: Vec<(String, Option<String>)>,
        /// Print one JSON object per entry.
        #[arg(long)]
        json: bool,
    },
    /// Shows what is kept, key by key.
    Scan {
        #[command(flatten)]
        of: Of,
        /// Entries, at most.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
        /// Print one JSON object per entry.
        #[arg(long)]
        json: bool,
    },
    /// Writes all entries to a file.
    Export {
        #[command(flatten)]
        of: Of,
        /// As NDJSON, CSV (structs as dotted columns) or Parquet.
        #[arg(long, value_enum, default_value_t = Format::Json)]
        format: Format,
        /// A file that does not exist yet [default: standard output].
        #[arg(long, short, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Print the number of entries as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(clap::Args)]
struct Of {
    /// A job directory or a savepoint.
    #[arg(value_name = "PLACE")]
    place: PathBuf,
    /// Its id in the job file.
    #[arg(value_name = "OPERATOR")]
    operator: String,
    /// Which of its states [default: its only one].
    #[arg(long, value_name = "NAME")]
    state_name: Option<String>,
}

impl Arguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        match self.command {
            Command::List { json, .. } | Command::Get { json, .. } | Command::Scan { json, .. } | Command::Export { json, .. } => json,
        }
    }
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    machine::block_on(async {
        match arguments.command {
            Command::List { place, operator, json } => list(&place, operator.as_deref(), json).await,
            Command::Get { of, key, json } => get(&of, &key, json).await,
            Command::Scan { of, limit, json } => scan(&of, limit, json).await,
            Command::Export { of, format, output, json } => export(&of, format, output.as_deref(), json).await,
        }
    })
}

impl Of {
    async fn open(&self) -> Result<Entries, Failure> {
        let kept = Kept::at(&self.place).await?;
        Entries::open(&kept, &self.operator, self.state_name.as_deref()).await
    }
}

/// One state, as it is listed.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listed {
    operator: String,
    key: Vec<String>,
    state: String,
    kind: &'static str,
    version: u32,
    #[serde(rename = "type")]
    value_type: String,
    subtasks: usize,
    /// Of all states of the operator.
    operator_bytes: u64,
}

async fn list(place: &Path, only: Option<&str>, json: bool) -> Result<Exit, Failure> {
    let kept = Kept::at(place).await?;
    let mut listed = Vec::new();
    for (id, operator) in kept.manifest.operators.iter().filter(|(id, _)| only.is_none_or(|only| id.as_str() == only)) {
        listed.extend(states(id.as_str(), operator)?);
    }
    if json {
        terminal::print(&serde_json::to_string(&listed).expect("states have string keys only"));
        return Ok(Exit::Done);
    }
    if listed.is_empty() {
        terminal::note("no state is kept");
        return Ok(Exit::Done);
    }
    let row = |state: &Listed| {
        let Listed { operator, key, state: name, kind, version, value_type, operator_bytes, .. } = state;
        let version = version.to_string();
        [operator.clone(), key.join(", "), name.clone(), (*kind).to_owned(), version, terminal::size(*operator_bytes), value_type.clone()]
    };
    let rows: Vec<_> = listed.iter().map(row).collect();
    terminal::print(&terminal::table(["OPERATOR", "KEY", "STATE", "KIND", "VERSION", "SIZE", "TYPE"], &rows));
    Ok(Exit::Done)
}

fn states(id: &str, operator: &OperatorManifest) -> Result<Vec<Listed>, Failure> {
    let parts: Vec<&StateManifest> = operator.subtasks.iter().filter_map(|subtask| subtask.state.as_ref()).collect();
    let Some(first) = parts.first() else { return Ok(Vec::new()) };
    let descriptors = first.description.state_descriptors();
    let descriptors = descriptors.map_err(|error| Failure::from_error(Exit::of(error.kind()), &error))?;
    let operator_bytes = parts.iter().flat_map(|part| part.files.values()).map(|file| file.bytes).sum();
    let listed = |state: StateDescriptor| Listed {
        operator: id.to_owned(),
        key: operator.key.iter().map(|column| format!("{}: {}", column.name, column.data_type)).collect(),
        kind: match state.kind {
            StateKind::Value => "value",
            StateKind::OrderedMap => "map",
            StateKind::AppendedList => "list",
        },
        version: state.version,
        value_type: match &state.map_key_type {
            Some(map_key) => format!("{} → {}", type_text(map_key), type_text(&state.value_type)),
            None => type_text(&state.value_type),
        },
        state: state.name,
        subtasks: parts.len(),
        operator_bytes,
    };
    Ok(descriptors.into_iter().map(listed).collect())
}

async fn get(of: &Of, key: &[(String, Option<String>)], json: bool) -> Result<Exit, Failure> {
    let entries = of.open().await?;
    let key = entries.key(key)?;
    let mut found = Vec::new();
    entries.read(Some(&key), |page| {
        found.push(page);
        Ok(ControlFlow::Continue(()))
    })?;
    if found.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("`{}` keeps no state for this key", of.operator)));
    }
    show(&found, json)
}

async fn scan(of: &Of, limit: usize, json: bool) -> Result<Exit, Failure> {
    let entries = of.open().await?;
    let (mut found, mut left) = (Vec::new(), limit);
    entries.read(None, |page| {
        let taken = page.slice(0, page.num_rows().min(left));
        left -= taken.num_rows();
        found.push(taken);
        Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    show(&found, json)
}

fn show(found: &[RecordBatch], json: bool) -> Result<Exit, Failure> {
    let unshowable = |error: ArrowError| Failure::new(Exit::Failed, "the entries cannot be shown").because(&error);
    let Some(first) = found.first().filter(|_| json) else {
        terminal::print(&format::table(found).map_err(unshowable)?);
        return Ok(Exit::Done);
    };
    let mut writer = Writer::new(Format::Json, Vec::new(), first.schema()).map_err(unshowable)?;
    found.iter().try_for_each(|page| writer.write(page)).map_err(unshowable)?;
    terminal::print(&String::from_utf8_lossy(&writer.finish().map_err(unshowable)?));
    Ok(Exit::Done)
}

async fn export(of: &Of, format: Format, output: Option<&Path>, json: bool) -> Result<Exit, Failure> {
    let entries = of.open().await?;
    let to: Box<dyn Write + Send> = match output {
        Some(file) => Box::new(BufWriter::new(File::create_new(file).map_err(|error| {
            Failure::new(Exit::Failed, format!("`{}` cannot be made", file.display()))
                .because(&error)
                .fix("name a file that does not exist")
        })?)),
        None => Box::new(std::io::stdout()),
    };
    let failed = |error: ArrowError| Failure::new(Exit::Failed, "the entries cannot be written").because(&error);
    let (mut writer, mut rows) = (Writer::new(format, to, entries.schema()?).map_err(failed)?, 0);
    entries.read(None, |page| {
        rows += page.num_rows();
        writer.write(&page).map_err(failed)?;
        Ok(ControlFlow::Continue(()))
    })?;
    writer.finish().map_err(failed)?.flush().map_err(|error| failed(error.into()))?;
    terminal::note(&if json { serde_json::json!({ "entries": rows }).to_string() } else { format!("{rows} entries") });
    Ok(Exit::Done)
}
