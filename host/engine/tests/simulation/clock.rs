//! A clock that moves when the simulation says so, and wakes its sleepers in one order.

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

/// The clock of a simulation.
pub struct SimulatedClock {
    inner: Mutex<Inner>,
}

struct Inner {
    now_ms: i64,
    /// Who waits, by time and then by turn.
    sleepers: BTreeMap<(i64, u64), Waker>,
    turns: u64,
}

impl Default for SimulatedClock {
    fn default() -> Self {
        Self { inner: Mutex::new(Inner { now_ms: START_MS, sleepers: BTreeMap::new(), turns: 0 }) }
    }
}

impl SimulatedClock {
    /// Moves on.
    pub fn advance(&self, by_ms: i64) {
        let mut inner = lock(&self.inner);
        inner.now_ms += by_ms;
        let next_ms = inner.now_ms + 1;
        let later = inner.sleepers.split_off(&(next_ms, 0));
        let due = std::mem::replace(&mut inner.sleepers, later);
        drop(inner);
        due.into_values().for_each(Waker::wake);
    }
}

/// A sleeper that is gone sleeps no more.
struct Sleep<'a> {
    clock: &'a SimulatedClock,
    key: (i64, u64),
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        lock(&self.clock.inner).sleepers.remove(&self.key);
    }
}

#[async_trait]
impl Clock for SimulatedClock {
    fn now_ms(&self) -> i64 {
        lock(&self.inner).now_ms
    }

    async fn sleep_until(&self, at_ms: i64) {
        let turn = {
            let mut inner = lock(&self.inner);
            inner.turns += 1;
            inner.turns
        };
        let sleep = Sleep { clock: self, key: (at_ms, turn) };
        poll_fn(|context| {
            let mut inner = lock(&self.inner);
            if inner.now_ms >= at_ms {
                return Poll::Ready(());
            }
            inner.sleepers.insert(sleep.key, context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}
