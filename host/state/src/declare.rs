//! Declarations: what is refused, and how state keeps its name on disk.

use std::collections::BTreeMap;

use arrow_schema::DataType;
use millstream_model::{
    key::check_key_type,
    state::{StateDescriptor, StateKind, StateScope, TimerDescriptor},
    types::without_metadata,
};

use crate::{
    Error,
    row::resolve_compatible,
    snapshot::{StateDescription, StoreDescription},
};

/// The prefixes on disk of states and timers, by name. A prefix is given out once and never again.
#[derive(Clone, Debug)]
pub(crate) struct Prefixes {
    states: BTreeMap<String, Known>,
    timers: BTreeMap<String, u16>,
    next: u16,
}

#[derive(Clone, Debug)]
struct Known {
    prefix: u16,
    versions: Vec<(u32, DataType)>,
}

impl Default for Prefixes {
    fn default() -> Self {
        // 0 is kept for what is not an entry of a state.
        Self { states: BTreeMap::new(), timers: BTreeMap::new(), next: 1 }
    }
}

impl Prefixes {
    /// The prefix that the next new name gets.
    pub fn next(&self) -> u16 {
        self.next
    }

    /// Those of a snapshot whose database is taken over as it is.
    pub fn of_snapshot(description: &StoreDescription) -> Result<Self, Error> {
        let state = |state: &StateDescription| Ok((state.name.clone(), Known { prefix: state.prefix, versions: state.types()? }));
        Ok(Self {
            states: description.states.iter().map(state).collect::<Result<_, Error>>()?,
            timers: description.timers.iter().map(|timer| (timer.name.clone(), timer.prefix)).collect(),
            next: description.next_prefix,
        })
    }

    /// Takes in the names of another snapshot of the same operator, whose values may have been written by other versions.
    ///
    /// # Errors
    /// [`Error::Incompatible`]: one version has two types.
    pub fn join(&mut self, description: &StoreDescription) -> Result<(), Error> {
        for state in &description.states {
            let prefix = match self.states.get(&state.name) {
                Some(known) => known.prefix,
                None => self.give_out(&state.name)?,
            };
            let known = self.states.entry(state.name.clone()).or_insert(Known { prefix, versions: Vec::new() });
            for (version, data_type) in state.types()? {
                match known.versions.iter().find(|(other, _)| *other == version) {
                    None => known.versions.push((version, data_type)),
                    Some((_, other)) if *other == data_type => {}
                    Some((_, other)) => {
                        let (state, writer, reader) = (state.name.clone(), data_type, other.clone());
                        let reason = format!("parts of the snapshot have both as version {version}");
                        return Err(Error::Incompatible { state, writer, reader, reason });
                    }
                }
            }
            known.versions.sort_by_key(|(version, _)| *version);
        }
        for timer in &description.timers {
            if !self.timers.contains_key(&timer.name) {
                let prefix = self.give_out(&timer.name)?;
                self.timers.insert(timer.name.clone(), prefix);
            }
        }
        Ok(())
    }

    /// The prefix of a state, and all versions of its type, the declared one last.
    ///
    /// # Errors
    /// Values that an earlier version wrote cannot be read as the declared type.
    pub fn of_state(&mut self, state: &StateDescriptor) -> Result<(u16, Vec<(u32, DataType)>), Error> {
        let declared = (state.version, state.value_type.clone());
        if let Some(known) = self.states.get_mut(&state.name) {
            for (version, writer) in &known.versions {
                check_evolution(state, *version, writer)?;
            }
            known.versions.retain(|(version, _)| *version != state.version);
            known.versions.push(declared);
            return Ok((known.prefix, known.versions.clone()));
        }
        let prefix = self.give_out(&state.name)?;
        self.states.insert(state.name.clone(), Known { prefix, versions: vec![declared.clone()] });
        Ok((prefix, vec![declared]))
    }

    /// The prefix of a timer.
    ///
    /// # Errors
    /// There is none left.
    pub fn of_timer(&mut self, timer: &TimerDescriptor) -> Result<u16, Error> {
        if let Some(prefix) = self.timers.get(&timer.name) {
            return Ok(*prefix);
        }
        let prefix = self.give_out(&timer.name)?;
        self.timers.insert(timer.name.clone(), prefix);
        Ok(prefix)
    }

    /// Forgets a state whose values will come anew.
    pub fn forget_state(&mut self, name: &str) {
        self.states.remove(name);
    }

