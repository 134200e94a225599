//! Bad input and bad manners: every one is answered with a problem document, and nothing that runs is touched.

use std::io::{Read as _, Write as _};

use serde_json::json;

use crate::harness::{Answer, Service, component, directory, now};

fn push(service: &Service, bytes: &[u8]) -> Answer {
    service.ask("POST", "/v1/components/bad?tag=v1&wait=100", &service.token, &[], bytes)
}

#[test]
fn what_is_no_component_is_refused_with_what_it_is() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.submit("counts");
    push(&service, b"").problem(400, "is not a component");
    push(&service, b"not Wasm at all").problem(400, "is not a component");
    push(&service, b"\0asm\x01\0\0\0").problem(400, "core module");
    push(&service, &vec![0; 1 << 20]).problem(400, "is not a component");
    let whole = component("count");
    push(&service, &vec![0; 32 << 20]).problem(400, "is not a component");
    for length in (1_024..whole.len()).step_by(1_024) {
        push(&service, &whole[..length]).problem(400, "is not a component: it ");
    }
    // What was pushed before stands, and runs.
    assert_eq!(service.get("/v1/components/bad/versions/v1").expect(200)["phase"], "refused");
    service.assert_untouched("counts");
    // Larger than allowed: refused while it arrives.
    push(&service, &vec![0; (32 << 20) + 1]).problem(413, "larger than 32.0 MiB");
    let compressed = service.ask("POST", "/v1/components/bad", &service.token, &[("content-encoding", "gzip")], &whole);
    compressed.problem(415, "compressed");
    let left: Vec<_> = std::fs::read_dir(directory.path().join("components"))
        .unwrap()
        .filter(|file| file.as_ref().unwrap().file_name().to_string_lossy().starts_with('.'))
        .collect();
    assert!(left.is_empty(), "no upload is left behind: {left:?}");
}

#[test]
fn names_that_are_none_are_refused() {
    let directory = directory();
    let service = Service::start(directory.path());
    let whole = component("count");
    for name in ["..", "%2e%2e", "a%2fb", "a%00b", "%e2%80%aea", "-a", &"a".repeat(101)] {
        let answer = service.ask("POST", &format!("/v1/components/{name}"), &service.token, &[], &whole);
        assert!([400, 404].contains(&answer.status), "{name}: {} {}", answer.status, answer.body);
    }
    assert_eq!(service.get("/v1/components").expect(200)["items"], json!([]));
    for job in ["../x", "a/b", "'a b'", ".x"] {
        let text = crate::harness::job(job, "{}", "blackhole: {}");
        let answer = service.ask("POST", "/v1/jobs", &service.token, &[], text.as_bytes());
        assert_eq!(answer.status, 400, "{job}: {}", answer.body);
    }
}

#[test]
fn requests_that_are_not_understood_say_why() {
    let directory = directory();
    let service = Service::start(directory.path());
    let deep = format!("{{\"operators\":{{\"a\":{{\"settings\":{}", "[".repeat(100_000));
    service.ask("POST", "/v1/jobs/none/swap", &service.token, &[], deep.as_bytes()).problem(400, "recursion limit");
    for open in ["[", "{a: ", "- "] {
        let deep = format!("job: x\nsources:\n  {}", open.repeat(100_000));
        let document = service.ask("POST", "/v1/jobs", &service.token, &[], deep.as_bytes()).problem(400, "");
        let detail = document["detail"].as_str().unwrap();
        assert!(["recursion limit", "nested deeper"].iter().any(|says| detail.contains(says)), "{document}");
        assert!(document["problems"][0]["line"].is_u64(), "{document}");
    }
    service.post("/v1/tokens", &json!({ "label": "x", "scopes": ["root"] })).problem(400, "root");
    service.post("/v1/tokens", &json!({ "label": "x", "scopes": [], "more": 1 })).problem(400, "more");
    service.post("/v1/tokens", &json!({ "label": "x", "scopes": ["view"], "expires-in-s": 3_153_600_001_u64 })).problem(400, "100 years");
    service.get("/v1/jobs?limit=0").problem(400, "1 to 1000");
    service.get("/v1/jobs?limit=many").problem(400, "limit");
    service.get("/v1/jobs?lmit=1").problem(400, "lmit");
    service.get("/v1/audit?cursor=x").problem(400, "cursor");
    service.get("/v2").problem(404, "nothing here");
    service.put("/v1/jobs", &json!({})).problem(405, "cannot be done here");
    service.ask("POST", "/v1/jobs", &service.token, &[], &[0xff, 0xfe]).problem(400, "UTF-8");
    service.ask("POST", "/v1/jobs", &service.token, &[], &vec![b'a'; (1 << 20) + 1]).problem(413, "1.0 MiB");
    service.ask("POST", "/v1/jobs", &service.token, &[("idempotency-key", "")], b"").problem(400, "Idempotency-Key");
    service.ask("POST", "/v1/jobs", &service.token, &[("idempotency-key", "a\tb")], b"").problem(400, "Idempotency-Key");
    service.get("/healthz").expect(200);
}

