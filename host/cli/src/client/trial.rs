//! `millstream swap --shadow` and `--canary`: a version on trial; and `millstream trial`: what it has found, its end, its promotion.

use std::{collections::BTreeMap, time::Duration};

use millstream_engine::{
    run::{DifferenceAt, TrialDifference, TrialPhase, TrialReport},
    spec::DurationMs,
};
use millstream_server::api::{PromoteRequest, Replacement, SwapReport, TrialRequest, TrialView};
use reqwest::Method;
use serde_json::Value;

use super::{Service, connection::Body, jobs::path, swap};
use crate::{
    report::{Exit, Failure},
    terminal::{FAINT, GOOD, STRONG, WARNING},
};

/// How a swap begins as a trial.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Trial")]
pub struct TrialOptions {
    /// Do not swap: the new version runs beside the old one on the same rows; its answers are compared and discarded.
    #[arg(long, conflicts_with_all = ["canary", "at_barrier", "one_way", "dry_run"])]
    shadow: bool,
    /// Do not swap yet: the new version answers for so many percent of the keys, and goes back by itself if it breaks a bound.
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with_all = ["at_barrier", "one_way", "dry_run"])]
    canary: Option<f64>,
    /// Promote it by itself after so long a time, as `10m`, or so many rows, as `100000rows`; given twice: when both are reached.
    #[arg(long, value_name = "TIME|ROWS", value_parser = after)]
    promote_after: Vec<After>,
    /// Failures of the new version that it may have [default: 0, as a shadow 10].
    #[arg(long, value_name = "N")]
    max_failures: Option<u64>,
    /// Rows that only the new version may reject [default: 0, as a shadow any number].
    #[arg(long, value_name = "N")]
    max_rejects: Option<u64>,
    /// Rows that may differ, in percent [default: 0, as a shadow 100].
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    max_differing: Option<f64>,
    /// How many times the CPU time of the old version it may use [default: 3].
    #[arg(long, value_name = "TIMES")]
    max_cpu: Option<f64>,
}

/// When a trial is promoted.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Rows(u64),
    Time(Duration),
}

fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    number.parse().map_err(|_| "expected a number of percent, as 5%".to_owned())
}

fn after(text: &str) -> Result<After, String> {
    if let Some(rows) = text.strip_suffix("rows") {
        return rows.trim().parse().map(After::Rows).map_err(|_| "expected a number of rows, as 100000rows".to_owned());
    }
    let time: DurationMs = text.parse().map_err(|_| "expected a time as 10m, or rows as 100000rows".to_owned())?;
    let time = time.as_duration();
    if time.as_secs() == 0 {
        return Err("a trial takes at least 1s".to_owned());
    }
    Ok(After::Time(time))
}

impl TrialOptions {
    /// Whether it is a trial at all.
    pub fn is_trial(&self) -> bool {
        self.shadow || self.canary.is_some()
    }

    /// What says nothing without a trial.
    pub fn unused(&self) -> Option<&'static str> {
        let given = [
            (!self.promote_after.is_empty(), "--promote-after"),
            (self.max_failures.is_some(), "--max-failures"),
            (self.max_rejects.is_some(), "--max-rejects"),
            (self.max_differing.is_some(), "--max-differing"),
            (self.max_cpu.is_some(), "--max-cpu"),
        ];
        given.into_iter().find(|(is_given, _)| *is_given).map(|(_, name)| name).filter(|_| !self.is_trial())
    }

    fn request(&self, operator: String, replacement: Replacement, probation_s: u64) -> TrialRequest {
        let rows = self.promote_after.iter().find_map(|after| if let After::Rows(rows) = after { Some(*rows) } else { None });
        let time = self.promote_after.iter().find_map(|after| if let After::Time(time) = after { Some(time.as_secs()) } else { None });
        TrialRequest {
            operator,
            component: replacement.component,
            settings: replacement.settings,
            share_percent: self.canary,
            failures_max: self.max_failures,
            rejects_max: self.max_rejects,
            differing_max: self.max_differing.map(|percent| percent / 100.0),
            cpu_ratio_max: self.max_cpu,
            promote_after_rows: rows,
            promote_after_s: time,
            probation_s: Some(probation_s),
        }
    }

    /// Asks for the trial of one operator.
    pub fn begin(&self, service: &Service, job: &str, operators: BTreeMap<String, Replacement>, probation_s: u64) -> Result<Exit, Failure> {
        let mut operators = operators.into_iter();
        let (Some((operator, replacement)), None) = (operators.next(), operators.next()) else {
            return Err(Failure::new(Exit::Invalid, "one operator is tried at a time").fix("name one: OPERATOR=NAME:TAG"));
        };
        let request = self.request(operator, replacement, probation_s);
        let view: TrialView = service.connect()?.post(&path(job, "/trial"), &request)?;
        Ok(service.show(&view, |view| text(job, view)))
    }
}

