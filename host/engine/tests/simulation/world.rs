//! What survives the crashes of one simulated job: its clock, its storage, what its sinks have written, and who decides what happens next.
//!
//! Everything that touches the outside passes a *gate* ([`World::pass`]). There the seed decides how long the caller is held up and whether the
//! process dies at this place: then nothing passes any gate any more, until the next process begins ([`World::begin`]). What passed is the
//! *trace*; the same seed gives the same trace, line by line.

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millstream_engine::{
    clock,
    run::{CrashPoint, CrashPoints},
};
use millstream_storage::faults::Random;
use tokio::task::yield_now;

use crate::clock::{SimulatedClock, WallClock};

/// A row as it is compared: its columns as numbers, null as the least one.
pub type Row = Vec<i64>;

/// How trouble is spread over a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Troubles {
    /// Gates until a process dies, at most.
    pub gates_max: u64,
    /// A caller is held up at a gate for less than so many rounds.
    pub pause_rounds: u64,
    /// Chance in 1,000 that a source or sink fails.
    pub failing: u64,
    /// Chance in 1,000 that a write of the commit log fails.
    pub log_failing: u64,
    /// Chance in 1,000 that a run stops at a crash point.
    pub crash_points: u64,
}

impl Troubles {
    /// Nothing happens but what the job does, slowly enough for several checkpoints.
    pub const NONE: Self = Self { gates_max: 1, pause_rounds: 16, failing: 0, log_failing: 0, crash_points: 0 };
}

/// The world of one seed.
pub struct World {
    /// The clock of the job.
    pub clock: Arc<SimulatedClock>,
    /// What each sink has.
    pub shelves: Mutex<BTreeMap<String, Shelf>>,
    troubles: Troubles,
    inner: Mutex<Inner>,
}

struct Inner {
    random: Random,
    trace: Vec<String>,
    /// Gates that are still passed before the process dies; none: it lives on.
    gates_left: Option<u64>,
    is_dead: bool,
    is_calm: bool,
    broken: Vec<String>,
}

/// What a sink has: staged parts, which nobody sees, and published ones.
#[derive(Default)]
pub struct Shelf {
    pub staged: BTreeMap<String, Vec<Row>>,
    pub published: BTreeMap<String, Vec<Row>>,
}

impl World {
    pub fn new(seed: u64, troubles: Troubles, wall_clock: WallClock) -> Arc<Self> {
        let inner =
            Inner { random: Random::seeded(seed), trace: Vec::new(), gates_left: None, is_dead: false, is_calm: false, broken: Vec::new() };
        Arc::new(Self { clock: Arc::new(SimulatedClock::new(wall_clock)), shelves: Mutex::default(), troubles, inner: Mutex::new(inner) })
    }

    pub fn troubles(&self) -> Troubles {
        self.troubles
    }

    /// Less than `end`.
    pub fn below(&self, end: u64) -> u64 {
        self.inner().random.below(end)
    }

    /// Whether something happens that has this chance in 1,000; never once it is calm.
    pub fn happens(&self, chance: u64) -> bool {
        let mut inner = self.inner();
        !inner.is_calm && inner.random.below(1_000) < chance
    }

    /// Adds a line to the trace.
    pub fn note(&self, what: impl FnOnce() -> String) {
        let elapsed_ms = clock::Clock::monotonic_ms(self.clock.as_ref());
        self.inner().trace.push(format!("{elapsed_ms} {}", what()));
    }

    /// A law that must hold; the runtime would take a panic for a failure and go on.
    pub fn must(&self, holds: bool, law: impl FnOnce() -> String) {
        if !holds {
            let law = law();
            self.note(|| format!("BROKEN: {law}"));
            self.inner().broken.push(law);
        }
    }

    /// The laws that were broken.
    pub fn broken(&self) -> Vec<String> {
        self.inner().broken.clone()
    }

    /// The trace so far.
    pub fn trace(&self) -> Vec<String> {
        self.inner().trace.clone()
    }

    /// Passes a gate: `what` is about to happen, or has just happened. It does not return if the process dies here.
    pub async fn pass(&self, what: impl FnOnce() -> String) {
        if self.is_dead() {
            return pending().await;
        }
        self.note(what);
        let rounds = self.below(self.troubles.pause_rounds.max(1));
        for _ in 0..rounds {
            yield_now().await;
        }
        if self.dies_here() {
            pending().await
        }
    }

    /// A process begins. It dies somewhere if it is to; or there is no trouble of any kind any more.
    pub fn begin(&self, is_calm: bool) {
        let mut inner = self.inner();
        inner.is_dead = false;
        inner.is_calm = is_calm;
        let gates_max = self.troubles.gates_max;
        inner.gates_left = (!is_calm).then(|| inner.random.below(gates_max));
    }

    /// Whether the process has died.
    pub fn is_dead(&self) -> bool {
        self.inner().is_dead
    }

    fn dies_here(&self) -> bool {
        let mut inner = self.inner();
        if let Some(left) = &mut inner.gates_left {
            match left.checked_sub(1) {
                Some(fewer) => *left = fewer,
                None => inner.is_dead = true,
            }
        }
        inner.is_dead
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl clock::Random for World {
    fn next_u64(&self) -> u64 {
        self.inner().random.number()
    }
}

impl CrashPoints for World {
    fn reached(&self, point: CrashPoint) -> bool {
        let dies = self.happens(self.troubles.crash_points);
        self.note(|| format!("at {}{}", point.name(), if dies { ": dies" } else { "" }));
        if dies {
            self.inner().is_dead = true;
        }
        dies
    }
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
