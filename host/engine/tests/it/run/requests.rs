//! Components that send requests over HTTP, with a network that is a function.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use arrow_array::cast::AsArray;
use async_trait::async_trait;
use millstream_engine::{
    graph::{Exchange, JobPlan},
    operator::OutputPort,
    operators::component::{AsSaid, ComponentOperatorPlan, ComponentRequest, PlanError},
    rejected::RejectedPolicy,
    requests::{Client, Failed, Grant, Room},
    run::{RunSettings, start},
    spec::HttpSettings,
    testing::{CollectSink, JobBuilder, MemorySource, edge, unkeyed},
};
use millstream_model::{Batch, StreamType};
use millstream_wasm::{
    Limits, Runtime, RuntimeSettings,
    http::{Request, Response},
};
use serde_json::{Value, json};

use super::{event_time, failed, guests, keyed_rows, run_to_end};

/// Answers with the path; later requests first.
#[derive(Default)]
struct Network {
    asked: AtomicUsize,
    /// Wall-clock time that an answer takes.
    takes: Duration,
}

#[async_trait]
impl Client for Network {
    #[expect(clippy::disallowed_methods, reason = "the guest's own limit is one of the machine's clock")]
    async fn send(&self, request: &Request, room: Room<'_>) -> Result<Response, Failed> {
        let began = Instant::now();
        let turns = 8 - self.asked.fetch_add(1, Ordering::Relaxed) % 8;
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        while began.elapsed() < self.takes {
            tokio::task::yield_now().await;
        }
        let path = request.url.trim_start_matches("http://names/");
        if !room.together.take(path.len() as u64) {
            return Err(Failed::UsedUp);
        }
        let header = request.headers.first().map(|(_, number)| number.as_str());
        let body = if header.is_none_or(|number| number == path) { path.into() } else { "another number's".into() };
        Ok(Response { status: 200, headers: Vec::new(), body })
    }
}

/// What a guest runs with.
struct Terms {
    limits: Limits,
    settings: Value,
    network: Arc<Network>,
}

impl Terms {
    fn new() -> Self {
        Self { limits: Limits::default(), settings: json!({ "url": "http://names/" }), network: Arc::default() }
    }

    async fn planned(&self, input: &StreamType, granted: bool) -> Result<ComponentOperatorPlan, PlanError> {
        let settings = RuntimeSettings { limits: self.limits.clone(), pooled_instances: 16, ..RuntimeSettings::default() };
        let runtime = Runtime::new(settings).expect("addresses");
        let component = runtime.load(guests::bytes("asks").into(), "asks.wasm").await.expect("it loads");
        let grant = || Arc::new(Grant::new(HttpSettings::default(), self.network.clone()));
        let request = ComponentRequest {
            operator: "named".into(),
            settings: self.settings.clone(),
            source: Arc::new(AsSaid),
            inputs: std::slice::from_ref(input),
            keys: None,
            grant: granted.then(grant),
        };
        ComponentOperatorPlan::plan(component, request).await
    }

    /// numbers → `asks` → sink.
    async fn job(&self, numbers: std::ops::Range<i64>, parallelism: u32) -> (Arc<JobPlan>, CollectSink) {
        let all: Vec<i64> = numbers.collect();
        let batches = |numbers: &[i64]| -> Vec<Batch> {
            numbers.chunks(100).map(|chunk| keyed_rows(&chunk.iter().map(|&number| (0, number, 0)).collect::<Vec<_>>())).collect()
        };
        let splits = all.chunks(all.len().div_ceil(parallelism as usize)).map(batches).collect();
        let mut job = JobBuilder::new();
        let source = job.source("numbers", MemorySource::new(splits), event_time(0), parallelism);
        let stream = job.output(source, OutputPort::Port(0));
        let plan = self.planned(&stream, true).await.expect("it plans");
        let operator = job.operator("named", unkeyed(plan, vec![stream]), parallelism, vec![edge(source, Exchange::Forward)]);
        job.rejected(operator, RejectedPolicy::Fail);
        let out = CollectSink::default();
        job.sink("out", out.clone(), operator, OutputPort::Port(0), parallelism);
        (job.build(), out)
    }
}

fn stream() -> StreamType {
    StreamType { schema: keyed_rows(&[(0, 0, 0)]).schema(), event_times: true, changes: false }
}

