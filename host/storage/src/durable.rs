//! One file that appears whole or not at all.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use crate::Error;

/// Writes `bytes` to `path`: a temporary file in the same directory, fsync, rename, fsync of the directory. A reader sees the old content or the
/// new, also after a crash. Two writers of one path need not know of each other; the last rename wins.
///
/// # Errors
/// The directory cannot be made, or a write fails (disk full); the temporary file is removed.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory).map_err(|source| io("creating the directory", directory, source))?;
    let temporary = temporary_beside(path);
    let written =
        write_synced(&temporary, bytes).and_then(|()| fs::rename(&temporary, path)).and_then(|()| File::open(directory)?.sync_all());
    written.map_err(|source| {
        // The first failure is the one to report; a leftover is harmless and named so that it can be told apart.
        drop(fs::remove_file(&temporary));
        io("writing", path, source)
    })
}

/// Creates `path` with `bytes`, durable when this returns; nothing is overwritten.
///
/// # Errors
/// There is a file already (`AlreadyExists`), or a write fails.
pub fn create_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let temporary = temporary_beside(path);
    // A link fails where a rename would overwrite.
    let created =
        write_synced(&temporary, bytes).and_then(|()| fs::hard_link(&temporary, path)).and_then(|()| File::open(directory)?.sync_all());
    // The first failure is the one to report; a leftover is harmless and named so that it can be told apart.
    drop(fs::remove_file(&temporary));
    created
}

/// A name beside `path` that no other writer of this machine uses at the same time.
fn temporary_beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{}.tmp", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    path.with_file_name(name)
}

fn write_synced(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { what, path: path.display().to_string(), source: source.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_write_replaces_the_first_and_leaves_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("deep/er/file");
        write_file(&path, b"first").expect("writable");
        write_file(&path, b"second").expect("writable");
        assert_eq!(fs::read(&path).expect("readable"), b"second");
        assert_eq!(fs::read_dir(path.parent().expect("has one")).expect("readable").count(), 1);
    }

    #[test]
    fn a_write_that_fails_names_the_path() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("file");
        write_file(&file, b"").expect("writable");
        let error = write_file(&file.join("below"), b"").expect_err("a file is no directory");
        assert!(error.to_string().contains("file"), "{error}");
    }
}
