//! Asks a registry. What it said of an id holds for ever; that it knows none is believed for half a minute.

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use futures::future::BoxFuture;
use millstream_engine::{clock::Clock, operator::OperatorError};
use reqwest::{Certificate, Method, Response, StatusCode, redirect::Policy};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Registry;

/// Bytes of an answer.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Waits between tries, in ms.
const WAITS_MS: [i64; 2] = [200, 1_000];
const UNKNOWN_MS: i64 = 30_000;
const UNKNOWN_MAX: usize = 10_000;
/// Schemas that one schema may stand on, and how deep.
const REFERENCES_MAX: usize = 200;
const REFERENCES_DEPTH_MAX: u32 = 16;
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// What kind of schema it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Kind {
    /// Avro, also where the registry says nothing.
    #[default]
    Avro,
    /// Protocol Buffers.
    Protobuf,
    /// JSON Schema.
    Json,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
        }
    }
}

/// A schema of the registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// What kind of schema it is.
    pub kind: Kind,
    /// The schema.
    pub text: String,
    /// What it stands on, each after what that stands on: name and text.
    pub references: Vec<(String, String)>,
}

/// Why there is no answer; a clause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failed {
    /// There is no such id or subject.
    #[error("{0}")]
    Missing(String),
    /// The registry does not want to, in its own words.
    #[error("{0}")]
    Refused(String),
    /// Nobody answers, or nothing that could be understood.
    #[error("{0}")]
    Unreachable(String),
}

impl From<Failed> for OperatorError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Missing(text) | Failed::Refused(text) => Self::user(text),
            Failed::Unreachable(text) => Self::outside(text),
        }
    }
}

/// Asks a registry.
pub struct Client {
    http: reqwest::Client,
    url: String,
    credentials: Option<(String, String)>,
    clock: Arc<dyn Clock>,
    known: Mutex<HashMap<u32, Known>>,
}

enum Known {
    Schema(Arc<Registered>),
    /// Until then, in elapsed time.
    Unknown {
        until_ms: i64,
        text: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    #[serde(default)]
    id: Option<u32>,
    #[serde(default)]
    schema: Option<String>,
    #[serde(default)]
    schema_type: Kind,
    #[serde(default)]
    references: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    name: String,
    subject: String,
    version: i64,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// Asks nothing yet. Files are relative to `base`.
    ///
    /// # Errors
    /// A secret or certificate cannot be found; a clause.
    pub fn new(settings: &Registry, base: &Path, clock: Arc<dyn Clock>) -> Result<Self, String> {
        let mut builder = reqwest::Client::builder().timeout(settings.timeout.0).redirect(Policy::none());
        if let Some(ca) = &settings.ca {
            let pem = ca.read(base).map_err(|error| format!("schema-registry.ca: {error}"))?;
            let certificates = Certificate::from_pem_bundle(pem.as_bytes()).map_err(|error| format!("schema-registry.ca: {error}"))?;
            builder = certificates.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate);
        }
        let password = settings.password.as_ref().map(|password| password.reveal()).transpose();
        let password = password.map_err(|error| format!("schema-registry.password: {error}"))?;
        let http = builder
            .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| format!("cannot make an HTTP client: {error}"))?;
        let url = settings.url.trim_end_matches('/').to_owned();
        Ok(Self { http, url, credentials: settings.username.clone().zip(password), clock, known: Mutex::default() })
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The schema with an id.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn schema(&self, id: u32) -> Result<Arc<Registered>, Failed> {
        if let Some(known) = self.known(id) {
            return known;
        }
        let found = async {
            let answer = self.ask(Method::GET, &["schemas", "ids", &id.to_string()], None).await?;
            self.whole(answer).await
        };
        let found = found.await.map(Arc::new);
        let known = match &found {
            Ok(schema) => Known::Schema(schema.clone()),
            Err(Failed::Missing(text)) => Known::Unknown { until_ms: self.clock.monotonic_ms() + UNKNOWN_MS, text: text.clone() },
            Err(_) => return found,
        };
        let mut all = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if all.values().filter(|known| matches!(known, Known::Unknown { .. })).count() >= UNKNOWN_MAX {
            all.retain(|_, known| matches!(known, Known::Schema(_)));
        }
        all.insert(id, known);
        found
    }

