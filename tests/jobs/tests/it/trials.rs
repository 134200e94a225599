//! A canary in a durable job whose process dies: the old version goes on everywhere, with what the new one left, and every row counts once.

use millstream_engine::run::{NewVersion, Share, TrialMode, TrialPhase, TrialRequest, TrialRule};

use crate::swaps::{Place, Process};

/// The new version answers for half of the keys until something ends that.
fn canary(version: NewVersion) -> TrialRequest {
    let mode = TrialMode::Canary { share: Share::of_percent(50.0).expect("a share") };
    // Both answer the same; how long that takes is not what is tried here.
    let rule = TrialRule { cpu_ratio_max: 1_000.0, ..TrialRule::of(mode) };
    TrialRequest { rule, ..TrialRequest::of(version, mode) }
}

fn tries(process: &Process, version: &str) {
    let version = process.new_version(version);
    process.runtime.block_on(process.handle.try_version(canary(version))).expect("it can be tried");
}

/// Waits until the new version has answered for so many rows.
fn until_applied(process: &Process, rows: u64) {
    loop {
        let report = process.runtime.block_on(process.handle.trial_report()).expect("it was tried");
        assert_eq!(report.status.phase, TrialPhase::Trying, "{report:?}");
        if report.status.counts.rows_applied >= rows {
            return;
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_crash_during_a_canary_goes_on_with_the_old_version_and_every_row_counts_once() {
    for checkpoint_during_it in [false, true] {
        let place = Place::new();
        let process = place.start("tally");
        process.checkpoint();
        tries(&process, "tally-next");
        until_applied(&process, 20);
        if checkpoint_during_it {
            // What the new version has put out and changed is committed, and stays.
            process.checkpoint();
            until_applied(&process, 60);
        }
        assert_eq!(process.version(), "jobs-tally", "a version on trial is not the one that runs");
        process.kill();
        assert_eq!(place.goes_on_with("tally"), "jobs-tally");
    }
}

/// A swap is written down before the first subtask switches: also one that promotes a trial.
#[test]
fn a_crash_after_a_promotion_was_settled_goes_on_with_the_new_version() {
    let place = Place::new();
    let process = place.start("tally");
    process.checkpoint();
    tries(&process, "tally-next");
    until_applied(&process, 20);
    let trial = process.runtime.block_on(process.handle.trial_report()).expect("it was tried").status.trial;
    process.runtime.block_on(process.handle.promote_trial(trial, std::time::Duration::ZERO)).expect("it is under way");
    process.until(&millstream_engine::run::SwapPhase::Settled);
    process.kill();
    assert_eq!(place.goes_on_with("tally"), "jobs-tally-next");
}

/// Other state, even if it could be read: two versions write it at the same time.
#[test]
fn a_canary_that_keeps_other_state_is_refused_and_the_state_named() {
    let place = Place::new();
    let process = place.start("tally");
    let version = process.new_version("tally-wide");
    let error = process.runtime.block_on(process.handle.try_version(canary(version))).expect_err("its state is wider").to_string();
    assert!(error.contains("state `seen`") && error.contains("swap instead"), "{error}");
    process.checkpoint();
    process.kill();
    assert_eq!(place.goes_on_with("tally"), "jobs-tally");
}
