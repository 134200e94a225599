//! What is refused leaves what runs as it is: components that are none, versions that do not fit, and changes that meet another one.
//!
//! | bad input of the issue | test |
//! |---|---|
//! | not Wasm, core module, cut at each KiB, 32 MiB of zeros | `what_is_no_component_is_refused_with_what_it_is` (hostile.rs) |
//! | forbidden import, right name with wrong types | `imports_that_are_not_granted_and_exports_of_other_types_are_refused_by_name` |
//! | a job file with every mistake | `a_job_file_with_mistakes_is_answered_with_all_of_them_and_their_places` (life.rs) |
//! | swap to other ports | `swaps_that_do_not_fit_are_refused_and_touch_nothing` (swaps.rs) |
//! | swap to narrower state, settings that the schema refuses, `open` that traps or loops | `a_version_that_cannot_take_over_is_refused_and_the_old_one_runs_on` |
//! | two swaps at once | `two_changes_at_once_are_one_change_and_a_refusal_or_two_changes` (hostile.rs) |
//! | stop during a swap | `a_stop_during_a_swap_waits_for_it` |
//! | stop during a savepoint, a checkpoint | `a_stop_during_savepoints_and_checkpoints_loses_nothing` |
//! | deleting what is in use | `the_first_ten_minutes` (life.rs) |
//! | foreign or stale ETag, idempotency key with another body | `lists_come_in_pages_and_etags_guard_changes`, `a_request_with_an_idempotency_key_is_carried_out_once` (life.rs) |
//! | giant headers, JSON depth, slow sockets | `requests_that_are_not_understood_say_why`, `two_thousand_slow_sockets_keep_nobody_waiting` (hostile.rs) |
//! | full disk | `on_a_full_disk_every_request_is_answered_and_what_was_acknowledged_stays` (full_disk.rs) |
//! | revoked token in the middle of a stream | `a_stream_ends_when_its_token_is_revoked`, `rows_that_keep_flowing_end_with_their_token` (authorisation.rs) |

use std::thread;

use serde_json::{Value, json};

use crate::{
    harness::{Endpoint, Service, directory, job, operator},
    swaps::{assert_exactly_once, submit_bounded},
};

/// A component that has nothing but one import, or one export, which is an empty instance.
fn component_naming(import: Option<&str>, export: Option<&str>) -> Vec<u8> {
    let section = |id: u8, content: &[u8]| [&[id, u8::try_from(content.len()).expect("short")], content].concat();
    let named = |name: &str| [&[0x01, 0x00, u8::try_from(name.len()).expect("short")], name.as_bytes()].concat();
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    if let Some(name) = import {
        // One type, an instance without exports; and an import of that type.
        bytes.extend(section(7, &[0x01, 0x42, 0x00]));
        bytes.extend(section(10, &[&named(name)[..], &[0x05, 0x00]].concat()));
    }
    if let Some(name) = export {
        // One instance without exports; and it is exported.
        bytes.extend(section(5, &[0x01, 0x01, 0x00]));
        bytes.extend(section(11, &[&named(name)[..], &[0x05, 0x00, 0x00]].concat()));
    }
    bytes
}

#[test]
fn imports_that_are_not_granted_and_exports_of_other_types_are_refused_by_name() {
    let directory = directory();
    let service = Service::start(directory.path());
    let push = |bytes: &[u8]| service.ask("POST", "/v1/components/bad?tag=v1&wait=100", &service.token, &[], bytes);
    for import in ["wasi:sockets/tcp@0.2.0", "wasi:http/outgoing-handler@0.2.0", "acme:secret/api@1.0.0"] {
        push(&component_naming(Some(import), None)).problem(400, import);
    }
    // The right name, but nothing behind it that the contract asks for.
    push(&component_naming(None, Some("millstream:operator/operator@0.1.0"))).problem(400, "does not fit");
    push(&component_naming(None, Some("acme:other/api@1.0.0"))).problem(400, "does not fit");
    let view = service.get("/v1/components/bad/versions/v1").expect(200);
    assert_eq!(view["phase"], "refused");
    let text = job("x", "{ rate: 1 }", "blackhole: {}").replace("count:v1", "bad:v1");
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).problem(400, "was refused");
}

#[test]
fn a_version_that_cannot_take_over_is_refused_and_the_old_one_runs_on() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    for name in ["count-choosy", "count-narrow"] {
        let path = format!("/v1/components/{name}?tag=v1");
        service.ask("POST", &path, &service.token, &[], &operator(name)).expect(201);
    }
    service.submit("counts");
    assert!(!service.tail("counts", "counts", 3).is_empty());
    let swap = |component: &str, settings: Value| {
        let body = json!({ "operators": { "counts": { "component": component, "settings": settings } } });
        service.post("/v1/jobs/counts/swap", &body)
    };
    let narrow = swap("count-narrow:v1", Value::Null);
    assert!([400, 409, 422].contains(&narrow.status), "{}", narrow.body);
    assert!(narrow.body.contains("UInt64") && narrow.body.contains("UInt32"), "it says what does not fit: {}", narrow.body);
    swap("count-choosy:v1", Value::Null).problem(400, "opens");
    swap("count-choosy:v1", json!({ "opens": 7 })).problem(400, "opens");
    swap("count-choosy:v1", json!({ "opens": "well", "more": 1 })).problem(400, "more");
    for (settings, says) in [("never", "trapped"), ("forever", "CPU"), ("sideways", "is no way to open")] {
        let refused = swap("count-choosy:v1", json!({ "opens": settings }));
        assert!([400, 409, 422].contains(&refused.status), "{settings}: {} {}", refused.status, refused.body);
        assert_eq!(refused.header("content-type"), Some("application/problem+json"));
        assert!(refused.body.contains(says), "{settings}: {}", refused.body);
    }
    let view = service.get("/v1/jobs/counts").expect(200);
    assert_eq!((&view["version"], &view["observed"]["phase"]), (&json!(1), &json!("running")));
    assert!(service.tail("counts", "counts", 5).iter().all(|row| row["by"] == "v1"));
    // And it was not the component: told to open well, it takes over.
    swap("count-choosy:v1", json!({ "opens": "well" })).expect(200);
    assert!(service.tail("counts", "counts", 5).iter().all(|row| row["by"] == "choosy"));
}

