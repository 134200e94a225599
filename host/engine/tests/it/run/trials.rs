//! Versions on trial in a running job: what is found, what is applied, and what becomes of the job when they misbehave.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use millstream_engine::{
    clock::ManualClock,
    graph::{Edge, Exchange, JobPlan, OperatorNode},
    operator::OutputPort,
    operators::component::ComponentOperatorPlan,
    run::{
        DifferenceAt, JobHandle, NewVersion, Phase, Promotion, RunSettings, SAMPLES_MAX, Share, SwapError, SwapPhase, TrialBound,
        TrialError, TrialMode, TrialPhase, TrialReport, TrialRequest, TrialRule, TrialStatus, VersionCause, start,
    },
    testing::{CollectSink, FedSource, JobBuilder, edge, unkeyed},
};
use millstream_model::{Batch, key::KeyGroup, key::encode_keys};
use serde_json::{Value, json};

use super::{by_key, event_time, finished, guests, keyed_rows, sorted, values};

const KEYS: i64 = 40;

/// A job fed by hand: `guest` in so many subtasks.
struct Fed {
    source: FedSource,
    sink: CollectSink,
    handle: JobHandle,
    clock: Arc<ManualClock>,
    /// Numbers fed so far: each its own row.
    fed: std::cell::Cell<i64>,
}

fn plan(source: &FedSource, sink: &CollectSink, guest: ComponentOperatorPlan, parallelism: u32) -> Arc<JobPlan> {
    let mut job = JobBuilder::new();
    let from = job.source("rows", source.clone(), event_time(0), 1);
    let stream = job.output(from, OutputPort::Port(0));
    let node = OperatorNode { keys: Some(vec![vec![0]]), ..unkeyed(guest, vec![stream]) };
    let operator = job.operator("sums", node, parallelism, vec![Edge { columns: None, ..by_key(from) }]);
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), parallelism);
    job.build()
}

async fn fed(guest: &str, parallelism: u32) -> Fed {
    let source = FedSource::new(keyed_rows(&[]).schema());
    let sink = CollectSink::default();
    let mut job = JobBuilder::new();
    let from = job.source("rows", source.clone(), event_time(0), 1);
    let planned = guests::planned(guest, &job.output(from, OutputPort::Port(0)), Some(0)).await;
    let plan = plan(&source, &sink, planned, parallelism);
    let clock = Arc::new(ManualClock::at(0));
    let handle = start(plan, RunSettings::new().with_clock(clock.clone()));
    Fed { source, sink, handle, clock, fed: std::cell::Cell::new(0) }
}

fn with(mode: TrialMode, settings: Value) -> TrialRequest {
    TrialRequest::of(NewVersion { operator: "sums".into(), component: None, settings: Some(settings) }, mode)
}

fn shadow(settings: Value) -> TrialRequest {
    with(TrialMode::Shadow, settings)
}

const SHARE: f64 = 25.0;

fn share() -> Share {
    Share::of_percent(SHARE).expect("a share")
}

fn canary(settings: Value) -> TrialRequest {
    with(TrialMode::Canary { share: share() }, settings)
}

/// Whether a key belongs to the share.
fn is_shared(key: i64) -> bool {
    let column = keyed_rows(&[(key, 0, 0)]).column(0).clone();
    let keys = encode_keys(&[column], 1).expect("a key");
    share().holds(KeyGroup::of_hash(keys.hashes()[0]))
}

/// The numbers from 1 on, each with a key.
fn rows(numbers: std::ops::RangeInclusive<i64>) -> Batch {
    keyed_rows(&numbers.map(|number| (number % KEYS, number, number)).collect::<Vec<_>>())
}

/// What sums are put out for the numbers up to this one.
fn sums(numbers: i64) -> Vec<Vec<i64>> {
    let mut totals = vec![0; KEYS as usize];
    let sum = |number: i64| {
        let key = number % KEYS;
        totals[key as usize] += number;
        vec![key, totals[key as usize]]
    };
    sorted((1..=numbers).map(sum).collect())
}

