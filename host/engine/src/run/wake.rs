//! When something wants to be woken, by two clocks: processing time, which people set, and elapsed time, which only grows. What belongs to a
//! stream (timers in processing time) goes by the first, every interval and wait of the runtime by the second.

use crate::clock::Clock;

/// The next moments of both clocks; none: never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WakeTimes {
    /// Processing time, ms since epoch.
    pub(super) processing_ms: Option<i64>,
    /// Elapsed time, [`Clock::monotonic_ms`].
    pub(super) monotonic_ms: Option<i64>,
}

impl WakeTimes {
    /// At these times too.
    pub(super) fn or(self, other: Self) -> Self {
        let earlier = |one: Option<i64>, other: Option<i64>| [one, other].into_iter().flatten().min();
        Self {
            processing_ms: earlier(self.processing_ms, other.processing_ms),
            monotonic_ms: earlier(self.monotonic_ms, other.monotonic_ms),
        }
    }

    /// At this elapsed time too.
    pub(super) fn or_monotonic(self, monotonic_ms: Option<i64>) -> Self {
        self.or(Self { processing_ms: None, monotonic_ms })
    }

    /// Whether one of them has come.
    pub(super) fn has_come(self, now_ms: i64, monotonic_ms: i64) -> bool {
        self.processing_ms.is_some_and(|at| at <= now_ms) || self.monotonic_ms.is_some_and(|at| at <= monotonic_ms)
    }

    /// Returns when one of them has come.
    pub(super) async fn wait(self, clock: &dyn Clock) {
        tokio::select! {
            biased;
            () = until_monotonic(clock, self.monotonic_ms) => {}
            () = until_processing(clock, self.processing_ms) => {}
        }
    }
}

/// Returns at this elapsed time; none: never.
pub(super) async fn until_monotonic(clock: &dyn Clock, at_ms: Option<i64>) {
    match at_ms {
        Some(at_ms) => clock.sleep_until_monotonic(at_ms).await,
        None => std::future::pending().await,
    }
}

/// Returns at this processing time; none: never.
pub(super) async fn until_processing(clock: &dyn Clock, at_ms: Option<i64>) {
    match at_ms {
        Some(at_ms) => clock.sleep_until(at_ms).await,
        None => std::future::pending().await,
    }
}
