//! Jobs from files: good ones run, broken ones are explained.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{millstream, run};

const GOOD: &str = "\
job: words
sources:
  lines:
    files: { path: lines.ndjson, format: ndjson }
    schema: { word: Utf8, weight: Int64 }
operators:
  heavy: { input: lines, filter: \"weight > 2\" }
sinks:
  out: { input: heavy, files: { path: out, format: ndjson } }
";

const LINES: &str = "{\"word\":\"a\",\"weight\":1}\n{\"word\":\"b\",\"weight\":3}\n{\"word\":\"c\",\"weight\":5}\n";

fn directory(job: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("job.yaml"), job).unwrap();
    fs::write(directory.path().join("lines.ndjson"), LINES).unwrap();
    directory
}

/// All lines of all files in a directory, sorted.
fn lines_below(directory: &Path) -> Vec<String> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut lines: Vec<String> =
        files.flat_map(|file| fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    lines.sort();
    lines
}

#[test]
fn a_job_writes_its_rows_and_a_summary() {
    let directory = directory(GOOD);
    let ended = run(directory.path(), &["run", "job.yaml"]).with_code(0);
    assert_eq!(ended.stdout, "", "results go where the job says");
    assert!(ended.stderr.contains("words done in") && ended.stderr.contains("3 out") && ended.stderr.contains("2 in"), "{}", ended.stderr);
    assert_eq!(lines_below(&directory.path().join("out")), ["{\"word\":\"b\",\"weight\":3}", "{\"word\":\"c\",\"weight\":5}"]);
}

#[test]
fn the_summary_can_be_json() {
    let directory = directory(GOOD);
    let ended = run(directory.path(), &["run", "job.yaml", "--json"]).with_code(0);
    let summary: serde_json::Value = serde_json::from_str(ended.stderr.lines().last().unwrap()).expect("a JSON object");
    assert_eq!((&summary["job"], &summary["outcome"]), (&"words".into(), &"finished".into()));
    assert_eq!(summary["summary"]["operators"][0]["rows-out"], 3);
}

#[test]
fn a_value_of_the_file_can_be_replaced() {
    let directory = directory(GOOD);
    run(directory.path(), &["run", "job.yaml", "--quiet", "--set", "operators.heavy.filter=weight > 4"]).with_code(0);
    assert_eq!(lines_below(&directory.path().join("out")), ["{\"word\":\"c\",\"weight\":5}"]);
    let ended = run(directory.path(), &["run", "job.yaml", "--set", "job.name.x=1"]).with_code(2);
    assert!(ended.stderr.contains("`job.name.x` does not exist"), "{}", ended.stderr);
}

#[test]
fn a_good_job_is_validated_and_explained_without_running() {
    let directory = directory(GOOD);
    let validated = run(directory.path(), &["validate", "job.yaml"]).with_code(0);
    assert_eq!(validated.stdout, "job.yaml: good, 1 source, 1 operator, 1 sink\n");
    let plan = run(directory.path(), &["explain", "job.yaml", "--parallelism", "3"]).with_code(0).stdout;
    assert!(plan.contains("heavy") && plan.contains("weight"), "{plan}");
    assert!(!directory.path().join("out").exists());
}

#[test]
fn all_mistakes_are_reported_at_once_each_with_its_place_and_fix() {
    let broken = GOOD.replace("path: lines", "pth: lines").replace("input: heavy", "input: heavi");
    let directory = directory(&broken);
    let ended = run(directory.path(), &["validate", "job.yaml"]).with_code(2);
    assert!(ended.stderr.contains("job.yaml:4:14: error: unknown key `pth`"), "{}", ended.stderr);
    assert!(ended.stderr.contains("did you mean `path`"), "{}", ended.stderr);
}

#[test]
fn a_type_mismatch_is_found_before_anything_runs() {
    let directory = directory(&GOOD.replace("weight > 2", "word + 1 > 2"));
    let ended = run(directory.path(), &["run", "job.yaml"]).with_code(2);
    assert!(ended.stderr.starts_with("job.yaml:7:"), "{}", ended.stderr);
    assert!(!directory.path().join("out").exists());
}

#[test]
fn failures_can_be_json() {
    let directory = directory(&GOOD.replace("operators:", "operaters:"));
    let ended = run(directory.path(), &["validate", "job.yaml", "--json"]).with_code(2);
    let failure: serde_json::Value = serde_json::from_str(ended.stderr.trim()).expect("a JSON object");
    assert_eq!(failure["exit-code"], 2);
    assert_eq!((&failure["problems"][0]["file"], &failure["problems"][0]["line"]), (&"job.yaml".into(), &6.into()));
}

#[test]
fn a_job_file_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let ended = run(directory.path(), &["run", "jobb.yaml"]).with_code(2);
    assert!(ended.stderr.contains("error: the job file `jobb.yaml` cannot be read\n  because: No such file"), "{}", ended.stderr);
}

#[test]
fn a_bad_record_fails_the_job_and_is_named() {
    let directory = directory(GOOD);
    fs::write(directory.path().join("lines.ndjson"), format!("{LINES}{{\"word\":\"d\",\"weight\":\"heavy\"}}\n")).unwrap();
    let ended = run(directory.path(), &["run", "job.yaml"]).with_code(1);
    assert!(ended.stderr.contains("job `words` failed in `lines`") && ended.stderr.contains("weight"), "{}", ended.stderr);
}

#[test]
fn nothing_is_shown_while_a_job_runs_elsewhere_than_on_a_terminal() {
    let directory = directory(GOOD);
    let ended = run(directory.path(), &["run", "job.yaml", "--quiet"]).with_code(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn colours_can_be_asked_for() {
    let directory = directory(GOOD);
    let ended = run(directory.path(), &["--color", "always", "validate", "job.yaml"]).with_code(0);
    assert!(ended.stdout.contains("\u{1b}["), "{}", ended.stdout);
    let plain = millstream(directory.path()).args(["validate", "job.yaml"]).env("NO_COLOR", "1").output().unwrap();
    assert!(!plain.stdout.contains(&0x1b));
}
