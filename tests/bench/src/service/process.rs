//! The service as a process of its own, in a directory of its own, and how it is spoken to.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::{guests::Guests, process::memory_mib};

/// A service in a directory of its own.
pub struct Service {
    directory: TempDir,
    process: Child,
    talk: Talk,
}

/// Speaks to a service, for the tenant of its token.
#[derive(Clone)]
pub struct Talk {
    address: String,
    token: String,
}

/// What a service holds, with its runners.
#[derive(Clone, Copy, Debug)]
pub struct Holds {
    pub resident_mib: f64,
    pub threads: usize,
    pub descriptors: usize,
    /// Size of its directory.
    pub disk_mib: f64,
}

impl Service {
    /// Starts it, with the component `tally` as `tally:v1`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(guests: &Guests) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (process, address, token) = spawn(directory.path(), &[])?;
        let service = Self { directory, process, talk: Talk { address, token: token.context("a first token")? } };
        service.push("tally:v1", &guests.bytes("tally")?)?;
        Ok(service)
    }

    /// Starts it with its jobs in runners (`process`) or in itself (`none`), with the component `tally` as `tally:v1`.
    ///
    /// # Errors
    /// It does not start.
    pub fn start_isolated(guests: &Guests, isolation: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let (process, address, token) = spawn(directory.path(), &["--isolation", isolation])?;
        let service = Self { directory, process, talk: Talk { address, token: token.context("a first token")? } };
        service.push("tally:v1", &guests.bytes("tally")?)?;
        Ok(service)
    }

    /// Its runners, by the numbers of their processes.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn runners(&self) -> anyhow::Result<Vec<String>> {
        let own = self.process.id().to_string();
        let is_runner = |id: &String| {
            // `number (name) state parent …`
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            let parent = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(1));
            let line = fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
            parent == Some(own.as_str()) && line.ends_with(b"\0runner\0")
        };
        let processes = fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let found = processes.filter(|id| id.bytes().all(|byte| byte.is_ascii_digit())).filter(is_runner).collect();
        Ok(found)
    }

    /// Makes a tenant that may ask as often as it likes, with the component `tally` as `tally:v1`.
    ///
    /// # Errors
    /// It is refused.
    pub fn tenant(&self, name: &str, guests: &Guests) -> anyhow::Result<Talk> {
        let tenant = format!(r#"{{ "name": "{name}", "settings": {{ "quotas": {{ "requests-per-s": null }} }} }}"#);
        self.json("POST", "/v1/tenants", tenant.as_bytes())?;
        let made = self.json("POST", &format!("/v1/tenants/{name}/tokens"), br#"{ "label": "bench", "scopes": ["admin"] }"#)?;
        let talk = Talk { address: self.talk.address.clone(), token: made["secret"].as_str().context("a token")?.to_owned() };
        talk.push("tally:v1", &guests.bytes("tally")?)?;
        Ok(talk)
    }

    /// The same tenant, after a restart.
    pub fn again(&self, tenant: &Talk) -> Talk {
        Talk { address: self.talk.address.clone(), token: tenant.token.clone() }
    }

    /// The proportional share of the memory of the service and its runners, in MiB: what they share of the program counts once.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn pss_mib(&self) -> anyhow::Result<f64> {
        let runners = self.runners()?;
        runners.iter().chain([&self.process.id().to_string()]).map(|id| pss_mib(id)).sum()
    }

    /// Ends the process at once, as `kill -9` does.
    ///
    /// # Errors
    /// It is gone already.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.process.kill()?;
        self.process.wait()?;
        Ok(())
    }

    /// Starts it again where it was.
    ///
    /// # Errors
    /// It does not start.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        (self.process, self.talk.address, _) = spawn(self.directory.path(), &[])?;
        Ok(())
    }

    /// Where relative paths of job files start.
    pub fn files(&self) -> PathBuf {
        self.directory.path().join("files")
    }

    /// What it holds now.
    ///
    /// # Errors
    /// It is gone.
    pub fn holds(&self) -> anyhow::Result<Holds> {
        let mut ids = self.runners()?;
        ids.push(self.process.id().to_string());
        let (mut resident_mib, mut threads, mut descriptors) = (0.0, 0, 0);
        for id in &ids {
            let entries = |what: &str| anyhow::Ok(fs::read_dir(format!("/proc/{id}/{what}"))?.count());
            resident_mib += memory_mib(id, "VmRSS")?;
            threads += entries("task")?;
            descriptors += entries("fd")?;
        }
        Ok(Holds { resident_mib, threads, descriptors, disk_mib: bytes_below(self.directory.path()) as f64 / f64::from(1 << 20) })
    }
}

