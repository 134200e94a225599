//! The splits that one subtask reads: in which order, and what their rows say about time. No I/O but the readers' own.
//!
//! Unbounded splits are all opened before rows of any are taken: rows that meet a sink that stands still would leave the others unopened, and nobody
//! would know how far those are behind. An opening that was begun goes on whatever else happens, so a split is never too slow for its neighbours.
//!
//! Watermarks of a bounded split stand at fixed rows: after every [`ROWS_PER_MARK`]th row that its reader has returned, those without a
//! usable event time included; so the same input gives the same late rows however it is batched. An unbounded split gives one per batch.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt, TryFutureExt, select_all, try_join_all};
use millstream_model::{
    Batch, EventTime, Watermark,
    ids::CheckpointId,
    time::{Progress, WatermarkMerge},
};
use serde_json::Value;

use crate::{
    checkpoint::manifest::SplitManifest,
    connector::{Read, Source, Split, SplitReader},
    graph::EventTimePlan,
    metrics::{SplitGauge, Waiting},
    operator::OperatorError,
};

/// A watermark follows every row of a bounded split whose number (from 1) is a multiple of this.
pub(super) const ROWS_PER_MARK: u64 = 1_024;
/// Most bounded splits that one subtask reads at a time; the others wait, and hold the watermark.
const OPEN_SPLITS_MAX: usize = 64;

/// The splits of one subtask, and their merged watermark.
pub(super) struct Splits {
    splits: Vec<OpenSplit>,
    merge: WatermarkMerge,
    /// Where the search for rows begins, so that no unbounded split starves.
    cursor: usize,
    bounded: bool,
    timed: bool,
    /// When this run began to read, as elapsed time.
    began_ms: i64,
    /// The positions, by split number, of the checkpoints that were taken and are not committed yet.
    cuts: VecDeque<(CheckpointId, Vec<Option<Value>>)>,
}

type Opening = BoxFuture<'static, Result<Box<dyn SplitReader>, OperatorError>>;

struct OpenSplit {
    split: Split,
    /// Where it is opened; none: at its start.
    position: Option<Value>,
    reader: Option<Box<dyn SplitReader>>,
    /// On the way to be the reader.
    opening: Option<Opening>,
    ended: bool,
    /// Rows read so far.
    rows: u64,
    newest: Option<EventTime>,
    watermark: Option<Watermark>,
    /// How long it was asked and had nothing, since its last rows.
    waited: Duration,
    idle: bool,
    progress: u64,
    /// When it last had rows, as elapsed time.
    last_ms: i64,
    /// Whether its lag is among those that were shown last.
    shown: bool,
}

impl Splits {
    /// No split yet. `timed`: rows have event times.
    pub(super) fn new(bounded: bool, timed: bool, now_ms: i64) -> Self {
        Self { began_ms: now_ms, splits: Vec::new(), merge: WatermarkMerge::new(0), cursor: 0, bounded, timed, cuts: VecDeque::new() }
    }

    /// Goes on with splits that an earlier run has read in part, whose merged watermark had come to `floor`.
    pub(super) fn restore(&mut self, splits: Vec<SplitManifest>, floor: Option<Watermark>) {
        self.merge = WatermarkMerge::new(splits.len()).with_floor(floor);
        for (number, split) in splits.iter().enumerate() {
            // Every input is there before the first one speaks: the slowest split holds the watermark.
            match split.watermark {
                _ if split.ended => drop(self.merge.on_end(number)),
                Some(watermark) => drop(self.merge.on_watermark(number, Watermark(watermark))),
                None => {}
            }
        }
        self.splits = splits.into_iter().map(OpenSplit::restored).collect();
    }

    /// How far every split was read, for `checkpoint`.
    pub(super) fn cut(&mut self, checkpoint: CheckpointId) -> Vec<SplitManifest> {
        let cut: Vec<SplitManifest> = self.splits.iter().map(OpenSplit::manifest).collect();
        self.cuts.push_back((checkpoint, cut.iter().map(|split| split.position.clone()).collect()));
        cut
    }

