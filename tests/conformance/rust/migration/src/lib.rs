//! Conformance case `migration`. State of two older versions in forms that no rule of the host reads.

use std::num::ParseIntError;

use millstream::{ListState, Out, Row, State};

/// What version 1 kept: minutes, as text.
#[derive(State)]
pub struct TotalV1 {
    minutes: String,
}

/// What version 2 kept: hours and minutes.
#[derive(State)]
#[state(version = 2)]
pub struct TotalV2 {
    hours: u32,
    minutes: u32,
}

/// What is kept now.
#[derive(State, Default)]
#[state(version = 3, migrates(TotalV1, TotalV2))]
pub struct Total {
    seconds: u64,
}

impl TryFrom<TotalV1> for Total {
    type Error = ParseIntError;

    fn try_from(old: TotalV1) -> Result<Self, ParseIntError> {
        Ok(Self { seconds: old.minutes.parse::<u64>()? * 60 })
    }
}

impl From<TotalV2> for Total {
    fn from(old: TotalV2) -> Self {
        Self { seconds: u64::from(old.hours) * 3_600 + u64::from(old.minutes) * 60 }
    }
}

/// An entry of the log; version 1 had a bare number of minutes.
#[derive(State)]
#[state(version = 2, migrates(u32))]
pub struct Entry {
    seconds: u64,
}

impl From<u32> for Entry {
    fn from(minutes: u32) -> Self {
        Self { seconds: u64::from(minutes) * 60 }
    }
}

/// The total of a name so far.
#[derive(Row)]
pub struct Sum {
    seconds: u64,
    entries: u64,
}

/// Adds up seconds per name.
#[millstream::operator(keyed, migrates)]
pub fn add(seconds: u64, total: &mut Total, log: &mut ListState<Entry>, out: &mut Out<Sum>) {
    total.seconds += seconds;
    log.push(Entry { seconds });
    out.push(Sum { seconds: total.seconds, entries: log.values().len() as u64 });
}
