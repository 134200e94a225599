//! How far the splits of a source are behind their ends. Whoever reads a split keeps its number up to date, also while the stream stands still and asks
//! for no rows: that is when it matters.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Gauge;

/// How far one split is behind its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct SplitLag {
    /// The split.
    pub split: String,
    /// Rows that are there and were not read yet, about.
    pub rows: u64,
}

/// The splits that a subtask reads, with their numbers.
#[derive(Debug, Default)]
pub struct Lags(Mutex<Vec<SplitGauge>>);

/// A split, and the rows that are there and were not read yet.
pub type SplitGauge = (Arc<str>, Arc<Gauge>);

impl Lags {
    /// These splits are read now.
    pub fn set(&self, splits: Vec<SplitGauge>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = splits;
    }

    /// How far each is behind, of those that know.
    pub fn get(&self) -> Vec<SplitLag> {
        let splits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = splits.iter().filter_map(|(split, gauge)| Some((split, u64::try_from(gauge.get()).ok()?)));
        known.map(|(split, rows)| SplitLag { split: split.to_string(), rows }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_that_does_not_know_how_far_it_is_behind_is_left_out() {
        let (lags, gauges) = (Lags::default(), [Arc::<Gauge>::default(), Arc::default()]);
        lags.set(vec![("a".into(), gauges[0].clone()), ("b".into(), gauges[1].clone())]);
        assert_eq!(lags.get(), []);
        gauges[1].set(7);
        assert_eq!(lags.get(), [SplitLag { split: "b".into(), rows: 7 }]);
    }
}
