//! The supervisor of one job: builds its subtasks, hears what becomes of them, carries out what the handle asks. It never waits for a subtask
//! itself, so it always answers.

use std::{
    collections::BTreeSet,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt;
use millstream_model::ids::{CheckpointId, OperatorId, SubtaskIndex};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{
    RunSettings, Stop,
    build::{Attempt, Board, BuildError, Built, BuiltSubtask, Discovery, board, build},
    checkpointing::{Checkpointing, Done, Found, History, Member, Order},
    commands::Commands,
    durable,
    handle::{
        BarrierReport, CheckpointError, CheckpointReport, Command, DurableStatus, HeldCheckpoint, JobError, JobOutcome, JobStage,
        JobStatus, Phase,
    },
    restore::RestoredJob,
    status::View,
    subtask::{self, Event, SubtaskNumber},
    swapping::{self, Swapping},
    versions::{Plans, Running, Versions},
    wake::until_monotonic,
};
use crate::{
    element::Barrier,
    graph::{JobPlan, NodeIndex, NodeKind},
    operator::{Fault, OperatorError},
};

/// Reports that wait for the supervisor.
const EVENTS_WAITING: usize = 64;

/// Runs `plan` to its end, says how it ended, and goes on answering until all handles are gone.
pub(super) async fn supervise(
    plan: Arc<JobPlan>,
    settings: RunSettings,
    mut commands: Commands,
    outcome: watch::Sender<Option<Arc<JobOutcome>>>,
) {
    let board = board(&plan);
    let fresh = RestoredJob::default();
    let running = Running::default();
    running.start(&plan, Plans::new(), settings.clock.now_ms());
    let attempt = Attempt {
        plan: &plan,
        settings: &settings,
        board: &board,
        restored: &fresh,
        directory: None,
        running: &running,
        transaction: None,
    };
    let ended = run(attempt, None, &mut commands).await;
    outcome.send_replace(Some(Arc::new(ended)));
    while let Some(command) = commands.next().await {
        answer_when_ended(command, View { plan: &plan, board: &board, running: &running, clock: settings.clock.as_ref() });
    }
}

/// What a durable run adds to an attempt.
pub(super) struct DurableAttempt {
    pub(super) checkpoints: Found,
    /// Where it is written down which versions run.
    pub(super) versions: Versions,
    pub(super) restarts: u32,
    pub(super) history: History,
}

/// The same while it runs.
struct Durability {
    checkpointing: Checkpointing,
    restarts: u32,
    history: History,
}

/// Runs one attempt to its end.
pub(super) async fn run(attempt: Attempt<'_>, durable: Option<DurableAttempt>, commands: &mut Commands) -> JobOutcome {
    let Attempt { plan, board, running, .. } = attempt;
    let view = View { plan, board, running, clock: attempt.settings.clock.as_ref() };
    let (events, reports) = mpsc::channel(EVENTS_WAITING);
    let (stop, publish) = (CancellationToken::new(), CancellationToken::new());
    // Whatever ends this function, nothing it started runs on.
    let _stop_on_drop = stop.clone().drop_guard();
    let building = build(attempt, events.clone(), &stop, &publish);
    let built = match built_unless_cancelled(building, commands, view).await {
        Some(Ok(built)) => built,
        Some(Err((operator, error))) => {
            let stage = if attempt.restored.is_of_operator(plan, &operator) { JobStage::Restoring } else { JobStage::Running };
            return JobOutcome::Failed(JobError { stage, ..job_error(Some(operator), None, &error) });
        }
        None => return JobOutcome::Cancelled,
    };
    let versions = durable.as_ref().map(|durable| durable.versions.clone());
    let mut supervisor = Supervisor::start(attempt, built, versions, events, stop, publish);
    supervisor.take_checkpoints(durable);
    supervisor.run(reports, commands).await
}

/// The attempt ends, and the next one goes on from the last checkpoint.
fn recovering(reason: String) -> JobError {
    JobError { operator: None, subtask: None, fault: Fault::Outside, stage: JobStage::Running, causes: vec![reason] }
}

/// None: the job was cancelled before it ran.
async fn built_unless_cancelled(
    building: impl Future<Output = Result<Built, BuildError>>,
    commands: &mut Commands,
    view: View<'_>,
) -> Option<Result<Built, BuildError>> {
    let mut building = std::pin::pin!(building);
    let mut handles_gone = false;
    loop {
        tokio::select! {
            biased;
            built = &mut building => return Some(built),
            command = commands.next_new(), if !handles_gone => match command {
                Some(Command::Cancel | Command::Drain) => return None,
                Some(Command::Status(answer)) => drop(answer.send(view.status(Phase::Running, None))),
                Some(command) => commands.defer(command),
                None => handles_gone = true,
            },
        }
    }
}

fn answer_when_ended(command: Command, view: View<'_>) {
    match command {
        Command::Status(answer) => drop(answer.send(view.status(Phase::Ended, None))),
        Command::TrialReport(answer) => drop(answer.send(view.running.last_trial())),
        // Without an answer the handle says that the job has ended.
        Command::Drain
        | Command::Cancel
        | Command::Barrier(..)
        | Command::PrepareSwap(..)
        | Command::Switch(..)
        | Command::AbandonSwap(..)
        | Command::SettleSwap(..)
        | Command::RollBack(_)
        | Command::Try(..)
        | Command::EndTrial(..)
        | Command::PromoteTrial(..)
        | Command::Checkpoint { .. }
        | Command::HoldCheckpoint { .. }
        | Command::Checkpoints(_) => {}
    }
}

struct Supervisor {
    plan: Arc<JobPlan>,
    settings: RunSettings,
    board: Board,
    running: Running,
    subtasks: Vec<Record>,
    swapping: Swapping,
    barriers: Vec<PendingBarrier>,
    /// The checkpoint of the last barrier that was sent.
    last_barrier: CheckpointId,
    /// Barriers wait until all subtasks know that they switch at the next one; that one, if it has come up meanwhile.
    held_barrier: Option<Option<CheckpointId>>,
    stop: CancellationToken,
    publish: CancellationToken,
    phase: Phase,
    ended: Option<JobOutcome>,
    /// None: the run is ephemeral.
    durability: Option<Durability>,
}

/// What the supervisor knows of one subtask.
struct Record {
    nodes: Vec<NodeIndex>,
    index: SubtaskIndex,
    commands: mpsc::Sender<subtask::Command>,
    is_source: bool,
    input_ended: bool,
    gone: bool,
}

struct PendingBarrier {
    checkpoint: CheckpointId,
    waiting: BTreeSet<SubtaskNumber>,
    report: BarrierReport,
    answer: oneshot::Sender<BarrierReport>,
}

impl Supervisor {
    fn start(
        attempt: Attempt<'_>,
        built: Built,
        versions: Option<Versions>,
        events: mpsc::Sender<(SubtaskNumber, Event)>,
        stop: CancellationToken,
        publish: CancellationToken,
    ) -> Self {
        let (plan, settings) = (attempt.plan.clone(), attempt.settings.clone());
        for discovery in built.discoveries {
            settings.runtime.spawn(discover(plan.clone(), settings.clone(), discovery, events.clone(), stop.clone()));
        }
        let (mut subtasks, mut runs) = (Vec::new(), Vec::new());
        for BuiltSubtask { subtask, nodes, index, commands, is_source, reads_nothing } in built.subtasks {
            let mut run = Box::pin(subtask.run());
            // Its end stands in the queues before the others send anything. A consumer that did not know of it yet would have no watermark and
            // so no late row, and which rows are late would depend on the scheduler.
            let is_done = reads_nothing && run.as_mut().now_or_never().is_some();
            if !is_done {
                runs.push(run);
            }
            subtasks.push(Record { nodes, index, commands, is_source, input_ended: false, gone: false });
        }
        runs.into_iter().for_each(|run| drop(settings.runtime.spawn(run)));
        let members = subtasks.iter().map(|subtask| subtask.nodes.clone()).collect();
        let swapping = Swapping::new(plan.clone(), settings.clone(), built.contexts, members, attempt.running.clone(), versions);
        Self {
            plan,
            settings,
            board: attempt.board.clone(),
            running: attempt.running.clone(),
            subtasks,
            swapping,
            last_barrier: CheckpointId(0),
            held_barrier: None,
            barriers: Vec::new(),
            stop,
            publish,
            phase: Phase::Running,
            ended: None,
            durability: None,
        }
    }

    /// Makes the attempt one of a durable run.
    fn take_checkpoints(&mut self, durable: Option<DurableAttempt>) {
        let member = |subtask: &Record| {
            let parallelism = self.plan.nodes[subtask.nodes[0]].parallelism;
            Member { index: subtask.index, parallelism }
        };
        let members = self.subtasks.iter().map(member).collect();
        self.durability = durable.map(|DurableAttempt { checkpoints, restarts, history, .. }| {
            self.last_barrier = CheckpointId(checkpoints.record.last_number);
            Durability { checkpointing: Checkpointing::new(checkpoints, members), restarts, history }
        });
    }

    async fn run(mut self, mut reports: mpsc::Receiver<(SubtaskNumber, Event)>, commands: &mut Commands) -> JobOutcome {
        let mut handles_gone = false;
        let clock = self.settings.clock.clone();
        while self.subtasks.iter().any(|subtask| !subtask.gone) {
            let wake_ms = self.durability.as_ref().filter(|_| self.ended.is_none()).map(|durability| durability.checkpointing.wake_ms());
            let probation_until = self.swapping.wake_monotonic_ms();
            tokio::select! {
                biased;
                report = reports.recv() => match report {
                    Some((number, event)) => self.on_event(number, event),
                    // The subtasks are gone without a word: their runtime has shut down.
                    None => return self.ended.unwrap_or(JobOutcome::Cancelled),
                },
                command = commands.next(), if !handles_gone => match command {
                    Some(command) => self.on_command(command),
                    None => handles_gone = true,
                },
                (checkpoint, done) = next_done(self.durability.as_mut()) => {
                    let swapped = self.swapping.swapped();
                    let orders = self.durability.as_mut().map(|durability| durability.checkpointing.on_done(checkpoint, done, &swapped));
                    self.carry_out(orders);
                }
                done = self.swapping.next_done() => {
                    let orders = self.swapping.on_done(done, CheckpointId(self.last_barrier.0 + 1));
                    self.swap(orders);
                }
                () = until_monotonic(clock.as_ref(), probation_until) => {
                    let orders = self.swapping.on_time();
                    self.swap(orders);
                }
                () = until_monotonic(clock.as_ref(), wake_ms) => {
                    let orders = self.durability.as_mut().map(|durability| durability.checkpointing.on_time());
                    self.carry_out(orders);
                }
            }
        }
        self.swapping.end();
        if let Some(durability) = &mut self.durability {
            let error = match &self.ended {
                Some(JobOutcome::Failed(error)) => CheckpointError::Recovering { reason: error.to_string() },
                _ => CheckpointError::Ended,
            };
            durability.checkpointing.end(error).await;
        }
        let view = View { plan: &self.plan, board: &self.board, running: &self.running, clock: self.settings.clock.as_ref() };
        self.ended.unwrap_or_else(|| JobOutcome::Finished(view.summary()))
    }

    fn on_event(&mut self, number: SubtaskNumber, event: Event) {
        match event {
            Event::Passed { checkpoint } => self.on_passed(number, Some(checkpoint)),
            Event::InputEnded => self.on_input_ended(number),
            Event::Snapshotted { checkpoint, snapshot } => {
                let orders =
                    self.durability.as_mut().map(|durability| durability.checkpointing.on_snapshotted(number, checkpoint, snapshot));
                self.carry_out(orders);
            }
            Event::Published { checkpoint } => {
                let orders = self.durability.as_mut().map(|durability| durability.checkpointing.on_published(number, checkpoint));
                self.carry_out(orders);
            }
            Event::RolledBack { operator, reason } => {
                let orders = self.swapping.on_rolled_back(&operator, &reason);
                self.swap(orders);
            }
            Event::Ended(result) => self.on_ended(number, result),
            Event::DiscoveryFailed { operator, error } => self.fail(job_error(Some(operator), None, &error)),
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Status(answer) => drop(answer.send(self.status())),
            Command::Checkpoint { stops, answer } => self.on_checkpoint(stops, answer),
            Command::HoldCheckpoint { stops, answer } => self.on_hold_checkpoint(stops, answer),
            Command::Checkpoints(answer) => {
                let history = self.durability.as_ref().map(|durability| lock(&durability.history).iter().cloned().collect());
                drop(answer.send(history.unwrap_or_default()));
            }
            Command::Drain => self.on_drain(),
            Command::Cancel => self.end(JobOutcome::Cancelled),
            Command::Barrier(checkpoint, answer) => self.on_barrier(checkpoint, answer),
            Command::PrepareSwap(request, answer) => self.swapping.prepare(request, answer),
            Command::Switch(swap, answer) => {
                let orders = self.swapping.switch(swap, answer);
                self.swap(orders);
            }
            Command::AbandonSwap(swap, answer) => self.swapping.abandon(swap, answer),
            Command::SettleSwap(swap, answer) => {
                let orders = self.swapping.settle(swap, answer);
                self.swap(orders);
            }
            Command::RollBack(answer) => {
                let orders = self.swapping.roll_back(answer);
                self.swap(orders);
            }
            Command::Try(request, answer) => self.swapping.try_version(*request, answer),
            Command::TrialReport(answer) => drop(answer.send(self.swapping.trial_report())),
            Command::EndTrial(trial, answer) => {
                let orders = self.swapping.end_trial(trial, answer);
                self.swap(orders);
            }
            Command::PromoteTrial(trial, probation, answer) => self.swapping.promote_trial(trial, probation, answer),
        }
    }

    fn on_ended(&mut self, number: SubtaskNumber, result: Result<(), Stop>) {
        self.subtasks[number].gone = true;
        match result {
            Ok(()) if self.durability.is_some() => {}
            Ok(()) => self.on_input_ended(number),
            Err(Stop::Failed { operator, error }) => self.fail(job_error(Some(operator), Some(self.subtasks[number].index), &error)),
            Err(Stop::Disconnected) => {
                let error = OperatorError::internal("a subtask stopped without a cause");
                self.fail(job_error(None, Some(self.subtasks[number].index), &error));
            }
        }
    }

    fn on_input_ended(&mut self, number: SubtaskNumber) {
        self.subtasks[number].input_ended = true;
        self.on_passed(number, None);
        if let Some(durability) = &mut self.durability {
            let orders = durability.checkpointing.on_input_ended(number);
            return self.carry_out(Some(orders));
        }
        if self.subtasks.iter().all(|subtask| subtask.input_ended) {
            self.publish.cancel();
        }
    }

    /// Subtask `number` has passed a barrier, or (none) will pass no more.
    fn on_passed(&mut self, number: SubtaskNumber, passed: Option<CheckpointId>) {
        for barrier in &mut self.barriers {
            let concerned = passed.is_none_or(|checkpoint| checkpoint == barrier.checkpoint);
            if concerned && barrier.waiting.remove(&number) {
                *(if passed.is_some() { &mut barrier.report.passed } else { &mut barrier.report.ended }) += 1;
            }
        }
        for done in self.barriers.extract_if(.., |barrier| barrier.waiting.is_empty()) {
            // Whoever asked may have gone.
            let _ = done.answer.send(done.report);
        }
    }

    fn on_checkpoint(&mut self, stops: bool, answer: oneshot::Sender<Result<CheckpointReport, CheckpointError>>) {
        match &mut self.durability {
            Some(durability) => {
                let orders = durability.checkpointing.request(stops, answer);
                self.carry_out(Some(orders));
            }
            None => drop(answer.send(Err(CheckpointError::Ephemeral))),
        }
    }

    fn on_hold_checkpoint(&mut self, stops: bool, answer: oneshot::Sender<Result<HeldCheckpoint, CheckpointError>>) {
        match &mut self.durability {
            Some(durability) => {
                let orders = durability.checkpointing.request_held(stops, answer);
                self.carry_out(Some(orders));
            }
            None => drop(answer.send(Err(CheckpointError::Ephemeral))),
        }
    }

    fn durable_status(&self) -> Option<DurableStatus> {
        let durability = self.durability.as_ref()?;
        Some(durable::status(&self.plan, durability.checkpointing.incarnation(), durability.restarts, &durability.history))
    }

    /// Does what the checkpoints ask for, unless the attempt is over.
    fn carry_out(&mut self, orders: Option<Vec<Order>>) {
        for order in orders.into_iter().flatten() {
            if self.ended.is_some() {
                return;
            }
            match order {
                Order::Barrier(checkpoint) => match &mut self.held_barrier {
                    Some(held) => *held = Some(checkpoint),
                    None => self.send_barrier(checkpoint),
                },
                Order::BarrierTo(number, checkpoint) => {
                    self.tell(&self.subtasks[number], subtask::Command::Barrier(Barrier { checkpoint }));
                }
                Order::Committed(checkpoint) => self.tell_all(|| subtask::Command::Committed(checkpoint)),
                Order::GiveUp(checkpoint) => self.tell_all(|| subtask::Command::GiveUp(checkpoint)),
                Order::Recover { reason } => self.fail(recovering(reason)),
                Order::Finish => self.publish.cancel(),
                Order::Stop(report) => self.end(JobOutcome::Stopped(report)),
                Order::Crash => self.end(JobOutcome::Cancelled),
            }
        }
    }

    /// Does what a swap asks for.
    fn swap(&mut self, orders: Vec<swapping::Order>) {
        for order in orders {
            match order {
                swapping::Order::Tell(number, command) => self.tell(&self.subtasks[number], command),
                swapping::Order::HoldBarriers => drop(self.held_barrier.get_or_insert(None)),
                swapping::Order::SendBarrier => self.send_held_barrier(),
                swapping::Order::Recover(reason) => self.fail(recovering(reason)),
            }
        }
    }

    /// Every subtask knows that it switches at the next barrier.
    fn send_held_barrier(&mut self) {
        match (self.held_barrier.take().flatten(), &mut self.durability) {
            (Some(checkpoint), _) => self.send_barrier(checkpoint),
            (None, Some(durability)) => {
                // Nobody waits for this checkpoint; the swap waits for its barrier.
                let orders = durability.checkpointing.request(false, oneshot::channel().0);
                self.carry_out(Some(orders));
            }
            (None, None) => self.send_barrier(CheckpointId(self.last_barrier.0 + 1)),
        }
    }

    fn status(&self) -> JobStatus {
        let view = View { plan: &self.plan, board: &self.board, running: &self.running, clock: self.settings.clock.as_ref() };
        let (swap, trial) = (self.swapping.status(), self.swapping.trial_report().map(|report| report.status));
        JobStatus { swap, trial, ..view.status(self.phase, self.durable_status()) }
    }

    fn send_barrier(&mut self, checkpoint: CheckpointId) {
        self.last_barrier = self.last_barrier.max(checkpoint);
        for subtask in self.subtasks.iter().filter(|subtask| subtask.is_source || subtask.input_ended) {
            self.tell(subtask, subtask::Command::Barrier(Barrier { checkpoint }));
        }
    }

    fn tell_all(&self, command: impl Fn() -> subtask::Command) {
        self.subtasks.iter().for_each(|subtask| self.tell(subtask, command()));
    }

    fn on_drain(&mut self) {
        self.phase = Phase::Draining;
        for subtask in self.subtasks.iter().filter(|subtask| subtask.is_source) {
            self.tell(subtask, subtask::Command::Drain);
        }
    }

    fn on_barrier(&mut self, checkpoint: CheckpointId, answer: oneshot::Sender<BarrierReport>) {
        self.last_barrier = self.last_barrier.max(checkpoint);
        let waiting: BTreeSet<_> = (0..self.subtasks.len()).filter(|&number| !self.subtasks[number].input_ended).collect();
        let report = BarrierReport { passed: 0, ended: self.subtasks.len() - waiting.len() };
        for subtask in self.subtasks.iter().filter(|subtask| subtask.is_source && !subtask.input_ended) {
            self.tell(subtask, subtask::Command::Barrier(Barrier { checkpoint }));
        }
        self.barriers.push(PendingBarrier { checkpoint, waiting, report, answer });
    }

    /// Sends a command when the subtask has room for it; if it ends before, the command is dropped.
    fn tell(&self, subtask: &Record, command: subtask::Command) {
        if let Err(mpsc::error::TrySendError::Full(command)) = subtask.commands.try_send(command) {
            let commands = subtask.commands.clone();
            self.settings.runtime.spawn(async move { commands.send(command).await });
        }
    }

    fn fail(&mut self, error: JobError) {
        self.end(JobOutcome::Failed(error));
    }

    /// The first cause counts; everything after it is its consequence.
    fn end(&mut self, outcome: JobOutcome) {
        self.ended.get_or_insert(outcome);
        self.stop.cancel();
    }
}

async fn next_done(durability: Option<&mut Durability>) -> (CheckpointId, Done) {
    match durability {
        Some(durability) => durability.checkpointing.next_done().await,
        None => std::future::pending().await,
    }
}

/// Looks for new splits of one source until the job stops.
async fn discover(
    plan: Arc<JobPlan>,
    settings: RunSettings,
    mut discovery: Discovery,
    events: mpsc::Sender<(SubtaskNumber, Event)>,
    stop: CancellationToken,
) {
    let node = &plan.nodes[discovery.node];
    let NodeKind::Source(source) = &node.kind else { return };
    let Some(interval) = source.source.discovery_interval() else { return };
    let interval_ms = i64::try_from(interval.as_millis()).unwrap_or(i64::MAX).max(1);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = settings.clock.sleep(interval_ms) => {}
        }
        let found = match source.source.more_splits(node.parallelism).await {
            Ok(found) => found,
            Err(error) => {
                // Without a supervisor nobody needs to know.
                let _ = events.send((0, Event::DiscoveryFailed { operator: node.id.clone(), error })).await;
                return;
            }
        };
        for (reader, splits) in discovery.readers.iter().zip(discovery.assignment.assign(found)) {
            if !splits.is_empty() && reader.send(subtask::Command::Assign(splits)).await.is_err() {
                return;
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn job_error(operator: Option<OperatorId>, subtask: Option<SubtaskIndex>, error: &OperatorError) -> JobError {
    JobError { operator, subtask, fault: error.fault, stage: JobStage::Running, causes: causes(error) }
}

pub(super) fn causes(error: &OperatorError) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        let cause = error.to_string();
        // Some libraries say with every error all that is below it.
        if causes.last().is_none_or(|told| !told.contains(&cause)) {
            causes.push(cause);
        }
        next = error.source();
    }
    causes
}

#[cfg(test)]
mod tests;
