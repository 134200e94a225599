//! How far a consumer is behind the ends of its partitions, as the library counts it once a second, on a thread of its own: also while the stream stands
//! still and nobody asks for records.
//!
//! Behind are the records that were fetched and not taken yet, and the offsets from the next one to be fetched to the end. Markers of transactions are
//! among both, until the reader has passed them, so whoever has read everything is not behind.

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
    partitions: Mutex<BTreeMap<(String, i32), Arc<Gauge>>>,
}

impl Lags {
    /// No partition yet.
    pub fn new(isolation: Isolation) -> Self {
        Self { isolation, partitions: Mutex::default() }
    }

    /// The gauge of a partition that is read from now on.
    pub fn of(&self, topic: &str, partition: i32) -> Arc<Gauge> {
        let gauge = Arc::<Gauge>::default();
        self.partitions().insert((topic.to_owned(), partition), gauge.clone());
        gauge
    }

    /// A partition is not read any more.
    pub fn forget(&self, topic: &str, partition: i32) {
        self.partitions().remove(&(topic.to_owned(), partition));
    }

    /// Takes over what the library has counted.
    pub fn on_statistics(&self, statistics: &Statistics) {
        for ((topic, partition), gauge) in &*self.partitions() {
            let counted = statistics.topics.get(topic).and_then(|topic| topic.partitions.get(partition));
            if let Some(rows) = counted.and_then(|counted| self.behind(counted)) {
                gauge.set(rows);
            }
        }
    }

    fn behind(&self, counted: &Partition) -> Option<i64> {
        let end = match self.isolation {
            Isolation::ReadCommitted => counted.ls_offset,
            Isolation::ReadUncommitted => counted.hi_offset,
        };
        // Negative until something was fetched.
        let is_known = end >= 0 && counted.next_offset >= 0;
        is_known.then(|| counted.fetchq_cnt.max(0) + (end - counted.next_offset).max(0))
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<(String, i32), Arc<Gauge>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
