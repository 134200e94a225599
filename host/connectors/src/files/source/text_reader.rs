//! Reads one file, or a range of one, of a text format.
//!
//! Files are read with blocking calls of a quarter of a MiB: a subtask has nothing else to do meanwhile, and a call that is not awaited cannot
//! be cancelled in the middle, so no byte is lost.

use std::{
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    sync::Arc,
};

use async_trait::async_trait;
use millstream_engine::{
    connector::{Read as Found, SplitReader},
    operator::OperatorError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Layout, OpenFile, cannot_read};
use crate::{
    compression::{Compression, Content},
    formats::{
        csv::{self, Dialect},
        layout::TextLayout,
        text::{Buffer, Records, Rows, TextFormat},
    },
};

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// What a checkpoint stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// Bytes of decompressed content before the next record; 0: nothing was read, not even a header.
    offset: u64,
    /// Number of the next record.
    record: u64,
}

pub struct TextReader {
    file: OpenFile,
    content: Content,
    compression: Compression,
    stage: Stage,
    /// Bytes of the split that were read before it was opened again.
    read_before: u64,
    /// Followed files: a later file was found, so that what is there now is all there will be.
    superseded: bool,
    ended: bool,
}

enum Stage {
    /// The first record has not been seen whole: it may be a header.
    Start {
        buffer: Buffer,
        resume: Option<Position>,
    },
    Records(Records),
}

/// What one attempt to go on gave.
enum Step {
    Rows(Rows),
    /// The file has no more bytes for now.
    Exhausted,
    /// The split ends before the file does.
    PastEnd,
}

impl TextReader {
    pub fn open(file: OpenFile, position: Option<&Value>) -> Result<Self, OperatorError> {
        let resume = file.position(position)?.filter(|position: &Position| position.offset > 0);
        if resume.is_some_and(|position| position.record > position.offset) {
            return Err(OperatorError::user(format!("the position of {} is not one of a file: a record has bytes", file.split)));
        }
        let opened = File::open(&file.detail.path).map_err(|error| file.cannot_open(error))?;
        let compression = file.shared.compression(&file.listed());
        let content = compression.reader(opened).map_err(|error| file.cannot_open(error))?;
        let stage = Stage::Start { buffer: Buffer::default(), resume };
        Ok(Self { file, content, compression, stage, read_before: 0, superseded: false, ended: false })
    }

    /// Goes on with what is in the file. `last`: nothing follows what is there.
    fn step(&mut self, rows_max: usize, last: bool) -> Result<Step, OperatorError> {
        if let Stage::Start { .. } = self.stage
            && !self.start(last)?
        {
            return Ok(Step::Exhausted);
        }
        let Stage::Records(records) = &mut self.stage else { return Ok(Step::Exhausted) };
        let read = records.read(&mut *self.content.reader, rows_max);
        let rows = match read {
            Ok(None) if last => records.next(rows_max, true),
            Ok(rows) => rows,
            Err(error) => return Err(self.cannot_read(error)),
        };
        Ok(match rows {
            Some(rows) => Step::Rows(rows),
            None if records.is_past_end() => Step::PastEnd,
            None => Step::Exhausted,
        })
    }

    /// Reads the header if there is one and goes to the first record; false: more bytes are needed.
    fn start(&mut self, last: bool) -> Result<bool, OperatorError> {
        let Stage::Start { buffer, resume } = &mut self.stage else { return Ok(true) };
        let (mut buffer, resume) = (std::mem::take(buffer), *resume);
        let shared = self.file.shared.clone();
        let Layout::Text(layout) = &shared.layout else { return Err(OperatorError::internal("only text is read as text")) };
        let header = match layout.header() {
            Some(dialect) => self.header(dialect, &mut buffer, last)?,
            None => self.skip_byte_order_mark(&mut buffer, last)?.then_some(Vec::new()),
        };
        let Some(header) = header else {
            self.stage = Stage::Start { buffer, resume };
            return Ok(false);
        };
        let format = self.format(layout, &header)?;
        let range = self.file.detail.range;
        match (resume, range) {
            (Some(position), _) => self.go_to(&mut buffer, position.offset)?,
            (None, Some((start, _))) if start > 0 => self.go_to_line_after(&mut buffer, start)?,
            (None, _) => {}
        }
        let record = resume.map_or(0, |position| position.record);
        let records = Records::new(self.file.split.clone(), format, buffer, record, self.file.shared.max_record_bytes);
        self.stage = Stage::Records(records.ending_at(range.map(|(_, end)| end)));
        Ok(true)
    }

    fn skip_byte_order_mark(&mut self, buffer: &mut Buffer, last: bool) -> Result<bool, OperatorError> {
        if buffer.offset() > 0 {
            return Ok(true);
        }
        while buffer.unused().len() < BYTE_ORDER_MARK.len() {
            if self.fill(buffer)? == 0 {
                return Ok(last);
            }
        }
        if buffer.unused().starts_with(BYTE_ORDER_MARK) {
            buffer.use_up(BYTE_ORDER_MARK.len());
        }
        Ok(true)
    }

    /// The names in the header; none: it is not whole yet, or, if nothing follows, the file is empty.
    fn header(&mut self, dialect: &Dialect, buffer: &mut Buffer, last: bool) -> Result<Option<Vec<String>>, OperatorError> {
        if !self.skip_byte_order_mark(buffer, last)? {
            return Ok(None);
        }
        loop {
            let exhausted = self.fill(buffer)? == 0;
            if buffer.unused().is_empty() {
                return Ok(None);
            }
            let found = csv::first_record(dialect, buffer.unused(), exhausted && last)
                .map_err(|reason| OperatorError::user(format!("cannot read the header of {}: {reason}", self.file.split)))?;
            if let Some((names, bytes)) = found {
                buffer.use_up(bytes);
                return Ok(Some(names));
            }
            if buffer.unused().len() > self.file.shared.max_record_bytes {
                return Err(OperatorError::user(format!("the header of {} is longer than max-record-bytes", self.file.split)));
            }
            if exhausted {
                return Ok(None);
            }
        }
    }

