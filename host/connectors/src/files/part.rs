//! One file of a sink while it is written: hidden, and gone if it is not completed.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::PathBuf,
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use millstream_engine::operator::OperatorError;

use super::{
    names::Hiding,
    sum::Summed,
    target::{Staged, Target, cannot, create_directory},
};
use crate::{
    compression::{Compressed, Compression},
    formats::{
        avro::{self, container},
        csv, delimited, lines, ndjson, parquet, protobuf,
    },
};

/// How parts are written.
#[derive(Clone, Debug)]
pub enum PartFormat {
    /// CSV.
    Csv { writer: csv::Writer, header: bool, compression: Compression },
    /// NDJSON.
    Ndjson { writer: ndjson::Writer, compression: Compression },
    /// Parquet.
    Parquet,
    /// Lines of text.
    Lines { compression: Compression },
    /// Messages, each behind its length.
    Protobuf { writer: protobuf::Writer, compression: Compression },
    /// Values of one column of bytes, each behind its length.
    Raw { compression: Compression },
    /// Avro.
    Avro { writer: avro::Writer, codec: container::Codec },
}

impl PartFormat {
    /// The end of the names of parts.
    pub fn suffix(&self) -> String {
        match self {
            Self::Csv { compression, .. } => format!("csv{}", compression.suffix()),
            Self::Ndjson { compression, .. } => format!("ndjson{}", compression.suffix()),
            Self::Lines { compression } => format!("txt{}", compression.suffix()),
            Self::Protobuf { compression, .. } => format!("pb{}", compression.suffix()),
            Self::Raw { compression } => format!("bin{}", compression.suffix()),
            Self::Parquet => "parquet".into(),
            Self::Avro { .. } => "avro".into(),
        }
    }

    /// The columns that parts have when they are read, where these were written.
    ///
    /// # Errors
    /// The format has no columns for them; a clause.
    pub fn columns_read(&self, written: &SchemaRef) -> Result<SchemaRef, String> {
        match self {
            // Avro has fewer types: what it stores is what comes back.
            Self::Avro { writer, .. } => avro::columns(writer.schema()),
            _ => Ok(written.clone()),
        }
    }
}

enum Content {
    Text(Compressed),
    Parquet(parquet::Writer),
    Avro(Box<container::Writer<BufWriter<Summed>>>),
}

/// A part under construction. Dropped without [`Part::complete`], it leaves nothing behind.
pub struct Part {
    /// The visible name, below the sink's directory.
    path: String,
    name: PathBuf,
    hidden: PathBuf,
    content: Option<Content>,
    format: PartFormat,
    scratch: Vec<u8>,
    /// Where each row in `scratch` ends, where the format needs to know.
    ends: Vec<usize>,
    /// Rows that are not yet put behind their lengths.
    values: Vec<u8>,
    is_complete: bool,
    /// Rows written.
    pub rows: u64,
    /// Bytes written, before compression.
    pub bytes: u64,
    /// When its first row came, ms since epoch.
    pub since_ms: i64,
}

impl Part {
    /// Starts the part with this path below the directory of the sink.
    ///
    /// # Errors
    /// The hidden file cannot be made or written.
    pub fn create(
        target: &Target,
        hiding: &Hiding,
        path: String,
        format: &PartFormat,
        schema: &SchemaRef,
        now_ms: i64,
    ) -> Result<Self, OperatorError> {
        let (name, hidden) = (target.directory().join(&path), target.hidden(hiding, &path));
        let file = name.parent().map_or(Ok(()), create_directory).and_then(|()| File::create(&hidden));
        let file = file.map_err(|error| cannot("write", &name, error))?;
        let (format, scratch, ends, values) = (format.clone(), Vec::new(), Vec::new(), Vec::new());
        let mut part = Self {
            path,
            name,
            hidden,
            content: None,
            format,
            scratch,
            ends,
            values,
            is_complete: false,
            rows: 0,
            bytes: 0,
            since_ms: now_ms,
        };
        part.content = Some(part.start(file, schema).map_err(|error| cannot("write", &part.name, error))?);
        Ok(part)
    }

