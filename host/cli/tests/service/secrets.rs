//! Secrets in the settings of components: a running job takes other ones, and nobody but the component gets to know them.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::harness::{Endpoint, Service, directory, job};

/// What the component shows of a key: its FNV-1a sum.
fn sum(key: &str) -> String {
    let sum = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{sum:016x}")
}

fn set(service: &Service, secret: &str, value: &str) {
    service.put(&format!("/v1/secrets/{secret}"), &json!({ "value": value })).expect(200);
}

fn submit(service: &Service, key: &str) {
    let named = format!("component: {{ name: count:v2, settings: {{ opens: well, key: \"{key}\" }} }}");
    let text = job("counts", "{ rate: 2000 }", "blackhole: {}").replace("component: count:v1", &named);
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
}

fn swap(key: &str) -> Value {
    json!({ "operators": { "counts": { "settings": { "opens": "well", "key": key } } }, "probation-s": 0 })
}

/// Rows that come now are made with this key.
fn assert_runs_with(service: &Service, key: &str) {
    service.wait_for_phase("counts", "running");
    let rows = service.tail("counts", "counts", 5);
    assert_eq!(rows.len(), 5);
    assert!(rows.iter().all(|row| row["by"] == sum(key)), "not made with {key}: {rows:?}");
}

/// No answer, no line of a log and no file says one of these, but for the catalogue that keeps them.
fn assert_said_nowhere(service: &Service, log: &Path, values: &[&str]) {
    let says = |place: &str, bytes: &[u8]| {
        let found = values.iter().find(|value| bytes.windows(value.len()).any(|window| window == value.as_bytes()));
        assert!(found.is_none(), "{place} says {found:?}");
    };
    let versions = service.get("/v1/jobs/counts/versions").expect(200)["items"].as_array().expect("versions").len();
    let paths = ["", "/spec", "/plan", "/run", "/why", "/versions", "/logs?limit=1000"].map(|behind| format!("/v1/jobs/counts{behind}"));
    let each = (1..=versions).map(|number| format!("/v1/jobs/counts/versions/{number}"));
    for path in paths.into_iter().chain(each).chain(["/v1/audit", "/v1/secrets", "/metrics"].map(str::to_owned)) {
        let answer = service.get(&path);
        assert_eq!(answer.status, 200, "{path}");
        says(&path, answer.body.as_bytes());
    }
    says("the log of the service", &fs::read(log).expect("it has one"));
    in_files(service.directory(), &mut |file, bytes| {
        if file.file_name().is_none_or(|name| name != "catalogue.log") {
            says(&file.display().to_string(), bytes);
        }
    });
}

fn in_files(directory: &Path, visit: &mut dyn FnMut(&Path, &[u8])) {
    for entry in fs::read_dir(directory).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            in_files(&path, visit);
        } else if let Ok(bytes) = fs::read(&path) {
            // What is gone by now was a file of a checkpoint that is no longer kept.
            visit(&path, &bytes);
        }
    }
}

/// Its reference is written down, and what it stands for is looked up again at every swap and every start.
#[test]
fn a_secret_in_settings_reaches_the_component_alone_whatever_is_swapped_or_killed() {
    let (directory, said) = (directory(), directory());
    let log = said.path().join("log");
    let service = Service::start_logged(directory.path(), &log);
    let [one, two, three, four] = ["planted-one-7d1f", "planted-two-93ac", "planted-three-0b52", "planted-four-e8d6"];
    service.push_of_tests("v2", "count-choosy");
    set(&service, "key", one);
    submit(&service, "${secret:key}");
    assert_runs_with(&service, one);

    // The same reference, which stands for something else by now.
    set(&service, "key", two);
    assert_runs_with(&service, one);
    let trial = service.post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": {} }, "dry-run": true })).expect(200);
    assert_eq!(trial["swap"]["operators"][0]["changes"][0]["what"], "what its settings refer to has another value");
    service.post("/v1/jobs/counts/swap", &swap("${secret:key}")).expect(200);
    assert_runs_with(&service, two);

    // Another reference; on probation, and back.
    set(&service, "other", three);
    let on_probation = json!({ "operators": { "counts": { "settings": { "opens": "well", "key": "${secret:other}" } } } });
    let swapped = service.post("/v1/jobs/counts/swap", &on_probation).expect(200);
    let change = swapped["swap"]["operators"][0]["changes"][0]["what"].as_str().expect("a difference").to_owned();
    assert!(change.contains("${secret:key}") && change.contains("${secret:other}"), "{change}");
    assert_runs_with(&service, three);
    assert_said_nowhere(&service, &log, &[one, two, three]);
    service.post("/v1/jobs/counts/rollback", &json!({})).expect(200);
    assert_runs_with(&service, two);
    service.post("/v1/jobs/counts/swap", &swap("${secret:other}")).expect(200);

    // What is not there, or does not fit, is refused, and is not said either.
    service.post("/v1/jobs/counts/swap", &swap("${secret:none}")).problem(400, "no secret `none`");
    let no_way = json!({ "operators": { "counts": { "settings": { "opens": "${secret:other}" } } } });
    let refused = service.post("/v1/jobs/counts/swap", &no_way);
    assert!(!refused.body.contains(three), "{}", refused.body);
    refused.problem(400, "`${secret:other}` is no way to open");
    assert_runs_with(&service, three);

    service.wait_for("a checkpoint", "/v1/jobs/counts/run", |run| run["durable"]["last-checkpoint"].is_object());
    set(&service, "other", four);
    drop(service);
    let service = Service::start_logged(directory.path(), &log);
    assert_runs_with(&service, four);
    let lines = service.get("/v1/jobs/counts/logs?limit=1000").body;
    assert!(lines.contains("opened with ${secret:other}"), "{lines}");
    assert_said_nowhere(&service, &log, &[one, two, three, four]);
}

