//! What was posted and answered with 200, on disk until a committed checkpoint covers it.
//!
//! # Bytes
//! A log is a directory of segments. Offsets count bytes from the start of the log, headers included; a segment is named by the offset of its
//! first byte, and the next one starts where it ends.
//!
//! ```text
//! <offset, 20 digits>.log = "millpush", version: u32 = 1, zero: u32, entry*
//! entry = length: u32, kind: u32, offset of this entry: u64, XXH3-64 of the 16 bytes before and the body: u64, body: [u8; length]
//! kind  = 1: the body of a request; 2: a mark (no body): everything before it was synced
//! ```
//!
//! Numbers are little-endian; kinds are never reused. Requests are written in groups: one write, one sync, then the answers, then a mark that is
//! not synced by itself. So an entry at the end that is not whole, with no mark behind it, was never answered: it is cut off. One with a mark
//! behind it was, and is damage: the log is not opened.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_engine::operator::OperatorError;
use xxhash_rust::xxh3::Xxh3Default;

const MAGIC: &[u8; 8] = b"millpush";
const VERSION: u32 = 1;
const HEAD_BYTES: u64 = 16;
const ENTRY_BYTES: usize = 24;
const REQUEST: u32 = 1;
const MARK: u32 = 2;
/// A segment that is longer is followed by the next.
const SEGMENT_BYTES: u64 = 64 << 20;
const SUFFIX: &str = ".log";

/// Makes the content of a file durable; [`File::sync_data`] but in tests.
pub type Sync = Arc<dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync>;

/// Where and how a log is kept.
#[derive(Clone)]
pub struct Place {
    /// The directory of its segments.
    pub directory: PathBuf,
    /// How it is synced.
    pub sync: Sync,
    /// [`SEGMENT_BYTES`] but in tests.
    pub segment_bytes: u64,
}

impl Place {
    /// A log in this directory.
    pub fn new(directory: PathBuf, sync: Sync) -> Self {
        Self { directory, sync, segment_bytes: SEGMENT_BYTES }
    }

    fn segment(&self, offset: u64) -> PathBuf {
        self.directory.join(format!("{offset:020}{SUFFIX}"))
    }

    /// The offsets of the first bytes of all segments, ascending.
    fn segments(&self) -> Result<Vec<u64>, OperatorError> {
        let entries = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.map_err(|error| cannot("list", &self.directory, error))?,
        };
        let mut offsets = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| cannot("list", &self.directory, error))?.file_name();
            offsets.extend(name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse::<u64>().ok()));
        }
        offsets.sort_unstable();
        Ok(offsets)
    }

    /// Removes the segments that hold nothing at or after `offset`; never the last.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn cut(&self, offset: u64) -> Result<(), OperatorError> {
        let segments = self.segments()?;
        for pair in segments.windows(2).take_while(|pair| pair[1] <= offset) {
            let path = self.segment(pair[0]);
            fs::remove_file(&path).map_err(|error| cannot("remove", &path, error))?;
        }
        Ok(())
    }
}

/// The end of a log, where requests are added.
pub struct Log {
    place: Place,
    file: File,
    /// Offset of the first byte of the last segment.
    base: u64,
    /// Offset behind the last entry that was synced, or its mark.
    end: u64,
}

