//! One call of the host: what came in ([`Call`]) and what goes back ([`Answer`]).

use crate::{
    bindings::{
        Column, Moment,
        exports::{DueTimers, Keys, Output, Rejected, Rows, Turn, Updates},
    },
    http::Answers,
    value::{Malformed, bits},
};

/// The place of one row in its call.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The row, or the due timer.
    pub row: usize,
    /// The number of its key; 0 where the operator is not keyed.
    pub key: usize,
}

/// What the host sent.
pub struct Call<'a> {
    /// The clocks.
    pub now: Moment,
    /// Number of rows, or of due timers.
    pub length: usize,
    columns: &'a [Column],
    /// s64 per row; empty unless asked for. Of due timers: when they were set for.
    event_times: &'a [[u8; 8]],
    /// Empty: all inserts.
    pub(crate) changes: &'a [u8],
    keys: Option<KeysOf<'a>>,
    /// What came back over HTTP, by row; empty: nothing was asked.
    pub(crate) answers: Answers,
    /// Per state: the index of its column among the values, if it is a value state.
    value_columns: &'a [Option<usize>],
}

#[derive(Clone, Copy)]
struct KeysOf<'a> {
    length: usize,
    of_row: &'a [[u8; 4]],
    values: &'a [Column],
}

fn keys_of<'a>(keys: &'a Keys, rows: usize) -> Result<KeysOf<'a>, Malformed> {
    let of_row = keys.of_row.as_chunks::<4>().0;
    let length = keys.length as usize;
    if !keys.slots.is_empty() || (!keys.fresh.is_empty() && bits::count_ones(&keys.fresh, length)? != length) {
        return Err(Malformed("keys are kept, which this operator did not ask for"));
    }
    if !(of_row.len() == rows || (of_row.is_empty() && length == rows)) {
        return Err(Malformed("rows without a key"));
    }
    if of_row.iter().any(|key| u32::from_le_bytes(*key) as usize >= length) {
        return Err(Malformed("a row names a key that is not there"));
    }
    Ok(KeysOf { length, of_row, values: &keys.values })
}

impl<'a> Call<'a> {
    /// A call of `process`.
    ///
    /// # Errors
    /// The rows are not what the contract says.
    pub fn of_rows(now: Moment, rows: &'a Rows, value_columns: &'a [Option<usize>]) -> Result<Self, Malformed> {
        let length = rows.length as usize;
        let event_times = rows.event_times.as_chunks::<8>().0;
        if !(event_times.is_empty() || event_times.len() == length) || !(rows.changes.is_empty() || rows.changes.len() == length) {
            return Err(Malformed("event times or changes do not fit the rows"));
        }
        let keys = rows.keys.as_ref().map(|keys| keys_of(keys, length)).transpose()?;
        Ok(Self {
            now,
            length,
            columns: &rows.columns,
            event_times,
            changes: &rows.changes,
            keys,
            answers: Answers::default(),
            value_columns,
        })
    }

    /// A call of `on-timers`; its columns are those of the keys.
    ///
    /// # Errors
    /// The timers are not what the contract says.
    pub fn of_timers(now: Moment, due: &'a DueTimers, value_columns: &'a [Option<usize>]) -> Result<Self, Malformed> {
        let length = due.length as usize;
        let event_times = due.at.as_chunks::<8>().0;
        if event_times.len() != length || due.timer.len() != length * 4 {
            return Err(Malformed("due timers without a time or a name"));
        }
        let keys = Some(keys_of(&due.keys, length)?);
        Ok(Self { now, length, columns: &due.key_columns, event_times, changes: &[], keys, answers: Answers::default(), value_columns })
    }

    /// Columns alone, without keys or times.
    pub fn of_columns(length: usize, columns: &'a [Column]) -> Self {
        let now = Moment { watermark: None, processing_time: 0 };
        Self { now, length, columns, event_times: &[], changes: &[], keys: None, answers: Answers::default(), value_columns: &[] }
    }

    /// Number of distinct keys.
    pub fn key_count(&self) -> usize {
        self.keys.map_or(0, |keys| keys.length)
    }

