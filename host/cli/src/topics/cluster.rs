//! Which cluster a command is about: addresses on the command line, or the connection that a file describes in the words of a job file (`servers`,
//! `tls`, `sasl`). A password stands in no file: it is a reference there, looked up here and never said.

use std::{
    fs,
    path::{Path, PathBuf},
};

use millstream_connectors::kafka::{Machine, connection::Connection};
use millstream_engine::{connector::SettingsProblem, spec::JobSpec};
use millstream_server::references;
use serde_json::{Map, Value, json};

use crate::{
    job::{connectors, references::resolve},
    report::{Exit, Failure, Problem},
    terminal,
};

/// What a connection is made of; other settings of a source or sink are not for us.
const PARTS: [&str; 3] = ["servers", "tls", "sasl"];
/// Where secrets stand.
const SECRETS: [&str; 3] = ["/sasl/password", "/tls/key-password", KEY];
const KEY: &str = "/tls/key";

/// The cluster.
#[derive(clap::Args, Clone, Debug)]
pub struct Cluster {
    /// Addresses of some brokers: host:port, with commas between them.
    #[arg(
        long,
        value_name = "SERVERS",
        value_delimiter = ',',
        env = "MILLSTREAM_KAFKA",
        required_unless_present = "connection",
        help_heading = "Cluster"
    )]
    servers: Vec<String>,
    /// A file that says how the cluster is reached (servers, tls, sasl, as under `kafka:` in a job file), or a job file, whose connection is taken.
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    connection: Option<PathBuf>,
    /// The source or sink of the job file, if its connections differ.
    #[arg(long, value_name = "ID", requires = "connection", help_heading = "Cluster")]
    of: Option<String>,
}

/// How the cluster is reached, and where the paths in that start.
pub struct Found {
    /// As a job file would say it, with references looked up.
    pub settings: Value,
    /// The same, read.
    pub connection: Connection,
    /// The directory that paths are relative to.
    pub base: PathBuf,
}

impl Cluster {
    /// How it is reached. Nothing is asked of it.
    pub fn find(&self) -> Result<Found, Failure> {
        let Some(file) = &self.connection else {
            return found(json!({ "servers": self.servers }), PathBuf::from("."), None);
        };
        let mut settings = self.described(file)?;
        if !self.servers.is_empty() {
            settings["servers"] = json!(self.servers);
        }
        let base = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        found(settings, base.to_owned(), Some(file))
    }

    fn described(&self, file: &Path) -> Result<Value, Failure> {
        let text = fs::read_to_string(file)
            .map_err(|error| Failure::new(Exit::Invalid, format!("`{}` cannot be read", file.display())).because(&error))?;
        let spec = JobSpec::parse(&file.display().to_string(), &text, &connectors())
            .map_err(|problems| millstream_server::failure::Failure::of_spec(&problems, Some(file.to_owned()), &text))?;
        if spec.value().get("sources").is_none() && spec.value().get("sinks").is_none() {
            return match (spec.value(), &self.of) {
                (Value::Object(_), None) => Ok(spec.value().clone()),
                (Value::Object(_), Some(_)) => Err(in_file(file, "", "it is no job file, so `--of` has nothing to choose from")),
                _ => Err(in_file(file, "", "it says no connection: write `servers: \"localhost:9092\"`, or name a job file")),
            };
        }
        self.of_job(file, &spec)
    }

    fn of_job(&self, file: &Path, spec: &JobSpec) -> Result<Value, Failure> {
        let sources = spec.sources.iter().map(|entry| (&entry.id, &entry.kind, &entry.settings));
        let all = sources.chain(spec.sinks.iter().map(|entry| (&entry.id, &entry.kind, &entry.settings)));
        let mut found: Vec<(&String, Value)> =
            all.filter(|(_, kind, _)| *kind == "kafka").map(|(id, _, settings)| (id, parts(settings))).collect();
        let ids: Vec<&str> = found.iter().map(|(id, _)| id.as_str()).collect();
        let ids = ids.join(", ");
        if let Some(of) = &self.of {
            found.retain(|(id, _)| *id == of);
        }
        match found.as_slice() {
            [] if ids.is_empty() => Err(in_file(file, "", "no source and no sink of this job is a Kafka topic")),
            [] => Err(in_file(file, "", &format!("it has no such Kafka source or sink; there are: {ids}"))),
            [(_, first), others @ ..] if others.iter().all(|(_, other)| other == first) => Ok(first.clone()),
            _ => Err(in_file(file, "", &format!("its connections differ: choose one with `--of`, of {ids}"))),
        }
    }
}

/// What of a source's or sink's settings is its connection.
fn parts(settings: &Value) -> Value {
    let part = |name: &&str| Some(((*name).to_owned(), settings.get(*name)?.clone()));
    Value::Object(PARTS.iter().filter_map(part).collect::<Map<_, _>>())
}

fn found(settings: Value, base: PathBuf, file: Option<&Path>) -> Result<Found, Failure> {
    let problem = |path: &str, message: &str, fix: Option<&str>| Problem {
        file: file.map(Path::to_owned),
        path: Some(path.to_owned()).filter(|path| !path.is_empty()),
        message: message.to_owned(),
        fix: fix.map(str::to_owned),
        ..Problem::default()
    };
    let open: Vec<Problem> = SECRETS
        .iter()
        .filter(|pointer| is_open_secret(pointer, settings.pointer(pointer)))
        .map(|pointer| {
            let fix = "write ${env:NAME} or ${file:PATH}: a secret does not stand in the file itself";
            problem(&pointer[1..].replace('/', "."), "is a secret, and must be a reference", Some(fix))
        })
        .collect();
    if !open.is_empty() {
        return Err(Failure::of(Exit::Invalid, open));
    }
    let references = resolve(&settings, &base);
    terminal::HIDDEN.hide("connection", &references);
    let unresolved: Vec<Problem> =
        references.mistakes().map(|(path, mistake)| problem(path, &mistake.message, Some(&mistake.fix))).collect();
    if !unresolved.is_empty() {
        return Err(Failure::of(Exit::Invalid, unresolved));
    }
    let settings = references.fill(settings);
    let connection = Connection::read(&settings, Machine::Own).map_err(|problems| {
        let told = |SettingsProblem { path, message }: &SettingsProblem| problem(path, message, None);
        Failure::of(Exit::Invalid, problems.iter().map(told).collect())
    })?;
    Ok(Found { settings, connection, base })
}

/// A secret that stands there as it is. The key of a certificate may also be the path of a file.
fn is_open_secret(pointer: &str, value: Option<&Value>) -> bool {
    let Some(text) = value.and_then(Value::as_str) else { return false };
    let is_file = pointer == KEY && !text.contains("-----BEGIN");
    !is_file && references::named(&Value::from(text)).is_empty()
}

fn in_file(file: &Path, path: &str, message: &str) -> Failure {
    let mut failure = Failure::new(Exit::Invalid, message).in_file(file);
    failure.told.problems[0].path = Some(path.to_owned()).filter(|path| !path.is_empty());
    failure
}