    /// `checkpoint` is committed: the readers may forget what lies before it.
    pub(super) async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), OperatorError> {
        while let Some((cut, positions)) = self.cuts.pop_front_if(|(cut, _)| *cut <= checkpoint) {
            for (split, position) in self.splits.iter_mut().zip(positions).filter(|_| cut == checkpoint) {
                if let (Some(reader), Some(position)) = (&mut split.reader, position) {
                    reader.on_committed(&position).await?;
                }
            }
        }
        Ok(())
    }

    /// Takes a split over. It holds the watermark until its first rows.
    pub(super) fn add(&mut self, split: Split) {
        self.merge.add_input();
        self.splits.push(OpenSplit::new(split));
    }

    pub(super) fn all_ended(&self) -> bool {
        self.splits.iter().all(|split| split.ended)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.splits.is_empty() || self.merge.is_idle()
    }

    /// The merged watermark.
    pub(super) fn watermark(&self) -> Option<Watermark> {
        self.merge.current()
    }

    /// What is waited for where there are no rows: how many splits are left, the one that matters, and since when that one had none.
    pub(super) fn waiting(&self) -> (Waiting, i64) {
        let mut left = self.splits.iter().filter(|split| !split.ended);
        let (first, count) = (left.next(), 1 + left.count());
        let holding = self.merge.holding_input().filter(|_| self.timed).map(|number| &self.splits[number]);
        let split = holding.or(first.filter(|_| count == 1));
        let left = if first.is_some() { count } else { 0 };
        let newest = || self.splits.iter().map(|split| split.last_ms).max();
        let since_ms = split.map(|split| split.last_ms).or_else(newest).unwrap_or(self.began_ms);
        (Waiting::Splits { split: split.map(|split| split.split.id.clone()), left }, since_ms.max(self.began_ms))
    }

    /// Whether some split is left, but none may be read.
    pub(super) fn are_held(&self, limit: Option<Watermark>) -> bool {
        self.splits.iter().any(|split| !split.ended) && !self.splits.iter().any(|split| split.may_be_read(limit))
    }

    /// How much was read, in the unit of the source.
    pub(super) fn progress(&self) -> u64 {
        self.splits.iter().map(|split| split.progress).sum()
    }

    /// The lags of the splits that are being read, if these are others than at the last call.
    pub(super) fn new_lags(&mut self) -> Option<Vec<SplitGauge>> {
        if self.splits.iter().all(|split| split.shown == split.reader.is_some()) {
            return None;
        }
        self.splits.iter_mut().for_each(|split| split.shown = split.reader.is_some());
        let lag = |split: &OpenSplit| Some((split.split.id.clone(), split.reader.as_ref()?.lag()?));
        Some(self.splits.iter().filter_map(lag).collect())
    }

    /// Rows or the end of a split, with the split's number. Waits for ever if there is nothing to read. A split whose watermark is ahead of
    /// `limit` is left alone. Cancel-safe, as readers are.
    pub(super) async fn read(
        &mut self,
        source: &Arc<dyn Source>,
        rows_max: usize,
        limit: Option<Watermark>,
    ) -> (usize, Result<Read, OperatorError>) {
        if self.bounded {
            return match self.next_bounded(limit) {
                Some(number) => (number, self.splits[number].read(source, rows_max).await),
                None => std::future::pending().await,
            };
        }
        if let Err((number, error)) = self.open_all(source).await {
            return (number, Err(error));
        }
        self.cursor = (self.cursor + 1) % self.splits.len().max(1);
        let from = self.cursor.min(self.splits.len());
        let (before, after) = self.splits.split_at_mut(from);
        let numbered = after.iter_mut().enumerate().map(|(at, split)| (from + at, split)).chain(before.iter_mut().enumerate());
        let wanted = numbered.filter(|(_, split)| split.may_be_read(limit));
        let reads: Vec<BoxFuture<'_, _>> =
            wanted.map(|(number, split)| async move { (number, split.read(source, rows_max).await) }.boxed()).collect();
        match reads.is_empty() {
            true => std::future::pending().await,
            false => select_all(reads).await.0,
        }
    }

    /// Opens what is not open yet; names the split that cannot be.
    async fn open_all(&mut self, source: &Arc<dyn Source>) -> Result<(), (usize, OperatorError)> {
        let closed = self.splits.iter_mut().enumerate().filter(|(_, split)| !split.ended && split.reader.is_none());
        let openings = closed.map(|(number, split)| split.open(source).map_err(move |error| (number, error)));
        try_join_all(openings).await.map(drop)
    }

    /// The bounded split to read next: with event times the one that holds the watermark, so that little is held downstream; else in order.
    fn next_bounded(&self, limit: Option<Watermark>) -> Option<usize> {
        let open = self.splits.iter().filter(|split| split.reader.is_some() && !split.ended).count();
        let mut readable = self.splits.iter().enumerate().filter(|(_, split)| split.may_be_read(limit));
        if !self.timed {
            return readable.next().map(|(number, _)| number);
        }
        let may_open = open < OPEN_SPLITS_MAX;
        let readable = readable.filter(|(_, split)| split.reader.is_some() || may_open);
        readable.min_by_key(|(_, split)| (split.reader.is_some(), split.watermark)).map(|(number, _)| number)
    }

    /// Stops all readers; returns the rows that they owe, with the numbers of their splits.
    pub(super) fn stop(&mut self) -> Vec<(usize, Batch)> {
        let readers = self.splits.iter_mut().enumerate().filter_map(|(number, split)| Some((number, split.reader.as_mut()?)));
        readers.flat_map(|(number, reader)| reader.stop().into_iter().map(move |rows| (number, rows))).collect()
    }

    /// Every split is opened again, where it is, before it is read further: by a source that reads other columns.
    pub(super) fn reopen(&mut self) {
        for split in &mut self.splits {
            split.opening = None;
            if let Some(reader) = split.reader.take() {
                split.position = Some(reader.position());
            }
        }
    }

    /// Rows that split `number` has, up to its next watermark.
    pub(super) fn rows_until_mark(&self, number: usize) -> usize {
        (ROWS_PER_MARK - self.splits[number].rows % ROWS_PER_MARK) as usize
    }

    /// Split `number` returned rows at the elapsed time `now_ms`: it is not idle.
    pub(super) fn on_rows(&mut self, number: usize, now_ms: i64) {
        let split = &mut self.splits[number];
        split.last_ms = now_ms;
        split.waited = Duration::ZERO;
        split.progress = split.reader.as_ref().map_or(split.progress, |reader| reader.progress());
        if std::mem::take(&mut split.idle) {
            self.merge.on_row(number);
        }
    }

    /// `rows` rows of split `number` were sent on, of which `batch` holds the usable ones.
    pub(super) fn on_sent(&mut self, number: usize, rows: usize, batch: &Batch) {
        let split = &mut self.splits[number];
        split.rows += rows as u64;
        let newest = batch.event_times().and_then(|times| times.iter().copied().max());
        split.newest = split.newest.max(newest.map(EventTime));
    }

    /// The watermark of split `number` after what was sent.
    pub(super) fn mark(&mut self, number: usize, plan: &EventTimePlan) -> Option<Progress> {
        let split = &mut self.splits[number];
        let watermark = Watermark::after(split.newest?, plan.bound_ms);
        split.watermark = split.watermark.max(Some(watermark));
        self.merge.on_watermark(number, watermark)
    }

    pub(super) fn on_end(&mut self, number: usize) -> Option<Progress> {
        let split = &mut self.splits[number];
        split.progress = split.reader.as_ref().map_or(split.progress, |reader| reader.progress());
        split.ended = true;
        split.reader = None;
        self.merge.on_end(number)
    }

    /// All unfinished splits but `answered` were asked and had nothing for `time`. What the new idle ones change.
    pub(super) fn on_waited(
        &mut self,
        time: Duration,
        timeout: Duration,
        limit: Option<Watermark>,
        answered: Option<usize>,
    ) -> Vec<Progress> {
        let mut changes = Vec::new();
        let asked = self.splits.iter_mut().enumerate().filter(|(number, split)| split.may_be_read(limit) && answered != Some(*number));
        for (number, split) in asked.filter(|(_, split)| !split.idle) {
            split.waited += time;
            if split.waited >= timeout {
                split.idle = true;
                changes.extend(self.merge.on_idle(number));
            }
        }
        changes
    }

    /// How much longer the splits must have nothing for the next one to be idle; none: all are.
    pub(super) fn until_idle(&self, timeout: Duration, limit: Option<Watermark>) -> Option<Duration> {
        if self.bounded {
            return None;
        }
        let waiting = self.splits.iter().filter(|split| split.may_be_read(limit) && !split.idle);
        waiting.map(|split| timeout.saturating_sub(split.waited)).min()
    }
}

