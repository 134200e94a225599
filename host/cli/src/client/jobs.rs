//! `millstream submit`, `jobs`, `pause`, `resume`, `scale`, `delete`, `versions`; and what `stop`, `status`, `savepoint` and `state` do for a job of the service.

use std::{fs, io, num::NonZeroU32, path::PathBuf, thread, time::Duration};

use millstream_server::api::{
    Desired, JobView, NewSavepoint, Origin, Page, Phase, RunView, SavepointView, ScaleRequest, StateEntries, StopRequest, VersionView,
};
use reqwest::Method;
use serde_json::Value;

use super::{
    Service,
    connection::{Body, Connection, escaped},
};
use crate::{
    report::{Exit, Failure},
    summary,
    terminal::{self, ERROR, FAINT, GOOD, STRONG},
};

/// How often `--watch` looks.
const WATCH: Duration = Duration::from_secs(1);

/// Submits a job to the service and starts it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream submit job.yaml
  millstream submit job.yaml --replace           the job goes on from its last checkpoint, as the new file says
  millstream submit --from flights/monday --name fork")]
pub struct SubmitArguments {
    /// The job file [default: with --from, that of the savepoint].
    #[arg(value_name = "JOB.yaml", required_unless_present = "from")]
    file: Option<PathBuf>,
    /// The name of the job, in place of the one in the file.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Start from a savepoint of another job.
    #[arg(long, value_name = "JOB/SAVEPOINT")]
    from: Option<String>,
    /// Put the file in the place of that of the job that runs under this name.
    #[arg(long, conflicts_with_all = ["from", "name", "paused"])]
    replace: bool,
    /// Do not start it yet.
    #[arg(long)]
    paused: bool,
    /// Only check it, and show how it would run.
    #[arg(long, conflicts_with_all = ["from", "replace", "paused"])]
    dry_run: bool,
    #[command(flatten)]
    pub service: Service,
}

/// Lists the jobs of the service.
#[derive(clap::Args)]
pub struct JobsArguments {
    /// Show them again every second.
    #[arg(long, short)]
    watch: bool,
    #[command(flatten)]
    pub service: Service,
}

/// Which job of the service.
#[derive(clap::Args)]
pub struct JobArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    #[command(flatten)]
    pub service: Service,
}

/// Changes the parallelism of a job of the service: it stops behind a checkpoint and goes on from there.
#[derive(clap::Args)]
pub struct ScaleArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// Parallel subtasks of everything that does not say its own.
    #[arg(value_name = "N")]
    parallelism: NonZeroU32,
    #[command(flatten)]
    pub service: Service,
}

/// Deletes a job of the service that does not run, with its checkpoints.
#[derive(clap::Args)]
pub struct DeleteArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// Its savepoints go with it.
    #[arg(long)]
    with_savepoints: bool,
    #[command(flatten)]
    pub service: Service,
}

pub fn path(job: &str, behind: &str) -> String {
    format!("/v1/jobs/{}{behind}", escaped(job))
}

pub fn submit(arguments: SubmitArguments) -> Result<Exit, Failure> {
    let text = match &arguments.file {
        Some(file) => fs::read(file).map_err(|error: io::Error| {
            Failure::new(Exit::Invalid, format!("the job file `{}` cannot be read", file.display())).because(&error)
        })?,
        None => Vec::new(),
    };
    let connection = arguments.service.connect()?;
    let body = Body::Bytes("application/yaml", text);
    let in_file = |failure: Failure| in_file(failure, arguments.file.as_deref());
    if arguments.dry_run {
        let plan: millstream_server::api::Plan = connection.ask(Method::POST, "/v1/validate", body).map_err(in_file)?;
        return Ok(arguments.service.show(&plan, |plan| plan.explanation.clone()));
    }
    if arguments.replace {
        let Body::Bytes(_, text) = &body else { return Err(Failure::new(Exit::Invalid, "there is no job file")) };
        let plan: millstream_server::api::Plan =
            connection.ask(Method::POST, "/v1/validate", Body::Bytes("application/yaml", text.clone())).map_err(in_file)?;
        let view: JobView = connection.ask(Method::PUT, &path(&plan.job, ""), body).map_err(in_file)?;
        return Ok(arguments
            .service
            .show(&view, |view| format!("{STRONG}{}{STRONG:#} is version {} now, {}", view.name, view.version, phase(view))));
    }
    let mut query = vec![format!("paused={}", arguments.paused)];
    query.extend(arguments.name.iter().map(|name| format!("name={}", escaped(name))));
    query.extend(arguments.from.iter().map(|from| format!("from={}", escaped(from))));
    let view: JobView = connection.ask(Method::POST, &format!("/v1/jobs?{}", query.join("&")), body).map_err(in_file)?;
    Ok(arguments.service.show(&view, |view| format!("{STRONG}{}{STRONG:#} submitted, {}", view.name, phase(view))))
}

