//! Columns → values in a schema.
//!
//! [`Writer`] walks schema and columns once. Each batch is first brought to few shapes (all integers as Int64, text as Utf8 …), whole columns at a
//! time, and then written row by row.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, RecordBatch,
    cast::AsArray,
    types::{Decimal128Type, Float32Type, Float64Type, Int64Type},
};
use arrow_schema::{DataType, Field as ArrowField, Fields, TimeUnit};
use serde_json::Value;

use super::{
    schema::{Field, Logical, Schema, Type, TypeId},
    types::unit,
};
use crate::formats::cast::{Casts, Written, write_rows};

/// Writes columns in a schema.
#[derive(Clone, Debug)]
pub struct Writer {
    schema: Schema,
    parts: Vec<Part>,
    casts: Vec<Casts>,
}

#[derive(Clone, Debug)]
enum Part {
    Column(usize, Write),
    /// The default of a field that no column fills.
    Constant(Arc<[u8]>),
}

#[derive(Clone, Debug)]
enum Write {
    Boolean,
    Long,
    Float,
    Double,
    Text,
    Bytes,
    Fixed,
    Decimal,
    FixedDecimal(usize),
    Enum(Arc<[String]>),
    /// Branches of null and of all else.
    Union {
        null: Option<i64>,
        branch: i64,
        write: Box<Write>,
    },
    List(Box<Write>),
    Map(Box<Write>),
    Record(Vec<Part>),
}

impl Writer {
    /// Writes rows of `columns` in `schema`.
    ///
    /// # Errors
    /// They do not fit; a clause that names the column or the field.
    pub fn new(schema: &Schema, columns: &arrow_schema::Schema) -> Result<Self, String> {
        let Type::Record { fields, .. } = schema.get(schema.root()) else { return Err("the schema is not one of records".into()) };
        let (parts, casts) = record(schema, fields, columns.fields())?;
        Ok(Self { schema: schema.clone(), parts, casts })
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
        write_rows(columns, &self.casts, Written { head, out, ends }, |brought, row, out| {
            write_parts(&self.parts, brought, row, out, &|column| columns.schema_ref().field(column).name().clone())
        })
    }
}

fn record(schema: &Schema, fields: &[Field], columns: &Fields) -> Result<(Vec<Part>, Vec<[DataType; 2]>), String> {
    if let Some(column) = columns.iter().find(|column| fields.iter().all(|field| field.name != *column.name())) {
        return Err(format!("column {} is no field of the schema: leave it out with `select`", column.name()));
    }
    let mut casts: Vec<[DataType; 2]> = columns.iter().map(|column| [column.data_type().clone(), column.data_type().clone()]).collect();
    let mut parts = Vec::with_capacity(fields.len());
    for field in fields {
        let found = columns.iter().enumerate().find(|(_, column)| *column.name() == field.name);
        parts.push(match found {
            Some((number, column)) => {
                let (write, to) = compile(schema, field.type_id, column).map_err(|error| format!("column {}: {error}", column.name()))?;
                casts[number] = to;
                Part::Column(number, write)
            }
            None => Part::Constant(default(schema, field)?.into()),
        });
    }
    Ok((parts, casts))
}

fn default(schema: &Schema, field: &Field) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let missing = || format!("field {} of the schema has no default, and no column fills it", field.name);
    encode_json(schema, field.type_id, field.default.as_ref().ok_or_else(missing)?, &mut bytes)
        .map_err(|error| format!("the default of field {}: {error}", field.name))?;
    Ok(bytes)
}

