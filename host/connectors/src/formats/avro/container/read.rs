//! A file → columns.
//!
//! A block is read whole, its marker is looked at, and then its values are decoded one by one. A value that does not fit the columns is rejected:
//! where the next one begins is found by passing over it. One that cannot even be passed over is damage, as the rest of its block has no
//! beginning then.

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    ops::Range,
    path::Path,
};

use arrow_array::RecordBatch;
use arrow_schema::{Schema as Columns, SchemaRef};
use millstream_engine::rejected::Rejection;
use serde::{Deserialize, Serialize};

use super::{
    super::{Plan, Schema, read::unzigzag},
    CODEC_KEY, Codec, Error, FREE_VALUES_MAX, Header, MAGIC, METADATA_BYTES_MAX, Marker, PACKED_BYTES_MAX, SCHEMA_KEY,
};
use crate::formats::{
    avro, columns, ndjson,
    text::{BLOCK_BYTES, quoted},
};

/// Where a reader stands, as a checkpoint stores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Where the block begins in the file; at the end of the last block: the end of the file.
    pub block: u64,
    /// Rows of the file before the block.
    pub rows_before: u64,
    /// Rows of the block that were read.
    pub rows: u64,
}

/// What [`Reader::read`] gives.
pub struct Rows {
    /// The rows that could be read.
    pub columns: RecordBatch,
    /// The numbers in the file of all rows, those that could not be read too.
    pub numbers: Range<u64>,
    /// The rows that could not; the position is set.
    pub rejected: Vec<Rejection>,
}

/// The schema in which the values of a file are written.
///
/// # Errors
/// It cannot be read.
pub fn schema_of(path: &Path) -> Result<Schema, Error> {
    let file = File::open(path).map_err(|source| Error::Unreadable { at: 0, source })?;
    Ok(Input::new(file)?.header()?.schema)
}

/// Reads columns of one file.
pub struct Reader {
    input: Input,
    header: Header,
    plan: Plan,
    /// Reads no column: it passes over a value.
    nothing: Plan,
    rows: columns::Rows,
    no_rows: columns::Rows,
    block: Block,
    packed: Vec<u8>,
    /// Why nothing can be read further, while rows before it were to be returned.
    failure: Option<Error>,
}

/// The block at which a reader stands. At first, and behind the last one, it has no values.
#[derive(Default)]
struct Block {
    at: u64,
    rows_before: u64,
    rows: u64,
    rows_read: u64,
    content: Vec<u8>,
    used: usize,
}

impl Block {
    fn is_read(&self) -> bool {
        self.rows_read == self.rows
    }
}

impl Reader {
    /// Reads the columns of `schema`, from the beginning or from where a reader of this file stood before.
    ///
    /// # Errors
    /// It is no Avro file, its schema does not give the columns, or it is not the one that was read before.
    pub fn open(file: File, schema: &SchemaRef, position: Option<Position>) -> Result<Self, Error> {
        let mut input = Input::new(file)?;
        let header = input.header()?;
        let plan = Plan::new(&header.schema, schema, None).map_err(Error::Unknown)?;
        let nothing = Plan::new(&header.schema, &Columns::empty(), None).map_err(Error::Unknown)?;
        let rows = columns::Rows::new(schema.clone()).map_err(Error::Unknown)?;
        let no_rows = columns::Rows::new(Columns::empty().into()).map_err(Error::Unknown)?;
        let block = Block { at: input.at, ..Block::default() };
        let mut reader = Self { input, header, plan, nothing, rows, no_rows, block, packed: Vec::new(), failure: None };
        if let Some(position) = position {
            reader.go_to(position)?;
        }
        Ok(reader)
    }

    /// Where it stands.
    pub fn position(&self) -> Position {
        let block = &self.block;
        if block.is_read() && block.rows > 0 {
            return Position { block: self.input.at, rows_before: block.rows_before + block.rows, rows: 0 };
        }
        Position { block: block.at, rows_before: block.rows_before, rows: block.rows_read }
    }

    /// Bytes of the file that were read.
    pub fn bytes_read(&self) -> u64 {
        self.input.at
    }

    /// The next rows, at most `rows_max`; none: there are no more.
    ///
    /// # Errors
    /// The file is damaged, after all rows before were returned.
    pub fn read(&mut self, rows_max: usize) -> Result<Option<Rows>, Error> {
        let first = self.block.rows_before + self.block.rows_read;
        let (mut taken, mut bytes, mut rejected) = (0, 0, Vec::new());
        while taken < rows_max.max(1) && bytes < BLOCK_BYTES && self.failure.is_none() {
            match self.take(rows_max.max(1) - taken, &mut rejected) {
                Ok(0) => break,
                Ok(count) => taken += count,
                Err(error) => self.failure = Some(error),
            }
            bytes += if self.block.is_read() { self.block.content.len() } else { 0 };
        }
        let last = self.block.rows_before + self.block.rows_read;
        match self.failure.take_if(|_| first == last) {
            Some(error) => Err(error),
            None if first == last => Ok(None),
            None => Ok(Some(Rows { columns: self.rows.finish(), numbers: first..last, rejected })),
        }
    }

