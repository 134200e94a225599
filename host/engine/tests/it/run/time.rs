//! Watermarks, idleness and order, as rows meet them.

use std::{sync::Arc, time::Duration};

use millstream_engine::{
    clock::ManualClock,
    connector::Source,
    graph::{Batching, EventTimePlan, Exchange, OperatorNode, RowOrder},
    operator::OutputPort,
    run::{RunSettings, start},
    testing::{CollectSink, FedSource, JobBuilder, MemorySource, edge, unkeyed},
};
use millstream_model::{Batch, Watermark, ids::CheckpointId};
use serde_json::json;

use super::{
    built_in, by_key, event_time, finished, guests, keyed_rows,
    recorder::{Recorder, Told},
    rows, run_to_end, schema, sorted, values,
};

/// One split whose event time counts up from 1, in batches of `batch_rows`.
fn counting(rows_count: usize, batch_rows: usize) -> Vec<Batch> {
    let all: Vec<(i64, i64, i64)> = (1..=rows_count as i64).map(|n| (n, n, n)).collect();
    all.chunks(batch_rows).map(rows).collect()
}

/// What an operator behind a source of these splits is told.
async fn told_of(splits: Vec<Vec<Batch>>, bound_ms: i64, uses_watermarks: bool) -> Recorder {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(splits), event_time(bound_ms), 1);
    let stream = job.output(source, OutputPort::Port(0));
    let mut recorder = Recorder::new(stream.clone());
    recorder.uses_watermarks = uses_watermarks;
    let operator = job.operator("recorder", unkeyed(recorder.clone(), vec![stream]), 1, vec![edge(source, Exchange::Forward)]);
    job.sink("out", CollectSink::default(), operator, OutputPort::Port(0), 1);
    run_to_end(job.build()).await;
    recorder
}

#[tokio::test]
async fn a_bounded_split_says_its_watermark_after_every_1024th_row() {
    let told = told_of(vec![counting(3_000, 8_192)], 10, true).await.told();
    let watermark = |newest: i64| Told::Watermark(Watermark(newest - 10 - 1));
    let end = Told::Watermark(Watermark::MAX);
    assert_eq!(told, [Told::Rows(0, 1_024), watermark(1_024), Told::Rows(0, 1_024), watermark(2_048), Told::Rows(0, 952), end, Told::End]);
}

#[tokio::test]
async fn watermarks_stand_at_the_same_rows_however_the_split_is_batched() {
    let whole = told_of(vec![counting(5_000, 8_192)], 0, true).await.told();
    for batch_rows in [1, 7, 1_000, 1_024] {
        assert_eq!(told_of(vec![counting(5_000, batch_rows)], 0, true).await.told(), whole, "batches of {batch_rows}");
    }
}

#[tokio::test]
async fn batches_stay_whole_where_nobody_looks_at_watermarks() {
    let told = told_of(vec![counting(3_000, 3_000)], 0, false).await.told_exactly();
    assert_eq!(told[..2], [Told::Rows(0, 3_000), Told::Watermark(Watermark(2_999))]);
}

#[tokio::test]
async fn the_watermark_of_several_splits_is_that_of_the_slowest() {
    let early: Vec<Batch> = counting(2_048, 100);
    let late: Vec<Batch> = vec![rows(&(10_001..=12_048).map(|n| (n, n, n)).collect::<Vec<_>>())];
    let told = told_of(vec![late, early], 0, true).await.told();
    let watermarks: Vec<i64> =
        told.iter().filter_map(|told| if let Told::Watermark(watermark) = told { Some(watermark.0) } else { None }).collect();
    assert_eq!(watermarks, [1_023, 2_047, 12_047, i64::MAX], "{told:?}");
}

/// What an operator behind `assign-watermarks` is told; the event times are column `at`.
async fn told_behind_assigned(batches: Vec<Batch>, max_out_of_orderness: &str, uses_watermarks: bool) -> Recorder {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(vec![batches]), None, 1);
    let settings = json!({ "column": "at", "max-out-of-orderness": max_out_of_orderness });
    let assign = built_in("assign-watermarks", settings, job.output(source, OutputPort::Port(0))).await;
    let assigned = job.operator("assign", assign, 1, vec![edge(source, Exchange::Forward)]);
    let stream = job.output(assigned, OutputPort::Port(0));
    let mut recorder = Recorder::new(stream.clone());
    recorder.uses_watermarks = uses_watermarks;
    let operator = job.operator("recorder", unkeyed(recorder.clone(), vec![stream]), 1, vec![edge(assigned, Exchange::Forward)]);
    job.sink("out", CollectSink::default(), operator, OutputPort::Port(0), 1);
    run_to_end(job.build()).await;
    recorder
}

