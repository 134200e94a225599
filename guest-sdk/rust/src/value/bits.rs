//! Bitmaps, least significant bit first: booleans, validity and the sets of the contract.

use super::{Buffers, ColumnBuilder, Malformed, ReadValue, Value};

/// Whether bit `index` is set.
#[inline(always)]
pub(crate) fn is_set(bitmap: &[u8], index: usize) -> bool {
    (bitmap[index >> 3] >> (index & 7)) & 1 == 1
}

/// How many of the first `length` bits are set.
pub(crate) fn count_ones(bitmap: &[u8], length: usize) -> Result<usize, Malformed> {
    let bytes = bitmap.get(..length.div_ceil(8)).ok_or(Malformed("a bitmap is too short"))?;
    let whole: usize = bytes[..length / 8].iter().map(|byte| byte.count_ones() as usize).sum();
    let rest = bytes.get(length / 8).map_or(0, |byte| (byte & ((1 << (length % 8)) - 1)).count_ones() as usize);
    Ok(whole + rest)
}

/// A column of booleans.
pub struct Bits<'a>(pub(crate) &'a [u8]);

impl<'a> Bits<'a> {
    /// The next buffer as a bitmap of `length` bits.
    pub(crate) fn take(buffers: &mut Buffers<'a>, length: usize) -> Result<Self, Malformed> {
        let bytes = buffers.take()?;
        bytes.get(..length.div_ceil(8)).map(Self).ok_or(Malformed("a bitmap is too short"))
    }
}

/// Makes a bitmap.
#[derive(Default)]
pub struct BitBuilder {
    bytes: Vec<u8>,
    length: usize,
}

impl BitBuilder {
    /// A bitmap of `length` bits, all `set`.
    pub(crate) fn filled(length: usize, set: bool) -> Self {
        let mut bits = Self { bytes: vec![if set { 0xff } else { 0 }; length.div_ceil(8)], length };
        bits.clear_padding();
        bits
    }

    /// Appends one bit.
    #[inline]
    pub fn push(&mut self, set: bool) {
        if self.length & 7 == 0 {
            self.bytes.push(0);
        }
        let last = self.bytes.len() - 1;
        self.bytes[last] |= u8::from(set) << (self.length & 7);
        self.length += 1;
    }

    /// Sets bit `index`, which exists.
    pub(crate) fn set(&mut self, index: usize) {
        self.bytes[index >> 3] |= 1 << (index & 7);
    }

    /// The bytes; bits beyond the length are zero.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn shorten(&mut self, length: usize) {
        self.length = length;
        self.bytes.truncate(length.div_ceil(8));
        self.clear_padding();
    }

    fn clear_padding(&mut self) {
        if self.length & 7 != 0
            && let Some(last) = self.bytes.last_mut()
        {
            *last &= (1 << (self.length & 7)) - 1;
        }
    }
}

impl ColumnBuilder for BitBuilder {
    fn reserve(&mut self, rows: usize) {
        self.bytes.reserve(rows.div_ceil(8));
    }

    fn append_null(&mut self) {
        self.push(false);
    }

    fn truncate(&mut self, rows: usize) {
        self.shorten(rows);
    }

    fn finish(self, validity: Vec<u8>, buffers: &mut Vec<Vec<u8>>) {
        buffers.extend([validity, self.bytes]);
    }
}

impl Value for bool {
    type Builder = BitBuilder;

    fn write_type(text: &mut String) {
        text.push_str("Boolean");
    }

    #[inline]
    fn append(&self, builder: &mut BitBuilder) {
        builder.push(*self);
    }

    fn duplicate(&self) -> Self {
        *self
    }
}

impl<'a> ReadValue<'a> for bool {
    type Reader = Bits<'a>;

    fn reader_of_values(buffers: &mut Buffers<'a>, length: usize) -> Result<Bits<'a>, Malformed> {
        Bits::take(buffers, length)
    }

    #[inline(always)]
    fn get(reader: &Bits<'a>, row: usize) -> Self {
        is_set(reader.0, row)
    }

    #[inline]
    fn same(&self, reader: &Bits<'a>, row: usize) -> bool {
        *self == is_set(reader.0, row)
    }
}
