//! The commit log of one machine: two files ([`super::lines`]) in a directory, synced.
//!
//! Claims write both files anew (by rename), most commits add a line. A third file is the lock that processes take turns by.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use millstream_model::ids::JobId;

use super::{
    Claim, CommitLog, CommitRecord,
    lines::{self, Media, Part},
};
use crate::{Error, durable};

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

    /// The file whose end is missing or damaged, as after a process that died while it wrote; the next write makes it good from the other one. None: both
    /// say the same.
    ///
    /// # Errors
    /// As [`CommitLog::read`].
    pub async fn cut_short(&self) -> Result<Option<String>, Error> {
        self.beside_readers(|files| lines::cut_short(files)).await
    }

    /// File work, alone of all processes.
    async fn alone<T: Send + 'static>(&self, work: impl FnOnce(&mut Files) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let mut files = self.files.clone();
        let locked = move || {
            let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&files.lock);
            let _lock = lock.and_then(|lock| lock.lock().map(|()| lock)).map_err(|source| files.not_locked(source))?;
            work(&mut files)
        };
        tokio::task::spawn_blocking(locked).await.expect("file work does not panic")
    }

    /// Reading, while nobody writes. The directory need not be writable: what cannot be locked for that reason is not written either.
    async fn beside_readers<T: Send + 'static>(&self, work: impl FnOnce(&Files) -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
        let files = self.files.clone();
        let locked = move || {
            let made = |_| OpenOptions::new().create(true).truncate(false).write(true).open(&files.lock);
            let _lock = match File::open(&files.lock).or_else(made) {
                Ok(lock) => Some(lock.lock_shared().map(|()| lock).map_err(|source| files.not_locked(source))?),
                Err(error) if matches!(error.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => None,
                Err(source) => return Err(files.not_locked(source)),
            };
            work(&files)
        };
        tokio::task::spawn_blocking(locked).await.expect("file work does not panic")
    }
}

#[async_trait]
impl CommitLog for LocalCommitLog {
    async fn claim(&self, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
        let job = job.clone();
        self.alone(move |files| lines::claim(files, &job, claim)).await
    }

    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        let (job, record) = (job.clone(), record.clone());
        self.alone(move |files| lines::commit(files, &job, &record)).await
    }

    async fn note(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        let (job, record) = (job.clone(), record.clone());
        self.alone(move |files| lines::note(files, &job, &record)).await
    }

    async fn read(&self, job: &JobId) -> Result<Option<CommitRecord>, Error> {
        let job = job.clone();
        self.beside_readers(move |files| lines::record_of(files, &job)).await
    }
}

impl Files {
    fn not_locked(&self, source: io::Error) -> Error {
        Error::local("locking", self.lock.display().to_string(), source)
    }

    fn path(&self, part: Part) -> &Path {
        match part {
            Part::Log => &self.log,
            Part::Copy => &self.copy,
        }
    }
}

impl Media for Files {
    fn read(&self, part: Part) -> Result<Option<Vec<u8>>, Error> {
        match fs::read(self.path(part)) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::local("reading", self.name(part), source)),
        }
    }

    fn append(&mut self, part: Part, line: &[u8]) -> Result<(), Error> {
        let append = || {
            let mut file = OpenOptions::new().append(true).open(self.path(part))?;
            file.write_all(line)?;
            file.sync_all()
        };
        append().map_err(|source| Error::Io { what: "committing", path: self.name(part), source: source.into() })
    }

    fn replace(&mut self, part: Part, content: &[u8]) -> Result<(), Error> {
        durable::write_file(self.path(part), content)
    }

    fn replace_both(&mut self, content: &[u8]) -> Result<(), Error> {
        durable::write_files([&self.log, &self.copy], content)
    }

    fn name(&self, part: Part) -> String {
        self.path(part).display().to_string()
    }
}
