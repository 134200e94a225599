//! A version on trial in one subtask: it is asked what the version that runs was asked, its answer is compared ([`difference`]), and in a canary applied.
//!
//! Order of a call: the old version answers → the new one answers the same rows, values and clocks → both answers are compared and counted → one of
//! them is applied. What the old version fails at is dealt with as without a trial ([`super::recovery`]) and never asked of the new one. A failure of the
//! new version costs its instance and nothing else.
//!
//! The new version must not touch what it did not get: its metrics count only where its answer was applied, in a shadow nobody hears its log, and its CPU
//! time is counted apart and bounded by the record.

mod difference;

use std::{any::Any, sync::Arc, time::Duration};

use arrow_array::{ArrayRef, new_null_array};
use millstream_model::{
    key::{KeyGroup, hash_keys},
    state::StateKind,
};
use millstream_wasm::{CallKeys, Collections, Failure, Found, InstanceContext, OperatorInstance, Span, Updates};

use super::{
    answer::{Answer, Asked},
    call::{Failed, Work, guest_moment},
    plan::{ComponentOperatorPlan, Replacement},
    run::{ComponentOperator, call_sizes},
    size::CallSize,
};
use crate::{
    operator::{Moment, OperatorError, Output},
    run::{Compared, TrialCounts, TrialMode, TrialRecord},
};

/// Who answers a part of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answerer {
    /// The version that runs.
    Old,
    /// The version on trial too.
    Both,
}

/// A version on trial, in one subtask.
pub(super) struct Trying {
    record: Arc<TrialRecord>,
    plan: Arc<ComponentOperatorPlan>,
    guest: InstanceContext,
    /// None: it failed, and a new one is made for the next call.
    instance: Option<OperatorInstance>,
    sizes: Vec<CallSize>,
    numbers: Numbers,
}

/// How the new version counts the states and timers of the old one.
struct Numbers {
    /// By number of the new version, that of the old one; none: it is new.
    states: Vec<Option<u32>>,
    timers: Vec<Option<u32>>,
}

impl Numbers {
    fn of(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan) -> Self {
        let find = |at: Option<usize>| at.map(|number| number as u32);
        let states = new.guest.states.iter().map(|state| find(old.guest.states.iter().position(|other| other.name == state.name)));
        let timers = new.guest.timers.iter().map(|timer| find(old.guest.timers.iter().position(|other| other.name == timer.name)));
        Self { states: states.collect(), timers: timers.collect() }
    }

    /// The number by which the new version knows a timer of the old one.
    fn new_timer(&self, old: u32) -> u32 {
        let at = self.timers.iter().position(|&timer| timer == Some(old));
        at.map_or(0, |number| number as u32)
    }

    /// The same changes, as the old version counts; what is new is left out: a shadow has no state of its own, and a canary declares nothing new.
    fn renumbered(&self, updates: Updates) -> Updates {
        let state = |number: &mut u32| self.states[*number as usize].map(|old| *number = old).is_some();
        let Updates { mut values, mut maps, mut lists, mut timers } = updates;
        values.retain_mut(|update| state(&mut update.state));
        maps.retain_mut(|update| state(&mut update.state));
        lists.retain_mut(|update| state(&mut update.state));
        timers.retain_mut(|update| self.timers[update.timer as usize].map(|old| update.timer = old).is_some());
        Updates { values, maps, lists, timers }
    }
}

/// Collections lent to the new version, which may count its states differently.
struct Renumbered {
    lent: Box<dyn Collections>,
    states: Vec<Option<u32>>,
}

impl Renumbered {
    fn number(&self, state: u32) -> Result<u32, String> {
        let number = self.states.get(state as usize).copied().flatten();
        number.ok_or_else(|| format!("state {state} is new, and a version on trial has no state of its own"))
    }
}

impl Collections for Renumbered {
    fn get(&mut self, state: u32, keys: &[u32], map_keys: &ArrayRef) -> Result<ArrayRef, String> {
        let state = self.number(state)?;
        self.lent.get(state, keys, map_keys)
    }

