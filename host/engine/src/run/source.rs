//! The driver of a source in one subtask: reads its splits, assigns event times, says how far time has come.
//!
//! Idle time runs only while splits were asked and had nothing: not while rows are being processed or wait for room downstream, since the
//! driver does not ask then.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use millstream_model::{Batch, Watermark, ids::CheckpointId, time::Progress};
use tokio::sync::{mpsc, watch};

use super::{
    Stop,
    chain::Chain,
    drift::Drift,
    snapshot::Wake,
    splits::Splits,
    subtask::{self, Command, Commanded},
    wake::WakeTimes,
};
use crate::{
    clock::Clock,
    connector::{Read, Split},
    element::Element,
    event_time,
    graph::{JobPlan, NodeIndex, NodeKind, SourceNode},
    metrics::{Counter, OperatorMetrics, Shown, Waiting},
    operator::OperatorError,
};

/// Reads the splits of one subtask.
pub(super) struct SourceDriver {
    pub(super) plan: Arc<JobPlan>,
    pub(super) node: NodeIndex,
    pub(super) splits: Splits,
    /// More splits may be assigned while it runs.
    pub(super) discovers: bool,
    /// Something downstream depends on where watermarks stand, so batches are cut there.
    pub(super) cuts_at_watermarks: bool,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<OperatorMetrics>,
    pub(super) drift: Option<DriftSlot>,
}

/// This subtask's part in `max-drift`.
pub(super) struct DriftSlot {
    pub(super) drift: Arc<Drift>,
    pub(super) slot: usize,
    pub(super) moved: watch::Receiver<()>,
}

/// What the driver was woken by.
enum Woken {
    Commanded(Option<Command>),
    Read(usize, Result<Read, OperatorError>),
    /// The time has come for a link, or for a split to be idle.
    TimePassed,
    /// Another source has moved, so a held split may be read.
    OthersMoved,
    /// The snapshot under way can go on.
    Snapshot,
}

/// What `future` does, with the time that its polls take added to `spent_ns`. As cancel-safe as `future`.
#[expect(clippy::disallowed_methods, reason = "the time is only shown")]
async fn timed<F: Future>(future: F, spent_ns: &Counter) -> F::Output {
    let mut future = pin!(future);
    poll_fn(|context| {
        let began = Instant::now();
        let polled = future.as_mut().poll(context);
        spent_ns.add(began.elapsed().as_nanos() as u64);
        polled
    })
    .await
}

impl SourceDriver {
    /// Whether it has nothing to read from the start, and never will have.
    pub(super) fn reads_nothing(&self) -> bool {
        !self.discovers && self.splits.all_ended()
    }

    /// Reads until all splits have ended or the job drains.
    pub(super) async fn run(
        &mut self,
        chain: &mut Chain,
        commands: &mut mpsc::Receiver<Command>,
        commanded: &Commanded,
    ) -> Result<(), Stop> {
        let restored = self.splits.watermark().map(Progress::Advanced);
        let begins_with = if self.splits.is_idle() && self.discovers { Some(Progress::Idle) } else { restored };
        self.on_progress(chain, begins_with).await?;
        while self.discovers || !self.splits.all_ended() {
            let asked_ms = self.clock.monotonic_ms();
            let woken = self.wait(chain.wake_times(), chain.snapshot_wake(), commands, asked_ms).await;
            self.show_lags();
            let answered = if let Woken::Read(number, _) = &woken { Some(*number) } else { None };
            self.on_waited(chain, asked_ms, answered).await?;
            match woken {
                Woken::Commanded(Some(Command::Drain) | None) => {
                    self.on_drain(chain).await?;
                    break;
                }
                Woken::Commanded(Some(Command::Assign(splits))) => self.on_assigned(splits),
                Woken::Commanded(Some(Command::Barrier(barrier))) => {
                    chain.accept(0, Element::Barrier(barrier)).await?;
                    self.cut(chain, barrier.checkpoint);
                    self.widen(chain);
                }
                Woken::Commanded(Some(Command::Committed(checkpoint))) => {
                    self.on_committed(checkpoint).await?;
                    subtask::on_committed(chain, commanded, checkpoint).await?;
                }
                Woken::Commanded(Some(Command::GiveUp(checkpoint))) => chain.give_up(checkpoint),
                Woken::Commanded(Some(Command::Swap(swap))) => commanded.swap(swap, chain).await,
                Woken::Read(number, read) => {
                    let read = read.map_err(|error| self.failed(error))?;
                    self.on_read(chain, number, read).await?;
                }
                Woken::TimePassed | Woken::OthersMoved | Woken::Snapshot => {}
            }
            chain.on_time_passed().await?;
            commanded.report_all(chain).await;
            tokio::task::consume_budget().await;
        }
        if let Some(DriftSlot { drift, slot, .. }) = &self.drift {
            drift.set(*slot, None);
        }
        if self.source().event_time.is_some() {
            chain.accept(0, Element::Watermark(Watermark::MAX)).await?;
        }
        chain.accept(0, Element::End).await
    }

