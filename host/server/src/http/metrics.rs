//! `/metrics`: the numbers of all jobs of a tenant in Prometheus' text format (version 0.0.4). [`Metric`] is every name there is.

use std::fmt::Write as _;

use millstream_engine::{
    metrics::{GuestMetricStatus, SplitLag},
    run::{JobStatus, OperatorStatus, OperatorVersion, VersionEntry},
};
use millstream_model::ids::TenantId;

use super::{problem::Refusal, service::Service};
use crate::{
    catalogue::{Found, objects::Job},
    jobs::observed::Phase,
};

/// What the text is.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every metric of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// 1 for the phase that a job is in.
    JobPhase,
    /// The version of a job that runs.
    JobVersion,
    /// How often a job went back to its last checkpoint.
    JobRestarts,
    /// The number of its last checkpoint.
    JobCheckpoint,
    /// When its last checkpoint was taken.
    JobCheckpointTime,
    /// How long its last checkpoint took.
    JobCheckpointDuration,
    /// Size of its last checkpoint.
    JobCheckpointBytes,
    /// Rows received.
    RowsIn,
    /// Rows emitted.
    RowsOut,
    /// Rows that came too late.
    RowsLate,
    /// Rows rejected.
    RowsRejected,
    /// Failures of guests.
    Traps,
    /// Time in guest calls.
    GuestSeconds,
    /// Time spent with elements, without waiting.
    BusySeconds,
    /// Time spent waiting for input.
    IdleSeconds,
    /// Requests over HTTP of guests.
    Requests,
    /// Bytes of those.
    RequestBytes,
    /// Bytes of their answers.
    AnswerBytes,
    /// Time spent waiting for room downstream.
    BackpressuredSeconds,
    /// Linear memory of an operator's guests.
    GuestMemory,
    /// Memory that keyed state takes.
    StateMemory,
    /// Keyed state in files.
    StateDisk,
    /// The lowest watermark of an operator's subtasks.
    Watermark,
    /// How far each split of a source is behind its end.
    Lag,
    /// Number of subtasks.
    Parallelism,
}

impl Metric {
    /// All of them, in the order in which they are written.
    pub const ALL: [Self; 25] = [
        Self::JobPhase,
        Self::JobVersion,
        Self::JobRestarts,
        Self::JobCheckpoint,
        Self::JobCheckpointTime,
        Self::JobCheckpointDuration,
        Self::JobCheckpointBytes,
        Self::RowsIn,
        Self::RowsOut,
        Self::RowsLate,
        Self::RowsRejected,
        Self::Traps,
        Self::GuestSeconds,
        Self::BusySeconds,
        Self::IdleSeconds,
        Self::Requests,
        Self::RequestBytes,
        Self::AnswerBytes,
        Self::BackpressuredSeconds,
        Self::GuestMemory,
        Self::StateMemory,
        Self::StateDisk,
        Self::Watermark,
        Self::Lag,
        Self::Parallelism,
    ];

