//! A service with two tenants, `quiet` and `stranger`, and how the stranger plays a line.

use std::{
    collections::BTreeMap,
    fs,
    io::BufReader,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use millstream_hostile::{
    guests::Bytes,
    lines::Line,
    players::{End, Guest, Job, Player, Pushed, players},
    quiet::{self, Watch},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    harness::{Answer, DEADLINE, Service, directory, now, operator},
    own,
};

/// Rows of the neighbour per second.
const RATE: u32 = 500;
/// What compiling may take here, so that bombs are stopped soon.
const COMPILE: [&str; 4] = ["--compile-cpu", "10", "--compile-memory", "1024"];
/// What the neighbour's rows may be late by here, where other tests share the machine: far from what is measured, and far from standing still.
const LATE_MAX: Duration = Duration::from_secs(10);

/// A service, a neighbour and a stranger.
pub struct Battery {
    pub service: Service,
    /// The token of the stranger.
    pub stranger: String,
    /// The token of who runs the service.
    pub host: String,
    watch: Arc<Watch>,
    log: PathBuf,
    /// The runners, by tenant, as they were first.
    runners: BTreeMap<String, u32>,
    _directories: [TempDir; 2],
}

impl Battery {
    pub fn start() -> Self {
        let (own, said) = (directory(), directory());
        let log = said.path().join("log");
        let mut service = Service::start_logged_with(own.path(), &COMPILE, &log);
        let host = service.token.clone();
        let stranger = service.tenant("stranger");
        // What is asked for the neighbour is asked by it.
        service.token = service.tenant("quiet");
        service.ask("POST", "/v1/components/count?tag=v1&wait=100", &service.token, &[], &operator("hostile")).expect(201);
        let file = quiet::job(RATE, "{ name: count:v1, settings: { what: answer } }");
        service.ask("POST", "/v1/jobs", &service.token, &[], file.as_bytes()).expect(201);
        service.wait_for_phase("quiet", "running");
        let watch = Arc::new(Watch::new(RATE));
        let stream = service.send("GET", "/v1/jobs/quiet/operators/quiet/tail", &service.token, &[], b"");
        let reading = watch.clone();
        // It ends with the service.
        std::thread::spawn(move || reading.read(BufReader::new(stream)));
        let mut battery = Self { service, stranger, host, watch, log, runners: BTreeMap::new(), _directories: [own, said] };
        // A stranger has a runner from the first thing on that is planned for it.
        let file = "job: x\nsources: { a: { sequence: { to: 1 } } }\nsinks: { out: { input: a, blackhole: {} } }\n";
        battery.ask("POST", "/v1/validate", file.as_bytes()).expect(200);
        battery.runners = battery.runners_now();
        assert_eq!(battery.runners.keys().collect::<Vec<_>>(), ["quiet", "stranger"]);
        battery
    }

    /// Plays every line of a group. One that is not contained hides no other.
    pub fn play(&self, group: &str) {
        let mut failed = Vec::new();
        for line in Line::ALL.iter().filter(|line| line.group() == group) {
            for (number, player) in players(*line).iter().enumerate() {
                let context = format!("{line:?} {number}");
                let began = now();
                let played = panic::catch_unwind(AssertUnwindSafe(|| {
                    self.watch.begin();
                    self.perform(player, &context);
                    self.assert_nobody_noticed(&context);
                }));
                say(&format!("{context}: {:?}", began.elapsed()));
                if played.is_err() {
                    failed.push(context);
                    // Whatever it has left behind must not fail the next.
                    self.ask("POST", "/v1/jobs/bad/stop", br#"{"at-once":true}"#);
                    self.ask("DELETE", "/v1/jobs/bad?savepoints=delete", b"");
                }
            }
        }
        assert!(failed.is_empty(), "not contained: {failed:?}");
    }

    fn perform(&self, player: &Player, context: &str) {
        match player {
            Player::Push(bytes, pushed) => self.push_hostile(&bytes(), *pushed, context),
            Player::Job(job, end) => self.run(job, *end, context),
            Player::Own(own) => own::perform(self, *own),
            // The walk over the table has found it.
            Player::Elsewhere(..) => {}
        }
    }

    /// As the stranger.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        self.service.ask(method, path, &self.stranger, &[], body)
    }

    /// As the stranger.
    pub fn push(&self, bytes: &[u8]) -> Answer {
        self.ask("POST", "/v1/components/bad?tag=v1&wait=100", bytes)
    }

    fn push_hostile(&self, bytes: &[u8], pushed: Pushed, context: &str) {
        let answer = self.push(bytes);
        match pushed {
            Pushed::Refused(says) => assert_refused(&answer, says, context),
            Pushed::WithinLimits => {
                let is_refused = answer.status == 400 && answer.body.contains("it may use");
                assert!(answer.status == 201 || is_refused, "{context}: {} {}", answer.status, answer.body);
            }
        }
    }

    fn run(&self, job: &Job, end: End, context: &str) {
        let bytes: Bytes = match job.guest {
            Guest::Puppet(guest) | Guest::Aggregate(guest, _) => guest(),
            Guest::Rust(_) => operator("hostile").into(),
        };
        let pushed = self.push(&bytes);
        assert_eq!(pushed.status, 201, "{context}: {}", pushed.body);
        let submitted = self.ask("POST", "/v1/jobs", job.file("bad").as_bytes());
        if let End::Declined(says) = end {
            return assert_refused(&submitted, says, context);
        }
        assert_eq!(submitted.status, 201, "{context}: {}", submitted.body);
        match end {
            End::Declined(_) => unreachable!("it has returned"),
            End::Fails(says) => self.assert_fails("bad", says, context),
            End::Finishes => drop(self.wait_for_end("bad", context, "finished")),
            End::RunsOn => self.assert_takes_rows("bad", "rows-in", context),
            End::Counts(what) => self.assert_takes_rows("bad", what, context),
        }
        self.remove("bad", context);
    }

    /// Waits until a job of the stranger has ended; events say when to look again.
    pub fn wait_for_end(&self, job: &str, context: &str, phase: &str) -> Value {
        let path = format!("/v1/jobs/{job}/events");
        let mut events = self.service.events(&path, &self.stranger);
        assert_eq!(events.next().as_deref(), Some("HTTP/1.1 200 OK"), "{context}");
        loop {
            let view = self.ask("GET", &format!("/v1/jobs/{job}"), b"").expect(200);
            if view["observed"]["phase"] == phase {
                return view;
            }
            assert!(["starting", "running"].iter().any(|&goes| view["observed"]["phase"] == goes), "{context}: {view}");
            // The stream is read with a deadline.
            assert!(events.any(|line| line.starts_with("data: ")), "{context}: still {view}");
        }
    }

    fn assert_fails(&self, job: &str, says: &str, context: &str) {
        let view = self.wait_for_end(job, context, "failed");
        let problems = words(&view["observed"]["problems"]);
        assert!(problems.contains(says), "{context}: {says:?} in {problems}");
        assert!(problems.contains("`op`"), "{context} names no operator: {problems}");
        assert!(view.to_string().len() < 64 << 10, "{context}: the view of a job is {} bytes long", view.to_string().len());
    }

    /// What is counted of its operator grows.
    fn assert_takes_rows(&self, job: &str, what: &str, context: &str) {
        let counted = || {
            let run = self.ask("GET", &format!("/v1/jobs/{job}/run"), b"").json();
            let operators = run["operators"].as_array().cloned().unwrap_or_default();
            let op = operators.into_iter().find(|operator| operator["id"] == "op");
            op.and_then(|op| op[what].as_u64()).unwrap_or_default()
        };
        let began = now();
        while counted() < 3 {
            assert!(began.elapsed() < DEADLINE, "{context}: {}", self.ask("GET", &format!("/v1/jobs/{job}/run"), b"").body);
            self.rows_of_the_neighbour(50);
        }
    }

    /// A job of the stranger goes when it is told to, whatever it does: a guest that is slow keeps a checkpoint waiting, and this does not wait for one.
    pub fn remove(&self, job: &str, context: &str) {
        let stopped = self.ask("POST", &format!("/v1/jobs/{job}/stop"), br#"{"at-once":true}"#);
        assert_eq!(stopped.status, 200, "{context}: {}", stopped.body);
        let gone = self.ask("DELETE", &format!("/v1/jobs/{job}?savepoints=delete"), b"");
        assert_eq!(gone.status, 204, "{context}: {}", gone.body);
    }

    /// So many rows more of the neighbour have come. This is how time passes here.
    pub fn rows_of_the_neighbour(&self, count: usize) {
        let path = format!("/v1/jobs/quiet/operators/quiet/tail?rows={count}&seconds={}", DEADLINE.as_secs());
        let rows = self.service.events(&path, &self.service.token).filter(|line| line.starts_with("data: "));
        let mut left = count;
        for line in rows {
            let event: Value = serde_json::from_str(&line["data: ".len()..]).expect("JSON");
            left = left.saturating_sub(event["rows"].as_array().map_or(0, Vec::len));
            if left == 0 {
                return;
            }
        }
        panic!("the rows of the neighbour do not come");
    }

    /// The processes are those that they were, nothing has happened to the neighbour, and its rows come.
    pub fn assert_nobody_noticed(&self, context: &str) {
        self.service.get("/healthz").expect(200);
        assert!(Path::new(&format!("/proc/{}", self.service.id())).exists(), "{context}: the service is gone");
        assert_eq!(self.runners_now(), self.runners, "{context}: a runner is another process");
        let run = self.service.get("/v1/jobs/quiet/run").expect(200);
        assert_eq!((&run["observed"]["phase"], &run["durable"]["restarts"]), (&json!("running"), &json!(0)), "{context}: {run}");
        self.rows_of_the_neighbour(50);
        let noticed = self.watch.noticed();
        assert!(noticed.most < LATE_MAX, "{context}: the neighbour noticed it: {noticed:?}");
        let view = self.service.get("/v1/jobs").expect(200);
        assert_eq!(view["items"].as_array().map(Vec::len), Some(1), "{context}: {view}");
        let log = fs::read_to_string(&self.log).expect("readable");
        let forged = log.lines().find(|line| line.starts_with("2026-01-01T00:00:00Z ERROR forged"));
        assert_eq!(forged, None, "{context}");
        assert!(!log.contains("panicked at"), "{context}: somebody panicked: {log}");
        assert!(!log.contains(['\u{1b}', '\u{7}', '\u{202e}']), "{context}: the log has what controls a terminal");
    }

    /// What the service has said so far.
    pub fn assert_log(&self, says: &dyn Fn(&str, &[u8])) {
        says("the log of the service", &fs::read(&self.log).expect("readable"));
    }

    /// The runners by tenant: each holds the lock of its room.
    fn runners_now(&self) -> BTreeMap<String, u32> {
        let own = self.service.id().to_string();
        let processes = fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
        let is_child = |process: &u32| {
            let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, behind)| behind.split(' ').nth(1) == Some(&own))
        };
        let tenant = |process: u32| {
            let opened = fs::read_dir(format!("/proc/{process}/fd")).ok()?.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            let lock = opened.into_iter().find(|path| {
                path.ends_with("lock") && path.parent().is_some_and(|room| room.parent().is_some_and(|rooms| rooms.ends_with("runners")))
            })?;
            Some((lock.parent()?.file_name()?.to_str()?.to_owned(), process))
        };
        processes.filter(is_child).filter_map(tenant).collect()
    }
}

/// A problem document that names the cause.
fn assert_refused(answer: &Answer, says: &str, context: &str) {
    assert_eq!(answer.status, 400, "{context}: {}", answer.body);
    assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{context}: {}", answer.body);
    let words = words(&answer.json());
    assert!(words.contains(says), "{context}: {says:?} in {words}");
}

/// All texts of an answer, as people see them.
fn words(of: &Value) -> String {
    match of {
        Value::String(text) => format!("{text}\n"),
        Value::Array(items) => items.iter().map(words).collect(),
        Value::Object(fields) => fields.values().map(words).collect(),
        _ => String::new(),
    }
}

#[expect(clippy::print_stderr, reason = "how long each line takes; shown when a test fails, or is asked to")]
fn say(line: &str) {
    eprintln!("{line}");
}