    fn scan(&mut self, state: u32, spans: &[Span], bytes_max: u32) -> Result<Found, String> {
        let state = self.number(state)?;
        self.lent.scan(state, spans, bytes_max)
    }
}

/// What stands against a trial of `new` beside `old`, besides what stands against a swap; one clause each.
pub(super) fn refusals(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan, mode: TrialMode) -> Vec<String> {
    let mut refusals = Vec::new();
    if new.sends_requests() {
        refusals.push("the new version sends requests over HTTP, and what they do is done, whatever becomes of a trial: swap instead, with a probation".into());
    }
    for (number, state) in new.guest.states.iter().enumerate() {
        let name = &state.name;
        match (old.guest.states.iter().find(|other| other.name == *name), mode) {
            (Some(before), _) if before.value_type != state.value_type || before.map_key_type != state.map_key_type => {
                refusals.push(format!(
                    "state `{name}` is of another type, and both versions get the same values: swap instead, with a probation"
                ));
            }
            (Some(before), TrialMode::Canary { .. }) if before != state => {
                refusals.push(format!(
                    "state `{name}` is declared differently (its version or its time to live): swap instead, with a probation"
                ));
            }
            (None, TrialMode::Canary { .. }) => {
                refusals.push(format!(
                    "state `{name}` is new, and the old version would not keep it: try it as a shadow, or swap with a probation"
                ));
            }
            (None, TrialMode::Shadow) if new.guest.states[number].kind != StateKind::Value => {
                refusals.push(format!("state `{name}` is new and no value, and a shadow has no state of its own"));
            }
            _ => {}
        }
    }
    if let TrialMode::Canary { .. } = mode {
        let is_new = |name: &String| old.guest.timers.iter().all(|timer| timer.name != *name);
        let timers = new.guest.timers.iter().map(|timer| &timer.name).filter(|name| is_new(name));
        refusals.extend(timers.map(|name| format!("timer `{name}` is new, and the old version would not handle it: try it as a shadow")));
        let is_keyed =
            |plan: &ComponentOperatorPlan| plan.inputs.iter().all(|input| input.keys.as_ref().is_some_and(|keys| !keys.is_empty()));
        if !is_keyed(old) || !is_keyed(new) {
            refusals.push("a canary gets a share of the keys, and not every input has one: try it as a shadow".into());
        }
    }
    refusals
}

impl Trying {
    pub(super) fn new(old: &ComponentOperatorPlan, candidate: Replacement, record: Arc<TrialRecord>, guest: InstanceContext) -> Self {
        let Replacement { plan, instance } = candidate;
        Self { record, guest, instance: Some(instance), sizes: call_sizes(&plan), numbers: Numbers::of(old, &plan), plan }
    }

    /// Rows that a call with it should have at most.
    pub(super) fn rows(&self, size: usize) -> usize {
        self.sizes[size].rows()
    }

    pub(super) fn is_over(&self) -> bool {
        self.record.is_over()
    }

    fn is_canary(&self) -> bool {
        matches!(self.record.mode, TrialMode::Canary { .. })
    }

