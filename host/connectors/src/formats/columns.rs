//! Columns under construction, for the binary formats: numbers and bytes go in as they are, no text in between.
//!
//! Law: a push that succeeds appends one entry, one that fails appends none and says why. Whoever fails in the middle of a record calls
//! [`Column::truncate`] with the number of rows before it, on every column, as [`Rows`] does: nothing of the record is left, however deep it had
//! got.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, LargeBinaryArray, LargeStringArray, ListArray, MapArray,
    RecordBatch, RecordBatchOptions, StringArray, StructArray, make_array,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_data::ArrayDataBuilder;
use arrow_schema::{DataType, FieldRef, Fields, SchemaRef};

/// Bytes of one column of one batch: offsets take 31 bits.
const COLUMN_BYTES_MAX: usize = i32::MAX as usize;

/// A column or a part of one.
pub struct Column {
    nullable: bool,
    data_type: DataType,
    valid: NullBufferBuilder,
    values: Values,
}

enum Values {
    /// A column of type `Null`.
    Nothing,
    Booleans(BooleanBufferBuilder),
    Numbers(Numbers),
    Decimals(Vec<i128>),
    Bytes(Bytes),
    Fixed(Fixed),
    List(Box<List>),
    Struct(Struct),
    Map(Box<Map>),
}

/// Numbers of fixed width, also what is stored as one: dates, times, timestamps, durations.
enum Numbers {
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
}

macro_rules! each_number {
    ($numbers:expr, $values:ident => $body:expr) => {
        match $numbers {
            Numbers::I8($values) => $body,
            Numbers::I16($values) => $body,
            Numbers::I32($values) => $body,
            Numbers::I64($values) => $body,
            Numbers::U8($values) => $body,
            Numbers::U16($values) => $body,
            Numbers::U32($values) => $body,
            Numbers::U64($values) => $body,
            Numbers::F32($values) => $body,
            Numbers::F64($values) => $body,
        }
    };
}

struct Bytes {
    is_text: bool,
    bytes: Vec<u8>,
    /// Where each entry ends.
    ends: Vec<i32>,
}

struct Fixed {
    size: usize,
    bytes: Vec<u8>,
}

struct List {
    item: Column,
    field: FieldRef,
    ends: Vec<i32>,
}

struct Struct {
    members: Vec<Column>,
    fields: Fields,
    rows: usize,
}

struct Map {
    key: Column,
    value: Column,
    entries: FieldRef,
    ends: Vec<i32>,
}

/// Why a value does not go into a column; a clause.
pub type Refused = String;

impl Column {
    /// A column of `field`; none: its type is none that binary formats make.
    pub fn new(field: &FieldRef) -> Option<Self> {
        let data_type = field.data_type().clone();
        let values = values_of(&data_type)?;
        Some(Self { nullable: field.is_nullable(), data_type, valid: NullBufferBuilder::new(0), values })
    }

