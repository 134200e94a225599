//! The contract's buffers as Arrow arrays: checked in full, then taken over without copying.
//!
//! Checks run over whole buffers, so that they cost a small part of a nanosecond per value. Errors are clauses that name what is wrong.

use std::{sync::Arc, vec::IntoIter};

use arrow_array::{
    Array, ArrayRef, BooleanArray, Decimal128Array, FixedSizeBinaryArray, FixedSizeListArray, GenericByteArray, ListArray, MapArray,
    PrimitiveArray, StructArray, downcast_primitive,
    types::{BinaryType, ByteArrayType, LargeBinaryType, LargeUtf8Type, Utf8Type},
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow_schema::{DataType, Field, FieldRef};

use crate::bindings::millstream::operator::columns::ColumnResult;

/// The array that `column` holds, as `data_type` says.
pub(crate) fn column_of(column: ColumnResult, data_type: &DataType, nullable: bool, name: &str) -> Result<ArrayRef, String> {
    let length = column.length as usize;
    let mut parts = Parts { buffers: column.buffers.into_iter() };
    let array = parts.array(data_type, length).map_err(|reason| format!("column `{name}` ({data_type}): {reason}"))?;
    if parts.buffers.len() > 0 {
        return Err(format!("column `{name}` ({data_type}) has {} buffers too many", parts.buffers.len()));
    }
    if !nullable && array.null_count() > 0 {
        return Err(format!("column `{name}` has nulls, but is declared without"));
    }
    Ok(array)
}

/// The array of a field.
pub(crate) fn column(column: ColumnResult, field: &Field, length: usize) -> Result<ArrayRef, String> {
    if column.length as usize != length {
        return Err(format!("column `{}` has {} values instead of {length}", field.name(), column.length));
    }
    column_of(column, field.data_type(), field.is_nullable(), field.name())
}

/// Bytes of all buffers.
pub(crate) fn column_bytes(column: &ColumnResult) -> u64 {
    column.buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

/// Numbers, all below `below`.
pub(crate) fn numbers(bytes: Vec<u8>, below: u32, what: &str) -> Result<ScalarBuffer<u32>, String> {
    let numbers: ScalarBuffer<u32> = scalars(bytes, what)?;
    let highest = numbers.iter().fold(0, |highest: u32, number| highest.max(*number));
    if !numbers.is_empty() && highest >= below {
        return Err(format!("{what} {highest} of {below}"));
    }
    Ok(numbers)
}

/// Numbers of any size.
pub(crate) fn scalars<T: ArrowNativeType>(bytes: Vec<u8>, what: &str) -> Result<ScalarBuffer<T>, String> {
    let width = size_of::<T>();
    if !bytes.len().is_multiple_of(width) {
        return Err(format!("{what} list of {} bytes, which is no multiple of {width}", bytes.len()));
    }
    let length = bytes.len() / width;
    Ok(ScalarBuffer::new(aligned(bytes, width), 0, length))
}

/// One bit for each of `length`; more are ignored.
pub(crate) fn bitmap(bytes: Vec<u8>, length: usize, what: &str) -> Result<BooleanBuffer, String> {
    if bytes.len() < length.div_ceil(8) {
        return Err(format!("{what} bitmap of {} bytes for {length} bits", bytes.len()));
    }
    Ok(BooleanBuffer::new(Buffer::from_vec(bytes), 0, length))
}

/// A buffer of the bytes, taken over if the allocator aligned them well enough (it does), copied otherwise.
fn aligned(bytes: Vec<u8>, width: usize) -> Buffer {
    let buffer = Buffer::from_vec(bytes);
    if buffer.as_ptr().align_offset(width) == 0 { buffer } else { Buffer::from_slice_ref(buffer.as_slice()) }
}

/// Checks that data is text, and that offsets do not cut its characters.
type CheckText<O> = fn(&[u8], &[O]) -> Result<(), String>;

/// What is left of a column's buffers.
struct Parts {
    buffers: IntoIter<Vec<u8>>,
}

impl Parts {
    fn next(&mut self, what: &str) -> Result<Vec<u8>, String> {
        self.buffers.next().ok_or_else(|| format!("the {what} buffer is missing"))
    }

    fn array(&mut self, data_type: &DataType, length: usize) -> Result<ArrayRef, String> {
        macro_rules! primitive {
            ($type:ty) => {
                self.primitive::<$type>(data_type, length)
            };
        }
        downcast_primitive!(
            data_type => (primitive),
            DataType::Boolean => {
                let nulls = self.validity(length)?;
                let values = bitmap(self.next("values")?, length, "values")?;
                Ok(Arc::new(BooleanArray::new(values, nulls)))
            }
            DataType::Utf8 => self.bytes::<Utf8Type>(length, Some(check_utf8::<i32>)),
            DataType::LargeUtf8 => self.bytes::<LargeUtf8Type>(length, Some(check_utf8::<i64>)),
            DataType::Binary => self.bytes::<BinaryType>(length, None),
            DataType::LargeBinary => self.bytes::<LargeBinaryType>(length, None),
            DataType::FixedSizeBinary(size) => self.fixed_size_binary(*size, length),
            DataType::Struct(fields) => {
                let nulls = self.validity(length)?;
                if fields.is_empty() {
                    return Ok(Arc::new(StructArray::new_empty_fields(length, nulls)));
                }
                let children = fields.iter().map(|field| self.array(field.data_type(), length)).collect::<Result<_, _>>()?;
                Ok(Arc::new(StructArray::try_new(fields.clone(), children, nulls).map_err(|error| error.to_string())?))
            }
            DataType::List(item) => {
                let nulls = self.validity(length)?;
                let (offsets, items) = self.items(item, length)?;
                Ok(Arc::new(ListArray::try_new(item.clone(), offsets, items, nulls).map_err(|error| error.to_string())?))
            }
            DataType::FixedSizeList(item, size) => {
                let nulls = self.validity(length)?;
                let items = self.array(item.data_type(), length * usize::try_from(*size).expect("sizes of types that cross are positive"))?;
                Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), *size, items, nulls).map_err(|error| error.to_string())?))
            }
            DataType::Map(entries, sorted) => {
                let nulls = self.validity(length)?;
                let (offsets, items) = self.items(entries, length)?;
                let items = arrow_array::cast::AsArray::as_struct(&items).clone();
                Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, items, nulls, *sorted).map_err(|error| error.to_string())?))
            }
            other => unreachable!("{other} does not cross, and plans name only types that do"),
        )
    }

    fn validity(&mut self, length: usize) -> Result<Option<NullBuffer>, String> {
        let bytes = self.next("validity")?;
        if bytes.is_empty() {
            return Ok(None);
        }
        let nulls = NullBuffer::new(bitmap(bytes, length, "validity")?);
        Ok((nulls.null_count() > 0).then_some(nulls))
    }

    fn primitive<T: arrow_array::ArrowPrimitiveType>(&mut self, data_type: &DataType, length: usize) -> Result<ArrayRef, String> {
        let nulls = self.validity(length)?;
        let bytes = self.next("values")?;
        let width = size_of::<T::Native>();
        check_size(bytes.len(), length, width)?;
        let values = ScalarBuffer::new(aligned(bytes, width), 0, length);
        let array = PrimitiveArray::<T>::new(values, nulls).with_data_type(data_type.clone());
        if let DataType::Decimal128(precision, _) = data_type {
            let decimals: &Decimal128Array = arrow_array::cast::AsArray::as_primitive(&array as &dyn Array);
            decimals.validate_decimal_precision(*precision).map_err(|error| error.to_string())?;
        }
        Ok(Arc::new(array))
    }

    fn fixed_size_binary(&mut self, size: i32, length: usize) -> Result<ArrayRef, String> {
        let nulls = self.validity(length)?;
        let bytes = self.next("values")?;
        let width = usize::try_from(size).expect("sizes of types that cross are positive");
        check_size(bytes.len(), length, width)?;
        let values = Buffer::from_vec(bytes).slice_with_length(0, length * width);
        Ok(Arc::new(FixedSizeBinaryArray::try_new(size, values, nulls).map_err(|error| error.to_string())?))
    }

    #[expect(unsafe_code, reason = "the checked constructors repeat the checks that were just made, value by value")]
    fn bytes<T: ByteArrayType>(&mut self, length: usize, check: Option<CheckText<T::Offset>>) -> Result<ArrayRef, String> {
        let nulls = self.validity(length)?;
        let offsets = self.offsets::<T::Offset>(length)?;
        let data = self.next("data")?;
        let used = used_data(&data, &offsets)?;
        if let Some(check) = check {
            check(used, &offsets)?;
        }
        let data = Buffer::from_vec(data);
        // SAFETY: the offsets are one more than the values, begin at 0, never decrease and end within the data; for strings, the data
        // used is UTF-8 and every offset is between characters. `check_offsets`, `used_data` and `check` made sure of it.
        Ok(Arc::new(unsafe { GenericByteArray::<T>::new_unchecked(OffsetBuffer::new_unchecked(offsets), data, nulls) }))
    }

    /// Offsets and items of a list or map.
    #[expect(unsafe_code, reason = "as for bytes")]
    fn items(&mut self, item: &FieldRef, length: usize) -> Result<(OffsetBuffer<i32>, ArrayRef), String> {
        let offsets = self.offsets::<i32>(length)?;
        let count = offsets.last().expect("offsets are never empty").as_usize();
        let items = self.array(item.data_type(), count)?;
        // SAFETY: `offsets` made sure that there is one, that the first is 0 and that they never decrease.
        Ok((unsafe { OffsetBuffer::new_unchecked(offsets) }, items))
    }

    /// `length + 1` offsets from 0 that never decrease.
    fn offsets<O: arrow_array::OffsetSizeTrait>(&mut self, length: usize) -> Result<ScalarBuffer<O>, String> {
        let bytes = self.next("offsets")?;
        if bytes.is_empty() && length == 0 {
            return Ok(vec![O::default()].into());
        }
        let width = size_of::<O>();
        check_size(bytes.len(), length + 1, width)?;
        let offsets: ScalarBuffer<O> = ScalarBuffer::new(aligned(bytes, width), 0, length + 1);
        check_offsets(&offsets)?;
        Ok(offsets)
    }
}

