//! The commit log as two files of lines, wherever somebody keeps them: a log that only grows, and a copy of it.
//!
//! # Bytes
//! The line `millstream-commit-log 1`, then one line per record: 16 hexadecimal digits of the SHA-256 of the rest of the line, a space, and
//! `{"sequence":n,"records":{"<job>":{…}}}` as JSON. Sequence numbers grow by one from line to line; the first may be any. A later record of a job
//! replaces an earlier one.
//!
//! # Why there are two files
//! A checksum cannot see that the *last* line is gone. So each record is written and synced to the log first and then to the copy, and only then
//! acknowledged. After a crash the log may be one record ahead (or end in a line that is not whole), never behind: a log that is behind its copy, or
//! a line that is not whole where the copy has it, is damage and is named. A record that only the log holds was never acknowledged and may count.
//! A copy whose end is missing or damaged is no other than one that was being written: the log alone says what it said, so both are written again
//! from it, and a warning names the copy.
//!
//! # Size
//! Claims write both files anew with one line (the log first, each by rename), and so does a commit that finds more than 1 MiB.

//!
//! Here is what the files say and what is written next; [`Media`] is where they lie.

use std::collections::BTreeMap;

use millstream_model::ids::JobId;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::{Claim, CommitRecord};
use crate::{Error, checkpoint::hexadecimal};

const FORMAT: u64 = 1;
const HEADER: &str = "millstream-commit-log ";
const SUM_DIGITS: usize = 16;
/// Above this the files are written anew.
const BYTES_MAX: u64 = 1 << 20;

/// One of the two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The log.
    Log,
    /// Its copy.
    Copy,
}

/// Where the two files lie, held by one caller alone.
pub(super) trait Media {
    /// The content; none: there is no such file.
    fn read(&self, part: Part) -> Result<Option<Vec<u8>>, Error>;

    /// Adds `line` at the end; durable when this returns. After an error any beginning of it may be there.
    fn append(&mut self, part: Part, line: &[u8]) -> Result<(), Error>;

    /// Puts `content` in the place of what was there, whole or not at all; durable when this returns.
    fn replace(&mut self, part: Part, content: &[u8]) -> Result<(), Error>;

    /// Puts `content` in the place of both, the log first: at no moment is the log behind its copy. Durable when this returns.
    fn replace_both(&mut self, content: &[u8]) -> Result<(), Error> {
        [Part::Log, Part::Copy].into_iter().try_for_each(|part| self.replace(part, content))
    }

    /// What a person finds it by.
    fn name(&self, part: Part) -> String;
}

/// As [`super::CommitLog::claim`].
pub(super) fn claim(media: &mut dyn Media, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
    let state = read(media)?;
    let record = super::claimed(job, state.records.get(job).cloned().unwrap_or_default(), claim)?;
    rewrite(media, state.with(job.clone(), record.clone()))?;
    Ok(record)
}

/// As [`super::CommitLog::commit`].
pub(super) fn commit(media: &mut dyn Media, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
    let state = read(media)?;
    let last = state.records.get(job).cloned().unwrap_or_default();
    super::check_commit(job, &last, record)?;
    write(media, state, job, &last, record)
}

/// As [`super::CommitLog::note`].
pub(super) fn note(media: &mut dyn Media, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
    let state = read(media)?;
    let last = state.records.get(job).cloned().unwrap_or_default();
    if last.incarnation > record.incarnation {
        return Ok(());
    }
    write(media, state, job, &last, record)
}

fn write(media: &mut dyn Media, state: State, job: &JobId, last: &CommitRecord, record: &CommitRecord) -> Result<(), Error> {
    let is_small = state.bytes < BYTES_MAX;
    let is_there = last == record;
    match (is_there && state.is_settled(), state.is_settled() && is_small) {
        (true, _) => Ok(()),
        (false, true) => append(media, &state.with(job.clone(), record.clone())),
        (false, false) => rewrite(media, state.with(job.clone(), record.clone())),
    }
}

