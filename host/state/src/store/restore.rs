//! Making a store from a snapshot: of the same subtask, or, at another parallelism, from the parts that cover its key groups.
//!
//! States and timers are found by name; the declarations of the snapshot become the given ones by the rules of [`KeyedStore::redeclare`], and
//! what is no longer declared is forgotten. Of the parts with a database the largest is linked into place and opened, and what it has of other
//! key groups is deleted by ranges; the databases of the others are copied into it. What lies in the parts' own files goes to memory.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use millstream_model::{
    key::{EncodedKeys, KEY_BYTES_MAX, KEY_GROUPS, KeyGroup},
    state::{Clock, StateDescriptor, TimerDescriptor},
};

use super::{
    KeyedStore, Migrate, State, StoreSettings,
    migrate::{Migrated, Migration},
};
use crate::{
    Error, SnapshotPart, collections, declare,
    declare::Prefixes,
    rocks::{PartReader, table_bytes},
    snapshot::{ENTRIES_FILE, EntriesReader, FilesForm},
    timers::split_disk_key,
    values,
};

/// Values taken into the key table together, and entries after which room is made.
const PAGE: usize = 4096;

/// What the entries with a prefix in a part belong to, by its number in the declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    State(usize),
    Timer(usize),
}

/// The owners in one part by prefix; those of forgotten names are missing.
type Owners = HashMap<u16, Owner>;

impl KeyedStore {
    /// A store that holds what `parts` hold of `groups`, which they must cover together, each key group once; no parts: an empty store.
    /// [`crate::StoreDescription::states_missing_in`] tells what will be forgotten.
    ///
    /// # Errors
    /// [`Error::Corrupt`]: files are missing or damaged, or the parts do not cover the key groups; [`Error::NewerFormat`];
    /// [`Error::InvalidDeclaration`], [`Error::Incompatible`] as for [`Self::redeclare`]; [`Error::OutOfBudget`], [`Error::Backend`].
    pub fn restore(
        settings: &StoreSettings,
        groups: Range<u16>,
        parts: &[SnapshotPart],
        states: Vec<StateDescriptor>,
        timers: Vec<TimerDescriptor>,
    ) -> Result<Self, Error> {
        Self::restore_from(settings, groups, parts, (states, timers), None)
    }

    /// [`Self::restore`] for an operator that migrates what no rule can read ([`crate::StoreDescription::states_to_migrate`]); the whole state
    /// is read and written, so this may take long.
    ///
    /// # Errors
    /// As [`Self::restore`]; [`Error::Migration`], [`Error::ValueTooLarge`].
    pub fn restore_migrating(
        settings: &StoreSettings,
        groups: Range<u16>,
        parts: &[SnapshotPart],
        states: Vec<StateDescriptor>,
        timers: Vec<TimerDescriptor>,
        migrate: &mut dyn Migrate,
    ) -> Result<Self, Error> {
        Self::restore_from(settings, groups, parts, (states, timers), Some(migrate))
    }

    fn restore_from(
        settings: &StoreSettings,
        groups: Range<u16>,
        parts: &[SnapshotPart],
        (states, timers): (Vec<StateDescriptor>, Vec<TimerDescriptor>),
        migrate: Option<&mut dyn Migrate>,
    ) -> Result<Self, Error> {
        let parts = parts_of(&groups, parts)?;
        let mut store = Self::empty(settings, groups);
        let base = store.choose_base(&parts)?;
        store.prefixes = join_prefixes(&parts, base)?;
        for part in &parts {
            declare::check_kinds(&part.description.state_descriptors()?, &states)?;
        }
        let mut migrating = Migrating { names: BTreeSet::new(), migrate };
        if migrating.migrate.is_some() {
            migrating.names = names_to_migrate(&parts, &states)?;
            migrating.names.iter().for_each(|name| store.prefixes.forget_state(name));
        }
        store.restore_clocks(&parts);
        if let Some(part) = parts.first() {
            store.key_types = part.description.key_types()?;
        }
        store.declare(states, timers)?;
        store.restore_positions(&parts);
        // What is brought to disk now is not in memory; warming changes that, if it can.
        store.is_covered = parts.iter().all(|part| part.description.files == FilesForm::Entries);
        if let Some(base) = base {
            store.link(parts[base], &migrating.names)?;
        }
        for (number, part) in parts.iter().enumerate() {
            if part.description.files == FilesForm::RocksDb {
                store.copy_database(part, base == Some(number), &mut migrating)?;
            }
        }
        if let Some(disk) = &store.disk {
            store.timers.find_horizons(disk)?;
        }
        for part in parts.iter().filter(|part| part.description.entries > 0) {
            store.load_entries(part, &mut migrating)?;
        }
        if !store.is_covered {
            store.begin_warm()?;
        }
        store.make_room()?;
        Ok(store)
    }