fn check_offsets<O: arrow_array::OffsetSizeTrait>(offsets: &[O]) -> Result<(), String> {
    if offsets[0] != O::default() {
        return Err("offsets do not begin at 0".into());
    }
    // No early exit, so that the compiler can use vectors.
    let ascending = offsets.windows(2).fold(true, |ascending, pair| ascending & (pair[0] <= pair[1]));
    if ascending { Ok(()) } else { Err("offsets decrease".into()) }
}

/// At least `length` values of `width` bytes; more bytes are ignored.
fn check_size(bytes: usize, length: usize, width: usize) -> Result<(), String> {
    match length.checked_mul(width) {
        Some(needed) if needed <= bytes => Ok(()),
        _ => Err(format!("{bytes} bytes for {length} values of {width} bytes")),
    }
}

/// The data that the offsets name.
fn used_data<'a, O: arrow_array::OffsetSizeTrait>(data: &'a [u8], offsets: &[O]) -> Result<&'a [u8], String> {
    let end = offsets[offsets.len() - 1].as_usize();
    data.get(..end).ok_or_else(|| format!("offsets end at {end}, but there are {} bytes of data", data.len()))
}

/// All data is UTF-8, and every value begins and ends between characters.
fn check_utf8<O: arrow_array::OffsetSizeTrait>(values: &[u8], offsets: &[O]) -> Result<(), String> {
    if values.is_ascii() {
        return Ok(());
    }
    let text = std::str::from_utf8(values).map_err(|error| format!("text is not UTF-8 at byte {}", error.valid_up_to()))?;
    let between = offsets.iter().fold(true, |between, offset| between & text.is_char_boundary(offset.as_usize()));
    if between { Ok(()) } else { Err("an offset cuts a character of UTF-8".into()) }
}

#[cfg(test)]
mod tests;
