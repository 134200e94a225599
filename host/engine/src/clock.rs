//! The clocks of a job: a component that enters once, at construction. Nothing else in the engine asks what time it is.
//!
//! There are two. *Processing time* is what people call the time. It is set by them and by NTP, so it may jump, stand still and go backwards; only what
//! belongs to it goes by it: timers and windows in processing time, times that are shown. *Elapsed time* only grows, at one pace; every interval,
//! timeout and wait goes by it, so that a clock that is set wrong stops no checkpoint and holds no row.

use std::{
    sync::{LazyLock, Mutex},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use tokio::sync::watch;

/// A clock that is set forward is noticed after this time.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Processing time and elapsed time, and waiting for them.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Processing time: milliseconds since epoch, UTC.
    fn now_ms(&self) -> i64;

    /// Returns when [`Self::now_ms`] has reached `at_ms`, if only because the clock was set.
    async fn sleep_until(&self, at_ms: i64);

    /// Elapsed time: milliseconds since some moment, at least 0. Never less than before, whatever becomes of [`Self::now_ms`].
    fn monotonic_ms(&self) -> i64;

    /// Returns when [`Self::monotonic_ms`] has reached `at_ms`.
    async fn sleep_until_monotonic(&self, at_ms: i64);

    /// Returns when so many milliseconds have elapsed.
    async fn sleep(&self, ms: i64) {
        self.sleep_until_monotonic(self.monotonic_ms().saturating_add(ms)).await;
    }
}

/// Random numbers: a component that enters once, at construction, as the clock does.
pub trait Random: Send + Sync {
    /// The next number.
    fn next_u64(&self) -> u64;
}

/// The clocks of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "the one place where elapsed time enters the engine")]
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

#[async_trait]
#[expect(clippy::disallowed_methods, reason = "the one place where wall-clock time enters the engine")]
impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, at_ms: i64) {
        while let Ok(wait_ms) = u64::try_from(at_ms.saturating_sub(self.now_ms()))
            && wait_ms > 0
        {
            tokio::time::sleep(Duration::from_millis(wait_ms).min(LOOK_AGAIN)).await;
        }
    }

    fn monotonic_ms(&self) -> i64 {
        i64::try_from(STARTED.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    async fn sleep_until_monotonic(&self, at_ms: i64) {
        while let Ok(wait_ms) = u64::try_from(at_ms.saturating_sub(self.monotonic_ms()))
            && wait_ms > 0
        {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

/// Clocks that only move when told to: for tests and replays.
#[derive(Debug)]
pub struct ManualClock {
    times: watch::Sender<Times>,
    turn: Mutex<()>,
}

#[derive(Clone, Copy, Debug)]
struct Times {
    now_ms: i64,
    monotonic_ms: i64,
}

impl ManualClock {
    /// Processing time stands at `now_ms`, and nothing has elapsed.
    pub fn at(now_ms: i64) -> Self {
        Self { times: watch::Sender::new(Times { now_ms, monotonic_ms: 0 }), turn: Mutex::new(()) }
    }

    /// Time passes.
    pub fn advance(&self, by: Duration) {
        let by_ms = i64::try_from(by.as_millis()).expect("tests move by less than an age");
        self.change(|times| *times = Times { now_ms: times.now_ms + by_ms, monotonic_ms: times.monotonic_ms + by_ms });
    }

    /// Processing time is set; no time passes.
    pub fn set(&self, now_ms: i64) {
        self.change(|times| times.now_ms = now_ms);
    }

    fn change(&self, change: impl FnOnce(&mut Times)) {
        let _turn = self.turn.lock().expect("no holder of this lock panics");
        self.times.send_modify(change);
    }

    async fn wait_for(&self, has_come: impl Fn(Times) -> bool) {
        let mut times = self.times.subscribe();
        times.wait_for(|times| has_come(*times)).await.expect("the clock outlives its sleepers");
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        self.times.borrow().now_ms
    }

    async fn sleep_until(&self, at_ms: i64) {
        self.wait_for(|times| times.now_ms >= at_ms).await;
    }

    fn monotonic_ms(&self) -> i64 {
        self.times.borrow().monotonic_ms
    }

    async fn sleep_until_monotonic(&self, at_ms: i64) {
        self.wait_for(|times| times.monotonic_ms >= at_ms).await;
    }
}
