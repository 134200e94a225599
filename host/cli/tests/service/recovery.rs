//! What becomes of jobs when the process ends, in whatever way.

use serde_json::json;

use crate::{
    harness::{Service, directory},
    swaps::{assert_exactly_once, submit_bounded},
};

#[test]
fn after_a_kill_every_job_goes_on_from_its_last_checkpoint_exactly_once() {
    let directory = directory();
    let mut service = Service::start(directory.path());
    service.push("v1", "count");
    submit_bounded(&service, "one", 6_000, 2_000);
    submit_bounded(&service, "two", 6_000, 2_000);
    service.submit("stopped");
    service.post("/v1/jobs/stopped/stop", &json!({})).expect(200);
    for _ in 0..2 {
        service.wait_for("a checkpoint", "/v1/jobs/one/run", |run| {
            run["durable"]["last-checkpoint"].is_object() || run["observed"]["phase"] == "finished"
        });
        service = service.kill_and_start();
        service.wait_for("ready", "/readyz", |_| true);
    }
    assert_eq!(service.get("/v1/jobs/stopped").expect(200)["observed"]["phase"], "stopped");
    for job in ["one", "two"] {
        service.wait_for_phase(job, "finished");
        assert_exactly_once(&service, job, 6_000);
    }
}

#[test]
fn a_service_that_is_asked_to_end_stops_every_job_behind_a_checkpoint() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    submit_bounded(&service, "counts", 6_000, 2_000);
    assert!(!service.tail("counts", "counts", 5).is_empty());
    assert_eq!(service.terminate(), Some(0));
    let service = Service::start(directory.path());
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 6_000);
}

/// A process that dies while a version is on probation comes back with the version before.
#[test]
fn a_version_on_probation_does_not_survive_a_kill() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    service.submit("counts");
    service
        .post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "component": "count:v2" } }, "probation-s": 600 }))
        .expect(200);
    assert!(service.tail("counts", "counts", 5).iter().all(|row| row["by"] == "v2"));
    let service = service.kill_and_start();
    service.wait_for_phase("counts", "running");
    let rows = service.tail("counts", "counts", 5);
    assert!(rows.iter().all(|row| row["by"] == "v1"), "{rows:?}");
    let versions = service.get("/v1/jobs/counts/versions").expect(200);
    assert_eq!(versions["items"][2]["origin"], "rolled-back");
}

#[test]
fn a_settled_version_survives_a_kill() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    service.submit("counts");
    service.post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "component": "count:v2" } }, "probation-s": 0 })).expect(200);
    let service = service.kill_and_start();
    service.wait_for_phase("counts", "running");
    let rows = service.tail("counts", "counts", 5);
    assert!(rows.iter().all(|row| row["by"] == "v2"), "{rows:?}");
}

#[test]
fn a_second_service_in_the_same_directory_is_refused() {
    let directory = directory();
    let _first = Service::start(directory.path());
    let second = std::process::Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["serve", "--listen", "127.0.0.1:0", "--dir"])
        .arg(directory.path())
        .output()
        .expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("is in use by process"));
}
