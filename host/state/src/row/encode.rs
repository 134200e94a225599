//! Arrow columns → bodies of rows.

use arrow_array::{
    Array, ArrayRef, BooleanArray, GenericByteArray, OffsetSizeTrait,
    cast::AsArray,
    types::{BinaryType, ByteArrayType, LargeBinaryType, LargeUtf8Type, Utf8Type},
};
use arrow_buffer::{Buffer, NullBuffer, ScalarBuffer};
use arrow_schema::DataType;

use super::{fixed_width, write_varint};

/// Writes the values of one column, any of them, any number of times.
pub(crate) struct RowEncoder<'a> {
    column: Column<'a>,
}

impl<'a> RowEncoder<'a> {
    /// None: the type has no row encoding.
    pub fn new(array: &'a ArrayRef) -> Option<Self> {
        Some(Self { column: Column::new(array, false)? })
    }

    /// Appends the body of the value at `row`, which is not null.
    pub fn write(&self, row: usize, out: &mut Vec<u8>) {
        self.column.write_body(row, out);
    }
}

/// One column, downcast once.
struct Column<'a> {
    /// Present when the field is nullable: every value has a tag.
    tagged: bool,
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    Fixed { bytes: Buffer, offset: usize, width: usize },
    Utf8(&'a GenericByteArray<Utf8Type>),
    LargeUtf8(&'a GenericByteArray<LargeUtf8Type>),
    Binary(&'a GenericByteArray<BinaryType>),
    LargeBinary(&'a GenericByteArray<LargeBinaryType>),
    List(&'a ScalarBuffer<i32>, Box<Column<'a>>),
    FixedList(usize, Box<Column<'a>>),
    Struct(Vec<Column<'a>>),
    Map(&'a ScalarBuffer<i32>, Box<[Column<'a>; 2]>),
}

impl<'a> Column<'a> {
    fn new(array: &'a ArrayRef, tagged: bool) -> Option<Self> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Boolean(array.as_boolean()),
            DataType::Utf8 => Values::Utf8(array.as_bytes()),
            DataType::LargeUtf8 => Values::LargeUtf8(array.as_bytes()),
            DataType::Binary => Values::Binary(array.as_bytes()),
            DataType::LargeBinary => Values::LargeBinary(array.as_bytes()),
            DataType::List(item) => {
                let list = array.as_list::<i32>();
                Values::List(list.offsets().inner(), Box::new(Self::new(list.values(), item.is_nullable())?))
            }
            DataType::FixedSizeList(item, size) => {
                let list = array.as_fixed_size_list();
                Values::FixedList(usize::try_from(*size).ok()?, Box::new(Self::new(list.values(), item.is_nullable())?))
            }
            DataType::Struct(fields) => {
                let columns = array.as_struct().columns().iter().zip(fields);
                Values::Struct(columns.map(|(column, field)| Self::new(column, field.is_nullable())).collect::<Option<_>>()?)
            }
            DataType::Map(_, _) => {
                let map = array.as_map();
                let nullable = map.entries().fields()[1].is_nullable();
                Values::Map(map.offsets().inner(), Box::new([Self::new(map.keys(), false)?, Self::new(map.values(), nullable)?]))
            }
            other => {
                let (width, data) = (fixed_width(other)?, array.to_data());
                Values::Fixed { bytes: data.buffers()[0].clone(), offset: data.offset(), width }
            }
        };
        Some(Self { tagged, nulls: array.nulls(), values })
    }

    fn write(&self, row: usize, out: &mut Vec<u8>) {
        if self.tagged {
            let present = self.nulls.is_none_or(|nulls| nulls.is_valid(row));
            out.push(u8::from(present));
            if !present {
                return;
            }
        }
        self.write_body(row, out);
    }

    fn write_body(&self, row: usize, out: &mut Vec<u8>) {
        match &self.values {
            Values::Boolean(array) => out.push(u8::from(array.value(row))),
            Values::Fixed { bytes, offset, width } => out.extend_from_slice(&bytes[(offset + row) * width..(offset + row + 1) * width]),
            Values::Utf8(array) => write_bytes(array, row, out),
            Values::LargeUtf8(array) => write_bytes(array, row, out),
            Values::Binary(array) => write_bytes(array, row, out),
            Values::LargeBinary(array) => write_bytes(array, row, out),
            Values::List(offsets, item) => write_items(offsets, row, out, |at, out| item.write(at, out)),
            Values::FixedList(size, item) => (row * size..(row + 1) * size).for_each(|at| item.write(at, out)),
            Values::Struct(columns) => columns.iter().for_each(|column| column.write(row, out)),
            Values::Map(offsets, entry) => write_items(offsets, row, out, |at, out| entry.iter().for_each(|column| column.write(at, out))),
        }
    }
}

fn write_bytes<T: ByteArrayType>(array: &GenericByteArray<T>, row: usize, out: &mut Vec<u8>) {
    let bytes: &[u8] = array.value(row).as_ref();
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn write_items<O: OffsetSizeTrait>(offsets: &ScalarBuffer<O>, row: usize, out: &mut Vec<u8>, mut item: impl FnMut(usize, &mut Vec<u8>)) {
    let (start, end) = (offsets[row].as_usize(), offsets[row + 1].as_usize());
    write_varint((end - start) as u64, out);
    (start..end).for_each(|at| item(at, out));
}