    /// Where row `row` is.
    #[inline(always)]
    pub fn at(&self, row: usize) -> At {
        let key = match &self.keys {
            None => 0,
            Some(keys) if keys.of_row.is_empty() => row,
            Some(keys) => u32::from_le_bytes(keys.of_row[row]) as usize,
        };
        At { row, key }
    }

    /// Column `index` of those the host sends.
    ///
    /// # Errors
    /// The host sent fewer.
    pub fn column(&self, index: usize) -> Result<&'a Column, Malformed> {
        self.columns.get(index).ok_or(Malformed("a column is missing"))
    }

    /// Values of state `index`, one per key.
    ///
    /// # Errors
    /// The host sent fewer.
    pub fn state(&self, index: usize) -> Result<&'a Column, Malformed> {
        let column = self.value_columns.get(index).copied().flatten();
        self.keys.zip(column).and_then(|(keys, column)| keys.values.get(column)).ok_or(Malformed("the values of a state are missing"))
    }

    /// The event times, one per row.
    ///
    /// # Errors
    /// The host sent none.
    pub fn event_times(&self) -> Result<&'a [[u8; 8]], Malformed> {
        self.event_times.get(..self.length).ok_or(Malformed("event times are missing"))
    }

    /// How many rows the columns of this call have: rows, or keys where timers are due.
    pub(crate) fn rows_of_columns(&self) -> usize {
        self.columns.first().map_or(0, |column| column.length as usize)
    }
}

/// A row (or due timer) that can never succeed. It goes to the operator's `rejected` output with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject(String);

impl Reject {
    /// Rejects the row; `reason` is one clause.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<String> for Reject {
    fn from(reason: String) -> Self {
        Self(reason)
    }
}

impl From<&str> for Reject {
    fn from(reason: &str) -> Self {
        Self(reason.to_owned())
    }
}

impl std::fmt::Display for Reject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reject {}

/// What a handler returns: `()`, or `Result<(), Reject>` if it may reject its row.
pub trait Outcome {
    /// Whether it may be an error, so that the row's effects must be undoable.
    const MAY_REJECT: bool;
    /// Whether the row is rejected.
    ///
    /// # Errors
    /// It is.
    fn into_result(self) -> Result<(), Reject>;
}

impl Outcome for () {
    const MAY_REJECT: bool = false;

    #[inline(always)]
    fn into_result(self) -> Result<(), Reject> {
        Ok(())
    }
}

impl<E: Into<Reject>> Outcome for Result<(), E> {
    const MAY_REJECT: bool = true;

    #[inline(always)]
    fn into_result(self) -> Result<(), Reject> {
        self.map_err(Into::into)
    }
}

/// What goes back to the host, as it grows.
pub struct Answer {
    pub(crate) turn: Turn,
}

impl Default for Answer {
    fn default() -> Self {
        let updates = Updates { values: Vec::new(), maps: Vec::new(), lists: Vec::new(), timers: Vec::new() };
        Self { turn: Turn { outputs: Vec::new(), updates, rejected: Vec::new() } }
    }
}

impl Answer {
    /// Rejects row `row`.
    pub fn reject(&mut self, row: usize, reject: Reject) {
        self.turn.rejected.push(Rejected { row: row as u32, reason: reject.0 });
    }

    /// Gives every output row the change kind of the row it came from: right for operators that treat each row alone.
    pub fn pass_changes(&mut self, call: &Call<'_>) {
        if call.changes.is_empty() {
            return;
        }
        for output in self.turn.outputs.iter_mut().filter(|output| output.changes.is_empty()) {
            output.changes = change_kinds_of(output, call.changes);
        }
    }

    /// The answer, for the host.
    pub fn into_turn(self) -> Turn {
        self.turn
    }
}

fn change_kinds_of(output: &Output, changes: &[u8]) -> Vec<u8> {
    if output.from.is_empty() {
        return changes.to_vec();
    }
    output.from.as_chunks::<4>().0.iter().map(|row| changes[u32::from_le_bytes(*row) as usize]).collect()
}
