//! RocksDB: only this module names it.
//!
//! One database per store, opened when state first leaves memory. Block cache and write-buffer manager belong to the process. No write-ahead log:
//! checkpoints are the durability, so a directory that is found at opening is what a dead process left, and is removed. `files` cuts a database
//! into the files of a snapshot, and makes a database of them.

mod files;

use std::{
    collections::HashMap,
    fmt,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use millstream_model::{
    key::KeyGroup,
    state::{Clock, Ttl},
};
use rocksdb::{
    BlockBasedIndexType, BlockBasedOptions, Cache, CompactionDecision, DB, DBCompactionStyle, DBCompressionType,
    DEFAULT_COLUMN_FAMILY_NAME, Options, ReadOptions, WriteBatch, WriteBufferManager, WriteOptions,
};

use crate::{Error, NEVER_REFRESHED, generation::StoredEntry, row::split_stored, snapshot::Entries, timers::split_disk_key};
pub(crate) use files::{PartReader, Permit, Tables, Writer, table_bytes};

/// Size of a block of an index or a filter.
const METADATA_BLOCK_BYTES: usize = 4096;
/// Sorted runs of a database before some are merged: each may cost a read of an absent key a look at its filter.
const SORTED_RUNS_MAX: i32 = 8;
/// Size of a batch of [`Disk::write_many`].
const BATCH_BYTES: usize = 1 << 20;

/// Sizes of what all RocksDB instances of a process share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RocksSharedSettings {
    /// Blocks of files kept in memory, in bytes; written data that is not yet in files counts as well. Default: 128 MiB.
    pub block_cache_bytes: usize,
    /// Written data not yet in files, in bytes. Default: 64 MiB.
    pub write_buffer_bytes: usize,
}

impl Default for RocksSharedSettings {
    fn default() -> Self {
        Self { block_cache_bytes: 128 << 20, write_buffer_bytes: 64 << 20 }
    }
}

/// What all RocksDB instances of a process share: block cache, write-buffer manager.
pub struct RocksShared {
    settings: RocksSharedSettings,
    /// Made with the first database, so that jobs whose state fits into memory pay nothing.
    memory: OnceLock<(Cache, WriteBufferManager)>,
}

impl RocksShared {
    /// Allocates nothing before the first database is opened.
    pub fn new(settings: RocksSharedSettings) -> Self {
        Self { settings, memory: OnceLock::new() }
    }

    fn memory(&self) -> &(Cache, WriteBufferManager) {
        self.memory.get_or_init(|| {
            let cache = Cache::new_lru_cache(self.settings.block_cache_bytes);
            let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(self.settings.write_buffer_bytes, false, cache.clone());
            (cache, buffers)
        })
    }
}

impl fmt::Debug for RocksShared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RocksShared").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// When stored values are over: compaction drops them. While a snapshot is under way it goes by the clocks of the barrier, or the snapshot would
/// lack values that were still alive then.
#[derive(Debug, Default)]
pub(crate) struct Expiry {
    by_prefix: RwLock<HashMap<u16, Ttl>>,
    now: Clocks,
    /// What compaction goes by.
    compacted: Clocks,
    is_held: AtomicBool,
}

/// What the two clocks showed last; [`i64::MIN`]: nothing yet.
#[derive(Debug)]
struct Clocks {
    event_time: AtomicI64,
    processing_time: AtomicI64,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { event_time: AtomicI64::new(i64::MIN), processing_time: AtomicI64::new(i64::MIN) }
    }
}

impl Clocks {
    fn of(&self, clock: Clock) -> &AtomicI64 {
        match clock {
            Clock::EventTime => &self.event_time,
            Clock::ProcessingTime => &self.processing_time,
        }
    }

    fn get(&self, clock: Clock) -> Option<i64> {
        Some(self.of(clock).load(Ordering::Relaxed)).filter(|&time| time != i64::MIN)
    }
}

impl Expiry {
    pub fn declare(&self, by_prefix: HashMap<u16, Ttl>) {
        *self.by_prefix.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = by_prefix;
    }

    pub fn advance(&self, clock: Clock, to: i64) {
        self.now.of(clock).fetch_max(to, Ordering::Relaxed);
        if !self.is_held.load(Ordering::Relaxed) {
            self.compacted.of(clock).fetch_max(to, Ordering::Relaxed);
        }
    }

    /// What `clock` showed last; none: nothing yet.
    pub fn now(&self, clock: Clock) -> Option<i64> {
        self.now.get(clock)
    }