    /// What it answers, and how much CPU time that took. After a failure nothing of it is left.
    async fn ask(&mut self, call: Call<'_>, now: Moment) -> (Result<Answer, String>, Duration) {
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => match self.plan.instantiate(&self.guest).await {
                Ok(instance) => instance,
                Err(error) => return (Err(super::with_causes(&error)), Duration::ZERO),
            },
        };
        instance.limit_cpu(self.record.cpu_left(call.old_cpu));
        let asked = call.asked;
        let answer = self.call(&mut instance, call, now).await;
        let busy = instance.last_call().busy;
        self.sizes[asked.size_number(&self.plan)].measured(asked.len(), busy);
        match answer {
            Ok(answer) => {
                self.instance = Some(instance);
                (Ok(answer), busy)
            }
            Err(reason) => (Err(reason), busy),
        }
    }

    async fn call(&mut self, instance: &mut OperatorInstance, call: Call<'_>, now: Moment) -> Result<Answer, String> {
        let Call { asked, values, lent, .. } = call;
        let values = values.map(|(old, plan)| self.values(old, plan));
        let lent = lent.filter(|_| self.plan.has_collections());
        let lent = lent.map(|lent| Box::new(Renumbered { lent, states: self.numbers.states.clone() }) as Box<dyn Collections>);
        instance.note_rows(asked.notes());
        let (turn, _returned) = match asked {
            Asked::Rows { port, batch, .. } => {
                let rows = self.plan.rows(*port, batch, values).map_err(|error| super::with_causes(&error))?;
                instance.process(guest_moment(now), *port as u32, rows, lent).await
            }
            Asked::Timers(timers) => {
                let numbers = timers.due.timer.iter().map(|&timer| self.numbers.new_timer(timer)).collect();
                instance.on_timers(guest_moment(now), timers.call(numbers, values), lent).await
            }
        };
        let turn = turn.map_err(|failure| match failure {
            Failure::Retry(reason) => format!("it asks for another try, which a version on trial does not get: {reason}"),
            failure => failure.to_string(),
        })?;
        let answer = self.plan.answer(asked, turn, now).map_err(|error| super::with_causes(&error))?;
        Ok(Answer { updates: self.numbers.renumbered(answer.updates), ..answer })
    }

    /// The values that the old version got, as the new one counts states; a state that is new is absent.
    fn values(&self, old: CallKeys, old_plan: &ComponentOperatorPlan) -> CallKeys {
        let value = |number: u32| {
            let same = self.numbers.states[number as usize];
            let at = same.and_then(|same| old_plan.guest.keyed_value_states().position(|state| state == same));
            match at.and_then(|at| old.values.get(at)) {
                Some(values) => values.clone(),
                None => new_null_array(&self.plan.guest.states[number as usize].value_type, old.length as usize),
            }
        };
        CallKeys { length: old.length, of_row: old.of_row.clone(), values: self.plan.guest.keyed_value_states().map(value).collect() }
    }
}

/// What the old version was asked.
struct Call<'a> {
    asked: &'a Asked<'a>,
    values: Option<(CallKeys, &'a ComponentOperatorPlan)>,
    lent: Option<Box<dyn Collections>>,
    /// CPU time that it used for it.
    old_cpu: Duration,
}

impl ComponentOperator {
    /// Puts a version on trial.
    pub(super) fn begin_trial(&mut self, candidate: Box<dyn Any + Send>, record: Arc<TrialRecord>) -> Result<(), OperatorError> {
        let candidate = candidate.downcast::<Replacement>();
        let candidate = candidate.map_err(|_other| OperatorError::internal("only a component can be tried beside a component"))?;
        let guest = match record.mode {
            TrialMode::Canary { .. } => self.context.guest(),
            TrialMode::Shadow => InstanceContext { log: InstanceContext::unheard(None).log, ..self.context.guest() },
        };
        self.trying = Some(Trying::new(&self.plan, *candidate, record, guest));
        Ok(())
    }

    /// A call in parts by who answers. The order within each key is kept.
    pub(super) fn parts(&mut self, work: Work) -> Result<Vec<(Work, Answerer)>, OperatorError> {
        if self.trying.as_ref().is_some_and(Trying::is_over) {
            self.trying = None;
        }
        let Some(trying) = &self.trying else { return Ok(vec![(work, Answerer::Old)]) };
        let TrialMode::Canary { share } = trying.record.mode else { return Ok(vec![(work, Answerer::Both)]) };
        let groups = self.groups(&work)?;
        let numbers =
            |held: bool| -> Vec<u32> { (0..groups.len() as u32).filter(|&number| share.holds(groups[number as usize]) == held).collect() };
        let tried = numbers(true);
        Ok(if tried.is_empty() {
            vec![(work, Answerer::Old)]
        } else if tried.len() == work.len() {
            vec![(work, Answerer::Both)]
        } else {
            vec![(work.select(&numbers(false)), Answerer::Old), (work.select(&tried), Answerer::Both)]
        })
    }