    /// Its type.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.valid.len()
    }

    /// Whether it has no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all entries behind the first `rows`, and parts of entries that were not closed.
    pub fn truncate(&mut self, rows: usize) {
        self.valid.truncate(rows);
        match &mut self.values {
            Values::Nothing => {}
            Values::Booleans(values) => values.truncate(rows),
            Values::Numbers(numbers) => each_number!(numbers, values => values.truncate(rows)),
            Values::Decimals(values) => values.truncate(rows),
            Values::Bytes(values) => {
                values.ends.truncate(rows);
                values.bytes.truncate(last(&values.ends));
            }
            Values::Fixed(values) => values.bytes.truncate(rows * values.size),
            Values::List(list) => {
                list.ends.truncate(rows);
                list.item.truncate(last(&list.ends));
            }
            Values::Struct(values) => {
                values.rows = values.rows.min(rows);
                values.members.iter_mut().for_each(|member| member.truncate(rows));
            }
            Values::Map(map) => {
                map.ends.truncate(rows);
                map.key.truncate(last(&map.ends));
                map.value.truncate(last(&map.ends));
            }
        }
    }

    /// Appends a null.
    ///
    /// # Errors
    /// The column was declared without `?`.
    pub fn push_null(&mut self) -> Result<(), Refused> {
        if !self.nullable {
            return Err("null in a column declared without `?`".into());
        }
        self.push_nothing();
        self.valid.append_null();
        Ok(())
    }

    /// Appends some value, valid or not, as the parts of a null do.
    fn push_default(&mut self) {
        self.push_nothing();
        if self.nullable { self.valid.append_null() } else { self.valid.append_non_null() }
    }

    /// A place in the values, without a word on whether it is null.
    fn push_nothing(&mut self) {
        match &mut self.values {
            Values::Nothing => {}
            Values::Booleans(values) => values.append(false),
            Values::Numbers(numbers) => each_number!(numbers, values => values.push(Default::default())),
            Values::Decimals(values) => values.push(0),
            Values::Bytes(values) => values.ends.push(end(values.bytes.len())),
            Values::Fixed(values) => values.bytes.resize(values.bytes.len() + values.size, 0),
            Values::List(list) => list.ends.push(end(list.item.len())),
            Values::Struct(values) => {
                values.members.iter_mut().for_each(Self::push_default);
                values.rows += 1;
            }
            Values::Map(map) => map.ends.push(end(map.value.len())),
        }
    }

    /// Appends a truth value.
    ///
    /// # Errors
    /// The column holds none.
    #[inline]
    pub fn push_bool(&mut self, value: bool) -> Result<(), Refused> {
        let Values::Booleans(values) = &mut self.values else { return Err(unfit(&self.data_type, "a boolean")) };
        values.append(value);
        self.valid.append_non_null();
        Ok(())
    }

    /// Appends an integer, in the column's unit.
    ///
    /// # Errors
    /// It does not fit.
    #[inline]
    pub fn push_i64(&mut self, value: i64) -> Result<(), Refused> {
        let Values::Numbers(numbers) = &mut self.values else { return Err(unfit(&self.data_type, "an integer")) };
        let fits = match numbers {
            Numbers::I64(values) => {
                values.push(value);
                true
            }
            Numbers::I32(values) => push_into(values, value),
            Numbers::I8(values) => push_into(values, value),
            Numbers::I16(values) => push_into(values, value),
            Numbers::U8(values) => push_into(values, value),
            Numbers::U16(values) => push_into(values, value),
            Numbers::U32(values) => push_into(values, value),
            Numbers::U64(values) => push_into(values, value),
            Numbers::F32(values) => {
                values.push(value as f32);
                true
            }
            Numbers::F64(values) => {
                values.push(value as f64);
                true
            }
        };
        self.note_number(fits, value)
    }

    /// Appends an integer without sign.
    ///
    /// # Errors
    /// It does not fit.
    #[inline]
    pub fn push_u64(&mut self, value: u64) -> Result<(), Refused> {
        if let Values::Numbers(Numbers::U64(values)) = &mut self.values {
            values.push(value);
            self.valid.append_non_null();
            return Ok(());
        }
        match i64::try_from(value) {
            Ok(value) => self.push_i64(value),
            Err(_) => self.note_number(false, value),
        }
    }

    fn note_number(&mut self, fits: bool, value: impl std::fmt::Display) -> Result<(), Refused> {
        if !fits {
            return Err(format!("{value} does not fit into {}", self.data_type));
        }
        self.valid.append_non_null();
        Ok(())
    }

    /// Appends a number with a fraction.
    ///
    /// # Errors
    /// The column holds none.
    #[inline]
    pub fn push_f64(&mut self, value: f64) -> Result<(), Refused> {
        match &mut self.values {
            Values::Numbers(Numbers::F64(values)) => values.push(value),
            Values::Numbers(Numbers::F32(values)) => values.push(value as f32),
            _ => return Err(unfit(&self.data_type, "a float")),
        }
        self.valid.append_non_null();
        Ok(())
    }

    /// Appends the digits of a decimal, in the column's scale.
    ///
    /// # Errors
    /// It has more digits than the column.
    pub fn push_decimal(&mut self, value: i128) -> Result<(), Refused> {
        let DataType::Decimal128(precision, _) = self.data_type else { return Err(unfit(&self.data_type, "a decimal")) };
        let Values::Decimals(values) = &mut self.values else { return Err(unfit(&self.data_type, "a decimal")) };
        if value.unsigned_abs() >= 10_u128.pow(u32::from(precision)) {
            return Err(format!("a decimal of more than {precision} digits"));
        }
        values.push(value);
        self.valid.append_non_null();
        Ok(())
    }

    /// Appends bytes, which are text where the column is.
    ///
    /// # Errors
    /// They are no text in UTF-8, not of the column's size, or too many.
    #[inline]
    pub fn push_bytes(&mut self, value: &[u8]) -> Result<(), Refused> {
        match &mut self.values {
            Values::Bytes(values) => {
                if values.is_text
                    && let Err(error) = std::str::from_utf8(value)
                {
                    return Err(format!("text that is not UTF-8: {error}"));
                }
                if value.len() > COLUMN_BYTES_MAX - values.bytes.len() {
                    return Err("more than 2 GiB in one column of a batch".into());
                }
                values.bytes.extend_from_slice(value);
                values.ends.push(end(values.bytes.len()));
            }
            Values::Fixed(values) if values.size == value.len() => values.bytes.extend_from_slice(value),
            Values::Fixed(values) => return Err(format!("{} bytes in a column of {}", value.len(), values.size)),
            _ => return Err(unfit(&self.data_type, "bytes or text")),
        }
        self.valid.append_non_null();
        Ok(())
    }

    /// Where the items of a list go; after them [`Self::close`].
    ///
    /// # Errors
    /// It is no list.
    pub fn items(&mut self) -> Result<&mut Self, Refused> {
        match &mut self.values {
            Values::List(list) => Ok(&mut list.item),
            _ => Err(unfit(&self.data_type, "a list")),
        }
    }

    /// Where the members of a struct go, one entry each; after them [`Self::close`].
    ///
    /// # Errors
    /// It is no struct.
    pub fn members(&mut self) -> Result<&mut [Self], Refused> {
        match &mut self.values {
            Values::Struct(values) => Ok(&mut values.members),
            _ => Err(unfit(&self.data_type, "a record")),
        }
    }

    /// Where keys and values of a map go; after them [`Self::close`].
    ///
    /// # Errors
    /// It is no map.
    pub fn entries(&mut self) -> Result<(&mut Self, &mut Self), Refused> {
        match &mut self.values {
            Values::Map(map) => Ok((&mut map.key, &mut map.value)),
            _ => Err(unfit(&self.data_type, "a map")),
        }
    }

    /// The list, struct or map that was filled is an entry.
    pub fn close(&mut self) {
        match &mut self.values {
            Values::List(list) => list.ends.push(end(list.item.len())),
            Values::Map(map) => map.ends.push(end(map.value.len())),
            Values::Struct(values) => values.rows += 1,
            _ => unreachable!("only what has parts is closed"),
        }
        self.valid.append_non_null();
    }

    /// The column; nothing is left in it.
    pub fn finish(&mut self) -> ArrayRef {
        let rows = self.len();
        let nulls = self.valid.finish();
        match &mut self.values {
            Values::Nothing => arrow_array::new_null_array(&self.data_type, rows),
            Values::Booleans(values) => Arc::new(BooleanArray::new(values.finish(), nulls)),
            Values::Numbers(numbers) => {
                let buffer = each_number!(numbers, values => Buffer::from_vec(std::mem::take(values)));
                let data = ArrayDataBuilder::new(self.data_type.clone()).len(rows).add_buffer(buffer).nulls(nulls);
                make_array(data.build().expect("one number per row"))
            }
            Values::Decimals(values) => {
                let DataType::Decimal128(precision, scale) = self.data_type else { unreachable!("`values_of` made decimals of it") };
                let array = Decimal128Array::new(std::mem::take(values).into(), nulls);
                Arc::new(array.with_precision_and_scale(precision, scale).expect("the type was checked when it was declared"))
            }
            Values::Bytes(values) => values.finish(&self.data_type, nulls),
            Values::Fixed(values) => {
                let bytes = Buffer::from_vec(std::mem::take(&mut values.bytes));
                Arc::new(FixedSizeBinaryArray::new(end(values.size), bytes, nulls))
            }
            Values::List(list) => {
                let ends = offsets(std::mem::take(&mut list.ends));
                Arc::new(ListArray::new(list.field.clone(), ends, list.item.finish(), nulls))
            }
            Values::Struct(values) => {
                let members = values.members.iter_mut().map(Self::finish).collect();
                let rows = std::mem::take(&mut values.rows);
                let array = StructArray::try_new_with_length(values.fields.clone(), members, nulls, rows);
                Arc::new(array.expect("members have one entry per row"))
            }
            Values::Map(map) => {
                let DataType::Struct(fields) = map.entries.data_type().clone() else { unreachable!("`values_of` checked it") };
                let entries = StructArray::new(fields, vec![map.key.finish(), map.value.finish()], None);
                let ends = offsets(std::mem::take(&mut map.ends));
                Arc::new(MapArray::new(map.entries.clone(), ends, entries, nulls, false))
            }
        }
    }
}

