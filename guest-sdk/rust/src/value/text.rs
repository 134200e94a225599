//! Text and bytes of any length: one run of bytes and the offsets of its parts.

use super::{Buffers, ColumnBuilder, Malformed, ReadValue, Value};

/// A column of byte strings with offsets of `W` bytes.
pub struct Bytes<'a, const W: usize> {
    offsets: &'a [[u8; W]],
    data: &'a [u8],
}

/// A column of text with offsets of `W` bytes.
pub struct Text<'a, const W: usize> {
    offsets: &'a [[u8; W]],
    data: &'a str,
}

#[inline(always)]
pub(super) fn offset<const W: usize>(offsets: &[[u8; W]], row: usize) -> usize {
    let mut wide = [0; 8];
    wide[..W].copy_from_slice(&offsets[row]);
    u64::from_le_bytes(wide) as usize
}

/// The offsets of `length` rows (one more than rows, or none for no rows) and the end of the last row.
pub(super) fn take_offsets<'a, const W: usize>(buffers: &mut Buffers<'a>, length: usize) -> Result<(&'a [[u8; W]], usize), Malformed> {
    if length == 0 {
        buffers.take()?;
        return Ok((&[], 0));
    }
    let offsets = buffers.take_fixed::<W>(length + 1)?;
    Ok((offsets, offset(offsets, length)))
}

impl<'a, const W: usize> Bytes<'a, W> {
    fn take(buffers: &mut Buffers<'a>, length: usize) -> Result<Self, Malformed> {
        let (offsets, end) = take_offsets(buffers, length)?;
        let data = buffers.take()?.get(..end).ok_or(Malformed("offsets point behind the data"))?;
        Ok(Self { offsets, data })
    }

    /// Bytes of row `row`; panics, rather than read elsewhere, if the offsets are not ascending.
    #[inline(always)]
    fn get(&self, row: usize) -> &'a [u8] {
        &self.data[offset(self.offsets, row)..offset(self.offsets, row + 1)]
    }
}

impl<'a, const W: usize> Text<'a, W> {
    fn take(buffers: &mut Buffers<'a>, length: usize) -> Result<Self, Malformed> {
        let Bytes { offsets, data } = Bytes::take(buffers, length)?;
        let data = std::str::from_utf8(data).map_err(|_| Malformed("text is not UTF-8"))?;
        Ok(Self { offsets, data })
    }

    #[inline(always)]
    fn get(&self, row: usize) -> &'a str {
        &self.data[offset(self.offsets, row)..offset(self.offsets, row + 1)]
    }
}

/// Makes a column of text or bytes with offsets of `W` bytes.
pub struct BytesBuilder<const W: usize> {
    /// The end of each row; the leading 0 is there from the start.
    offsets: Vec<[u8; W]>,
    data: Vec<u8>,
}

impl<const W: usize> Default for BytesBuilder<W> {
    fn default() -> Self {
        Self { offsets: Vec::new(), data: Vec::new() }
    }
}

impl<const W: usize> BytesBuilder<W> {
    /// Appends one row.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.data.extend_from_slice(bytes);
        self.close();
    }

    #[inline]
    fn close(&mut self) {
        if self.offsets.is_empty() {
            self.offsets.push([0; W]);
        }
        let end = (self.data.len() as u64).to_le_bytes();
        let mut narrow = [0; W];
        narrow.copy_from_slice(&end[..W]);
        self.offsets.push(narrow);
    }
}

impl<const W: usize> ColumnBuilder for BytesBuilder<W> {
    fn reserve(&mut self, rows: usize) {
        self.offsets.reserve(rows + 1);
        self.data.reserve(rows * 8);
    }

    fn append_null(&mut self) {
        self.close();
    }

    fn truncate(&mut self, rows: usize) {
        if rows + 1 < self.offsets.len() {
            self.data.truncate(offset(&self.offsets, rows));
            self.offsets.truncate(rows + 1);
        }
    }

    fn finish(mut self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        if self.offsets.is_empty() {
            self.offsets.push([0; W]);
        }
        buffers.extend([validity, self.offsets.into_flattened(), self.data]);
    }
}

/// Text or bytes with 64-bit offsets: `LargeUtf8`, `LargeBinary`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Large<T>(
    /// The text or bytes.
    pub T,
);

/// Implements both directions: reader type, text of the type, then conversions to bytes and from what the reader gives.
macro_rules! text_value {
    ($([$($lifetime:lifetime)?] $type:ty, $reader:ident<$width:literal>, $name:literal, $bytes:expr, $from:expr, $copy:expr;)*) => {$(
        impl$(<$lifetime>)? Value for $type {
            type Builder = BytesBuilder<$width>;

            fn write_type(text: &mut String) {
                text.push_str($name);
            }

            #[inline]
            fn append(&self, builder: &mut Self::Builder) {
                let bytes: fn(&Self) -> &[u8] = $bytes;
                builder.push(bytes(self));
            }

            fn duplicate(&self) -> Self {
                let copy: fn(&Self) -> Self = $copy;
                copy(self)
            }
        }

        impl<'a> ReadValue<'a> for text_value!(@read [$($lifetime)?] $type) {
            type Reader = $reader<'a, $width>;

            fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Self::Reader, Malformed> {
                $reader::take(buffers, length)
            }

            #[inline(always)]
            fn get(reader: &Self::Reader, row: usize) -> Self {
                ($from)(reader.get(row))
            }

            #[inline]
            fn same(&self, reader: &Self::Reader, row: usize) -> bool {
                let bytes: fn(&Self) -> &[u8] = $bytes;
                bytes(self) == AsRef::<[u8]>::as_ref(reader.get(row))
            }
        }
    )*};
    (@read [$($lifetime:lifetime)?] $type:ty) => { $type };
}

text_value! {
    [] String, Text<4>, "Utf8", |value| value.as_bytes(), |text: &str| text.to_owned(), Self::clone;
    ['a] &'a str, Text<4>, "Utf8", |value| value.as_bytes(), |text| text, |value| value;
    [] Vec<u8>, Bytes<4>, "Binary", |value| value, |bytes: &[u8]| bytes.to_owned(), Self::clone;
    ['a] &'a [u8], Bytes<4>, "Binary", |value| value, |bytes| bytes, |value| value;
    [] Large<String>, Text<8>, "LargeUtf8", |value| value.0.as_bytes(), |text: &str| Large(text.to_owned()), Self::clone;
    ['a] Large<&'a str>, Text<8>, "LargeUtf8", |value| value.0.as_bytes(), Large, |value| *value;
    [] Large<Vec<u8>>, Bytes<8>, "LargeBinary", |value| &value.0, |bytes: &[u8]| Large(bytes.to_owned()), Self::clone;
    ['a] Large<&'a [u8]>, Bytes<8>, "LargeBinary", |value| value.0, Large, |value| *value;
}
