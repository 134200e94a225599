use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    time::Duration,
};

use arrow_array::Int64Array;
use millstream_engine::{
    clock::{Clock, ManualClock},
    connector::{ConnectorRequest, SettingsProblem, Sink, SinkConnector, SinkContext},
};
use millstream_model::{
    Batch, StreamType,
    ids::{CheckpointId, JobId, SubtaskIndex},
};
use serde_json::{Value, json};

use super::*;
use crate::testing::{clock, schema, writer};

/// What the server was sent.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    headers: Vec<String>,
    body: String,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|header| header.strip_prefix(&format!("{name}: ")))
    }
}

/// A server that gives these answers, one per request (an empty one: it hangs up), and hands over what it was sent.
fn server(answers: Vec<&'static str>) -> (SocketAddr, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("it has one");
    let (sender, receiver) = mpsc::sync_channel(100);
    std::thread::spawn(move || {
        for answer in answers {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut lines = BufReader::new(stream.try_clone().expect("a handle"));
            let mut headers = Vec::new();
            loop {
                let mut line = String::new();
                lines.read_line(&mut line).expect("text");
                if line.trim_end().is_empty() {
                    break;
                }
                headers.push(line.trim_end().to_owned());
            }
            let mut request = Request { headers, body: String::new() };
            let length = request.header("content-length").expect("known").parse().expect("a number");
            let mut body = vec![0; length];
            lines.read_exact(&mut body).expect("a body");
            request.body = String::from_utf8(body).expect("text");
            sender.send(request).expect("the test waits");
            let head = answer.split_once('|').unwrap_or((answer, ""));
            if !answer.is_empty() {
                let length = head.1.len();
                write!(stream, "HTTP/1.1 {}\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{}", head.0, head.1).expect("answers");
            }
        }
    });
    (address, receiver)
}

fn plan(settings: &Value, clock: Arc<dyn Clock>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
    let input = Some(StreamType { schema: schema(&[("n", "Int64")]), event_times: false, changes: false });
    Http.plan(ConnectorRequest {
        id: "out",
        settings,
        base_directory: ".".into(),
        declared_schema: None,
        input,
        clock,
        state_directory: None,
    })
}

fn rows(numbers: std::ops::Range<i64>) -> Batch {
    let count = numbers.clone().count();
    Batch::try_new(schema(&[("n", "Int64")]), vec![Arc::new(Int64Array::from_iter_values(numbers))], count).expect("a column fits")
}

/// Runs a future whose waits are for this clock.
async fn moving<T>(clock: &ManualClock, future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    loop {
        tokio::select! {
            biased;
            result = &mut future => return result,
            () = tokio::task::yield_now() => clock.advance(Duration::from_millis(10)),
        }
    }
}

#[tokio::test]
async fn rows_are_posted_in_batches() {
    let (address, requests) = server(vec!["200 OK", "204 No Content", "201 Created"]);
    let settings = json!({ "url": format!("http://{address}/rows"), "batch-rows": 2, "headers": { "Authorization": "Bearer x" } });
    let sink = plan(&settings, clock()).expect("the settings are right");
    let mut writer = writer(&*sink, 3).await.expect("opens");
    writer.write(&rows(0..1)).await.expect("buffers");
    writer.write(&rows(1..4)).await.expect("posts");
    writer.flush().await.expect("has nothing to post");
    writer.write(&rows(4..5)).await.expect("buffers");
    writer.finish().await.expect("posts");
    let requests: Vec<Request> = requests.iter().collect();
    assert_eq!(
        requests.iter().map(|request| &*request.body).collect::<Vec<_>>(),
        ["{\"n\":0}\n{\"n\":1}\n", "{\"n\":2}\n{\"n\":3}\n", "{\"n\":4}\n"]
    );
    assert_eq!(requests[0].headers[0], "POST /rows HTTP/1.1");
    assert_eq!(requests[0].header("authorization"), Some("Bearer x"));
    assert_eq!(requests[0].header("content-type"), Some("application/x-ndjson"));
    assert!(requests[2].header("idempotency-key").is_some_and(|key| key.starts_with("test/out/3/0/2-")), "{:?}", requests[2]);
}

