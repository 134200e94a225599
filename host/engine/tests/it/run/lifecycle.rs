//! Starting, ending, failing: what becomes of a job and of its sinks.

use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::{
    connector::{Sink, SinkContext, SinkWriter},
    graph::{Batching, Edge, Exchange, JobPlan, NullKeys},
    operator::{Fault, OperatorError, OutputPort},
    rejected::RejectedPolicy,
    run::{JobOutcome, Phase, RunSettings, start},
    testing::{CollectSink, Ends, FedSource, JobBuilder, MemorySource, edge, unkeyed},
};
use millstream_model::{Batch, ids::CheckpointId};
use tokio::sync::Semaphore;

use super::{
    by_key_with, event_time, failed, finished, nullable_rows,
    recorder::{Recorder, Told},
    rows, run_to_end, schema, sorted, values,
};

fn numbers(count: i64) -> Vec<Batch> {
    (0..count).collect::<Vec<_>>().chunks(500).map(|chunk| rows(&chunk.iter().map(|&n| (n, n * 10, n)).collect::<Vec<_>>())).collect()
}

/// numbers → recorder → sink, with the recorder changed by `change`.
fn recorded(count: i64, change: impl FnOnce(&mut Recorder)) -> (Arc<JobPlan>, CollectSink) {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(vec![numbers(count)]), None, 1);
    let stream = job.output(source, OutputPort::Port(0));
    let mut recorder = Recorder::new(stream.clone());
    change(&mut recorder);
    let operator = job.operator("recorder", unkeyed(recorder, vec![stream]), 1, vec![edge(source, Exchange::Forward)]);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 1);
    (job.build(), sink)
}

#[tokio::test]
async fn bounded_input_ends_the_job_with_everything_published() {
    let (plan, sink) = recorded(3_000, |_| {});
    let summary = run_to_end(plan).await;
    assert_eq!(sink.num_rows(), 3_000);
    assert_eq!(sink.ends(), Ends { finished: 1, aborted: 0 });
    let counted: Vec<(u64, u64)> = summary.operators.iter().map(|operator| (operator.rows_in, operator.rows_out)).collect();
    assert_eq!(counted, [(0, 3_000), (3_000, 3_000), (3_000, 0)]);
    assert_eq!(summary.operators[0].progress_total, Some(3_000));
}

#[tokio::test]
async fn a_failing_operator_fails_the_job_and_nothing_is_published() {
    let (plan, sink) = recorded(3_000, |recorder| recorder.fails_at_row = Some(2_000));
    let error = failed(&start(plan, RunSettings::new())).await;
    assert_eq!((error.operator.as_ref().map(|id| id.as_str()), error.fault), (Some("recorder"), Fault::User));
    assert_eq!(error.to_string(), "`recorder` (subtask 0): told to fail");
    assert_eq!(sink.ends(), Ends { finished: 0, aborted: 1 });
}

#[tokio::test]
async fn a_panic_is_a_failure_that_names_the_operator() {
    let (plan, sink) = recorded(10, |recorder| recorder.panics = true);
    let error = failed(&start(plan, RunSettings::new())).await;
    assert_eq!((error.operator.as_ref().map(|id| id.as_str()), error.fault), (Some("recorder"), Fault::Internal));
    assert!(error.to_string().contains("told to panic"), "{error}");
    assert_eq!(sink.ends().aborted, 1);
}

/// A failure in one branch stops the others, which then publish nothing either.
#[tokio::test]
async fn the_first_failure_stops_every_subtask() {
    let mut job = JobBuilder::new();
    let endless = FedSource::new(schema(&["key", "number", "at"]));
    let (healthy, sick) = (job.source("healthy", endless, None, 1), job.source("sick", MemorySource::new(vec![numbers(10)]), None, 1));
    let stream = job.output(sick, OutputPort::Port(0));
    let mut failing = Recorder::new(stream.clone());
    failing.fails_at_row = Some(5);
    let operator = job.operator("failing", unkeyed(failing, vec![stream]), 1, vec![edge(sick, Exchange::Forward)]);
    let (one, two) = (CollectSink::default(), CollectSink::default());
    job.sink("one", one.clone(), healthy, OutputPort::Port(0), 1);
    job.sink("two", two.clone(), operator, OutputPort::Port(0), 1);
    let error = failed(&start(job.build(), RunSettings::new())).await;
    assert_eq!(error.operator.as_ref().map(|id| id.as_str()), Some("failing"));
    assert_eq!([one.ends(), two.ends()], [Ends { finished: 0, aborted: 1 }; 2]);
}

