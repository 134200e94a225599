//! The entries of one state of one operator, out of the files of a checkpoint or savepoint.

use std::{ops::ControlFlow, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, new_empty_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millstream_engine::checkpoint::{
    files::{FileWork, fetch_state},
    manifest::OperatorManifest,
};
use millstream_model::{
    ErrorKind,
    key::{EncodedKeys, KEY_GROUPS, KeyGroup},
    state::{StateDescriptor, StateKind},
};
use millstream_state::{Backend, KeyedStore, RocksShared, RocksSharedSettings, StatePage, StoreSettings};
use tempfile::TempDir;

use super::key::KeyType;
use crate::{failure::Failure, kept::Kept};

/// What tools may take for entries that are not on disk.
const MEMORY_BYTES: usize = 256 << 20;

/// One state of one operator, ready to be read.
pub struct Entries {
    store: KeyedStore,
    /// Its number in the store.
    state: usize,
    descriptor: StateDescriptor,
    key: KeyType,
    /// Its files; they go when this does.
    _files: TempDir,
}

impl Entries {
    /// Fetches and verifies the state of an operator; `name` may be left out if there is one only.
    ///
    /// # Errors
    /// There is no such state, or its files are damaged.
    pub async fn open(kept: &Kept, operator: &str, name: Option<&str>) -> Result<Self, Failure> {
        let manifest = operator_manifest(kept, operator)?;
        let directory =
            tempfile::tempdir().map_err(|error| Failure::new(ErrorKind::Unavailable, "there is no room to read state").because(&error))?;
        let mut parts = Vec::new();
        for (number, state) in manifest.subtasks.iter().enumerate().filter_map(|(number, subtask)| Some((number, subtask.state.as_ref()?)))
        {
            let into = directory.path().join(number.to_string());
            let fetched = fetch_state(FileWork::OnThreads, &*kept.storage, &kept.files_prefix, state, &into).await;
            parts.push(fetched.map_err(|error| Failure::from_error(error.kind(), &error))?);
        }
        let failed = |error: millstream_state::Error| {
            Failure::new(error.kind(), format!("the state of `{operator}` cannot be read")).because(&error)
        };
        let Some(first) = parts.first() else { return Err(stateless(operator)) };
        let (states, timers) = (first.description.state_descriptors().map_err(failed)?, first.description.timer_descriptors());
        let state = chosen(&states, operator, name)?;
        let descriptor = states[state].clone();
        let key = KeyType::new(&manifest.key).map_err(|message| Failure::new(ErrorKind::Internal, message))?;
        let backend = Backend::RocksDb {
            directory: directory.path().join("read"),
            shared: Arc::new(RocksShared::new(RocksSharedSettings::default())),
        };
        let settings = StoreSettings { backend, memory_budget_bytes: MEMORY_BYTES };
        let store = KeyedStore::restore(&settings, 0..KEY_GROUPS, &parts, states, timers).map_err(failed)?;
        Ok(Self { store, state, descriptor, key, _files: directory })
    }

    /// The columns of its entries.
    ///
    /// # Errors
    /// There is no such state, or its files are damaged.
    pub fn schema(&self) -> Result<SchemaRef, Failure> {
        Ok(self
            .batch(&StatePage {
                keys: EncodedKeys::default(),
                map_keys: self.no_map_keys(),
                values: new_empty_array(&self.descriptor.value_type),
            })?
            .schema())
    }

    /// The key that was said on the command line.
    ///
    /// # Errors
    /// It does not fit the columns of the key.
    pub fn key(&self, said: &[(String, Option<String>)]) -> Result<EncodedKeys, Failure> {
        self.key.parse(said).map_err(|message| Failure::new(ErrorKind::Invalid, message))
    }

    /// Reads entries, of one key or of all, page by page until `visit` breaks.
    ///
    /// # Errors
    /// There is no such state, or its files are damaged.
    pub fn read<E: From<Failure>>(
        &self,
        only: Option<&EncodedKeys>,
        mut visit: impl FnMut(RecordBatch) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let only: Option<(&[u8], KeyGroup)> = only.map(|keys| (keys.key(0), keys.group(0)));
        let mut failure = None;
        let read = self.store.read_state(self.state, only, |page| {
            Ok(match self.batch(&page).map_err(E::from).and_then(&mut visit) {
                Ok(flow) => flow,
                Err(failed) => {
                    failure = Some(failed);
                    ControlFlow::Break(())
                }
            })
        });
        read.map_err(|error| Failure::new(error.kind(), "state cannot be read").because(&error))?;
        failure.map_or(Ok(()), Err)
    }

    fn batch(&self, page: &StatePage) -> Result<RecordBatch, Failure> {
        let mut columns: Vec<(&str, ArrayRef)> = Vec::with_capacity(3);
        if !self.key.is_empty() {
            let keys = (0..page.keys.len()).map(|row| page.keys.key(row));
            let keys = self.key.decode(keys).map_err(|message| Failure::new(ErrorKind::Internal, message))?;
            columns.push(("key", Arc::new(keys)));
        }
        if let Some(map_keys) = &page.map_keys {
            columns.push((if self.descriptor.kind == StateKind::AppendedList { "index" } else { "map-key" }, map_keys.clone()));
        }
        columns.push(("value", page.values.clone()));
        let fields: Vec<Field> = columns.iter().map(|(name, column)| Field::new(*name, column.data_type().clone(), true)).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, column)| column).collect())
            .map_err(|error| Failure::new(ErrorKind::Internal, "entries cannot be put together").because(&error))
    }

    fn no_map_keys(&self) -> Option<ArrayRef> {
        match self.descriptor.kind {
            StateKind::Value => None,
            StateKind::AppendedList => Some(new_empty_array(&DataType::UInt64)),
            StateKind::OrderedMap => self.descriptor.map_key_type.as_ref().map(new_empty_array),
        }
    }
}

fn operator_manifest<'a>(kept: &'a Kept, operator: &str) -> Result<&'a OperatorManifest, Failure> {
    kept.manifest.operators.get(&operator.into()).ok_or_else(|| {
        let with_state =
            kept.manifest.operators.iter().filter(|(_, operator)| operator.subtasks.iter().any(|subtask| subtask.state.is_some()));
        let names: Vec<String> = with_state.map(|(id, _)| format!("`{id}`")).collect();
        let message = format!("job `{}` has no operator `{operator}`", kept.manifest.job);
        Failure::new(ErrorKind::NotFound, message).fix(format!("those with state are {}", names.join(", ")))
    })
}

fn stateless(operator: &str) -> Failure {
    Failure::new(ErrorKind::Invalid, format!("`{operator}` keeps no state")).fix("`millstream state list` shows which do")
}

fn chosen(states: &[StateDescriptor], operator: &str, name: Option<&str>) -> Result<usize, Failure> {
    let names: Vec<String> = states.iter().map(|state| format!("`{}`", state.name)).collect();
    let names = names.join(", ");
    match (name, states) {
        (_, []) => Err(stateless(operator)),
        (None, [_]) => Ok(0),
        (None, _) => Err(Failure::new(ErrorKind::Invalid, format!("`{operator}` has several states"))
            .fix(format!("choose one with --state-name: {names}"))),
        (Some(name), _) => states
            .iter()
            .position(|state| state.name == name)
            .ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("`{operator}` has no state `{name}`")).fix(format!("it has {names}"))),
    }
}
