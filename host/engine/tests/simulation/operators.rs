//! Operators with keyed state that stand in for components, whose machine code cannot be replayed step by step: one counts, one sets timers.

use std::{any::Any, sync::Arc};

use arrow_array::{Array, ArrayRef, Int64Array, cast::AsArray, types::Int64Type};
use arrow_buffer::BooleanBuffer;
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::operator::{Moment, NextRows, Operator, OperatorContext, OperatorError, OperatorPlan, Output};
use millstream_model::{
    Batch, StreamType, Watermark,
    key::encode_keys,
    state::{Clock, StateDescriptor, StateKind, StateScope, TimerDescriptor},
};
use millstream_state::{Backend, DueTimers, KeySet, KeyedStore, StoreSettings, TimerUpdate, Updates, ValueUpdate};

/// Timers fire at multiples of this.
pub const ALARM_MS: i64 = 210;
/// Timers in processing time fire so much later.
const REMIND_MS: i64 = 15;

/// What an operator of a simulation does with rows of (key, id, at).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Emits (key, id, how many rows of the key there were).
    Count,
    /// Sets a timer of the key behind each row; when it fires, emits (key, its time, the sum of the ids so far).
    Alarm,
    /// Sets a timer in processing time behind each row; when it fires, emits (key, its time, how many rows there were since the last).
    Remind,
}

/// The plan of such an operator.
pub struct Planned {
    work: Work,
    outputs: [(String, StreamType); 1],
}

impl Planned {
    pub fn new(work: Work) -> Self {
        let columns = match work {
            Work::Count => ["key", "id", "count"],
            Work::Alarm => ["key", "fired", "sum"],
            Work::Remind => ["key", "fired", "rows"],
        };
        let schema = Schema::new(columns.map(|name| Field::new(name, DataType::Int64, false)).to_vec());
        let output = StreamType { schema: Arc::new(schema), event_times: true, changes: false };
        Self { work, outputs: [("output".into(), output)] }
    }
}

#[async_trait]
impl OperatorPlan for Planned {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn keeps_state(&self) -> bool {
        true
    }

