//! The client of the same binary.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use millstream_job_tests::components;

use crate::harness::{Service, component, directory};

struct Client<'a> {
    home: &'a Path,
}

impl Client<'_> {
    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
        command.args(arguments).env("XDG_CONFIG_HOME", self.home).env_remove("MILLSTREAM_TOKEN").stdin(Stdio::null());
        command.current_dir(components::repository()).output().expect("it runs")
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
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
