//! One call: what goes in, and how the answer is applied. A call is a transaction: nothing is applied before the whole answer was checked.

use std::{ops::Range, sync::Arc};

use arrow_array::ArrayRef;
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_schema::Schema;
use millstream_model::{Batch, Watermark, key::decode_keys, state::Clock};
use millstream_state::{DueTimers, KeySet};
use millstream_wasm::{CallKeys, Failure, Rejected, Updates};

use super::{
    answer::{Answer, Asked, Given},
    plan::ComponentOperatorPlan,
    run::{ComponentOperator, state_failed},
    trial::Answerer,
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
    pub(super) due: DueTimers,
    /// The key fields, one row per timer.
    pub(super) keys: Batch,
    /// All are of one clock.
    pub(super) clock: Clock,
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

    /// These rows or timers of it, in their order.
    pub(super) fn select(&self, numbers: &[u32]) -> Self {
        match self {
            Self::Rows { port, batch } => Self::Rows { port: *port, batch: batch.take(numbers) },
            Self::Timers(Timers { due, keys, clock }) => {
                Self::Timers(Timers { due: due.select(numbers), keys: keys.take(numbers), clock: *clock })
            }
        }
    }
}

impl ComponentOperator {
    /// Calls the guest once. When it returns `Ok`, everything the guest answered is applied; else nothing is. A version on trial is asked the same, if it
    /// is to answer too, and what it answers may be applied instead.
    pub(super) async fn attempt(&mut self, work: &Work, by: Answerer, now: Moment, out: &mut Output) -> Result<(), Failed> {
        let asked = self.asked(work)?;
        let values = self.values(&asked, now)?;
        let answer = match by {
            Answerer::Old => self.ask(&asked, values, now).await?,
            Answerer::Both => {
                let answer = self.ask(&asked, values.clone(), now).await?;
                if let Some(tried) = self.try_beside(&asked, values, &answer, now).await
                    && self.accept_tried(&asked, tried, now, out)?
                {
                    return Ok(());
                }
                answer
            }
        };
        let plan = self.plan.clone();
        self.accept(&plan, &asked, answer, now, out)?;
        self.instance.applied();
        Ok(())
    }

