//! The service over HTTP: the real binary, one process, spoken to by bytes on loopback.
//!
//! *Submit to first output*: from the first byte of the request that submits a job until the first row of its operator is heard. *Swap*: the pauses that
//! the engine reports, and the whole request. *Idle jobs*: resident memory of the process with and without them, and the time of a request beside them.
//! *kill -9*: from the kill until every job runs again.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::figures::{Figure, median, now};

const SUBMISSIONS: usize = 100;
const SWAPS: usize = 200;
const SWAP_KEYS: u64 = 1_000_000;
const SWAP_RATE: u64 = 50_000;
const IDLE_JOBS: usize = 1_000;
const KILLED_JOBS: usize = 100;
const REQUESTS: usize = 1_000;

/// All figures of this group.
///
/// # Errors
/// The binary is not there, or does not do what it should.
pub fn measure() -> anyhow::Result<Vec<Figure>> {
    let mut figures = submit()?;
    figures.extend(swap()?);
    figures.extend(idle()?);
    figures.extend(kill()?);
    Ok(figures)
}

fn submit() -> anyhow::Result<Vec<Figure>> {
    let service = Service::start()?;
    service.push("v1", "count")?;
    let mut milliseconds = Vec::new();
    for number in 0..SUBMISSIONS {
        let name = format!("job{number}");
        let began = now();
        service.submit(&name, 1_000, 7)?;
        service.first_row(&name)?;
        milliseconds.push(since_ms(began));
        service.ask("POST", &format!("/v1/jobs/{name}/stop"), b"{}")?;
    }
    let how = format!("POST /v1/jobs until the first row of …/tail, precompiled component, {SUBMISSIONS} jobs one after the other");
    let p99 = percentile(&milliseconds, 0.99);
    Ok(vec![
        Figure::for_scale("submit to first output over HTTP, p50", median(milliseconds), "ms", &how),
        Figure::at_most("submit to first output over HTTP, p99", p99, "ms", 100.0, &how),
    ])
}

fn swap() -> anyhow::Result<Vec<Figure>> {
    let service = Service::start()?;
    service.push("v1", "count")?;
    service.push("v2", "count-signed")?;
    service.submit("swapped", SWAP_RATE, SWAP_KEYS)?;
    loop {
        let run = service.json("GET", "/v1/jobs/swapped/run", b"")?;
        if run["operators"][2]["rows-in"].as_u64().unwrap_or_default() > SWAP_KEYS {
            break;
        }
    }
    let (mut pauses, mut requests) = (Vec::new(), Vec::new());
    for number in 0..SWAPS {
        let tag = if number % 2 == 0 { "v2" } else { "v1" };
        let wanted = json!({ "operators": { "counts": { "component": format!("count:{tag}") } }, "probation-s": 0 });
        let (report, took_ms) = loop {
            let began = now();
            match service.json("POST", "/v1/jobs/swapped/swap", wanted.to_string().as_bytes()) {
                // The swap before is not settled yet.
                Err(error) if format!("{error:#}").contains("is under way") => {}
                answered => break (answered?, since_ms(began)),
            }
        };
        requests.push(took_ms);
        let of_swap = report["pauses-us"].as_array().context("pauses")?;
        pauses.extend(of_swap.iter().filter_map(Value::as_f64).map(|us| us / 1e3));
    }
    let how = format!("{SWAPS} swaps over HTTP, {SWAP_KEYS} keys of state, {SWAP_RATE} rows/s");
    let (pause_p99, request_p99) = (percentile(&pauses, 0.99), percentile(&requests, 0.99));
    Ok(vec![
        Figure::at_most("swap over HTTP, pause p50", median(pauses), "ms", 2.0, &how),
        Figure::at_most("swap over HTTP, pause p99", pause_p99, "ms", 10.0, &how),
        Figure::for_scale("swap over HTTP, whole request p99", request_p99, "ms", &how),
    ])
}

fn idle() -> anyhow::Result<Vec<Figure>> {
    let service = Service::start()?;
    service.push("v1", "count")?;
    let before = service.resident_mib()?;
    for number in 0..IDLE_JOBS {
        service.submit(&format!("idle{number}"), 1, 7)?;
    }
    let each = (service.resident_mib()? - before) / IDLE_JOBS as f64;
    let mut milliseconds = Vec::new();
    for number in 0..REQUESTS {
        let began = now();
        service.json("GET", &format!("/v1/jobs/idle{}", number % IDLE_JOBS), b"")?;
        milliseconds.push(since_ms(began));
    }
    let how =
        format!("{IDLE_JOBS} jobs of one row a second with a keyed component, a checkpoint every 10 s; resident memory of the process");
    Ok(vec![
        Figure::at_most("memory of one of 1,000 idle jobs", each, "MiB", 1.0, &how),
        Figure::at_most("API beside 1,000 idle jobs, p99", percentile(&milliseconds, 0.99), "ms", 50.0, &how),
    ])
}

