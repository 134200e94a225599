//! One call: what goes in, and how the answer is applied. A call is a transaction: nothing is applied before the whole answer was checked.

use std::{ops::Range, sync::Arc};

use arrow_array::ArrayRef;
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder, ScalarBuffer};
use arrow_schema::Schema;
use millstream_model::{
    Batch, EventTime, Watermark,
    key::{decode_keys, encode_keys},
    state::Clock,
};
use millstream_state::{DueTimers, KeySet};
use millstream_wasm::{CallKeys, Failure, From, Rows, Turn, TurnOutput};

use super::{
    layout::{ColumnFrom, OutputLayout},
    plan::ComponentOperatorPlan,
    run::{ComponentOperator, state_failed},
};
use crate::{
    operator::{Moment, OperatorError, Output},
    rejected::Rejection,
};

/// What a call is about.
pub(super) enum Work {
    /// Rows of an input.
    Rows { port: usize, batch: Batch },
    /// Timers that are due.
    Timers(Timers),
}

/// Timers that are due, with the fields of their keys.
pub(super) struct Timers {
    due: DueTimers,
    /// The key fields, one row per timer.
    keys: Batch,
    /// All are of one clock.
    clock: Clock,
}

/// Why a call was not applied.
pub(super) enum Failed {
    /// The guest's doing: its instance is renewed, the call repeated, then bisected.
    Guest { reason: String },
    /// The guest asks for another try.
    Retry { reason: String },
    /// Ours or the outside's: the job fails.
    Host(OperatorError),
}

impl Timers {
    pub(super) fn new(plan: &ComponentOperatorPlan, due: DueTimers) -> Result<Self, OperatorError> {
        let types: Vec<_> = plan.key_fields.iter().map(|field| field.data_type().clone()).collect();
        let bytes = (0..due.len()).map(|number| due.keys.key_bytes(number));
        let columns = decode_keys(&types, bytes).map_err(|error| OperatorError::outside("stored timers are damaged").because(error))?;
        let schema = Arc::new(Schema::new(plan.key_fields.clone()));
        let keys = Batch::try_new(schema, columns, due.len())
            .map_err(|error| OperatorError::outside("stored timers are damaged").because(error))?;
        let clock = due.timer.first().map_or(Clock::EventTime, |&timer| plan.guest.timers[timer as usize].clock);
        Ok(Self { due, keys, clock })
    }
}

impl Work {
    /// Number of rows or timers.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Rows { batch, .. } => batch.num_rows(),
            Self::Timers(timers) => timers.due.len(),
        }
    }

    /// A part of it, for a call that is repeated in parts.
    pub(super) fn part(&self, range: Range<usize>) -> Self {
        match self {
            Self::Rows { port, batch } => Self::Rows { port: *port, batch: batch.slice(range) },
            Self::Timers(timers) => {
                let numbers: Vec<u32> = range.clone().map(|number| number as u32).collect();
                Self::Timers(Timers { due: timers.due.select(&numbers), keys: timers.keys.slice(range), clock: timers.clock })
            }
        }
    }
}

impl ComponentOperator {
    /// Calls the guest once. When it returns `Ok`, everything the guest answered is applied; else nothing is.
    pub(super) async fn attempt(&mut self, work: &Work, now: Moment, out: &mut Output) -> Result<(), Failed> {
        match work {
            Work::Rows { port, batch } => self.attempt_rows(*port, batch, now, out).await,
            Work::Timers(timers) => self.attempt_timers(timers, now, out).await,
        }
    }

