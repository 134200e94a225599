//! Bodies of rows → Arrow columns. Bytes come from a disk, so everything is checked; damage is an error, never a panic.

use arrow_array::{ArrayRef, make_array};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer};
use arrow_data::{ArrayData, ArrayDataBuilder};
use arrow_schema::DataType;

use super::{
    evolve::{Incompatible, Number, Part, Plan},
    fixed_width, read_varint,
};

/// Builds one column of the reader's type out of rows that any known version has written.
pub(crate) struct RowDecoder {
    plans: Vec<(u32, Plan)>,
    column: Column,
}

/// Why a row cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    #[error("the row ends too early")]
    Short,
    #[error("the row goes on behind its end")]
    Long,
    #[error("a null tag or boolean is neither 0 nor 1")]
    Tag,
    #[error("version {0} of the type is unknown")]
    Version(u32),
    #[error("{0}")]
    Arrow(String),
}

impl RowDecoder {
    /// `versions`: the type that each version stands for.
    pub fn new<'a>(versions: impl IntoIterator<Item = (u32, &'a DataType)>, reader: &DataType) -> Result<Self, Incompatible> {
        let plans = versions.into_iter().map(|(version, writer)| Ok((version, Plan::resolve(writer, reader)?)));
        let plans = plans.collect::<Result<Vec<_>, Incompatible>>()?;
        let column = Column::new(reader).ok_or_else(|| Incompatible(format!("{reader} has no row encoding")))?;
        Ok(Self { plans, column })
    }

    /// Appends the value of a body that `version` wrote. After an error the column is of no use.
    pub fn read(&mut self, version: u32, body: &[u8]) -> Result<(), Damage> {
        let Some((_, plan)) = self.plans.iter().rev().find(|(known, _)| *known == version) else {
            return Err(Damage::Version(version));
        };
        let mut input = body;
        self.column.read(plan, &mut input)?;
        if input.is_empty() { Ok(()) } else { Err(Damage::Long) }
    }

    /// Appends a null.
    pub fn read_null(&mut self) {
        self.column.push_null();
    }

    /// The column; the decoder starts anew.
    pub fn finish(&mut self) -> Result<ArrayRef, Damage> {
        self.column.finish().map(make_array)
    }
}

/// A column being built. Values are checked once more by Arrow when it is finished (UTF-8, offsets, nulls).
struct Column {
    data_type: DataType,
    validity: BooleanBufferBuilder,
    values: Values,
}

enum Values {
    Fixed { bytes: Vec<u8>, width: usize },
    Boolean(BooleanBufferBuilder),
    Bytes { bytes: Vec<u8>, offsets: Offsets },
    List { offsets: Offsets, item: Box<Column> },
    FixedList(Box<Column>),
    Map { offsets: Offsets, entries: Box<Column> },
    Struct(Vec<Column>),
}

enum Offsets {
    Small(Vec<i32>),
    Large(Vec<i64>),
}

impl Offsets {
    fn push(&mut self, end: usize) -> Result<(), Damage> {
        match self {
            Self::Small(offsets) => offsets.push(i32::try_from(end).map_err(|_| Damage::Arrow("a column of more than 2 GiB".into()))?),
            Self::Large(offsets) => offsets.push(end as i64),
        }
        Ok(())
    }

    fn repeat_last(&mut self) {
        match self {
            Self::Small(offsets) => offsets.extend_from_within(offsets.len() - 1..),
            Self::Large(offsets) => offsets.extend_from_within(offsets.len() - 1..),
        }
    }

    fn finish(&mut self) -> Buffer {
        match self {
            Self::Small(offsets) => Buffer::from_vec(std::mem::replace(offsets, vec![0])),
            Self::Large(offsets) => Buffer::from_vec(std::mem::replace(offsets, vec![0])),
        }
    }
}

fn take<'a>(input: &mut &'a [u8], bytes: usize) -> Result<&'a [u8], Damage> {
    let (taken, rest) = input.split_at_checked(bytes).ok_or(Damage::Short)?;
    *input = rest;
    Ok(taken)
}