impl Log {
    /// Opens a log to go on from `position` (none: from its first request). A log that is not there starts at that offset. Returns it with what is to
    /// be read again.
    ///
    /// # Errors
    /// It does not hold `position` any more or not yet, it is damaged, or its files cannot be read or written.
    pub fn open(place: Place, position: Option<u64>) -> Result<(Self, Replay), OperatorError> {
        let segments = place.segments()?;
        let (Some(&first), Some(&last)) = (segments.first(), segments.last()) else {
            let base = position.map_or(0, |position| position.saturating_sub(HEAD_BYTES));
            make_directory(&place.directory)?;
            let file = create_segment(&place, base)?;
            let end = base + HEAD_BYTES;
            let replay = Replay { place: place.clone(), file: None, next: end, end };
            return Ok((Self { place, file, base, end }, replay));
        };
        for pair in segments.windows(2) {
            let length = length(&place.segment(pair[0]))?;
            if pair[0] + length != pair[1] {
                return Err(damaged(&place.segment(pair[0]), length, "the segment does not end where the next one starts"));
            }
        }
        let (file, end) = recover(&place, last)?;
        let from = position.unwrap_or(first);
        if from < first || from > end {
            let directory = place.directory.display();
            let lost = if from > end { end..from } else { from..first };
            return Err(OperatorError::user(format!(
                "the requests at offsets {} to {} are not in the log {directory}, which holds {first} to {end}: go on from another checkpoint",
                lost.start, lost.end
            )));
        }
        let replay = Replay { place: place.clone(), file: None, next: from, end };
        Ok((Self { place, file, base: last, end }, replay))
    }

    /// Adds requests, and returns when they are durable; where each of them stands.
    ///
    /// # Errors
    /// The disk is full or fails; names the file. What was written of them is cut off again as far as possible, and the log must not be used any
    /// more.
    pub fn append(&mut self, bodies: &[&[u8]]) -> Result<Vec<Range<u64>>, OperatorError> {
        let acknowledged = self.end;
        let path = self.place.segment(self.base);
        let appended = self.try_append(bodies);
        appended.map_err(|error| {
            // The failure itself is what matters; what stays is cut off, or read once more, by the next run.
            drop(self.file.set_len(acknowledged - self.base));
            cannot("write", &path, error)
        })
    }

    fn try_append(&mut self, bodies: &[&[u8]]) -> io::Result<Vec<Range<u64>>> {
        let mut bytes = Vec::with_capacity(bodies.iter().map(|body| body.len() + ENTRY_BYTES).sum());
        let mut places = Vec::with_capacity(bodies.len());
        for body in bodies {
            let offset = self.end + bytes.len() as u64;
            bytes.extend_from_slice(&entry(REQUEST, offset, body)?);
            bytes.extend_from_slice(body);
            places.push(offset..self.end + bytes.len() as u64);
        }
        self.file.write_all(&bytes)?;
        (self.place.sync)(&self.file)?;
        self.end += bytes.len() as u64;
        self.file.write_all(&entry(MARK, self.end, &[])?)?;
        self.end += ENTRY_BYTES as u64;
        Ok(places)
    }

    /// Starts the next segment if this one is long.
    ///
    /// # Errors
    /// As [`Self::append`].
    pub fn roll(&mut self) -> Result<(), OperatorError> {
        if self.end - self.base < self.place.segment_bytes {
            return Ok(());
        }
        let path = self.place.segment(self.base);
        (self.place.sync)(&self.file).map_err(|error| cannot("sync", &path, error))?;
        self.file = create_segment(&self.place, self.end)?;
        self.base = self.end;
        self.end += HEAD_BYTES;
        Ok(())
    }
}

/// Requests that are read again.
pub struct Replay {
    place: Place,
    /// The segment being read, and the offset where it ends.
    file: Option<(File, u64)>,
    next: u64,
    end: u64,
}

/// A request that is read again.
pub struct Logged {
    /// Where it stands.
    pub offset: u64,
    /// Where the next one may stand.
    pub end: u64,
    /// Its body.
    pub body: Vec<u8>,
}

impl Replay {
    /// Where it is.
    pub fn offset(&self) -> u64 {
        self.next
    }

    /// The next request; none: all that were there when the log was opened have been read.
    ///
    /// # Errors
    /// A segment is damaged or cannot be read; names file and byte.
    pub fn next(&mut self) -> Result<Option<Logged>, OperatorError> {
        while self.next < self.end {
            if self.file.as_ref().is_none_or(|(_, segment_end)| self.next >= *segment_end) {
                self.open_segment()?;
                continue;
            }
            let offset = self.next;
            let (kind, body) = self.entry()?;
            self.next += (ENTRY_BYTES + body.len()) as u64;
            if kind == REQUEST {
                return Ok(Some(Logged { offset, end: self.next, body }));
            }
        }
        Ok(None)
    }

