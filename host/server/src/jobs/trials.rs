//! Versions on trial: a component or settings that run beside those of a running job, as a shadow or for a share of its keys.
//!
//! The engine tries, counts and judges; here a trial is asked for, shown, ended and promoted. It is written down nowhere: nobody has decided yet to run the new
//! version, and a process that is killed comes back without it. A promotion is a swap like any other, so the new version of the job is in the catalogue
//! before the first subtask switches. The exact component is kept from the beginning: a tag that moves meanwhile changes nothing.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use millstream_engine::run::{Share, SwitchAt, TrialError, TrialId, TrialMode, TrialPhase, TrialReport, TrialRule, TrialStatus};
use millstream_model::{ErrorKind, ids::TenantId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Change, Jobs,
    prepare::{Prepared, hidden_key},
    runner::Running,
    swap::{Replacement, SwapReport, Switch, Wanted, component_of, probation_checked},
};
use crate::{
    catalogue::{
        Found, Revision,
        objects::{Job, Origin},
    },
    events::What,
    failure::{Failure, Problem},
    workshop::{Request, WantedTrial},
};

/// How often it is looked at what has become of a trial.
const LOOK_MS: i64 = 250;

/// What is tried, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct TrialWanted {
    /// The operator.
    pub operator: String,
    /// The component that is tried, as `enrich:v3`; none: the one that runs.
    #[serde(default)]
    pub component: Option<String>,
    /// The settings that are tried; none: those that it has.
    #[serde(default)]
    pub settings: Option<Value>,
    /// A canary: the new version answers for so many percent of the keys. None: a shadow, whose answers are compared and discarded.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100))]
    pub share_percent: Option<f64>,
    /// Failures of the new version that end the trial when there are more. Default: 0; of a shadow 10.
    #[serde(default)]
    pub failures_max: Option<u64>,
    /// Rows that only the new version rejects that end the trial when there are more. Default: 0; of a shadow any number.
    #[serde(default)]
    pub rejects_max: Option<u64>,
    /// The share of rows that may differ, 0 to 1. Default: 0; of a shadow 1.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1))]
    pub differing_max: Option<f64>,
    /// How many times the CPU time of the old version the new one may use on the same rows. Default: 3.
    #[serde(default)]
    #[schemars(range(min = 1, max = 1000))]
    pub cpu_ratio_max: Option<f64>,
    /// Promote it by itself when so many rows were compared.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub promote_after_rows: Option<u64>,
    /// Promote it by itself after so many seconds; with rows: when both are reached.
    #[serde(default)]
    #[schemars(range(min = 1, max = 2_592_000))]
    pub promote_after_s: Option<u64>,
    /// For how many seconds the old version is kept when it is promoted. Default: 30.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub probation_s: Option<u64>,
}

/// How a trial is promoted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct PromoteRequest {
    /// For how many seconds the old version is kept. Default: as it was said when the trial began, or 30.
    #[schemars(range(max = 3600))]
    pub probation_s: Option<u64>,
}

/// A trial, and what it has found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TrialView {
    /// The engine's report: `phase`, `counts`, the `rule`, and `samples` of what differs.
    #[schemars(with = "Value")]
    pub trial: TrialReport,
    /// The part of the keys that the new version answers for, in percent; none: a shadow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share_percent: Option<f64>,
}

/// What is on trial, by job: what would be swapped in, and for how long it would be on probation.
#[derive(Default)]
pub struct Tried(Mutex<BTreeMap<(TenantId, String), Kept>>);

#[derive(Clone)]
struct Kept {
    trial: TrialId,
    operator: String,
    replacement: Replacement,
    probation_s: Option<u64>,
}

impl Tried {
    fn keep(&self, tenant: &TenantId, job: &str, kept: Kept) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert((tenant.clone(), job.to_owned()), kept);
    }

    fn of(&self, tenant: &TenantId, job: &str) -> Option<Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(tenant.clone(), job.to_owned())).cloned()
    }

    /// Forgets a trial, unless there is another one by now.
    fn forget(&self, tenant: &TenantId, job: &str, trial: TrialId) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (tenant.clone(), job.to_owned());
        if all.get(&key).is_some_and(|kept| kept.trial == trial) {
            all.remove(&key);
        }
    }
}

impl TrialWanted {
    fn mode(&self) -> Result<TrialMode, Failure> {
        match self.share_percent {
            None => Ok(TrialMode::Shadow),
            Some(percent) => Share::of_percent(percent).map(|share| TrialMode::Canary { share }).map_err(|error| refused(&error)),
        }
    }