    fn start(&mut self, file: File, schema: &SchemaRef) -> io::Result<Content> {
        let file = Summed::new(file);
        match &self.format {
            PartFormat::Csv { writer, header, compression } => {
                let mut content = compression.writer(file)?;
                if *header {
                    writer.header(schema, &mut self.scratch);
                    content.write_all(&self.scratch)?;
                }
                Ok(Content::Text(content))
            }
            PartFormat::Ndjson { compression, .. }
            | PartFormat::Lines { compression }
            | PartFormat::Protobuf { compression, .. }
            | PartFormat::Raw { compression } => compression.writer(file).map(Content::Text),
            PartFormat::Parquet => parquet::Writer::new(file, schema.clone()).map(Content::Parquet).map_err(io::Error::other),
            PartFormat::Avro { writer, codec } => {
                let file = BufWriter::with_capacity(256 << 10, file);
                container::Writer::new(file, writer.schema(), *codec, container::marker_of(&self.path)).map(Box::new).map(Content::Avro)
            }
        }
    }

    /// Appends rows.
    ///
    /// # Errors
    /// The file cannot be written; names it.
    pub fn rows(&mut self, columns: &RecordBatch) -> Result<(), OperatorError> {
        self.scratch.clear();
        self.ends.clear();
        let encoded = match &self.format {
            PartFormat::Csv { writer, .. } => writer.rows(columns, &mut self.scratch),
            PartFormat::Ndjson { writer, .. } => writer.rows(columns, &mut self.scratch),
            PartFormat::Lines { .. } => lines::write(columns, &mut self.scratch),
            PartFormat::Protobuf { writer, .. } => {
                self.values.clear();
                let written = writer.rows(columns, &|_, _| {}, &mut self.values, &mut self.ends);
                written.map(|()| delimited::write_all(&self.values, &self.ends, &mut self.scratch))
            }
            PartFormat::Raw { .. } => delimited::write_column(columns, &mut self.scratch),
            PartFormat::Avro { writer, .. } => {
                writer.rows(columns, &|_, _| {}, &mut self.scratch, &mut self.ends).and_then(|()| container::check_sizes(&self.ends))
            }
            PartFormat::Parquet => Ok(()),
        };
        encoded.map_err(|reason| OperatorError::user(format!("cannot write {}: {reason}", self.name.display())))?;
        let written = match self.content.as_mut().expect("only completing takes it") {
            Content::Text(content) => content.write_all(&self.scratch),
            Content::Parquet(writer) => writer.rows(columns).map_err(from_parquet),
            Content::Avro(writer) => writer.append(&self.scratch, &self.ends),
        };
        written.map_err(|error| cannot("write", &self.name, error))?;
        self.rows += columns.num_rows() as u64;
        self.bytes = match &self.content {
            Some(Content::Parquet(writer)) => writer.bytes() as u64,
            _ => self.bytes + self.scratch.len() as u64,
        };
        Ok(())
    }

    /// Completes the part: its content is synced, under its hidden name.
    ///
    /// # Errors
    /// The file cannot be written; names it. It is removed then.
    pub fn complete(mut self) -> Result<Staged, OperatorError> {
        let content = self.content.take().expect("only completing takes it");
        let (bytes, sum) = finish(content).map_err(|error| cannot("write", &self.name, error))?;
        self.is_complete = true;
        Ok(Staged { path: std::mem::take(&mut self.path), bytes, xxh3: Some(sum) })
    }
}

/// Its size and sum.
fn finish(content: Content) -> io::Result<(u64, String)> {
    let written = match content {
        Content::Text(content) => content.finish()?,
        Content::Parquet(writer) => writer.finish().map_err(from_parquet)?,
        Content::Avro(writer) => writer.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?,
    };
    let (file, sum) = written.finish();
    file.sync_all()?;
    Ok((file.metadata()?.len(), sum))
}

impl Drop for Part {
    /// A part that is not complete is half-written; a failure to remove it leaves it hidden, where the next run looks for it.
    fn drop(&mut self) {
        if !self.is_complete {
            drop(fs::remove_file(&self.hidden));
        }
    }
}

/// Parquet wraps the failures of the file; what a person needs is the one inside.
fn from_parquet(error: ::parquet::errors::ParquetError) -> io::Error {
    match error {
        ::parquet::errors::ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(error) => *error,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}
