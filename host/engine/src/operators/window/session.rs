//! Session windows: a key's rows that follow each other in less than a gap.
//!
//! State per key: its latest session and the accumulators of that; and, since rows out of order may open several at a time, lists of the
//! earlier ones, which are touched only where there are any. Sessions of a key are disjoint. A key has one timer or more, none later than the first time at which one of its sessions fires or is forgotten; a session that grows keeps the
//! timer it has, which then finds nothing to do and sets the next one.
//!
//! As a changelog: a session whose bounds changed after it was emitted is deleted at once, and inserted again when it fires.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Int64Array, ListArray, StructArray, UInt32Array,
    cast::AsArray,
    types::{Int64Type, UInt32Type},
};
use arrow_buffer::{BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, FieldRef, Fields};
use arrow_select::interleave::interleave;
use async_trait::async_trait;
use millstream_model::{
    Batch,
    key::EncodedKeys,
    state::{Clock, StateDescriptor},
};
use millstream_state::{KeySet, KeyedStore, TimerUpdate, Updates, ValueUpdate};
use serde_json::Value;

use super::{
    aggregate::{Grouping, Run, component::RefusedRow, set::value_state},
    core::{Core, CorePlan, TIMER, earlier},
    early::Early,
    results::Spans,
    session_assign::{Assigned, Rows, Session, assign},
};
use crate::{
    element::Barrier,
    operator::{Moment, Operator, OperatorContext, OperatorError, Output},
    operators::{
        arrays::{items_of, take_or_null, take_rows},
        keyed::{state_error, state_moment, without_late},
        upgrade::Declared,
    },
};

/// Most timers handled in one call.
const PORTION: usize = 8_192;

/// What the operator is made from.
#[derive(Clone)]
pub struct SessionPlan {
    /// Keys, aggregates, results.
    pub core: CorePlan,
    /// The time between two rows from which on they are in two sessions.
    pub gap_ms: i64,
    /// How far behind the watermark rows may be.
    pub lateness_ms: i64,
    /// When results are emitted early.
    pub early: Option<Early>,
}

impl SessionPlan {
    fn changes(&self) -> bool {
        self.early.is_some() || self.lateness_ms > 0
    }

    fn expiry(&self, session: Session) -> i64 {
        session.end - 1 + self.lateness_ms
    }

    /// When something is next to be done about a session: to fire it, or to forget it.
    fn next_time(&self, session: Session, watermark: i64) -> i64 {
        if session.end - 1 > watermark { session.end - 1 } else { self.expiry(session) }
    }
}

/// Sessions of some keys, by key, then by start, with what belongs to them.
struct Held {
    /// Whether state holds lists of earlier sessions of these keys.
    has_earlier: bool,
    sessions: Vec<Session>,
    /// Per aggregate, one accumulator per session.
    accumulators: Vec<ArrayRef>,
    /// What was emitted, one struct of aggregate columns per session; null: nothing. None: results do not change.
    emitted: Option<ArrayRef>,
}

/// Session windows of one subtask.
pub struct SessionWindows {
    plan: SessionPlan,
    core: Core,
    has_more: bool,
}

impl SessionWindows {
    /// What is kept.
    pub fn declared(plan: &SessionPlan) -> Declared {
        let mut states = vec![
            value_state("session".into(), DataType::Struct(latest_fields()), 1),
            value_state("earlier".into(), list_of(DataType::Struct(session_fields())), 1),
        ];
        states.extend(plan.core.aggregates.iter().map(|aggregate| {
            let state = aggregate.state(list_of);
            StateDescriptor { name: earlier(&state.name), ..state }
        }));
        if plan.changes() {
            states.push(value_state("emitted".into(), list_of(plan.core.shape.emitted_type()), 1));
        }
        plan.core.declared(states, "session")
    }

    /// Opens state and aggregates.
    ///
    /// # Errors
    /// They cannot be opened.
    pub async fn open(plan: SessionPlan, context: &OperatorContext) -> Result<Self, OperatorError> {
        let core = Core::open(&plan.core, Self::declared(&plan), context).await?;
        let mut operator = Self { plan, core, has_more: false };
        if let Some(restored) = &context.restored {
            operator.restore_early(&restored.values)?;
        }
        Ok(operator)
    }

