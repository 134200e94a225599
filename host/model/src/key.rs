//! Keys: their bytes on disk, their hash and their key group.
//!
//! # Bytes (version 1; never changed, state lies on disk under them)
//! A key is the concatenation of its columns. Each column is a tag byte, `00` for null or `01`, then for a value:
//! ```text
//! Boolean                       1 byte, 00 or 01
//! signed integers, dates,       big-endian of their width, sign bit flipped
//!   times, timestamps, durations, decimals
//! unsigned integers             big-endian of their width
//! Float32, Float64              big-endian of the IEEE bits, all bits flipped if negative, else the sign bit flipped;
//!                               −0.0 is 0.0, every NaN is the positive quiet NaN (it sorts after +∞)
//! Utf8, Binary (and large)      the bytes, each 00 written as 00 FF, then 00
//! FixedSizeBinary               the bytes
//! Struct                        its fields, each as a column
//! ```
//! So comparing encoded keys compares the keys, nulls first (FoundationDB's tuple layer uses the same escaping).
//!
//! Key group = XXH3-64(encoded key, seed 0) mod 4096, fixed for ever. A subtask owns a contiguous range of groups.

mod decode;

use std::{ops::Range, sync::Arc};

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeBinaryArray, GenericByteArray, PrimitiveArray, StructArray,
    cast::AsArray,
    types::{
        ByteArrayType, Date32Type, Date64Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, Field, TimeUnit};
use xxhash_rust::xxh3::xxh3_64;

use crate::ids::SubtaskIndex;

pub use decode::{DecodeError, decode_keys};

/// Number of key groups of every job.
pub const KEY_GROUPS: u16 = 4096;
/// Largest encoded key, in bytes.
pub const KEY_BYTES_MAX: usize = 4096;

/// A slice of the key space: the unit by which state moves between subtasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyGroup(pub u16);

impl KeyGroup {
    /// The group of a key by the hash of its encoding.
    #[inline]
    pub fn of_hash(hash: u64) -> Self {
        Self((hash % u64::from(KEY_GROUPS)) as u16)
    }

    /// The subtask that owns this group among `parallelism` subtasks.
    #[inline]
    pub fn owner(self, parallelism: u32) -> SubtaskIndex {
        SubtaskIndex(u32::from(self.0) * parallelism / u32::from(KEY_GROUPS))
    }

    /// The groups that `subtask` owns among `parallelism`: the inverse of [`Self::owner`].
    pub fn owned_by(subtask: SubtaskIndex, parallelism: u32) -> Range<u16> {
        let first = |index: u32| (u64::from(index) * u64::from(KEY_GROUPS)).div_ceil(u64::from(parallelism)) as u16;
        first(subtask.0)..first(subtask.0 + 1)
    }
}

/// The keys of a batch, one per row: their bytes back to back, and the hash of each.
#[derive(Clone, Debug, Default)]
pub struct EncodedKeys {
    bytes: Vec<u8>,
    ends: Vec<u32>,
    hashes: Vec<u64>,
    groups: Option<Vec<u16>>,
}

impl EncodedKeys {
    /// Number of keys.
    #[inline]
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// The bytes of key `row`.
    #[inline]
    pub fn key(&self, row: usize) -> &[u8] {
        let start = if row == 0 { 0 } else { self.ends[row - 1] as usize };
        &self.bytes[start..self.ends[row] as usize]
    }

    /// XXH3-64 of each key's bytes.
    #[inline]
    pub fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The key group of key `row`.
    #[inline]
    pub fn group(&self, row: usize) -> KeyGroup {
        match &self.groups {
            Some(groups) => KeyGroup(groups[row]),
            None => KeyGroup::of_hash(self.hashes[row]),
        }
    }

    /// Adds a key in the group that its hash gives.
    ///
    /// # Panics
    /// The key comes after one that was added with its group.
    pub fn push(&mut self, key: &[u8]) {
        assert!(self.groups.is_none(), "keys with their own groups do not mix with others");
        self.push_bytes(key);
    }

