//! When results are emitted before their windows are complete: what changed is remembered until the interval is over.
//!
//! A checkpoint holds only when the next results are due. What had changed is not kept: after a restore everything counts as changed, and what
//! was emitted already differs in nothing.

use serde_json::{Value, json};

use super::{pane_index::PaneIndex, settings::EarlyClock};
use crate::{operator::Moment, spec::DurationMs};

/// Early results of one operator.
#[derive(Debug)]
pub struct Early {
    every_ms: i64,
    clock: EarlyClock,
    /// When the next results are emitted; none: nothing changed.
    next: Option<i64>,
    changed: PaneIndex,
}

impl Clone for Early {
    /// The same setting; what changed is not part of it.
    fn clone(&self) -> Self {
        Self::new(self.every_ms, self.clock)
    }
}

impl Early {
    /// Results every `every_ms` of a clock.
    pub fn new(every_ms: i64, clock: EarlyClock) -> Self {
        Self { every_ms, clock, next: None, changed: PaneIndex::default() }
    }

    /// One line for people.
    pub fn explain(&self) -> String {
        let clock = match self.clock {
            EarlyClock::ProcessingTime => "processing time",
            EarlyClock::EventTime => "event time",
        };
        format!("emits incomplete windows every {} of {clock}", DurationMs::from_ms(self.every_ms))
    }

    /// Notes a change; `add` adds it to what changed.
    pub fn note_changed(&mut self, now: Moment, add: impl FnOnce(&mut PaneIndex) -> bool) {
        add(&mut self.changed);
        self.next.get_or_insert_with(|| match self.clock {
            EarlyClock::ProcessingTime => now.processing_time.saturating_add(self.every_ms),
            // The next multiple of the interval, so that it does not depend on which row came first.
            EarlyClock::EventTime => now.watermark.map_or(i64::MIN, |watermark| {
                watermark.0.saturating_sub(watermark.0.rem_euclid(self.every_ms)).saturating_add(self.every_ms)
            }),
        });
    }

    /// Whether the watermark says that results are to be emitted.
    pub fn is_due_at_watermark(&self, now: Moment) -> bool {
        let watermark = now.watermark.map(|watermark| watermark.0);
        self.clock == EarlyClock::EventTime && self.next.is_some_and(|next| watermark.is_some_and(|watermark| watermark >= next))
    }

    /// When, in processing time, results are to be emitted.
    pub fn next_processing_time(&self) -> Option<i64> {
        self.next.filter(|_| self.clock == EarlyClock::ProcessingTime)
    }

    /// What a checkpoint must remember: when the next results are due.
    pub fn remembered(&self) -> Value {
        self.next.map_or(Value::Null, |next| json!({ "next-early": next }))
    }

    /// Goes on from what the subtasks of an earlier run remembered; `add_all` adds everything that is held to what changed.
    pub fn restore(&mut self, remembered: &[Value], add_all: impl FnOnce(&mut PaneIndex)) {
        self.next = remembered.iter().filter_map(|value| value["next-early"].as_i64()).min();
        if self.next.is_some() {
            add_all(&mut self.changed);
        }
    }

    /// What changed since the last time.
    pub fn take_changed(&mut self) -> PaneIndex {
        self.next = None;
        std::mem::take(&mut self.changed)
    }
}
