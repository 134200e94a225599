//! The walls between tenants: tenant × endpoint × verb × kind of id × scope, generated from the table of routes. [`row`] says what a request of each route
//! needs to mean something; a route without a row fails.

use std::{collections::BTreeSet, io::Read as _};

use millstream_server::{
    catalogue::objects::Scope,
    http::{
        self,
        route::{Gives, Route},
    },
};
use serde_json::{Value, json};

use crate::harness::{Answer, Service, component, directory, job, now, parse};

/// What a route is asked with, and what it answers to whom everything belongs that it names.
struct Row {
    query: String,
    body: Vec<u8>,
    own: u16,
    /// What it answers to who names something that is not there, where that is no mistake.
    absent: u16,
}

/// What the names in a path stand for.
#[derive(Clone)]
struct Ids {
    job: String,
    component: String,
    tag: String,
    digest: String,
    secret: String,
    token: String,
    savepoint: String,
    version: String,
    operator: String,
    tenant: String,
}

impl Ids {
    fn of(&self, parameter: &str) -> &str {
        match parameter {
            "job" => &self.job,
            "component" => &self.component,
            "tag" => &self.tag,
            "reference" => &self.digest,
            "secret" => &self.secret,
            "token" => &self.token,
            "savepoint" => &self.savepoint,
            "version" => &self.version,
            "operator" => &self.operator,
            "tenant" => &self.tenant,
            other => panic!("a name in a path that this test does not know: {other}"),
        }
    }
}

/// A tenant, and who may do everything in it.
struct Party {
    token: String,
    ids: Ids,
}

