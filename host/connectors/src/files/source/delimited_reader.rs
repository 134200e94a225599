//! Reads one file of values, each behind its length.

use std::{
    fs::File,
    io::{Seek, SeekFrom},
};

use async_trait::async_trait;
use millstream_engine::{
    connector::{Read, SplitReader},
    operator::OperatorError,
    rejected::Rejection,
};
use millstream_model::{Batch, Origin, Positions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Layout, OpenFile, cannot_read};
use crate::{
    compression::{Compression, Content},
    formats::{
        delimited::{Front, front},
        records::{ValueDecoder, Values},
        text::{BLOCK_BYTES, Buffer},
    },
};

/// What a checkpoint stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// Bytes of decompressed content before the next value.
    offset: u64,
    /// Number of the next value.
    record: u64,
}

pub struct DelimitedReader {
    file: OpenFile,
    content: Content,
    compression: Compression,
    buffer: Buffer,
    decoder: Box<dyn ValueDecoder>,
    /// Number of the next value.
    record: u64,
    /// Bytes of the file that were read before it was opened again.
    read_before: u64,
    /// Why nothing can be read further, while values before it were to be returned.
    failure: Option<OperatorError>,
}

impl DelimitedReader {
    pub fn open(file: OpenFile, position: Option<&Value>) -> Result<Self, OperatorError> {
        let resume: Position = file.position(position)?.unwrap_or(Position { offset: 0, record: 0 });
        if resume.record > resume.offset {
            return Err(OperatorError::user(format!("the position of {} is not one of a file: a value has bytes", file.split)));
        }
        let Layout::Delimited(values) = &file.shared.layout else { return Err(OperatorError::internal("only values are read as values")) };
        let decoder = values.decoder(&file.columns).map_err(OperatorError::user)?;
        let opened = File::open(&file.detail.path).map_err(|error| file.cannot_open(error))?;
        let compression = file.shared.compression(&file.listed());
        let content = compression.reader(opened).map_err(|error| file.cannot_open(error))?;
        let (buffer, record) = (Buffer::default(), resume.record);
        let mut reader = Self { file, content, compression, buffer, decoder, record, read_before: 0, failure: None };
        reader.go_to(resume.offset)?;
        Ok(reader)
    }

    fn go_to(&mut self, offset: u64) -> Result<(), OperatorError> {
        if self.compression == Compression::None {
            let mut file = File::open(&self.file.detail.path).map_err(|error| self.file.cannot_open(error))?;
            if file.metadata().map_err(|error| self.file.cannot_open(error))?.len() < offset {
                return Err(self.shorter_than(offset));
            }
            file.seek(SeekFrom::Start(offset)).map_err(|error| self.file.cannot_open(error))?;
            self.content = Compression::None.reader(file).map_err(|error| self.file.cannot_open(error))?;
            self.buffer = Buffer::at(offset);
            self.read_before = offset;
            return Ok(());
        }
        while self.buffer.offset() < offset {
            let wanted = usize::try_from(offset - self.buffer.offset()).unwrap_or(usize::MAX);
            self.buffer.use_up(wanted.min(self.buffer.unused().len()));
            if self.buffer.offset() < offset && self.fill()? == 0 {
                return Err(self.shorter_than(offset));
            }
        }
        Ok(())
    }

    fn shorter_than(&self, offset: u64) -> OperatorError {
        OperatorError::user(format!("{} is shorter than the {offset} bytes that were read of it before", self.file.split))
    }

    /// Returns the number of bytes, 0 at the end.
    fn fill(&mut self) -> Result<usize, OperatorError> {
        let filled = self.buffer.fill_from(&mut *self.content.reader);
        filled.map_err(|error| cannot_read(&self.file.split, self.compression, self.content.read_bytes(), error))
    }

    /// Reads until there is a block, or `more` than there was; returns whether the file has no more.
    fn fill_block(&mut self, more: bool) -> bool {
        let wanted = if more { self.buffer.unused().len() + 1 } else { 0 }.max(BLOCK_BYTES);
        while self.buffer.unused().len() < wanted && self.failure.is_none() {
            match self.fill() {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => self.failure = Some(error),
            }
        }
        false
    }

    /// Takes whole values out of the buffer; returns how many.
    fn take(&mut self, rows_max: usize) -> usize {
        let mut taken = 0;
        while taken < rows_max {
            match front(self.buffer.unused(), self.file.shared.max_record_bytes) {
                Ok(Front::Value(begin, end)) => {
                    self.decoder.push(&self.buffer.unused()[begin..end]);
                    self.buffer.use_up(end);
                    taken += 1;
                }
                Ok(Front::Partial) => break,
                Err(reason) => {
                    let at = self.buffer.offset();
                    self.failure = Some(OperatorError::user(format!("{} is damaged at byte {at}: {reason}", self.file.split)));
                    break;
                }
            }
        }
        taken
    }

    fn found(&mut self, taken: usize) -> Read {
        let Values { columns, row_values, bad, .. } = self.decoder.finish();
        let (first, split) = (self.record, self.file.split.clone());
        self.record += taken as u64;
        let positions = match row_values {
            None => Positions::From(first),
            Some(values) => Positions::Each(values.into_iter().map(|value| first + u64::from(value)).collect()),
        };
        let rejected = bad.into_iter().map(|bad| Rejection {
            reason: bad.reason,
            source: Some(split.clone()),
            position: Some(first + u64::from(bad.value)),
            row: bad.raw,
            ..Rejection::default()
        });
        let rejected = rejected.collect();
        Read::Rows { batch: Batch::new(columns).with_origin(Some(Origin { split, positions })), rejected }
    }
}

#[async_trait]
impl SplitReader for DelimitedReader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        let mut is_partial = false;
        loop {
            let is_at_end = self.fill_block(is_partial);
            let taken = self.take(rows_max.max(1));
            if taken > 0 {
                return Ok(self.found(taken));
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if is_at_end {
                let left = self.buffer.unused().len() as u64;
                if left == 0 {
                    return Ok(Read::End);
                }
                let at = self.buffer.offset() + left;
                let split = &self.file.split;
                return Err(OperatorError::user(format!(
                    "{split} is cut off: a value is not complete at byte {at}, where the content ends"
                )));
            }
            is_partial = true;
        }
    }

    fn position(&self) -> Value {
        serde_json::to_value(Position { offset: self.buffer.offset(), record: self.record }).expect("numbers are JSON")
    }

    fn progress(&self) -> u64 {
        self.read_before + self.content.read_bytes()
    }
}
