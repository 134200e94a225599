//! The sink.

use std::sync::Arc;

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter},
    operator::OperatorError,
};
use millstream_model::{Batch, ids::CheckpointId};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::{Value, json};
use xxhash_rust::xxh3::xxh3_64;

use super::Settings;
use crate::{
    formats::{
        encode::{written_columns, written_schema},
        ndjson,
    },
    settings::{problem, read},
};

const FIRST_WAIT_MS: i64 = 100;
const WAIT_MS_MAX: i64 = 10_000;
const RETRY_AFTER_MS_MAX: i64 = 60_000;
/// Characters of an answer that an error quotes.
const QUOTED_CHARACTERS_MAX: usize = 300;

/// The sink connector `http`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

impl SinkConnector for Http {
    fn name(&self) -> &'static str {
        "http"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        let settings: Settings = read(request.settings)?;
        let Some(input) = request.input else {
            return Err(vec![problem("", "a sink needs a stream to write")]);
        };
        let mut problems = Vec::new();
        let url = url(&settings.url, &mut problems);
        let headers = headers(&settings, &mut problems);
        let schema = written_schema(&input);
        let lines = ndjson::Writer::new(&schema, settings.nulls).map_err(|message| problems.push(problem("", message)));
        let client = client(&settings, headers).map_err(|message| problems.push(problem("", message)));
        match (url, lines, client) {
            (Some(url), Ok(lines), Ok(client)) if problems.is_empty() => Ok(Arc::new(Target {
                shared: Arc::new(Shared { settings, url, lines, client, schema, id: request.id.to_owned(), clock: request.clock }),
            })),
            _ => Err(problems),
        }
    }
}

fn url(text: &str, problems: &mut Vec<SettingsProblem>) -> Option<Url> {
    match text.parse::<Url>() {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Some(url),
        _ => {
            problems.push(problem("url", format!("`{text}` is no address such as https://example.org/rows")));
            None
        }
    }
}

fn headers(settings: &Settings, problems: &mut Vec<SettingsProblem>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
    for (name, value) in &settings.headers {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(mut value)) => {
                value.set_sensitive(true);
                headers.insert(name, value);
            }
            _ => problems.push(problem(&format!("headers.{name}"), "is no header: a name has no spaces, a value no line ends")),
        }
    }
    headers
}

fn client(settings: &Settings, headers: HeaderMap) -> Result<Client, String> {
    let builder = Client::builder().default_headers(headers).timeout(settings.timeout.0).redirect(Policy::none());
    builder
        .user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(|error| format!("cannot make an HTTP client: {error}"))
}

struct Shared {
    settings: Settings,
    url: Url,
    lines: ndjson::Writer,
    client: Client,
    schema: SchemaRef,
    id: String,
    clock: Arc<dyn Clock>,
}

struct Target {
    shared: Arc<Shared>,
}

#[async_trait]
impl Sink for Target {
    fn accepts_changes(&self) -> bool {
        true
    }

    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        let key = format!("{}/{}/{}", context.job, self.shared.id, context.subtask.0);
        // Those of all writers are of one checkpoint.
        let interval = context.restored.iter().filter_map(|value| value["checkpoint"].as_u64()).max().unwrap_or(0);
        Ok(Box::new(Writer { shared: self.shared.clone(), key, interval, body: Vec::new(), rows: 0, sent: 0 }))
    }
}

struct Writer {
    shared: Arc<Shared>,
    /// The start of all its idempotency keys.
    key: String,
    /// The checkpoint whose barrier came last; 0: none.
    interval: u64,
    body: Vec<u8>,
    rows: usize,
    /// Requests sent since then.
    sent: u64,
}

/// What became of one try.
enum Tried {
    Taken,
    /// Worth another try, after at least so long.
    Failed {
        why: String,
        wait_ms: i64,
    },
    Refused(String),
}

impl Writer {
    /// Sends what is buffered, if anything is.
    async fn send(&mut self) -> Result<(), OperatorError> {
        if self.rows == 0 {
            return Ok(());
        }
        let body = Bytes::from(std::mem::take(&mut self.body));
        let key = format!("{}/{}/{}-{:016x}", self.key, self.interval, self.sent, xxh3_64(&body));
        (self.rows, self.sent) = (0, self.sent + 1);
        let shared = self.shared.clone();
        let (url, tries) = (&shared.url, shared.settings.tries.get());
        let mut wait_ms = FIRST_WAIT_MS;
        for number in 1..=tries {
            match shared.try_once(&body, &key).await {
                Tried::Taken => return Ok(()),
                Tried::Refused(why) => return Err(OperatorError::user(format!("POST to {url} was refused: {why}"))),
                Tried::Failed { why, .. } if number == tries => {
                    return Err(OperatorError::outside(format!("POST to {url} failed {tries} times, last: {why}")));
                }
                Tried::Failed { why, wait_ms: asked_ms } => {
                    tracing::warn!(%url, number, why, "a POST failed and will be repeated");
                    shared.clock.sleep(wait_ms.max(asked_ms)).await;
                    wait_ms = (wait_ms * 2).min(WAIT_MS_MAX);
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    async fn try_once(&self, body: &Bytes, key: &str) -> Tried {
        let request = self.client.post(self.url.clone()).header("Idempotency-Key", key).body(body.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => Tried::Taken,
            Ok(answer) => refusal(answer).await,
            Err(error) => Tried::Failed { why: chain(&error.without_url()), wait_ms: 0 },
        }
    }
}

async fn refusal(answer: Response) -> Tried {
    let status = answer.status();
    let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
    let wait_ms = asked.map_or(0, |seconds| seconds.saturating_mul(1_000).clamp(0, RETRY_AFTER_MS_MAX));
    let text = first_text(answer).await;
    let why = if text.is_empty() { status.to_string() } else { format!("{status}: {text}") };
    let temporary = matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS);
    if temporary || status.is_server_error() { Tried::Failed { why, wait_ms } } else { Tried::Refused(why) }
}

/// The start of an answer; what cannot be read of it does not matter.
async fn first_text(mut answer: Response) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < QUOTED_CHARACTERS_MAX * 4 {
        match answer.chunk().await {
            Ok(Some(chunk)) => bytes.extend_from_slice(&chunk[..chunk.len().min(QUOTED_CHARACTERS_MAX * 4)]),
            _ => break,
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let text: String = text.trim().chars().take(QUOTED_CHARACTERS_MAX).collect();
    text.replace(char::is_control, " ")
}

/// An error with its causes: "error sending request" alone says nothing.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        let shared = self.shared.clone();
        let cannot = |reason: String| OperatorError::user(format!("cannot post rows to {}: {reason}", shared.url));
        let columns = written_columns(&shared.schema, batch).map_err(cannot)?;
        let mut start = 0;
        while start < columns.num_rows() {
            let count = (shared.settings.batch_rows.get() - self.rows).min(columns.num_rows() - start);
            shared.lines.rows(&columns.slice(start, count), &mut self.body).map_err(cannot)?;
            (start, self.rows) = (start + count, self.rows + count);
            if self.rows >= shared.settings.batch_rows.get() || self.body.len() >= shared.settings.batch_bytes.get() {
                self.send().await?;
            }
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), OperatorError> {
        self.send().await
    }

    async fn on_barrier(&mut self, checkpoint: CheckpointId) -> Result<Value, OperatorError> {
        self.send().await?;
        (self.interval, self.sent) = (checkpoint.0, 0);
        Ok(json!({ "checkpoint": checkpoint.0 }))
    }

    async fn finish(mut self: Box<Self>) -> Result<(), OperatorError> {
        self.send().await
    }
}