fn take_tag(input: &mut &[u8]) -> Result<bool, Damage> {
    match take(input, 1)?[0] {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Damage::Tag),
    }
}

fn take_length(input: &mut &[u8]) -> Result<usize, Damage> {
    read_varint(input).and_then(|length| usize::try_from(length).ok()).ok_or(Damage::Short)
}

impl Column {
    fn new(data_type: &DataType) -> Option<Self> {
        let small = || Offsets::Small(vec![0]);
        let values = match data_type {
            DataType::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            DataType::Utf8 | DataType::Binary => Values::Bytes { bytes: Vec::new(), offsets: small() },
            DataType::LargeUtf8 | DataType::LargeBinary => Values::Bytes { bytes: Vec::new(), offsets: Offsets::Large(vec![0]) },
            DataType::List(item) => Values::List { offsets: small(), item: Box::new(Self::new(item.data_type())?) },
            DataType::FixedSizeList(item, _) => Values::FixedList(Box::new(Self::new(item.data_type())?)),
            DataType::Map(entries, _) => Values::Map { offsets: small(), entries: Box::new(Self::new(entries.data_type())?) },
            DataType::Struct(fields) => Values::Struct(fields.iter().map(|field| Self::new(field.data_type())).collect::<Option<_>>()?),
            other => Values::Fixed { bytes: Vec::new(), width: fixed_width(other)? },
        };
        Some(Self { data_type: data_type.clone(), validity: BooleanBufferBuilder::new(0), values })
    }

    fn push_null(&mut self) {
        self.push_empty();
        let last = self.validity.len() - 1;
        self.validity.set_bit(last, false);
    }

    /// Appends a value that is not null but empty: zero, "", no item. It stands below a null, where nobody looks.
    fn push_empty(&mut self) {
        match &mut self.values {
            Values::Fixed { bytes, width } => bytes.resize(bytes.len() + *width, 0),
            Values::Boolean(bits) => bits.append(false),
            Values::Bytes { offsets, .. } | Values::List { offsets, .. } | Values::Map { offsets, .. } => offsets.repeat_last(),
            Values::FixedList(item) => {
                let DataType::FixedSizeList(_, size) = &self.data_type else { unreachable!("built from this type") };
                (0..*size).for_each(|_| item.push_empty());
            }
            Values::Struct(columns) => columns.iter_mut().for_each(Self::push_empty),
        }
        self.validity.append(true);
    }

    fn read_part(&mut self, part: &Part, input: &mut &[u8]) -> Result<(), Damage> {
        if part.tagged && !take_tag(input)? {
            self.push_null();
            return Ok(());
        }
        self.read(&part.plan, input)
    }

