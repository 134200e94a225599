//! The files of a database in a snapshot.
//!
//! RocksDB numbers its tables, each database for itself. A snapshot adds to the number a checksum of the table's end, where RocksDB puts a random
//! identity of the table's own, so that one name never means two contents, whichever store wrote them. The manifest is never shared: RocksDB
//! makes a new one each time a database is cut or opened.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rocksdb::{DB, IngestExternalFileOptions, Options, ReadOptions, SstFileWriter, WriteBatch, checkpoint::Checkpoint};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Database, failed};
use crate::{
    Error,
    snapshot::{Entries, SnapshotFile, link_or_copy},
};

/// Bytes at the end of a table that hold its properties, and with them its identity.
const IDENTITY_BYTES: u64 = 4096;

/// The tables of a snapshot: their names in the database, and in the snapshot.
pub(crate) type Tables = BTreeMap<String, String>;

/// Entries with fewer bytes than this go through the memtable, where RocksDB may already have some: one table instead of two.
const TABLE_BYTES_MIN: usize = 1 << 20;

/// Whether what a snapshot still owes to the database may be written there: not once it was given up, for then the store writes newer values, and
/// an old one that came later would count as the newest.
#[derive(Debug, Default)]
pub(crate) struct Permit(Mutex<bool>);

impl Permit {
    /// Withdraws it. Waits for a write that has begun.
    pub fn withdraw(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
    }

    /// Writes, unless the permit was withdrawn; meanwhile it is not.
    fn write(&self, write: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let is_withdrawn = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_withdrawn { Err(Error::InvalidUse("the snapshot was given up".into())) } else { write() }
    }
}

/// Writes the files of a snapshot, on any thread.
pub(crate) struct Writer {
    pub database: Arc<Database>,
    /// The tables of the snapshot before.
    pub known: Tables,
    /// Entries that belong to the snapshot and are not in the database yet.
    pub owed: Entries,
    pub permit: Arc<Permit>,
}

impl Writer {
    /// Brings what is owed into the database: in the order of keys, as a table that RocksDB takes in as it is, since many entries cost a memtable
    /// much more.
    fn write_owed(&self, db: &DB) -> Result<(), Error> {
        if self.owed.len() == 0 {
            return Ok(());
        }
        if self.owed.bytes() < TABLE_BYTES_MIN {
            let mut batch = WriteBatch::default();
            for (key, value) in self.owed.sorted() {
                match value {
                    Some(value) => batch.put(key, value),
                    None => batch.delete(key),
                }
            }
            return self.permit.write(|| db.write_opt(batch, &super::without_log()).map_err(failed("write to")));
        }
        static TABLES: AtomicU64 = AtomicU64::new(0);
        let table = self.database.directory.join(format!("{}.new", TABLES.fetch_add(1, Ordering::Relaxed)));
        let written = self.write_table(&table).map_err(failed("write to"));
        let taken_in = written.and_then(|()| self.permit.write(|| take_in(db, &table).map_err(failed("write to"))));
        if taken_in.is_err() {
            // Nobody else would; it is a failure already.
            let _ = std::fs::remove_file(&table);
        }
        taken_in
    }

    fn write_table(&self, path: &Path) -> Result<(), rocksdb::Error> {
        let options = self.database.options();
        let mut table = SstFileWriter::create(&options);
        table.open(path)?;
        for (key, value) in self.owed.sorted() {
            match value {
                Some(value) => table.put(key, value)?,
                None => table.delete(key)?,
            }
        }
        table.finish()
    }

    /// Cuts the database: everything written so far, as files in a new directory. Tables are linked, not copied.
    pub fn write_tables(&self, directory: &Path) -> Result<(Vec<SnapshotFile>, Tables), Error> {
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).map_err(|source| Error::io("create", source))?;
        }
        let db = self.database.open()?;
        self.write_owed(db)?;
        let checkpoint = Checkpoint::new(db).map_err(failed("cut"))?;
        checkpoint.create_checkpoint(directory).map_err(failed("cut"))?;
        let (mut files, mut tables) = (Vec::new(), Tables::new());
        for (name, path) in list(directory)? {
            if name.ends_with(".sst") {
                let known = self.known.get(&name);
                let stable = known.map_or_else(|| name_table(&name, &path), |known| Ok(known.clone()));
                let stable = stable.map_err(|source| Error::io("read", source))?;
                std::fs::rename(&path, directory.join(&stable)).map_err(|source| Error::io("write", source))?;
                files.push((stable.clone(), known.is_none()));
                tables.insert(name, stable);
            } else if is_manifest(&name) {
                files.push((name, true));
            } else {
                // What RocksDB does not need in order to open the database, or what can be made anew.
                std::fs::remove_file(&path).map_err(|source| Error::io("write", source))?;
            }
        }
        let file = |(name, is_new): (String, bool)| {
            let bytes = std::fs::metadata(directory.join(&name)).map_err(|source| Error::io("read", source))?.len();
            Ok(SnapshotFile { name, bytes, is_new })
        };
        Ok((files.into_iter().map(file).collect::<Result<_, Error>>()?, tables))
    }
}

fn take_in(db: &DB, table: &Path) -> Result<(), rocksdb::Error> {
    let mut options = IngestExternalFileOptions::default();
    options.set_move_files(true);
    db.ingest_external_file_opts(&options, vec![table])
}

