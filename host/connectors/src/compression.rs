//! Compressed files: recognised by their name or by a setting; read and written as streams.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::{read::MultiGzDecoder, write::GzEncoder};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::files::sum::Summed;

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip (RFC 1952), one or more members; `.gz`.
    Gzip,
    /// Zstandard (RFC 8878), one or more frames; `.zst`.
    Zstd,
}

impl Compression {
    /// What the name of a file says.
    pub fn of_name(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("gz" | "gzip") => Self::Gzip,
            Some("zst" | "zstd") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// What is appended to the name of a file.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }

    /// The content of `file`, from where it stands.
    ///
    /// # Errors
    /// The decompressor cannot be made.
    pub fn reader(self, file: File) -> io::Result<Content> {
        let read_bytes = Arc::new(AtomicU64::new(0));
        let counted = Counted { file, count: read_bytes.clone() };
        let reader: Box<dyn Read + Send> = match self {
            Self::None => Box::new(counted),
            Self::Gzip => Box::new(MultiGzDecoder::new(BufReader::with_capacity(128 << 10, counted))),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::new(counted)?),
        };
        Ok(Content { reader, read_bytes })
    }

    /// A writer of compressed content into `file`.
    ///
    /// # Errors
    /// The compressor cannot be made.
    pub fn writer(self, file: Summed) -> io::Result<Compressed> {
        let file = BufWriter::with_capacity(256 << 10, file);
        Ok(match self {
            Self::None => Compressed::None(file),
            Self::Gzip => Compressed::Gzip(GzEncoder::new(file, flate2::Compression::default())),
            Self::Zstd => Compressed::Zstd(zstd::stream::write::Encoder::new(file, zstd::DEFAULT_COMPRESSION_LEVEL)?),
        })
    }
}

/// The decompressed content of a file.
pub struct Content {
    /// The content.
    pub reader: Box<dyn Read + Send>,
    read_bytes: Arc<AtomicU64>,
}

impl Content {
    /// Bytes of the file itself that were read so far.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }
}

struct Counted {
    file: File,
    count: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.count.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// A file whose content is compressed on the way.
pub enum Compressed {
    /// Not at all.
    None(BufWriter<Summed>),
    /// gzip.
    Gzip(GzEncoder<BufWriter<Summed>>),
    /// Zstandard.
    Zstd(zstd::stream::write::Encoder<'static, BufWriter<Summed>>),
}

impl Write for Compressed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::None(file) => file.write(bytes),
            Self::Gzip(file) => file.write(bytes),
            Self::Zstd(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::None(file) => file.flush(),
            Self::Gzip(file) => file.flush(),
            Self::Zstd(file) => file.flush(),
        }
    }
}

impl Compressed {
    /// Completes the content and hands the file over, to be synced.
    ///
    /// # Errors
    /// The rest cannot be written.
    pub fn finish(self) -> io::Result<Summed> {
        let file = match self {
            Self::None(file) => file,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Zstd(encoder) => encoder.finish()?,
        };
        file.into_inner().map_err(io::IntoInnerError::into_error)
    }
}