/// The service does not know what the file is called.
fn in_file(mut failure: Failure, file: Option<&std::path::Path>) -> Failure {
    for problem in failure.told.problems.iter_mut().filter(|problem| problem.line.is_some()) {
        problem.file = file.map(PathBuf::from);
    }
    failure
}

fn phase(view: &JobView) -> String {
    let name = view.observed.phase.name();
    match view.observed.phase {
        Phase::Running | Phase::Finished => format!("{GOOD}{name}{GOOD:#}"),
        Phase::Failed => format!("{ERROR}{name}{ERROR:#}"),
        Phase::Starting | Phase::Stopping | Phase::Stopped => name.to_owned(),
    }
}

pub fn jobs(arguments: JobsArguments) -> Result<Exit, Failure> {
    let connection = arguments.service.connect()?;
    loop {
        let found: Vec<JobView> = connection.all("/v1/jobs")?;
        let row = |view: &JobView| {
            let wanted = match view.desired {
                Desired::Running => "running",
                Desired::Paused => "paused",
                Desired::Stopped => "stopped",
            };
            // A job without a problem shows none.
            let problem = view.observed.problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
            [
                view.name.clone(),
                wanted.to_owned(),
                view.observed.phase.name().to_owned(),
                view.version.to_string(),
                terminal::time(view.observed.since_ms),
                problem,
            ]
        };
        let rows: Vec<_> = found.iter().map(row).collect();
        if arguments.watch && !arguments.service.json {
            terminal::print("\u{1b}[2J\u{1b}[H");
        }
        arguments.service.show(&found, |_| terminal::table(["NAME", "WANTED", "PHASE", "VERSION", "SINCE", ""], &rows));
        if !arguments.watch {
            return Ok(Exit::Done);
        }
        wait();
    }
}

#[expect(clippy::disallowed_methods, reason = "a person watches; nothing else happens in this process")]
fn wait() {
    thread::sleep(WATCH);
}

fn changed(arguments: &JobArguments, what: &str) -> Result<Exit, Failure> {
    let view: JobView = arguments.service.connect()?.post(&path(&arguments.job, what), &serde_json::json!({}))?;
    Ok(arguments.service.show(&view, |view| format!("{STRONG}{}{STRONG:#} {}", view.name, phase(view))))
}

pub fn pause(arguments: JobArguments) -> Result<Exit, Failure> {
    changed(&arguments, "/pause")
}

pub fn resume(arguments: JobArguments) -> Result<Exit, Failure> {
    changed(&arguments, "/resume")
}

pub fn scale(arguments: ScaleArguments) -> Result<Exit, Failure> {
    let request = ScaleRequest { parallelism: arguments.parallelism.get() };
    let view: JobView = arguments.service.connect()?.post(&path(&arguments.job, "/scale"), &request)?;
    Ok(arguments.service.show(&view, |view| format!("{STRONG}{}{STRONG:#} {}, as version {}", view.name, phase(view), view.version)))
}

pub fn delete(arguments: DeleteArguments) -> Result<Exit, Failure> {
    let behind = if arguments.with_savepoints { "?savepoints=delete" } else { "" };
    let gone: Value = arguments.service.connect()?.ask(Method::DELETE, &path(&arguments.job, behind), Body::Nothing)?;
    Ok(arguments.service.show(&gone, |_| format!("job `{}` deleted", arguments.job)))
}

