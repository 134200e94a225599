//! What a stranger does that is more than one component or one job.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use millstream_hostile::{guests, players::Own, uploads};
use serde_json::json;

use crate::{
    battery::Battery,
    harness::{DEADLINE, now, operator},
};

pub fn perform(battery: &Battery, own: Own) {
    match own {
        Own::PushTruncated => push_truncated(battery),
        Own::PushCompressed => push_compressed(battery),
        Own::PushUnderBadNames => push_under_bad_names(battery),
        Own::PushInParallel => push_in_parallel(battery),
        Own::DeleteDuringCheckpoint => delete_during_checkpoint(battery),
        Own::CrashLoops => crash_loops(battery),
        Own::Succeed => succeed(battery),
        Own::Flood => flood(battery),
        Own::TraversePaths => traverse_paths(battery),
        Own::PlantSecrets => plant_secrets(battery),
    }
}

fn push_truncated(battery: &Battery) {
    let whole = operator("hostile");
    for length in (1_024..whole.len()).step_by(1_024) {
        let refused = battery.push(&whole[..length]);
        // Cut between two sections it is a component, which has nothing to export yet.
        let says = if refused.body.contains("exports nothing") { "implements no world" } else { "is not a component: it " };
        refused.problem(400, says);
    }
}

/// It would be gigabytes of zeros. Nobody looks into it.
fn push_compressed(battery: &Battery) {
    let whole = operator("hostile");
    for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x"] {
        let headers = [("content-encoding", encoding)];
        let answer = battery.service.ask("POST", "/v1/components/bad?tag=v1", &battery.stranger, &headers, &whole);
        answer.problem(415, "compressed");
    }
}

