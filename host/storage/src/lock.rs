//! One process owns a directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::Path,
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
        let path = directory.join("lock");
        let failed = |source| Error::local("locking", path.display().to_string(), source);
        durable::create_directory(directory).map_err(failed)?;
        let mut file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // The lock is what counts; a number that cannot be read is left out.
                let pid = io::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
                return Err(Error::Locked { directory: directory.display().to_string(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
        Ok(Self { _file: file })
    }
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
}
