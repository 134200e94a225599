//! Components in a running job: state, failures, timers.

use std::{sync::Arc, time::Duration};

use arrow_array::cast::AsArray;
use millstream_engine::{
    graph::{JobPlan, OperatorNode, RowOrder},
    metrics::GuestMetricValue,
    operator::OutputPort,
    rejected::RejectedPolicy,
    run::{RunSettings, start},
    testing::{CollectSink, JobBuilder, MemorySource, edge, unkeyed},
};
use millstream_model::Batch;

use super::{by_key, event_time, failed, guests, keyed_rows, run_to_end, sorted, values};

/// A job with one component over rows of (key, number, event time).
struct OneComponent {
    plan: Arc<JobPlan>,
    out: CollectSink,
    rejected: CollectSink,
}

/// source → `guest` → sink, its rejected rows treated by `policy`.
async fn job_of(guest: &str, batches: Vec<Batch>, policy: RejectedPolicy, parallelism: u32) -> OneComponent {
    ordered_job_of(guest, batches, policy, parallelism, RowOrder::Arrival).await
}

/// The same, with rows in this order.
async fn ordered_job_of(guest: &str, batches: Vec<Batch>, policy: RejectedPolicy, parallelism: u32, order: RowOrder) -> OneComponent {
    let mut job = JobBuilder::new();
    let source = job.source("rows", MemorySource::new(vec![batches]), event_time(0), 1);
    let stream = job.output(source, OutputPort::Port(0));
    let keyed = guest != "keep";
    let plan = guests::planned(guest, &stream, keyed.then_some(0)).await;
    let node = OperatorNode { keys: keyed.then(|| vec![vec![0]]), order, ..unkeyed(plan, vec![stream]) };
    let input = if keyed { by_key(source) } else { edge(source, millstream_engine::graph::Exchange::Forward) };
    let operator = job.operator(guest, node, parallelism, vec![input]);
    job.rejected(operator, policy.clone());
    let (out, rejected) = (CollectSink::default(), CollectSink::default());
    job.sink("out", out.clone(), operator, OutputPort::Port(0), parallelism);
    if matches!(policy, RejectedPolicy::Sink(_)) {
        job.sink("rejected", rejected.clone(), operator, OutputPort::Rejected, parallelism);
    }
    OneComponent { plan: job.build(), out, rejected }
}

fn numbers(values: &[i64]) -> Vec<Batch> {
    vec![keyed_rows(&values.iter().map(|&number| (number % 3, number, 0)).collect::<Vec<_>>())]
}

#[tokio::test]
async fn a_filter_keeps_whole_rows() {
    let job = job_of("keep", numbers(&[1, 4, 6, 8]), RejectedPolicy::Fail, 1).await;
    run_to_end(job.plan).await;
    assert_eq!(values(&job.out.batches()), [[1, 4, 0], [2, 8, 0]]);
}