    /// Adds a key that lives in `group` whatever its hash: a part of a user's key, such as one of its windows.
    ///
    /// # Panics
    /// The key comes after one that was added without a group.
    pub fn push_in_group(&mut self, key: &[u8], group: KeyGroup) {
        assert!(self.groups.is_some() || self.hashes.is_empty(), "keys with their own groups do not mix with others");
        self.groups.get_or_insert_default().push(group.0);
        self.push_bytes(key);
    }

    fn push_bytes(&mut self, key: &[u8]) {
        self.bytes.extend_from_slice(key);
        self.close();
    }

    fn close(&mut self) {
        let start = self.ends.last().map_or(0, |&end| end as usize);
        self.hashes.push(xxh3_64(&self.bytes[start..]));
        self.ends.push(end_of(&self.bytes));
    }
}

fn end_of(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("the keys of one batch stay below 4 GiB")
}

/// A type that cannot be a key.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a column of type {0} cannot be part of a key")]
pub struct NotAKey(pub DataType);

/// Knows the keys of the rows of a batch by their hashes.
pub trait KeyHashes: Send + Sync {
    /// The hash of the key of row `row`; none: there is no such row.
    fn hash_of_row(&self, row: usize) -> Option<u64>;
}

/// Checks that columns of this type can be part of a key.
///
/// # Errors
/// The type has no key encoding (lists, maps, unions, dictionaries …).
pub fn check_key_type(data_type: &DataType) -> Result<(), NotAKey> {
    use DataType as D;
    match data_type {
        D::Null | D::Boolean | D::Int8 | D::Int16 | D::Int32 | D::Int64 | D::UInt8 | D::UInt16 | D::UInt32 | D::UInt64 => Ok(()),
        D::Float32 | D::Float64 | D::Date32 | D::Date64 | D::Time32(_) | D::Time64(_) | D::Timestamp(_, _) | D::Duration(_) => Ok(()),
        D::Decimal128(_, _) | D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary | D::FixedSizeBinary(_) => Ok(()),
        D::Struct(fields) => fields.iter().try_for_each(|field: &Arc<Field>| check_key_type(field.data_type())),
        other => Err(NotAKey(other.clone())),
    }
}

/// Encodes the key of every row; `columns` empty gives every row the empty key.
///
/// # Errors
/// A column's type cannot be part of a key.
pub fn encode_keys(columns: &[ArrayRef], rows: usize) -> Result<EncodedKeys, NotAKey> {
    if let [column] = columns
        && let Some(keys) = encode_one_fixed(column)
    {
        return Ok(keys);
    }
    let encoders = columns.iter().map(Encoder::new).collect::<Result<Vec<_>, _>>()?;
    let mut keys = EncodedKeys {
        bytes: Vec::with_capacity(rows * 16),
        ends: Vec::with_capacity(rows),
        hashes: Vec::with_capacity(rows),
        groups: None,
    };
    for row in 0..rows {
        for encoder in &encoders {
            encoder.encode(row, &mut keys.bytes);
        }
        keys.ends.push(end_of(&keys.bytes));
    }
    // Not in the same loop: hashing bytes that were just written waits for them to arrive in the cache.
    for row in 0..rows {
        let hash = xxh3_64(keys.key(row));
        keys.hashes.push(hash);
    }
    Ok(keys)
}

/// The hash of the key of every row, which leads to its key group; where the bytes of the key are not needed this is the shorter way.
///
/// # Errors
/// A column's type cannot be part of a key.
pub fn hash_keys(columns: &[ArrayRef], rows: usize) -> Result<Vec<u64>, NotAKey> {
    if let [column] = columns
        && let Some(flip) = flip_of_words(column)
    {
        let data = column.to_data();
        let values = &data.buffers()[0].typed_data::<u64>()[data.offset()..data.offset() + data.len()];
        return Ok(values.iter().map(|value| hash_of_word((value ^ flip).to_be_bytes())).collect());
    }
    encode_keys(columns, rows).map(|keys| keys.hashes)
}