    fn read(&mut self, plan: &Plan, input: &mut &[u8]) -> Result<(), Damage> {
        match (&mut self.values, plan) {
            (Values::Fixed { bytes, .. }, Plan::Fixed(width)) => bytes.extend_from_slice(take(input, *width)?),
            (Values::Fixed { bytes, .. }, Plan::Number { from, to }) => widen(*from, *to, take(input, from.width())?, bytes),
            (Values::Boolean(bits), Plan::Boolean) => bits.append(take_tag(input)?),
            (Values::Bytes { bytes, offsets }, Plan::Bytes) => {
                let length = take_length(input)?;
                bytes.extend_from_slice(take(input, length)?);
                offsets.push(bytes.len())?;
            }
            (Values::List { offsets, item }, Plan::List(part)) => {
                for _ in 0..take_count(input)? {
                    item.read_part(part, input)?;
                }
                offsets.push(item.validity.len())?;
            }
            (Values::FixedList(item), Plan::FixedList(size, part)) => (0..*size).try_for_each(|_| item.read_part(part, input))?,
            (Values::Map { offsets, entries }, Plan::Map(key, value)) => {
                let Values::Struct(columns) = &mut entries.values else { unreachable!("the entries of a map are a struct") };
                for _ in 0..take_count(input)? {
                    columns[0].read_part(key, input)?;
                    columns[1].read_part(value, input)?;
                    entries.validity.append(true);
                }
                offsets.push(entries.validity.len())?;
            }
            (Values::Struct(columns), Plan::Struct { written, added }) => {
                for (number, part) in written {
                    match number {
                        Some(number) => columns[*number].read_part(part, input)?,
                        None => skip_part(part, input)?,
                    }
                }
                added.iter().for_each(|&number| columns[number].push_null());
            }
            _ => unreachable!("the plan was resolved for this type"),
        }
        self.validity.append(true);
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayData, Damage> {
        let length = self.validity.len();
        let nulls = NullBuffer::new(self.validity.finish());
        let builder = ArrayDataBuilder::new(self.data_type.clone()).len(length).nulls((nulls.null_count() > 0).then_some(nulls));
        let builder = match &mut self.values {
            Values::Fixed { bytes, .. } => builder.add_buffer(Buffer::from_vec(std::mem::take(bytes))),
            Values::Boolean(bits) => builder.add_buffer(bits.finish().into_inner()),
            Values::Bytes { bytes, offsets } => builder.add_buffer(offsets.finish()).add_buffer(Buffer::from_vec(std::mem::take(bytes))),
            Values::List { offsets, item: child } | Values::Map { offsets, entries: child } => {
                builder.add_buffer(offsets.finish()).add_child_data(child.finish()?)
            }
            Values::FixedList(item) => builder.add_child_data(item.finish()?),
            Values::Struct(columns) => builder.child_data(columns.iter_mut().map(Self::finish).collect::<Result<_, _>>()?),
        };
        // Bytes were gathered without regard to alignment.
        builder.align_buffers(true).build().map_err(|error| Damage::Arrow(error.to_string()))
    }
}

/// A count of items. Items may take no byte each (an empty struct), so it is bounded by what a value can hold.
fn take_count(input: &mut &[u8]) -> Result<usize, Damage> {
    let count = take_length(input)?;
    if count > crate::VALUE_BYTES_MAX { Err(Damage::Short) } else { Ok(count) }
}

fn skip_part(part: &Part, input: &mut &[u8]) -> Result<(), Damage> {
    if part.tagged && !take_tag(input)? {
        return Ok(());
    }
    match &part.plan {
        Plan::Fixed(width) => take(input, *width).map(drop),
        Plan::Number { from, .. } => take(input, from.width()).map(drop),
        Plan::Boolean => take(input, 1).map(drop),
        Plan::Bytes => {
            let length = take_length(input)?;
            take(input, length).map(drop)
        }
        Plan::List(item) => (0..take_count(input)?).try_for_each(|_| skip_part(item, input)),
        Plan::FixedList(size, item) => (0..*size).try_for_each(|_| skip_part(item, input)),
        Plan::Map(key, value) => (0..take_count(input)?).try_for_each(|_| skip_part(key, input).and_then(|()| skip_part(value, input))),
        Plan::Struct { written, .. } => written.iter().try_for_each(|(_, part)| skip_part(part, input)),
    }
}

impl Number {
    fn width(self) -> usize {
        match self {
            Self::Signed(width) | Self::Unsigned(width) | Self::Float(width) => width,
        }
    }
}

/// Appends a wider form of a number; widening loses nothing, so the steps in between do not either.
fn widen(from: Number, to: Number, bytes: &[u8], out: &mut Vec<u8>) {
    let mut raw = [0_u8; 8];
    raw[..bytes.len()].copy_from_slice(bytes);
    let raw = u64::from_le_bytes(raw);
    let unused = 64 - 8 * bytes.len() as u32;
    let (integer, float) = match from {
        Number::Signed(_) => (((raw << unused) as i64) >> unused, ((raw << unused) as i64 >> unused) as f64),
        Number::Unsigned(_) => (raw as i64, raw as f64),
        Number::Float(_) => (0, f64::from(f32::from_bits(raw as u32))),
    };
    match to {
        Number::Signed(width) | Number::Unsigned(width) => out.extend_from_slice(&integer.to_le_bytes()[..width]),
        Number::Float(4) => out.extend_from_slice(&(float as f32).to_le_bytes()),
        Number::Float(_) => out.extend_from_slice(&float.to_le_bytes()),
    }
}
