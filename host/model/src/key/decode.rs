//! Encoded keys → the columns they were made from. Bytes may come from a disk, so damage is an error, never a panic.

use arrow_array::{ArrayRef, make_array};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer};
use arrow_data::{ArrayData, ArrayDataBuilder};
use arrow_schema::DataType;

use super::{NotAKey, check_key_type};

/// Why encoded keys cannot be turned back into columns.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The type has no key encoding.
    #[error(transparent)]
    NotAKey(#[from] NotAKey),
    /// The bytes are not the encoding of a key of these types.
    #[error("the bytes of key {0} are damaged")]
    Damaged(usize),
    /// Text that is not UTF-8, or a value outside its type.
    #[error("a key holds what its type does not allow: {0}")]
    Invalid(String),
}

/// The key columns of the given types, one row per key. Values come back as they compare: −0.0 as 0.0, every NaN as the quiet one.
///
/// # Errors
/// The types are no key types, or the bytes are not keys of these types.
pub fn decode_keys<'a>(types: &[DataType], keys: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<ArrayRef>, DecodeError> {
    let mut columns = types.iter().map(Decoder::new).collect::<Result<Vec<_>, _>>()?;
    for (number, key) in keys.into_iter().enumerate() {
        let mut input = key;
        let read = columns.iter_mut().try_for_each(|column| column.read(&mut input));
        if read.is_none() || !input.is_empty() {
            return Err(DecodeError::Damaged(number));
        }
    }
    columns.into_iter().map(|column| column.finish().map(make_array)).collect()
}

/// A key column being built.
struct Decoder {
    data_type: DataType,
    validity: BooleanBufferBuilder,
    values: Values,
}

enum Values {
    Null,
    Boolean(BooleanBufferBuilder),
    /// Numbers, little-endian as Arrow has them.
    Number {
        bytes: Vec<u8>,
        width: usize,
        order: Order,
    },
    FixedBytes {
        bytes: Vec<u8>,
        width: usize,
    },
    Bytes {
        bytes: Vec<u8>,
        ends: Vec<usize>,
    },
    Struct(Vec<Decoder>),
}

/// How a number was made to sort.
#[derive(Clone, Copy)]
enum Order {
    Unsigned,
    Signed,
    Float,
}

impl Decoder {
    fn new(data_type: &DataType) -> Result<Self, NotAKey> {
        use DataType as D;
        check_key_type(data_type)?;
        let number = |order| {
            let width = data_type.primitive_width().ok_or_else(|| NotAKey(data_type.clone()))?;
            Ok(Values::Number { bytes: Vec::new(), width, order })
        };
        let values = match data_type {
            D::Null => Values::Null,
            D::Boolean => Values::Boolean(BooleanBufferBuilder::new(0)),
            D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => number(Order::Unsigned)?,
            D::Float32 | D::Float64 => number(Order::Float)?,
            D::FixedSizeBinary(width) => Values::FixedBytes { bytes: Vec::new(), width: usize::try_from(*width).unwrap_or(0) },
            D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary => Values::Bytes { bytes: Vec::new(), ends: vec![0] },
            D::Struct(fields) => Values::Struct(fields.iter().map(|field| Self::new(field.data_type())).collect::<Result<_, _>>()?),
            _ => number(Order::Signed)?,
        };
        Ok(Self { data_type: data_type.clone(), validity: BooleanBufferBuilder::new(0), values })
    }

    /// Reads one column of one key; none: the bytes are damaged.
    fn read(&mut self, input: &mut &[u8]) -> Option<()> {
        match take(input, 1)?[0] {
            0 => self.push_null(),
            1 => self.read_value(input)?,
            _ => return None,
        }
        Some(())
    }

    fn push_null(&mut self) {
        match &mut self.values {
            Values::Null => {}
            Values::Boolean(bits) => bits.append(false),
            Values::Number { bytes, width, .. } | Values::FixedBytes { bytes, width } => bytes.resize(bytes.len() + *width, 0),
            Values::Bytes { bytes, ends } => ends.push(bytes.len()),
            Values::Struct(columns) => columns.iter_mut().for_each(Self::push_null),
        }
        self.validity.append(false);
    }

    fn read_value(&mut self, input: &mut &[u8]) -> Option<()> {
        match &mut self.values {
            Values::Null => return None,
            Values::Boolean(bits) => bits.append(take(input, 1)?[0] != 0),
            Values::Number { bytes, width, order } => {
                let start = bytes.len();
                bytes.extend_from_slice(take(input, *width)?);
                restore_number(&mut bytes[start..], *order);
            }
            Values::FixedBytes { bytes, width } => bytes.extend_from_slice(take(input, *width)?),
            Values::Bytes { bytes, ends } => {
                unescape(input, bytes)?;
                ends.push(bytes.len());
            }
            Values::Struct(columns) => columns.iter_mut().try_for_each(|column| column.read(input))?,
        }
        self.validity.append(true);
        Some(())
    }

    fn finish(mut self) -> Result<ArrayData, DecodeError> {
        let builder = ArrayDataBuilder::new(self.data_type.clone()).len(self.validity.len());
        let builder = match self.values {
            Values::Null => return builder.build().map_err(|error| DecodeError::Invalid(error.to_string())),
            Values::Boolean(mut bits) => builder.add_buffer(bits.finish().into_inner()),
            Values::Number { bytes, .. } | Values::FixedBytes { bytes, .. } => builder.add_buffer(Buffer::from_vec(bytes)),
            Values::Bytes { bytes, ends } => builder.add_buffer(offsets(&self.data_type, &ends)?).add_buffer(Buffer::from_vec(bytes)),
            Values::Struct(columns) => builder.child_data(columns.into_iter().map(Self::finish).collect::<Result<_, _>>()?),
        };
        let nulls = NullBuffer::new(self.validity.finish());
        let builder = builder.nulls((nulls.null_count() > 0).then_some(nulls)).align_buffers(true);
        builder.build().map_err(|error| DecodeError::Invalid(error.to_string()))
    }
}

fn offsets(data_type: &DataType, ends: &[usize]) -> Result<Buffer, DecodeError> {
    if matches!(data_type, DataType::LargeUtf8 | DataType::LargeBinary) {
        return Ok(Buffer::from_vec(ends.iter().map(|&end| end as i64).collect()));
    }
    let small = ends.iter().map(|&end| i32::try_from(end)).collect::<Result<Vec<_>, _>>();
    small.map(Buffer::from_vec).map_err(|_| DecodeError::Invalid("the keys have more than 2 GiB".into()))
}

fn take<'a>(input: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (taken, rest) = input.split_at_checked(bytes)?;
    *input = rest;
    Some(taken)
}

/// Big-endian in sorting form → little-endian as in memory.
fn restore_number(bytes: &mut [u8], order: Order) {
    match order {
        Order::Unsigned => {}
        Order::Signed => bytes[0] ^= 0x80,
        Order::Float if bytes[0] & 0x80 != 0 => bytes[0] ^= 0x80,
        Order::Float => bytes.iter_mut().for_each(|byte| *byte = !*byte),
    }
    bytes.reverse();
}

/// Reads up to the end mark, 00 not followed by FF.
fn unescape(input: &mut &[u8], out: &mut Vec<u8>) -> Option<()> {
    loop {
        let zero = memchr::memchr(0, input)?;
        out.extend_from_slice(&input[..zero]);
        *input = &input[zero + 1..];
        match input.first() {
            Some(0xff) => {
                out.push(0);
                *input = &input[1..];
            }
            _ => return Some(()),
        }
    }
}
