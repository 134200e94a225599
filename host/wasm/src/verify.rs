//! The answer of a call, number by number: raw from the guest in, a [`Turn`] that can be applied out.
//!
//! One pass in the order of the answer: outputs, updates, rejected rows, and last what only holds for the answer as a whole.

use arrow_array::Array;
use arrow_buffer::{BooleanBuffer, ScalarBuffer};
use millstream_model::{
    ChangeKind,
    state::{StateDescriptor, StateKind, StateScope},
};

use crate::{
    bindings::exports::millstream::operator::operator as raw,
    host::is_supported_time,
    lift,
    limits::{Limit, Limits},
    log::printable,
    plan::{OperatorPlan, OutputPlan},
    turn::{From, ListUpdate, MapUpdate, Rejected, TimerUpdate, Turn, TurnOutput, Updates, ValueUpdate},
};

/// Longest reason of a rejected row that is kept, in bytes.
const REASON_BYTES_MAX: usize = 1 << 10;

/// What the answer must fit.
pub(crate) struct CallShape<'a> {
    pub(crate) plan: &'a OperatorPlan,
    pub(crate) limits: &'a Limits,
    /// The input; none for timers.
    pub(crate) port: Option<u32>,
    /// Rows, or due timers.
    pub(crate) rows: u32,
    /// Whether the rows have event times that outputs can inherit.
    pub(crate) timed: bool,
    /// Distinct keys; none: the input is not keyed.
    pub(crate) keys: Option<u32>,
    /// The key of each row; none: row i has key i.
    pub(crate) key_of_row: Option<&'a ScalarBuffer<u32>>,
}

/// Why an answer is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It breaks the contract; a clause.
    Contract(String),
    /// It exceeds a limit.
    Limit(Limit, u64),
}

impl std::convert::From<String> for Refusal {
    fn from(reason: String) -> Self {
        Self::Contract(reason)
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Contract(reason.into()))
}

/// The answer, if every number in it is right.
pub(crate) fn turn(answer: raw::Turn, shape: &CallShape<'_>) -> Result<Turn, Refusal> {
    check_output_rows(&answer.outputs, shape)?;
    let turn = Turn {
        outputs: answer.outputs.into_iter().map(|rows| output(rows, shape)).collect::<Result<_, _>>()?,
        updates: updates(answer.updates, shape)?,
        rejected: answer.rejected.into_iter().map(|row| rejected(row, shape)).collect::<Result<_, _>>()?,
    };
    check_rejected_rows_did_nothing(&turn, shape)?;
    Ok(turn)
}

/// All bytes of the answer.
pub(crate) fn lifted_bytes(answer: &raw::Turn) -> u64 {
    let len = |bytes: &Vec<u8>| bytes.len() as u64;
    let output = |output: &raw::Output| {
        len(&output.from) + len(&output.event_times) + len(&output.changes) + output.columns.iter().map(lift::column_bytes).sum::<u64>()
    };
    let updates = &answer.updates;
    answer.outputs.iter().map(output).sum::<u64>()
        + updates.values.iter().map(|update| len(&update.changed) + lift::column_bytes(&update.values)).sum::<u64>()
        + updates
            .maps
            .iter()
            .map(|update| len(&update.keys) + lift::column_bytes(&update.map_keys) + lift::column_bytes(&update.values))
            .sum::<u64>()
        + updates.lists.iter().map(|update| len(&update.keys) + lift::column_bytes(&update.values)).sum::<u64>()
        + updates.timers.iter().map(|update| len(&update.keys) + len(&update.at)).sum::<u64>()
        + answer.rejected.iter().map(|rejected| rejected.reason.len() as u64 + 4).sum::<u64>()
}

fn check_output_rows(outputs: &[raw::Output], shape: &CallShape<'_>) -> Result<(), Refusal> {
    let per_row = u64::from(shape.limits.output_rows_per_row.get());
    let rows: u64 = outputs.iter().map(|output| u64::from(output.length)).sum();
    if rows > per_row * u64::from(shape.rows.max(1)) {
        return Err(Refusal::Limit(Limit::OutputRowsPerRow, per_row));
    }
    Ok(())
}