    /// Opens the segment that holds the next offset, or starts there.
    fn open_segment(&mut self) -> Result<(), OperatorError> {
        let segments = self.place.segments()?;
        let base = segments.into_iter().rev().find(|&base| base <= self.next);
        let Some(base) = base else {
            let directory = self.place.directory.display();
            return Err(OperatorError::user(format!("the log {directory} has lost the segment with offset {}", self.next)));
        };
        let path = self.place.segment(base);
        let mut file = File::open(&path).map_err(|error| cannot("open", &path, error))?;
        check_head(&path, &mut file)?;
        self.next = self.next.max(base + HEAD_BYTES);
        file.seek(SeekFrom::Start(self.next - base)).map_err(|error| cannot("read", &path, error))?;
        let segment_end = base + length(&path)?;
        if segment_end <= self.next && self.next < self.end && !self.place.segments()?.contains(&segment_end) {
            return Err(damaged(&path, segment_end - base, "it has become shorter"));
        }
        self.file = Some((file, segment_end));
        Ok(())
    }

    fn entry(&mut self) -> Result<(u32, Vec<u8>), OperatorError> {
        let (file, segment_end) = self.file.as_mut().expect("the segment was opened");
        let here = || {
            let text = format!("the log {} is damaged at offset {}", self.place.directory.display(), self.next);
            OperatorError::user(text)
        };
        let mut head = [0; ENTRY_BYTES];
        file.read_exact(&mut head).map_err(|error| here().because(error))?;
        let Some(head) = Head::read(&head).filter(|head| head.fits(self.next, *segment_end - self.next)) else { return Err(here()) };
        let mut body = vec![0; head.length as usize];
        file.read_exact(&mut body).map_err(|error| here().because(error))?;
        if head.checksum == checksum(head.kind, head.offset, &body) { Ok((head.kind, body)) } else { Err(here()) }
    }
}

struct Head {
    length: u32,
    kind: u32,
    offset: u64,
    checksum: u64,
}

impl Head {
    fn read(bytes: &[u8]) -> Option<Self> {
        let number = |from: usize| Some(u32::from_le_bytes(bytes.get(from..from + 4)?.try_into().ok()?));
        let long = |from: usize| Some(u64::from_le_bytes(bytes.get(from..from + 8)?.try_into().ok()?));
        Some(Self { length: number(0)?, kind: number(4)?, offset: long(8)?, checksum: long(16)? })
    }

    /// Whether it may stand at `offset` with so many bytes left.
    fn fits(&self, offset: u64, left: u64) -> bool {
        let is_known = self.kind == REQUEST || self.kind == MARK && self.length == 0;
        is_known && self.offset == offset && ENTRY_BYTES as u64 + u64::from(self.length) <= left
    }
}

fn entry(kind: u32, offset: u64, body: &[u8]) -> io::Result<[u8; ENTRY_BYTES]> {
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    let mut bytes = [0; ENTRY_BYTES];
    bytes[0..4].copy_from_slice(&length.to_le_bytes());
    bytes[4..8].copy_from_slice(&kind.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..24].copy_from_slice(&checksum(kind, offset, body).to_le_bytes());
    Ok(bytes)
}

fn checksum(kind: u32, offset: u64, body: &[u8]) -> u64 {
    let mut hash = Xxh3Default::new();
    // A body has fewer than 4 GiB: its length stands in 32 bits.
    hash.update(&(body.len() as u32).to_le_bytes());
    hash.update(&kind.to_le_bytes());
    hash.update(&offset.to_le_bytes());
    hash.update(body);
    hash.digest()
}

