//! Tenants: made, limited, measured, deleted; and each limit met.

use serde_json::json;

use crate::harness::{Service, component, directory, job};

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
    let token = service.tenant("acme");
    service.ask("POST", "/v1/components/count?tag=v1&wait=100", &token, &[], &component("count")).expect(201);
    service.push("v1", "count");
    service.submit("quiet");
    let file = job("counts", "{ rate: 2000 }", "blackhole: {}");
    service.ask("POST", "/v1/jobs", &token, &[], file.as_bytes()).expect(201);
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
    let token = service.tenant("acme");
    service.ask("POST", "/v1/components/count?tag=v1&wait=100", &token, &[], &component("count")).expect(201);
    service.push("v1", "count");
    service.submit("quiet");
    let file = job("counts", "{ rate: 2000 }", "blackhole: {}");
    service.ask("POST", "/v1/jobs", &token, &[], file.as_bytes()).expect(201);
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
