//! How far a consumer is behind the ends of its partitions, as the library counts it once a second, on a thread of its own: also while the stream stands
//! still and nobody asks for records.
//!
//! Behind are the records that were fetched and not taken yet, and the offsets from the next one to be fetched to the end. Markers of transactions are
//! among both, until the reader has passed them, so whoever has read everything is not behind. The library's count of what was fetched holds its own
//! notices too, so it is never more than there are offsets from the last one taken to the end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use millstream_engine::metrics::Gauge;
use rdkafka::statistics::{Partition, Statistics};

use super::settings::Isolation;

/// The gauges of the partitions that are read; negative: not known yet.
#[derive(Debug, Default)]
pub struct Lags {
    isolation: Isolation,
    partitions: Mutex<BTreeMap<(String, i32), Read>>,
}

/// A partition that is read.
#[derive(Debug)]
struct Read {
    /// The first record that its reader asks for.
    start: i64,
    gauge: Arc<Gauge>,
}

impl Lags {
    /// No partition yet.
    pub fn new(isolation: Isolation) -> Self {
        Self { isolation, partitions: Mutex::default() }
    }

    /// The gauge of a partition that is read from now on, and from the offset `start` on.
    pub fn of(&self, topic: &str, partition: i32, start: i64) -> Arc<Gauge> {
        let gauge = Arc::<Gauge>::default();
        self.partitions().insert((topic.to_owned(), partition), Read { start, gauge: gauge.clone() });
        gauge
    }

    /// A partition is not read any more.
    pub fn forget(&self, topic: &str, partition: i32) {
        self.partitions().remove(&(topic.to_owned(), partition));
    }

    /// Takes over what the library has counted.
    pub fn on_statistics(&self, statistics: &Statistics) {
        for ((topic, partition), read) in &*self.partitions() {
            let counted = statistics.topics.get(topic).and_then(|topic| topic.partitions.get(partition));
            if let Some(rows) = counted.and_then(|counted| self.behind(counted, read.start)) {
                read.gauge.set(rows);
            }
        }
    }

    fn behind(&self, counted: &Partition, start: i64) -> Option<i64> {
        let end = match self.isolation {
            Isolation::ReadCommitted => counted.ls_offset,
            Isolation::ReadUncommitted => counted.hi_offset,
        };
        // Negative until something was fetched.
        let is_known = end >= 0 && counted.next_offset >= 0;
        let fetched = || counted.fetchq_cnt.max(0) + (end - counted.next_offset).max(0);
        // Negative until something was taken.
        let not_taken = (end - counted.app_offset.max(start)).max(0);
        is_known.then(|| fetched().min(not_taken))
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<(String, i32), Read>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_are_the_rows_that_were_not_taken_and_nothing_else() {
        let behind = |fetched: i64, next: i64, end: i64, taken: i64| {
            let counted = Partition { fetchq_cnt: fetched, next_offset: next, ls_offset: end, app_offset: taken, ..Partition::default() };
            Lags::new(Isolation::ReadCommitted).behind(&counted, 3)
        };
        const NONE: i64 = -1001;
        assert_eq!(behind(0, NONE, NONE, NONE), None, "nothing is known");
        assert_eq!(behind(0, 3, 13, NONE), Some(10), "nothing was fetched");
        assert_eq!(behind(4, 7, 13, NONE), Some(10), "some were fetched");
        assert_eq!(behind(11, 13, 13, NONE), Some(10), "a notice of the library is no row");
        assert_eq!(behind(7, 13, 13, 7), Some(6), "also when some were taken");
        assert_eq!(behind(0, 13, 13, 12), Some(0), "a marker of a transaction is no row once it was passed");
    }
}
