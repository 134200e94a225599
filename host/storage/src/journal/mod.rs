//! A file of records that only grows: every record is one line with its checksum, synced before it is acknowledged.
//!
//! # Bytes
//! The line `<name> <format>`, then one line per record: 16 hexadecimal digits of the SHA-256 of the rest of the line, a space, and
//! `{"sequence":n,"record":…}` as JSON. Sequence numbers grow by one from line to line; the first may be any.
//!
//! # Crashes
//! A write that was cut leaves a last line that is not whole. It was never acknowledged, so [`Journal::open`] cuts it off. A line that is not whole
//! anywhere else, or a number that is missing, is damage and is named; nothing is guessed. A write that fails while the process lives (disk full)
//! is taken back; if even that fails, the journal takes no more until it is opened again.
//!
//! # Size
//! [`Journal::rewrite`] replaces everything by fewer records that say the same, by rename.

#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
    marker::PhantomData,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::Digest as _;

use crate::{Error, checkpoint::hexadecimal, durable};

const SUM_DIGITS: usize = 16;

/// What a journal is called in its first line, and the version of its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// One word, as `millstream-catalogue`.
    pub name: &'static str,
    /// The version of its records.
    pub format: u64,
}

/// An open journal. One process has it: whoever opens it holds the lock of its directory.
#[derive(Debug)]
pub struct Journal<R> {
    kind: Kind,
    path: PathBuf,
    file: File,
    /// Of the last record.
    sequence: u64,
    /// Size of everything that is acknowledged.
    bytes: u64,
    /// A failed write could not be taken back.
    is_broken: bool,
    _records: PhantomData<fn(R)>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<R> {
    sequence: u64,
    record: R,
}

impl<R: Serialize + DeserializeOwned> Journal<R> {
    /// Opens the journal at `path`, for its owner's eyes only, made if it is not there, and returns what it holds.
    ///
    /// # Errors
    /// It is damaged, of a newer format, or cannot be read or written.
    pub fn open(path: &Path, kind: Kind) -> Result<(Self, Vec<R>), Error> {
        let failed = |source| Error::local("opening", path.display().to_string(), source);
        if !path.try_exists().map_err(failed)? {
            durable::write_file(path, &header(kind))?;
        }
        let content = fs::read(path).map_err(failed)?;
        let Replayed { records, sequence, bytes } = replay(path, kind, &content)?;
        let mut file = OpenOptions::new().read(true).write(true).mode(0o600).open(path).map_err(failed)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        if bytes < content.len() as u64 {
            tracing::warn!(path = %path.display(), bytes = content.len() as u64 - bytes, "the last write was cut short; it is taken back");
            file.set_len(bytes).and_then(|()| file.sync_all()).map_err(failed)?;
        }
        file.seek(SeekFrom::Start(bytes)).map_err(failed)?;
        Ok((Self { kind, path: path.to_owned(), file, sequence, bytes, is_broken: false, _records: PhantomData }, records))
    }

    /// Adds a record; durable when this returns.
    ///
    /// # Errors
    /// It was not added: the disk is full or broken.
    pub fn append(&mut self, record: &R) -> Result<(), Error> {
        let line = line(&Entry { sequence: self.sequence + 1, record });
        self.usable()?;
        if let Err(source) = self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            self.take_back();
            return Err(Error::local("writing", self.path.display().to_string(), source));
        }
        self.sequence += 1;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Replaces everything by `records`, all or nothing.
    ///
    /// # Errors
    /// It could not be written; what was there is there.
    pub fn rewrite(&mut self, records: &[R]) -> Result<(), Error> {
        self.usable()?;
        let mut content = header(self.kind);
        for (number, record) in records.iter().enumerate() {
            content.extend(line(&Entry { sequence: self.sequence + 1 + number as u64, record }));
        }
        durable::write_file(&self.path, &content)?;
        // From here on the new file counts: what is not reopened must not be written to.
        self.is_broken = true;
        let failed = |source| Error::local("opening", self.path.display().to_string(), source);
        let mut file = OpenOptions::new().read(true).write(true).open(&self.path).map_err(failed)?;
        file.set_permissions(fs::Permissions::from_mode(0o600)).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        self.file = file;
        self.bytes = content.len() as u64;
        self.sequence += records.len() as u64;
        self.is_broken = false;
        Ok(())
    }

