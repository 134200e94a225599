//! `millstream push` and `millstream component`: components of the service.

use std::{fs, path::PathBuf};

use millstream_server::{
    api::{ComponentPhase, ComponentVersion, ComponentView},
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
    terminal::{self, GOOD, STRONG},
};

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
    let path = format!("/v1/components/{}?tag={}&wait=60", escaped(name), escaped(tag));
    let mut pushed: ComponentVersion = connection.ask(Method::POST, &path, Body::Bytes("application/wasm", bytes))?;
    while matches!(pushed.phase, ComponentPhase::Compiling { .. }) {
        terminal::note("the service is still compiling it");
        pushed = version(&connection, name, &format!("sha256:{}", pushed.digest))?;
    }
    if let ComponentPhase::Refused { problems } = pushed.phase {
        return Err(Failure { exit: Exit::Invalid, problems });
    }
    Ok(arguments.service.show(&pushed, |pushed| {
        format!("{GOOD}pushed{GOOD:#} {STRONG}{name}:{tag}{STRONG:#}, {}, sha256:{}", terminal::size(pushed.bytes), pushed.digest)
    }))
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
        ComponentCommand::Delete { name, service } => {
            let gone: Value = service.connect()?.ask(Method::DELETE, &format!("/v1/components/{}", escaped(&name)), Body::Nothing)?;
            Ok(service.show(&gone, |_| format!("component `{name}` deleted")))
        }
    }
}