    async fn attempt_rows(&mut self, port: usize, batch: &Batch, now: Moment, out: &mut Output) -> Result<(), Failed> {
        let input = &self.plan.inputs[port];
        let keys = match &input.keys {
            Some(columns) => self.resolve(batch, columns)?,
            None => None,
        };
        let columns = self.columns_read(port, batch).map_err(Failed::Host)?;
        let rows = Rows {
            length: batch.num_rows() as u32,
            columns,
            event_times: if self.plan.guest.inputs[port].event_times { batch.event_times().cloned() } else { None },
            changes: batch.changes().cloned(),
            keys: match (&keys, input.keys.is_some()) {
                (Some(keys), _) => Some(self.call_keys(keys, now)?),
                // Keyed, but nothing is remembered: the guest still may ask for the number of keys.
                (None, true) => Some(CallKeys { length: batch.num_rows() as u32, of_row: None, values: Vec::new() }),
                (None, false) => None,
            },
        };
        let collections = self.lend(keys.as_ref(), now);
        let (turn, _returned) = self.instance.process(guest_moment(now), port as u32, rows, collections).await;
        self.measure(port, batch.num_rows());
        let turn = turn.map_err(Failed::from)?;
        self.apply(&turn, keys.as_ref(), None, now)?;
        self.instance.applied();
        for rejected in &turn.rejected {
            out.reject(self.rejection(port, batch, rejected.row as usize, keys.as_ref(), rejected.reason.clone()));
        }
        for output in turn.outputs {
            let (port_out, batch) = self.output_of_rows(port, batch, output, now).map_err(Failed::Host)?;
            out.emit(port_out, batch);
        }
        Ok(())
    }

    async fn attempt_timers(&mut self, timers: &Timers, now: Moment, out: &mut Output) -> Result<(), Failed> {
        let Timers { due, keys: key_columns, clock } = timers;
        let call = millstream_wasm::DueTimers {
            length: due.len() as u32,
            timer: due.timer.iter().copied().collect(),
            at: due.at.iter().copied().collect(),
            keys: self.call_keys(&due.keys, now)?,
            key_columns: key_columns.columns().columns().to_vec(),
        };
        let collections = self.lend(Some(&due.keys), now);
        let (turn, _returned) = self.instance.on_timers(guest_moment(now), call, collections).await;
        self.measure(self.plan.inputs.len(), due.len());
        let mut turn = turn.map_err(Failed::from)?;
        if now.watermark == Some(Watermark::MAX) {
            self.cut_endless_chains(&mut turn, &due.keys);
        }
        self.apply(&turn, Some(&due.keys), Some(due), now)?;
        self.instance.applied();
        for rejected in &turn.rejected {
            out.reject(self.timer_rejection(timers, rejected.row as usize, rejected.reason.clone()));
        }
        let times: ScalarBuffer<i64> = match clock {
            Clock::EventTime => due.at.iter().map(|&at| supported(at)).collect(),
            Clock::ProcessingTime => std::iter::repeat_n(time_without_row(now), due.len()).collect(),
        };
        for output in turn.outputs {
            let (port, batch) = self.output_of_timers(&times, output, now).map_err(Failed::Host)?;
            out.emit(port, batch);
        }
        Ok(())
    }

    fn resolve(&self, batch: &Batch, columns: &[usize]) -> Result<Option<KeySet>, Failed> {
        let Some(store) = &self.store else { return Ok(None) };
        let columns: Vec<ArrayRef> = columns.iter().map(|&column| batch.column(column).clone()).collect();
        store.lock().resolve_columns(&columns, batch.num_rows()).map(Some).map_err(guest_or_host)
    }

    fn call_keys(&self, keys: &KeySet, now: Moment) -> Result<CallKeys, Failed> {
        let Some(store) = &self.store else {
            return Ok(CallKeys { length: keys.len() as u32, of_row: keys.of_row().cloned(), values: Vec::new() });
        };
        let mut store = store.lock();
        let states = self.plan.guest.keyed_value_states();
        let values = states.map(|state| store.load(state as usize, keys, state_moment(now))).collect::<Result<_, _>>();
        Ok(CallKeys { length: keys.len() as u32, of_row: keys.of_row().cloned(), values: values.map_err(guest_or_host)? })
    }