    /// Forgets names that are not declared any more; their prefixes stay used up.
    pub fn retain(&mut self, states: &[StateDescriptor], timers: &[TimerDescriptor]) {
        self.states.retain(|name, _| states.iter().any(|state| state.name == *name));
        self.timers.retain(|name, _| timers.iter().any(|timer| timer.name == *name));
    }

    fn give_out(&mut self, name: &str) -> Result<u16, Error> {
        let prefix = self.next;
        if prefix == u16::MAX {
            return Err(Error::InvalidDeclaration { name: name.into(), reason: "65,534 states and timers were declared before".into() });
        }
        self.next += 1;
        Ok(prefix)
    }
}

/// Whether values of a snapshot cannot be read by the rules, but by the operator's own migration.
///
/// # Errors
/// [`Error::Incompatible`]: the type changed without its version; the description is damaged.
pub(crate) fn needs_migration(before: &StateDescription, state: &StateDescriptor) -> Result<bool, Error> {
    let mut needs_migration = false;
    for (version, writer) in before.types()? {
        match check_evolution(state, version, &writer) {
            Err(_) if version != state.version => needs_migration = true,
            checked => checked?,
        }
    }
    Ok(needs_migration)
}

fn check_evolution(state: &StateDescriptor, version: u32, writer: &DataType) -> Result<(), Error> {
    let incompatible = |reason: String| Error::Incompatible {
        state: state.name.clone(),
        writer: writer.clone(),
        reader: state.value_type.clone(),
        reason,
    };
    if version == state.version && without_metadata(writer) != without_metadata(&state.value_type) {
        return Err(incompatible(format!("the type changed, but its version is still {version}")));
    }
    resolve_compatible(writer, &state.value_type).map_err(|error| incompatible(error.0))
}

/// A name keeps its kind and its map keys: both shape the bytes on disk.
///
/// # Errors
/// [`Error::Incompatible`].
pub(crate) fn check_kinds(known: &[StateDescriptor], states: &[StateDescriptor]) -> Result<(), Error> {
    for state in states {
        let Some(before) = known.iter().find(|before| before.name == state.name) else { continue };
        let map_key_type = |state: &StateDescriptor| state.map_key_type.as_ref().map(without_metadata);
        let reason = if before.kind != state.kind {
            "its kind changed"
        } else if map_key_type(before) != map_key_type(state) {
            "the type of its map keys changed"
        } else {
            continue;
        };
        let (writer, reader) = (before.value_type.clone(), state.value_type.clone());
        return Err(Error::Incompatible { state: state.name.clone(), writer, reader, reason: reason.into() });
    }
    Ok(())
}

/// # Errors
/// Names the first declaration that cannot be kept.
pub(crate) fn check(states: &[StateDescriptor], timers: &[TimerDescriptor]) -> Result<(), Error> {
    for (number, state) in states.iter().enumerate() {
        check_state(state)?;
        if states[..number].iter().any(|other| other.name == state.name) {
            return Err(Error::InvalidDeclaration { name: state.name.clone(), reason: "the name is declared twice".into() });
        }
    }
    for (number, timer) in timers.iter().enumerate() {
        if timers[..number].iter().any(|other| other.name == timer.name) {
            return Err(Error::InvalidDeclaration { name: timer.name.clone(), reason: "the name is declared twice".into() });
        }
    }
    Ok(())
}

fn check_state(state: &StateDescriptor) -> Result<(), Error> {
    let invalid = |reason: String| Err(Error::InvalidDeclaration { name: state.name.clone(), reason });
    if state.scope == StateScope::Broadcast {
        return invalid("broadcast state is not supported yet".into());
    }
    if let Err(error) = resolve_compatible(&state.value_type, &state.value_type) {
        return invalid(error.0);
    }
    if state.ttl.is_some_and(|ttl| ttl.duration_ms == 0) {
        return invalid("its time to live is 0".into());
    }
    match (&state.map_key_type, state.kind) {
        (None, StateKind::OrderedMap) => invalid("an ordered map has a map key type".into()),
        (Some(_), StateKind::Value | StateKind::AppendedList) => invalid("only an ordered map has a map key type".into()),
        (Some(map_key), StateKind::OrderedMap) => check_key_type(map_key).or_else(|error| invalid(error.to_string())),
        (None, StateKind::Value | StateKind::AppendedList) => Ok(()),
    }
}