/// A receiver can drop what it has taken already, as long as the batches are cut as they were.
#[tokio::test]
async fn a_barrier_posts_everything_and_a_run_that_goes_on_from_it_repeats_the_keys() {
    let (address, requests) = server(vec!["200 OK"; 4]);
    let sink = plan(&json!({ "url": format!("http://{address}/") }), clock()).expect("the settings are right");
    let mut first = writer(&*sink, 0).await.expect("opens");
    first.write(&rows(0..1)).await.expect("buffers");
    let remembered = first.on_barrier(CheckpointId(7)).await.expect("posts");
    assert_eq!(requests.recv().expect("posted before the barrier passes").body, "{\"n\":0}\n");
    first.write(&rows(1..2)).await.expect("buffers");
    first.flush().await.expect("posts");
    let context = SinkContext {
        job: JobId::from("test"),
        subtask: SubtaskIndex(0),
        parallelism: 1,
        is_durable: true,
        restored: [remembered].into(),
        transaction: None,
    };
    let mut second = sink.writer(context).await.expect("opens");
    for number in [1, 2] {
        second.write(&rows(number..number + 1)).await.expect("buffers");
        second.flush().await.expect("posts");
    }
    drop((first, second));
    let keys: Vec<String> = requests.iter().map(|request| request.header("idempotency-key").expect("there is one").to_owned()).collect();
    assert!(keys[0].starts_with("test/out/0/7/0-"), "{keys:?}");
    assert_eq!(keys[0], keys[1], "the repetition");
    assert_ne!(keys[1], keys[2]);
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_with_the_same_key() {
    let (address, requests) = server(vec!["503 Service Unavailable", "429 Too Many Requests\r\nRetry-After: 30", "", "200 OK"]);
    let clock = clock();
    let sink = plan(&json!({ "url": format!("http://{address}/") }), clock.clone()).expect("the settings are right");
    let started_ms = clock.now_ms();
    let mut writer = writer(&*sink, 0).await.expect("opens");
    writer.write(&rows(0..1)).await.expect("buffers");
    moving(&clock, writer.finish()).await.expect("posts at last");
    let requests: Vec<Request> = requests.iter().collect();
    assert_eq!(requests.len(), 4);
    assert!(requests.iter().all(|request| *request == requests[0]), "repetitions are the same");
    assert!(clock.now_ms() - started_ms >= 100 + 30_000 + 400, "it waited as long as it was asked to");
}

#[tokio::test]
async fn an_answer_that_will_not_change_ends_the_job() {
    let (address, _requests) = server(vec!["400 Bad Request|no such column: n\n"]);
    let sink = plan(&json!({ "url": format!("http://{address}/") }), clock()).expect("the settings are right");
    let mut writer = writer(&*sink, 0).await.expect("opens");
    writer.write(&rows(0..1)).await.expect("buffers");
    let error = writer.flush().await.expect_err("refused");
    assert_eq!(error.to_string(), format!("POST to http://{address}/ was refused: 400 Bad Request: no such column: n"));
}

#[tokio::test]
async fn a_target_that_is_not_there_is_named_after_the_last_try() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port that is free again");
    let clock = clock();
    let sink = plan(&json!({ "url": format!("http://{address}/"), "tries": 3 }), clock.clone()).expect("the settings are right");
    let mut writer = writer(&*sink, 0).await.expect("opens");
    writer.write(&rows(0..1)).await.expect("buffers");
    let error = moving(&clock, writer.flush()).await.expect_err("nobody is there").to_string();
    assert!(error.starts_with(&format!("POST to http://{address}/ failed 3 times, last: ")) && error.contains("refused"), "{error}");
}

#[test]
fn mistakes_in_the_settings_are_named() {
    let settings = json!({ "url": "ftp://x", "headers": { "a b": "c" } });
    let problems = plan(&settings, clock()).err().expect("refused");
    assert_eq!(problems.iter().map(|problem| &*problem.path).collect::<Vec<_>>(), ["url", "headers.a b"]);
    assert!(plan(&json!({ "url": "https://example.org" }), clock()).is_ok(), "there is TLS");
}