/// The swap waits for a sink that does not take rows, and the stop for the swap; then both are done.
#[test]
fn a_stop_during_a_swap_waits_for_it() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    let endpoint = Endpoint::start();
    let sink = format!("http: {{ url: \"{}\", batch-rows: 1, timeout: 10m }}", endpoint.url());
    service.ask("POST", "/v1/jobs", &service.token, &[], job("stuck", "{ rate: 100000 }", &sink).as_bytes()).expect(201);
    service.wait_for("the sink is stuck", "/v1/jobs/stuck/why", |why| why["sentence"].as_str().unwrap().contains("`results`"));
    let body = json!({ "operators": { "counts": { "component": "count:v2" } }, "probation-s": 600 });
    thread::scope(|scope| {
        let (service, body) = (&service, &body);
        let swapping = scope.spawn(move || service.post("/v1/jobs/stuck/swap", body).status);
        service.wait_for("it switches", "/v1/jobs/stuck/why", |why| why["sentence"].as_str().unwrap().contains("swap 1"));
        let stopping = scope.spawn(move || service.post("/v1/jobs/stuck/stop", &json!({})).status);
        service.post("/v1/jobs/stuck/swap", body).problem(409, "another change");
        endpoint.answer();
        assert_eq!((swapping.join().unwrap(), stopping.join().unwrap()), (200, 200));
    });
    let view = service.wait_for_phase("stuck", "stopped");
    assert_eq!((&view["desired"], &view["version"]), (&json!("stopped"), &json!(2)));
}

#[test]
fn a_stop_during_savepoints_and_checkpoints_loses_nothing() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    let sink = "files: { path: out-counts, format: ndjson }";
    let text = job("counts", "{ to: 7999, rate: 2000 }", sink).replace("interval: 500ms", "interval: 10ms");
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
    let mut saved = 0;
    for round in 0..6 {
        let (stopped, taken) = thread::scope(|scope| {
            let savepoint = json!({ "name": format!("s{round}") });
            let service = &service;
            let taking = scope.spawn(move || service.post("/v1/jobs/counts/savepoints", &savepoint));
            let stopped = service.post("/v1/jobs/counts/stop", &json!({}));
            (stopped, taking.join().unwrap())
        });
        assert!([200, 409].contains(&stopped.status), "{}", stopped.body);
        match taken.status {
            201 => saved += 1,
            // The stop was first, or the job has come to its end.
            409 | 503 => assert_eq!(taken.header("content-type"), Some("application/problem+json"), "{}", taken.body),
            other => panic!("{other}: {}", taken.body),
        }
        let phase = service.get("/v1/jobs/counts").expect(200)["observed"]["phase"].clone();
        assert!(phase == "stopped" || phase == "finished", "{phase}");
        if phase == "stopped" {
            service.post("/v1/jobs/counts/resume", &json!({})).expect(200);
        }
    }
    service.wait_for_phase("counts", "finished");
    assert_exactly_once(&service, "counts", 8_000);
    assert_eq!(service.get("/v1/jobs/counts/savepoints").expect(200)["items"].as_array().unwrap().len(), saved);
}

/// A component that is compiled says since when, and what it may use.
#[test]
fn a_component_that_is_compiled_says_how_far_it_is() {
    let directory = directory();
    let service = Service::start(directory.path());
    let bytes = crate::harness::component("count");
    let pushed = service.ask("POST", "/v1/components/count?tag=v1&wait=0", &service.token, &[], &bytes);
    // A compiler that is quicker than the answer has nothing to tell.
    if pushed.status == 202 {
        let progress = pushed.json()["progress"].clone();
        assert_eq!((&progress["cpu-seconds-max"], &progress["memory-bytes-max"]), (&json!(120), &json!(2_u64 << 30)));
        assert!(progress["seconds"].is_u64() && ["waiting", "compiling"].contains(&progress["stage"].as_str().unwrap()), "{progress}");
    }
    let ready = service.get("/v1/components/count/versions/v1?wait=60").expect(200);
    assert_eq!((&ready["phase"], &ready["progress"]), (&json!("ready"), &Value::Null));
    service.get("/v1/components/count/versions/v1?wait=121").problem(400, "at most 120");
    submit_bounded(&service, "one", 10, 1_000);
    service.wait_for_phase("one", "finished");
}
