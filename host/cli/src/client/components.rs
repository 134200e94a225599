//! `millstream push` and `millstream component`: components of the service.

use std::{fs, path::PathBuf};

use millstream_engine::run::SwitchAt;
use millstream_server::{
    api::{ComponentPhase, ComponentVersion, ComponentView, Progress, PullRequest, Stage, TagSwap, TagSwapOutcome, TagSwapRequest},
    components::Reference,
};
use reqwest::Method;
use serde_json::Value;

use super::{
    Service,
    connection::{Body, Connection, escaped},
};
use crate::{
    report::{Exit, Failure},
    terminal::{self, ERROR, FAINT, GOOD, STRONG},
};

/// How long an answer may wait for the compiler before it says how far that is, in seconds.
const LOOK_S: u64 = 3;

/// Pushes a component to the service, which checks and compiles it.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream push enrich:v2 enrich.wasm
  millstream push enrich enrich.wasm         as enrich:latest")]
pub struct PushArguments {
    /// Its name and tag.
    #[arg(value_name = "NAME:TAG")]
    reference: String,
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    #[command(flatten)]
    pub service: Service,
}

/// Lists, shows and deletes components of the service.
#[derive(clap::Args)]
pub struct ComponentArguments {
    #[command(subcommand)]
    command: ComponentCommand,
}

#[derive(clap::Subcommand)]
enum ComponentCommand {
    /// Lists names with their tags.
    List {
        #[command(flatten)]
        service: Service,
    },
    /// Shows what a component is.
    Show {
        /// As enrich:v2 or enrich@sha256:…
        #[arg(value_name = "NAME:TAG")]
        reference: String,
        #[command(flatten)]
        service: Service,
    },
    /// Points a tag to what another one points to.
    Tag {
        /// What is there.
        #[arg(value_name = "NAME:TAG")]
        from: String,
        /// The tag.
        #[arg(value_name = "TAG")]
        to: String,
        #[command(flatten)]
        service: Service,
    },
    /// Has the service pull a component from an OCI registry, by digest.
    Pull {
        /// Its name and tag here.
        #[arg(value_name = "NAME:TAG")]
        reference: String,
        /// Where it is: HOST/REPOSITORY@sha256:DIGEST.
        #[arg(value_name = "IMAGE")]
        image: String,
        /// A secret of the service that is USER:PASSWORD.
        #[arg(long, value_name = "NAME")]
        secret: Option<String>,
        #[command(flatten)]
        service: Service,
    },
    /// Puts what a tag points to into every job that names it: shows the plan, then swaps one job after the other.
    ///
    /// A job names a tag if its job file does; moving the tag (`push`, `component tag`) touches nothing that runs. If a job refuses, none is swapped.
    Swap {
        /// The tag.
        #[arg(value_name = "NAME:TAG")]
        reference: String,
        /// Only show what would change in which job.
        #[arg(long)]
        dry_run: bool,
        /// All subtasks of a job switch at one barrier.
        #[arg(long)]
        at_barrier: bool,
        /// For how many seconds the old version is kept: the first failure of the new one puts it back.
        #[arg(long, value_name = "S", default_value_t = 30)]
        probation: u64,
        /// Swap although the old version cannot read what the new one writes.
        #[arg(long)]
        one_way: bool,
        /// Swap the other jobs although some refuse.
        #[arg(long)]
        skip_refused: bool,
        #[command(flatten)]
        service: Service,
    },
    /// Deletes a name that no job uses, with its components.
    Delete {
        /// The name.
        name: String,
        #[command(flatten)]
        service: Service,
    },
}

impl ComponentArguments {
    /// Whether results and failures are wanted as JSON.
    pub fn json(&self) -> bool {
        let (ComponentCommand::List { service }
        | ComponentCommand::Show { service, .. }
        | ComponentCommand::Tag { service, .. }
        | ComponentCommand::Pull { service, .. }
        | ComponentCommand::Swap { service, .. }
        | ComponentCommand::Delete { service, .. }) = &self.command;
        service.json
    }
}