/// Finds the end of the last segment and cuts off what was never answered.
fn recover(place: &Place, base: u64) -> Result<(File, u64), OperatorError> {
    let path = place.segment(base);
    let bytes = fs::read(&path).map_err(|error| cannot("read", &path, error))?;
    if (bytes.len() as u64) < HEAD_BYTES {
        // It was being made: nothing was written to it.
        fs::remove_file(&path).map_err(|error| cannot("remove", &path, error))?;
        return Ok((create_segment(place, base)?, base + HEAD_BYTES));
    }
    check_head(&path, &mut &bytes[..])?;
    let mut whole = HEAD_BYTES as usize;
    while let Some(count) = whole_entry(&bytes[whole..], base + whole as u64) {
        whole += count;
    }
    let is_mark = |at: usize| bytes[at..].len() >= ENTRY_BYTES && matches!(mark_at(&bytes[at..], base + at as u64), Some(()));
    if (whole..bytes.len()).any(is_mark) {
        return Err(damaged(&path, whole as u64, "requests that were answered stand behind it"));
    }
    let file = OpenOptions::new().read(true).write(true).open(&path).map_err(|error| cannot("open", &path, error))?;
    let repair = || -> io::Result<()> {
        if whole < bytes.len() {
            tracing::info!(log = %path.display(), bytes = bytes.len() - whole, "cut off the end of the log, which was never answered");
            file.set_len(whole as u64)?;
        }
        (&file).seek(SeekFrom::End(0))?;
        (place.sync)(&file)
    };
    repair().map_err(|error| cannot("repair", &path, error))?;
    Ok((file, base + whole as u64))
}

fn whole_entry(bytes: &[u8], offset: u64) -> Option<usize> {
    let head = Head::read(bytes).filter(|head| head.fits(offset, bytes.len() as u64))?;
    let end = ENTRY_BYTES + head.length as usize;
    (head.checksum == checksum(head.kind, offset, &bytes[ENTRY_BYTES..end])).then_some(end)
}

fn mark_at(bytes: &[u8], offset: u64) -> Option<()> {
    let head = Head::read(bytes).filter(|head| head.kind == MARK && head.fits(offset, bytes.len() as u64))?;
    (head.checksum == checksum(MARK, offset, &[])).then_some(())
}

fn create_segment(place: &Place, base: u64) -> Result<File, OperatorError> {
    let path = place.segment(base);
    let create = || -> io::Result<File> {
        let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        file.write_all(MAGIC)?;
        file.write_all(&VERSION.to_le_bytes())?;
        file.write_all(&[0; 4])?;
        file.sync_all()?;
        File::open(&place.directory)?.sync_all()?;
        Ok(file)
    };
    create().map_err(|error| cannot("make", &path, error))
}

fn make_directory(directory: &Path) -> Result<(), OperatorError> {
    crate::files::create_directory(directory).map_err(|error| cannot("make", directory, error))
}

fn check_head(path: &Path, input: &mut dyn Read) -> Result<(), OperatorError> {
    let mut head = [0; HEAD_BYTES as usize];
    input.read_exact(&mut head).map_err(|error| cannot("read", path, error))?;
    let version = u32::from_le_bytes([head[8], head[9], head[10], head[11]]);
    if &head[..8] != MAGIC || head[12..] != [0; 4] {
        return Err(damaged(path, 0, "it does not start as a log of posted requests"));
    }
    if version != VERSION {
        return Err(OperatorError::user(format!("{} has format {version}; this program reads format {VERSION}", path.display())));
    }
    Ok(())
}

fn length(path: &Path) -> Result<u64, OperatorError> {
    fs::metadata(path).map(|metadata| metadata.len()).map_err(|error| cannot("look at", path, error))
}

fn damaged(path: &Path, at: u64, why: &str) -> OperatorError {
    OperatorError::user(format!("{} is damaged at byte {at}: {why}", path.display()))
}

fn cannot(what: &str, path: &Path, error: io::Error) -> OperatorError {
    OperatorError::outside(format!("cannot {what} {}: {error}", path.display())).because(error)
}