fn push_under_bad_names(battery: &Battery) {
    let good = uploads::good();
    let names = ["..", "%2e%2e", "a%2fb", "a%5cb", "a%00b", "%e2%80%aea", "-a", "a%0d%0ab", &"a".repeat(101)];
    for name in names {
        for path in [format!("/v1/components/{name}"), format!("/v1/components/bad?tag={name}")] {
            let answer = battery.ask("POST", &path, &good);
            assert!([400, 404].contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
        }
    }
    for job in ["../x", "a/b", "'a b'", ".x", "\"a\\0b\"", "\"\\u202Ea\"", "\"a\\nb\""] {
        let file = format!("job: {job}\nsources: {{ a: {{ sequence: {{}} }} }}\nsinks: {{ out: {{ input: a, blackhole: {{}} }} }}\n");
        battery.ask("POST", "/v1/jobs", file.as_bytes()).problem(400, "");
    }
}

/// As many as a tenant may have at once are taken, the others are told to come again; nothing of them is left.
fn push_in_parallel(battery: &Battery) {
    let refused = AtomicUsize::new(0);
    thread::scope(|scope| {
        for number in 0..200 {
            let refused = &refused;
            scope.spawn(move || {
                let bytes = uploads::good_number(number);
                let answer = battery.ask("POST", &format!("/v1/components/many-{number}?tag=v1&wait=0"), &bytes);
                match answer.status {
                    201 | 202 => {}
                    429 => drop(refused.fetch_add(1, Ordering::Relaxed)),
                    other => panic!("{other}: {}", answer.body),
                }
            });
        }
    });
    // What is compiled for a stranger keeps nobody waiting but the stranger.
    let began = now();
    let token = &battery.service.token;
    battery.service.ask("POST", "/v1/components/own?tag=v1&wait=100", token, &[], &uploads::good_number(1_000)).expect(201);
    assert!(began.elapsed() < DEADLINE / 4, "the neighbour waited for {:?}", began.elapsed());
    let left = fs::read_dir(battery.service.directory().join("components")).expect("it is there");
    let left: Vec<_> = left.filter_map(Result::ok).filter(|file| file.file_name().to_string_lossy().starts_with(".upload-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn stateful(name: &str) -> String {
    format!(
        "job: {name}
parallelism: 1
sources:
  numbers:
    sequence: {{ rate: 20000 }}
    event-time: {{ column: value }}
operators:
  op: {{ input: numbers, key-by: [value], component: {{ name: bad:v1, settings: {{ what: answer }} }} }}
sinks:
  out: {{ input: op, blackhole: {{}} }}
checkpoints: {{ interval: 100ms }}
"
    )
}

fn delete_during_checkpoint(battery: &Battery) {
    battery.push(&operator("hostile")).expect(201);
    for round in 0..5 {
        battery.ask("POST", "/v1/jobs", stateful("bad").as_bytes()).expect(201);
        battery.rows_of_the_neighbour(100);
        let statuses: Vec<u16> = thread::scope(|scope| {
            let saving = scope.spawn(|| battery.ask("POST", "/v1/jobs/bad/savepoints", br#"{"name":"s"}"#).status);
            let deleting = scope.spawn(|| battery.ask("DELETE", "/v1/jobs/bad?savepoints=delete", b"").status);
            let stopping = scope.spawn(|| battery.ask("POST", "/v1/jobs/bad/stop", b"{}").status);
            [saving, deleting, stopping].map(|thread| thread.join().expect("no panic")).into()
        });
        let known = [200, 201, 204, 404, 409, 503];
        assert!(statuses.iter().all(|status| known.contains(status)), "round {round}: {statuses:?}");
        if battery.ask("GET", "/v1/jobs/bad", b"").status == 200 {
            battery.remove("bad", "deleted during a checkpoint");
        }
    }
    assert_eq!(battery.ask("GET", "/v1/jobs", b"").expect(200)["items"], json!([]));
}

/// Half of them fail at their first row and are resumed, half of them cannot reach where they write to and try again by themselves.
fn crash_loops(battery: &Battery) {
    let quotas = json!({ "quotas": { "jobs": null, "requests-per-s": null } }).to_string();
    let set = || battery.service.ask("PUT", "/v1/tenants/stranger", &battery.host, &[], quotas.as_bytes());
    set().expect(200);
    let trap = guests::traps_in_process();
    battery.push(&trap).expect(201);
    let file = |number: usize| {
        let sink = if number.is_multiple_of(2) { "blackhole: {}" } else { "http: { url: 'http://127.0.0.1:1/', tries: 1 }" };
        let operator = if number.is_multiple_of(2) { "component: bad:v1" } else { "filter: value >= 0" };
        format!(
            "job: loop-{number}
parallelism: 1
sources: {{ numbers: {{ sequence: {{ rate: 10 }} }} }}
operators: {{ op: {{ input: numbers, {operator} }} }}
sinks: {{ out: {{ input: op, {sink} }} }}
restart: {{ attempts: 1000, first: 1s, most: 2s }}
"
        )
    };
    let each = |work: &(dyn Fn(usize) + Sync)| {
        thread::scope(|scope| {
            for part in 0..4 {
                scope.spawn(move || (part..200).step_by(4).for_each(work));
            }
        });
    };
    each(&|number| drop(battery.ask("POST", "/v1/jobs", file(number).as_bytes()).expect(201)));
    for _ in 0..2 {
        each(&|number| {
            if number.is_multiple_of(2) {
                let view = battery.wait_for_end(&format!("loop-{number}"), "a job that traps", "failed");
                assert!(view["observed"]["problems"].to_string().contains("trapped"), "{view}");
                battery.ask("POST", &format!("/v1/jobs/loop-{number}/resume"), b"{}").expect(200);
            }
        });
    }
    let run = battery.ask("GET", "/v1/jobs/loop-1/run", b"").expect(200);
    assert!(run.to_string().contains("refused"), "it says why it does not go on: {run}");
    each(&|number| battery.remove(&format!("loop-{number}"), "a job that crashes"));
}

/// A version that keeps its state another way and never comes back from `migrate`: the job fails before its first row, and the version before goes on from
/// where it was.
fn succeed(battery: &Battery) {
    battery.push(&guests::counts_to_seven()).expect(201);
    let pushed = battery.ask("POST", "/v1/components/bad?tag=v2&wait=100", &guests::loops_in_migrate());
    pushed.expect(201);
    let file = |tag: &str| {
        format!(
            "job: bad
parallelism: 1
sources:
  numbers:
    sequence: {{ rate: 100 }}
    event-time: {{ column: value }}
operators:
  op: {{ input: numbers, key-by: [value], component: 'bad:{tag}' }}
sinks:
  out: {{ input: op, blackhole: {{}} }}
"
        )
    };
    battery.ask("POST", "/v1/jobs", file("v1").as_bytes()).expect(201);
    let has_rows = || {
        let run = battery.ask("GET", "/v1/jobs/bad/run", b"").json();
        run["operators"].as_array().is_some_and(|all| all.iter().any(|op| op["id"] == "op" && op["rows-in"].as_u64() > Some(20)))
    };
    let began = now();
    while !has_rows() {
        assert!(began.elapsed() < DEADLINE, "no rows");
        battery.rows_of_the_neighbour(50);
    }
    battery.ask("PUT", "/v1/jobs/bad", file("v2").as_bytes()).expect(200);
    let failed = battery.wait_for_end("bad", "migrates for ever", "failed")["observed"]["problems"].to_string();
    assert!(failed.contains("for CPU time per call in ms") && failed.contains("migrate"), "{failed}");
    battery.ask("PUT", "/v1/jobs/bad", file("v1").as_bytes()).expect(200);
    let began = now();
    while !has_rows() {
        assert!(began.elapsed() < DEADLINE, "no rows of the version before");
        battery.rows_of_the_neighbour(50);
    }
    battery.remove("bad", "the version before");
}

/// Ten times what a tenant may ask: nine of ten are told when to come again, and the neighbour is answered.
fn flood(battery: &Battery) {
    let set = |per_s: serde_json::Value| {
        let quotas = json!({ "quotas": { "requests-per-s": per_s } }).to_string();
        battery.service.ask("PUT", "/v1/tenants/stranger", &battery.host, &[], quotas.as_bytes()).expect(200);
    };
    set(json!(20));
    let (answered, refused) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let began = now();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..100 {
                    let answer = battery.ask("GET", "/v1/whoami", b"");
                    match answer.status {
                        200 => answered.fetch_add(1, Ordering::Relaxed),
                        429 => {
                            assert!(answer.header("retry-after").is_some(), "{}", answer.body);
                            refused.fetch_add(1, Ordering::Relaxed)
                        }
                        other => panic!("{other}: {}", answer.body),
                    };
                }
            });
        }
        battery.service.get("/v1/whoami").expect(200);
    });
    // Twice as many at once, and then so many a second.
    let most = 40.0 + 20.0 * (began.elapsed().as_secs_f64() + 1.0);
    let (answered, refused) = (answered.into_inner(), refused.into_inner());
    assert!((answered as f64) <= most, "{answered} of {} were answered in {:?}", answered + refused, began.elapsed());
    assert!(refused > 0);
    set(json!(null));
}