/// The common case, a single 8-byte integer column without nulls, in one tight loop.
fn encode_one_fixed(column: &ArrayRef) -> Option<EncodedKeys> {
    let flip = flip_of_words(column)?;
    let data = column.to_data();
    Some(encode_words(&data.buffers()[0].typed_data::<u64>()[data.offset()..data.offset() + data.len()], flip))
}

/// What is flipped in the values of an 8-byte integer column so that they sort as bytes; none: it is another column, or has nulls.
fn flip_of_words(column: &ArrayRef) -> Option<u64> {
    if column.null_count() != 0 {
        return None;
    }
    match column.data_type() {
        DataType::Int64 | DataType::Timestamp(_, _) | DataType::Date64 | DataType::Duration(_) | DataType::Time64(_) => Some(1 << 63),
        DataType::UInt64 => Some(0),
        _ => None,
    }
}

fn encode_words(values: &[u64], flip: u64) -> EncodedKeys {
    let mut bytes = vec![0_u8; values.len() * 9];
    let mut hashes = Vec::with_capacity(values.len());
    for (key, value) in bytes.chunks_exact_mut(9).zip(values) {
        let encoded = (value ^ flip).to_be_bytes();
        key[0] = 1;
        key[1..].copy_from_slice(&encoded);
        hashes.push(hash_of_word(encoded));
    }
    let ends = (1..=values.len() as u32).map(|count| count * 9).collect();
    EncodedKeys { bytes, ends, hashes, groups: None }
}

/// The distinct keys of a batch, in the order of their first rows.
pub struct DistinctKeys {
    /// One per distinct key.
    pub keys: EncodedKeys,
    /// For each row the number of its key.
    pub of_row: Vec<u32>,
}

/// As [`encode_keys`], each key once: for batches in which few keys come again and again, where encoding and hashing every row is most of the
/// work. None: the key is not a single 8-byte integer column without nulls, or it has more than `distinct_max` values.
///
/// The values are found by open addressing under one multiplication (Knuth 6.4). Whoever chooses values that collide makes it give up: it probes
/// no more than [`PROBES_PER_ROW`] places for a row on average.
pub fn encode_few_keys(columns: &[ArrayRef], distinct_max: usize) -> Option<DistinctKeys> {
    let [column] = columns else { return None };
    let flip = flip_of_words(column)?;
    let data = column.to_data();
    let values: &[u64] = &data.buffers()[0].typed_data::<u64>()[data.offset()..data.offset() + data.len()];
    let places = (4 * distinct_max).next_power_of_two().max(64);
    let shift = 64 - places.trailing_zeros();
    let mut table = vec![(0_u64, NO_KEY); places];
    let (mut distinct, mut of_row) = (Vec::with_capacity(distinct_max), vec![0_u32; values.len()]);
    let mut probes_left = PROBES_PER_ROW * values.len();
    for (&value, number) in values.iter().zip(&mut of_row) {
        let mut place = (value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> shift) as usize;
        loop {
            let entry = &mut table[place & (places - 1)];
            if entry.0 == value && entry.1 != NO_KEY {
                *number = entry.1;
                break;
            }
            if entry.1 == NO_KEY {
                if distinct.len() == distinct_max {
                    return None;
                }
                *number = distinct.len() as u32;
                *entry = (value, *number);
                distinct.push(value);
                break;
            }
            probes_left = probes_left.checked_sub(1)?;
            place += 1;
        }
    }
    Some(DistinctKeys { keys: encode_words(&distinct, flip), of_row })
}

/// Further places that [`encode_few_keys`] looks at for a row, on average, before it gives up.
const PROBES_PER_ROW: usize = 4;
/// No number of a key in the table of [`encode_few_keys`].
const NO_KEY: u32 = u32::MAX;

