//! A subtask: one chain with what feeds it, as one tokio task. It owns its state and its receiving ends.
//!
//! In a durable run a subtask whose input has ended stays: it belongs to every later checkpoint, and its sinks publish what is committed.

use std::{
    any::Any,
    collections::BTreeSet,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::FutureExt;
use millstream_model::{
    Batch,
    ids::{CheckpointId, OperatorId},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    Stop,
    aligner::Aligner,
    chain::Chain,
    gather::{Gathered, Gathering},
    queue::{Disconnected, Inbox},
    snapshot::{SnapshotFailed, SubtaskSnapshot, Wake},
    source::SourceDriver,
    trial::TrialRecord,
    wake::WakeTimes,
};
use crate::{
    clock::Clock,
    connector::Split,
    element::{Barrier, Element},
    graph::{JobPlan, NodeIndex},
    metrics::{OperatorMetrics, Shown, Waiting},
    operator::{Control, OperatorContext, OperatorError, OperatorPlan},
};

/// Number of a subtask in its job, over all chains.
pub(super) type SubtaskNumber = usize;

/// What the supervisor asks of a subtask. Taken up between two batches.
pub(super) enum Command {
    /// Sources: stop reading, as if the input had ended here. Others need not be told.
    Drain,
    /// Sources: read these splits too.
    Assign(Vec<Split>),
    /// Sources: send a barrier. A subtask whose input has ended, which no barrier reaches any more: be cut here.
    Barrier(Barrier),
    /// The checkpoint is committed: publish what was staged for it.
    Committed(CheckpointId),
    /// Checkpoints up to this one are given up: forget them.
    GiveUp(CheckpointId),
    /// A part of a swap.
    Swap(Swap),
}

/// What a swap asks of a subtask.
pub(super) enum Swap {
    /// Put prepared instances into the place of the running ones.
    Switch(Switch),
    /// Do this at the first barrier of this checkpoint or a later one; it answers when that is noted.
    At(CheckpointId, AtBarrier, oneshot::Sender<()>),
    /// The instances that were replaced are not needed any more.
    Settle(Vec<NodeIndex>),
    /// Put the instances back that were replaced; it answers how long that took.
    RollBack(Vec<NodeIndex>, oneshot::Sender<Result<Duration, OperatorError>>),
    /// Something for a trial.
    Trial(Trial),
}

/// What a trial asks of a subtask.
pub(super) enum Trial {
    /// Ask this version too what the running one is asked; it answers when it does.
    Begin { node: NodeIndex, candidate: Box<dyn Any + Send>, record: Arc<TrialRecord>, answer: oneshot::Sender<Result<(), OperatorError>> },
    /// The version on trial goes.
    End(NodeIndex),
}

/// What a subtask does when its head has a barrier, before it is cut.
pub(super) enum AtBarrier {
    /// Put prepared instances into the place of the running ones.
    Switch(Switch),
    /// Take and pass on wider rows.
    Widen(Widen),
}

/// Wider rows in one subtask.
pub(super) struct Widen {
    /// The job as it is from then on.
    pub(super) plan: Arc<JobPlan>,
    /// The operators of the subtask whose inputs are wider.
    pub(super) operators: Vec<(NodeIndex, WiderOperator)>,
    /// How long the subtask was held up.
    pub(super) answer: oneshot::Sender<Result<Duration, OperatorError>>,
}

/// What goes on with wider rows in the place of an operator.
pub(super) enum WiderOperator {
    /// What [`OperatorPlan::create_replacement`] made of the version that runs.
    Replacement(Box<dyn Any + Send>),
    /// An instance that is made then, of this plan.
    Anew(Arc<dyn OperatorPlan>, Box<OperatorContext>),
}

/// Prepared instances for operators of one subtask.
pub(super) struct Switch {
    pub(super) operators: Vec<(NodeIndex, Box<dyn Any + Send>)>,
    /// The old instances stay, to be put back.
    pub(super) on_probation: bool,
    /// How long the subtask was held up.
    pub(super) answer: oneshot::Sender<Result<Duration, OperatorError>>,
}

impl Switch {
    /// All operators change, or none.
    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    pub(super) async fn perform(self, chain: &mut Chain) {
        let Self { operators, on_probation, answer } = self;
        let began = Instant::now();
        let switched = chain.switch(operators, on_probation).await;
        // Whoever asked may have gone.
        let _ = answer.send(switched.map(|()| began.elapsed()));
    }
}

/// What a subtask tells the supervisor.
pub(super) enum Event {
    /// A barrier passed its head.
    Passed { checkpoint: CheckpointId },
    /// Its snapshot is complete in local files, or could not be taken; then it goes on.
    Snapshotted { checkpoint: CheckpointId, snapshot: Result<SubtaskSnapshot, SnapshotFailed> },
    /// What it had staged for a committed checkpoint is published.
    Published { checkpoint: CheckpointId },
    /// A new version of an operator failed on probation, and the one before does its work again.
    RolledBack { operator: OperatorId, reason: String },
    /// All its input is processed. Its sinks publish when this is so everywhere.
    InputEnded,
    /// The splits of a source could not be listed again. Not about the subtask that it comes with.
    DiscoveryFailed { operator: OperatorId, error: OperatorError },
    /// It is gone.
    Ended(Result<(), Stop>),
}

/// Where a subtask reports to.
pub(super) struct Commanded {
    pub(super) number: SubtaskNumber,
    pub(super) events: mpsc::Sender<(SubtaskNumber, Event)>,
}

impl Commanded {
    /// Reports the barrier that passed the head of the chain since the last call.
    pub(super) async fn report_passed(&self, chain: &mut Chain) {
        if let Some(barrier) = chain.take_passed_barrier() {
            self.report(Event::Passed { checkpoint: barrier.checkpoint }).await;
        }
    }

    /// Does a bounded part of the snapshot under way, and reports it when it is complete.
    pub(super) async fn advance_snapshot(&self, chain: &mut Chain) {
        if let Some((checkpoint, snapshot)) = chain.advance_snapshot() {
            self.report(Event::Snapshotted { checkpoint, snapshot }).await;
        }
    }

    /// Reports everything that the last element or command has led to.
    pub(super) async fn report_all(&self, chain: &mut Chain) {
        self.report_passed(chain).await;
        self.advance_snapshot(chain).await;
        if let Some((operator, reason)) = chain.take_rolled_back() {
            self.report(Event::RolledBack { operator, reason }).await;
        }
    }

    /// Carries out what a swap asks for. Whatever changes what a store declares gives up a snapshot under way: a checkpoint is soon taken again, and
    /// a swap that only some subtasks carry out would leave two versions running.
    pub(super) async fn swap(&self, command: Swap, chain: &mut Chain) {
        match command {
            Swap::Switch(switch) => {
                let given_up = {
                    let replaced: Vec<_> = switch.operators.iter().map(|(node, by)| (*node, Some(by.as_ref()))).collect();
                    chain.give_up_for(&replaced)
                };
                self.report_given_up(given_up).await;
                switch.perform(chain).await;
            }
            Swap::At(checkpoint, at_barrier, armed) => {
                match chain.arm(checkpoint, at_barrier) {
                    Some(AtBarrier::Switch(late)) => late.perform(chain).await,
                    Some(AtBarrier::Widen(late)) => {
                        let late_by = "the barrier has passed at which rows were to become wider";
                        drop(late.answer.send(Err(OperatorError::internal(late_by))));
                    }
                    None => {}
                }
                // Whoever asked may have gone.
                let _ = armed.send(());
            }
            Swap::Settle(nodes) => chain.settle_swap(&nodes).await,
            Swap::RollBack(nodes, answer) => {
                let given_up = {
                    let replaced: Vec<_> = nodes.iter().map(|&node| (node, None)).collect();
                    chain.give_up_for(&replaced)
                };
                self.report_given_up(given_up).await;
                let _ = answer.send(chain.roll_back(&nodes).await);
            }
            Swap::Trial(Trial::Begin { node, candidate, record, answer }) => {
                // Whoever asked may have gone.
                let _ = answer.send(chain.on_control(node, Control::Try { candidate, record }).await);
            }
            // Nothing is left of it where it was over before.
            Swap::Trial(Trial::End(node)) => drop(chain.on_control(node, Control::EndTrial).await),
        }
    }

    async fn report_given_up(&self, given_up: Option<(CheckpointId, SnapshotFailed)>) {
        if let Some((checkpoint, failed)) = given_up {
            self.report(Event::Snapshotted { checkpoint, snapshot: Err(failed) }).await;
        }
    }

    pub(super) async fn report(&self, event: Event) {
        // Without a supervisor the runtime is shutting down.
        let _ = self.events.send((self.number, event)).await;
    }
}

/// One chain in one subtask.
pub(super) struct Subtask {
    pub(super) chain: Chain,
    pub(super) feed: Feed,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) commanded: Commanded,
    pub(super) stop: CancellationToken,
    /// All input has ended everywhere: sinks publish.
    pub(super) publish: CancellationToken,
}

