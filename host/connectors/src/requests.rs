//! Requests that components send over HTTP, where their job grants it: one request, sent once. How many at once, for how long and how often is decided by
//! the engine (`millstream_engine::requests`).
//!
//! The flow: [`check`] makes a request of what a component says, or refuses it → it is sent, by a client that keeps connections, knows no proxy and no cookies
//! → up to [`REDIRECTS_MAX`] redirects are followed, each checked as the first address was → the answer is read up to what it may have.
//!
//! Where a connection may go is decided by the gate of the process (`millstream_egress::gate`), which sees every address that is really connected to,
//! whatever a name resolved to before; what is refused there is told from what is merely not there.

mod check;

use std::{io, net::SocketAddr, sync::OnceLock};

use async_trait::async_trait;
use millstream_egress::{gate, host::Host};
use millstream_engine::requests::{Client, Failed, Room};
use millstream_wasm::http::{Request, Response};
use reqwest::{
    Url,
    header::{HeaderMap, HeaderName},
    redirect,
};

/// Redirects of one request.
const REDIRECTS_MAX: usize = 5;

/// Sends requests. The client is made when the first one is sent.
#[derive(Default)]
pub struct Web {
    client: OnceLock<Result<reqwest::Client, String>>,
}

/// A redirect led to where nothing is sent; one clause.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct NotFollowed(String);

impl Web {
    fn client(&self) -> Result<&reqwest::Client, Failed> {
        let made = self.client.get_or_init(|| {
            let builder = reqwest::Client::builder().redirect(redirect::Policy::custom(follow));
            // A proxy would connect wherever it is asked to, and an address in `Referer` may hold what is not for others.
            let builder = builder.no_proxy().referer(false).user_agent(concat!("millstream/", env!("CARGO_PKG_VERSION")));
            builder.build().map_err(|error| format!("cannot make an HTTP client: {}", chain(&error)))
        });
        made.as_ref().map_err(|reason| Failed::Refused(reason.clone()))
    }
}

fn follow(attempt: redirect::Attempt<'_>) -> redirect::Action {
    let leaves_tls = attempt.previous().last().is_some_and(|from| from.scheme() == "https") && attempt.url().scheme() != "https";
    if attempt.previous().len() > REDIRECTS_MAX {
        return attempt.error(NotFollowed(format!("more than {REDIRECTS_MAX} redirects")));
    }
    if leaves_tls {
        return attempt.error(NotFollowed("a redirect leads from https to http".into()));
    }
    match may_connect(attempt.url()) {
        Ok(()) => attempt.follow(),
        Err(reason) => attempt.error(NotFollowed(format!("a redirect leads to where nothing is sent: {reason}"))),
    }
}

/// Whether requests are sent to such an address at all. That of a name is known when it is connected to, and is decided there.
fn may_connect(url: &Url) -> Result<(), String> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{}` is neither http nor https", url.scheme()));
    }
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err("there is no host in it".into()) };
    match Host::parse(host) {
        None => Err(format!("`{host}` is no host")),
        Some(Host::Name(_)) => Ok(()),
        Some(Host::Address(address)) => gate::check(SocketAddr::new(address, port)).map_err(|denied| denied.to_string()),
    }
}

#[async_trait]
impl Client for Web {
    async fn send(&self, request: &Request, room: Room<'_>) -> Result<Response, Failed> {
        let checked = check::request(request).map_err(Failed::Refused)?;
        let host = checked.url.host_str().unwrap_or_default().to_owned();
        let sent = self.client()?.request(checked.method, checked.url).headers(checked.headers).body(request.body.clone()).send();
        let response = sent.await.map_err(|error| failed(error, &host))?;
        read(response, room, &host).await
    }
}

/// The answer, whole.
async fn read(mut response: reqwest::Response, room: Room<'_>, host: &str) -> Result<Response, Failed> {
    let status = response.status().as_u16();
    let headers = headers(response.headers());
    let mut left = room.bytes_max;
    let mut take = |bytes: usize| {
        let bytes = bytes as u64;
        left = left.checked_sub(bytes).ok_or(Failed::TooLarge)?;
        if room.together.take(bytes) { Ok(()) } else { Err(Failed::UsedUp) }
    };
    take(headers.iter().map(|(name, value)| name.len() + value.len()).sum())?;
    let said = response.content_length().unwrap_or(0);
    if said > room.bytes_max {
        return Err(Failed::TooLarge);
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| failed(error, host))? {
        take(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    Ok(Response { status, headers, body })
}

fn headers(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&HeaderName, &reqwest::header::HeaderValue)| {
        (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    headers.iter().map(text).collect()
}

/// What an error of the client means.
fn failed(error: reqwest::Error, host: &str) -> Failed {
    // The address is the component's own, and may hold what a log should not.
    let error = error.without_url();
    if let Some(NotFollowed(reason)) = cause::<NotFollowed>(&error) {
        return Failed::Refused(reason.clone());
    }
    if cause::<io::Error>(&error).is_some_and(|error| error.kind() == io::ErrorKind::PermissionDenied) {
        return Failed::Refused(format!("`{host}` is at an address that whoever runs the service does not allow (--egress-allow)"));
    }
    let text = chain(&error);
    if error.is_builder() || error.is_redirect() {
        Failed::Refused(text)
    } else if error.is_connect() {
        Failed::Unconnected(text)
    } else {
        Failed::Broken(text)
    }
}

/// The first cause of this type.
fn cause<'e, T: std::error::Error + 'static>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e T> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// An error with its causes, in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests;
