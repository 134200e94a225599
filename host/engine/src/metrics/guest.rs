//! Metrics that guests define themselves, merged over the calls and subtasks of one operator.
//!
//! What a call has added arrives here only when the answer of the call was applied, so a repeated or bisected call counts once. Guests may
//! name what they like, so the names are bounded; what is not taken is counted.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_model::ids::SubtaskIndex;
use millstream_wasm::{GuestMetric, GuestMetrics, MetricKind};
use serde::{Deserialize, Serialize};

/// Most metrics of one operator, over all its subtasks and versions.
pub const GUEST_METRICS_MAX: usize = 256;

/// The metrics that the guests of one operator have defined; all its subtasks share it.
#[derive(Debug, Default)]
pub struct GuestNumbers {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    numbers: BTreeMap<GuestMetric, Number>,
    refused: u64,
}

#[derive(Debug)]
enum Number {
    Counter { total: f64 },
    Gauge { of_subtask: BTreeMap<SubtaskIndex, f64> },
    Histogram { count: u64, sum: f64, min: f64, max: f64 },
}

/// A metric that a component has defined, over all subtasks of the operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct GuestMetricStatus {
    /// Its name, as the component gives it.
    pub name: String,
    /// Its unit, for people.
    pub unit: String,
    /// How far it is.
    #[serde(flatten)]
    pub value: GuestMetricValue,
}

/// How far a metric of a component is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum GuestMetricValue {
    /// A sum that only grows.
    Counter {
        /// The sum.
        total: f64,
    },
    /// A value of the moment: the last one of each subtask.
    Gauge {
        /// The lowest of them.
        min: f64,
        /// The highest of them.
        max: f64,
    },
    /// Observations.
    Histogram {
        /// How many.
        count: u64,
        /// Their sum.
        sum: f64,
        /// The lowest.
        min: f64,
        /// The highest.
        max: f64,
    },
}

impl GuestNumbers {
    /// Every metric, by name.
    pub fn status(&self) -> Vec<GuestMetricStatus> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let status = |(metric, number): (&GuestMetric, &Number)| GuestMetricStatus {
            name: metric.name.to_string(),
            unit: metric.unit.to_string(),
            value: number.value(),
        };
        taken.numbers.iter().map(status).collect()
    }

    /// What was not taken: values that are no numbers, counters that would sink, and metrics beyond [`GUEST_METRICS_MAX`].
    pub fn refused(&self) -> u64 {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).refused
    }

    fn add(&self, subtask: SubtaskIndex, metric: &GuestMetric, value: f64) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_usable = value.is_finite() && (metric.kind != MetricKind::Counter || value >= 0.0);
        let has_room = taken.numbers.len() < GUEST_METRICS_MAX || taken.numbers.contains_key(metric);
        if is_usable && has_room {
            taken.numbers.entry(metric.clone()).or_insert_with(|| Number::new(metric.kind)).add(subtask, value);
        } else {
            taken.refused += 1;
        }
    }
}

impl Number {
    fn new(kind: MetricKind) -> Self {
        match kind {
            MetricKind::Counter => Self::Counter { total: 0.0 },
            MetricKind::Gauge => Self::Gauge { of_subtask: BTreeMap::new() },
            MetricKind::Histogram => Self::Histogram { count: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY },
        }
    }

    fn add(&mut self, subtask: SubtaskIndex, value: f64) {
        match self {
            Self::Counter { total } => *total += value,
            Self::Gauge { of_subtask } => drop(of_subtask.insert(subtask, value)),
            Self::Histogram { count, sum, min, max } => {
                *count += 1;
                *sum += value;
                *min = min.min(value);
                *max = max.max(value);
            }
        }
    }

    fn value(&self) -> GuestMetricValue {
        match self {
            Self::Counter { total } => GuestMetricValue::Counter { total: *total },
            Self::Gauge { of_subtask } => GuestMetricValue::Gauge {
                min: of_subtask.values().copied().fold(f64::INFINITY, f64::min),
                max: of_subtask.values().copied().fold(f64::NEG_INFINITY, f64::max),
            },
            Self::Histogram { count, sum, min, max } => GuestMetricValue::Histogram { count: *count, sum: *sum, min: *min, max: *max },
        }
    }
}

/// What one subtask adds to the numbers of its operator.
pub(super) struct SubtaskNumbers {
    pub(super) numbers: Arc<GuestNumbers>,
    pub(super) subtask: SubtaskIndex,
}

impl GuestMetrics for SubtaskNumbers {
    fn add(&self, metric: &GuestMetric, value: f64) {
        self.numbers.add(self.subtask, metric, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metric(name: &str, kind: MetricKind) -> GuestMetric {
        GuestMetric { name: name.into(), kind, unit: "1".into() }
    }

    fn values(numbers: &GuestNumbers) -> Vec<GuestMetricValue> {
        numbers.status().into_iter().map(|status| status.value).collect()
    }

    #[test]
    fn counters_add_up_gauges_show_their_range_and_histograms_their_observations() {
        let numbers = GuestNumbers::default();
        let (counter, gauge, histogram) =
            (metric("a", MetricKind::Counter), metric("b", MetricKind::Gauge), metric("c", MetricKind::Histogram));
        for (subtask, value) in [(0, 1.0), (1, 5.0), (0, 3.0)] {
            for metric in [&counter, &gauge, &histogram] {
                numbers.add(SubtaskIndex(subtask), metric, value);
            }
        }
        let (counter, gauge) = (GuestMetricValue::Counter { total: 9.0 }, GuestMetricValue::Gauge { min: 3.0, max: 5.0 });
        assert_eq!(values(&numbers), [counter, gauge, GuestMetricValue::Histogram { count: 3, sum: 9.0, min: 1.0, max: 5.0 }]);
        assert_eq!(numbers.refused(), 0);
    }

    #[test]
    fn no_more_than_256_metrics_are_taken_and_the_others_are_counted() {
        let numbers = GuestNumbers::default();
        for round in 0..2 {
            for name in 0..GUEST_METRICS_MAX + 3 {
                numbers.add(SubtaskIndex(round), &metric(&format!("m{name}"), MetricKind::Counter), 1.0);
            }
        }
        assert_eq!((numbers.status().len(), numbers.refused()), (GUEST_METRICS_MAX, 6));
        assert!(values(&numbers).iter().all(|value| *value == GuestMetricValue::Counter { total: 2.0 }));
    }

    #[test]
    fn what_is_no_number_and_a_counter_that_sinks_is_refused_and_counted() {
        let numbers = GuestNumbers::default();
        let counter = metric("a", MetricKind::Counter);
        for value in [f64::NAN, f64::INFINITY, -1.0, 2.0] {
            numbers.add(SubtaskIndex(0), &counter, value);
        }
        assert_eq!(values(&numbers), [GuestMetricValue::Counter { total: 2.0 }]);
        assert_eq!(numbers.refused(), 3);
    }
}