/// What feeds a chain.
pub(super) enum Feed {
    Source(Box<SourceDriver>),
    Queues(QueueDriver),
}

impl Subtask {
    /// Runs to the end of the input, a failure, or the end of the job, whichever comes first.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let result = tokio::select! {
            biased;
            () = stop.cancelled() => Err(Stop::Disconnected),
            worked = AssertUnwindSafe(self.work()).catch_unwind() => worked.unwrap_or_else(|panic| Err(panicked(&self.chain, panic.as_ref()))),
        };
        // What a durable run has staged may belong to a committed checkpoint: the run that goes on from it decides.
        if result.is_err() && !self.chain.is_durable() {
            self.chain.abort().await;
        }
        let Self { chain, feed, commanded, .. } = self;
        // The operators go first: who hears of the end may exit, and what their guests have still to say must be said by then.
        let ends = chain.into_ends();
        // Neighbours must not see these ends go before the supervisor knows the cause.
        commanded.report(Event::Ended(result)).await;
        drop((ends, feed));
    }

    async fn work(&mut self) -> Result<(), Stop> {
        self.chain.resume().await?;
        match &mut self.feed {
            Feed::Source(driver) => driver.run(&mut self.chain, &mut self.commands, &self.commanded).await?,
            Feed::Queues(driver) => driver.run(&mut self.chain, &mut self.commands, &self.commanded).await?,
        }
        self.chain.note_ended();
        if self.chain.is_durable() {
            self.commanded.report(Event::InputEnded).await;
            self.stay().await?;
            return self.chain.finish().await;
        }
        // Whoever still asks something learns that this subtask has ended.
        self.commands.close();
        while self.commands.try_recv().is_ok() {}
        self.commanded.report(Event::InputEnded).await;
        if self.chain.has_sinks() {
            self.publish.cancelled().await;
            self.chain.finish().await?;
        }
        Ok(())
    }

    /// Answers for checkpoints until the last one is published.
    async fn stay(&mut self) -> Result<(), Stop> {
        loop {
            let snapshot = self.chain.snapshot_wake();
            tokio::select! {
                biased;
                () = self.publish.cancelled() => return Ok(()),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command_at_end(command).await?,
                    None => return Err(Stop::Disconnected),
                },
                () = snapshot.wait() => {}
            }
            self.commanded.report_all(&mut self.chain).await;
            tokio::task::consume_budget().await;
        }
    }

    async fn on_command_at_end(&mut self, command: Command) -> Result<(), Stop> {
        match command {
            Command::Barrier(barrier) => {
                let is_new = self.chain.accept_at_end(barrier).await?;
                if let Feed::Source(driver) = &mut self.feed
                    && is_new
                {
                    driver.cut(&mut self.chain, barrier.checkpoint);
                }
                self.commanded.report_passed(&mut self.chain).await;
            }
            Command::Committed(checkpoint) => {
                if let Feed::Source(driver) = &mut self.feed {
                    driver.on_committed(checkpoint).await?;
                }
                on_committed(&mut self.chain, &self.commanded, checkpoint).await?;
            }
            Command::GiveUp(checkpoint) => self.chain.give_up(checkpoint),
            Command::Swap(swap) => self.commanded.swap(swap, &mut self.chain).await,
            Command::Drain | Command::Assign(_) => {}
        }
        Ok(())
    }
}