    /// The key group of each row or timer.
    fn groups(&self, work: &Work) -> Result<Vec<KeyGroup>, OperatorError> {
        match work {
            Work::Timers(timers) => Ok((0..work.len()).map(|number| timers.due.keys.group(number)).collect()),
            Work::Rows { port, batch } => {
                let keys = self.plan.inputs[*port].keys.iter().flatten();
                let columns: Vec<ArrayRef> = keys.map(|&column| batch.column(column).clone()).collect();
                let hashes = hash_keys(&columns, batch.num_rows());
                let hashes = hashes.map_err(|error| OperatorError::internal("the keys of rows have no groups").because(error))?;
                Ok(hashes.into_iter().map(KeyGroup::of_hash).collect())
            }
        }
    }

    /// Asks the version on trial what the one that runs has answered as `old`, and counts what differs; its answer, if that is the one to be applied.
    pub(super) async fn try_beside(&mut self, asked: &Asked<'_>, values: Option<CallKeys>, old: &Answer, now: Moment) -> Option<Answer> {
        // Nothing is left of a trial that was over.
        let mut trying = self.trying.take().filter(|trying| !trying.is_over())?;
        let old_cpu = self.instance.last_call().busy;
        let lent = self.lend(asked.keys(), now);
        let call = Call { asked, values: values.clone().map(|values| (values, self.plan.as_ref())), lent, old_cpu };
        let (answered, new_cpu) = trying.ask(call, now).await;
        // The time of all guests of the operator is what its tenant has used; that of the one on trial is told apart by the record.
        self.context.metrics.guest_ns.add(u64::try_from(new_cpu.as_nanos()).unwrap_or(u64::MAX));
        let compared = match &answered {
            Ok(new) => {
                let sides = difference::Sides { plan: &self.plan, asked, values: values.as_ref(), old, new };
                difference::compare(&sides, trying.record.samples_wanted())
            }
            Err(reason) => not_compared(asked, reason.clone()),
        };
        // A row that only the new version rejects is answered by the old one: a trial loses no row.
        let rejects_more = compared.counts.rejects_extra > 0;
        let may_be_applied = trying.record.note(Compared { old_cpu, new_cpu, ..compared });
        let applies = trying.is_canary() && may_be_applied && !rejects_more;
        self.trying = Some(trying).filter(|trying| !trying.is_over());
        answered.ok().filter(|_| applies)
    }

    /// Applies what the version on trial has answered. False: it cannot be applied, and nothing was.
    pub(super) fn accept_tried(&mut self, asked: &Asked<'_>, answer: Answer, now: Moment, out: &mut Output) -> Result<bool, Failed> {
        let Some(mut trying) = self.trying.take() else { return Ok(false) };
        let plan = trying.plan.clone();
        let accepted = match self.accept(&plan, asked, answer, now, out) {
            Ok(()) => {
                if let Some(instance) = &mut trying.instance {
                    instance.applied();
                }
                trying.record.applied(asked.len() as u64);
                Ok(true)
            }
            // A value that is too large, say: the failure of a version on trial is no failure of the job.
            Err(Failed::Guest { reason } | Failed::Retry { reason }) => {
                trying.record.note(not_compared(asked, reason));
                Ok(false)
            }
            Err(failed @ Failed::Host(_)) => Err(failed),
        };
        self.trying = Some(trying).filter(|trying| !trying.is_over());
        accepted
    }
}

/// The new version has not answered.
fn not_compared(asked: &Asked<'_>, reason: String) -> Compared {
    let counts = TrialCounts { failures: 1, rows_not_compared: asked.len() as u64, ..TrialCounts::default() };
    Compared { counts, failure: Some(reason), ..Compared::default() }
}