    /// Holds the clocks of compaction where they are, or lets them go.
    pub fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
        if !is_held {
            for clock in [Clock::EventTime, Clock::ProcessingTime] {
                self.compacted.of(clock).fetch_max(self.now.of(clock).load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
    }

    fn is_over(&self, key: &[u8], value: &[u8]) -> bool {
        let Some(prefix) = key.first_chunk::<2>().map(|bytes| u16::from_be_bytes(*bytes)) else { return false };
        let by_prefix = self.by_prefix.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        let (Some(ttl), Some(stored)) = (by_prefix.get(&prefix), split_stored(value)) else { return false };
        stored.refreshed.is_some_and(|refreshed| is_over(*ttl, refreshed, self.compacted.get(ttl.clock)))
    }
}

/// Whether a value that was refreshed then is over now.
pub(crate) fn is_over(ttl: Ttl, refreshed: i64, now: Option<i64>) -> bool {
    let duration = i64::try_from(ttl.duration_ms).unwrap_or(i64::MAX);
    refreshed != NEVER_REFRESHED && now.is_some_and(|now| now >= refreshed.saturating_add(duration))
}

/// A database that is opened when somebody first needs it: the store, or the thread that writes its first snapshot. Opening waits for the disk, and
/// the stream should not.
pub(crate) struct Database {
    directory: PathBuf,
    shared: Arc<RocksShared>,
    expiry: Arc<Expiry>,
    db: OnceLock<DB>,
    /// Held while it is opened.
    opening: Mutex<()>,
}

/// Where state goes that does not fit into memory.
pub(crate) struct Disk {
    database: Arc<Database>,
    is_open: bool,
}

/// Checkpoints are the durability.
fn without_log() -> WriteOptions {
    let mut options = WriteOptions::default();
    options.disable_wal(true);
    // Batches are sorted.
    options.set_memtable_insert_hint_per_batch(true);
    options
}

fn failed(operation: &'static str) -> impl Fn(rocksdb::Error) -> Error {
    move |source| match source.kind() {
        // RocksDB names the file.
        rocksdb::ErrorKind::Corruption => Error::Corrupt { of: "RocksDB".into(), reason: source.to_string() },
        _ => Error::Backend { operation, source: Box::new(source) },
    }
}

impl Database {
    /// The database; none: nobody has opened it yet, so there is nothing in it.
    fn get(&self) -> Option<&DB> {
        self.db.get()
    }

    /// The database, which begins empty.
    fn open(&self) -> Result<&DB, Error> {
        if let Some(db) = self.db.get() {
            return Ok(db);
        }
        let _turn = self.opening.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(db) = self.db.get() {
            return Ok(db);
        }
        self.clear()?;
        self.open_directory()
    }

    /// An empty directory.
    fn clear(&self) -> Result<(), Error> {
        if self.directory.exists() {
            std::fs::remove_dir_all(&self.directory).map_err(|source| Error::io("clear", source))?;
        }
        std::fs::create_dir_all(&self.directory).map_err(|source| Error::io("create", source))
    }

    fn open_directory(&self) -> Result<&DB, Error> {
        let families = [(DEFAULT_COLUMN_FAMILY_NAME, self.options())];
        let db = DB::open_cf_with_opts(&self.options(), &self.directory, families).map_err(failed("open"))?;
        Ok(self.db.get_or_init(|| db))
    }

    fn options(&self) -> Options {
        let (cache, buffers) = self.shared.memory();
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(cache);
        // Ten bits: one in a hundred reads of an absent key goes to a file.
        blocks.set_bloom_filter(10.0, false);
        // Index and filters count against the cache: memory stays inside the budget whatever the number of files. They come in small blocks: a
        // whole filter of a large table is larger than a shard of the cache, and would be read again for every key.
        blocks.set_cache_index_and_filter_blocks(true);
        blocks.set_pin_l0_filter_and_index_blocks_in_cache(true);
        blocks.set_index_type(BlockBasedIndexType::TwoLevelIndexSearch);
        blocks.set_partition_filters(true);
        blocks.set_metadata_block_size(METADATA_BLOCK_BYTES);
        blocks.set_pin_top_level_index_and_filter(true);
        blocks.set_format_version(6);
        let mut options = Options::default();
        options.create_if_missing(true);
        options.set_paranoid_checks(true);
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(buffers);
        options.set_write_buffer_size((self.shared.settings.write_buffer_bytes / 2).max(1 << 20));
        options.set_max_write_buffer_number(4);
        // Most keys that are asked for are not among those written last: ten bits or more per key say so without a search.
        options.set_memtable_prefix_bloom_ratio(0.02);
        options.set_memtable_whole_key_filtering(true);
        options.set_compression_type(DBCompressionType::Lz4);
        // Runs of like size are merged with each other: what is rewritten, and so what the next checkpoint uploads, goes by what has changed.
        // Levels would rewrite much of the one below for every few new tables, since changed keys lie evenly among the others.
        options.set_compaction_style(DBCompactionStyle::Universal);
        options.set_level_zero_file_num_compaction_trigger(SORTED_RUNS_MAX);
        options.set_max_open_files(256);
        options.set_keep_log_file_num(2);
        // One writer per database.
        options.set_allow_concurrent_memtable_write(false);
        let expiry = Arc::clone(&self.expiry);
        options.set_compaction_filter(c"time to live", move |_level, key, value| {
            if expiry.is_over(key, value) { CompactionDecision::Remove } else { CompactionDecision::Keep }
        });
        options
    }
}

impl Disk {
    pub fn new(directory: PathBuf, shared: Arc<RocksShared>, expiry: Arc<Expiry>) -> Self {
        let database = Database { directory, shared, expiry, db: OnceLock::new(), opening: Mutex::default() };
        Self { database: Arc::new(database), is_open: false }
    }

    /// Whether anything was ever written, or is about to be.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Writes entries; later ones win.
    pub fn write<'a>(&mut self, entries: impl IntoIterator<Item = &'a StoredEntry>) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        for entry in entries {
            match &entry.value {
                Some(value) => batch.put(&entry.key, value),
                None => batch.delete(&entry.key),
            }
        }
        self.write_batch(batch)
    }