    /// Notes how far the splits were read at the barrier that `chain` has just accepted.
    pub(super) fn cut(&mut self, chain: &mut Chain, checkpoint: CheckpointId) {
        let watermark = self.splits.watermark();
        chain.set_splits(self.splits.cut(checkpoint), watermark);
    }

    /// Reads more columns from here on, if `chain` passes them on behind the barrier that it has just accepted.
    fn widen(&mut self, chain: &mut Chain) {
        let Some(plan) = chain.take_widened() else { return };
        if !Arc::ptr_eq(&self.source().source, &source_node(&plan, self.node).source) {
            self.splits.reopen();
        }
        self.plan = plan;
    }

    /// `checkpoint` is committed: the readers may forget what lies before it.
    pub(super) async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), Stop> {
        let forgotten = self.splits.on_committed(checkpoint).await;
        forgotten.map_err(|error| self.failed(error))
    }

    async fn wait(&mut self, links: WakeTimes, snapshot: Wake, commands: &mut mpsc::Receiver<Command>, asked_ms: i64) -> Woken {
        let Self { plan, node, splits, clock, drift, metrics, .. } = self;
        let source = source_node(plan, *node);
        let limit = limit(source, drift.as_mut());
        let (mut waiting, since_ms) = splits.waiting();
        if splits.are_held(limit) {
            waiting = Waiting::Others;
        }
        let mut shown = Shown::new(&metrics.waits, since_ms, waiting);
        let idle_at = source.event_time.as_ref().and_then(|times| times.idle_timeout).and_then(|timeout| splits.until_idle(timeout, limit));
        let idle_at_ms = idle_at.map(|wait| asked_ms.saturating_add(i64::try_from(wait.as_millis()).unwrap_or(i64::MAX)));
        let wake = links.or_monotonic(idle_at_ms);
        tokio::select! {
            biased;
            command = commands.recv() => Woken::Commanded(command),
            (number, read) = timed(splits.read(&source.source, plan.batching.rows, limit), &metrics.busy_ns) => Woken::Read(number, read),
            () = wake.wait(clock.as_ref()) => Woken::TimePassed,
            () = moved(drift.as_mut(), limit) => Woken::OthersMoved,
            () = snapshot.wait() => Woken::Snapshot,
            // Only asked where nothing else is ready.
            never = shown.show() => match never {},
        }
    }

    /// Whoever asks finds the splits that are read now.
    fn show_lags(&mut self) {
        if let Some(lags) = self.splits.new_lags() {
            self.metrics.lags.set(lags);
        }
    }

    fn on_assigned(&mut self, splits: Vec<Split>) {
        splits.into_iter().for_each(|split| self.splits.add(split));
    }

    /// Rows that a reader has promised to somebody go on before the end.
    async fn on_drain(&mut self, chain: &mut Chain) -> Result<(), Stop> {
        for (number, rows) in self.splits.stop() {
            self.on_rows(chain, number, &rows).await?;
        }
        Ok(())
    }

    async fn on_read(&mut self, chain: &mut Chain, number: usize, read: Read) -> Result<(), Stop> {
        match read {
            Read::Rows { batch, rejected } => {
                self.splits.on_rows(number, self.clock.monotonic_ms());
                self.metrics.progress.set(self.splits.progress());
                if !rejected.is_empty() {
                    chain.reject(rejected).await?;
                }
                self.on_rows(chain, number, &batch).await
            }
            Read::End => {
                let progress = self.splits.on_end(number);
                self.show_lags();
                self.metrics.progress.set(self.splits.progress());
                self.on_progress(chain, progress).await
            }
        }
    }

    /// Sends rows on, cut at the fixed places where watermarks stand.
    async fn on_rows(&mut self, chain: &mut Chain, number: usize, rows: &Batch) -> Result<(), Stop> {
        let cuts = self.cuts_at_watermarks && self.source().source.is_bounded() && self.source().event_time.is_some();
        let mut start = 0;
        while start < rows.num_rows() {
            let until_mark = if cuts { self.splits.rows_until_mark(number) } else { usize::MAX };
            let count = until_mark.min(rows.num_rows() - start);
            let part = if count == rows.num_rows() { rows.clone() } else { rows.slice(start..start + count) };
            self.on_part(chain, number, part).await?;
            if !cuts || count == until_mark {
                let progress = source_node(&self.plan, self.node).event_time.as_ref().and_then(|times| self.splits.mark(number, times));
                self.on_progress(chain, progress).await?;
            }
            start += count;
        }
        Ok(())
    }

    async fn on_part(&mut self, chain: &mut Chain, number: usize, part: Batch) -> Result<(), Stop> {
        let rows = part.num_rows();
        let source = self.source();
        let mut rejections = Vec::new();
        let timed = match &source.event_time {
            Some(times) => {
                let shown: Vec<usize> = (0..part.columns().num_columns()).collect();
                event_time::assign(part, &times.from, &shown, &mut rejections).map_err(|error| self.failed(error))?
            }
            None => part.with_event_times(None),
        };
        let leaving = leading_columns(timed, source.columns_out);
        if !rejections.is_empty() {
            chain.reject(rejections).await?;
        }
        self.splits.on_sent(number, rows, &leaving);
        if leaving.num_rows() == 0 {
            return Ok(());
        }
        chain.accept(0, Element::Batch(leaving)).await
    }

    async fn on_progress(&mut self, chain: &mut Chain, progress: Option<Progress>) -> Result<(), Stop> {
        if self.source().event_time.is_none() {
            return Ok(());
        }
        if let Some(DriftSlot { drift, slot, .. }) = &self.drift {
            drift.set(*slot, if self.splits.is_idle() { None } else { Some(self.splits.watermark().unwrap_or(Watermark(i64::MIN))) });
        }
        match progress {
            Some(Progress::Advanced(watermark)) => chain.accept(0, Element::Watermark(watermark)).await,
            Some(Progress::Idle) => chain.accept(0, Element::Idle).await,
            None => Ok(()),
        }
    }

    /// Every split that was asked had nothing since `asked_ms`, but for the one that has answered.
    async fn on_waited(&mut self, chain: &mut Chain, asked_ms: i64, answered: Option<usize>) -> Result<(), Stop> {
        let source = source_node(&self.plan, self.node);
        let Some(timeout) = source.event_time.as_ref().and_then(|times| times.idle_timeout) else { return Ok(()) };
        if source.source.is_bounded() {
            return Ok(());
        }
        let waited = Duration::from_millis(u64::try_from(self.clock.monotonic_ms() - asked_ms).unwrap_or(0));
        let limit = limit(source, self.drift.as_mut());
        for change in self.splits.on_waited(waited, timeout, limit, answered) {
            self.on_progress(chain, Some(change)).await?;
        }
        Ok(())
    }

    fn source(&self) -> &SourceNode {
        source_node(&self.plan, self.node)
    }

    fn failed(&self, error: OperatorError) -> Stop {
        Stop::Failed { operator: self.plan.nodes[self.node].id.clone(), error }
    }
}

