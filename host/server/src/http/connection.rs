//! Connections: how many, how long they may take, how large their headers may be. HTTP itself is hyper's.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use hyper::{StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::timeout,
};
use tower_service::Service as _;

use super::{problem::Refusal, tls::Certificates};

/// Connections at once.
const CONNECTIONS_MAX: usize = 4_096;
/// How long the head of a request may take, and a connection be silent between two.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of a request.
const HEADERS_MAX: usize = 100;
/// Heads up to so many times the limits are read, so that they are answered with a document; what is larger still is answered by hyper, without one.
const READ_FACTOR: usize = 2;
/// How long answers may take once the service ends.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// The wait after the system refused a connection (too many files).
const AGAIN: Duration = Duration::from_millis(50);

/// Serves until `closing` says so, and then lets answers come to their end.
pub async fn serve(listener: TcpListener, certificates: Option<Arc<Certificates>>, router: Router, mut closing: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closed(&mut closing) => break,
            Some(_) = connections.join_next() => continue,
            accepted = next(&listener, &free) => accepted,
        };
        match accepted {
            Ok((stream, _, permit)) => {
                let (certificates, router, closing) = (certificates.clone(), router.clone(), closing.clone());
                connections.spawn(async move {
                    let _permit = permit;
                    connection(stream, certificates, router, closing).await;
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                drop(timeout(AGAIN, std::future::pending::<()>()).await);
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    drop(timeout(LAST_ANSWERS_MAX, all).await);
}

/// Returns when the service ends.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // Whoever could say so being gone is the same.
    drop(closing.wait_for(|closing| *closing).await);
}

async fn next(listener: &TcpListener, free: &Arc<Semaphore>) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let permit = free.clone().acquire_owned().await.expect("nobody closes it");
    let (stream, from) = listener.accept().await?;
    Ok((stream, from, permit))
}

async fn connection(stream: TcpStream, certificates: Option<Arc<Certificates>>, router: Router, closing: watch::Receiver<bool>) {
    // Answers are small, and who asks waits for them.
    drop(stream.set_nodelay(true));
    match certificates {
        None => exchange(stream, router, closing).await,
        Some(certificates) => match timeout(HANDSHAKE_MAX, certificates.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => exchange(stream, router, closing).await,
            Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
            Err(_) => tracing::debug!("a handshake took too long"),
        },
    }
}

async fn exchange(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, mut closing: watch::Receiver<bool>) {
    let answer = service_fn(move |request: hyper::Request<Incoming>| {
        // A router is always ready.
        let mut router = router.clone();
        async move {
            match head_too_large(&request) {
                Some(refusal) => Ok(refusal.into_response()),
                None => router.call(request.map(Body::new)).await,
            }
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT_MAX)
        .max_buf_size(READ_FACTOR * HEAD_BYTES_MAX)
        .max_headers(READ_FACTOR * HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = closed(&mut closing) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke off");
    }
}

/// What is too large about the head of a request; none: nothing.
fn head_too_large<T>(request: &hyper::Request<T>) -> Option<Refusal> {
    let headers = request.headers();
    // Each with `: ` and the end of its line.
    let of_headers: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let length = request.uri().to_string().len() + of_headers;
    let message = if length > HEAD_BYTES_MAX {
        format!("the path and the headers are longer than {}", crate::text::size(HEAD_BYTES_MAX as u64))
    } else if headers.len() > HEADERS_MAX {
        format!("there are {} headers, and at most {HEADERS_MAX} are read", headers.len())
    } else {
        return None;
    };
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    Some(Refusal::new(status, message).fix("send fewer or shorter headers; what is long belongs into the body"))
}
