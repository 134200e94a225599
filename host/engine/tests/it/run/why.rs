//! `why` names what a silent job waits for, true for each cause.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use millstream_engine::{
    clock::ManualClock,
    connector::{Sink, SinkContext, SinkWriter},
    graph::{Batching, Exchange, JobPlan, NullKeys, OperatorNode},
    operator::{OperatorError, OutputPort},
    run::{JobHandle, JobStatus, RunSettings, start},
    testing::{CollectSink, FedSource, JobBuilder, edge, unkeyed},
};
use millstream_model::{Batch, ids::CheckpointId};
use tokio::sync::Semaphore;

use super::{by_key, event_time, finished, guests, keyed_rows};

struct Asked {
    handle: JobHandle,
    clock: Arc<ManualClock>,
}

fn started(plan: Arc<JobPlan>) -> Asked {
    let clock = Arc::new(ManualClock::at(0));
    Asked { handle: start(plan, RunSettings::new().with_clock(clock.clone())), clock }
}

impl Asked {
    /// Asks until the answer is this: the subtasks come to where they wait in their own time. The test's own limit of time stops it.
    async fn until_it_says(&self, wanted: &str) {
        let mut last = String::new();
        for _ in 0..100_000 {
            last = self.handle.why().await.expect("it answers");
            if last == wanted {
                return;
            }
            tokio::task::yield_now().await;
        }
        let status = self.handle.status().await.expect("it answers");
        let waits: Vec<_> = status.operators.iter().map(|operator| (&operator.id, &operator.waits)).collect();
        panic!("it says: {last}\nnot:     {wanted}\n{waits:#?}");
    }

    async fn until_rows_reach(&self, operator: &str) {
        let reached = |status: &JobStatus| status.operators.iter().any(|of| of.id.as_str() == operator && of.rows_in > 0);
        while !self.handle.status().await.is_some_and(|status| reached(&status)) {
            tokio::task::yield_now().await;
        }
    }

    fn pass(&self, ms: u64) {
        self.clock.advance(Duration::from_millis(ms));
    }

    async fn end(self) {
        self.handle.drain().await;
        finished(&self.handle).await;
    }
}

fn fed_source() -> FedSource {
    FedSource::new(keyed_rows(&[]).schema())
}

/// A batch in a queue at a time, and none waits for more.
const AT_ONCE: Batching = Batching { rows: 8_192, bytes: 1 << 20, wait: Duration::ZERO, edge_bytes: 1 };

/// Through queues.
fn hashed() -> Exchange {
    Exchange::Hash { keys: vec![0], null_keys: NullKeys::Keep }
}

/// source → operator → sink; the operator and the sink in two subtasks if there are queues.
fn straight(source: &FedSource, sink: impl Sink + 'static, exchange: Exchange) -> Arc<JobPlan> {
    let parallelism = if exchange == Exchange::Forward { 1 } else { 2 };
    let mut job = JobBuilder::new();
    job.batching(AT_ONCE);
    let from = job.source("numbers", source.clone(), None, 1);
    let stream = job.output(from, OutputPort::Port(0));
    let kept = super::recorder::Recorder::new(stream.clone());
    let operator = job.operator("kept", unkeyed(kept, vec![stream]), parallelism, vec![edge(from, exchange)]);
    job.sink("out", sink, operator, OutputPort::Port(0), parallelism);
    job.build()
}

#[tokio::test]
async fn a_job_without_any_input_names_its_source_and_how_long_it_waits() {
    let (source, sink) = (fed_source(), CollectSink::default());
    let asked = started(straight(&source, sink.clone(), Exchange::Forward));
    asked.until_it_says("there was no input yet: source `numbers` has had no rows of `fed` for 0 ms").await;
    asked.pass(65_300);
    asked.until_it_says("there was no input yet: source `numbers` has had no rows of `fed` for 1 min 5 s").await;
    source.feed(keyed_rows(&[(1, 1, 1)]));
    sink.wait_for_rows(1).await;
    asked.until_it_says("source `numbers` has had no rows of `fed` for 0 ms").await;
    asked.pass(2_500);
    asked.until_it_says("source `numbers` has had no rows of `fed` for 2.5 s").await;
    asked.end().await;
}

/// Takes a batch per permit.
#[derive(Clone)]
struct SlowSink(Arc<Semaphore>);

#[async_trait]
impl Sink for SlowSink {
    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Ok(Box::new(SlowWriter(self.0.clone())))
    }
}

struct SlowWriter(Arc<Semaphore>);

#[async_trait]
impl SinkWriter for SlowWriter {
    async fn write(&mut self, _batch: &Batch) -> Result<(), OperatorError> {
        self.0.acquire().await.expect("the semaphore is never closed").forget();
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        Ok(())
    }
}

/// The sink is in the subtask of the operator that does not take rows: it is the sink that is named.
#[tokio::test]
async fn a_slow_sink_is_named_across_queues() {
    let (source, permits) = (fed_source(), Arc::new(Semaphore::new(0)));
    let asked = started(straight(&source, SlowSink(permits.clone()), hashed()));
    source.feed(keyed_rows(&[(1, 1, 1)]));
    asked.until_rows_reach("out").await;
    // All of one key.
    (0..5).for_each(|number| source.feed(keyed_rows(&[(1, number, 1)])));
    asked.until_it_says("sink `out` does not take rows as fast as they come: `numbers` has waited for room for 0 ms").await;
    asked.pass(4_000);
    asked.until_it_says("sink `out` does not take rows as fast as they come: `numbers` has waited for room for 4.0 s").await;
    permits.add_permits(100);
    asked.end().await;
}