/// Publishes what the sinks of a chain staged for `checkpoint`, and says so.
pub(super) async fn on_committed(chain: &mut Chain, commanded: &Commanded, checkpoint: CheckpointId) -> Result<(), Stop> {
    chain.on_committed(checkpoint).await?;
    commanded.report(Event::Published { checkpoint }).await;
    Ok(())
}

fn panicked(chain: &Chain, panic: &(dyn Any + Send)) -> Stop {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let error = OperatorError::internal(format!("the host has a bug, the subtask panicked: {}", text.unwrap_or("no message")));
    Stop::Failed { operator: chain.current().clone(), error }
}

/// What the driver of queues was woken by.
enum Woken {
    Commanded(Option<Command>),
    Received(Result<(usize, Element), Disconnected>),
    /// The time has come for a link or for rows that wait, or a snapshot can go on.
    TimePassed,
}

/// Feeds a chain from its queues.
pub(super) struct QueueDriver {
    pub(super) inbox: Inbox,
    /// By edge, the node that it comes from.
    pub(super) producers: Vec<NodeIndex>,
    pub(super) gathering: Gathering,
    pub(super) clock: Arc<dyn Clock>,
    /// Of the head of the chain.
    pub(super) metrics: Arc<OperatorMetrics>,
    /// When the last element came, as elapsed time.
    pub(super) last_ms: i64,
}

