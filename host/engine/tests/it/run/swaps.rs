//! Swaps in a running job: prepared, switched, on probation, settled, undone.

use std::{sync::Arc, time::Duration};

use millstream_engine::{
    clock::ManualClock,
    graph::{Edge, Exchange, JobPlan, OperatorNode},
    operator::OutputPort,
    run::{
        JobHandle, JobStatus, NewVersion, Phase, RunSettings, SwapError, SwapId, SwapPart, SwapPhase, SwapRequest, SwitchAt, VersionCause,
        start,
    },
    testing::{CollectSink, FedSource, JobBuilder, edge, unkeyed},
};
use millstream_model::Batch;

use super::{by_key, event_time, failed, finished, guests, keyed_rows, sorted, values};

const KEYS: i64 = 30;

/// A job fed by hand: `sums` in so many subtasks, and behind it `more` components that keep what they get.
struct Fed {
    source: FedSource,
    sink: CollectSink,
    handle: JobHandle,
    clock: Arc<ManualClock>,
}

fn plan(
    source: &FedSource,
    sink: &CollectSink,
    guest: millstream_engine::operators::component::ComponentOperatorPlan,
    parallelism: u32,
) -> Arc<JobPlan> {
    let mut job = JobBuilder::new();
    let from = job.source("rows", source.clone(), event_time(0), 1);
    let stream = job.output(from, OutputPort::Port(0));
    let node = OperatorNode { keys: Some(vec![vec![0]]), ..unkeyed(guest, vec![stream]) };
    let operator = job.operator("sums", node, parallelism, vec![Edge { columns: None, ..by_key(from) }]);
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), parallelism);
    job.build()
}

async fn fed(parallelism: u32) -> Fed {
    let source = FedSource::new(keyed_rows(&[]).schema());
    let sink = CollectSink::default();
    let mut job = JobBuilder::new();
    let from = job.source("rows", source.clone(), event_time(0), 1);
    let guest = guests::planned("sums", &job.output(from, OutputPort::Port(0)), Some(0)).await;
    let plan = plan(&source, &sink, guest, parallelism);
    let clock = Arc::new(ManualClock::at(0));
    let handle = start(plan, RunSettings::new().with_clock(clock.clone()));
    Fed { source, sink, handle, clock }
}

/// One row per key, all with this number.
fn batch(number: i64) -> Batch {
    keyed_rows(&(0..KEYS).map(|key| (key, number, 0)).collect::<Vec<_>>())
}

/// Per batch: what each key's sum is then, and by which version of `sums`.
fn expected(sums: &[(i64, i64)]) -> Vec<Vec<i64>> {
    sorted((0..KEYS).flat_map(|key| sums.iter().map(move |&(sum, by)| vec![key, sum, by])).collect())
}

/// Waits for rows, but not for those of a job that has ended.
async fn rows_come(handle: &JobHandle, sink: &CollectSink, rows: usize) {
    tokio::select! {
        biased;
        () = sink.wait_for_rows(rows) => {}
        outcome = handle.wait() => panic!("{} of {rows} rows, then {outcome:?}", sink.num_rows()),
    }
}

impl Fed {
    /// Feeds a batch and waits until `batches` came out.
    async fn feed(&self, number: i64, batches: usize) {
        self.source.feed(batch(number));
        rows_come(&self.handle, &self.sink, batches * KEYS as usize).await;
    }

    async fn status(&self) -> JobStatus {
        self.handle.status().await.expect("it runs")
    }

    async fn phase(&self) -> SwapPhase {
        self.status().await.swap.expect("something was swapped").phase
    }