/// Rows under construction.
pub struct Rows {
    schema: SchemaRef,
    columns: Vec<Column>,
    rows: usize,
}

impl Rows {
    /// Rows of these columns.
    ///
    /// # Errors
    /// A column has a type that no binary format fills; a clause.
    pub fn new(schema: SchemaRef) -> Result<Self, String> {
        let column = |field: &FieldRef| {
            let refused = || format!("column {} of type {} cannot be read from this format", field.name(), field.data_type());
            Column::new(field).ok_or_else(refused)
        };
        let columns = schema.fields().iter().map(column).collect::<Result<_, _>>()?;
        Ok(Self { schema, columns, rows: 0 })
    }

    /// Appends a row: `fill` appends one entry to each column.
    ///
    /// # Errors
    /// As `fill`; nothing of the row is left.
    #[inline]
    pub fn push(&mut self, fill: impl FnOnce(&mut [Column]) -> Result<(), String>) -> Result<(), String> {
        let filled = fill(&mut self.columns);
        match filled {
            Ok(()) => self.rows += 1,
            Err(_) => self.columns.iter_mut().for_each(|column| column.truncate(self.rows)),
        }
        filled
    }

    /// The rows; none is left.
    pub fn finish(&mut self) -> RecordBatch {
        let columns = self.columns.iter_mut().map(Column::finish).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(std::mem::take(&mut self.rows)));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("columns of this schema")
    }
}