    fn known(&self, id: u32) -> Option<Result<Arc<Registered>, Failed>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&id)? {
            Known::Schema(schema) => Some(Ok(schema.clone())),
            Known::Unknown { until_ms, text } => (self.clock.monotonic_ms() < *until_ms).then(|| Err(Failed::Missing(text.clone()))),
        }
    }

    /// The latest schema of a subject.
    ///
    /// # Errors
    /// See [`Failed`].
    pub async fn latest(&self, subject: &str) -> Result<Registered, Failed> {
        let answer = self.ask(Method::GET, &["subjects", subject, "versions", "latest"], None).await?;
        self.whole(answer).await
    }

    /// The id of a schema in a subject, which gets it as its next version if it does not have it and `register` says so.
    ///
    /// # Errors
    /// See [`Failed`]: the registry refuses what is not compatible with earlier versions.
    pub async fn id_of(&self, subject: &str, kind: Kind, text: &str, register: bool) -> Result<u32, Failed> {
        let mut body = json!({ "schema": text });
        if kind != Kind::Avro {
            body["schemaType"] = kind.name().into();
        }
        let path: &[&str] = if register { &["subjects", subject, "versions"] } else { &["subjects", subject] };
        let answer = self.ask(Method::POST, path, Some(&body)).await;
        let answer = answer.map_err(|failed| match failed {
            Failed::Missing(words) if !register => Failed::Missing(format!(
                "subject {subject} does not have the schema that is written ({words}): register it, or set `register: true`"
            )),
            Failed::Refused(words) => Failed::Refused(format!("subject {subject}: {words}")),
            other => other,
        })?;
        answer.id.ok_or_else(|| Failed::Unreachable(format!("{}: its answer has no id", self.url)))
    }

    /// A schema with what it stands on.
    async fn whole(&self, answer: Answer) -> Result<Registered, Failed> {
        let text = answer.schema.ok_or_else(|| Failed::Unreachable(format!("{}: its answer has no schema", self.url)))?;
        let mut references = Vec::new();
        self.collect(answer.references, REFERENCES_DEPTH_MAX, &mut references).await?;
        Ok(Registered { kind: answer.schema_type, text, references })
    }

    fn collect<'a>(
        &'a self,
        wanted: Vec<Reference>,
        depth: u32,
        found: &'a mut Vec<(String, String)>,
    ) -> BoxFuture<'a, Result<(), Failed>> {
        Box::pin(async move {
            for reference in wanted {
                if found.iter().any(|(name, _)| *name == reference.name) {
                    continue;
                }
                if found.len() >= REFERENCES_MAX || depth == 0 {
                    return Err(Failed::Refused(format!("a schema stands on more than {REFERENCES_MAX} others, or on itself")));
                }
                let version = reference.version.to_string();
                let answer = self.ask(Method::GET, &["subjects", &reference.subject, "versions", &version], None).await?;
                self.collect(answer.references, depth - 1, found).await?;
                let text = answer.schema.ok_or_else(|| Failed::Unreachable(format!("{}: its answer has no schema", self.url)))?;
                found.push((reference.name, text));
            }
            Ok(())
        })
    }

    /// Asks up to three times.
    async fn ask(&self, method: Method, path: &[&str], body: Option<&Value>) -> Result<Answer, Failed> {
        let mut url: reqwest::Url = self.url.parse().map_err(|_| Failed::Refused(format!("{} is no address", self.url)))?;
        url.path_segments_mut().map_err(|()| Failed::Refused(format!("{} is no address", self.url)))?.pop_if_empty().extend(path);
        let mut waits = WAITS_MS.into_iter();
        loop {
            let failed = match self.ask_once(method.clone(), url.clone(), body).await {
                Err(failed @ Failed::Unreachable(_)) => failed,
                other => return other,
            };
            let Some(wait_ms) = waits.next() else { return Err(failed) };
            self.clock.sleep(wait_ms).await;
        }
    }

    async fn ask_once(&self, method: Method, url: reqwest::Url, body: Option<&Value>) -> Result<Answer, Failed> {
        let mut request = self.http.request(method, url).header("Accept", MEDIA_TYPE);
        if let Some((name, password)) = &self.credentials {
            request = request.basic_auth(name, Some(password));
        }
        if let Some(body) = body {
            request = request.header("Content-Type", MEDIA_TYPE).body(body.to_string());
        }
        let unreachable = |why: String| {
            Failed::Unreachable(format!("the schema registry {} does not answer ({why}): check `schema-registry.url`", self.url))
        };
        let answer = request.send().await.map_err(|error| unreachable(chain(&error)))?;
        let status = answer.status();
        let body = bounded(answer).await.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|error| unreachable(format!("its answer is not one of a registry: {error}")));
        }
        let words: Value = serde_json::from_slice(&body).unwrap_or_default();
        let words = words["message"].as_str().map_or_else(|| status.to_string(), crate::formats::values::shown_long);
        Err(match status {
            StatusCode::NOT_FOUND => Failed::Missing(words),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Failed::Refused(format!("the schema registry {} refuses us ({words}): correct `username` and `password`", self.url))
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => unreachable(words),
            status if status.is_server_error() => unreachable(words),
            _ => Failed::Refused(format!("the schema registry {} refuses: {words}", self.url)),
        })
    }
}

/// The body, up to a limit.
async fn bounded(mut answer: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| chain(&error))? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
        }
    }
    Ok(body)
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}
