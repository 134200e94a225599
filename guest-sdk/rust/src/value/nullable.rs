//! `Option`: values that may be null.

use super::{
    Buffers, ColumnBuilder, Malformed, ReadValue, Value,
    bits::{self, BitBuilder},
};

/// A column that may hold nulls.
pub struct NullableReader<'a, R> {
    /// None: there are no nulls. Known before the loop, so the branch costs nothing in it.
    validity: Option<&'a [u8]>,
    values: R,
}

impl<R> NullableReader<'_, R> {
    #[inline(always)]
    fn is_valid(&self, row: usize) -> bool {
        match self.validity {
            None => true,
            Some(bitmap) => bits::is_set(bitmap, row),
        }
    }
}

impl<'a, R> NullableReader<'a, R> {
    /// Whether row `row` holds this value; none if it is null.
    #[inline]
    pub(crate) fn same_some<T: ReadValue<'a, Reader = R>>(&self, value: &T, row: usize) -> Option<bool> {
        self.is_valid(row).then(|| value.same(&self.values, row))
    }
}

/// Makes a column that may hold nulls. The bitmap starts with the first null.
#[derive(Default)]
pub struct NullableBuilder<B> {
    values: B,
    length: usize,
    validity: Option<BitBuilder>,
}

impl<B: ColumnBuilder> NullableBuilder<B> {
    /// Appends a value or null.
    #[inline]
    pub(crate) fn append_option<T: Value<Builder = B>>(&mut self, value: Option<&T>) {
        match value {
            Some(value) => value.append(self.push_valid()),
            None => self.append_null(),
        }
    }

    #[inline]
    fn push_valid(&mut self) -> &mut B {
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
        self.length += 1;
        &mut self.values
    }
}

impl<B: ColumnBuilder> ColumnBuilder for NullableBuilder<B> {
    fn reserve(&mut self, rows: usize) {
        self.values.reserve(rows);
    }

    fn append_null(&mut self) {
        let length = self.length;
        self.validity.get_or_insert_with(|| BitBuilder::filled(length, true)).push(false);
        self.length += 1;
        self.values.append_null();
    }

    fn truncate(&mut self, rows: usize) {
        self.length = rows;
        self.values.truncate(rows);
        if let Some(validity) = &mut self.validity {
            validity.shorten(rows);
        }
    }

    /// The outer validity is that of an `Option<Option<T>>`, which is no column; it is always empty.
    fn finish(self, _: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        self.values.finish(self.validity.map(BitBuilder::into_bytes).unwrap_or_default(), buffers);
    }
}

impl<T: Value> Value for Option<T> {
    const NULLABLE: bool = {
        assert!(!T::NULLABLE, "Option<Option<_>> is no column: null is null");
        true
    };
    type Builder = NullableBuilder<T::Builder>;

    fn write_type(text: &mut String) {
        T::write_type(text);
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) {
        builder.append_option(self.as_ref());
    }

    fn duplicate(&self) -> Self {
        self.as_ref().map(T::duplicate)
    }
}

impl<'a, T: ReadValue<'a>> ReadValue<'a> for Option<T> {
    type Reader = NullableReader<'a, T::Reader>;

    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        Ok(NullableReader { validity: None, values: T::reader_of_values(buffers, length)? })
    }

    fn reader(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
        let bitmap = buffers.take()?;
        let validity = if bitmap.is_empty() || bits::count_ones(bitmap, length)? == length { None } else { Some(bitmap) };
        Ok(NullableReader { validity, values: T::reader_of_values(buffers, length)? })
    }

    #[inline(always)]
    fn get(reader: &Self::Reader, row: usize) -> Self {
        if reader.is_valid(row) { Some(T::get(&reader.values, row)) } else { None }
    }

    #[inline]
    fn same(&self, reader: &Self::Reader, row: usize) -> bool {
        match self {
            Some(value) => reader.is_valid(row) && value.same(&reader.values, row),
            None => !reader.is_valid(row),
        }
    }
}
