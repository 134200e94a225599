//! Two answers to one call, compared.
//!
//! Rows of an output are compared as multisets, since no order is promised between keys; times and changes belong to a row. Values are compared as they
//! would be afterwards, so who writes what was there already differs from nobody; maps and lists by what is written to them, timers by whether they would
//! be set. Equality is exact, bit by bit for floats.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use arrow_array::{Array, ArrayRef, Int64Array, UInt8Array};
use arrow_buffer::BooleanBuffer;
use arrow_cast::display::array_value_to_string;
use arrow_ord::ord::{DynComparator, make_comparator};
use arrow_schema::{Field, Schema, SortOptions};
use arrow_select::interleave::interleave;
use millstream_model::Batch;
use millstream_wasm::{CallKeys, From, ListUpdate, MapUpdate, Rejected, TimerUpdate, Updates, ValueUpdate};
use serde_json::{Value, json};

use super::super::{
    answer::{Answer, Asked, Given},
    plan::ComponentOperatorPlan,
};
use crate::{
    rejected::row_json,
    run::{Compared, DifferenceAt, TrialDifference},
};

/// The longest answer that is shown whole, as JSON.
const SHOWN_BYTES_MAX: usize = 4 << 10;

/// What is compared.
pub(super) struct Sides<'a> {
    /// The plan of the old version.
    pub(super) plan: &'a ComponentOperatorPlan,
    pub(super) asked: &'a Asked<'a>,
    /// The values that both got, as the old version counts.
    pub(super) values: Option<&'a CallKeys>,
    pub(super) old: &'a Answer,
    /// Its updates are numbered as the old version counts.
    pub(super) new: &'a Answer,
}

/// Counts what differs, with at most so many samples.
pub(super) fn compare(sides: &Sides<'_>, samples_max: usize) -> Compared {
    let mut finding = Finding { sides, samples_max, compared: Compared::default() };
    finding.compared.counts.rows = sides.asked.len() as u64;
    finding.outputs();
    finding.updates();
    finding.rejects();
    finding.compared
}

struct Finding<'a> {
    sides: &'a Sides<'a>,
    samples_max: usize,
    compared: Compared,
}

