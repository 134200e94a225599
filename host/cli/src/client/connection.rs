//! One service, asked over HTTP. A problem document becomes a failure like any other: what is wrong, why, and how to put it right.

use std::fs;

use millstream_server::api::{Page, ProblemDocument};
use reqwest::{Method, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{Service, contexts::Contexts};
use crate::report::{Exit, Failure};

/// Longest answer that is taken whole, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// One service.
pub struct Connection {
    runtime: tokio::runtime::Runtime,
    client: reqwest::Client,
    url: String,
    token: String,
}

/// What is sent.
pub enum Body<'a> {
    /// Nothing.
    Nothing,
    /// JSON.
    Json(&'a Value),
    /// Bytes of this type.
    Bytes(&'static str, Vec<u8>),
}

impl Connection {
    /// The service that is meant: the one that is said, else that of the context.
    pub fn open(service: &Service) -> Result<Self, Failure> {
        let contexts = Contexts::read()?;
        let context = if service.url.is_some() { None } else { contexts.chosen(service.context.as_deref())?.cloned() };
        let url = service.url.clone().or_else(|| context.as_ref().map(|context| context.url.clone()));
        let url = url.ok_or_else(|| {
            Failure::new(Exit::Invalid, "which service is meant is not said")
                .fix("log in once: millstream login URL --token TOKEN; or say --url and --token")
        })?;
        // Without a token the service says that it wants one.
        let token = service.token.clone().or_else(|| context.as_ref().map(|context| context.token.clone())).unwrap_or_default();
        let ca = service.ca.clone().or_else(|| context.and_then(|context| context.ca));
        let mut builder = reqwest::Client::builder();
        if let Some(file) = ca {
            let unusable = |error: &(dyn std::error::Error + 'static)| {
                Failure::new(Exit::Invalid, format!("`{}` is no certificate", file.display())).because(error)
            };
            let pem = fs::read(&file).map_err(|error| unusable(&error))?;
            builder = builder.add_root_certificate(reqwest::Certificate::from_pem(&pem).map_err(|error| unusable(&error))?);
        }
        let client = builder.build().map_err(|error| Failure::new(Exit::Failed, "the client cannot be made").because(&error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| Failure::new(Exit::Failed, "this process cannot start its tasks").because(&error))?;
        Ok(Self { runtime, client, url: url.trim_end_matches('/').to_owned(), token })
    }

    /// Reads something.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        self.ask(Method::GET, path, Body::Nothing)
    }

    /// Sends JSON.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, Failure> {
        let body = serde_json::to_value(body).expect("requests have string keys only");
        self.ask(Method::POST, path, Body::Json(&body))
    }

    /// Asks; the answer may be empty.
    pub fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Body<'_>) -> Result<T, Failure> {
        let text = self.runtime.block_on(self.whole(method, path, body))?;
        let text = if text.is_empty() { "null" } else { &text };
        serde_json::from_str(text)
            .map_err(|error| Failure::new(Exit::Failed, format!("{} answered something else than is expected", self.url)).because(&error))
    }

    /// All pages of a list.
    pub fn all<T: DeserializeOwned>(&self, path: &str) -> Result<Vec<T>, Failure> {
        let (mut items, mut cursor) = (Vec::new(), None::<String>);
        loop {
            // No cursor: the first page.
            let behind = cursor.map(|cursor| format!("&cursor={}", escaped(&cursor))).unwrap_or_default();
            let page: Page<T> = self.get(&format!("{path}?limit=1000{behind}"))?;
            items.extend(page.items);
            cursor = page.next;
            if cursor.is_none() {
                return Ok(items);
            }
        }
    }

    /// Hears events until there are no more, or `visit` has heard enough: the name of each and its data.
    pub fn follow(&self, path: &str, mut visit: impl FnMut(&str, Value) -> bool) -> Result<(), Failure> {
        self.runtime.block_on(async {
            let mut response = self.send(Method::GET, path, Body::Nothing).await?;
            let mut waiting = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
                waiting.extend_from_slice(&chunk);
                while let Some(end) = waiting.windows(2).position(|pair| pair == b"\n\n") {
                    let event: Vec<u8> = waiting.drain(..end + 2).collect();
                    if let Some((name, data)) = parse(&String::from_utf8_lossy(&event))
                        && !visit(&name, data)
                    {
                        return Ok(());
                    }
                }
            }
            Ok(())
        })
    }

    async fn whole(&self, method: Method, path: &str, body: Body<'_>) -> Result<String, Failure> {
        let mut response = self.send(method, path, body).await?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > ANSWER_BYTES_MAX {
                return Err(Failure::new(Exit::Failed, format!("the answer of {} is too long", self.url)));
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    async fn send(&self, method: Method, path: &str, body: Body<'_>) -> Result<reqwest::Response, Failure> {
        let mut request = self.client.request(method, format!("{}{path}", self.url)).bearer_auth(&self.token);
        request = match body {
            Body::Nothing => request,
            Body::Json(value) => request.header("content-type", "application/json").body(value.to_string()),
            Body::Bytes(content_type, bytes) => request.header("content-type", content_type).body(bytes),
        };
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        // A body that cannot be read is none: the status is told all the same.
        let text = response.text().await.unwrap_or_default();
        Err(refused(status, &text))
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        Failure::new(Exit::Failed, format!("{} does not answer", self.url))
            .because(error)
            .fix("is it the right service, and does it run? `millstream context list`")
    }
}

/// What the service said no to.
fn refused(status: StatusCode, text: &str) -> Failure {
    let exit = match status {
        StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::UNPROCESSABLE_ENTITY | StatusCode::PAYLOAD_TOO_LARGE => Exit::Invalid,
        _ => Exit::Failed,
    };
    match serde_json::from_str::<ProblemDocument>(text) {
        Ok(document) if !document.problems.is_empty() => Failure::of(exit, document.problems),
        Ok(document) => Failure::new(exit, document.detail),
        Err(_) => Failure::new(exit, format!("the service answered {status}")),
    }
}

/// `event: name` and `data: …` of one event; none: a comment.
fn parse(event: &str) -> Option<(String, Value)> {
    let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let data = serde_json::from_str(field("data")?).ok()?;
    Some((field("event").unwrap_or("message").to_owned(), data))
}

/// A part of a path or query, with everything escaped that means something there.
pub fn escaped(part: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    part.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn events_are_read_and_comments_are_not() {
        assert_eq!(parse("id: 3\nevent: line\ndata: {\"a\":1}\n\n"), Some(("line".into(), json!({ "a": 1 }))));
        assert_eq!(parse(": still here\n\n"), None);
    }

    #[test]
    fn what_means_something_in_a_path_is_escaped() {
        assert_eq!(escaped("a/b?c=d&é"), "a%2Fb%3Fc%3Dd%26%C3%A9");
    }

    #[test]
    fn a_problem_document_becomes_a_failure_with_its_fix() {
        let text = r#"{"type":"/problems/not-found","title":"Not Found","status":404,"detail":"x","problems":[{"message":"x","fix":"y"}]}"#;
        let failure = refused(StatusCode::NOT_FOUND, text);
        assert_eq!((failure.exit, failure.told.problems[0].fix.as_deref()), (Exit::Invalid, Some("y")));
    }
}
