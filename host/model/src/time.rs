//! Event time and watermarks, exactly as the documentation promises.
//!
//! *A watermark W says: no row with a time ≤ W follows.* A row is late when t ≤ W; a timer at t fires when W ≥ t; a window
//! [s, e) fires when W ≥ e − 1 and its result has event time e − 1. Watermarks never go backwards: [`WatermarkMerge`] is the only
//! way to combine them and it yields only advances.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

impl EventTime {
    /// 0001-01-01T00:00:00.000Z, the earliest event time a row may carry.
    pub const EARLIEST: Self = Self(-62_135_596_800_000);
    /// 9999-12-31T23:59:59.999Z, the latest event time a row may carry.
    pub const LATEST: Self = Self(253_402_300_799_999);

    /// Whether a row may carry this time; anything else is rejected as absurd.
    pub fn is_supported(self) -> bool {
        (Self::EARLIEST..=Self::LATEST).contains(&self)
    }
}

/// A promise that no row with an event time at or before it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// The end of all input.
    pub const MAX: Self = Self(i64::MAX);

    /// The watermark of a stream whose rows are out of order by at most `bound_ms`, after a row at `max_seen`: max − bound − 1.
    pub fn after(max_seen: EventTime, bound_ms: i64) -> Self {
        Self(max_seen.0.saturating_sub(bound_ms).saturating_sub(1))
    }

    /// Whether a row at `time` comes too late: t ≤ W.
    pub fn is_late(self, time: EventTime) -> bool {
        time.0 <= self.0
    }

    /// Whether a timer at `time` is due: W ≥ t.
    pub fn reaches(self, time: EventTime) -> bool {
        self.0 >= time.0
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::MAX { f.write_str("end of input") } else { self.0.fmt(f) }
    }
}

/// What one input of a merge last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum InputProgress {
    Active,
    Idle,
    Ended,
}

/// What the merged stream must say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The merged watermark advanced.
    Advanced(Watermark),
    /// Every unfinished input is idle; the merged stream holds its watermark and is idle.
    Idle,
}

/// The merged watermark of several inputs: the minimum over those that are active.
///
/// Ends: any active → min(active); else any idle → idle, holding max(idle); else all ended → [`Watermark::MAX`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WatermarkMerge {
    inputs: Vec<(InputProgress, Option<Watermark>)>,
    merged: Option<Watermark>,
    idle: bool,
}

impl WatermarkMerge {
    /// A merge of `inputs` active inputs without a watermark.
    pub fn new(inputs: usize) -> Self {
        Self { inputs: vec![(InputProgress::Active, None); inputs], merged: None, idle: false }
    }

    /// The same where `floor` was reached before (by the run that this one goes on from): the merged watermark does not go back behind it.
    pub fn with_floor(self, floor: Option<Watermark>) -> Self {
        Self { merged: floor.max(self.merged), ..self }
    }

    /// Adds an active input without a watermark, and gives its index. The merged watermark does not go back for it.
    pub fn add_input(&mut self) -> usize {
        self.inputs.push((InputProgress::Active, None));
        self.idle = false;
        self.inputs.len() - 1
    }

    /// The merged watermark; none until every active input has one.
    pub fn current(&self) -> Option<Watermark> {
        self.merged
    }

    /// Whether the merged stream is idle.
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// The index of the input that holds the merged watermark back: an active input with the lowest watermark.
    pub fn holding_input(&self) -> Option<usize> {
        let active = self.inputs.iter().enumerate().filter(|(_, (progress, _))| *progress == InputProgress::Active);
        active.min_by_key(|(_, (_, watermark))| *watermark).map(|(index, _)| index)
    }

    /// Input `input` said `watermark` (and is active again if it was idle).
    pub fn on_watermark(&mut self, input: usize, watermark: Watermark) -> Option<Progress> {
        let (progress, own) = &mut self.inputs[input];
        if *progress == InputProgress::Ended {
            return None;
        }
        *progress = InputProgress::Active;
        *own = (*own).max(Some(watermark));
        self.merge()
    }

    /// A row arrived on `input`: it is not idle.
    pub fn on_row(&mut self, input: usize) {
        let (progress, _) = &mut self.inputs[input];
        if *progress == InputProgress::Idle {
            *progress = InputProgress::Active;
            self.idle = false;
        }
    }

    /// Input `input` has nothing for now and shall not hold the others.
    pub fn on_idle(&mut self, input: usize) -> Option<Progress> {
        if self.inputs[input].0 == InputProgress::Ended {
            return None;
        }
        self.inputs[input].0 = InputProgress::Idle;
        self.merge()
    }