pub fn push(arguments: PushArguments) -> Result<Exit, Failure> {
    let reference = Reference::parse(&arguments.reference)?;
    let (name, tag) = tagged(&reference)?;
    let bytes = fs::read(&arguments.file)
        .map_err(|error| Failure::new(Exit::Invalid, format!("`{}` cannot be read", arguments.file.display())).because(&error))?;
    let connection = arguments.service.connect()?;
    let path = format!("/v1/components/{}?tag={}&wait={LOOK_S}", escaped(name), escaped(tag));
    let pushed: ComponentVersion = connection.ask(Method::POST, &path, Body::Bytes("application/wasm", bytes))?;
    let pushed = compiled(&connection, name, pushed)?;
    shown(&pushed, name, tag, "pushed", &arguments.service)
}

/// What came of a component that was pushed or pulled.
fn shown(version: &ComponentVersion, name: &str, tag: &str, done: &str, service: &Service) -> Result<Exit, Failure> {
    if let ComponentPhase::Refused { problems } = &version.phase {
        return Err(Failure::of(Exit::Invalid, problems.clone()));
    }
    Ok(service.show(version, |version| {
        format!("{GOOD}{done}{GOOD:#} {STRONG}{name}:{tag}{STRONG:#}, {}, sha256:{}", terminal::size(version.bytes), version.digest)
    }))
}

/// Waits until it is compiled or refused, and says how far the compiler is.
fn compiled(connection: &Connection, name: &str, mut pushed: ComponentVersion) -> Result<ComponentVersion, Failure> {
    while matches!(pushed.phase, ComponentPhase::Compiling { .. }) {
        if let Some(progress) = &pushed.progress {
            terminal::note(&said(progress));
        }
        pushed = connection.get(&format!("/v1/components/{}/versions/sha256:{}?wait={LOOK_S}", escaped(name), pushed.digest))?;
    }
    Ok(pushed)
}

fn said(progress: &Progress) -> String {
    match progress.stage {
        Stage::Waiting => "waiting for the compiler, which is at another component".to_owned(),
        Stage::Compiling => {
            format!("compiling for {} s; it may take {} s of CPU", progress.seconds, progress.cpu_seconds_max)
        }
    }
}

fn tagged(reference: &Reference) -> Result<(&str, &str), Failure> {
    match &reference.which {
        millstream_server::components::Which::Tag(tag) => Ok((&reference.name, tag)),
        millstream_server::components::Which::Digest(_) => {
            Err(Failure::new(Exit::Invalid, "a digest follows from the bytes and cannot be chosen").fix("say NAME:TAG"))
        }
    }
}

fn version(connection: &Connection, name: &str, which: &str) -> Result<ComponentVersion, Failure> {
    connection.get(&format!("/v1/components/{}/versions/{}", escaped(name), escaped(which)))
}

fn which(reference: &Reference) -> String {
    match &reference.which {
        millstream_server::components::Which::Tag(tag) => tag.clone(),
        millstream_server::components::Which::Digest(digest) => format!("sha256:{digest}"),
    }
}

