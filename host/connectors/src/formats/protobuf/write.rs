//! Columns → messages.
//!
//! [`Writer`] walks descriptor and columns once. Each batch is first brought to few shapes, whole columns at a time, and then written row by row.
//! What is null is left out, as are defaults where the descriptor does not tell them from what is not there.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Float32Type, Float64Type, Int64Type, UInt64Type},
};
use arrow_schema::{DataType, Field as ArrowField, Fields, TimeUnit};

use super::{
    Schema,
    schema::{Field as Described, Kind, Label, Message as Descriptor},
    types::{Known, wrapped},
};
use crate::formats::cast::{Casts, Written, write_rows};

/// Writes columns as messages.
#[derive(Clone, Debug)]
pub struct Writer {
    schema: Schema,
    fields: Vec<Field>,
    /// What each column is brought to: first its unit, then its shape.
    casts: Vec<Casts>,
}

#[derive(Clone, Debug)]
struct Field {
    column: usize,
    number: u32,
    name: Box<str>,
    shape: Shape,
}

#[derive(Clone, Debug)]
enum Shape {
    /// Written also where it is the default.
    Known(Single),
    /// Left out where it is the default.
    Implicit(Single),
    Many(Single),
    Packed(Single),
    Map(Single, Single),
}

#[derive(Clone, Debug)]
enum Single {
    /// In two's complement of 64 bits; the least and the most that the field holds.
    Varint(i64, i64),
    Uint64,
    Zigzag(i64, i64),
    Bool,
    Fixed32(i64, i64),
    Sfixed64,
    Fixed64,
    Float,
    Double,
    Text,
    Bytes,
    Enum(Arc<BTreeMap<String, i32>>),
    Message(Vec<Field>),
    /// Nanoseconds; those of a duration may be negative.
    Instant {
        is_duration: bool,
    },
    Wrapped(Box<Shape>),
}

impl Writer {
    /// Writes rows of `columns` as messages.
    ///
    /// # Errors
    /// They do not fit; a clause that names the column or the field.
    pub fn new(schema: &Schema, columns: &arrow_schema::Schema) -> Result<Self, String> {
        let (fields, casts) = message(schema.message(), columns.fields())?;
        Ok(Self { schema: schema.clone(), fields, casts })
    }

    /// What it writes.
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// Appends the rows to `out`, each behind what `head` writes, and to `ends` where each ends.
    ///
    /// # Errors
    /// A value cannot be written; a clause that names column and row.
    pub fn rows(
        &self,
        columns: &RecordBatch,
        head: &dyn Fn(usize, &mut Vec<u8>),
        out: &mut Vec<u8>,
        ends: &mut Vec<usize>,
    ) -> Result<(), String> {
        write_rows(columns, &self.casts, Written { head, out, ends }, |brought, row, out| write_fields(&self.fields, brought, row, out))
    }
}

type Compiled<T> = Result<(T, [DataType; 2]), String>;

fn message(descriptor: &Descriptor, columns: &Fields) -> Result<(Vec<Field>, Vec<[DataType; 2]>), String> {
    let (mut fields, mut casts) = (Vec::new(), Vec::new());
    for (number, column) in columns.iter().enumerate() {
        let missing = || format!("column {} is no field of message {}: leave it out with `select`", column.name(), descriptor.full_name());
        let field = descriptor.named(column.name()).ok_or_else(missing)?;
        let (shape, to) = shape(&field, column).map_err(|error| format!("column {}: {error}", column.name()))?;
        fields.push(Field { column: number, number: field.number(), name: column.name().as_str().into(), shape });
        casts.push(to);
    }
    let required = |field: &Described| field.label() == Label::Required && columns.iter().all(|column| column.name() != field.name());
    if let Some(field) = descriptor.fields().find(required) {
        return Err(format!("field {} of message {} is required, and no column fills it", field.name(), descriptor.full_name()));
    }
    fields.sort_by_key(|field| field.number);
    Ok((fields, casts))
}