impl OpenSplit {
    fn new(split: Split) -> Self {
        Self {
            split,
            position: None,
            reader: None,
            opening: None,
            ended: false,
            rows: 0,
            newest: None,
            watermark: None,
            waited: Duration::ZERO,
            idle: false,
            progress: 0,
            last_ms: i64::MIN,
            shown: false,
        }
    }

    fn restored(from: SplitManifest) -> Self {
        Self {
            position: from.position,
            ended: from.ended,
            rows: from.rows,
            newest: from.newest.map(EventTime),
            watermark: from.watermark.map(Watermark),
            progress: from.progress,
            ..Self::new(Split { id: from.id.into(), detail: from.detail })
        }
    }

    fn manifest(&self) -> SplitManifest {
        SplitManifest {
            id: self.split.id.to_string(),
            detail: self.split.detail.clone(),
            position: self.reader.as_ref().map(|reader| reader.position()).or_else(|| self.position.clone()),
            rows: self.rows,
            newest: self.newest.map(|newest| newest.0),
            watermark: self.watermark.map(|watermark| watermark.0),
            progress: self.progress,
            ended: self.ended,
        }
    }

    fn may_be_read(&self, limit: Option<Watermark>) -> bool {
        !self.ended && limit.is_none_or(|limit| self.watermark <= Some(limit))
    }