    /// Its size, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    fn usable(&self) -> Result<(), Error> {
        if !self.is_broken {
            return Ok(());
        }
        Err(Error::local(
            "writing",
            self.path.display().to_string(),
            io::Error::other("an earlier write failed and could not be taken back"),
        ))
    }

    fn take_back(&mut self) {
        let taken_back = self.file.set_len(self.bytes).and_then(|()| self.file.seek(SeekFrom::Start(self.bytes)));
        self.is_broken = taken_back.is_err();
    }
}

fn header(kind: Kind) -> Vec<u8> {
    format!("{} {}\n", kind.name, kind.format).into_bytes()
}

fn line(entry: &Entry<impl Serialize>) -> Vec<u8> {
    let json = serde_json::to_vec(entry).expect("records are plain data with string keys");
    let mut line = sum(&json).into_bytes();
    line.push(b' ');
    line.extend(json);
    line.push(b'\n');
    line
}

fn sum(json: &[u8]) -> String {
    let mut digits = hexadecimal(&sha2::Sha256::digest(json));
    digits.truncate(SUM_DIGITS);
    digits
}

/// What the whole lines of a journal say.
struct Replayed<R> {
    records: Vec<R>,
    sequence: u64,
    /// Size up to the end of the last whole line.
    bytes: u64,
}

fn replay<R: DeserializeOwned>(path: &Path, kind: Kind, content: &[u8]) -> Result<Replayed<R>, Error> {
    let damaged = |problem: String| Error::Damaged { path: path.display().to_string(), problem };
    let mut lines = content.split_inclusive(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    check_header(path, kind, first)?;
    let mut replayed = Replayed { records: Vec::new(), sequence: 0, bytes: first.len() as u64 };
    let mut rest = lines.enumerate().peekable();
    while let Some((number, line)) = rest.next() {
        let Some(entry) = parse::<R>(line) else {
            // What is behind a line that was cut short was never written. A whole line that is not what its sum says was not cut.
            if rest.peek().is_none() && !line.ends_with(b"\n") {
                break;
            }
            return Err(damaged(format!("record {} is not what was written", number + 1)));
        };
        if number > 0 && entry.sequence != replayed.sequence + 1 {
            return Err(damaged(format!("a record is missing before record {}", number + 1)));
        }
        replayed.sequence = entry.sequence;
        replayed.bytes += line.len() as u64;
        replayed.records.push(entry.record);
    }
    Ok(replayed)
}

/// None: the line is not whole.
fn parse<R: DeserializeOwned>(line: &[u8]) -> Option<Entry<R>> {
    let (sum_of_line, rest) = line.strip_suffix(b"\n")?.split_at_checked(SUM_DIGITS)?;
    let json = rest.strip_prefix(b" ")?;
    if sum(json).as_bytes() != sum_of_line {
        return None;
    }
    serde_json::from_slice(json).ok()
}

fn check_header(path: &Path, kind: Kind, line: &[u8]) -> Result<(), Error> {
    let prefix = format!("{} ", kind.name);
    let format = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(&prefix)?.strip_suffix('\n')?.parse::<u64>().ok());
    match format {
        Some(format) if format == kind.format => Ok(()),
        Some(format) if format > kind.format => Err(Error::NewerFormat { path: path.display().to_string(), format, known: kind.format }),
        _ => Err(Error::Damaged { path: path.display().to_string(), problem: format!("it does not begin with `{}`", kind.name) }),
    }
}
