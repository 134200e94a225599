//! Windows by count: every n rows of a key are a window, in order of arrival.
//!
//! They do not depend on time: no row is late. A result has the latest event time of its rows. What is left over when the input ends comes
//! out too.

use std::num::NonZeroU64;

use arrow_array::{Array, ArrayRef, Int64Array, StructArray, UInt32Array, cast::AsArray, types::Int64Type};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Fields};
use async_trait::async_trait;
use millstream_model::{Batch, EventTime, Watermark, state::Clock};
use millstream_state::{KeySet, KeyedStore, TimerUpdate, Updates, ValueUpdate};

use super::{
    aggregate::{Grouping, Run, component::RefusedRow, set::value_state},
    core::{Core, CorePlan, TIMER, accumulator_updates},
    results::Spans,
};
use crate::{
    operator::{Moment, Operator, OperatorContext, OperatorError, Output},
    operators::{
        arrays::{take_or_null, take_rows},
        keyed::{state_error, state_moment},
        upgrade::Declared,
    },
};

/// Most left-over windows emitted in one call.
const PORTION: usize = 8_192;

/// Windows by count of one subtask.
pub struct CountWindows {
    core: Core,
    rows: i64,
    has_more: bool,
}

/// How far the open window of a key is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    rows: i64,
    /// The latest event time; without event times that of no row.
    latest: i64,
}

/// A window of a batch: of one key, open before, opened here, closed here or left open.
#[derive(Clone, Copy, Debug)]
struct Part {
    key: u32,
    /// Whether it was open before the batch.
    continues: bool,
    progress: Progress,
}

/// The windows of a batch.
struct Parts {
    parts: Vec<Part>,
    of_row: Vec<u32>,
    /// The window of each key that is open after the batch.
    open: Vec<Option<u32>>,
}

impl CountWindows {
    /// What is kept.
    pub fn declared(plan: &CorePlan) -> Declared {
        plan.declared([value_state("progress".into(), DataType::Struct(progress_fields()), 1)], "end")
    }

    /// Opens state and aggregates.
    ///
    /// # Errors
    /// They cannot be opened.
    pub async fn open(plan: &CorePlan, rows: NonZeroU64, context: &OperatorContext) -> Result<Self, OperatorError> {
        let core = Core::open(plan, Self::declared(plan), context).await?;
        Ok(Self { core, rows: i64::try_from(rows.get()).unwrap_or(i64::MAX), has_more: false })
    }

    fn progress_state(&self) -> usize {
        self.core.aggregates.len()
    }

    fn load_progress(&mut self, keys: &KeySet, now: Moment) -> Result<Vec<Progress>, OperatorError> {
        let loaded = self.core.store.load(self.progress_state(), keys, state_moment(now)).map_err(state_error)?;
        let (rows, latest) =
            (loaded.as_struct().column(0).as_primitive::<Int64Type>(), loaded.as_struct().column(1).as_primitive::<Int64Type>());
        let of = |key: usize| {
            if loaded.is_null(key) { Progress::default() } else { Progress { rows: rows.value(key), latest: latest.value(key) } }
        };
        Ok((0..keys.len()).map(of).collect())
    }

    /// Cuts the rows of every key into windows.
    fn cut(&self, before: &[Progress], key_of_row: impl Fn(usize) -> u32, batch: &Batch) -> Parts {
        let mut parts: Vec<Part> = Vec::new();
        let mut open: Vec<Option<u32>> = vec![None; before.len()];
        let mut met = vec![false; before.len()];
        let mut of_row = Vec::with_capacity(batch.num_rows());
        let times = batch.event_times();
        for row in 0..batch.num_rows() {
            let key = key_of_row(row);
            let part = *open[key as usize].get_or_insert_with(|| {
                let continues = !std::mem::replace(&mut met[key as usize], true) && before[key as usize].rows > 0;
                let progress = if continues { before[key as usize] } else { Progress { rows: 0, latest: i64::MIN } };
                parts.push(Part { key, continues, progress });
                parts.len() as u32 - 1
            });
            let progress = &mut parts[part as usize].progress;
            progress.rows += 1;
            progress.latest = times.map_or(0, |times| times[row].max(progress.latest));
            if progress.rows == self.rows {
                open[key as usize] = None;
            }
            of_row.push(part);
        }
        Parts { parts, of_row, open }
    }

    async fn accumulate(&mut self, batch: &Batch, now: Moment, out: &mut Output) -> Result<Result<(), Vec<RefusedRow>>, OperatorError> {
        let set = self.core.store.resolve(self.core.encode_keys(batch)?).map_err(state_error)?;
        let before = self.load_progress(&set, now)?;
        let of_row = if self.core.is_keyed() { set.of_row() } else { None };
        let is_keyed = self.core.is_keyed();
        let parts = self.cut(&before, |row| if is_keyed { of_row.map_or(row as u32, |of_row| of_row[row]) } else { 0 }, batch);
        let loaded = self.core.load_accumulators(&set, now)?;
        let from: UInt32Array = parts.parts.iter().map(|part| part.continues.then_some(part.key)).collect();
        let accumulators: Vec<ArrayRef> = loaded.iter().map(|loaded| take_or_null(loaded, &from)).collect();
        let runs;
        let grouping = if is_keyed {
            Grouping::Rows(&parts.of_row)
        } else {
            runs = Run::all(&parts.of_row);
            Grouping::Runs(&runs)
        };
        let done = self.core.aggregates.accumulate(batch, grouping, &accumulators).await?;
        if !done.refused.is_empty() {
            return Ok(Err(done.refused));
        }
        self.emit_closed(&set, &parts, &done.accumulators, out).await?;
        let updates = self.updates(&before, &parts, &done.accumulators, set.len());
        self.core.store.apply(&set, &updates, None, state_moment(now)).map_err(state_error)?;
        Ok(Ok(()))
    }

