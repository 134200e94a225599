//! Records of a text format out of a stream of bytes: the part that CSV and NDJSON share.
//!
//! [`Buffer`] holds the bytes that were read and not yet used. [`Records`] asks the format to find the records in it ([`TextFormat::scan`]),
//! then to make columns of them ([`TextFormat::decode`]), and turns what could not be read into rejections. Neither does any I/O that it
//! was not handed, so files, pipes and request bodies go through the same code.
//!
//! *Record*: a line of NDJSON or a row of CSV, readable or not; blank lines count. *Row*: a record that could be read.

use std::{
    io::{self, Read},
    ops::Range,
    sync::Arc,
};

use arrow_array::RecordBatch;
use millstream_engine::rejected::Rejection;
use millstream_model::{Batch, Origin, Positions};

/// Bytes that are decoded together, about.
pub const BLOCK_BYTES: usize = 512 << 10;
/// The largest limit of one record: offsets in a block take 30 bits.
pub const RECORD_BYTES_LIMIT: usize = 256 << 20;
/// Bytes of a bad record that its rejection quotes.
const QUOTED_BYTES_MAX: usize = 1_024;
const READ_BYTES: usize = 256 << 10;

/// A text format with the columns it is to make.
pub trait TextFormat: Send {
    /// Finds records from the front of `bytes` and remembers them for [`Self::decode`]; returns the bytes they take.
    /// A record that may go on behind the end of `bytes` is left, unless nothing follows.
    fn scan(&mut self, bytes: &[u8], limits: ScanLimits) -> usize;

    /// Makes columns of the records that the last [`Self::scan`] found in the same `bytes`, and forgets them.
    fn decode(&mut self, bytes: &[u8]) -> Decoded;
}

/// Where a scan ends.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    /// Most records.
    pub records: usize,
    /// Nothing follows the bytes: the last record needs no line end.
    pub last: bool,
    /// Records that start here or later are left.
    pub stop_at: usize,
    /// A longer record is bad.
    pub record_bytes: usize,
}

/// The records of one scan.
#[derive(Debug)]
pub struct Decoded {
    /// The rows.
    pub columns: RecordBatch,
    /// Number of records, readable or not.
    pub records: usize,
    /// The record of each row, counted from the start of the scan; none: row i is record i.
    pub row_records: Option<Vec<u32>>,
    /// The records that could not be read.
    pub bad: Vec<BadRecord>,
}

/// A record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its number, counted from the start of the scan.
    pub record: u32,
    /// Where it stands in the scanned bytes.
    pub span: Range<usize>,
    /// Why it cannot be read.
    pub reason: String,
}

/// The clause about a record that is longer than allowed.
pub fn too_long(limit: usize) -> String {
    format!("the record is longer than max-record-bytes ({limit})")
}

/// Bytes that were read and not yet used.
#[derive(Debug, Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    used: usize,
    /// Position in the (decompressed) stream of the first unused byte.
    offset: u64,
}

impl Buffer {
    /// An empty buffer of a stream that continues at `offset`.
    pub fn at(offset: u64) -> Self {
        Self { offset, ..Self::default() }
    }

    /// The unused bytes.
    pub fn unused(&self) -> &[u8] {
        &self.bytes[self.used..]
    }

    /// Marks the first `count` unused bytes as used.
    pub fn use_up(&mut self, count: usize) {
        self.used += count;
        self.offset += count as u64;
    }

