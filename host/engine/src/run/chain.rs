//! A chain: fused nodes that run in one subtask, a tree of links below one head.
//!
//! What a link emits goes to the next links at once, depth first, by an explicit stack of [`Step`]s: no queue, no copy, no recursion. A step
//! that stops early (many timers are due) puts itself back behind what it emitted, so memory stays bounded. So when an element has been
//! accepted nothing is under way, and a barrier, which is an element, finds every link at rest.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use millstream_model::{
    Batch, Watermark,
    ids::{CheckpointId, OperatorId},
    time::Progress,
};

use super::{
    Stop,
    aligner::Aligner,
    entry::Entry,
    order::EventTimeOrder,
    outlet::{Outlet, Sending, Target},
    sink::SinkLink,
    snapshot::{self, SnapshotFailed, SnapshotSettings, SubtaskSnapshot, Taking, Wake},
    subtask::AtBarrier,
    tap::Tap,
    wake::WakeTimes,
};
use crate::{
    checkpoint::manifest::SplitManifest,
    clock::Clock,
    element::{Barrier, Element},
    graph::{JobPlan, NodeIndex},
    metrics::OperatorMetrics,
    operator::{Control, Emitted, Mark, Moment, Operator, OperatorError, Output, OutputPort},
    rejected::{self, RejectedPolicy, Rejection},
};

/// The links of one subtask. The first is its head.
pub(super) struct Chain {
    links: Vec<Link>,
    clock: Arc<dyn Clock>,
    /// Processing time of the current call, ms since epoch.
    now_ms: i64,
    /// Elapsed time of it.
    monotonic_ms: i64,
    steps: Vec<Step>,
    /// Steps that the current step asks for, in order.
    asked: Vec<Step>,
    /// The last barrier that passed the head, until that is reported.
    passed: Option<Barrier>,
    /// The checkpoint of the last barrier that passed the head.
    newest_barrier: Option<CheckpointId>,
    /// How snapshots are taken; none: barriers only pass.
    snapshots: Option<SnapshotSettings>,
    /// The snapshot under way.
    taking: Option<Taking>,
    /// Checkpoints up to this one were given up: their barriers only pass.
    given_up: Option<CheckpointId>,
    /// When the first input passed the barrier that others have not passed yet.
    aligning_since: Option<Instant>,
    /// All input has ended, and everything that follows from it was sent.
    ended: bool,
    /// The link that the last step was for.
    current: usize,
    /// What is done at the first barrier of this checkpoint or a later one.
    armed: Option<(CheckpointId, AtBarrier)>,
    /// The plan by which rows have become wider, until the driver of a source asks.
    widened: Option<Arc<JobPlan>>,
    /// The nodes whose old instances are kept.
    on_probation: Vec<NodeIndex>,
}

/// One node in one subtask.
pub(super) struct Link {
    pub(super) node: NodeIndex,
    pub(super) id: OperatorId,
    pub(super) role: Role,
    pub(super) aligner: Aligner,
    /// What stands before the operator, per input slot.
    pub(super) entries: Vec<Entry>,
    pub(super) outlets: Vec<Outlet>,
    pub(super) rejected: RejectedPolicy,
    pub(super) metrics: Arc<OperatorMetrics>,
    /// Somebody may look at what it emits.
    pub(super) tap: Arc<Tap>,
    /// The last watermark that was sent on.
    pub(super) sent: Option<Watermark>,
    /// Holds rows for `order: event-time`.
    pub(super) order: Option<EventTimeOrder>,
    /// Something downstream depends on where watermarks stand, so batches are cut at those that the operator makes.
    pub(super) cuts_at_watermarks: bool,
}

/// What a link does.
pub(super) enum Role {
    /// Passes on what the source driver reads.
    Source,
    Operator(Box<dyn Operator>),
    Sink(SinkLink),
}

/// One thing to do next.
enum Step {
    /// Hand an element to input `slot` of a link.
    Element { link: usize, slot: usize, element: Element },
    /// Deliver held rows up to the link's watermark.
    Release { link: usize },
    /// Tell the operator of its watermark, then pass it on.
    Watermark { link: usize },
    /// Tell the operator that the time it asked for has come.
    TimePassed { link: usize },
    /// Tell the operator of the end, then pass it on.
    End { link: usize },
}

