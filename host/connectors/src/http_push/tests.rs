use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use futures::FutureExt;
use millstream_engine::{
    clock::ManualClock,
    connector::{Read, SplitReader},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;
use crate::testing::{clock, plan_source, schema};

mod durable;

struct Pushed {
    reader: Box<dyn SplitReader>,
    address: SocketAddr,
    clock: Arc<ManualClock>,
}

impl Pushed {
    async fn new(mut settings: Value) -> Self {
        settings["listen"] = json!("127.0.0.1:0");
        let (connector, clock) = (HttpPush::default(), clock());
        let declared = Some(schema(&[("n", "Int64"), ("s", "Utf8?")]));
        let source = plan_source(&connector, &settings, Path::new("."), declared, clock.clone()).expect("the settings are right");
        let split = source.splits(1).await.expect("splits").remove(0);
        let reader = source.open(&split, None).await.expect("listens");
        Self { reader, address: connector.address().expect("it listens"), clock }
    }

    /// Sends bytes and returns status and body of the answer.
    async fn send(&self, request: &[u8]) -> (u16, String) {
        answer(self.connect(request).await).await
    }

    async fn connect(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.expect("connects");
        stream.write_all(request).await.expect("sends");
        stream
    }

    async fn post(&self, body: &str) -> (u16, String) {
        self.send(&post(body)).await
    }

    /// The values of `n` that are there, and the position of the first.
    async fn rows(&mut self) -> (Vec<i64>, u64) {
        let Read::Rows { batch, rejected } = self.reader.read(100).await.expect("reads") else { unreachable!("rows") };
        assert_eq!(rejected, []);
        (numbers(&batch), batch.origin().expect("known").positions.of(0))
    }
}

fn numbers(batch: &millstream_model::Batch) -> Vec<i64> {
    arrow_array::cast::AsArray::as_primitive::<arrow_array::types::Int64Type>(batch.column(0)).values().to_vec()
}

fn post(body: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

async fn answer(mut stream: TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    // The server may close while bytes that it refused are on their way.
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), body.to_owned())
}

#[tokio::test]
async fn rows_are_there_once_they_are_accepted() {
    let mut pushed = Pushed::new(json!({})).await;
    assert_eq!(pushed.post("{\"n\":1}\n\n{\"n\":2,\"s\":\"x\"}").await, (202, "{\"accepted\":2}\n".into()));
    assert_eq!(pushed.post("").await, (202, "{\"accepted\":0}\n".into()));
    assert_eq!(pushed.post("{\"n\":3}\n").await.0, 202);
    assert_eq!(pushed.rows().await, (vec![1, 2], 0));
    assert_eq!(pushed.rows().await, (vec![3], 2));
    assert!(pushed.reader.read(100).now_or_never().is_none());
    assert_eq!(pushed.reader.position(), json!({ "row": 3 }));
}

#[tokio::test]
async fn a_body_with_a_bad_line_is_refused_whole_and_the_line_is_named() {
    let mut pushed = Pushed::new(json!({ "max-record-bytes": 100 })).await;
    let long = "x".repeat(200);
    let (status, body) = pushed.post(&format!("{{\"n\":1}}\nbad\n{{\"n\":2}}\n{{\"s\":\"{long}\"}}\n{{}}")).await;
    let problem: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((status, &problem["detail"]), (400, &json!("3 lines cannot be read; nothing was accepted")));
    let lines: Vec<(u64, &str)> = problem["lines"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|line| (line["line"].as_u64().expect("a number"), line["reason"].as_str().expect("a text")))
        .collect();
    let expected = [
        (2, "invalid JSON: expected an object at byte 0 of the record"),
        (4, "the record is longer than max-record-bytes (100)"),
        (5, "column n is missing and was declared without `?`"),
    ];
    assert_eq!(lines, expected);
    assert!(pushed.reader.read(100).now_or_never().is_none());
}

