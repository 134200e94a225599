//! Values of a writer's schema → columns.
//!
//! [`Plan`] walks schema and columns once; reading a value walks the plan. Nothing is trusted: every length is compared with the bytes that are
//! left, items that take no bytes are counted, and what is passed over may nest only so deep.

use std::sync::Arc;

use arrow_schema::{DataType, Field as ArrowField, Fields, TimeUnit};

use super::{
    schema::{Field, Logical, Schema, Type, TypeId},
    types::unit,
    write::encode_json,
};
use crate::formats::columns::{Column, Rows};

/// Items of lists in one value that take no bytes; others are bounded by the bytes.
const FREE_ITEMS_MAX: u32 = 1_024;
/// How deep values that are passed over may nest.
const SKIP_DEPTH_MAX: u32 = 64;

/// How values of one schema become columns. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plan(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    schema: Schema,
    record: Record,
}

/// How a record is read.
#[derive(Debug)]
struct Record {
    /// In the order of the writer.
    steps: Vec<Step>,
    /// Columns that the writer does not have.
    absent: Vec<(usize, Absent)>,
}

#[derive(Debug)]
enum Step {
    Skip(TypeId),
    Member { column: usize, name: Box<str>, read: Read },
}

#[derive(Debug)]
enum Absent {
    Null,
    /// The default of the reader's schema, in Avro's encoding.
    Default {
        bytes: Vec<u8>,
        schema: Schema,
        read: Read,
    },
}

/// How one value becomes an entry of a column.
#[derive(Debug)]
enum Read {
    Null,
    Boolean,
    /// Times a factor, which takes it to the unit of the column.
    Long(i64),
    Float,
    Double,
    Bytes,
    Fixed(usize),
    Decimal,
    FixedDecimal(usize),
    Enum(Arc<[String]>),
    /// By branch; a branch may have no place in the column.
    Union(Vec<Result<Read, String>>),
    List(Box<Read>),
    Map(Box<Read>),
    Record(Box<Record>),
}

impl Plan {
    /// Reads these columns of values that were written in `writer`; what is missing there has the default of `reader`, if that has one, or is null.
    ///
    /// # Errors
    /// A column cannot be read from the schema; a clause that names it.
    pub fn new(writer: &Schema, columns: &arrow_schema::Schema, reader: Option<&Schema>) -> Result<Self, String> {
        let record = match (writer.get(writer.root()), columns.fields().as_ref()) {
            (Type::Record { fields, .. }, _) => {
                let defaults = reader.and_then(|reader| match reader.get(reader.root()) {
                    Type::Record { fields, .. } => Some((reader, fields.as_slice())),
                    _ => None,
                });
                record(writer, fields, columns.fields(), defaults)?
            }
            (_, [field]) => {
                let read = compile(writer, writer.root(), field).map_err(|error| format!("column {}: {error}", field.name()))?;
                Record { steps: vec![Step::Member { column: 0, name: field.name().as_str().into(), read }], absent: Vec::new() }
            }
            (_, []) => Record { steps: vec![Step::Skip(writer.root())], absent: Vec::new() },
            _ => return Err("the values of the schema are no records, and fill one column only".into()),
        };
        Ok(Self(Arc::new(Inner { schema: writer.clone(), record })))
    }
}

fn record(schema: &Schema, fields: &[Field], columns: &Fields, defaults: Option<(&Schema, &[Field])>) -> Result<Record, String> {
    let named = |column: &ArrowField, error: String| format!("column {}: {error}", column.name());
    let step = |field: &Field| {
        let Some((column, wanted)) = columns.iter().enumerate().find(|(_, column)| *column.name() == field.name) else {
            return Ok(Step::Skip(field.type_id));
        };
        let read = compile(schema, field.type_id, wanted).map_err(|error| named(wanted, error))?;
        Ok::<_, String>(Step::Member { column, name: field.name.as_str().into(), read })
    };
    let steps = fields.iter().map(step).collect::<Result<_, _>>()?;
    let missing = columns.iter().enumerate().filter(|(_, column)| fields.iter().all(|field| field.name != *column.name()));
    let absent = missing.map(|(number, column)| Ok((number, absent(column, defaults)?))).collect::<Result<_, String>>()?;
    Ok(Record { steps, absent })
}

fn absent(column: &ArrowField, defaults: Option<(&Schema, &[Field])>) -> Result<Absent, String> {
    let default = defaults.and_then(|(schema, fields)| {
        let field = fields.iter().find(|field| field.name == *column.name())?;
        Some((schema, field.type_id, field.default.as_ref()?))
    });
    match default {
        Some((schema, id, value)) => {
            let mut bytes = Vec::new();
            encode_json(schema, id, value, &mut bytes).map_err(|error| format!("the default of field {}: {error}", column.name()))?;
            let read = compile(schema, id, column).map_err(|error| format!("column {}: {error}", column.name()))?;
            Ok(Absent::Default { bytes, schema: schema.clone(), read })
        }
        None if column.is_nullable() => Ok(Absent::Null),
        None => Err(format!("column {} is declared without `?`, and the schema of the values has no such field", column.name())),
    }
}

