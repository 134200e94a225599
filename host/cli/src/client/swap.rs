//! `millstream swap` and `millstream rollback`. A swap that begins as a trial is [`super::trial`]'s.

use std::collections::BTreeMap;

use millstream_engine::run::{OperatorSwap, SwapPhase, SwitchAt};
use millstream_server::api::{Replacement, RollbackRequest, SwapReport, SwapRequest};
use serde_json::Value;

use super::{Service, jobs::path, trial::TrialOptions};
use crate::{
    report::{Exit, Failure},
    terminal::{FAINT, GOOD, STRONG},
};

/// Puts other components, or other settings, into operators of a running job of the service.
///
/// What does not fit is refused with what is different, and the job runs on as it was.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream swap counts counts=count:v2
  millstream swap counts enrich=enrich:v3 score=score:v7     several as one version
  millstream swap counts --settings enrich='{\"limit\": 5}'
  millstream swap counts counts=count:v2 --shadow            compare first: millstream trial counts
  millstream swap counts counts=count:v2 --canary 5% --promote-after 10m")]
pub struct SwapArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// An operator, and the component that it is to run.
    #[arg(value_name = "OPERATOR=NAME:TAG", value_parser = pair, required_unless_present = "settings")]
    components: Vec<(String, String)>,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
    /// All subtasks switch at one barrier, so that what comes behind has all output of the old version before any of the new one.
    #[arg(long)]
    at_barrier: bool,
    /// For how many seconds the old version is kept: the first failure of the new one puts it back.
    #[arg(long, value_name = "S", default_value_t = 30)]
    probation: u64,
    /// Swap although the old version cannot read what the new one writes, so that only a savepoint leads back.
    #[arg(long)]
    one_way: bool,
    /// New settings of an operator, as JSON.
    #[arg(long, value_name = "OPERATOR=JSON", value_parser = settings)]
    settings: Vec<(String, Value)>,
    #[command(flatten)]
    trial: TrialOptions,
    #[command(flatten)]
    pub service: Service,
}

/// Puts the components of an earlier version of a job of the service back.
#[derive(clap::Args)]
pub struct RollbackArguments {
    /// The job.
    #[arg(value_name = "JOB")]
    job: String,
    /// The version [default: the one before].
    #[arg(long, value_name = "VERSION")]
    to: Option<u64>,
    #[command(flatten)]
    pub service: Service,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((operator, component)) if !operator.is_empty() && !component.is_empty() => Ok((operator.to_owned(), component.to_owned())),
        _ => Err("expected OPERATOR=NAME:TAG, as counts=count:v2".to_owned()),
    }
}

fn settings(text: &str) -> Result<(String, Value), String> {
    let (operator, json) = pair(text).map_err(|_| "expected OPERATOR=JSON".to_owned())?;
    serde_json::from_str(&json).map(|value| (operator, value)).map_err(|error| format!("the settings are no JSON: {error}"))
}

pub fn swap(arguments: SwapArguments) -> Result<Exit, Failure> {
    let mut operators: BTreeMap<String, Replacement> = BTreeMap::new();
    let empty = || Replacement { component: None, settings: None };
    for (operator, component) in arguments.components {
        operators.entry(operator).or_insert_with(empty).component = Some(component);
    }
    for (operator, value) in arguments.settings {
        operators.entry(operator).or_insert_with(empty).settings = Some(value);
    }
    if let Some(option) = arguments.trial.unused() {
        return Err(
            Failure::new(Exit::Invalid, format!("{option} says when a trial ends, and a swap is none")).fix("add --shadow or --canary 5%")
        );
    }
    if arguments.trial.is_trial() {
        return arguments.trial.begin(&arguments.service, &arguments.job, operators, arguments.probation);
    }
    let request = SwapRequest {
        operators,
        switch_at: if arguments.at_barrier { SwitchAt::Barrier } else { SwitchAt::Batch },
        probation_s: Some(arguments.probation),
        one_way: arguments.one_way,
        dry_run: arguments.dry_run,
    };
    let report: SwapReport = arguments.service.connect()?.post(&path(&arguments.job, "/swap"), &request)?;
    let done = if arguments.dry_run { "would be swapped" } else { "swapped" };
    Ok(arguments.service.show(&report, |report| text(&arguments.job, done, report)))
}

pub fn rollback(arguments: RollbackArguments) -> Result<Exit, Failure> {
    let report: SwapReport =
        arguments.service.connect()?.post(&path(&arguments.job, "/rollback"), &RollbackRequest { to: arguments.to })?;
    Ok(arguments.service.show(&report, |report| text(&arguments.job, "rolled back", report)))
}

/// `counts swapped: version 3; held up for 0.2 ms`, and below what is different.
pub fn text(job: &str, done: &str, report: &SwapReport) -> String {
    let longest = report.pauses_us.iter().max().map(|&us| format!("; held up for {:.1} ms", us as f64 / 1e3)).unwrap_or_default();
    let mut text = format!("{STRONG}{job}{STRONG:#} {GOOD}{done}{GOOD:#}: version {}{longest}\n", report.version);
    let is_undone =
        report.swap.as_ref().is_some_and(|swap| matches!(swap.phase, SwapPhase::RollingBack { .. } | SwapPhase::RolledBack { .. }));
    let wider: Vec<&str> = report.swap.iter().flat_map(|swap| &swap.widens).map(|id| id.as_str()).collect();
    if !wider.is_empty() && !is_undone {
        text += &format!("  {FAINT}more columns{FAINT:#} through {}, from a barrier on\n", wider.join(", "));
    }
    for operator in report.swap.iter().flat_map(|swap| &swap.operators) {
        if is_undone {
            let OperatorSwap { operator, from, .. } = operator;
            text += &format!("  {FAINT}{operator}{FAINT:#} runs {} {} again\n", from.name, from.version);
            continue;
        }
        for change in &operator.changes {
            text += &format!("  {FAINT}{}{FAINT:#} {}\n", operator.operator, change.what);
        }
        for reason in &operator.one_way {
            text += &format!("  {FAINT}{}{FAINT:#} no way back: {reason}\n", operator.operator);
        }
    }
    text
}