impl Step {
    fn link(&self) -> usize {
        match *self {
            Self::Element { link, .. }
            | Self::Release { link }
            | Self::Watermark { link }
            | Self::TimePassed { link }
            | Self::End { link } => link,
        }
    }
}

impl Link {
    fn moment(&self, now_ms: i64) -> Moment {
        Moment { watermark: self.aligner.watermark(), processing_time: now_ms }
    }

    fn failed(&self, error: OperatorError) -> Stop {
        Stop::Failed { operator: self.id.clone(), error }
    }

    /// The operator of this link, if it is one.
    pub(super) fn operator(&mut self) -> Option<&mut (dyn Operator + 'static)> {
        match &mut self.role {
            Role::Operator(operator) => Some(operator.as_mut()),
            Role::Source | Role::Sink(_) => None,
        }
    }
}

impl Chain {
    pub(super) fn new(links: Vec<Link>, clock: Arc<dyn Clock>, snapshots: Option<SnapshotSettings>) -> Self {
        Self {
            links,
            now_ms: clock.now_ms(),
            monotonic_ms: clock.monotonic_ms(),
            clock,
            steps: Vec::new(),
            asked: Vec::new(),
            passed: None,
            newest_barrier: None,
            snapshots,
            taking: None,
            given_up: None,
            aligning_since: None,
            ended: false,
            current: 0,
            armed: None,
            widened: None,
            on_probation: Vec::new(),
        }
    }

    /// Says again what every link had said of time before the run that this one goes on from was cut: consumers know again how far each of
    /// their inputs is. Before anything else.
    pub(super) async fn resume(&mut self) -> Result<(), Stop> {
        for link in 0..self.links.len() {
            if let Some(sent) = self.links[link].sent {
                self.broadcast(link, &Element::Watermark(sent)).await?;
                self.run().await?;
            }
        }
        Ok(())
    }

    /// All input has ended: from now on barriers come from the supervisor, and are for this subtask alone.
    pub(super) fn note_ended(&mut self) {
        self.ended = true;
    }

    /// Whether snapshots are taken.
    pub(super) fn is_durable(&self) -> bool {
        self.snapshots.is_some()
    }

    /// A barrier for a chain whose input has ended; whether it was new. One that passed before the end is sent again by a supervisor that hears of
    /// the end before the snapshot: cut once more, the chain would count rows to the checkpoint that came behind its barrier.
    pub(super) async fn accept_at_end(&mut self, barrier: Barrier) -> Result<bool, Stop> {
        if self.newest_barrier >= Some(barrier.checkpoint) {
            return Ok(false);
        }
        for link in 0..self.links.len() {
            self.current = link;
            self.on_barrier(link, barrier).await?;
        }
        Ok(true)
    }

    /// How far the splits of the source at the head were read at the barrier that was accepted just now.
    pub(super) fn set_splits(&mut self, splits: Vec<SplitManifest>, watermark: Option<Watermark>) {
        if let Some(taking) = &mut self.taking {
            taking.set_splits(splits, watermark);
        }
    }

    /// When [`Self::advance_snapshot`] has something to do.
    pub(super) fn snapshot_wake(&self) -> Wake {
        self.taking.as_ref().map_or(Wake::Never, Taking::wake)
    }

    /// Does a bounded part of the snapshot under way; a snapshot that is complete or failed, with its checkpoint.
    pub(super) fn advance_snapshot(&mut self) -> Option<(CheckpointId, Result<SubtaskSnapshot, SnapshotFailed>)> {
        let mut taking = self.taking.take()?;
        let checkpoint = taking.checkpoint;
        match taking.advance(&mut self.links) {
            snapshot::Step::Pending => {
                self.taking = Some(taking);
                None
            }
            snapshot::Step::Complete(snapshot) => Some((checkpoint, Ok(snapshot))),
            snapshot::Step::Failed { link, error } => {
                taking.abandon(&mut self.links);
                Some((checkpoint, Err(SnapshotFailed { operator: self.links[link].id.clone(), error })))
            }
        }
    }