/// Without the columns that were read only for the event time.
fn leading_columns(batch: Batch, count: usize) -> Batch {
    if batch.columns().num_columns() == count {
        return batch;
    }
    batch.project(&(0..count).collect::<Vec<_>>())
}

fn source_node(plan: &JobPlan, node: NodeIndex) -> &SourceNode {
    match &plan.nodes[node].kind {
        NodeKind::Source(source) => source,
        NodeKind::Operator(_) | NodeKind::Sink(_) => unreachable!("a source driver is built for source nodes only"),
    }
}

/// The watermark up to which splits may be read.
fn limit(source: &SourceNode, drift: Option<&mut DriftSlot>) -> Option<Watermark> {
    let ahead = source.event_time.as_ref()?.max_drift?;
    let slot = drift?;
    // Seen before it is read: what moves afterwards wakes the driver.
    slot.moved.mark_unchanged();
    let slowest = slot.drift.slowest();
    Some(Watermark(slowest.0.saturating_add(i64::try_from(ahead.as_millis()).unwrap_or(i64::MAX))))
}

async fn moved(drift: Option<&mut DriftSlot>, limit: Option<Watermark>) {
    if let (Some(slot), Some(_)) = (drift, limit)
        && slot.moved.changed().await.is_ok()
    {
        return;
    }
    // Nothing is held, or (never while this is awaited) nobody moves any more.
    std::future::pending().await
}