    /// Position in the stream of the first unused byte.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends bytes.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.make_room();
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends what one call of `input` gives; returns the number of bytes, 0 at its end.
    ///
    /// # Errors
    /// As `input`'s; nothing is lost.
    pub fn fill_from(&mut self, input: &mut dyn Read) -> io::Result<usize> {
        self.make_room();
        let length = self.bytes.len();
        self.bytes.resize(length + READ_BYTES, 0);
        let count = loop {
            match input.read(&mut self.bytes[length..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.bytes.truncate(length + *count.as_ref().unwrap_or(&0));
        count
    }

    /// Moves the unused bytes to the front once the used ones are as many, so that every byte moves at most once on average.
    fn make_room(&mut self) {
        if self.used >= self.bytes.len() - self.used {
            self.bytes.drain(..self.used);
            self.used = 0;
        }
    }
}

/// A record that is too long to be kept, while its end is looked for.
struct Overlong {
    head: Vec<u8>,
    bytes: u64,
}

/// The records of one stream, in order.
pub struct Records {
    buffer: Buffer,
    format: Box<dyn TextFormat>,
    source: Arc<str>,
    /// Number of the next record.
    record: u64,
    /// Records that start at this offset of the stream or later belong to another split.
    end: Option<u64>,
    record_bytes_max: usize,
    overlong: Option<Overlong>,
    /// Why `input` cannot be read further, while records before it are left.
    failure: Option<io::Error>,
}

/// Rows and rejections of consecutive records; at least one record.
pub struct Rows {
    /// The rows, with their origin; may be none.
    pub batch: Batch,
    /// The records that could not be read.
    pub rejected: Vec<Rejection>,
}

impl Records {
    /// The records of `source` from `buffer` on, the first with number `record`.
    pub fn new(source: Arc<str>, format: Box<dyn TextFormat>, buffer: Buffer, record: u64, record_bytes_max: usize) -> Self {
        Self { buffer, format, source, record, end: None, record_bytes_max, overlong: None, failure: None }
    }

    /// Only the records that start before this offset of the stream.
    pub fn ending_at(mut self, end: Option<u64>) -> Self {
        self.end = end;
        self
    }

    /// Where bytes are to be added.
    pub fn buffer(&mut self) -> &mut Buffer {
        &mut self.buffer
    }

    /// Position in the stream of the next record.
    pub fn offset(&self) -> u64 {
        self.buffer.offset() - self.overlong.as_ref().map_or(0, |overlong| overlong.bytes)
    }

    /// Number of the next record.
    pub fn record(&self) -> u64 {
        self.record
    }

    /// Whether the next record belongs to another split.
    pub fn is_past_end(&self) -> bool {
        self.end.is_some_and(|end| self.offset() >= end) && self.overlong.is_none()
    }

    /// The next records, at most `rows_max`, reading from `input` as needed; none: `input` has no more bytes for now, or the next record
    /// belongs to another split. At the end of a stream, [`Self::next`] gives the last record if it has no line end.
    ///
    /// # Errors
    /// As `input`'s, after all whole records before have been returned.
    pub fn read(&mut self, input: &mut dyn Read, rows_max: usize) -> io::Result<Option<Rows>> {
        let mut wanted = BLOCK_BYTES;
        loop {
            let exhausted = self.fill(input, wanted);
            if let Some(rows) = self.next(rows_max, false) {
                return Ok(Some(rows));
            }
            if let Some(failure) = self.failure.take() {
                return Err(failure);
            }
            if exhausted || self.is_past_end() {
                return Ok(None);
            }
            // A record longer than a block: doubling keeps the number of scans of it small.
            wanted = (2 * self.buffer.unused().len()).max(BLOCK_BYTES);
        }
    }

    /// Reads until `wanted` bytes are there; returns whether `input` has no more.
    fn fill(&mut self, input: &mut dyn Read, wanted: usize) -> bool {
        while self.buffer.unused().len() < wanted && self.failure.is_none() {
            match self.buffer.fill_from(input) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => self.failure = Some(error),
            }
        }
        false
    }

    fn end_in_buffer(&self) -> usize {
        self.end.map_or(usize::MAX, |end| usize::try_from(end.saturating_sub(self.buffer.offset())).unwrap_or(usize::MAX))
    }

    /// The next records out of the buffer, at most `rows_max`; none: it needs more bytes, or, if nothing follows (`last`), there are none.
    pub fn next(&mut self, rows_max: usize, last: bool) -> Option<Rows> {
        if self.overlong.is_some() {
            return self.skip_overlong(last);
        }
        let limits = ScanLimits { records: rows_max.max(1), last, stop_at: self.end_in_buffer(), record_bytes: self.record_bytes_max };
        if limits.stop_at == 0 {
            return None;
        }
        let used = self.format.scan(self.buffer.unused(), limits);
        if used == 0 {
            return if self.buffer.unused().len() > self.record_bytes_max { self.give_up_record(last) } else { None };
        }
        let decoded = self.format.decode(self.buffer.unused());
        let rows = self.rows(decoded);
        self.buffer.use_up(used);
        Some(rows)
    }

    fn rows(&mut self, decoded: Decoded) -> Rows {
        let first = self.record;
        let rejected =
            decoded.bad.iter().map(|bad| self.rejection(bad.record, &self.buffer.unused()[bad.span.clone()], bad.reason.clone())).collect();
        let positions = match decoded.row_records {
            None => Positions::From(first),
            Some(records) => Positions::Each(records.into_iter().map(|record| first + u64::from(record)).collect()),
        };
        self.record += decoded.records as u64;
        let origin = Origin { split: self.source.clone(), positions };
        Rows { batch: Batch::new(decoded.columns).with_origin(Some(origin)), rejected }
    }

    fn rejection(&self, record: u32, raw: &[u8], reason: String) -> Rejection {
        let position = self.record + u64::from(record);
        Rejection { reason, source: Some(self.source.clone()), position: Some(position), row: quoted(raw), ..Rejection::default() }
    }

    /// The record at the front is too long. If there is a line end in it, a quote that is never closed is the likely cause, so only its first
    /// line is rejected; otherwise everything up to the next line end.
    fn give_up_record(&mut self, last: bool) -> Option<Rows> {
        let bytes = self.buffer.unused();
        if let Some(line_end) = memchr::memchr(b'\n', bytes) {
            let rejection = self.rejection(0, &bytes[..line_end], format!("{}; is a quote not closed?", too_long(self.record_bytes_max)));
            self.buffer.use_up(line_end + 1);
            return Some(self.only_rejected(rejection));
        }
        self.overlong = Some(Overlong { head: bytes[..QUOTED_BYTES_MAX.min(bytes.len())].to_vec(), bytes: 0 });
        self.skip_overlong(last)
    }

    fn skip_overlong(&mut self, last: bool) -> Option<Rows> {
        let bytes = self.buffer.unused();
        let line_end = memchr::memchr(b'\n', bytes);
        let count = line_end.map_or(bytes.len(), |at| at + 1);
        self.buffer.use_up(count);
        let mut overlong = self.overlong.take()?;
        overlong.bytes += count as u64;
        if line_end.is_none() && !last {
            self.overlong = Some(overlong);
            return None;
        }
        let reason = format!("{}: it has {}", too_long(self.record_bytes_max), overlong.bytes);
        let mut rejection = self.rejection(0, &overlong.head, reason);
        rejection.row.push('…');
        Some(self.only_rejected(rejection))
    }

    fn only_rejected(&mut self, rejection: Rejection) -> Rows {
        let decoded = self.format.decode(&[]);
        self.record += 1;
        let origin = Origin { split: self.source.clone(), positions: Positions::From(self.record) };
        Rows { batch: Batch::new(decoded.columns).with_origin(Some(origin)), rejected: vec![rejection] }
    }
}

/// The beginning of a record that cannot be read, as text.
pub fn quoted(raw: &[u8]) -> String {
    let shown = &raw[..raw.len().min(QUOTED_BYTES_MAX)];
    let mut text = String::from_utf8_lossy(shown).trim_end_matches(['\r', '\n']).to_owned();
    if shown.len() < raw.len() {
        text.push('…');
    }
    text
}