impl Bytes {
    fn finish(&mut self, data_type: &DataType, nulls: Option<NullBuffer>) -> ArrayRef {
        let (ends, bytes) = (offsets(std::mem::take(&mut self.ends)), Buffer::from_vec(std::mem::take(&mut self.bytes)));
        let wide = |ends: OffsetBuffer<i32>| OffsetBuffer::new(ends.iter().map(|&end| i64::from(end)).collect::<ScalarBuffer<i64>>());
        match data_type {
            DataType::Utf8 => Arc::new(StringArray::new(ends, bytes, nulls)),
            DataType::LargeUtf8 => Arc::new(LargeStringArray::new(wide(ends), bytes, nulls)),
            DataType::LargeBinary => Arc::new(LargeBinaryArray::new(wide(ends), bytes, nulls)),
            _ => Arc::new(BinaryArray::new(ends, bytes, nulls)),
        }
    }
}

fn values_of(data_type: &DataType) -> Option<Values> {
    use DataType as D;
    Some(match data_type {
        D::Null => Values::Nothing,
        D::Boolean => Values::Booleans(BooleanBufferBuilder::new(0)),
        D::Int8 => Values::Numbers(Numbers::I8(Vec::new())),
        D::Int16 => Values::Numbers(Numbers::I16(Vec::new())),
        D::Int32 | D::Date32 | D::Time32(_) => Values::Numbers(Numbers::I32(Vec::new())),
        D::Int64 | D::Date64 | D::Time64(_) | D::Timestamp(..) | D::Duration(_) => Values::Numbers(Numbers::I64(Vec::new())),
        D::UInt8 => Values::Numbers(Numbers::U8(Vec::new())),
        D::UInt16 => Values::Numbers(Numbers::U16(Vec::new())),
        D::UInt32 => Values::Numbers(Numbers::U32(Vec::new())),
        D::UInt64 => Values::Numbers(Numbers::U64(Vec::new())),
        D::Float32 => Values::Numbers(Numbers::F32(Vec::new())),
        D::Float64 => Values::Numbers(Numbers::F64(Vec::new())),
        D::Decimal128(..) => Values::Decimals(Vec::new()),
        D::Utf8 | D::LargeUtf8 => Values::Bytes(Bytes { is_text: true, bytes: Vec::new(), ends: Vec::new() }),
        D::Binary | D::LargeBinary => Values::Bytes(Bytes { is_text: false, bytes: Vec::new(), ends: Vec::new() }),
        D::FixedSizeBinary(size) => Values::Fixed(Fixed { size: usize::try_from(*size).ok()?, bytes: Vec::new() }),
        D::List(field) => Values::List(Box::new(List { item: Column::new(field)?, field: field.clone(), ends: Vec::new() })),
        D::Struct(fields) => {
            let members = fields.iter().map(Column::new).collect::<Option<_>>()?;
            Values::Struct(Struct { members, fields: fields.clone(), rows: 0 })
        }
        D::Map(entries, false) => {
            let D::Struct(fields) = entries.data_type() else { return None };
            let (key, value) = (Column::new(fields.first()?)?, Column::new(fields.get(1)?)?);
            Values::Map(Box::new(Map { key, value, entries: entries.clone(), ends: Vec::new() }))
        }
        _ => return None,
    })
}