#[tokio::test]
async fn state_is_kept_per_key_from_batch_to_batch() {
    let batches = [&[3, 1][..], &[6, 4][..]].into_iter().flat_map(numbers).collect();
    let job = job_of("sums", batches, RejectedPolicy::Fail, 1).await;
    run_to_end(job.plan).await;
    assert_eq!(values(&job.out.batches()), [[0, 3, 1], [1, 1, 1], [0, 9, 1], [1, 5, 1]]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallelism_does_not_change_the_results() {
    let all: Vec<i64> = (20..10_020).collect();
    let batches = || all.chunks(700).flat_map(numbers).collect::<Vec<_>>();
    let mut results = Vec::new();
    for parallelism in [1, 3] {
        let job = job_of("sums", batches(), RejectedPolicy::Fail, parallelism).await;
        run_to_end(job.plan).await;
        results.push(sorted(values(&job.out.batches())));
    }
    assert_eq!(results[0].len(), 10_000);
    assert_eq!(results[0], results[1]);
}

#[tokio::test]
async fn a_row_that_traps_is_found_and_fails_the_job_by_default() {
    let all: Vec<i64> = (0..1_000).collect();
    let error = failed(&start(job_of("sums", numbers(&all), RejectedPolicy::Fail, 1).await.plan, RunSettings::new())).await;
    let text = error.to_string();
    assert!(text.starts_with("`sums` (subtask 0): a row was rejected:"), "{text}");
    assert!(text.contains(r#""number":13"#), "{text}");
}

#[tokio::test]
async fn a_row_that_traps_is_dropped_alone_when_the_operator_says_so() {
    let all: Vec<i64> = (0..1_000).collect();
    let job = job_of("sums", numbers(&all), RejectedPolicy::Drop, 1).await;
    let summary = run_to_end(job.plan).await;
    assert_eq!(summary.operators[1].rows_rejected, 1);
    assert!(summary.operators[1].traps > 2, "the batch was repeated and bisected");
    let rows = values(&job.out.batches());
    assert_eq!(rows.len(), 999);
    let last_of_key = |key: i64| rows.iter().filter(|row| row[0] == key).map(|row| row[1]).max();
    let sum = |key: i64| (0..1_000).filter(|n| n % 3 == key && *n != 13).sum::<i64>();
    assert_eq!([0, 1, 2].map(last_of_key), [0, 1, 2].map(|key| Some(sum(key))));
}

/// The call is repeated and bisected around a row that traps, and around one whose answer is good but cannot be applied.
#[tokio::test]
async fn metrics_of_a_guest_count_what_was_applied_and_nothing_twice() {
    let all: Vec<i64> = (0..1_000).collect();
    let job = job_of("counted", numbers(&all), RejectedPolicy::Drop, 3).await;
    let counted = run_to_end(job.plan).await.operators.remove(1);
    assert_eq!(counted.rows_rejected, 2);
    let numbers = counted.guest_metrics.iter().map(|metric| (metric.name.as_str(), metric.value)).collect::<Vec<_>>();
    let [("latest", latest), ("numbers", seen), ("rows_seen", rows)] = numbers[..] else { panic!("{numbers:?}") };
    assert_eq!(rows, GuestMetricValue::Counter { total: 998.0 });
    let sum = (0..1_000).sum::<i64>() as f64 - 13.0 - 14.0;
    assert_eq!(seen, GuestMetricValue::Histogram { count: 998, sum, min: 0.0, max: 999.0 });
    assert!(matches!(latest, GuestMetricValue::Gauge { min, max } if (990.0..=999.0).contains(&min) && max == 999.0), "{latest:?}");
    assert_eq!(counted.guest_metrics_refused, 0);
}

#[tokio::test]
async fn rejected_rows_go_to_their_sink_with_cause_place_and_content() {
    let job = job_of("sums", numbers(&[1, -5, 13, 2]), RejectedPolicy::Sink("rejected".into()), 1).await;
    run_to_end(job.plan).await;
    let rejected = job.rejected.batches();
    let column = |name: &str| -> Vec<String> {
        let of = |batch: &Batch| {
            let column = batch.columns().column_by_name(name).expect("the schema is fixed").clone();
            (0..column.len())
                .map(move |row| arrow_cast::display::array_value_to_string(&column, row).expect("it prints"))
                .collect::<Vec<_>>()
        };
        rejected.iter().flat_map(of).collect()
    };
    assert_eq!(column("row"), [r#"{"key":-2,"number":-5}"#, r#"{"key":1,"number":13}"#]);
    assert_eq!(column("reason")[0], "negative");
    assert!(column("reason")[1].contains("trapped"), "{:?}", column("reason"));
    assert_eq!(column("position"), ["1", "2"]);
    assert_eq!(column("operator"), ["sums", "sums"]);
    assert!(rejected[0].columns().column_by_name("key_hash").expect("fixed").is_valid(0));
    assert_eq!(values(&job.out.batches()), [[1, 1, 1], [2, 2, 1]]);
    assert!(rejected[0].column(0).as_string_opt::<i32>().is_some());
}

#[tokio::test]
async fn a_timer_that_sets_itself_for_ever_is_cut_after_the_end_of_input() {
    let job = job_of("endless", numbers(&[1, 2]), RejectedPolicy::Fail, 1).await;
    let summary = run_to_end(job.plan).await;
    assert_eq!(summary.operators[1].timers_cut, 2);
    assert_eq!(job.out.num_rows(), 2 * 1_001);
    assert!(summary.notes[0].starts_with("`endless`"), "{:?}", summary.notes);
}

/// Nothing that follows would ever be taken: not the rows, not a barrier.
#[tokio::test]
async fn a_timer_that_sets_itself_for_no_later_time_is_cut_and_the_rows_go_on() {
    for order in [RowOrder::Arrival, RowOrder::EventTime] {
        // The watermark passes after 1,024 rows, so their timers fire while others are still to come.
        let batch = keyed_rows(&(0..2_048).map(|number| (number, number, number)).collect::<Vec<_>>());
        let job = ordered_job_of("stuck", vec![batch], RejectedPolicy::Fail, 1, order).await;
        let summary = tokio::time::timeout(Duration::from_secs(60), run_to_end(job.plan)).await.expect("it comes to its end");
        assert_eq!(job.out.num_rows(), 2_048);
        assert_eq!(summary.operators[1].timers_cut, 8, "{order:?}");
    }
}
