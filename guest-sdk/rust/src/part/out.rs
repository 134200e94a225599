//! Outputs.

use std::marker::PhantomData;

use super::{Part, PartOptions};
use crate::{
    argument::{Change, EventTime, Row},
    bindings::exports::{Output, OutputPlan},
    call::{Answer, At, Call},
    operator::Declaration,
    value::{ColumnBuilder, Malformed, Value},
};

/// What rows of an output carry beside their columns.
pub trait Mode: 'static {
    /// Whether its rows bring their own event times.
    const TIMES: bool;
    /// Whether its rows are changes.
    const CHANGES: bool;
}

macro_rules! modes {
    ($($(#[$doc:meta])* $mode:ident $alias:ident $times:literal $changes:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub struct $mode;

        impl Mode for $mode {
            const TIMES: bool = $times;
            const CHANGES: bool = $changes;
        }
    )*};
}

modes! {
    /// Rows inherit their event time; all are inserts.
    Inherit Out false false;
    /// Rows bring their own event times.
    Timed TimedOut true false;
    /// Rows are changes and inherit their event time.
    Changes Changelog false true;
    /// Rows are changes and bring their own event times.
    TimedChanges TimedChangelog true true;
}

/// An output whose rows bring their own event times.
pub type TimedOut<T> = Out<T, Timed>;
/// An output whose rows are changes.
pub type Changelog<T> = Out<T, Changes>;
/// An output whose rows are changes and bring their own event times.
pub type TimedChangelog<T> = Out<T, TimedChanges>;

/// An output of rows `T`. A row inherits the event time of the input row (or due timer) that is being handled.
///
/// With `#[output(keep)]` beside the parameter, rows also keep the columns of that input row.
pub struct Out<T: Row, M: Mode = Inherit> {
    rows: T::Builder,
    length: usize,
    /// The input row of each output row, from the first that differs from its own number.
    from: Option<Vec<[u8; 4]>>,
    times: Vec<[u8; 8]>,
    changes: Vec<u8>,
    /// The row that is being handled.
    row: u32,
    /// The length before it.
    mark: usize,
    capacity: usize,
    mode: PhantomData<M>,
}

impl<T: Row, M: Mode> Out<T, M> {
    pub(crate) fn with_capacity(capacity: usize) -> Self {
        Self {
            rows: T::Builder::default(),
            length: 0,
            from: None,
            times: Vec::new(),
            changes: Vec::new(),
            row: 0,
            mark: 0,
            capacity,
            mode: PhantomData,
        }
    }

    /// The number of rows so far in this call.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there is no row yet in this call.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    #[inline(always)]
    pub(crate) fn enter_row(&mut self, row: usize) {
        self.row = row as u32;
    }

    #[inline(always)]
    pub(crate) fn append<R: Value<Builder = T::Builder>>(&mut self, row: &R) {
        if self.length == 0 {
            self.rows.reserve(self.capacity);
        }
        row.append(&mut self.rows);
        if self.from.is_some() || self.row as usize != self.length {
            self.name_row();
        }
        self.length += 1;
    }

    fn name_row(&mut self) {
        let (length, capacity) = (self.length, self.capacity);
        let from = self.from.get_or_insert_with(|| {
            let mut from = Vec::with_capacity(capacity.max(length + 1));
            from.extend((0..length as u32).map(u32::to_le_bytes));
            from
        });
        from.push(self.row.to_le_bytes());
    }

    fn truncate(&mut self, length: usize) {
        self.rows.truncate(length);
        self.length = length;
        self.times.truncate(length);
        self.changes.truncate(length);
        if let Some(from) = &mut self.from {
            from.truncate(length);
        }
    }

    pub(crate) fn finish_output(self, port: usize, call: &Call<'_>, answer: &mut Answer) {
        if self.length == 0 {
            return;
        }
        let from = match self.from {
            Some(from) => from.into_flattened(),
            None if self.length == call.length => Vec::new(),
            None => super::pack_u32(0..self.length as u32),
        };
        let mut columns = Vec::new();
        T::finish_columns(self.rows, self.length, &mut columns);
        answer.turn.outputs.push(Output {
            port: port as u32,
            from,
            length: self.length as u32,
            event_times: self.times.into_flattened(),
            changes: self.changes,
            columns,
        });
    }
}

impl<T: Row> Out<T, Inherit> {
    /// Emits a row. It may borrow from anywhere: it is written at once.
    #[inline(always)]
    pub fn push<R: Value<Builder = T::Builder>>(&mut self, row: R) {
        self.append(&row);
    }
}

impl<T: Row> Out<T, Timed> {
    /// Emits a row with an event time of its own.
    #[inline(always)]
    pub fn push<R: Value<Builder = T::Builder>>(&mut self, time: impl Into<EventTime>, row: R) {
        self.append(&row);
        self.times.push(time.into().0.to_le_bytes());
    }
}

impl<T: Row> Out<T, Changes> {
    /// Emits a change.
    #[inline(always)]
    pub fn push<R: Value<Builder = T::Builder>>(&mut self, change: Change, row: R) {
        self.append(&row);
        self.changes.push(change as u8);
    }
}

impl<T: Row> Out<T, TimedChanges> {
    /// Emits a change with an event time of its own.
    #[inline(always)]
    pub fn push<R: Value<Builder = T::Builder>>(&mut self, change: Change, time: impl Into<EventTime>, row: R) {
        self.append(&row);
        self.changes.push(change as u8);
        self.times.push(time.into().0.to_le_bytes());
    }
}

impl<T: Row, M: Mode> Part for Out<T, M> {
    type Slots = Self;
    const NEEDS_KEY: bool = false;

    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize {
        let keeps = options.keep.then_some(0);
        to.output(options.name.unwrap_or(name), OutputPlan { keeps, adds: T::fields(), sets_event_times: M::TIMES, changes: M::CHANGES })
    }

    fn begin(call: &Call<'_>, _: usize) -> Result<Self, Malformed> {
        Ok(Self::with_capacity(call.length))
    }

    #[inline(always)]
    fn enter(out: &mut Self, at: At, _: bool) {
        out.enter_row(at.row);
        out.mark = out.length;
    }

    #[inline(always)]
    fn handle(out: &mut Self, _: At) -> &mut Self {
        out
    }

    fn undo(out: &mut Self, _: At) {
        out.truncate(out.mark);
    }

    fn finish(out: Self, index: usize, call: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed> {
        out.finish_output(index, call, answer);
        Ok(())
    }
}
