//! One job directory through its life: it goes on, says so, keeps others out, and refuses what would lose something.

use std::fs;

use crate::{
    binary::{Place, ended},
    counting,
    running::Running,
};

const ROWS: u64 = 20_000;
const RATE: u64 = 20_000;

/// Runs the job until it has taken a checkpoint with rows in it.
fn running_with_a_checkpoint(place: &Place) -> Running {
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    running.until("counting: exactly once");
    counting::until_it_has_state(place, "state");
    running
}

#[test]
fn a_killed_run_says_where_it_goes_on_and_writes_what_it_would_have_written() {
    let place = counting::place(Some(ROWS), RATE);
    running_with_a_checkpoint(&place).kill();
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&[
        "counting: exactly once",
        "going on from checkpoint ",
        "counting done in",
    ]);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn ctrl_c_takes_a_last_checkpoint_and_says_how_to_go_on() {
    let place = counting::place(Some(ROWS), RATE);
    let running = running_with_a_checkpoint(&place);
    running.signal("INT");
    running.ended().with_code(130).saying(&["taking a last checkpoint", "stopped at checkpoint ", "run the same command again"]);
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn a_job_without_an_end_is_stopped_by_another_process_and_goes_on_afterwards() {
    let place = counting::place(None, RATE);
    for _ in 0..2 {
        let running = running_with_a_checkpoint(&place);
        let stopped = place.says(&["stop", "state"]).with_code(0);
        assert!(stopped.stdout.contains("counting stopped at checkpoint "), "{}", stopped.stdout);
        running.ended().with_code(0);
    }
    for (key, counts) in counting::written(&place.join("out")) {
        assert_eq!(counts, (1..=counts.len() as u64).collect::<Vec<_>>(), "key {key}");
    }
}

#[test]
fn a_job_that_is_done_says_so_and_starts_over_only_when_asked() {
    let place = counting::place(Some(1_000), 1_000_000);
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&["a fresh start"]);
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&["already finished"]);
    counting::check(&place.join("out"), 1_000);
    // What was written stays an obstacle, as without --state.
    ended(&mut place.run(&["--state", "state", "--fresh"])).with_code(1);
    counting::check(&place.join("out"), 1_000);
    fs::remove_dir_all(place.join("out")).unwrap();
    ended(&mut place.run(&["--state", "state", "--fresh"])).with_code(0).saying(&["a fresh start"]);
    counting::check(&place.join("out"), 1_000);
}

#[test]
fn a_second_process_is_kept_out_and_told_who_is_in() {
    let place = counting::place(None, RATE);
    let running = running_with_a_checkpoint(&place);
    ended(&mut place.run(&["--state", "state"])).with_code(1).saying(&[&format!("is in use by process {}", running.pid())]);
    ended(&mut place.run(&["--state", "state", "--fresh"])).with_code(1).saying(&["is in use"]);
    running.kill();
    let status = place.says(&["status", "state"]).with_code(0);
    assert!(status.stdout.contains("does not run"), "{}", status.stdout);
}

#[test]
fn a_directory_belongs_to_one_job() {
    let place = counting::place(Some(10), 1_000_000);
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    let other = place.set("job=other");
    ended(&mut other.run(&["--state", "state"])).with_code(2).saying(&["belongs to job `counting`", "--state"]);
}

#[test]
fn status_shows_a_job_that_runs_and_one_that_does_not() {
    let place = counting::place(None, RATE);
    let running = running_with_a_checkpoint(&place);
    let shown = place.says(&["status", "state"]).with_code(0).stdout;
    assert!(shown.contains("running") && shown.contains("counts") && shown.contains("exactly once"), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&place.says(&["status", "state", "--json"]).with_code(0).stdout).unwrap();
    assert_eq!((&json["job"], &json["running"]), (&"counting".into(), &true.into()));
    running.kill();
    let json: serde_json::Value = serde_json::from_str(&place.says(&["status", "state", "--json"]).with_code(0).stdout).unwrap();
    assert_eq!(json["running"], false);
    assert!(json["checkpoint"]["number"].as_u64() > Some(0), "{json}");
}

