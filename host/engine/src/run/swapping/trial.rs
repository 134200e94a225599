//! The trials of one attempt, one at a time and none beside a swap but the one that promotes it: carries out what a handle asks for, and what the record
//! of a trial has decided. Rows, counts and the judgement are the subtasks' ([`super::super::trial::TrialRecord`]); nothing is written down.

use std::{any::Any, sync::Arc, time::Duration};

use futures::future::join_all;
use millstream_model::ids::OperatorId;
use millstream_wasm::InstanceContext;
use tokio::sync::oneshot;

use super::{Answer, Order, Preparation, Prepared, PreparedAnswer, Swapping, causes};
use crate::{
    graph::NodeIndex,
    operator::{OperatorContext, OperatorError},
    run::{
        subtask::{self, Swap, Trial},
        swap::{NewVersion, SwapError, SwapId, SwapRequest, SwitchAt, SwitchReport},
        trial::{End, Promotion, TrialError, TrialId, TrialMode, TrialPhase, TrialRecord, TrialReport, TrialRequest, TrialStatus},
    },
};

pub(in crate::run) type TrialAnswer<T> = oneshot::Sender<Result<T, TrialError>>;

/// Work for trials that was done in the background.
pub(in crate::run) enum Done {
    /// Instances of the new version stand ready, or not.
    Prepared { request: Box<TrialRequest>, result: Result<Prepared, TrialError>, answer: TrialAnswer<TrialStatus> },
    /// Every subtask has taken the new version up, or has ended.
    Began { trial: TrialId, failure: Option<OperatorError>, answer: TrialAnswer<TrialStatus> },
    /// The record has decided.
    Decided { trial: TrialId, end: End },
}

/// Where trials stand.
#[derive(Default)]
pub(in crate::run) struct Trials {
    /// New versions are being opened.
    preparing: Option<TrialId>,
    current: Option<Current>,
}

/// The trial under way.
struct Current {
    status: TrialStatus,
    node: NodeIndex,
    record: Arc<TrialRecord>,
    version: NewVersion,
    promotion: Promotion,
    /// The elapsed time at which the rule asks for the time.
    due_ms: Option<i64>,
}

impl Current {
    fn report(&self) -> TrialReport {
        let (samples, failures) = self.record.samples();
        TrialReport { status: TrialStatus { counts: self.record.counts(), ..self.status.clone() }, samples, failures }
    }
}

impl Trials {
    /// Which is under way.
    fn under_way(&self) -> Option<TrialId> {
        self.preparing.or(self.current.as_ref().map(|current| current.status.trial))
    }

    fn is(&self, trial: TrialId) -> bool {
        self.current.as_ref().is_some_and(|current| current.status.trial == trial)
    }
}

impl Swapping {
    /// The trial under way with what it has found so far, or the last one.
    pub(in crate::run) fn trial_report(&self) -> Option<TrialReport> {
        self.trials.current.as_ref().map(Current::report).or_else(|| self.running.last_trial())
    }

    /// When a trial wants the time.
    pub(super) fn trial_wake_ms(&self) -> Option<i64> {
        self.trials.current.as_ref()?.due_ms
    }

    /// Plans a new version and opens it beside the one that runs, then gives it rows.
    pub(in crate::run) fn try_version(&mut self, request: TrialRequest, answer: TrialAnswer<TrialStatus>) {
        match self.trial_preparation(&request) {
            Err(error) => drop(answer.send(Err(error))),
            Ok((preparation, mode)) => {
                self.trials.preparing = Some(self.running.next_trial());
                let done = self.done.clone();
                self.settings.runtime.spawn(async move {
                    let result = prepare(preparation, mode).await;
                    let prepared = Done::Prepared { request: Box::new(request), result, answer };
                    // Without a supervisor nobody needs to know.
                    let _ = done.send(super::Done::Trial(prepared)).await;
                });
            }
        }
    }