impl Fed {
    /// Feeds so many numbers more and waits until as many rows came out in all as went in.
    async fn feed(&self, count: i64) {
        let first = self.fed.get() + 1;
        self.fed.set(self.fed.get() + count);
        self.source.feed(rows(first..=self.fed.get()));
        let wanted = self.fed.get() as usize;
        tokio::select! {
            biased;
            () = self.sink.wait_for_rows(wanted) => {}
            outcome = self.handle.wait() => panic!("{} of {wanted} rows, then {outcome:?}", self.sink.num_rows()),
        }
    }

    async fn tries(&self, request: TrialRequest) -> TrialStatus {
        self.handle.try_version(request).await.expect("it can be tried")
    }

    async fn report(&self) -> TrialReport {
        self.handle.trial_report().await.expect("something was tried")
    }

    /// Waits until the trial is over.
    async fn until_over(&self) -> TrialReport {
        loop {
            let report = self.report().await;
            if report.status.phase.is_over() {
                return report;
            }
            assert_ne!(self.handle.status().await.expect("it runs").phase, Phase::Ended, "the job ended: {report:?}");
            tokio::task::yield_now().await;
        }
    }

    async fn rolled_back(&self) -> (TrialBound, String, TrialReport) {
        let report = self.until_over().await;
        let TrialPhase::RolledBack { bound, reason } = report.status.phase.clone() else { panic!("{:?}", report.status) };
        (bound, reason, report)
    }

    /// Every number was added once, in the order in which they came; without who did it.
    async fn ends_right(self) -> Vec<Vec<i64>> {
        self.handle.drain().await;
        finished(&self.handle).await;
        let all = values(&self.sink.batches());
        assert_eq!(sorted(all.iter().map(|row| row[..2].to_vec()).collect()), sums(self.fed.get()));
        all
    }

    async fn causes(&self) -> Vec<VersionCause> {
        let status = self.handle.status().await.expect("it runs");
        status.operators[1].versions.iter().map(|entry| entry.cause.clone()).collect()
    }
}

#[tokio::test]
async fn a_shadow_that_differs_on_one_row_in_a_hundred_is_counted_exactly_and_changes_nothing() {
    for parallelism in [1, 3] {
        let job = fed("tried", parallelism).await;
        job.feed(100).await;
        job.tries(shadow(json!({ "wrong-every": 100 }))).await;
        for _ in 0..10 {
            job.feed(1_000).await;
        }
        let report = job.report().await;
        let counts = report.status.counts;
        assert_eq!((counts.rows, counts.rows_not_compared, counts.rows_applied), (10_000, 0, 0));
        assert_eq!((counts.rows_differing, counts.rows_missing, counts.rows_extra), (100, 100, 100));
        assert_eq!((counts.updates_differing, counts.failures, counts.rejects_extra), (0, 0, 0));
        assert_eq!(report.samples.len(), SAMPLES_MAX);
        for sample in &report.samples {
            assert_eq!(sample.at, DifferenceAt::Output("out".into()));
            let (old, new) = (sample.old.as_ref().expect("a sum"), sample.new.as_ref().expect("a wrong one"));
            assert_eq!((&old["key"], &new["sum"]), (&new["key"], &json!(-1)));
            assert!(sample.key_hash.is_some() && old["sum"].as_i64() > Some(0), "{sample:?}");
        }
        job.handle.end_trial(report.status.trial).await.expect("it is under way");
        job.feed(100).await;
        assert_eq!(job.report().await.status.counts, counts, "nothing is counted after its end");
        let rows = job.ends_right().await;
        assert!(rows.iter().all(|row| row[2] == 0));
    }
}

