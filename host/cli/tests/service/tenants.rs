//! Tenants: made, limited, measured, deleted; and each limit met.

use millstream_hostile::{
    guests,
    players::{Guest, Job},
};
use serde_json::json;

use crate::harness::{Service, component, directory, job, operator};

/// The quota, the limit, what is used, and what to do about it.
fn assert_exceeded(answer: crate::harness::Answer, status: u16, quota: &str) {
    let document = answer.problem(status, quota);
    assert_eq!(document["type"], "/problems/quota-exceeded", "{document}");
    let problem = &document["problems"][0];
    assert_eq!(problem["quota"]["quota"], quota, "{document}");
    assert!(problem["quota"]["limit"].is_u64() && problem["quota"]["used"].is_u64() && problem["fix"].is_string(), "{document}");
}

/// Other quotas; where they do not say it, requests have no limit, since tests ask again and again.
fn set(service: &Service, tenant: &str, mut quotas: serde_json::Value) {
    quotas.as_object_mut().expect("quotas").entry("requests-per-s").or_insert(json!(null));
    service.put(&format!("/v1/tenants/{tenant}"), &json!({ "quotas": quotas })).expect(200);
}

/// A tenant `acme` with the job of this file, and a job `quiet` of another one: the token of the first.
fn acme_beside_quiet(service: &Service, file: &str) -> String {
    let token = service.tenant("acme");
    service.ask("POST", "/v1/components/count?tag=v1&wait=100", &token, &[], &component("count")).expect(201);
    service.push("v1", "count");
    service.submit("quiet");
    service.ask("POST", "/v1/jobs", &token, &[], file.as_bytes()).expect(201);
    token
}

#[test]
fn a_tenant_is_made_limited_looked_at_and_deleted() {
    let directory = directory();
    let service = Service::start(directory.path());
    let made = service.post("/v1/tenants", &json!({ "name": "acme", "settings": { "quotas": { "jobs": 2 } } })).expect(201);
    assert_eq!((&made["quotas"]["jobs"], &made["quotas"]["cpu-share"], &made["in-use"]["jobs"]), (&json!(2), &json!(100), &json!(0)));
    service.post("/v1/tenants", &json!({ "name": "acme" })).problem(409, "already");
    for bad in ["..", "a/b", "-a", ""] {
        service.post("/v1/tenants", &json!({ "name": bad })).problem(400, "no name for a tenant");
    }
    let token = service.tenant("zeta");
    assert_eq!(service.ask("GET", "/v1/whoami", &token, &[], b"").expect(200)["tenant"], "zeta");
    assert_eq!(service.ask("GET", "/v1/tenant", &token, &[], b"").expect(200)["name"], "zeta");
    let names: Vec<_> =
        service.get("/v1/tenants").expect(200)["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
    assert_eq!(names, ["acme", "local", "zeta"]);
    service.put("/v1/tenants/acme", &json!({ "quotas": { "cpu-share": 0 } })).problem(400, "cpu-share");
    service.put("/v1/tenants/acme", &json!({ "quotas": { "cpus": 1 } })).problem(400, "cpus");
    service.delete("/v1/tenants/local").problem(409, "cannot be deleted");
    // It has something, and that does not go by accident.
    service.ask("POST", "/v1/components/count?tag=v1&wait=100", &token, &[], &component("count")).expect(201);
    service.ask("POST", "/v1/jobs", &token, &[], job("counts", "{ rate: 200 }", "blackhole: {}").as_bytes()).expect(201);
    service.push("v1", "count");
    service.delete("/v1/tenants/zeta").problem(409, "still has 1 jobs");
    service.delete("/v1/tenants/zeta?contents=delete").expect_status(204);
    service.ask("GET", "/v1/whoami", &token, &[], b"").problem(401, "no longer good");
    service.get("/v1/tenants/zeta").problem(404, "no tenant");
    // The same bytes belong to another tenant, too, who keeps them; a restart finds the same.
    let service = service.kill_and_start();
    service.submit("counts");
    service.wait_for_phase("counts", "running");
    let again = service.tenant("zeta");
    assert_eq!(service.ask("GET", "/v1/jobs", &again, &[], b"").expect(200)["items"], json!([]));
    assert_eq!(service.ask("GET", "/v1/audit", &again, &[], b"").expect(200)["items"], json!([]), "nor what the one before asked for");
}

#[test]
fn every_quota_that_is_used_up_says_which_and_what_to_do() {
    let directory = directory();
    let service = Service::start(directory.path());
    let token = service.tenant("acme");
    let whole = component("count");
    let push = |name: &str, bytes: &[u8]| service.ask("POST", &format!("/v1/components/{name}?tag=v1&wait=100"), &token, &[], bytes);
    set(&service, "acme", json!({ "component-bytes": whole.len() + 10 }));
    push("count", &whole).expect(201);
    // The same bytes are counted once.
    push("same", &whole).expect(201);
    assert_exceeded(push("other", &component("count-signed")), 409, "component-bytes");
    let files: Vec<_> = std::fs::read_dir(directory.path().join("components")).unwrap().collect();
    assert_eq!(files.len(), 1, "what was refused is not kept");
    set(&service, "acme", json!({ "jobs": 1 }));
    let submit = |name: &str| service.ask("POST", "/v1/jobs", &token, &[], job(name, "{ rate: 200 }", "blackhole: {}").as_bytes());
    // Of many at once exactly one fits.
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let submitting: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| scope.spawn(move || submit(name).status)).into();
        submitting.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 201).count(), 1, "{statuses:?}");
    assert_exceeded(submit("more"), 409, "jobs");
    service.push("v1", "count");
    service.submit("of-another-tenant");
    set(&service, "acme", json!({ "requests-per-s": 1 }));
    let answers: Vec<_> = (0..20).map(|_| service.ask("GET", "/v1/whoami", &token, &[], b"")).collect();
    let refused = answers.into_iter().find(|answer| answer.status == 429).expect("more than two of twenty within a moment");
    assert!(
        refused.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|seconds| seconds >= 1)),
        "{}",
        refused.body
    );
    assert_exceeded(refused, 429, "requests-per-s");
    service.get("/v1/whoami").expect(200);
}