impl Finding<'_> {
    /// Keeps a sample, if it is not too large to be shown.
    fn sample(&mut self, difference: TrialDifference) {
        let TrialDifference { old, new, .. } = difference;
        let (old, new) = (old.map(shortened), new.map(shortened));
        self.compared.samples.push(TrialDifference { old, new, ..difference });
    }

    fn wants_samples(&self) -> bool {
        self.compared.samples.len() < self.samples_max
    }

    fn outputs(&mut self) {
        for port in 0..self.sides.plan.layouts.len() {
            let has_changes = self.sides.plan.layouts[port].changes;
            let old = Emitted::of(&self.sides.old.outputs, port, has_changes);
            let new = Emitted::of(&self.sides.new.outputs, port, has_changes);
            let (missing, extra) = unequal(&old.columns, old.rows, &new.columns, new.rows);
            let counts = &mut self.compared.counts;
            counts.rows_missing += missing.len() as u64;
            counts.rows_extra += extra.len() as u64;
            counts.rows_differing += missing.len().max(extra.len()) as u64;
            self.sample_rows(port, (&old, missing), (&new, extra));
        }
    }

    /// Rows that come from one row are shown together.
    fn sample_rows(&mut self, port: usize, (old, missing): (&Emitted, Vec<usize>), (new, mut extra): (&Emitted, Vec<usize>)) {
        for row in missing {
            if !self.wants_samples() {
                return;
            }
            let partner = extra.iter().position(|&other| old.from[row].is_some() && new.from[other] == old.from[row]);
            let partner = partner.map(|at| extra.swap_remove(at));
            self.sample_row(port, old.from[row], Some((old, row)), partner.map(|row| (new, row)));
        }
        for row in extra {
            if !self.wants_samples() {
                return;
            }
            self.sample_row(port, new.from[row], None, Some((new, row)));
        }
    }

    fn sample_row(&mut self, port: usize, from: Option<u32>, old: Option<(&Emitted, usize)>, new: Option<(&Emitted, usize)>) {
        let shown = |side: Option<(&Emitted, usize)>| side.map(|(side, row)| side.shown(row));
        let name = self.sides.plan.descriptor.outputs[port].clone();
        let difference = TrialDifference { old: shown(old), new: shown(new), ..self.of_row(DifferenceAt::Output(name), from) };
        self.sample(difference);
    }

    /// A difference about an input row or timer, as far as it is known where that comes from.
    fn of_row(&self, at: DifferenceAt, row: Option<u32>) -> TrialDifference {
        let nowhere = TrialDifference { at, key_hash: None, source: None, position: None, old: None, new: None };
        let Some(row) = row.map(|row| row as usize) else { return nowhere };
        let rejection = match self.sides.asked {
            Asked::Rows { port, batch, keys } => self.sides.plan.rejection(*port, batch, row, keys.as_deref(), String::new()),
            Asked::Timers(timers) => self.sides.plan.timer_rejection(timers, row, String::new()),
        };
        let source = rejection.source.map(|source| source.to_string());
        TrialDifference { key_hash: rejection.key_hash, source, position: rejection.position, ..nowhere }
    }

    fn rejects(&mut self) {
        let rows = |rejected: &[Rejected]| rejected.iter().map(|rejected| rejected.row).collect::<BTreeSet<u32>>();
        let (old, new) = (rows(&self.sides.old.rejected), rows(&self.sides.new.rejected));
        self.compared.counts.rejects_missing += old.difference(&new).count() as u64;
        self.compared.counts.rejects_extra += new.difference(&old).count() as u64;
        for &row in old.symmetric_difference(&new) {
            if !self.wants_samples() {
                return;
            }
            let reason =
                |rejected: &[Rejected]| rejected.iter().find(|rejected| rejected.row == row).map(|rejected| json!(rejected.reason));
            let (old, new) = (reason(&self.sides.old.rejected), reason(&self.sides.new.rejected));
            let difference = TrialDifference { old, new, ..self.of_row(DifferenceAt::Rejected, Some(row)) };
            self.sample(difference);
        }
    }

    fn updates(&mut self) {
        let (old, new) = (&self.sides.old.updates, &self.sides.new.updates);
        if old.is_empty() && new.is_empty() {
            return;
        }
        self.values(old, new);
        self.written(maps(old), maps(new), |finding, state| DifferenceAt::State(finding.state_name(state)));
        self.written(lists(old), lists(new), |finding, state| DifferenceAt::State(finding.state_name(state)));
        self.written(timers(old), timers(new), |finding, timer| DifferenceAt::Timer(finding.timer_name(timer)));
    }

    fn state_name(&self, state: u32) -> String {
        self.sides.plan.guest.states[state as usize].name.clone()
    }

    fn timer_name(&self, timer: u32) -> String {
        self.sides.plan.guest.timers[timer as usize].name.clone()
    }

    fn values(&mut self, old: &Updates, new: &Updates) {
        let Some(before) = self.sides.values else { return };
        for (state, values) in self.sides.plan.guest.keyed_value_states().zip(&before.values) {
            let of = |updates: &Updates| updates.values.iter().find(|update| update.state == state).cloned();
            let (old, new) = (of(old), of(new));
            if same_update(old.as_ref(), new.as_ref()) {
                continue;
            }
            let expires = self.sides.plan.guest.states[state as usize].ttl.is_some();
            let (old_after, new_after) = (after(values, old.as_ref()), after(values, new.as_ref()));
            let order = ordering(&old_after, &new_after);
            let is_written = |update: &Option<ValueUpdate>, key: usize| update.as_ref().is_some_and(|update| update.changed.value(key));
            for key in 0..values.len() {
                // Who writes the same again has it live longer.
                let lives_differently = expires && is_written(&old, key) != is_written(&new, key);
                if order(key, key) != Ordering::Equal || lives_differently {
                    let shown = |values: &ArrayRef| values.is_valid(key).then(|| value_shown(values, key));
                    let at = DifferenceAt::State(self.state_name(state));
                    self.differs(at, key as u32, shown(&old_after), shown(&new_after));
                }
            }
        }
    }

    /// Places that both or only one has written to: (state or timer, key, place) → what is there then.
    fn written<P: Ord + Clone>(
        &mut self,
        mut old: BTreeMap<(u32, u32, P), Value>,
        new: BTreeMap<(u32, u32, P), Value>,
        at: impl Fn(&Self, u32) -> DifferenceAt,
    ) {
        for (place, new) in new {
            let (number, key, _) = place;
            match old.remove(&place) {
                Some(old) if old == new => {}
                old => self.differs(at(self, number), key, old, Some(new)),
            }
        }
        for ((number, key, _), old) in old {
            self.differs(at(self, number), key, Some(old), None);
        }
    }

    fn differs(&mut self, at: DifferenceAt, key: u32, old: Option<Value>, new: Option<Value>) {
        self.compared.counts.updates_differing += 1;
        if self.wants_samples() {
            let key_hash = self.sides.asked.keys().map(|keys| keys.hash(key as usize));
            self.sample(TrialDifference { at, key_hash, source: None, position: None, old, new });
        }
    }
}

/// All rows that a version emits on one output in a call.
struct Emitted {
    rows: usize,
    /// With times and changes, if it has them.
    columns: Vec<ArrayRef>,
    from: Vec<Option<u32>>,
    batch: Option<Batch>,
}

