//! Versions on trial over HTTP and with the client: what they show, and that a job with one loses and doubles no row whatever becomes of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    client::Client,
    harness::{Service, component, directory},
    swaps::{assert_exactly_once, results, submit_bounded},
};

/// A job of so many rows that counts, with the next version pushed.
fn counting<'a>(service: &Service, rows: i64, next: &str) -> impl Fn(&Value) -> Value + 'a {
    service.push("v1", "count");
    service.push("v2", next);
    submit_bounded(service, "counts", rows, 2_000);
    assert!(!service.tail("counts", "counts", 5).is_empty());
    |more: &Value| {
        let mut request = json!({ "operator": "counts", "component": "count:v2" });
        request.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        request
    }
}

fn phase(view: &Value) -> &str {
    view["trial"]["phase"].as_str().expect("a phase")
}

fn by(service: &Service) -> BTreeSet<String> {
    results(service, "counts").into_iter().map(|(_, _, by)| by).collect()
}

#[test]
fn a_shadow_shows_what_differs_and_changes_nothing() {
    let directory = directory();
    let service = Service::start(directory.path());
    let with = counting(&service, 8_000, "count-signed");
    service.get("/v1/jobs/counts/trial").problem(404, "nothing was tried");
    let begun = service.post("/v1/jobs/counts/trial", &with(&json!({}))).expect(200);
    assert_eq!((phase(&begun), begun["trial"]["mode"].as_str()), ("trying", Some("shadow")), "{begun}");
    let seen = service.wait_for("rows", "/v1/jobs/counts/trial", |view| view["trial"]["counts"]["rows-differing"].as_u64() >= Some(100));
    let sample = &seen["trial"]["samples"][0];
    assert_eq!((&sample["differs"], &sample["name"]), (&json!("output"), &json!("out")), "{sample}");
    assert_eq!((&sample["old"]["by"], &sample["new"]["by"]), (&json!("v1"), &json!("v2")), "{sample}");
    assert_eq!(sample["old"]["count"], sample["new"]["count"], "the state is the same");

    service.post("/v1/jobs/counts/trial", &with(&json!({}))).problem(409, "is under way");
    let swap = json!({ "operators": { "counts": { "component": "count:v2" } } });
    service.post("/v1/jobs/counts/swap", &swap).problem(409, "end it or promote it first");
    let ended = service.delete("/v1/jobs/counts/trial").expect(200);
    assert_eq!(phase(&ended), "ended");
    service.delete("/v1/jobs/counts/trial").problem(404, "no trial is under way");
    service.post("/v1/jobs/counts/trial/promote", &json!({})).problem(404, "no trial is under way");
    assert_eq!(service.get("/v1/jobs/counts").expect(200)["version"], 1);
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 8_000);
    assert_eq!(by(&service), BTreeSet::from(["v1".to_owned()]));
}

/// It is a version of the job like one that was swapped in, and what happens is heard.
#[test]
fn a_canary_that_holds_is_promoted_by_itself_as_a_version_of_the_job() {
    let directory = directory();
    let service = Service::start(directory.path());
    let with = counting(&service, 16_000, "count-signed");
    let wanted =
        with(&json!({ "share-percent": 50, "differing-max": 1, "cpu-ratio-max": 1000, "promote-after-rows": 500, "probation-s": 0 }));
    let mut events = service.events("/v1/jobs/counts/events?seconds=100", &service.token);
    // It listens before anything happens.
    assert_eq!(events.next().as_deref(), Some("HTTP/1.1 200 OK"));
    let begun = service.post("/v1/jobs/counts/trial", &wanted).expect(200);
    assert_eq!(begun["share-percent"], 50.0);
    service.wait_for("a version", "/v1/jobs/counts", |view| view["version"] == 2);
    let promoted = service.wait_for("its end", "/v1/jobs/counts/trial", |view| view["trial"]["phase"] == "promoted");
    assert!(promoted["trial"]["counts"]["rows-applied"].as_u64() >= Some(400), "{promoted}");
    let versions = service.get("/v1/jobs/counts/versions").expect(200);
    assert!(versions["items"][1].to_string().contains("\"swapped\""), "{versions}");
    let mut said = Vec::new();
    while said.last().is_none_or(|phase| phase != "promoted") {
        let line = events.next().expect("it was promoted");
        let event: Option<Value> = line.strip_prefix("data: ").and_then(|json| serde_json::from_str(json).ok());
        said.extend(event.filter(|event| event["event"] == "trial").map(|event| event["phase"].clone()));
    }
    // Those between are seen only by who looks often.
    assert_eq!(said.first(), Some(&json!("trying")), "{said:?}");
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 16_000);
    assert_eq!(by(&service).len(), 2);
}