    fn asked<'w>(&self, work: &'w Work) -> Result<Asked<'w>, Failed> {
        match work {
            Work::Timers(timers) => Ok(Asked::Timers(timers)),
            Work::Rows { port, batch } => {
                let keys = match &self.plan.inputs[*port].keys {
                    Some(columns) => self.resolve(batch, columns)?.map(Arc::new),
                    None => None,
                };
                Ok(Asked::Rows { port: *port, batch, keys })
            }
        }
    }

    /// The values of value states that travel with the call; none: the guest has no keys in it.
    fn values(&self, asked: &Asked<'_>, now: Moment) -> Result<Option<CallKeys>, Failed> {
        match (asked, asked.keys()) {
            (_, Some(keys)) => self.call_keys(keys, now).map(Some),
            // Keyed, but nothing is remembered: the guest still may ask for the number of keys.
            (Asked::Rows { port, batch, .. }, None) if self.plan.inputs[*port].keys.is_some() => {
                Ok(Some(CallKeys { length: batch.num_rows() as u32, of_row: None, values: Vec::new() }))
            }
            (_, None) => Ok(None),
        }
    }

    /// What the version that runs answers.
    async fn ask(&mut self, asked: &Asked<'_>, values: Option<CallKeys>, now: Moment) -> Result<Answer, Failed> {
        let collections = self.lend(asked.keys(), now);
        self.instance.note_rows(asked.notes());
        let (turn, _returned) = match asked {
            Asked::Rows { port, batch, .. } => {
                let rows = self.plan.rows(*port, batch, values).map_err(Failed::Host)?;
                self.instance.process(guest_moment(now), *port as u32, rows, collections).await
            }
            Asked::Timers(timers) => {
                let due = timers.call(timers.due.timer.clone(), values);
                self.instance.on_timers(guest_moment(now), due, collections).await
            }
        };
        self.measure(asked.size_number(&self.plan), asked.len());
        self.plan.answer(asked, turn.map_err(Failed::from)?, now).map_err(Failed::Host)
    }

    /// Applies what a version of this plan has answered.
    pub(super) fn accept(
        &mut self,
        plan: &ComponentOperatorPlan,
        asked: &Asked<'_>,
        mut answer: Answer,
        now: Moment,
        out: &mut Output,
    ) -> Result<(), Failed> {
        let fired = match asked {
            Asked::Rows { .. } => None,
            Asked::Timers(timers) => Some(&timers.due),
        };
        if let Some(due) = fired {
            self.cut_endless_chains(&mut answer.updates, due, now);
        }
        self.apply(&answer.updates, asked.keys(), fired, now)?;
        for Rejected { row, reason } in answer.rejected {
            out.reject(match asked {
                Asked::Rows { port, batch, keys } => plan.rejection(*port, batch, row as usize, keys.as_deref(), reason),
                Asked::Timers(timers) => plan.timer_rejection(timers, row as usize, reason),
            });
        }
        for Given { port, batch, .. } in answer.outputs {
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

    pub(super) fn lend(&self, keys: Option<&KeySet>, now: Moment) -> Option<Box<dyn millstream_wasm::Collections>> {
        let store = self.store.as_ref().filter(|_| self.plan.has_collections())?;
        Some(store.lend(keys?.clone(), state_moment(now)))
    }

    fn measure(&mut self, size: usize, rows: usize) {
        let stats = self.instance.last_call();
        self.sizes[size].measured(rows, stats.busy);
        let metrics = &self.context.metrics;
        metrics.guest_ns.add(u64::try_from(stats.busy.as_nanos()).unwrap_or(u64::MAX));
        metrics.guest_memory_bytes.set(stats.memory_bytes);
    }

    fn apply(&mut self, changes: &Updates, keys: Option<&KeySet>, fired: Option<&DueTimers>, now: Moment) -> Result<(), Failed> {
        let (Some(store), Some(keys)) = (&self.store, keys) else { return Ok(()) };
        if changes.is_empty() && fired.is_none() {
            return Ok(());
        }
        let updates = state_updates(changes, keys.len());
        store.lock().apply(keys, &updates, fired, state_moment(now)).map_err(guest_or_host)
    }

    /// Nothing stops a timer that sets itself again for no later time, nor one that sets itself again after the end of input, so each key may do so
    /// only so often: rows, barriers and the end would wait for ever.
    fn cut_endless_chains(&mut self, updates: &mut Updates, fired: &DueTimers, now: Moment) {
        let has_ended = now.watermark == Some(Watermark::MAX);
        for update in &mut updates.timers {
            let mut kept: Vec<usize> = Vec::with_capacity(update.keys.len());
            for index in 0..update.keys.len() {
                // Timer i that fired is of key i.
                let key = update.keys[index] as usize;
                let deletes = update.deleted.as_ref().is_some_and(|deleted| deleted.value(index));
                let at = if has_ended { i64::MAX } else { fired.at[key] };
                if deletes || update.at[index] > at || !self.is_cut(fired.keys.hash(key), at) {
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

    /// The rejection of one row of a call.
    pub(super) fn rejection_of(&self, work: &Work, row: usize, reason: String) -> Rejection {
        match work {
            Work::Rows { port, batch } => self.plan.rejection(*port, batch, row, None, reason),
            Work::Timers(timers) => self.plan.timer_rejection(timers, row, reason),
        }
    }

    /// Takes timers away that can never be handled.
    pub(super) fn drop_timers(&self, work: &Work) {
        if let (Work::Timers(timers), Some(store)) = (work, &self.store) {
            store.lock().remove_due(&timers.due);
        }
    }
}

impl From<Failure> for Failed {
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

pub(super) fn guest_moment(now: Moment) -> millstream_wasm::Moment {
    millstream_wasm::Moment { watermark: now.watermark, processing_time_ms: now.processing_time }
}

pub(super) fn state_moment(now: Moment) -> millstream_state::Moment {
    millstream_state::Moment { watermark: now.watermark, processing_time: now.processing_time }
}

fn state_updates(updates: &Updates, keys: usize) -> millstream_state::Updates {
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