/// What is put out is the same at first: the state tells earlier.
#[tokio::test]
async fn a_shadow_that_leaves_other_state_is_found_by_its_changes_and_leaves_none() {
    let job = fed("tried", 2).await;
    job.tries(shadow(json!({ "twice-every": 100 }))).await;
    for _ in 0..5 {
        job.feed(KEYS).await;
    }
    job.feed(1).await;
    let report = job.report().await;
    // 100 and 200 are added twice by the shadow; every call begins with what the old version left, so nothing follows from it.
    assert_eq!((report.status.counts.updates_differing, report.status.counts.rows_differing), (2, 2));
    let state = report.samples.iter().find(|sample| sample.at == DifferenceAt::State("total".into())).expect("a sample of the state");
    assert!(state.old != state.new && state.key_hash.is_some(), "{state:?}");
    job.ends_right().await;
}

#[tokio::test]
async fn a_shadow_that_traps_touches_nothing_and_is_taken_down_when_it_did_too_often() {
    let job = fed("tried", 1).await;
    let request = shadow(json!({ "trap-at": 150 }));
    job.tries(TrialRequest { rule: TrialRule { failures_max: 1, ..request.rule }, ..request }).await;
    job.feed(100).await;
    job.feed(100).await;
    let report = job.report().await;
    assert_eq!((report.status.phase.clone(), report.status.counts.failures), (TrialPhase::Trying, 1));
    assert_eq!((report.status.counts.rows, report.status.counts.rows_not_compared), (100, 100));
    assert!(report.failures[0].contains("trapped"), "{report:?}");
    job.handle.end_trial(report.status.trial).await.expect("it is under way");
    job.tries(TrialRequest {
        rule: TrialRule { failures_max: 0, ..TrialRule::of(TrialMode::Shadow) },
        ..shadow(json!({ "trap-at": 250 }))
    })
    .await;
    job.feed(100).await;
    let (bound, reason, _) = job.rolled_back().await;
    assert!(bound == TrialBound::Failures && reason.contains("trapped"), "{reason}");
    job.feed(100).await;
    let status = job.handle.status().await.expect("it runs");
    assert_eq!((status.operators[1].traps, status.operators[1].rows_rejected), (0, 0), "those of a shadow are not the operator's");
    job.ends_right().await;
}

/// A call may use a second; a version on trial is stopped when it has used what its ratio leaves.
#[tokio::test]
async fn a_shadow_that_loops_is_stopped_when_it_has_used_what_it_may() {
    let job = fed("tried", 1).await;
    job.tries(shadow(json!({ "loop-at": 50 }))).await;
    job.feed(100).await;
    let (bound, reason, report) = job.rolled_back().await;
    assert_eq!(bound, TrialBound::CpuRatio, "{reason}");
    let counts = report.status.counts;
    assert!(counts.new_cpu_us >= 250_000 + 3 * counts.old_cpu_us, "{counts:?}");
    let used = job.handle.status().await.expect("it runs").operators[1].guest_time;
    assert!(used >= Duration::from_millis(250), "what a trial uses its tenant has used: {used:?}");
    let limit = report.failures[0].split_once("limit of ").and_then(|(_, rest)| rest.split_once(" for CPU time per call in ms"));
    let limit_ms: u64 = limit.and_then(|(number, _)| number.parse().ok()).expect("the limit that it met");
    assert!((250..=251 + 3 * counts.old_cpu_us / 1_000).contains(&limit_ms), "not the second that any call has: {report:?}");
    job.feed(100).await;
    job.ends_right().await;
}

/// The job of these tests fails at the first rejected row.
#[tokio::test]
async fn a_row_that_only_the_version_on_trial_rejects_is_counted_and_answered_by_the_old_one() {
    let any = |request: TrialRequest| TrialRequest { rule: TrialRule { rejects_max: None, differing_max: 1.0, ..request.rule }, ..request };
    let shared = (1..KEYS).find(|&key| is_shared(key)).expect("a share of the keys");
    for request in [shadow(json!({ "reject-at": shared })), any(canary(json!({ "reject-at": shared })))] {
        let job = fed("tried", 1).await;
        job.tries(request).await;
        // One row per key: nothing follows from the row within the call.
        job.feed(KEYS).await;
        let report = job.report().await;
        assert_eq!((report.status.counts.rejects_extra, report.status.counts.rows_missing), (1, 1));
        assert!(report.samples.iter().any(|sample| sample.at == DifferenceAt::Rejected && sample.new == Some(json!("not this one"))));
        job.ends_right().await;
    }
    let job = fed("tried", 1).await;
    job.tries(canary(json!({ "reject-at": shared }))).await;
    job.feed(100).await;
    assert_eq!(job.rolled_back().await.0, TrialBound::Rejects);
    job.ends_right().await;
}

