//! The life of a job over HTTP: pushed, submitted, watched, changed, stopped, forked, deleted.

use serde_json::{Value, json};

use crate::harness::{Service, directory, job};

/// What is known of a bucket, and when.
fn count_of(service: &Service, job: &str, bucket: i64) -> u64 {
    let found = service.get(&format!("/v1/jobs/{job}/state/counts?key=bucket={bucket}&fresh=true")).expect(200);
    found["entries"][0]["value"]["count"].as_u64().expect("a count")
}

#[test]
fn the_first_ten_minutes() {
    let directory = directory();
    let service = Service::start(directory.path());
    let first = service.push("v1", "count");
    assert_eq!(service.push("v1-again", "count"), first, "the same bytes are the same component");
    service.push("v2", "count-signed");
    let shown = service.get("/v1/components/count/versions/v1").expect(200);
    assert_eq!(shown["phase"], "ready");
    assert_eq!(shown["report"]["inputs"], json!(["in"]));

    let view = service.submit("counts");
    assert_eq!((view["desired"].as_str(), view["version"].as_u64()), (Some("running"), Some(1)));
    assert_eq!(view["components"]["count:v1"], first);
    let rows = service.tail("counts", "counts", 20);
    assert!(rows.iter().all(|row| row["by"] == "v1"), "{rows:?}");

    assert!(service.get("/v1/jobs/counts/why").expect(200)["sentence"].is_string());
    let savepoint = service.post("/v1/jobs/counts/savepoints", &json!({ "name": "monday" })).expect(201);
    assert_eq!(savepoint["version"], 1);
    service.post("/v1/jobs?from=counts/monday&name=fork", &json!({})).problem(400, "job");
    let fork = service.ask("POST", "/v1/jobs?from=counts/monday&name=fork", &service.token, &[], b"").expect(201);
    assert_eq!(fork["observed"]["phase"], "running");
    assert!(count_of(&service, "fork", 3) > 0, "the fork has the counts of the savepoint");

    let scaled = service.post("/v1/jobs/fork/scale", &json!({ "parallelism": 2 })).expect(200);
    assert_eq!(scaled["version"], 2);
    let before = count_of(&service, "fork", 3);
    service.post("/v1/jobs/fork/pause", &json!({})).expect(200);
    service.wait_for_phase("fork", "stopped");
    assert_eq!(service.get("/v1/jobs/fork/why").expect(200)["sentence"], "it is paused, and waits to be resumed");
    service.post("/v1/jobs/fork/resume", &json!({})).expect(200);
    assert!(count_of(&service, "fork", 3) >= before);

    service.delete("/v1/jobs/fork").problem(409, "stop it first");
    service.delete("/v1/components/count").problem(409, "in use");
    service.post("/v1/jobs/fork/stop", &json!({ "savepoint": "last" })).expect(200);
    service.delete("/v1/jobs/fork").problem(409, "savepoints");
    service.delete("/v1/jobs/fork?savepoints=delete").expect(204);
    service.get("/v1/jobs/fork").problem(404, "fork");
    service.post("/v1/jobs/counts/stop", &json!({})).expect(200);
    service.delete("/v1/jobs/counts?savepoints=delete").expect(204);
    service.delete("/v1/components/count").expect(204);
    service.get("/v1/components/count").problem(404, "push it");
}

/// A deleted job leaves nothing that another one of its name would go on from.
#[test]
fn a_new_job_with_the_name_of_a_deleted_one_starts_from_the_beginning() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    // The second one reads less: what it would go on from would show.
    for (last, count) in [(69, 10), (34, 5)] {
        let bounded = job("counts", &format!("{{ to: {last} }}"), "blackhole: {}");
        service.ask("POST", "/v1/jobs", &service.token, &[], bounded.as_bytes()).expect(201);
        service.wait_for_phase("counts", "finished");
        let found = service.get("/v1/jobs/counts/state/counts?key=bucket=3").expect(200);
        assert_eq!(found["entries"], json!([{ "key": { "bucket": 3 }, "value": { "count": count } }]));
        service.delete("/v1/jobs/counts").expect(204);
    }
}

#[test]
fn secrets_are_put_in_place_and_never_shown() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    let with_secret = job("counts", "{ rate: 100 }", "files: { path: \"out-${secret:place}\", format: ndjson }");
    service.ask("POST", "/v1/jobs", &service.token, &[], with_secret.as_bytes()).problem(400, "no secret `place`");
    service.put("/v1/secrets/place", &json!({ "value": "hunter2-planted" })).expect(200);
    service.ask("POST", "/v1/jobs", &service.token, &[], with_secret.as_bytes()).expect(201);
    service.wait_for("rows", "/v1/jobs/counts/run", |run| run["operators"][3]["rows-in"].as_u64() > Some(10));
    for path in [
        "/v1/jobs/counts",
        "/v1/jobs/counts/spec",
        "/v1/jobs/counts/plan",
        "/v1/jobs/counts/versions/1",
        "/v1/jobs/counts/run",
        "/v1/audit",
    ] {
        assert!(!service.get(path).body.contains("hunter2"), "{path}");
    }
    assert!(service.get("/v1/jobs/counts/spec").body.contains("${secret:place}"));
    // Nor is it told where the silence or the failure of the job is.
    assert!(!service.get("/v1/jobs/counts/why").body.contains("hunter2"));
    for reference in ["${env:HOME}", "${file:/etc/hostname}"] {
        let of_the_machine = job("other", "{ rate: 1 }", &format!("files: {{ path: \"out-{reference}\", format: ndjson }}"));
        let document = service.ask("POST", "/v1/jobs", &service.token, &[], of_the_machine.as_bytes()).problem(400, "is for local runs");
        assert!(document["problems"][0]["fix"].as_str().expect("a fix").contains("millstream secret set"), "{document}");
        assert!(document["problems"][0]["line"].is_u64(), "{document}");
    }
}