fn output(output: raw::Output, shape: &CallShape<'_>) -> Result<TurnOutput, Refusal> {
    let Some(planned) = shape.plan.outputs.get(output.port as usize) else {
        return refuse(format!("output port {} of {}", output.port, shape.plan.outputs.len()));
    };
    check_keeps(planned, &output, shape)?;
    let length = output.length as usize;
    let event_times = output_event_times(output.event_times, planned, length)?;
    let from = from(output.from, planned, length, event_times.is_some(), shape)?;
    let changes = output_changes(output.changes, planned, length)?;
    if output.columns.len() != planned.adds.len() {
        return refuse(format!("{} columns for output port {}, which adds {}", output.columns.len(), output.port, planned.adds.len()));
    }
    let columns = output
        .columns
        .into_iter()
        .zip(&planned.adds)
        .map(|(column, field)| lift::column(column, field, length))
        .collect::<Result<_, _>>()?;
    Ok(TurnOutput { port: output.port, length, from, event_times, changes, columns })
}

/// Only rows of the kept input have columns to keep.
fn check_keeps(planned: &OutputPlan, output: &raw::Output, shape: &CallShape<'_>) -> Result<(), Refusal> {
    match planned.keeps {
        Some(kept) if shape.port != Some(kept) => {
            let asked = shape.port.map_or("a timer".to_owned(), |port| format!("input port {port}"));
            refuse(format!("output port {} keeps the columns of input port {kept}, so it cannot have rows from {asked}", output.port))
        }
        _ => Ok(()),
    }
}

fn from(bytes: Vec<u8>, planned: &OutputPlan, length: usize, times_given: bool, shape: &CallShape<'_>) -> Result<From, Refusal> {
    if !bytes.is_empty() {
        let rows = lift::numbers(bytes, shape.rows, "`from` names row")?;
        if rows.len() != length {
            return refuse(format!("`from` has {} rows for {length} output rows", rows.len()));
        }
        return Ok(From::Rows(rows));
    }
    if length == shape.rows as usize {
        return Ok(From::Identity);
    }
    let inherits = planned.keeps.is_some() || (shape.timed && !times_given);
    if inherits && length > 0 {
        return refuse(format!("{length} output rows without `from` for {} input rows", shape.rows));
    }
    Ok(From::None)
}

fn output_event_times(bytes: Vec<u8>, planned: &OutputPlan, length: usize) -> Result<Option<ScalarBuffer<i64>>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if !planned.sets_event_times {
        return refuse("event times for an output that is planned not to set them");
    }
    let times = lift::scalars(bytes, "event time")?;
    if times.len() != length {
        return refuse(format!("{} event times for {length} output rows", times.len()));
    }
    check_times(&times)?;
    Ok(Some(times))
}

fn check_times(times: &[i64]) -> Result<(), Refusal> {
    let (lowest, highest) = times.iter().fold((0, 0), |(lowest, highest): (i64, i64), time| (lowest.min(*time), highest.max(*time)));
    match [lowest, highest].into_iter().find(|time| !is_supported_time(*time)) {
        Some(absurd) => refuse(format!("time {absurd} ms is outside the years 1 to 9999")),
        None => Ok(()),
    }
}

fn output_changes(bytes: Vec<u8>, planned: &OutputPlan, length: usize) -> Result<Option<ScalarBuffer<u8>>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    if !planned.changes {
        return refuse("changes for an output that is planned not to carry them");
    }
    if bytes.len() != length {
        return refuse(format!("{} changes for {length} output rows", bytes.len()));
    }
    let highest = bytes.iter().fold(0, |highest: u8, kind| highest.max(*kind));
    if ChangeKind::from_byte(highest).is_none() {
        return refuse(format!("change kind {highest} of 4"));
    }
    Ok(Some(bytes.into()))
}

