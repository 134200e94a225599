//! The catalogue of one machine: entries in memory, every change in a journal before it counts.
//!
//! ```text
//! DIR/catalogue.log   changes (millstream_storage::journal), one record per revision
//! DIR/audit.log       the audit, one record each
//! ```
//! The journal is written anew with one record per entry when it holds more than [`REWRITE_BYTES`] and most of it is outdated.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;
use millstream_model::ids::TenantId;
use millstream_storage::journal::{self, Journal};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AuditRecord, Catalogue, Change, Entry, Error, Expected, Key, Kind, Revision};

const CATALOGUE: journal::Kind = journal::Kind { name: "millstream-catalogue", format: 1 };
const AUDIT: journal::Kind = journal::Kind { name: "millstream-audit", format: 1 };

/// Below this size the journal is not worth the work.
const REWRITE_BYTES: u64 = 1 << 20;
/// The journal is written anew when it is so many times the size of what it said last time.
const REWRITE_FACTOR: u64 = 4;
/// Records of the audit that are kept of each tenant; few in tests, since each is synced.
const AUDIT_KEPT: usize = if cfg!(test) { 100 } else { 10_000 };

/// The catalogue of one machine. Whoever opens it holds the lock of its directory.
pub struct LocalCatalogue {
    /// Locked while the file is written, and so for whoever reads: a change counts when it is durable.
    entries: Arc<Mutex<Entries>>,
    audit: Arc<Mutex<Audit>>,
}

struct Entries {
    journal: Journal<Record>,
    revision: Revision,
    entries: BTreeMap<Key, Entry>,
    /// The tenants that have an entry of this kind and name.
    owners: BTreeMap<(Kind, String), Vec<TenantId>>,
    /// Size of the journal when it was last written anew, or opened.
    whole_bytes: u64,
}

/// One line of the journal: changes that were made as one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    changes: Vec<Changed>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Changed {
    key: Key,
    revision: Revision,
    /// None: removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    value: Option<Value>,
}

/// The records of every tenant by themselves: one that asks for much has nothing of another forgotten, and their numbers tell nobody of others.
struct Audit {
    journal: Journal<AuditRecord>,
    /// Records in the journal, those that are forgotten included.
    written: usize,
    tenants: BTreeMap<TenantId, VecDeque<AuditRecord>>,
}

impl LocalCatalogue {
    /// Opens the catalogue in a directory, which is made.
    ///
    /// # Errors
    /// It is damaged, of a newer format, or cannot be read or written.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let (journal, records) = Journal::open(&directory.join("catalogue.log"), CATALOGUE)?;
        let mut entries =
            Entries { whole_bytes: journal.bytes(), journal, revision: Revision(0), entries: BTreeMap::new(), owners: BTreeMap::new() };
        records.into_iter().for_each(|record| entries.apply(record));
        let (journal, records) = Journal::open(&directory.join("audit.log"), AUDIT)?;
        let mut audit = Audit { journal, written: records.len(), tenants: BTreeMap::new() };
        records.into_iter().for_each(|record| audit.keep(record));
        Ok(Self { entries: Arc::new(Mutex::new(entries)), audit: Arc::new(Mutex::new(audit)) })
    }
}

impl Entries {
    fn apply(&mut self, record: Record) {
        for Changed { key, revision, value } in record.changes {
            self.revision = self.revision.max(revision);
            match value {
                Some(value) => {
                    self.own(&key);
                    self.entries.insert(key, Entry { revision, value });
                }
                None => {
                    self.disown(&key);
                    self.entries.remove(&key);
                }
            }
        }
    }

    fn own(&mut self, key: &Key) {
        let owners = self.owners.entry((key.kind, key.name.clone())).or_default();
        if let Err(at) = owners.binary_search(&key.tenant) {
            owners.insert(at, key.tenant.clone());
        }
    }

    fn disown(&mut self, key: &Key) {
        let of = (key.kind, key.name.clone());
        if let Some(owners) = self.owners.get_mut(&of) {
            owners.retain(|owner| *owner != key.tenant);
            if owners.is_empty() {
                self.owners.remove(&of);
            }
        }
    }

    fn check(&self, change: &Change) -> Result<(), Error> {
        let found = self.entries.get(&change.key).map(|entry| entry.revision);
        match (change.expected, found) {
            (Expected::Any, _) | (Expected::Absent, None) => Ok(()),
            (Expected::Absent, Some(_)) => Err(Error::Exists { key: change.key.clone() }),
            (Expected::At(expected), Some(found)) if expected == found => Ok(()),
            (Expected::At(_), _) => Err(Error::Changed { key: change.key.clone() }),
        }
    }

    /// Decide, persist, act.
    fn change(&mut self, changes: Vec<Change>) -> Result<Revision, Error> {
        changes.iter().try_for_each(|change| self.check(change))?;
        let revision = Revision(self.revision.0 + 1);
        let changed = changes.into_iter().map(|Change { key, value, .. }| Changed { key, revision, value });
        let record = Record { changes: changed.collect() };
        self.journal.append(&record)?;
        self.apply(record);
        self.tidy();
        Ok(revision)
    }

