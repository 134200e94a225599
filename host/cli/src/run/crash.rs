//! Where a durable run can be told to die.

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use millstream_engine::run::{CrashPoint, CrashPoints};

use crate::report::{Exit, Failure};

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
