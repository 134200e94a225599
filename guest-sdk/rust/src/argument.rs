//! What a handler takes by value: rows, single columns, and facts about the row.
//!
//! Each parameter declares what it reads when the operator is planned, makes a reader per call, and gets its value per row.

use std::ops::{Add, Sub};

use crate::{
    bindings::{Column, Field},
    call::{At, Call},
    value::{self, Malformed, ReadValue, Timestamp, Unit, Value, Zone},
};

/// A struct with `#[derive(Row)]`: one column per field.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a row",
    label = "not a row",
    note = "put #[derive(millstream::Row)] on the struct"
)]
pub trait Row: Value {
    /// Name, type and nullability of each column.
    fn fields() -> Vec<Field>;
    /// The columns that a builder made.
    fn finish_columns(builder: Self::Builder, length: usize, columns: &mut Vec<Column>);
}

/// A row that can be read from columns that live for `'a`.
pub trait ReadRow<'a>: Row + ReadValue<'a> {
    /// A reader over the next columns, one per field.
    ///
    /// # Errors
    /// A column is missing or not what its type says.
    fn reader_of_columns(columns: &mut Columns<'_, 'a>) -> Result<Self::Reader, Malformed>;
}

impl Row for () {
    fn fields() -> Vec<Field> {
        Vec::new()
    }

    fn finish_columns((): Self::Builder, _: usize, _: &mut Vec<Column>) {}
}

impl Value for () {
    type Builder = ();

    fn write_type(text: &mut String) {
        text.push_str("Struct()");
    }

    fn append(&self, (): &mut ()) {}

    fn duplicate(&self) {}
}

impl value::ColumnBuilder for () {
    fn reserve(&mut self, _: usize) {}

    fn append_null(&mut self) {}

    fn truncate(&mut self, _: usize) {}

    fn finish(self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        buffers.push(validity);
    }
}

/// What the handlers of one input read, without repetition.
#[derive(Default)]
pub struct Reads {
    /// The distinct columns.
    pub fields: Vec<Field>,
    /// Whether a handler wants event times.
    pub event_times: bool,
    /// Whether a handler looks at change kinds.
    pub changes: bool,
    /// Per column that a parameter reads, in order of the parameters: its index in `fields`.
    pub order: Vec<usize>,
    /// Whether something is asked over HTTP for each row.
    pub requests: bool,
    /// Whether a handler takes the answer.
    pub answers: bool,
}

impl Reads {
    /// Asks for one column.
    pub fn column(&mut self, field: Field) {
        let equal = |known: &Field| known.name == field.name && known.data_type == field.data_type && known.nullable == field.nullable;
        let index = self.fields.iter().position(equal).unwrap_or_else(|| {
            self.fields.push(field);
            self.fields.len() - 1
        });
        self.order.push(index);
    }
}

/// The columns of a call, taken in the order of the parameters.
pub struct Columns<'o, 'a> {
    call: &'o Call<'a>,
    order: std::slice::Iter<'o, usize>,
    length: usize,
}

impl<'o, 'a> Columns<'o, 'a> {
    /// The columns of `call`, in the order that [`Reads`] noted.
    pub fn new(call: &'o Call<'a>, order: &'o [usize]) -> Self {
        Self { call, order: order.iter(), length: call.length }
    }

    /// The columns of the keys of due timers.
    pub fn of_keys(call: &'o Call<'a>, order: &'o [usize]) -> Self {
        Self { call, order: order.iter(), length: call.rows_of_columns() }
    }

    /// The next column, checked.
    ///
    /// # Errors
    /// It is missing or not what its type says.
    pub fn read<T: ReadValue<'a>>(&mut self) -> Result<T::Reader, Malformed> {
        let index = self.order.next().ok_or(Malformed("a column is missing"))?;
        value::read_column::<T>(self.call.column(*index)?, self.length)
    }
}

/// A parameter taken by value.
#[diagnostic::on_unimplemented(
    message = "an operator cannot take `{Self}` by value",
    label = "neither a row, nor a column, nor EventTime, Change or Now",
    note = "put #[derive(millstream::Row)] on a struct to read several columns, or take one column by the name of its parameter: `price: i64`",
    note = "state, timers and outputs are taken as `&mut`"
)]
pub trait Argument<'a>: Sized {
    /// Reads it, once per call.
    type Reader;
    /// Whether its columns, if it has any, are per key where timers are due.
    const PER_KEY: bool = true;
    /// Notes what it reads. `name` is that of the parameter.
    fn declare(name: &str, reads: &mut Reads);
    /// A reader for this call.
    ///
    /// # Errors
    /// The call lacks what was declared.
    fn reader(call: &Call<'a>, columns: &mut Columns<'_, 'a>) -> Result<Self::Reader, Malformed>;
    /// The value at `row`; of due timers, columns are per key and everything else is per timer.
    fn get(reader: &Self::Reader, row: usize) -> Self;

    /// The value for a due timer.
    #[inline(always)]
    fn get_due(reader: &Self::Reader, at: At) -> Self {
        Self::get(reader, if Self::PER_KEY { at.key } else { at.row })
    }
}

