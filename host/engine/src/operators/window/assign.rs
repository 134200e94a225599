//! Which panes and windows a time belongs to: pure arithmetic.
//!
//! A *pane* is the longest stretch of time that every window contains as a whole or not at all. Rows are accumulated per pane, so the work
//! per row does not depend on how many windows overlap; a window's result is the merge of its panes.
//!
//! All times are ms since epoch; stretches are half-open: `[start, end)`. A window is known by its end, since no two of one
//! [`Windows`] have the same end.

use std::ops::RangeInclusive;

use millstream_model::EventTime;

/// Longest window, slide or gap, in ms: a thousand years keep all sums far from overflow.
pub const LENGTH_MS_MAX: i64 = 1_000 * 366 * 24 * 3_600_000;

/// The time windows of one operator: how they lie on the time line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Windows {
    /// Windows of one size, one beginning every `slide_ms` (tumbling: slide = size).
    Sliding {
        /// Length of a window.
        size_ms: i64,
        /// Distance between the starts of two windows; at most the size.
        slide_ms: i64,
        /// A time at which a window starts.
        origin_ms: i64,
    },
    /// Windows that begin every `size_ms` and grow by `step_ms` up to that size.
    Cumulative {
        /// Length of the longest window; a multiple of the step.
        size_ms: i64,
        /// By how much each window is longer than the one before.
        step_ms: i64,
        /// A time at which windows start.
        origin_ms: i64,
    },
    /// One window for all time that rows may have.
    Global,
}

/// The end of the global window: the first ms that no row may have.
const GLOBAL_END: i64 = EventTime::LATEST.0 + 1;

impl Windows {
    /// Windows that follow each other without gap or overlap.
    pub fn tumbling(size_ms: i64, origin_ms: i64) -> Self {
        Self::Sliding { size_ms, slide_ms: size_ms, origin_ms }
    }

    /// Length of a pane in ms.
    pub fn pane_ms(self) -> i64 {
        match self {
            Self::Sliding { size_ms, slide_ms, .. } => greatest_common_divisor(size_ms, slide_ms),
            Self::Cumulative { step_ms, .. } => step_ms,
            Self::Global => GLOBAL_END - EventTime::EARLIEST.0,
        }
    }

    /// Whether every window is a single pane, so that accumulators never need to be merged.
    pub fn is_one_pane(self) -> bool {
        match self {
            Self::Sliding { size_ms, slide_ms, .. } => size_ms == slide_ms,
            Self::Cumulative { size_ms, step_ms, .. } => size_ms == step_ms,
            Self::Global => true,
        }
    }

    /// The start of the pane that holds `time`.
    pub fn pane_of(self, time: i64) -> i64 {
        match self {
            Self::Sliding { origin_ms, .. } | Self::Cumulative { origin_ms, .. } => floor_to(time, self.pane_ms(), origin_ms),
            Self::Global => EventTime::EARLIEST.0,
        }
    }

    /// The ends of the first and the last window that contain the pane starting at `pane`.
    pub fn ends_of_pane(self, pane: i64) -> RangeInclusive<i64> {
        let pane_end = pane + self.pane_ms();
        match self {
            Self::Sliding { size_ms, slide_ms, origin_ms } => {
                let last_start = floor_to(pane, slide_ms, origin_ms);
                let first_end = ceil_to(pane_end, slide_ms, origin_ms + size_ms);
                first_end..=last_start + size_ms
            }
            Self::Cumulative { size_ms, origin_ms, .. } => pane_end..=floor_to(pane, size_ms, origin_ms) + size_ms,
            Self::Global => GLOBAL_END..=GLOBAL_END,
        }
    }

    /// Distance between the ends of neighbouring windows.
    pub fn step_ms(self) -> i64 {
        match self {
            Self::Sliding { slide_ms, .. } => slide_ms,
            Self::Cumulative { step_ms, .. } => step_ms,
            Self::Global => GLOBAL_END - EventTime::EARLIEST.0,
        }
    }

    /// The start of the window that ends at `end`.
    pub fn start_of_window(self, end: i64) -> i64 {
        match self {
            Self::Sliding { size_ms, .. } => end - size_ms,
            Self::Cumulative { size_ms, origin_ms, .. } => floor_to(end - 1, size_ms, origin_ms),
            Self::Global => EventTime::EARLIEST.0,
        }
    }
}

/// Finds the panes of many times; neighbouring rows mostly share one, so the division is rarely done.
#[derive(Clone, Copy, Debug)]
pub struct PaneCursor {
    windows: Windows,
    pane_ms: i64,
    pane: i64,
}

impl PaneCursor {
    /// A cursor over the panes of `windows`.
    pub fn new(windows: Windows) -> Self {
        Self { windows, pane_ms: windows.pane_ms(), pane: windows.pane_of(0) }
    }

