//! The commit log of one machine: a file that only grows, and a copy of it.
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
//!
//! # Size
//! Claims write both files anew with one line (the log first, each by rename), and so does a commit that finds more than 1 MiB.

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use millstream_model::ids::JobId;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

use super::{Claim, CommitLog, CommitRecord};
use crate::{Error, checkpoint::hexadecimal, durable};

const FORMAT: u64 = 1;
const HEADER: &str = "millstream-commit-log ";
const SUM_DIGITS: usize = 16;
/// Above this the files are written anew.
const BYTES_MAX: u64 = 1 << 20;

/// The commit log of one machine: an append-only file, synced, with a copy.
#[derive(Clone, Debug)]
pub struct LocalCommitLog {
    files: Files,
}

#[derive(Clone, Debug)]
struct Files {
    log: PathBuf,
    copy: PathBuf,
    lock: PathBuf,
}

impl LocalCommitLog {
    /// The log at `path`; it is created with the first claim. Beside it lie `<path>.copy` and `<path>.lock`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let beside = |ending: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        if let Some(directory) = path.parent() {
            durable::create_directory(directory).map_err(|source| Error::local("opening", directory.display().to_string(), source))?;
        }
        Ok(Self { files: Files { log: path.to_owned(), copy: beside(".copy"), lock: beside(".lock") } })
    }

    /// File work, alone of all processes.
    async fn alone<T: Send + 'static>(&self, work: impl FnOnce(&Files) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let files = self.files.clone();
        let locked = move || {
            let failed = |source| Error::local("locking", files.lock.display().to_string(), source);
            let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&files.lock).map_err(failed)?;
            lock.lock().map_err(failed)?;
            work(&files)
        };
        tokio::task::spawn_blocking(locked).await.expect("file work does not panic")
    }
}

#[async_trait]
impl CommitLog for LocalCommitLog {
    async fn claim(&self, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
        let job = job.clone();
        self.alone(move |files| {
            let state = files.read()?;
            let before = state.records.get(&job).cloned().unwrap_or_default();
            if before.incarnation < claim.seen_incarnation && !claim.is_fresh {
                return Err(Error::RecordMissing { job, incarnation: claim.seen_incarnation });
            }
            let incarnation = before.incarnation.max(claim.seen_incarnation) + 1;
            let last_number = before.last_number;
            let kept = if claim.is_fresh { CommitRecord { last_number, ..CommitRecord::default() } } else { before };
            let record = CommitRecord { incarnation, ..kept };
            files.rewrite(state.with(job, record.clone()))?;
            Ok(record)
        })
        .await
    }

    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        let (job, record) = (job.clone(), record.clone());
        self.alone(move |files| {
            let state = files.read()?;
            let last = state.records.get(&job).cloned().unwrap_or_default();
            check_commit(&job, &last, &record)?;
            let is_small = state.bytes < BYTES_MAX;
            let is_there = last == record;
            match (is_there && state.is_settled, state.is_settled && is_small) {
                (true, _) => Ok(()),
                (false, true) => files.append(&state.with(job, record)),
                (false, false) => files.rewrite(state.with(job, record)),
            }
        })
        .await
    }

    async fn read(&self, job: &JobId) -> Result<Option<CommitRecord>, Error> {
        let job = job.clone();
        self.alone(move |files| Ok(files.read()?.records.remove(&job))).await
    }
}

/// Only the holder of the claim may commit, and only forward; the same record again changes nothing.
fn check_commit(job: &JobId, last: &CommitRecord, record: &CommitRecord) -> Result<(), Error> {
    if last.incarnation < record.incarnation {
        return Err(Error::RecordMissing { job: job.clone(), incarnation: record.incarnation });
    }
    if last.incarnation > record.incarnation {
        return Err(Error::Fenced { job: job.clone(), incarnation: record.incarnation, holder: last.incarnation });
    }
    match (last.checkpoint, record.checkpoint) {
        (Some(committed), Some(asked)) if last != record && asked <= committed => {
            Err(Error::Backwards { job: job.clone(), committed, asked })
        }
        _ => Ok(()),
    }
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
    /// Both files are whole and say the same, so that a line can be added.
    is_settled: bool,
    /// What the next line says; the jobs of the lines before keep theirs.
    next: Option<(JobId, CommitRecord)>,
}

impl State {
    fn with(mut self, job: JobId, record: CommitRecord) -> Self {
        self.next = Some((job, record));
        self
    }

    /// The line to add.
    fn added(&self) -> Entry {
        Entry { sequence: self.sequence + 1, records: self.next.clone().into_iter().collect() }
    }

