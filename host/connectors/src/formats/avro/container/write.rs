//! Values → a file.

use std::io::{self, Write};

use super::{
    super::{
        Schema,
        write::{bytes, long},
    },
    BLOCK_BYTES_MAX, CODEC_KEY, Codec, MAGIC, Marker, SCHEMA_KEY,
    codec::Packer,
};

/// Bytes of values after which a block ends, before it is packed.
const BLOCK_BYTES: usize = 64 << 10;

/// Whether values that end where `ends` says fit into blocks, which hold one at least.
///
/// # Errors
/// One does not; a clause.
pub fn check_sizes(ends: &[usize]) -> Result<(), String> {
    let starts = std::iter::once(&0).chain(ends);
    match ends.iter().zip(starts).position(|(end, start)| end - start > BLOCK_BYTES_MAX) {
        Some(row) => Err(format!("row {row}: it is larger than {BLOCK_BYTES_MAX} bytes")),
        None => Ok(()),
    }
}

/// Writes one file.
pub struct Writer<W> {
    file: W,
    packer: Packer,
    marker: Marker,
    /// Values that are not written yet.
    block: Vec<u8>,
    values: u64,
}

impl<W: Write> Writer<W> {
    /// Begins a file of values in this schema.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn new(mut file: W, schema: &Schema, codec: Codec, marker: Marker) -> io::Result<Self> {
        let mut header = MAGIC.to_vec();
        long(2, &mut header);
        for (key, value) in [(CODEC_KEY, codec.name()), (SCHEMA_KEY, schema.text())] {
            bytes(key.as_bytes(), &mut header);
            bytes(value.as_bytes(), &mut header);
        }
        long(0, &mut header);
        header.extend_from_slice(&marker);
        file.write_all(&header)?;
        Ok(Self { file, packer: Packer::new(codec)?, marker, block: Vec::new(), values: 0 })
    }

    /// Appends values, which stand one behind the other, end where `ends` says and have passed [`check_sizes`].
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn append(&mut self, values: &[u8], ends: &[usize]) -> io::Result<()> {
        let mut start = 0;
        for &end in ends {
            if self.values > 0 && self.block.len() + (end - start) > BLOCK_BYTES {
                self.end_block()?;
            }
            self.block.extend_from_slice(&values[start..end]);
            self.values += 1;
            start = end;
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        let packed = self.packer.pack(std::mem::take(&mut self.block))?;
        let mut head = Vec::new();
        long(self.values.cast_signed(), &mut head);
        long(packed.len() as i64, &mut head);
        self.values = 0;
        self.file.write_all(&head)?;
        self.file.write_all(&packed)?;
        self.file.write_all(&self.marker)
    }

    /// Completes the file and hands it over, to be synced.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        if self.values > 0 {
            self.end_block()?;
        }
        Ok(self.file)
    }
}