    /// The part whose database becomes that of this store; none: no part has one, or this store has nowhere to put it.
    fn choose_base(&self, parts: &[&SnapshotPart]) -> Result<Option<usize>, Error> {
        let mut largest = None;
        for (number, part) in parts.iter().enumerate() {
            if self.disk.is_some() && part.description.files == FilesForm::RocksDb {
                let bytes = table_bytes(&part.directory)?;
                largest = largest.max(Some((bytes, number)));
            }
        }
        Ok(largest.map(|(_, number)| number))
    }

    /// Event time as the subtask that was furthest behind had seen it, as for watermarks; processing time does not go back.
    fn restore_clocks(&self, parts: &[&SnapshotPart]) {
        if let Some(time) = parts.iter().filter_map(|part| part.description.event_time).min() {
            self.expiry.advance(Clock::EventTime, time);
        }
        if let Some(time) = parts.iter().filter_map(|part| part.description.processing_time).max() {
            self.expiry.advance(Clock::ProcessingTime, time);
        }
    }

    fn restore_positions(&mut self, parts: &[&SnapshotPart]) {
        for state in &mut self.states {
            let State::Collection(collection) = state else { continue };
            for before in parts.iter().flat_map(|part| &part.description.states) {
                if before.name == collection.descriptor.name {
                    collection.skip_positions(before.next_position);
                }
            }
        }
    }

    fn owners(&self, part: &SnapshotPart) -> Owners {
        let state = |name: &str| self.states.iter().position(|state| state.descriptor().name == name).map(Owner::State);
        let timer = |name: &str| self.timers.declared().position(|(timer, _)| timer.name == name).map(Owner::Timer);
        let states = part.description.states.iter().filter_map(|before| Some((before.prefix, state(&before.name)?)));
        let timers = part.description.timers.iter().filter_map(|before| Some((before.prefix, timer(&before.name)?)));
        states.chain(timers).collect()
    }

    fn is_among(&self, owner: Owner, names: &BTreeSet<String>) -> bool {
        matches!(owner, Owner::State(number) if names.contains(&self.declared[number].name))
    }

    fn prefix_of(&self, owner: Owner) -> u16 {
        match owner {
            Owner::State(number) => self.states[number].prefix(),
            Owner::Timer(number) => self.timers.declared().nth(number).expect("an owner is declared").1,
        }
    }

    /// Takes over the database of a part, without what is forgotten, what is migrated and what belongs to other subtasks.
    fn link(&mut self, part: &SnapshotPart, migrated: &BTreeSet<String>) -> Result<(), Error> {
        let mut owners = self.owners(part);
        owners.retain(|_, owner| !self.is_among(*owner, migrated));
        let names = part.description.states.iter().map(|state| state.prefix);
        let forgotten: Vec<u16> =
            names.chain(part.description.timers.iter().map(|timer| timer.prefix)).filter(|prefix| !owners.contains_key(prefix)).collect();
        let disk = self.disk.as_mut().expect("only a store with a disk has a base");
        self.tables = disk.begin_with(&part.directory)?;
        for prefix in forgotten {
            disk.delete_range(&prefix.to_be_bytes(), &(prefix + 1).to_be_bytes())?;
        }
        if part.key_groups.start >= self.groups.start && part.key_groups.end <= self.groups.end {
            return Ok(());
        }
        for (&prefix, owner) in &owners {
            match owner {
                Owner::State(_) => {
                    disk.delete_range(&group_key(prefix, 0), &group_key(prefix, self.groups.start))?;
                    disk.delete_range(&group_key(prefix, self.groups.end), &(prefix + 1).to_be_bytes())?;
                }
                Owner::Timer(_) => disk.delete_timers(prefix, |group| !self.groups.contains(&group.0))?,
            }
        }
        Ok(())
    }