    fn trial_preparation(&self, request: &TrialRequest) -> Result<(Preparation, TrialMode), TrialError> {
        if let Some(swap) = self.under_way() {
            return Err(TrialError::SwapUnderWay { swap });
        }
        if let Some(trial) = self.trials.under_way() {
            return Err(TrialError::UnderWay { trial });
        }
        request.rule.check()?;
        let operator = &request.version.operator;
        let running = self.node_of(operator).and_then(|node| Some((node, self.plan_of(node)?)));
        let running = running.ok_or_else(|| TrialError::UnknownOperator { operator: operator.clone() })?;
        let contexts = self.contexts.iter().map(|(node, contexts)| (*node, contexts.iter().map(|of| heard(of, request.mode)).collect()));
        let preparation = Preparation {
            request: SwapRequest { one_way: true, ..swap_of(&request.version, Duration::ZERO, None) },
            running: vec![running],
            plans: None,
            replans: false,
            job: self.plan.with_versions(&self.running.all_swapped()),
            contexts: contexts.collect(),
            members: self.members.clone(),
        };
        Ok((preparation, request.mode))
    }

    pub(super) fn on_trial_done(&mut self, done: Done) -> Vec<Order> {
        match done {
            Done::Prepared { request, result, answer } => self.on_trial_prepared(*request, result, answer),
            Done::Began { trial, failure, answer } => self.on_trial_began(trial, failure, answer),
            Done::Decided { trial, end } => self.on_trial_decided(trial, end),
        }
    }

    fn on_trial_prepared(
        &mut self,
        request: TrialRequest,
        result: Result<Prepared, TrialError>,
        answer: TrialAnswer<TrialStatus>,
    ) -> Vec<Order> {
        let Some(trial) = self.trials.preparing.take() else { return Vec::new() };
        let begun = result.and_then(|prepared| self.begin_trial(trial, request, prepared));
        let candidates = match begun {
            Ok(candidates) => candidates,
            Err(error) => {
                // Whoever asked may have gone.
                let _ = answer.send(Err(error));
                return Vec::new();
            }
        };
        let Some(current) = &self.trials.current else { return Vec::new() };
        let (mut orders, mut answers) = (Vec::new(), Vec::new());
        for (number, node, candidate) in candidates {
            let (answer, answered) = oneshot::channel();
            let begins = Trial::Begin { node, candidate, record: current.record.clone(), answer };
            orders.push(Order::Tell(number, subtask::Command::Swap(Swap::Trial(begins))));
            answers.push(answered);
        }
        let (done, decided, record) = (self.done.clone(), self.done.clone(), current.record.clone());
        self.settings.runtime.spawn(async move {
            // A subtask that has ended answers nothing, and has nothing to try.
            let failure = join_all(answers).await.into_iter().flatten().find_map(Result::err);
            let _ = done.send(super::Done::Trial(Done::Began { trial, failure, answer })).await;
        });
        self.settings.runtime.spawn(async move {
            loop {
                let end = record.decided().await;
                let is_last = end != End::Passed;
                let told = decided.send(super::Done::Trial(Done::Decided { trial, end })).await;
                if is_last || told.is_err() {
                    return;
                }
            }
        });
        orders
    }

    /// The trial is under way; what each subtask gets.
    fn begin_trial(&mut self, trial: TrialId, request: TrialRequest, prepared: Prepared) -> Result<Vec<Candidate>, TrialError> {
        let operator = request.version.operator.clone();
        let Some(swap) = prepared.operators.into_iter().next() else { return Err(TrialError::UnknownOperator { operator }) };
        let Some(node) = self.node_of(&operator) else { return Err(TrialError::UnknownOperator { operator }) };
        let clock = &self.settings.clock;
        let due_ms = request.rule.promote_after.map(|after| {
            let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
            clock.monotonic_ms().saturating_add(after_ms)
        });
        let status = TrialStatus {
            trial,
            operator,
            mode: request.mode,
            phase: TrialPhase::Trying,
            from: swap.from,
            to: swap.to,
            changes: swap.changes,
            rule: request.rule,
            began_ms: clock.now_ms(),
            ended_ms: None,
            counts: Default::default(),
        };
        let record = TrialRecord::new(request.mode, request.rule);
        self.trials.current = Some(Current { status, node, record, version: request.version, promotion: request.promotion, due_ms });
        let candidates = prepared
            .instances
            .into_iter()
            .flat_map(|(number, instances)| instances.into_iter().map(move |(node, candidate)| (number, node, candidate)));
        Ok(candidates.collect())
    }

    fn on_trial_began(&mut self, trial: TrialId, failure: Option<OperatorError>, answer: TrialAnswer<TrialStatus>) -> Vec<Order> {
        let operator = self.trials.current.as_ref().filter(|current| current.status.trial == trial).map(|current| &current.status.operator);
        let failed = failure.zip(operator.cloned());
        let Some((error, operator)) = failed else {
            // It may be over already.
            let _ = answer.send(self.trial_report().map(|report| report.status).ok_or(TrialError::Ended));
            return Vec::new();
        };
        let reason = causes(&error).join(": ");
        let _ = answer.send(Err(TrialError::Failed { operator, reason: reason.clone() }));
        self.finish_trial(TrialPhase::Ended { reason })
    }