#[tokio::test]
async fn a_full_queue_sends_requests_away_until_there_is_room() {
    let mut pushed = Pushed::new(json!({ "queue-bytes": 20, "max-body-bytes": 20, "patience": "2s" })).await;
    assert_eq!(pushed.post("{\"n\":1} ").await.0, 202);
    assert_eq!(pushed.post("{\"n\":2}  ").await.0, 202);
    let (clock, waiting) = (pushed.clock.clone(), pushed.connect(&post("{\"n\":3}")).await);
    let refused = {
        let mut answer = Box::pin(answer(waiting));
        // The clock stands until the request waits for it, so it may be moved more than once.
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => break answer,
                () = tokio::task::yield_now() => clock.advance(Duration::from_millis(10)),
            }
        }
    };
    assert_eq!(refused.0, 429);
    assert_eq!(pushed.rows().await.0, [1]);
    assert_eq!(pushed.post("{\"n\":3}").await.0, 202, "a read request gives its room back");
    assert_eq!((pushed.rows().await.0, pushed.rows().await.0), (vec![2], vec![3]));
}

#[tokio::test]
async fn a_reader_that_stops_returns_what_was_accepted_and_nothing_more_is() {
    let mut pushed = Pushed::new(json!({})).await;
    assert_eq!(pushed.post("{\"n\":1}\n{\"n\":2}").await.0, 202);
    assert_eq!(pushed.post("{\"n\":3}").await.0, 202);
    let rest: Vec<i64> = pushed.reader.stop().iter().flat_map(numbers).collect();
    assert_eq!(rest, [1, 2, 3]);
    // The connection may be refused or reset, or get an answer; it may not be accepted.
    if let Ok(mut stream) = TcpStream::connect(pushed.address).await {
        let _ = stream.write_all(&post("{\"n\":4}")).await;
        let (status, _) = answer(stream).await;
        assert!(matches!(status, 0 | 503), "{status}");
    }
}

#[tokio::test]
async fn hostile_requests_are_refused() {
    let pushed = Pushed::new(json!({ "max-body-bytes": 1_000, "max-header-bytes": 8_192 })).await;
    let header = "x".repeat(20_000);
    let requests = [
        (405, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".to_owned()),
        (413, "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 1001\r\n\r\n".to_owned()),
        (
            413,
            format!(
                "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n0\r\n\r\n",
                "x".repeat(1_001)
            ),
        ),
        (415, "POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n".to_owned()),
        (431, format!("POST / HTTP/1.1\r\nHost: test\r\nX: {header}\r\n\r\n")),
        (400, "nonsense\r\n\r\n".to_owned()),
    ];
    for (expected, request) in requests {
        assert_eq!(pushed.send(request.as_bytes()).await.0, expected, "{}", request.chars().take(60).collect::<String>());
    }
    assert_eq!(pushed.post("{\"n\":1}").await.0, 202, "the server goes on");
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let pushed = Pushed::new(json!({ "timeout": "5s" })).await;
    let stream = pushed.connect(b"POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 7\r\n\r\n{\"n\"").await;
    let mut answer = Box::pin(answer(stream));
    let status = loop {
        tokio::select! {
            biased;
            answer = &mut answer => break answer.0,
            () = tokio::task::yield_now() => pushed.clock.advance(Duration::from_millis(10)),
        }
    };
    assert_eq!(status, 408);
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let settings = json!({ "max-body-bytes": 100, "queue-bytes": 10, "max-header-bytes": 1 });
    let problems = plan_source(&HttpPush::default(), &settings, Path::new("."), None, clock()).err().expect("refused");
    assert_eq!(problems.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), ["max-body-bytes", "max-header-bytes", ""]);
    let problems =
        plan_source(&HttpPush::default(), &json!({ "listen": "everywhere" }), Path::new("."), None, clock()).err().expect("refused");
    assert_eq!(problems[0].path, "listen");
}