    /// Every key with a session has a timer.
    fn restore_early(&mut self, remembered: &[Value]) -> Result<(), OperatorError> {
        let Some(early) = &mut self.plan.early else { return Ok(()) };
        let held = self.core.store.due(Clock::EventTime, i64::MAX, usize::MAX).map_err(state_error)?;
        early.restore(remembered, |changed| {
            let keys = held.iter().flat_map(|held| (0..held.len()).map(|number| (&held.keys, number)));
            keys.for_each(|(keys, number)| {
                changed.insert(keys.key_bytes(number), keys.hash(number), keys.group(number), 0);
            });
        });
        Ok(())
    }

    fn session_state(&self) -> usize {
        self.core.aggregates.len()
    }

    fn earlier_state(&self) -> usize {
        self.session_state() + 1
    }

    /// The state with the accumulators of earlier sessions.
    fn earlier_accumulators_state(&self, aggregate: usize) -> usize {
        self.earlier_state() + 1 + aggregate
    }

    fn emitted_state(&self) -> usize {
        self.earlier_accumulators_state(self.core.aggregates.len())
    }

    fn load(&mut self, keys: &KeySet, now: Moment) -> Result<Held, OperatorError> {
        let latest = self.core.store.load(self.session_state(), keys, state_moment(now)).map_err(state_error)?;
        let latest_accumulators = self.core.load_accumulators(keys, now)?;
        let latest = Latest::of(latest.as_struct());
        let (mut sessions, mut accumulators) = (latest.sessions(), latest_accumulators);
        if latest.has_earlier() {
            let lists = self.core.store.load(self.earlier_state(), keys, state_moment(now)).map_err(state_error)?;
            let (items, key_of_item) = items_of(lists.as_list());
            let places = latest.places(&key_of_item);
            sessions = latest.with_earlier(items.as_struct(), &places, &key_of_item);
            for (aggregate, accumulators) in accumulators.iter_mut().enumerate() {
                let state = self.earlier_accumulators_state(aggregate);
                let lists = self.core.store.load(state, keys, state_moment(now)).map_err(state_error)?;
                let (items, _) = items_of(lists.as_list());
                *accumulators = interleave(&[accumulators.as_ref(), items.as_ref()], &places).expect("both hold accumulators of one type");
            }
        } else if sessions.len() < keys.len() {
            let keys: Vec<u32> = sessions.iter().map(|session| session.key).collect();
            accumulators.iter_mut().for_each(|accumulators| *accumulators = take_rows(accumulators, &keys));
        }
        let mut emitted = None;
        if self.plan.changes() {
            let lists = self.core.store.load(self.emitted_state(), keys, state_moment(now)).map_err(state_error)?;
            emitted = Some(items_of(lists.as_list()).0);
        }
        Ok(Held { has_earlier: latest.has_earlier(), sessions, accumulators, emitted })
    }