    fn on_trial_decided(&mut self, trial: TrialId, end: End) -> Vec<Order> {
        let is_free = self.under_way().is_none();
        let Some(current) = self.trials.current.as_mut().filter(|current| current.status.trial == trial) else { return Vec::new() };
        match end {
            End::Breached { bound, reason } => self.finish_trial(TrialPhase::RolledBack { bound, reason }),
            End::Passed if current.status.phase == TrialPhase::Trying => {
                current.status.phase = TrialPhase::Passed;
                // Somebody may be promoting it just now.
                if let (Promotion::ByItself { probation }, true) = (current.promotion, is_free) {
                    // Who watches the trial or the swap hears of it; nobody waits for the switch.
                    self.promote(probation, oneshot::channel().0);
                }
                Vec::new()
            }
            End::Passed | End::Stopped => Vec::new(),
        }
    }

    /// The time that a trial waits for has come, maybe.
    pub(super) fn on_trial_time(&mut self) {
        let now_ms = self.settings.clock.monotonic_ms();
        if let Some(current) = self.trials.current.as_mut().filter(|current| current.due_ms.is_some_and(|due_ms| due_ms <= now_ms)) {
            current.due_ms = None;
            current.record.on_time();
        }
    }

    /// Puts the version on trial into the place of the one that runs.
    pub(in crate::run) fn promote_trial(&mut self, trial: TrialId, probation: Duration, answer: Answer<SwitchReport>) {
        match self.trials.current.as_ref().map(|current| (current.status.trial, &current.status.phase)) {
            Some((current, TrialPhase::Trying | TrialPhase::Passed)) if current == trial && self.under_way().is_none() => {
                self.promote(probation, answer);
            }
            _ => drop(answer.send(Err(SwapError::UnknownSwap { reason: format!("trial {} cannot be promoted now", trial.0) }))),
        }
    }

    fn promote(&mut self, probation: Duration, answer: Answer<SwitchReport>) {
        let Some(current) = &self.trials.current else { return };
        let request = swap_of(&current.version, probation, Some(current.status.trial));
        match self.plan_of(current.node) {
            Some(plan) => {
                let running = vec![(current.node, plan)];
                self.begin(request, running, None, PreparedAnswer::Switch(answer));
            }
            None => drop(answer.send(Err(SwapError::UnknownOperator { operator: current.status.operator.clone() }))),
        }
    }

    /// What stands against a swap because of a trial: only the one that promotes it may be made meanwhile.
    pub(super) fn check_trial(&self, request: &SwapRequest) -> Result<(), SwapError> {
        match (self.trials.under_way(), request.promotes) {
            (None, None) => Ok(()),
            (Some(trial), Some(promotes)) if trial == promotes && self.trials.is(trial) => {
                let concerns = |current: &Current| request.operators.iter().all(|version| version.operator == current.status.operator);
                if self.trials.current.as_ref().is_some_and(concerns) && request.operators.len() == 1 {
                    return Ok(());
                }
                Err(SwapError::Invalid { reason: format!("trial {} is of another operator", trial.0) })
            }
            (Some(trial), _) => Err(SwapError::TrialUnderWay { trial }),
            (None, Some(trial)) => Err(SwapError::UnknownSwap { reason: format!("trial {} is not under way", trial.0) }),
        }
    }

    /// Why the swap under way must not be: it was to promote a trial that was ended, or rolled back, since it was prepared.
    pub(super) fn lost_its_trial(&self) -> Option<SwapError> {
        let trial = self.current.as_ref()?.promotes.filter(|&trial| !self.trials.is(trial))?;
        Some(SwapError::UnknownSwap { reason: format!("trial {} was over before it was promoted", trial.0) })
    }

    /// The swap that promotes a trial begins to switch: what the version does from now on is for the probation.
    pub(super) fn trial_is_promoted(&mut self, promotes: Option<TrialId>) {
        let Some(current) = self.trials.current.as_mut().filter(|current| Some(current.status.trial) == promotes) else { return };
        current.status.phase = TrialPhase::Promoting;
        current.due_ms = None;
        current.record.promote();
    }

