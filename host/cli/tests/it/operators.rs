//! An operator from `new` to `run`: what the README promises for the first five minutes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{Ended, run};

/// A new project. Tests run side by side with one target directory, in which cargo tells projects apart by their names.
fn scaffolded(name: &str, kind: &str) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    run(directory.path(), &["new", name, "--kind", kind]).with_code(0);
    let project = directory.path().join(name);
    (directory, project)
}

/// Builds, tests and runs a new project; returns the rows that its job writes.
fn rows_of(kind: &str) -> Vec<serde_json::Value> {
    let name = format!("new-{kind}");
    let (_directory, project) = scaffolded(&name, kind);
    Ended::of(Command::new("cargo").args(["test", "--offline", "--quiet"]).current_dir(&project).output().unwrap()).with_code(0);
    let built = run(&project, &["build", "--offline"]).with_code(0);
    assert!(built.stdout.contains(&format!("{name}.wasm")) && !built.stdout.contains("wasi"), "{}", built.stdout);
    let tested = run(&project, &["test", "--offline"]).with_code(0);
    assert!(tested.stdout.contains("1 passed, 0 failed"), "{}", tested.stdout);
    let ran = run(&project, &["run", "job.yaml"]).with_code(0);
    ran.stdout.lines().map(|line| serde_json::from_str(line).expect("rows are NDJSON when they go into a pipe")).collect()
}

fn texts<'a>(rows: &'a [serde_json::Value], column: &str) -> Vec<&'a str> {
    let mut texts: Vec<_> = rows.iter().map(|row| row[column].as_str().unwrap()).collect();
    texts.sort_unstable();
    texts
}

#[test]
fn a_new_filter_builds_tests_and_runs() {
    let rows = rows_of("filter");
    assert_eq!(texts(&rows, "sensor"), ["attic", "attic", "attic", "roof", "roof"]);
}

#[test]
fn a_new_map_builds_tests_and_runs() {
    let rows = rows_of("map");
    assert_eq!(rows.len(), 10);
    assert!(rows.iter().any(|row| row["celsius"] == 34.0 && row["fahrenheit"] == 93.2), "{rows:?}");
}

#[test]
fn a_new_flat_map_builds_tests_and_runs() {
    let rows = rows_of("flat-map");
    assert_eq!(
        texts(&rows, "word"),
        ["again", "back", "closed", "is", "no", "open", "open", "signal", "signal", "window", "window", "window"]
    );
}

#[test]
fn a_new_keyed_operator_builds_tests_and_runs() {
    let rows = rows_of("keyed");
    let events: Vec<_> = rows.iter().map(|row| format!("{} {}", row["sensor"].as_str().unwrap(), row["event"].as_str().unwrap())).collect();
    assert!(events.contains(&"roof hottest".to_owned()) && events.contains(&"cellar silent".to_owned()), "{events:?}");
}

#[test]
fn a_new_aggregate_builds_tests_and_runs() {
    let rows = rows_of("aggregate");
    let attic: Vec<_> = rows.iter().filter(|row| row["sensor"] == "attic").map(|row| (&row["readings"], &row["spread"])).collect();
    assert!(attic.contains(&(&3.into(), &5.0.into())), "{rows:?}");
}

#[test]
fn a_component_says_what_it_is() {
    let (_directory, project) = scaffolded("inspected", "filter");
    run(&project, &["build", "--offline"]).with_code(0);
    let facts = run(&project, &["inspect", "inspected.wasm", "--json"]).with_code(0).stdout;
    let facts: serde_json::Value = serde_json::from_str(&facts).expect("a JSON object");
    assert_eq!((&facts["name"], &facts["worlds"][0]), (&"inspected".into(), &"stream-operator".into()));
    let size = fs::metadata(project.join("inspected.wasm")).unwrap().len();
    assert_eq!(facts["size-bytes"], size);
    assert!(size < 100_000, "a filter should be small: {size} bytes");
}

#[test]
fn what_is_no_component_is_said_to_be_none() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("x.wasm"), b"\0asm\x01\0\0\0").unwrap();
    let ended = run(directory.path(), &["inspect", "x.wasm"]).with_code(2);
    assert!(ended.stderr.contains("not a component"), "{}", ended.stderr);
    run(directory.path(), &["inspect", "y.wasm"]).with_code(2);
}

#[test]
fn a_project_is_never_overwritten() {
    let (directory, _project) = scaffolded("existing", "filter");
    let ended = run(directory.path(), &["new", "existing"]).with_code(2);
    assert!(ended.stderr.contains("exists already"), "{}", ended.stderr);
}

#[test]
fn a_directory_without_a_project_cannot_be_built() {
    let ended = run(Path::new(env!("CARGO_TARGET_TMPDIR")), &["build"]).with_code(2);
    assert!(ended.stderr.contains("holds no project") && ended.stderr.contains("millstream new"), "{}", ended.stderr);
}

#[test]
fn a_compile_error_is_the_compilers_and_ends_with_1() {
    let (_directory, project) = scaffolded("broken", "filter");
    fs::write(project.join("src/lib.rs"), "#[millstream::filter]\npub fn broken(celsius: f64) -> u8 { 1 }\n").unwrap();
    let ended = run(&project, &["build", "--offline"]).with_code(1);
    assert!(ended.stderr.contains("src/lib.rs:2"), "{}", ended.stderr);
}