impl Deref for Service {
    type Target = Talk;

    fn deref(&self) -> &Talk {
        &self.talk
    }
}

impl Talk {
    /// Pushes a component as `name:tag`.
    ///
    /// # Errors
    /// It is refused.
    pub fn push(&self, reference: &str, bytes: &[u8]) -> anyhow::Result<()> {
        let (name, tag) = reference.split_once(':').context("a name and a tag")?;
        self.json("POST", &format!("/v1/components/{name}?tag={tag}"), bytes).map(drop)
    }

    /// Submits a job.
    ///
    /// # Errors
    /// It is refused.
    pub fn submit(&self, job: &str) -> anyhow::Result<()> {
        self.json("POST", "/v1/jobs", job.as_bytes()).map(drop)
    }

    /// Stops a job behind a last checkpoint and deletes it.
    ///
    /// # Errors
    /// It is refused.
    pub fn undeploy(&self, job: &str) -> anyhow::Result<()> {
        self.json("POST", &format!("/v1/jobs/{job}/stop"), b"{}")?;
        self.ask("DELETE", &format!("/v1/jobs/{job}"), b"").map(drop)
    }

    /// Returns when the operator has emitted a row.
    ///
    /// # Errors
    /// It never does.
    pub fn first_row(&self, job: &str, operator: &str) -> anyhow::Result<()> {
        let stream = self.send("GET", &format!("/v1/jobs/{job}/operators/{operator}/tail?rows=1"), b"")?;
        let mut lines = BufReader::new(stream).lines();
        let found = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("data:")));
        found.map(drop).context("a row")
    }

    /// The run of a job.
    ///
    /// # Errors
    /// It does not run.
    pub fn run(&self, job: &str) -> anyhow::Result<Run> {
        Ok(Run(self.json("GET", &format!("/v1/jobs/{job}/run"), b"")?))
    }

    /// An answer that is JSON.
    ///
    /// # Errors
    /// It is no success.
    pub fn json(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&self.ask(method, path, body)?)?)
    }

    /// The body of an answer.
    ///
    /// # Errors
    /// It is no success.
    pub fn ask(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<String> {
        let mut answer = String::new();
        self.send(method, path, body)?.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").context("an answer")?;
        if !head.starts_with("HTTP/1.1 2") {
            bail!("{method} {path}: {answer}");
        }
        Ok(body.to_owned())
    }

    /// Sends a request and leaves the answer to be read.
    ///
    /// # Errors
    /// It is gone.
    pub fn send(&self, method: &str, path: &str, body: &[u8]) -> anyhow::Result<TcpStream> {
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
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.kill());
    }
}

/// The run of a job, as the service tells it.
pub struct Run(Value);

impl Run {
    /// A number that is shown of an operator.
    pub fn of(&self, operator: &str, number: &str) -> u64 {
        let found = self.0["operators"].as_array().into_iter().flatten().find(|shown| shown["id"] == operator);
        found.and_then(|shown| shown[number].as_u64()).unwrap_or_default()
    }

    /// How often it went back to its last checkpoint.
    pub fn restarts(&self) -> u64 {
        self.0["durable"]["restarts"].as_u64().unwrap_or(u64::MAX)
    }

    /// The number of the last checkpoint; 0: there is none.
    pub fn last_checkpoint(&self) -> u64 {
        self.0["durable"]["last-checkpoint"]["checkpoint"].as_u64().unwrap_or_default()
    }
}

/// The proportional share of a process, in MiB.
///
/// # Errors
/// It is gone.
pub fn pss_mib(process: &str) -> anyhow::Result<f64> {
    let memory = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let line = memory.lines().find_map(|line| line.strip_prefix("Pss:")).context("its proportional share")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1_024.0)
}

fn binary() -> anyhow::Result<PathBuf> {
    let binary = std::env::current_exe()?.with_file_name("millstream");
    ensure!(binary.is_file(), "{} is not there: `make bench` builds it", binary.display());
    Ok(binary)
}

fn spawn(directory: &Path, more: &[&str]) -> anyhow::Result<(Child, String, Option<String>)> {
    let mut process = Command::new(binary()?)
        .args(["serve", "--json", "--listen", "127.0.0.1:0", "--dir"])
        .arg(directory)
        .args(more)
        .stdin(Stdio::null())
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

/// What goes while it is being counted counts for nothing.
fn bytes_below(directory: &Path) -> u64 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => bytes_below(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