fn compile(schema: &Schema, id: TypeId, column: &ArrowField) -> Result<Read, String> {
    use DataType as D;
    let found = schema.get(id);
    let refused = || Err(format!("it is {} in the schema of the values, which is not read as {}", shown(found), column.data_type()));
    Ok(match (found, column.data_type()) {
        (Type::Null, _) => Read::Null,
        (Type::Union(branches), _) => {
            let branches: Vec<Result<Read, String>> = branches.iter().map(|&branch| compile(schema, branch, column)).collect();
            if branches.iter().all(|branch| !matches!(branch, Ok(read) if !matches!(read, Read::Null))) {
                return branches.into_iter().find_map(Result::err).map_or(Ok(Read::Null), Err);
            }
            Read::Union(branches)
        }
        (Type::Boolean, D::Boolean) => Read::Boolean,
        (Type::Int(logical) | Type::Long(logical), wanted) => match factor(*logical, wanted) {
            Some(factor) => Read::Long(factor),
            None => return refused(),
        },
        (Type::Float, D::Float32 | D::Float64) => Read::Float,
        (Type::Double, D::Float64) => Read::Double,
        (Type::Bytes(Logical::Decimal { scale, .. }), D::Decimal128(_, wanted)) if scale == wanted => Read::Decimal,
        (Type::Fixed { size, logical: Logical::Decimal { scale, .. } }, D::Decimal128(_, wanted)) if scale == wanted => {
            Read::FixedDecimal(*size)
        }
        (Type::Bytes(_), D::Binary | D::LargeBinary | D::Utf8 | D::LargeUtf8 | D::FixedSizeBinary(_)) => Read::Bytes,
        (Type::String(_), D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary) => Read::Bytes,
        (Type::Fixed { size, .. }, D::Binary | D::LargeBinary) => Read::Fixed(*size),
        (Type::Fixed { size, .. }, D::FixedSizeBinary(wanted)) if *size == wanted.unsigned_abs() as usize => Read::Fixed(*size),
        (Type::Enum(symbols), D::Utf8 | D::LargeUtf8) => Read::Enum(symbols.clone()),
        (Type::Array(item), D::List(wanted)) => Read::List(Box::new(compile(schema, *item, wanted)?)),
        (Type::Map(value), D::Map(entries, _)) => match entries.data_type() {
            D::Struct(fields) if matches!(fields[0].data_type(), D::Utf8 | D::LargeUtf8) => {
                Read::Map(Box::new(compile(schema, *value, &fields[1])?))
            }
            _ => return refused(),
        },
        (Type::Record { fields, .. }, D::Struct(members)) => Read::Record(Box::new(record(schema, fields, members, None)?)),
        _ => return refused(),
    })
}

/// What an integer is multiplied by to be one of the column; none: it is none.
fn factor(logical: Logical, wanted: &DataType) -> Option<i64> {
    use DataType as D;
    let is_plain = wanted.is_integer() || wanted.is_floating();
    match (logical, wanted) {
        (Logical::Timestamp { per_second, .. }, D::Timestamp(wanted, _)) => {
            let of = |unit: &TimeUnit| match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000_i64,
            };
            let (have, want) = (of(&unit(per_second)), of(wanted));
            (want >= have).then(|| want / have)
        }
        (Logical::Date, D::Date32) | (Logical::TimeMillis, D::Time32(TimeUnit::Millisecond)) => Some(1),
        (Logical::TimeMicros, D::Time64(TimeUnit::Microsecond)) => Some(1),
        (Logical::TimeMicros, D::Time64(TimeUnit::Nanosecond)) => Some(1_000),
        (Logical::None, D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_) | D::Timestamp(..) | D::Duration(_)) => Some(1),
        (_, _) if is_plain => Some(1),
        _ => None,
    }
}

fn shown(found: &Type) -> String {
    let logical = |name: &str, logical: &Logical| match logical {
        Logical::None => name.to_owned(),
        Logical::Date => "a date".into(),
        Logical::TimeMillis => "a time in ms".into(),
        Logical::TimeMicros => "a time in µs".into(),
        Logical::Timestamp { per_second, .. } => format!("a timestamp in {:?}s", unit(*per_second)).to_lowercase(),
        Logical::Decimal { precision, scale } => format!("a decimal({precision}, {scale})"),
        Logical::Uuid => "a uuid".into(),
    };
    match found {
        Type::Null => "null".into(),
        Type::Boolean => "boolean".into(),
        Type::Int(of) => logical("int", of),
        Type::Long(of) => logical("long", of),
        Type::Float => "float".into(),
        Type::Double => "double".into(),
        Type::Bytes(of) => logical("bytes", of),
        Type::String(of) => logical("string", of),
        Type::Fixed { size, logical: of } => logical(&format!("fixed({size})"), of),
        Type::Enum(_) => "an enum".into(),
        Type::Array(_) => "an array".into(),
        Type::Map(_) => "a map".into(),
        Type::Union(_) => "a union".into(),
        Type::Record { name, .. } => format!("record {name}"),
    }
}