    /// All subtasks have switched.
    pub(super) fn trial_was_promoted(&mut self, promotes: Option<TrialId>, swap: SwapId) {
        if promotes.is_some_and(|trial| self.trials.is(trial)) {
            // The subtasks have let it go when they switched.
            drop(self.finish_trial(TrialPhase::Promoted { swap }));
        }
    }

    /// The swap that was to promote a trial did not come about: the old version runs.
    pub(super) fn trial_was_not_promoted(&mut self, promotes: Option<TrialId>, reason: &str) -> Vec<Order> {
        if !promotes.is_some_and(|trial| self.trials.is(trial)) {
            return Vec::new();
        }
        self.finish_trial(TrialPhase::Ended { reason: format!("it could not be promoted: {reason}") })
    }

    /// Ends the trial under way; the old version answers alone.
    pub(in crate::run) fn end_trial(&mut self, trial: TrialId, answer: TrialAnswer<TrialStatus>) -> Vec<Order> {
        if !self.trials.is(trial) || self.under_way().is_some() {
            let reason = format!("trial {} is not under way, or is being promoted", trial.0);
            drop(answer.send(Err(TrialError::UnknownTrial { reason })));
            return Vec::new();
        }
        let orders = self.finish_trial(TrialPhase::Ended { reason: "it was asked for".into() });
        // Whoever asked may have gone.
        let _ = answer.send(self.trial_report().map(|report| report.status).ok_or(TrialError::Ended));
        orders
    }

    /// The attempt ends, and with it the trial.
    pub(super) fn end_trials(&mut self) {
        self.trials.preparing = None;
        drop(self.finish_trial(TrialPhase::Ended { reason: "the job stopped, or went back to its last checkpoint".into() }));
    }

    fn finish_trial(&mut self, phase: TrialPhase) -> Vec<Order> {
        let Some(mut current) = self.trials.current.take() else { return Vec::new() };
        // First nothing more is asked of it, then it is counted for the last time.
        current.record.stop();
        current.status.phase = phase;
        current.status.ended_ms = Some(self.settings.clock.now_ms());
        self.running.set_last_trial(current.report());
        let concerned = self.members.iter().enumerate().filter(|(_, member)| member.contains(&current.node));
        let order = |(number, _)| Order::Tell(number, subtask::Command::Swap(Swap::Trial(Trial::End(current.node))));
        concerned.map(order).collect()
    }
}

/// A new version for one subtask.
type Candidate = (subtask::SubtaskNumber, NodeIndex, Box<dyn Any + Send>);

/// The swap that puts a version on trial into the place of the one that runs.
fn swap_of(version: &NewVersion, probation: Duration, promotes: Option<TrialId>) -> SwapRequest {
    SwapRequest { operators: vec![version.clone()], switch_at: SwitchAt::Batch, probation, one_way: false, widening: None, promotes }
}

/// Nobody hears what a shadow says: it would use up what the version that runs may say.
fn heard(context: &OperatorContext, mode: TrialMode) -> OperatorContext {
    match mode {
        TrialMode::Canary { .. } => context.clone(),
        TrialMode::Shadow => OperatorContext { log: InstanceContext::unheard(None).log, ..context.clone() },
    }
}

/// Opens the new version, unless something stands against it.
async fn prepare(preparation: Preparation, mode: TrialMode) -> Result<Prepared, TrialError> {
    let operator = preparation.request.operators.first().map_or_else(|| OperatorId::from(""), |version| version.operator.clone());
    let prepared = preparation.run().await.map_err(|error| refused(error, &operator))?;
    let pairs = prepared.old.iter().filter_map(|(node, old)| Some((old, prepared.new.get(node)?)));
    let differences: Vec<String> = pairs.flat_map(|(old, new)| old.trial_refusals(new.as_ref(), mode)).collect();
    if differences.is_empty() { Ok(prepared) } else { Err(TrialError::Incompatible { operator, differences }) }
}

fn refused(error: SwapError, operator: &OperatorId) -> TrialError {
    let operator = operator.clone();
    match error {
        SwapError::Incompatible { refusals } => {
            TrialError::Incompatible { operator, differences: refusals.into_iter().flat_map(|refusal| refusal.differences).collect() }
        }
        SwapError::UnknownOperator { operator } => TrialError::UnknownOperator { operator },
        SwapError::Ended => TrialError::Ended,
        error => TrialError::Failed { operator, reason: error.to_string() },
    }
}