    /// Input `input` is finished.
    pub fn on_end(&mut self, input: usize) -> Option<Progress> {
        self.inputs[input].0 = InputProgress::Ended;
        self.merge()
    }

    /// Whether every input is finished.
    pub fn is_ended(&self) -> bool {
        self.inputs.iter().all(|(progress, _)| *progress == InputProgress::Ended)
    }

    fn merge(&mut self) -> Option<Progress> {
        let of = |wanted: InputProgress| self.inputs.iter().filter(move |(progress, _)| *progress == wanted).map(|(_, w)| *w);
        if let Some(lowest) = of(InputProgress::Active).min() {
            self.idle = false;
            return self.advance(lowest);
        }
        if let Some(highest) = of(InputProgress::Idle).max() {
            let advanced = self.advance(highest);
            let was_idle = std::mem::replace(&mut self.idle, true);
            return advanced.or((!was_idle).then_some(Progress::Idle));
        }
        self.idle = false;
        self.advance(Some(Watermark::MAX))
    }

    fn advance(&mut self, to: Option<Watermark>) -> Option<Progress> {
        if to <= self.merged {
            return None;
        }
        self.merged = to;
        to.map(Progress::Advanced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const T: EventTime = EventTime(1_000);

    #[test]
    fn a_row_at_the_watermark_is_late() {
        assert!(Watermark(1_000).is_late(T));
    }

    #[test]
    fn a_row_one_millisecond_after_the_watermark_is_not_late() {
        assert!(!Watermark(999).is_late(T));
    }

    #[test]
    fn a_timer_at_the_watermark_is_due() {
        assert!(Watermark(1_000).reaches(T));
        assert!(!Watermark(999).reaches(T));
    }

    #[test]
    fn bounded_out_of_orderness_leaves_a_row_at_the_bound_in_time() {
        let watermark = Watermark::after(T, 100);
        assert_eq!(watermark, Watermark(899));
        assert!(!watermark.is_late(EventTime(900)));
        assert!(watermark.is_late(EventTime(899)));
    }

    #[test]
    fn the_slowest_active_input_holds_the_merged_watermark() {
        let mut merge = WatermarkMerge::new(2);
        assert_eq!(merge.on_watermark(0, Watermark(10)), None);
        assert_eq!(merge.on_watermark(1, Watermark(5)), Some(Progress::Advanced(Watermark(5))));
        assert_eq!(merge.on_watermark(1, Watermark(20)), Some(Progress::Advanced(Watermark(10))));
        assert_eq!(merge.holding_input(), Some(0));
    }

    #[test]
    fn an_idle_input_does_not_hold_the_others() {
        let mut merge = WatermarkMerge::new(2);
        merge.on_watermark(0, Watermark(10));
        assert_eq!(merge.on_idle(1), Some(Progress::Advanced(Watermark(10))));
        assert!(!merge.is_idle());
    }

    #[test]
    fn when_all_unfinished_inputs_are_idle_the_highest_of_them_holds() {
        let mut merge = WatermarkMerge::new(3);
        merge.on_watermark(0, Watermark(10));
        merge.on_watermark(1, Watermark(5));
        merge.on_end(2);
        assert_eq!(merge.current(), Some(Watermark(5)));
        assert_eq!(merge.on_idle(1), Some(Progress::Advanced(Watermark(10))));
        assert_eq!(merge.on_idle(0), Some(Progress::Idle));
        assert!(merge.is_idle());
    }

    #[test]
    fn the_watermark_never_goes_backwards_when_an_idle_input_comes_back_behind() {
        let mut merge = WatermarkMerge::new(2);
        merge.on_watermark(0, Watermark(10));
        merge.on_idle(1);
        assert_eq!(merge.on_watermark(1, Watermark(3)), None);
        assert_eq!(merge.current(), Some(Watermark(10)));
    }

    #[test]
    fn a_merge_that_goes_on_from_a_floor_never_falls_behind_it() {
        let mut merge = WatermarkMerge::new(2).with_floor(Some(Watermark(10)));
        assert_eq!(merge.current(), Some(Watermark(10)));
        merge.on_watermark(0, Watermark(20));
        assert_eq!(merge.on_watermark(1, Watermark(3)), None);
        assert_eq!(merge.on_watermark(1, Watermark(11)), Some(Progress::Advanced(Watermark(11))));
    }

    #[test]
    fn the_end_of_every_input_is_the_largest_watermark() {
        let mut merge = WatermarkMerge::new(2);
        assert_eq!(merge.on_end(0), None);
        assert_eq!(merge.on_end(1), Some(Progress::Advanced(Watermark::MAX)));
        assert!(merge.is_ended());
    }
}
