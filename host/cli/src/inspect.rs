//! `millstream inspect`: what a component is and says of itself.
//!
//! The facts come from its bytes, without running it; name, ports and settings from its `describe`, which runs under all limits.

use std::{fmt::Write as _, path::PathBuf};

use millstream_server::report::{Report, Said};

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

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let facts = machine::block_on(facts(&arguments))?;
    let text = if arguments.json {
        serde_json::to_string_pretty(&facts).expect("facts have string keys only")
    } else {
        to_text(&facts, &arguments.file.display().to_string())
    };
    terminal::print(&text);
    Ok(Exit::Done)
}

async fn facts(arguments: &Arguments) -> Result<Report, Failure> {
    let component =
        machine::component_runtime(machine::INSTANCES_TO_PLAN)?.load_file(&arguments.file).await.map_err(|error| failure(&error))?;
    Report::of(&component).await.map_err(|error| failure(&error))
}

fn to_text(report: &Report, file: &str) -> String {
    let Said { name, version, summary, inputs, outputs, settings_schema, hints } = &report.said;
    let mut text = format!("{STRONG}{name} {version}{STRONG:#}  {summary}\n");
    let mut line = |label: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {FAINT}{label:<9}{FAINT:#} {value}");
        }
    };
    line("file", &format!("{file}, {}", terminal::size(report.size_bytes)));
    line("sha256", &report.digest);
    line("world", &report.worlds.join(", "));
    line("migrates", if report.worlds.iter().any(|world| world.starts_with("migrating")) { "state of older versions" } else { "" });
    line("inputs", &inputs.join(", "));
    line("outputs", &outputs.join(", "));
    line("imports", &report.imports.join(", "));
    line("exports", &report.exports.join(", "));
    line("made by", &report.made_by.join(", "));
    line("hints", &hints.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(", "));
    line("settings", &indented(settings_schema));
    text
}

/// A settings schema, indented below its label.
fn indented(schema: &serde_json::Value) -> String {
    if schema.is_null() {
        return "none".to_owned();
    }
    let text = serde_json::to_string_pretty(schema).expect("a JSON value can be written as JSON");
    text.replace('\n', "\n            ")
}

fn failure(error: &millstream_wasm::Error) -> Failure {
    // Whatever a component does when it is asked what it is, it is the input of this command that is wrong.
    let exit = match error.kind() {
        millstream_model::ErrorKind::Guest => Exit::Invalid,
        kind => Exit::of(kind),
    };
    Failure::from_error(exit, error)
}