impl Plan {
    /// Appends the row of a whole value.
    ///
    /// # Errors
    /// It cannot be read; a clause. Nothing of it is left.
    pub fn push(&self, rows: &mut Rows, value: &[u8]) -> Result<(), String> {
        rows.push(|columns| match self.read_into(columns, value)? {
            used if used < value.len() => Err(format!("{} bytes follow the value: it was written in another schema", value.len() - used)),
            _ => Ok(()),
        })
    }

    /// Appends the row of the value at the front of `bytes`; returns how long it is.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn read(&self, rows: &mut Rows, bytes: &[u8]) -> Result<usize, String> {
        let mut used = 0;
        rows.push(|columns| self.read_into(columns, bytes).map(|read| used = read))?;
        Ok(used)
    }

    fn read_into(&self, columns: &mut [Column], bytes: &[u8]) -> Result<usize, String> {
        let mut cursor = Cursor { bytes, at: 0, free_items: FREE_ITEMS_MAX };
        self.0.record.read(&self.0.schema, &mut cursor, columns)?;
        Ok(cursor.at)
    }
}

/// The bytes that are left.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    free_items: u32,
}

const ENDS: &str = "the value ends too early";

impl<'a> Cursor<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    #[inline]
    fn take(&mut self, count: usize) -> Result<&'a [u8], String> {
        if count > self.left() {
            return Err(ENDS.into());
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    #[inline]
    fn byte(&mut self) -> Result<u8, String> {
        let byte = *self.bytes.get(self.at).ok_or(ENDS)?;
        self.at += 1;
        Ok(byte)
    }

    /// A number in base 128, zigzag.
    #[inline]
    fn long(&mut self) -> Result<i64, String> {
        let first = self.byte()?;
        if first < 0x80 {
            return Ok(unzigzag(u64::from(first)));
        }
        self.long_of_many(first)
    }

    fn long_of_many(&mut self, first: u8) -> Result<i64, String> {
        let mut value = u64::from(first & 0x7f);
        let mut shift = 7;
        loop {
            let byte = self.byte()?;
            if shift == 63 && byte > 1 {
                return Err("a number is longer than 64 bits".into());
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(unzigzag(value));
            }
            shift += 7;
        }
    }

    #[inline]
    fn length(&mut self) -> Result<usize, String> {
        let length = self.long()?;
        usize::try_from(length).ok().filter(|length| *length <= self.left()).ok_or_else(|| {
            if length < 0 { format!("a length of {length}") } else { format!("a length of {length}, and {} bytes are left", self.left()) }
        })
    }

    #[inline]
    fn bytes(&mut self) -> Result<&'a [u8], String> {
        let length = self.length()?;
        self.take(length)
    }

    /// The items of an array or map, in blocks.
    fn items(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        loop {
            let mut count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            if count < 0 {
                count = count.checked_neg().ok_or("a block of more items than there are numbers")?;
                self.length()?;
            }
            for _ in 0..count {
                let before = self.at;
                item(self)?;
                if self.at == before {
                    self.free_items = self
                        .free_items
                        .checked_sub(1)
                        .ok_or_else(|| format!("lists of more than {FREE_ITEMS_MAX} items that take no bytes"))?;
                }
            }
        }
    }

    /// Passes over a value.
    fn skip(&mut self, schema: &Schema, id: TypeId, depth: u32) -> Result<(), String> {
        let Some(depth) = depth.checked_sub(1) else { return Err(format!("it nests deeper than {SKIP_DEPTH_MAX}")) };
        match schema.get(id) {
            Type::Null => {}
            Type::Boolean => drop(self.byte()?),
            Type::Int(_) | Type::Long(_) | Type::Enum(_) => drop(self.long()?),
            Type::Float => drop(self.take(4)?),
            Type::Double => drop(self.take(8)?),
            Type::Bytes(_) | Type::String(_) => drop(self.bytes()?),
            Type::Fixed { size, .. } => drop(self.take(*size)?),
            Type::Array(item) => self.items(|cursor| cursor.skip(schema, *item, depth))?,
            Type::Map(value) => self.items(|cursor| {
                cursor.bytes()?;
                cursor.skip(schema, *value, depth)
            })?,
            Type::Union(branches) => {
                let branch = self.branch(branches.len())?;
                self.skip(schema, branches[branch], depth)?;
            }
            Type::Record { fields, .. } => fields.iter().try_for_each(|field| self.skip(schema, field.type_id, depth))?,
        }
        Ok(())
    }

    #[inline]
    fn branch(&mut self, branches: usize) -> Result<usize, String> {
        let branch = self.long()?;
        usize::try_from(branch).ok().filter(|branch| *branch < branches).ok_or_else(|| format!("branch {branch} of a union of {branches}"))
    }
}

