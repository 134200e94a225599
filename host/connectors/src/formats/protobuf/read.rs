//! Messages → columns.
//!
//! A message is looked through once: where each wanted field lies is kept, all else is passed over. What comes twice counts as the specification
//! says: the last one of a scalar, all of a message joined. Nothing is trusted: lengths are compared with the bytes that are left, groups nest only
//! so deep, and messages as deep as their columns.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Schema,
    schema::{Field as Described, Kind, Label, Message as Descriptor},
    types::{Known, wrapped},
};
use crate::formats::columns::{Column, Rows};
use arrow_schema::{DataType, Field as ArrowField, Fields, TimeUnit};

/// How deep groups that are passed over may nest.
const GROUP_DEPTH_MAX: u32 = 64;

/// How messages of one type become columns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plan(Arc<Message>);

/// How a message is read.
#[derive(Debug)]
struct Message {
    /// In the order of the columns.
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    number: u32,
    name: Box<str>,
    shape: Shape,
}

#[derive(Debug)]
enum Shape {
    One { single: Single, absent: Absent },
    Many(Single),
    Map { key: Single, value: Single, default: Absent },
}

/// What stands in a column where the field is not there.
#[derive(Debug)]
enum Absent {
    Null,
    Value(Constant),
    /// A message, in a column declared without `?`.
    Wrong,
    /// A message of nothing but defaults.
    Empty,
}

#[derive(Debug)]
enum Constant {
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Bytes(Vec<u8>),
}

/// How one value becomes an entry.
#[derive(Debug)]
enum Single {
    Int32,
    Int64,
    Uint32,
    Uint64,
    Sint32,
    Sint64,
    Bool,
    Fixed32,
    Sfixed32,
    Float,
    Fixed64,
    Sfixed64,
    Double,
    Bytes,
    EnumName(Arc<BTreeMap<i32, String>>),
    Message(Message),
    /// Units per second, and whether it is a timestamp.
    Instant(i64),
    Wrapped(Box<Single>, Absent),
}

impl Plan {
    /// Reads these columns of messages.
    ///
    /// # Errors
    /// A column cannot be read from them; a clause that names it.
    pub fn new(schema: &Schema, columns: &arrow_schema::Schema) -> Result<Self, String> {
        message(schema.message(), columns.fields()).map(|message| Self(Arc::new(message)))
    }

    /// Appends the row of a message.
    ///
    /// # Errors
    /// It cannot be read; a clause. Nothing of it is left.
    pub fn push(&self, rows: &mut Rows, value: &[u8]) -> Result<(), String> {
        rows.push(|columns| self.0.read(value, columns))
    }
}

fn message(descriptor: &Descriptor, columns: &Fields) -> Result<Message, String> {
    let field = |column: &Arc<ArrowField>| {
        let found = descriptor.named(column.name());
        let found = found.ok_or_else(|| format!("message {} has no field {}", descriptor.full_name(), column.name()))?;
        let shape = shape(&found, column).map_err(|error| format!("column {}: {error}", column.name()))?;
        Ok::<_, String>(Field { number: found.number(), name: column.name().as_str().into(), shape })
    };
    Ok(Message { fields: columns.iter().map(field).collect::<Result<_, _>>()? })
}

fn shape(field: &Described, column: &ArrowField) -> Result<Shape, String> {
    let refused = || Err(format!("it is {} in the message, which is not read as {}", shown(field), column.data_type()));
    match (field.label(), column.data_type()) {
        (Label::Map, DataType::Map(entries, _)) => {
            let (Some((key, value)), DataType::Struct(members)) = (field.entry(), entries.data_type()) else { return refused() };
            let default = absent(&value, &members[1])?;
            Ok(Shape::Map { key: single(&key, &members[0])?, value: single(&value, &members[1])?, default })
        }
        (Label::Repeated, DataType::List(item)) => single(field, item).map(Shape::Many),
        (Label::One | Label::Required, _) => Ok(Shape::One { single: single(field, column)?, absent: absent(field, column)? }),
        _ => refused(),
    }
}