/// How a column is written, and what it is brought to before.
fn compile(schema: &Schema, id: TypeId, column: &ArrowField) -> Result<(Write, [DataType; 2]), String> {
    use DataType as D;
    let found = schema.get(id);
    if let Type::Union(branches) = found {
        return union(schema, branches, column);
    }
    if column.is_nullable() {
        return Err("it may be null (`?`), and its field in the schema may not".into());
    }
    let same = |data_type: D| [data_type.clone(), data_type];
    let own = column.data_type();
    Ok(match (found, own) {
        (Type::Boolean, D::Boolean) => (Write::Boolean, same(D::Boolean)),
        (Type::Int(logical), own) if fits_int(*logical, own) => (Write::Long, [in_unit(*logical, own), D::Int64]),
        (Type::Long(logical), own) if fits_long(*logical, own) => (Write::Long, [in_unit(*logical, own), D::Int64]),
        (Type::Float, D::Float32) => (Write::Float, same(D::Float32)),
        (Type::Double, D::Float32 | D::Float64) => (Write::Double, same(D::Float64)),
        (Type::Double, own) if own.is_integer() && !matches!(own, D::Int64 | D::UInt64) => (Write::Double, same(D::Float64)),
        (Type::String(_), D::Utf8 | D::LargeUtf8 | D::Utf8View) => (Write::Text, same(D::Utf8)),
        (Type::Enum(symbols), D::Utf8 | D::LargeUtf8 | D::Utf8View) => (Write::Enum(symbols.clone()), same(D::Utf8)),
        (Type::Bytes(Logical::Decimal { precision, scale }), D::Decimal128(have, of)) if scale == of && have <= precision => {
            (Write::Decimal, same(own.clone()))
        }
        (Type::Fixed { size, logical: Logical::Decimal { precision, scale } }, D::Decimal128(have, of))
            if scale == of && have <= precision =>
        {
            (Write::FixedDecimal(*size), same(own.clone()))
        }
        (Type::Bytes(_), D::Binary | D::LargeBinary | D::BinaryView) => (Write::Bytes, same(D::Binary)),
        (Type::Fixed { size, .. }, D::FixedSizeBinary(have)) if *size == have.unsigned_abs() as usize => (Write::Fixed, same(own.clone())),
        (Type::Array(item), D::List(have) | D::LargeList(have) | D::FixedSizeList(have, _)) => {
            let (write, to) = compile(schema, *item, have)?;
            (Write::List(Box::new(write)), to.map(|to| D::List(Arc::new(have.as_ref().clone().with_data_type(to)))))
        }
        (Type::Map(value), D::Map(entries, sorted)) => match entries.data_type() {
            D::Struct(fields) if matches!(fields[0].data_type(), D::Utf8 | D::LargeUtf8) => {
                let (write, to) = compile(schema, *value, &fields[1])?;
                let entries_to = |to: DataType| {
                    let key = Arc::new(fields[0].as_ref().clone().with_data_type(D::Utf8));
                    let fields: Fields = vec![key, Arc::new(fields[1].as_ref().clone().with_data_type(to))].into();
                    D::Map(Arc::new(entries.as_ref().clone().with_data_type(D::Struct(fields))), *sorted)
                };
                (Write::Map(Box::new(write)), to.map(entries_to))
            }
            _ => return Err("the keys of a map in Avro are text".into()),
        },
        (Type::Record { fields, .. }, D::Struct(members)) => {
            let (parts, casts) = record(schema, fields, members)?;
            let to = |step: usize| {
                let member =
                    |(member, cast): (&Arc<ArrowField>, &[DataType; 2])| member.as_ref().clone().with_data_type(cast[step].clone());
                D::Struct(members.iter().zip(&casts).map(member).collect())
            };
            (Write::Record(parts), [to(0), to(1)])
        }
        _ => return Err(format!("{own} does not fit the type of its field in the schema: convert it with `select` before")),
    })
}

fn union(schema: &Schema, branches: &[TypeId], column: &ArrowField) -> Result<(Write, [DataType; 2]), String> {
    let null = branches.iter().position(|&branch| *schema.get(branch) == Type::Null).map(|null| null as i64);
    if null.is_none() && column.is_nullable() {
        return Err("it may be null (`?`), and its field in the schema may not".into());
    }
    let valid = column.clone().with_nullable(false);
    let mut refused = None;
    for (branch, &id) in branches.iter().enumerate().filter(|(_, id)| *schema.get(**id) != Type::Null) {
        match compile(schema, id, &valid) {
            Ok((write, to)) => return Ok((Write::Union { null, branch: branch as i64, write: Box::new(write) }, to)),
            Err(error) => refused = refused.or(Some(error)),
        }
    }
    Err(refused.unwrap_or_else(|| "its field in the schema is always null".into()))
}

fn fits_int(logical: Logical, own: &DataType) -> bool {
    use DataType as D;
    match logical {
        Logical::Date => matches!(own, D::Date32),
        Logical::TimeMillis => matches!(own, D::Time32(_)),
        _ => matches!(own, D::Int8 | D::Int16 | D::Int32 | D::UInt8 | D::UInt16),
    }
}

