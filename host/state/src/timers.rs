//! Timers: one per (key, time, name), fired earliest first.
//!
//! The timers of one name are kept in buckets by time. When memory is short, the latest buckets go to disk, under
//! `[prefix][time, sign flipped][key group][key]`; from the *horizon* on, the disk holds timers and memory only a log of changes to them. Before
//! timers at the horizon are due, a chunk of them is read back and the horizon moves on.
//!
//! [`Timers::due`] only looks: the timers stay until [`Timers::remove`], which belongs to the changes of the call that handled them.

mod bucket;

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ops::{ControlFlow, Range},
};

use hashbrown::HashTable;
use millstream_model::{
    key::{EncodedKeys, KeyGroup},
    state::{Clock, TimerDescriptor},
};
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error, KeySet, TimerUpdate,
    collections::successor,
    generation::{Cursor, Generations, StoredEntry},
    rocks::Disk,
    timers::bucket::{Bucket, Key, Word},
};

/// Timers read from disk at a time.
const CHUNK: usize = 8192;

/// Timers that are due: at most one per key, its earliest. They stay set until [`crate::KeyedStore::remove_due`] or
/// [`crate::KeyedStore::apply`] is given them, so a call that fails loses none.
#[derive(Clone, Debug)]
pub struct DueTimers {
    /// The number of each timer, as declared.
    pub timer: Vec<u32>,
    /// The time it was set to, ms since epoch; ascending.
    pub at: Vec<i64>,
    /// The key of each; timer i is of key i.
    pub keys: KeySet,
}

impl DueTimers {
    /// Number of timers.
    pub fn len(&self) -> usize {
        self.timer.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.timer.is_empty()
    }

    /// These timers alone, in the given order: for a call that repeats a part.
    ///
    /// # Panics
    /// A number is out of range.
    pub fn select(&self, numbers: &[u32]) -> Self {
        Self {
            timer: numbers.iter().map(|&number| self.timer[number as usize]).collect(),
            at: numbers.iter().map(|&number| self.at[number as usize]).collect(),
            keys: self.keys.select(numbers, None),
        }
    }
}

/// All timers of a store.
pub(crate) struct Timers {
    names: Vec<Name>,
}

/// The timers of one name.
struct Name {
    descriptor: TimerDescriptor,
    prefix: u16,
    /// Its place in the order of snapshots.
    part: usize,
    buckets: BTreeMap<i64, Bucket>,
    bytes: usize,
    /// From here on (a key on disk) timers are on disk; none: nowhere.
    horizon: Option<Vec<u8>>,
    /// Ranges that were read back while a snapshot needed them on disk.
    read_back: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What [`Timers::due`] finds.
#[derive(Default)]
pub(crate) struct Due {
    pub timer: Vec<u32>,
    pub at: Vec<i64>,
    pub keys: EncodedKeys,
}

impl Timers {
    /// No timers, of the declared names; each with its prefix on disk. `part`: the first place in the order of snapshots.
    pub fn new(declared: Vec<(TimerDescriptor, u16)>, part: usize) -> Self {
        let name = |(number, (descriptor, prefix))| Name {
            descriptor,
            prefix,
            part: part + number,
            buckets: BTreeMap::new(),
            bytes: 0,
            horizon: None,
            read_back: Vec::new(),
        };
        Self { names: declared.into_iter().enumerate().map(name).collect() }
    }

    /// Number of names.
    pub fn names(&self) -> usize {
        self.names.len()
    }

    /// The declarations, and their prefixes on disk.
    pub fn declared(&self) -> impl Iterator<Item = (&TimerDescriptor, u16)> {
        self.names.iter().map(|name| (&name.descriptor, name.prefix))
    }

    /// Whether a key on disk is that of a timer.
    pub fn has_prefix(&self, key: &[u8]) -> bool {
        self.names.iter().any(|name| key.starts_with(&name.prefix.to_be_bytes()))
    }

    /// Memory in use.
    pub fn bytes(&self) -> usize {
        self.names.iter().map(|name| name.bytes).sum()
    }

    /// Timers in memory, those counted that a deletion will still cancel.
    pub fn in_memory(&self) -> usize {
        self.names.iter().flat_map(|name| name.buckets.values()).map(Bucket::len).sum()
    }