fn traverse_paths(battery: &Battery) {
    let paths = [
        "/v1/jobs/../../../../etc/passwd",
        "/v1/jobs/..%2f..%2f..%2fetc%2fpasswd",
        "/v1/jobs/%2e%2e/%2e%2e/token",
        "/v1/jobs/%252e%252e%252ftoken",
        "/v1/jobs/..%5c..%5ctoken",
        "/v1/jobs/a%00/spec",
        "//etc/passwd",
        "/v1/components/..%2f..%2fcatalogue.log/versions/v1",
        "/v1/components/bad/versions/..%2f..%2f..%2fcatalogue.log",
        "/v1/components/bad/versions/sha256:..%2f..%2fcatalogue.log",
        "/v1/jobs/quiet/results?sink=..%2f..%2fcatalogue.log",
        "/v1/jobs/quiet/state/..%2f..",
        "/v1/secrets/..%2fcatalogue.log",
        "/v1/tenants/..%2f..",
    ];
    for path in paths {
        let answer = battery.ask("GET", path, b"");
        assert!([400, 403, 404, 405].contains(&answer.status), "{path}: {} {}", answer.status, answer.body);
        assert!(!answer.body.contains("root:"), "{path}: {}", answer.body);
    }
    for name in ["..%2f..%2fx", "%2e%2e", "a%2fb"] {
        let answer = battery.ask("POST", &format!("/v1/jobs/{name}/savepoints"), br#"{"name":"../../x"}"#);
        assert!([400, 404].contains(&answer.status), "{name}: {} {}", answer.status, answer.body);
    }
    for path in ["/etc/passwd", "../../../catalogue.log", "/proc/self/environ", "file:///etc/passwd"] {
        for file in [
            format!(
                "job: x\nsources: {{ a: {{ files: {{ path: '{path}', format: ndjson }}, schema: {{ a: Utf8 }} }} }}\nsinks: {{ out: {{ input: a, blackhole: {{}} }} }}\n"
            ),
            format!(
                "job: x\nsources: {{ a: {{ sequence: {{}} }} }}\nsinks: {{ out: {{ input: a, files: {{ path: '{path}', format: ndjson }} }} }}\n"
            ),
        ] {
            let answer = battery.ask("POST", "/v1/jobs", file.as_bytes());
            assert_eq!(answer.status, 400, "{path}: {}", answer.body);
            assert!(!answer.body.contains("root:"), "{path}: {}", answer.body);
        }
    }
}

/// Twenty secrets in the settings of a component that says them aloud and dies: nobody else hears of them.
fn plant_secrets(battery: &Battery) {
    let values: Vec<String> = (0..20).map(|number| format!("planted-{:08x}-{number}", 0x9e37_79b9_u32.wrapping_mul(number + 1))).collect();
    for (number, value) in values.iter().enumerate() {
        battery.ask("PUT", &format!("/v1/secrets/s{number}"), json!({ "value": value }).to_string().as_bytes()).expect(200);
    }
    battery.push(&operator("hostile")).expect(201);
    let all: String = (0..20).map(|number| format!("${{secret:s{number}}} ")).collect();
    let file = stateful("bad").replace("what: answer", &format!("what: \"{all}\"")).replace("rate: 20000", "rate: 10");
    battery.ask("POST", "/v1/jobs", file.as_bytes()).expect(201);
    battery.wait_for_end("bad", "secrets", "failed");
    let says = |place: &str, bytes: &[u8]| {
        let found = values.iter().find(|value| bytes.windows(value.len()).any(|window| window == value.as_bytes()));
        assert!(found.is_none(), "{place} says {found:?}");
    };
    let of_job = ["", "/spec", "/plan", "/run", "/why", "/versions", "/versions/1", "/logs?limit=1000"]
        .map(|behind| format!("/v1/jobs/bad{behind}"));
    let mut heard = false;
    for path in of_job.into_iter().chain(["/v1/jobs", "/v1/audit", "/v1/secrets", "/v1/usage", "/metrics"].map(str::to_owned)) {
        let answer = battery.ask("GET", &path, b"");
        says(&path, answer.body.as_bytes());
        heard |= answer.body.contains("is nothing that it does");
    }
    assert!(heard, "the component has said them, and its words were shown without them");
    in_files(battery.service.directory(), &mut |file, bytes| {
        if file.file_name().is_none_or(|name| name != "catalogue.log") {
            says(&file.display().to_string(), bytes);
        }
    });
    battery.assert_log(&says);
    battery.remove("bad", "secrets");
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
