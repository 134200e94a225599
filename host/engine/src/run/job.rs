//! The supervisor of one job: builds its subtasks, hears what becomes of them, carries out what the handle asks. It never waits for a subtask
//! itself, so it always answers.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{FutureExt, future::join_all};
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
        BarrierReport, CheckpointError, CheckpointReport, Command, DurableStatus, HeldCheckpoint, JobError, JobOutcome, JobStatus,
        OperatorKind, OperatorStatus, Phase, Summary, SwapError, SwapId, SwitchReport,
    },
    restore::RestoredJob,
    source::sleep_until,
    subtask::{self, Event, SubtaskNumber, Switch},
};
use crate::{
    element::Barrier,
    graph::{JobPlan, NodeIndex, NodeKind},
    metrics::OperatorMetrics,
    operator::{Fault, OperatorContext, OperatorError, OperatorPlan},
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
    let attempt = Attempt { plan: &plan, settings: &settings, board: &board, restored: &fresh, directory: None };
    let ended = run(attempt, None, &mut commands).await;
    outcome.send_replace(Some(Arc::new(ended)));
    while let Some(command) = commands.next().await {
        answer_when_ended(command, &plan, &board);
    }
}

/// What a durable run adds to an attempt.
pub(super) struct DurableAttempt {
    pub(super) checkpoints: Found,
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
    let Attempt { plan, settings, board, .. } = attempt;
    let (events, reports) = mpsc::channel(EVENTS_WAITING);
    let (stop, publish) = (CancellationToken::new(), CancellationToken::new());
    // Whatever ends this function, nothing it started runs on.
    let _stop_on_drop = stop.clone().drop_guard();
    let building = build(attempt, events.clone(), &stop, &publish);
    let built = match built_unless_cancelled(building, commands, plan, board).await {
        Some(Ok(built)) => built,
        Some(Err((operator, error))) => return JobOutcome::Failed(job_error(Some(operator), None, &error)),
        None => return JobOutcome::Cancelled,
    };
    let mut supervisor = Supervisor::start(plan.clone(), settings.clone(), board.clone(), built, events, stop, publish);
    supervisor.take_checkpoints(durable);
    supervisor.run(reports, commands).await
}

/// None: the job was cancelled before it ran.
async fn built_unless_cancelled(
    building: impl Future<Output = Result<Built, BuildError>>,
    commands: &mut Commands,
    plan: &JobPlan,
    board: &Board,
) -> Option<Result<Built, BuildError>> {
    let mut building = std::pin::pin!(building);
    let mut handles_gone = false;
    loop {
        tokio::select! {
            biased;
            built = &mut building => return Some(built),
            command = commands.next_new(), if !handles_gone => match command {
                Some(Command::Cancel | Command::Drain) => return None,
                Some(Command::Status(answer)) => drop(answer.send(status(plan, board, Phase::Running, None))),
                Some(command) => commands.defer(command),
                None => handles_gone = true,
            },
        }
    }
}

fn answer_when_ended(command: Command, plan: &JobPlan, board: &Board) {
    match command {
        Command::Status(answer) => drop(answer.send(status(plan, board, Phase::Ended, None))),
        // Without an answer the handle says that the job has ended.
        Command::Drain
        | Command::Cancel
        | Command::Barrier(..)
        | Command::PrepareSwap { .. }
        | Command::Switch(..)
        | Command::Checkpoint { .. }
        | Command::HoldCheckpoint { .. }
        | Command::Checkpoints(_) => {}
    }
}