/// A tenant whose state outgrows its quota has its jobs stopped behind a checkpoint, and nobody else's; with room again they go on from there.
#[test]
fn a_job_that_outgrows_the_quota_of_state_is_stopped_and_goes_on_with_room() {
    let directory = directory();
    let service = Service::start(directory.path());
    let token = acme_beside_quiet(&service, &job("counts", "{ rate: 2000 }", "blackhole: {}"));
    set(&service, "acme", json!({ "state-bytes": 10 }));
    let stopped = service.wait_for_phase_as(&token, "counts", "failed");
    assert_eq!(stopped["observed"]["problems"][0]["quota"]["quota"], "state-bytes", "{stopped}");
    assert_exceeded(service.ask("POST", "/v1/jobs/counts/resume", &token, &[], b""), 409, "state-bytes");
    assert_exceeded(service.ask("POST", "/v1/jobs/counts/savepoints", &token, &[], b"{}"), 409, "state-bytes");
    let used = service.get("/v1/tenants/acme").expect(200);
    assert!(used["in-use"]["state-bytes"].as_u64() > Some(10), "{used}");
    service.wait_for_phase("quiet", "running");
    set(&service, "acme", json!({ "state-bytes": null }));
    service.ask("POST", "/v1/jobs/counts/resume", &token, &[], b"").expect(200);
    service.wait_for_phase_as(&token, "counts", "running");
}

/// A tenant whose runner has too much memory has its jobs stopped, and nobody else's; the memory is given back, and with room they go on.
#[test]
fn a_runner_that_outgrows_the_quota_of_memory_has_its_jobs_stopped_and_gives_it_back() {
    let directory = directory();
    let service = Service::start(directory.path());
    let token = acme_beside_quiet(&service, &job("counts", "{ rate: 2000 }", "blackhole: {}"));
    service.wait_for("it is measured", "/v1/tenants/acme", |tenant| tenant["in-use"]["memory-bytes"].as_u64() > Some(1 << 20));
    // Less than any process has.
    set(&service, "acme", json!({ "memory-bytes": 1 << 20 }));
    let stopped = service.wait_for_phase_as(&token, "counts", "failed");
    assert_eq!(stopped["observed"]["problems"][0]["quota"]["quota"], "memory-bytes", "{stopped}");
    service.wait_for("it is given back", "/v1/tenants/acme", |tenant| tenant["in-use"]["memory-bytes"] == 0);
    service.wait_for_phase("quiet", "running");
    set(&service, "acme", json!({ "memory-bytes": null }));
    service.ask("POST", "/v1/jobs/counts/resume", &token, &[], b"").expect(200);
    service.wait_for_phase_as(&token, "counts", "running");
}