    fn lend(&self, keys: Option<&KeySet>, now: Moment) -> Option<Box<dyn millstream_wasm::Collections>> {
        let store = self.store.as_ref().filter(|_| self.plan.has_collections())?;
        Some(store.lend(keys?.clone(), state_moment(now)))
    }

    fn columns_read(&self, port: usize, batch: &Batch) -> Result<Vec<ArrayRef>, OperatorError> {
        let input = &self.plan.inputs[port];
        let read = |(&column, cast): (&usize, &Option<arrow_schema::DataType>)| match cast {
            None => Ok(batch.column(column).clone()),
            Some(data_type) => arrow_cast::cast(batch.column(column), data_type)
                .map_err(|error| OperatorError::internal("a column cannot be read as the component reads it").because(error)),
        };
        input.reads.iter().zip(&input.casts).map(read).collect()
    }

    fn measure(&mut self, size: usize, rows: usize) {
        let stats = self.instance.last_call();
        self.sizes[size].measured(rows, stats.busy);
        self.context.metrics.guest_ns.add(u64::try_from(stats.busy.as_nanos()).unwrap_or(u64::MAX));
    }

    fn apply(&mut self, turn: &Turn, keys: Option<&KeySet>, fired: Option<&DueTimers>, now: Moment) -> Result<(), Failed> {
        let (Some(store), Some(keys)) = (&self.store, keys) else { return Ok(()) };
        if turn.updates.is_empty() && fired.is_none() {
            return Ok(());
        }
        let updates = state_updates(&turn.updates, keys.len());
        store.lock().apply(keys, &updates, fired, state_moment(now)).map_err(guest_or_host)
    }

    /// After the end of input nothing stops a timer that sets itself again, so each key may do so only so often.
    fn cut_endless_chains(&mut self, turn: &mut Turn, keys: &KeySet) {
        for update in &mut turn.updates.timers {
            let mut kept: Vec<usize> = Vec::with_capacity(update.keys.len());
            for index in 0..update.keys.len() {
                let deletes = update.deleted.as_ref().is_some_and(|deleted| deleted.value(index));
                if deletes || !self.is_cut(keys.hash(update.keys[index] as usize)) {
                    kept.push(index);
                }
            }
            if kept.len() == update.keys.len() {
                continue;
            }
            self.context.metrics.timers_cut.add((update.keys.len() - kept.len()) as u64);
            update.at = kept.iter().map(|&index| update.at[index]).collect();
            update.deleted = update.deleted.as_ref().map(|deleted| kept.iter().map(|&index| deleted.value(index)).collect());
            update.keys = kept.iter().map(|&index| update.keys[index]).collect();
        }
    }

    fn output_of_rows(&self, port: usize, batch: &Batch, output: TurnOutput, now: Moment) -> Result<(usize, Batch), OperatorError> {
        let layout = &self.plan.layouts[output.port as usize];
        let from = simplified(output.from, batch.num_rows());
        let base = match &layout.kept {
            Some(kept) if kept.input == port => {
                let kept_columns = if kept.is_whole_input { batch.clone() } else { batch.project(&kept.columns) };
                match &from {
                    From::Identity => kept_columns,
                    From::Rows(rows) => kept_columns.take(rows),
                    // What keeps columns and comes from no rows has none: `millstream_wasm` refuses anything else.
                    From::None => kept_columns.slice(0..0),
                }
            }
            _ => unkept(batch, &from, output.length),
        };
        let times = output.event_times.or_else(|| base.event_times().cloned());
        let changes = if layout.changes { output.changes.or_else(|| base.changes().cloned()) } else { None };
        finish(layout, base, output.columns, times, changes, now).map(|batch| (output.port as usize, batch))
    }