    /// # Errors
    /// The update does not fit the declarations or the key set.
    pub fn check(&self, keys: &KeySet, update: &TimerUpdate) -> Result<(), Error> {
        if update.timer >= self.names.len() {
            return Err(Error::InvalidUse(format!("timer {} of {} is out of range", update.timer, self.names.len())));
        }
        if update.keys.len() != update.at.len() || update.keys.len() != update.deleted.len() {
            return Err(Error::InvalidUse(format!(
                "a change of timer {:?} has parts of different lengths",
                self.names[update.timer].descriptor.name
            )));
        }
        match update.keys.iter().find(|&&key| key as usize >= keys.len()) {
            Some(key) => Err(Error::InvalidUse(format!("key {key} of {} is out of range", keys.len()))),
            None => Ok(()),
        }
    }

    /// Applies a checked update.
    pub fn update(&mut self, keys: &KeySet, update: &TimerUpdate, generations: &mut Generations) {
        let name = &mut self.names[update.timer];
        for (entry, (&number, &at)) in update.keys.iter().zip(&update.at).enumerate() {
            let number = number as usize;
            let key = Key::new(keys.hash(number), keys.group(number), keys.key_bytes(number));
            name.change(at, key, if update.deleted.value(entry) { Word::Deleted } else { Word::Set }, generations);
        }
    }

    /// Never later than the earliest timer of `clock`; none: no timer is set.
    pub fn next(&self, clock: Clock) -> Option<i64> {
        self.of_clock(clock).filter_map(|(_, name)| name.next()).min()
    }

    fn of_clock(&self, clock: Clock) -> impl Iterator<Item = (usize, &Name)> {
        self.names.iter().enumerate().filter(move |(_, name)| name.descriptor.clock == clock)
    }

    /// Timers at or before `up_to`: at most one per key, its earliest, at most `limit`. None is removed.
    pub fn due(
        &mut self,
        clock: Clock,
        up_to: i64,
        limit: usize,
        disk: Option<&mut Disk>,
        generations: &mut Generations,
    ) -> Result<Option<Due>, Error> {
        let mut disk = disk;
        loop {
            if let Some(disk) = disk.as_deref_mut() {
                for name in self.names.iter_mut().filter(|name| name.descriptor.clock == clock) {
                    name.read_back(up_to, limit, disk, generations)?;
                }
            }
            let buckets = self.buckets();
            let due = self.pick(clock, up_to, limit, generations);
            if !due.timer.is_empty() {
                return Ok(Some(due));
            }
            // Nothing, although there were buckets: their timers had all been deleted. Behind them there may be others.
            if self.buckets() == buckets {
                return Ok(None);
            }
        }
    }

    fn buckets(&self) -> usize {
        self.names.iter().map(|name| name.buckets.len()).sum()
    }

    /// The first bucket at or after a time and, at that time, a name.
    fn next_bucket(&self, clock: Clock, (from, from_name): (i64, usize)) -> Option<(i64, usize)> {
        let first = |(number, name): (usize, &Name)| {
            let from = if number < from_name { from.checked_add(1)? } else { from };
            name.buckets.range(from..).next().map(|(&time, _)| (time, number))
        };
        self.of_clock(clock).filter_map(first).min()
    }

    fn pick(&mut self, clock: Clock, up_to: i64, limit: usize, generations: &mut Generations) -> Due {
        // What comes after the horizon of one name may be preceded by timers of that name on disk.
        let up_to = self.of_clock(clock).filter_map(|(_, name)| name.horizon_time()).min().map_or(up_to, |horizon| horizon.min(up_to));
        let mut picked = Picked { due: Due::default(), seen: HashTable::new(), passed_over: 0, limit };
        let mut next = self.next_bucket(clock, (i64::MIN, 0));
        while let Some((time, number)) = next.filter(|(time, _)| *time <= up_to && !picked.is_full()) {
            self.names[number].settle(time, generations);
            self.names[number].pick(time, number, &mut picked);
            next = self.next_bucket(clock, (time, number + 1));
        }
        picked.due
    }

    /// Removes timers that [`Self::due`] gave.
    pub fn remove(&mut self, due: &DueTimers, generations: &mut Generations) {
        let same_bucket = |a: &usize, b: &usize| due.timer[*a] == due.timer[*b] && due.at[*a] == due.at[*b];
        let all: Vec<usize> = (0..due.len()).collect();
        for chunk in all.chunk_by(same_bucket) {
            let keys = chunk.iter().map(|&number| Key::new(due.keys.hash(number), due.keys.group(number), due.keys.key_bytes(number)));
            self.names[due.timer[chunk[0]] as usize].remove(due.at[chunk[0]], keys, generations);
        }
    }

