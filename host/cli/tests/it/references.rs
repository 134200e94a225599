//! `${env:NAME}` and `${file:PATH}` in job files: put in place when a job is planned, and never said.

use std::{fs, path::Path};

use tempfile::TempDir;

use crate::{Ended, millstream, run};

const PLANTED: &str = "hunter2-planted";

fn directory(filter: &str, sink: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let job = format!(
        "job: words
parallelism: 1
sources:
  lines:
    files: {{ path: \"${{file:where}}\", format: ndjson }}
    schema: {{ word: Utf8, weight: Int64 }}
operators:
  chosen: {{ input: lines, filter: \"{filter}\" }}
sinks:
  out: {{ input: chosen, {sink} }}
restart: {{ attempts: 1, first: 1ms, most: 1ms }}
"
    );
    fs::write(directory.path().join("job.yaml"), job).unwrap();
    fs::write(directory.path().join("where"), "lines.ndjson\n").unwrap();
    fs::write(directory.path().join("lines.ndjson"), format!("{{\"word\":\"{PLANTED}\",\"weight\":1}}\n{{\"word\":\"b\",\"weight\":3}}\n"))
        .unwrap();
    directory
}

fn run_with(directory: &Path, arguments: &[&str]) -> Ended {
    Ended::of(millstream(directory).args(arguments).env("WORD", PLANTED).output().unwrap())
}

#[test]
fn references_of_a_local_run_are_put_in_place() {
    let directory = directory("word = '${env:WORD}'", "files: { path: out, format: ndjson }");
    run_with(directory.path(), &["run", "job.yaml", "--quiet"]).with_code(0);
    let written = fs::read_dir(directory.path().join("out")).unwrap().map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    assert_eq!(written.collect::<String>(), format!("{{\"word\":\"{PLANTED}\",\"weight\":1}}\n"));
}

#[test]
fn what_a_reference_stands_for_is_never_shown() {
    let sink = "http: { url: \"http://127.0.0.1:9/${env:WORD}\", headers: { authorization: \"Bearer ${env:WORD}\" }, tries: 1 }";
    let good = directory("word <> '${env:WORD}'", sink);
    let bad = directory("word <> '${env:WORD}' and and", sink);
    let wrong = directory("word <> '${env:WORD}'", "files: { path: out, format: \"${env:WORD}\" }");
    let asked: [(&Path, &[&str], i32); 7] = [
        (good.path(), &["explain", "job.yaml"], 0),
        (good.path(), &["validate", "job.yaml", "--json"], 0),
        (good.path(), &["run", "job.yaml", "--log", "debug"], 1),
        (good.path(), &["run", "job.yaml", "--json", "--state", "state"], 1),
        (bad.path(), &["validate", "job.yaml"], 2),
        (bad.path(), &["run", "job.yaml", "--json"], 2),
        (wrong.path(), &["validate", "job.yaml"], 2),
    ];
    for (directory, arguments, code) in asked {
        let ended = run_with(directory, arguments).with_code(code);
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!said.contains(PLANTED), "{arguments:?}: {said}");
        assert!(
            code == 0 || arguments.contains(&"--json") || said.contains("${env:WORD}"),
            "{arguments:?} says where it went wrong: {said}"
        );
    }
    let kept = std::process::Command::new("grep").arg("-r").arg(PLANTED).arg(good.path().join("state")).output().unwrap();
    assert_eq!(kept.status.code(), Some(1), "{}", String::from_utf8_lossy(&kept.stdout));
}

#[test]
fn references_that_cannot_be_resolved_are_mistakes_with_a_place() {
    let directory = directory("word = '${env:NOT_THERE}' or word = '${secret:key}'", "files: { path: \"${file:none}\", format: ndjson }");
    let ended = run(directory.path(), &["validate", "job.yaml"]).with_code(2);
    for said in [
        "job.yaml:8:35: error: the environment has no variable `NOT_THERE`",
        "`${secret:key}` is a secret of the service",
        "job.yaml:10:40: error: the file `none`, which the job file names, cannot be read",
        "relative paths start where the job file is",
    ] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
}
