//! The client of the same binary.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use millstream_job_tests::components;

use crate::{
    harness::{Service, component, directory, job},
    swaps::submit_bounded,
};

/// The client, with a home of its own.
pub struct Client<'a> {
    pub home: &'a Path,
}

impl Client<'_> {
    pub fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.args(arguments).env("XDG_CONFIG_HOME", self.home).env_remove("MILLSTREAM_TOKEN").stdin(Stdio::null());
        command.current_dir(components::repository()).output().expect("it runs")
    }

    pub fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// From now on it asks this service.
    pub fn log_in(&self, service: &Service) {
        self.done(&["login", &format!("http://{}", service.address()), "--token", &service.token]);
    }

    /// What it says when it cannot do something, and how it ends.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().expect("it ends by itself"), said)
    }
}

#[test]
fn a_person_logs_in_pushes_submits_swaps_and_looks() {
    let (directory, home) = (directory(), directory());
    let service = Service::start(directory.path());
    component("count");
    let client = Client { home: home.path() };
    let url = format!("http://{}", service.address());
    let refused = client.run(&["jobs"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("millstream login"));
    assert_eq!(client.run(&["login", &url, "--token", "ms_no"]).status.code(), Some(1));
    client.done(&["login", &url, "--token", &service.token]);
    client.done(&["push", "count:v1", "examples/service/operators/count/example-service-count.wasm"]);
    client.done(&["push", "count:v2", "examples/service/operators/count-signed/example-service-count-signed.wasm"]);
    assert!(client.done(&["submit", "examples/service/job.yaml", "--dry-run"]).contains("chain 1"));
    client.done(&["submit", "examples/service/job.yaml"]);
    assert!(client.done(&["tail", "counts", "counts", "-n", "2"]).contains("\"by\":\"v1\""));
    assert!(client.done(&["swap", "counts", "counts=count:v2"]).contains("version 2"));
    assert!(client.done(&["tail", "counts", "results", "-n", "2"]).contains("\"by\":\"v2\""));
    let back = client.done(&["rollback", "counts"]);
    assert!(back.contains("counts runs example-service-count 0.1.0 again") && !back.contains("becomes"), "{back}");
    assert!(client.done(&["versions", "counts"]).contains("rolled back to 1"));
    client.done(&["savepoint", "create", "monday", "--job", "counts"]);
    client.done(&["submit", "--from", "counts/monday", "--name", "fork"]);
    assert!(client.done(&["jobs", "--json"]).contains("\"fork\""));
    assert!(client.done(&["status", "job:counts"]).contains("version 3"));
    assert!(client.done(&["state", "get", "job:counts", "counts", "--key", "bucket=3"]).contains("count"));
    client.done(&["stop", "fork"]);
    client.done(&["delete", "fork"]);
    let missing = client.run(&["stop", "fork"]);
    assert_eq!(missing.status.code(), Some(2), "{}", String::from_utf8_lossy(&missing.stderr));
    let token = client.done(&["token", "create", "ci", "--scope", "view", "--json"]);
    assert!(token.contains("\"secret\":\"ms_"));
    client.done(&["tenant", "create", "acme", "--jobs", "3", "--state-bytes", "5GiB"]);
    assert!(client.done(&["tenant", "set", "acme", "--requests-per-s", "none"]).contains("5.0 GiB"));
    let made: serde_json::Value =
        serde_json::from_str(&client.done(&["token", "create", "first", "--scope", "admin", "--tenant", "acme", "--json"])).expect("JSON");
    let secret = made["secret"].as_str().expect("text");
    assert!(client.done(&["tenant", "get", "--url", &url, "--token", secret]).contains("tenant acme"));
    assert!(!client.run(&["tenant", "list", "--url", &url, "--token", secret]).status.success());
    client.done(&["token", "revoke", made["id"].as_str().expect("text"), "--tenant", "acme"]);
    assert!(!client.run(&["jobs", "--url", &url, "--token", secret]).status.success());
    assert!(client.done(&["tenant", "list"]).contains("acme"));
    assert!(client.done(&["tenant", "usage", "acme"]).contains("all"));
    client.done(&["tenant", "delete", "acme"]);
}

/// Mistakes in a job file are shown with their places in the file, as `validate` shows them.
#[test]
fn mistakes_that_the_service_finds_name_the_file() {
    let (directory, home) = (directory(), directory());
    let service = Service::start(directory.path());
    let file = home.path().join("job.yaml");
    std::fs::write(&file, "job: x\nsources:\n  a:\n    sequnce: {}\n").unwrap();
    let client = Client { home: home.path() };
    let url = format!("http://{}", service.address());
    let output = client.run(&["submit", &file.display().to_string(), "--url", &url, "--token", &service.token]);
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("job.yaml:4:") && said.contains("sequence"), "{said}");
}

