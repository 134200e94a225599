//! Ordered maps and appended lists: many values per key, read in ranges.
//!
//! An *overlay* in memory, ordered by the keys on disk (`[prefix][group][key][map key]`), holds what is not on disk yet, with marks for what is
//! deleted there; reads merge it with the disk, and making room writes it out. A list is a map from *positions* to elements: positions only grow,
//! over all keys of a state, so appending needs no read. Keys must be free of prefixes, as encoded keys are: no key is the beginning of another.

use std::{
    collections::BTreeMap,
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use arrow_array::{Array, ArrayRef, UInt64Array, cast::AsArray, types::UInt64Type};
use arrow_schema::DataType;
use millstream_model::{
    key::{EncodedKeys, KEY_BYTES_MAX, KeyGroup, decode_keys, encode_keys},
    state::{StateDescriptor, StateKind, TtlRefresh},
};

use crate::{
    Error, Found, KeySet, ListUpdate, MapUpdate, NEVER_REFRESHED, Span,
    generation::{Cursor, Generations, SLICE_BYTES, StoredEntry},
    key_split::{key_length, map_key_length},
    rocks::{Disk, is_over},
    row::{RowDecoder, RowEncoder, split_stored, start_form, start_stored},
    store::PAGE,
    values::check_size,
};

/// What an entry of the overlay costs beside its bytes, roughly: two boxes, and its share of a node.
const ENTRY_OVERHEAD: usize = 96;
/// Entries written to disk at a time.
const FLUSH_ENTRIES: usize = 4096;

/// A key or a value as it stands on disk.
type Bytes = Box<[u8]>;

/// One ordered-map or appended-list state.
pub(crate) struct Collection {
    pub descriptor: StateDescriptor,
    /// First two bytes of its keys on disk.
    pub prefix: u16,
    /// Its place in the order of snapshots.
    pub part: usize,
    /// All versions of the type that rows may have been written with, the present one last.
    pub versions: Vec<(u32, DataType)>,
    overlay: BTreeMap<Box<[u8]>, Entry>,
    bytes: usize,
    next_position: u64,
    swept_to: Vec<u8>,
}

#[derive(Clone)]
struct Entry {
    /// As it shall stand on disk; none: deleted there.
    stored: Option<Box<[u8]>>,
    generation: u32,
}

/// What the operations of a collection work on besides it.
pub(crate) struct Context<'a> {
    pub generations: &'a mut Generations,
    pub disk: Option<&'a Disk>,
    /// What the clock of the state's time to live shows.
    pub now: Option<i64>,
}

/// What reading all of a collection works on.
pub(crate) struct Reading<'a> {
    pub disk: Option<&'a Disk>,
    /// What the clock of the state's time to live shows.
    pub now: Option<i64>,
    pub only: Option<(&'a [u8], KeyGroup)>,
    /// The types of the columns of a key; empty: unknown.
    pub key_types: &'a [DataType],
}

/// Entries that were read: group, key and map key, and the stored value.
#[derive(Default)]
struct Entries {
    keys: EncodedKeys,
    map_keys: Vec<Bytes>,
    values: Vec<Bytes>,
}

/// Changes, checked and encoded.
pub(crate) struct Staged {
    cleared: Vec<Vec<u8>>,
    entries: Vec<(Bytes, Option<Bytes>)>,
}

impl Collection {
    pub fn new(descriptor: StateDescriptor, prefix: u16, part: usize, versions: Vec<(u32, DataType)>) -> Self {
        Self { descriptor, prefix, part, versions, overlay: BTreeMap::new(), bytes: 0, next_position: 0, swept_to: Vec::new() }
    }

    /// Memory of the overlay.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// `[prefix][group][key]`: what all entries of a key begin with.
    fn key_prefix(&self, keys: &KeySet, number: u32) -> Result<Vec<u8>, Error> {
        let number = number as usize;
        if number >= keys.len() {
            return Err(Error::InvalidUse(format!("key {number} of {} is out of range", keys.len())));
        }
        let key = keys.key_bytes(number);
        let mut out = Vec::with_capacity(4 + key.len() + 16);
        out.extend_from_slice(&self.prefix.to_be_bytes());
        out.extend_from_slice(&keys.group(number).0.to_be_bytes());
        out.extend_from_slice(key);
        Ok(out)
    }

    fn map_key_type(&self) -> DataType {
        match self.descriptor.kind {
            StateKind::OrderedMap => self.descriptor.map_key_type.clone().expect("checked when it was declared"),
            StateKind::AppendedList | StateKind::Value => DataType::UInt64,
        }
    }

