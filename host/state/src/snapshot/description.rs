//! What the files of a snapshot hold.

use std::collections::BTreeSet;

use arrow_schema::DataType;
use millstream_model::{
    state::{Clock, StateDescriptor, StateKind, StateScope, TimerDescriptor, Ttl},
    types::{parse_type, type_text, without_metadata},
};
use serde::{Deserialize, Serialize};

use crate::{Error, declare};

/// The layout of the files that this version writes.
const FORMAT: u32 = 1;

/// Names, types and versions of what the files of a snapshot hold: everything that is needed to read them again, also by another version of the
/// operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoreDescription {
    /// Version of the layout of the files; readers refuse a newer one by name.
    pub format: u32,
    /// Which files there are.
    pub files: FilesForm,
    /// Number of entries in the file `entries`; 0: there is no such file.
    pub entries: u64,
    /// Names on disk from this one on were never given to a state or timer.
    pub next_prefix: u16,
    /// The types of the columns of a key, by the grammar of `wit/types.md`; empty: nobody told the store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_types: Vec<String>,
    /// The states that were declared.
    pub states: Vec<StateDescription>,
    /// The timers that were declared.
    pub timers: Vec<TimerDescription>,
    /// The event time by which times to live had been measured, ms since epoch.
    pub event_time: Option<i64>,
    /// The same for processing time.
    pub processing_time: Option<i64>,
}

/// Which files a snapshot has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FilesForm {
    /// All entries are in the file `entries`.
    Entries,
    /// A RocksDB database, and beside it `entries`, which holds timers: those of the database come first, those of the file change them.
    RocksDb,
}

/// A state in a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StateDescription {
    /// Its name in the declaration.
    pub name: String,
    /// What the keys of its entries begin with.
    pub prefix: u16,
    /// What it holds per key.
    pub kind: StateKind,
    /// The type of the keys of an ordered map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map_key_type: Option<String>,
    /// The types that values may have been written with, by the grammar of `wit/types.md`; the declared one last.
    pub versions: Vec<(u32, String)>,
    /// Its time to live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Ttl>,
    /// A list's: positions from this one on were never given to an element.
    #[serde(default)]
    pub next_position: u64,
}

/// A timer in a snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TimerDescription {
    /// Its name in the declaration.
    pub name: String,
    /// What its entries begin with.
    pub prefix: u16,
    /// The clock that fires it.
    pub clock: Clock,
}

/// A description without any state.
impl Default for StoreDescription {
    fn default() -> Self {
        Self {
            format: FORMAT,
            files: FilesForm::Entries,
            entries: 0,
            next_prefix: 1,
            key_types: Vec::new(),
            states: Vec::new(),
            timers: Vec::new(),
            event_time: None,
            processing_time: None,
        }
    }
}