    /// Opens it, unless it is open. Cancel-safe: the next call goes on with what this one has begun.
    async fn open(&mut self, source: &Arc<dyn Source>) -> Result<&mut Box<dyn SplitReader>, OperatorError> {
        let reader = match self.reader.take() {
            Some(reader) => reader,
            None => {
                let opening = self.opening.get_or_insert_with(|| {
                    let (source, split, position) = (source.clone(), self.split.clone(), self.position.clone());
                    async move { source.open(&split, position.as_ref()).await }.boxed()
                });
                let opened = opening.await;
                self.opening = None;
                opened?
            }
        };
        Ok(self.reader.insert(reader))
    }

    async fn read(&mut self, source: &Arc<dyn Source>, rows_max: usize) -> Result<Read, OperatorError> {
        self.open(source).await?.read(rows_max).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use arrow_array::RecordBatch;
    use arrow_schema::{Schema, SchemaRef};
    use async_trait::async_trait;
    use tokio::sync::Notify;

    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn two_splits() -> Splits {
        let mut splits = Splits::new(false, true, 0);
        for id in ["busy", "silent"] {
            splits.add(Split { id: id.into(), detail: Value::Null });
        }
        splits.merge.on_watermark(0, Watermark(100));
        splits
    }

    /// Its split `slow` is open when it is told; a reader has rows whenever it is asked.
    #[derive(Default)]
    struct SlowToOpen {
        told: Notify,
        openings: AtomicUsize,
        opened: Mutex<Vec<Arc<str>>>,
    }

    struct Rows;

    #[async_trait]
    impl SplitReader for Rows {
        async fn read(&mut self, _rows_max: usize) -> Result<Read, OperatorError> {
            Ok(Read::Rows { batch: Batch::new(RecordBatch::new_empty(Arc::new(Schema::empty()))), rejected: Vec::new() })
        }

        fn position(&self) -> Value {
            Value::Null
        }
    }

    #[async_trait]
    impl Source for SlowToOpen {
        fn schema(&self) -> SchemaRef {
            Arc::new(Schema::empty())
        }

        fn project(&self, _columns: &[usize]) -> Arc<dyn Source> {
            unreachable!("nothing is planned here")
        }

        fn is_bounded(&self) -> bool {
            false
        }

        async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
            unreachable!("the test has them")
        }

        async fn open(&self, split: &Split, _position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
            self.openings.fetch_add(1, Relaxed);
            if &*split.id == "slow" {
                self.told.notified().await;
            }
            self.opened.lock().unwrap().push(split.id.clone());
            Ok(Box::new(Rows))
        }
    }

