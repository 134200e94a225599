//! One process owns a directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use crate::{Error, durable};

/// The right to work in a directory: the file `lock` in it, locked by this process and holding its number. The system gives it back when the
/// process ends, however it ends; the file stays.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Locks `directory`, which is created.
    ///
    /// # Errors
    /// [`Error::Locked`]: another process has it, by number; or the directory cannot be written.
    pub fn acquire(directory: &Path) -> Result<Self, Error> {
        let (path, file) = open(directory)?;
        match file.try_lock() {
            Ok(()) => owned(file).map_err(|source| failed(&path, source)),
            Err(TryLockError::WouldBlock) => {
                // The lock is what counts; a number that cannot be read is left out.
                let pid = io::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
                Err(Error::Locked { directory: directory.display().to_string(), pid })
            }
            Err(TryLockError::Error(source)) => Err(failed(&path, source)),
        }
    }

    /// Locks `directory`, which is created, as soon as no other process has it: for a process whose predecessor is about to be gone. Blocks.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn wait(directory: &Path) -> Result<Self, Error> {
        let (path, file) = open(directory)?;
        file.lock().and_then(|()| owned(file)).map_err(|source| failed(&path, source))
    }
}

fn open(directory: &Path) -> Result<(PathBuf, File), Error> {
    let path = directory.join("lock");
    durable::create_directory(directory).map_err(|source| failed(&path, source))?;
    let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
    let file = file.map_err(|source| failed(&path, source))?;
    Ok((path, file))
}

fn owned(mut file: File) -> io::Result<DirectoryLock> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(DirectoryLock { _file: file })
}

fn failed(path: &Path, source: io::Error) -> Error {
    Error::local("locking", path.display().to_string(), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_told_who_has_it() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = DirectoryLock::acquire(directory.path()).expect("free");
        let error = DirectoryLock::acquire(directory.path()).expect_err("taken");
        assert!(matches!(error, Error::Locked { pid: Some(pid), .. } if pid == std::process::id()), "{error}");
        drop(first);
        DirectoryLock::acquire(directory.path()).expect("free again");
    }

    #[test]
    fn who_waits_has_it_when_the_owner_before_is_gone_and_not_sooner() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let first = DirectoryLock::acquire(directory.path()).expect("free");
        let (to, from) = std::sync::mpsc::sync_channel(2);
        let (path, second) = (directory.path().to_owned(), to.clone());
        let waiting = std::thread::spawn(move || {
            let lock = DirectoryLock::wait(&path).expect("free in the end");
            second.send("second").expect("heard");
            lock
        });
        to.send("first").expect("heard");
        drop(first);
        assert_eq!([from.recv(), from.recv()], [Ok("first"), Ok("second")]);
        let _second = waiting.join().expect("it does not panic");
        assert!(DirectoryLock::acquire(directory.path()).is_err(), "it has it");
    }
}
