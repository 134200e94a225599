//! Clocks that move when the simulation says so, and wake their sleepers in one order. Elapsed time is the time of the simulation; processing time
//! follows it, or stands still, or runs away, or is set by years.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::Mutex,
    task::{Poll, Waker},
};

use async_trait::async_trait;
use millstream_engine::clock::Clock;

use crate::world::lock;

/// 2026-01-01T00:00Z.
const START_MS: i64 = 1_767_225_600_000;
/// Ten years.
pub const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 3_600 * 1_000;

/// What becomes of processing time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WallClock {
    /// It is right.
    Right,
    /// It stands still.
    Frozen,
    /// It runs ten times as fast.
    TenTimes,
    /// It is wrong by so much, and otherwise right.
    Wrong(i64),
    /// It is set forward and back by ten years again and again.
    Jumping,
}

/// The clocks of a simulation.
pub struct SimulatedClock {
    wall_clock: WallClock,
    inner: Mutex<Inner>,
}

struct Inner {
    now_ms: i64,
    elapsed_ms: i64,
    /// Who waits for processing time, and who for elapsed time: by time, then by turn.
    for_now: Sleepers,
    for_elapsed: Sleepers,
    turns: u64,
}

type Sleepers = BTreeMap<(i64, u64), Waker>;

impl SimulatedClock {
    pub fn new(wall_clock: WallClock) -> Self {
        let now_ms = if let WallClock::Wrong(by_ms) = wall_clock { START_MS + by_ms } else { START_MS };
        let inner = Inner { now_ms, elapsed_ms: 0, for_now: Sleepers::new(), for_elapsed: Sleepers::new(), turns: 0 };
        Self { wall_clock, inner: Mutex::new(inner) }
    }

    /// Time passes.
    pub fn advance(&self, by_ms: i64) {
        let mut inner = lock(&self.inner);
        inner.elapsed_ms += by_ms;
        inner.now_ms += match self.wall_clock {
            WallClock::Right | WallClock::Wrong(_) => by_ms,
            WallClock::Frozen => 0,
            WallClock::TenTimes => 10 * by_ms,
            WallClock::Jumping if inner.elapsed_ms / 40 == (inner.elapsed_ms - by_ms) / 40 => by_ms,
            WallClock::Jumping if inner.elapsed_ms / 40 % 2 == 0 => TEN_YEARS_MS,
            WallClock::Jumping => -TEN_YEARS_MS,
        };
        let (now_ms, elapsed_ms) = (inner.now_ms, inner.elapsed_ms);
        let mut due = take_due(&mut inner.for_elapsed, elapsed_ms);
        due.extend(take_due(&mut inner.for_now, now_ms));
        drop(inner);
        due.into_iter().for_each(Waker::wake);
    }

    async fn sleep(&self, at_ms: i64, side: Side) {
        let turn = {
            let mut inner = lock(&self.inner);
            inner.turns += 1;
            inner.turns
        };
        let sleep = Sleep { clock: self, key: (at_ms, turn), side };
        poll_fn(|context| {
            let mut inner = lock(&self.inner);
            if inner.time(side) >= at_ms {
                return Poll::Ready(());
            }
            inner.sleepers(side).insert(sleep.key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn take_due(sleepers: &mut Sleepers, time_ms: i64) -> Vec<Waker> {
    let later = sleepers.split_off(&(time_ms + 1, 0));
    std::mem::replace(sleepers, later).into_values().collect()
}

/// Which of the two clocks.
#[derive(Clone, Copy)]
enum Side {
    Now,
    Elapsed,
}

impl Inner {
    fn time(&self, side: Side) -> i64 {
        match side {
            Side::Now => self.now_ms,
            Side::Elapsed => self.elapsed_ms,
        }
    }

    fn sleepers(&mut self, side: Side) -> &mut Sleepers {
        match side {
            Side::Now => &mut self.for_now,
            Side::Elapsed => &mut self.for_elapsed,
        }
    }
}

/// A sleeper that is gone sleeps no more.
struct Sleep<'a> {
    clock: &'a SimulatedClock,
    key: (i64, u64),
    side: Side,
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        lock(&self.clock.inner).sleepers(self.side).remove(&self.key);
    }
}

#[async_trait]
impl Clock for SimulatedClock {
    fn now_ms(&self) -> i64 {
        lock(&self.inner).now_ms
    }

    async fn sleep_until(&self, at_ms: i64) {
        self.sleep(at_ms, Side::Now).await;
    }

    fn monotonic_ms(&self) -> i64 {
        lock(&self.inner).elapsed_ms
    }

    async fn sleep_until_monotonic(&self, at_ms: i64) {
        self.sleep(at_ms, Side::Elapsed).await;
    }
}