fn fits_long(logical: Logical, own: &DataType) -> bool {
    use DataType as D;
    match (logical, own) {
        (Logical::TimeMicros, own) => matches!(own, D::Time64(TimeUnit::Microsecond) | D::Time32(_)),
        // A finer unit is not cut to a coarser one.
        (Logical::Timestamp { per_second, .. }, D::Timestamp(have, _)) => *have <= unit(per_second),
        (Logical::Timestamp { .. }, _) => false,
        (_, own) => own.is_integer() || matches!(own, D::Duration(_)),
    }
}

/// The type in which the integers of a column are those of the schema.
fn in_unit(logical: Logical, own: &DataType) -> DataType {
    match (logical, own) {
        (Logical::Timestamp { per_second, .. }, DataType::Timestamp(_, zone)) => DataType::Timestamp(unit(per_second), zone.clone()),
        (Logical::TimeMillis, _) => DataType::Time32(TimeUnit::Millisecond),
        (Logical::TimeMicros, _) => DataType::Time64(TimeUnit::Microsecond),
        _ => own.clone(),
    }
}

fn write_parts(parts: &[Part], columns: &[ArrayRef], row: usize, out: &mut Vec<u8>, name: &dyn Fn(usize) -> String) -> Result<(), String> {
    for part in parts {
        match part {
            Part::Constant(bytes) => out.extend_from_slice(bytes),
            Part::Column(column, write) => {
                write.write(&columns[*column], row, out).map_err(|error| format!("column {}: {error}", name(*column)))?;
            }
        }
    }
    Ok(())
}

impl Write {
    fn write(&self, array: &dyn Array, row: usize, out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Boolean => out.push(u8::from(array.as_boolean().value(row))),
            Self::Long => long(array.as_primitive::<Int64Type>().value(row), out),
            Self::Float => out.extend_from_slice(&array.as_primitive::<Float32Type>().value(row).to_le_bytes()),
            Self::Double => out.extend_from_slice(&array.as_primitive::<Float64Type>().value(row).to_le_bytes()),
            Self::Text => bytes(array.as_string::<i32>().value(row).as_bytes(), out),
            Self::Bytes => bytes(array.as_binary::<i32>().value(row), out),
            Self::Fixed => out.extend_from_slice(array.as_fixed_size_binary().value(row)),
            Self::Decimal => bytes(shortest(&array.as_primitive::<Decimal128Type>().value(row).to_be_bytes()), out),
            Self::FixedDecimal(size) => {
                let value = array.as_primitive::<Decimal128Type>().value(row).to_be_bytes();
                let kept = shortest(&value);
                let fill = if kept[0] & 0x80 == 0 { 0 } else { 0xff };
                let missing = size.checked_sub(kept.len()).ok_or_else(|| format!("a decimal that takes more than {size} bytes"))?;
                out.extend(std::iter::repeat_n(fill, missing));
                out.extend_from_slice(kept);
            }
            Self::Enum(symbols) => {
                let text = array.as_string::<i32>().value(row);
                let symbol = symbols.iter().position(|symbol| symbol == text);
                long(symbol.ok_or_else(|| format!("\"{text}\" is no symbol of the enum"))? as i64, out);
            }
            Self::Union { null: Some(null), .. } if array.is_null(row) => long(*null, out),
            Self::Union { branch, write, .. } => {
                long(*branch, out);
                write.write(array, row, out)?;
            }
            Self::List(write) => {
                let items = array.as_list::<i32>().value(row);
                block(items.len(), out, |item, out| write.write(&items, item, out))?;
            }
            Self::Map(write) => {
                let entries = array.as_map().value(row);
                let (keys, values) = (entries.column(0).as_string::<i32>(), entries.column(1));
                block(entries.len(), out, |entry, out| {
                    bytes(keys.value(entry).as_bytes(), out);
                    write.write(values, entry, out)
                })?;
            }
            Self::Record(parts) => {
                let values = array.as_struct();
                write_parts(parts, values.columns(), row, out, &|member| values.fields()[member].name().clone())?;
            }
        }
        Ok(())
    }
}

