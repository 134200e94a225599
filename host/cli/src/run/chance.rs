//! What is random in a durable run, and where it can be told to die.

use std::{
    env,
    fs::File,
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use millstream_engine::{
    clock::Random,
    run::{CrashPoint, CrashPoints},
};

use crate::report::{Exit, Failure};

/// Random numbers that nobody needs to guess wrong: names of manifests and the spread of waits. Steele, Lea, Flood: Fast splittable pseudorandom
/// number generators, 2014.
pub struct Seeded(AtomicU64);

impl Seeded {
    /// Seeded by the system.
    pub fn from_system() -> Result<Self, Failure> {
        let mut seed = [0; 8];
        let read = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed));
        read.map_err(|error| Failure::new(Exit::Failed, "the system gives no random numbers").because(&error))?;
        Ok(Self(AtomicU64::new(u64::from_le_bytes(seed))))
    }
}

impl Random for Seeded {
    fn next_u64(&self) -> u64 {
        const STEP: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut mixed = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

/// Aborts the process when a point is reached for the so-many-th time.
struct DieAt {
    point: String,
    left: AtomicU64,
}

impl CrashPoints for DieAt {
    fn reached(&self, point: CrashPoint) -> bool {
        if point.name() == self.point && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
        false
    }
}

/// What `MILLSTREAM_CRASH_AT=<point>:<count>` says, for tests of recovery; none: nowhere.
pub fn crash_points() -> Result<Option<Arc<dyn CrashPoints>>, Failure> {
    let Ok(text) = env::var("MILLSTREAM_CRASH_AT") else { return Ok(None) };
    let parsed = text.split_once(':').and_then(|(point, count)| Some((point.to_owned(), count.parse::<u64>().ok()?)));
    let (point, count) = parsed.ok_or_else(|| {
        Failure::new(Exit::Invalid, format!("MILLSTREAM_CRASH_AT={text} is not understood")).fix("say a point and a count, as record:1")
    })?;
    Ok(Some(Arc::new(DieAt { point, left: AtomicU64::new(count) })))
}