    #[test]
    fn no_rows_are_taken_before_every_split_is_open_and_an_opening_goes_on_whatever_interrupts_it() {
        let slow = Arc::new(SlowToOpen::default());
        let source: Arc<dyn Source> = slow.clone();
        let mut splits = Splits::new(false, false, 0);
        for id in ["busy", "slow"] {
            splits.add(Split { id: id.into(), detail: Value::Null });
        }
        for _interruption in 0..3 {
            assert!(splits.read(&source, 1, None).now_or_never().is_none(), "one is not open yet");
        }
        slow.told.notify_one();
        let (_, read) = splits.read(&source, 1, None).now_or_never().expect("all are open and have rows");
        assert!(matches!(read, Ok(Read::Rows { .. })));
        assert_eq!(*slow.opened.lock().unwrap(), ["busy".into(), "slow".into()]);
        assert_eq!(slow.openings.load(Relaxed), 2, "each was opened once");
    }

    #[test]
    fn a_silent_split_becomes_idle_though_another_one_has_rows_all_the_time() {
        let mut splits = two_splits();
        assert_eq!(splits.on_waited(Duration::from_secs(29), TIMEOUT, None, Some(0)), []);
        assert_eq!(splits.until_idle(TIMEOUT, None), Some(Duration::from_secs(1)));
        assert_eq!(splits.on_waited(Duration::from_secs(1), TIMEOUT, None, Some(0)), [Progress::Advanced(Watermark(100))]);
    }

    #[test]
    fn rows_end_the_idleness_of_a_split() {
        let mut splits = two_splits();
        splits.on_waited(TIMEOUT, TIMEOUT, None, Some(0));
        splits.on_rows(1, 0);
        assert_eq!(splits.until_idle(TIMEOUT, None), Some(TIMEOUT));
        assert_eq!(splits.merge.on_watermark(0, Watermark(200)), None);
    }

    /// A split that is held for running ahead was not asked.
    #[test]
    fn a_split_that_is_held_back_does_not_become_idle() {
        let mut splits = two_splits();
        splits.splits[1].watermark = Some(Watermark(1_000));
        assert_eq!(splits.on_waited(TIMEOUT, TIMEOUT, Some(Watermark(500)), Some(0)), []);
        assert!(!splits.splits[1].idle);
    }

    #[test]
    fn bounded_splits_are_read_where_time_is_behind_and_without_event_times_in_order() {
        let mut splits = Splits { bounded: true, ..two_splits() };
        splits.splits[0].watermark = Some(Watermark(100));
        assert_eq!(splits.next_bounded(None), Some(1));
        splits.timed = false;
        assert_eq!(splits.next_bounded(None), Some(0));
    }
}