    fn output_of_timers(&self, times: &ScalarBuffer<i64>, output: TurnOutput, now: Moment) -> Result<(usize, Batch), OperatorError> {
        let layout = &self.plan.layouts[output.port as usize];
        let inherited = || match &output.from {
            From::Identity => Some(times.clone()),
            From::Rows(timers) => Some(timers.iter().map(|&timer| times[timer as usize]).collect()),
            From::None => None,
        };
        let times = output.event_times.clone().or_else(inherited);
        let changes = output.changes.clone().filter(|_| layout.changes);
        let base = without_columns(output.length);
        finish(layout, base, output.columns, times, changes, now).map(|batch| (output.port as usize, batch))
    }

    /// The rejection of one row of a call.
    pub(super) fn rejection_of(&self, work: &Work, row: usize, reason: String) -> Rejection {
        match work {
            Work::Rows { port, batch } => self.rejection(*port, batch, row, None, reason),
            Work::Timers(timers) => self.timer_rejection(timers, row, reason),
        }
    }

    fn rejection(&self, port: usize, batch: &Batch, row: usize, keys: Option<&KeySet>, reason: String) -> Rejection {
        let input = &self.plan.inputs[port];
        let key_hash = match (keys, &input.keys) {
            (Some(keys), _) => Some(keys.hash(keys.of_row().map_or(row, |of_row| of_row[row] as usize))),
            (None, Some(columns)) => {
                let columns: Vec<ArrayRef> = columns.iter().map(|&column| batch.column(column).slice(row, 1)).collect();
                encode_keys(&columns, 1).ok().map(|keys| keys.hashes()[0])
            }
            (None, None) => None,
        };
        Rejection { version: self.version(), key_hash, ..Rejection::of_row(batch, row, &input.reads, reason) }
    }

    fn timer_rejection(&self, timers: &Timers, number: usize, reason: String) -> Rejection {
        let name = &self.plan.guest.timers[timers.due.timer[number] as usize].name;
        let key: Vec<usize> = (0..timers.keys.columns().num_columns()).collect();
        Rejection {
            version: self.version(),
            key_hash: Some(timers.due.keys.hash(number)),
            event_time: Some(timers.due.at[number]),
            ..Rejection::of_row(&timers.keys, number, &key, format!("timer `{name}`: {reason}"))
        }
    }

    fn version(&self) -> Option<String> {
        Some(self.plan.descriptor.version.clone())
    }

    /// Takes timers away that can never be handled.
    pub(super) fn drop_timers(&self, work: &Work) {
        if let (Work::Timers(timers), Some(store)) = (work, &self.store) {
            store.lock().remove_due(&timers.due);
        }
    }
}

impl ComponentOperatorPlan {
    fn has_collections(&self) -> bool {
        use millstream_model::state::StateKind;
        self.guest.states.iter().any(|state| state.kind != StateKind::Value)
    }
}

impl std::convert::From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Retry(reason) => Self::Retry { reason },
            Failure::Host { .. } => Self::Host(OperatorError::internal("a call into the component failed").because(failure)),
            Failure::Fatal(_) | Failure::Trap { .. } | Failure::Limit(_) | Failure::Refused { .. } => {
                Self::Guest { reason: failure.to_string() }
            }
        }
    }
}

/// Limits of keys and values are the guest's doing; the rest is not.
fn guest_or_host(error: millstream_state::Error) -> Failed {
    match error {
        millstream_state::Error::KeyTooLarge { .. } | millstream_state::Error::ValueTooLarge { .. } => {
            Failed::Guest { reason: error.to_string() }
        }
        error => Failed::Host(state_failed(error)),
    }
}

/// Numbers that name every row in order are no selection.
fn simplified(from: From, rows: usize) -> From {
    match from {
        From::Rows(numbers) if numbers.len() == rows && numbers.iter().enumerate().all(|(row, &number)| row == number as usize) => {
            From::Identity
        }
        from => from,
    }
}

/// Event times and changes of the rows that output rows come from, without columns.
fn unkept(batch: &Batch, from: &From, length: usize) -> Batch {
    let bare = || without_columns(batch.num_rows()).with_event_times(batch.event_times().cloned()).with_changes(batch.changes().cloned());
    match from {
        From::Identity => bare(),
        From::Rows(rows) => bare().take(rows),
        From::None => without_columns(length),
    }
}