/// Its guest never comes back, so no barrier passes it: it has its time for a last checkpoint, and then it ends without.
#[test]
fn a_job_that_takes_no_checkpoint_is_stopped_all_the_same_when_its_runner_outgrows_the_quota() {
    let directory = directory();
    let service = Service::start(directory.path());
    let token = service.tenant("acme");
    service.ask("POST", "/v1/components/bad?tag=v1&wait=100", &token, &[], &guests::loops_in_process()).expect(201);
    let job = Job { guest: Guest::Puppet(guests::loops_in_process), numbers: "rate: 1000", operator: "rejected: drop" };
    service.ask("POST", "/v1/jobs", &token, &[], job.file("loops").as_bytes()).expect(201);
    service.wait_for_phase_as(&token, "loops", "running");
    service.wait_for("it is measured", "/v1/tenants/acme", |tenant| tenant["in-use"]["memory-bytes"].as_u64() > Some(1 << 20));
    set(&service, "acme", json!({ "memory-bytes": 1 << 20 }));
    let stopped = service.wait_for_phase_as(&token, "loops", "failed");
    assert_eq!(stopped["observed"]["problems"][0]["quota"]["quota"], "memory-bytes", "{stopped}");
    set(&service, "acme", json!({ "memory-bytes": null }));
}

/// Rows and CPU time of every tenant are its own, survive a restart, and only grow.
#[test]
fn what_a_tenant_uses_is_reported_by_day_and_kept() {
    let directory = directory();
    let service = Service::start(directory.path());
    let token = service.tenant("acme");
    service.ask("POST", "/v1/components/count?tag=v1&wait=100", &token, &[], &component("count")).expect(201);
    let file = job("counts", "{ rate: 2000 }", "blackhole: {}");
    service.ask("POST", "/v1/jobs", &token, &[], file.as_bytes()).expect(201);
    let has_used = |usage: &serde_json::Value| {
        let total = &usage["total"];
        total["rows-in"].as_u64() > Some(1_000)
            && total["rows-out"].as_u64() > Some(0)
            && total["cpu-seconds"].as_f64() > Some(0.0)
            && total["state-byte-hours"].as_f64() > Some(0.0)
    };
    // Rows come by at their own pace: it is looked at again with every one, and not all the time.
    let rows = service.events("/v1/jobs/counts/operators/counts/tail", &token).filter(|line| line.starts_with("event: rows"));
    let looks = rows.map(|_| service.get("/v1/tenants/acme/usage").expect(200));
    let before = looks.take(100_000).find(has_used).expect("it has used something");
    assert_eq!(
        before["days"].as_array().unwrap().iter().filter(|day| day["rows-in"].as_u64() > Some(0)).count(),
        before["days"].as_array().unwrap().len()
    );
    assert_eq!(service.get("/v1/usage").expect(200)["total"]["rows-in"], 0, "another tenant has used nothing");
    let directory = service.directory().to_owned();
    assert_eq!(service.terminate(), Some(0));
    let service = Service::start(&directory);
    let after = service.get("/v1/tenants/acme/usage").expect(200);
    assert!(after["total"]["rows-in"].as_u64() >= before["total"]["rows-in"].as_u64(), "{before} {after}");
}

