//! Files of values ("object container files"): the schema of the writer, then blocks of values.
//!
//! ```text
//! file   = "Obj" 1, metadata: map of bytes, marker: 16 bytes, block…
//! block  = values: long, size: long, content: `size` bytes in the codec, marker
//! ```
//!
//! The metadata names schema (`avro.schema`) and codec (`avro.codec`). Each block can be read alone, so the place of a block and a number of values
//! in it are a position. The marker says that a block is whole: it is looked at before anything of the block is decoded.

mod codec;
mod read;
#[cfg(test)]
mod tests;
mod write;

use std::io;

pub use codec::Codec;
pub use read::{Position, Reader, Rows, schema_of};
pub use write::{Writer, check_sizes};

const MAGIC: &[u8; 4] = b"Obj\x01";
const SCHEMA_KEY: &str = "avro.schema";
const CODEC_KEY: &str = "avro.codec";
/// Bytes of the metadata: a schema is not longer than 4 MiB.
const METADATA_BYTES_MAX: u64 = 8 << 20;
/// Bytes of the content of one block.
const BLOCK_BYTES_MAX: usize = 256 << 20;
/// Bytes of a packed block: what cannot be packed may grow a little.
const PACKED_BYTES_MAX: usize = BLOCK_BYTES_MAX / 4 * 5;
/// Values of one block that take no bytes; others are bounded by the bytes.
const FREE_VALUES_MAX: u64 = 1 << 20;

/// What stands behind the header and each block of a file.
pub type Marker = [u8; 16];

/// Why a file cannot be read (further); a clause whose subject is the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system says so.
    #[error("cannot be read at byte {at}")]
    Unreadable {
        /// Where.
        at: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ends too early.
    #[error("is cut off: {what} is not complete at byte {at}, where the file ends")]
    CutOff {
        /// What is not complete.
        what: &'static str,
        /// Its size.
        at: u64,
    },
    /// Bytes that no writer writes.
    #[error("is damaged at byte {at}: {reason}")]
    Damaged {
        /// Where the header, the block or the marker begins.
        at: u64,
        /// What is wrong; a clause.
        reason: String,
    },
    /// Another file, or one that is written in a way that is not known.
    #[error("cannot be read: {0}")]
    Unknown(String),
}

/// What stands in front of the blocks.
#[derive(Clone, Debug)]
struct Header {
    schema: super::Schema,
    codec: Codec,
    marker: Marker,
}

/// A marker for the file of this name. It need not be a secret, only bytes that do not stand in the file by chance.
pub fn marker_of(name: &str) -> Marker {
    xxhash_rust::xxh3::xxh3_128(name.as_bytes()).to_be_bytes()
}