/// The name of a table in snapshots.
fn name_table(name: &str, path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(IDENTITY_BYTES)))?;
    let mut end = Vec::new();
    file.take(IDENTITY_BYTES).read_to_end(&mut end)?;
    Ok(format!("{}-{:016x}.sst", name.trim_end_matches(".sst"), xxh3_64_with_seed(&end, bytes)))
}

/// The name in a database of a table of a snapshot; none: it is no table.
fn database_name(stable: &str) -> Option<String> {
    let (number, identity) = stable.strip_suffix(".sst")?.split_once('-')?;
    let is_number = number.len() >= 6 && number.bytes().all(|byte| byte.is_ascii_digit());
    let is_identity = identity.len() == 16 && identity.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_number && is_identity).then(|| format!("{number}.sst"))
}

fn is_manifest(name: &str) -> bool {
    name.strip_prefix("MANIFEST-").is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The files of a directory, in the order of their names.
fn list(directory: &Path) -> Result<BTreeMap<String, PathBuf>, Error> {
    let read = || -> io::Result<BTreeMap<String, PathBuf>> {
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            if let (Ok(name), true) = (entry.file_name().into_string(), entry.file_type()?.is_file()) {
                files.insert(name, entry.path());
            }
        }
        Ok(files)
    };
    read().map_err(|source| Error::io("read", source))
}

/// The size of the tables of a snapshot, in bytes.
pub(crate) fn table_bytes(part: &Path) -> Result<u64, Error> {
    let tables = list(part)?.into_iter().filter(|(name, _)| database_name(name).is_some());
    tables.map(|(_, path)| std::fs::metadata(path).map(|file| file.len()).map_err(|source| Error::io("read", source))).sum()
}

/// Puts the files of a snapshot into an empty directory, under the names that RocksDB wants.
pub(super) fn link_database(part: &Path, directory: &Path) -> Result<Tables, Error> {
    let files = list(part)?;
    let mut manifests = files.keys().filter(|name| is_manifest(name));
    let (Some(manifest), None) = (manifests.next(), manifests.next()) else {
        return Err(Error::damaged_file(part, "it does not have one MANIFEST"));
    };
    let mut tables = Tables::new();
    let link = |from: &Path, name: &str| link_or_copy(from, &directory.join(name)).map_err(|source| Error::io("link", source));
    for (stable, path) in &files {
        if let Some(name) = database_name(stable) {
            link(path, &name)?;
            tables.insert(name, stable.clone());
        }
    }
    // Not a link: the manifest of a snapshot stays as it is.
    let write = || -> io::Result<()> {
        std::fs::copy(&files[manifest], directory.join(manifest))?;
        std::fs::write(directory.join("CURRENT"), format!("{manifest}\n"))
    };
    write().map_err(|source| Error::io("write", source))?;
    Ok(tables)
}

/// Says which snapshot it was that is damaged. A missing file is damage as well.
pub(super) fn in_part(part: &Path, error: Error) -> Error {
    match error {
        Error::Corrupt { reason, .. } => Error::damaged_file(part, reason),
        Error::Backend { source, .. } if source.to_string().contains("No such file") => Error::damaged_file(part, source),
        other => other,
    }
}

/// The database of a snapshot, to read.
pub(crate) struct PartReader {
    db: DB,
    part: PathBuf,
    /// Links to its files under RocksDB's names; removed with this.
    links: PathBuf,
}

impl PartReader {
    /// Opens the database of a snapshot, beside whose files it makes a directory of links for the time being.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Backend`].
    pub fn open(part: &Path) -> Result<Self, Error> {
        static READERS: AtomicU64 = AtomicU64::new(0);
        let links = part.join(format!("read-{}-{}", std::process::id(), READERS.fetch_add(1, Ordering::Relaxed)));
        std::fs::create_dir(&links).map_err(|source| Error::io("create", source))?;
        let opened = link_database(part, &links).and_then(|_| {
            let mut options = Options::default();
            options.set_paranoid_checks(true);
            options.set_max_open_files(256);
            DB::open_for_read_only(&options, &links, false).map_err(failed("open")).map_err(|error| in_part(part, error))
        });
        match opened {
            Ok(db) => Ok(Self { db, part: part.to_owned(), links }),
            Err(error) => {
                remove_links(&links);
                Err(error)
            }
        }
    }

    /// Visits the entries with `from` ≤ key < `to`, in ascending order.
    ///
    /// # Errors
    /// [`Error::Corrupt`]; or what `visit` returns.
    pub fn scan(&self, from: &[u8], to: &[u8], mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        options.fill_cache(false);
        options.set_readahead_size(2 << 20);
        let mut entries = self.db.raw_iterator_opt(options);
        entries.seek_to_first();
        while let Some((key, value)) = entries.item() {
            visit(key, value)?;
            entries.next();
        }
        entries.status().map_err(failed("read")).map_err(|error| in_part(&self.part, error))
    }
}

impl Drop for PartReader {
    fn drop(&mut self) {
        remove_links(&self.links);
    }
}

/// The files are needed no more; names that stay behind harm nobody.
fn remove_links(links: &Path) {
    if let Err(error) = std::fs::remove_dir_all(links) {
        tracing::warn!(directory = %links.display(), %error, "links to the files of a snapshot stay behind");
    }
}
