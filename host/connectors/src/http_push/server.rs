//! The server: one task that accepts, one per connection; each request is checked, read, decoded and put into the queue.

use std::{convert::Infallible, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Body, Incoming},
    header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use millstream_engine::clock::Clock;
use millstream_model::Batch;
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    decode::Decoder,
    journal::{Entry, Journal},
    queue::{Accepted, Entrance},
};

/// Bad lines that an answer names.
const LINES_NAMED_MAX: usize = 100;

type Answer = Response<Full<Bytes>>;

/// What all requests share.
pub struct Server {
    pub settings: Settings,
    pub decoder: Decoder,
    pub entrance: Entrance,
    /// Where requests are kept until a checkpoint covers them; none: in memory only.
    pub journal: Option<Arc<Journal>>,
    pub clock: Arc<dyn Clock>,
    /// Cancelled when nothing new is to be taken.
    pub closing: CancellationToken,
}

impl Server {
    /// Accepts connections until closing; then each ends after the request that it is at.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        let connections = Arc::new(Semaphore::new(self.settings.max_connections));
        loop {
            let accepted = tokio::select! {
                biased;
                () = self.closing.cancelled() => return,
                accepted = async {
                    let place = connections.clone().acquire_owned().await;
                    (listener.accept().await, place)
                } => accepted,
            };
            if let (Ok((stream, _)), Ok(place)) = accepted {
                let server = self.clone();
                tokio::spawn(async move {
                    server.serve(stream).await;
                    drop(place);
                });
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let server = self.clone();
        let service = service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.settings.timeout.0)
            .max_buf_size(self.settings.max_header_bytes)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        // How a connection ends is the client's business: what was accepted was answered.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.closing.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        match self.accept(request).await {
            Ok(rows) => json_answer(
                if self.journal.is_some() { StatusCode::OK } else { StatusCode::ACCEPTED },
                "application/json",
                &json!({ "accepted": rows }),
            ),
            Err(refusal) => refusal.answer(),
        }
    }

    async fn accept(&self, request: Request<Incoming>) -> Result<usize, Refusal> {
        if request.method() != Method::POST {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only POST is understood"));
        }
        if request.headers().get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not understood: send NDJSON as it is"));
        }
        if self.closing.is_cancelled() {
            return Err(draining());
        }
        let bytes_max = self.settings.max_body_bytes;
        let length = request.body().size_hint().exact().map(|length| usize::try_from(length).unwrap_or(usize::MAX));
        if length.is_some_and(|length| length > bytes_max) {
            return Err(too_large(bytes_max));
        }
        let bytes = u32::try_from(length.unwrap_or(bytes_max)).unwrap_or(u32::MAX);
        let room = self.entrance.reserve(bytes, &*self.clock, self.settings.patience.as_ms()).await.ok_or_else(busy)?;
        let body = self.body(request.into_body()).await?;
        let batches = self.decode(&body)?;
        let rows = batches.iter().map(Batch::num_rows).sum();
        if self.closing.is_cancelled() {
            return Err(draining());
        }
        if rows > 0 {
            self.take(body, batches, room).await?;
        }
        Ok(rows)
    }

    /// Hands rows to the reader, once they are durable if they are to be.
    async fn take(&self, body: Bytes, batches: Vec<Batch>, room: OwnedSemaphorePermit) -> Result<(), Refusal> {
        let no_place = || if self.closing.is_cancelled() { draining() } else { busy() };
        let Some(journal) = &self.journal else {
            let accepted = Accepted { batches, rejected: Vec::new(), room: Some(room), logged: None };
            return if self.entrance.put(accepted) { Ok(()) } else { Err(no_place()) };
        };
        let place = self.entrance.place().ok_or_else(no_place)?;
        if journal.append(Entry { body, batches, room, place }).await {
            return Ok(());
        }
        let detail = "the request could not be stored: send the same again later";
        Err(if self.closing.is_cancelled() { draining() } else { Refusal::new(StatusCode::SERVICE_UNAVAILABLE, detail) })
    }

    async fn body(&self, body: Incoming) -> Result<Bytes, Refusal> {
        let bytes_max = self.settings.max_body_bytes;
        let timeout_ms = self.settings.timeout.as_ms();
        tokio::select! {
            biased;
            collected = Limited::new(body, bytes_max).collect() => match collected {
                Ok(collected) => Ok(collected.to_bytes()),
                Err(error) if error.is::<LengthLimitError>() => Err(too_large(bytes_max)),
                Err(_) => Err(Refusal::new(StatusCode::BAD_REQUEST, "the body did not arrive whole")),
            },
            () = self.clock.sleep(timeout_ms) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to arrive")),
        }
    }

    /// The rows of a body, if all of its lines can be read.
    fn decode(&self, body: &[u8]) -> Result<Vec<Batch>, Refusal> {
        let decoded = self.decoder.decode(body);
        let (batches, bad) = decoded.map_err(|reason| Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, &reason))?;
        if bad.is_empty() {
            return Ok(batches);
        }
        let line = |position: Option<u64>| position.unwrap_or_default() + 1;
        let lines: Vec<Value> =
            bad.iter().take(LINES_NAMED_MAX).map(|bad| json!({ "line": line(bad.position), "reason": bad.reason })).collect();
        let mut refusal = Refusal::new(StatusCode::BAD_REQUEST, &format!("{} lines cannot be read; nothing was accepted", bad.len()));
        refusal.lines = Some(lines);
        Err(refusal)
    }
}

/// Why a request was not taken.
struct Refusal {
    status: StatusCode,
    detail: String,
    lines: Option<Vec<Value>>,
}

impl Refusal {
    fn new(status: StatusCode, detail: &str) -> Self {
        Self { status, detail: detail.to_owned(), lines: None }
    }

    /// The answer, as RFC 9457 wants it.
    fn answer(self) -> Answer {
        let title = self.status.canonical_reason().unwrap_or("Refused");
        let mut problem = json!({ "type": "about:blank", "title": title, "status": self.status.as_u16(), "detail": self.detail });
        if let Some(lines) = self.lines {
            problem["lines"] = lines.into();
        }
        let mut answer = json_answer(self.status, "application/problem+json", &problem);
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                answer.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"))
            }
            StatusCode::METHOD_NOT_ALLOWED => answer.headers_mut().insert(ALLOW, HeaderValue::from_static("POST")),
            _ => None,
        };
        answer
    }
}

fn too_large(bytes_max: usize) -> Refusal {
    Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, &format!("the body is larger than {bytes_max} bytes: send fewer lines at a time"))
}

fn busy() -> Refusal {
    Refusal::new(StatusCode::TOO_MANY_REQUESTS, "the job does not keep up: send the same again later")
}

fn draining() -> Refusal {
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "the job is ending and takes nothing new")
}

fn json_answer(status: StatusCode, content_type: &'static str, body: &Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(format!("{body}\n"))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}