fn absent(field: &Described, column: &ArrowField) -> Result<Absent, String> {
    if field.has_presence() && column.is_nullable() {
        return Ok(Absent::Null);
    }
    let written = field.default();
    let wrong = |_| format!("field {} has a default that is none of its type", field.full_name());
    let integer = || written.map_or(Ok(0), str::parse::<i64>).map_err(|error| wrong(error.to_string()));
    let float = || written.map_or(Ok(0.0), str::parse::<f64>).map_err(|error| wrong(error.to_string()));
    Ok(match field.kind() {
        Kind::Message(_) if field.message.is_map_entry() => Absent::Empty,
        Kind::Message(_) => Absent::Wrong,
        Kind::Bool => Absent::Value(Constant::Bool(written == Some("true"))),
        Kind::Double | Kind::Float => Absent::Value(Constant::Float(float()?)),
        Kind::String | Kind::Bytes => Absent::Value(Constant::Bytes(written.unwrap_or_default().as_bytes().to_vec())),
        Kind::Uint64 | Kind::Fixed64 => {
            let value = written.map_or(Ok(0), str::parse::<u64>).map_err(|error| wrong(error.to_string()))?;
            Absent::Value(Constant::Unsigned(value))
        }
        Kind::Enum(id) => {
            let values = &field.of_enum(id).values;
            let found = values.iter().find(|(name, _)| written.is_none_or(|written| written == name));
            let (name, number) = found.ok_or_else(|| wrong(String::new()))?;
            let is_number = column.data_type().is_integer();
            Absent::Value(if is_number { Constant::Signed((*number).into()) } else { Constant::Bytes(name.clone().into_bytes()) })
        }
        _ => Absent::Value(Constant::Signed(integer()?)),
    })
}

fn single(field: &Described, column: &ArrowField) -> Result<Single, String> {
    use DataType as D;
    let own = column.data_type();
    let is_text = matches!(own, D::Utf8 | D::LargeUtf8);
    Ok(match field.kind() {
        Kind::Int32 if own.is_integer() => Single::Int32,
        Kind::Int64 if own.is_integer() => Single::Int64,
        Kind::Uint32 if own.is_integer() => Single::Uint32,
        Kind::Uint64 if own.is_integer() => Single::Uint64,
        Kind::Sint32 if own.is_integer() => Single::Sint32,
        Kind::Sint64 if own.is_integer() => Single::Sint64,
        Kind::Fixed32 if own.is_integer() => Single::Fixed32,
        Kind::Fixed64 if own.is_integer() => Single::Fixed64,
        Kind::Sfixed32 if own.is_integer() => Single::Sfixed32,
        Kind::Sfixed64 if own.is_integer() => Single::Sfixed64,
        Kind::Bool if *own == D::Boolean => Single::Bool,
        Kind::Float if matches!(own, D::Float32 | D::Float64) => Single::Float,
        Kind::Double if *own == D::Float64 => Single::Double,
        Kind::String if is_text || matches!(own, D::Binary | D::LargeBinary) => Single::Bytes,
        Kind::Bytes if matches!(own, D::Binary | D::LargeBinary | D::FixedSizeBinary(_)) => Single::Bytes,
        Kind::Enum(_) if own.is_integer() => Single::Int32,
        Kind::Enum(id) if is_text => {
            // Of several names of a number the first one counts.
            let names = field.of_enum(id).values.iter().rev().map(|(name, number)| (*number, name.clone()));
            Single::EnumName(Arc::new(names.collect()))
        }
        Kind::Message(id) => return of_message(&field.of(id), column),
        _ => return Err(format!("it is {} in the message, which is not read as {own}", shown(field))),
    })
}

fn of_message(of: &Descriptor, column: &ArrowField) -> Result<Single, String> {
    match (Known::of(of), column.data_type()) {
        (Some(Known::Timestamp), DataType::Timestamp(unit, _)) | (Some(Known::Duration), DataType::Duration(unit)) => {
            Ok(Single::Instant(per_second(*unit)))
        }
        (Some(Known::Wrapper), _) => {
            let inner = wrapped(of);
            let valid = column.clone().with_nullable(false);
            Ok(Single::Wrapped(Box::new(single(&inner, &valid)?), absent(&inner, &valid)?))
        }
        (_, DataType::Struct(members)) => message(of, members).map(Single::Message),
        (_, own) => Err(format!("it is message {}, which is not read as {own}", of.full_name())),
    }
}

pub(super) fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

fn shown(field: &Described) -> String {
    let kind = match field.kind() {
        _ if field.label() == Label::Map => return "a map".into(),
        Kind::Message(id) => format!("message {}", field.of(id).full_name()),
        Kind::Enum(id) => format!("enum {}", field.of_enum(id).full_name),
        other => format!("{other:?}").to_lowercase(),
    };
    if field.label() == Label::Repeated { format!("repeated {kind}") } else { kind }
}