fn block(count: usize, out: &mut Vec<u8>, mut item: impl FnMut(usize, &mut Vec<u8>) -> Result<(), String>) -> Result<(), String> {
    if count > 0 {
        long(count as i64, out);
        (0..count).try_for_each(|number| item(number, out))?;
    }
    out.push(0);
    Ok(())
}

/// A number in base 128, zigzag.
#[inline]
pub(super) fn long(value: i64, out: &mut Vec<u8>) {
    let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

pub(super) fn bytes(value: &[u8], out: &mut Vec<u8>) {
    long(value.len() as i64, out);
    out.extend_from_slice(value);
}

/// Without leading bytes that say nothing.
fn shortest(value: &[u8; 16]) -> &[u8] {
    let is_spare = |pair: &&[u8]| (pair[0] == 0 && pair[1] & 0x80 == 0) || (pair[0] == 0xff && pair[1] & 0x80 != 0);
    let spare = value.windows(2).take_while(is_spare).count();
    &value[spare..]
}

/// A default of a schema, in the binary encoding. (The default of a union is one of its first branch.)
///
/// # Errors
/// It is no value of the type; a clause.
pub(super) fn encode_json(schema: &Schema, id: TypeId, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    encode_within(schema, id, value, out, DEFAULT_DEPTH_MAX)
}

/// How deep defaults may nest: a record may be the default of one of its own fields.
const DEFAULT_DEPTH_MAX: u32 = 32;

fn encode_within(schema: &Schema, id: TypeId, value: &Value, out: &mut Vec<u8>, depth: u32) -> Result<(), String> {
    let Some(depth) = depth.checked_sub(1) else { return Err(format!("it nests deeper than {DEFAULT_DEPTH_MAX}")) };
    let wrong = || format!("{value} is no value of its type");
    match schema.get(id) {
        Type::Null if value.is_null() => {}
        Type::Null => return Err(wrong()),
        Type::Boolean => out.push(u8::from(value.as_bool().ok_or_else(wrong)?)),
        Type::Int(_) | Type::Long(_) => long(value.as_i64().ok_or_else(wrong)?, out),
        Type::Float => out.extend_from_slice(&(value.as_f64().ok_or_else(wrong)? as f32).to_le_bytes()),
        Type::Double => out.extend_from_slice(&value.as_f64().ok_or_else(wrong)?.to_le_bytes()),
        Type::String(_) => bytes(value.as_str().ok_or_else(wrong)?.as_bytes(), out),
        Type::Bytes(_) => bytes(&code_points(value).ok_or_else(wrong)?, out),
        Type::Fixed { size, .. } => {
            let value = code_points(value).filter(|value| value.len() == *size).ok_or_else(wrong)?;
            out.extend_from_slice(&value);
        }
        Type::Enum(symbols) => {
            let symbol = value.as_str().and_then(|text| symbols.iter().position(|symbol| symbol == text));
            long(symbol.ok_or_else(wrong)? as i64, out);
        }
        Type::Array(item) => {
            let items = value.as_array().ok_or_else(wrong)?;
            block(items.len(), out, |number, out| encode_within(schema, *item, &items[number], out, depth))?;
        }
        Type::Map(of) => {
            let entries: Vec<(&String, &Value)> = value.as_object().ok_or_else(wrong)?.iter().collect();
            block(entries.len(), out, |number, out| {
                bytes(entries[number].0.as_bytes(), out);
                encode_within(schema, *of, entries[number].1, out, depth)
            })?;
        }
        Type::Union(branches) => {
            for (branch, &id) in branches.iter().enumerate() {
                let mut encoded = Vec::new();
                if encode_within(schema, id, value, &mut encoded, depth).is_ok() {
                    long(branch as i64, out);
                    out.extend_from_slice(&encoded);
                    return Ok(());
                }
            }
            return Err(wrong());
        }
        Type::Record { fields, .. } => {
            let members = value.as_object().ok_or_else(wrong)?;
            for field in fields {
                let value = members.get(&field.name).or(field.default.as_ref()).ok_or_else(wrong)?;
                encode_within(schema, field.type_id, value, out, depth)?;
            }
        }
    }
    Ok(())
}

/// Bytes in a schema are text whose characters are the bytes.
fn code_points(value: &Value) -> Option<Vec<u8>> {
    value.as_str()?.chars().map(|character| u8::try_from(u32::from(character)).ok()).collect()
}