/// XXH3-64 of the tag 01 and 8 bytes: the library's steps for keys of 9 to 16 bytes, on registers. Reading back the bytes just written would
/// wait for the memory (a third of the time of encoding and finding an integer key).
#[inline]
fn hash_of_word(word: [u8; 8]) -> u64 {
    // Bytes 24..40 and 40..56 of XXH3's default secret, each pair of words combined.
    const FLIP_LOW: u64 = 0x6782_737b_ea42_39b9;
    const FLIP_HIGH: u64 = 0xaf56_bc3b_0996_523a;
    let last = u64::from_le_bytes(word);
    let (low, high) = ((1 | last << 8) ^ FLIP_LOW, last ^ FLIP_HIGH);
    let product = u128::from(low) * u128::from(high);
    let mixed = 9_u64.wrapping_add(low.swap_bytes()).wrapping_add(high).wrapping_add(product as u64 ^ (product >> 64) as u64);
    let mixed = (mixed ^ mixed >> 37).wrapping_mul(0x1656_6791_9e37_79f9);
    mixed ^ mixed >> 32
}

/// Appends the encoding of the value at a row, which is not null.
type EncodeValue<'a> = dyn Fn(usize, &mut Vec<u8>) + 'a;

/// One key column, downcast once per batch.
enum Encoder<'a> {
    Null,
    Boolean(&'a BooleanArray),
    Fixed { nulls: &'a dyn Array, encode: Box<EncodeValue<'a>> },
    Bytes { nulls: &'a dyn Array, value: Box<dyn Fn(usize) -> &'a [u8] + 'a> },
    FixedBytes(&'a FixedSizeBinaryArray),
    Struct(&'a StructArray, Vec<Encoder<'a>>),
}

/// Expands to an encoder for a signed primitive, viewed as the integer type of its width.
fn signed<'a, T: ArrowPrimitiveType>(column: &'a dyn Array, bytes: impl Fn(T::Native) -> Vec8 + 'a) -> Encoder<'a> {
    let array: &PrimitiveArray<T> = column.as_primitive();
    Encoder::Fixed { nulls: column, encode: Box::new(move |row, out| out.extend_from_slice(bytes(array.value(row)).as_slice())) }
}

/// Up to 16 bytes on the stack.
struct Vec8 {
    bytes: [u8; 16],
    len: usize,
}

impl Vec8 {
    fn new<const N: usize>(from: [u8; N]) -> Self {
        let mut bytes = [0; 16];
        bytes[..N].copy_from_slice(&from);
        Self { bytes, len: N }
    }

    fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

fn order_f64(value: f64) -> [u8; 8] {
    let value = if value.is_nan() { f64::NAN } else { value + 0.0 };
    let bits = if value.is_nan() { 0x7ff8_0000_0000_0000 } else { value.to_bits() };
    (if bits >> 63 == 1 { !bits } else { bits ^ (1 << 63) }).to_be_bytes()
}

fn order_f32(value: f32) -> [u8; 4] {
    let bits = if value.is_nan() { 0x7fc0_0000 } else { (value + 0.0).to_bits() };
    (if bits >> 31 == 1 { !bits } else { bits ^ (1 << 31) }).to_be_bytes()
}

impl<'a> Encoder<'a> {
    fn new(column: &'a ArrayRef) -> Result<Self, NotAKey> {
        use DataType as D;
        let any: &'a dyn Array = column.as_ref();
        let signed_32 = |array: &'a dyn Array| Self::over_integers::<4>(array, 0x80);
        let signed_64 = |array: &'a dyn Array| Self::over_integers::<8>(array, 0x80);
        Ok(match column.data_type() {
            D::Null => Self::Null,
            D::Boolean => Self::Boolean(any.as_boolean()),
            D::Int8 => signed::<Int8Type>(any, |v| Vec8::new([(v as u8) ^ 0x80])),
            D::Int16 => signed::<Int16Type>(any, |v| Vec8::new(((v as u16) ^ (1 << 15)).to_be_bytes())),
            D::Int32 => signed::<Int32Type>(any, |v| Vec8::new(((v as u32) ^ (1 << 31)).to_be_bytes())),
            D::Int64 => signed::<Int64Type>(any, |v| Vec8::new(((v as u64) ^ (1 << 63)).to_be_bytes())),
            D::UInt8 => signed::<UInt8Type>(any, |v| Vec8::new([v])),
            D::UInt16 => signed::<UInt16Type>(any, |v| Vec8::new(v.to_be_bytes())),
            D::UInt32 => signed::<UInt32Type>(any, |v| Vec8::new(v.to_be_bytes())),
            D::UInt64 => signed::<UInt64Type>(any, |v| Vec8::new(v.to_be_bytes())),
            D::Float32 => signed::<Float32Type>(any, |v| Vec8::new(order_f32(v))),
            D::Float64 => signed::<Float64Type>(any, |v| Vec8::new(order_f64(v))),
            D::Date32 => signed::<Date32Type>(any, |v| Vec8::new(((v as u32) ^ (1 << 31)).to_be_bytes())),
            D::Date64 => signed::<Date64Type>(any, |v| Vec8::new(((v as u64) ^ (1 << 63)).to_be_bytes())),
            D::Decimal128(_, _) => signed::<Decimal128Type>(any, |v| Vec8::new(((v as u128) ^ (1 << 127)).to_be_bytes())),
            D::Time32(TimeUnit::Second | TimeUnit::Millisecond) => signed_32(any),
            D::Time64(_) | D::Timestamp(_, _) | D::Duration(_) => signed_64(any),
            D::Utf8 => Self::over_bytes::<arrow_array::types::Utf8Type>(any),
            D::LargeUtf8 => Self::over_bytes::<arrow_array::types::LargeUtf8Type>(any),
            D::Binary => Self::over_bytes::<arrow_array::types::BinaryType>(any),
            D::LargeBinary => Self::over_bytes::<arrow_array::types::LargeBinaryType>(any),
            D::FixedSizeBinary(_) => Self::FixedBytes(any.as_fixed_size_binary()),
            D::Struct(_) => {
                let array = any.as_struct();
                Self::Struct(array, array.columns().iter().map(Encoder::new).collect::<Result<_, _>>()?)
            }
            other => return Err(NotAKey(other.clone())),
        })
    }

    /// Values of `N` little-endian bytes of any logical type, written big-endian with `flip` over the first byte.
    fn over_integers<const N: usize>(array: &'a dyn Array, flip: u8) -> Self {
        let data = array.to_data();
        let (buffer, offset) = (data.buffers()[0].clone(), data.offset());
        let encode = move |row: usize, out: &mut Vec<u8>| {
            let at = (offset + row) * N;
            let mut value: [u8; N] = buffer[at..at + N].try_into().expect("N bytes were sliced");
            value.reverse();
            value[0] ^= flip;
            out.extend_from_slice(&value);
        };
        Self::Fixed { nulls: array, encode: Box::new(encode) }
    }

    fn over_bytes<T: ByteArrayType>(array: &'a dyn Array) -> Self {
        let bytes: &'a GenericByteArray<T> = array.as_bytes();
        Self::Bytes { nulls: array, value: Box::new(move |row| bytes.value(row).as_ref()) }
    }

    fn encode(&self, row: usize, out: &mut Vec<u8>) {
        if self.is_null(row) {
            out.push(0);
            return;
        }
        out.push(1);
        match self {
            Self::Null => unreachable!("a null has no value"),
            Self::Boolean(array) => out.push(u8::from(array.value(row))),
            Self::Fixed { encode, .. } => encode(row, out),
            Self::Bytes { value, .. } => escape(value(row), out),
            Self::FixedBytes(array) => out.extend_from_slice(array.value(row)),
            Self::Struct(_, fields) => fields.iter().for_each(|field| field.encode(row, out)),
        }
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Null => true,
            Self::Boolean(array) => array.is_null(row),
            Self::Fixed { nulls, .. } | Self::Bytes { nulls, .. } => nulls.is_null(row),
            Self::FixedBytes(array) => array.is_null(row),
            Self::Struct(array, _) => array.is_null(row),
        }
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    let mut rest = bytes;
    while let Some(zero) = memchr::memchr(0, rest) {
        out.extend_from_slice(&rest[..zero]);
        out.extend_from_slice(&[0, 0xff]);
        rest = &rest[zero + 1..];
    }
    out.extend_from_slice(rest);
    out.push(0);
}

#[cfg(test)]
mod tests;