/// What a finished job has written is printed whole or in part, as the files hold it.
#[test]
fn results_are_printed_whole_or_in_part() {
    let (directory, home) = (directory(), directory());
    let service = Service::start(directory.path());
    service.push("v1", "count");
    let client = Client { home: home.path() };
    client.log_in(&service);
    submit_bounded(&service, "counts", 2_500, 1_000_000);
    service.wait_for_phase("counts", "finished");
    let mut rows: Vec<String> = client.done(&["results", "counts"]).lines().map(str::to_owned).collect();
    assert_eq!(client.done(&["results", "counts", "--rows", "10"]).lines().collect::<Vec<_>>(), &rows[..10]);
    assert_eq!(client.done(&["results", "counts", "-n", "1001", "--sink", "results"]).lines().count(), 1_001);
    let out = service.directory().join("files/out-counts");
    let parts = std::fs::read_dir(out).expect("the job wrote").map(|part| part.expect("readable").path());
    let parts = parts.filter(|part| part.extension().is_some_and(|extension| extension == "ndjson"));
    let lines = parts.flat_map(|part| std::fs::read_to_string(part).expect("readable").lines().map(str::to_owned).collect::<Vec<_>>());
    let mut written: Vec<String> = lines.collect();
    rows.sort();
    written.sort();
    assert_eq!((rows.len(), rows), (2_500, written));

    let (code, said) = client.refused(&["results", "counts", "--sink", "late"]);
    assert!(code == 2 && said.contains("`results`"), "{code} {said}");
    service.submit("endless");
    let (code, said) = client.refused(&["results", "endless"]);
    assert!(code == 1 && said.contains("has not finished"), "{code} {said}");
    let (code, said) = client.refused(&["results", "nobody"]);
    assert!(code == 2 && said.contains("no job `nobody`"), "{code} {said}");
}

/// A tag that has moved is put into every job that names it: the plan is shown, and carried out as it was shown, or not at all.
#[test]
fn a_tag_is_swapped_in_all_jobs_by_one_command() {
    let (directory, home) = (directory(), directory());
    let service = Service::start(directory.path());
    let client = Client { home: home.path() };
    client.log_in(&service);
    service.push("live", "count");
    for name in ["a", "b"] {
        let text = job(name, "{ rate: 2000 }", "blackhole: {}").replace("count:v1", "count:live");
        service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
    }
    assert!(client.done(&["component", "swap", "count:live"]).contains("a: runs it already"));
    service.push("live", "count-signed");
    let by = |job: &str, version: &str| assert!(service.tail(job, "counts", 3).iter().all(|row| row["by"] == version), "{job}");

    let planned = client.done(&["component", "swap", "count:live", "--dry-run"]);
    for part in ["a: counts would be swapped, as version 2", "b: counts would be swapped, as version 2", "different: "] {
        assert!(planned.contains(part), "{planned}");
    }
    by("a", "v1");
    by("b", "v1");
    let swapped = client.done(&["component", "swap", "count:live", "--probation", "0"]);
    assert!(swapped.contains("a: counts swapped, as version 2") && swapped.contains("b: counts swapped"), "{swapped}");
    by("a", "v2");
    by("b", "v2");
    let again: serde_json::Value = serde_json::from_str(&client.done(&["component", "swap", "count:live", "--json"])).expect("JSON");
    assert_eq!(again["jobs"][1]["outcome"], "current");

    // A component with other ports fits nobody.
    service.push_of_tests("live", "tally");
    let (code, said) = client.refused(&["component", "swap", "count:live"]);
    assert!(code == 1 && said.contains("job `b`"), "{code} {said}");
    let (code, said) = client.refused(&["component", "swap", "count:live", "--skip-refused"]);
    assert!(code == 1 && said.contains("a: counts refused") && said.contains("because: "), "{code} {said}");
    by("a", "v2");
    by("b", "v2");
    let (code, said) = client.refused(&["component", "swap", "count:none"]);
    assert!(code == 2 && said.contains("no tag `none`"), "{code} {said}");
}
