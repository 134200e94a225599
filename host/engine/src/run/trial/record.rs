//! What the subtasks of a trial find, added up and judged at once: whoever counts a call learns whether the answer of the new version may be applied.
//! Pure but for the lock and the word to who waits for the end; no clock.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;

use super::{SAMPLES_MAX, TrialBound, TrialCounts, TrialDifference, TrialMode, TrialRule};
use crate::run::job::lock;

/// Rows below which the share of rows that differ is taken of this number: the first one that differs says little.
const ROWS_JUDGED_MIN: u64 = 1_000;
/// CPU time that the new version has on top of its ratio, so that single calls that were held up by the machine decide nothing.
const CPU_GRANTED: Duration = Duration::from_millis(250);
/// The longest reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 1_000;

/// What all subtasks of a trial have found, and whether it is over.
pub struct TrialRecord {
    pub(crate) mode: TrialMode,
    rule: TrialRule,
    found: Mutex<Found>,
    decided: Notify,
}

struct Found {
    counts: TrialCounts,
    old_cpu: Duration,
    new_cpu: Duration,
    samples: Vec<TrialDifference>,
    failures: Vec<String>,
    /// The time of the rule has come, if it names one.
    is_time: bool,
    /// It is being promoted: it is counted, and not judged any more.
    is_promoted: bool,
    end: Option<End>,
}

/// What has ended a trial, or lets it be promoted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A bound was exceeded.
    Breached { bound: TrialBound, reason: String },
    /// The rule is fulfilled; the new version goes on.
    Passed,
    /// It was told to end.
    Stopped,
}

impl End {
    /// Whether the new version gets nothing more.
    fn is_over(&self) -> bool {
        !matches!(self, Self::Passed)
    }
}

/// What the comparison of one call has found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Compared {
    pub(crate) counts: TrialCounts,
    pub(crate) samples: Vec<TrialDifference>,
    pub(crate) old_cpu: Duration,
    pub(crate) new_cpu: Duration,
    /// What the new version said; none: it has answered.
    pub(crate) failure: Option<String>,
}

impl TrialRecord {
    pub(crate) fn new(mode: TrialMode, rule: TrialRule) -> Arc<Self> {
        let found = Found {
            counts: TrialCounts::default(),
            old_cpu: Duration::ZERO,
            new_cpu: Duration::ZERO,
            samples: Vec::new(),
            failures: Vec::new(),
            is_time: rule.promote_after.is_none(),
            is_promoted: false,
            end: None,
        };
        Arc::new(Self { mode, rule, found: Mutex::new(found), decided: Notify::new() })
    }

    /// Whether the new version gets nothing more.
    pub(crate) fn is_over(&self) -> bool {
        lock(&self.found).end.as_ref().is_some_and(End::is_over)
    }

    /// CPU time that the new version may use in a call for which the old one used `old_call`.
    pub(crate) fn cpu_left(&self, old_call: Duration) -> Duration {
        let found = lock(&self.found);
        self.cpu_max(found.old_cpu + old_call).saturating_sub(found.new_cpu)
    }

    /// How many samples are still wanted.
    pub(crate) fn samples_wanted(&self) -> usize {
        SAMPLES_MAX - lock(&self.found).samples.len()
    }

    /// Adds a call to what was found. True: the answer of the new version may be applied.
    pub(crate) fn note(&self, compared: Compared) -> bool {
        let mut found = lock(&self.found);
        if found.end.as_ref().is_some_and(End::is_over) {
            return false;
        }
        found.add(compared);
        if found.is_promoted {
            return true;
        }
        if let Some((bound, reason)) = self.breach(&found) {
            found.end = Some(End::Breached { bound, reason });
            drop(found);
            self.decided.notify_one();
            return false;
        }
        self.pass_if_fulfilled(&mut found);
        true
    }

    /// `rows` were answered by the new version, and its answer was applied.
    pub(crate) fn applied(&self, rows: u64) {
        lock(&self.found).counts.rows_applied += rows;
    }

    /// The time of the rule has come.
    pub(crate) fn on_time(&self) {
        let mut found = lock(&self.found);
        found.is_time = true;
        self.pass_if_fulfilled(&mut found);
    }

    /// It is being promoted: what the version does from here on is for the probation.
    pub(crate) fn promote(&self) {
        lock(&self.found).is_promoted = true;
    }