    fn rule(&self, mode: TrialMode) -> Result<TrialRule, Failure> {
        let default = TrialRule::of(mode);
        let rule = TrialRule {
            failures_max: self.failures_max.unwrap_or(default.failures_max),
            rejects_max: self.rejects_max.or(default.rejects_max),
            differing_max: self.differing_max.unwrap_or(default.differing_max),
            cpu_ratio_max: self.cpu_ratio_max.unwrap_or(default.cpu_ratio_max),
            promote_after_rows: self.promote_after_rows,
            promote_after: self.promote_after_s.map(Duration::from_secs),
        };
        rule.check().map_err(|error| refused(&error))?;
        Ok(rule)
    }
}

impl Jobs {
    /// Puts a component, or settings, on trial beside those of a running job.
    ///
    /// # Errors
    /// They cannot be tried, or a trial or a swap is under way. The job runs on as it was.
    pub async fn try_version(self: &Arc<Self>, change: &Change, name: &str, wanted: TrialWanted) -> Result<TrialView, Failure> {
        let mode = wanted.mode()?;
        let rule = wanted.rule(mode)?;
        probation_checked(wanted.probation_s)?;
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        let found = self.expected(change, name).await?;
        let running = runner.must_run()?;
        let TrialWanted { operator, component, settings, probation_s, .. } = wanted;
        let (replacement, prepared) = self.version_of(change, &found, &operator, Replacement { component, settings }).await?;
        let trial = WantedTrial { job: name.to_owned(), prepared: prepared.number, operator: operator.clone(), mode, rule };
        let status: Result<TrialStatus, TrialError> = running.answer(Request::Try { trial: Box::new(trial) }).await?;
        let status = status.map_err(|error| refused(&error))?;
        let trial = status.trial;
        self.tried.keep(&change.tenant, name, Kept { trial, operator, replacement, probation_s });
        self.say(&change.tenant, name, trial, &TrialPhase::Trying);
        tokio::spawn(self.clone().watch_trial(Change { expected: None, ..change.clone() }, name.to_owned(), trial));
        self.trial(&change.tenant, name).await
    }

    /// What is tried, with the exact component, and the whole job with it.
    async fn version_of(
        self: &Arc<Self>,
        change: &Change,
        found: &Found<Job>,
        operator: &str,
        replacement: Replacement,
    ) -> Result<(Replacement, Prepared), Failure> {
        let operators = BTreeMap::from([(operator.to_owned(), replacement)]);
        let asked = self.swapped(&change.tenant, found.object.current(), &operators).await?;
        // The whole job with it: what it refers to is hidden from now on, and mistakes are found where the job file is read.
        let prepared = self.prepare(&change.tenant, &asked, None).await?;
        self.hidden.hide_also(&hidden_key(&change.tenant, &found.name), &prepared.references);
        let (exact, settings) = component_of(&self.document(&asked)?, operator)?;
        Ok((Replacement { component: Some(exact), settings: Some(settings) }, prepared))
    }

    /// The trial under way of a job, or the last one.
    ///
    /// # Errors
    /// Nothing was tried since the job was started, or it does not run.
    pub async fn trial(&self, tenant: &TenantId, name: &str) -> Result<TrialView, Failure> {
        self.job(tenant, name).await?;
        let running = self.runner(tenant, name).running();
        let report = match running {
            Some(running) => running.answer::<Option<TrialReport>>(Request::TrialReport { job: name.to_owned() }).await?,
            None => None,
        };
        let report = report.ok_or_else(|| {
            Failure::new(ErrorKind::NotFound, format!("nothing was tried in job `{name}` since it was started"))
                .fix("millstream swap JOB OPERATOR=NAME:TAG --shadow")
        })?;
        Ok(self.shown(tenant, name, report))
    }

    /// Without what its settings refer to, which a guest may have put into rows and words.
    fn shown(&self, tenant: &TenantId, name: &str, report: TrialReport) -> TrialView {
        let share_percent = match report.status.mode {
            TrialMode::Shadow => None,
            TrialMode::Canary { share } => Some(share.percent()),
        };
        let written = serde_json::to_value(&report).expect("a report has string keys only");
        let trial = serde_json::from_value(self.hidden_of(tenant, name).redact_value(written)).unwrap_or_else(|_changed| {
            // A reference that is a word of the report itself: then nothing of rows and words is shown.
            TrialReport { samples: Vec::new(), failures: Vec::new(), ..report }
        });
        TrialView { trial, share_percent }
    }

    /// Ends the trial under way: the old version answers alone.
    ///
    /// # Errors
    /// None is under way, or it is being promoted.
    pub async fn end_trial(&self, change: &Change, name: &str) -> Result<TrialView, Failure> {
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        self.expected(change, name).await?;
        let running = runner.must_run()?;
        let trial = under_way(&running, name).await?;
        ended(&running, name, trial).await?.map_err(|error| refused(&error))?;
        self.trial(&change.tenant, name).await
    }

