//! Jobs whose component asks others over HTTP: granted, bounded, refused, and repeated after a kill.

use std::{collections::BTreeMap, fs};

use millstream_job_tests::web::{Said, Web};
use serde_json::Value;

use crate::{
    binary::{Place, ended},
    counting,
    running::Running,
};

/// Names `http://…/name/N` as `number N`.
fn names() -> Web {
    Web::start(|path, _| found(&format!("number {}", path.trim_start_matches("/name/"))))
}

fn found(body: &str) -> Said {
    Said::Answer("200 OK", String::new(), body.to_owned())
}

/// A job over the numbers below `rows` that asks `url` for their names; `http`: what it is granted.
fn job(rows: u64, rate: u64, url: &str, http: &str) -> Place {
    Place::with(&format!(
        "job: naming
parallelism: 2
checkpoints: {{ interval: 100ms }}
sources:
  numbers: {{ sequence: {{ to: {}, rate: {rate} }} }}
operators:
  named:
    input: numbers
    component: {{ path: {}, settings: {{ url: '{url}' }} }}
{http}
sinks:
  out: {{ input: named, files: {{ path: out, format: ndjson }} }}
",
        rows - 1,
        counting::component("enrich")
    ))
}

const GRANTED: &str = "    http: {}";
/// For tests that want every answer, however long this machine does something else.
const PATIENT: &str = "    http: { timeout: 5m, call-timeout: 10m }";

/// The names that were written, by number; fails if a number was written twice.
fn written(place: &Place) -> BTreeMap<u64, String> {
    let mut names = BTreeMap::new();
    for part in fs::read_dir(place.join("out")).unwrap().map(|part| part.unwrap().path()) {
        if part.file_name().unwrap().to_string_lossy().starts_with('.') {
            continue;
        }
        for line in fs::read_to_string(part).unwrap().lines() {
            let row: Value = serde_json::from_str(line).unwrap();
            let before = names.insert(row["value"].as_u64().unwrap(), row["name"].as_str().unwrap().to_owned());
            assert_eq!(before, None, "{line}");
        }
    }
    names
}

#[track_caller]
fn assert_named(place: &Place, rows: u64) {
    let expected: BTreeMap<u64, String> = (0..rows).map(|number| (number, format!("number {number}"))).collect();
    assert_eq!(written(place), expected);
}

#[test]
fn rows_are_enriched_by_what_a_server_knows_at_any_parallelism() {
    let web = names();
    for parallelism in ["1", "2"] {
        let place = job(3_000, 1_000_000, &web.url("/name/"), PATIENT);
        ended(&mut place.run(&["--parallelism", parallelism])).with_code(0);
        assert_named(&place, 3_000);
    }
    assert_eq!(web.asked().len(), 6_000, "each once");
}

/// What was asked since the last checkpoint is asked again; what is written is written once.
#[test]
fn a_killed_job_asks_again_and_writes_every_row_once() {
    let web = names();
    let place = job(4_000, 2_000, &web.url("/name/"), PATIENT);
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    running.until("naming: exactly once");
    while web.asked().len() < 1_000 {
        place.says(&["checkpoint", "create", "state"]).with_code(0);
    }
    running.kill();
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&["going on from checkpoint "]);
    assert_named(&place, 4_000);
    assert!(web.asked().len() >= 4_000);
}

#[test]
fn a_component_that_is_not_granted_requests_is_refused_with_what_to_do() {
    let web = names();
    let place = job(10, 1_000, &web.url("/name/"), "");
    ended(&mut place.run(&[])).with_code(2).saying(&[
        "jobs-enrich.wasm` imports `millstream:operator/http`, and operator `named` is granted no requests over HTTP",
        "grant it with `http: {}` beside `component`",
    ]);
    let of_a_filter =
        job(10, 1_000, &web.url("/name/"), GRANTED).set("operators.kept={\"input\": \"numbers\", \"filter\": \"true\", \"http\": {}}");
    ended(&mut of_a_filter.run(&[])).with_code(2).saying(&["`http` is granted to components; `filter` sends no requests"]);
    let unbounded =
        job(10, 1_000, &web.url("/name/"), "    http: { timeout: 1h, concurrency: 1000, response-bytes-max: 1GiB, retries: 3 }");
    ended(&mut unbounded.run(&[])).with_code(2).saying(&["must be at most 256, found 1000", "unknown key `retries`"]);
    let long = job(10, 1_000, &web.url("/name/"), "    http: { timeout: 1h, response-bytes-max: 1GiB }");
    ended(&mut long.run(&[])).with_code(2).saying(&["must be at least 1ms and at most 5m, found 1h", "at most 16 MiB, found 1 GiB"]);
    assert!(web.asked().is_empty(), "nothing was sent");
}

/// Each number is another trouble.
#[test]
fn what_goes_wrong_with_a_request_is_an_answer_and_what_passes_is_tried_again() {
    let web = Web::start(|path, times| match (path, times) {
        ("/name/0", 1) => Said::Answer("500 Internal Server Error", String::new(), "not yet".into()),
        ("/name/1", _) => Said::Nothing,
        ("/name/2", _) => found(&"x".repeat(5_000)),
        ("/name/3", _) => Said::Answer("404 Not Found", String::new(), String::new()),
        ("/name/4", _) => Said::Answer("302 Found", "Location: /name/5\r\n".into(), String::new()),
        (path, _) => found(path),
    });
    let place = job(6, 1_000, &web.url("/name/"), "    http: { timeout: 200ms, tries: 2, response-bytes-max: 4KiB }");
    ended(&mut place.run(&[])).with_code(0);
    let names: Vec<String> = written(&place).into_values().collect();
    assert_eq!(names, ["/name/0", "timeout", "too large", "status 404", "/name/5", "/name/5"]);
    assert_eq!(web.asked().iter().filter(|path| *path == "/name/1").count(), 2, "and once more");
}

#[test]
fn a_run_reaches_what_its_egress_rules_allow_and_nothing_else() {
    let inside = names();
    let address = inside.address();
    let place = job(2, 1_000, &inside.url("/name/"), GRANTED);
    ended(&mut place.run(&["--egress", "public"])).with_code(0);
    let refused = format!("refused: {} is not allowed: it is loopback", address.ip());
    assert_eq!(written(&place).into_values().collect::<Vec<_>>(), [refused.clone(), refused]);
    assert!(inside.asked().is_empty());
    let place = job(2, 1_000, &inside.url("/name/"), GRANTED);
    ended(&mut place.run(&["--egress", "listed", "--egress-allow", &address.to_string()])).with_code(0);
    assert_named(&place, 2);
    let place = job(1, 1_000, "http://169.254.169.254/latest/meta-data/", GRANTED);
    ended(&mut place.run(&["--egress", "public"])).with_code(0);
    assert_eq!(written(&place)[&0], "refused: 169.254.169.254 is not allowed: it is metadata of a cloud");
    let away = Web::start(move |_, _| Said::Answer("302 Found", format!("Location: http://{address}/name/0\r\n"), String::new()));
    let asked = inside.asked().len();
    let place = job(1, 1_000, &away.url("/name/"), GRANTED);
    ended(&mut place.run(&["--egress", "public", "--egress-allow", &away.address().to_string()])).with_code(0);
    assert!(written(&place)[&0].starts_with("refused: a redirect leads to where nothing is sent"), "{:?}", written(&place));
    assert_eq!((away.asked().len(), inside.asked().len()), (1, asked), "nobody inside was asked");
}
