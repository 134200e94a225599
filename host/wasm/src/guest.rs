//! What a guest is told and may say besides its answers: who it runs for, its log and its metrics.

use std::sync::Arc;

use millstream_model::ids::{JobId, OperatorId, SubtaskIndex, TenantId};

/// For whom an instance runs, and where its words go.
#[derive(Clone)]
pub struct InstanceContext {
    /// The owner.
    pub tenant: TenantId,
    /// The job.
    pub job: JobId,
    /// The operator of the job.
    pub operator: OperatorId,
    /// The subtask.
    pub subtask: SubtaskIndex,
    /// Where its log goes.
    pub log: Arc<dyn GuestLog>,
    /// Where its metrics go.
    pub metrics: Arc<dyn GuestMetrics>,
}

/// Receives the log lines of a guest: at once, rate-limited, one line each, control characters escaped.
pub trait GuestLog: Send + Sync {
    /// The guest says `message`.
    fn emit(&self, level: LogLevel, message: &str);
}

/// How urgent a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogLevel {
    /// Every detail.
    Trace,
    /// For the author.
    Debug,
    /// For the operator of the job.
    Info,
    /// Something is odd.
    Warn,
    /// Something failed.
    Error,
}

/// Receives the metrics of a guest, after each call whose answer was good.
pub trait GuestMetrics: Send + Sync {
    /// `metric` counted, was set to, or saw `value`.
    fn add(&self, metric: &GuestMetric, value: f64);
}

/// A metric that a guest has defined.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GuestMetric {
    /// Lower-case letters, digits and `_`, at most 64.
    pub name: Arc<str>,
    /// How its values combine.
    pub kind: MetricKind,
    /// Its unit, for people.
    pub unit: Arc<str>,
}

/// How the values of a metric combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
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
    fn emit(&self, _level: LogLevel, _message: &str) {}
}

impl GuestMetrics for Silent {
    fn add(&self, _metric: &GuestMetric, _value: f64) {}
}

/// Writes guest logs as `tracing` events with tenant, job, operator and subtask.
#[derive(Clone, Debug)]
pub struct TracedLog {
    tenant: TenantId,
    job: JobId,
    operator: OperatorId,
    subtask: SubtaskIndex,
}

impl TracedLog {
    /// The log of one subtask.
    pub fn new(tenant: TenantId, job: JobId, operator: OperatorId, subtask: SubtaskIndex) -> Self {
        Self { tenant, job, operator, subtask }
    }
}

impl GuestLog for TracedLog {
    fn emit(&self, level: LogLevel, message: &str) {
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(target: "guest", tenant = %self.tenant, job = %self.job, operator = %self.operator, subtask = self.subtask.0, "{message}")
            };
        }
        match level {
            LogLevel::Trace => event!(trace),
            LogLevel::Debug => event!(debug),
            LogLevel::Info => event!(info),
            LogLevel::Warn => event!(warn),
            LogLevel::Error => event!(error),
        }
    }
}
