//! The clock of a job: a component that enters once, at construction. Nothing else in the engine asks what time it is.

use std::{sync::Mutex, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

/// Processing time, and waiting for it.
#[async_trait]
pub trait Clock: Send + Sync {
    /// Milliseconds since epoch, UTC.
    fn now_ms(&self) -> i64;

    /// Returns when [`Self::now_ms`] has reached `at_ms`.
    async fn sleep_until(&self, at_ms: i64);
}

/// Random numbers: a component that enters once, at construction, as the clock does.
pub trait Random: Send + Sync {
    /// The next number.
    fn next_u64(&self) -> u64;
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
#[expect(clippy::disallowed_methods, reason = "the one place where wall-clock time enters the engine")]
impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, at_ms: i64) {
        let wait_ms = at_ms.saturating_sub(self.now_ms());
        if let Ok(wait_ms) = u64::try_from(wait_ms) {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }
}

/// A clock that only moves when told to: for tests and replays.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: watch::Sender<i64>,
    turn: Mutex<()>,
}

impl ManualClock {
    /// A clock that stands at `now_ms`.
    pub fn at(now_ms: i64) -> Self {
        Self { now_ms: watch::Sender::new(now_ms), turn: Mutex::new(()) }
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        let _turn = self.turn.lock().expect("no holder of this lock panics");
        self.now_ms.send_modify(|now_ms| *now_ms += i64::try_from(by.as_millis()).expect("tests move by less than an age"));
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        *self.now_ms.borrow()
    }

    async fn sleep_until(&self, at_ms: i64) {
        let mut now_ms = self.now_ms.subscribe();
        now_ms.wait_for(|now_ms| *now_ms >= at_ms).await.expect("the clock outlives its sleepers");
    }
}
