//! What a snapshot of a store is outside of the store: files in a directory, and a description of what they hold.
//!
//! # Files (format 1)
//! ```text
//! <number>-<16 hexadecimal digits>.sst   a RocksDB table; never changes, and no other table of any store ever has its name
//! MANIFEST-<number>                      which tables make up the database, as RocksDB writes it
//! entries                                see `entries`: what RocksDB does not have
//! ```
//! A store whose state is small or has nowhere to go has everything in `entries`; one on RocksDB has its timers of the near future there. What
//! holds nothing is left out.
//!
//! # The way of a snapshot
//! [`crate::KeyedStore::begin_snapshot`] at the barrier, [`crate::KeyedStore::continue_snapshot`] between two elements until it gives a
//! [`SnapshotCut`], [`SnapshotCut::write`] on another thread, [`crate::KeyedStore::finish_snapshot`]. Meanwhile the store goes on being used.

mod description;
mod entries;

use std::{
    fmt, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

pub(crate) use description::snapshot_type_text;
pub use description::{FilesForm, StateDescription, StoreDescription, TimerDescription};
pub(crate) use entries::{Entries, EntriesReader};

use crate::{
    Error,
    rocks::{Tables, Writer},
    values::CopiedRecords,
};

/// The name of our own file.
pub(crate) const ENTRIES_FILE: &str = "entries";

/// A snapshot to restore from, in a local directory.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotPart {
    /// Where its files are; the store may link to them, and leaves them as they are.
    pub directory: PathBuf,
    /// The key groups that it covers.
    pub key_groups: Range<u16>,
    /// What the files hold.
    pub description: StoreDescription,
}

/// A snapshot that was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// Where the files are; theirs alone, so that the directory can be removed as a whole when they are no longer needed.
    pub directory: PathBuf,
    /// What they hold.
    pub description: StoreDescription,
    /// All of them, in the order of their names.
    pub files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotFile {
    /// Its name in the directory.
    pub name: String,
    /// Its length.
    pub bytes: u64,
    /// False: the snapshot that this store finished last, or was restored from, has the same file under the same name.
    pub is_new: bool,
}

/// What [`crate::KeyedStore::continue_snapshot`] came to.
#[derive(Debug)]
pub enum SnapshotStep {
    /// There is more: continue.
    More,
    /// The store has handed out everything: write it.
    Cut(Box<SnapshotCut>),
}

/// A snapshot that has yet to be written.
pub struct SnapshotCut {
    pub(crate) directory: PathBuf,
    pub(crate) description: StoreDescription,
    /// What goes to our own file.
    pub(crate) entries: Entries,
    /// What has yet to be encoded: for the disk, or, without one, for our own file.
    pub(crate) records: CopiedRecords,
    /// None: everything is in `entries`.
    pub(crate) disk: Option<Writer>,
    pub(crate) outcome: Outcome,
}

/// Tells the store, once the cut was written, which tables the snapshot has.
pub(crate) type Outcome = Arc<OnceLock<Tables>>;

impl SnapshotCut {
    /// Writes the files into the directory that was given at the barrier, and must not exist yet. Blocks; meant for a thread that may.
    ///
    /// # Errors
    /// [`Error::Backend`], [`Error::Corrupt`]: the directory may hold some of the files, and is the caller's to remove.
    pub fn write(mut self) -> Result<Snapshot, Error> {
        self.records.encode_into(self.disk.as_mut().map_or(&mut self.entries, |disk| &mut disk.owed));
        let (mut files, tables) = match &self.disk {
            Some(disk) => disk.write_tables(&self.directory)?,
            None => (Vec::new(), Tables::default()),
        };
        if self.disk.is_none() {
            std::fs::create_dir_all(&self.directory).map_err(|source| Error::io("create", source))?;
        }
        if self.entries.len() > 0 {
            let bytes = self.entries.write_to(&self.directory.join(ENTRIES_FILE))?;
            files.push(SnapshotFile { name: ENTRIES_FILE.into(), bytes, is_new: true });
        }
        files.sort_unstable();
        // Only one cut is made of a snapshot, and it is consumed here.
        let _ = self.outcome.set(tables);
        Ok(Snapshot { directory: self.directory, description: self.description, files })
    }
}

impl fmt::Debug for SnapshotCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotCut").field("directory", &self.directory).field("entries", &self.entries.len()).finish_non_exhaustive()
    }
}

/// Another name for a file; a copy where the file system has no links, or the file is on another one.
pub(crate) fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(drop))
}
