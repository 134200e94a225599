//! What is refused leaves what runs as it is: components that are none, versions that do not fit, and changes that meet another one.
//!
//! | bad input of the issue | test |
//! |---|---|
//! | not Wasm, core module, cut at each KiB, 32 MiB of zeros | `what_is_no_component_is_refused_with_what_it_is` (hostile.rs) |
//! | forbidden import, right name with wrong types | `imports_that_are_not_granted_and_exports_of_other_types_are_refused_by_name` |
//! | a job file with every mistake | `a_job_file_with_every_mistake_is_answered_with_all_of_them_and_their_places` |
//! | swap to other ports | `swaps_that_do_not_fit_are_refused_and_touch_nothing` (swaps.rs) |
//! | swap to narrower state, settings that the schema refuses, `open` that traps or loops | `a_version_that_cannot_take_over_is_refused_and_the_old_one_runs_on` |
//! | two swaps at once | `two_changes_at_once_are_one_change_and_a_refusal_or_two_changes` (hostile.rs) |
//! | stop during a swap | `a_stop_during_a_swap_waits_for_it` |
//! | stop during a savepoint, a checkpoint | `a_stop_during_savepoints_and_checkpoints_loses_nothing` |
//! | deleting what is in use | `what_is_in_use_is_not_deleted` |
//! | foreign or stale ETag | `every_change_of_a_job_is_guarded_by_its_etag` |
//! | idempotency key with another body | `a_request_with_an_idempotency_key_is_carried_out_once` (life.rs) |
//! | idempotency key of somebody who has left | `what_was_begun_is_remembered_though_nobody_waits_for_it` |
//! | giant headers | `heads_that_are_too_large_are_refused_and_the_next_request_is_answered` (hostile.rs) |
//! | JSON depth, slow sockets | `requests_that_are_not_understood_say_why`, `two_thousand_slow_sockets_keep_nobody_waiting` (hostile.rs) |
//! | full disk | `on_a_full_disk_every_request_is_answered_and_what_was_acknowledged_stays` (full_disk.rs) |
//! | revoked token in the middle of a stream | `a_stream_ends_when_its_token_is_revoked`, `rows_that_keep_flowing_end_with_their_token` (authorisation.rs) |

use std::thread;

use serde_json::{Value, json};

use crate::{
    harness::{DEADLINE, Endpoint, Service, directory, job, now, operator},
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
    service.assert_untouched("counts");
    // And it was not the component: told to open well, it takes over.
    swap("count-choosy:v1", json!({ "opens": "well" })).expect(200);
    assert!(service.tail("counts", "counts", 5).iter().all(|row| row["by"] == "choosy"));
}

/// A job whose sink takes no rows before the endpoint is told to answer.
fn submit_stuck(service: &Service) -> Endpoint {
    service.push("v1", "count");
    service.push("v2", "count-signed");
    let endpoint = Endpoint::start();
    let sink = format!("http: {{ url: \"{}\", batch-rows: 1, timeout: 10m }}", endpoint.url());
    service.ask("POST", "/v1/jobs", &service.token, &[], job("stuck", "{ rate: 100000 }", &sink).as_bytes()).expect(201);
    service.wait_for("the sink is stuck", "/v1/jobs/stuck/why", |why| why["sentence"].to_string().contains("`results`"));
    endpoint
}

/// Whoever asks for a swap and leaves finds it done, once, and the answer under the key.
#[test]
fn what_was_begun_is_remembered_though_nobody_waits_for_it() {
    let directory = directory();
    let service = Service::start(directory.path());
    let endpoint = submit_stuck(&service);
    let body = json!({ "operators": { "counts": { "component": "count:v2" } }, "probation-s": 600 }).to_string();
    let headers = [("idempotency-key", "k1")];
    let asking = service.send("POST", "/v1/jobs/stuck/swap", &service.token, &headers, body.as_bytes());
    service.wait_for("it switches", "/v1/jobs/stuck/why", |why| why["sentence"].as_str().unwrap().contains("swap 1"));
    drop(asking);
    let ask = |body: &str| service.ask("POST", "/v1/jobs/stuck/swap", &service.token, &headers, body.as_bytes());
    ask(&body).problem(409, "is being carried out");
    endpoint.answer();
    let began = now();
    let answer = loop {
        let answer = ask(&body);
        if answer.status != 409 {
            break answer;
        }
        assert!(began.elapsed() < DEADLINE, "{}", answer.body);
    };
    assert_eq!(answer.header("idempotency-replayed"), Some("true"), "{}", answer.body);
    assert_eq!(answer.expect(200)["version"], 2);
    ask(&body.replace("600", "0")).problem(422, "another request");
    assert_eq!(service.get("/v1/jobs/stuck").expect(200)["version"], 2);
    let audit = service.get("/v1/audit").expect(200);
    let done =
        audit["items"].as_array().unwrap().iter().filter(|record| record["operation"] == "swap-components" && record["status"] == 200);
    assert_eq!(done.count(), 2, "the swap, and its answer again: {audit}");
}