/// The last record of a job.
pub(super) fn record_of(media: &dyn Media, job: &JobId) -> Result<Option<CommitRecord>, Error> {
    Ok(read(media)?.records.remove(job))
}

/// What a person finds the file by whose end is missing or damaged, which the next write makes good from the other one; none: both say the same.
pub(super) fn cut_short(media: &dyn Media) -> Result<Option<String>, Error> {
    Ok(read(media)?.cut_short.map(|part| media.name(part)))
}

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    sequence: u64,
    records: BTreeMap<JobId, CommitRecord>,
}

impl Entry {
    fn line(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("records are plain data");
        let mut line = sum(&json).into_bytes();
        line.push(b' ');
        line.extend(json);
        line.push(b'\n');
        line
    }

    /// None: the line is not whole.
    fn parse(line: &[u8]) -> Option<Self> {
        let (sum_of_line, rest) = line.split_at_checked(SUM_DIGITS)?;
        let json = rest.strip_prefix(b" ")?;
        if sum(json).as_bytes() != sum_of_line {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

fn sum(json: &[u8]) -> String {
    let mut digits = hexadecimal(&sha2::Sha256::digest(json));
    digits.truncate(SUM_DIGITS);
    digits
}

/// What both files together say.
#[derive(Debug, Default)]
struct State {
    sequence: u64,
    records: BTreeMap<JobId, CommitRecord>,
    /// Size of the log.
    bytes: u64,
    /// The file that does not end as the other one does.
    cut_short: Option<Part>,
    /// What the next line says; the jobs of the lines before keep theirs.
    next: Option<(JobId, CommitRecord)>,
}

impl State {
    /// Both files are there, whole, and say the same, so that a line can be added. The first line has sequence 1.
    fn is_settled(&self) -> bool {
        self.sequence > 0 && self.cut_short.is_none()
    }

    fn with(mut self, job: JobId, record: CommitRecord) -> Self {
        self.next = Some((job, record));
        self
    }

    /// The line to add.
    fn added(&self) -> Entry {
        Entry { sequence: self.sequence + 1, records: self.next.clone().into_iter().collect() }
    }

    /// The line that stands for everything that the log says now.
    fn as_it_is(&self) -> Entry {
        Entry { sequence: self.sequence, records: self.records.clone() }
    }

    /// The line that stands for everything, with what comes next.
    fn whole(mut self) -> Entry {
        self.records.extend(self.next);
        Entry { sequence: self.sequence + 1, records: self.records }
    }
}

/// What one file says.
struct Parsed {
    sequence: u64,
    records: BTreeMap<JobId, CommitRecord>,
    bytes: u64,
    /// Behind the last whole line there is something that is none.
    has_rest: bool,
}

fn read(media: &dyn Media) -> Result<State, Error> {
    let (log, copy) = (parse_part(media, Part::Log)?, parse_part(media, Part::Copy)?);
    let log = match (log, &copy) {
        (Some(log), _) => log,
        (None, None) => return Ok(State::default()),
        (None, Some(_)) => return Err(damaged(media.name(Part::Log), format!("it is gone, and {} is there", media.name(Part::Copy)))),
    };
    let cut_short = compare(media, &log, copy.as_ref())?;
    Ok(State { sequence: log.sequence, records: log.records, bytes: log.bytes, cut_short, next: None })
}

/// None: both say the same. The log may be one record ahead, and whichever was being written may end in a line that is not whole.
fn compare(media: &dyn Media, log: &Parsed, copy: Option<&Parsed>) -> Result<Option<Part>, Error> {
    let (log_name, copy_name) = (media.name(Part::Log), media.name(Part::Copy));
    let Some(copy) = copy else {
        let is_first = log.sequence == 1 && !log.has_rest;
        return if is_first { Ok(Some(Part::Copy)) } else { Err(damaged(copy_name, format!("it is gone, and {log_name} is there"))) };
    };
    if copy.sequence > log.sequence {
        return Err(damaged(log_name, format!("{copy_name} knows later records; if nothing else wrote here, put it in its place")));
    }
    let is_ahead = log.sequence == copy.sequence + 1;
    match (is_ahead, log.has_rest, copy.has_rest) {
        (false, false, false) if log.sequence == copy.sequence && log.records == copy.records => Ok(None),
        // The log was being written; or it is whole and the copy was being written.
        (false, true, false) if log.sequence == copy.sequence => Ok(Some(Part::Log)),
        (true, false, _) => Ok(Some(Part::Copy)),
        _ => Err(damaged(
            copy_name,
            format!("it does not go with {log_name}; if that one is whole, remove the copy and put a copy of it there"),
        )),
    }
}

/// Adds a line to both.
fn append(media: &mut dyn Media, state: &State) -> Result<(), Error> {
    let line = state.added().line();
    [Part::Log, Part::Copy].into_iter().try_for_each(|part| media.append(part, &line))
}

/// Writes both anew.
fn rewrite(media: &mut dyn Media, state: State) -> Result<(), Error> {
    if let Some(part) = state.cut_short {
        tracing::warn!(
            path = media.name(part),
            last_record = state.sequence,
            "the end of a file of the commit log is missing or damaged, as after a process that died while it wrote; it is written again from the other file"
        );
        // The log may be ahead already. Were it written anew first and the copy not, it would be two records ahead, which looks like damage.
        media.replace(Part::Copy, &content(&state.as_it_is()))?;
    }
    media.replace_both(&content(&state.whole()))
}

/// A file of one line.
fn content(line: &Entry) -> Vec<u8> {
    let mut content = format!("{HEADER}{FORMAT}\n").into_bytes();
    content.extend(line.line());
    content
}

fn damaged(path: String, problem: impl Into<String>) -> Error {
    Error::Damaged { path, problem: problem.into() }
}

fn parse_part(media: &dyn Media, part: Part) -> Result<Option<Parsed>, Error> {
    media.read(part)?.map(|content| parse(&media.name(part), &content)).transpose()
}

fn parse(path: &str, content: &[u8]) -> Result<Parsed, Error> {
    let mut lines = content.split_inclusive(|&byte| byte == b'\n');
    check_header(path, lines.next().unwrap_or_default())?;
    let mut parsed = Parsed { sequence: 0, records: BTreeMap::new(), bytes: content.len() as u64, has_rest: false };
    for (number, line) in lines.enumerate() {
        let entry = line.strip_suffix(b"\n").and_then(Entry::parse);
        if parsed.has_rest {
            return Err(damaged(path.to_owned(), format!("record {number} is not what was written, and there are records behind it")));
        }
        match entry {
            Some(entry) if number == 0 || entry.sequence == parsed.sequence + 1 => {
                parsed.sequence = entry.sequence;
                parsed.records.extend(entry.records);
            }
            Some(_) => return Err(damaged(path.to_owned(), format!("a record is missing before record {}", number + 1))),
            None => parsed.has_rest = true,
        }
    }
    // The first record is written together with the header, by rename.
    if parsed.sequence == 0 { Err(damaged(path.to_owned(), "its first record is not what was written")) } else { Ok(parsed) }
}

fn check_header(path: &str, line: &[u8]) -> Result<(), Error> {
    let format = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(HEADER)?.strip_suffix('\n')?.parse().ok());
    match format {
        Some(FORMAT) if line == format!("{HEADER}{FORMAT}\n").as_bytes() => Ok(()),
        Some(format) if format > FORMAT => Err(Error::NewerFormat { path: path.to_owned(), format, known: FORMAT }),
        _ => Err(damaged(path.to_owned(), "it does not begin as a commit log")),
    }
}
