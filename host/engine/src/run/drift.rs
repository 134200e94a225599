//! `max-drift`: how far all sources of a job have come, so that one that runs ahead can be held.

use std::sync::atomic::{AtomicI64, Ordering};

use millstream_model::Watermark;
use tokio::sync::watch;

/// A source that has ended or is idle does not hold the others.
const HOLDS_NOBODY: i64 = i64::MAX;

/// The watermarks of all source subtasks of a job that have event times.
pub(super) struct Drift {
    watermarks: Vec<AtomicI64>,
    changed: watch::Sender<()>,
}

impl Drift {
    /// Of `sources` source subtasks that have said nothing yet: they hold all others.
    pub(super) fn new(sources: usize) -> Self {
        let watermarks = std::iter::repeat_with(|| AtomicI64::new(i64::MIN)).take(sources).collect();
        Self { watermarks, changed: watch::Sender::new(()) }
    }

    /// Source subtask `source` has come to `watermark`; none: it holds nobody.
    pub(super) fn set(&self, source: usize, watermark: Option<Watermark>) {
        let new = watermark.map_or(HOLDS_NOBODY, |watermark| watermark.0);
        if self.watermarks[source].swap(new, Ordering::AcqRel) != new {
            self.changed.send_replace(());
        }
    }

    /// The watermark of the slowest source.
    pub(super) fn slowest(&self) -> Watermark {
        let all = self.watermarks.iter().map(|watermark| watermark.load(Ordering::Acquire));
        Watermark(all.min().unwrap_or(HOLDS_NOBODY))
    }

    /// Tells when a source has moved.
    pub(super) fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
