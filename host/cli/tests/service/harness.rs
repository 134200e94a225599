//! A service of its own for a test: a process, a directory, the first token; and HTTP written by hand, so that a test can also write it wrongly.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use millstream_job_tests::components;
use serde_json::{Value, json};

/// How long a test waits for something that must happen.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// A service that runs.
pub struct Service {
    process: Child,
    directory: PathBuf,
    address: String,
    pub token: String,
}

/// An answer.
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {} {}", self.status, self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The JSON of an answer that must have this status.
    pub fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    pub fn expect_status(&self, status: u16) {
        assert_eq!(self.status, status, "{}", self.body);
    }

    /// A problem document with this status that names cause and fix.
    pub fn problem(self, status: u16, says: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
        let document = self.json();
        assert_eq!(document["status"], status);
        assert!(self.body.contains(says), "{says:?} in {}", self.body);
        document
    }
}

impl Service {
    pub fn start(directory: &Path) -> Self {
        Self::start_with(directory, &[])
    }

    pub fn start_with(directory: &Path, more: &[&str]) -> Self {
        Self::try_start(directory, more, &[]).expect("it says where it listens")
    }

    /// What it says on its way goes into a file.
    pub fn start_logged(directory: &Path, log: &Path) -> Self {
        Self::start_logged_with(directory, &[], log)
    }