    /// Checkpoints up to `checkpoint` are given up.
    pub(super) fn give_up(&mut self, checkpoint: CheckpointId) {
        self.given_up = self.given_up.max(Some(checkpoint));
        if let Some(taking) = self.taking.take_if(|taking| taking.checkpoint <= checkpoint) {
            taking.abandon(&mut self.links);
        }
    }

    /// Operators are about to be replaced, by these or by what ran before: a store keeps its declarations while it is cut, so the snapshot under way is
    /// given up if one of them changes them. Else it goes on: a job of many swaps must have checkpoints, too.
    pub(super) fn give_up_for(&mut self, replaced: &[(NodeIndex, Option<&(dyn Any + Send)>)]) -> Option<(CheckpointId, SnapshotFailed)> {
        let redeclares = |link: &mut Link| {
            let by = replaced.iter().find(|(node, _)| *node == link.node).map(|(_, by)| *by);
            by.is_some_and(|by| link.operator().is_none_or(|operator| !operator.keeps_declarations(by)))
        };
        let operator = self.links.iter_mut().find_map(|link| redeclares(link).then(|| link.id.clone()))?;
        let taking = self.taking.take()?;
        let checkpoint = taking.checkpoint;
        taking.abandon(&mut self.links);
        Some((checkpoint, SnapshotFailed { operator, error: OperatorError::outside("it is being replaced by another version") }))
    }

