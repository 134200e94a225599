//! What a tenant has used, by day: sums that only grow, made of readings of counters that may begin anew.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::text;

/// Days that are kept by themselves; of older ones only the sum.
const DAYS_KEPT: usize = 400;

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Amounts {
    /// CPU time of components, in µs.
    pub cpu_us: u64,
    /// Bytes of memory × seconds.
    pub memory_byte_s: u64,
    /// Bytes of checkpoints and savepoints × seconds.
    pub state_byte_s: u64,
    /// Rows that sources have read.
    pub rows_in: u64,
    /// Rows that sinks were given.
    pub rows_out: u64,
    /// Bytes that runners have sent over TCP connections that they opened.
    pub egress_bytes: u64,
}

impl Amounts {
    /// Adds the others.
    pub fn add(&mut self, more: Self) {
        let Self { cpu_us, memory_byte_s, state_byte_s, rows_in, rows_out, egress_bytes } = more;
        self.cpu_us = self.cpu_us.saturating_add(cpu_us);
        self.memory_byte_s = self.memory_byte_s.saturating_add(memory_byte_s);
        self.state_byte_s = self.state_byte_s.saturating_add(state_byte_s);
        self.rows_in = self.rows_in.saturating_add(rows_in);
        self.rows_out = self.rows_out.saturating_add(rows_out);
        self.egress_bytes = self.egress_bytes.saturating_add(egress_bytes);
    }
}

/// What a tenant has used, by day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Usage {
    /// Day (UTC, as 2026-11-22) → what was used on it.
    pub days: BTreeMap<String, Amounts>,
    /// Everything before those.
    pub earlier: Amounts,
}

impl Usage {
    /// Adds to the day of `now_ms`.
    pub fn add(&mut self, now_ms: i64, amounts: Amounts) {
        self.days.entry(day(now_ms)).or_default().add(amounts);
        while self.days.len() > DAYS_KEPT {
            let (_, oldest) = self.days.pop_first().expect("there are more than are kept");
            self.earlier.add(oldest);
        }
    }

    /// What was used on the day of `now_ms`.
    pub fn today(&self, now_ms: i64) -> Amounts {
        self.days.get(&day(now_ms)).copied().unwrap_or_default()
    }

    /// Everything.
    pub fn total(&self) -> Amounts {
        let mut total = self.earlier;
        self.days.values().for_each(|amounts| total.add(*amounts));
        total
    }
}

/// `2026-11-22`, UTC.
pub fn day(at_ms: i64) -> String {
    text::time(at_ms).chars().take_while(|&letter| letter != 'T').collect()
}

/// The counters of one run of a job. Another run begins at zero again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// CPU time of its components.
    pub cpu: Duration,
    /// Rows that its sources have read.
    pub rows_in: u64,
    /// Rows that its sinks were given.
    pub rows_out: u64,
}

impl Reading {
    /// What was used since the reading before; each counter that has shrunk has begun anew.
    pub fn since(self, before: Self) -> Amounts {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let grown = |now: u64, before: u64| now.checked_sub(before).unwrap_or(now);
        Amounts {
            cpu_us: grown(micros(self.cpu), micros(before.cpu)),
            rows_in: grown(self.rows_in, before.rows_in),
            rows_out: grown(self.rows_out, before.rows_out),
            ..Amounts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 86_400_000;

    fn rows(rows_in: u64) -> Amounts {
        Amounts { rows_in, ..Amounts::default() }
    }

    #[test]
    fn what_is_used_belongs_to_its_day_and_nothing_is_lost_when_days_are_forgotten() {
        let mut usage = Usage::default();
        usage.add(0, rows(1));
        usage.add(DAY_MS - 1, rows(2));
        usage.add(DAY_MS, rows(4));
        assert_eq!(
            usage.days.iter().map(|(day, used)| (day.as_str(), used.rows_in)).collect::<Vec<_>>(),
            [("1970-01-01", 3), ("1970-01-02", 4)]
        );
        (2..1_000).for_each(|day| usage.add(day * DAY_MS, rows(1)));
        assert_eq!((usage.days.len(), usage.total().rows_in), (DAYS_KEPT, 7 + 998));
    }

    #[test]
    fn a_run_that_begins_anew_counts_from_zero_and_never_backwards() {
        let reading = |ms, rows_in| Reading { cpu: Duration::from_millis(ms), rows_in, rows_out: 0 };
        let used = reading(30, 7).since(reading(10, 5));
        assert_eq!((used.cpu_us, used.rows_in), (20_000, 2));
        let used = reading(4, 3).since(reading(30, 7));
        assert_eq!((used.cpu_us, used.rows_in), (4_000, 3));
    }
}