    /// The bytes of map keys (lists: positions) behind a key's prefix.
    fn map_key_bytes(&self, map_keys: &ArrayRef) -> Result<Vec<Box<[u8]>>, Error> {
        let expected = self.map_key_type();
        if map_keys.data_type() != &expected {
            return Err(Error::WrongType { state: self.descriptor.name.clone(), expected, actual: map_keys.data_type().clone() });
        }
        if map_keys.null_count() > 0 {
            return Err(Error::InvalidUse(format!("a map key of state {:?} is null", self.descriptor.name)));
        }
        if self.descriptor.kind == StateKind::AppendedList {
            return Ok(map_keys
                .as_primitive::<UInt64Type>()
                .values()
                .iter()
                .map(|position| Box::from(&position.to_be_bytes()[..]))
                .collect());
        }
        let encoded = encode_keys(std::slice::from_ref(map_keys), map_keys.len()).expect("checked when it was declared");
        let bounded = |row: usize| {
            let key = encoded.key(row);
            let (hash, bytes, limit) = (encoded.hashes()[row], key.len(), KEY_BYTES_MAX);
            if bytes > limit { Err(Error::KeyTooLarge { hash, bytes, limit }) } else { Ok(Box::from(key)) }
        };
        (0..encoded.len()).map(bounded).collect()
    }

    /// One value per request.
    pub fn get(&mut self, keys: &KeySet, numbers: &[u32], map_keys: &ArrayRef, context: &mut Context<'_>) -> Result<ArrayRef, Error> {
        let map_keys = self.map_key_bytes(map_keys)?;
        if map_keys.len() != numbers.len() {
            return Err(Error::InvalidUse(format!("{} keys for {} map keys", numbers.len(), map_keys.len())));
        }
        let wanted = numbers.iter().zip(&map_keys).map(|(&number, map_key)| {
            let mut key = self.key_prefix(keys, number)?;
            key.extend_from_slice(map_key);
            Ok(key)
        });
        let wanted = wanted.collect::<Result<Vec<_>, Error>>()?;
        let found = self.look_up(&wanted, context.disk)?;
        let mut decoder = self.decoder()?;
        let mut refreshed = Vec::new();
        for (key, stored) in wanted.into_iter().zip(found) {
            match stored.filter(|stored| !self.is_over(stored, context.now)) {
                Some(stored) => {
                    self.decode(&stored, &mut decoder)?;
                    refreshed.push((key.into_boxed_slice(), stored));
                }
                None => decoder.read_null(),
            }
        }
        self.refresh(refreshed, context);
        decoder.finish().map_err(|damage| self.damaged(&damage))
    }

    fn look_up(&self, wanted: &[Vec<u8>], disk: Option<&Disk>) -> Result<Vec<Option<Box<[u8]>>>, Error> {
        let mut found: Vec<Option<Box<[u8]>>> = vec![None; wanted.len()];
        let mut unknown: Vec<(&Vec<u8>, usize)> = Vec::new();
        for (number, key) in wanted.iter().enumerate() {
            match self.overlay.get(&key[..]) {
                Some(entry) => found[number] = entry.stored.clone(),
                None => unknown.push((key, number)),
            }
        }
        let Some(disk) = disk.filter(|disk| disk.is_open() && !unknown.is_empty()) else { return Ok(found) };
        unknown.sort_unstable();
        let sorted: Vec<Vec<u8>> = unknown.iter().map(|(key, _)| (*key).clone()).collect();
        disk.get_each(&sorted, |at, stored| {
            found[unknown[at].1] = Some(stored.into());
            Ok(())
        })?;
        Ok(found)
    }

