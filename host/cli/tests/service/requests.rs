//! Jobs of a service whose component asks others over HTTP, behind the walls of a runner: only where the service allows it, counted, and never on trial.

use millstream_job_tests::web::{Said, Web};
use serde_json::json;

use crate::harness::{Service, directory, operator};

/// A job over some numbers that asks `url` for their names; `http`: what it is granted.
fn job(name: &str, to: u64, url: &str, http: &str) -> String {
    format!(
        "job: {name}
parallelism: 1
sources:
  numbers: {{ sequence: {{ to: {to}, rate: 2000 }} }}
operators:
  named:
    input: numbers
    component: {{ name: 'enrich:v1', settings: {{ url: '{url}' }} }}
    {http}
sinks:
  out: {{ input: named, blackhole: {{}} }}
checkpoints: {{ interval: 500ms }}
"
    )
}

fn names() -> Web {
    Web::start(|path, _| Said::Answer("200 OK", String::new(), path.to_owned()))
}

fn push(service: &Service) {
    let pushed = service.ask("POST", "/v1/components/enrich?tag=v1&wait=100", &service.token, &[], &operator("enrich")).expect(201);
    assert!(pushed.to_string().contains("requesting-operator"), "{pushed}");
}

#[test]
fn components_of_a_hosted_service_reach_what_is_listed_and_nothing_else_inside() {
    let (listed, inside) = (names(), names());
    let directory = directory();
    let service = Service::start_with(directory.path(), &["--hosted", "--egress-allow", &listed.address().to_string()]);
    push(&service);
    let submit =
        |name: &str, url: &str, http: &str| service.ask("POST", "/v1/jobs", &service.token, &[], job(name, 50, url, http).as_bytes());
    submit("bare", &listed.url("/"), "").problem(400, "operator `named` is granted no requests over HTTP");
    submit("listed", &listed.url("/"), "http: {}").expect(201);
    service.wait_for_phase("listed", "finished");
    assert_eq!(listed.asked().len(), 51);
    for (number, url) in [inside.url("/"), inside.url("/").replace("127.0.0.1", "localhost")].into_iter().enumerate() {
        let name = format!("inside-{number}");
        submit(&name, &url, "http: {}").expect(201);
        service.wait_for_phase(&name, "finished");
    }
    assert!(inside.asked().is_empty());
    let used = service.wait_for("it is measured", "/v1/tenants/local/usage", |usage| usage["total"]["egress-bytes"].as_u64() > Some(0));
    assert!(used["total"]["egress-bytes"].as_u64() >= Some(51 * 20), "{used}");
}

/// A shadow would do in earnest whatever its requests do.
#[test]
fn a_version_that_sends_requests_is_swapped_in_and_never_tried() {
    let web = names();
    let directory = directory();
    let service = Service::start(directory.path());
    push(&service);
    let endless = job("endless", 1_000_000, &web.url("/"), "http: {}");
    service.ask("POST", "/v1/jobs", &service.token, &[], endless.as_bytes()).expect(201);
    service.wait_for_phase("endless", "running");
    assert!(!service.tail("endless", "named", 1).is_empty());
    for mode in [json!({}), json!({ "canary": { "share": 50 } })] {
        let mut request = json!({ "operator": "named", "component": "enrich:v1" });
        request.as_object_mut().expect("an object").extend(mode.as_object().expect("an object").clone());
        let refused = service.post("/v1/jobs/endless/trial", &request);
        assert!((400..500).contains(&refused.status), "{}", refused.body);
    }
    let refused = service.post("/v1/jobs/endless/trial", &json!({ "operator": "named", "component": "enrich:v1" }));
    assert!(refused.body.contains("sends requests over HTTP"), "{}", refused.body);
    service.post("/v1/jobs/endless/swap", &json!({ "operators": { "named": { "component": "enrich:v1" } } })).expect(200);
    let asked = web.asked().len();
    assert!(!service.tail("endless", "named", 1).is_empty(), "and it goes on");
    assert!(web.asked().len() >= asked);
}