#[tokio::test]
async fn assigned_watermarks_stand_behind_every_1024th_row_inside_a_batch_too() {
    let told = told_behind_assigned(counting(3_000, 8_192), "10ms", true).await.told();
    let watermark = |newest: i64| Told::Watermark(Watermark(newest - 10 - 1));
    let end = Told::Watermark(Watermark::MAX);
    assert_eq!(told, [Told::Rows(0, 1_024), watermark(1_024), Told::Rows(0, 1_024), watermark(2_048), Told::Rows(0, 952), end, Told::End]);
    for batch_rows in [1, 7, 1_000, 1_024, 2_999] {
        let again = told_behind_assigned(counting(3_000, batch_rows), "10ms", true).await.told();
        assert_eq!(again, told, "batches of {batch_rows}");
    }
}

#[tokio::test]
async fn assigned_watermarks_cut_nothing_where_nobody_looks_at_them() {
    let told = told_behind_assigned(counting(3_000, 3_000), "0ms", false).await.told_exactly();
    assert_eq!(told[..2], [Told::Rows(0, 3_000), Told::Watermark(Watermark(2_047))]);
}

/// `source` into a window of 100 ms, and what it writes.
async fn windows_over(source: impl Source + 'static) -> (Arc<millstream_engine::graph::JobPlan>, CollectSink) {
    let mut job = JobBuilder::new();
    let from = job.source("rows", source, event_time(500), 1);
    let settings = json!({ "tumbling": "100ms", "aggregates": { "rows": { "count": "*" }, "sum": { "sum": "number" } } });
    let window = built_in("window", settings, job.output(from, OutputPort::Port(0))).await;
    let operator = job.operator("window", window, 1, vec![edge(from, Exchange::Forward)]);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 1);
    (job.build(), sink)
}

/// Watermarks stand at other rows then, so windows fire at other times.
#[tokio::test]
async fn a_source_without_an_end_gives_the_same_final_rows_as_one_with_an_end() {
    let row = |n: i64| (n % 5, n, n + (n * 7_919) % 400);
    let all: Vec<(i64, i64, i64)> = (0..5_000).map(row).collect();
    let batches = || all.chunks(300).map(anonymous).collect::<Vec<_>>();
    let (plan, bounded) = windows_over(MemorySource::new(vec![batches()])).await;
    run_to_end(plan).await;

    let fed = FedSource::new(schema(&["key", "number", "at"]));
    let (plan, unbounded) = windows_over(fed.clone()).await;
    let handle = start(plan, RunSettings::new());
    for batch in batches() {
        fed.feed(batch);
    }
    unbounded.wait_for_rows(40).await;
    while !fed.is_drained() {
        tokio::task::yield_now().await;
    }
    handle.drain().await;
    finished(&handle).await;
    assert_eq!(bounded.num_rows(), 54, "windows");
    assert_eq!(texts(&unbounded.batches()), texts(&bounded.batches()));
}

/// All rows as text, sorted.
fn texts(batches: &[Batch]) -> Vec<String> {
    let text = |batch: &Batch, row: usize| {
        let columns = batch.columns().columns().iter();
        columns.map(|column| arrow_cast::display::array_value_to_string(column, row).expect("it prints")).collect::<Vec<_>>().join(" ")
    };
    let mut texts: Vec<String> =
        batches.iter().flat_map(|batch| (0..batch.num_rows()).map(|row| text(batch, row)).collect::<Vec<_>>()).collect();
    texts.sort();
    texts
}