    /// Writes the sessions of all keys of a set.
    fn updates(&self, held: &Held, keys: usize) -> Vec<ValueUpdate> {
        let update = |state, values| ValueUpdate { state, changed: BooleanBuffer::new_set(keys), values };
        let (mut latest, mut earlier_counts) = (vec![None; keys], vec![0_u32; keys]);
        for (number, session) in held.sessions.iter().enumerate() {
            let before: Option<u32> = latest[session.key as usize].replace(number as u32);
            earlier_counts[session.key as usize] += u32::from(before.is_some());
        }
        let is_one_each = held.sessions.len() == keys && latest.iter().all(Option::is_some);
        let latest_numbers: UInt32Array = latest.iter().copied().collect();
        let of_latest = |array: &ArrayRef| if is_one_each { Arc::clone(array) } else { take_or_null(array, &latest_numbers) };
        let mut updates: Vec<_> = held.accumulators.iter().enumerate().map(|(state, array)| update(state, of_latest(array))).collect();
        updates.push(update(self.session_state(), latest_column(&held.sessions, &latest, &earlier_counts)));
        let nulls = |counts: &[u32]| Some(NullBuffer::from_iter(counts.iter().map(|&count| count > 0)));
        let list = |counts: &[u32], items: ArrayRef| -> ArrayRef {
            let offsets = OffsetBuffer::<i32>::from_lengths(counts.iter().map(|&count| count as usize));
            Arc::new(ListArray::new(item_field(items.data_type().clone()), offsets, items, nulls(counts)))
        };
        if held.has_earlier || earlier_counts.iter().any(|&count| count > 0) {
            let is_earlier = |number: &u32| latest[held.sessions[*number as usize].key as usize] != Some(*number);
            let earlier: Vec<u32> = (0..held.sessions.len() as u32).filter(is_earlier).collect();
            let sessions = take_rows(&session_column(&held.sessions), &earlier);
            updates.push(update(self.earlier_state(), list(&earlier_counts, sessions)));
            let of_aggregate = |(aggregate, array): (usize, &ArrayRef)| {
                update(self.earlier_accumulators_state(aggregate), list(&earlier_counts, take_rows(array, &earlier)))
            };
            updates.extend(held.accumulators.iter().enumerate().map(of_aggregate));
        }
        if let Some(emitted) = &held.emitted {
            let counts: Vec<u32> = (0..keys).map(|key| earlier_counts[key] + u32::from(latest[key].is_some())).collect();
            updates.push(update(self.emitted_state(), list(&counts, Arc::clone(emitted))));
        }
        updates
    }

    async fn accumulate(&mut self, batch: &Batch, now: Moment, out: &mut Output) -> Result<Result<(), Vec<RefusedRow>>, OperatorError> {
        let set = self.core.store.resolve(self.core.encode_keys(batch)?).map_err(state_error)?;
        let before = self.load(&set, now)?;
        let times = batch.event_times().expect("sessions are planned only on streams with event time");
        let of_row = set.of_row().filter(|_| self.core.is_keyed());
        let rows = Rows { keys: of_row.map(|of_row| &of_row[..]), times };
        let every_row: Vec<u32>;
        let rows = if self.core.is_keyed() && of_row.is_none() {
            every_row = (0..batch.num_rows() as u32).collect();
            Rows { keys: Some(&every_row), times }
        } else {
            rows
        };
        let assigned = assign(&before.sessions, rows, set.len(), self.plan.gap_ms);
        let base = self.merged(&before, &assigned).await?;
        let runs;
        let grouping = if self.core.is_keyed() {
            Grouping::Rows(&assigned.of_row)
        } else {
            runs = Run::all(&assigned.of_row);
            Grouping::Runs(&runs)
        };
        let done = self.core.aggregates.accumulate(batch, grouping, &base).await?;
        if !done.refused.is_empty() {
            return Ok(Err(done.refused));
        }
        let watermark = watermark_of(now);
        let timers = self.timers(&before.sessions, &assigned.sessions, set.len(), watermark);
        let emitted = self.take_back(&set, &before, &assigned, out)?;
        let mut held = Held { has_earlier: before.has_earlier, sessions: assigned.sessions, accumulators: done.accumulators, emitted };
        self.emit_complete(&set, &mut held, watermark, out).await?;
        if let Some(early) = &mut self.plan.early {
            (0..set.len()).for_each(|key| {
                early.note_changed(now, |changed| changed.insert(set.key_bytes(key), set.hash(key), set.group(key), 0));
            });
        }
        let updates = Updates { values: self.updates(&held, set.len()), timers, ..Updates::default() };
        self.core.store.apply(&set, &updates, None, state_moment(now)).map_err(state_error)?;
        Ok(Ok(()))
    }