    /// The new version gets nothing more; what was decided before stays.
    pub(crate) fn stop(&self) {
        let mut found = lock(&self.found);
        if found.end.as_ref().is_none_or(|end| !end.is_over()) {
            found.end = Some(End::Stopped);
            // Nobody waits for a decision any more.
            self.decided.notify_one();
        }
    }

    /// Waits for a decision: a breach, or that the rule is fulfilled. Told again when a trial that has passed is breached.
    pub(crate) async fn decided(&self) -> End {
        loop {
            self.decided.notified().await;
            if let Some(end) = lock(&self.found).end.clone() {
                return end;
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn end(&self) -> Option<End> {
        lock(&self.found).end.clone()
    }

    pub(crate) fn counts(&self) -> TrialCounts {
        lock(&self.found).counts
    }

    pub(crate) fn samples(&self) -> (Vec<TrialDifference>, Vec<String>) {
        let found = lock(&self.found);
        (found.samples.clone(), found.failures.clone())
    }

    fn cpu_max(&self, old: Duration) -> Duration {
        old.mul_f64(self.rule.cpu_ratio_max).saturating_add(CPU_GRANTED)
    }

    /// The first bound that is exceeded.
    fn breach(&self, found: &Found) -> Option<(TrialBound, String)> {
        let Found { counts, .. } = found;
        let rule = &self.rule;
        if found.new_cpu > self.cpu_max(found.old_cpu) {
            let (new_ms, old_ms) = (found.new_cpu.as_millis(), found.old_cpu.as_millis());
            let reason =
                format!("it used {new_ms} ms of CPU time where the old version used {old_ms}; {} times is allowed", rule.cpu_ratio_max);
            return Some((TrialBound::CpuRatio, reason));
        }
        if counts.failures > rule.failures_max {
            let last = found.failures.last().map_or("", String::as_str);
            return Some((TrialBound::Failures, format!("it failed {} times: {last}", counts.failures)));
        }
        if rule.rejects_max.is_some_and(|most| counts.rejects_extra > most) {
            return Some((TrialBound::Rejects, format!("it rejects {} rows that the old version does not", counts.rejects_extra)));
        }
        let judged = counts.rows.max(ROWS_JUDGED_MIN);
        if exceeds(counts, rule, judged) {
            let reason = format!("{} of {} rows differ", differing(counts), counts.rows);
            return Some((TrialBound::Differing, reason));
        }
        None
    }

    fn pass_if_fulfilled(&self, found: &mut Found) {
        let counts = &found.counts;
        let enough = counts.rows >= self.rule.promote_after_rows.unwrap_or(1);
        if found.end.is_some() || !self.rule.promotes() || !found.is_time || !enough || exceeds(counts, &self.rule, counts.rows) {
            return;
        }
        found.end = Some(End::Passed);
        self.decided.notify_one();
    }
}

/// Rows that differ; what one row changes in state and what it puts out is one difference.
fn differing(counts: &TrialCounts) -> u64 {
    counts.rows_differing.max(counts.updates_differing)
}

fn exceeds(counts: &TrialCounts, rule: &TrialRule, rows: u64) -> bool {
    differing(counts) as f64 > rule.differing_max * rows as f64 && rule.differing_max < 1.0
}

impl Found {
    fn add(&mut self, compared: Compared) {
        let Compared { counts: more, samples, old_cpu, new_cpu, failure } = compared;
        self.old_cpu += old_cpu;
        self.new_cpu += new_cpu;
        let room = SAMPLES_MAX - self.samples.len();
        self.samples.extend(samples.into_iter().take(room));
        if let Some(reason) = failure
            && self.failures.len() < SAMPLES_MAX
        {
            self.failures.push(shortened(reason));
        }
        let counts = &mut self.counts;
        counts.rows += more.rows;
        counts.rows_not_compared += more.rows_not_compared;
        counts.rows_differing += more.rows_differing;
        counts.rows_missing += more.rows_missing;
        counts.rows_extra += more.rows_extra;
        counts.updates_differing += more.updates_differing;
        counts.rejects_missing += more.rejects_missing;
        counts.rejects_extra += more.rejects_extra;
        counts.failures += more.failures;
        counts.old_cpu_us = us(self.old_cpu);
        counts.new_cpu_us = us(self.new_cpu);
    }
}

fn us(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn shortened(mut reason: String) -> String {
    if reason.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|&at| reason.is_char_boundary(at)).unwrap_or(0);
        reason.truncate(end);
        reason.push('…');
    }
    reason
}
