//! The bytes of a stored value: a documented, versioned row encoding, and the rules by which newer types read older rows.
//!
//! # Bytes (format 1; never changed, state lies on disk under them)
//! ```text
//! stored value = form, version, body
//!   form        1 byte: 01 = nothing more, 02 = i64 follows: when the value was last refreshed, ms since epoch, little-endian
//!   version     varint: the version of the state's type that wrote the body
//! body of a type:
//!   Boolean                        1 byte, 00 or 01
//!   integers, floats, decimals,    their width, little-endian (two's complement, IEEE bits)
//!     dates, times, timestamps, durations
//!   FixedSizeBinary                the bytes
//!   Utf8, Binary (and large)       varint length, then the bytes
//!   List                           varint length, then each item
//!   FixedSizeList                  each item
//!   Map                            varint length, then each key and value
//!   Struct                         each field, in order
//! A field or item that is declared nullable is preceded by a tag: 00 = null (no body), 01 = present. The value itself is never null: null is
//! absence, and is not stored.
//! varint: LEB128, unsigned, at most 10 bytes.
//! ```
//! The body says nothing about its type: the type that each version stands for is kept with the state.
//!
//! # Reading old rows with a newer type
//! [`resolve_compatible`] holds the rules: fields are found by name, so they may be reordered; a new field must be nullable and reads as null; a
//! dropped field is skipped; a field may become nullable, never the reverse; a number may become wider without loss (an integer a wider one,
//! an unsigned integer a wider signed one, an integer of up to 32 bits a Float64, of up to 16 a Float32, a Float32 a Float64, a decimal one of
//! more digits before the point); Utf8 and Binary may become large; the zone of a timestamp may change (it is only shown). Items of lists and
//! values of maps follow the same rules; keys of maps do not change. Anything else needs the operator's own migration.

mod decode;
mod encode;
mod evolve;

pub(crate) use decode::RowDecoder;
pub(crate) use encode::RowEncoder;
pub use evolve::{Incompatible, resolve_compatible};

use arrow_schema::DataType;

/// First byte of a stored value without a refresh time.
const FORM_PLAIN: u8 = 1;
/// First byte of a stored value with its refresh time.
const FORM_REFRESHED: u8 = 2;

/// Starts a stored value; version and body follow.
pub(crate) fn start_form(refreshed: Option<i64>, out: &mut Vec<u8>) {
    match refreshed {
        None => out.push(FORM_PLAIN),
        Some(time) => {
            out.push(FORM_REFRESHED);
            out.extend_from_slice(&time.to_le_bytes());
        }
    }
}

/// Names the version that writes the body that follows.
pub(crate) fn start_version(version: u32, out: &mut Vec<u8>) {
    write_varint(u64::from(version), out);
}

/// Starts a stored value; the body follows.
pub(crate) fn start_stored(refreshed: Option<i64>, version: u32, out: &mut Vec<u8>) {
    start_form(refreshed, out);
    start_version(version, out);
}

/// Version and body of a stored value without its form; none: it is damaged.
pub(crate) fn split_version(mut versioned: &[u8]) -> Option<(u32, &[u8])> {
    let version = u32::try_from(read_varint(&mut versioned)?).ok()?;
    Some((version, versioned))
}

/// Takes a stored value apart; none: it is damaged.
pub(crate) fn split_stored(stored: &[u8]) -> Option<Stored<'_>> {
    let (&form, mut rest) = stored.split_first()?;
    let refreshed = match form {
        FORM_PLAIN => None,
        FORM_REFRESHED => {
            let (time, after) = rest.split_first_chunk::<8>()?;
            rest = after;
            Some(i64::from_le_bytes(*time))
        }
        _ => return None,
    };
    let (version, body) = split_version(rest)?;
    Some(Stored { refreshed, versioned: rest, version, body })
}

/// A stored value, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stored<'a> {
    pub refreshed: Option<i64>,
    /// Version and body.
    pub versioned: &'a [u8],
    pub version: u32,
    pub body: &'a [u8],
}

pub(crate) fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

pub(crate) fn read_varint(input: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = input.split_first()?;
        *input = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// The bytes of a value whose body is as wide as in memory.
fn fixed_width(data_type: &DataType) -> Option<usize> {
    match data_type {
        DataType::FixedSizeBinary(width) => usize::try_from(*width).ok(),
        other => other.primitive_width(),
    }
}

#[cfg(test)]
mod tests;