pub fn versions(arguments: JobArguments) -> Result<Exit, Failure> {
    let found: Page<VersionView> = arguments.service.connect()?.get(&path(&arguments.job, "/versions"))?;
    let row = |version: &VersionView| {
        let origin = match &version.origin {
            Origin::Submitted => "submitted".to_owned(),
            Origin::Replaced => "replaced".to_owned(),
            Origin::Swapped { operators } => format!("swapped {}", operators.join(", ")),
            Origin::Scaled => "scaled".to_owned(),
            Origin::RolledBack { to } => format!("rolled back to {to}"),
        };
        let components: Vec<&str> = version.components.keys().map(String::as_str).collect();
        [version.number.to_string(), terminal::time(version.at_ms), version.by.clone(), origin, components.join(", ")]
    };
    let rows: Vec<_> = found.items.iter().map(row).collect();
    Ok(arguments.service.show(&found, |_| terminal::table(["VERSION", "MADE", "BY", "HOW", "COMPONENTS"], &rows)))
}

/// `millstream status` of a job of the service.
pub fn status(job: &str, service: &Service) -> Result<Exit, Failure> {
    let connection = service.connect()?;
    let view: JobView = connection.get(&path(job, ""))?;
    let run: RunView = connection.get(&path(job, "/run"))?;
    Ok(service.show(&run, |run| {
        let mut text = format!("{STRONG}{}{STRONG:#} {}, version {}\n", view.name, phase(&view), view.version);
        text += &summary::operators(&run.operators);
        for problem in &run.observed.problems {
            text += &format!(
                "  {ERROR}{}{ERROR:#}{}\n",
                problem.message,
                problem.causes.iter().map(|cause| format!("\n    {FAINT}because:{FAINT:#} {cause}")).collect::<String>()
            );
        }
        text
    }))
}

/// `millstream stop` of a job of the service.
pub fn stop(job: &str, savepoint: Option<String>, at_once: bool, service: &Service) -> Result<Exit, Failure> {
    // Nobody asked for one.
    let taken = savepoint.as_ref().map(|name| format!(", savepoint `{name}`")).unwrap_or_default();
    let view: JobView = service.connect()?.post(&path(job, "/stop"), &StopRequest { savepoint, at_once })?;
    Ok(service.show(&view, |view| format!("{} {}{taken}", view.name, phase(view))))
}

/// `millstream savepoint create` of a job of the service.
pub fn take_savepoint(job: &str, name: Option<String>, service: &Service) -> Result<Exit, Failure> {
    let taken: SavepointView = service.connect()?.post(&path(job, "/savepoints"), &NewSavepoint { name })?;
    Ok(service.show(&taken, |taken| {
        format!("savepoint `{}` of {job}: checkpoint {}, {}", taken.name, taken.facts.number, terminal::size(taken.facts.bytes))
    }))
}

/// `millstream savepoint list` of a job of the service.
pub fn savepoints(job: &str, service: &Service) -> Result<Exit, Failure> {
    let found: Page<SavepointView> = service.connect()?.get(&path(job, "/savepoints"))?;
    let row = |savepoint: &SavepointView| {
        let version = savepoint.version.map_or_else(|| "-".to_owned(), |version| version.to_string());
        [
            savepoint.name.clone(),
            savepoint.facts.created.clone(),
            version,
            savepoint.facts.number.to_string(),
            terminal::size(savepoint.facts.bytes),
        ]
    };
    let rows: Vec<_> = found.items.iter().map(row).collect();
    Ok(service.show(&found, |_| terminal::table(["NAME", "TAKEN", "VERSION", "CHECKPOINT", "SIZE"], &rows)))
}

/// `millstream savepoint delete` of a job of the service.
pub fn delete_savepoint(job: &str, name: &str, service: &Service) -> Result<Exit, Failure> {
    let gone: Value = service.connect()?.ask(Method::DELETE, &path(job, &format!("/savepoints/{}", escaped(name))), Body::Nothing)?;
    Ok(service.show(&gone, |_| format!("savepoint `{name}` deleted")))
}

/// `millstream state get` and `scan` of a job of the service: entries, one JSON object per line.
pub fn read_state(connection: &Connection, job: &str, operator: &str, query: &str) -> Result<StateEntries, Failure> {
    connection.get(&path(job, &format!("/state/{}?{query}", escaped(operator))))
}