/// The swap waits for a sink that does not take rows, and the stop for the swap; then both are done.
#[test]
fn a_stop_during_a_swap_waits_for_it() {
    let directory = directory();
    let service = Service::start(directory.path());
    let endpoint = submit_stuck(&service);
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

#[test]
fn what_is_in_use_is_not_deleted() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.ask("POST", "/v1/components/count-choosy?tag=v1", &service.token, &[], &operator("count-choosy")).expect(201);
    service.submit("counts");
    for name in ["place", "key", "other"] {
        service.put(&format!("/v1/secrets/{name}"), &json!({ "value": name })).expect(200);
    }
    let named = job("named", "{ rate: 100 }", "files: { path: \"out-${secret:place}\", format: ndjson }")
        .replace("count:v1", "{ name: count-choosy:v1, settings: { opens: well, key: \"${secret:key}\" } }");
    service.ask("POST", "/v1/jobs", &service.token, &[], named.as_bytes()).expect(201);
    service.post("/v1/jobs/counts/savepoints", &json!({ "name": "s" })).expect(201);
    service.ask("POST", "/v1/jobs?from=counts/s&name=fork&paused=true", &service.token, &[], b"").expect(201);

    let in_use = [
        ("/v1/jobs/counts", "stop it first"),
        ("/v1/jobs/counts?savepoints=delete", "stop it first"),
        ("/v1/jobs/counts/savepoints/s", "job `fork` starts from savepoint `s`"),
        ("/v1/components/count", "in use"),
        ("/v1/components/count-choosy", "in use"),
        ("/v1/secrets/place", "by job `named`"),
        ("/v1/secrets/key", "by job `named`"),
    ];
    for (path, says) in in_use {
        let document = service.delete(path).problem(409, says);
        assert!(document["problems"][0]["fix"].is_string(), "{path}: {document}");
    }
    // A tag is a name for other jobs to come: those that run have what it meant.
    service.delete("/v1/components/count/tags/v1").expect(204);
    service.delete("/v1/secrets/other").expect(204);
    service.assert_untouched("counts");
    let service = service.kill_and_start();
    for job in ["counts", "named"] {
        service.wait_for_phase(job, "running");
    }
    service.post("/v1/jobs/counts/stop", &json!({})).expect(200);
    service.delete("/v1/jobs/counts").problem(409, "savepoints");
    service.delete("/v1/jobs/counts?savepoints=delete").problem(409, "job `fork` starts from savepoint `s`");

    // What starts from it has begun, what refers to it is gone: now it may go.
    service.post("/v1/jobs/fork/resume", &json!({})).expect(200);
    assert!(!service.tail("fork", "counts", 1).is_empty());
    service.delete("/v1/jobs/counts?savepoints=delete").expect(204);
    service.post("/v1/jobs/named/stop", &json!({})).expect(200);
    service.delete("/v1/secrets/place").problem(409, "by job `named`");
    service.delete("/v1/jobs/named").expect(204);
    service.delete("/v1/secrets/place").expect(204);
    service.delete("/v1/components/count").problem(409, "by job `fork`");
    service.delete("/v1/components/count-choosy").expect(204);
}