fn shape(field: &Described, column: &ArrowField) -> Compiled<Shape> {
    let refused = || Err(format!("{} does not fit field {}: convert it with `select` before", column.data_type(), field.full_name()));
    match column.data_type() {
        DataType::Map(entries, sorted) if field.label() == Label::Map => {
            let (Some(entry), DataType::Struct(members)) = (field.entry(), entries.data_type()) else { return refused() };
            let (key, key_to) = single(&entry.0, &members[0])?;
            let (value, value_to) = single(&entry.1, &members[1])?;
            let to = |step: usize| {
                let key = members[0].as_ref().clone().with_data_type(key_to[step].clone());
                let value = members[1].as_ref().clone().with_data_type(value_to[step].clone());
                DataType::Map(Arc::new(entries.as_ref().clone().with_data_type(DataType::Struct(vec![key, value].into()))), *sorted)
            };
            Ok((Shape::Map(key, value), [to(0), to(1)]))
        }
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) if field.label() == Label::Repeated => {
            let (single, to) = single(field, item)?;
            let list = to.map(|to| DataType::List(Arc::new(item.as_ref().clone().with_data_type(to))));
            Ok((if field.is_packed() { Shape::Packed(single) } else { Shape::Many(single) }, list))
        }
        _ if matches!(field.label(), Label::Repeated | Label::Map) => refused(),
        _ => {
            let (single, to) = single(field, column)?;
            Ok((if field.has_presence() { Shape::Known(single) } else { Shape::Implicit(single) }, to))
        }
    }
}

fn single(field: &Described, column: &ArrowField) -> Compiled<Single> {
    use DataType as D;
    let own = column.data_type();
    let same = |data_type: D| [data_type.clone(), data_type];
    let (int32, uint32) = ((i64::from(i32::MIN), i64::from(i32::MAX)), (0, i64::from(u32::MAX)));
    let is_text = matches!(own, D::Utf8 | D::LargeUtf8 | D::Utf8View);
    let is_bytes = matches!(own, D::Binary | D::LargeBinary | D::BinaryView | D::FixedSizeBinary(_));
    Ok(match field.kind() {
        Kind::Int32 if own.is_integer() => (Single::Varint(int32.0, int32.1), same(D::Int64)),
        Kind::Int64 if own.is_integer() => (Single::Varint(i64::MIN, i64::MAX), same(D::Int64)),
        Kind::Uint32 if own.is_integer() => (Single::Varint(uint32.0, uint32.1), same(D::Int64)),
        Kind::Uint64 if own.is_integer() => (Single::Uint64, same(D::UInt64)),
        Kind::Sint32 if own.is_integer() => (Single::Zigzag(int32.0, int32.1), same(D::Int64)),
        Kind::Sint64 if own.is_integer() => (Single::Zigzag(i64::MIN, i64::MAX), same(D::Int64)),
        Kind::Fixed32 if own.is_integer() => (Single::Fixed32(uint32.0, uint32.1), same(D::Int64)),
        Kind::Sfixed32 if own.is_integer() => (Single::Fixed32(int32.0, int32.1), same(D::Int64)),
        Kind::Fixed64 if own.is_integer() => (Single::Fixed64, same(D::UInt64)),
        Kind::Sfixed64 if own.is_integer() => (Single::Sfixed64, same(D::Int64)),
        Kind::Bool if *own == D::Boolean => (Single::Bool, same(D::Boolean)),
        Kind::Float if *own == D::Float32 => (Single::Float, same(D::Float32)),
        Kind::Double if matches!(own, D::Float32 | D::Float64) => (Single::Double, same(D::Float64)),
        Kind::String if is_text => (Single::Text, same(D::Utf8)),
        Kind::Bytes if is_bytes => (Single::Bytes, same(D::Binary)),
        Kind::Enum(_) if own.is_integer() => (Single::Varint(int32.0, int32.1), same(D::Int64)),
        Kind::Enum(id) if is_text => (Single::Enum(Arc::new(field.of_enum(id).values.iter().cloned().collect())), same(D::Utf8)),
        Kind::Message(id) => return of_message(&field.of(id), column),
        _ => return Err(format!("{own} does not fit field {}: convert it with `select` before", field.full_name())),
    })
}