#[test]
fn a_canary_that_traps_goes_back_by_itself_and_one_that_differs_too() {
    for (next, bound) in [("count-broken", "failures"), ("count-signed", "differing")] {
        let directory = directory();
        let service = Service::start(directory.path());
        let with = counting(&service, 8_000, next);
        service.post("/v1/jobs/counts/trial", &with(&json!({ "share-percent": 50 }))).expect(200);
        let back = service.wait_for("its end", "/v1/jobs/counts/trial", |view| view["trial"]["phase"] == "rolled-back");
        assert_eq!(back["trial"]["bound"], bound, "{back}");
        assert_eq!(service.get("/v1/jobs/counts").expect(200)["version"], 1);
        service.wait_for_phase("counts", "finished");
        assert_exactly_once(&service, "counts", 8_000);
        assert_eq!(by(&service), BTreeSet::from(["v1".to_owned()]), "the first wrong answer is not applied either");
    }
}

/// Nobody has decided to run it: a process that comes back does not.
#[test]
fn a_trial_does_not_survive_a_kill_and_what_it_gave_counts_once() {
    let directory = directory();
    let service = Service::start(directory.path());
    let with = counting(&service, 12_000, "count-signed");
    service.post("/v1/jobs/counts/trial", &with(&json!({ "share-percent": 50, "differing-max": 1, "cpu-ratio-max": 1000 }))).expect(200);
    service.wait_for("rows", "/v1/jobs/counts/trial", |view| view["trial"]["counts"]["rows-applied"].as_u64() >= Some(1_000));
    let service = service.kill_and_start();
    service
        .wait_for("its run", "/v1/jobs/counts", |view| view["observed"]["phase"] == "running" || view["observed"]["phase"] == "finished");
    service.get("/v1/jobs/counts/trial").problem(404, "nothing was tried");
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 12_000);
}

#[test]
fn what_cannot_be_tried_is_refused_and_the_job_runs_on() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    service.submit("counts");
    let refused = |request: Value, status: u16, says: &str| drop(service.post("/v1/jobs/counts/trial", &request).problem(status, says));
    let with = |name: &str, value: Value| json!({ "operator": "counts", "component": "count:v2", name: value });
    refused(with("share-percent", json!(0)), 400, "above 0");
    refused(with("share-percent", json!(100.5)), 400, "at most 100");
    refused(with("differing-max", json!(1.5)), 400, "0 to 1");
    refused(with("cpu-ratio-max", json!(0)), 400, "1 to 1000");
    refused(with("promote-after-rows", json!(0)), 400, "at least 1 row");
    refused(with("probation-s", json!(3_601)), 400, "probation-s");
    refused(with("share", json!(5)), 400, "share");
    refused(json!({ "operator": "nobody", "component": "count:v2" }), 404, "no operator `nobody`");
    refused(json!({ "operator": "buckets", "component": "count:v2" }), 400, "is no component");
    refused(json!({ "operator": "counts", "component": "count:v9" }), 404, "v9");
    service.post("/v1/jobs/nothing/trial", &json!({ "operator": "counts" })).expect_status(404);
    assert!(!service.tail("counts", "counts", 5).is_empty());
}

#[test]
fn the_client_tries_looks_ends_and_promotes() {
    let (directory, home) = (directory(), directory());
    let service = Service::start(directory.path());
    component("count");
    let client = Client { home: home.path() };
    client.log_in(&service);
    client.done(&["push", "count:v1", "examples/service/operators/count/example-service-count.wasm"]);
    client.done(&["push", "count:v2", "examples/service/operators/count-signed/example-service-count-signed.wasm"]);
    client.done(&["submit", "examples/service/job.yaml"]);
    assert!(client.done(&["swap", "counts", "counts=count:v2", "--shadow"]).contains("shadow, trying"));
    service.wait_for("rows", "/v1/jobs/counts/trial", |view| view["trial"]["samples"].as_array().is_some_and(|all| !all.is_empty()));
    let seen = client.done(&["trial", "counts"]);
    assert!(seen.contains("rows of output differ") && seen.contains("output out") && seen.contains("\"by\":\"v2\""), "{seen}");
    assert!(client.done(&["trial", "counts", "--end"]).contains("ended"));
    let canary =
        ["swap", "counts", "counts=count:v2", "--canary", "50%", "--max-differing", "100", "--max-cpu", "1000", "--promote-after", "1h"];
    assert!(client.done(&canary).contains("canary of 50.00 % of the keys, trying"));
    assert!(client.done(&["trial", "counts", "--promote", "--probation", "0"]).contains("version 2"));
    assert!(client.done(&["trial", "counts"]).contains("promoted"));
    for wrong in [
        &["swap", "counts", "counts=count:v1", "--max-cpu", "2"][..],
        &["swap", "counts", "counts=count:v1", "--shadow", "--canary", "5%"],
        &["swap", "counts", "counts=count:v1", "--canary", "many"],
        &["swap", "counts", "counts=count:v1", "--shadow", "--promote-after", "soon"],
        &["trial", "counts", "--end", "--promote"],
    ] {
        let output = client.run(wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