    /// Takes in what the database of a part has of our key groups: into our own, or into memory if there is none. Of the base only what is
    /// migrated.
    fn copy_database(&mut self, part: &SnapshotPart, is_base: bool, migrating: &mut Migrating<'_>) -> Result<(), Error> {
        let mut owners = self.owners(part);
        owners.retain(|_, owner| !is_base || self.is_among(*owner, &migrating.names));
        if owners.is_empty() {
            return Ok(());
        }
        let reader = PartReader::open(&part.directory)?;
        let mut loading = self.loading(part, migrating)?;
        for (&prefix, &owner) in &owners {
            let groups = self.groups.clone();
            let (from, to) = match owner {
                Owner::State(_) => (group_key(prefix, groups.start), group_key(prefix, groups.end)),
                Owner::Timer(_) => (prefix.to_be_bytes().to_vec(), (prefix + 1).to_be_bytes().to_vec()),
            };
            let own = self.prefix_of(owner).to_be_bytes();
            let mut own_key = Vec::new();
            match &mut self.disk {
                Some(disk) => disk.write_many(|put| {
                    let mut put = |key: &[u8], value: &[u8]| {
                        own_key.clear();
                        own_key.extend_from_slice(&own);
                        own_key.extend_from_slice(key);
                        put(&own_key, Some(value))
                    };
                    reader.scan(&from, &to, |key, value| match owner {
                        Owner::State(number) => loading.migrate(number, &key[2..], value, &mut put),
                        Owner::Timer(_) if split_disk_key(key).is_none_or(|(_, group, _)| !groups.contains(&group.0)) => Ok(()),
                        Owner::Timer(_) => put(&key[2..], value),
                    })?;
                    loading.migrate_rest(owner, &mut put)
                })?,
                None => reader.scan(&from, &to, |key, value| self.load_entry(&mut loading, owner, &key[2..], Some(value)))?,
            }
        }
        self.end_loading(loading)
    }

    /// Takes in what the own file of a part has of our key groups.
    fn load_entries(&mut self, part: &SnapshotPart, migrating: &mut Migrating<'_>) -> Result<(), Error> {
        let path = part.directory.join(ENTRIES_FILE);
        let mut entries = EntriesReader::open(&path, part.description.entries)?;
        let owners = self.owners(part);
        let mut loading = self.loading(part, migrating)?;
        while let Some((key, value)) = entries.next()? {
            let Some((prefix, key)) = key.split_first_chunk::<2>() else {
                return Err(Error::damaged_file(&path, "a key is too short"));
            };
            if let Some(&owner) = owners.get(&u16::from_be_bytes(*prefix)) {
                self.load_entry(&mut loading, owner, key, value)?;
            }
        }
        self.end_loading(loading)
    }

    /// Takes in one entry, `key` without its prefix. Deletions matter only to timers: memory was empty before.
    fn load_entry(&mut self, loading: &mut Loading<'_, '_>, owner: Owner, key: &[u8], value: Option<&[u8]>) -> Result<(), Error> {
        match owner {
            Owner::Timer(number) => {
                let is_good = self.timers.put_stored(number, key, value.is_some(), &self.groups, &mut self.generations);
                if is_good { loading.count(self) } else { Err(loading.damaged()) }
            }
            Owner::State(number) => {
                let (group, _) = key.split_first_chunk::<2>().ok_or_else(|| loading.damaged())?;
                let Some(value) = value.filter(|_| self.groups.contains(&u16::from_be_bytes(*group))) else { return Ok(()) };
                if loading.migrations[number].is_none() {
                    return self.load_value(loading, number, key, value.to_vec());
                }
                let mut migrated = Vec::new();
                loading.migrate(number, key, value, &mut |key, value| {
                    migrated.push((Box::from(key), value.to_vec()));
                    Ok(())
                })?;
                self.load_values(loading, number, migrated)
            }
        }
    }

