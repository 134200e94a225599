//! How many rows a call gets: a call should take about as long as a guest may run before it yields (5 ms), so that swaps and barriers do not
//! wait. A slow language gets fewer rows.

use std::time::Duration;

/// Measures calls and proposes the size of the next one.
#[derive(Clone, Debug)]
pub(super) struct CallSize {
    aim: Duration,
    rows_max: usize,
    /// Smoothed time per row, in ns; none: nothing was measured yet.
    row_ns: Option<f64>,
}

/// Rows of the first call, whose speed is unknown.
const ROWS_AT_FIRST: usize = 1_024;
/// Calls shorter than this say more about the fixed cost of a call than about its rows.
const ROWS_MEASURED_MIN: usize = 16;
/// Weight of a new measurement.
const WEIGHT: f64 = 0.25;

impl CallSize {
    pub(super) fn new(aim: Duration, rows_max: usize) -> Self {
        Self { aim, rows_max: rows_max.max(1), row_ns: None }
    }

    /// Rows of the next call.
    pub(super) fn rows(&self) -> usize {
        let Some(row_ns) = self.row_ns else { return ROWS_AT_FIRST.min(self.rows_max) };
        let rows = self.aim.as_nanos() as f64 / row_ns.max(0.001);
        (rows as usize).clamp(1, self.rows_max)
    }

    /// A call with `rows` rows took `busy`.
    pub(super) fn measured(&mut self, rows: usize, busy: Duration) {
        if rows < ROWS_MEASURED_MIN && busy < self.aim {
            return;
        }
        let row_ns = busy.as_nanos() as f64 / rows.max(1) as f64;
        self.row_ns = Some(self.row_ns.map_or(row_ns, |old| old + WEIGHT * (row_ns - old)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_guest_gets_fewer_rows_and_a_fast_one_all_of_them() {
        let mut size = CallSize::new(Duration::from_millis(5), 8_192);
        assert_eq!(size.rows(), 1_024);
        size.measured(1_024, Duration::from_millis(50));
        assert_eq!(size.rows(), 102);
        (0..100).for_each(|_| size.measured(100, Duration::from_micros(1)));
        assert_eq!(size.rows(), 8_192);
    }
}
