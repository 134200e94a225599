//! How the content of a block is packed.

use std::io::{self, Read, Write};

use flate2::{Crc, bufread::DeflateDecoder, write::DeflateEncoder};
use schemars::JsonSchema;
use serde::Deserialize;

use super::BLOCK_BYTES_MAX;

/// How the blocks of an Avro file are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    /// Not at all.
    None,
    /// RFC 1951; every reader of Avro knows it.
    #[default]
    Deflate,
    /// Snappy, and a checksum.
    Snappy,
    /// Zstandard (RFC 8878): smaller and faster, if the readers know it.
    Zstandard,
}

/// Bytes of the checksum behind what Snappy packed.
const CHECKSUM_BYTES: usize = 4;

impl Codec {
    /// The codec that a file names.
    pub(super) fn of_name(name: &[u8]) -> Result<Self, String> {
        match name {
            b"null" => Ok(Self::None),
            b"deflate" => Ok(Self::Deflate),
            b"snappy" => Ok(Self::Snappy),
            b"zstandard" => Ok(Self::Zstandard),
            other => {
                let name = String::from_utf8_lossy(&other[..other.len().min(64)]).into_owned();
                Err(format!("it is compressed with {name:?}, and null, deflate, snappy and zstandard are known"))
            }
        }
    }

    /// Its name in a file.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "null",
            Self::Deflate => "deflate",
            Self::Snappy => "snappy",
            Self::Zstandard => "zstandard",
        }
    }

    /// Takes what was packed into `out`, which is empty before.
    ///
    /// # Errors
    /// It is damaged or too large; a clause.
    pub(super) fn unpack(self, packed: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::None => {
                out.extend_from_slice(packed);
                Ok(())
            }
            Self::Deflate => read_limited(DeflateDecoder::new(packed), out),
            Self::Snappy => unpack_snappy(packed, out),
            Self::Zstandard => {
                let decoder = zstd::stream::read::Decoder::with_buffer(packed).map_err(damaged)?;
                read_limited(decoder, out)
            }
        }
    }
}

fn damaged(error: impl std::fmt::Display) -> String {
    format!("its content cannot be decompressed: {error}")
}

fn too_large() -> String {
    format!("its content is larger than {BLOCK_BYTES_MAX} bytes")
}

fn read_limited(reader: impl Read, out: &mut Vec<u8>) -> Result<(), String> {
    reader.take(BLOCK_BYTES_MAX as u64 + 1).read_to_end(out).map_err(damaged)?;
    if out.len() > BLOCK_BYTES_MAX { Err(too_large()) } else { Ok(()) }
}

fn unpack_snappy(packed: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
    let (packed, sum) = packed.split_last_chunk::<CHECKSUM_BYTES>().ok_or_else(|| damaged("there is no checksum"))?;
    let size = snap::raw::decompress_len(packed).map_err(damaged)?;
    if size > BLOCK_BYTES_MAX {
        return Err(too_large());
    }
    out.resize(size, 0);
    let size = snap::raw::Decoder::new().decompress(packed, out).map_err(damaged)?;
    out.truncate(size);
    if checksum(out) == u32::from_be_bytes(*sum) { Ok(()) } else { Err(damaged("its checksum is another")) }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(bytes);
    sum.sum()
}

/// Packs one block after the other.
pub(super) enum Packer {
    None,
    Deflate,
    Snappy(Box<snap::raw::Encoder>),
    Zstandard(zstd::bulk::Compressor<'static>),
}

impl Packer {
    pub(super) fn new(codec: Codec) -> io::Result<Self> {
        Ok(match codec {
            Codec::None => Self::None,
            Codec::Deflate => Self::Deflate,
            Codec::Snappy => Self::Snappy(Box::new(snap::raw::Encoder::new())),
            Codec::Zstandard => Self::Zstandard(zstd::bulk::Compressor::new(zstd::DEFAULT_COMPRESSION_LEVEL)?),
        })
    }

    pub(super) fn pack(&mut self, content: Vec<u8>) -> io::Result<Vec<u8>> {
        match self {
            Self::None => Ok(content),
            Self::Deflate => {
                let mut encoder = DeflateEncoder::new(Vec::new(), flate2::Compression::default());
                encoder.write_all(&content)?;
                encoder.finish()
            }
            Self::Snappy(encoder) => {
                let mut packed = encoder.compress_vec(&content).map_err(io::Error::other)?;
                packed.extend_from_slice(&checksum(&content).to_be_bytes());
                Ok(packed)
            }
            Self::Zstandard(compressor) => compressor.compress(&content),
        }
    }
}