    /// Its name, its type, and what it means.
    pub fn description(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::JobPhase => ("millstream_job_phase", "gauge", "1 for the phase that a job is in"),
            Self::JobVersion => ("millstream_job_version", "gauge", "The version of a job that runs"),
            Self::JobRestarts => ("millstream_job_restarts_total", "counter", "How often a run went back to its last checkpoint"),
            Self::JobCheckpoint => ("millstream_job_checkpoint_number", "gauge", "The number of the last committed checkpoint"),
            Self::JobCheckpointTime => {
                ("millstream_job_checkpoint_timestamp_seconds", "gauge", "When the last committed checkpoint was taken")
            }
            Self::JobCheckpointDuration => {
                ("millstream_job_checkpoint_duration_seconds", "gauge", "How long the last committed checkpoint took")
            }
            Self::JobCheckpointBytes => ("millstream_job_checkpoint_bytes", "gauge", "Size of the last committed checkpoint"),
            Self::RowsIn => ("millstream_operator_rows_in_total", "counter", "Rows received"),
            Self::RowsOut => ("millstream_operator_rows_out_total", "counter", "Rows emitted"),
            Self::RowsLate => ("millstream_operator_rows_late_total", "counter", "Rows that came too late and were not used"),
            Self::RowsRejected => ("millstream_operator_rows_rejected_total", "counter", "Rows rejected and dropped or sent to a sink"),
            Self::Traps => ("millstream_operator_traps_total", "counter", "Traps of a component, and other failures that cost an instance"),
            Self::GuestSeconds => ("millstream_operator_guest_seconds_total", "counter", "Time in calls of a component"),
            Self::BusySeconds => ("millstream_operator_busy_seconds_total", "counter", "Time spent with elements, without waiting"),
            Self::IdleSeconds => ("millstream_operator_idle_seconds_total", "counter", "Time spent waiting for input"),
            Self::GuestMemory => ("millstream_operator_guest_memory_bytes", "gauge", "Linear memory of the instances of a component"),
            Self::StateMemory => ("millstream_operator_state_memory_bytes", "gauge", "Memory that keyed state takes"),
            Self::StateDisk => ("millstream_operator_state_disk_bytes", "gauge", "Keyed state in files, as of the last checkpoint"),
            Self::Requests => ("millstream_operator_requests_total", "counter", "Requests over HTTP that a component has sent"),
            Self::RequestBytes => ("millstream_operator_request_bytes_total", "counter", "Bytes of requests over HTTP"),
            Self::AnswerBytes => ("millstream_operator_answer_bytes_total", "counter", "Bytes of the bodies of their answers"),
            Self::BackpressuredSeconds => {
                ("millstream_operator_backpressured_seconds_total", "counter", "Time spent waiting for room downstream")
            }
            Self::Watermark => ("millstream_operator_watermark_timestamp_seconds", "gauge", "The lowest watermark of the subtasks"),
            Self::Lag => {
                ("millstream_source_lag_rows", "gauge", "Rows of a split (such as a partition) that are there and were not read yet")
            }
            Self::Parallelism => ("millstream_operator_parallelism", "gauge", "Number of subtasks"),
        }
    }
}

/// One job, as it is now.
struct Seen {
    found: Found<Job>,
    phase: Phase,
    status: Option<JobStatus>,
}

/// The metrics of a tenant.
///
/// # Errors
/// The catalogue does not answer.
pub async fn text(service: &Service, tenant: &TenantId) -> Result<String, Refusal> {
    let mut jobs = Vec::new();
    for found in service.store.list::<Job>(tenant, None, usize::MAX).await? {
        let runner = service.jobs.runner(tenant, &found.name);
        let status = match runner.running() {
            Some(running) => running.status().await,
            None => None,
        };
        jobs.push(Seen { phase: runner.observed().phase, found, status });
    }
    let mut text = String::new();
    for metric in Metric::ALL {
        let (name, kind, help) = metric.description();
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for job in &jobs {
            write_metric(&mut text, metric, name, job);
        }
    }
    jobs.iter().for_each(|job| write_guests(&mut text, job));
    Ok(text)
}

fn write_metric(text: &mut String, metric: Metric, name: &str, job: &Seen) {
    let labels = format!("job=\"{}\"", escaped(&job.found.name));
    let mut line = |labels: &str, value: f64| {
        let _ = writeln!(text, "{name}{{{labels}}} {value}");
    };
    if let Some(of) = operator_value(metric) {
        let current = job.found.object.current().number;
        for operator in job.status.iter().flat_map(|status| &status.operators) {
            if let Some(value) = of(operator) {
                line(&format!("{labels},{},version=\"{current}\"", of_operator(operator)), value);
            }
        }
        return;
    }
    if metric == Metric::Lag {
        for operator in job.status.iter().flat_map(|status| &status.operators) {
            for SplitLag { split, rows } in &operator.lags {
                line(&format!("{labels},operator=\"{}\",split=\"{}\"", escaped(operator.id.as_str()), escaped(split)), *rows as f64);
            }
        }
        return;
    }
    let durable = job.status.as_ref().and_then(|status| status.durable.as_ref());
    let last = durable.and_then(|durable| durable.last_checkpoint.as_ref());
    let value = match metric {
        Metric::JobPhase => return line(&format!("{labels},phase=\"{}\"", job.phase.name()), 1.0),
        Metric::JobVersion => Some(job.found.object.current().number as f64),
        Metric::JobRestarts => durable.map(|durable| f64::from(durable.restarts)),
        Metric::JobCheckpoint => last.map(|last| last.checkpoint.0 as f64),
        Metric::JobCheckpointTime => last.map(|last| last.at_ms as f64 / 1e3),
        Metric::JobCheckpointDuration => last.map(|last| last.total_ms as f64 / 1e3),
        Metric::JobCheckpointBytes => last.map(|last| last.bytes_total as f64),
        _ => None,
    };
    if let Some(value) = value {
        line(&labels, value);
    }
}