fn of_message(of: &Descriptor, column: &ArrowField) -> Compiled<Single> {
    match (Known::of(of), column.data_type()) {
        (Some(Known::Timestamp), DataType::Timestamp(_, zone)) => {
            Ok((Single::Instant { is_duration: false }, [DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()), DataType::Int64]))
        }
        (Some(Known::Duration), DataType::Duration(_)) => {
            Ok((Single::Instant { is_duration: true }, [DataType::Duration(TimeUnit::Nanosecond), DataType::Int64]))
        }
        (Some(Known::Wrapper), _) => {
            let (inner, to) = shape(&wrapped(of), &column.clone().with_nullable(false))?;
            Ok((Single::Wrapped(Box::new(inner)), to))
        }
        (_, DataType::Struct(members)) => {
            let (fields, casts) = message(of, members)?;
            let to = |step: usize| {
                let member =
                    |(member, cast): (&Arc<ArrowField>, &[DataType; 2])| member.as_ref().clone().with_data_type(cast[step].clone());
                DataType::Struct(members.iter().zip(&casts).map(member).collect())
            };
            Ok((Single::Message(fields), [to(0), to(1)]))
        }
        (_, own) => Err(format!("{own} does not fit message {}: convert it with `select` before", of.full_name())),
    }
}

fn write_fields(fields: &[Field], columns: &[ArrayRef], row: usize, out: &mut Vec<u8>) -> Result<(), String> {
    for field in fields {
        let column = columns[field.column].as_ref();
        if column.is_valid(row) {
            field.shape.write(field.number, column, row, out).map_err(|error| format!("column {}: {error}", field.name))?;
        }
    }
    Ok(())
}

impl Shape {
    fn write(&self, number: u32, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Known(single) => single.tagged(number, array, row, out),
            Self::Implicit(single) => {
                let start = out.len();
                single.tagged(number, array, row, out)?;
                if single.is_default(array, row) {
                    out.truncate(start);
                }
                Ok(())
            }
            Self::Many(single) => {
                let items = array.as_list::<i32>().value(row);
                no_nulls(&items)?;
                (0..items.len()).try_for_each(|item| single.tagged(number, &items, item, out))
            }
            Self::Packed(single) => {
                let items = array.as_list::<i32>().value(row);
                no_nulls(&items)?;
                if items.is_empty() {
                    return Ok(());
                }
                delimited(number, out, |out| (0..items.len()).try_for_each(|item| single.write(&items, item, out)))
            }
            Self::Map(key, value) => {
                let entries = array.as_map().value(row);
                let (keys, values) = (entries.column(0), entries.column(1));
                no_nulls(values)?;
                (0..entries.len()).try_for_each(|entry| {
                    delimited(number, out, |out| {
                        key.tagged(1, keys, entry, out)?;
                        value.tagged(2, values, entry, out)
                    })
                })
            }
        }
    }
}

fn no_nulls(items: &ArrayRef) -> Result<(), String> {
    if items.null_count() > 0 { Err("lists and maps of Protocol Buffers hold no nulls".into()) } else { Ok(()) }
}

impl Single {
    fn wire_type(&self) -> u32 {
        match self {
            Self::Varint(..) | Self::Uint64 | Self::Zigzag(..) | Self::Bool | Self::Enum(_) => 0,
            Self::Fixed64 | Self::Sfixed64 | Self::Double => 1,
            Self::Fixed32(..) | Self::Float => 5,
            Self::Text | Self::Bytes | Self::Message(_) | Self::Instant { .. } | Self::Wrapped(_) => 2,
        }
    }