/// Its answers are marked, so every row says who gave it. After the end the old version goes on with what the new one left.
#[tokio::test]
async fn a_canary_answers_for_its_share_of_the_keys_and_for_no_other() {
    for parallelism in [1, 3] {
        let job = fed("tried", parallelism).await;
        job.feed(500).await;
        let request = canary(json!({ "by": 2 }));
        job.tries(TrialRequest { rule: TrialRule { differing_max: 1.0, ..request.rule }, ..request }).await;
        job.feed(1_000).await;
        job.feed(1_000).await;
        let trial = job.report().await.status.trial;
        let counts = job.handle.end_trial(trial).await.expect("it is under way").counts;
        job.feed(500).await;
        let all = job.ends_right().await;
        let by_new: Vec<&Vec<i64>> = all.iter().filter(|row| row[2] == 2).collect();
        let keys: BTreeSet<i64> = by_new.iter().map(|row| row[0]).collect();
        assert_eq!(keys, (0..KEYS).filter(|&key| is_shared(key)).collect(), "all keys of the share, and no other");
        assert!(!keys.is_empty() && (keys.len() as f64) < KEYS as f64 / 2.0, "{keys:?}");
        assert_eq!(by_new.len() as u64, counts.rows_applied);
        assert_eq!(
            (counts.rows, counts.rows_applied),
            (2_000 * keys.len() as u64 / KEYS as u64, counts.rows),
            "only the share is compared"
        );
    }
}

/// The old version answers beside the new one, so the first wrong answer is found before anything of it is applied. (99 divides rows of all keys.)
#[tokio::test]
async fn a_canary_with_wrong_answers_goes_back_by_itself_before_one_is_applied() {
    for wrong in [json!({ "wrong-every": 99 }), json!({ "twice-every": 99 })] {
        let job = fed("tried", 2).await;
        job.tries(canary(wrong)).await;
        job.feed(90).await;
        for _ in 0..10 {
            job.feed(400).await;
        }
        let (bound, reason, report) = job.rolled_back().await;
        assert_eq!(bound, TrialBound::Differing, "{reason}");
        assert!(report.status.counts.rows_applied > 0, "it answered until then");
        assert!(matches!(&job.causes().await[..], [VersionCause::Start]), "the operator never had another version");
        job.ends_right().await;
    }
}

/// With a bound above none some wrong answers are seen: for keys of the share, and as many as the bound lets through.
#[tokio::test]
async fn of_wrong_answers_only_those_within_the_bound_are_seen_and_only_for_keys_of_the_share() {
    let job = fed("tried", 2).await;
    let request = canary(json!({ "wrong-every": 19 }));
    job.tries(TrialRequest { rule: TrialRule { differing_max: 0.01, ..request.rule }, ..request }).await;
    for _ in 0..20 {
        job.feed(200).await;
    }
    assert_eq!(job.rolled_back().await.0, TrialBound::Differing);
    job.handle.drain().await;
    finished(&job.handle).await;
    let all = values(&job.sink.batches());
    let wrong: Vec<&Vec<i64>> = all.iter().filter(|row| row[1] == -1).collect();
    assert!((1..=10).contains(&wrong.len()), "{} wrong rows; 1 % of 1,000 may be", wrong.len());
    assert!(wrong.iter().all(|row| is_shared(row[0])));
    // The state was right all the time, so every other row is.
    let right: Vec<Vec<i64>> = sorted(all.iter().filter(|row| row[1] != -1).map(|row| row[..2].to_vec()).collect());
    let expected = sums(job.fed.get());
    assert_eq!(right.len() + wrong.len(), expected.len());
    assert!(right.iter().all(|row| expected.binary_search(row).is_ok()));
}

