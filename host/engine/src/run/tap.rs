//! Taps: somebody looks at what operators emit and sinks are given, live. Looking changes nothing: who does not keep up misses batches, which are
//! counted, and the job never waits. Where nobody looks it costs one load per batch.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use millstream_model::{Batch, ids::OperatorId};
use tokio::sync::mpsc;

/// The taps of one job. They outlive its attempts and its swaps.
#[derive(Debug, Default)]
pub struct Taps {
    taps: Mutex<BTreeMap<OperatorId, Arc<Tap>>>,
}

impl Taps {
    /// Looks at an operator or source from now on; at what a sink is given. At most `batches` wait to be looked at.
    pub fn watch(&self, operator: &OperatorId, batches: usize) -> Tapped {
        let tap = self.of(operator);
        let (to, rows) = mpsc::channel(batches.max(1));
        let missed = Arc::new(AtomicU64::new(0));
        tap.watchers.lock().unwrap_or_else(PoisonError::into_inner).push(Watcher { to, missed: missed.clone() });
        tap.count.fetch_add(1, Ordering::Relaxed);
        Tapped { batches: rows, missed }
    }

    /// The tap of an operator, source or sink.
    pub(super) fn of(&self, operator: &OperatorId) -> Arc<Tap> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner).entry(operator.clone()).or_default().clone()
    }
}

/// What somebody sees who looks.
#[derive(Debug)]
pub struct Tapped {
    batches: mpsc::Receiver<Batch>,
    missed: Arc<AtomicU64>,
}

impl Tapped {
    /// The next batch; none: the job is gone. Cancel-safe.
    pub async fn next(&mut self) -> Option<Batch> {
        self.batches.recv().await
    }

    /// Rows that were not waited for since this was asked last.
    pub fn take_missed(&self) -> u64 {
        self.missed.swap(0, Ordering::Relaxed)
    }
}

/// Where the batches of one operator pass.
#[derive(Debug, Default)]
pub(super) struct Tap {
    count: AtomicUsize,
    watchers: Mutex<Vec<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    to: mpsc::Sender<Batch>,
    missed: Arc<AtomicU64>,
}

impl Tap {
    /// A batch passes.
    pub(super) fn offer(&self, batch: &Batch) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        watchers.retain(|watcher| match watcher.to.try_send(batch.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(batch)) => {
                watcher.missed.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        });
        self.count.store(watchers.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use arrow_array::{Int64Array, RecordBatch};

    use super::*;

    fn batch(rows: i64) -> Batch {
        let column = Arc::new(Int64Array::from_iter_values(0..rows));
        Batch::new(RecordBatch::try_from_iter([("n", column as _)]).expect("one column"))
    }

    #[tokio::test]
    async fn who_does_not_keep_up_misses_rows_which_are_counted_and_nobody_waits() {
        let (taps, id) = (Taps::default(), OperatorId::from("a"));
        let tap = taps.of(&id);
        tap.offer(&batch(9));
        let mut tapped = taps.watch(&id, 1);
        tap.offer(&batch(2));
        tap.offer(&batch(3));
        assert_eq!(tapped.next().await.map(|batch| batch.num_rows()), Some(2));
        assert_eq!(tapped.take_missed(), 3);
        assert_eq!(tapped.take_missed(), 0);
    }

    #[test]
    fn who_has_left_is_forgotten() {
        let (taps, id) = (Taps::default(), OperatorId::from("a"));
        let tap = taps.of(&id);
        drop(taps.watch(&id, 1));
        tap.offer(&batch(1));
        assert_eq!(tap.count.load(Ordering::Relaxed), 0);
    }
}