    /// The start of the pane that holds `time`.
    #[inline]
    pub fn pane_of(&mut self, time: i64) -> i64 {
        if time < self.pane || time - self.pane >= self.pane_ms {
            self.pane = self.windows.pane_of(time);
        }
        self.pane
    }
}

/// The greatest `origin + n × step` that is not above `time`.
fn floor_to(time: i64, step: i64, origin: i64) -> i64 {
    time - (time - origin).rem_euclid(step)
}

/// The least `origin + n × step` that is not below `time`.
fn ceil_to(time: i64, step: i64, origin: i64) -> i64 {
    time + (origin - time).rem_euclid(step)
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sliding(size_ms: i64, slide_ms: i64) -> Windows {
        Windows::Sliding { size_ms, slide_ms, origin_ms: 0 }
    }

    /// The windows that contain `time`, by definition: (start, end).
    fn by_definition(windows: Windows, time: i64) -> Vec<(i64, i64)> {
        match windows {
            Windows::Sliding { size_ms, slide_ms, origin_ms } => {
                let reach = size_ms / slide_ms + 2;
                let near = (time - origin_ms) / slide_ms;
                let starts = (near - reach..=near + reach).map(|n| origin_ms + n * slide_ms);
                starts.map(|start| (start, start + size_ms)).filter(|(start, end)| (*start..*end).contains(&time)).collect()
            }
            Windows::Cumulative { size_ms, step_ms, origin_ms } => {
                let start = (time - origin_ms).div_euclid(size_ms) * size_ms + origin_ms;
                (1..=size_ms / step_ms).map(|n| (start, start + n * step_ms)).filter(|(_, end)| time < *end).collect()
            }
            Windows::Global => vec![(EventTime::EARLIEST.0, GLOBAL_END)],
        }
    }

    fn by_panes(windows: Windows, time: i64) -> Vec<(i64, i64)> {
        let ends = windows.ends_of_pane(windows.pane_of(time));
        (*ends.start()..=*ends.end()).step_by(windows.step_ms() as usize).map(|end| (windows.start_of_window(end), end)).collect()
    }

    #[test]
    fn a_row_at_the_end_of_a_window_is_in_the_next() {
        let windows = Windows::tumbling(10, 0);
        assert_eq!(windows.pane_of(9), 0);
        assert_eq!(windows.pane_of(10), 10);
        assert_eq!(windows.ends_of_pane(0), 10..=10);
    }

    #[test]
    fn times_before_the_epoch_belong_to_the_window_below() {
        assert_eq!(Windows::tumbling(10, 0).pane_of(-1), -10);
        assert_eq!(Windows::tumbling(10, 3).pane_of(2), -7);
    }

    #[test]
    fn a_pane_is_the_slide_when_it_divides_the_size_and_the_common_divisor_otherwise() {
        assert_eq!(sliding(10, 2).pane_ms(), 2);
        assert_eq!(sliding(10, 4).pane_ms(), 2);
        assert_eq!(sliding(10, 4).ends_of_pane(2), 6..=10);
        assert_eq!(sliding(10, 4).ends_of_pane(4), 6..=14);
    }

    #[test]
    fn cumulative_windows_share_their_start() {
        let windows = Windows::Cumulative { size_ms: 30, step_ms: 10, origin_ms: 0 };
        assert_eq!(by_panes(windows, 15), [(0, 20), (0, 30)]);
    }

    #[test]
    fn the_global_window_holds_the_earliest_and_the_latest_time() {
        assert_eq!(Windows::Global.pane_of(EventTime::EARLIEST.0), Windows::Global.pane_of(EventTime::LATEST.0));
        assert_eq!(*Windows::Global.ends_of_pane(EventTime::EARLIEST.0).end() - 1, EventTime::LATEST.0);
    }

    fn any_windows() -> impl Strategy<Value = Windows> {
        let sliding = (1_i64..50, 1_i64..50, -60_i64..60).prop_map(|(a, b, origin_ms)| Windows::Sliding {
            size_ms: a.max(b),
            slide_ms: a.min(b),
            origin_ms,
        });
        let cumulative = (1_i64..20, 1_i64..8, -60_i64..60).prop_map(|(step_ms, n, origin_ms)| Windows::Cumulative {
            size_ms: n * step_ms,
            step_ms,
            origin_ms,
        });
        prop_oneof![sliding, cumulative]
    }

    proptest! {
        #[test]
        fn panes_lead_to_the_windows_that_contain_a_time(windows in any_windows(), time in -500_i64..500) {
            prop_assert_eq!(by_panes(windows, time), by_definition(windows, time));
        }

        #[test]
        fn the_cursor_finds_the_same_panes(windows in any_windows(), times in prop::collection::vec(-500_i64..500, 1..20)) {
            let mut cursor = PaneCursor::new(windows);
            for time in times {
                prop_assert_eq!(cursor.pane_of(time), windows.pane_of(time));
            }
        }
    }
}
