//! What a version of an operator makes of the state that another one left: it reads it by the rules of the state's encoding, migrates it with its
//! component, or cannot go on from it. Decided from names and types alone, before anything is touched; carried out when a store is opened.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{Array, ArrayRef, ListArray, cast::AsArray};
use arrow_schema::DataType;
use millstream_model::{
    state::{StateDescriptor, TimerDescriptor},
    types::type_text,
};
use millstream_state::{Backend, KeyedStore, Migrate, OldValues, SnapshotPart, StoreDescription, StoreSettings, row::resolve_compatible};
use millstream_wasm::{Component, Failure, InstanceContext, MigrationInstance, OldState};
use tokio::runtime::Handle;

use crate::operator::OperatorError;

/// What an operator keeps, and how it reads what an older version kept.
#[derive(Clone, Default)]
pub struct Declared {
    /// Its states.
    pub states: Vec<StateDescriptor>,
    /// Its timers.
    pub timers: Vec<TimerDescriptor>,
    /// What migrates values that no rule can read, by the name of the state.
    pub migrations: BTreeMap<String, Migrator>,
}

/// What migrates a state.
#[derive(Clone)]
pub struct Migrator {
    /// The component.
    pub component: Component,
    /// The state holds lists of what the component knows.
    pub of_items: bool,
}

impl Declared {
    /// What an operator keeps whose state no component migrates.
    pub fn new(states: Vec<StateDescriptor>, timers: Vec<TimerDescriptor>) -> Self {
        Self { states, timers, migrations: BTreeMap::new() }
    }

    /// Whether a store that `description` describes can be opened as this; `may_drop`: whether a state or timer may be forgotten.
    ///
    /// # Errors
    /// One clause each that names the state or timer and what to do.
    pub fn check(&self, description: &StoreDescription, may_drop: impl Fn(&str) -> bool) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        let missing = description.states_missing_in(&self.states).into_iter().map(|name| ("state", name));
        let missing = missing.chain(description.timers_missing_in(&self.timers).into_iter().map(|name| ("timer", name)));
        reasons.extend(
            missing
                .filter(|(_, name)| !may_drop(name))
                .map(|(what, name)| format!("it no longer declares {what} `{name}`: allow by name that it be forgotten")),
        );
        match self.to_migrate(description) {
            Ok(_) => {}
            Err(reason) => reasons.extend(reason),
        }
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// The states that must be migrated.
    fn to_migrate<'d>(&self, description: &'d StoreDescription) -> Result<Vec<&'d str>, Vec<String>> {
        let names = description.states_to_migrate(&self.states).map_err(|error| vec![error.to_string()])?;
        let before = description.state_descriptors().map_err(|error| vec![error.to_string()])?;
        let missing = |name: &&&str| !self.migrations.contains_key(**name);
        let reasons: Vec<String> = names
            .iter()
            .filter(missing)
            .filter_map(|name| Some(needs_migration(find(&before, name)?, find(&self.states, name)?)))
            .collect();
        if reasons.is_empty() { Ok(names) } else { Err(reasons) }
    }
}

fn find<'s>(states: &'s [StateDescriptor], name: &str) -> Option<&'s StateDescriptor> {
    states.iter().find(|state| state.name == name)
}

/// Whether values that are written as `writer` can be read as `reader`, both of one state, without a migration.
///
/// # Errors
/// The first difference that has no rule.
pub fn evolves(writer: &StateDescriptor, reader: &StateDescriptor) -> Result<(), String> {
    if writer.version == reader.version && writer.value_type != reader.value_type {
        return Err(format!("the type changed, but its version is still {}", reader.version));
    }
    resolve_compatible(&writer.value_type, &reader.value_type).map_err(|error| error.0)
}

fn needs_migration(before: &StateDescriptor, now: &StateDescriptor) -> String {
    format!(
        "state `{}` is {} in version {}, and {} in version {}, which no rule can make of it: the component must bring a `migrate` for it",
        now.name,
        type_text(&before.value_type),
        before.version,
        type_text(&now.value_type),
        now.version
    )
}

/// A store that holds what `parts` hold, migrated where that is needed.
///
/// # Errors
/// It cannot be read, or its migration fails; the parts stay as they are.
pub async fn restore(
    settings: StoreSettings,
    groups: std::ops::Range<u16>,
    parts: &[SnapshotPart],
    declared: Declared,
    guest: impl FnOnce() -> InstanceContext,
) -> Result<KeyedStore, OperatorError> {
    let mut names = Vec::new();
    for part in parts {
        names.extend(declared.to_migrate(&part.description).map_err(|reasons| OperatorError::user(reasons.join("; ")))?);
    }
    let Declared { states, timers, migrations } = declared;
    if names.is_empty() {
        let restored = match settings.backend {
            Backend::Memory => KeyedStore::restore(&settings, groups, parts, states, timers),
            // It reads files, for up to a second.
            Backend::RocksDb { .. } => {
                let parts = parts.to_vec();
                let restored = tokio::task::spawn_blocking(move || KeyedStore::restore(&settings, groups, &parts, states, timers));
                restored.await.expect("restoring does not panic and is not cancelled")
            }
        };
        return restored.map_err(super::state_error);
    }
    let mut instances = BTreeMap::new();
    let context = guest();
    for name in names {
        let Migrator { component, of_items } = &migrations[name];
        let instance = component.migration(context.clone()).await;
        let instance = instance.map_err(|error| OperatorError::user(format!("state `{name}` cannot be migrated")).because(error))?;
        let to = find(&states, name).expect("only declared states are migrated").value_type.clone();
        instances.insert(name.to_owned(), Running { instance, to, of_items: *of_items });
    }
    // The guest runs where the store asks for it: a thread that may block.
    let (parts, runtime) = (parts.to_vec(), Handle::current());
    let restored = tokio::task::spawn_blocking(move || {
        let mut migrate = Migrating { instances, runtime };
        KeyedStore::restore_migrating(&settings, groups, &parts, states, timers, &mut migrate)
    });
    restored.await.expect("restoring does not panic and is not cancelled").map_err(super::state_error)
}

/// The running migrations of one store, by state.
struct Migrating {
    instances: BTreeMap<String, Running>,
    runtime: Handle,
}

struct Running {
    instance: MigrationInstance,
    /// The type that the state has now.
    to: DataType,
    of_items: bool,
}

impl Migrate for Migrating {
    fn migrate(&mut self, old: OldValues<'_>) -> Result<ArrayRef, Box<dyn std::error::Error + Send + Sync>> {
        let running = self.instances.get_mut(old.state).ok_or_else(|| format!("nothing migrates state `{}`", old.state))?;
        Ok(self.runtime.block_on(running.migrate(old))?)
    }
}

impl Running {
    async fn migrate(&mut self, old: OldValues<'_>) -> Result<ArrayRef, Failure> {
        let asked = |values| OldState { name: old.state, version: old.version, values };
        match (&self.to, old.values.as_list_opt::<i32>()) {
            (DataType::List(item), Some(lists)) if self.of_items => {
                let items = self.instance.migrate(asked(lists.values()), item.data_type()).await?;
                Ok(Arc::new(ListArray::new(Arc::clone(item), lists.offsets().clone(), items, lists.nulls().cloned())))
            }
            (to, _) => self.instance.migrate(asked(old.values), to).await,
        }
    }
}
