//! What is stored, used again and fetched, and what happens when it is not what it should be.

use std::fs;

use millstream_state::{SnapshotFile, StoreDescription};
use millstream_storage::{MemoryCheckpointStorage, Object};
use tempfile::TempDir;

use super::*;

const TABLE: &str = "000001-0123456789abcdef.sst";

fn job() -> JobId {
    JobId::from("test")
}

fn storage() -> MemoryCheckpointStorage {
    MemoryCheckpointStorage::new(|| 0)
}

/// A snapshot of one table.
struct Local(TempDir);

impl Local {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    /// The table with this content; `is_new`: what the state backend says of it.
    fn snapshot(&self, content: &[u8], is_new: bool) -> Snapshot {
        fs::write(self.0.path().join(TABLE), content).expect("writable");
        let file = SnapshotFile { name: TABLE.into(), bytes: content.len() as u64, is_new };
        Snapshot { directory: self.0.path().to_owned(), description: StoreDescription::default(), files: vec![file] }
    }
}

async fn stored(storage: &MemoryCheckpointStorage, known: &KnownFiles, snapshot: Snapshot) -> Result<Stored<StateManifest>, Error> {
    store_state(FileWork::Inline, storage, &job(), known, 0..16, snapshot).await
}

/// What a committed manifest of this state lets the next checkpoint use again.
fn known(state: &StateManifest) -> KnownFiles {
    let mut known = KnownFiles::default();
    for (name, file) in &state.files {
        known.by_hash.insert(file.sha256.clone(), file.bytes);
        known.tables.insert(name.clone(), file.clone());
    }
    known
}

async fn objects(storage: &MemoryCheckpointStorage) -> Vec<Object> {
    storage.list("").await.expect("listable")
}

#[tokio::test]
async fn a_table_is_used_again_only_if_a_committed_manifest_names_it() {
    let (storage, local) = (storage(), Local::new());
    // Stored by a checkpoint that was not committed: the backend says it is not new, and yet nobody vouches for it.
    let first = stored(&storage, &KnownFiles::default(), local.snapshot(b"some table", false)).await.expect("stored");
    assert_eq!((first.bytes_new, objects(&storage).await.len()), (10, 1));
    let again = stored(&storage, &known(&first.manifest), local.snapshot(b"some table", false)).await.expect("known");
    assert_eq!((again.bytes_new, &again.manifest), (0, &first.manifest));
}

#[tokio::test]
async fn a_new_table_is_stored_though_one_of_its_name_and_size_is_known() {
    let (storage, local) = (storage(), Local::new());
    let first = stored(&storage, &KnownFiles::default(), local.snapshot(b"some table", true)).await.expect("stored");
    let second = stored(&storage, &known(&first.manifest), local.snapshot(b"same width", true)).await.expect("stored");
    assert_eq!(second.bytes_new, 10);
    assert_ne!(second.manifest.files[TABLE], first.manifest.files[TABLE]);
    let into = Local::new();
    fetch_state(FileWork::Inline, &storage, &files_prefix(&job()), &second.manifest, &into.0.path().join("state")).await.expect("there");
    assert_eq!(fs::read(into.0.path().join("state").join(TABLE)).expect("fetched"), b"same width");
}

/// Under its hash lies something else of its size: a write of somebody who died, or damage.
async fn planted(content: &[u8]) -> (MemoryCheckpointStorage, FileReference) {
    let storage = storage();
    let reference = FileReference { sha256: hexadecimal(&Sha256::digest(content)), bytes: content.len() as u64 };
    let mut other = content.to_vec();
    other[0] ^= 1;
    storage.create(&format!("{}/{}", files_prefix(&job()), reference.sha256), other.into()).await.expect("new");
    (storage, reference)
}

#[tokio::test]
async fn what_lies_under_a_hash_already_must_have_it() {
    let (storage, _) = planted(b"some table").await;
    let table = stored(&storage, &KnownFiles::default(), Local::new().snapshot(b"some table", true)).await;
    assert!(matches!(table, Err(Error::Damaged { .. })), "{table:?}");
    let bytes = store_bytes(&storage, &job(), Bytes::from_static(b"some table")).await;
    assert!(matches!(bytes, Err(Error::Damaged { .. })), "{bytes:?}");
}

/// Held rows come this way: a flipped bit in them would be another number, which nothing else would notice.
#[tokio::test]
async fn what_is_fetched_has_the_hash_that_the_manifest_names() {
    let (storage, reference) = planted(b"held rows").await;
    let fetched = fetch_bytes(&storage, &files_prefix(&job()), &reference).await;
    assert!(matches!(fetched, Err(Error::Damaged { .. })), "{fetched:?}");
    let files = BTreeMap::from([(TABLE.to_owned(), reference)]);
    let state = StateManifest { key_groups: 0..16, description: StoreDescription::default(), files };
    let into = Local::new();
    let fetched = fetch_state(FileWork::Inline, &storage, &files_prefix(&job()), &state, &into.0.path().join("state")).await;
    assert!(matches!(fetched, Err(Error::Damaged { .. })), "{fetched:?}");
}