    /// Decodes rows of one block, at most `rows_max`; returns how many, 0 at the end of the file.
    fn take(&mut self, rows_max: usize, rejected: &mut Vec<Rejection>) -> Result<usize, Error> {
        while self.block.is_read() {
            if !self.next_block()? {
                return Ok(0);
            }
        }
        let left = usize::try_from(self.block.rows - self.block.rows_read).unwrap_or(usize::MAX);
        let count = left.min(rows_max);
        for _ in 0..count {
            let value = &self.block.content[self.block.used..];
            self.block.used += match self.plan.read(&mut self.rows, value) {
                Ok(used) => used,
                Err(reason) => {
                    let used = self.nothing.read(&mut self.no_rows, value).map_err(|reason| self.damaged_row(&reason))?;
                    rejected.push(self.rejection(reason, &value[..used]));
                    used
                }
            };
            self.block.rows_read += 1;
        }
        self.check_end()?;
        Ok(count)
    }

    /// A block ends with its last value.
    fn check_end(&self) -> Result<(), Error> {
        let left = self.block.content.len() - self.block.used;
        if !self.block.is_read() || left == 0 {
            return Ok(());
        }
        Err(Error::Damaged { at: self.block.at, reason: format!("{left} bytes follow the last row of the block") })
    }

    fn damaged_row(&self, reason: &str) -> Error {
        let row = self.block.rows_before + self.block.rows_read;
        Error::Damaged { at: self.block.at, reason: format!("row {row}, in the block that begins there: {reason}") }
    }

    fn rejection(&self, reason: String, value: &[u8]) -> Rejection {
        let position = self.block.rows_before + self.block.rows_read;
        Rejection { reason, position: Some(position), row: self.row_text(value), ..Rejection::default() }
    }

    /// A value as JSON if it has columns by itself, else its bytes.
    fn row_text(&self, value: &[u8]) -> String {
        let json = || {
            let own = avro::columns(&self.header.schema)?;
            let mut rows = columns::Rows::new(own.clone())?;
            Plan::new(&self.header.schema, &own, None)?.push(&mut rows, value)?;
            let mut out = Vec::new();
            ndjson::Writer::new(&own, ndjson::Nulls::Write)?.rows(&rows.finish(), &mut out)?;
            Ok::<_, String>(quoted(&out))
        };
        json().unwrap_or_else(|_| quoted(value))
    }

    /// Goes to the block behind the one that was read; false: there is none.
    fn next_block(&mut self) -> Result<bool, Error> {
        let at = self.input.at;
        self.block = Block {
            at,
            rows_before: self.block.rows_before + self.block.rows,
            content: std::mem::take(&mut self.block.content),
            ..Block::default()
        };
        if self.input.is_at_end() {
            return Ok(false);
        }
        const WHAT: &str = "a block";
        let rows = self.input.number(WHAT, at)?;
        let size = self.input.number(WHAT, at)?;
        if size > PACKED_BYTES_MAX as u64 {
            return Err(Error::Damaged {
                at,
                reason: format!("a block of {size} bytes, where {PACKED_BYTES_MAX} are the most that is read"),
            });
        }
        self.input.take(size, WHAT, &mut self.packed)?;
        let marker_at = self.input.at;
        if self.input.marker(WHAT)? != self.header.marker {
            return Err(Error::Damaged {
                at: marker_at,
                reason: format!("the marker behind the block that begins at byte {at} is not that of the file"),
            });
        }
        self.block.content.clear();
        self.header.codec.unpack(&self.packed, &mut self.block.content).map_err(|reason| Error::Damaged { at, reason })?;
        if rows > self.block.content.len() as u64 + FREE_VALUES_MAX {
            return Err(Error::Damaged { at, reason: format!("a block of {rows} rows in {} bytes", self.block.content.len()) });
        }
        self.block.rows = rows;
        if rows == 0 { self.check_end().map(|()| true) } else { Ok(true) }
    }

    fn go_to(&mut self, position: Position) -> Result<(), Error> {
        if position.block > self.input.size {
            let (size, block) = (self.input.size, position.block);
            return Err(Error::Unknown(format!("it has {size} bytes, fewer than the {block} that were read of it before")));
        }
        // What was read before ends with the marker of the file.
        let changed = || Error::Unknown(format!("it is not the file that was read before: no block begins at byte {}", position.block));
        let before = position.block.checked_sub(MARKER_BYTES).filter(|_| position.block >= self.input.at).ok_or_else(changed)?;
        self.input.go_to(before)?;
        if self.input.marker("a marker")? != self.header.marker {
            return Err(changed());
        }
        self.block = Block { at: position.block, rows_before: position.rows_before, ..Block::default() };
        if position.rows == 0 {
            return Ok(());
        }
        if !self.next_block()? || self.block.rows < position.rows {
            return Err(changed());
        }
        while self.block.rows_read < position.rows {
            let value = &self.block.content[self.block.used..];
            self.block.used += self.nothing.read(&mut self.no_rows, value).map_err(|reason| self.damaged_row(&reason))?;
            self.block.rows_read += 1;
        }
        Ok(())
    }
}