fn unfit(data_type: &DataType, what: &str) -> Refused {
    format!("{what} in a column of type {data_type}")
}

#[inline]
fn push_into<T: TryFrom<i64>>(values: &mut Vec<T>, value: i64) -> bool {
    T::try_from(value).is_ok_and(|value| {
        values.push(value);
        true
    })
}

fn end(count: usize) -> i32 {
    i32::try_from(count).expect("a batch of less than 2 GiB has fewer items")
}

fn last(ends: &[i32]) -> usize {
    ends.last().map_or(0, |&end| end as usize)
}

fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    let mut offsets = Vec::with_capacity(ends.len() + 1);
    offsets.push(0);
    offsets.extend(ends);
    OffsetBuffer::new(offsets.into())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Array as _, cast::AsArray as _, types::Int64Type};

    use super::*;
    use crate::testing::schema;

    fn column(text: &str) -> Column {
        Column::new(&schema(&[("c", text)]).fields()[0]).expect("a type of binary formats")
    }

    /// Of a record that fails deep inside, no item, key or byte may stay: the next record would take it for its own.
    #[test]
    fn what_is_truncated_leaves_nothing_behind_at_any_depth() {
        let mut column = column("List(Struct(\"name\": Utf8, \"counts\": List(Int64)))");
        fill(&mut column, "a", &[1, 2]).expect("fits");
        column.items().expect("a list").members().expect("a struct")[0].push_bytes(b"half").expect("text");
        column.items().expect("a list").members().expect("a struct")[1].items().expect("a list").push_i64(9).expect("fits");
        column.truncate(1);
        fill(&mut column, "b", &[3]).expect("fits");
        let array = column.finish();
        let rows: Vec<String> =
            (0..array.len()).map(|row| arrow_cast::display::array_value_to_string(&array, row).expect("it can be shown")).collect();
        assert_eq!(rows, ["[{name: a, counts: [1, 2]}]", "[{name: b, counts: [3]}]"]);
        assert_eq!(column.finish().len(), 0, "nothing is left in it");
    }

    fn fill(column: &mut Column, name: &str, counts: &[i64]) -> Result<(), Refused> {
        let item = column.items()?;
        let members = item.members()?;
        members[0].push_bytes(name.as_bytes())?;
        let list = members[1].items()?;
        counts.iter().try_for_each(|&count| list.push_i64(count))?;
        members[1].close();
        item.close();
        column.close();
        Ok(())
    }

    #[test]
    fn a_value_that_does_not_fit_appends_nothing_and_says_why() {
        let mut small = column("Int8");
        small.push_i64(127).expect("fits");
        assert_eq!(small.push_i64(128), Err("128 does not fit into Int8".into()));
        assert_eq!(small.push_null(), Err("null in a column declared without `?`".into()));
        assert_eq!(small.push_bytes(b"x"), Err("bytes or text in a column of type Int8".into()));
        assert_eq!(small.len(), 1);
        let mut text = column("Utf8?");
        text.push_bytes(b"\xff").expect_err("no text");
        text.push_null().expect("may be null");
        let mut decimal = column("Decimal128(3, 1)");
        decimal.push_decimal(1_000).expect_err("four digits");
        decimal.push_decimal(-999).expect("three digits");
        let mut unsigned = column("UInt64");
        unsigned.push_u64(u64::MAX).expect("fits");
        unsigned.push_i64(-1).expect_err("negative");
        assert_eq!(column("Int64").push_u64(u64::MAX), Err(format!("{} does not fit into Int64", u64::MAX)));
    }

    #[test]
    fn parts_of_a_null_are_there_and_say_nothing() {
        let mut column = column("Struct(\"id\": Int64)?");
        column.push_null().expect("may be null");
        column.members().expect("a struct")[0].push_i64(7).expect("fits");
        column.close();
        let array = column.finish();
        assert!(array.is_null(0) && array.is_valid(1));
        assert_eq!(array.as_struct().column(0).as_primitive::<Int64Type>().value(1), 7);
    }
}
