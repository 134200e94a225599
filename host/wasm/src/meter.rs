//! Time that guests use: the ticks that interrupt them, and what a call has cost.
//!
//! Interruption is by wasmtime's epochs. A thread of its own advances the epoch every [`crate::Limits::yield_interval`]; a call that
//! meets an advanced epoch lets other tasks run, and traps once its CPU time is used up. The thread sleeps while no call runs.
//!
//! This module is the only one that reads the machine's clocks. They never reach a guest or a result.

use std::{
    future::Future,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::Poll,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use cpu_time::ThreadTime;
use wasmtime::Engine;

/// The machine's monotonic clock, for measuring only.
#[allow(clippy::disallowed_methods, reason = "measures cost; no result depends on it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// CPU time that the current thread has used, in ns.
fn thread_cpu_ns() -> u64 {
    u64::try_from(ThreadTime::now().as_duration().as_nanos()).unwrap_or(u64::MAX)
}

/// Idle ticks after which the ticker sleeps.
const IDLE_TICKS: u32 = 20;

/// Advances the engine's epoch while calls run. Dropping it ends its thread.
pub(crate) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    running_calls: AtomicUsize,
    asleep: AtomicBool,
    ending: AtomicBool,
}

impl Ticker {
    pub(crate) fn start(engine: &Engine, interval: Duration) -> std::io::Result<Self> {
        let shared =
            Arc::new(Shared { running_calls: AtomicUsize::new(0), asleep: AtomicBool::new(false), ending: AtomicBool::new(false) });
        let (ticking, engine) = (shared.clone(), engine.clone());
        let thread = std::thread::Builder::new().name("guest-ticker".into()).spawn(move || ticking.run(&engine, interval))?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Marks a call as running until the guard is dropped.
    pub(crate) fn running(&self) -> Running {
        self.shared.running_calls.fetch_add(1, Ordering::SeqCst);
        if self.shared.asleep.load(Ordering::SeqCst) {
            self.wake();
        }
        Running(self.shared.clone())
    }

    fn wake(&self) {
        self.thread.iter().for_each(|thread| thread.thread().unpark());
    }
}

impl Shared {
    fn run(&self, engine: &Engine, interval: Duration) {
        let mut idle_ticks = 0;
        while !self.ending.load(Ordering::SeqCst) {
            if self.running_calls.load(Ordering::SeqCst) > 0 {
                idle_ticks = 0;
            } else {
                idle_ticks += 1;
            }
            if idle_ticks > IDLE_TICKS {
                self.sleep();
                idle_ticks = 0;
            }
            std::thread::park_timeout(interval);
            engine.increment_epoch();
        }
    }

    /// Sleeps until a call runs or the end. Announced first and checked after, so that no call is overlooked.
    fn sleep(&self) {
        self.asleep.store(true, Ordering::SeqCst);
        while self.running_calls.load(Ordering::SeqCst) == 0 && !self.ending.load(Ordering::SeqCst) {
            std::thread::park();
        }
        self.asleep.store(false, Ordering::SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.ending.store(true, Ordering::SeqCst);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // The thread cannot panic; if it did, there is nothing left to stop.
            let _ = thread.join();
        }
    }
}

/// A call runs while this lives.
pub(crate) struct Running(Arc<Shared>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running_calls.fetch_sub(1, Ordering::SeqCst);
    }
}

/// CPU time of one call. The call's future is polled in slices, each on one thread.
///
/// The first slice counts by wall-clock time, since asking for the thread's CPU time costs as much as a small call.
pub(crate) struct CpuMeter {
    started: Instant,
    used_ns: AtomicU64,
    /// Since `started`, when the current slice began.
    slice_wall_ns: AtomicU64,
    /// CPU time of the thread when the current slice began; [`UNKNOWN`] in the first slice.
    slice_cpu_ns: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

impl CpuMeter {
    pub(crate) fn new() -> Self {
        Self { started: now(), used_ns: AtomicU64::new(0), slice_wall_ns: AtomicU64::new(0), slice_cpu_ns: AtomicU64::new(UNKNOWN) }
    }

    fn wall_ns(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.started).as_nanos()).unwrap_or(u64::MAX)
    }

    fn begin_call(&self, at: Instant) {
        self.used_ns.store(0, Ordering::Relaxed);
        self.slice_wall_ns.store(self.wall_ns(at), Ordering::Relaxed);
        self.slice_cpu_ns.store(UNKNOWN, Ordering::Relaxed);
    }

    fn resume(&self, at: Instant) {
        self.slice_wall_ns.store(self.wall_ns(at), Ordering::Relaxed);
        self.slice_cpu_ns.store(thread_cpu_ns(), Ordering::Relaxed);
    }

    /// Called before the host may wait on behalf of the running guest: a slice that ends by waiting is counted nowhere else.
    pub(crate) fn cut(&self) {
        self.used_at_tick();
        self.resume(now());
    }

    /// Called by the running guest when the epoch has advanced: the CPU time used by the call so far.
    pub(crate) fn used_at_tick(&self) -> Duration {
        let cpu_before = self.slice_cpu_ns.load(Ordering::Relaxed);
        let slice = match cpu_before {
            UNKNOWN => self.wall_ns(now()).saturating_sub(self.slice_wall_ns.load(Ordering::Relaxed)),
            before => thread_cpu_ns().saturating_sub(before),
        };
        // The slice ends here: the guest yields, and the next poll begins a new one.
        Duration::from_nanos(self.used_ns.fetch_add(slice, Ordering::Relaxed) + slice)
    }
}

/// Runs the call to its end; also says how long it was being polled.
pub(crate) async fn metered<F: Future>(meter: &CpuMeter, call: F) -> (F::Output, Duration) {
    let mut call = pin!(call);
    let mut busy = Duration::ZERO;
    let mut polled_before = false;
    let output = std::future::poll_fn(|context| {
        let began = now();
        if polled_before {
            meter.resume(began);
        } else {
            meter.begin_call(began);
            polled_before = true;
        }
        let poll = call.as_mut().poll(context);
        busy += began.elapsed();
        match poll {
            Poll::Ready(output) => Poll::Ready(output),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    (output, busy)
}
