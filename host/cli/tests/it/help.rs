//! What the command says of itself.

use std::path::Path;

use crate::run;

const COMMANDS: [&str; 17] = [
    "run",
    "status",
    "why",
    "stop",
    "savepoint",
    "checkpoint",
    "state",
    "topics",
    "validate",
    "explain",
    "schema",
    "new",
    "build",
    "test",
    "inspect",
    "doctor",
    "completions",
];

fn here() -> &'static Path {
    Path::new(".")
}

#[test]
fn every_command_has_help_with_examples() {
    for command in COMMANDS {
        let help = run(here(), &[command, "--help"]).with_code(0).stdout;
        assert!(help.contains("Examples:\n  millstream") || help.contains("Examples:\n  tail"), "{command}:\n{help}");
    }
}

#[test]
fn the_help_lists_every_command_and_the_exit_codes() {
    let help = run(here(), &["--help"]).with_code(0).stdout;
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command}:\n{help}");
    }
    assert!(help.contains("Exit codes:"), "{help}");
}

#[test]
fn a_command_line_that_is_not_understood_ends_with_2_and_a_suggestion() {
    let ended = run(here(), &["runn", "job.yaml"]).with_code(2);
    assert!(ended.stderr.contains("'run'"), "{}", ended.stderr);
    run(here(), &["run"]).with_code(2);
    run(here(), &["run", "job.yaml", "--parallelism", "0"]).with_code(2);
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let script = run(here(), &["completions", shell]).with_code(0).stdout;
        assert!(script.contains("inspect"), "{shell}");
    }
}

#[test]
fn the_schema_of_job_files_is_json_and_knows_the_connectors() {
    let schema = run(here(), &["schema"]).with_code(0).stdout;
    let schema: serde_json::Value = serde_json::from_str(&schema).expect("a JSON Schema");
    let source = &schema["properties"]["sources"]["additionalProperties"]["properties"];
    assert!(source["files"].is_object() && source["stdin"].is_object(), "{source}");
}

#[test]
fn doctor_checks_what_guests_need() {
    let checks = run(here(), &["doctor", "--json"]).stdout;
    let checks: Vec<serde_json::Value> = serde_json::from_str(&checks).expect("a JSON array");
    let status = |name: &str| checks.iter().find(|check| check["name"] == name).map(|check| check["status"].clone());
    assert_eq!(status("WebAssembly engine"), Some("good".into()));
    assert_eq!(status("wasm32-unknown-unknown"), Some("good".into()));
}
