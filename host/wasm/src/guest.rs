//! What a guest is told and may say besides its answers: who it runs for, and its metrics. Its log is [`crate::log`]'s.

use std::sync::Arc;

use millstream_model::ids::{JobId, OperatorId, SubtaskIndex, TenantId};

use crate::{
    http,
    log::{GuestLog, Said, SubtaskLog},
};

/// For whom an instance runs, and where its words go.
#[derive(Clone)]
pub struct InstanceContext {
    /// The owner.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The operator of the job; none: the instance runs for no operator, as when it is only asked what it is.
    pub operator: Option<OperatorId>,
    /// The subtask.
    pub subtask: SubtaskIndex,
    /// The version of its component, where its words are heard.
    pub version: Option<Arc<str>>,
    /// Where its log goes, shared by all instances of the subtask.
    pub log: Arc<SubtaskLog>,
    /// Where its metrics go.
    pub metrics: Arc<dyn GuestMetrics>,
    /// What sends its requests; none: it may send none.
    pub http: Option<Arc<dyn http::Sender>>,
}

impl InstanceContext {
    /// For an instance that is asked something, outside of any run: nobody hears its words.
    pub fn unheard(operator: Option<OperatorId>) -> Self {
        Self {
            tenant: TenantId::local(),
            job: JobId::from("plan"),
            operator,
            subtask: SubtaskIndex(0),
            version: None,
            log: SubtaskLog::new(Silent),
            metrics: Arc::new(Silent),
            http: None,
        }
    }
}

/// Receives the metrics of a guest, after each call whose answer was applied.
pub trait GuestMetrics: Send + Sync {
    /// `metric` counted, was set to, or saw `value`.
    fn add(&self, metric: &GuestMetric, value: f64);
}

/// A metric that a guest has defined.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GuestMetric {
    /// Lower-case letters, digits and `_`, at most 64.
    pub name: Arc<str>,
    /// How its values combine.
    pub kind: MetricKind,
    /// Its unit, for people.
    pub unit: Arc<str>,
}

/// How the values of a metric combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MetricKind {
    /// They add up.
    Counter,
    /// The last one holds.
    Gauge,
    /// Each is an observation.
    Histogram,
}

/// Hears nothing. For inspection, tests and benchmarks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl GuestLog for Silent {
    fn emit(&self, _: &Said<'_>) {}
}

impl GuestMetrics for Silent {
    fn add(&self, _metric: &GuestMetric, _value: f64) {}
}
