//! Which rows a share holds, and what a rule decides.

use std::time::Duration;

use millstream_model::key::{KEY_GROUPS, KeyGroup};

use serde_json::{Value, json};

use super::{
    Compared, DifferenceAt, End, Share, TrialBound, TrialCounts, TrialDifference, TrialId, TrialMode, TrialPhase, TrialRecord, TrialReport,
    TrialRule, TrialStatus,
};
use crate::run::swap::{OperatorVersion, SwapId};

fn share(percent: f64) -> Share {
    Share::of_percent(percent).expect("above 0 and at most 100")
}

fn canary() -> TrialMode {
    TrialMode::Canary { share: share(5.0) }
}

fn rows(rows: u64, rows_differing: u64) -> Compared {
    Compared { counts: TrialCounts { rows, rows_differing, ..TrialCounts::default() }, ..Compared::default() }
}

fn bound(record: &TrialRecord) -> Option<TrialBound> {
    match record.end() {
        Some(End::Breached { bound, .. }) => Some(bound),
        _ => None,
    }
}

#[test]
fn a_share_holds_never_more_key_groups_than_asked_for_and_at_least_one() {
    let held = |percent| (0..KEY_GROUPS).filter(|&group| share(percent).holds(KeyGroup(group))).count();
    assert_eq!([0.000_1, 0.1, 5.0, 50.0, 99.999, 100.0].map(held), [1, 4, 204, 2_048, 4_095, 4_096]);
    for wrong in [0.0, -1.0, 100.1, f64::NAN, f64::INFINITY] {
        assert!(Share::of_percent(wrong).is_err(), "{wrong}");
    }
}

/// Each of 8 subtasks tries its part, and who raises the share goes on with the same keys.
#[test]
fn a_share_is_spread_over_all_subtasks_and_a_greater_one_holds_it() {
    let of_subtask = |owner: u32| (0..KEY_GROUPS).map(KeyGroup).filter(move |group| group.owner(8).0 == owner);
    for owner in 0..8 {
        let held = of_subtask(owner).filter(|&group| share(5.0).holds(group)).count();
        assert!((25..=26).contains(&held), "{held} of 512 groups");
    }
    assert!((0..KEY_GROUPS).map(KeyGroup).all(|group| share(10.0).holds(group) || !share(5.0).holds(group)));
}

#[test]
fn the_answer_that_exceeds_a_bound_is_not_applied_nor_any_after_it() {
    let record = TrialRecord::new(canary(), TrialRule { differing_max: 0.01, ..TrialRule::of(canary()) });
    assert!(record.note(rows(100, 10)), "10 of the first 1,000 are 1 %");
    assert!(!record.note(rows(100, 1)));
    assert_eq!(bound(&record), Some(TrialBound::Differing));
    assert!(!record.note(rows(1_000_000, 0)), "nothing brings it back");
    assert_eq!(record.counts().rows, 200, "nor is it counted");
}

#[test]
fn every_bound_ends_a_trial_when_it_is_exceeded_and_not_when_it_is_reached() {
    let rule = TrialRule { failures_max: 2, rejects_max: Some(3), differing_max: 0.002, cpu_ratio_max: 2.0, ..TrialRule::of(canary()) };
    let of = |counts| Compared { counts, ..Compared::default() };
    let failed = |failures| of(TrialCounts { failures, ..TrialCounts::default() });
    let rejects = |rejects_extra| of(TrialCounts { rejects_extra, ..TrialCounts::default() });
    let updates = |updates_differing| of(TrialCounts { updates_differing, ..TrialCounts::default() });
    let cpu = |ms| Compared { old_cpu: Duration::from_millis(100), new_cpu: Duration::from_millis(ms), ..Compared::default() };
    for (reached, exceeded, expected) in [
        (failed(2), failed(1), TrialBound::Failures),
        (rejects(3), rejects(1), TrialBound::Rejects),
        (rows(0, 2), rows(0, 1), TrialBound::Differing),
        (updates(2), updates(1), TrialBound::Differing),
        (cpu(450), cpu(201), TrialBound::CpuRatio),
    ] {
        let record = TrialRecord::new(canary(), rule);
        assert!(record.note(reached), "{expected:?} may be reached");
        assert!(!record.note(exceeded), "{expected:?} is exceeded");
        assert_eq!(bound(&record), Some(expected));
    }
}