/// A value as it lies in a message.
#[derive(Clone, Copy, Debug)]
enum Wire<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// What was found of a field.
#[derive(Clone, Debug)]
enum Found<'a> {
    Nothing,
    One(Wire<'a>),
    Many(Vec<Wire<'a>>),
}

impl<'a> Found<'a> {
    fn add(&mut self, wire: Wire<'a>) {
        match self {
            Self::Nothing => *self = Self::One(wire),
            Self::One(first) => *self = Self::Many(vec![*first, wire]),
            Self::Many(all) => all.push(wire),
        }
    }

    fn all(&self) -> &[Wire<'a>] {
        match self {
            Self::Nothing => &[],
            Self::One(wire) => std::slice::from_ref(wire),
            Self::Many(all) => all,
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

const ENDS: &str = "the message ends too early";

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn is_at_end(&self) -> bool {
        self.at == self.bytes.len()
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.bytes.get(self.at).ok_or(ENDS)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("a number is longer than 64 bits".into())
    }

    #[inline]
    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let left = self.bytes.len() - self.at;
        let count = usize::try_from(count)
            .ok()
            .filter(|count| *count <= left)
            .ok_or_else(|| format!("a length of {count}, and {left} bytes are left"))?;
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn fixed32(&mut self) -> Result<u32, String> {
        Ok(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes were taken")))
    }

    fn fixed64(&mut self) -> Result<u64, String> {
        Ok(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken")))
    }

    /// The number of the next field, and its wire type.
    #[inline]
    fn tag(&mut self) -> Result<(u32, u8), String> {
        let tag = u32::try_from(self.varint()?).map_err(|_| "a number of a field that is none")?;
        if tag >> 3 == 0 { Err("a field with number 0".into()) } else { Ok((tag >> 3, (tag & 7) as u8)) }
    }

    /// The value behind a tag; none: a group, which was passed over.
    #[inline]
    fn value(&mut self, number: u32, wire_type: u8, depth: u32) -> Result<Option<Wire<'a>>, String> {
        Ok(Some(match wire_type {
            0 => Wire::Varint(self.varint()?),
            1 => Wire::Fixed64(self.fixed64()?),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Fixed32(self.fixed32()?),
            3 => {
                self.skip_group(number, depth)?;
                return Ok(None);
            }
            other => return Err(format!("field {number} has wire type {other}, which is none")),
        }))
    }

    fn skip_group(&mut self, number: u32, depth: u32) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else { return Err(format!("groups nest deeper than {GROUP_DEPTH_MAX}")) };
        loop {
            match self.tag()? {
                (end, 4) if end == number => return Ok(()),
                (end, 4) => return Err(format!("group {number} ends as {end}")),
                (inner, wire_type) => drop(self.value(inner, wire_type, depth)?),
            }
        }
    }
}

impl Message {
    fn read(&self, bytes: &[u8], columns: &mut [Column]) -> Result<(), String> {
        let found = self.find(bytes)?;
        for ((field, found), column) in self.fields.iter().zip(&found).zip(columns) {
            field.read(found, column).map_err(|error| format!("column {}: {error}", field.name))?;
        }
        Ok(())
    }

    /// Where the wanted fields lie.
    fn find<'a>(&self, bytes: &'a [u8]) -> Result<Vec<Found<'a>>, String> {
        let mut found = vec![Found::Nothing; self.fields.len()];
        let mut cursor = Cursor::new(bytes);
        let mut expected = 0;
        while !cursor.is_at_end() {
            let (number, wire_type) = cursor.tag()?;
            let Some(wire) = cursor.value(number, wire_type, GROUP_DEPTH_MAX)? else { continue };
            // Fields mostly come in one order, that of the columns.
            let place = match self.fields.get(expected) {
                Some(field) if field.number == number => Some(expected),
                _ => self.fields.iter().position(|field| field.number == number),
            };
            if let Some(place) = place {
                expected = place + usize::from(!matches!(self.fields[place].shape, Shape::Many(_) | Shape::Map { .. }));
                found[place].add(wire);
            }
        }
        Ok(found)
    }
}

impl Field {
    fn read(&self, found: &Found<'_>, column: &mut Column) -> Result<(), String> {
        match &self.shape {
            Shape::One { single, absent } => read_one(single, absent, found, column),
            Shape::Many(single) => {
                let items = column.items()?;
                found.all().iter().try_for_each(|&wire| single.read_repeated(wire, items))?;
                column.close();
                Ok(())
            }
            Shape::Map { key, value, default } => {
                let (keys, values) = column.entries()?;
                // The same key may come again: the last one counts.
                let entries = Entries::find(found)?;
                for (key_wire, value_wire) in entries.kept(key)? {
                    match key_wire {
                        Some(wire) => key.read(wire, keys)?,
                        None => key.push_zero(keys)?,
                    }
                    match value_wire {
                        Some(wire) => value.read(wire, values)?,
                        None => default.push(value, values)?,
                    }
                }
                column.close();
                Ok(())
            }
        }
    }
}

fn read_one(single: &Single, absent: &Absent, found: &Found<'_>, column: &mut Column) -> Result<(), String> {
    match found {
        Found::Nothing => absent.push(single, column),
        Found::One(wire) => single.read(*wire, column),
        Found::Many(all) if single.is_message() => {
            let mut joined = Vec::new();
            for wire in all {
                let Wire::Bytes(bytes) = wire else { return Err(mismatch()) };
                joined.extend_from_slice(bytes);
            }
            single.read(Wire::Bytes(&joined), column)
        }
        Found::Many(all) => single.read(*all.last().expect("there are many"), column),
    }
}

type Entry<'a> = (Option<Wire<'a>>, Option<Wire<'a>>);

/// Entries of a map: messages of a key with number 1 and a value with number 2.
struct Entries<'a>(Vec<Entry<'a>>);