impl QueueDriver {
    async fn run(&mut self, chain: &mut Chain, commands: &mut mpsc::Receiver<Command>, commanded: &Commanded) -> Result<(), Stop> {
        while !chain.head().aligner.is_ended() {
            match self.wait(chain.wake_times(), chain.snapshot_wake(), &chain.head().aligner, commands).await {
                Woken::Commanded(Some(command)) => on_command(command, chain, commanded).await?,
                Woken::Commanded(None) => return Err(Stop::Disconnected),
                Woken::Received(received) => {
                    let (edge, element) = received?;
                    self.last_ms = self.clock.monotonic_ms();
                    self.on_element(chain, edge, element).await?;
                }
                Woken::TimePassed => {}
            }
            self.hand_on_ready(chain).await?;
            chain.on_time_passed().await?;
            commanded.report_all(chain).await;
            tokio::task::consume_budget().await;
        }
        Ok(())
    }

    async fn wait(&mut self, links: WakeTimes, snapshot: Wake, aligner: &Aligner, commands: &mut mpsc::Receiver<Command>) -> Woken {
        let wake = links.or_monotonic(self.gathering.next_due_ms());
        let mut shown = Shown::new(&self.metrics.waits, self.last_ms, waiting(aligner, &self.producers));
        tokio::select! {
            biased;
            command = commands.recv() => Woken::Commanded(command),
            received = self.inbox.next(|edge| aligner.is_blocked(edge)) => Woken::Received(received),
            () = wake.wait(self.clock.as_ref()) => Woken::TimePassed,
            () = snapshot.wait() => Woken::TimePassed,
            // Only asked where nothing else is ready.
            never = shown.show() => match never {},
        }
    }

    async fn on_element(&mut self, chain: &mut Chain, edge: usize, element: Element) -> Result<(), Stop> {
        if let Element::Batch(batch) = element {
            self.gather(chain, edge, batch);
            return Ok(());
        }
        for gathered in self.gathering.take_all() {
            hand_on(chain, gathered).await?;
        }
        chain.accept(edge, element).await
    }

    /// A batch and those that wait on the edges of the same input, to be joined.
    fn gather(&mut self, chain: &mut Chain, edge: usize, batch: Batch) {
        let (input, now_ms) = (self.inbox.port(edge), self.clock.monotonic_ms());
        let mut next = Some((edge, batch));
        while let Some((edge, batch)) = next {
            chain.note_rows(edge);
            self.gathering.add(input, edge, batch, now_ms);
            next = if self.gathering.has_room(input) {
                self.inbox.next_waiting_batch(input, |edge| chain.head().aligner.is_blocked(edge))
            } else {
                None
            };
        }
    }

    async fn hand_on_ready(&mut self, chain: &mut Chain) -> Result<(), Stop> {
        if self.gathering.next_due_ms().is_none() {
            return Ok(());
        }
        for gathered in self.gathering.take_ready(self.clock.monotonic_ms()) {
            hand_on(chain, gathered).await?;
        }
        Ok(())
    }
}

async fn on_command(command: Command, chain: &mut Chain, commanded: &Commanded) -> Result<(), Stop> {
    match command {
        Command::Swap(swap) => commanded.swap(swap, chain).await,
        Command::Committed(checkpoint) => on_committed(chain, commanded, checkpoint).await?,
        Command::GiveUp(checkpoint) => chain.give_up(checkpoint),
        Command::Drain | Command::Assign(_) | Command::Barrier(_) => {}
    }
    Ok(())
}

/// What a subtask waits for whose queues are empty, or blocked by a barrier.
fn waiting(aligner: &Aligner, producers: &[NodeIndex]) -> Waiting {
    let distinct = |edges: Vec<usize>| edges.into_iter().map(|edge| producers[edge]).collect::<BTreeSet<_>>().into_iter().collect();
    match aligner.missing() {
        Some((barrier, edges)) => Waiting::Barrier { checkpoint: barrier.checkpoint, missing: distinct(edges) },
        None => Waiting::Input { held_by: aligner.holding_input().map(|edge| producers[edge]) },
    }
}

async fn hand_on(chain: &mut Chain, gathered: Gathered) -> Result<(), Stop> {
    let Gathered { edge, batches, .. } = gathered;
    match Batch::concat(&batches) {
        Ok(whole) => chain.accept(edge, Element::Batch(whole)).await,
        // Streams into one sink may differ, say in whether they have event times.
        Err(_differ) => {
            for batch in batches {
                chain.accept(edge, Element::Batch(batch)).await?;
            }
            Ok(())
        }
    }
}
