//! Whole jobs, simulated: one thread, a clock, storage, sources, sinks and crashes that follow from a seed. What a job writes must be what arithmetic
//! says, whatever happened on the way; and the same seed gives the same history, bit for bit.
//!
//! Every failure prints its seed. `MILLSTREAM_SEED=<seed>` runs that one alone and prints its history; `MILLSTREAM_SOAK=1` runs long.
//!
//! In reading order: [`world`] (gates, crashes, trace), [`clock`], [`storage`], [`source`], [`sink`], [`operators`], [`jobs`] (what runs, and
//! what must come out), [`lives`] (processes one after the other). [`storage_errors`]: a
//! storage that is full or broken; [`wall_clock`]: a clock that is wrong.

#![expect(clippy::print_stdout, reason = "seeds and figures are read by people")]

mod clock;
mod jobs;
mod lives;
mod operators;
mod sink;
mod source;
mod storage;
mod storage_errors;
mod wall_clock;
mod world;

use std::env;

use jobs::Kind;
use lives::{Told, simulate};

/// Seeds of one test in `make test`, and in `make soak`; there are six tests.
const SEEDS: u64 = 34;
const SEEDS_SOAK: u64 = 3_400;

#[test]
fn a_keyed_count_loses_and_doubles_no_row() {
    survives(Kind::Counting);
}

#[test]
fn windows_hold_every_row_once() {
    survives(Kind::Windows);
}

#[test]
fn a_temporal_join_joins_every_row_once_with_its_version() {
    survives(Kind::Joining);
}

#[test]
fn rows_in_event_time_order_stay_in_order() {
    survives(Kind::Ordered);
}

#[test]
fn every_timer_fires_once_at_its_place() {
    survives(Kind::Timers);
}

#[test]
fn reminders_in_processing_time_leave_no_row_out() {
    survives(Kind::Reminders);
}

/// In these histories an operator gives so much at once that no barrier behind it comes through in time, in one attempt after the other.
#[test]
fn a_job_whose_checkpoints_never_come_through_ends_and_says_so() {
    for (kind, seed) in [(Kind::Joining, 366), (Kind::Ordered, 1757)] {
        let told = simulate(kind, seed);
        check(kind, seed, &told);
        let says_so = |line: &String| line.contains("ended: Failed") && line.contains("without a checkpoint committed");
        assert!(told.trace.iter().any(says_so), "{kind:?} MILLSTREAM_SEED={seed} is no such history any more");
    }
}

/// Runs every seed; the first of them twice.
fn survives(kind: Kind) {
    if let Some(seed) = env::var("MILLSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        let told = simulate(kind, seed);
        told.trace.iter().for_each(|line| println!("{line}"));
        return check(kind, seed, &told);
    }
    let seeds = if env::var_os("MILLSTREAM_SOAK").is_some() { SEEDS_SOAK } else { SEEDS };
    let (mut lives, mut crashes, mut steps) = (0, 0, 0);
    for seed in 0..seeds {
        let told = simulate(kind, seed);
        check(kind, seed, &told);
        if seed < SEEDS / 4 {
            replays(kind, seed, &told);
        }
        (lives, crashes, steps) = (lives + told.lives, crashes + told.crashes, steps + told.trace.len());
    }
    println!("{kind:?}: {seeds} seeds, {lives} processes, {crashes} crashes, {steps} steps; 0 failures");
    assert!(u64::from(crashes) > seeds, "processes must die, or the simulation shows nothing");
}

fn check(kind: Kind, seed: u64, told: &Told) {
    let last = &told.trace[told.trace.len().saturating_sub(60)..];
    assert!(told.broken.is_empty(), "{kind:?} MILLSTREAM_SEED={seed}: {:#?}\nthe last steps:\n{}", told.broken, last.join("\n"));
}

/// The same seed gives the same history.
fn replays(kind: Kind, seed: u64, told: &Told) {
    let again = simulate(kind, seed);
    let different = told.trace.iter().zip(&again.trace).position(|(first, second)| first != second);
    if let Some(step) = different {
        let around = |trace: &[String]| trace[step.saturating_sub(5)..(step + 3).min(trace.len())].join("\n");
        panic!("{kind:?} MILLSTREAM_SEED={seed} is not replayed from step {step}:\n{}\n--\n{}", around(&told.trace), around(&again.trace));
    }
    assert_eq!(told.trace.len(), again.trace.len(), "{kind:?} MILLSTREAM_SEED={seed}");
}
