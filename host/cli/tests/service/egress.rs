//! Where jobs of a hosted service connect to, and what of its machine they may name.

use std::{fs, io, net::TcpListener};

use crate::harness::{DEADLINE, Endpoint, Service, component, directory, job, now};

/// Somebody inside who must not be reached.
fn inside() -> (TcpListener, u16) {
    let listener = TcpListener::bind("0.0.0.0:0").expect("a free port");
    listener.set_nonblocking(true).expect("a listener");
    let port = listener.local_addr().expect("it is bound").port();
    (listener, port)
}

fn assert_not_reached(listener: &TcpListener) {
    assert_eq!(listener.accept().expect_err("nobody has connected").kind(), io::ErrorKind::WouldBlock);
}

/// librdkafka says of a refused connection only that it has none; the gate says which, in the log of the service.
fn wait_for_log(log: &std::path::Path, says: &str) {
    let began = now();
    while !fs::read_to_string(log).is_ok_and(|text| text.contains(says)) {
        assert!(began.elapsed() < DEADLINE, "{says:?} in {:?}", fs::read_to_string(log));
        std::thread::yield_now();
    }
}

fn wait_until_reached(listener: &TcpListener) {
    let began = now();
    while listener.accept().is_err() {
        assert!(began.elapsed() < DEADLINE, "nobody has connected");
        std::thread::yield_now();
    }
}

/// Every connector connects through the same gate, librdkafka included, however the address is written; what the operator lists is reached.
#[test]
fn jobs_of_a_hosted_service_reach_what_is_listed_and_nothing_else_inside() {
    let endpoint = Endpoint::start();
    endpoint.answer();
    let allowed = endpoint.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (listed, listed_port) = inside();
    let (directory, said) = (directory(), directory());
    let log = said.path().join("log");
    let allowed = format!("{allowed},127.0.0.3:{listed_port}");
    let service = Service::start_logged_with(directory.path(), &["--hosted", "--egress-allow", &allowed], &log);
    service.push("v1", "count");
    let submit = |name: &str, sink: &str| {
        let file = job(name, "{ to: 100 }", sink);
        service.ask("POST", "/v1/jobs", &service.token, &[], file.as_bytes())
    };
    submit("listed", &format!("http: {{ url: '{}' }}", endpoint.url())).expect(201);
    service.wait_for_phase("listed", "finished");
    let (listener, port) = inside();
    for (number, host) in ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "0"].into_iter().enumerate() {
        submit(&format!("http-{number}"), &format!("http: {{ url: 'http://{host}:{port}/', tries: 1 }}")).expect(201);
        let path = format!("/v1/jobs/http-{number}/run");
        let seen = service.wait_for("it has failed", &path, |run| run.to_string().contains("ermission denied"));
        assert!(!seen.to_string().contains("finished"), "{seen}");
        service.post(&format!("/v1/jobs/http-{number}/stop"), &serde_json::json!({})).expect(200);
    }
    let kafka = |name: &str, servers: &str| {
        submit(name, &format!("kafka: {{ servers: '{servers}', topic: t, format: json, delivery: at-least-once }}")).expect(201);
    };
    kafka("kafka", &format!("127.0.0.2:{port}"));
    wait_for_log(&log, "127.0.0.2 is not allowed: it is loopback");
    kafka("kafka-listed", &format!("127.0.0.3:{listed_port}"));
    wait_until_reached(&listed);
    assert_not_reached(&listener);
}

/// What one tenant may reach, another may not.
#[test]
fn a_tenant_reaches_what_is_listed_for_it_and_no_other_does() {
    let endpoint = Endpoint::start();
    endpoint.answer();
    let directory = directory();
    let service = Service::start_with(directory.path(), &["--egress", "listed"]);
    let tenants = ["acme", "zeta"].map(|name| service.tenant(name));
    let place = endpoint.url().trim_start_matches("http://").trim_end_matches('/').to_owned();
    let settings = |rule: &str| serde_json::json!({ "quotas": { "requests-per-s": null }, "egress-allow": [rule] });
    service.put("/v1/tenants/acme", &settings("10.0.0.0/33")).problem(400, "10.0.0.0/33");
    service.put("/v1/tenants/acme", &settings(&place)).expect(200);
    for token in &tenants {
        service.ask("POST", "/v1/components/count?tag=v1&wait=100", token, &[], &component("count")).expect(201);
        let file = job("sends", "{ to: 100 }", &format!("http: {{ url: '{}', tries: 1 }}", endpoint.url()));
        service.ask("POST", "/v1/jobs", token, &[], file.as_bytes()).expect(201);
    }
    let [acme, zeta] = &tenants;
    service.wait_for_phase_as(acme, "sends", "finished");
    let began = now();
    loop {
        let run = service.ask("GET", "/v1/jobs/sends/run", zeta, &[], b"").body;
        assert!(!run.contains("\"finished\""), "{run}");
        if run.contains("ermission denied") {
            break;
        }
        assert!(began.elapsed() < DEADLINE, "{run}");
        std::thread::yield_now();
    }
}

#[test]
fn jobs_of_a_service_of_ones_own_reach_what_is_inside() {
    let endpoint = Endpoint::start();
    endpoint.answer();
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    let file = job("inside", "{ to: 100 }", &format!("http: {{ url: '{}' }}", endpoint.url()));
    service.ask("POST", "/v1/jobs", &service.token, &[], file.as_bytes()).expect(201);
    service.wait_for_phase("inside", "finished");
}

/// Files, ports and the storage of checkpoints are those of who runs the service.
#[test]
fn a_stranger_names_nothing_of_the_machine() {
    let directory = directory();
    let service = Service::start(directory.path());
    let acme = service.tenant("acme");
    for (sink, says) in
        [("files: { path: /tmp/x, format: ndjson }", "`files` is not for this tenant"), ("blackhole: {}", "storage of checkpoints")]
    {
        let file = job("x", "{}", sink).replace("interval: 500ms", "interval: 500ms, storage: /tmp/x");
        for path in ["/v1/jobs", "/v1/validate"] {
            service.ask("POST", path, &acme, &[], file.as_bytes()).problem(400, says);
        }
    }
    let source =
        "job: x\nsources: { a: { files: { path: ../../catalogue.log, format: ndjson } } }\nsinks: { out: { input: a, blackhole: {} } }\n";
    service.ask("POST", "/v1/validate", &acme, &[], source.as_bytes()).problem(400, "`files` is not for this tenant");
}

#[test]
fn a_rule_that_is_none_is_refused_at_the_start() {
    let directory = directory();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["serve", "--listen", "127.0.0.1:0", "--egress-allow", "10.0.0.0/33", "--dir"])
        .arg(directory.path())
        .output()
        .expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("10.0.0.0/33"));
}