/// The numbers and the log of an operator say which version it is; a line of a row says which key it has, when it was and where in the source it stood, behind
/// an exchange, too; and nothing of it is told to another tenant.
#[test]
fn what_an_operator_does_and_says_is_seen_with_its_version_and_key_by_its_tenant_alone() {
    let directory = directory();
    let service = Service::start(directory.path());
    let (acme, zeta) = (service.tenant("acme"), service.tenant("zeta"));
    let run = |token: &str, name: &str, rate: u32| {
        service.ask("POST", "/v1/components/count-choosy?tag=v1&wait=100", token, &[], &operator("count-choosy")).expect(201);
        let operator = "{ name: count-choosy:v1, settings: { opens: well } }";
        let file = job(name, &format!("{{ rate: {rate} }}"), "blackhole: {}").replace("count:v1", operator);
        service.ask("POST", "/v1/jobs", token, &[], file.as_bytes()).expect(201);
    };
    run(&acme, "of-acme", 2000);
    run(&zeta, "of-zeta", 2000);
    let new_buckets = |token: &str, name: &str| {
        let said = service.ask("GET", &format!("/v1/jobs/{name}/logs?limit=1000"), token, &[], b"").expect(200);
        let lines = said["items"].as_array().expect("lines").clone();
        lines.into_iter().filter(|line| line["message"].as_str().is_some_and(|message| message.ends_with("is new"))).collect::<Vec<_>>()
    };
    let deadline = crate::harness::now() + std::time::Duration::from_secs(60);
    let (lines, others) = loop {
        let found = (new_buckets(&acme, "of-acme"), new_buckets(&zeta, "of-zeta"));
        if found.0.len() > 3 && found.1.len() > 3 {
            break found;
        }
        assert!(crate::harness::now() < deadline, "{found:?}");
        std::thread::yield_now();
    };
    // A bucket is new once, so each line has a key of its own; the hash is that of the key, whoever's it is.
    let hashes = |lines: &[serde_json::Value]| -> std::collections::BTreeMap<String, String> {
        lines.iter().map(|line| (line["message"].to_string(), line["key-hash"].as_str().expect("a key").to_owned())).collect()
    };
    let (ours, theirs) = (hashes(&lines), hashes(&others));
    let distinct: std::collections::BTreeSet<_> = ours.values().collect();
    assert_eq!(distinct.len(), ours.len(), "{ours:?}");
    assert!(
        ours.iter().all(|(bucket, hash)| hash.len() == 16 && theirs.get(bucket).is_none_or(|other| other == hash)),
        "{ours:?} {theirs:?}"
    );
    assert!(lines.iter().all(|line| line["version"] == "0.1.0" && line["operator"] == "counts"), "{lines:?}");
    let places: std::collections::BTreeSet<_> = lines.iter().map(|line| (line["source"].to_string(), line["position"].as_u64())).collect();
    assert!(places.len() == lines.len() && places.iter().all(|(_, position)| position.is_some()), "each is of another row: {lines:?}");

    let metrics = |token: &str| service.ask("GET", "/metrics", token, &[], b"").body;
    let of_counts = "{job=\"of-acme\",operator=\"counts\",component=\"jobs-count-choosy\",component_version=\"0.1.0\"";
    let names =
        ["rows_in_total", "busy_seconds_total", "idle_seconds_total", "guest_seconds_total", "guest_memory_bytes", "state_memory_bytes"];
    let is_more = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("millstream_operator_{name}{of_counts}")));
        let value = line.and_then(|line| line.rsplit_once(' ')).and_then(|(_, value)| value.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {name} in {text}")) > 0.0
    };
    let text = loop {
        let text = metrics(&acme);
        if names.iter().all(|name| is_more(&text, name)) {
            break text;
        }
        assert!(crate::harness::now() < deadline, "{text}");
        std::thread::yield_now();
    };
    assert!(!text.contains("of-zeta") && !metrics(&zeta).contains("of-acme"));
    service.ask("GET", "/v1/jobs/of-acme/logs", &zeta, &[], b"").problem(404, "of-acme");
}

/// What a tenant sends is counted, and more than its quota of a day stops its jobs, and nobody else's.
#[test]
fn a_tenant_that_sends_more_than_it_may_in_a_day_has_its_jobs_stopped() {
    let endpoint = crate::harness::Endpoint::start();
    endpoint.answer();
    let directory = directory();
    let service = Service::start(directory.path());
    let token = acme_beside_quiet(&service, &job("sends", "{ rate: 2000 }", &format!("http: {{ url: '{}' }}", endpoint.url())));
    let sent = |usage: &serde_json::Value| usage["total"]["egress-bytes"].as_u64().expect("a number");
    service.wait_for("it is measured", "/v1/tenants/acme/usage", |usage| sent(usage) > 1_000);
    assert_eq!(sent(&service.get("/v1/tenants/local/usage").expect(200)), 0, "its job sends nothing");
    set(&service, "acme", json!({ "egress-bytes-per-day": 1_000 }));
    let stopped = service.wait_for_phase_as(&token, "sends", "failed");
    assert_eq!(stopped["observed"]["problems"][0]["quota"]["quota"], "egress-bytes-per-day", "{stopped}");
    service.wait_for_phase("quiet", "running");
    set(&service, "acme", json!({ "egress-bytes-per-day": null }));
    service.ask("POST", "/v1/jobs/sends/resume", &token, &[], b"").expect(200);
    service.wait_for_phase_as(&token, "sends", "running");
}