/// A tenant with one of everything, all names ending in its own.
fn party(service: &Service, name: &str, operator: &str) -> Party {
    let token = service.tenant(name);
    let ask = |method: &str, path: &str, body: &[u8]| service.ask(method, path, &token, &[], body);
    let named = |kind: &str| format!("{kind}-{name}");
    let (job_name, component_name, tag, secret, savepoint) = (named("job"), named("comp"), named("tag"), named("secret"), named("sp"));
    let pushed = ask("POST", &format!("/v1/components/{component_name}?tag={tag}&wait=100"), &component(operator)).expect(201);
    let digest = format!("sha256:{}", pushed["digest"].as_str().expect("a digest"));
    ask("PUT", &format!("/v1/secrets/{secret}"), br#"{"value":"planted-7f3a"}"#).expect(200);
    ask("POST", "/v1/jobs", job_file(&job_name, &component_name, &tag, name).as_bytes()).expect(201);
    ask("POST", &format!("/v1/jobs/{job_name}/savepoints"), json!({ "name": savepoint }).to_string().as_bytes()).expect(201);
    let made = ask("POST", "/v1/tokens", br#"{"label":"of the test","scopes":["view"]}"#).expect(201);
    let ids = Ids {
        job: job_name,
        component: component_name,
        tag,
        digest,
        secret,
        token: made["id"].as_str().expect("an id").to_owned(),
        savepoint,
        version: "1".to_owned(),
        operator: named("op"),
        tenant: name.to_owned(),
    };
    Party { token, ids }
}

fn job_file(job_name: &str, component: &str, tag: &str, tenant: &str) -> String {
    let text = job(job_name, "{ rate: 200 }", "blackhole: {}");
    text.replace("  counts:", &format!("  op-{tenant}:"))
        .replace("input: counts", &format!("input: op-{tenant}"))
        .replace("count:v1", &format!("{component}:{tag}"))
}

/// The row of a route, for a tenant. In the order in which the own objects of a tenant are asked for: what ends something comes last.
fn rows(ids: &Ids) -> Vec<(&'static str, Row)> {
    let row = |own: u16| Row { query: String::new(), body: Vec::new(), own, absent: 404 };
    let json = |own: u16, body: Value| Row { body: body.to_string().into_bytes(), ..row(own) };
    let file = |name: &str| job_file(name, &ids.component, &ids.tag, &ids.tenant).into_bytes();
    let other = "00".repeat(32);
    vec![
        ("health", row(200)),
        ("readiness", row(200)),
        ("metrics", row(200)),
        ("describe", row(200)),
        ("whoami", row(200)),
        ("get-own-tenant", row(200)),
        ("get-own-usage", row(200)),
        ("list-tokens", row(200)),
        ("get-token", row(200)),
        ("make-token", json(201, json!({ "label": "x", "scopes": ["view"] }))),
        ("list-secrets", row(200)),
        // What is not there is made, for who asks.
        ("set-secret", Row { absent: 200, ..json(200, json!({ "value": "v" })) }),
        ("list-audit", row(200)),
        ("follow-events", row(200)),
        ("list-components", row(200)),
        ("get-component", row(200)),
        ("get-component-version", row(200)),
        ("push-component", Row { query: "?tag=more&wait=100".into(), body: component("count"), absent: 201, ..row(201) }),
        ("pull-component", Row { absent: 400, ..json(400, json!({ "reference": format!("oci.example/x@sha256:{other}") })) }),
        ("set-tag", Row { absent: 200, ..json(200, json!({ "digest": ids.digest.trim_start_matches("sha256:") })) }),
        ("validate-job", Row { body: file("another"), ..row(200) }),
        ("list-jobs", row(200)),
        ("submit-job", Row { body: file("another"), ..row(201) }),
        ("get-job", row(200)),
        ("get-spec", row(200)),
        ("get-plan", row(200)),
        ("get-run", row(200)),
        ("list-versions", row(200)),
        ("get-version", row(200)),
        ("list-savepoints", row(200)),
        ("get-savepoint", row(200)),
        ("take-savepoint", json(201, json!({ "name": "another" }))),
        ("get-logs", row(200)),
        ("follow-job", row(200)),
        ("tail-operator", Row { query: "?rows=1".into(), ..row(200) }),
        ("explain-silence", row(200)),
        // It has no end, and so no results.
        ("get-results", row(409)),
        ("list-state", row(200)),
        ("read-state", row(200)),
        ("swap-tag", json(200, json!({ "dry-run": true }))),
        (
            "swap-components",
            json(200, json!({ "operators": { (ids.operator.clone()): { "component": format!("{}:more", ids.component) } } })),
        ),
        ("roll-back", row(200)),
        ("try-component", json(200, json!({ "operator": ids.operator.clone(), "component": format!("{}:more", ids.component) }))),
        ("get-trial", row(200)),
        ("promote-trial", row(200)),
        // It was promoted.
        ("end-trial", row(404)),
        ("replace-job", Row { body: file(&ids.job), ..row(200) }),
        ("scale-job", json(200, json!({ "parallelism": 1 }))),
        ("pause-job", row(200)),
        ("resume-job", row(200)),
        ("stop-job", row(200)),
        ("delete-savepoint", row(204)),
        ("delete-job", Row { query: "?savepoints=delete".into(), ..row(204) }),
        ("delete-tag", row(204)),
        // The other job uses it.
        ("delete-component", row(409)),
        ("delete-secret", row(204)),
        ("revoke-token", row(200)),
        ("list-tenants", row(200)),
        ("create-tenant", json(201, json!({ "name": "new" }))),
        ("get-tenant", row(200)),
        ("set-tenant", json(200, json!({}))),
        ("get-tenant-usage", row(200)),
        ("list-tenant-tokens", row(200)),
        ("make-tenant-token", json(201, json!({ "label": "x", "scopes": ["view"] }))),
        ("revoke-tenant-token", row(200)),
        ("delete-tenant", Row { query: "?contents=delete".into(), ..row(204) }),
    ]
}

fn route(operation: &str) -> Route {
    http::routes().into_iter().find(|route| route.operation == operation).unwrap_or_else(|| panic!("there is no route {operation}"))
}

/// Asks; of events only the beginning is read.
fn ask(service: &Service, route: &Route, path: &str, row: &Row, token: &str) -> Answer {
    let mut stream = service.send(route.method.as_str(), &format!("{path}{}", row.query), token, &[], &row.body);
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

/// The path with these ids in place of its braces.
fn path(route: &Route, ids: &Ids) -> String {
    path_with(route, ids, None)
}

/// The same, with one of them of somebody else.
fn path_with(route: &Route, ids: &Ids, other: Option<(&str, &Ids)>) -> String {
    let id = |name: &str| match other {
        Some((replaced, other)) if replaced == name => other.of(name).to_owned(),
        _ => ids.of(name).to_owned(),
    };
    route.parameters().fold(route.path.to_owned(), |path, name| path.replace(&format!("{{{name}}}"), &id(name)))
}

/// Everything that a tenant sees of itself, without what time alone changes.
fn belongings(service: &Service, party: &Party) -> Vec<Value> {
    let get = |path: &str| service.ask("GET", path, &party.token, &[], b"").expect(200);
    let mut jobs = get("/v1/jobs");
    for job in jobs["items"].as_array_mut().expect("a list") {
        job["observed"] = job["observed"]["phase"].take();
    }
    let savepoints = get(&format!("/v1/jobs/{}/savepoints", party.ids.job));
    vec![
        jobs,
        savepoints,
        get("/v1/components"),
        get("/v1/secrets"),
        get("/v1/tokens"),
        get("/v1/audit"),
        get("/v1/tenant")["quotas"].clone(),
    ]
}

fn absent() -> Ids {
    Ids {
        job: "job-none".into(),
        component: "comp-none".into(),
        tag: "tag-none".into(),
        digest: format!("sha256:{}", "0f".repeat(32)),
        secret: "secret-none".into(),
        token: "0123456789abcdef".into(),
        savepoint: "sp-none".into(),
        version: "77".into(),
        operator: "op-none".into(),
        tenant: "none".into(),
    }
}

#[test]
fn the_table_has_a_row_for_every_route_and_no_other() {
    let routes: BTreeSet<&str> = http::routes().iter().map(|route| route.operation).collect();
    let rows: BTreeSet<&str> = rows(&absent()).iter().map(|(operation, _)| *operation).collect();
    assert_eq!(routes, rows, "write a row for a new route: what it is asked with, and what it answers to whom it belongs");
}

/// What belongs to another tenant is answered like what is not there, whatever is done to it, and stays as it is.
#[test]
fn what_belongs_to_another_tenant_is_not_there() {
    let directory = directory();
    let service = Service::start(directory.path());
    let (ours, theirs) = (party(&service, "acme", "count"), party(&service, "zeta", "count-signed"));
    // A version that only they have.
    let file = job_file(&theirs.ids.job, &theirs.ids.component, &theirs.ids.tag, "zeta");
    service.ask("PUT", &format!("/v1/jobs/{}", theirs.ids.job), &theirs.token, &[], file.as_bytes()).expect(200);
    let foreign = Ids { version: "2".into(), ..theirs.ids.clone() };
    let absent = absent();
    service.wait_for("it runs", "/readyz", |_| true);
    let before = belongings(&service, &theirs);
    // What makes something that was not there comes last.
    let (finding, making): (Vec<_>, Vec<_>) = rows(&ours.ids).into_iter().partition(|(_, row)| row.absent == 404);
    for (operation, row) in finding.into_iter().chain(making) {
        let route = route(operation);
        if route.scope == Some(Scope::Host) {
            continue;
        }
        let names: Vec<&str> = route.parameters().collect();
        for (at, name) in names.iter().enumerate() {
            let with = |ids: &Ids| {
                let path = path_with(&route, &ours.ids, Some((name, ids)));
                let answer = ask(&service, &route, &path, &row, &ours.token);
                (answer.status, answer.body.replace(ids.of(name), "ID").replace(ids.of(name).trim_start_matches("sha256:"), "ID"))
            };
            let (theirs, nobodys) = (with(&foreign), with(&absent));
            if row.absent == 404 {
                assert_eq!(theirs, nobodys, "{operation}: {name} of another tenant and of nobody");
            }
            assert_eq!(theirs.0, nobodys.0, "{operation}: {name}");
            assert!(theirs.0 != 403 && theirs.0 < 500, "{operation} {name}: {theirs:?}");
            // A tag that is not there is made; a name that is not, is not, unless something was pushed as it.
            if at == 0 && operation != "set-tag" {
                assert_eq!(theirs.0, row.absent, "{operation}: {theirs:?}");
            }
        }
    }
    assert_eq!(belongings(&service, &theirs), before, "nothing of the other tenant has changed");
}

/// Names of another tenant in bodies and queries mean nothing either.
#[test]
fn what_a_body_names_is_looked_for_in_the_own_tenant_alone() {
    let directory = directory();
    let service = Service::start(directory.path());
    let (ours, theirs) = (party(&service, "acme", "count"), party(&service, "zeta", "count-signed"));
    let absent = absent();
    let same = |ask: &dyn Fn(&Ids) -> Answer, says: &str| {
        let (foreign, missing) = (ask(&theirs.ids), ask(&absent));
        assert!(foreign.body.contains(says), "{}", foreign.body);
        let told = |answer: &Answer, ids: &Ids| {
            let names = [&ids.job, &ids.component, &ids.tag, &ids.secret, &ids.savepoint, &ids.operator, &ids.tenant];
            names.iter().fold(answer.body.clone(), |body, name| body.replace(name.as_str(), "ID"))
        };
        assert_eq!((foreign.status, told(&foreign, &theirs.ids)), (missing.status, told(&missing, &absent)));
        assert!([400, 404].contains(&foreign.status), "{} {}", foreign.status, foreign.body);
    };
    let post = |path: &str, body: String| service.ask("POST", path, &ours.token, &[], body.as_bytes());
    same(&|ids| post("/v1/jobs", job_file("x", &ids.component, &ids.tag, &ids.tenant)), "there is no component");
    same(&|ids| post("/v1/validate", job_file("x", &ids.component, &ids.tag, &ids.tenant)), "there is no component");
    same(&|ids| post(&format!("/v1/jobs?from={}/{}&name=fork", ids.job, ids.savepoint), String::new()), "there is no savepoint");
    let swap =
        |ids: &Ids| json!({ "operators": { (ours.ids.operator.clone()): { "component": format!("{}:{}", ids.component, ids.tag) } } });
    same(&|ids| post(&format!("/v1/jobs/{}/swap", ours.ids.job), swap(ids).to_string()), "there is no component");
    let trial = |ids: &Ids| json!({ "operator": ours.ids.operator.clone(), "component": format!("{}:{}", ids.component, ids.tag) });
    same(&|ids| post(&format!("/v1/jobs/{}/trial", ours.ids.job), trial(ids).to_string()), "there is no component");
    let with_secret = |ids: &Ids| {
        let file = job_file("x", &ours.ids.component, &ours.ids.tag, "acme");
        file.replace("blackhole: {}", &format!("http: {{ url: 'http://127.0.0.1:9/${{secret:{}}}' }}", ids.secret))
    };
    same(&|ids| post("/v1/jobs", with_secret(ids)), "there is no secret");
    let tag = format!("/v1/components/{}/tags/x", ours.ids.component);
    let digest = |ids: &Ids| json!({ "digest": ids.digest.trim_start_matches("sha256:") }).to_string();
    for ids in [&theirs.ids, &absent] {
        service.ask("PUT", &tag, &ours.token, &[], digest(ids).as_bytes()).problem(404, "was not pushed");
    }
}

/// What is one's own is there, in the order of the table, which ends with everything gone.
#[test]
fn what_is_ones_own_is_there() {
    let directory = directory();
    let service = Service::start(directory.path());
    let ours = party(&service, "acme", "count-signed");
    service.wait_for("every job was started", "/readyz", |_| true);
    service.wait_for_phase_as(&ours.token, &ours.ids.job, "running");
    for (operation, row) in rows(&ours.ids) {
        let route = route(operation);
        let token = if route.scope == Some(Scope::Host) { &service.token } else { &ours.token };
        let answer = ask(&service, &route, &path(&route, &ours.ids), &row, token);
        assert_eq!(answer.status, row.own, "{operation}: {}", answer.body);
    }
    // The tenant was the last to go, and its token with it.
    service.ask("GET", "/v1/whoami", &ours.token, &[], b"").problem(401, "no longer good");
    assert!(!directory.path().join("jobs/acme").exists());
}

/// Without a good token nobody gets further than 401, and with too small a scope not further than 403, whatever the request names.
#[test]
fn no_token_a_revoked_one_and_too_small_a_scope_get_nowhere() {
    let directory = directory();
    let service = Service::start(directory.path());
    let ours = party(&service, "acme", "count");
    let make = |scope: Scope| {
        let body = json!({ "label": "x", "scopes": [scope] }).to_string();
        let path = if scope == Scope::Host { "/v1/tokens" } else { "/v1/tenants/acme/tokens" };
        let made = service.ask("POST", path, &service.token, &[], body.as_bytes()).expect(201);
        (scope, made["secret"].as_str().expect("text").to_owned(), made["id"].as_str().expect("text").to_owned())
    };
    let tokens: Vec<_> = Scope::ALL.into_iter().map(make).collect();
    let (_, revoked, id) = make(Scope::Admin);
    service.delete(&format!("/v1/tenants/acme/tokens/{id}")).expect(200);
    let absent = absent();
    for (operation, row) in rows(&ours.ids) {
        let route = route(operation);
        let Some(needed) = route.scope else { continue };
        for ids in [&ours.ids, &absent] {
            let path = path(&route, ids);
            for bad in ["", &revoked] {
                assert_eq!(ask(&service, &route, &path, &row, bad).status, 401, "{operation} at {path} with {bad:?}");
            }
            for (scope, token, _) in tokens.iter().filter(|(scope, ..)| !scope.allows(needed)) {
                assert_eq!(ask(&service, &route, &path, &row, token).status, 403, "{operation} at {path} with {scope}");
            }
        }
    }
    // Nobody gives more than they have.
    let admin = &tokens.iter().find(|(scope, ..)| *scope == Scope::Admin).expect("made").1;
    let host = json!({ "label": "x", "scopes": ["host"] });
    service.ask("POST", "/v1/tokens", admin, &[], host.to_string().as_bytes()).problem(403, "cannot give what it has not");
    service.post("/v1/tenants/acme/tokens", &host).problem(400, "`local` alone");
}

/// How long an answer takes does not tell what another tenant has.
#[test]
fn an_answer_about_another_tenant_takes_as_long_as_one_about_nobody() {
    let directory = directory();
    let service = Service::start(directory.path());
    let (ours, theirs) = (party(&service, "acme", "count"), party(&service, "zeta", "count-signed"));
    // Their requests are not slowed by a limit.
    service.put("/v1/tenants/acme", &json!({ "quotas": { "requests-per-s": null } })).expect(200);
    service.ask("POST", &format!("/v1/jobs/{}/stop", ours.ids.job), &ours.token, &[], b"").expect(200);
    service.ask("POST", &format!("/v1/jobs/{}/stop", theirs.ids.job), &theirs.token, &[], b"").expect(200);
    let asked = |path: String| {
        let began = now();
        service.ask("GET", &path, &ours.token, &[], b"").expect_status(404);
        began.elapsed()
    };
    for what in ["jobs/job", "components/comp"] {
        // In turns, so that whatever else this machine does falls on both.
        let (mut foreign, mut absent): (Vec<_>, Vec<_>) =
            (0..101).map(|_| (asked(format!("/v1/{what}-zeta")), asked(format!("/v1/{what}-none")))).unzip();
        foreign.sort_unstable();
        absent.sort_unstable();
        let (foreign, absent) = (foreign[50], absent[50]);
        let apart = foreign.abs_diff(absent);
        assert!(apart < foreign.max(absent) / 2 + std::time::Duration::from_micros(500), "{what}: {foreign:?} and {absent:?}");
    }
}