#[tokio::test]
async fn a_canary_that_traps_loops_or_makes_values_too_large_goes_back_and_no_row_is_lost() {
    let shared = (1..KEYS).find(|&key| is_shared(key)).expect("a share of the keys");
    for (settings, said) in [
        (json!({ "trap-at": shared }), "trapped"),
        (json!({ "loop-at": shared }), "CPU time"),
        (json!({ "large-at": shared }), "1048576 allowed"),
    ] {
        let job = fed("tried", 2).await;
        let request = canary(settings);
        job.tries(TrialRequest { rule: TrialRule { differing_max: 1.0, ..request.rule }, ..request }).await;
        job.feed(100).await;
        let (_, _, report) = job.rolled_back().await;
        assert!(report.failures.iter().any(|failure| failure.contains(said)), "{said}: {report:?}");
        assert!(serde_json::to_string(&report).expect("JSON").len() < 100_000, "what is too large is not shown whole");
        job.feed(100).await;
        job.ends_right().await;
    }
}

#[tokio::test]
async fn a_canary_that_needs_three_times_the_cpu_time_goes_back_by_itself() {
    let job = fed("tried", 2).await;
    // What runs needs time too, so that the ratio says something.
    let rounds = 400_000;
    let slower = NewVersion { operator: "sums".into(), component: None, settings: Some(json!({ "rounds": rounds })) };
    let swap = job.handle.prepare_swap(millstream_engine::run::SwapRequest::of(slower)).await.expect("it fits").swap;
    job.handle.switch(swap).await.expect("it switches");
    job.handle.settle_swap(swap).await.expect("it is on probation");
    while job.handle.status().await.expect("it runs").swap.is_some_and(|swap| !swap.phase.is_over()) {
        tokio::task::yield_now().await;
    }
    let request = canary(json!({ "rounds": 3 * rounds }));
    let rule = TrialRule { cpu_ratio_max: 2.0, ..request.rule };
    job.tries(TrialRequest { rule, ..request }).await;
    while !job.report().await.status.phase.is_over() {
        job.feed(KEYS).await;
    }
    let (bound, reason, report) = job.rolled_back().await;
    assert_eq!(bound, TrialBound::CpuRatio, "{reason}");
    assert!(report.status.counts.old_cpu_us > 0 && report.status.counts.rows_applied > 0);
    job.ends_right().await;
}

#[tokio::test]
async fn a_good_canary_is_promoted_by_itself_when_rows_and_time_have_come() {
    let job = fed("tried", 2).await;
    job.feed(100).await;
    let request = canary(json!({ "by": 2 }));
    let rule =
        TrialRule { differing_max: 1.0, promote_after_rows: Some(100), promote_after: Some(Duration::from_secs(60)), ..request.rule };
    job.tries(TrialRequest { rule, promotion: Promotion::ByItself { probation: Duration::ZERO }, ..request }).await;
    for _ in 0..10 {
        job.feed(100).await;
    }
    assert_eq!(job.report().await.status.phase, TrialPhase::Trying, "its time has not come");
    job.clock.advance(Duration::from_secs(60));
    let report = job.until_over().await;
    assert!(matches!(report.status.phase, TrialPhase::Promoted { .. }), "{:?}", report.status);
    while job.handle.status().await.expect("it runs").swap.is_some_and(|swap| swap.phase != SwapPhase::Settled) {
        tokio::task::yield_now().await;
    }
    job.feed(100).await;
    assert!(matches!(&job.causes().await[..], [VersionCause::Start, VersionCause::Swap { .. }]));
    let fed = job.fed.get();
    let all = job.ends_right().await;
    let last = sums(fed).len() - 100;
    assert!(all[last..].iter().all(|row| row[2] == 2), "the new version answers for all keys");
}

