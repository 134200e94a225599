//! The neighbour: a job that numbers rows at a fixed rate, and what can be seen of it from outside.
//!
//! Row number `n` is due `n / rate` seconds after the first. So who knows when each row arrived knows how late each was, but for one number that all rows
//! share: what the fastest of them took.

use std::{
    io::BufRead,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde_json::Value;

/// The job of the neighbour, with a keyed component that leaves the column `value` as it is.
pub fn job(rate: u32, component: &str) -> String {
    format!(
        "job: quiet
parallelism: 1
sources:
  numbers:
    sequence: {{ rate: {rate} }}
    event-time: {{ column: value }}
operators:
  buckets:
    input: numbers
    compute: {{ bucket: value % 97 }}
  quiet:
    input: buckets
    key-by: [bucket]
    component: {component}
sinks:
  out: {{ input: quiet, blackhole: {{}} }}
checkpoints: {{ interval: 1s }}
"
    )
}

/// What a neighbour has noticed in some time.
#[derive(Clone, Copy, Debug)]
pub struct Noticed {
    /// Rows that arrived, of those that were due.
    pub share: f64,
    /// How late the rows were, but for one in a hundred.
    pub p99: Duration,
    /// How late the latest was.
    pub most: Duration,
}

/// Looks at the rows of a neighbour as they arrive.
pub struct Watch {
    rate: u32,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// When row 0 would have arrived had it been the fastest of all.
    start: Option<Instant>,
    /// Rows since the last look: when they arrived, and their numbers.
    rows: Vec<(Instant, u64)>,
    /// When it was looked last.
    looked: Option<Instant>,
}

impl Watch {
    pub fn new(rate: u32) -> Self {
        Self { rate, seen: Mutex::default() }
    }

    /// Reads a stream of the rows of the operator until it ends.
    pub fn read(&self, stream: impl BufRead) {
        for line in stream.lines().map_while(Result::ok) {
            if let Some(data) = line.strip_prefix("data: ") {
                self.note(now(), data);
            }
        }
    }

    fn note(&self, at: Instant, data: &str) {
        let event: Value = serde_json::from_str(data).expect("events are JSON");
        let rows = event["rows"].as_array().into_iter().flatten().filter_map(|row| row["value"].as_u64());
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for number in rows {
            let start = at.checked_sub(self.due(number)).expect("the machine has run for longer than the job");
            seen.start = Some(seen.start.map_or(start, |known| known.min(start)));
            seen.rows.push((at, number));
        }
    }

    fn due(&self, number: u64) -> Duration {
        Duration::from_nanos(number.saturating_mul(1_000_000_000) / u64::from(self.rate))
    }

    /// Forgets what was seen, and begins to look.
    pub fn begin(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.rows.clear();
        seen.looked = Some(now());
    }

    /// Rows seen since the look began.
    pub fn rows(&self) -> usize {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).rows.len()
    }

    /// What was noticed since the look began.
    pub fn noticed(&self) -> Noticed {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(start), Some(looked)) = (seen.start, seen.looked) else {
            return Noticed { share: 0.0, p99: Duration::MAX, most: Duration::MAX };
        };
        let due = looked.elapsed().as_secs_f64() * f64::from(self.rate);
        let rows = std::mem::take(&mut seen.rows);
        let mut late: Vec<Duration> = rows.iter().map(|(at, number)| at.saturating_duration_since(start + self.due(*number))).collect();
        late.sort_unstable();
        let at = |share: f64| late.get(((late.len() as f64 * share) as usize).min(late.len().saturating_sub(1))).copied();
        let worst = Duration::MAX;
        Noticed { share: rows.len() as f64 / due, p99: at(0.99).unwrap_or(worst), most: at(1.0).unwrap_or(worst) }
    }
}

#[allow(clippy::disallowed_methods, reason = "the rows come from another process, with a clock of its own")]
fn now() -> Instant {
    Instant::now()
}
