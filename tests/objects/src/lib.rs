//! Object stores for tests, started by `scripts/objects`: each test has one of its own, which holds its objects in memory and ends with it.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

/// Whose protocol it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Amazon S3, and what speaks like it.
    S3,
    /// Google Cloud Storage.
    Google,
    /// Azure Blob Storage.
    Azure,
}

impl Service {
    /// All that there are.
    pub const ALL: [Self; 3] = [Self::S3, Self::Google, Self::Azure];

    fn name(self) -> &'static str {
        match self {
            Self::S3 => "s3",
            Self::Google => "google",
            Self::Azure => "azure",
        }
    }
}

/// A running object store with one bucket.
pub struct ObjectStore {
    process: Child,
    location: String,
    environment: Vec<(String, String)>,
}

impl ObjectStore {
    /// Starts one that everybody can use who has its [`environment`](Self::environment).
    ///
    /// # Panics
    /// It does not start; what it said stands in the message.
    pub fn start(service: Service) -> Self {
        Self::started(&[service.name()])
    }

    /// Starts one whose [`environment`](Self::environment) lets nobody in.
    ///
    /// # Panics
    /// It does not start; what it said stands in the message.
    pub fn closed(service: Service) -> Self {
        Self::started(&[service.name(), "closed"])
    }

    fn started(arguments: &[&str]) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/objects");
        let mut command = Command::new(script);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("scripts can be run");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("piped")).read_line(&mut line).expect("text");
        let Ok(said) = serde_json::from_str::<Value>(&line) else {
            let mut problem = String::new();
            process.stderr.take().expect("piped").read_to_string(&mut problem).expect("text");
            panic!("scripts/objects {arguments:?} did not start:\n{line}{problem}");
        };
        let text = |value: &Value| value.as_str().expect("a string").to_owned();
        let environment = said["environment"].as_object().expect("variables").iter().map(|(name, value)| (name.clone(), text(value)));
        Self { process, location: text(&said["location"]), environment: environment.collect() }
    }

    /// Its bucket, as a job file names it: `s3://bucket`.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// What the environment of its user holds.
    pub fn environment(&self) -> &[(String, String)] {
        &self.environment
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        // It ends when its input does, and takes what it has started with it.
        drop(self.process.stdin.take());
        let _reaped = self.process.wait();
    }
}
