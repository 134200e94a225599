//! Who may ask what: every route of the table, asked with every kind of token. A route that is added is in this test.

use std::io::Read as _;

use millstream_server::http::{
    self,
    route::{Gives, Route},
};

use crate::harness::{Answer, Service, directory, now, parse};

/// The path with something in place of its braces that does not exist.
fn path(route: &Route) -> String {
    let mut path = route.path.to_owned();
    for name in route.parameters() {
        path = path.replace(&format!("{{{name}}}"), "none");
    }
    path
}

/// The status of an answer; of events only their beginning is read.
fn status(service: &Service, route: &Route, token: &str) -> Answer {
    let mut stream = service.send(route.method.as_str(), &path(route), token, &[], b"");
    let mut bytes = Vec::new();
    if matches!(route.gives, Gives::Events) {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).expect("an answer");
        bytes.extend_from_slice(&buffer[..read]);
    } else {
        stream.read_to_end(&mut bytes).expect("an answer");
    }
    parse(&bytes)
}

#[test]
fn every_route_lets_in_exactly_the_scopes_that_it_says() {
    let directory = directory();
    let service = Service::start(directory.path());
    let tokens: Vec<(&str, String)> =
        ["view", "operate", "deploy", "admin", "host"].into_iter().map(|scope| (scope, service.make_token(&[scope]).1)).collect();
    for route in http::routes() {
        let Some(needed) = route.scope else {
            assert_ne!(status(&service, &route, "").status, 401, "{}", route.operation);
            continue;
        };
        for bad in ["", "ms_0_0", "nonsense", "ms_0123456789abcdef_0123"] {
            let answer = status(&service, &route, bad);
            assert_eq!(answer.status, 401, "{} with {bad:?}", route.operation);
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{}", route.operation);
        }
        for (scope, token) in &tokens {
            let needed = needed.to_string();
            let may = needed == *scope || needed == "view" || (*scope == "admin" && needed != "host");
            let answer = status(&service, &route, token);
            assert_eq!(answer.status != 403, may, "{} with {scope}: {}", route.operation, answer.body);
            assert_ne!(answer.status, 401, "{} with {scope}", route.operation);
            assert_ne!(answer.status, 500, "{} with {scope}: {}", route.operation, answer.body);
        }
    }
}

/// A token that is revoked while it listens hears no more, within five seconds.
#[test]
fn a_stream_ends_when_its_token_is_revoked() {
    let directory = directory();
    let service = Service::start(directory.path());
    let (id, secret) = service.make_token(&["view"]);
    let mut events = service.events("/v1/events", &secret);
    // It listens before the token is revoked.
    assert_eq!(events.next().as_deref(), Some("HTTP/1.1 200 OK"));
    service.delete(&format!("/v1/tokens/{id}")).expect(200);
    let revoked = now();
    let heard: Vec<String> = events.collect();
    assert!(heard.iter().any(|line| line.contains("no longer good")), "{heard:?}");
    assert!(revoked.elapsed() < std::time::Duration::from_secs(5), "{:?}", revoked.elapsed());
    service.ask("GET", "/v1/whoami", &secret, &[], b"").problem(401, "no longer good");
}

/// Rows that come without a pause end with their token, too; who listens with another one hears on.
#[test]
fn rows_that_keep_flowing_end_with_their_token() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.submit("counts");
    let (id, secret) = service.make_token(&["view"]);
    let path = "/v1/jobs/counts/operators/counts/tail";
    let (mut revoked, mut other) = (service.events(path, &secret), service.events(path, &service.token));
    assert!(revoked.any(|line| line == "event: rows") && other.any(|line| line == "event: rows"));
    service.delete(&format!("/v1/tokens/{id}")).expect(200);
    let at = now();
    let last: Vec<String> = revoked.filter(|line| line.starts_with("event:")).collect();
    assert!(at.elapsed() < std::time::Duration::from_secs(5), "{:?}", at.elapsed());
    assert_eq!(last.last().map(String::as_str), Some("event: end"));
    assert!(other.any(|line| line == "event: rows"));
}

#[test]
fn what_was_asked_for_is_written_down_with_who_asked_and_secrets_are_never_told() {
    let directory = directory();
    let service = Service::start(directory.path());
    let (id, secret) = service.make_token(&["deploy"]);
    let set = service.ask("PUT", "/v1/secrets/db", &secret, &[], br#"{"value":"hunter2-planted"}"#);
    assert!(!set.body.contains("hunter2"));
    service.ask("POST", "/v1/jobs/none/stop", &secret, &[], b"{}").problem(403, "operate");
    let audit = service.get("/v1/audit");
    assert!(!audit.body.contains("hunter2"));
    let records = audit.json();
    let of_token: Vec<&str> = records["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|record| record["token"] == id.as_str())
        .map(|record| record["operation"].as_str().unwrap())
        .collect();
    assert_eq!(of_token, ["set-secret"]);
    assert!(!service.get("/v1/secrets").body.contains("hunter2"));
    assert!(!service.get("/metrics").body.contains("hunter2"));
}