    async fn emit_closed(&mut self, set: &KeySet, parts: &Parts, accumulators: &[ArrayRef], out: &mut Output) -> Result<(), OperatorError> {
        let closed: Vec<u32> =
            (0..parts.parts.len() as u32).filter(|&part| parts.parts[part as usize].progress.rows == self.rows).collect();
        if closed.is_empty() {
            return Ok(());
        }
        let accumulators: Vec<ArrayRef> = accumulators.iter().map(|accumulators| take_rows(accumulators, &closed)).collect();
        let of_closed = || closed.iter().map(|&part| parts.parts[part as usize]);
        let times = of_closed().map(|part| part.progress.latest).collect();
        self.emit(of_closed().map(|part| set.key_bytes(part.key as usize)), times, &accumulators, out).await
    }

    async fn emit<'k>(
        &mut self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        times: Vec<i64>,
        accumulators: &[ArrayRef],
        out: &mut Output,
    ) -> Result<(), OperatorError> {
        let keys: Vec<&[u8]> = keys.into_iter().collect();
        let finished = self.core.aggregates.finish(accumulators).await?;
        let spans = Spans { event_times: times, ..Spans::default() };
        let results = self.core.shape.results(keys, spans, finished)?;
        self.core.shape.emit(&results.rows, &results.without, out);
        Ok(())
    }

    /// What is left open of every key, and a timer that brings it out at the end.
    fn updates(&self, before: &[Progress], parts: &Parts, accumulators: &[ArrayRef], keys: usize) -> Updates {
        let open: UInt32Array = parts.open.iter().copied().collect();
        let accumulators = accumulators.iter().map(|accumulators| take_or_null(accumulators, &open)).collect();
        let mut values = accumulator_updates(accumulators, keys);
        let progress: Vec<Option<Progress>> = parts.open.iter().map(|part| part.map(|part| parts.parts[part as usize].progress)).collect();
        values.push(ValueUpdate {
            state: self.progress_state(),
            changed: BooleanBuffer::new_set(keys),
            values: progress_column(&progress),
        });
        let differs = |key: &u32| (before[*key as usize].rows > 0) != progress[*key as usize].is_some();
        let changed: Vec<u32> = (0..keys as u32).filter(differs).collect();
        let deleted = BooleanBuffer::collect_bool(changed.len(), |index| progress[changed[index] as usize].is_none());
        let timers = vec![TimerUpdate { timer: TIMER, at: vec![EventTime::LATEST.0; changed.len()], keys: changed, deleted }];
        Updates { values, timers, ..Updates::default() }
    }

    /// Emits windows that the end of the input leaves incomplete: a portion.
    async fn emit_left_over(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = false;
        let Some(due) = self.core.store.due(Clock::EventTime, EventTime::LATEST.0, PORTION).map_err(state_error)? else { return Ok(()) };
        self.has_more = due.len() == PORTION;
        let progress = self.load_progress(&due.keys, now)?;
        let accumulators = self.core.load_accumulators(&due.keys, now)?;
        let times = progress.iter().map(|progress| progress.latest).collect();
        self.emit((0..due.len()).map(|number| due.keys.key_bytes(number)), times, &accumulators, out).await?;
        let updates = Updates { values: self.core.deletions(due.len()), ..Updates::default() };
        self.core.store.apply(&due.keys, &updates, Some(&due), state_moment(now)).map_err(state_error)
    }
}

fn progress_fields() -> Fields {
    Fields::from(vec![Field::new("rows", DataType::Int64, false), Field::new("latest", DataType::Int64, false)])
}

fn progress_column(progress: &[Option<Progress>]) -> ArrayRef {
    let column = |of: fn(Progress) -> i64| -> ArrayRef {
        std::sync::Arc::new(progress.iter().map(|progress| of(progress.unwrap_or_default())).collect::<Int64Array>())
    };
    let nulls = BooleanBuffer::collect_bool(progress.len(), |key| progress[key].is_some());
    let columns = vec![column(|progress| progress.rows), column(|progress| progress.latest)];
    std::sync::Arc::new(StructArray::new(progress_fields(), columns, Some(nulls.into())))
}

#[async_trait]
impl Operator for CountWindows {
    async fn on_batch(&mut self, _input: usize, mut batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        while let Err(refused) = self.accumulate(&batch, now, out).await? {
            match self.core.reject(&batch, &refused, out) {
                Some(rest) => batch = rest,
                None => break,
            }
        }
        Ok(())
    }

    async fn on_watermark(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        if now.watermark == Some(Watermark::MAX) { self.emit_left_over(now, out).await } else { Ok(()) }
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn with_store(&mut self, work: &mut dyn FnMut(&mut KeyedStore)) {
        work(&mut self.core.store);
    }

    async fn on_end(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.emit_left_over(now, out).await
    }
}