    fn format(&self, layout: &TextLayout, header: &[String]) -> Result<Box<dyn TextFormat>, OperatorError> {
        let format = layout.reader(&self.file.columns, header);
        format.map_err(|reason| OperatorError::user(format!("cannot read {}: {reason}", self.file.split)))
    }

    /// Goes to an offset of the content that a reader of this file was at before.
    fn go_to(&mut self, buffer: &mut Buffer, offset: u64) -> Result<(), OperatorError> {
        if self.compression == Compression::None {
            self.read_before = offset - self.file.detail.range.map_or(0, |(start, _)| start).min(offset);
            return self.seek(buffer, offset);
        }
        while buffer.offset() < offset {
            let wanted = usize::try_from(offset - buffer.offset()).unwrap_or(usize::MAX);
            buffer.use_up(wanted.min(buffer.unused().len()));
            if buffer.offset() < offset && self.fill(buffer)? == 0 {
                return Err(self.shorter_than(offset));
            }
        }
        Ok(())
    }

    fn seek(&mut self, buffer: &mut Buffer, offset: u64) -> Result<(), OperatorError> {
        let mut file = File::open(&self.file.detail.path).map_err(|error| self.file.cannot_open(error))?;
        let size = file.metadata().map_err(|error| self.file.cannot_open(error))?.len();
        if size < offset {
            return Err(self.shorter_than(offset));
        }
        file.seek(SeekFrom::Start(offset)).map_err(|error| self.file.cannot_open(error))?;
        self.content = Compression::None.reader(file).map_err(|error| self.file.cannot_open(error))?;
        *buffer = Buffer::at(offset);
        Ok(())
    }

    fn shorter_than(&self, offset: u64) -> OperatorError {
        OperatorError::user(format!("{} is shorter than the {offset} bytes that were read of it before", self.file.split))
    }

    /// Goes to the first line that starts at `start` or later: a line that starts before belongs to the range before.
    fn go_to_line_after(&mut self, buffer: &mut Buffer, start: u64) -> Result<(), OperatorError> {
        self.seek(buffer, start - 1)?;
        loop {
            if let Some(line_end) = memchr::memchr(b'\n', buffer.unused()) {
                buffer.use_up(line_end + 1);
                return Ok(());
            }
            buffer.use_up(buffer.unused().len());
            if self.fill(buffer)? == 0 {
                return Ok(());
            }
        }
    }

    fn fill(&mut self, buffer: &mut Buffer) -> Result<usize, OperatorError> {
        buffer.fill_from(&mut *self.content.reader).map_err(|error| self.cannot_read(error))
    }

    fn cannot_read(&self, error: io::Error) -> OperatorError {
        cannot_read(&self.file.split, self.compression, self.content.read_bytes(), error)
    }

    /// Whether a followed file that was read to its end may have more one day. A file that a later one has joined is looked at once more,
    /// since lines may have been appended to it just before.
    fn may_grow(&mut self) -> Result<bool, OperatorError> {
        if self.file.shared.follow.is_none() || self.compression != Compression::None || self.superseded {
            return Ok(false);
        }
        self.check_not_truncated()?;
        let pattern = &self.file.shared.patterns[self.file.detail.pattern];
        if pattern.may_grow() {
            let files = pattern.list().map_err(|error| OperatorError::outside(format!("cannot list {pattern}")).because(error))?;
            self.superseded = files.last().is_some_and(|last| last.path > self.file.detail.path);
        }
        Ok(true)
    }

    fn check_not_truncated(&self) -> Result<(), OperatorError> {
        let size = fs::metadata(&self.file.detail.path).map_err(|error| self.file.cannot_open(error))?.len();
        let read = match &self.stage {
            Stage::Start { buffer, .. } => buffer.offset(),
            Stage::Records(records) => records.offset(),
        };
        if size < read { Err(self.shorter_than(read)) } else { Ok(()) }
    }
}

#[async_trait]
impl SplitReader for TextReader {
    async fn read(&mut self, rows_max: usize) -> Result<Found, OperatorError> {
        while !self.ended {
            match self.step(rows_max, false)? {
                Step::Rows(Rows { batch, rejected }) => return Ok(Found::Rows { batch, rejected }),
                Step::PastEnd => self.ended = true,
                Step::Exhausted if self.may_grow()? => {
                    let shared = Arc::clone(&self.file.shared);
                    if let (Some(follow), false) = (&shared.follow, self.superseded) {
                        follow.wait().await;
                    }
                }
                Step::Exhausted => match self.step(rows_max, true)? {
                    Step::Rows(Rows { batch, rejected }) => return Ok(Found::Rows { batch, rejected }),
                    Step::Exhausted | Step::PastEnd => self.ended = true,
                },
            }
        }
        Ok(Found::End)
    }

    fn position(&self) -> Value {
        let position = match &self.stage {
            Stage::Start { resume, .. } => resume.unwrap_or(Position { offset: 0, record: 0 }),
            Stage::Records(records) => Position { offset: records.offset(), record: records.record() },
        };
        serde_json::to_value(position).expect("numbers are JSON")
    }

    fn progress(&self) -> u64 {
        self.read_before + self.content.read_bytes()
    }
}