fn updates(updates: raw::Updates, shape: &CallShape<'_>) -> Result<Updates, Refusal> {
    let raw::Updates { values, maps, lists, timers } = updates;
    if values.is_empty() && maps.is_empty() && lists.is_empty() && timers.is_empty() {
        return Ok(Updates::default());
    }
    let Some(keys) = shape.keys else {
        return refuse("state or timers are updated in a call without keys");
    };
    check_one_each("value state", values.iter().map(|update| update.state))?;
    check_one_each("map state", maps.iter().map(|update| update.state))?;
    check_one_each("list state", lists.iter().map(|update| update.state))?;
    check_one_each("timer", timers.iter().map(|update| update.timer))?;
    Ok(Updates {
        values: values.into_iter().map(|update| value_update(update, keys, shape)).collect::<Result<_, _>>()?,
        maps: maps.into_iter().map(|update| map_update(update, keys, shape)).collect::<Result<_, _>>()?,
        lists: lists.into_iter().map(|update| list_update(update, keys, shape)).collect::<Result<_, _>>()?,
        timers: timers.into_iter().map(|update| timer_update(update, keys, shape)).collect::<Result<_, _>>()?,
    })
}

fn check_one_each(what: &str, numbers: impl Iterator<Item = u32>) -> Result<(), Refusal> {
    let mut seen = Vec::new();
    for number in numbers {
        if seen.contains(&number) {
            return refuse(format!("two updates of {what} {number}"));
        }
        seen.push(number);
    }
    Ok(())
}

/// The state of this number, if it is of this kind.
fn state<'a>(number: u32, kind: StateKind, shape: &CallShape<'a>) -> Result<&'a StateDescriptor, Refusal> {
    let Some(state) = shape.plan.states.get(number as usize) else {
        return refuse(format!("state {number} of {}", shape.plan.states.len()));
    };
    if state.kind != kind || state.scope != StateScope::Keyed {
        return refuse(format!("an update of state `{}` as {kind:?}, which it is not", state.name));
    }
    Ok(state)
}

fn value_update(update: raw::ValueUpdate, keys: u32, shape: &CallShape<'_>) -> Result<ValueUpdate, Refusal> {
    let state = state(update.state, StateKind::Value, shape)?;
    let changed = lift::bitmap(update.changed, keys as usize, "`changed`")?;
    let values = lift::column_of(update.values, &state.value_type, true, &state.name)?;
    if values.len() != changed.count_set_bits() {
        return refuse(format!("{} values of state `{}` for {} changed keys", values.len(), state.name, changed.count_set_bits()));
    }
    Ok(ValueUpdate { state: update.state, changed, values })
}

fn map_update(update: raw::MapUpdate, keys: u32, shape: &CallShape<'_>) -> Result<MapUpdate, Refusal> {
    let state = state(update.state, StateKind::OrderedMap, shape)?;
    let key_type = state.map_key_type.as_ref().expect("plans give every map a key type");
    let keys = lift::numbers(update.keys, keys, "map update names key")?;
    let map_keys = lift::column_of(update.map_keys, key_type, false, &state.name)?;
    let values = lift::column_of(update.values, &state.value_type, true, &state.name)?;
    let deleted = optional_bitmap(update.deleted, keys.len(), "`deleted`")?;
    if map_keys.len() != keys.len() || values.len() != keys.len() {
        return refuse(format!(
            "{} map keys and {} values of state `{}` for {} keys",
            map_keys.len(),
            values.len(),
            state.name,
            keys.len()
        ));
    }
    let is_deleted = |entry: usize| deleted.as_ref().is_some_and(|deleted| deleted.value(entry));
    if values.null_count() > 0 && (0..values.len()).any(|entry| values.is_null(entry) && !is_deleted(entry)) {
        return refuse(format!("a null value in map state `{}`; null is absence, so delete the entry", state.name));
    }
    Ok(MapUpdate { state: update.state, keys, map_keys, values, deleted })
}

fn list_update(update: raw::ListUpdate, keys: u32, shape: &CallShape<'_>) -> Result<ListUpdate, Refusal> {
    let state = state(update.state, StateKind::AppendedList, shape)?;
    let cleared = optional_bitmap(update.cleared, keys as usize, "`cleared`")?;
    let cleared = cleared.iter().flat_map(BooleanBuffer::set_indices_u32).collect();
    let keys = lift::numbers(update.keys, keys, "list update names key")?;
    let values = lift::column_of(update.values, &state.value_type, false, &state.name)?;
    if values.len() != keys.len() {
        return refuse(format!("{} values of state `{}` for {} keys", values.len(), state.name, keys.len()));
    }
    Ok(ListUpdate { state: update.state, cleared, keys, values })
}