fn fed() -> (FedSource, CollectSink, Arc<JobPlan>) {
    let source = FedSource::new(schema(&["key", "number", "at"]));
    let mut job = JobBuilder::new();
    let from = job.source("fed", source.clone(), None, 1);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), from, OutputPort::Port(0), 1);
    (source, sink, job.build())
}

fn fed_rows(count: i64) -> Batch {
    let batch = rows(&(0..count).map(|n| (n, n, n)).collect::<Vec<_>>());
    Batch::try_new(schema(&["key", "number", "at"]), batch.columns().columns().to_vec(), batch.num_rows()).expect("the columns fit")
}

#[tokio::test]
async fn an_unbounded_job_runs_until_it_is_drained_and_then_publishes() {
    let (source, sink, plan) = fed();
    let handle = start(plan, RunSettings::new());
    source.feed(fed_rows(7));
    sink.wait_for_rows(7).await;
    assert_eq!(handle.status().await.expect("the job runs").phase, Phase::Running);
    handle.drain().await;
    finished(&handle).await;
    assert_eq!(sink.ends(), Ends { finished: 1, aborted: 0 });
    assert_eq!(handle.status().await.expect("it still answers").phase, Phase::Ended);
}

#[tokio::test]
async fn a_cancelled_job_publishes_nothing() {
    let (source, sink, plan) = fed();
    let handle = start(plan, RunSettings::new());
    source.feed(fed_rows(7));
    sink.wait_for_rows(7).await;
    handle.cancel().await;
    assert!(matches!(handle.wait().await.as_ref(), JobOutcome::Cancelled));
    assert_eq!(sink.ends(), Ends { finished: 0, aborted: 1 });
}

#[tokio::test]
async fn a_barrier_is_aligned_and_passes_every_subtask() {
    let left = FedSource::new(schema(&["key", "number", "at"]));
    let mut job = JobBuilder::new();
    let (a, b) = (job.source("left", left.clone(), None, 1), job.source("right", MemorySource::new(vec![vec![fed_rows(5)]]), None, 1));
    let stream = job.output(a, OutputPort::Port(0));
    let recorder = Recorder::new(stream.clone());
    let both = vec![edge(a, Exchange::Forward), edge(b, Exchange::Forward)];
    let union = job.operator("union", unkeyed(recorder.clone(), vec![stream]), 1, both);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), union, OutputPort::Port(0), 1);
    let handle = start(job.build(), RunSettings::new());
    left.feed(fed_rows(3));
    sink.wait_for_rows(8).await;
    let report = handle.send_barrier(CheckpointId(1)).await.expect("the job runs");
    assert_eq!(report.passed + report.ended, 3);
    left.feed(fed_rows(2));
    sink.wait_for_rows(10).await;
    assert_eq!(recorder.told(), [Told::Rows(0, 8), Told::Barrier(1), Told::Rows(0, 2)]);
    handle.cancel().await;
    handle.wait().await;
}

/// A sink that takes rows only when it is let.
#[derive(Clone)]
struct Gate(Arc<Semaphore>);

#[async_trait]
impl Sink for Gate {
    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Ok(Box::new(self.clone()))
    }
}

#[async_trait]
impl SinkWriter for Gate {
    async fn write(&mut self, _batch: &Batch) -> Result<(), OperatorError> {
        self.0.acquire().await.expect("never closed").forget();
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        Ok(())
    }
}

#[tokio::test]
async fn a_slow_sink_stops_the_sources_instead_of_growing_memory() {
    let gate = Gate(Arc::new(Semaphore::new(0)));
    let mut job = JobBuilder::new();
    let edge_bytes = 16 << 10;
    job.batching(Batching { edge_bytes, rows: 500, ..Batching::default() });
    let sources = ["a", "b"].map(|id| job.source(id, MemorySource::new(vec![numbers(100_000)]), None, 1));
    let stream = job.output(sources[0], OutputPort::Port(0));
    let union = Recorder::new(stream.clone());
    let operator = job.operator("union", unkeyed(union, vec![stream]), 1, sources.map(|from| edge(from, Exchange::Forward)).to_vec());
    job.sink("slow", gate.clone(), operator, OutputPort::Port(0), 1);
    let handle = start(job.build(), RunSettings::new());
    let (mut read, mut unchanged) = (0, 0);
    while unchanged < 100 {
        tokio::task::yield_now().await;
        let status = handle.status().await.expect("the job runs");
        let now: u64 = status.operators[..2].iter().map(|source| source.rows_out).sum();
        unchanged = if now > 0 && now == read { unchanged + 1 } else { 0 };
        read = now;
    }
    let row_bytes = 24;
    let most = 2 * (edge_bytes / row_bytes + 2 * 500) as u64 + 500;
    assert!(read <= most, "{read} rows were read, more than the {most} that fit into the queues");
    gate.0.add_permits(Semaphore::MAX_PERMITS / 2);
    assert_eq!(finished(&handle).await.operators[3].rows_in, 200_000);
}