struct Supervisor {
    plan: Arc<JobPlan>,
    settings: RunSettings,
    board: Board,
    subtasks: Vec<Record>,
    contexts: std::collections::HashMap<NodeIndex, Vec<OperatorContext>>,
    /// The plan that each swapped operator runs now.
    swapped: BTreeMap<NodeIndex, Arc<dyn OperatorPlan>>,
    prepared: Arc<Mutex<BTreeMap<SwapId, Prepared>>>,
    next_swap: u64,
    barriers: Vec<PendingBarrier>,
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

/// Instances that wait beside the running ones.
struct Prepared {
    node: NodeIndex,
    plan: Arc<dyn OperatorPlan>,
    replacements: Vec<Box<dyn std::any::Any + Send>>,
}

struct PendingBarrier {
    checkpoint: CheckpointId,
    waiting: BTreeSet<SubtaskNumber>,
    report: BarrierReport,
    answer: oneshot::Sender<BarrierReport>,
}

impl Supervisor {
    fn start(
        plan: Arc<JobPlan>,
        settings: RunSettings,
        board: Board,
        built: Built,
        events: mpsc::Sender<(SubtaskNumber, Event)>,
        stop: CancellationToken,
        publish: CancellationToken,
    ) -> Self {
        for discovery in built.discoveries {
            settings.runtime.spawn(discover(plan.clone(), settings.clone(), discovery, events.clone(), stop.clone()));
        }
        let (mut subtasks, mut running) = (Vec::new(), Vec::new());
        for BuiltSubtask { subtask, nodes, index, commands, is_source, reads_nothing } in built.subtasks {
            let mut run = Box::pin(subtask.run());
            // Its end stands in the queues before the others send anything. A consumer that did not know of it yet would have no watermark and
            // so no late row, and which rows are late would depend on the scheduler.
            let is_done = reads_nothing && run.as_mut().now_or_never().is_some();
            if !is_done {
                running.push(run);
            }
            subtasks.push(Record { nodes, index, commands, is_source, input_ended: false, gone: false });
        }
        running.into_iter().for_each(|run| drop(settings.runtime.spawn(run)));
        Self {
            plan,
            settings: settings.clone(),
            board,
            subtasks,
            contexts: built.contexts,
            swapped: BTreeMap::new(),
            prepared: Arc::default(),
            next_swap: 0,
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
        self.durability = durable.map(|DurableAttempt { checkpoints, restarts, history }| Durability {
            checkpointing: Checkpointing::new(checkpoints, members),
            restarts,
            history,
        });
    }

    async fn run(mut self, mut reports: mpsc::Receiver<(SubtaskNumber, Event)>, commands: &mut Commands) -> JobOutcome {
        let mut handles_gone = false;
        let clock = self.settings.clock.clone();
        while self.subtasks.iter().any(|subtask| !subtask.gone) {
            let wake_ms = self.durability.as_ref().filter(|_| self.ended.is_none()).map(|durability| durability.checkpointing.wake_ms());
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
                    let swapped = &self.swapped;
                    let orders = self.durability.as_mut().map(|durability| durability.checkpointing.on_done(checkpoint, done, swapped));
                    self.carry_out(orders);
                }
                () = sleep_until(clock.as_ref(), wake_ms) => {
                    let orders = self.durability.as_mut().map(|durability| durability.checkpointing.on_time());
                    self.carry_out(orders);
                }
            }
        }
        if let Some(durability) = &mut self.durability {
            let error = match &self.ended {
                Some(JobOutcome::Failed(error)) => CheckpointError::Recovering { reason: error.to_string() },
                _ => CheckpointError::Ended,
            };
            durability.checkpointing.end(error).await;
        }
        self.ended.unwrap_or_else(|| JobOutcome::Finished(summary(&self.plan, &self.board)))
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
            Event::Ended(result) => self.on_ended(number, result),
            Event::DiscoveryFailed { operator, error } => self.fail(job_error(Some(operator), None, &error)),
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Status(answer) => drop(answer.send(status(&self.plan, &self.board, self.phase, self.durable_status()))),
            Command::Checkpoint { stops, answer } => self.on_checkpoint(stops, answer),
            Command::HoldCheckpoint { stops, answer } => self.on_hold_checkpoint(stops, answer),
            Command::Checkpoints(answer) => {
                let history = self.durability.as_ref().map(|durability| lock(&durability.history).iter().cloned().collect());
                drop(answer.send(history.unwrap_or_default()));
            }
            Command::Drain => self.on_drain(),
            Command::Cancel => self.end(JobOutcome::Cancelled),
            Command::Barrier(checkpoint, answer) => self.on_barrier(checkpoint, answer),
            Command::PrepareSwap { operator, plan, answer } => self.on_prepare_swap(operator, plan, answer),
            Command::Switch(swap, answer) => self.on_switch(swap, answer),
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
                Order::Barrier(checkpoint) => self.send_barrier(checkpoint),
                Order::BarrierTo(number, checkpoint) => {
                    self.tell(&self.subtasks[number], subtask::Command::Barrier(Barrier { checkpoint }));
                }
                Order::Committed(checkpoint) => self.tell_all(|| subtask::Command::Committed(checkpoint)),
                Order::GiveUp(checkpoint) => self.tell_all(|| subtask::Command::GiveUp(checkpoint)),
                Order::Recover { reason } => {
                    self.fail(JobError { operator: None, subtask: None, fault: Fault::Outside, causes: vec![reason] })
                }
                Order::Finish => self.publish.cancel(),
                Order::Stop(report) => self.end(JobOutcome::Stopped(report)),
                Order::Crash => self.end(JobOutcome::Cancelled),
            }
        }
    }

    fn send_barrier(&self, checkpoint: CheckpointId) {
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
        let waiting: BTreeSet<_> = (0..self.subtasks.len()).filter(|&number| !self.subtasks[number].input_ended).collect();
        let report = BarrierReport { passed: 0, ended: self.subtasks.len() - waiting.len() };
        for subtask in self.subtasks.iter().filter(|subtask| subtask.is_source && !subtask.input_ended) {
            self.tell(subtask, subtask::Command::Barrier(Barrier { checkpoint }));
        }
        self.barriers.push(PendingBarrier { checkpoint, waiting, report, answer });
    }

    fn on_prepare_swap(&mut self, operator: OperatorId, new: Arc<dyn OperatorPlan>, answer: oneshot::Sender<Result<SwapId, SwapError>>) {
        let (node, running) = match self.running_plan(&operator) {
            Some(found) => found,
            None => return drop(answer.send(Err(SwapError::UnknownOperator { operator }))),
        };
        if let Err(differences) = running.check_replacement(new.as_ref()) {
            return drop(answer.send(Err(SwapError::Incompatible { operator, differences })));
        }
        self.next_swap += 1;
        let (swap, prepared, contexts) = (SwapId(self.next_swap), self.prepared.clone(), self.contexts[&node].clone());
        self.settings.runtime.spawn(async move {
            let made = join_all(contexts.into_iter().map(|context| new.clone().create_replacement(context))).await;
            let made: Result<Vec<_>, OperatorError> = made.into_iter().collect();
            let result = match made {
                Ok(replacements) => {
                    lock(&prepared).insert(swap, Prepared { node, plan: new, replacements });
                    Ok(swap)
                }
                Err(error) => Err(SwapError::Failed { operator, reason: causes(&error).join(": ") }),
            };
            // Whoever asked may have gone.
            let _ = answer.send(result);
        });
    }

    fn on_switch(&mut self, swap: SwapId, answer: oneshot::Sender<Result<SwitchReport, SwapError>>) {
        let Some(Prepared { node, plan, replacements }) = lock(&self.prepared).remove(&swap) else {
            return drop(answer.send(Err(SwapError::UnknownSwap)));
        };
        let operator = self.plan.nodes[node].id.clone();
        self.swapped.insert(node, plan);
        let mut answers = Vec::new();
        for (subtask, replacement) in self.subtasks.iter().filter(|subtask| subtask.nodes.contains(&node)).zip(replacements) {
            let (switched, report) = oneshot::channel();
            self.tell(subtask, subtask::Command::Switch(Switch { node, replacement, answer: switched }));
            answers.push(report);
        }
        self.settings.runtime.spawn(async move {
            // Whoever asked may have gone.
            let _ = answer.send(gather(operator, join_all(answers).await));
        });
    }

    fn running_plan(&self, operator: &OperatorId) -> Option<(NodeIndex, Arc<dyn OperatorPlan>)> {
        let node = self.plan.nodes.iter().position(|node| node.id == *operator)?;
        match &self.plan.nodes[node].kind {
            NodeKind::Operator(planned) => Some((node, self.swapped.get(&node).unwrap_or(&planned.plan).clone())),
            NodeKind::Source(_) | NodeKind::Sink(_) => None,
        }
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
        let next_ms = settings.clock.now_ms().saturating_add(interval_ms);
        tokio::select! {
            () = stop.cancelled() => return,
            () = settings.clock.sleep_until(next_ms) => {}
        }
        let found = match source.source.splits(node.parallelism).await {
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

type Switched = Result<Result<Duration, OperatorError>, oneshot::error::RecvError>;

fn gather(operator: OperatorId, answers: Vec<Switched>) -> Result<SwitchReport, SwapError> {
    let mut report = SwitchReport { pauses: Vec::new(), ended: 0 };
    for answer in answers {
        match answer {
            Ok(Ok(pause)) => report.pauses.push(pause),
            Ok(Err(error)) => return Err(SwapError::Failed { operator, reason: causes(&error).join(": ") }),
            Err(_subtask_ended) => report.ended += 1,
        }
    }
    Ok(report)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn job_error(operator: Option<OperatorId>, subtask: Option<SubtaskIndex>, error: &OperatorError) -> JobError {
    JobError { operator, subtask, fault: error.fault, causes: causes(error) }
}

pub(super) fn causes(error: &OperatorError) -> Vec<String> {
    let mut causes = Vec::new();
    let mut next: Option<&dyn Error> = Some(error);
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    causes
}

pub(super) fn status(plan: &JobPlan, board: &Board, phase: Phase, durable: Option<DurableStatus>) -> JobStatus {
    JobStatus { phase, operators: operators(plan, board), durable }
}

fn summary(plan: &JobPlan, board: &Board) -> Summary {
    let operators = operators(plan, board);
    let cut = operators.iter().filter(|operator| operator.timers_cut > 0);
    let notes = cut.map(|operator| {
        format!("`{}` set timers again and again after the end of input: {} were not set", operator.id, operator.timers_cut)
    });
    Summary { notes: notes.collect(), operators }
}

fn operators(plan: &JobPlan, board: &Board) -> Vec<OperatorStatus> {
    plan.nodes.iter().zip(board).map(|(node, metrics)| operator_status(node, metrics)).collect()
}

fn operator_status(node: &crate::graph::Node, metrics: &[Arc<OperatorMetrics>]) -> OperatorStatus {
    let sum = |of: fn(&OperatorMetrics) -> u64| metrics.iter().map(|metrics| of(metrics)).sum::<u64>();
    let (kind, progress_total) = match &node.kind {
        NodeKind::Source(source) => (OperatorKind::Source, source.source.size_hint()),
        NodeKind::Operator(_) => (OperatorKind::Operator, None),
        NodeKind::Sink(_) => (OperatorKind::Sink, None),
    };
    let watermark = metrics.iter().map(|metrics| metrics.watermark.get()).min();
    OperatorStatus {
        id: node.id.clone(),
        kind,
        parallelism: node.parallelism,
        rows_in: sum(|metrics| metrics.rows_in.get()),
        rows_out: sum(|metrics| metrics.rows_out.get()),
        rows_late: sum(|metrics| metrics.rows_late.get()),
        rows_rejected: sum(|metrics| metrics.rows_rejected.get()),
        rows_null_key: sum(|metrics| metrics.rows_null_key.get()),
        timers_cut: sum(|metrics| metrics.timers_cut.get()),
        traps: sum(|metrics| metrics.traps.get()),
        // The subtasks share them.
        guest_metrics: metrics.first().map(|metrics| metrics.guest.status()).unwrap_or_default(),
        guest_metrics_refused: metrics.first().map_or(0, |metrics| metrics.guest.refused()),
        guest_time: Duration::from_nanos(sum(|metrics| metrics.guest_ns.get())),
        backpressured_time: Duration::from_nanos(sum(|metrics| metrics.backpressured_ns.get())),
        progress: sum(|metrics| metrics.progress.get()),
        progress_total,
        watermark: watermark.filter(|&watermark| watermark != i64::MIN),
    }
}

#[cfg(test)]
mod tests;