    /// Deletes the entries with `from` ≤ key < `to`.
    pub fn delete_range(&mut self, from: &[u8], to: &[u8]) -> Result<(), Error> {
        if !self.is_open {
            return Ok(());
        }
        let mut batch = WriteBatch::default();
        batch.delete_range(from, to);
        self.write_batch(batch)
    }

    /// Deletes the timers under a prefix whose key groups are `foreign`.
    pub fn delete_timers(&mut self, prefix: u16, foreign: impl Fn(KeyGroup) -> bool) -> Result<(), Error> {
        let mut keys = Vec::new();
        self.scan(&prefix.to_be_bytes(), &(prefix + 1).to_be_bytes(), false, |key, _| {
            if split_disk_key(key).is_none_or(|(_, group, _)| foreign(group)) {
                keys.push(Box::<[u8]>::from(key));
            }
            ControlFlow::Continue(())
        })?;
        self.write_many(|put| keys.iter().try_for_each(|key| put(key, None)))
    }

    fn write_batch(&mut self, batch: WriteBatch) -> Result<(), Error> {
        self.open()?.write_opt(batch, &without_log()).map_err(failed("write to"))
    }

    /// Reads many keys, in ascending order, and calls `found` for each with its number.
    pub fn get_each(&self, keys: &[Vec<u8>], mut found: impl FnMut(usize, &[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let Some(db) = self.database.get() else { return Ok(()) };
        let family = db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME).expect("the default column family always exists");
        for (number, value) in db.batched_multi_get_cf(&family, keys, true).into_iter().enumerate() {
            if let Some(value) = value.map_err(failed("read"))? {
                found(number, &value)?;
            }
        }
        Ok(())
    }

    /// Walks over the entries with `from` ≤ key < `to`, in ascending order or backwards, until `visit` breaks.
    pub fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        backwards: bool,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let Some(db) = self.database.get() else { return Ok(()) };
        let mut options = ReadOptions::default();
        options.set_iterate_lower_bound(from);
        options.set_iterate_upper_bound(to);
        let mut entries = db.raw_iterator_opt(options);
        if backwards {
            entries.seek_to_last()
        } else {
            entries.seek_to_first()
        }
        while let Some((key, value)) = entries.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            if backwards { entries.prev() } else { entries.next() }
        }
        entries.status().map_err(failed("read"))
    }

    /// Bytes of files and of buffers not yet in files.
    pub fn bytes(&self) -> u64 {
        self.property("rocksdb.live-sst-files-size") + self.property("rocksdb.cur-size-all-mem-tables")
    }

    fn property(&self, name: &str) -> u64 {
        self.database.get().and_then(|db| db.property_int_value(name).ok().flatten()).unwrap_or(0)
    }

    fn open(&mut self) -> Result<&DB, Error> {
        self.is_open = true;
        self.database.open()
    }

    /// What writes a snapshot of this database, after `owed`, entries that belong to it. `known`: the tables of the snapshot before.
    pub fn writer(&mut self, known: Tables, owed: Entries, permit: Arc<Permit>) -> Writer {
        self.is_open = true;
        Writer { database: Arc::clone(&self.database), known, owed, permit }
    }

    /// Begins with the database of a snapshot instead of an empty one; gives its tables.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::Backend`].
    pub fn begin_with(&mut self, part: &Path) -> Result<Tables, Error> {
        self.is_open = true;
        self.database.clear()?;
        let tables = files::link_database(part, &self.database.directory)?;
        self.database.open_directory().map_err(|error| files::in_part(part, error))?;
        Ok(tables)
    }

    /// Writes many entries, a batch at a time: `fill` gets a function that takes key and value of one.
    pub fn write_many(
        &mut self,
        fill: impl FnOnce(&mut dyn FnMut(&[u8], Option<&[u8]>) -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut batch = WriteBatch::default();
        fill(&mut |key, value| {
            match value {
                Some(value) => batch.put(key, value),
                None => batch.delete(key),
            }
            if batch.size_in_bytes() < BATCH_BYTES {
                return Ok(());
            }
            self.write_batch(std::mem::take(&mut batch))
        })?;
        self.write_batch(batch)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("directory", &self.database.directory).field("open", &self.is_open).finish_non_exhaustive()
    }
}