/// Two unbounded sources into one operator: fed source, its twin, the recorder, the plan.
fn two_fed(idle_timeout: Option<Duration>) -> (FedSource, FedSource, Recorder, CollectSink, Arc<millstream_engine::graph::JobPlan>) {
    let (left, right) = (FedSource::new(schema(&["key", "number", "at"])), FedSource::new(schema(&["key", "number", "at"])));
    let mut job = JobBuilder::new();
    let times = || event_time(0).map(|plan| EventTimePlan { idle_timeout, ..plan });
    let (a, b) = (job.source("left", left.clone(), times(), 1), job.source("right", right.clone(), times(), 1));
    let stream = job.output(a, OutputPort::Port(0));
    let recorder = Recorder::new(stream.clone());
    let operator =
        job.operator("union", unkeyed(recorder.clone(), vec![stream]), 1, vec![edge(a, Exchange::Forward), edge(b, Exchange::Forward)]);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 1);
    (left, right, recorder, sink, job.build())
}

fn anonymous(batch: &[(i64, i64, i64)]) -> Batch {
    let batch = rows(batch);
    let columns = batch.columns().columns().to_vec();
    Batch::try_new(schema(&["key", "number", "at"]), columns, batch.num_rows()).expect("the columns fit")
}

#[tokio::test]
async fn a_split_that_has_nothing_for_the_idle_timeout_no_longer_holds_the_watermark() {
    let (left, _right, recorder, sink, plan) = two_fed(Some(Duration::from_secs(30)));
    let clock = Arc::new(ManualClock::at(0));
    let handle = start(plan, RunSettings::new().with_clock(clock.clone()));
    left.feed(anonymous(&[(1, 1, 100)]));
    sink.wait_for_rows(1).await;
    let has_watermark = || recorder.told().iter().any(|told| matches!(told, Told::Watermark(_)));
    settle().await;
    clock.advance(Duration::from_millis(29_999));
    settle().await;
    assert!(!has_watermark(), "the other source still holds it: {:?}", recorder.told());
    clock.advance(Duration::from_millis(1));
    while !has_watermark() {
        tokio::task::yield_now().await;
    }
    assert!(recorder.told().contains(&Told::Watermark(Watermark(99))), "{:?}", recorder.told());
    handle.drain().await;
    finished(&handle).await;
}

#[tokio::test]
async fn without_idle_timeout_a_silent_source_holds_the_watermark_for_ever() {
    let (left, right, recorder, sink, plan) = two_fed(None);
    let clock = Arc::new(ManualClock::at(0));
    let handle = start(plan, RunSettings::new().with_clock(clock.clone()));
    left.feed(anonymous(&[(1, 1, 100)]));
    sink.wait_for_rows(1).await;
    clock.advance(Duration::from_secs(3_600));
    settle().await;
    assert_eq!(recorder.told(), [Told::Rows(0, 1)]);
    right.feed(anonymous(&[(1, 1, 50)]));
    sink.wait_for_rows(2).await;
    settle().await;
    assert!(recorder.told().contains(&Told::Watermark(Watermark(49))), "{:?}", recorder.told());
    handle.cancel().await;
    handle.wait().await;
}

/// Lets every task of a single-threaded runtime do what it can do now.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// What guest `silence` finds: key, rows.
async fn silences(splits: Vec<Vec<Batch>>, bound_ms: i64, parallelism: u32, order: RowOrder) -> Vec<Vec<i64>> {
    let mut job = JobBuilder::new();
    let source = job.source("numbers", MemorySource::new(splits), event_time(bound_ms), parallelism);
    let stream = job.output(source, OutputPort::Port(0));
    let guest = guests::planned("silence", &stream, Some(0)).await;
    let node = OperatorNode { keys: Some(vec![vec![0]]), order, ..unkeyed(guest, vec![stream]) };
    let operator = job.operator("silence", node, parallelism, vec![by_key(source)]);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), parallelism);
    run_to_end(job.build()).await;
    sorted(values(&sink.batches()))
}

/// A key is silent for 100 ms between its rows at 50 and 200, though both come before the watermark moves at all.
#[tokio::test]
async fn ordered_by_event_time_a_timer_fires_before_a_later_row_of_its_key() {
    let split = vec![keyed_rows(&[(1, 0, 200), (2, 0, 10), (1, 0, 0), (1, 0, 50), (2, 0, 110)])];
    // At 110 the timer of key 2 (set at 10) is due at the very time of the row: the row comes first, and moves the alarm.
    let found = silences(vec![split.clone()], 1_000_000, 1, RowOrder::EventTime).await;
    assert_eq!(found, [[1, 1], [1, 2], [2, 2]]);
    let in_order_of_arrival = silences(vec![split], 1_000_000, 1, RowOrder::Arrival).await;
    assert_ne!(in_order_of_arrival, found, "without the order, alarms are moved by rows that come later in time");
}