    /// Puts the version on trial into the place of the one that runs, as a swap that makes a version of the job.
    ///
    /// # Errors
    /// No trial is under way, or the swap is refused: the trial goes on.
    pub async fn promote_trial(
        self: &Arc<Self>,
        change: &Change,
        name: &str,
        request: PromoteRequest,
    ) -> Result<(SwapReport, Revision), Failure> {
        probation_checked(request.probation_s)?;
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        let trial = under_way(&runner.must_run()?, name).await?;
        self.promote(change, name, trial, request.probation_s).await
    }

    /// The caller has the turn.
    async fn promote(
        self: &Arc<Self>,
        change: &Change,
        name: &str,
        trial: TrialId,
        probation_s: Option<u64>,
    ) -> Result<(SwapReport, Revision), Failure> {
        let found = self.expected(change, name).await?;
        let kept = self.tried.of(&change.tenant, name).filter(|kept| kept.trial == trial).ok_or_else(|| none_under_way(name))?;
        let operators = BTreeMap::from([(kept.operator.clone(), kept.replacement)]);
        let asked = self.swapped(&change.tenant, found.object.current(), &operators).await?;
        let ids = vec![kept.operator];
        let origin = Origin::Swapped { operators: ids.clone() };
        let wanted = as_swap(operators, probation_s.or(kept.probation_s));
        self.switch(change, found, Switch { asked, operators: ids, origin, wanted, promotes: Some(trial) }).await
    }

    /// Says what becomes of a trial, and promotes it when its rule is fulfilled.
    async fn watch_trial(self: Arc<Self>, change: Change, name: String, trial: TrialId) {
        let runner = self.runner(&change.tenant, &name);
        let mut said = TrialPhase::Trying;
        loop {
            self.clock.sleep(LOOK_MS).await;
            let Some(running) = runner.running() else { break };
            let status = running.status().await.and_then(|status| status.trial);
            let Some(status) = status.filter(|status| status.trial == trial) else { break };
            if status.phase != said {
                said = status.phase.clone();
                self.say(&change.tenant, &name, trial, &said);
            }
            if status.phase.is_over() {
                break;
            }
            if status.phase == TrialPhase::Passed {
                let _turn = runner.turn.lock().await;
                // Who changes the job meanwhile may have ended it.
                let is_still = running.status().await.and_then(|status| status.trial);
                if !is_still.is_some_and(|status| status.trial == trial && status.phase == TrialPhase::Passed) {
                    continue;
                }
                if let Err(failure) = self.promote(&change, &name, trial, None).await {
                    tracing::warn!(tenant = %change.tenant, job = %name, "a trial that has passed could not be promoted: {failure}");
                    // It would be tried again and again.
                    drop(ended(&running, &name, trial).await);
                }
            }
        }
        self.tried.forget(&change.tenant, &name, trial);
    }

    fn say(&self, tenant: &TenantId, name: &str, trial: TrialId, phase: &TrialPhase) {
        let (phase, reason) = in_words(phase);
        let reason = reason.map(|reason| self.hidden_of(tenant, name).redact(reason));
        self.events.emit(tenant, Some(name), What::Trial { trial: trial.0, phase: phase.to_owned(), reason });
    }
}

/// The phase, and why.
fn in_words(phase: &TrialPhase) -> (&'static str, Option<&str>) {
    match phase {
        TrialPhase::Trying => ("trying", None),
        TrialPhase::Passed => ("passed", None),
        TrialPhase::Promoting => ("promoting", None),
        TrialPhase::Promoted { .. } => ("promoted", None),
        TrialPhase::RolledBack { reason, .. } => ("rolled-back", Some(reason)),
        TrialPhase::Ended { reason } => ("ended", Some(reason)),
    }
}

fn as_swap(operators: BTreeMap<String, Replacement>, probation_s: Option<u64>) -> Wanted {
    Wanted { operators, switch_at: SwitchAt::Batch, probation_s, one_way: false, dry_run: false }
}

async fn ended(running: &Running, name: &str, trial: TrialId) -> Result<Result<TrialStatus, TrialError>, Failure> {
    running.answer(Request::EndTrial { job: name.to_owned(), trial }).await
}

async fn under_way(running: &Running, name: &str) -> Result<TrialId, Failure> {
    let trial = running.status().await.and_then(|status| status.trial).filter(|trial| !trial.phase.is_over());
    trial.map(|trial| trial.trial).ok_or_else(|| none_under_way(name))
}

fn none_under_way(name: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("no trial is under way in job `{name}`"))
}

/// Every difference as a problem of its own.
fn refused(error: &TrialError) -> Failure {
    let TrialError::Incompatible { operator, differences } = error else {
        return Failure::from_error(error.kind(), error).fix("the job runs on as it was");
    };
    let problem = |difference: &String| Problem {
        message: difference.clone(),
        path: Some(format!("operators.{operator}")),
        fix: Some("the job runs on as it was".to_owned()),
        ..Problem::default()
    };
    Failure { kind: error.kind(), problems: differences.iter().map(problem).collect() }
}