    /// A journal that cannot be made smaller is still whole.
    fn tidy(&mut self) {
        let bytes = self.journal.bytes();
        if bytes < REWRITE_BYTES || bytes < self.whole_bytes.saturating_mul(REWRITE_FACTOR) {
            return;
        }
        let changed =
            |(key, entry): (&Key, &Entry)| Changed { key: key.clone(), revision: entry.revision, value: Some(entry.value.clone()) };
        let mut records: Vec<Record> = self.entries.iter().map(|entry| Record { changes: vec![changed(entry)] }).collect();
        // A removal may have been the last change: revisions must not be given twice.
        let last = Key { tenant: TenantId::from(""), kind: Kind::Answer, name: "last revision".to_owned() };
        records.push(Record { changes: vec![Changed { key: last, revision: self.revision, value: None }] });
        if let Err(error) = self.journal.rewrite(&records) {
            tracing::warn!(%error, "the catalogue could not be written anew; it only grows");
        }
        self.whole_bytes = self.journal.bytes();
    }
}

impl Audit {
    fn add(&mut self, record: AuditRecord) -> Result<(), Error> {
        let last = self.tenants.get(&record.tenant).and_then(|records| records.back());
        let record = AuditRecord { number: last.map_or(1, |last| last.number + 1), ..record };
        self.journal.append(&record)?;
        self.written += 1;
        self.keep(record);
        self.tidy()
    }

    fn keep(&mut self, record: AuditRecord) {
        let records = self.tenants.entry(record.tenant.clone()).or_default();
        records.push_back(record);
        if records.len() > AUDIT_KEPT {
            records.pop_front();
        }
    }

    /// Writes the journal anew when more of it is forgotten than is kept.
    fn tidy(&mut self) -> Result<(), Error> {
        let kept: usize = self.tenants.values().map(VecDeque::len).sum();
        if self.written < 2 * kept.max(AUDIT_KEPT) {
            return Ok(());
        }
        let records: Vec<AuditRecord> = self.tenants.values().flatten().cloned().collect();
        self.journal.rewrite(&records)?;
        self.written = records.len();
        Ok(())
    }
}

/// File work, off the threads that answer.
async fn blocking<T: Send + 'static, R: Send + 'static>(shared: &Arc<Mutex<T>>, work: impl FnOnce(&mut T) -> R + Send + 'static) -> R {
    let shared = shared.clone();
    let work = move || work(&mut shared.lock().unwrap_or_else(PoisonError::into_inner));
    tokio::task::spawn_blocking(work).await.expect("file work does not panic")
}

#[async_trait]
impl Catalogue for LocalCatalogue {
    async fn get(&self, key: &Key) -> Result<Option<Entry>, Error> {
        Ok(self.entries.lock().unwrap_or_else(PoisonError::into_inner).entries.get(key).cloned())
    }

    async fn list(&self, tenant: &TenantId, kind: Kind, after: Option<&str>, limit: usize) -> Result<Vec<(Key, Entry)>, Error> {
        let key = |name: &str| Key { tenant: tenant.clone(), kind, name: name.to_owned() };
        let from = after.map_or_else(|| Bound::Included(key("")), |after| Bound::Excluded(key(after)));
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let own = entries.entries.range((from, Bound::Unbounded)).take_while(|(key, _)| key.tenant == *tenant && key.kind == kind);
        Ok(own.take(limit).map(|(key, entry)| (key.clone(), entry.clone())).collect())
    }

    async fn tenants(&self, kind: Kind) -> Result<Vec<TenantId>, Error> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tenants: Vec<TenantId> = entries.entries.keys().filter(|key| key.kind == kind).map(|key| key.tenant.clone()).collect();
        tenants.dedup();
        Ok(tenants)
    }

    async fn owners(&self, kind: Kind, name: &str) -> Result<Vec<TenantId>, Error> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(entries.owners.get(&(kind, name.to_owned())).cloned().unwrap_or_default())
    }

    async fn change(&self, changes: Vec<Change>) -> Result<Revision, Error> {
        blocking(&self.entries, move |entries| entries.change(changes)).await
    }

    async fn audit(&self, record: AuditRecord) -> Result<(), Error> {
        blocking(&self.audit, move |audit| audit.add(record)).await
    }

    async fn audited(&self, tenant: &TenantId, before: Option<u64>, limit: usize) -> Result<Vec<(u64, AuditRecord)>, Error> {
        let audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        let own = audit.tenants.get(tenant).into_iter().flatten().rev();
        let wanted = own.filter(|record| before.is_none_or(|before| record.number < before)).take(limit);
        Ok(wanted.map(|record| (record.number, record.clone())).collect())
    }
}