    pub fn start_logged_with(directory: &Path, more: &[&str], log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).expect("writable");
        Self::spawn(directory, more, &[], log.into()).expect("it says where it listens")
    }

    /// None: it ends instead of listening.
    pub fn try_start(directory: &Path, more: &[&str], environment: &[(&str, String)]) -> Option<Self> {
        Self::spawn(directory, more, environment, Stdio::inherit())
    }

    fn spawn(directory: &Path, more: &[&str], environment: &[(&str, String)], log: Stdio) -> Option<Self> {
        let mut process = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(["serve", "--listen", "127.0.0.1:0", "--json", "--dir"])
            .arg(directory)
            .args(more)
            .env_remove("MILLSTREAM_TOKEN")
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the service starts");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("it says where it listens");
        if line.is_empty() {
            assert!(!process.wait().expect("it has ended").success());
            return None;
        }
        let said: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"));
        let address = said["url"].as_str().expect("an address").split_once("//").expect("a URL").1.to_owned();
        let kept = directory.join("token-of-the-test");
        let token = match said["token"].as_str() {
            Some(token) => {
                std::fs::write(&kept, token).expect("writable");
                token.to_owned()
            }
            None => std::fs::read_to_string(&kept).expect("an earlier start made one"),
        };
        Some(Self { process, directory: directory.to_owned(), address, token })
    }

    pub fn id(&self) -> u32 {
        self.process.id()
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// `kill -9`, and another process in its place.
    pub fn kill_and_start(mut self) -> Self {
        self.process.kill().expect("it can be killed");
        self.process.wait().expect("it has ended");
        let directory = self.directory.clone();
        drop(self);
        Self::start(&directory)
    }

    /// SIGTERM; the exit code.
    pub fn terminate(mut self) -> Option<i32> {
        let kill = Command::new("kill").arg(self.process.id().to_string()).status().expect("kill runs");
        assert!(kill.success());
        self.process.wait().expect("it ends").code()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &self.token, &[], b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, &self.token, &[], body.to_string().as_bytes())
    }

    pub fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, &self.token, &[], body.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, &self.token, &[], b"")
    }

    pub fn ask(&self, method: &str, path: &str, token: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        request(&self.address, method, path, token, headers, body)
    }

    /// Sends a request and leaves the answer to be read.
    pub fn send(&self, method: &str, path: &str, token: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
        send(&self.address, method, path, token, headers, body)
    }

    /// Lines of a stream of events.
    pub fn events(&self, path: &str, token: &str) -> impl Iterator<Item = String> {
        BufReader::new(self.send("GET", path, token, &[], b"")).lines().map_while(Result::ok)
    }

    /// The next `count` rows of an operator; fewer if no more come.
    pub fn tail(&self, job: &str, operator: &str, count: usize) -> Vec<Value> {
        let path = format!("/v1/jobs/{job}/operators/{operator}/tail?rows={count}&seconds={}", DEADLINE.as_secs());
        let data = self.events(&path, &self.token).filter_map(|line| line.strip_prefix("data: ").map(str::to_owned));
        let events = data.map(|data| serde_json::from_str::<Value>(&data).expect("JSON"));
        events.flat_map(|event| event["rows"].as_array().cloned().unwrap_or_default()).take(count).collect()
    }

    /// Pushes an operator of the example of the service.
    pub fn push(&self, tag: &str, operator: &str) -> String {
        let answer = self.ask("POST", &format!("/v1/components/count?tag={tag}"), &self.token, &[], &component(operator));
        answer.expect(201)["digest"].as_str().expect("a digest").to_owned()
    }

    /// Pushes an operator of the tests of whole jobs, as another version of the same component.
    pub fn push_of_tests(&self, tag: &str, name: &str) {
        self.ask("POST", &format!("/v1/components/count?tag={tag}"), &self.token, &[], &operator(name)).expect(201);
    }

    /// Submits a job that counts numbers, as `name`.
    pub fn submit(&self, name: &str) -> Value {
        self.ask("POST", "/v1/jobs", &self.token, &[], job(name, "{ rate: 2000 }", "blackhole: {}").as_bytes()).expect(201)
    }

    pub fn wait_for(&self, what: &str, path: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let began = now();
        loop {
            let answer = self.get(path);
            if answer.status == 200 && is_so(&answer.json()) {
                return answer.json();
            }
            assert!(began.elapsed() < DEADLINE, "{what}: {}", answer.body);
        }
    }

    pub fn wait_for_phase(&self, job: &str, phase: &str) -> Value {
        self.wait_for(phase, &format!("/v1/jobs/{job}"), |view| view["observed"]["phase"] == phase)
    }

    /// Waits until a job of a tenant is in a phase; events say when it is worth another look, so that nobody asks all the time.
    pub fn wait_for_phase_as(&self, token: &str, job: &str, phase: &str) -> Value {
        let path = format!("/v1/jobs/{job}/events");
        let mut events = self.events(&path, token);
        assert_eq!(events.next().as_deref(), Some("HTTP/1.1 200 OK"));
        loop {
            let view = self.ask("GET", &format!("/v1/jobs/{job}"), token, &[], b"").expect(200);
            if view["observed"]["phase"] == phase {
                return view;
            }
            // The stream is read with a deadline.
            assert!(events.any(|line| line.starts_with("data: ")), "{phase}: {view}");
        }
    }

    /// A tenant that may ask as often as it likes; a token that may do everything in it.
    pub fn tenant(&self, name: &str) -> String {
        self.post("/v1/tenants", &json!({ "name": name, "settings": { "quotas": { "requests-per-s": null } } })).expect(201);
        let made = self.post(&format!("/v1/tenants/{name}/tokens"), &json!({ "label": "test", "scopes": ["admin"] })).expect(201);
        made["secret"].as_str().expect("text").to_owned()
    }

    /// A job that [`Self::submit`] made runs on as it was: nothing has changed it, interrupted it, or holds it up.
    pub fn assert_untouched(&self, job: &str) {
        let view = self.get(&format!("/v1/jobs/{job}")).expect(200);
        assert_eq!((&view["version"], &view["observed"]["phase"]), (&json!(1), &json!("running")), "{view}");
        let run = self.get(&format!("/v1/jobs/{job}/run")).expect(200);
        assert_eq!(run["durable"]["restarts"], 0, "{run}");
        assert!(self.tail(job, "counts", 5).iter().all(|row| row["by"] == "v1"));
    }

    pub fn make_token(&self, scopes: &[&str]) -> (String, String) {
        let made = self.post("/v1/tokens", &json!({ "label": "test", "scopes": scopes })).expect(201);
        let text = |key: &str| made[key].as_str().expect("text").to_owned();
        (text("id"), text("secret"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    stream
}

fn send(address: &str, method: &str, path: &str, token: &str, headers: &[(&str, &str)], body: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !token.is_empty() {
        head += &format!("authorization: Bearer {token}\r\n");
    }
    headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
    head += "\r\n";
    // A server that refuses a body early may close before all of it is sent.
    drop(stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)));
    stream
}