    /// The entries in the given spans.
    pub fn scan(&mut self, keys: &KeySet, spans: &[Span], bytes_max: usize, context: &mut Context<'_>) -> Result<Found, Error> {
        let mut decoder = self.decoder()?;
        let (mut of_span, mut map_keys, mut refreshed) = (Vec::new(), Vec::<Box<[u8]>>::new(), Vec::new());
        let (mut bytes, mut truncated) = (0, false);
        for (number, span) in spans.iter().enumerate() {
            let prefix = self.key_prefix(keys, span.key)?;
            let (from, to) = self.bounds(&prefix, span)?;
            let mut left = span.limit;
            let mut entries: Vec<(Bytes, Bytes)> = Vec::new();
            self.walk(&from, &to, span.newest_first, context.disk, |key, stored| {
                if left == 0 || truncated {
                    return ControlFlow::Break(());
                }
                if self.is_over(stored, context.now) {
                    return ControlFlow::Continue(());
                }
                if bytes > 0 && bytes + key.len() + stored.len() > bytes_max {
                    truncated = true;
                    return ControlFlow::Break(());
                }
                bytes += key.len() + stored.len();
                left -= 1;
                entries.push((Box::from(key), Box::from(stored)));
                ControlFlow::Continue(())
            })?;
            for (key, stored) in entries {
                self.decode(&stored, &mut decoder)?;
                of_span.push(number as u32);
                map_keys.push(key[prefix.len()..].into());
                refreshed.push((key, stored));
            }
            if truncated {
                break;
            }
        }
        self.refresh(refreshed, context);
        let values = decoder.finish().map_err(|damage| self.damaged(&damage))?;
        Ok(Found { of_span, map_keys: self.decode_map_keys(&map_keys)?, values, truncated })
    }

    fn decode_map_keys(&self, map_keys: &[Box<[u8]>]) -> Result<ArrayRef, Error> {
        if self.descriptor.kind == StateKind::AppendedList {
            let position = |bytes: &Bytes| bytes[..].try_into().map(u64::from_be_bytes).map_err(|_| self.damaged(&"a position"));
            return Ok(Arc::new(UInt64Array::from(map_keys.iter().map(position).collect::<Result<Vec<_>, Error>>()?)));
        }
        let mut columns = decode_keys(&[self.map_key_type()], map_keys.iter().map(|key| &key[..])).map_err(|error| self.damaged(&error))?;
        Ok(columns.remove(0))
    }

    /// First key of a span, and the key behind its last.
    fn bounds(&self, prefix: &[u8], span: &Span) -> Result<(Vec<u8>, Vec<u8>), Error> {
        let limit = |bound: &Option<ArrayRef>| match bound {
            None => Ok(None),
            Some(bound) if bound.len() == 1 => Ok(Some(self.map_key_bytes(bound)?.remove(0))),
            Some(bound) => Err(Error::InvalidUse(format!("a bound of a scan has {} values instead of one", bound.len()))),
        };
        let mut from = prefix.to_vec();
        if let Some(after) = limit(&span.after)? {
            from.extend_from_slice(&after);
            from.push(0);
        }
        let to = match limit(&span.before)? {
            Some(before) => [prefix, &before[..]].concat(),
            None => successor(prefix),
        };
        Ok((from, to))
    }