#[inline]
pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

impl Record {
    fn read(&self, schema: &Schema, cursor: &mut Cursor<'_>, columns: &mut [Column]) -> Result<(), String> {
        for step in &self.steps {
            match step {
                Step::Skip(id) => cursor.skip(schema, *id, SKIP_DEPTH_MAX)?,
                Step::Member { column, name, read } => {
                    read.read(schema, cursor, &mut columns[*column]).map_err(|error| format!("column {name}: {error}"))?;
                }
            }
        }
        for (column, absent) in &self.absent {
            match absent {
                Absent::Null => columns[*column].push_null()?,
                Absent::Default { bytes, schema, read } => {
                    let mut cursor = Cursor { bytes, at: 0, free_items: FREE_ITEMS_MAX };
                    read.read(schema, &mut cursor, &mut columns[*column])?;
                }
            }
        }
        Ok(())
    }
}

impl Read {
    #[inline]
    fn read(&self, schema: &Schema, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), String> {
        match self {
            Self::Long(1) => column.push_i64(cursor.long()?),
            Self::Bytes => column.push_bytes(cursor.bytes()?),
            Self::Double => {
                let bytes = cursor.take(8)?.try_into().expect("eight bytes were taken");
                column.push_f64(f64::from_le_bytes(bytes))
            }
            Self::Union(branches) => {
                let branch = cursor.branch(branches.len())?;
                match &branches[branch] {
                    Ok(read) => read.read_rare(schema, cursor, column),
                    Err(reason) => Err(reason.clone()),
                }
            }
            other => other.read_rare(schema, cursor, column),
        }
    }

    fn read_rare(&self, schema: &Schema, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), String> {
        match self {
            Self::Null => column.push_null(),
            Self::Boolean => match cursor.byte()? {
                0 => column.push_bool(false),
                1 => column.push_bool(true),
                byte => Err(format!("a boolean of {byte}")),
            },
            Self::Long(factor) => {
                let value = cursor.long()?;
                column.push_i64(value.checked_mul(*factor).ok_or_else(|| format!("{value} has no place in {}", column.data_type()))?)
            }
            Self::Float => {
                let bytes = cursor.take(4)?.try_into().expect("four bytes were taken");
                column.push_f64(f64::from(f32::from_le_bytes(bytes)))
            }
            Self::Fixed(size) => column.push_bytes(cursor.take(*size)?),
            Self::Decimal => column.push_decimal(decimal(cursor.bytes()?)?),
            Self::FixedDecimal(size) => column.push_decimal(decimal(cursor.take(*size)?)?),
            Self::Enum(symbols) => {
                let symbol = cursor.long()?;
                let found = usize::try_from(symbol).ok().and_then(|symbol| symbols.get(symbol));
                let found = found.ok_or_else(|| format!("symbol {symbol} of an enum of {}", symbols.len()))?;
                column.push_bytes(found.as_bytes())
            }
            Self::List(read) => {
                let items = column.items()?;
                cursor.items(|cursor| read.read(schema, cursor, items))?;
                column.close();
                Ok(())
            }
            Self::Map(read) => {
                let (keys, values) = column.entries()?;
                cursor.items(|cursor| {
                    keys.push_bytes(cursor.bytes()?)?;
                    read.read(schema, cursor, values)
                })?;
                column.close();
                Ok(())
            }
            Self::Record(record) => {
                record.read(schema, cursor, column.members()?)?;
                column.close();
                Ok(())
            }
            Self::Bytes | Self::Double | Self::Union(_) => self.read(schema, cursor, column),
        }
    }
}

/// A number in two's complement, most significant byte first.
fn decimal(bytes: &[u8]) -> Result<i128, String> {
    let negative = bytes.first().is_some_and(|first| first & 0x80 != 0);
    let fill = if negative { 0xff } else { 0 };
    let significant = bytes.len().saturating_sub(16);
    if bytes[..significant].iter().any(|&byte| byte != fill) {
        return Err("a decimal of more than 38 digits".into());
    }
    let mut wide = [fill; 16];
    let kept = &bytes[significant..];
    wide[16 - kept.len()..].copy_from_slice(kept);
    let value = i128::from_be_bytes(wide);
    if (value < 0) != negative {
        return Err("a decimal of more than 38 digits".into());
    }
    Ok(value)
}
