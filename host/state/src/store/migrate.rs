//! Migration: values whose type no rule of [`crate::row`] can read become the declared one by the operator's own function, while a store is
//! restored. All of them, before the first record: a migration that fails leaves the snapshot as it is, and none is found weeks later.
//!
//! What was written by versions of before is first read, by the rules, as the type that the snapshot declares, so that the function needs to
//! know no other. Keys, map keys, positions and refresh times stay.

use arrow_array::{Array, ArrayRef};
use arrow_schema::DataType;
use millstream_model::state::StateDescriptor;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    Error, StateDescription,
    row::{RowDecoder, RowEncoder, split_stored, start_stored},
    store::PAGE,
    values::check_size,
};

/// An operator's own way from older values of its states to the declared types.
pub trait Migrate {
    /// Turns values into the declared type of their state: as many, in their order, none of them null.
    ///
    /// # Errors
    /// They cannot be turned; the store is not restored.
    fn migrate(&mut self, old: OldValues<'_>) -> Result<ArrayRef, Box<dyn std::error::Error + Send + Sync>>;
}

/// Some values of one state as a snapshot has them. Of maps and lists the values alone.
#[derive(Clone, Copy, Debug)]
pub struct OldValues<'a> {
    /// The name of the state.
    pub state: &'a str,
    /// The version that it had when the snapshot was taken.
    pub version: u32,
    /// The type that it had then, and `values` have.
    pub data_type: &'a DataType,
    /// Never null.
    pub values: &'a ArrayRef,
}

/// The key of an entry, and its value as it shall be stored.
pub(super) type Migrated = (Box<[u8]>, Vec<u8>);

/// Entries of one state of one part on their way through the migration.
pub(super) struct Migration {
    to: StateDescriptor,
    version: u32,
    data_type: DataType,
    decoder: RowDecoder,
    /// The key, and when the value was refreshed.
    entries: Vec<(Box<[u8]>, Option<i64>)>,
}

impl Migration {
    /// A migration of what `from` describes.
    pub fn new(from: &StateDescription, to: &StateDescriptor) -> Result<Self, Error> {
        let versions = from.types()?;
        let damaged = || Error::Corrupt { of: from.name.clone(), reason: "its versions contradict each other".into() };
        let (version, data_type) = versions.last().cloned().ok_or_else(damaged)?;
        let decoder =
            RowDecoder::new(versions.iter().map(|(version, data_type)| (*version, data_type)), &data_type).map_err(|_| damaged())?;
        Ok(Self { to: to.clone(), version, data_type, decoder, entries: Vec::new() })
    }

    /// Adds an entry; true: it is time for [`Self::take`].
    pub fn push(&mut self, key: &[u8], stored: &[u8]) -> Result<bool, Error> {
        let stored = split_stored(stored).ok_or_else(|| self.damaged(&"its head"))?;
        self.decoder.read(stored.version, stored.body).map_err(|damage| self.damaged(&damage))?;
        self.entries.push((key.into(), stored.refreshed));
        Ok(self.entries.len() == PAGE)
    }

    /// Migrates the entries that were added: keys, and values as they shall be stored.
    pub fn take(&mut self, migrate: &mut dyn Migrate) -> Result<Vec<Migrated>, Error> {
        if self.entries.is_empty() {
            return Ok(Vec::new());
        }
        let values = self.decoder.finish().map_err(|damage| self.damaged(&damage))?;
        let old = OldValues { state: &self.to.name, version: self.version, data_type: &self.data_type, values: &values };
        let new = migrate.migrate(old).map_err(|source| self.failed(source))?;
        self.check(&new)?;
        let encoder = RowEncoder::new(&new).expect("declared types have a row encoding");
        let entry = |(at, (key, refreshed)): (usize, (Box<[u8]>, Option<i64>))| {
            let mut stored = Vec::new();
            start_stored(refreshed, self.to.version, &mut stored);
            encoder.write(at, &mut stored);
            check_size(&self.to.name, stored.len(), || xxh3_64(&key))?;
            Ok((key, stored))
        };
        std::mem::take(&mut self.entries).into_iter().enumerate().map(entry).collect()
    }

    /// The function may lie.
    fn check(&self, new: &ArrayRef) -> Result<(), Error> {
        let (count, wanted) = (self.entries.len(), &self.to.value_type);
        let lie = if new.data_type() != wanted {
            format!("the migration answers {} where {wanted} is declared", new.data_type())
        } else if new.len() != count {
            format!("the migration answers {} values for {count}", new.len())
        } else if new.null_count() > 0 {
            format!("the migration answers {} of {count} values with null", new.null_count())
        } else {
            return Ok(());
        };
        Err(self.failed(lie.into()))
    }

    fn failed(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::Migration { state: self.to.name.clone(), from: self.version, to: self.to.version, source }
    }

    fn damaged(&self, reason: &dyn std::fmt::Display) -> Error {
        Error::Corrupt { of: self.to.name.clone(), reason: reason.to_string() }
    }
}
