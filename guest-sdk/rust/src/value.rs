//! How Rust values become columns and come back: one trait per direction, implemented for each type that crosses.
//!
//! A column is a handful of byte buffers in Arrow's layout (`wit/README.md`). [`ReadValue::reader`] checks their sizes once per batch;
//! after that [`ReadValue::get`] is a few instructions per row. Writing goes through a [`ColumnBuilder`] that appends to byte vectors
//! which become the answer without another copy. Alignment is never assumed: Wasm loads are as fast unaligned.
//!
//! Words: a *reader* borrows one column of a call, a *builder* makes one column of an answer, *validity* is the bitmap of non-nulls.

pub(crate) mod bits;
mod fixed;
mod nested;
mod nullable;
mod text;
mod times;

pub use bits::{BitBuilder, Bits};
pub use fixed::{Decimal, Fixed, FixedBuilder, ParseDecimalError};
pub use nested::{FixedList, FixedListBuilder, FixedListReader, ListBuilder, ListItem, ListReader, MapBuilder, MapReader};
pub use nullable::{NullableBuilder, NullableReader};
pub use text::{Bytes, BytesBuilder, Large, Text};
pub use times::{Date, Date64, Duration, Ms, NoZone, Ns, Sec, Time, TimeOfDayUnit, Timestamp, Unit, Us, Utc, Zone};

use crate::bindings::Column;

/// The host sent what the contract does not allow; the call fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A type whose values can be written to a column.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a type of a column",
    label = "not a type of a column",
    note = "columns hold numbers, bool, String, &str, Vec<u8>, Decimal, Timestamp, Duration, Date, Time, Option, Vec, BTreeMap, and structs with #[derive(Row)]"
)]
pub trait Value: Sized {
    /// Whether the column may hold nulls; only `Option` says so.
    const NULLABLE: bool = false;
    /// Makes a column of these values. Types that differ only in borrowing share it.
    type Builder: ColumnBuilder;
    /// Appends the text of the data type, in the grammar of `wit/types.md`.
    fn write_type(text: &mut String);
    /// Appends this value to a column.
    fn append(&self, builder: &mut Self::Builder);
    /// A copy, so that a change can be undone.
    fn duplicate(&self) -> Self;

    /// The text of the data type.
    fn data_type() -> String {
        let mut text = String::new();
        Self::write_type(&mut text);
        text
    }
}

/// A type whose values can be read from a column that lives for `'a`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a column",
    label = "cannot be read from a column",
    note = "a borrowed field needs the lifetime of its row: `struct Bid<'a> {{ url: &'a str }}`; state is never borrowed"
)]
pub trait ReadValue<'a>: Value {
    /// One column, checked.
    type Reader;

    /// A reader over the buffers after the validity.
    ///
    /// # Errors
    /// A buffer is missing or too short, or text is not UTF-8.
    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed>;

    /// The value of row `row`, which is below the length of the column.
    fn get(reader: &Self::Reader, row: usize) -> Self;

    /// Whether this value is what row `row` holds; numbers are compared by their bits.
    fn same(&self, reader: &Self::Reader, row: usize) -> bool;

    /// A reader over all buffers of a column. Inside of nested types, values may be null where what is around them is null; nobody reads
    /// those, so only `Option` looks at the validity.
    ///
    /// # Errors
    /// As for [`Self::reader_of_values`].
    fn reader(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        buffers.take()?;
        Self::reader_of_values(buffers, length)
    }
}

/// Makes one column.
pub trait ColumnBuilder: Default {
    /// Makes room for `rows` more rows.
    fn reserve(&mut self, rows: usize);
    /// Appends a value that nobody reads, to stand under a null.
    fn append_null(&mut self);
    /// Takes back all rows from `rows` on.
    fn truncate(&mut self, rows: usize);
    /// Appends the buffers: `validity` first (empty: no nulls), then the column's own.
    fn finish(self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>);
}

/// The buffers of one column, taken in order.
pub struct Buffers<'a>(std::slice::Iter<'a, Vec<u8>>);

impl<'a> Buffers<'a> {
    /// The buffers of `column`.
    pub fn of(column: &'a Column) -> Self {
        Self(column.buffers.iter())
    }

    /// The next buffer.
    ///
    /// # Errors
    /// There is none.
    pub fn take(&mut self) -> Result<&'a [u8], Malformed> {
        self.0.next().map(Vec::as_slice).ok_or(Malformed("a buffer is missing"))
    }

    /// The next buffer as `length` items of `N` bytes.
    ///
    /// # Errors
    /// It is missing or too short.
    pub fn take_fixed<const N: usize>(&mut self, length: usize) -> Result<&'a [[u8; N]], Malformed> {
        let items = self.take()?.as_chunks::<N>().0;
        items.get(..length).ok_or(Malformed("a buffer is too short"))
    }
}

/// A reader over one whole column.
///
/// # Errors
/// The column is not what its type says.
pub fn read_column<'a, T: ReadValue<'a>>(column: &'a Column, length: usize) -> Result<T::Reader, Malformed> {
    if column.length as usize != length {
        return Err(Malformed("a column has another length than its batch"));
    }
    let validity = column.buffers.first().map_or(&[][..], Vec::as_slice);
    if !T::NULLABLE && !validity.is_empty() && bits::count_ones(validity, length)? != length {
        return Err(Malformed("null in a column that has none"));
    }
    T::reader(&mut Buffers::of(column), length)
}

/// The column that `builder` made, of `length` rows.
pub fn finish_column<B: ColumnBuilder>(builder: B, length: usize) -> Column {
    let mut buffers = Vec::new();
    builder.finish(Vec::new(), &mut buffers);
    Column { length: length as u32, buffers }
}

/// A column of one row.
pub fn column_of_one<T: Value>(value: &T) -> Column {
    let mut builder = T::Builder::default();
    value.append(&mut builder);
    finish_column(builder, 1)
}

/// `field` in the text of a nested type: name, nullability, type.
pub fn write_field<T: Value>(name: &str, text: &mut String) {
    text.push('"');
    text.push_str(name);
    text.push_str("\": ");
    write_item::<T>(text);
}

/// `item` in the text of a nested type: nullability, type.
pub fn write_item<T: Value>(text: &mut String) {
    if !T::NULLABLE {
        text.push_str("non-null ");
    }
    T::write_type(text);
}