fn timer_update(update: raw::TimerUpdate, keys: u32, shape: &CallShape<'_>) -> Result<TimerUpdate, Refusal> {
    if update.timer as usize >= shape.plan.timers.len() {
        return refuse(format!("timer {} of {}", update.timer, shape.plan.timers.len()));
    }
    let keys = lift::numbers(update.keys, keys, "timer update names key")?;
    let at: ScalarBuffer<i64> = lift::scalars(update.at, "timer time")?;
    if at.len() != keys.len() {
        return refuse(format!("{} timer times for {} keys", at.len(), keys.len()));
    }
    check_times(&at)?;
    let deleted = optional_bitmap(update.deleted, keys.len(), "`deleted`")?;
    Ok(TimerUpdate { timer: update.timer, keys, at, deleted })
}

/// Empty: no bit is set.
fn optional_bitmap(bytes: Vec<u8>, length: usize, what: &str) -> Result<Option<BooleanBuffer>, Refusal> {
    if bytes.is_empty() {
        return Ok(None);
    }
    Ok(Some(lift::bitmap(bytes, length, what)?))
}

fn rejected(rejected: raw::Rejected, shape: &CallShape<'_>) -> Result<Rejected, Refusal> {
    if rejected.row >= shape.rows {
        return refuse(format!("rejected row {} of {}", rejected.row, shape.rows));
    }
    let mut reason = printable(&rejected.reason);
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    Ok(Rejected { row: rejected.row, reason })
}

/// A row is rejected or has an effect, never both; a key whose rows are all rejected has no updates.
fn check_rejected_rows_did_nothing(turn: &Turn, shape: &CallShape<'_>) -> Result<(), Refusal> {
    if turn.rejected.is_empty() {
        return Ok(());
    }
    let rejected = rejected_rows(&turn.rejected, shape.rows)?;
    for output in turn.outputs.iter().filter(|output| output.length > 0) {
        let emitted = match &output.from {
            From::Rows(rows) => rows.iter().find(|row| rejected[**row as usize]).copied(),
            From::Identity => Some(turn.rejected[0].row),
            From::None => None,
        };
        if let Some(row) = emitted {
            return refuse(format!("row {row} is rejected, but output port {} has a row from it", output.port));
        }
    }
    check_rejected_keys_did_nothing(turn, &rejected, shape)
}

fn rejected_rows(rejections: &[Rejected], rows: u32) -> Result<Vec<bool>, Refusal> {
    let mut rejected = vec![false; rows as usize];
    for rejection in rejections {
        if std::mem::replace(&mut rejected[rejection.row as usize], true) {
            return refuse(format!("row {} is rejected twice", rejection.row));
        }
    }
    Ok(rejected)
}

fn check_rejected_keys_did_nothing(turn: &Turn, rejected: &[bool], shape: &CallShape<'_>) -> Result<(), Refusal> {
    let Some(keys) = shape.keys.filter(|_| !turn.updates.is_empty()) else {
        return Ok(());
    };
    let mut may_update = vec![false; keys as usize];
    for (row, _) in rejected.iter().enumerate().filter(|(_, rejected)| !**rejected) {
        let key = shape.key_of_row.map_or(row, |of_row| of_row[row] as usize);
        may_update[key] = true;
    }
    match updated_keys(&turn.updates).find(|key| !may_update[*key]) {
        Some(key) => refuse(format!("every row of key {key} is rejected, but its state or timers are updated")),
        None => Ok(()),
    }
}

fn updated_keys(updates: &Updates) -> impl Iterator<Item = usize> {
    let values = updates.values.iter().flat_map(|update| update.changed.set_indices());
    let maps = updates.maps.iter().flat_map(|update| update.keys.iter());
    let lists = updates.lists.iter().flat_map(|update| update.keys.iter().chain(update.cleared.iter()));
    let timers = updates.timers.iter().flat_map(|update| update.keys.iter());
    values.chain(maps.chain(lists).chain(timers).map(|key| *key as usize))
}