#[test]
fn why_says_in_one_sentence_what_a_running_job_waits_for() {
    let place = counting::place(None, 1);
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    running.until("counting: exactly once");
    let mut said = String::new();
    while !said.contains("source `numbers` has had no rows of ") {
        said = place.says(&["why", "state"]).with_code(0).stdout;
        assert!(said.starts_with("counting: "), "{said}");
    }
    let json: serde_json::Value = serde_json::from_str(&place.says(&["why", "state", "--json"]).with_code(0).stdout).unwrap();
    assert_eq!((&json["job"], &json["phase"]), (&"counting".into(), &"running".into()));
    running.kill();
    place.says(&["why", "state"]).with_code(1).saying(&["job `counting` does not run", "millstream status state"]);
}

#[test]
fn the_history_of_checkpoints_has_sizes_and_durations() {
    let place = counting::place(None, RATE);
    let running = running_with_a_checkpoint(&place);
    let history = place.says(&["checkpoint", "history", "state"]).with_code(0).stdout;
    for column in ["NUMBER", "SIZE", "NEW", "SYNC", "ALIGNMENT"] {
        assert!(history.contains(column), "{history}");
    }
    running.kill();
    place.says(&["checkpoint", "history", "state"]).with_code(1).saying(&["does not run"]);
    let kept = place.says(&["checkpoint", "list", "state", "--json"]).with_code(0).stdout;
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert!(kept.as_array().unwrap().iter().any(|checkpoint| checkpoint["committed"] == true), "{kept}");
}

#[test]
fn what_is_no_job_directory_is_said_to_be_none() {
    let place = counting::place(Some(10), 10);
    for command in [&["status"][..], &["stop"], &["checkpoint", "list"], &["checkpoint", "verify"], &["checkpoint", "history"], &["why"]] {
        let arguments: Vec<&str> = command.iter().copied().chain(["nowhere"]).collect();
        place.says(&arguments).with_code(2).saying(&["there is no job directory `nowhere`"]);
    }
    place.says(&["stop", "."]).with_code(2).saying(&["is not a job directory"]);
}

#[test]
fn options_of_a_durable_run_ask_for_a_directory() {
    let place = counting::place(Some(10), 10);
    ended(&mut place.run(&["--fresh"])).with_code(2).saying(&["--state"]);
    ended(&mut place.run(&["--restore", "x"])).with_code(2).saying(&["--state"]);
    ended(&mut place.run(&["--state", "state", "--rename", "a=b"])).with_code(2).saying(&["--restore"]);
}

/// Copies numbers from one place to another.
fn copying(guarantee: &str, source: &str, sink: &str) -> Place {
    Place::with(&format!("job: copying\n{guarantee}sources:\n  numbers: {source}\nsinks:\n  out: {{ input: numbers, {sink} }}\n"))
}

const SEQUENCE: &str = "{ sequence: { from: 1, to: 10 } }";
const STDIN: &str = "{ stdin: {}, schema: { value: Int64 } }";
const FILES: &str = "files: { path: out, format: ndjson }";
const POST: &str = "http: { url: \"http://127.0.0.1:9/rows\" }";

#[test]
fn what_a_job_cannot_promise_is_refused_before_anything_runs() {
    let cases = [
        ("exactly-once", STDIN, FILES, "exactly-once cannot be kept because of `numbers` (at-most-once)"),
        ("at-least-once", STDIN, FILES, "at-least-once cannot be kept because of `numbers` (at-most-once)"),
        ("exactly-once", SEQUENCE, POST, "exactly-once cannot be kept because of `out` (at-least-once)"),
    ];
    for (wanted, source, sink, message) in cases {
        let place = copying(&format!("guarantee: {wanted}\n"), source, sink);
        ended(&mut place.run(&["--state", "state"])).with_code(2).saying(&[message, "what its sources and sinks allow"]);
        assert!(!place.join("state").exists() && !place.join("out").exists(), "{message}");
    }
}

#[test]
fn a_job_says_at_its_start_the_strongest_that_its_connectors_allow() {
    for (source, said) in [(SEQUENCE, "copying: exactly once, a fresh start"), (STDIN, "copying: at most once, a fresh start")] {
        ended(&mut copying("", source, FILES).run(&["--state", "state"])).with_code(0).saying(&[said]);
    }
    let weaker = copying("guarantee: at-least-once\n", SEQUENCE, FILES);
    ended(&mut weaker.run(&["--state", "state"])).with_code(0).saying(&["copying: at least once, a fresh start"]);
}
