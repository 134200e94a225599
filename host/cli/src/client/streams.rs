//! `millstream logs`, `tail` and `events`: what comes as it comes; `results`: what came of it.

use millstream_server::api::{Event, Line, Page};
use serde_json::Value;

use super::{Service, connection::escaped, jobs::path};
use crate::{
    report::{Exit, Failure},
    terminal::{self, FAINT, WARNING},
};

/// Results that are asked for at once.
const ROWS_ON_A_PAGE: usize = 1_000;

/// Shows the log lines of the components of a job of the service.
#[derive(clap::Args)]
pub struct LogsArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// The last so many.
    #[arg(long, short = 'n', value_name = "N", default_value_t = 100)]
    lines: usize,
    /// Go on with those to come.
    #[arg(long, short)]
    follow: bool,
    #[command(flatten)]
    pub service: Service,
}

/// Shows the rows that an operator or source of a job of the service emits, or a sink is given, as they come.
///
/// The job does not wait for who looks: rows that are not kept up with are counted as missed.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream tail counts results
  millstream tail counts results --rows 10 | jq .count")]
pub struct TailArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// Its id in the job file.
    #[arg(value_name = "OPERATOR")]
    operator: String,
    /// End after so many rows.
    #[arg(long, short = 'n', value_name = "N")]
    rows: Option<u64>,
    #[command(flatten)]
    pub service: Service,
}

/// Shows the rows that a finished job of the service has written to a `files` sink.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream results counts
  millstream results counts --sink late --rows 10 | jq .count")]
pub struct ResultsArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// The sink [default: the only one that can be read back].
    #[arg(long, value_name = "SINK")]
    sink: Option<String>,
    /// End after so many rows.
    #[arg(long, short = 'n', value_name = "N")]
    rows: Option<usize>,
    #[command(flatten)]
    pub service: Service,
}

/// Shows what happens to the jobs of the service, or to one of them, as it happens.
#[derive(clap::Args)]
pub struct EventsArguments {
    /// Only of this job.
    #[arg(value_name = "JOB")]
    job: Option<String>,
    #[command(flatten)]
    pub service: Service,
}

pub fn logs(arguments: LogsArguments) -> Result<Exit, Failure> {
    let connection = arguments.service.connect()?;
    let json = arguments.service.json;
    let query = format!("/logs?limit={}", arguments.lines);
    if !arguments.follow {
        let page: Page<Line> = connection.get(&path(&arguments.job, &query))?;
        page.items.iter().for_each(|line| show_line(line, json));
        return Ok(Exit::Done);
    }
    connection.follow(&path(&arguments.job, &format!("{query}&follow=true")), |_, data| {
        if let Ok(line) = serde_json::from_value::<Line>(data) {
            show_line(&line, json);
        }
        true
    })?;
    Ok(Exit::Done)
}

fn show_line(line: &Line, json: bool) {
    if json {
        return terminal::print(&serde_json::to_string(line).expect("a line has string keys only"));
    }
    let mut place = line.operator.as_ref().map(|operator| format!(" {operator}")).unwrap_or_default();
    let parts = [("/", line.subtask.map(|subtask| subtask.to_string())), ("@", line.version.clone()), (" key ", line.key_hash.clone())];
    place.extend(parts.into_iter().filter_map(|(before, part)| Some(format!("{before}{}", part?))));
    place.extend(line.event_time_ms.map(|at_ms| format!(" at {}", terminal::time(at_ms))));
    place.extend(line.source.as_ref().zip(line.position).map(|(source, position)| format!(" from {source}:{position}")));
    terminal::print(&format!("{FAINT}{}{place}{FAINT:#} {:<5} {}", terminal::time(line.at_ms), line.level, line.message));
}

pub fn tail(arguments: TailArguments) -> Result<Exit, Failure> {
    let connection = arguments.service.connect()?;
    // No number: until who looks has seen enough.
    let query = arguments.rows.map(|rows| format!("?rows={rows}")).unwrap_or_default();
    let path = path(&arguments.job, &format!("/operators/{}/tail{query}", escaped(&arguments.operator)));
    connection.follow(&path, |name, data| {
        match name {
            "rows" => data["rows"].as_array().into_iter().flatten().for_each(|row| terminal::print(&row.to_string())),
            "missed" => terminal::note(&format!("{WARNING}{} rows were not kept up with{WARNING:#}", data["rows"])),
            _ => terminal::note(&data.to_string()),
        }
        true
    })?;
    Ok(Exit::Done)
}

pub fn results(arguments: ResultsArguments) -> Result<Exit, Failure> {
    let connection = arguments.service.connect()?;
    // No sink: the service knows whether there is only one.
    let sink = arguments.sink.as_deref().map(|sink| format!("&sink={}", escaped(sink))).unwrap_or_default();
    let mut left = arguments.rows.unwrap_or(usize::MAX);
    let mut cursor = String::new();
    while left > 0 {
        let query = format!("/results?limit={}{sink}{cursor}", left.min(ROWS_ON_A_PAGE));
        let page: Page<Value> = connection.get(&path(&arguments.job, &query))?;
        page.items.iter().for_each(|row| terminal::print(&row.to_string()));
        left -= page.items.len().min(left);
        let Some(next) = page.next else { break };
        cursor = format!("&cursor={}", escaped(&next));
    }
    Ok(Exit::Done)
}

pub fn events(arguments: EventsArguments) -> Result<Exit, Failure> {
    let connection = arguments.service.connect()?;
    let json = arguments.service.json;
    let path = arguments.job.as_deref().map_or_else(|| "/v1/events".to_owned(), |job| path(job, "/events"));
    connection.follow(&path, |_, data: Value| {
        match serde_json::from_value::<Event>(data.clone()) {
            Ok(event) if !json => {
                let what = serde_json::to_value(&event.what).expect("events have string keys only");
                // What happens to no job happens to the service.
                let job = event.job.unwrap_or_default();
                terminal::print(&format!("{FAINT}{}{FAINT:#} {job} {what}", terminal::time(event.at_ms)));
            }
            _ => terminal::print(&data.to_string()),
        }
        true
    })?;
    Ok(Exit::Done)
}