/// How a metric of an operator is read; none: it is one of jobs.
fn operator_value(metric: Metric) -> Option<fn(&OperatorStatus) -> Option<f64>> {
    Some(match metric {
        Metric::RowsIn => |operator| Some(operator.rows_in as f64),
        Metric::RowsOut => |operator| Some(operator.rows_out as f64),
        Metric::RowsLate => |operator| Some(operator.rows_late as f64),
        Metric::RowsRejected => |operator| Some(operator.rows_rejected as f64),
        Metric::Traps => |operator| Some(operator.traps as f64),
        Metric::GuestSeconds => |operator| Some(operator.guest_time.as_secs_f64()),
        Metric::BusySeconds => |operator| Some(operator.busy_time.as_secs_f64()),
        Metric::IdleSeconds => |operator| Some(operator.idle_time.as_secs_f64()),
        Metric::Requests => |operator| Some(operator.requests as f64),
        Metric::RequestBytes => |operator| Some(operator.request_bytes as f64),
        Metric::AnswerBytes => |operator| Some(operator.answer_bytes as f64),
        Metric::BackpressuredSeconds => |operator| Some(operator.backpressured_time.as_secs_f64()),
        Metric::GuestMemory => |operator| (!operator.versions.is_empty()).then_some(operator.guest_memory_bytes as f64),
        Metric::StateMemory => |operator| Some(operator.state_memory_bytes as f64),
        Metric::StateDisk => |operator| Some(operator.state_disk_bytes as f64),
        Metric::Watermark => |operator| operator.watermark.map(|watermark| watermark as f64 / 1e3),
        Metric::Parallelism => |operator| Some(f64::from(operator.parallelism)),
        Metric::Lag
        | Metric::JobPhase
        | Metric::JobVersion
        | Metric::JobRestarts
        | Metric::JobCheckpoint
        | Metric::JobCheckpointTime
        | Metric::JobCheckpointDuration
        | Metric::JobCheckpointBytes => return None,
    })
}

/// What components count themselves: `millstream_guest_<name>`, with the job and the operator.
fn write_guests(text: &mut String, job: &Seen) {
    for operator in job.status.iter().flat_map(|status| &status.operators) {
        for GuestMetricStatus { name, value, .. } in &operator.guest_metrics {
            let number = serde_json::to_value(value).ok().and_then(|value| value.as_f64().or_else(|| value.get("total")?.as_f64()));
            // A runner may say anything; a name with a line break would be a metric of somebody else's making.
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
            if let Some(number) = number.filter(|_| is_name) {
                let (job, operator) = (escaped(&job.found.name), escaped(operator.id.as_str()));
                let _ = writeln!(text, "millstream_guest_{name}{{job=\"{job}\",operator=\"{operator}\"}} {number}");
            }
        }
    }
}

/// The labels of an operator, and of the version of its component that runs.
fn of_operator(operator: &OperatorStatus) -> String {
    let id = format!("operator=\"{}\"", escaped(operator.id.as_str()));
    match operator.versions.last() {
        Some(VersionEntry { version: OperatorVersion { name, version, .. }, .. }) => {
            format!("{id},component=\"{}\",component_version=\"{}\"", escaped(name), escaped(version))
        }
        None => id,
    }
}

fn escaped(label: &str) -> String {
    label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_metric_has_a_name_of_its_own_in_prometheus_style() {
        let names: BTreeSet<&str> = Metric::ALL.iter().map(|metric| metric.description().0).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for metric in Metric::ALL {
            let (name, kind, _) = metric.description();
            assert!(name.starts_with("millstream_") && (kind == "counter") == name.ends_with("_total"), "{name}");
        }
    }
}