    /// Waits until the swap is over.
    async fn until_over(&self) -> SwapPhase {
        loop {
            let status = self.status().await;
            let phase = status.swap.expect("something was swapped").phase;
            if phase.is_over() {
                return phase;
            }
            assert_ne!(status.phase, Phase::Ended, "the job ended in {phase:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn switched_to(&self, request: SwapRequest) -> SwapId {
        let swap = self.handle.prepare_swap(request).await.expect("it fits").swap;
        self.handle.switch(swap).await.expect("it switches");
        swap
    }

    async fn ends_with(self, sums: &[(i64, i64)]) {
        self.handle.drain().await;
        finished(&self.handle).await;
        assert_eq!(sorted(values(&self.sink.batches())), expected(sums));
    }

    async fn causes(&self) -> Vec<VersionCause> {
        let status = self.status().await;
        status.operators[1].versions.iter().map(|entry| entry.cause.clone()).collect()
    }
}

#[tokio::test]
async fn a_swap_in_the_middle_keeps_the_state_and_loses_no_row() {
    for (parallelism, switch_at) in [(1, SwitchAt::Batch), (3, SwitchAt::Batch), (1, SwitchAt::Barrier), (3, SwitchAt::Barrier)] {
        let job = fed(parallelism).await;
        job.feed(5, 1).await;
        let request = SwapRequest { switch_at, ..guests::swap_to("sums", "sums_next").await };
        let prepared = job.handle.prepare_swap(request).await.expect("it fits");
        assert_eq!(prepared.phase, SwapPhase::Prepared);
        assert_eq!(prepared.operators[0].changes.iter().map(|change| change.part).collect::<Vec<_>>(), [SwapPart::Component]);
        let report = job.handle.switch(prepared.swap).await.expect("it switches");
        assert_eq!((report.pauses.len(), report.ended), (parallelism as usize, 0));
        assert_eq!(job.phase().await, SwapPhase::Probation);
        job.feed(7, 2).await;
        job.ends_with(&[(5, 1), (12, 2)]).await;
    }
}

#[tokio::test]
async fn a_swap_that_does_not_fit_is_refused_with_what_differs_and_touches_nothing() {
    let job = fed(1).await;
    let error = job.handle.prepare_swap(guests::swap_to("sums", "silence").await).await.expect_err("it does not fit");
    let SwapError::Incompatible { refusals } = &error else { panic!("{error}") };
    let all = refusals[0].differences.join("\n");
    assert!(all.contains("output `out` has no column `sum`") && all.contains("state `total` is missing"), "{all}");
    let more = job.handle.prepare_swap(guests::swap_to("sums", "sums_more").await).await.expect_err("a column that is not there");
    assert!(more.to_string().contains("`weight`") && more.to_string().contains("starts from a savepoint"), "{more}");
    let nobody = job.handle.prepare_swap(guests::swap_to("nobody", "sums_next").await).await;
    assert!(matches!(nobody, Err(SwapError::UnknownOperator { .. })), "{nobody:?}");
    let nothing = SwapRequest { operators: Vec::new(), ..guests::swap_to("sums", "sums_next").await };
    assert!(matches!(job.handle.prepare_swap(nothing).await, Err(SwapError::Invalid { .. })));
    let mut twice = guests::swap_to("sums", "sums_next").await;
    twice.operators.push(twice.operators[0].clone());
    assert!(matches!(job.handle.prepare_swap(twice).await, Err(SwapError::Invalid { .. })));
    job.feed(5, 1).await;
    assert_eq!(job.causes().await, [VersionCause::Start]);
    job.ends_with(&[(5, 1)]).await;
}

/// Nothing of the failed call was applied, so no row is lost, and none counts twice; the other subtasks go back too.
#[tokio::test]
async fn a_version_that_traps_on_probation_is_put_back_by_itself_and_nothing_is_lost() {
    for parallelism in [1, 3] {
        let job = fed(parallelism).await;
        job.feed(5, 1).await;
        job.switched_to(guests::swap_to("sums", "sums_bad").await).await;
        job.feed(7, 2).await;
        let SwapPhase::RolledBack { reason } = job.until_over().await else { panic!("it goes back") };
        assert!(reason.contains("`sums`") && reason.contains("trapped"), "{reason}");
        job.feed(1, 3).await;
        assert!(matches!(&job.causes().await[..], [VersionCause::Start, VersionCause::Swap { .. }, VersionCause::Rollback { .. }]));
        let summary = job.status().await;
        assert_eq!(summary.operators[1].rows_rejected, 0);
        job.ends_with(&[(5, 1), (12, 1), (13, 1)]).await;
    }
}

#[tokio::test]
async fn a_swap_is_undone_by_one_call_on_probation_and_after_it() {
    let job = fed(2).await;
    job.feed(1, 1).await;
    job.switched_to(guests::swap_to("sums", "sums_next").await).await;
    job.feed(1, 2).await;
    job.handle.roll_back().await.expect("on probation");
    assert!(matches!(job.phase().await, SwapPhase::RolledBack { .. }));
    job.feed(1, 3).await;
    let swap = job.switched_to(guests::swap_to("sums", "sums_next").await).await;
    job.handle.settle_swap(swap).await.expect("it is on probation");
    assert_eq!(job.until_over().await, SwapPhase::Settled);
    job.feed(1, 4).await;
    job.handle.roll_back().await.expect("settled");
    job.until_over().await;
    job.feed(1, 5).await;
    assert!(matches!(job.handle.roll_back().await, Err(SwapError::UnknownSwap { .. })), "there is nothing left to undo");
    job.ends_with(&[(1, 1), (2, 2), (3, 1), (4, 2), (5, 1)]).await;
}

#[tokio::test]
async fn probation_ends_by_itself_after_its_time() {
    let job = fed(1).await;
    let request = SwapRequest { probation: Duration::from_secs(60), ..guests::swap_to("sums", "sums_next").await };
    job.switched_to(request).await;
    job.clock.advance(Duration::from_millis(59_999));
    job.feed(1, 1).await;
    assert_eq!(job.phase().await, SwapPhase::Probation);
    job.clock.advance(Duration::from_millis(1));
    assert_eq!(job.until_over().await, SwapPhase::Settled);
    job.ends_with(&[(1, 2)]).await;
}

#[tokio::test]
async fn two_swaps_at_once_are_refused() {
    let job = fed(1).await;
    let prepared = job.handle.prepare_swap(guests::swap_to("sums", "sums_next").await).await.expect("it fits");
    let second = job.handle.prepare_swap(guests::swap_to("sums", "sums_next").await).await;
    assert_eq!(second, Err(SwapError::UnderWay { swap: prepared.swap }));
    assert_eq!(job.handle.roll_back().await, Err(SwapError::UnderWay { swap: prepared.swap }));
    job.handle.abandon_swap(prepared.swap).await.expect("it is prepared");
    assert!(matches!(job.handle.switch(prepared.swap).await, Err(SwapError::UnknownSwap { .. })));
    job.switched_to(guests::swap_to("sums", "sums_next").await).await;
    let third = job.handle.prepare_swap(guests::swap_to("sums", "sums_next").await).await;
    assert!(matches!(third, Err(SwapError::UnderWay { .. })), "on probation");
    job.handle.cancel().await;
    job.handle.wait().await;
    assert_eq!(job.handle.prepare_swap(guests::swap_to("sums", "sums_next").await).await, Err(SwapError::Ended));
}

/// What the new version writes, the old one cannot read: that must be said, and then nothing puts the old one back.
#[tokio::test]
async fn a_swap_without_a_way_back_must_be_asked_for() {
    let job = fed(2).await;
    job.feed(1, 1).await;
    let request = guests::swap_to("sums", "sums_wide").await;
    let error = job.handle.prepare_swap(request.clone()).await.expect_err("it is not asked for");
    assert!(matches!(&error, SwapError::OneWay { .. }) && error.to_string().contains("state `total`"), "{error}");
    let prepared = job.handle.prepare_swap(SwapRequest { one_way: true, ..request }).await.expect("it is asked for");
    assert!(!prepared.operators[0].one_way.is_empty());
    job.handle.switch(prepared.swap).await.expect("it switches");
    assert_eq!(job.until_over().await, SwapPhase::Settled);
    job.feed(1, 2).await;
    let back = job.handle.roll_back().await.expect_err("the old version cannot read it");
    assert!(matches!(back, SwapError::Incompatible { .. }), "{back}");
    job.ends_with(&[(1, 1), (2, 3)]).await;
}

#[tokio::test]
async fn only_settings_may_change_and_those_that_do_not_fit_are_refused() {
    let source = FedSource::new(keyed_rows(&[]).schema());
    let sink = CollectSink::default();
    let mut job = JobBuilder::new();
    let from = job.source("rows", source.clone(), event_time(0), 1);
    let stream = job.output(from, OutputPort::Port(0));
    let guest = guests::planned("add", &stream, None).await;
    let operator = job.operator("add", unkeyed(guest, vec![stream]), 1, vec![edge(from, Exchange::Forward)]);
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 1);
    let handle = start(job.build(), RunSettings::new());
    source.feed(keyed_rows(&[(1, 1, 0)]));
    rows_come(&handle, &sink, 1).await;
    let set = |settings| SwapRequest::of(NewVersion { operator: "add".into(), component: None, settings: Some(settings) });
    let error = handle.prepare_swap(set(serde_json::json!({ "summand": "many" }))).await.expect_err("no number");
    assert!(error.to_string().contains("settings.summand"), "{error}");
    let prepared = handle.prepare_swap(set(serde_json::json!({ "summand": 100 }))).await.expect("they fit");
    assert_eq!(prepared.operators[0].changes.iter().map(|change| change.part).collect::<Vec<_>>(), [SwapPart::Settings]);
    handle.switch(prepared.swap).await.expect("it switches");
    source.feed(keyed_rows(&[(1, 1, 0)]));
    rows_come(&handle, &sink, 2).await;
    handle.drain().await;
    finished(&handle).await;
    assert_eq!(values(&sink.batches()).iter().map(|row| row[3]).collect::<Vec<_>>(), [1, 101]);
}

/// Two operators in one chain, and both change or none.
#[tokio::test]
async fn several_operators_change_as_one_step_and_go_back_together() {
    let source = FedSource::new(keyed_rows(&[]).schema());
    let sink = CollectSink::default();
    let mut job = JobBuilder::new();
    let from = job.source("rows", source.clone(), event_time(0), 1);
    let stream = job.output(from, OutputPort::Port(0));
    let guest = guests::planned("add", &stream, None).await;
    let add = job.operator("add", unkeyed(guest, vec![stream]), 1, vec![edge(from, Exchange::Forward)]);
    let stream = job.output(add, OutputPort::Port(0));
    let guest = guests::planned("sums", &stream, Some(0)).await;
    let node = OperatorNode { keys: Some(vec![vec![0]]), ..unkeyed(guest, vec![stream]) };
    let sums = job.operator("sums", node, 1, vec![edge(add, Exchange::Forward)]);
    job.sink("out", sink.clone(), sums, OutputPort::Port(0), 1);
    let handle = start(job.build(), RunSettings::new());
    let mut request = guests::swap_to("sums", "sums_bad").await;
    request.operators.push(NewVersion { operator: "add".into(), component: None, settings: Some(serde_json::json!({ "summand": 100 })) });
    let prepared = handle.prepare_swap(request).await.expect("they fit");
    assert_eq!(prepared.operators.len(), 2);
    handle.switch(prepared.swap).await.expect("they switch");
    source.feed(keyed_rows(&[(1, 5, 0)]));
    rows_come(&handle, &sink, 1).await;
    loop {
        let status = handle.status().await.expect("it runs");
        if status.swap.as_ref().is_some_and(|swap| swap.phase.is_over()) {
            let settings = |operator: usize| status.operators[operator].versions.last().expect("it has versions").version.settings.clone();
            assert!(settings(1).is_null(), "`add` went back too: {}", settings(1));
            break;
        }
        assert_ne!(status.phase, Phase::Ended, "{:?}", status.swap);
        tokio::task::yield_now().await;
    }
    handle.drain().await;
    finished(&handle).await;
    assert_eq!(values(&sink.batches()), [[1, 5, 1]]);
}

#[tokio::test]
async fn a_version_that_fails_after_its_probation_fails_the_job() {
    let job = fed(1).await;
    let swap = job.switched_to(guests::swap_to("sums", "sums_bad").await).await;
    job.handle.settle_swap(swap).await.expect("it is on probation");
    assert_eq!(job.until_over().await, SwapPhase::Settled);
    job.source.feed(batch(1));
    let error = failed(&job.handle).await;
    assert!(error.to_string().contains("a row was rejected"), "{error}");
}