impl<'a> Entries<'a> {
    fn find(found: &Found<'a>) -> Result<Self, String> {
        let entry = |wire: &Wire<'a>| {
            let Wire::Bytes(bytes) = *wire else { return Err(mismatch()) };
            let mut cursor = Cursor::new(bytes);
            let mut entry = (None, None);
            while !cursor.is_at_end() {
                let (number, wire_type) = cursor.tag()?;
                match (number, cursor.value(number, wire_type, GROUP_DEPTH_MAX)?) {
                    (1, Some(wire)) => entry.0 = Some(wire),
                    (2, Some(wire)) => entry.1 = Some(wire),
                    _ => {}
                }
            }
            Ok(entry)
        };
        found.all().iter().map(entry).collect::<Result<_, _>>().map(Self)
    }

    fn kept(self, key: &Single) -> Result<Vec<Entry<'a>>, String> {
        let mut last: BTreeMap<Vec<u8>, usize> = BTreeMap::new();
        for (place, (wire, _)) in self.0.iter().enumerate() {
            last.insert(key.sorted(*wire)?, place);
        }
        Ok(self
            .0
            .into_iter()
            .enumerate()
            .filter(|(place, (wire, _))| key.sorted(*wire).is_ok_and(|key| last[&key] == *place))
            .map(|(_, entry)| entry)
            .collect())
    }
}

fn mismatch() -> String {
    "it has the wire type of another type: the message was written in another schema".into()
}

impl Absent {
    fn push(&self, single: &Single, column: &mut Column) -> Result<(), String> {
        match self {
            Self::Null => column.push_null(),
            Self::Wrong => Err("it is missing, and the column was declared without `?`".into()),
            Self::Empty => single.read(Wire::Bytes(&[]), column),
            Self::Value(Constant::Bool(value)) => column.push_bool(*value),
            Self::Value(Constant::Signed(value)) => column.push_i64(*value),
            Self::Value(Constant::Unsigned(value)) => column.push_u64(*value),
            Self::Value(Constant::Float(value)) => column.push_f64(*value),
            Self::Value(Constant::Bytes(value)) => column.push_bytes(value),
        }
    }
}

impl Single {
    fn is_message(&self) -> bool {
        matches!(self, Self::Message(_) | Self::Instant(_) | Self::Wrapped(..))
    }

