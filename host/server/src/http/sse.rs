//! Streams of events (server-sent events, WHATWG HTML §9.2): what happens, log lines, rows. A stream ends when its token does: it is looked at again every
//! second. Who reads slowly is not waited for by the job, only by this stream.

use std::{convert::Infallible, future::Future, time::Duration};

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use futures::stream;
use serde::Serialize;
use tokio::sync::mpsc;

use super::{call::Call, dispatch, problem::Refusal};

/// How often it is looked at whether the token still holds.
const LOOK: Duration = Duration::from_secs(1);
/// After so many looks without an event a comment is sent, so that proxies keep the connection.
const LOOKS_OF_SILENCE: u32 = 10;
/// Events that wait to be sent.
const WAITING: usize = 16;

/// Events, as text.
#[derive(Default)]
pub struct Events(String);

impl Events {
    /// Adds one.
    pub fn push(&mut self, id: Option<u64>, name: &str, data: &impl Serialize) {
        if let Some(id) = id {
            self.0 += &format!("id: {id}\n");
        }
        // JSON has no line breaks of its own.
        let data = serde_json::to_string(data).expect("events have string keys only");
        self.0 += &format!("event: {name}\ndata: {data}\n\n");
    }
}

/// Where events come from.
pub trait Source: Send + 'static {
    /// The next ones; none: there will be no more. Cancel-safe.
    fn next(&mut self) -> impl Future<Output = Option<Events>> + Send;
}

/// Longest time for which somebody may say that they listen, in seconds.
const SECONDS_MAX: u64 = 3_600;

/// After how long a stream ends by itself; none: it does not.
///
/// # Errors
/// It is too long, or no time at all.
pub fn end(seconds: Option<u64>) -> Result<Option<Duration>, Refusal> {
    match seconds {
        Some(seconds) if !(1..=SECONDS_MAX).contains(&seconds) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, format!("`seconds` must be 1 to {SECONDS_MAX}")))
        }
        seconds => Ok(seconds.map(Duration::from_secs)),
    }
}

/// Sends the events of a source to who asks, until `end` if there is one.
///
/// # Errors
/// The tenant listens to too many streams.
pub fn body(call: &Call, mut source: impl Source, end: Option<Duration>) -> Result<Body, Refusal> {
    let permit = call.service.tenants.admit_stream(call.tenant())?;
    let (to, events) = mpsc::channel::<Bytes>(WAITING);
    let (service, headers) = (call.service.clone(), call.headers.clone());
    tokio::spawn(async move {
        let _permit = permit;
        let mut silence = 0;
        let mut look_ms = service.clock.monotonic_ms();
        let end_ms = end.map_or(i64::MAX, |end| look_ms.saturating_add(i64::try_from(end.as_millis()).unwrap_or(i64::MAX)));
        while look_ms < end_ms {
            look_ms = look_ms.saturating_add(i64::try_from(LOOK.as_millis()).unwrap_or(i64::MAX)).min(end_ms);
            let sleeping = service.clock.sleep_until_monotonic(look_ms);
            tokio::pin!(sleeping);
            let is_heard = loop {
                tokio::select! {
                    () = to.closed() => return,
                    () = &mut sleeping => break true,
                    events = source.next() => match events {
                        Some(events) => {
                            silence = 0;
                            if to.send(Bytes::from(events.0)).await.is_err() {
                                return;
                            }
                            // A source that never pauses must not keep a revoked token going.
                            if service.clock.monotonic_ms() >= look_ms {
                                break true;
                            }
                        }
                        None => break false,
                    },
                }
            };
            if !is_heard {
                return;
            }
            if let Err(refusal) = dispatch::holder(&service, &headers).await {
                goodbye(&to, &refusal).await;
                return;
            }
            silence += 1;
            if silence >= LOOKS_OF_SILENCE {
                silence = 0;
                if to.send(Bytes::from_static(b": still here\n\n")).await.is_err() {
                    return;
                }
            }
            look_ms = look_ms.max(service.clock.monotonic_ms());
        }
    });
    Ok(Body::from_stream(stream::unfold(events, async |mut events| Some((Ok::<_, Infallible>(events.recv().await?), events)))))
}

async fn goodbye(to: &mpsc::Sender<Bytes>, refusal: &Refusal) {
    let mut events = Events::default();
    events.push(None, "end", &serde_json::json!({ "reason": refusal.message() }));
    // Who has left needs no goodbye.
    drop(to.send(Bytes::from(events.0)).await);
}
