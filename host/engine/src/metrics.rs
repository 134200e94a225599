//! Counters of running operators: written by one subtask, read by anyone.

mod guest;
mod lag;
mod waiting;

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, Ordering},
};

use guest::SubtaskNumbers;
use millstream_model::ids::SubtaskIndex;
use millstream_state::StoreSize;
use millstream_wasm::GuestMetrics;

pub use guest::{GUEST_METRICS_MAX, GuestMetricStatus, GuestMetricValue, GuestNumbers};
pub use lag::{Lags, SplitGauge, SplitLag};
pub(crate) use waiting::Shown;
pub use waiting::{Waiting, Waits};

/// Counters of one operator in one subtask. All are totals since the start of the run, but for the gauges.
#[derive(Debug, Default)]
pub struct OperatorMetrics {
    /// Rows received.
    pub rows_in: Counter,
    /// Rows emitted on declared outputs.
    pub rows_out: Counter,
    /// Rows that came too late and were not used.
    pub rows_late: Counter,
    /// Rows rejected and dropped or sent to a sink.
    pub rows_rejected: Counter,
    /// Rows without a key that `null-keys: drop` dropped.
    pub rows_null_key: Counter,
    /// Time spent in guest calls, in nanoseconds.
    pub guest_ns: Counter,
    /// Timers not set because their chain re-armed itself too often: for no later time, or after the end of input.
    pub timers_cut: Counter,
    /// Traps of guests, and other failures that cost an instance.
    pub traps: Counter,
    /// When it began, as elapsed time.
    pub began_ms: Gauge,
    /// Time spent with elements, without that spent waiting, in nanoseconds.
    pub busy_ns: Counter,
    /// Time spent waiting for room in an output queue, in nanoseconds.
    pub backpressured_ns: Counter,
    /// Time spent waiting, with an element in hand, for answers over HTTP or for a guest that asked to be called again later,
    /// in nanoseconds.
    pub retrying_ns: Counter,
    /// Linear memory of its guest as of its last call, in bytes; 0: it has none.
    pub guest_memory_bytes: Counter,
    /// How large its keyed state is.
    pub state: Arc<StoreSize>,
    /// Units of input read, for progress (sources only).
    pub progress: Counter,
    /// How far its splits are behind their ends (sources only).
    pub lags: Lags,
    /// The operator's watermark, ms since epoch; `i64::MIN`: none yet.
    pub watermark: Advance,
    /// Requests over HTTP that its guest has sent, repetitions included.
    pub requests: Counter,
    /// Bytes of those.
    pub request_bytes: Counter,
    /// Bytes of the bodies of their answers.
    pub answer_bytes: Counter,
    /// What the subtask waits for, where this is its first node or the one that waits.
    pub waits: Waits,
    /// What its component counts itself; shared by all subtasks of the operator.
    pub guest: Arc<GuestNumbers>,
}

impl OperatorMetrics {
    /// Zeroed counters for each of an operator's subtasks.
    pub fn of_subtasks(count: u32) -> Vec<Arc<Self>> {
        let guest = Arc::<GuestNumbers>::default();
        (0..count).map(|_| Arc::new(Self { guest: guest.clone(), ..Self::default() })).collect()
    }

    /// Time spent waiting with an element in hand, in nanoseconds.
    pub(crate) fn waited_ns(&self) -> u64 {
        self.backpressured_ns.get() + self.retrying_ns.get()
    }

    /// Where the guest of `subtask` adds its own metrics.
    pub fn of_guest(&self, subtask: SubtaskIndex) -> Arc<dyn GuestMetrics> {
        Arc::new(SubtaskNumbers { numbers: self.guest.clone(), subtask })
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// The total.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the total, for a number whose owner keeps it elsewhere.
    pub fn set(&self, total: u64) {
        self.0.store(total, Ordering::Relaxed);
    }
}

/// A number that advances, and when it last did.
#[derive(Debug, Default)]
pub struct Advance {
    to: Gauge,
    at_ms: Gauge,
}

impl Advance {
    /// It has come to `to` by the elapsed time `now_ms`.
    pub fn set(&self, to: i64, now_ms: i64) {
        if self.to.get() != to {
            self.to.set(to);
            self.at_ms.set(now_ms);
        }
    }

    /// How far it is; `i64::MIN`: nowhere yet.
    pub fn get(&self) -> i64 {
        self.to.get()
    }

    /// The elapsed time at which it came there; none: it is nowhere yet.
    pub fn since_ms(&self) -> Option<i64> {
        Some(self.at_ms.get()).filter(|&at_ms| at_ms != i64::MIN)
    }
}

/// A number that goes up and down.
#[derive(Debug)]
pub struct Gauge(AtomicI64);

impl Default for Gauge {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: i64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// The value.
    pub fn get(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }
}
