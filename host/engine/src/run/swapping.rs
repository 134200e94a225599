//! The swaps of one attempt: carries out what a handle asks for, one swap at a time.
//!
//! Facts come in as `on_…` and by the methods that handles use; what concerns subtasks goes out as [`Order`]s. It never waits: what takes time (planning,
//! opening instances, writing down which version runs) is spawned, and comes back as [`Done`].
//!
//! Order of a switch: written down (a durable run) → rows become wider at a barrier, if new versions read more ([`widen`]) → every subtask of the operators switches → probation → written down as settled → old instances go.
//! A swap is undone at any time until it is settled; while subtasks still change over, that waits until all have.

mod prepare;
mod trial;
mod widen;

use std::{
    any::Any,
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use millstream_model::ids::{CheckpointId, OperatorId};
use tokio::sync::{mpsc, oneshot};

use super::{
    RunSettings,
    job::causes,
    subtask::{self, AtBarrier, SubtaskNumber, Swap, Switch},
    swap::{SwapError, SwapId, SwapPhase, SwapRequest, SwapStatus, SwitchAt, SwitchReport, VersionCause},
    trial::TrialId,
    versions::{Applied, Plans, Running, Versions},
};
use crate::{
    graph::{JobPlan, NodeIndex, NodeKind},
    operator::{OperatorContext, OperatorError, OperatorPlan},
};

use prepare::Preparation;
pub(super) use prepare::{Prepared, PreparedAnswer};
use trial::Trials;
use widen::PreparedWidening;

/// Results of work in the background that wait.
const DONE_WAITING: usize = 16;

pub(super) type Answer<T> = oneshot::Sender<Result<T, SwapError>>;
/// New instances of one subtask.
type Instances = Vec<(NodeIndex, Box<dyn Any + Send>)>;
type Answered = Result<Result<Duration, OperatorError>, oneshot::error::RecvError>;

/// What the supervisor has to do.
pub(super) enum Order {
    /// Tell a subtask.
    Tell(SubtaskNumber, subtask::Command),
    /// Send no barrier until [`Self::SendBarrier`]: not all subtasks know yet that they switch at the next one.
    HoldBarriers,
    /// All subtasks concerned know: send one.
    SendBarrier,
    /// The attempt cannot go on: one clause.
    Recover(String),
}

/// Work that was done in the background.
pub(super) enum Done {
    /// Instances stand ready, or not; and whether to switch at once.
    Prepared { result: Result<Prepared, SwapError>, answer: PreparedAnswer },
    /// It is written down what is about to run.
    Recorded { result: Result<(), SwapError> },
    /// Every subtask knows at which barrier it switches, or takes wider rows, or has ended.
    Armed,
    /// Every subtask takes wider rows, failed to, or ended.
    Widened { answers: Vec<Answered> },
    /// Every subtask has switched, failed to, or ended.
    Switched { answers: Vec<Answered> },
    /// Every subtask has put its old instances back, or ended.
    RolledBack { answers: Vec<Answered> },
    /// It is written down that the swap is settled, or why not.
    SettlementRecorded { result: Result<(), SwapError> },
    /// Something for a trial.
    Trial(trial::Done),
}

/// The swap under way.
struct Current {
    status: SwapStatus,
    settings: Settings,
    new: Plans,
    old: Plans,
    instances: BTreeMap<SubtaskNumber, Instances>,
    components: BTreeMap<String, bytes::Bytes>,
    /// What has to carry more columns first.
    widening: Option<PreparedWidening>,
    /// How long that held subtasks up.
    widening_pauses: Vec<Duration>,
    /// Who waits for the switch.
    switch: Option<Answer<SwitchReport>>,
    /// Who waits for the way back.
    back: Vec<Answer<SwitchReport>>,
    /// It is to be undone as soon as all subtasks have changed over: why.
    undo: Option<String>,
    /// The elapsed time at which the probation ends.
    settles_at: Option<i64>,
    /// It is being written down that it is settled.
    is_settling: bool,
    /// It was prepared to undo the swap before it.
    undoes: Option<(SwapId, String)>,
    /// The trial that it ends well.
    promotes: Option<TrialId>,
}

#[derive(Clone, Copy)]
struct Settings {
    probation: Duration,
    /// There is no way back.
    one_way: bool,
}

/// The swaps of one attempt.
pub(super) struct Swapping {
    plan: Arc<JobPlan>,
    settings: RunSettings,
    contexts: HashMap<NodeIndex, Vec<OperatorContext>>,
    /// By subtask, the nodes that it runs.
    members: Vec<Vec<NodeIndex>>,
    /// What runs and ran; outlives the attempt.
    running: Running,
    versions: Option<Versions>,
    current: Option<Current>,
    last: Option<SwapStatus>,
    trials: Trials,
    done: mpsc::Sender<Done>,
    results: mpsc::Receiver<Done>,
}

impl Swapping {
    /// Nothing is under way; `running`: what the attempt was built with.
    pub(super) fn new(
        plan: Arc<JobPlan>,
        settings: RunSettings,
        contexts: HashMap<NodeIndex, Vec<OperatorContext>>,
        members: Vec<Vec<NodeIndex>>,
        running: Running,
        versions: Option<Versions>,
    ) -> Self {
        let (done, results) = mpsc::channel(DONE_WAITING);
        let last = running.last_swap();
        Self { plan, settings, contexts, members, running, versions, current: None, last, trials: Trials::default(), done, results }
    }

    /// The plan that `node` runs now.
    pub(super) fn plan_of(&self, node: NodeIndex) -> Option<Arc<dyn OperatorPlan>> {
        match &self.plan.nodes[node].kind {
            NodeKind::Operator(planned) => Some(self.running.swapped(node).unwrap_or_else(|| planned.plan.clone())),
            NodeKind::Source(_) | NodeKind::Sink(_) => None,
        }
    }

    /// Plans that run in the place of those that the attempt was built with.
    pub(super) fn swapped(&self) -> Plans {
        self.running.all_swapped()
    }

    /// The swap under way, or the last one.
    pub(super) fn status(&self) -> Option<SwapStatus> {
        self.current.as_ref().map(|current| current.status.clone()).or_else(|| self.last.clone())
    }

    /// The next result of work in the background. Cancel-safe.
    pub(super) async fn next_done(&mut self) -> Done {
        self.results.recv().await.expect("a sending end is held here")
    }

    /// The elapsed time at which [`Self::on_time`] wants to be called.
    pub(super) fn wake_monotonic_ms(&self) -> Option<i64> {
        self.settles_at().into_iter().chain(self.trial_wake_ms()).min()
    }

    fn settles_at(&self) -> Option<i64> {
        self.current.as_ref()?.settles_at
    }

    /// Plans new versions and opens them beside those that run.
    pub(super) fn prepare(&mut self, request: SwapRequest, answer: Answer<SwapStatus>) {
        if let Err(error) = self.check_request(&request) {
            return drop(answer.send(Err(error)));
        }
        let mut running = Vec::new();
        for version in &request.operators {
            let found = self.node_of(&version.operator).and_then(|node| Some((node, self.plan_of(node)?)));
            let Some((node, plan)) = found else {
                return drop(answer.send(Err(SwapError::UnknownOperator { operator: version.operator.clone() })));
            };
            running.push((node, plan));
        }
        self.begin(request, running, None, PreparedAnswer::Status(answer));
    }

    fn check_request(&self, request: &SwapRequest) -> Result<(), SwapError> {
        if let Some(swap) = self.under_way() {
            return Err(SwapError::UnderWay { swap });
        }
        self.check_trial(request)?;
        if request.operators.is_empty() {
            return Err(SwapError::Invalid { reason: "no operator is to be replaced".into() });
        }
        for (number, version) in request.operators.iter().enumerate() {
            if request.operators[..number].iter().any(|other| other.operator == version.operator) {
                return Err(SwapError::Invalid { reason: format!("`{}` is to be replaced twice", version.operator) });
            }
        }
        Ok(())
    }

    fn under_way(&self) -> Option<SwapId> {
        self.current.as_ref().map(|current| current.status.swap)
    }

    fn node_of(&self, operator: &OperatorId) -> Option<NodeIndex> {
        self.plan.nodes.iter().position(|node| node.id == *operator)
    }

    /// Spawns the preparation. `plans`: what is put in the place of the running ones; none: what the request plans.
    fn begin(
        &mut self,
        request: SwapRequest,
        running: Vec<(NodeIndex, Arc<dyn OperatorPlan>)>,
        back: Option<(Plans, SwapId, String)>,
        answer: PreparedAnswer,
    ) {
        let swap = self.running.next_swap();
        let status = SwapStatus {
            swap,
            phase: SwapPhase::Preparing,
            switch_at: request.switch_at,
            operators: Vec::new(),
            widens: Vec::new(),
            prepared_ms: self.settings.clock.now_ms(),
            switched_ms: None,
            probation_until_ms: None,
        };
        let old: Plans = running.iter().map(|(node, plan)| (*node, plan.clone())).collect();
        let (plans, undoes) = match back {
            Some((plans, swap, reason)) => (Some(plans), Some((swap, reason))),
            None => (None, None),
        };
        self.current = Some(Current {
            status,
            settings: Settings { probation: request.probation, one_way: false },
            new: Plans::new(),
            old,
            instances: BTreeMap::new(),
            components: BTreeMap::new(),
            widening: None,
            widening_pauses: Vec::new(),
            switch: None,
            back: Vec::new(),
            undo: None,
            settles_at: None,
            is_settling: false,
            undoes,
            promotes: request.promotes,
        });
        let members = self.members.clone();
        let preparation = Preparation {
            request,
            running,
            plans,
            replans: self.running.widened().is_some(),
            job: self.plan.with_versions(&self.running.all_swapped()),
            contexts: self.contexts.clone(),
            members,
        };
        let done = self.done.clone();
        self.settings.runtime.spawn(async move {
            let result = preparation.run().await;
            // Without a supervisor nobody needs to know.
            let _ = done.send(Done::Prepared { result, answer }).await;
        });
    }

    /// Puts what was prepared into the place of what runs.
    pub(super) fn switch(&mut self, swap: SwapId, answer: Answer<SwitchReport>) -> Vec<Order> {
        match &mut self.current {
            Some(current) if current.status.swap == swap && current.status.phase == SwapPhase::Prepared => {
                current.switch = Some(answer);
                self.start_switch()
            }
            _ => {
                drop(answer.send(Err(self.not_at(swap, "prepared"))));
                Vec::new()
            }
        }
    }

    /// Gives up a swap that was prepared.
    pub(super) fn abandon(&mut self, swap: SwapId, answer: Answer<SwapStatus>) {
        let is_prepared = |current: &&mut Current| current.status.swap == swap && current.status.phase == SwapPhase::Prepared;
        let answered = match self.current.as_mut().filter(is_prepared) {
            Some(_) => Ok(self.finish(SwapPhase::Abandoned)),
            None => Err(self.not_at(swap, "prepared")),
        };
        // Whoever asked may have gone.
        let _ = answer.send(answered);
    }

    /// Ends the probation.
    pub(super) fn settle(&mut self, swap: SwapId, answer: Answer<SwapStatus>) -> Vec<Order> {
        match &self.current {
            Some(current) if current.status.swap == swap && current.status.phase == SwapPhase::Probation => {
                let orders = self.start_settling();
                drop(answer.send(self.status().ok_or(SwapError::Ended)));
                orders
            }
            _ => {
                drop(answer.send(Err(self.not_at(swap, "on probation"))));
                Vec::new()
            }
        }
    }

    /// Puts back what the swap under way has replaced, or else what the last one had.
    pub(super) fn roll_back(&mut self, answer: Answer<SwitchReport>) -> Vec<Order> {
        let reason = "it was asked for".to_owned();
        match &mut self.current {
            Some(current) if matches!(current.status.phase, SwapPhase::Switching | SwapPhase::Probation) && !current.settings.one_way => {
                current.back.push(answer);
                current.undo.get_or_insert(reason);
                self.undo_when_possible()
            }
            Some(current) => {
                let swap = current.status.swap;
                drop(answer.send(Err(SwapError::UnderWay { swap })));
                Vec::new()
            }
            None => {
                self.prepare_way_back(reason, answer);
                Vec::new()
            }
        }
    }

    /// A swap that leads back to what ran before the last one that was settled.
    fn prepare_way_back(&mut self, reason: String, answer: Answer<SwitchReport>) {
        let request = SwapRequest {
            operators: Vec::new(),
            switch_at: SwitchAt::Batch,
            probation: Duration::ZERO,
            one_way: true,
            widening: None,
            promotes: None,
        };
        if let Err(error) = self.check_trial(&request) {
            return drop(answer.send(Err(error)));
        }
        let Some((swap, plans)) = self.running.before_last() else {
            let reason = "no swap was settled that could be undone".to_owned();
            return drop(answer.send(Err(SwapError::UnknownSwap { reason })));
        };
        let running = plans.keys().filter_map(|&node| Some((node, self.plan_of(node)?))).collect();
        self.begin(request, running, Some((plans, swap, reason)), PreparedAnswer::Switch(answer));
    }

    /// An operator has put its old version back by itself.
    pub(super) fn on_rolled_back(&mut self, operator: &OperatorId, reason: &str) -> Vec<Order> {
        let concerns = |current: &&mut Current| current.status.operators.iter().any(|swap| swap.operator == *operator);
        let Some(current) = self.current.as_mut().filter(concerns) else { return Vec::new() };
        current.undo.get_or_insert_with(|| format!("`{operator}` failed: {reason}"));
        self.undo_when_possible()
    }

    /// The time of [`Self::wake_monotonic_ms`] has come.
    pub(super) fn on_time(&mut self) -> Vec<Order> {
        self.on_trial_time();
        match self.settles_at() {
            Some(at_ms) if at_ms <= self.settings.clock.monotonic_ms() => self.start_settling(),
            _ => Vec::new(),
        }
    }

    pub(super) fn on_done(&mut self, done: Done, next_barrier: CheckpointId) -> Vec<Order> {
        match done {
            Done::Prepared { result, answer } => self.on_prepared(result, answer),
            Done::Recorded { result: Ok(()) } => match self.tell_to_widen(next_barrier) {
                Some(orders) => orders,
                None => self.tell_to_switch(next_barrier),
            },
            Done::Widened { answers } => self.on_widened(answers, next_barrier),
            Done::Recorded { result: Err(error) } => self.refuse_switch(error),
            Done::Trial(done) => self.on_trial_done(done),
            Done::Armed => vec![Order::SendBarrier],
            Done::Switched { answers } => self.on_switched(answers),
            Done::RolledBack { answers } => self.on_all_rolled_back(answers),
            Done::SettlementRecorded { result } => self.on_settlement_recorded(result),
        }
    }

    fn on_prepared(&mut self, result: Result<Prepared, SwapError>, answer: PreparedAnswer) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let prepared = match result {
            Ok(prepared) => prepared,
            Err(error) => {
                let promotes = current.promotes.filter(|_| answer.switches());
                self.current = None;
                let orders = self.trial_was_not_promoted(promotes, &error.to_string());
                answer.refuse(error);
                return orders;
            }
        };
        current.status.phase = SwapPhase::Prepared;
        current.settings.one_way = prepared.operators.iter().any(|operator| !operator.one_way.is_empty());
        current.status.operators = prepared.operators;
        current.status.widens = prepared.widening.as_ref().map_or_else(Vec::new, PreparedWidening::widens);
        current.widening = prepared.widening;
        current.new = prepared.new;
        current.old = prepared.old;
        current.instances = prepared.instances;
        current.components = prepared.components;
        match answer {
            PreparedAnswer::Status(answer) => {
                // Whoever asked may have gone.
                let _ = answer.send(Ok(current.status.clone()));
                Vec::new()
            }
            PreparedAnswer::Switch(answer) => {
                current.switch = Some(answer);
                self.start_switch()
            }
        }
    }

    /// First it is written down.
    fn start_switch(&mut self) -> Vec<Order> {
        if let Some(error) = self.lost_its_trial() {
            return self.refuse_switch(error);
        }
        let Some(current) = &mut self.current else { return Vec::new() };
        current.status.phase = SwapPhase::Switching;
        let promotes = current.promotes;
        self.trial_is_promoted(promotes);
        let Some(current) = &mut self.current else { return Vec::new() };
        let applied = Applied { new: &current.new, old: &current.old, is_settled: false };
        let Some(versions) = &self.versions else {
            let done = self.done.clone();
            self.settings.runtime.spawn(async move { drop(done.send(Done::Recorded { result: Ok(()) }).await) });
            return Vec::new();
        };
        let (writing, done) = (versions.write(&self.plan, applied, std::mem::take(&mut current.components)), self.done.clone());
        self.settings.runtime.spawn(async move {
            let result = writing.await.map_err(|reason| SwapError::NotRecorded { reason });
            let _ = done.send(Done::Recorded { result }).await;
        });
        Vec::new()
    }

    fn tell_to_switch(&mut self, next_barrier: CheckpointId) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let on_probation = !current.settings.one_way && !current.settings.probation.is_zero();
        let at_barrier = current.status.switch_at == SwitchAt::Barrier;
        let (mut orders, mut answers, mut all_armed) = (Vec::new(), Vec::new(), Vec::new());
        if at_barrier {
            orders.push(Order::HoldBarriers);
        }
        for (number, operators) in std::mem::take(&mut current.instances) {
            let (answer, answered) = oneshot::channel();
            let switch = Switch { operators, on_probation, answer };
            let swap = if at_barrier {
                let (armed, known) = oneshot::channel();
                all_armed.push(known);
                Swap::At(next_barrier, AtBarrier::Switch(switch), armed)
            } else {
                Swap::Switch(switch)
            };
            orders.push(Order::Tell(number, subtask::Command::Swap(swap)));
            answers.push(answered);
        }
        let done = self.done.clone();
        self.settings.runtime.spawn(async move {
            if at_barrier {
                join_all(all_armed).await;
                let _ = done.send(Done::Armed).await;
            }
            let _ = done.send(Done::Switched { answers: join_all(answers).await }).await;
        });
        orders
    }

    fn on_switched(&mut self, answers: Vec<Answered>) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let now_ms = self.settings.clock.now_ms();
        let (mut report, failure) = gather(current.status.swap, answers);
        report.widening_pauses = std::mem::take(&mut current.widening_pauses);
        if let Some(reason) = failure {
            // Some may have switched: they switch back.
            current.undo.get_or_insert(reason);
        }
        current.status.switched_ms = Some(now_ms);
        for (&node, plan) in &current.new {
            self.running.set(node, plan.clone());
        }
        let cause = match &current.undoes {
            Some((swap, reason)) => VersionCause::Rollback { swap: *swap, reason: reason.clone() },
            None => VersionCause::Swap { swap: current.status.swap },
        };
        self.running.note(&self.plan, &current.new, now_ms, &cause);
        if let Some(reason) = current.undo.clone() {
            current.status.phase = SwapPhase::Probation;
            let promotes = current.promotes;
            let mut orders = self.trial_was_not_promoted(promotes, &reason);
            orders.extend(self.undo_when_possible());
            return orders;
        }
        current.status.phase = SwapPhase::Probation;
        let (answer, promotes, swap) = (current.switch.take(), current.promotes, current.status.swap);
        self.trial_was_promoted(promotes, swap);
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _ = answer.send(Ok(report));
        }
        let Some(current) = &mut self.current else { return Vec::new() };
        if current.settings.one_way || current.settings.probation.is_zero() {
            return self.start_settling();
        }
        let probation_ms = i64::try_from(current.settings.probation.as_millis()).unwrap_or(i64::MAX);
        current.status.probation_until_ms = Some(now_ms.saturating_add(probation_ms));
        current.settles_at = Some(self.settings.clock.monotonic_ms().saturating_add(probation_ms));
        Vec::new()
    }

    fn refuse_switch(&mut self, error: SwapError) -> Vec<Order> {
        let promotes = self.current.as_ref().and_then(|current| current.promotes);
        let orders = self.trial_was_not_promoted(promotes, &error.to_string());
        if let Some(answer) = self.current.as_mut().and_then(|current| current.switch.take()) {
            // Whoever asked may have gone.
            let _ = answer.send(Err(error));
        }
        self.finish(SwapPhase::Abandoned);
        orders
    }

    /// Tells all subtasks to go back, unless some still change over.
    fn undo_when_possible(&mut self) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let Some(reason) = current.undo.clone().filter(|_| current.status.phase == SwapPhase::Probation && !current.is_settling) else {
            return Vec::new();
        };
        current.status.phase = SwapPhase::RollingBack { reason };
        current.status.probation_until_ms = None;
        current.settles_at = None;
        let nodes: Vec<NodeIndex> = current.new.keys().copied().collect();
        let (mut orders, mut answers) = (Vec::new(), Vec::new());
        for (number, member) in self.members.iter().enumerate() {
            let concerned: Vec<NodeIndex> = member.iter().copied().filter(|node| nodes.contains(node)).collect();
            if !concerned.is_empty() {
                let (answer, answered) = oneshot::channel();
                orders.push(Order::Tell(number, subtask::Command::Swap(Swap::RollBack(concerned, answer))));
                answers.push(answered);
            }
        }
        let recorded = self.versions.as_ref().map(|versions| {
            let applied = Applied { new: &current.old, old: &current.old, is_settled: true };
            versions.write(&self.plan, applied, BTreeMap::new())
        });
        let done = self.done.clone();
        self.settings.runtime.spawn(async move {
            let answers = join_all(answers).await;
            if let Some(Err(reason)) = match recorded {
                Some(recorded) => Some(recorded.await),
                None => None,
            } {
                // What is written down says that the new version is on probation, so a crash goes on with the old one all the same.
                tracing::warn!(reason, "it could not be written down that a swap was undone");
            }
            let _ = done.send(Done::RolledBack { answers }).await;
        });
        orders
    }

    fn on_all_rolled_back(&mut self, answers: Vec<Answered>) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        let (report, failure) = gather(current.status.swap, answers);
        let reason = current.undo.clone().unwrap_or_default();
        let operator = current.status.operators.first().map(|swap| swap.operator.clone()).unwrap_or_else(|| "".into());
        let answered = match failure {
            // The subtask that could not go back has failed the job.
            Some(reason) => Err(SwapError::Failed { operator: operator.clone(), reason }),
            None => Ok(report),
        };
        for answer in std::mem::take(&mut current.back) {
            // Whoever asked may have gone.
            let _ = answer.send(answered.clone());
        }
        if let Some(answer) = current.switch.take() {
            let _ = answer.send(Err(SwapError::Failed { operator, reason: reason.clone() }));
        }
        for (&node, plan) in &current.old {
            self.running.set(node, plan.clone());
        }
        let cause = VersionCause::Rollback { swap: current.status.swap, reason: reason.clone() };
        self.running.note(&self.plan, &current.old, self.settings.clock.now_ms(), &cause);
        self.finish(SwapPhase::RolledBack { reason });
        Vec::new()
    }

    /// First it is written down; only then the old instances go, so that there is a way back as long as a crash would go it.
    fn start_settling(&mut self) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        current.status.probation_until_ms = None;
        current.settles_at = None;
        current.is_settling = true;
        let applied = Applied { new: &current.new, old: &current.new, is_settled: true };
        let Some(versions) = &self.versions else { return self.on_settlement_recorded(Ok(())) };
        let (writing, done) = (versions.write(&self.plan, applied, BTreeMap::new()), self.done.clone());
        self.settings.runtime.spawn(async move {
            let result = writing.await.map_err(|reason| SwapError::NotRecorded { reason });
            let _ = done.send(Done::SettlementRecorded { result }).await;
        });
        Vec::new()
    }

    fn on_settlement_recorded(&mut self, result: Result<(), SwapError>) -> Vec<Order> {
        let Some(current) = &mut self.current else { return Vec::new() };
        current.is_settling = false;
        if current.undo.is_some() {
            return self.undo_when_possible();
        }
        if let Err(error) = result {
            // A crash would go back to the old version; the run goes on with the new one.
            tracing::warn!(%error, "it could not be written down that a swap is settled");
        }
        let nodes: Vec<NodeIndex> = current.new.keys().copied().collect();
        match current.undoes {
            Some(_) => self.running.undone(),
            None => self.running.settled(current.status.swap, current.old.clone()),
        }
        self.finish(SwapPhase::Settled);
        let concerned = |(number, member): (usize, &Vec<NodeIndex>)| {
            let nodes: Vec<NodeIndex> = member.iter().copied().filter(|node| nodes.contains(node)).collect();
            (!nodes.is_empty()).then_some(Order::Tell(number, subtask::Command::Swap(Swap::Settle(nodes))))
        };
        self.members.iter().enumerate().filter_map(concerned).collect()
    }

    fn finish(&mut self, phase: SwapPhase) -> SwapStatus {
        let mut status = self.current.take().map(|current| current.status).expect("a swap is under way");
        status.phase = phase;
        status.probation_until_ms = None;
        self.running.set_last_swap(status.clone());
        self.last = Some(status.clone());
        status
    }

    /// The attempt ends: what was only prepared is given up, what has touched something is decided by the next attempt.
    pub(super) fn end(&mut self) {
        self.end_trials();
        let Some(mut status) = self.current.take().map(|current| current.status) else { return };
        match status.phase {
            SwapPhase::Preparing | SwapPhase::Prepared => {
                status.phase = SwapPhase::Abandoned;
                self.running.set_last_swap(status);
            }
            _ => self.running.interrupt(status),
        }
    }

    fn not_at(&self, swap: SwapId, wanted: &str) -> SwapError {
        let reason = match &self.current {
            Some(current) if current.status.swap == swap => format!("swap {} is not {wanted} any more, or not yet", swap.0),
            _ => format!("swap {} is not under way", swap.0),
        };
        SwapError::UnknownSwap { reason }
    }
}

/// The pauses of those that switched; why one did not.
fn gather(swap: SwapId, answers: Vec<Answered>) -> (SwitchReport, Option<String>) {
    let mut report = SwitchReport { swap, pauses: Vec::new(), widening_pauses: Vec::new(), ended: 0 };
    let mut failure = None;
    for answer in answers {
        match answer {
            Ok(Ok(pause)) => report.pauses.push(pause),
            Ok(Err(error)) => drop(failure.get_or_insert_with(|| causes(&error).join(": "))),
            Err(_subtask_ended) => report.ended += 1,
        }
    }
    (report, failure)
}