/// Whatever of a running job can be changed: not by who has read another version of it, or something else.
#[test]
fn every_change_of_a_job_is_guarded_by_its_etag() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    service.submit("counts");
    let stale = service.get("/v1/jobs/counts").header("etag").expect("an ETag").to_owned();
    // It is another one from here on, though it runs as it did.
    service.post("/v1/jobs/counts/pause", &json!({})).expect(200);
    service.post("/v1/jobs/counts/resume", &json!({})).expect(200);
    let swap = json!({ "operators": { "counts": { "component": "count:v2" } } }).to_string();
    let replaced = job("counts", "{ rate: 10 }", "blackhole: {}");
    let changes = [
        ("PUT", "", replaced.as_str()),
        ("DELETE", "", ""),
        ("POST", "/pause", "{}"),
        ("POST", "/resume", "{}"),
        ("POST", "/stop", "{}"),
        ("POST", "/scale", r#"{"parallelism":2}"#),
        ("POST", "/swap", &swap),
        ("POST", "/rollback", "{}"),
        ("POST", "/trial", r#"{"operator":"counts","component":"count:v2"}"#),
        ("POST", "/trial/promote", "{}"),
        ("DELETE", "/trial", ""),
        ("POST", "/savepoints", "{}"),
    ];
    for (method, what, body) in changes {
        let path = format!("/v1/jobs/counts{what}");
        for etag in [stale.as_str(), "\"foreign\"", "\"18446744073709551616\"", "W/\"1\"", "unquoted"] {
            let answer = service.ask(method, &path, &service.token, &[("if-match", etag)], body.as_bytes());
            let document = answer.problem(412, if etag == stale { "has changed since it was read" } else { "is no ETag" });
            assert!(document["problems"][0]["fix"].is_string(), "{method} {path}: {document}");
        }
    }
    service.assert_untouched("counts");
    assert_eq!(service.get("/v1/jobs/counts/savepoints").expect(200)["items"], json!([]));
}

/// One of each kind of mistake, in one file: none hides another.
#[test]
fn a_job_file_with_every_mistake_is_answered_with_all_of_them_and_their_places() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.submit("counts");
    let said: Vec<(u64, &str)> =
        (1..).zip(EVERY_MISTAKE.lines()).filter_map(|(line, text)| Some((line, text.split_once(" # ")?.1))).collect();
    for path in ["/v1/validate", "/v1/jobs"] {
        let document = service.ask("POST", path, &service.token, &[], EVERY_MISTAKE.as_bytes()).problem(400, "paralelism");
        let found: Vec<(u64, &str)> = document["problems"].as_array().expect("all of them").iter().map(place_and_message).collect();
        for &(line, text) in &said {
            assert!(found.iter().any(|&(at, message)| at == line && message.contains(text)), "line {line}: {text} in {document}");
        }
        let unexpected = found.iter().find(|(at, _)| said.iter().all(|(line, _)| line != at));
        assert_eq!(unexpected, None, "{document}");
    }
    service.get("/v1/jobs/x").problem(404, "no job `x`");
    service.assert_untouched("counts");
}

fn place_and_message(problem: &Value) -> (u64, &str) {
    assert!(problem["column"].is_u64() && problem["path"].is_string(), "{problem}");
    (problem["line"].as_u64().expect("a line"), problem["message"].as_str().expect("a message"))
}

/// Behind each `#` what is said of its line.
const EVERY_MISTAKE: &str = r#"job: x
paralelism: 2 # unknown key `paralelism`
checkpoints: { interval: soon } # found `soon`
sources:
  numbers:
    sequence: { rate: many } # found `many`
  lines:
    stdin: {} # unknown key `stdin`
    schema: { value: Int64 }
  typed:
    files: { path: in, format: ndjson }
    schema: { n: Int64, delay: Flaot64, at: Utf8 } # `Flaot64` is not a type
  missing:
    files: { path: in, format: ndjson } # cannot read `in`
    schema: { n: Int64 }
  timed:
    sequence: { rate: 1 }
    event-time: { column: att } # `att`
  good:
    sequence: { rate: 1 }
  unknown:
    sequnce: {} # unknown key `sequnce`
operators:
  stream: { input: nubmers, filter: value > 1 } # unknown stream `nubmers`
  column: { input: good, filter: valeu > 1 } # unknown column `valeu`
  type: { input: good, filter: value } # has the type Int64
  two: { input: good, filter: value > 1, union: {} } # `filter`, `union` stand side by side
  unkeyed: { input: good, null-keys: drop, filter: value > 1 } # there is no key
  window: { input: good, key-by: [value], window: { tumbling: 1h, aggregates: { rows: { count: "*" } } } } # lie in event time
  nobody: { input: good, key-by: [value], component: nobody:v1 } # there is no component `nobody`
  tag: { input: good, key-by: [value], component: "count:v9" } # has no tag `v9`
  path: { input: good, key-by: [value], component: { path: /etc/passwd } } # reads no files of its machine
  reference: { input: good, filter: "value > ${env:HOME}" } # `${env:HOME}` is for local runs
  secret: { input: good, filter: "value > ${secret:none}" } # there is no secret `none`
  a: { inputs: [good, b], union: {} }
  b: { input: a, filter: value > 1 } # cycle: b → a → b
sinks:
  out: { inputs: [stream, column, type, two, unkeyed, window, nobody, tag, path, reference, secret, b, numbers, lines, typed, missing, timed, unknown], blackhole: {} }
  standard: { input: good, stdout: {} } # unknown key `stdout`
  where: { input: good, files: { format: ndjson } } # the key `path` is missing
  many: { input: good, parallelism: 5000, blackhole: {} } # parallelism is at most 4096
"#;

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