/// Asks any server.
pub fn request(address: &str, method: &str, path: &str, token: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut stream = send(address, method, path, token, headers, body);
    let mut bytes = Vec::new();
    // As above.
    drop(stream.read_to_end(&mut bytes));
    parse(&bytes)
}

/// The component of an operator of the example of the service.
pub fn component(operator: &str) -> Vec<u8> {
    components::build();
    let file = components::repository().join(format!("examples/service/operators/{operator}/example-service-{operator}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// The component of an operator of the tests of whole jobs.
pub fn operator(name: &str) -> Vec<u8> {
    components::build();
    let file = components::repository().join(format!("tests/jobs/operators/{name}/jobs-{name}.wasm"));
    std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// A job that counts numbers.
pub fn job(name: &str, sequence: &str, sink: &str) -> String {
    format!(
        "job: {name}
parallelism: 1
sources:
  numbers:
    sequence: {sequence}
operators:
  buckets:
    input: numbers
    compute: {{ bucket: value % 7 }}
  counts:
    input: buckets
    key-by: [bucket]
    component: count:v1
sinks:
  results:
    input: counts
    {sink}
checkpoints: {{ interval: 500ms }}
"
    )
}

/// For limits that are those of a person who waits.
#[expect(clippy::disallowed_methods, reason = "the other process has a clock of its own")]
pub fn now() -> Instant {
    Instant::now()
}

pub fn parse(bytes: &[u8]) -> Answer {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
    Answer { status, headers, body: body.to_owned() }
}

pub fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// An HTTP server that takes requests and does not answer before it is told to; dropped, it hangs up.
pub struct Endpoint {
    address: std::net::SocketAddr,
    answers: Arc<(Mutex<bool>, Condvar)>,
    connections: Arc<Mutex<Vec<TcpStream>>>,
}

impl Endpoint {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let answers: Arc<(Mutex<bool>, Condvar)> = Arc::default();
        let (weak, told) = (Arc::downgrade(&answers), answers.clone());
        let connections: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let accepted = connections.clone();
        std::thread::spawn(move || {
            drop(told);
            for stream in listener.incoming() {
                // Nobody holds the endpoint any more: the port is free again.
                let (Ok(stream), Some(answers)) = (stream, weak.upgrade()) else { return };
                accepted.lock().expect("no holder panics").push(stream.try_clone().expect("a descriptor"));
                std::thread::spawn(move || serve(stream, &answers));
            }
        });
        Self { address, answers, connections }
    }

    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// From now on every request is answered with 200.
    pub fn answer(&self) {
        *self.answers.0.lock().expect("no holder panics") = true;
        self.answers.1.notify_all();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.answer();
        self.answers = Arc::default();
        // Wakes the one who accepts, who then sees that there is no endpoint.
        drop(TcpStream::connect(self.address));
        for connection in self.connections.lock().expect("no holder panics").drain(..) {
            // Whoever is connected may have hung up first.
            drop(connection.shutdown(std::net::Shutdown::Both));
        }
    }
}

fn serve(stream: TcpStream, answers: &(Mutex<bool>, Condvar)) {
    let mut reader = BufReader::new(&stream);
    loop {
        let (mut length, mut line) = (0, String::new());
        while reader.read_line(&mut line).is_ok_and(|read| read > 2) {
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a length");
            }
            line.clear();
        }
        if line.is_empty() || reader.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        let told = answers.1.wait_while(answers.0.lock().expect("no holder panics"), |told| !*told).expect("no holder panics");
        drop(told);
        if (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").is_err() {
            return;
        }
    }
}
