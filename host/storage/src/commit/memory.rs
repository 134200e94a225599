//! A commit log on a disk that is memory and fails when it is told to: for simulations. What is written and how it is read is the same code as on a
//! real disk ([`super::lines`]); work is done where it is asked for, so nothing of it depends on threads.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use millstream_model::ids::JobId;

use super::{
    Claim, CommitLog, CommitRecord,
    lines::{self, Media, Part},
};
use crate::{Error, error::Source};

/// Where the next write fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFault {
    /// Nothing is written.
    Refused,
    /// The log has the beginning of what was to be written: this many of its bytes (a file that is written anew has nothing of it).
    TornLog(usize),
    /// The log has it, the copy the beginning.
    TornCopy(usize),
    /// Both have it, and the answer is lost.
    AnswerLost,
}

/// A commit log in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct MemoryCommitLog {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    log: Option<Vec<u8>>,
    copy: Option<Vec<u8>>,
    fault: Option<LogFault>,
}

impl MemoryCommitLog {
    /// The next claim or commit that writes fails like this.
    pub fn fail_next(&self, fault: LogFault) {
        self.disk().fault = Some(fault);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A write, whose answer may be lost.
    fn write<T>(&self, write: impl FnOnce(&mut Disk) -> Result<T, Error>) -> Result<T, Error> {
        let mut disk = self.disk();
        let written = write(&mut disk)?;
        match disk.fault.take_if(|fault| *fault == LogFault::AnswerLost) {
            Some(_) => Err(failed("the answer is lost")),
            None => Ok(written),
        }
    }
}

#[async_trait]
impl CommitLog for MemoryCommitLog {
    async fn claim(&self, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
        self.write(|disk| lines::claim(disk, job, claim))
    }

    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        self.write(|disk| lines::commit(disk, job, record))
    }

    async fn note(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        self.write(|disk| lines::note(disk, job, record))
    }

    async fn read(&self, job: &JobId) -> Result<Option<CommitRecord>, Error> {
        lines::record_of(&*self.disk(), job)
    }
}

impl Disk {
    fn part(&mut self, part: Part) -> &mut Option<Vec<u8>> {
        match part {
            Part::Log => &mut self.log,
            Part::Copy => &mut self.copy,
        }
    }

    /// How many of `length` bytes reach `part` before the fault that stands there; none: all do.
    fn torn(&mut self, part: Part, length: usize) -> Option<usize> {
        let fault = self.fault.take_if(|fault| match fault {
            LogFault::Refused | LogFault::TornLog(_) => part == Part::Log,
            LogFault::TornCopy(_) => part == Part::Copy,
            LogFault::AnswerLost => false,
        })?;
        match fault {
            LogFault::TornLog(bytes) | LogFault::TornCopy(bytes) => Some(bytes.min(length)),
            LogFault::Refused | LogFault::AnswerLost => Some(0),
        }
    }
}

impl Media for Disk {
    fn read(&self, part: Part) -> Result<Option<Vec<u8>>, Error> {
        Ok(match part {
            Part::Log => self.log.clone(),
            Part::Copy => self.copy.clone(),
        })
    }

    fn append(&mut self, part: Part, line: &[u8]) -> Result<(), Error> {
        let torn = self.torn(part, line.len());
        self.part(part).get_or_insert_default().extend(&line[..torn.unwrap_or(line.len())]);
        torn.map_or(Ok(()), |_| Err(failed("no space left")))
    }

    fn replace(&mut self, part: Part, content: &[u8]) -> Result<(), Error> {
        if self.torn(part, content.len()).is_some() {
            return Err(failed("no space left"));
        }
        *self.part(part) = Some(content.to_owned());
        Ok(())
    }

    fn name(&self, part: Part) -> String {
        match part {
            Part::Log => "commit.log in memory".into(),
            Part::Copy => "commit.log.copy in memory".into(),
        }
    }
}

fn failed(why: &'static str) -> Error {
    Error::Io { what: "committing", path: "commit.log in memory".into(), source: Source::from(format!("injected: {why}")) }
}