#[tokio::test]
async fn a_slow_sink_in_the_subtask_of_the_source_is_named() {
    let (source, permits) = (fed_source(), Arc::new(Semaphore::new(0)));
    let asked = started(straight(&source, SlowSink(permits.clone()), Exchange::Forward));
    source.feed(keyed_rows(&[(1, 1, 1)]));
    asked.until_it_says("it waits for nothing: rows flow").await;
    asked.pass(1_500);
    asked.until_it_says("`out` has worked on what came last for 1.5 s").await;
    permits.add_permits(100);
    asked.end().await;
}

/// A window-like operator behind two sources, one of which is silent.
async fn two_sources() -> (FedSource, FedSource, CollectSink, Asked) {
    let (one, two, sink) = (fed_source(), fed_source(), CollectSink::default());
    let mut job = JobBuilder::new();
    let first = job.source("busy", one.clone(), event_time(0), 1);
    let second = job.source("silent", two.clone(), event_time(0), 1);
    let stream = job.output(first, OutputPort::Port(0));
    let guest = guests::planned("silence", &stream, Some(0)).await;
    let node = OperatorNode { keys: Some(vec![vec![0]]), ..unkeyed(guest, vec![stream]) };
    let operator = job.operator("silence", node, 1, vec![by_key(first), by_key(second)]);
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 1);
    (one, two, sink, started(job.build()))
}

#[tokio::test]
async fn the_split_that_holds_event_time_back_is_named() {
    let (busy, silent, _sink, asked) = two_sources().await;
    busy.feed(keyed_rows(&[(1, 1, 5_000)]));
    asked.until_it_says("`silence` waits for event time, which has not begun: source `silent` has had no rows of `fed` for 0 ms").await;
    silent.feed(keyed_rows(&[(1, 1, 1_000)]));
    let (stands, silent_for) = ("1970-01-01T00:00:00.999Z", "source `silent` has had no rows of `fed` for");
    asked.until_it_says(&format!("`silence` waits for event time, which stands at {stands}: {silent_for} 0 ms")).await;
    asked.pass(3_000);
    busy.feed(keyed_rows(&[(1, 1, 9_000)]));
    asked.until_it_says(&format!("`silence` waits for event time, which has stood at {stands} for 3.0 s: {silent_for} 3.0 s")).await;
    asked.end().await;
}

#[tokio::test]
async fn a_barrier_that_one_input_has_not_passed_is_named() {
    let (source, permits) = (fed_source(), Arc::new(Semaphore::new(0)));
    let mut job = JobBuilder::new();
    job.batching(AT_ONCE);
    let (quick, slow) = (job.source("quick", fed_source(), None, 1), job.source("slow", source.clone(), None, 1));
    let stream = job.output(slow, OutputPort::Port(0));
    let held = super::recorder::Recorder::new(stream.clone());
    let gate = job.operator("gate", unkeyed(held, vec![stream.clone()]), 1, vec![edge(slow, hashed())]);
    job.sink("beside", SlowSink(permits.clone()), gate, OutputPort::Port(0), 1);
    let joined = super::recorder::Recorder::new(stream.clone());
    let inputs = vec![edge(quick, hashed()), edge(gate, hashed())];
    let union = job.operator("joined", unkeyed(joined, vec![stream]), 1, inputs);
    job.sink("out", CollectSink::default(), union, OutputPort::Port(0), 1);
    let asked = started(job.build());
    source.feed(keyed_rows(&[(1, 1, 1)]));
    asked.until_rows_reach("beside").await;
    let handle = asked.handle.clone();
    let barrier = tokio::spawn(async move { handle.send_barrier(CheckpointId(7)).await });
    asked.until_it_says("`joined` has waited 0 ms for the barrier of checkpoint 7 from `gate`").await;
    permits.add_permits(100);
    assert!(barrier.await.expect("it does not panic").is_some());
    asked.end().await;
}

#[tokio::test]
async fn a_swap_that_waits_for_a_subtask_is_named() {
    let (source, permits) = (fed_source(), Arc::new(Semaphore::new(0)));
    let mut job = JobBuilder::new();
    job.batching(AT_ONCE);
    let from = job.source("numbers", source.clone(), event_time(0), 1);
    let stream = job.output(from, OutputPort::Port(0));
    let guest = guests::planned("sums", &stream, Some(0)).await;
    let node = OperatorNode { keys: Some(vec![vec![0]]), ..unkeyed(guest, vec![stream]) };
    let operator = job.operator("sums", node, 1, vec![by_key(from)]);
    job.sink("out", SlowSink(permits.clone()), operator, OutputPort::Port(0), 1);
    let asked = started(job.build());
    source.feed(keyed_rows(&[(1, 1, 1)]));
    asked.until_rows_reach("out").await;
    asked.pass(2_000);
    asked.until_it_says("`out` has worked on what came last for 2.0 s").await;
    let prepared = asked.handle.prepare_swap(guests::swap_to("sums", "sums_next").await).await.expect("it fits");
    let handle = asked.handle.clone();
    let switching = tokio::spawn(async move { handle.switch(prepared.swap).await });
    asked.until_it_says("swap 1, asked for 0 ms ago, waits until every subtask of `sums` has switched").await;
    permits.add_permits(100);
    switching.await.expect("it does not panic").expect("it switches");
    asked.end().await;
}

#[tokio::test]
async fn a_job_that_has_ended_says_so() {
    let asked = started(straight(&fed_source(), CollectSink::default(), Exchange::Forward));
    asked.handle.drain().await;
    finished(&asked.handle).await;
    asked.until_it_says("the job has ended").await;
}