impl Emitted {
    fn of(outputs: &[Given], port: usize, has_changes: bool) -> Self {
        let given: Vec<&Given> = outputs.iter().filter(|given| given.port == port && given.batch.num_rows() > 0).collect();
        let batches: Vec<Batch> = given.iter().map(|given| with_changes(given.batch.clone(), has_changes)).collect();
        let batch = match &batches[..] {
            [] => return Self { rows: 0, columns: Vec::new(), from: Vec::new(), batch: None },
            [one] => one.clone(),
            several => Batch::concat(several).expect("rows of one output have one type"),
        };
        let mut columns = batch.columns().columns().to_vec();
        columns.extend(batch.event_times().map(|times| Arc::new(Int64Array::new(times.clone(), None)) as ArrayRef));
        columns.extend(batch.changes().map(|changes| Arc::new(UInt8Array::new(changes.clone(), None)) as ArrayRef));
        let from = given.iter().flat_map(|given| (0..given.batch.num_rows()).map(|row| from_of(&given.from, row))).collect();
        Self { rows: batch.num_rows(), columns, from, batch: Some(batch) }
    }

    /// A row for people.
    fn shown(&self, row: usize) -> Value {
        let Some(batch) = &self.batch else { return Value::Null };
        let all: Vec<usize> = (0..batch.columns().num_columns()).collect();
        let mut shown = parsed(row_json(batch, row, &all));
        if let (Value::Object(fields), Some(time)) = (&mut shown, batch.event_time(row)) {
            fields.entry("(event time)").or_insert(json!(time.0));
        }
        if let (Value::Object(fields), Some(changes)) = (&mut shown, batch.changes()) {
            fields.entry("(change)").or_insert(json!(changes[row]));
        }
        shown
    }
}

/// No changes are all inserts.
fn with_changes(batch: Batch, has_changes: bool) -> Batch {
    if !has_changes || batch.changes().is_some() {
        return batch;
    }
    let inserts = vec![0_u8; batch.num_rows()];
    batch.with_changes(Some(inserts.into()))
}

fn from_of(from: &From, row: usize) -> Option<u32> {
    match from {
        From::Identity => Some(row as u32),
        From::Rows(rows) => Some(rows[row]),
        From::None => None,
    }
}

/// The rows that only one side has, as multisets.
fn unequal(old: &[ArrayRef], old_rows: usize, new: &[ArrayRef], new_rows: usize) -> (Vec<usize>, Vec<usize>) {
    let is_same = |(old, new): (&ArrayRef, &ArrayRef)| Arc::ptr_eq(old, new) || old.as_ref() == new.as_ref();
    if old_rows == 0 || new_rows == 0 {
        return ((0..old_rows).collect(), (0..new_rows).collect());
    }
    if old_rows == new_rows && old.iter().zip(new).all(is_same) {
        return (Vec::new(), Vec::new());
    }
    let between = RowOrder::between(old, new);
    // Most rows stand where they stood; what is left is sorted.
    let (mut of_old, mut of_new) = if old_rows == new_rows {
        let left: Vec<usize> = (0..old_rows).filter(|&row| between.of(row, row) != Ordering::Equal).collect();
        (left.clone(), left)
    } else {
        let shorter = old_rows.min(new_rows);
        let head = (0..shorter).take_while(|&row| between.of(row, row) == Ordering::Equal).count();
        let is_tail = |&back: &usize| between.of(old_rows - back, new_rows - back) == Ordering::Equal;
        let tail = (1..=shorter - head).take_while(is_tail).count();
        ((head..old_rows - tail).collect(), (head..new_rows - tail).collect())
    };
    let (within_old, within_new) = (RowOrder::between(old, old), RowOrder::between(new, new));
    of_old.sort_by(|&one, &other| within_old.of(one, other));
    of_new.sort_by(|&one, &other| within_new.of(one, other));
    only_in_one(&of_old, &of_new, &between)
}

fn only_in_one(old: &[usize], new: &[usize], between: &RowOrder) -> (Vec<usize>, Vec<usize>) {
    let (mut missing, mut extra) = (Vec::new(), Vec::new());
    let (mut of_old, mut of_new) = (old.iter().copied().peekable(), new.iter().copied().peekable());
    while let (Some(&one), Some(&other)) = (of_old.peek(), of_new.peek()) {
        match between.of(one, other) {
            Ordering::Less => missing.extend(of_old.next()),
            Ordering::Greater => extra.extend(of_new.next()),
            Ordering::Equal => drop((of_old.next(), of_new.next())),
        }
    }
    missing.extend(of_old);
    extra.extend(of_new);
    // In the order of the rows, for people.
    missing.sort_unstable();
    extra.sort_unstable();
    (missing, extra)
}