    /// Takes in values of a state in their present type.
    fn load_values(&mut self, loading: &mut Loading<'_, '_>, number: usize, entries: Vec<Migrated>) -> Result<(), Error> {
        entries.into_iter().try_for_each(|(key, value)| self.load_value(loading, number, &key, value))
    }

    fn load_value(&mut self, loading: &mut Loading<'_, '_>, number: usize, key: &[u8], value: Vec<u8>) -> Result<(), Error> {
        let (group, bytes) = key.split_first_chunk::<2>().ok_or_else(|| loading.damaged())?;
        match &mut self.states[number] {
            State::Value(_) => {
                if bytes.len() > KEY_BYTES_MAX {
                    return Err(loading.damaged());
                }
                let page = &mut loading.pages[number];
                page.keys.push_in_group(bytes, KeyGroup(u16::from_be_bytes(*group)));
                page.values.push(value);
                if page.values.len() < PAGE { Ok(()) } else { self.take_in_page(loading, number) }
            }
            State::Collection(collection) => {
                let key = [&collection.prefix.to_be_bytes()[..], key].concat();
                let mut context = collections::Context { generations: &mut self.generations, disk: self.disk.as_ref(), now: None };
                collection.put_stored(key.into(), value.into(), &mut context);
                loading.count(self)
            }
        }
    }

    fn take_in_page(&mut self, loading: &mut Loading<'_, '_>, number: usize) -> Result<(), Error> {
        let page = std::mem::take(&mut loading.pages[number]);
        let keys = self.resolve(page.keys)?;
        if keys.len() < page.values.len() {
            return Err(Error::damaged_file(&loading.part.directory, "a key comes twice"));
        }
        let found: Vec<_> = keys.slots.iter().copied().zip(page.values).collect();
        let State::Value(value) = &mut self.states[number] else { return Ok(()) };
        let (table, generations, disk) = (&mut self.table, &mut self.generations, self.disk.as_ref());
        value.take_in_changed(&found, &mut values::Context { table, generations, disk, now: None })
    }

    fn loading<'a, 'm>(&self, part: &'a SnapshotPart, migrating: &'a mut Migrating<'m>) -> Result<Loading<'a, 'm>, Error> {
        let mut migrations = Vec::new();
        for state in &self.declared {
            let before = part.description.states.iter().find(|before| before.name == state.name);
            let before = before.filter(|_| migrating.names.contains(&state.name));
            migrations.push(before.map(|before| Migration::new(before, state)).transpose()?);
        }
        let pages = self.states.iter().map(|_| Page::default()).collect();
        Ok(Loading { part, migrating, migrations, pages, loaded: 0 })
    }

    fn end_loading(&mut self, mut loading: Loading<'_, '_>) -> Result<(), Error> {
        for number in 0..self.states.len() {
            let mut migrated = Vec::new();
            loading.migrate_rest(Owner::State(number), &mut |key, value| {
                migrated.push((Box::from(key), value.to_vec()));
                Ok(())
            })?;
            self.load_values(&mut loading, number, migrated)?;
        }
        (0..self.states.len())
            .filter(|&number| !loading.pages[number].values.is_empty())
            .collect::<Vec<_>>()
            .into_iter()
            .try_for_each(|number| self.take_in_page(&mut loading, number))
    }
}

/// The states that the operator itself migrates.
struct Migrating<'m> {
    names: BTreeSet<String>,
    /// None: it cannot.
    migrate: Option<&'m mut dyn Migrate>,
}