/// Number and answer of every row.
fn answers(out: &CollectSink) -> Vec<(i64, String)> {
    let rows_of = |batch: &Batch| -> Vec<(i64, String)> {
        let numbers = batch.columns().column_by_name("number").expect("it is kept").as_primitive::<arrow_array::types::Int64Type>().clone();
        let answers = batch.columns().column_by_name("answer").expect("it is added").as_string::<i32>().clone();
        numbers.values().iter().copied().zip(answers.iter().map(|answer| answer.expect("not null").to_owned())).collect()
    };
    let mut rows: Vec<(i64, String)> = out.batches().iter().flat_map(rows_of).collect();
    rows.sort();
    rows
}

fn expected(numbers: std::ops::Range<i64>) -> Vec<(i64, String)> {
    let answer = |number: i64| if number < 0 { "refused: nothing was asked for this row".into() } else { format!("200 {number}") };
    numbers.map(|number| (number, answer(number))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_gets_the_answer_to_its_own_request_at_any_parallelism() {
    for parallelism in [1, 3] {
        let terms = Terms::new();
        let (job, out) = terms.job(-5..995, parallelism).await;
        let summary = run_to_end(job).await;
        assert_eq!(answers(&out), expected(-5..995));
        assert_eq!(terms.network.asked.load(Ordering::Relaxed), 995, "each once, and nothing for those below zero");
        assert_eq!((summary.operators[1].requests, summary.operators[1].traps), (995, 0));
        assert!(summary.operators[1].request_bytes > 995 * 14 && summary.operators[1].answer_bytes > 995);
    }
}

#[tokio::test]
async fn a_component_that_sends_requests_is_refused_where_they_are_not_granted() {
    let error = Terms::new().planned(&stream(), false).await.err().expect("it is not granted").to_string();
    assert_eq!(error, "component `asks.wasm` imports `millstream:operator/http`, and operator `named` is granted no requests over HTTP");
    assert!(guests::component("asks").await.inspection().sends_requests());
    assert!(!guests::component("keep").await.inspection().sends_requests(), "who does not use it does not import it");
}

#[tokio::test]
async fn requests_outside_of_process_and_timers_are_refused_by_name() {
    let terms = Terms { settings: json!({ "url": "http://names/", "early": true }), ..Terms::new() };
    let error = terms.planned(&stream(), true).await.err().expect("it asks in `open`, which its `plan` calls").to_string();
    assert_eq!(
        error,
        "operator `named` (component `asks.wasm`) in `plan` trapped: requests over HTTP are sent in `process` and `on-timers` alone"
    );
    assert_eq!(terms.network.asked.load(Ordering::Relaxed), 0);
}

/// A slow network costs a guest none of its CPU time.
#[tokio::test]
async fn waiting_for_answers_is_no_cpu_time() {
    let terms = Terms {
        limits: Limits { cpu_per_call: Duration::from_millis(100), ..Limits::default() },
        network: Arc::new(Network { takes: Duration::from_millis(300), ..Network::default() }),
        ..Terms::new()
    };
    let (job, out) = terms.job(0..10, 1).await;
    assert_eq!(run_to_end(job).await.operators[1].traps, 0);
    assert_eq!(answers(&out), expected(0..10));
}

/// Nor can it hide any behind waits.
#[tokio::test]
async fn a_guest_that_asks_again_and_again_is_stopped_by_the_limit_for_cpu_time() {
    let terms = Terms {
        limits: Limits { cpu_per_call: Duration::from_millis(5), requests_per_call: u32::MAX, ..Limits::default() },
        settings: json!({ "url": "http://names/", "again": u32::MAX }),
        ..Terms::new()
    };
    let error = failed(&start(terms.job(0..1, 1).await.0, RunSettings::new())).await.to_string();
    assert!(error.contains("CPU time per call in ms"), "{error}");
}

#[tokio::test]
async fn a_call_that_sends_or_takes_too_much_is_cut_in_halves() {
    let few = Limits { requests_per_call: 30, ..Limits::default() };
    let small = Limits { answer_bytes_per_call: 30, ..Limits::default() };
    for limits in [few, small] {
        let terms = Terms { limits, ..Terms::new() };
        let (job, out) = terms.job(0..100, 1).await;
        assert!(run_to_end(job).await.operators[1].traps > 2);
        assert_eq!(answers(&out), expected(0..100));
    }
    let terms = Terms { settings: json!({ "url": "http://names/", "again": 20_000 }), ..Terms::new() };
    let error = failed(&start(terms.job(0..1, 1).await.0, RunSettings::new())).await.to_string();
    assert!(error.contains("requests over HTTP per call") && error.contains("10000"), "{error}");
}
