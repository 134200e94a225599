//! Ctrl-C at any time: a job without an end comes to one, a job with an end leaves nothing behind.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::{Ended, millstream};

/// A job that counts, to standard output and to a file.
fn counting(numbers: &str) -> String {
    format!(
        "job: counting\nsources:\n  numbers: {{ sequence: {{ {numbers} }} }}\nsinks:\n  shown: {{ input: numbers, stdout: {{}} }}\n  \
         kept: {{ input: numbers, files: {{ path: out, format: ndjson }} }}\n"
    )
}

/// Starts a job and waits until its first row has come through.
fn started(directory: &std::path::Path, job: &str) -> Child {
    fs::write(directory.join("job.yaml"), job).unwrap();
    let mut child = millstream(directory).args(["run", "job.yaml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut rows = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    rows.read_line(&mut first).unwrap();
    assert!(first.starts_with('{'), "{first}");
    // The rest must be read, or the job would wait for a reader for ever.
    std::thread::spawn(move || std::io::copy(&mut rows, &mut std::io::sink()));
    child
}

fn interrupt(child: &Child) {
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[test]
fn a_job_without_an_end_finishes_what_is_on_its_way() {
    let directory = tempfile::tempdir().unwrap();
    let child = started(directory.path(), &counting("rate: 1000"));
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap()).with_code(0);
    assert!(ended.stderr.contains("counting done in"), "{}", ended.stderr);
    let kept = fs::read_dir(directory.path().join("out")).unwrap().count();
    assert!(kept > 0, "what was written is published");
}

#[test]
fn a_job_with_an_end_is_cancelled_and_leaves_nothing_half_written() {
    let directory = tempfile::tempdir().unwrap();
    let child = started(directory.path(), &counting("to: 1000000000000"));
    interrupt(&child);
    let ended = Ended::of(child.wait_with_output().unwrap()).with_code(130);
    assert!(ended.stderr.contains("`counting` was cancelled"), "{}", ended.stderr);
    let left = fs::read_dir(directory.path().join("out")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "half-written files are removed");
}