#[test]
fn lists_come_in_pages_and_etags_guard_changes() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    for name in ["a", "b", "c"] {
        let path = "/v1/jobs?paused=true";
        service.ask("POST", path, &service.token, &[], job(name, "{ rate: 1 }", "blackhole: {}").as_bytes()).expect(201);
    }
    let names =
        |page: &Value| page["items"].as_array().unwrap().iter().map(|job| job["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let first = service.get("/v1/jobs?limit=2").expect(200);
    assert_eq!(names(&first), ["a", "b"]);
    let rest = service.get(&format!("/v1/jobs?limit=2&cursor={}", first["next"].as_str().unwrap())).expect(200);
    assert_eq!((names(&rest), &rest["next"]), (vec!["c".to_owned()], &Value::Null));

    let job = service.get("/v1/jobs/a");
    let etag = job.header("etag").expect("an ETag").to_owned();
    assert_eq!(service.ask("GET", "/v1/jobs/a", &service.token, &[("if-none-match", &etag)], b"").status, 304);
    let scale = |etag: &str| service.ask("POST", "/v1/jobs/a/scale", &service.token, &[("if-match", etag)], br#"{"parallelism":2}"#);
    assert_eq!(scale(&etag).status, 200);
    scale(&etag).problem(412, "changed since");
    scale("\"foreign\"").problem(412, "ETag");
}

#[test]
fn a_request_with_an_idempotency_key_is_carried_out_once() {
    let directory = directory();
    let service = Service::start(directory.path());
    let make = |key: &str, label: &str| {
        let body = json!({ "label": label, "scopes": ["view"] }).to_string();
        service.ask("POST", "/v1/tokens", &service.token, &[("idempotency-key", key)], body.as_bytes())
    };
    let (first, again) = (make("k1", "a"), make("k1", "a"));
    assert_eq!((first.status, &first.body), (201, &again.body));
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    make("k1", "b").problem(422, "another request");
    assert_ne!(make("k2", "a").body, first.body);
    let labels = service.get("/v1/tokens").expect(200)["items"].as_array().unwrap().len();
    assert_eq!(labels, 3, "the first one, and two that were made");
}

/// Pages of results neither overlap nor leave rows out, in every format, and have an end.
#[test]
fn results_of_a_finished_job_come_in_pages() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    for format in ["ndjson", "csv", "parquet"] {
        let text = job(format, "{ to: 999 }", &format!("files: {{ path: out-{format}, format: {format} }}"));
        service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes()).expect(201);
        service.wait_for_phase(format, "finished");
        let (mut found, mut query, mut pages) = (Vec::new(), String::new(), 0);
        loop {
            let page = service.get(&format!("/v1/jobs/{format}/results?limit=300{query}")).expect(200);
            let rows = page["items"].as_array().unwrap();
            assert!(rows.len() <= 300);
            found.extend(rows.iter().map(|row| (row["bucket"].as_i64().unwrap(), row["count"].as_u64().unwrap())));
            pages += 1;
            let Some(next) = page["next"].as_str() else { break };
            query = format!("&cursor={next}");
        }
        assert!(pages >= 4, "{pages}");
        let mut expected: Vec<(i64, u64)> = (0..1_000).map(|value| (value % 7, (value / 7) as u64 + 1)).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{format}");
    }
    service.get("/v1/jobs/csv/results?sink=none").problem(404, "`results`");
    for cursor in ["7b7d", "zz", "7b2273706c6974223a302c22706f736974696f6e223a7b226f6666736574223a352c227265636f7264223a3939393939397d7d"] {
        service.get(&format!("/v1/jobs/ndjson/results?cursor={cursor}")).problem(400, "cursor");
    }
    service.submit("endless");
    service.get("/v1/jobs/endless/results").problem(409, "has not finished");
    let nowhere = job("nowhere", "{ to: 9 }", "blackhole: {}");
    service.ask("POST", "/v1/jobs", &service.token, &[], nowhere.as_bytes()).expect(201);
    service.wait_for_phase("nowhere", "finished");
    service.get("/v1/jobs/nowhere/results").problem(400, "no sink whose rows can be read back");
}

/// The example of the service checks every answer itself.
#[test]
fn the_example_plays() {
    crate::harness::component("count");
    let play = millstream_job_tests::components::repository().join("examples/service/play");
    let output = std::process::Command::new(play).env("MILLSTREAM", env!("CARGO_BIN_EXE_millstream")).output().expect("it runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("Everything in order"), "{said}");
}
