//! A rate, counted by the clock of the job: how many items are due, and when the next one is.

use millstream_engine::clock::Clock;

/// Items leave from `start_ms` on, `rate` per second; the first of them has number `first`.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    start_ms: i64,
    first: u64,
    rate: u64,
}

impl Pace {
    /// A pace that starts now with the item number `first`.
    pub fn starting(clock: &dyn Clock, first: u64, rate: u64) -> Self {
        Self { start_ms: clock.monotonic_ms(), first, rate }
    }

    /// Items with a smaller number are due now.
    pub fn due(self, clock: &dyn Clock) -> u64 {
        let elapsed_ms = u128::from(clock.monotonic_ms().saturating_sub(self.start_ms).max(0).unsigned_abs());
        let items = u64::try_from(elapsed_ms * u128::from(self.rate) / 1_000).unwrap_or(u64::MAX);
        self.first.saturating_add(items)
    }

    /// Waits until item number `item` is due.
    pub async fn wait_for(self, clock: &dyn Clock, item: u64) {
        let items = u128::from(item.saturating_sub(self.first)) + 1;
        let elapsed_ms = (items * 1_000).div_ceil(u128::from(self.rate));
        clock.sleep_until_monotonic(self.start_ms.saturating_add(i64::try_from(elapsed_ms).unwrap_or(i64::MAX))).await;
    }
}