    /// Visits the entries with `from` ≤ key < `to`, overlay over disk, deleted ones left out.
    fn walk(
        &self,
        from: &[u8],
        to: &[u8],
        backwards: bool,
        disk: Option<&Disk>,
        mut visit: impl FnMut(&[u8], &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        if from >= to {
            return Ok(());
        }
        let range = self.overlay.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)));
        let mut overlay: Box<dyn Iterator<Item = (&Box<[u8]>, &Entry)>> = if backwards { Box::new(range.rev()) } else { Box::new(range) };
        let mut next = overlay.next();
        let mut stopped = false;
        let comes_first = |key: &[u8], other: &[u8]| if backwards { key > other } else { key < other };
        if let Some(disk) = disk {
            disk.scan(from, to, backwards, |key, stored| {
                let mut hidden = false;
                while let Some((own, entry)) = next.filter(|(own, _)| !comes_first(key, own)) {
                    hidden |= **own == *key;
                    if let Some(stored) = &entry.stored
                        && visit(own, stored).is_break()
                    {
                        stopped = true;
                        return ControlFlow::Break(());
                    }
                    next = overlay.next();
                }
                if !hidden && visit(key, stored).is_break() {
                    stopped = true;
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
        }
        while let Some((own, entry)) = next.filter(|_| !stopped) {
            if let Some(stored) = &entry.stored
                && visit(own, stored).is_break()
            {
                break;
            }
            next = overlay.next();
        }
        Ok(())
    }

    /// Checks and encodes the entries of a map: everything that can fail, before anything is changed.
    pub fn stage_map(&self, keys: &KeySet, update: &MapUpdate, now: Option<i64>) -> Result<Staged, Error> {
        let map_keys = self.map_key_bytes(&update.map_keys)?;
        let entries = update.keys.len();
        if map_keys.len() != entries || update.values.len() != entries || update.deleted.len() != entries {
            return Err(Error::InvalidUse(format!("a change of state {:?} has parts of different lengths", self.descriptor.name)));
        }
        let values = self.encoder(&update.values)?;
        let entry = |at: usize| {
            let mut key = self.key_prefix(keys, update.keys[at])?;
            key.extend_from_slice(&map_keys[at]);
            let deleted = update.deleted.value(at);
            let stored =
                (!deleted).then(|| self.encode(&values, &update.values, at, keys.hash(update.keys[at] as usize), now)).transpose()?;
            Ok((key.into_boxed_slice(), stored))
        };
        Ok(Staged { cleared: Vec::new(), entries: (0..entries).map(entry).collect::<Result<_, Error>>()? })
    }

    /// Checks and encodes the changes of lists.
    pub fn stage_list(&mut self, keys: &KeySet, update: &ListUpdate, now: Option<i64>) -> Result<Staged, Error> {
        if update.values.len() != update.keys.len() || !update.cleared.is_empty() && update.cleared.len() != keys.len() {
            return Err(Error::InvalidUse(format!("a change of state {:?} has parts of different lengths", self.descriptor.name)));
        }
        let cleared = update.cleared.set_indices().map(|number| self.key_prefix(keys, number as u32)).collect::<Result<_, Error>>()?;
        let values = self.encoder(&update.values)?;
        let element = |(at, &number): (usize, &u32)| {
            let mut key = self.key_prefix(keys, number)?;
            key.extend_from_slice(&(self.next_position + at as u64).to_be_bytes());
            let stored = self.encode(&values, &update.values, at, keys.hash(number as usize), now)?;
            Ok((key.into_boxed_slice(), Some(stored)))
        };
        let entries = update.keys.iter().enumerate().map(element).collect::<Result<Vec<_>, Error>>()?;
        self.next_position += entries.len() as u64;
        Ok(Staged { cleared, entries })
    }

    fn encoder<'a>(&self, values: &'a ArrayRef) -> Result<RowEncoder<'a>, Error> {
        if values.data_type() != &self.descriptor.value_type {
            let (expected, actual) = (self.descriptor.value_type.clone(), values.data_type().clone());
            return Err(Error::WrongType { state: self.descriptor.name.clone(), expected, actual });
        }
        Ok(RowEncoder::new(values).expect("declared types have a row encoding"))
    }

    fn encode(&self, encoder: &RowEncoder<'_>, values: &ArrayRef, at: usize, hash: u64, now: Option<i64>) -> Result<Box<[u8]>, Error> {
        if values.is_null(at) {
            return Err(Error::InvalidUse(format!("a value of state {:?} is null", self.descriptor.name)));
        }
        let mut stored = Vec::new();
        start_stored(self.descriptor.ttl.map(|_| now.unwrap_or(NEVER_REFRESHED)), self.descriptor.version, &mut stored);
        encoder.write(at, &mut stored);
        check_size(&self.descriptor.name, stored.len(), || hash)?;
        Ok(stored.into())
    }

    /// Applies staged changes. Clearing a list that is on disk reads its positions.
    pub fn write(&mut self, staged: Staged, context: &mut Context<'_>) -> Result<(), Error> {
        for prefix in staged.cleared {
            let mut entries = Vec::new();
            self.walk(&prefix, &successor(&prefix), false, context.disk, |key, _| {
                entries.push(Box::from(key));
                ControlFlow::Continue(())
            })?;
            entries.into_iter().for_each(|key| self.put(key, None, context));
        }
        staged.entries.into_iter().for_each(|(key, stored)| self.put(key, stored, context));
        Ok(())
    }

    fn put(&mut self, key: Box<[u8]>, stored: Option<Box<[u8]>>, context: &mut Context<'_>) {
        let cost = |key: &[u8], entry: &Entry| ENTRY_OVERHEAD + key.len() + entry.stored.as_ref().map_or(0, |stored| stored.len());
        if let Some(before) = self.overlay.remove(&key) {
            self.bytes -= cost(&key, &before);
            if context.generations.is_old(before.generation) && context.generations.is_key_ahead(self.part, &key) {
                context.generations.keep_copies([StoredEntry { key: key.clone(), value: before.stored }]);
            }
        }
        if stored.is_none() && !self.deletion_needs_mark(context) {
            return;
        }
        let entry = Entry { stored, generation: context.generations.current() };
        self.bytes += cost(&key, &entry);
        self.overlay.insert(key, entry);
    }

    /// A deletion leaves a mark if the disk may hold the entry, or will once the snapshot under way is taken.
    fn deletion_needs_mark(&self, context: &Context<'_>) -> bool {
        context.disk.is_some_and(|disk| disk.is_open() || context.generations.writes_to_disk())
    }

    /// Entries that were read live longer, if the state is declared so.
    fn refresh(&mut self, read: Vec<(Bytes, Bytes)>, context: &mut Context<'_>) {
        let (Some(ttl), Some(now)) = (self.descriptor.ttl, context.now) else { return };
        for (key, stored) in read {
            let Some(parts) = split_stored(&stored) else { continue };
            let before = parts.refreshed.unwrap_or(NEVER_REFRESHED);
            if before == NEVER_REFRESHED || ttl.refresh == TtlRefresh::OnRead && now > before {
                let mut refreshed = Vec::with_capacity(stored.len());
                start_form(Some(now), &mut refreshed);
                refreshed.extend_from_slice(parts.versioned);
                self.put(key, Some(refreshed.into()), context);
            }
        }
    }

    fn is_over(&self, stored: &[u8], now: Option<i64>) -> bool {
        let Some(ttl) = self.descriptor.ttl else { return false };
        split_stored(stored).and_then(|stored| stored.refreshed).is_some_and(|refreshed| is_over(ttl, refreshed, now))
    }

    fn decode(&self, stored: &[u8], decoder: &mut RowDecoder) -> Result<(), Error> {
        let stored = split_stored(stored).ok_or_else(|| self.damaged(&"its head"))?;
        decoder.read(stored.version, stored.body).map_err(|damage| self.damaged(&damage))
    }

    fn decoder(&self) -> Result<RowDecoder, Error> {
        let versions = self.versions.iter().map(|(version, data_type)| (*version, data_type));
        RowDecoder::new(versions, &self.descriptor.value_type).map_err(|error| self.damaged(&error))
    }

    fn damaged(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Corrupt { of: self.descriptor.name.clone(), reason: reason.to_string() }
    }

    /// Looks at some entries in memory, on from where it stopped last, and deletes those that are over.
    pub fn sweep(&mut self, entries: usize, context: &mut Context<'_>) {
        if self.descriptor.ttl.is_none() || self.overlay.is_empty() {
            return;
        }
        let from = std::mem::take(&mut self.swept_to);
        let looked_at: Vec<&Box<[u8]>> =
            self.overlay.range::<[u8], _>((Bound::Excluded(&from[..]), Bound::Unbounded)).take(entries).map(|(key, _)| key).collect();
        if looked_at.len() == entries {
            self.swept_to = looked_at[entries - 1].to_vec();
        }
        let over = |key: &&&Bytes| self.overlay[**key].stored.as_ref().is_some_and(|stored| self.is_over(stored, context.now));
        let over: Vec<Box<[u8]>> = looked_at.iter().filter(over).map(|key| (*key).clone()).collect();
        over.into_iter().for_each(|key| self.put(key, None, context));
    }

    /// Writes to disk what may leave memory, and drops it.
    pub fn flush(&mut self, disk: &mut Disk, generations: &Generations) -> Result<(), Error> {
        let (leaving, staying): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.overlay).into_iter().partition(|(_, entry)| generations.may_leave(entry.generation));
        self.overlay = staying.into_iter().collect();
        let unsaved = leaving.into_iter().filter(|(_, entry)| !generations.is_durable(entry.generation));
        let unsaved: Vec<StoredEntry> = unsaved.map(|(key, entry)| StoredEntry { key, value: entry.stored }).collect();
        for chunk in unsaved.chunks(FLUSH_ENTRIES) {
            disk.write(chunk)?;
        }
        let cost = |(key, entry): (&Bytes, &Entry)| ENTRY_OVERHEAD + key.len() + entry.stored.as_ref().map_or(0, |stored| stored.len());
        self.bytes = self.overlay.iter().map(cost).sum();
        Ok(())
    }

    /// Some entries of the snapshot under way from `from` on, and where to go on; none: that was all.
    pub fn owed(&self, from: &Cursor, limit: usize, generations: &Generations) -> (Vec<StoredEntry>, Option<Cursor>) {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        for (looked_at, (key, entry)) in self.overlay.range::<[u8], _>((Bound::Included(&from.key[..]), Bound::Unbounded)).enumerate() {
            if looked_at >= limit || bytes >= SLICE_BYTES {
                return (entries, Some(Cursor { part: self.part, key: key.to_vec(), slot: 0 }));
            }
            if generations.is_old(entry.generation) {
                let owed = StoredEntry { key: key.clone(), value: entry.stored.clone() };
                bytes += owed.len();
                entries.push(owed);
            }
        }
        (entries, None)
    }

    /// Visits all entries, page by page, with their keys and map keys.
    pub fn read_all(
        &self,
        reading: &Reading<'_>,
        mut visit: impl FnMut(EncodedKeys, ArrayRef, ArrayRef) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let mut from = self.prefix.to_be_bytes().to_vec();
        if let Some((key, group)) = reading.only {
            from.extend_from_slice(&group.0.to_be_bytes());
            from.extend_from_slice(key);
        }
        let mut entries = Entries::default();
        let mut result = Ok(ControlFlow::Continue(()));
        self.walk(&from, &successor(&from), false, reading.disk, |key, stored| {
            if self.is_over(stored, reading.now) {
                return ControlFlow::Continue(());
            }
            result = self.split_key(&key[2..], reading).map(|(group, key, map_key)| {
                entries.keys.push_in_group(key, group);
                entries.map_keys.push(map_key.into());
                entries.values.push(stored.into());
                ControlFlow::Continue(())
            });
            if result.is_ok() && entries.values.len() == PAGE {
                result = self.visit_page(std::mem::take(&mut entries), &mut visit);
            }
            if matches!(result, Ok(ControlFlow::Continue(()))) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        if result?.is_continue() && !entries.values.is_empty() {
            // It was the last page either way.
            let _ = self.visit_page(entries, &mut visit)?;
        }
        Ok(())
    }

    fn visit_page(
        &self,
        entries: Entries,
        visit: &mut impl FnMut(EncodedKeys, ArrayRef, ArrayRef) -> Result<ControlFlow<()>, Error>,
    ) -> Result<ControlFlow<()>, Error> {
        let mut decoder = self.decoder()?;
        entries.values.iter().try_for_each(|stored| self.decode(stored, &mut decoder))?;
        let values = decoder.finish().map_err(|damage| self.damaged(&damage))?;
        visit(entries.keys, self.decode_map_keys(&entries.map_keys)?, values)
    }

    /// Group, key and map key of an entry, whose prefix is left out.
    fn split_key<'k>(&self, entry: &'k [u8], reading: &Reading<'_>) -> Result<(KeyGroup, &'k [u8], &'k [u8]), Error> {
        let (group, rest) = entry.split_first_chunk::<2>().ok_or_else(|| self.damaged(&"a key is too short"))?;
        let fixed = match (self.descriptor.kind, &self.descriptor.map_key_type) {
            (StateKind::OrderedMap, Some(map_key)) => map_key_length(map_key),
            _ => Some(size_of::<u64>()),
        };
        let at = match (reading.only, fixed) {
            (Some((key, _)), _) => Some(key.len()),
            (None, Some(length)) => rest.len().checked_sub(length),
            (None, None) if reading.key_types.is_empty() => {
                let reason = format!(
                    "the map keys of state {:?} are of variable length, and the types of its keys are not known",
                    self.descriptor.name
                );
                return Err(Error::InvalidUse(reason));
            }
            (None, None) => key_length(reading.key_types, rest),
        };
        let (key, map_key) = at.and_then(|at| rest.split_at_checked(at)).ok_or_else(|| self.damaged(&"a key is too short"))?;
        Ok((KeyGroup(u16::from_be_bytes(*group)), key, map_key))
    }

    /// The position that the next element of a list gets; never less than before.
    pub fn next_position(&self) -> u64 {
        self.next_position
    }

    /// Positions below this one were given out.
    pub fn skip_positions(&mut self, next: u64) {
        self.next_position = self.next_position.max(next);
    }

    /// Takes in an entry of a snapshot, as it stood on disk under this state's prefix.
    pub fn put_stored(&mut self, key: Box<[u8]>, stored: Box<[u8]>, context: &mut Context<'_>) {
        self.put(key, Some(stored), context);
    }

    /// Continues `before`: a version of the same state that was declared earlier.
    pub fn take_over(&mut self, before: Self) {
        (self.overlay, self.bytes, self.next_position) = (before.overlay, before.bytes, before.next_position);
    }
}

/// The least key that is greater than all keys that begin with `prefix`.
pub(crate) fn successor(prefix: &[u8]) -> Vec<u8> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xff).expect("prefix 0xffff is never given out");
    let mut next = prefix[..=kept].to_vec();
    next[kept] += 1;
    next
}