pub fn component(arguments: ComponentArguments) -> Result<Exit, Failure> {
    match arguments.command {
        ComponentCommand::List { service } => {
            let found: Vec<ComponentView> = service.connect()?.all("/v1/components")?;
            let row =
                |(view, tag, digest): (&ComponentView, &String, &String)| [view.name.clone(), tag.clone(), format!("sha256:{digest}")];
            let rows = found.iter().flat_map(|view| view.tags.iter().map(move |(tag, digest)| (view, tag, digest)));
            let rows: Vec<_> = rows.map(row).collect();
            Ok(service.show(&found, |_| terminal::table(["NAME", "TAG", "DIGEST"], &rows)))
        }
        ComponentCommand::Show { reference, service } => {
            let reference = Reference::parse(&reference)?;
            let found = version(&service.connect()?, &reference.name, &which(&reference))?;
            Ok(service.show(&found, |found| serde_json::to_string_pretty(found).expect("a component has string keys only")))
        }
        ComponentCommand::Tag { from, to, service } => {
            let (reference, connection) = (Reference::parse(&from)?, service.connect()?);
            let digest = version(&connection, &reference.name, &which(&reference))?.digest;
            let path = format!("/v1/components/{}/tags/{}", escaped(&reference.name), escaped(&to));
            let view: ComponentView = connection.ask(Method::PUT, &path, Body::Json(&serde_json::json!({ "digest": digest })))?;
            Ok(service.show(&view, |view| format!("{}:{to} is sha256:{digest}", view.name)))
        }
        ComponentCommand::Pull { reference, image, secret, service } => {
            let (reference, connection) = (Reference::parse(&reference)?, service.connect()?);
            let (name, tag) = tagged(&reference)?;
            let path = format!("/v1/components/{}/pull?tag={}&wait={LOOK_S}", escaped(name), escaped(tag));
            let pulled = connection.post(&path, &PullRequest { reference: image, secret })?;
            shown(&compiled(&connection, name, pulled)?, name, tag, "pulled", &service)
        }
        ComponentCommand::Swap { reference, dry_run, at_barrier, probation, one_way, skip_refused, service } => {
            let switch_at = if at_barrier { SwitchAt::Barrier } else { SwitchAt::Batch };
            let wanted = TagSwapRequest { digest: None, switch_at, probation_s: Some(probation), one_way, dry_run, skip_refused };
            swap_tag(&Reference::parse(&reference)?, wanted, &service)
        }
        ComponentCommand::Delete { name, service } => {
            let gone: Value = service.connect()?.ask(Method::DELETE, &format!("/v1/components/{}", escaped(&name)), Body::Nothing)?;
            Ok(service.show(&gone, |_| format!("component `{name}` deleted")))
        }
    }
}

/// Shows the plan, and then does what was shown: the digest sees to it that the tag has not moved meanwhile.
fn swap_tag(reference: &Reference, wanted: TagSwapRequest, service: &Service) -> Result<Exit, Failure> {
    let (name, tag) = tagged(reference)?;
    let connection = service.connect()?;
    let path = format!("/v1/components/{}/tags/{}/swap", escaped(name), escaped(tag));
    let planned: TagSwap = connection.post(&path, &TagSwapRequest { dry_run: true, ..wanted.clone() })?;
    if wanted.dry_run {
        return Ok(service.show(&planned, tag_swap_text));
    }
    if !service.json {
        terminal::note(&tag_swap_text(&planned));
    }
    let swapped: TagSwap = connection.post(&path, &TagSwapRequest { digest: Some(planned.digest), ..wanted })?;
    let is_refused = swapped.jobs.iter().any(|job| matches!(job.outcome, TagSwapOutcome::Refused { .. }));
    service.show(&swapped, tag_swap_text);
    Ok(if is_refused { Exit::Failed } else { Exit::Done })
}

/// A line for every job, and below what is different or in the way.
fn tag_swap_text(swap: &TagSwap) -> String {
    let mut text = format!("{STRONG}{}{STRONG:#} is sha256:{}\n", swap.reference, swap.digest);
    if swap.jobs.is_empty() {
        text += "  no job names it\n";
    }
    for job in &swap.jobs {
        let (job, operators, outcome) = (&job.job, job.operators.join(", "), &job.outcome);
        match outcome {
            TagSwapOutcome::Current => text += &format!("  {job}: runs it already\n"),
            TagSwapOutcome::Planned { report } => {
                text += &format!("  {job}: {operators} would be swapped, as version {}\n", report.version)
            }
            TagSwapOutcome::Swapped { report } => {
                text += &format!("  {job}: {operators} {GOOD}swapped{GOOD:#}, as version {}\n", report.version)
            }
            TagSwapOutcome::Refused { .. } => text += &format!("  {job}: {operators} {ERROR}refused{ERROR:#}\n"),
        }
        match outcome {
            TagSwapOutcome::Planned { report } | TagSwapOutcome::Swapped { report } => {
                let changes = report.swap.iter().flat_map(|swap| &swap.operators).flat_map(|operator| &operator.changes);
                changes.for_each(|change| text += &format!("    {FAINT}different:{FAINT:#} {}\n", change.what));
            }
            TagSwapOutcome::Refused { problems } => {
                problems.iter().for_each(|problem| text += &format!("    {FAINT}because:{FAINT:#} {}\n", problem.message));
            }
            TagSwapOutcome::Current => {}
        }
    }
    text
}