/// Twice the limit is still answered with a document; what is larger may be cut off.
#[test]
fn heads_that_are_too_large_are_refused_and_the_next_request_is_answered() {
    let directory = directory();
    let service = Service::start(directory.path());
    let ask = |path: &str, headers: &[(&str, &str)]| service.ask("GET", path, &service.token, headers, b"");
    ask("/v1/jobs", &[("x", &"y".repeat(60 << 10))]).expect(200);
    ask("/v1/jobs", &[("x", &"y".repeat(65 << 10))]).problem(431, "longer than 64.0 KiB");
    ask(&format!("/v1/jobs?cursor={}", "y".repeat(60 << 10)), &[("x", &"y".repeat(5 << 10))]).problem(431, "longer than 64.0 KiB");
    ask("/v1/jobs", &[("x", "y"); 96]).expect(200);
    ask("/v1/jobs", &[("x", "y"); 120]).problem(431, "at most 100 are read");
    let giant = ask("/v1/jobs", &[("x", &"y".repeat(1 << 20))]);
    assert!([0, 431].contains(&giant.status), "{}", giant.body);
    service.get("/v1/jobs").expect(200);
}

/// Sockets that never finish a request do not keep others from being answered.
#[test]
fn two_thousand_slow_sockets_keep_nobody_waiting() {
    let directory = directory();
    let service = Service::start(directory.path());
    // As many as this process may have open; the limit of descriptors is often 1,024.
    let mut slow = Vec::new();
    while slow.len() < 2_000 {
        match std::net::TcpStream::connect(service.address()) {
            Ok(mut stream) => {
                drop(stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: "));
                slow.push(stream);
            }
            Err(_) => {
                slow.truncate(slow.len().saturating_sub(8));
                break;
            }
        }
    }
    assert!(slow.len() > 500, "{}", slow.len());
    let began = now();
    service.get("/v1/jobs").expect(200);
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    // And they do not stay for ever: the head of a request has its time.
    let mut first = slow.swap_remove(0);
    first.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    let mut bytes = Vec::new();
    drop(first.read_to_end(&mut bytes));
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "{:?}", began.elapsed());
}

#[test]
fn two_changes_at_once_are_one_change_and_a_refusal_or_two_changes() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.push("v2", "count-signed");
    service.submit("counts");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let swap = |tag: &'static str| {
            let service = &service;
            move || {
                service.post("/v1/jobs/counts/swap", &json!({ "operators": { "counts": { "component": format!("count:{tag}") } } })).status
            }
        };
        let running: Vec<_> = ["v2", "v1", "v2", "v1"].map(|tag| scope.spawn(swap(tag))).into();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(statuses.contains(&200), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
    let done = statuses.iter().filter(|&&status| status == 200).count();
    assert_eq!(service.get("/v1/jobs/counts").expect(200)["version"], done + 1);
    assert!(!service.tail("counts", "counts", 3).is_empty());
}

/// Anything but this machine alone needs TLS, or the word that somebody else sees to it.
#[test]
fn it_does_not_listen_to_others_without_tls() {
    let directory = directory();
    let refused = std::process::Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["serve", "--listen", "0.0.0.0:0", "--dir"])
        .arg(directory.path())
        .output()
        .expect("it runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("--behind-proxy"));
}