    /// The accumulators of the sessions before any row of the batch: those of the sessions they are made of, merged in order of time.
    async fn merged(&mut self, before: &Held, assigned: &Assigned) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut first: Vec<Option<u32>> = vec![None; assigned.sessions.len()];
        let (mut others, mut into) = (Vec::new(), Vec::new());
        for (existing, &session) in assigned.of_existing.iter().enumerate() {
            if first[session as usize].is_none() {
                first[session as usize] = Some(existing as u32);
            } else {
                others.push(existing as u32);
                into.push(session);
            }
        }
        let first: UInt32Array = first.into_iter().collect();
        let base: Vec<ArrayRef> = before.accumulators.iter().map(|accumulators| take_or_null(accumulators, &first)).collect();
        if others.is_empty() {
            return Ok(base);
        }
        let others: Vec<ArrayRef> = before.accumulators.iter().map(|accumulators| take_rows(accumulators, &others)).collect();
        self.core.aggregates.merge(&base, &others, &into).await
    }

    /// What remains emitted after sessions got other bounds; what does not is deleted downstream.
    fn take_back(&self, set: &KeySet, before: &Held, assigned: &Assigned, out: &mut Output) -> Result<Option<ArrayRef>, OperatorError> {
        let Some(emitted) = &before.emitted else { return Ok(None) };
        let mut keeps: Vec<Option<u32>> = vec![None; assigned.sessions.len()];
        let mut gone = Vec::new();
        for (existing, &session) in assigned.of_existing.iter().enumerate() {
            if assigned.sessions[session as usize] == before.sessions[existing] {
                keeps[session as usize] = Some(existing as u32);
            } else if emitted.is_valid(existing) {
                gone.push(existing as u32);
            }
        }
        if !gone.is_empty() {
            let sessions = gone.iter().map(|&existing| before.sessions[existing as usize]);
            let (keys, spans) = keys_and_spans(set, sessions);
            let placeholder = take_rows(emitted, &gone).as_struct().columns().to_vec();
            let results = self.core.shape.rows(keys, spans, placeholder)?;
            self.core.shape.emit_deletions(&results, &take_rows(emitted, &gone), out);
        }
        Ok(Some(take_or_null(emitted, &keeps.into_iter().collect())))
    }

    /// Timers for keys that now have something to do earlier than before.
    fn timers(&self, before: &[Session], after: &[Session], keys: usize, watermark: i64) -> Vec<TimerUpdate> {
        let earliest = |sessions: &[Session]| {
            let mut times = vec![i64::MAX; keys];
            for session in sessions {
                let time = &mut times[session.key as usize];
                *time = (*time).min(self.plan.next_time(*session, watermark));
            }
            times
        };
        let (before, after) = (earliest(before), earliest(after));
        let keys: Vec<u32> = (0..keys as u32).filter(|&key| after[key as usize] < before[key as usize]).collect();
        let at = keys.iter().map(|&key| after[key as usize]).collect();
        set_timers(keys, at)
    }

    /// Emits the sessions that are complete; as a changelog what differs from before.
    async fn emit_complete(&mut self, set: &KeySet, held: &mut Held, watermark: i64, out: &mut Output) -> Result<(), OperatorError> {
        let is_complete = |session: &Session| session.end - 1 <= watermark;
        self.emit(set, held, is_complete, out).await
    }

    async fn emit(
        &mut self,
        set: &KeySet,
        held: &mut Held,
        which: impl Fn(&Session) -> bool,
        out: &mut Output,
    ) -> Result<(), OperatorError> {
        let chosen: Vec<u32> = (0..held.sessions.len() as u32).filter(|&number| which(&held.sessions[number as usize])).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let accumulators: Vec<ArrayRef> = held.accumulators.iter().map(|accumulators| take_rows(accumulators, &chosen)).collect();
        let finished = self.core.aggregates.finish(&accumulators).await?;
        let (keys, spans) = keys_and_spans(set, chosen.iter().map(|&number| held.sessions[number as usize]));
        let results = self.core.shape.results(keys, spans, finished)?;
        let Some(emitted) = &held.emitted else {
            self.core.shape.emit(&results.rows, &results.without, out);
            return Ok(());
        };
        let before = take_rows(emitted, &chosen);
        let now = self.core.shape.emit_changes(&results.rows, &results.without, before.as_struct(), out);
        let mut places: Vec<(usize, usize)> = (0..held.sessions.len()).map(|number| (0, number)).collect();
        chosen.iter().enumerate().for_each(|(index, &number)| places[number as usize] = (1, index));
        held.emitted = Some(interleave(&[emitted.as_ref(), &now.values], &places).expect("both are structs of the result columns"));
        Ok(())
    }

    /// Emits the sessions of keys with due timers and forgets those that can no longer change: a portion.
    async fn fire(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let watermark = watermark_of(now);
        let Some(due) = self.core.store.due(Clock::EventTime, watermark, PORTION).map_err(state_error)? else {
            let due = self.plan.early.as_mut().is_some_and(|early| early.is_due_at_watermark(now));
            return if due { self.fire_early(now, out).await } else { Ok(()) };
        };
        // Other timers of these keys, and early results, come with the next call.
        self.has_more = true;
        let mut held = self.load(&due.keys, now)?;
        self.emit_complete(&due.keys, &mut held, watermark, out).await?;
        let kept: Vec<u32> =
            (0..held.sessions.len() as u32).filter(|&number| self.plan.expiry(held.sessions[number as usize]) > watermark).collect();
        let held = held.select(&kept);
        let timers = self.timers(&[], &held.sessions, due.len(), watermark);
        let updates = Updates { values: self.updates(&held, due.len()), timers, ..Updates::default() };
        self.core.store.apply(&due.keys, &updates, Some(&due), state_moment(now)).map_err(state_error)
    }

    /// Emits the sessions of keys that had rows since the last time.
    async fn fire_early(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let Some(early) = &mut self.plan.early else { return Ok(()) };
        let changed = early.take_changed();
        for (_, pane) in changed.panes(i64::MIN..i64::MAX) {
            let mut keys = EncodedKeys::default();
            (0..pane.len()).for_each(|number| keys.push(pane.key(number)));
            let set = self.core.store.resolve(keys).map_err(state_error)?;
            let mut held = self.load(&set, now)?;
            self.emit(&set, &mut held, |_| true, out).await?;
            let updates = Updates { values: self.updates(&held, set.len()), ..Updates::default() };
            self.core.store.apply(&set, &updates, None, state_moment(now)).map_err(state_error)?;
        }
        Ok(())
    }
}