/// Entries of a part on their way into memory.
struct Loading<'a, 'm> {
    part: &'a SnapshotPart,
    migrating: &'a mut Migrating<'m>,
    /// By the number of the state; none: its values stay as they are.
    migrations: Vec<Option<Migration>>,
    /// By the number of the state.
    pages: Vec<Page>,
    loaded: usize,
}

#[derive(Default)]
struct Page {
    keys: EncodedKeys,
    values: Vec<Vec<u8>>,
}

/// Where an entry goes: its key without the prefix, and its value as it shall be stored.
type Emit<'e> = dyn FnMut(&[u8], &[u8]) -> Result<(), Error> + 'e;

impl Loading<'_, '_> {
    /// Emits an entry of a state as it is; if the state is migrated, so many at a time.
    fn migrate(&mut self, number: usize, key: &[u8], value: &[u8], emit: &mut Emit<'_>) -> Result<(), Error> {
        let Some(migration) = &mut self.migrations[number] else { return emit(key, value) };
        if migration.push(key, value)? { self.migrate_rest(Owner::State(number), emit) } else { Ok(()) }
    }

    /// Emits what is left of a state.
    fn migrate_rest(&mut self, owner: Owner, emit: &mut Emit<'_>) -> Result<(), Error> {
        let Owner::State(number) = owner else { return Ok(()) };
        let (Some(migration), Some(migrate)) = (&mut self.migrations[number], &mut self.migrating.migrate) else { return Ok(()) };
        migration.take(&mut **migrate)?.iter().try_for_each(|(key, value)| emit(key, value))
    }

    fn damaged(&self) -> Error {
        Error::damaged_file(&self.part.directory, "a key is no key of a state or timer")
    }

    /// An entry went to memory.
    fn count(&mut self, store: &mut KeyedStore) -> Result<(), Error> {
        self.loaded += 1;
        if self.loaded.is_multiple_of(PAGE) { store.make_room() } else { Ok(()) }
    }
}

/// The parts that have some of the key groups.
///
/// # Errors
/// A description is damaged or newer, or a key group is in no part or in two.
fn parts_of<'a>(groups: &Range<u16>, parts: &'a [SnapshotPart]) -> Result<Vec<&'a SnapshotPart>, Error> {
    let mut overlapping: Vec<&SnapshotPart> =
        parts.iter().filter(|part| part.key_groups.start < groups.end && part.key_groups.end > groups.start).collect();
    overlapping.sort_by_key(|part| part.key_groups.start);
    let mut covered = groups.start;
    for part in &overlapping {
        part.description.check()?;
        let range = &part.key_groups;
        let fits = if covered == groups.start { range.start <= covered } else { range.start == covered };
        if !fits || range.end > KEY_GROUPS {
            return Err(Error::damaged_file(
                &part.directory,
                format!("it covers the key groups {range:?}, where one from {covered} on is needed"),
            ));
        }
        covered = range.end;
    }
    if !parts.is_empty() && covered < groups.end {
        return Err(Error::Corrupt {
            of: "the snapshot".into(),
            reason: format!("no part covers the key groups {covered}..{}", groups.end),
        });
    }
    Ok(overlapping)
}

fn names_to_migrate(parts: &[&SnapshotPart], states: &[StateDescriptor]) -> Result<BTreeSet<String>, Error> {
    let mut names = BTreeSet::new();
    for part in parts {
        names.extend(part.description.states_to_migrate(states)?.into_iter().map(String::from));
    }
    Ok(names)
}

/// The prefixes of the base as they are, and for names that only other parts have new ones.
fn join_prefixes(parts: &[&SnapshotPart], base: Option<usize>) -> Result<Prefixes, Error> {
    let mut prefixes = match base {
        Some(base) => Prefixes::of_snapshot(&parts[base].description)?,
        None => Prefixes::default(),
    };
    parts.iter().try_for_each(|part| prefixes.join(&part.description))?;
    Ok(prefixes)
}

/// Where the entries of a state begin that belong to a key group; behind the last group: where they all end.
pub(super) fn group_key(prefix: u16, group: u16) -> Vec<u8> {
    [prefix.to_be_bytes(), group.to_be_bytes()].concat()
}
