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
    let staged = Staged { path, temporary: temporary_beside(path) };
    staged.write(bytes)?;
    staged.publish()
}

/// Writes `bytes` to both paths as [`write_file`] does, in their order: whoever finds the second finds the first. The contents are synced at the same
/// time, which the disk answers as fast as one of them.
///
/// # Errors
/// As [`write_file`]; the first may have been written.
pub(crate) fn write_files(paths: [&Path; 2], bytes: &[u8]) -> Result<(), Error> {
    let staged = paths.map(|path| Staged { path, temporary: temporary_beside(path) });
    let [first, second] = &staged;
    std::thread::scope(|scope| {
        let beside = std::thread::Builder::new().spawn_scoped(scope, || second.write(bytes));
        let written = first.write(bytes);
        // Where there is no thread to be had, one after the other.
        let beside = beside.map_or_else(|_| second.write(bytes), |beside| beside.join().expect("writing a file does not panic"));
        written.and(beside)
    })?;
    staged.iter().try_for_each(Staged::publish)
}

/// A file that is not at its path yet. Dropped, it leaves nothing beside it.
struct Staged<'a> {
    path: &'a Path,
    temporary: PathBuf,
}

impl Staged<'_> {
    fn write(&self, bytes: &[u8]) -> Result<(), Error> {
        let directory = directory_of(self.path);
        create_directory(directory).map_err(|source| io("creating the directory", directory, source))?;
        write_synced(&self.temporary, bytes).map_err(|source| io("writing", self.path, source))
    }

    fn publish(&self) -> Result<(), Error> {
        let published = fs::rename(&self.temporary, self.path).and_then(|()| sync_directory(directory_of(self.path)));
        published.map_err(|source| io("writing", self.path, source))
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        // It is gone once it was published; a leftover is harmless and named so that it can be told apart.
        drop(fs::remove_file(&self.temporary));
    }
}

/// Creates `path` with `bytes`, durable when this returns; nothing is overwritten.
///
/// # Errors
/// There is a file already (`AlreadyExists`), or a write fails.
pub fn create_file(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    in_its_directory(path, || {
        let temporary = temporary_beside(path);
        // A link fails where a rename would overwrite.
        let created = write_synced(&temporary, bytes).and_then(|()| fs::hard_link(&temporary, path));
        // The first failure is the one to report; a leftover is harmless and named so that it can be told apart.
        drop(fs::remove_file(&temporary));
        created
    })
}

/// Creates `path` with the content of `file`, which nobody changes any more: a second link to it or, where there can be none, a copy. Durable when
/// this returns; nothing is overwritten.
///
/// # Errors
/// There is a file already (`AlreadyExists`), or a write fails.
pub fn create_from_file(path: &Path, file: &Path) -> std::io::Result<()> {
    File::open(file)?.sync_all()?;
    in_its_directory(path, || match fs::hard_link(file, path) {
        Err(error) if !matches!(error.kind(), std::io::ErrorKind::AlreadyExists | std::io::ErrorKind::NotFound) => {
            copy_and_link(path, file)
        }
        linked => linked,
    })
}

/// Another file system, or one without links.
fn copy_and_link(path: &Path, file: &Path) -> std::io::Result<()> {
    let temporary = temporary_beside(path);
    let copied = fs::copy(file, &temporary).and_then(|_| File::open(&temporary)?.sync_all()).and_then(|()| fs::hard_link(&temporary, path));
    drop(fs::remove_file(&temporary));
    copied
}

/// Makes a directory and those above it; their entries are durable when this returns.
///
/// # Errors
/// One cannot be made.
pub fn create_directory(directory: &Path) -> std::io::Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    let above = directory_of(directory);
    create_directory(above)?;
    match fs::create_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        made => made.and_then(|()| sync_directory(above)),
    }
}

/// Makes the entries of a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

/// The directory that a path lies in.
fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the directory of `path`, does `create`, and makes the new entry durable. A deletion may remove the directory in between when it has
/// become empty: then once more.
fn in_its_directory(path: &Path, create: impl Fn() -> std::io::Result<()>) -> std::io::Result<()> {
    let directory = directory_of(path);
    for _ in 0..8 {
        create_directory(directory)?;
        match create() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            created => return created.and_then(|()| sync_directory(directory)),
        }
    }
    create()
}

/// How names of files end that are not whole yet.
pub const TEMPORARY: &str = ".tmp";

/// A name beside `path` that no other writer of this machine uses at the same time.
pub(crate) fn temporary_beside(path: &Path) -> PathBuf {
    use std::sync::atomic::{AtomicU64, Ordering};
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{}-{}{TEMPORARY}", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
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

    #[test]
    fn a_copy_is_made_whole_and_overwrites_nothing() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (file, path) = (directory.path().join("file"), directory.path().join("copy"));
        write_file(&file, b"content").expect("writable");
        copy_and_link(&path, &file).expect("writable");
        assert_eq!(fs::read(&path).expect("readable"), b"content");
        let again = copy_and_link(&path, &file).expect_err("taken");
        assert_eq!(again.kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(directory.path()).expect("readable").count(), 2, "nothing else is left");
    }
}
