//! `millstream state`: a look into the state of a job or a savepoint.
//!
//! What is looked into is a committed checkpoint: of a job directory the last one, whether the job runs or not. Its files are copied into a temporary
//! directory, verified, and read through a store of their own; nothing of the job is touched.

mod format;

use std::{
    fs::File,
    io::{BufWriter, Write},
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use format::{Format, Writer};

use millstream_server::{
    kept::Kept,
    state::{self, Entries, Listed, key},
};

use crate::{
    client::{
        Service,
        connection::escaped,
        jobs,
        place::{self, Target},
    },
    machine,
    report::{Exit, Failure},
    terminal,
};

/// Shows the state that operators keep, typed.
///
/// PLACE is a job directory (then its last committed checkpoint is read, whether the job runs or not), the directory of a savepoint, or a job of the
/// service that you have logged in to.
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
        #[command(flatten)]
        service: Service,
    },
    /// Shows what is kept, key by key.
    Scan {
        #[command(flatten)]
        of: Of,
        /// Entries, at most.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
        #[command(flatten)]
        service: Service,
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
    /// A job directory or a savepoint; or, to get and to scan, a job of the service. A directory that exists is one (`./NAME` to be sure), `job:NAME` is
    /// always a job of the service.
    #[arg(value_name = "PLACE|JOB")]
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
            Command::List { json, .. } | Command::Export { json, .. } => json,
            Command::Get { ref service, .. } | Command::Scan { ref service, .. } => service.json,
        }
    }
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    match arguments.command {
        Command::List { place, operator, json } => machine::block_on(list(&place, operator.as_deref(), json)),
        Command::Get { of, key, service } => match place::target(&of.place, &service) {
            Target::Directory(_) => machine::block_on(get(&of, &key, service.json)),
            Target::Job(job) => of_service(&job, &of, &key, 10_000, &service),
        },
        Command::Scan { of, limit, service } => match place::target(&of.place, &service) {
            Target::Directory(_) => machine::block_on(scan(&of, limit, service.json)),
            Target::Job(job) => of_service(&job, &of, &[], limit, &service),
        },
        Command::Export { of, format, output, json } => machine::block_on(export(&of, format, output.as_deref(), json)),
    }
}

/// Entries of a job of the service, one JSON object per line.
fn of_service(job: &str, of: &Of, key: &[(String, Option<String>)], limit: usize, service: &Service) -> Result<Exit, Failure> {
    let mut query = vec![format!("limit={limit}")];
    query.extend(of.state_name.iter().map(|name| format!("state={}", escaped(name))));
    let column = |(name, value): &(String, Option<String>)| match value {
        Some(value) => format!("{name}={value}"),
        None => name.clone(),
    };
    if !key.is_empty() {
        query.push(format!("key={}", escaped(&key.iter().map(column).collect::<Vec<_>>().join(","))));
    }
    let found = jobs::read_state(&service.connect()?, job, &of.operator, &query.join("&"))?;
    if found.entries.is_empty() && !key.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("`{}` keeps no state for this key", of.operator)));
    }
    found.entries.iter().for_each(|entry| terminal::print(&entry.to_string()));
    Ok(Exit::Done)
}

impl Of {
    async fn open(&self) -> Result<Entries, Failure> {
        let kept = Kept::at(&self.place).await?;
        Ok(Entries::open(&kept, &self.operator, self.state_name.as_deref()).await?)
    }
}

async fn list(place: &Path, only: Option<&str>, json: bool) -> Result<Exit, Failure> {
    let kept = Kept::at(place).await?;
    let listed = state::list(&kept, only)?;
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
        [operator.clone(), key.join(", "), name.clone(), kind.clone(), version, terminal::size(*operator_bytes), value_type.clone()]
    };
    let rows: Vec<_> = listed.iter().map(row).collect();
    terminal::print(&terminal::table(["OPERATOR", "KEY", "STATE", "KIND", "VERSION", "SIZE", "TYPE"], &rows));
    Ok(Exit::Done)
}

async fn get(of: &Of, key: &[(String, Option<String>)], json: bool) -> Result<Exit, Failure> {
    let entries = of.open().await?;
    let key = entries.key(key)?;
    let mut found = Vec::new();
    entries.read(Some(&key), |page| {
        found.push(page);
        Ok::<_, Failure>(ControlFlow::Continue(()))
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
        Ok::<_, Failure>(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
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
        Ok::<_, Failure>(ControlFlow::Continue(()))
    })?;
    writer.finish().map_err(failed)?.flush().map_err(|error| failed(error.into()))?;
    terminal::note(&if json { serde_json::json!({ "entries": rows }).to_string() } else { format!("{rows} entries") });
    Ok(Exit::Done)
}
