//! Taking a snapshot. `snapshot` says what it consists of, `generation` how a barrier cuts the state.

use std::{path::PathBuf, sync::Arc};

use millstream_model::state::Clock;

use super::{KeyedStore, State};
use crate::{
    Error,
    generation::{Cursor, SLICE_BYTES, StoredEntry, Target},
    rocks::Permit,
    snapshot::{
        Entries, FilesForm, Outcome, SnapshotCut, SnapshotStep, StateDescription, StoreDescription, TimerDescription, snapshot_type_text,
    },
};

/// A state that has never left memory, and takes no more of it, is written as one small file: a database has three and more, and takes some 30 ms
/// longer. Tests of what lies on disk make do with smaller states.
const SMALL_BYTES: usize = if cfg!(test) { 256 << 10 } else { 2 << 20 };
/// The part of the memory budget that a snapshot may take beside it for what its writer will bring to disk: one of so many.
const OWED_SHARE: usize = 8;
/// How many times `limit` places a slice looks at, at most, while it finds nothing to hand out.
const ROUNDS_PER_SLICE: usize = 8;

/// The snapshot under way.
pub(super) struct Taking {
    directory: PathBuf,
    /// As of the barrier.
    description: StoreDescription,
    /// What does not go to the disk.
    entries: Entries,
    /// What goes to the disk with the cut, on another thread.
    owed: Entries,
    permit: Arc<Permit>,
    outcome: Outcome,
}

impl KeyedStore {
    /// A barrier: what is in the store now belongs to a snapshot, which will be written to `directory`. Costs the same for any number of keys.
    /// Go on with [`Self::continue_snapshot`]; the store may be used as before meanwhile, but for new declarations.
    ///
    /// # Errors
    /// [`Error::SnapshotUnderWay`]; [`Error::InvalidDeclaration`]: a state's type has no text; [`Error::Backend`].
    pub fn begin_snapshot(&mut self, directory: PathBuf) -> Result<(), Error> {
        if self.generations.is_pending() {
            return Err(Error::SnapshotUnderWay);
        }
        let description = self.describe()?;
        self.timers.forget_read_back(self.disk.as_mut())?;
        self.note_size();
        let is_small = self.memory_bytes() <= SMALL_BYTES;
        match &self.disk {
            Some(disk) if disk.is_open() || !is_small => self.generations.begin(Target::Disk, self.memory_budget_bytes / OWED_SHARE),
            _ => self.generations.begin(Target::Collection, usize::MAX),
        }
        self.expiry.hold(true);
        let (entries, owed) = (Entries::default(), Entries::default());
        self.taking = Some(Taking { directory, description, entries, owed, permit: Arc::default(), outcome: Outcome::default() });
        Ok(())
    }

    fn describe(&self) -> Result<StoreDescription, Error> {
        let state = |state: &State| match state {
            State::Value(value) => StateDescription::new(&value.descriptor, value.prefix, &value.versions, 0),
            State::Collection(collection) => {
                let next_position = collection.next_position();
                StateDescription::new(&collection.descriptor, collection.prefix, &collection.versions, next_position)
            }
        };
        let timers = self.timers.declared();
        let timer = timers.map(|(timer, prefix)| TimerDescription { name: timer.name.clone(), prefix, clock: timer.clock });
        Ok(StoreDescription {
            next_prefix: self.prefixes.next(),
            key_types: self.key_types.iter().map(|data_type| snapshot_type_text("the key", data_type)).collect::<Result<_, _>>()?,
            states: self.states.iter().map(state).collect::<Result<_, _>>()?,
            timers: timer.collect(),
            event_time: self.expiry.now(Clock::EventTime),
            processing_time: self.expiry.now(Clock::ProcessingTime),
            ..StoreDescription::default()
        })
    }