#[tokio::test]
async fn a_shadow_can_be_promoted_by_hand_and_its_swap_be_undone() {
    let job = fed("tried", 2).await;
    let trial = job.tries(shadow(json!({ "by": 2 }))).await.trial;
    job.feed(100).await;
    job.handle.promote_trial(trial, Duration::from_secs(30)).await.expect("it is under way");
    assert!(matches!(job.report().await.status.phase, TrialPhase::Promoted { .. }));
    job.feed(100).await;
    job.handle.roll_back().await.expect("its swap is on probation");
    job.feed(100).await;
    let all = job.ends_right().await;
    let by = |rows: &[Vec<i64>]| rows.iter().map(|row| row[2]).collect::<BTreeSet<_>>();
    assert_eq!([by(&all[..100]), by(&all[100..200]), by(&all[200..])], [[0], [2], [0]].map(BTreeSet::from));
}

/// A swap that was prepared to promote a trial is nothing any more when the trial has gone back.
#[tokio::test]
async fn a_version_that_has_gone_back_is_not_promoted_by_a_swap_that_was_prepared_before() {
    let job = fed("tried", 2).await;
    let request = canary(json!({ "wrong-every": 99 }));
    let version = request.version.clone();
    let trial = job.tries(request).await.trial;
    let promoting = millstream_engine::run::SwapRequest { promotes: Some(trial), ..millstream_engine::run::SwapRequest::of(version) };
    let swap = job.handle.prepare_swap(promoting).await.expect("it promotes the trial").swap;
    while !job.report().await.status.phase.is_over() {
        job.feed(100).await;
    }
    assert_eq!(job.rolled_back().await.0, TrialBound::Differing);
    assert!(matches!(job.handle.switch(swap).await, Err(SwapError::UnknownSwap { .. })));
    assert!(matches!(&job.causes().await[..], [VersionCause::Start]));
    job.feed(100).await;
    job.ends_right().await;
}

/// The key groups of timers belong to the share as those of rows do.
#[tokio::test]
async fn timers_are_tried_too() {
    let job = fed("tried_later", 2).await;
    let later = json!({ "later": 5 });
    job.tries(shadow(later)).await;
    job.source.feed(rows(1..=KEYS));
    while job.report().await.status.counts.rows < KEYS as u64 {
        tokio::task::yield_now().await;
    }
    let report = job.report().await;
    // Each key sets a timer at another time: one is set only by the old version, one only by the new.
    assert_eq!(report.status.counts.updates_differing, 2 * KEYS as u64);
    assert!(report.samples.iter().all(|sample| sample.at == DifferenceAt::Timer("there".into())), "{:?}", report.samples);
    // The watermark of the batch has passed all timers but the last.
    job.sink.wait_for_rows(KEYS as usize - 1).await;
    job.handle.end_trial(report.status.trial).await.expect("it is under way");
    let request = canary(json!({ "by": 2 }));
    job.tries(TrialRequest { rule: TrialRule { differing_max: 1.0, ..request.rule }, ..request }).await;
    job.source.feed(rows(KEYS + 1..=2 * KEYS));
    job.handle.drain().await;
    finished(&job.handle).await;
    let by = |number: i64| if number >= KEYS && is_shared(number % KEYS) { 2 } else { 0 };
    let expected = (1..=2 * KEYS).map(|number| vec![number % KEYS, number, by(number)]).collect();
    assert_eq!(sorted(values(&job.sink.batches())), sorted(expected));
}