/// Makes each type a parameter that reads the column of the parameter's name.
macro_rules! column_arguments {
    ($([$($generics:tt)*] $type:ty;)*) => {$(
        impl<'a, $($generics)*> Argument<'a> for $type where $type: ReadValue<'a> {
            type Reader = <Self as ReadValue<'a>>::Reader;

            fn declare(name: &str, reads: &mut Reads) {
                reads.column(Field { name: name.to_owned(), data_type: Self::data_type(), nullable: Self::NULLABLE });
            }

            fn reader(_: &Call<'a>, columns: &mut Columns<'_, 'a>) -> Result<Self::Reader, Malformed> {
                columns.read::<Self>()
            }

            #[inline(always)]
            fn get(reader: &Self::Reader, row: usize) -> Self {
                <Self as ReadValue<'a>>::get(reader, row)
            }
        }
    )*};
}

column_arguments! {
    [] bool; [] i8; [] i16; [] i32; [] i64; [] u8; [] u16; [] u32; [] u64; [] f32; [] f64;
    [] String; [] &'a str; [] &'a [u8]; [const N: usize] [u8; N];
    [T] value::Large<T>; [T] Option<T>; [T] Vec<T>;
    [T, const N: usize] value::FixedList<T, N>; [K, V] std::collections::BTreeMap<K, V>;
    [const P: u8, const S: i8] value::Decimal<P, S>;
    [U: Unit, Z: Zone] Timestamp<U, Z>; [U: Unit] value::Duration<U>; [U: value::TimeOfDayUnit] value::Time<U>;
    [] value::Date; [] value::Date64;
}

/// The event time of a row, or the time for which a due timer was set: milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(
    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub i64,
);

impl EventTime {
    /// This time and `ms` more (or fewer) milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

impl Add<std::time::Duration> for EventTime {
    type Output = Self;

    fn add(self, duration: std::time::Duration) -> Self {
        self.plus_ms(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }
}

impl Sub<std::time::Duration> for EventTime {
    type Output = Self;

    fn sub(self, duration: std::time::Duration) -> Self {
        self.plus_ms(-i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }
}

impl From<i64> for EventTime {
    fn from(ms: i64) -> Self {
        Self(ms)
    }
}

impl<Z: Zone> From<Timestamp<value::Ms, Z>> for EventTime {
    fn from(time: Timestamp<value::Ms, Z>) -> Self {
        Self(time.value)
    }
}

impl<'a> Argument<'a> for EventTime {
    type Reader = &'a [[u8; 8]];
    const PER_KEY: bool = false;

    fn declare(_: &str, reads: &mut Reads) {
        reads.event_times = true;
    }

    fn reader(call: &Call<'a>, _: &mut Columns<'_, 'a>) -> Result<Self::Reader, Malformed> {
        call.event_times()
    }

    #[inline(always)]
    fn get(times: &Self::Reader, row: usize) -> Self {
        Self(i64::from_le_bytes(times[row]))
    }
}

/// What a row does to the table that a changelog describes. An operator that takes it understands changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Change {
    /// The row is new.
    #[default]
    Insert = 0,
    /// The old content of a row that the next row updates.
    UpdateBefore = 1,
    /// The new content of a row.
    UpdateAfter = 2,
    /// The row is gone.
    Delete = 3,
}

impl Change {
    /// Whether the row adds its content (insert, update-after) rather than taking it back.
    pub fn adds(self) -> bool {
        matches!(self, Self::Insert | Self::UpdateAfter)
    }
}

impl<'a> Argument<'a> for Change {
    /// Empty: all inserts.
    type Reader = &'a [u8];
    const PER_KEY: bool = false;

    fn declare(_: &str, reads: &mut Reads) {
        reads.changes = true;
    }

    fn reader(call: &Call<'a>, _: &mut Columns<'_, 'a>) -> Result<Self::Reader, Malformed> {
        match call.changes.iter().all(|kind| *kind <= 3) {
            true => Ok(call.changes),
            false => Err(Malformed("an unknown change kind")),
        }
    }

    #[inline]
    fn get(changes: &Self::Reader, row: usize) -> Self {
        match changes.get(row) {
            None | Some(0) => Self::Insert,
            Some(1) => Self::UpdateBefore,
            Some(2) => Self::UpdateAfter,
            Some(_) => Self::Delete,
        }
    }
}

/// The clocks of a call; the same for each of its rows, and when the call is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// The operator's watermark: no row with a time at or before it follows. None: there is none yet. At the end of all input, the largest.
    pub watermark: Option<EventTime>,
    /// The host's clock, ms since 1970-01-01T00:00:00Z.
    pub processing_time: EventTime,
}

impl Now {
    /// Whether a row of this time is late.
    pub fn is_late(self, time: EventTime) -> bool {
        self.watermark.is_some_and(|watermark| time <= watermark)
    }
}

impl<'a> Argument<'a> for Now {
    type Reader = Self;

    fn declare(_: &str, _: &mut Reads) {}

    fn reader(call: &Call<'a>, _: &mut Columns<'_, 'a>) -> Result<Self, Malformed> {
        Ok(Self { watermark: call.now.watermark.map(EventTime), processing_time: EventTime(call.now.processing_time) })
    }

    #[inline(always)]
    fn get(now: &Self, _: usize) -> Self {
        *now
    }
}