    /// `checkpoint` is committed: the sinks publish what they staged for it.
    pub(super) async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), Stop> {
        for link in &mut self.links {
            if let Role::Sink(sink) = &mut link.role {
                let published = sink.on_committed(checkpoint).await;
                published.map_err(|error| link.failed(error))?;
            }
        }
        Ok(())
    }

    /// The link that is fed by queues or a source.
    pub(super) fn head(&self) -> &Link {
        &self.links[0]
    }

    /// Rows of input `slot` of the head come as part of a batch of another input.
    pub(super) fn note_rows(&mut self, slot: usize) {
        self.links[0].aligner.on_row(slot);
    }

    /// The node that was called last: where a panic comes from.
    pub(super) fn current(&self) -> &OperatorId {
        &self.links[self.current].id
    }

    /// Takes the last barrier that passed the head since this was asked before.
    pub(super) fn take_passed_barrier(&mut self) -> Option<Barrier> {
        self.passed.take()
    }

    /// Hands an element to input `slot` of the head, and lets everything that follows from it happen.
    pub(super) async fn accept(&mut self, slot: usize, element: Element) -> Result<(), Stop> {
        self.look_at_clocks();
        self.steps.push(Step::Element { link: 0, slot, element });
        self.run().await
    }

    /// Records that the source could not use; its setting says what becomes of them.
    pub(super) async fn reject(&mut self, rejections: Vec<Rejection>) -> Result<(), Stop> {
        self.on_rejections(0, rejections).await?;
        self.run().await
    }

    fn look_at_clocks(&mut self) {
        (self.now_ms, self.monotonic_ms) = (self.clock.now_ms(), self.clock.monotonic_ms());
    }

    /// The earliest times at which a link wants to be called.
    pub(super) fn wake_times(&self) -> WakeTimes {
        let next_of = |link: &Link| match &link.role {
            Role::Source => WakeTimes::default(),
            Role::Operator(operator) => WakeTimes { processing_ms: operator.next_processing_time(), monotonic_ms: None },
            Role::Sink(sink) => WakeTimes { processing_ms: None, monotonic_ms: sink.next_flush_ms() },
        };
        self.links.iter().map(next_of).fold(WakeTimes::default(), WakeTimes::or)
    }

    /// Calls the links whose time has come.
    pub(super) async fn on_time_passed(&mut self) -> Result<(), Stop> {
        let next = self.wake_times();
        if next == WakeTimes::default() {
            return Ok(());
        }
        self.look_at_clocks();
        if !next.has_come(self.now_ms, self.monotonic_ms) {
            return Ok(());
        }
        for link in 0..self.links.len() {
            self.steps.push(Step::TimePassed { link });
            self.run().await?;
        }
        Ok(())
    }

    /// Hands a control message to the operator of `node`.
    pub(super) async fn on_control(&mut self, node: NodeIndex, control: Control) -> Result<(), OperatorError> {
        let link = self.links.iter_mut().find(|link| link.node == node);
        match link.map(|link| &mut link.role) {
            Some(Role::Operator(operator)) => operator.on_control(control).await,
            _ => Err(OperatorError::internal("a control message for a node that runs elsewhere")),
        }
    }

    /// Publishes what the sinks wrote. All input has ended everywhere in the job.
    pub(super) async fn finish(&mut self) -> Result<(), Stop> {
        for link in &mut self.links {
            if let Role::Sink(sink) = &mut link.role {
                let finished = sink.finish().await;
                finished.map_err(|error| link.failed(error))?;
            }
        }
        Ok(())
    }

    /// Removes what the sinks have not published.
    pub(super) async fn abort(&mut self) {
        for link in &mut self.links {
            if let Role::Sink(sink) = &mut link.role {
                sink.abort().await;
            }
        }
    }

    /// Drops the operators, with their instances and state; keeps what others could see go: the sending ends.
    pub(super) fn into_ends(self) -> Vec<Outlet> {
        self.links.into_iter().flat_map(|link| link.outlets).collect()
    }

    /// Whether publishing is up to this chain.
    pub(super) fn has_sinks(&self) -> bool {
        self.links.iter().any(|link| matches!(link.role, Role::Sink(_)))
    }

    async fn run(&mut self) -> Result<(), Stop> {
        self.take_asked();
        let waits = &self.links[0].metrics.clone().waits;
        waits.work_begins(self.clock.monotonic_ms());
        while let Some(step) = self.steps.pop() {
            self.current = step.link();
            waits.works(self.links[self.current].node);
            match step {
                Step::Element { link, slot, element } => self.on_element(link, slot, element).await?,
                Step::Release { link } => self.on_release(link).await?,
                Step::Watermark { link } => self.on_watermark(link).await?,
                Step::TimePassed { link } => self.on_time(link).await?,
                Step::End { link } => self.on_end(link).await?,
            }
            self.take_asked();
        }
        waits.work_ends();
        Ok(())
    }

    /// The steps that were asked for come before everything that waited already.
    fn take_asked(&mut self) {
        self.steps.extend(self.asked.drain(..).rev());
    }

    async fn on_element(&mut self, link: usize, slot: usize, element: Element) -> Result<(), Stop> {
        if matches!(self.links[link].role, Role::Source) {
            return self.on_source_element(element).await;
        }
        match element {
            Element::Batch(batch) => self.on_batch(link, slot, batch).await,
            Element::Watermark(watermark) => {
                let progress = self.links[link].aligner.on_watermark(slot, watermark);
                self.on_progress(link, progress).await
            }
            Element::Idle => {
                let progress = self.links[link].aligner.on_idle(slot);
                self.on_progress(link, progress).await
            }
            Element::Barrier(barrier) => match self.links[link].aligner.on_barrier(slot, barrier) {
                Some(aligned) => self.on_barrier(link, aligned).await,
                None => {
                    self.note_aligning(link);
                    Ok(())
                }
            },
            Element::End => {
                let (progress, barrier) = self.links[link].aligner.on_end(slot);
                if let Some(aligned) = barrier {
                    self.on_barrier(link, aligned).await?;
                }
                self.on_progress(link, progress).await?;
                if self.links[link].aligner.is_ended() {
                    self.asked.push(Step::End { link });
                }
                Ok(())
            }
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    fn note_aligning(&mut self, link: usize) {
        if link == 0 {
            self.aligning_since.get_or_insert_with(Instant::now);
        }
    }

    /// The driver merges the splits itself, so what it says is passed on as it is.
    async fn on_source_element(&mut self, element: Element) -> Result<(), Stop> {
        match element {
            Element::Batch(batch) => {
                self.links[0].metrics.rows_out.add(batch.num_rows() as u64);
                self.emit(0, OutputPort::Port(0), batch).await
            }
            Element::Watermark(watermark) => self.pass_watermark(0, Some(watermark)).await,
            Element::Barrier(barrier) => self.on_barrier(0, barrier).await,
            Element::Idle | Element::End => self.broadcast(0, &element).await,
        }
    }

    async fn on_batch(&mut self, link: usize, slot: usize, batch: Batch) -> Result<(), Stop> {
        let entered = &mut self.links[link];
        entered.metrics.rows_in.add(batch.num_rows() as u64);
        entered.aligner.on_row(slot);
        let (port, batch, rejections) = entered.entries[slot].admit(batch, &entered.metrics);
        if !rejections.is_empty() {
            self.on_rejections(link, rejections).await?;
        }
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let watermark = self.links[link].aligner.watermark();
        let batch = match &mut self.links[link].order {
            Some(order) => order.hold(port, batch, watermark),
            None => Some(batch),
        };
        match batch {
            Some(batch) => self.deliver(link, port, batch, watermark).await,
            None => Ok(()),
        }
    }

    /// Gives rows to the operator or sink of a link.
    async fn deliver(&mut self, link: usize, port: usize, batch: Batch, watermark: Option<Watermark>) -> Result<(), Stop> {
        let now = Moment { watermark, processing_time: self.now_ms };
        let Link { role, id, tap, .. } = &mut self.links[link];
        let mut out = Output::default();
        let handled = match role {
            Role::Source => Ok(()),
            Role::Operator(operator) => operator.on_batch(port, batch, now, &mut out).await,
            Role::Sink(sink) => {
                tap.offer(&batch);
                sink.on_batch(&batch, self.monotonic_ms).await
            }
        };
        handled.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        self.settle(link, out).await
    }

    async fn on_progress(&mut self, link: usize, progress: Option<Progress>) -> Result<(), Stop> {
        match progress {
            Some(Progress::Advanced(watermark)) => {
                self.links[link].metrics.watermark.set(watermark.0);
                if let Some(order) = &mut self.links[link].order {
                    order.begin_release(watermark);
                    self.asked.push(Step::Release { link });
                }
                self.asked.push(Step::Watermark { link });
                Ok(())
            }
            Some(Progress::Idle) => self.broadcast(link, &Element::Idle).await,
            None => Ok(()),
        }
    }

    /// One round of held rows: first the timers that come before them.
    async fn on_release(&mut self, link: usize) -> Result<(), Stop> {
        let now_ms = self.now_ms;
        let released = &mut self.links[link];
        let (Some(order), Role::Operator(operator)) = (&mut released.order, &mut released.role) else { return Ok(()) };
        let Some(round) = order.next_round() else { return Ok(()) };
        if operator.fires_event_timers() {
            let now = Moment { watermark: Some(round.up_to), processing_time: now_ms };
            let mut out = Output::default();
            let fired = operator.on_timers_between_rows(order.next_rows(), now, &mut out).await;
            fired.map_err(|error| Stop::Failed { operator: released.id.clone(), error })?;
            self.settle(link, out).await?;
        }
        for (port, batch) in round.batches {
            self.deliver(link, port, batch, Some(round.watermark)).await?;
        }
        self.asked.push(Step::Release { link });
        Ok(())
    }

    async fn on_watermark(&mut self, link: usize) -> Result<(), Stop> {
        let now = self.links[link].moment(self.now_ms);
        let Link { role, id, .. } = &mut self.links[link];
        let Role::Operator(operator) = role else { return Ok(()) };
        let mut out = Output::default();
        operator.on_watermark(now, &mut out).await.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        let has_more = operator.has_more();
        let promised = now.watermark.and_then(|merged| operator.output_watermark(merged));
        self.settle(link, out).await?;
        if has_more {
            self.asked.push(Step::Watermark { link });
            return Ok(());
        }
        self.pass_watermark(link, promised).await
    }

    async fn on_time(&mut self, link: usize) -> Result<(), Stop> {
        let now = self.links[link].moment(self.now_ms);
        let Link { role, id, .. } = &mut self.links[link];
        let failed = |error| Stop::Failed { operator: id.clone(), error };
        let is_due = |time: Option<i64>| time.is_some_and(|time| time <= now.processing_time);
        let is_past = |time: Option<i64>| time.is_some_and(|time| time <= self.monotonic_ms);
        match role {
            Role::Operator(operator) if is_due(operator.next_processing_time()) => {
                let mut out = Output::default();
                operator.on_processing_time(now, &mut out).await.map_err(failed)?;
                let has_more = operator.has_more();
                self.settle(link, out).await?;
                if has_more {
                    self.asked.push(Step::TimePassed { link });
                }
                Ok(())
            }
            Role::Sink(sink) if is_past(sink.next_flush_ms()) => sink.flush().await.map_err(failed),
            _ => Ok(()),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    async fn on_barrier(&mut self, link: usize, barrier: Barrier) -> Result<(), Stop> {
        let began = Instant::now();
        if link == 0 {
            // Before the cut: what is written down of this checkpoint is of the version that comes behind it.
            if let Some((_, armed)) = self.armed.take_if(|(checkpoint, _)| *checkpoint <= barrier.checkpoint) {
                self.abandon_snapshot();
                match armed {
                    AtBarrier::Switch(switch) => switch.perform(self).await,
                    AtBarrier::Widen(widen) => self.widen(widen, barrier).await?,
                }
            }
            self.begin_snapshot(barrier);
        }
        if self.snapshots.is_some() && self.taking.is_none() {
            // It was given up, so nobody wants to know anything; it only passes.
            return self.broadcast(link, &Element::Barrier(barrier)).await;
        }
        let Link { role, id, .. } = &mut self.links[link];
        let remembered = match role {
            Role::Source => Ok(serde_json::Value::Null),
            Role::Operator(operator) => operator.on_barrier(barrier).await,
            Role::Sink(sink) => sink.on_barrier(barrier.checkpoint).await,
        };
        let value = remembered.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        if let Some(taking) = &mut self.taking {
            let cut = taking.add(&mut self.links, link, value, began.elapsed());
            cut.map_err(|error| self.links[link].failed(error))?;
        }
        self.broadcast(link, &Element::Barrier(barrier)).await
    }

    fn abandon_snapshot(&mut self) {
        if let Some(taking) = self.taking.take() {
            taking.abandon(&mut self.links);
        }
    }

    /// The head is at `barrier`.
    fn begin_snapshot(&mut self, barrier: Barrier) {
        self.passed = Some(barrier);
        self.newest_barrier = Some(barrier.checkpoint);
        let alignment = self.aligning_since.take().map_or(Duration::ZERO, |since| since.elapsed());
        let Some(settings) = self.snapshots.clone() else { return };
        self.abandon_snapshot();
        if self.given_up.is_none_or(|given_up| given_up < barrier.checkpoint) {
            self.taking = Some(Taking::new(barrier.checkpoint, settings, alignment));
        }
    }

    async fn on_end(&mut self, link: usize) -> Result<(), Stop> {
        let now = self.links[link].moment(self.now_ms);
        let Link { role, id, .. } = &mut self.links[link];
        let Role::Operator(operator) = role else { return Ok(()) };
        let mut out = Output::default();
        operator.on_end(now, &mut out).await.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        let has_more = operator.has_more();
        self.settle(link, out).await?;
        if has_more {
            self.asked.push(Step::End { link });
            return Ok(());
        }
        self.broadcast(link, &Element::End).await
    }

    /// Passes on what an operator emitted during one call. Rejections first: under `fail` nothing of the call goes on.
    async fn settle(&mut self, link: usize, mut out: Output) -> Result<(), Stop> {
        let rejections = out.take_rejections();
        if !rejections.is_empty() {
            self.on_rejections(link, rejections).await?;
        }
        for Emitted { port, batch, marks } in out.take_marked() {
            let rows = batch.num_rows() as u64;
            match port {
                OutputPort::Late => self.links[link].metrics.rows_late.add(rows),
                OutputPort::Port(_) | OutputPort::Rejected => self.links[link].metrics.rows_out.add(rows),
            }
            self.emit_marked(link, port, batch, &marks).await?;
        }
        Ok(())
    }

    /// Rows with watermarks between them: cut there only if something downstream depends on where watermarks stand.
    async fn emit_marked(&mut self, link: usize, port: OutputPort, batch: Batch, marks: &[Mark]) -> Result<(), Stop> {
        let Some(last) = marks.last() else { return self.emit(link, port, batch).await };
        if !self.links[link].cuts_at_watermarks {
            self.emit(link, port, batch).await?;
            return self.pass_watermark(link, Some(last.watermark)).await;
        }
        let mut start = 0;
        for mark in marks {
            self.emit(link, port, batch.slice(start..mark.rows)).await?;
            self.pass_watermark(link, Some(mark.watermark)).await?;
            start = mark.rows;
        }
        if start < batch.num_rows() {
            self.emit(link, port, batch.slice(start..batch.num_rows())).await?;
        }
        Ok(())
    }

    async fn on_rejections(&mut self, link: usize, rejections: Vec<Rejection>) -> Result<(), Stop> {
        let Some(first) = rejections.first() else { return Ok(()) };
        let rejecting = &self.links[link];
        if rejecting.rejected == RejectedPolicy::Fail {
            return Err(rejecting.failed(OperatorError::user(first.describe())));
        }
        rejecting.metrics.rows_rejected.add(rejections.len() as u64);
        if matches!(rejecting.rejected, RejectedPolicy::Drop) {
            return Ok(());
        }
        let batch = rejected::to_batch(&rejecting.id, &rejections);
        self.emit(link, OutputPort::Rejected, batch).await
    }

    async fn pass_watermark(&mut self, link: usize, watermark: Option<Watermark>) -> Result<(), Stop> {
        let passing = &mut self.links[link];
        match watermark {
            Some(watermark) if Some(watermark) > passing.sent => {
                passing.sent = Some(watermark);
                if matches!(passing.role, Role::Source) {
                    passing.metrics.watermark.set(watermark.0);
                }
                self.broadcast(link, &Element::Watermark(watermark)).await
            }
            _ => Ok(()),
        }
    }

    async fn emit(&mut self, link: usize, port: OutputPort, batch: Batch) -> Result<(), Stop> {
        let clock = self.clock.as_ref();
        let Link { outlets, metrics, tap, .. } = &mut self.links[link];
        if matches!(port, OutputPort::Port(_)) {
            tap.offer(&batch);
        }
        for outlet in outlets.iter_mut().filter(|outlet| outlet.port == port) {
            let sending = Sending { metrics, to: outlet.to, clock };
            let crossing = match &outlet.columns {
                Some(columns) => batch.project(columns),
                None => batch.clone(),
            };
            match &mut outlet.target {
                Target::Local { link, slot } => {
                    self.asked.push(Step::Element { link: *link, slot: *slot, element: Element::Batch(crossing) });
                }
                Target::Remote(router) => router.send(Element::Batch(crossing), sending).await?,
            }
        }
        Ok(())
    }

    /// Sends a mark to every consumer of every output.
    async fn broadcast(&mut self, link: usize, element: &Element) -> Result<(), Stop> {
        if self.ended {
            // Nobody reads an edge behind its end.
            return Ok(());
        }
        let clock = self.clock.as_ref();
        let Link { outlets, metrics, .. } = &mut self.links[link];
        for outlet in outlets {
            let sending = Sending { metrics, to: outlet.to, clock };
            match &mut outlet.target {
                Target::Local { link, slot } => self.asked.push(Step::Element { link: *link, slot: *slot, element: element.clone() }),
                Target::Remote(router) => router.send(element.clone(), sending).await?,
            }
        }
        Ok(())
    }
}

mod swap;
#[cfg(test)]
mod tests;
mod widen;