    #[inline]
    fn read(&self, wire: Wire<'_>, column: &mut Column) -> Result<(), String> {
        match (self, wire) {
            (Self::Int64, Wire::Varint(value)) => column.push_i64(value.cast_signed()),
            (Self::Int32, Wire::Varint(value)) => column.push_i64(i64::from((value as u32).cast_signed())),
            (Self::Uint32, Wire::Varint(value)) => column.push_i64(i64::from(value as u32)),
            (Self::Uint64, Wire::Varint(value)) | (Self::Fixed64, Wire::Fixed64(value)) => column.push_u64(value),
            (Self::Sint32, Wire::Varint(value)) => column.push_i64(unzigzag(u64::from(value as u32))),
            (Self::Sint64, Wire::Varint(value)) => column.push_i64(unzigzag(value)),
            (Self::Bool, Wire::Varint(value)) => column.push_bool(value != 0),
            (Self::Fixed32, Wire::Fixed32(value)) => column.push_i64(i64::from(value)),
            (Self::Sfixed32, Wire::Fixed32(value)) => column.push_i64(i64::from(value.cast_signed())),
            (Self::Sfixed64, Wire::Fixed64(value)) => column.push_i64(value.cast_signed()),
            (Self::Float, Wire::Fixed32(value)) => column.push_f64(f64::from(f32::from_bits(value))),
            (Self::Double, Wire::Fixed64(value)) => column.push_f64(f64::from_bits(value)),
            (Self::Bytes, Wire::Bytes(bytes)) => column.push_bytes(bytes),
            (Self::EnumName(names), Wire::Varint(value)) => {
                let number = (value as u32).cast_signed();
                match names.get(&number) {
                    Some(name) => column.push_bytes(name.as_bytes()),
                    None => column.push_bytes(number.to_string().as_bytes()),
                }
            }
            (Self::Message(message), Wire::Bytes(bytes)) => {
                message.read(bytes, column.members()?)?;
                column.close();
                Ok(())
            }
            (Self::Instant(per_second), Wire::Bytes(bytes)) => column.push_i64(instant(bytes, *per_second)?),
            (Self::Wrapped(inner, absent), Wire::Bytes(bytes)) => {
                let mut found = Found::Nothing;
                let mut cursor = Cursor::new(bytes);
                while !cursor.is_at_end() {
                    let (number, wire_type) = cursor.tag()?;
                    match cursor.value(number, wire_type, GROUP_DEPTH_MAX)? {
                        Some(wire) if number == 1 => found = Found::One(wire),
                        _ => {}
                    }
                }
                read_one(inner, absent, &found, column)
            }
            _ => Err(mismatch()),
        }
    }

    /// A value of a repeated field: one, or many packed together.
    fn read_repeated(&self, wire: Wire<'_>, items: &mut Column) -> Result<(), String> {
        let Wire::Bytes(bytes) = wire else { return self.read(wire, items) };
        if self.is_message() || matches!(self, Self::Bytes) {
            return self.read(wire, items);
        }
        let mut cursor = Cursor::new(bytes);
        while !cursor.is_at_end() {
            let wire = match self {
                Self::Fixed32 | Self::Sfixed32 | Self::Float => Wire::Fixed32(cursor.fixed32()?),
                Self::Fixed64 | Self::Sfixed64 | Self::Double => Wire::Fixed64(cursor.fixed64()?),
                _ => Wire::Varint(cursor.varint()?),
            };
            self.read(wire, items)?;
        }
        Ok(())
    }

    /// The key of a map whose entry has none.
    fn push_zero(&self, column: &mut Column) -> Result<(), String> {
        match self {
            Self::Bytes => column.push_bytes(b""),
            Self::Bool => column.push_bool(false),
            _ => column.push_i64(0),
        }
    }

    /// Bytes by which keys of a map are told apart.
    fn sorted(&self, wire: Option<Wire<'_>>) -> Result<Vec<u8>, String> {
        Ok(match (self, wire) {
            (Self::Bytes, None) => Vec::new(),
            (Self::Bytes, Some(Wire::Bytes(bytes))) => bytes.to_vec(),
            (_, None) => 0_u64.to_le_bytes().to_vec(),
            (_, Some(Wire::Varint(value) | Wire::Fixed64(value))) => value.to_le_bytes().to_vec(),
            (_, Some(Wire::Fixed32(value))) => u64::from(value).to_le_bytes().to_vec(),
            (_, Some(Wire::Bytes(_))) => return Err(mismatch()),
        })
    }
}

/// Seconds (number 1) and nanoseconds (number 2), in a unit, cut towards the past.
fn instant(bytes: &[u8], per_second: i64) -> Result<i64, String> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_at_end() {
        let (number, wire_type) = cursor.tag()?;
        match (number, cursor.value(number, wire_type, GROUP_DEPTH_MAX)?) {
            (1, Some(Wire::Varint(value))) => seconds = value.cast_signed(),
            (2, Some(Wire::Varint(value))) => nanos = i64::from((value as u32).cast_signed()),
            (1 | 2, _) => return Err(mismatch()),
            _ => {}
        }
    }
    if nanos.unsigned_abs() >= 1_000_000_000 {
        return Err(format!("{nanos} nanoseconds are a second or more"));
    }
    let part = nanos.div_euclid(1_000_000_000 / per_second);
    let whole = seconds.checked_mul(per_second).and_then(|whole| whole.checked_add(part));
    whole.ok_or_else(|| format!("{seconds} seconds have no place in the unit of the column"))
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}