    /// The line that stands for everything.
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

impl Files {
    fn read(&self) -> Result<State, Error> {
        let (log, copy) = (parse_file(&self.log)?, parse_file(&self.copy)?);
        let log = match (log, &copy) {
            (Some(log), _) => log,
            (None, None) => return Ok(State::default()),
            (None, Some(_)) => return Err(damaged(&self.log, format!("it is gone, and {} is there", self.copy.display()))),
        };
        let is_settled = self.compare(&log, copy.as_ref())?;
        Ok(State { sequence: log.sequence, records: log.records, bytes: log.bytes, is_settled, next: None })
    }

    /// Whether both say the same. The log may be one record ahead, and whichever was being written may end in a line that is not whole.
    fn compare(&self, log: &Parsed, copy: Option<&Parsed>) -> Result<bool, Error> {
        let Some(copy) = copy else {
            let is_first = log.sequence == 1 && !log.has_rest;
            return if is_first { Ok(false) } else { Err(damaged(&self.copy, format!("it is gone, and {} is there", self.log.display()))) };
        };
        if copy.sequence > log.sequence {
            let problem = format!("{} knows later records; if nothing else wrote here, put it in its place", self.copy.display());
            return Err(damaged(&self.log, problem));
        }
        let is_ahead = log.sequence == copy.sequence + 1;
        match (is_ahead, log.has_rest, copy.has_rest) {
            (false, false, false) if log.sequence == copy.sequence && log.records == copy.records => Ok(true),
            // The log was being written; or it is whole and the copy was being written.
            (false, true, false) if log.sequence == copy.sequence => Ok(false),
            (true, false, _) => Ok(false),
            _ => Err(damaged(
                &self.copy,
                format!("it does not go with {}; if that one is whole, remove the copy and put a copy of it there", self.log.display()),
            )),
        }
    }

    /// Adds a line to both.
    fn append(&self, state: &State) -> Result<(), Error> {
        let line = state.added().line();
        for path in [&self.log, &self.copy] {
            let append = || {
                let mut file = OpenOptions::new().append(true).open(path)?;
                file.write_all(&line)?;
                file.sync_all()
            };
            append().map_err(|source| Error::Io { what: "committing", path: path.display().to_string(), source: source.into() })?;
        }
        Ok(())
    }

    /// Writes both anew.
    fn rewrite(&self, state: State) -> Result<(), Error> {
        let mut content = format!("{HEADER}{FORMAT}\n").into_bytes();
        content.extend(state.whole().line());
        durable::write_file(&self.log, &content)?;
        durable::write_file(&self.copy, &content)
    }
}

fn damaged(path: &Path, problem: impl Into<String>) -> Error {
    Error::Damaged { path: path.display().to_string(), problem: problem.into() }
}

fn parse_file(path: &Path) -> Result<Option<Parsed>, Error> {
    match fs::read(path) {
        Ok(content) => parse(path, &content).map(Some),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::local("reading", path.display().to_string(), source)),
    }
}

fn parse(path: &Path, content: &[u8]) -> Result<Parsed, Error> {
    let mut lines = content.split_inclusive(|&byte| byte == b'\n');
    check_header(path, lines.next().unwrap_or_default())?;
    let mut parsed = Parsed { sequence: 0, records: BTreeMap::new(), bytes: content.len() as u64, has_rest: false };
    for (number, line) in lines.enumerate() {
        let entry = line.strip_suffix(b"\n").and_then(Entry::parse);
        if parsed.has_rest {
            return Err(damaged(path, format!("record {number} is not what was written, and there are records behind it")));
        }
        match entry {
            Some(entry) if number == 0 || entry.sequence == parsed.sequence + 1 => {
                parsed.sequence = entry.sequence;
                parsed.records.extend(entry.records);
            }
            Some(_) => return Err(damaged(path, format!("a record is missing before record {}", number + 1))),
            None => parsed.has_rest = true,
        }
    }
    // The first record is written together with the header, by rename.
    if parsed.sequence == 0 { Err(damaged(path, "its first record is not what was written")) } else { Ok(parsed) }
}

fn check_header(path: &Path, line: &[u8]) -> Result<(), Error> {
    let format = std::str::from_utf8(line).ok().and_then(|line| line.strip_prefix(HEADER)?.strip_suffix('\n')?.parse().ok());
    match format {
        Some(FORMAT) if line == format!("{HEADER}{FORMAT}\n").as_bytes() => Ok(()),
        Some(format) if format > FORMAT => Err(Error::NewerFormat { path: path.display().to_string(), format, known: FORMAT }),
        _ => Err(damaged(path, "it does not begin as a commit log")),
    }
}