    async fn create(&self, context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        let state = StateDescriptor {
            name: "total".into(),
            kind: StateKind::Value,
            scope: StateScope::Keyed,
            map_key_type: None,
            value_type: DataType::Int64,
            version: 1,
            ttl: None,
        };
        let clock = self.work.clock();
        let timers = vec![TimerDescriptor { name: "alarm".into(), clock }];
        let settings = StoreSettings { backend: Backend::Memory, memory_budget_bytes: context.state.memory_budget_bytes };
        let parts = context.restored.as_ref().map_or(&[][..], |restored| &restored.state);
        let store = KeyedStore::restore(&settings, context.key_groups.clone(), parts, vec![state], timers).map_err(failed)?;
        Ok(Box::new(Running { work: self.work, schema: self.outputs[0].1.schema.clone(), store }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Work {
    fn clock(self) -> Clock {
        if self == Self::Remind { Clock::ProcessingTime } else { Clock::EventTime }
    }
}

struct Running {
    work: Work,
    schema: SchemaRef,
    store: KeyedStore,
}

fn failed(error: millstream_state::Error) -> OperatorError {
    OperatorError::internal("keyed state failed").because(error)
}

fn moment(now: Moment) -> millstream_state::Moment {
    millstream_state::Moment { watermark: now.watermark, processing_time: now.processing_time }
}

fn ints(values: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

impl Running {
    fn totals(&mut self, keys: &KeySet, now: Moment) -> Result<Vec<i64>, OperatorError> {
        let totals = self.store.load(0, keys, moment(now)).map_err(failed)?;
        let totals = totals.as_primitive::<Int64Type>();
        Ok((0..keys.len()).map(|key| if totals.is_null(key) { 0 } else { totals.value(key) }).collect())
    }

    /// Adds rows to the totals of their keys; after each row, the total.
    fn add(&mut self, batch: &Batch, now: Moment) -> Result<Vec<i64>, OperatorError> {
        let rows = batch.num_rows();
        let keys = encode_keys(&[batch.column(0).clone()], rows).map_err(|error| OperatorError::internal("no key").because(error))?;
        let keys = self.store.resolve(keys).map_err(failed)?;
        let mut totals = self.totals(&keys, now)?;
        let of_row = |row: usize| keys.of_row().map_or(row, |of_row| of_row[row] as usize);
        let ids = batch.column(1).as_primitive::<Int64Type>();
        let mut after = Vec::with_capacity(rows);
        for row in 0..rows {
            let total = &mut totals[of_row(row)];
            *total += if self.work == Work::Alarm { ids.value(row) } else { 1 };
            after.push(*total);
        }
        let mut updates = Updates {
            values: vec![ValueUpdate { state: 0, changed: BooleanBuffer::new_set(keys.len()), values: ints(totals) }],
            ..Updates::default()
        };
        if self.work != Work::Count {
            let times = batch.event_times().expect("streams of simulations have event times");
            let at = match self.work.clock() {
                Clock::EventTime => times.iter().map(|time| alarm_after(*time)).collect(),
                Clock::ProcessingTime => vec![now.processing_time + REMIND_MS; rows],
            };
            let of_rows = (0..rows).map(|row| of_row(row) as u32).collect();
            updates.timers = vec![TimerUpdate { timer: 0, keys: of_rows, at, deleted: BooleanBuffer::new_unset(rows) }];
        }
        self.store.apply(&keys, &updates, None, moment(now)).map_err(failed)?;
        Ok(after)
    }

    fn fire(&mut self, due: &DueTimers, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let totals = self.totals(&due.keys, now)?;
        let keys = (0..due.len()).map(|number| key_of(due.keys.key_bytes(number)));
        let columns = vec![ints(keys), ints(due.at.iter().copied()), ints(totals)];
        let fired = Batch::try_new(self.schema.clone(), columns, due.len()).expect("columns of the schema");
        let mut updates = Updates::default();
        if self.work == Work::Remind {
            let all = due.keys.len();
            updates.values = vec![ValueUpdate { state: 0, changed: BooleanBuffer::new_set(all), values: ints(vec![0; all]) }];
        }
        self.store.apply(&due.keys, &updates, Some(due), moment(now)).map_err(failed)?;
        out.emit(0, fired.with_event_times(Some(due.at.clone().into())));
        Ok(())
    }

    fn fire_all(&mut self, clock: Clock, up_to: i64, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        while let Some(due) = self.store.due(clock, up_to, 5).map_err(failed)? {
            self.fire(&due, now, out)?;
        }
        Ok(())
    }
}

/// The time of the timer that a row at `time` sets.
pub fn alarm_after(time: i64) -> i64 {
    (time.div_euclid(ALARM_MS) + 1) * ALARM_MS
}

/// A key from its encoding, which keeps the order of numbers and so turns the sign around (`model::key`): a tag, then eight bytes.
fn key_of(encoded: &[u8]) -> i64 {
    let bytes = encoded.last_chunk::<8>().expect("the key is one Int64");
    (u64::from_be_bytes(*bytes) ^ (1 << 63)) as i64
}

#[async_trait]
impl Operator for Running {
    async fn on_batch(&mut self, _input: usize, batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let totals = self.add(&batch, now)?;
        if self.work == Work::Count {
            let columns = vec![batch.column(0).clone(), batch.column(1).clone(), ints(totals)];
            out.emit(0, batch.with_columns(self.schema.clone(), columns).expect("columns of the schema"));
        }
        Ok(())
    }

    async fn on_watermark(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        now.watermark.map_or(Ok(()), |watermark| self.fire_all(Clock::EventTime, watermark.0, now, out))
    }

    fn next_processing_time(&self) -> Option<i64> {
        self.store.next_timer(Clock::ProcessingTime)
    }

    async fn on_processing_time(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.fire_all(Clock::ProcessingTime, now.processing_time, now, out)
    }

    fn fires_event_timers(&self) -> bool {
        self.work == Work::Alarm
    }

    async fn on_timers_between_rows(&mut self, next_rows: &NextRows, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let up_to = now.watermark.map_or(i64::MIN, |watermark| watermark.0);
        while let Some(due) = self.store.due(Clock::EventTime, up_to, usize::MAX).map_err(failed)? {
            let fires = |&number: &u32| next_rows.of(due.keys.key_bytes(number as usize)).is_none_or(|next| due.at[number as usize] < next);
            let firing: Vec<u32> = (0..due.len() as u32).filter(fires).collect();
            if firing.is_empty() {
                break;
            }
            let due = due.select(&firing);
            let latest = due.at.iter().copied().max().unwrap_or(up_to);
            self.fire(&due, Moment { watermark: Some(Watermark(latest)), ..now }, out)?;
        }
        Ok(())
    }

    async fn on_end(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.fire_all(self.work.clock(), i64::MAX, now, out)
    }

    fn with_store(&mut self, work: &mut dyn FnMut(&mut KeyedStore)) {
        work(&mut self.store);
    }
}