    fn tagged(&self, number: u32, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Message(_) | Self::Instant { .. } | Self::Wrapped(_) => delimited(number, out, |out| self.write(array, row, out)),
            _ => {
                varint(u64::from(number << 3 | self.wire_type()), out);
                self.write(array, row, out)
            }
        }
    }

    fn write(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        let signed = |least: i64, most: i64| {
            let value = array.as_primitive::<Int64Type>().value(row);
            if (least..=most).contains(&value) { Ok(value) } else { Err(format!("{value} does not fit into the field")) }
        };
        match self {
            Self::Varint(least, most) => varint(signed(*least, *most)?.cast_unsigned(), out),
            Self::Zigzag(least, most) => {
                let value = signed(*least, *most)?;
                varint(((value << 1) ^ (value >> 63)).cast_unsigned(), out);
            }
            Self::Fixed32(least, most) => out.extend_from_slice(&(signed(*least, *most)? as u32).to_le_bytes()),
            Self::Sfixed64 => out.extend_from_slice(&array.as_primitive::<Int64Type>().value(row).to_le_bytes()),
            Self::Uint64 => varint(array.as_primitive::<UInt64Type>().value(row), out),
            Self::Fixed64 => out.extend_from_slice(&array.as_primitive::<UInt64Type>().value(row).to_le_bytes()),
            Self::Bool => out.push(u8::from(array.as_boolean().value(row))),
            Self::Float => out.extend_from_slice(&array.as_primitive::<Float32Type>().value(row).to_le_bytes()),
            Self::Double => out.extend_from_slice(&array.as_primitive::<Float64Type>().value(row).to_le_bytes()),
            Self::Text => bytes(array.as_string::<i32>().value(row).as_bytes(), out),
            Self::Bytes => bytes(array.as_binary::<i32>().value(row), out),
            Self::Enum(names) => varint(i64::from(enum_number(names, array.as_string::<i32>().value(row))?).cast_unsigned(), out),
            Self::Message(fields) => write_fields(fields, array.as_struct().columns(), row, out)?,
            Self::Instant { is_duration } => instant(array.as_primitive::<Int64Type>().value(row), *is_duration, out),
            Self::Wrapped(inner) => inner.write(1, array, row, out)?,
        }
        Ok(())
    }

    fn is_default(&self, array: &dyn Array, row: usize) -> bool {
        match self {
            Self::Varint(..) | Self::Zigzag(..) | Self::Fixed32(..) | Self::Sfixed64 => array.as_primitive::<Int64Type>().value(row) == 0,
            Self::Uint64 | Self::Fixed64 => array.as_primitive::<UInt64Type>().value(row) == 0,
            Self::Bool => !array.as_boolean().value(row),
            // The negative zero is not the default.
            Self::Float => array.as_primitive::<Float32Type>().value(row).to_bits() == 0,
            Self::Double => array.as_primitive::<Float64Type>().value(row).to_bits() == 0,
            Self::Text => array.as_string::<i32>().value(row).is_empty(),
            Self::Bytes => array.as_binary::<i32>().value(row).is_empty(),
            Self::Enum(names) => enum_number(names, array.as_string::<i32>().value(row)) == Ok(0),
            Self::Message(_) | Self::Instant { .. } | Self::Wrapped(_) => false,
        }
    }
}

/// The number of a name, or of itself: names that are numbers were read from numbers that have no name.
fn enum_number(names: &BTreeMap<String, i32>, text: &str) -> Result<i32, String> {
    let number = names.get(text).copied().or_else(|| text.parse().ok());
    number.ok_or_else(|| format!("\"{text}\" is no name of the enum"))
}

fn delimited(number: u32, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
    varint(u64::from(number << 3 | 2), out);
    let start = out.len();
    write(out)?;
    // Its length stands in front of it and is known behind it.
    let mut length = Vec::with_capacity(5);
    varint((out.len() - start) as u64, &mut length);
    out.splice(start..start, length);
    Ok(())
}

/// Seconds and nanoseconds; the nanoseconds of a timestamp are never negative.
fn instant(nanos: i64, is_duration: bool, out: &mut Vec<u8>) {
    const SECOND: i64 = 1_000_000_000;
    let (seconds, nanos) =
        if is_duration { (nanos / SECOND, nanos % SECOND) } else { (nanos.div_euclid(SECOND), nanos.rem_euclid(SECOND)) };
    for (number, value) in [(1, seconds), (2, nanos)].into_iter().filter(|(_, value)| *value != 0) {
        varint(number << 3, out);
        varint(value.cast_unsigned(), out);
    }
}

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}