/// A version that loops is stopped when it has used what is left, not after the second that any call has.
#[test]
fn what_a_call_may_use_is_what_is_left_of_the_ratio() {
    let record = TrialRecord::new(TrialMode::Shadow, TrialRule::of(TrialMode::Shadow));
    assert_eq!(record.cpu_left(Duration::from_millis(10)), Duration::from_millis(280));
    let used = Compared { old_cpu: Duration::from_millis(10), new_cpu: Duration::from_millis(200), ..Compared::default() };
    assert!(record.note(used));
    assert_eq!(record.cpu_left(Duration::from_millis(1)), Duration::from_millis(83));
}

#[test]
fn a_trial_passes_when_rows_and_time_have_come_and_so_many_differ_as_may() {
    let rule = TrialRule {
        differing_max: 0.1,
        promote_after_rows: Some(100),
        promote_after: Some(Duration::from_secs(1)),
        ..TrialRule::of(canary())
    };
    let record = TrialRecord::new(canary(), rule);
    assert!(record.note(rows(100, 11)), "of 1,000 rows 100 may differ");
    assert_eq!(record.end(), None, "its time has not come");
    record.on_time();
    assert_eq!(record.end(), None, "11 of 100 are more than a tenth");
    assert!(record.note(rows(10, 0)));
    assert_eq!(record.end(), Some(End::Passed));
    assert!(!record.is_over(), "it goes on until it is promoted");
    record.stop();
    assert!(record.is_over());
}

#[test]
fn nothing_passes_without_being_asked_for_nor_before_a_row_was_compared() {
    let record = TrialRecord::new(canary(), TrialRule::of(canary()));
    record.on_time();
    assert!(record.note(rows(1_000_000, 0)));
    assert_eq!(record.end(), None);
    let record = TrialRecord::new(canary(), TrialRule { promote_after: Some(Duration::from_secs(1)), ..TrialRule::of(canary()) });
    record.on_time();
    assert_eq!(record.end(), None);
}

#[test]
fn values_out_of_their_range_are_refused_all_at_once() {
    assert!(TrialRule::of(canary()).check().is_ok() && TrialRule::of(TrialMode::Shadow).check().is_ok());
    let wrong = TrialRule {
        differing_max: 1.5,
        cpu_ratio_max: f64::NAN,
        promote_after_rows: Some(0),
        promote_after: Some(Duration::ZERO),
        ..TrialRule::of(canary())
    };
    let error = wrong.check().expect_err("nothing of it is right").to_string();
    assert_eq!(error.split("; ").count(), 4, "{error}");
}

/// It leaves the process as JSON, and who reads it has the same.
#[test]
fn a_report_is_read_as_it_was_written() {
    let version = OperatorVersion { name: "count".into(), version: "1".into(), component: "00".into(), settings: Value::Null };
    let difference = |at| TrialDifference { at, key_hash: Some(u64::MAX), source: None, position: Some(7), old: None, new: Some(json!(1)) };
    let places =
        [DifferenceAt::Output("out".into()), DifferenceAt::State("seen".into()), DifferenceAt::Timer("due".into()), DifferenceAt::Rejected];
    let phases = [
        TrialPhase::Trying,
        TrialPhase::Passed,
        TrialPhase::Promoting,
        TrialPhase::Promoted { swap: SwapId(3) },
        TrialPhase::RolledBack { bound: TrialBound::CpuRatio, reason: "slow".into() },
        TrialPhase::Ended { reason: "enough".into() },
    ];
    for (phase, mode) in phases.into_iter().zip([TrialMode::Shadow, canary()].into_iter().cycle()) {
        let status = TrialStatus {
            trial: TrialId(1),
            operator: "counts".into(),
            mode,
            phase,
            from: version.clone(),
            to: version.clone(),
            changes: Vec::new(),
            rule: TrialRule { promote_after: Some(Duration::from_millis(1_500)), ..TrialRule::of(mode) },
            began_ms: 1,
            ended_ms: None,
            counts: TrialCounts { rows: u64::MAX, ..TrialCounts::default() },
        };
        let report = TrialReport { status, samples: places.iter().cloned().map(difference).collect(), failures: vec!["no".into()] };
        let written = serde_json::to_value(&report).expect("it has string keys only");
        assert_eq!(serde_json::from_value::<TrialReport>(written.clone()).expect("it can be read"), report, "{written}");
    }
}
