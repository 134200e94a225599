//! Why nothing comes out, over HTTP: each cause is made to happen, and the sentence names it.

use std::{fs, thread};

use serde_json::{Value, json};

use crate::{
    client::Client,
    harness::{Endpoint, Service, directory},
};

fn submit(service: &Service, text: &str) {
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
}

/// Waits until the sentence about a job says all of this.
fn said(service: &Service, job: &str, parts: &[&str]) -> String {
    let is_said = |why: &Value| parts.iter().all(|part| why["sentence"].as_str().is_some_and(|sentence| sentence.contains(part)));
    let why = service.wait_for(&parts.join(" … "), &format!("/v1/jobs/{job}/why"), is_said);
    why["sentence"].as_str().expect("a sentence").to_owned()
}

fn put(service: &Service, file: &str, lines: &str) {
    let file = service.directory().join("files").join(file);
    fs::create_dir_all(file.parent().expect("below files")).expect("writable");
    fs::write(file, lines).expect("writable");
}

#[test]
fn a_source_without_input_and_a_silent_split_are_named_with_how_long() {
    let directory = directory();
    let service = Service::start(directory.path());
    put(&service, "in/.kept", "");
    submit(
        &service,
        "job: silent
sources:
  events: { files: { path: in, format: ndjson, follow: true, poll-interval: 10ms }, schema: { value: Int64 } }
sinks:
  out: { input: events, blackhole: {} }
",
    );
    said(&service, "silent", &["there was no input yet", "source `events` has found nothing to read for"]);
    put(&service, "in/a.ndjson", "{\"value\":1}\n");
    let sentence = said(&service, "silent", &["source `events` has had no rows of `in/a.ndjson` for"]);
    assert!(!sentence.contains("no input yet"), "{sentence}");
    said(&service, "silent", &["for 1."]);
}