    /// Moves the latest timers to disk until the rest takes `target_bytes`. Not while a snapshot is under way: the disk shows an older moment.
    pub fn spill(&mut self, target_bytes: usize, disk: &mut Disk, generations: &Generations) -> Result<(), Error> {
        if generations.is_pending() {
            return Ok(());
        }
        // What is still to be deleted must not take with it what comes to the same places now.
        self.forget_read_back(Some(disk))?;
        while self.bytes() > target_bytes {
            let Some(largest) = self.names.iter_mut().max_by_key(|name| name.bytes) else { return Ok(()) };
            if !largest.spill_last(disk)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// No snapshot needs the disk of before any more: what was read back meanwhile leaves it.
    pub fn forget_read_back(&mut self, disk: Option<&mut Disk>) -> Result<(), Error> {
        let Some(disk) = disk else { return Ok(()) };
        for name in &mut self.names {
            while let Some((from, to)) = name.read_back.last() {
                disk.delete_range(from, to)?;
                name.read_back.pop();
            }
        }
        Ok(())
    }

    /// The timers in memory that a snapshot is owed, of one name from a place on, and where to go on; none: that was all.
    pub fn owed(&self, number: usize, from: &Cursor, limit: usize, generations: &Generations) -> (Vec<StoredEntry>, Option<Cursor>) {
        self.names[number].owed(from, limit, generations)
    }

    /// Sets or deletes a timer as an entry of a snapshot says, whose key has this prefix left out; false: the key is damaged.
    pub fn put_stored(&mut self, number: usize, key: &[u8], is_set: bool, groups: &Range<u16>, generations: &mut Generations) -> bool {
        let Some((time, group, key)) = split_unprefixed(key) else { return false };
        if groups.contains(&group.0) {
            let key = Key::new(xxh3_64(key), group, key);
            self.names[number].change(time, key, if is_set { Word::Set } else { Word::Deleted }, generations);
        }
        true
    }

    /// The disk is that of a snapshot: from the first timer on it that a name has, it is the disk that has them.
    pub fn find_horizons(&mut self, disk: &Disk) -> Result<(), Error> {
        for name in &mut self.names {
            let from = name.prefix.to_be_bytes();
            disk.scan(&from, &successor(&from), false, |key, _| {
                name.horizon = Some(key.to_vec());
                ControlFlow::Break(())
            })?;
        }
        Ok(())
    }

    /// Visits all timers of a name: their time, group and key; in the order of time, those of one time in no order.
    pub fn read(
        &self,
        number: usize,
        disk: Option<&Disk>,
        mut visit: impl FnMut(i64, KeyGroup, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.names[number].read(disk, &mut visit)
    }

    /// Continues the timers of the same names in `before`; gives back the prefixes of those that are gone.
    pub fn take_over(&mut self, before: Self) -> Vec<u16> {
        let mut gone = Vec::new();
        for old in before.names {
            match self.names.iter_mut().find(|name| name.prefix == old.prefix) {
                Some(name) => {
                    (name.buckets, name.bytes, name.horizon, name.read_back) = (old.buckets, old.bytes, old.horizon, old.read_back)
                }
                None => gone.push(old.prefix),
            }
        }
        gone
    }
}

/// Timers being picked.
struct Picked {
    due: Due,
    /// The rows of the keys picked, by key; empty while all are of one bucket, where keys are distinct.
    seen: HashTable<u32>,
    passed_over: usize,
    limit: usize,
}

impl Picked {
    /// Enough was picked, or so much was passed over (later timers of the same keys) that looking on costs more than another call.
    fn is_full(&self) -> bool {
        self.due.timer.len() >= self.limit || self.passed_over > 1024 + 2 * self.due.timer.len()
    }

    /// From here on keys may come again.
    fn watch_keys(&mut self) {
        for row in self.seen.len()..self.due.keys.len() {
            self.remember(row as u32);
        }
    }

    fn remember(&mut self, row: u32) {
        let hashes = self.due.keys.hashes();
        self.seen.insert_unique(hashes[row as usize], row, |&row| hashes[row as usize]);
    }

    fn has(&self, key: Key<'_>) -> bool {
        let keys = &self.due.keys;
        let same = |&row: &u32| keys.group(row as usize) == key.group && keys.key(row as usize) == key.bytes;
        !self.seen.is_empty() && self.seen.find(xxh3_64(key.bytes), same).is_some()
    }

    fn push(&mut self, time: i64, number: usize, key: Key<'_>) {
        self.due.timer.push(number as u32);
        self.due.at.push(time);
        self.due.keys.push_in_group(key.bytes, key.group);
    }
}

impl Name {
    fn horizon_time(&self) -> Option<i64> {
        self.horizon.as_ref().and_then(|key| split_disk_key(key)).map(|(time, _, _)| time)
    }

    /// Whether the timer, if it is set, may be on disk.
    fn may_be_on_disk(&self, time: i64, key: Key<'_>) -> bool {
        match (&self.horizon, self.horizon_time()) {
            (Some(horizon), Some(horizon_time)) if time == horizon_time => disk_key(self.prefix, time, key.group, key.bytes) >= *horizon,
            (_, Some(horizon_time)) => time > horizon_time,
            _ => false,
        }
    }

    fn next(&self) -> Option<i64> {
        let in_memory = self.buckets.first_key_value().map(|(&time, _)| time);
        [in_memory, self.horizon_time()].into_iter().flatten().min()
    }

    fn change(&mut self, time: i64, key: Key<'_>, word: Word, generations: &mut Generations) {
        let on_disk = self.may_be_on_disk(time, key);
        if word == Word::Deleted && !on_disk && !self.buckets.contains_key(&time) {
            return;
        }
        let (prefix, place) = (self.prefix, self.place(time, generations));
        let bucket = self.buckets.entry(time).or_default();
        let before = if bucket.is_empty() { 0 } else { bucket.bytes() };
        bucket.begin_change(generations);
        if bucket.changes_in_place() {
            bucket.copy_owed(prefix, time, place, generations);
        }
        bucket.change(key, word, on_disk);
        self.bytes = self.bytes - before + bucket.bytes();
        if bucket.is_empty() {
            self.drop_bucket(time);
        } else if bucket.is_unsettled() {
            self.settle(time, generations);
        }
    }

    /// From which entry of the bucket of `time` on the pass of a snapshot under way has yet to come.
    fn place(&self, time: i64, generations: &Generations) -> usize {
        let Some(cursor) = generations.cursor() else { return usize::MAX };
        match (cursor.part, &cursor.key[..]).cmp(&(self.part, &time_bytes(time))) {
            Ordering::Less => 0,
            Ordering::Equal => cursor.slot as usize,
            Ordering::Greater => usize::MAX,
        }
    }

    fn drop_bucket(&mut self, time: i64) {
        if let Some(bucket) = self.buckets.remove(&time) {
            self.bytes -= bucket.bytes();
        }
    }

    /// Settles a bucket, and drops it if nothing is left. Entries move by that, so a snapshot gets what it is owed of them before.
    fn settle(&mut self, time: i64, generations: &mut Generations) {
        let place = self.place(time, generations);
        let Some(mut bucket) = self.buckets.remove(&time) else { return };
        self.bytes -= bucket.bytes();
        if !bucket.is_settled() {
            if generations.is_pending() {
                bucket.begin_change(generations);
                bucket.copy_owed(self.prefix, time, place, generations);
            }
            bucket.settle(|key| self.may_be_on_disk(time, key));
        }
        if !bucket.is_empty() {
            self.bytes += bucket.bytes();
            self.buckets.insert(time, bucket);
        }
    }

    /// Picks the timers of a settled bucket.
    fn pick(&self, time: i64, number: usize, picked: &mut Picked) {
        let Some(bucket) = self.buckets.get(&time) else { return };
        picked.watch_keys();
        for (key, word) in bucket.timers() {
            if picked.is_full() {
                return;
            }
            if word != Word::Set || self.may_be_on_disk(time, key) {
                continue;
            }
            if picked.has(key) {
                picked.passed_over += 1;
            } else {
                picked.push(time, number, key);
            }
        }
    }

    /// Removes timers that were picked; some may have gone to disk since.
    fn remove<'a>(&mut self, time: i64, keys: impl Iterator<Item = Key<'a>>, generations: &mut Generations) {
        let (on_disk, in_memory): (Vec<Key<'a>>, Vec<Key<'a>>) = keys.partition(|key| self.may_be_on_disk(time, *key));
        on_disk.into_iter().for_each(|key| self.change(time, key, Word::Deleted, generations));
        let (prefix, place) = (self.prefix, self.place(time, generations));
        let Some(bucket) = self.buckets.get_mut(&time) else { return };
        bucket.begin_change(generations);
        let mut copies = Vec::new();
        let owed = place..bucket.owed_entries(generations);
        bucket.remove(in_memory.into_iter(), |at, key, word| {
            if owed.contains(&at) {
                copies.push(stored_timer(prefix, time, key, word));
            }
        });
        generations.keep_copies(copies);
        if bucket.is_empty() {
            self.drop_bucket(time);
        }
    }

    /// Reads timers back until `limit` are in memory that are due, or all that are due.
    fn read_back(&mut self, up_to: i64, limit: usize, disk: &mut Disk, generations: &mut Generations) -> Result<(), Error> {
        while let Some(horizon_time) = self.horizon_time()
            && horizon_time <= up_to
        {
            let mut ready = 0;
            let enough = self.buckets.range(..horizon_time).any(|(_, bucket)| {
                ready += bucket.len();
                ready >= limit
            });
            if enough {
                return Ok(());
            }
            self.read_chunk(disk, generations)?;
        }
        Ok(())
    }

    fn read_chunk(&mut self, disk: &mut Disk, generations: &mut Generations) -> Result<(), Error> {
        let Some(from) = self.horizon.take() else { return Ok(()) };
        let end = successor(&self.prefix.to_be_bytes());
        let mut read: BTreeMap<i64, Bucket> = BTreeMap::new();
        let (mut count, mut next, mut damaged) = (0, None, false);
        disk.scan(&from, &end, false, |stored, _| {
            if count == CHUNK {
                next = Some(stored.to_vec());
                return ControlFlow::Break(());
            }
            let Some((time, group, key)) = split_disk_key(stored) else {
                damaged = true;
                return ControlFlow::Break(());
            };
            read.entry(time).or_default().put_stored(Key::new(xxh3_64(key), group, key));
            count += 1;
            ControlFlow::Continue(())
        })?;
        if damaged {
            return Err(self.damaged());
        }
        let to = next.clone().unwrap_or(end);
        if generations.is_pending() {
            self.read_back.push((from, to));
        } else {
            disk.delete_range(&from, &to)?;
        }
        self.horizon = next;
        for (time, timers) in read {
            let (prefix, place) = (self.prefix, self.place(time, generations));
            let bucket = self.buckets.entry(time).or_default();
            self.bytes -= if bucket.is_empty() { 0 } else { bucket.bytes() };
            // What was read back is still on the disk for a snapshot under way.
            bucket.begin_change(generations);
            bucket.copy_owed(prefix, time, place, generations);
            bucket.put_before(timers);
            self.bytes += bucket.bytes();
        }
        Ok(())
    }

    /// Moves the last bucket to disk; false: there is none.
    fn spill_last(&mut self, disk: &mut Disk) -> Result<bool, Error> {
        let Some((time, bucket)) = self.buckets.pop_last() else { return Ok(false) };
        self.bytes -= bucket.bytes();
        let mut bucket = bucket;
        bucket.settle(|_| true);
        let entries: Vec<StoredEntry> = bucket.timers().map(|(key, word)| stored_timer(self.prefix, time, key, word)).collect();
        for chunk in entries.chunks(CHUNK) {
            disk.write(chunk)?;
        }
        let first = disk_key(self.prefix, time, KeyGroup(0), &[]);
        self.horizon = Some(self.horizon.take().map_or(first.clone(), |horizon| horizon.min(first)));
        Ok(true)
    }

    /// Visits all timers, in memory and on disk.
    fn read(&self, disk: Option<&Disk>, visit: &mut impl FnMut(i64, KeyGroup, &[u8]) -> ControlFlow<()>) -> Result<(), Error> {
        // Where the disk has timers, memory has a log of changes to them.
        let mut changed: BTreeMap<(i64, KeyGroup, Box<[u8]>), bool> = BTreeMap::new();
        for (&time, bucket) in &self.buckets {
            let mut settled = bucket.clone();
            settled.settle(|_| true);
            for (key, word) in settled.timers() {
                if self.may_be_on_disk(time, key) {
                    changed.insert((time, key.group, key.bytes.into()), word == Word::Set);
                } else if word == Word::Set && visit(time, key.group, key.bytes).is_break() {
                    return Ok(());
                }
            }
        }
        let (Some(disk), Some(horizon)) = (disk, &self.horizon) else { return Ok(()) };
        let mut changed = changed.into_iter().peekable();
        let (mut is_over, mut is_damaged) = (false, false);
        disk.scan(horizon, &successor(&self.prefix.to_be_bytes()), false, |stored, _| {
            let Some((time, group, key)) = split_disk_key(stored) else {
                is_damaged = true;
                return ControlFlow::Break(());
            };
            let place = (time, group, Box::from(key));
            let mut hidden = false;
            while let Some(((time, group, key), is_set)) = changed.next_if(|(own, _)| *own <= place) {
                hidden |= (time, group, &key) == (place.0, place.1, &place.2);
                if is_set && visit(time, group, &key).is_break() {
                    is_over = true;
                    return ControlFlow::Break(());
                }
            }
            if !hidden && visit(time, group, key).is_break() {
                is_over = true;
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        })?;
        if is_damaged {
            return Err(self.damaged());
        }
        let rest = changed.filter(|(_, is_set)| *is_set);
        for ((time, group, key), _) in rest {
            if is_over || visit(time, group, &key).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn damaged(&self) -> Error {
        Error::Corrupt { of: self.descriptor.name.clone(), reason: "a timer's key is too short".into() }
    }

    /// The timers in memory at the barrier, from a place on, some `limit` of them, and where to go on; none: that was all. A timer may come
    /// more than once: the last word counts.
    fn owed(&self, from: &Cursor, limit: usize, generations: &Generations) -> (Vec<StoredEntry>, Option<Cursor>) {
        let mut place = (from.key[..].try_into().map_or(i64::MIN, time_of_bytes), from.slot as usize);
        let mut entries = Vec::new();
        let mut looked_at = 0;
        for (&time, bucket) in self.buckets.range(place.0..) {
            let first = if time == place.0 { place.1 } else { 0 };
            place = (time, first);
            while place.1 < bucket.owed_entries(generations) {
                if looked_at >= limit {
                    return (entries, Some(Cursor { part: self.part, key: time_bytes(time).to_vec(), slot: place.1 as u32 }));
                }
                entries.extend(bucket.entry(place.1).map(|(key, word)| stored_timer(self.prefix, time, key, word)));
                (place.1, looked_at) = (place.1 + 1, looked_at + 1);
            }
            if looked_at >= limit {
                return (entries, Some(Cursor { part: self.part, key: time_bytes(time).to_vec(), slot: place.1 as u32 }));
            }
            looked_at += 1;
        }
        (entries, None)
    }
}

/// A timer as it stands on disk, or is deleted there.
fn stored_timer(prefix: u16, time: i64, key: Key<'_>, word: Word) -> StoredEntry {
    let value = (word == Word::Set).then(Box::default);
    StoredEntry { key: disk_key(prefix, time, key.group, key.bytes).into(), value }
}

/// `[prefix][time, sign flipped][key group][key]`.
fn disk_key(prefix: u16, time: i64, group: KeyGroup, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(12 + key.len());
    out.extend_from_slice(&prefix.to_be_bytes());
    out.extend_from_slice(&time_bytes(time));
    out.extend_from_slice(&group.0.to_be_bytes());
    out.extend_from_slice(key);
    out
}

/// Big-endian with the sign flipped: bytes compare as times do.
fn time_bytes(time: i64) -> [u8; 8] {
    (time as u64 ^ 1 << 63).to_be_bytes()
}

fn time_of_bytes(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ 1 << 63) as i64
}

/// Time, group and key of a timer on disk.
pub(crate) fn split_disk_key(stored: &[u8]) -> Option<(i64, KeyGroup, &[u8])> {
    split_unprefixed(stored.get(2..)?)
}

fn split_unprefixed(stored: &[u8]) -> Option<(i64, KeyGroup, &[u8])> {
    let (time, rest) = stored.split_first_chunk::<8>()?;
    let (group, key) = rest.split_first_chunk::<2>()?;
    Some((time_of_bytes(*time), KeyGroup(u16::from_be_bytes(*group)), key))
}