/// What a header says, as it stands there.
#[derive(Default)]
struct Metadata {
    schema: Option<Vec<u8>>,
    codec: Option<Vec<u8>>,
}

const MARKER_BYTES: u64 = size_of::<Marker>() as u64;

/// The bytes of a file, from the front.
struct Input {
    reader: BufReader<File>,
    /// Bytes that were taken.
    at: u64,
    size: u64,
}

impl Input {
    fn new(file: File) -> Result<Self, Error> {
        let size = file.metadata().map_err(|source| Error::Unreadable { at: 0, source })?.len();
        Ok(Self { reader: BufReader::with_capacity(128 << 10, file), at: 0, size })
    }

    fn is_at_end(&self) -> bool {
        self.at >= self.size
    }

    fn go_to(&mut self, at: u64) -> Result<(), Error> {
        self.reader.seek(SeekFrom::Start(at)).map_err(|source| Error::Unreadable { at, source })?;
        self.at = at;
        Ok(())
    }

    /// The next bytes, into `out`, which is emptied before. A length is compared with the size of the file before memory is taken for it.
    fn take(&mut self, count: u64, what: &'static str, out: &mut Vec<u8>) -> Result<(), Error> {
        if count > self.size.saturating_sub(self.at) {
            return Err(Error::CutOff { what, at: self.size });
        }
        out.clear();
        out.resize(usize::try_from(count).unwrap_or(usize::MAX), 0);
        self.fill(what, out)
    }

    fn fill(&mut self, what: &'static str, out: &mut [u8]) -> Result<(), Error> {
        let read = self.reader.read_exact(out);
        read.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::CutOff { what, at: self.size },
            _ => Error::Unreadable { at: self.at, source },
        })?;
        self.at += out.len() as u64;
        Ok(())
    }

    fn marker(&mut self, what: &'static str) -> Result<Marker, Error> {
        let mut marker = Marker::default();
        self.fill(what, &mut marker).map(|()| marker)
    }

    /// A number in base 128, zigzag.
    fn long(&mut self, what: &'static str, begin: u64) -> Result<i64, Error> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.fill(what, &mut byte)?;
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 && (shift < 63 || byte[0] < 2) {
                return Ok(unzigzag(value));
            }
        }
        Err(Error::Damaged { at: begin, reason: format!("a number in {what} is longer than 64 bits") })
    }

    /// A number that is not negative.
    fn number(&mut self, what: &'static str, begin: u64) -> Result<u64, Error> {
        let number = self.long(what, begin)?;
        u64::try_from(number).map_err(|_| Error::Damaged { at: begin, reason: format!("a number in {what} is {number}") })
    }

    fn header(&mut self) -> Result<Header, Error> {
        const WHAT: &str = "the header";
        let mut magic = [0; MAGIC.len()];
        match self.fill(WHAT, &mut magic) {
            Ok(()) if magic == *MAGIC => {}
            Err(error @ Error::Unreadable { .. }) => return Err(error),
            _ => return Err(Error::Unknown("it is no Avro file: it does not begin as one".into())),
        }
        let metadata = self.metadata(WHAT)?;
        let marker = self.marker(WHAT)?;
        let schema = metadata.schema.ok_or_else(|| Error::Unknown("its header has no schema".into()))?;
        let schema = String::from_utf8(schema).map_err(|error| Error::Unknown(format!("its schema is no text: {error}")))?;
        let schema = Schema::parse(&schema).map_err(|reason| Error::Unknown(format!("its schema: {reason}")))?;
        let codec = metadata.codec.map_or(Ok(Codec::None), |name| Codec::of_name(&name)).map_err(Error::Unknown)?;
        Ok(Header { schema, codec, marker })
    }

    fn metadata(&mut self, what: &'static str) -> Result<Metadata, Error> {
        let begin = self.at;
        let mut metadata = Metadata::default();
        loop {
            let count = self.long(what, begin)?;
            if count == 0 {
                return Ok(metadata);
            }
            if count < 0 {
                self.number(what, begin)?;
            }
            for _ in 0..count.unsigned_abs() {
                let key = self.metadata_bytes(what, begin)?;
                let value = self.metadata_bytes(what, begin)?;
                match key.as_slice() {
                    key if key == SCHEMA_KEY.as_bytes() => metadata.schema = Some(value),
                    key if key == CODEC_KEY.as_bytes() => metadata.codec = Some(value),
                    _ => {}
                }
            }
        }
    }

    fn metadata_bytes(&mut self, what: &'static str, begin: u64) -> Result<Vec<u8>, Error> {
        let length = self.number(what, begin)?;
        if self.at - begin + length.min(METADATA_BYTES_MAX) >= METADATA_BYTES_MAX {
            return Err(Error::Damaged { at: begin, reason: format!("a header of more than {METADATA_BYTES_MAX} bytes") });
        }
        let mut bytes = Vec::new();
        self.take(length, what, &mut bytes)?;
        Ok(bytes)
    }
}