/// An outage ends by what secrets stand for when the next attempt begins, in the same process: those of connectors, and those of components, swapped in or
/// not.
#[test]
fn the_next_attempt_has_what_secrets_stand_for_by_then() {
    let (directory, said) = (directory(), directory());
    let log = said.path().join("log");
    let service = Service::start_logged(directory.path(), &log);
    let nobody = Endpoint::start().url();
    let [one, two, three, four] = ["planted-one-7d1f", "planted-two-93ac", "planted-three-0b52", "planted-four-e8d6"];
    service.push_of_tests("v2", "count-choosy");
    [("url", nobody.as_str()), ("key", one), ("other", three)].iter().for_each(|(secret, value)| set(&service, secret, value));
    let named = "component: { name: count:v2, settings: { opens: well, key: \"${secret:key}\" } }";
    let sink = "http: { url: \"${secret:url}\", batch-rows: 1, tries: 1 }";
    let text = job("counts", "{ rate: 100 }", sink).replace("component: count:v1", named) + "restart: { first: 100ms, most: 100ms }\n";
    service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
    let restarts = |least: u64| {
        let is_so = |run: &Value| run["durable"]["restarts"].as_u64() >= Some(least);
        service.wait_for("it fails", "/v1/jobs/counts/run", is_so)["durable"]["restarts"].as_u64().expect("a number")
    };
    restarts(2);

    let first = Endpoint::start();
    first.answer();
    set(&service, "key", two);
    set(&service, "url", &first.url());
    let checkpointed = |than: u64| {
        let is_so = |run: &Value| run["durable"]["last-checkpoint"]["checkpoint"].as_u64() > Some(than);
        service.wait_for("a checkpoint", "/v1/jobs/counts/run", is_so)["durable"]["last-checkpoint"]["checkpoint"]
            .as_u64()
            .expect("a number")
    };
    let checkpoint = checkpointed(0);
    assert_runs_with(&service, two);

    service.post("/v1/jobs/counts/swap", &swap("${secret:other}")).expect(200);
    assert_runs_with(&service, three);
    let before = restarts(0);
    let second = Endpoint::start();
    second.answer();
    set(&service, "other", four);
    set(&service, "url", &second.url());
    assert_runs_with(&service, three);
    drop(first);
    restarts(before + 1);
    checkpointed(checkpoint);
    assert_runs_with(&service, four);
    assert_said_nowhere(&service, &log, &[one, two, three, four, &nobody, &second.url()]);
}

/// What a process that died on probation comes back to has its own secret, though the job file that was swapped in names another one.
#[test]
fn a_version_on_probation_with_another_secret_does_not_survive_a_kill() {
    let (directory, said) = (directory(), directory());
    let log = said.path().join("log");
    let service = Service::start_logged(directory.path(), &log);
    service.push_of_tests("v2", "count-choosy");
    set(&service, "old", "planted-old-51c7");
    set(&service, "new", "planted-new-2fa0");
    submit(&service, "${secret:old}");
    service.wait_for("a checkpoint", "/v1/jobs/counts/run", |run| run["durable"]["last-checkpoint"].is_object());
    let on_probation = json!({ "operators": { "counts": { "settings": { "opens": "well", "key": "${secret:new}" } } } });
    service.post("/v1/jobs/counts/swap", &on_probation).expect(200);
    assert_runs_with(&service, "planted-new-2fa0");
    drop(service);
    let service = Service::start_logged(directory.path(), &log);
    assert_runs_with(&service, "planted-old-51c7");
    assert_said_nowhere(&service, &log, &["planted-old-51c7", "planted-new-2fa0"]);
}