/// numbers → (by key) recorder in `parallelism` subtasks → sink.
async fn exchanged(parallelism: (u32, u32), exchange: Exchange) -> Vec<Vec<i64>> {
    let splits = numbers(20_000).chunks(10).map(<[Batch]>::to_vec).collect();
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(splits), event_time(0), parallelism.0);
    let stream = job.output(source, OutputPort::Port(0));
    let input = Edge { from: source, output: OutputPort::Port(0), port: 0, exchange, columns: None };
    let operator = job.operator("recorder", unkeyed(Recorder::new(stream.clone()), vec![stream]), parallelism.1, vec![input]);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 1);
    run_to_end(job.build()).await;
    sorted(values(&sink.batches()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_exchange_loses_and_doubles_no_row() {
    let all: Vec<Vec<i64>> = (0..20_000).map(|n| vec![n, n * 10, n]).collect();
    let by_key = Exchange::Hash { keys: vec![0], null_keys: NullKeys::Keep };
    assert_eq!(exchanged((1, 1), by_key.clone()).await, all);
    assert_eq!(exchanged((2, 3), by_key).await, all);
    assert_eq!(exchanged((3, 2), Exchange::Rebalance).await, all);
    assert_eq!(exchanged((3, 3), Exchange::Forward).await, all);
    let twice: Vec<Vec<i64>> = all.iter().flat_map(|row| [row.clone(), row.clone()]).collect();
    assert_eq!(exchanged((1, 2), Exchange::Broadcast).await, twice);
}

/// The keys that come through, and how many were dropped or rejected.
async fn with_null_keys(null_keys: NullKeys, policy: RejectedPolicy) -> (usize, u64, u64) {
    let batch = nullable_rows(&[(Some(1), 0, 0), (None, 1, 0), (Some(2), 2, 0), (None, 3, 0)]);
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(vec![vec![batch]]), None, 1);
    let stream = job.output(source, OutputPort::Port(0));
    let operator = job.operator("keyed", unkeyed(Recorder::new(stream.clone()), vec![stream]), 2, vec![by_key_with(source, null_keys)]);
    job.rejected(operator, policy);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 2);
    let summary = run_to_end(job.build()).await;
    (sink.num_rows(), summary.operators[1].rows_null_key, summary.operators[1].rows_rejected)
}

#[tokio::test]
async fn rows_without_a_key_are_kept_dropped_or_rejected() {
    assert_eq!(with_null_keys(NullKeys::Keep, RejectedPolicy::Fail).await, (4, 0, 0));
    assert_eq!(with_null_keys(NullKeys::Drop, RejectedPolicy::Fail).await, (2, 2, 0));
    assert_eq!(with_null_keys(NullKeys::Reject, RejectedPolicy::Drop).await, (2, 0, 2));
}

/// One node read by two, which meet again, all in one subtask.
#[tokio::test]
async fn branches_that_meet_again_deliver_everything_once() {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(vec![numbers(3_000)]), event_time(0), 1);
    let stream = job.output(source, OutputPort::Port(0));
    let branches = ["a", "b"]
        .map(|id| job.operator(id, unkeyed(Recorder::new(stream.clone()), vec![stream.clone()]), 1, vec![edge(source, Exchange::Forward)]));
    let meeting = Recorder::new(stream.clone());
    let both = branches.map(|branch| edge(branch, Exchange::Forward)).to_vec();
    let union = job.operator("union", unkeyed(meeting.clone(), vec![stream]), 1, both);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), union, OutputPort::Port(0), 1);
    run_to_end(job.build()).await;
    assert_eq!(sink.num_rows(), 6_000);
    assert_eq!(meeting.told().iter().filter(|told| **told == Told::End).count(), 1);
}
