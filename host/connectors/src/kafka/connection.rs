//! How a cluster is reached: addresses, encryption, who we are. Shared by sources, sinks and tools.
//!
//! Settings are an allow-list: no property of librdkafka can be passed through, because several of them run commands, load libraries or read
//! files. Secrets are references ([`Secret`]) that are looked up when a client is made, and are never shown.

use std::{collections::BTreeMap, fmt};

use millstream_engine::connector::SettingsProblem;
use rdkafka::ClientConfig;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::{OneOrMany, problem, read};

/// How a cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Connection {
    /// Addresses of some brokers of the cluster, `host:port`; the others are found through them.
    pub servers: OneOrMany,
    /// Encrypts the connection. Default: it is not encrypted.
    pub tls: Option<Tls>,
    /// Says who we are. Default: nobody.
    pub sasl: Option<Sasl>,
}

/// How the connection is encrypted; `tls: {}` takes the authorities that the system trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Tls {
    /// PEM certificates of the authorities to trust. Default: those of the system.
    pub ca: Option<Pem>,
    /// Our own certificate, where brokers ask for one.
    pub certificate: Option<Pem>,
    /// Its key.
    pub key: Option<Pem>,
    /// The password of the key: `${env:NAME}` or `${file:PATH}`.
    pub key_password: Option<Secret>,
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sasl {
    /// How it is proved.
    pub mechanism: Mechanism,
    /// The name.
    pub username: String,
    /// The password: `${env:NAME}`, `${file:PATH}`, or in the service `${secret:NAME}`.
    pub password: Secret,
}

/// How a name is proved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// The password is sent: use it with TLS only.
    #[serde(rename = "PLAIN")]
    Plain,
    /// The password is not sent.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The password is not sent.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// A secret by reference: `${env:NAME}` or `${file:PATH}`. The service puts the value of `${secret:NAME}` in its place before it comes here.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Secret(String);

/// PEM text (it begins with `-----BEGIN`), or the path of a file that holds it, relative to the job file.
#[derive(Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Pem(String);

impl fmt::Debug for Pem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(if self.is_text() { "(PEM)" } else { &self.0 })
    }
}

impl Pem {
    /// Whether it is the text itself.
    pub fn is_text(&self) -> bool {
        self.0.trim_start().starts_with("-----BEGIN")
    }

    /// The text; a file is relative to `base`.
    ///
    /// # Errors
    /// The file cannot be read; a clause.
    pub fn read(&self, base: &std::path::Path) -> Result<String, String> {
        if self.is_text() {
            return Ok(self.0.clone());
        }
        std::fs::read_to_string(base.join(&self.0)).map_err(|error| format!("the file {} cannot be read ({error})", self.0))
    }
}

/// Whether a job may name files and variables of the machine that it runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// It may: whoever started it owns both.
    Own,
    /// It may not: the machine is shared by strangers, whose only secrets are those of the service.
    Shared,
}

impl Machine {
    /// Where files that the job names are looked for; none: it may name none.
    pub fn files(self, base: &std::path::Path) -> Option<&std::path::Path> {
        (self == Self::Own).then_some(base)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("(not shown)")
    }
}

impl Secret {
    fn reference(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix("${")?.strip_suffix('}')?.split_once(':')
    }

    /// Whether it is to be found in a variable or file of the machine.
    pub fn names_machine(&self) -> bool {
        matches!(self.reference(), Some(("env" | "file", _)))
    }

    /// The value.
    ///
    /// # Errors
    /// There is no such variable or file; a clause without the value.
    pub fn reveal(&self) -> Result<String, String> {
        match self.reference() {
            Some(("env", name)) => std::env::var(name).map_err(|_| format!("the environment has no variable {name}")),
            Some(("file", path)) => std::fs::read_to_string(path)
                .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| format!("the file {path} cannot be read ({error})")),
            _ => Ok(self.0.clone()),
        }
    }
}

impl Connection {
    /// Reads and checks what a user wrote.
    ///
    /// # Errors
    /// All mistakes that were found.
    pub fn read(value: &serde_json::Value, machine: Machine) -> Result<Self, Vec<SettingsProblem>> {
        let connection: Self = read(value)?;
        let mut problems = Vec::new();
        connection.check(machine, &mut problems);
        if problems.is_empty() { Ok(connection) } else { Err(problems) }
    }

    /// Reports what is wrong with the addresses, and what may not be named on this machine.
    pub fn check(&self, machine: Machine, problems: &mut Vec<SettingsProblem>) {
        let servers = self.servers.as_slice();
        if servers.is_empty() {
            problems.push(problem("servers", "name at least one broker, as `host:port`"));
        }
        for server in servers {
            let port = server.rsplit_once(':').filter(|(host, _)| !host.is_empty()).and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() || server.contains([',', '/', ' ']) {
                problems.push(problem("servers", format!("`{server}` is no address such as `localhost:9092`")));
            }
        }
        if let Some(tls) = &self.tls
            && tls.certificate.is_some() != tls.key.is_some()
        {
            problems.push(problem("tls", "`certificate` and `key` belong together"));
        }
        if machine == Machine::Shared {
            self.check_names_nothing(problems);
        }
    }

