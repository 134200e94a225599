//! What a job did, for a person: one line per source, operator and sink, with what was lost on the way and why.

use std::{fmt::Write as _, time::Duration};

use millstream_engine::{
    metrics::{GuestMetricStatus, GuestMetricValue},
    run::{OperatorKind, OperatorStatus, Summary},
};
pub use millstream_server::text::duration;

use crate::terminal::{FAINT, GOOD, STRONG, WARNING, grouped};

/// Most metrics of a component that are shown to a person.
const METRICS_SHOWN_MAX: usize = 8;

/// The summary of a finished job.
pub fn to_text(job: &str, summary: &Summary, took: Duration) -> String {
    let rows_read: u64 = sources(summary).map(|source| source.rows_out).sum();
    let rate = (rows_read as f64 / took.as_secs_f64().max(0.001)) as u64;
    let mut text = format!(
        "{STRONG}{job}{STRONG:#} {GOOD}done{GOOD:#} in {}, {} rows read, {} rows/s\n",
        duration(took),
        grouped(rows_read),
        grouped(rate)
    );
    text += &operators(&summary.operators);
    for note in &summary.notes {
        let _ = writeln!(text, "  {WARNING}note:{WARNING:#} {note}");
    }
    text
}

/// One line per source, operator and sink, with what they read and wrote.
pub fn operators(operators: &[OperatorStatus]) -> String {
    let mut text = String::new();
    let lines: Vec<Line> = operators.iter().map(Line::of).collect();
    let width = |of: fn(&Line) -> &str| lines.iter().map(|line| of(line).len()).max().unwrap_or_default();
    let (id, rows_in, rows_out) = (width(|line| &line.id), width(|line| &line.rows_in), width(|line| &line.rows_out));
    for line in &lines {
        let Line { kind, id: name, rows_in: read, rows_out: written, remarks, metrics } = line;
        let numbers = format!("{FAINT}{kind:<8}{FAINT:#}  {name:<id$}  {read:>rows_in$}  {written:>rows_out$}");
        let _ = writeln!(text, "  {}{remarks}", if remarks.is_empty() { numbers.trim_end() } else { numbers.as_str() });
        for metric in metrics {
            let _ = writeln!(text, "            {FAINT}{metric}{FAINT:#}");
        }
    }
    text
}

/// The same as one line of JSON.
pub fn to_json(job: &str, summary: &Summary, took: Duration) -> String {
    serde_json::json!({ "job": job, "outcome": "finished", "duration-ms": took.as_millis() as u64, "summary": summary }).to_string()
}

fn sources(summary: &Summary) -> impl Iterator<Item = &OperatorStatus> {
    summary.operators.iter().filter(|operator| operator.kind == OperatorKind::Source)
}

/// One line of the table.
struct Line {
    kind: &'static str,
    id: String,
    rows_in: String,
    rows_out: String,
    remarks: String,
    /// What its component counts itself, one line each.
    metrics: Vec<String>,
}

impl Line {
    fn of(operator: &OperatorStatus) -> Self {
        let (kind, takes, gives) = match operator.kind {
            OperatorKind::Source => ("source", false, true),
            OperatorKind::Operator => ("operator", true, true),
            OperatorKind::Sink => ("sink", true, false),
        };
        let rows = |shown: bool, count: u64, word: &str| if shown { format!("{} {word}", grouped(count)) } else { String::new() };
        Self {
            kind,
            id: operator.id.to_string(),
            rows_in: rows(takes, operator.rows_in, "in"),
            rows_out: rows(gives, operator.rows_out, "out"),
            remarks: remarks(operator),
            metrics: metrics(operator),
        }
    }
}

/// What did not go the usual way.
fn remarks(operator: &OperatorStatus) -> String {
    let counts = [
        (operator.rows_late, "late"),
        (operator.rows_rejected, "rejected"),
        (operator.rows_null_key, "without a key, dropped"),
        (operator.timers_cut, "timers cut"),
        (operator.traps, "guest failures"),
        (operator.guest_metrics_refused, "metric values refused"),
    ];
    let seen = counts.into_iter().filter(|(count, _)| *count > 0);
    let behind = operator.rows_behind().filter(|rows| *rows > 0);
    let behind = behind.map(|rows| format!("  {FAINT}{} behind the end{FAINT:#}", grouped(rows)));
    behind.into_iter().chain(seen.map(|(count, what)| format!("  {WARNING}{} {what}{WARNING:#}", grouped(count)))).collect()
}

/// The first few metrics of a component; all of them are in the JSON.
fn metrics(operator: &OperatorStatus) -> Vec<String> {
    let (shown, more) = operator.guest_metrics.split_at(operator.guest_metrics.len().min(METRICS_SHOWN_MAX));
    let rest = (!more.is_empty()).then(|| format!("and {} more metrics (--json shows all)", more.len()));
    shown.iter().map(metric).chain(rest).collect()
}