impl Held {
    fn select(&self, numbers: &[u32]) -> Self {
        Self {
            has_earlier: self.has_earlier,
            sessions: numbers.iter().map(|&number| self.sessions[number as usize]).collect(),
            accumulators: self.accumulators.iter().map(|accumulators| take_rows(accumulators, numbers)).collect(),
            emitted: self.emitted.as_ref().map(|emitted| take_rows(emitted, numbers)),
        }
    }
}

fn watermark_of(now: Moment) -> i64 {
    now.watermark.map_or(i64::MIN, |watermark| watermark.0)
}

fn set_timers(keys: Vec<u32>, at: Vec<i64>) -> Vec<TimerUpdate> {
    if keys.is_empty() {
        return Vec::new();
    }
    let deleted = BooleanBuffer::new_unset(keys.len());
    vec![TimerUpdate { timer: TIMER, keys, at, deleted }]
}

fn keys_and_spans(set: &KeySet, sessions: impl Iterator<Item = Session>) -> (Vec<&[u8]>, Spans) {
    let mut spans = Spans::default();
    let keys = sessions.map(|session| {
        spans.push(session.start, session.end);
        set.key_bytes(session.key as usize)
    });
    (keys.collect(), spans)
}

fn session_fields() -> Fields {
    Fields::from(vec![Field::new("start", DataType::Int64, false), Field::new("end", DataType::Int64, false)])
}

/// The latest session of every key, and how many earlier ones lie in lists.
fn latest_fields() -> Fields {
    session_fields().iter().cloned().chain([Arc::new(Field::new("earlier", DataType::UInt32, false))]).collect()
}

fn latest_column(sessions: &[Session], latest: &[Option<u32>], earlier_counts: &[u32]) -> ArrayRef {
    let of = |of: fn(&Session) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(latest.iter().map(|number| number.map_or(0, |number| of(&sessions[number as usize])))))
    };
    let earlier: ArrayRef = Arc::new(UInt32Array::from(earlier_counts.to_vec()));
    let nulls = NullBuffer::from_iter(latest.iter().map(Option::is_some));
    let columns = vec![of(|session| session.start), of(|session| session.end), earlier];
    Arc::new(StructArray::new(latest_fields(), columns, Some(nulls).filter(|nulls| nulls.null_count() > 0)))
}