    fn check_names_nothing(&self, problems: &mut Vec<SettingsProblem>) {
        let tls = self.tls.as_ref();
        let pems = [("tls.ca", tls.and_then(|tls| tls.ca.as_ref())), ("tls.certificate", tls.and_then(|tls| tls.certificate.as_ref()))];
        let pems = pems.into_iter().chain([("tls.key", tls.and_then(|tls| tls.key.as_ref()))]);
        for (place, _) in pems.filter(|(_, pem)| pem.is_some_and(|pem| !pem.is_text())) {
            problems.push(problem(place, "is PEM text here, such as `${secret:NAME}`: a job of the service reads no files"));
        }
        let password = self.sasl.as_ref().map(|sasl| ("sasl.password", &sasl.password));
        let secrets = password.into_iter().chain(tls.and_then(|tls| tls.key_password.as_ref()).map(|secret| ("tls.key-password", secret)));
        for (place, _) in secrets.filter(|(_, secret)| secret.names_machine()) {
            problems.push(problem(place, "is a secret of the service here: write `${secret:NAME}`"));
        }
    }

    /// The addresses as one text, for messages.
    pub fn shown(&self) -> String {
        self.servers.as_slice().join(",")
    }

    /// What every client of the cluster is told; files are relative to `base`.
    ///
    /// # Errors
    /// A secret cannot be found; a clause.
    pub fn client(&self, base: &std::path::Path) -> Result<ClientConfig, String> {
        let mut values = BTreeMap::from([("bootstrap.servers", self.shown()), ("client.id", "millstream".to_owned())]);
        let protocol = match (&self.tls, &self.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        values.insert("security.protocol", protocol.to_owned());
        if let Some(tls) = &self.tls {
            let pems = [
                ("ssl.ca.pem", "ssl.ca.location", &tls.ca),
                ("ssl.certificate.pem", "ssl.certificate.location", &tls.certificate),
                ("ssl.key.pem", "ssl.key.location", &tls.key),
            ];
            for (text, file, pem) in pems {
                let Some(pem) = pem else { continue };
                if pem.is_text() {
                    values.insert(text, pem.0.clone());
                } else {
                    values.insert(file, base.join(&pem.0).display().to_string());
                }
            }
            if let Some(password) = &tls.key_password {
                values.insert("ssl.key.password", password.reveal().map_err(|problem| format!("tls.key-password: {problem}"))?);
            }
        }
        if let Some(sasl) = &self.sasl {
            values.insert("sasl.mechanism", sasl.mechanism.name().to_owned());
            values.insert("sasl.username", sasl.username.clone());
            values.insert("sasl.password", sasl.password.reveal().map_err(|problem| format!("sasl.password: {problem}"))?);
        }
        let mut config = ClientConfig::new();
        for (name, value) in values {
            config.set(name, value);
        }
        Ok(config)
    }
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(text: &str) -> Connection {
        serde_json::from_str(text).expect("settings")
    }

    #[test]
    fn a_password_is_looked_up_when_a_client_is_made_and_never_shown() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("password");
        std::fs::write(&file, "hunter2\n").expect("writable");
        let connection = connection(&format!(
            r#"{{"servers":"b:9092","sasl":{{"mechanism":"PLAIN","username":"me","password":"${{file:{}}}"}}}}"#,
            file.display()
        ));
        let client = connection.client(directory.path()).expect("there is such a file");
        assert_eq!(client.get("sasl.password"), Some("hunter2"));
        assert_eq!(client.get("security.protocol"), Some("sasl_plaintext"));
        assert!(!format!("{connection:?}").contains("password\""), "{connection:?}");
        let plain = Secret("hunter2".into());
        assert_eq!(format!("{plain:?}"), "(not shown)");
    }

    #[test]
    fn a_secret_that_is_not_there_is_named_by_its_reference() {
        let connection =
            connection(r#"{"servers":"b:9092","sasl":{"mechanism":"SCRAM-SHA-256","username":"me","password":"${env:NO_SUCH_VARIABLE}"}}"#);
        let problem = connection.client(std::path::Path::new(".")).expect_err("no such variable");
        assert_eq!(problem, "sasl.password: the environment has no variable NO_SUCH_VARIABLE");
    }

    #[test]
    fn a_job_on_a_shared_machine_names_neither_its_files_nor_its_variables() {
        let text =
            r#"{"servers":"b:9092","tls":{"ca":"/etc/ca.pem"},"sasl":{"mechanism":"PLAIN","username":"me","password":"${env:HOME}"}}"#;
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        connection(text).check(Machine::Own, &mut own);
        connection(text).check(Machine::Shared, &mut shared);
        assert_eq!(own, []);
        let places: Vec<&str> = shared.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(places, ["tls.ca", "sasl.password"]);
    }

    #[test]
    fn what_is_no_address_is_refused_and_so_is_every_property_of_the_client_library() {
        let mut problems = Vec::new();
        connection(r#"{"servers":["localhost","a:9092,b:9092"],"tls":{"key":"k.pem"}}"#).check(Machine::Own, &mut problems);
        assert_eq!(problems.len(), 3, "{problems:?}");
        for property in ["sasl.oauthbearer.method", "plugin.library.paths", "ssl.engine.location", "sasl.kerberos.kinit.cmd"] {
            let text = format!(r#"{{"servers":"b:9092","{property}":"x"}}"#);
            serde_json::from_str::<Connection>(&text).expect_err("no property is passed through");
        }
    }
}