#[test]
fn the_split_that_holds_the_watermark_is_named() {
    let directory = directory();
    let service = Service::start(directory.path());
    put(&service, "ahead.ndjson", "{\"at\":1000,\"value\":1}\n{\"at\":90000,\"value\":1}\n");
    put(&service, "behind.ndjson", "{\"at\":2000,\"value\":1}\n");
    let source = |file: &str| {
        format!(
            "files: {{ path: {file}, format: ndjson, follow: true, poll-interval: 10ms }}, schema: {{ at: Int64, value: Int64 }}, event-time: {{ column: at, idle-timeout: off }}"
        )
    };
    submit(
        &service,
        &format!(
            "job: held
parallelism: 1
sources:
  ahead: {{ {} }}
  behind: {{ {} }}
operators:
  both: {{ inputs: [ahead, behind], union: {{}} }}
  sums: {{ input: both, key-by: [value], window: {{ tumbling: 10s, aggregates: {{ n: {{ count: \"*\" }} }} }} }}
sinks:
  out: {{ input: sums, blackhole: {{}} }}
",
            source("ahead.ndjson"),
            source("behind.ndjson")
        ),
    );
    said(
        &service,
        "held",
        &["`sums` waits for event time, which stands at 1970-01-01T00:00:01.999Z", "source `behind` has had no rows of `behind.ndjson`"],
    );
}

#[test]
fn what_does_not_take_rows_is_named_and_so_is_a_swap_that_waits_for_it() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    let endpoint = Endpoint::start();
    let sink = format!("http: {{ url: \"{}\", batch-rows: 1, timeout: 10m }}", endpoint.url());
    // Two subtasks, so that there is a queue that can be full.
    let text = crate::harness::job("stuck", "{ rate: 100000 }", &sink).replace("parallelism: 1", "parallelism: 2");
    submit(&service, &text);
    said(&service, "stuck", &["sink `results` does not take rows as fast as they come", "has waited for room for"]);
    let body = json!({ "operators": { "counts": { "component": "count:v2" } }, "probation-s": 0 });
    thread::scope(|scope| {
        let (service, body) = (&service, &body);
        let swapping = scope.spawn(move || service.post("/v1/jobs/stuck/swap", body).status);
        said(service, "stuck", &["swap 1, asked for", "waits until every subtask of `counts` has switched"]);
        endpoint.answer();
        assert_eq!(swapping.join().expect("no panic"), 200);
    });
}

/// How often the client asks until a cause is there.
const LOOKS: usize = 50;

/// Says the same to who asks with the client.
fn client_says(service: &Service, job: &str, parts: &[&str]) {
    let home = directory();
    let client = Client { home: home.path() };
    client.log_in(service);
    // Between two batches a cause may be gone for a moment.
    let says = |arguments: &[&str]| {
        let said = (0..LOOKS).map(|_| client.done(arguments)).find(|said| parts.iter().all(|part| said.contains(part)));
        said.unwrap_or_else(|| panic!("{parts:?}: {}", client.done(arguments)))
    };
    let job = format!("job:{job}");
    let sentence = says(&["why", &job]);
    assert!(sentence.starts_with(&job["job:".len()..]), "{sentence}");
    let json: Value = serde_json::from_str(&says(&["why", &job, "--json"])).expect("JSON");
    assert_eq!(json["phase"], "running");
    assert!(parts.iter().all(|part| json["sentence"].as_str().is_some_and(|sentence| sentence.contains(part))), "{json}");
}

/// Rows flow, and yet no window closes: who makes event times of its own has come no further.
#[test]
fn an_operator_that_holds_event_time_back_is_named() {
    let directory = directory();
    let service = Service::start(directory.path());
    submit(
        &service,
        "job: held
parallelism: 1
sources:
  numbers: { sequence: { rate: 50 } }
operators:
  timed: { input: numbers, assign-watermarks: { column: value, max-out-of-orderness: 0s } }
  sums: { input: timed, key-by: [value], window: { tumbling: 10s, aggregates: { n: { count: \"*\" } } } }
sinks:
  out: { input: sums, blackhole: {} }
",
    );
    let parts = ["`sums` waits for event time, which has not begun: `timed`, which makes it from its rows, holds it"];
    said(&service, "held", &parts);
    client_says(&service, "held", &parts);
}

#[test]
fn a_component_that_takes_rows_too_slowly_is_named() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push_of_tests("v2", "count-choosy");
    let slow = "component: { name: count:v2, settings: { opens: well, spins: 1000000 } }";
    let text = crate::harness::job("slow", "{ rate: 100000 }", "blackhole: {}")
        .replace("component: count:v1", slow)
        .replace("parallelism: 1", "parallelism: 2\nbatching: { rows: 64 }");
    submit(&service, &text);
    let parts = ["`counts` does not take rows as fast as they come: `", "has waited for room for"];
    said(&service, "slow", &parts);
    client_says(&service, "slow", &parts);
    // The numbers say the same: the one works most of the time, and those before it wait for room.
    service.wait_for("the times of the operators", "/v1/jobs/slow/run", |run| {
        let time = |operator: &Value, of: &str| {
            operator[of]["secs"].as_f64().unwrap_or(f64::NAN) + operator[of]["nanos"].as_f64().unwrap_or(f64::NAN) / 1e9
        };
        let operators = run["operators"].as_array().map(Vec::as_slice).unwrap_or_default();
        let of = |id: &str, what: &str| operators.iter().find(|operator| operator["id"] == id).map_or(f64::NAN, |found| time(found, what));
        of("counts", "busy-time") > of("counts", "idle-time") && of("buckets", "backpressured-time") > of("buckets", "busy-time")
    });
}

#[test]
fn a_barrier_that_an_input_has_not_passed_is_named() {
    let directory = directory();
    let service = Service::start(directory.path());
    let endpoint = Endpoint::start();
    submit(
        &service,
        &format!(
            "job: aligning
parallelism: 1
checkpoints: {{ interval: 300ms }}
sources:
  quick: {{ sequence: {{ rate: 5 }} }}
  stuck: {{ sequence: {{ rate: 5 }} }}
operators:
  counted: {{ inputs: [quick, stuck], union: {{}} }}
sinks:
  out: {{ input: counted, blackhole: {{}} }}
  posted: {{ input: stuck, http: {{ url: \"{}\", batch-rows: 1, timeout: 10m }} }}
",
            endpoint.url()
        ),
    );
    said(&service, "aligning", &["`counted` has waited", "for the barrier of checkpoint", "from `stuck`"]);
    endpoint.answer();
}

#[test]
fn a_connector_that_failed_is_named_with_its_cause_and_the_next_attempt() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    // Nobody listens there any more.
    let nobody = Endpoint::start().url();
    let sink = format!("http: {{ url: \"{nobody}\", tries: 1 }}");
    let text = crate::harness::job("failed", "{ rate: 1000 }", &sink) + "restart: { first: 60s, most: 60s }\n";
    submit(&service, &text);
    said(&service, "failed", &["`results` failed (", "attempt 2 begins in", "from the last checkpoint"]);
    // Nobody waits for an attempt that may fail as well: neither who wants a checkpoint, nor who wants the job to stop.
    service.post("/v1/jobs/failed/savepoints", &json!({ "name": "now" })).problem(503, "attempt 2 begins in");
    service.get("/v1/jobs/failed/state/counts?fresh=true").problem(503, "attempt 2 begins in");
    service.post("/v1/jobs/failed/stop", &json!({})).expect(200);
    said(&service, "failed", &["it was stopped, and waits to be resumed"]);
}

#[test]
fn a_job_at_rest_says_what_it_waits_for() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.submit("counts");
    service.post("/v1/jobs/counts/pause", &json!({})).expect(200);
    said(&service, "counts", &["it is paused, and waits to be resumed"]);
    service.post("/v1/jobs/counts/stop", &json!({})).expect(200);
    said(&service, "counts", &["it was stopped, and waits to be resumed"]);
    let bounded = crate::harness::job("done", "{ to: 9 }", "blackhole: {}");
    submit(&service, &bounded);
    said(&service, "done", &["it has finished"]);
}