fn without_columns(rows: usize) -> Batch {
    Batch::try_new(Arc::new(Schema::empty()), Vec::new(), rows).expect("no column contradicts a row count")
}

fn finish(
    layout: &OutputLayout,
    base: Batch,
    added: Vec<ArrayRef>,
    times: Option<ScalarBuffer<i64>>,
    changes: Option<ScalarBuffer<u8>>,
    now: Moment,
) -> Result<Batch, OperatorError> {
    let rows = base.num_rows();
    let times = layout.event_times.then(|| times.unwrap_or_else(|| std::iter::repeat_n(time_without_row(now), rows).collect()));
    let passes_whole = layout.kept.as_ref().is_some_and(|kept| kept.is_whole_input);
    if passes_whole {
        return Ok(base.with_event_times(times).with_changes(changes));
    }
    let column = |from: &ColumnFrom| match *from {
        ColumnFrom::Kept(column) => base.column(column).clone(),
        ColumnFrom::Added(column) => added[column].clone(),
    };
    let columns = layout.columns.iter().map(column).collect();
    let whole = base.with_columns(layout.schema.clone(), columns);
    let whole = whole.map_err(|error| OperatorError::internal("an output does not have the planned columns").because(error))?;
    Ok(whole.with_event_times(times).with_changes(changes))
}

/// The event time of rows that come from no row: the operator's watermark.
fn time_without_row(now: Moment) -> i64 {
    supported(now.watermark.map_or(i64::MIN, |watermark| watermark.0))
}

fn supported(time: i64) -> i64 {
    time.clamp(EventTime::EARLIEST.0, EventTime::LATEST.0)
}

fn guest_moment(now: Moment) -> millstream_wasm::Moment {
    millstream_wasm::Moment { watermark: now.watermark, processing_time_ms: now.processing_time }
}

fn state_moment(now: Moment) -> millstream_state::Moment {
    millstream_state::Moment { watermark: now.watermark, processing_time: now.processing_time }
}

fn state_updates(updates: &millstream_wasm::Updates, keys: usize) -> millstream_state::Updates {
    let none_of = |count: usize| BooleanBuffer::new_unset(count);
    let value = |update: &millstream_wasm::ValueUpdate| millstream_state::ValueUpdate {
        state: update.state as usize,
        changed: update.changed.clone(),
        values: update.values.clone(),
    };
    let map = |update: &millstream_wasm::MapUpdate| millstream_state::MapUpdate {
        state: update.state as usize,
        keys: update.keys.to_vec(),
        map_keys: update.map_keys.clone(),
        values: update.values.clone(),
        deleted: update.deleted.clone().unwrap_or_else(|| none_of(update.keys.len())),
    };
    let list = |update: &millstream_wasm::ListUpdate| millstream_state::ListUpdate {
        state: update.state as usize,
        cleared: bits(&update.cleared, keys),
        keys: update.keys.to_vec(),
        values: update.values.clone(),
    };
    let timer = |update: &millstream_wasm::TimerUpdate| millstream_state::TimerUpdate {
        timer: update.timer as usize,
        keys: update.keys.to_vec(),
        at: update.at.to_vec(),
        deleted: update.deleted.clone().unwrap_or_else(|| none_of(update.keys.len())),
    };
    millstream_state::Updates {
        values: updates.values.iter().map(value).collect(),
        maps: updates.maps.iter().map(map).collect(),
        lists: updates.lists.iter().map(list).collect(),
        timers: updates.timers.iter().map(timer).collect(),
    }
}

fn bits(numbers: &[u32], count: usize) -> BooleanBuffer {
    let mut bits = BooleanBufferBuilder::new(count);
    bits.append_n(count, false);
    numbers.iter().for_each(|&number| bits.set_bit(number as usize, true));
    bits.finish()
}