/// Shows what a version on trial in a job of the service has found, ends it, or promotes it.
///
/// A trial begins with `millstream swap JOB OPERATOR=NAME:TAG --shadow` or `--canary 5%`.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream trial counts                  what differs, with samples
  millstream trial counts --promote        swap it in
  millstream trial counts --end            the old version answers alone
  millstream trial counts --json | jq .trial.counts")]
pub struct TrialArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// End it: the old version answers alone.
    #[arg(long, conflicts_with = "promote")]
    end: bool,
    /// Swap the new version into the place of the old one.
    #[arg(long)]
    promote: bool,
    /// For how many seconds the old version is kept when it is promoted [default: as it was said when the trial began].
    #[arg(long, value_name = "S", requires = "promote")]
    probation: Option<u64>,
    #[command(flatten)]
    pub service: Service,
}

pub fn trial(arguments: TrialArguments) -> Result<Exit, Failure> {
    let TrialArguments { job, end, promote, probation, service } = arguments;
    let connection = service.connect()?;
    if promote {
        let report: SwapReport = connection.post(&path(&job, "/trial/promote"), &PromoteRequest { probation_s: probation })?;
        return Ok(service.show(&report, |report| swap::text(&job, "promoted", report)));
    }
    let view: TrialView =
        if end { connection.ask(Method::DELETE, &path(&job, "/trial"), Body::Nothing)? } else { connection.get(&path(&job, "/trial"))? };
    Ok(service.show(&view, |view| text(&job, view)))
}

/// `counts counts: canary of 5 % of the keys, trying`, what was found, and samples of it.
fn text(job: &str, view: &TrialView) -> String {
    let TrialReport { status, samples, failures } = &view.trial;
    let mode = view.share_percent.map_or_else(|| "shadow".to_owned(), |share| format!("canary of {share:.2} % of the keys"));
    let mut text = format!("{STRONG}{job}{STRONG:#} {}: {mode}, {}\n", status.operator, phase(&status.phase));
    for change in &status.changes {
        text += &format!("  {FAINT}tries{FAINT:#} {}\n", change.what);
    }
    let counts = &status.counts;
    let ratio = if counts.old_cpu_us == 0 { 0.0 } else { counts.new_cpu_us as f64 / counts.old_cpu_us as f64 };
    text +=
        &format!("  {} rows compared, {} answered by the new version; {ratio:.2} times the CPU time\n", counts.rows, counts.rows_applied);
    let found = [
        (counts.rows_differing, "rows of output differ"),
        (counts.updates_differing, "changes of state and timers differ"),
        (counts.rejects_extra, "rows are rejected by the new version alone"),
        (counts.rejects_missing, "rows are rejected by the old version alone"),
        (counts.failures, "calls failed"),
        (counts.rows_not_compared, "rows could not be compared"),
    ];
    for (count, what) in found.into_iter().filter(|(count, _)| *count > 0) {
        text += &format!("  {WARNING}{count}{WARNING:#} {what}\n");
    }
    failures.iter().take(SHOWN).for_each(|failure| text += &format!("  {FAINT}failed{FAINT:#} {failure}\n"));
    samples.iter().for_each(|sample| text += &shown(sample));
    text
}

/// Failures that are shown; all are in the JSON.
const SHOWN: usize = 3;

fn phase(phase: &TrialPhase) -> String {
    match phase {
        TrialPhase::Trying => "trying".to_owned(),
        TrialPhase::Passed => format!("{GOOD}passed{GOOD:#}"),
        TrialPhase::Promoting => "being promoted".to_owned(),
        TrialPhase::Promoted { .. } => format!("{GOOD}promoted{GOOD:#}"),
        TrialPhase::RolledBack { reason, .. } => format!("{WARNING}rolled back{WARNING:#}: {reason}"),
        TrialPhase::Ended { reason } => format!("ended: {reason}"),
    }
}

/// One difference on one line: where, and what both give.
fn shown(sample: &TrialDifference) -> String {
    let at = match &sample.at {
        DifferenceAt::Output(name) => format!("output {name}"),
        DifferenceAt::State(name) => format!("state {name}"),
        DifferenceAt::Timer(name) => format!("timer {name}"),
        DifferenceAt::Rejected => "rejected".to_owned(),
    };
    let place = match (&sample.source, sample.position) {
        (Some(source), Some(position)) => format!(" (position {position} of {source})"),
        _ => String::new(),
    };
    let value = |value: &Option<Value>| value.as_ref().map_or_else(|| "nothing".to_owned(), Value::to_string);
    format!("  {FAINT}{at}{place}{FAINT:#} {} {FAINT}became{FAINT:#} {}\n", value(&sample.old), value(&sample.new))
}