/// Any total order of rows, column by column.
struct RowOrder(Vec<DynComparator>);

impl RowOrder {
    fn between(left: &[ArrayRef], right: &[ArrayRef]) -> Self {
        Self(left.iter().zip(right).map(|(left, right)| ordering(left, right)).collect())
    }

    fn of(&self, left: usize, right: usize) -> Ordering {
        self.0.iter().map(|column| column(left, right)).find(|&order| order != Ordering::Equal).unwrap_or(Ordering::Equal)
    }
}

/// Types without an order of their own are ordered by their text.
fn ordering(left: &ArrayRef, right: &ArrayRef) -> DynComparator {
    make_comparator(left.as_ref(), right.as_ref(), SortOptions::default()).unwrap_or_else(|_no_order| {
        let (left, right) = (left.clone(), right.clone());
        Box::new(move |one, other| text(&left, one).cmp(&text(&right, other)))
    })
}

fn text(values: &ArrayRef, at: usize) -> String {
    array_value_to_string(values.as_ref(), at).unwrap_or_default()
}

fn same_update(old: Option<&ValueUpdate>, new: Option<&ValueUpdate>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => old.changed == new.changed && old.values.as_ref() == new.values.as_ref(),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// The value of each key after an update.
fn after(before: &ArrayRef, update: Option<&ValueUpdate>) -> ArrayRef {
    let Some(ValueUpdate { changed, values, .. }) = update else { return before.clone() };
    let mut next = 0..values.len();
    let place = |key: usize| match changed.value(key).then(|| next.next()).flatten() {
        Some(at) => (1, at),
        None => (0, key),
    };
    let places: Vec<(usize, usize)> = (0..before.len()).map(place).collect();
    interleave(&[before.as_ref(), values.as_ref()], &places).expect("a value has the type of its state")
}

/// By (state, key, map key): what the last entry leaves there.
fn maps(updates: &Updates) -> BTreeMap<(u32, u32, String), Value> {
    let mut written = BTreeMap::new();
    for MapUpdate { state, keys, map_keys, values, deleted } in &updates.maps {
        for at in 0..keys.len() {
            let map_key = text(map_keys, at);
            let value = if is_set(deleted.as_ref(), at) { Value::Null } else { json!(text(values, at)) };
            written.insert((*state, keys[at], map_key.clone()), json!({ "key": map_key, "value": value }));
        }
    }
    written
}

/// By (state, key): whether it is emptied first, and what is appended.
fn lists(updates: &Updates) -> BTreeMap<(u32, u32, ()), Value> {
    let mut written: HashMap<(u32, u32), (bool, Vec<String>)> = HashMap::new();
    for ListUpdate { state, cleared, keys, values } in &updates.lists {
        cleared.iter().for_each(|&key| written.entry((*state, key)).or_default().0 = true);
        keys.iter().enumerate().for_each(|(at, &key)| written.entry((*state, key)).or_default().1.push(text(values, at)));
    }
    let shown = |(cleared, appended): (bool, Vec<String>)| json!({ "cleared": cleared, "appended": appended });
    written.into_iter().map(|((state, key), list)| ((state, key, ()), shown(list))).collect()
}

/// By (timer, key, time): whether it is set in the end.
fn timers(updates: &Updates) -> BTreeMap<(u32, u32, i64), Value> {
    let mut written = BTreeMap::new();
    for TimerUpdate { timer, keys, at, deleted } in &updates.timers {
        for number in 0..keys.len() {
            let is_set = !is_set(deleted.as_ref(), number);
            written.insert((*timer, keys[number], at[number]), json!({ "at": at[number], "set": is_set }));
        }
    }
    written
}

fn is_set(bits: Option<&BooleanBuffer>, at: usize) -> bool {
    bits.is_some_and(|bits| bits.value(at))
}

fn value_shown(values: &ArrayRef, at: usize) -> Value {
    let schema = Schema::new(vec![Field::new("value", values.data_type().clone(), true)]);
    let batch = Batch::try_new(Arc::new(schema), vec![values.clone()], values.len()).expect("one column fits its own type");
    match parsed(row_json(&batch, at, &[0])) {
        Value::Object(mut fields) => fields.remove("value").unwrap_or(Value::Null),
        other => other,
    }
}

/// The value, or the beginning of its text.
fn shortened(value: Value) -> Value {
    let text = value.to_string();
    if text.len() <= SHOWN_BYTES_MAX {
        return value;
    }
    let end = (0..=SHOWN_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    Value::String(format!("{}…", &text[..end]))
}

fn parsed(json: String) -> Value {
    serde_json::from_str(&json).unwrap_or(Value::String(json))
}

#[cfg(test)]
mod tests;
