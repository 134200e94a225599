//! Typed reading and writing of the catalogue.

use std::sync::Arc;

use millstream_model::ids::TenantId;

use super::{AuditRecord, Catalogue, Change, Error, Expected, Key, Kind, Object, Revision};

/// The catalogue, typed. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    catalogue: Arc<dyn Catalogue>,
}

/// An object, its name, and when it changed last.
#[derive(Clone, Debug, PartialEq)]
pub struct Found<T> {
    /// Its name.
    pub name: String,
    /// Of its last change.
    pub revision: Revision,
    /// What it is.
    pub object: T,
}

impl Store {
    /// Reads and writes this catalogue.
    pub fn new(catalogue: Arc<dyn Catalogue>) -> Self {
        Self { catalogue }
    }

    /// One object; none: there is none.
    ///
    /// # Errors
    /// The catalogue does not answer, or the object is of a later version.
    pub async fn get<T: Object>(&self, tenant: &TenantId, name: &str) -> Result<Option<Found<T>>, Error> {
        let key = key::<T>(tenant, name);
        let Some(entry) = self.catalogue.get(&key).await? else { return Ok(None) };
        found(key, entry).map(Some)
    }

    /// At most `limit` objects in the order of their names, those behind `after`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub async fn list<T: Object>(&self, tenant: &TenantId, after: Option<&str>, limit: usize) -> Result<Vec<Found<T>>, Error> {
        let entries = self.catalogue.list(tenant, T::KIND, after, limit).await?;
        entries.into_iter().map(|(key, entry)| found(key, entry)).collect()
    }

    /// The tenants that have objects of this kind.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn tenants(&self, kind: Kind) -> Result<Vec<TenantId>, Error> {
        self.catalogue.tenants(kind).await
    }

    /// The tenants that have an object of this kind and name.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn owners(&self, kind: Kind, name: &str) -> Result<Vec<TenantId>, Error> {
        self.catalogue.owners(kind, name).await
    }

    /// Removes everything that a tenant has, as one change.
    ///
    /// # Errors
    /// It cannot be written.
    pub async fn clear(&self, tenant: &TenantId) -> Result<(), Error> {
        let mut changes = Vec::new();
        for kind in Kind::ALL {
            let entries = self.catalogue.list(tenant, kind, None, usize::MAX).await?;
            changes.extend(entries.into_iter().map(|(key, _)| Change { key, expected: Expected::Any, value: None }));
        }
        if changes.is_empty() { Ok(()) } else { self.catalogue.change(changes).await.map(drop) }
    }

    /// Writes an object.
    ///
    /// # Errors
    /// Something else than expected is there, or it cannot be written.
    pub async fn put<T: Object>(&self, tenant: &TenantId, name: &str, object: &T, expected: Expected) -> Result<Revision, Error> {
        self.catalogue.change(vec![put(tenant, name, object, expected)]).await
    }

    /// Removes an object.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn remove<T: Object>(&self, tenant: &TenantId, name: &str, expected: Expected) -> Result<Revision, Error> {
        self.catalogue.change(vec![Change { key: key::<T>(tenant, name), expected, value: None }]).await
    }

    /// Makes several changes as one.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn change(&self, changes: Vec<Change>) -> Result<Revision, Error> {
        self.catalogue.change(changes).await
    }

    /// Adds to the audit.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn audit(&self, record: AuditRecord) -> Result<(), Error> {
        self.catalogue.audit(record).await
    }

    /// The newest records of the audit first, those before number `before`.
    ///
    /// # Errors
    /// The catalogue does not answer.
    pub async fn audited(&self, tenant: &TenantId, before: Option<u64>, limit: usize) -> Result<Vec<(u64, AuditRecord)>, Error> {
        self.catalogue.audited(tenant, before, limit).await
    }
}

/// The change that writes an object.
pub fn put<T: Object>(tenant: &TenantId, name: &str, object: &T, expected: Expected) -> Change {
    let value = serde_json::to_value(object).expect("objects are plain data with string keys");
    Change { key: key::<T>(tenant, name), expected, value: Some(value) }
}

fn key<T: Object>(tenant: &TenantId, name: &str) -> Key {
    Key { tenant: tenant.clone(), kind: T::KIND, name: name.to_owned() }
}

fn found<T: Object>(key: Key, entry: super::Entry) -> Result<Found<T>, Error> {
    let object = serde_json::from_value(entry.value).map_err(|source| Error::NotUnderstood { key: key.clone(), source })?;
    Ok(Found { name: key.name, revision: entry.revision, object })
}