impl StoreDescription {
    /// The names of the states that the snapshot has and a declaration lacks: restoring with it forgets them.
    pub fn states_missing_in<'a>(&'a self, declared: &[StateDescriptor]) -> Vec<&'a str> {
        let is_missing = |name: &&str| declared.iter().all(|state| state.name != *name);
        self.states.iter().map(|state| &state.name[..]).filter(is_missing).collect()
    }

    /// The same for timers.
    pub fn timers_missing_in<'a>(&'a self, declared: &[TimerDescriptor]) -> Vec<&'a str> {
        let is_missing = |name: &&str| declared.iter().all(|timer| timer.name != *name);
        self.timers.iter().map(|timer| &timer.name[..]).filter(is_missing).collect()
    }

    /// The names of the states whose values no rule can read as declared: only an operator's own migration can.
    ///
    /// # Errors
    /// [`Error::Incompatible`]: a type changed, but its version did not; [`Error::Corrupt`], [`Error::NewerFormat`].
    pub fn states_to_migrate(&self, declared: &[StateDescriptor]) -> Result<Vec<&str>, Error> {
        self.check()?;
        let mut names = Vec::new();
        for before in &self.states {
            if let Some(state) = declared.iter().find(|state| state.name == before.name)
                && declare::needs_migration(before, state)?
            {
                names.push(&before.name[..]);
            }
        }
        Ok(names)
    }

    /// The states as they were declared, so that a tool can read a snapshot that it knows nothing about.
    ///
    /// # Errors
    /// [`Error::Corrupt`], [`Error::NewerFormat`].
    pub fn state_descriptors(&self) -> Result<Vec<StateDescriptor>, Error> {
        self.check()?;
        self.states.iter().map(StateDescription::descriptor).collect()
    }

    /// The types of the columns of a key; empty: nobody told the store.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn key_types(&self) -> Result<Vec<DataType>, Error> {
        self.key_types.iter().map(|text| parse_type(text).map_err(damaged)).collect()
    }

    /// The timers as they were declared.
    pub fn timer_descriptors(&self) -> Vec<TimerDescriptor> {
        self.timers.iter().map(|timer| TimerDescriptor { name: timer.name.clone(), clock: timer.clock }).collect()
    }

    /// # Errors
    /// It is of a newer format, or contradicts itself.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.format > FORMAT {
            return Err(Error::NewerFormat { format: self.format, newest: FORMAT });
        }
        if self.format == 0 {
            return Err(damaged("no format has the number 0"));
        }
        self.key_types()?;
        let mut prefixes = BTreeSet::new();
        let all = self.states.iter().map(|state| (&state.name, state.prefix));
        for (name, prefix) in all.chain(self.timers.iter().map(|timer| (&timer.name, timer.prefix))) {
            if prefix == 0 || prefix >= self.next_prefix || !prefixes.insert(prefix) {
                return Err(damaged(format!("the prefix {prefix} of {name:?} is out of range, or given out twice")));
            }
        }
        let states = self.states.iter().map(StateDescription::descriptor).collect::<Result<Vec<_>, _>>()?;
        declare::check(&states, &self.timer_descriptors()).map_err(damaged)
    }
}

impl StateDescription {
    /// Describes a declared state.
    ///
    /// # Errors
    /// [`Error::InvalidDeclaration`]: its type has no text.
    pub(crate) fn new(state: &StateDescriptor, prefix: u16, versions: &[(u32, DataType)], next_position: u64) -> Result<Self, Error> {
        let text = |data_type: &DataType| snapshot_type_text(&state.name, data_type);
        Ok(Self {
            name: state.name.clone(),
            prefix,
            kind: state.kind,
            map_key_type: state.map_key_type.as_ref().map(text).transpose()?,
            versions: versions.iter().map(|(version, data_type)| Ok((*version, text(data_type)?))).collect::<Result<_, Error>>()?,
            ttl: state.ttl,
            next_position,
        })
    }

    /// All versions of the type, the declared one last.
    pub(crate) fn types(&self) -> Result<Vec<(u32, DataType)>, Error> {
        self.versions.iter().map(|(version, text)| Ok((*version, self.parse(text)?))).collect()
    }

    fn descriptor(&self) -> Result<StateDescriptor, Error> {
        let Some((version, value_type)) = self.types()?.pop() else {
            return Err(damaged(format!("state {:?} has no type", self.name)));
        };
        Ok(StateDescriptor {
            name: self.name.clone(),
            kind: self.kind,
            scope: StateScope::Keyed,
            map_key_type: self.map_key_type.as_ref().map(|text| self.parse(text)).transpose()?,
            value_type,
            version,
            ttl: self.ttl,
        })
    }

    fn parse(&self, text: &str) -> Result<DataType, Error> {
        parse_type(text).map_err(|error| damaged(format!("state {:?}: {error}", self.name)))
    }
}

/// The text by which a snapshot remembers a type.
///
/// # Errors
/// [`Error::InvalidDeclaration`] of what has the type: it has no text.
pub(crate) fn snapshot_type_text(name: &str, data_type: &DataType) -> Result<String, Error> {
    let text = type_text(data_type);
    if parse_type(&text).is_ok_and(|parsed| parsed == without_metadata(data_type)) {
        return Ok(text);
    }
    Err(Error::InvalidDeclaration { name: name.into(), reason: format!("a snapshot cannot name its type {text}") })
}

fn damaged(reason: impl std::fmt::Display) -> Error {
    Error::Corrupt { of: "the description of a snapshot".into(), reason: reason.to_string() }
}
