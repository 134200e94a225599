//! `millstream inspect`: what a component is and says of itself.
//!
//! The facts come from its bytes, without running it; name, ports and settings from its `describe`, which runs under all limits.

use std::{fmt::Write as _, path::PathBuf};

use millstream_wasm::{AggregateDescriptor, Component, Descriptor, Inspection, InstanceContext, World};
use serde::Serialize;

use crate::{
    machine,
    report::{Exit, Failure},
    terminal::{self, FAINT, STRONG},
};

/// Shows what a component is: name, world, imports and exports, size, digest, ports and settings.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream inspect worst-delay.wasm
  millstream inspect --json worst-delay.wasm | jq .settings-schema")]
pub struct Arguments {
    /// The component.
    #[arg(value_name = "FILE.wasm")]
    file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// Everything that is shown.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Facts {
    #[serde(flatten)]
    said: Said,
    worlds: Vec<&'static str>,
    size_bytes: u64,
    digest: String,
    imports: Vec<String>,
    exports: Vec<String>,
    made_by: Vec<String>,
}

/// What a component says of itself. An aggregate has no ports.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Said {
    name: String,
    version: String,
    summary: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<String>,
    settings_schema: serde_json::Value,
    hints: Vec<(String, String)>,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let facts = machine::block_on(facts(&arguments))?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&facts).expect("facts have string keys only")
    } else {
        facts.to_text(&arguments.file.display().to_string())
    };
    terminal::print(&text);
    Ok(Exit::Done)
}

async fn facts(arguments: &Arguments) -> Result<Facts, Failure> {
    let component =
        machine::component_runtime(machine::INSTANCES_TO_PLAN)?.load_file(&arguments.file).await.map_err(|error| failure(&error))?;
    let inspection = component.inspection().clone();
    let digest = component.digest().0.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_aggregate = inspection.worlds.iter().any(|world| matches!(world, World::WindowAggregate | World::MigratingWindowAggregate));
    let said = if is_aggregate { describe_aggregate(&component).await } else { describe_operator(&component).await };
    let Inspection { worlds, imports, exports, size_bytes, producers, .. } = inspection;
    let worlds = worlds.into_iter().map(world_name).collect();
    Ok(Facts { said: said.map_err(|error| failure(&error))?, worlds, size_bytes, digest, imports, exports, made_by: producers })
}

async fn describe_operator(component: &Component) -> Result<Said, millstream_wasm::Error> {
    let Descriptor { name, version, summary, settings_schema, inputs, outputs, hints } =
        component.operator(InstanceContext::unheard(None)).await?.describe().await?;
    Ok(Said { name, version, summary, inputs, outputs, settings_schema, hints })
}

async fn describe_aggregate(component: &Component) -> Result<Said, millstream_wasm::Error> {
    let AggregateDescriptor { name, version, summary, settings_schema, hints } =
        component.aggregate(InstanceContext::unheard(None)).await?.describe().await?;
    Ok(Said { name, version, summary, inputs: Vec::new(), outputs: Vec::new(), settings_schema, hints })
}

impl Facts {
    fn to_text(&self, file: &str) -> String {
        let Said { name, version, summary, inputs, outputs, settings_schema, hints } = &self.said;
        let mut text = format!("{STRONG}{name} {version}{STRONG:#}  {summary}\n");
        let mut line = |label: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "  {FAINT}{label:<9}{FAINT:#} {value}");
            }
        };
        line("file", &format!("{file}, {}", terminal::size(self.size_bytes)));
        line("sha256", &self.digest);
        line("world", &self.worlds.join(", "));
        line("inputs", &inputs.join(", "));
        line("outputs", &outputs.join(", "));
        line("imports", &self.imports.join(", "));
        line("exports", &self.exports.join(", "));
        line("made by", &self.made_by.join(", "));
        line("hints", &hints.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "));
        line("settings", &indented(settings_schema));
        text
    }
}

/// A settings schema, indented below its label.
fn indented(schema: &serde_json::Value) -> String {
    if schema.is_null() {
        return "none".to_owned();
    }
    let text = serde_json::to_string_pretty(schema).expect("a JSON value can be written as JSON");
    text.replace('\n', "\n            ")
}

fn world_name(world: World) -> &'static str {
    match world {
        World::StreamOperator => "stream-operator",
        World::MigratingOperator => "migrating-operator",
        World::WindowAggregate => "window-aggregate",
        World::MigratingWindowAggregate => "migrating-window-aggregate",
    }
}

fn failure(error: &millstream_wasm::Error) -> Failure {
    // Whatever a component does when it is asked what it is, it is the input of this command that is wrong.
    let exit = match error.kind() {
        millstream_model::ErrorKind::Guest => Exit::Invalid,
        kind => Exit::of(kind),
    };
    Failure::from_error(exit, error)
}