/// The latest session of every key, as loaded.
struct Latest<'a> {
    loaded: &'a StructArray,
    starts: &'a [i64],
    ends: &'a [i64],
    earlier: &'a [u32],
}

impl<'a> Latest<'a> {
    fn of(loaded: &'a StructArray) -> Self {
        let times = |column: usize| &loaded.column(column).as_primitive::<Int64Type>().values()[..];
        Self { loaded, starts: times(0), ends: times(1), earlier: loaded.column(2).as_primitive::<UInt32Type>().values() }
    }

    fn of_key(&self, key: usize) -> Option<Session> {
        self.loaded.is_valid(key).then(|| Session { key: key as u32, start: self.starts[key], end: self.ends[key] })
    }

    fn sessions(&self) -> Vec<Session> {
        (0..self.loaded.len()).filter_map(|key| self.of_key(key)).collect()
    }

    fn has_earlier(&self) -> bool {
        (0..self.loaded.len()).any(|key| self.loaded.is_valid(key) && self.earlier[key] > 0)
    }

    /// Where the sessions of all keys are, in order: (0, key) for a latest one, (1, item) for an earlier one.
    fn places(&self, key_of_item: &[u32]) -> Vec<(usize, usize)> {
        let mut items = key_of_item.iter().enumerate().peekable();
        let mut places = Vec::new();
        for key in 0..self.loaded.len() {
            while let Some((item, _)) = items.next_if(|(_, of)| **of as usize == key) {
                places.push((1, item));
            }
            places.extend(self.loaded.is_valid(key).then_some((0, key)));
        }
        places
    }

    fn with_earlier(&self, items: &StructArray, places: &[(usize, usize)], key_of_item: &[u32]) -> Vec<Session> {
        let times = |column: usize| items.column(column).as_primitive::<Int64Type>().values();
        let (starts, ends) = (times(0), times(1));
        let session = |&(from, index): &(usize, usize)| match from {
            0 => self.of_key(index).expect("a place is that of a session"),
            _ => Session { key: key_of_item[index], start: starts[index], end: ends[index] },
        };
        places.iter().map(session).collect()
    }
}

fn session_column(sessions: &[Session]) -> ArrayRef {
    let column = |of: fn(&Session) -> i64| -> ArrayRef { Arc::new(Int64Array::from_iter_values(sessions.iter().map(of))) };
    let columns = vec![column(|session| session.start), column(|session| session.end)];
    Arc::new(StructArray::new(session_fields(), columns, None))
}

fn item_field(data_type: DataType) -> FieldRef {
    Arc::new(Field::new("item", data_type, true))
}

fn list_of(item: DataType) -> DataType {
    DataType::List(item_field(item))
}

#[async_trait]
impl Operator for SessionWindows {
    async fn on_batch(&mut self, _input: usize, batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let cutoff = now.watermark.map(|watermark| watermark.0.saturating_sub(self.plan.lateness_ms));
        let Some(mut batch) = without_late(batch, cutoff, out) else { return Ok(()) };
        while let Err(refused) = self.accumulate(&batch, now, out).await? {
            match self.core.reject(&batch, &refused, out) {
                Some(rest) => batch = rest,
                None => break,
            }
        }
        Ok(())
    }

    async fn on_watermark(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = false;
        self.fire(now, out).await
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn next_processing_time(&self) -> Option<i64> {
        self.plan.early.as_ref().and_then(Early::next_processing_time)
    }

    async fn on_processing_time(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = false;
        self.fire_early(now, out).await
    }

    async fn on_barrier(&mut self, _barrier: Barrier) -> Result<Value, OperatorError> {
        Ok(self.plan.early.as_ref().map_or(Value::Null, Early::remembered))
    }

    fn with_store(&mut self, work: &mut dyn FnMut(&mut KeyedStore)) {
        work(&mut self.core.store);
    }

    async fn on_end(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.on_watermark(now, out).await
    }
}
