//! Arrow arrays as the contract's buffers: validity first (empty: no nulls), offsets from 0, children depth first, little-endian.
//!
//! Nothing is copied unless it must be: bits that do not begin at a byte, and offsets that do not begin at 0.

use arrow_array::{
    Array, ArrayRef, GenericByteArray, MapArray,
    cast::AsArray as _,
    downcast_primitive_array,
    types::{BinaryType, ByteArrayType, LargeBinaryType, LargeUtf8Type, Utf8Type},
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::DataType;

use crate::bindings::millstream::operator::columns::{ColumnParam, ColumnResult};

#[cfg(not(target_endian = "little"))]
compile_error!("columns cross as little-endian bytes; a big-endian host would have to swap them");

/// Columns of one call, as pieces of memory.
#[derive(Default)]
pub(crate) struct Lowered {
    pieces: Vec<Buffer>,
    /// Length of each column, and where its pieces end.
    columns: Vec<(u32, usize)>,
}

impl Lowered {
    /// The buffers of `columns`.
    pub(crate) fn of<'a>(columns: impl IntoIterator<Item = &'a ArrayRef>) -> Self {
        let mut lowered = Self::default();
        for column in columns {
            push(column, true, &mut lowered.pieces);
            let length = u32::try_from(column.len()).expect("a batch has fewer than 2^32 rows");
            lowered.columns.push((length, lowered.pieces.len()));
        }
        lowered
    }

    /// All bytes that cross.
    pub(crate) fn bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    /// The pieces as slices; lent to [`Self::params`].
    pub(crate) fn slices(&self) -> Vec<&[u8]> {
        self.pieces.iter().map(Buffer::as_slice).collect()
    }

    /// One parameter per column.
    pub(crate) fn params<'a>(&self, slices: &'a [&'a [u8]]) -> Vec<ColumnParam<'a>> {
        let mut begin = 0;
        let param = |&(length, end): &(u32, usize)| {
            let buffers = &slices[begin..end];
            begin = end;
            ColumnParam { length, buffers }
        };
        self.columns.iter().map(param).collect()
    }
}

/// A column that answers an import: owned, so copied.
pub(crate) fn owned(column: &ArrayRef) -> ColumnResult {
    let mut pieces = Vec::new();
    push(column, true, &mut pieces);
    ColumnResult { length: u32::try_from(column.len()).unwrap_or(u32::MAX), buffers: pieces.iter().map(|piece| piece.to_vec()).collect() }
}

/// Numbers as bytes, copied.
pub(crate) fn bytes_of(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Numbers as bytes; nothing if there are none.
pub(crate) fn bytes<T: ArrowNativeType>(numbers: Option<&ScalarBuffer<T>>) -> &[u8] {
    numbers.map_or(&[], |numbers| numbers.inner().as_slice())
}

/// A child that is not nullable has no validity of its own: what lies under a null of its parent means nothing.
fn push(array: &dyn Array, nullable: bool, out: &mut Vec<Buffer>) {
    out.push(if nullable { validity(array) } else { Buffer::default() });
    downcast_primitive_array!(
        array => out.push(array.values().inner().clone()),
        DataType::Boolean => out.push(bits(array.as_boolean().values())),
        DataType::Utf8 => push_bytes::<Utf8Type>(array.as_bytes(), out),
        DataType::LargeUtf8 => push_bytes::<LargeUtf8Type>(array.as_bytes(), out),
        DataType::Binary => push_bytes::<BinaryType>(array.as_bytes(), out),
        DataType::LargeBinary => push_bytes::<LargeBinaryType>(array.as_bytes(), out),
        DataType::FixedSizeBinary(_) => {
            let fixed = array.as_fixed_size_binary();
            let width = usize::try_from(fixed.value_length()).expect("sizes are positive");
            // The values of a slice begin where it begins.
            out.push(Buffer::from(fixed.value_data()).slice_with_length(0, fixed.len() * width));
        }
        DataType::Struct(fields) => {
            array.as_struct().columns().iter().zip(fields).for_each(|(child, field)| push(child, field.is_nullable(), out));
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            push_items(list.offsets(), list.values(), item.is_nullable(), out);
        }
        DataType::Map(_, _) => {
            let map: &MapArray = array.as_map();
            push_items(map.offsets(), map.entries(), false, out);
        }
        DataType::FixedSizeList(item, _) => push(array.as_fixed_size_list().values(), item.is_nullable(), out),
        other => unreachable!("{other} does not cross, and plans name only types that do"),
    );
}

fn validity(array: &dyn Array) -> Buffer {
    match array.nulls() {
        Some(nulls) if nulls.null_count() > 0 => bits(nulls.inner()),
        _ => Buffer::default(),
    }
}

/// The bits from the first byte on.
fn bits(bits: &BooleanBuffer) -> Buffer {
    if bits.offset().is_multiple_of(8) {
        return bits.inner().slice_with_length(bits.offset() / 8, bits.len().div_ceil(8));
    }
    let packed = bits.sliced();
    packed.slice_with_length(0, bits.len().div_ceil(8))
}

fn push_bytes<T: ByteArrayType>(array: &GenericByteArray<T>, out: &mut Vec<Buffer>) {
    let (begin, end) = bounds(array.offsets());
    out.push(from_zero(array.offsets()));
    out.push(array.values().slice_with_length(begin, end - begin));
}

fn push_items(offsets: &OffsetBuffer<i32>, items: &dyn Array, nullable: bool, out: &mut Vec<Buffer>) {
    let (begin, end) = bounds(offsets);
    out.push(from_zero(offsets));
    push(items.slice(begin, end - begin).as_ref(), nullable, out);
}

fn bounds<O: arrow_array::OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> (usize, usize) {
    let first = offsets.first().expect("offsets are never empty");
    let last = offsets.last().expect("offsets are never empty");
    (first.as_usize(), last.as_usize())
}

/// The offsets, moved so that the first is 0.
fn from_zero<O: arrow_array::OffsetSizeTrait>(offsets: &OffsetBuffer<O>) -> Buffer {
    let first = offsets[0];
    if first.as_usize() == 0 {
        return offsets.inner().inner().clone();
    }
    offsets.iter().map(|offset| *offset - first).collect::<Vec<O>>().into()
}