fn kill() -> anyhow::Result<Vec<Figure>> {
    let mut service = Service::start()?;
    service.push("v1", "count")?;
    for number in 0..KILLED_JOBS {
        service.submit(&format!("job{number}"), 100, 7)?;
    }
    service.process.kill()?;
    service.process.wait()?;
    let killed = now();
    service.restart()?;
    loop {
        let jobs = service.json("GET", "/v1/jobs?limit=1000", b"")?;
        let jobs = jobs["items"].as_array().context("jobs")?;
        let phases: BTreeSet<&str> = jobs.iter().filter_map(|job| job["observed"]["phase"].as_str()).collect();
        ensure!(jobs.len() == KILLED_JOBS && !phases.contains("failed"), "{phases:?}");
        if phases.len() == 1 && phases.contains("running") {
            break;
        }
    }
    let how = format!("kill -9 of the process, started again at once, until all {KILLED_JOBS} jobs run");
    Ok(vec![Figure::at_most("kill -9 with 100 jobs, all running again", killed.elapsed().as_secs_f64(), "s", 5.0, &how)])
}

fn since_ms(began: Instant) -> f64 {
    began.elapsed().as_secs_f64() * 1e3
}

fn percentile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// A service in a directory of its own.
struct Service {
    directory: TempDir,
    process: Child,
    address: String,
    token: String,
}

impl Service {
    fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (process, address, token) = spawn(directory.path())?;
        Ok(Self { directory, process, address, token: token.context("a first token")? })
    }

    fn restart(&mut self) -> anyhow::Result<()> {
        (self.process, self.address, _) = spawn(self.directory.path())?;
        Ok(())
    }

    fn push(&self, tag: &str, operator: &str) -> anyhow::Result<()> {
        let project = crate::repository().join("examples/service/operators").join(operator);
        let built = Command::new(binary()?).arg("build").arg(&project).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(built.success(), "{} does not build", project.display());
        let bytes = std::fs::read(project.join(format!("example-service-{operator}.wasm")))?;
        self.json("POST", &format!("/v1/components/count?tag={tag}"), &bytes).map(drop)
    }

    fn submit(&self, name: &str, rate: u64, keys: u64) -> anyhow::Result<()> {
        let job = format!(
            "job: {name}
parallelism: 1
sources:
  numbers:
    sequence: {{ rate: {rate} }}
operators:
  buckets:
    input: numbers
    compute: {{ bucket: value % {keys} }}
  counts:
    input: buckets
    key-by: [bucket]
    component: count:v1
sinks:
  results:
    input: counts
    blackhole: {{}}
"
        );
        self.json("POST", "/v1/jobs", job.as_bytes()).map(drop)
    }

    fn first_row(&self, job: &str) -> anyhow::Result<()> {
        let stream = self.send("GET", &format!("/v1/jobs/{job}/operators/counts/tail?rows=1"), b"")?;
        let mut lines = BufReader::new(stream).lines();
        let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("data:")));
        found.map(drop).context("a row")
    }

    fn json(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        let answer = self.ask(method, path, body)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        if !head.starts_with("HTTP/1.1 2") {
            bail!("{method} {path}: {answer}");
        }
        Ok(serde_json::from_str(body)?)
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<String> {
        let mut answer = String::new();
        self.send(method, path, body)?.read_to_string(&mut answer)?;
        Ok(answer)
    }

    fn send(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_nodelay(true)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: bench\r\nconnection: close\r\nauthorization: Bearer {}\r\ncontent-length: {}\r\n\r\n",
            self.token,
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        Ok(stream)
    }

    fn resident_mib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1_024.0)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.process.kill().and_then(|()| self.process.wait()));
    }
}

fn binary() -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name("millstream");
    ensure!(binary.is_file(), "{} is not there: `make bench` builds it", binary.display());
    Ok(binary)
}

fn spawn(directory: &Path) -> anyhow::Result<(Child, String, Option<String>)> {
    let mut process = Command::new(binary()?)
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--dir"])
        .arg(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting the binary")?;
    let mut line = String::new();
    BufReader::new(process.stdout.take().context("its standard output is a pipe")?).read_line(&mut line)?;
    let said: Value = serde_json::from_str(&line)?;
    let address = said["url"].as_str().and_then(|url| url.split_once("//")).context("an address")?.1.to_owned();
    Ok((process, address, said["token"].as_str().map(str::to_owned)))
}
