//! A disk that is full from some write of the service on: whatever it is asked, it answers; nothing that it has acknowledged is lost.
//!
//! The writes of the real process fail at the real calls (`tests/faulty-disk`).

use std::path::Path;

use millstream_job_tests::components;
use serde_json::json;

use crate::{
    harness::{Answer, Service, component, directory, job},
    swaps::{assert_exactly_once, submit_bounded},
};

const ENOSPC: &str = "28";

/// Done, or refused with what is wrong; whether it was done.
fn is_done(what: &str, answer: &Answer) -> bool {
    if (200..300).contains(&answer.status) {
        return true;
    }
    assert!([400, 409, 500, 503].contains(&answer.status), "{what}: {} {}", answer.status, answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}: {}", answer.body);
    false
}

/// What a service has acknowledged whose writes fail from number `first` on; none: it did not start.
fn asked(directory: &Path, library: &Path, first: u64) -> Option<Vec<(&'static str, bool)>> {
    let below = directory.canonicalize().expect("it is there").display().to_string();
    let environment = [
        ("LD_PRELOAD", library.display().to_string()),
        ("FAULTY_DISK_BELOW", below),
        ("FAULTY_DISK_FIRST", first.to_string()),
        ("FAULTY_DISK_ERRNO", ENOSPC.to_owned()),
    ];
    let service = Service::try_start(directory, &[], &environment)?;
    let ask = |method: &str, path: &str, body: &[u8]| service.ask(method, path, &service.token, &[], body);
    let two = job("two", "{ to: 99 }", "files: { path: out-two, format: ndjson }");
    let done = vec![
        ("push", is_done("push", &ask("POST", "/v1/components/count?tag=v2", &component("count-signed")))),
        ("secret", is_done("secret", &ask("PUT", "/v1/secrets/key", br#"{"value":"x"}"#))),
        ("submit", is_done("submit", &ask("POST", "/v1/jobs", two.as_bytes()))),
        ("savepoint", is_done("savepoint", &ask("POST", "/v1/jobs/one/savepoints", br#"{"name":"s"}"#))),
    ];
    for path in ["/healthz", "/v1/jobs", "/v1/components", "/v1/jobs/one", "/v1/jobs/one/why", "/metrics", "/v1/audit"] {
        service.get(path).expect_status(200);
    }
    Some(done)
}

fn fails_from(library: &Path, first: u64) {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    submit_bounded(&service, "one", 3_000, 1_000);
    assert_eq!(service.terminate(), Some(0));
    let done = asked(directory.path(), library, first);

    let service = Service::start(directory.path());
    service.wait_for("ready", "/readyz", |_| true);
    for (what, was_done) in done.unwrap_or_default() {
        let path = match what {
            "push" => "/v1/components/count/versions/v2",
            "submit" => "/v1/jobs/two",
            "savepoint" => "/v1/jobs/one/savepoints/s",
            _ => "/v1/secrets",
        };
        let found = service.get(path);
        assert!(!was_done || found.status == 200, "{what} was acknowledged on a disk that was full from write {first} on: {}", found.body);
    }
    // A job that failed for want of room goes on when there is some.
    if service.get("/v1/jobs/one").expect(200)["observed"]["phase"] == "failed" {
        service.post("/v1/jobs/one/resume", &json!({})).expect(200);
    }
    service.wait_for_phase("one", "finished");
    assert_exactly_once(&service, "one", 3_000);
}

#[test]
fn on_a_full_disk_every_request_is_answered_and_what_was_acknowledged_stays() {
    let library = components::faulty_disk();
    for first in [1, 4, 9, 17, 40, 90] {
        fails_from(&library, first);
    }
}