    /// Hands out the next slice of the snapshot, some `limit` entries or one MiB: to RocksDB, or to the cut. Between two slices the stream goes
    /// on. After the cut was given, nothing more is to be done before it is written.
    ///
    /// # Errors
    /// [`Error::InvalidUse`]: there is nothing to continue. [`Error::Backend`]: the store may lack a part of the snapshot; drop it and recover.
    pub fn continue_snapshot(&mut self, limit: usize) -> Result<SnapshotStep, Error> {
        if self.generations.cursor().is_none() {
            return Err(Error::InvalidUse("there is no snapshot to continue".into()));
        }
        let (entries, is_last) = self.next_slice(limit.max(1));
        self.hand_out(entries)?;
        if !is_last {
            return Ok(SnapshotStep::More);
        }
        self.generations.end_pass();
        let taking = self.taking.as_mut().expect("there is one as long as the pass goes on");
        let (entries, owed) = (std::mem::take(&mut taking.entries), std::mem::take(&mut taking.owed));
        let records = self.generations.take_records();
        let disk = match &mut self.disk {
            Some(disk) if self.generations.writes_to_disk() => Some(disk.writer(self.tables.clone(), owed, Arc::clone(&taking.permit))),
            _ => None,
        };
        let files = if disk.is_some() { FilesForm::RocksDb } else { FilesForm::Entries };
        let in_file = entries.len() + if disk.is_some() { 0 } else { records.len() };
        let description = StoreDescription { files, entries: in_file, ..taking.description.clone() };
        let cut = SnapshotCut { directory: taking.directory.clone(), description, entries, records, disk, outcome: taking.outcome.clone() };
        Ok(SnapshotStep::Cut(Box::new(cut)))
    }

    fn next_slice(&mut self, limit: usize) -> (Vec<StoredEntry>, bool) {
        let mut cursor = self.generations.cursor().cloned().expect("looked at before");
        let mut entries = self.generations.take_copies(limit);
        let are_copies_left = entries.len() == limit;
        let mut bytes = entries.iter().map(StoredEntry::len).sum::<usize>();
        let parts = self.states.len() + self.timers.names();
        for _ in 0..ROUNDS_PER_SLICE {
            if entries.len() >= limit || bytes >= SLICE_BYTES || cursor.part >= parts {
                break;
            }
            let (more, next) = self.owed(&cursor, limit);
            bytes += more.iter().map(StoredEntry::len).sum::<usize>();
            entries.extend(more);
            cursor = next.unwrap_or(Cursor { part: cursor.part + 1, ..Cursor::default() });
        }
        let is_last = cursor.part >= parts && !are_copies_left;
        self.generations.move_cursor(cursor);
        (entries, is_last)
    }

    /// Some entries of one part, and where to go on in it.
    fn owed(&mut self, from: &Cursor, limit: usize) -> (Vec<StoredEntry>, Option<Cursor>) {
        match self.states.get(from.part) {
            Some(State::Value(value)) => value.owed(from, limit, &self.table, &mut self.generations),
            Some(State::Collection(collection)) => collection.owed(from, limit, &self.generations),
            None => self.timers.owed(from.part - self.states.len(), from, limit, &self.generations),
        }
    }

    /// Timers in memory belong beside the disk, not on it: it holds only later ones. What is for the disk waits for the thread that writes the
    /// cut, as long as it takes little memory.
    fn hand_out(&mut self, entries: Vec<StoredEntry>) -> Result<(), Error> {
        let taking = self.taking.as_mut().expect("a snapshot is under way");
        let writes_to_disk = self.generations.writes_to_disk();
        let is_for_disk = |entry: &StoredEntry| writes_to_disk && !self.timers.has_prefix(&entry.key);
        let (mut for_disk, beside): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_for_disk);
        beside.iter().for_each(|entry| taking.entries.push(&entry.key, entry.value.as_deref()));
        if taking.owed.bytes() + self.generations.record_bytes() < self.memory_budget_bytes / OWED_SHARE {
            for_disk.drain(..).for_each(|entry| taking.owed.push(&entry.key, entry.value.as_deref()));
        }
        match &mut self.disk {
            Some(disk) if !for_disk.is_empty() => disk.write(&for_disk),
            _ => Ok(()),
        }
    }

    /// The cut was written. Costs the same for any number of keys.
    ///
    /// # Errors
    /// [`Error::InvalidUse`]: it was not. [`Error::Backend`].
    pub fn finish_snapshot(&mut self) -> Result<(), Error> {
        let outcome = self.taking.as_ref().and_then(|taking| taking.outcome.get());
        let Some(tables) = outcome else { return Err(Error::InvalidUse("the snapshot was not written".into())) };
        self.tables = tables.clone();
        self.taking = None;
        self.generations.finish();
        self.expiry.hold(false);
        self.timers.forget_read_back(self.disk.as_mut())
    }

    /// The snapshot under way, if there is one, is given up: whatever its directory holds is the caller's to remove. The store is as if it had
    /// not begun, and the next one takes all that this one would have.
    pub fn abandon_snapshot(&mut self) {
        if let Some(taking) = self.taking.take() {
            taking.permit.withdraw();
        }
        self.generations.abandon();
        self.expiry.hold(false);
        if let Err(error) = self.timers.forget_read_back(self.disk.as_mut()) {
            // Tried again, and returned, when the next snapshot begins.
            tracing::warn!(%error, "timers that were read back stay on disk for now");
        }
    }
}