#[tokio::test]
async fn results_in_event_time_order_depend_neither_on_watermarks_nor_on_parallelism() {
    let row = |n: i64| (n % 17, 0, (n * 7_919) % 60_000);
    let all: Vec<(i64, i64, i64)> = (0..6_000).map(row).collect();
    let one_split = vec![vec![keyed_rows(&all)]];
    let expected = silences(one_split, 60_000, 1, RowOrder::EventTime).await;
    assert!(expected.len() > 100, "{} sessions", expected.len());
    // Sorted, the same rows need no slack, and watermarks follow closely.
    let mut by_time = all.clone();
    by_time.sort_by_key(|row| row.2);
    assert_eq!(silences(vec![vec![keyed_rows(&by_time)]], 0, 1, RowOrder::EventTime).await, expected);
    let splits = all.chunks(1_500).map(|rows| vec![keyed_rows(rows)]).collect();
    assert_eq!(silences(splits, 60_000, 3, RowOrder::EventTime).await, expected);
}

/// Small batches through an exchange into a recorder, with a wait of 5 ms: source, recorder, sink, job.
fn gathered() -> (FedSource, Recorder, CollectSink, Arc<millstream_engine::graph::JobPlan>) {
    let source = FedSource::new(schema(&["key", "number", "at"]));
    let mut job = JobBuilder::new();
    job.batching(Batching { wait: Duration::from_millis(5), ..Batching::default() });
    let from = job.source("fed", source.clone(), None, 1);
    let stream = job.output(from, OutputPort::Port(0));
    let recorder = Recorder::new(stream.clone());
    let operator = job.operator("recorder", unkeyed(recorder.clone(), vec![stream]), 2, vec![by_key(from)]);
    let sink = CollectSink::default();
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 2);
    (source, recorder, sink, job.build())
}

#[tokio::test]
async fn few_rows_wait_for_more_behind_an_exchange_but_no_longer_than_their_setting_says() {
    let (source, recorder, sink, plan) = gathered();
    let clock = Arc::new(ManualClock::at(0));
    let handle = start(plan, RunSettings::new().with_clock(clock.clone()));
    source.feed(anonymous(&[(1, 1, 0)]));
    settle().await;
    clock.advance(Duration::from_millis(4));
    source.feed(anonymous(&[(1, 2, 0), (1, 3, 0)]));
    settle().await;
    assert_eq!(recorder.told_exactly(), [], "they may wait one millisecond more");
    clock.advance(Duration::from_millis(1));
    sink.wait_for_rows(3).await;
    assert_eq!(recorder.told_exactly(), [Told::Rows(0, 3)]);
    handle.cancel().await;
    handle.wait().await;
}

/// The clock stands still: nothing but the barrier, and then the end, lets the rows go.
#[tokio::test]
async fn rows_that_wait_go_before_a_barrier_and_before_the_end() {
    let (source, recorder, sink, plan) = gathered();
    let handle = start(plan, RunSettings::new().with_clock(Arc::new(ManualClock::at(0))));
    source.feed(anonymous(&[(1, 1, 0)]));
    settle().await;
    handle.send_barrier(CheckpointId(1)).await.expect("the job runs");
    source.feed(anonymous(&[(1, 2, 0), (1, 3, 0)]));
    settle().await;
    handle.drain().await;
    finished(&handle).await;
    assert_eq!(sink.num_rows(), 3);
    let told: Vec<Told> = recorder.told().into_iter().filter(|told| matches!(told, Told::Rows(..) | Told::Barrier(_))).collect();
    let barrier = Told::Barrier(1);
    assert!(
        told == [Told::Rows(0, 1), barrier, barrier, Told::Rows(0, 2)] || told == [barrier, Told::Rows(0, 1), barrier, Told::Rows(0, 2)],
        "of both subtasks: {told:?}"
    );
}