#[tokio::test]
async fn what_cannot_be_tried_is_refused_and_named() {
    let job = fed("tried", 1).await;
    let refused = async |request: TrialRequest| job.handle.try_version(request).await.expect_err("it is refused");
    let other = |operator: &str| {
        let version = NewVersion { operator: operator.into(), component: None, settings: None };
        TrialRequest::of(version, TrialMode::Shadow)
    };
    assert!(matches!(refused(other("nobody")).await, TrialError::UnknownOperator { .. }));
    assert!(matches!(refused(other("rows")).await, TrialError::UnknownOperator { .. }));
    let out_of_range = TrialRule { cpu_ratio_max: 0.5, ..TrialRule::of(TrialMode::Shadow) };
    assert!(matches!(refused(TrialRequest { rule: out_of_range, ..shadow(json!({})) }).await, TrialError::Invalid { .. }));
    let wrong_settings = refused(shadow(json!({ "by": "many" }))).await.to_string();
    assert!(wrong_settings.contains("settings.by"), "{wrong_settings}");
    let component = Some(guests::new_component("sums_wide").await);
    let version = NewVersion { operator: "sums".into(), component, settings: Some(Value::Null) };
    let other_state = refused(TrialRequest::of(version, TrialMode::Shadow)).await;
    assert!(matches!(&other_state, TrialError::Incompatible { .. }) && other_state.to_string().contains("state `total`"), "{other_state}");

    let trial = job.tries(shadow(json!({}))).await.trial;
    assert_eq!(refused(shadow(json!({}))).await, TrialError::UnderWay { trial });
    let swap = millstream_engine::run::SwapRequest::of(NewVersion {
        operator: "sums".into(),
        component: None,
        settings: Some(json!({ "by": 3 })),
    });
    assert_eq!(job.handle.prepare_swap(swap.clone()).await, Err(SwapError::TrialUnderWay { trial }));
    assert_eq!(job.handle.roll_back().await, Err(SwapError::TrialUnderWay { trial }));
    let unknown = millstream_engine::run::TrialId(trial.0 + 1);
    assert!(matches!(job.handle.end_trial(unknown).await, Err(TrialError::UnknownTrial { .. })));
    assert!(matches!(job.handle.promote_trial(unknown, Duration::ZERO).await, Err(SwapError::UnknownSwap { .. })));
    job.handle.end_trial(trial).await.expect("it is under way");
    let prepared = job.handle.prepare_swap(swap).await.expect("nothing is on trial").swap;
    assert_eq!(refused(shadow(json!({}))).await, TrialError::SwapUnderWay { swap: prepared });
    job.handle.abandon_swap(prepared).await.expect("it is prepared");
    job.feed(10).await;
    job.handle.drain().await;
    finished(&job.handle).await;
    assert_eq!(refused(shadow(json!({}))).await, TrialError::Ended);
}

#[tokio::test]
async fn a_canary_needs_keys_and_a_shadow_does_not() {
    let (source, sink) = (FedSource::new(keyed_rows(&[]).schema()), CollectSink::default());
    let mut job = JobBuilder::new();
    let from = job.source("rows", source.clone(), event_time(0), 1);
    let stream = job.output(from, OutputPort::Port(0));
    let guest = guests::planned("add", &stream, None).await;
    let operator = job.operator("add", unkeyed(guest, vec![stream]), 1, vec![edge(from, Exchange::Forward)]);
    job.sink("out", sink.clone(), operator, OutputPort::Port(0), 1);
    let handle = start(job.build(), RunSettings::new());
    let request = |mode| {
        let settings = Some(json!({ "summand": 1 }));
        TrialRequest::of(NewVersion { operator: "add".into(), component: None, settings }, mode)
    };
    let error = handle.try_version(request(TrialMode::Canary { share: share() })).await.expect_err("it has no keys").to_string();
    assert!(error.contains("share of the keys") && error.contains("shadow"), "{error}");
    handle.try_version(request(TrialMode::Shadow)).await.expect("a shadow gets all rows");
    source.feed(keyed_rows(&[(1, 1, 0), (2, 2, 0)]));
    sink.wait_for_rows(2).await;
    let report = handle.trial_report().await.expect("a trial");
    assert_eq!((report.status.counts.rows, report.status.counts.rows_differing), (2, 2));
    assert!(report.samples.iter().all(|sample| sample.old.is_some() && sample.new.is_some()), "rows of one row are shown together");
    handle.drain().await;
    finished(&handle).await;
}