fn metric(metric: &GuestMetricStatus) -> String {
    let unit = if metric.unit == "1" { String::new() } else { format!(" {}", metric.unit) };
    let value = match metric.value {
        GuestMetricValue::Counter { total } => format!("{}{unit}", number(total)),
        GuestMetricValue::Gauge { min, max } if min == max => format!("{}{unit}", number(max)),
        GuestMetricValue::Gauge { min, max } => format!("{} … {}{unit}", number(min), number(max)),
        GuestMetricValue::Histogram { count, sum, min, max } => {
            let mean = sum / count as f64;
            format!("{} values, {} … {}{unit}, mean {}", grouped(count), number(min), number(max), number(mean))
        }
    };
    format!("{} {value}", metric.name)
}

/// Whole numbers in groups, others with three digits behind the point.
fn number(value: f64) -> String {
    const GROUPED_MAX: f64 = 1e15;
    if value.fract() != 0.0 || value.abs() >= GROUPED_MAX {
        return format!("{value:.3}");
    }
    format!("{}{}", if value < 0.0 { "-" } else { "" }, grouped(value.abs() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_by_people() {
        assert_eq!(duration(Duration::from_millis(7)), "7 ms");
        assert_eq!(duration(Duration::from_millis(3_240)), "3.2 s");
        assert_eq!(duration(Duration::from_secs(250)), "4 min 10 s");
    }

    #[test]
    fn a_summary_shows_what_was_lost_and_why() {
        let status = |id: &str, kind, rows_in, rows_out| OperatorStatus { kind, rows_in, rows_out, ..empty(id) };
        let operators = vec![
            status("flights", OperatorKind::Source, 0, 27_004),
            OperatorStatus { rows_rejected: 2, rows_null_key: 31, ..status("events", OperatorKind::Operator, 27_004, 52_000) },
            status("out", OperatorKind::Sink, 52_000, 0),
        ];
        let text = to_text("flights", &Summary { operators, notes: vec![] }, Duration::from_secs(2));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        flights done in 2.0 s, 27,004 rows read, 13,502 rows/s
          source    flights             27,004 out
          operator  events   27,004 in  52,000 out  2 rejected  31 without a key, dropped
          sink      out      52,000 in
        ");
    }

    #[test]
    fn a_summary_shows_what_a_component_counts_itself() {
        let metric = |name: &str, unit: &str, value| GuestMetricStatus { name: name.into(), unit: unit.into(), value };
        let guest_metrics = vec![
            metric("retries", "1", GuestMetricValue::Counter { total: 12_000.0 }),
            metric("level", "By", GuestMetricValue::Gauge { min: 1.0, max: 2.5 }),
            metric("delay", "ms", GuestMetricValue::Histogram { count: 4, sum: 10.0, min: -1.0, max: 5.0 }),
        ];
        let many = (0..10).map(|number| metric(&format!("m{number}"), "1", GuestMetricValue::Counter { total: 1.0 })).collect();
        let operators = vec![
            OperatorStatus { guest_metrics, guest_metrics_refused: 3, ..empty("few") },
            OperatorStatus { guest_metrics: many, ..empty("many") },
        ];
        let text = to_text("job", &Summary { operators, notes: vec![] }, Duration::from_secs(2));
        insta::assert_snapshot!(anstream::adapter::strip_str(&text).to_string(), @r"
        job done in 2.0 s, 0 rows read, 0 rows/s
          operator  few   0 in  0 out  3 metric values refused
                    retries 12,000
                    level 1 … 2.500 By
                    delay 4 values, -1 … 5 ms, mean 2.500
          operator  many  0 in  0 out
                    m0 1
                    m1 1
                    m2 1
                    m3 1
                    m4 1
                    m5 1
                    m6 1
                    m7 1
                    and 2 more metrics (--json shows all)
        ");
    }

    fn empty(id: &str) -> OperatorStatus {
        OperatorStatus {
            id: id.into(),
            kind: OperatorKind::Operator,
            parallelism: 1,
            rows_in: 0,
            rows_out: 0,
            rows_late: 0,
            rows_rejected: 0,
            rows_null_key: 0,
            timers_cut: 0,
            traps: 0,
            guest_metrics: Vec::new(),
            guest_metrics_refused: 0,
            guest_time: Duration::ZERO,
            busy_time: Duration::ZERO,
            idle_time: Duration::ZERO,
            requests: 0,
            request_bytes: 0,
            answer_bytes: 0,
            backpressured_time: Duration::ZERO,
            guest_memory_bytes: 0,
            state_memory_bytes: 0,
            state_disk_bytes: 0,
            progress: 0,
            progress_total: None,
            lags: Vec::new(),
            watermark: None,
            inputs: Vec::new(),
            waits_for_time: false,
            makes_time: false,
            watermark_since_ms: None,
            waits: Vec::new(),
            versions: Vec::new(),
        }
    }
}
