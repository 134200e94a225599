//! What every checkpoint storage must do: one suite, run by each.

use millstream_objects::{ObjectStore, Service};

use super::*;
use crate::durable;

/// Runs a law for each storage.
macro_rules! every_storage {
    ($($law:ident),* $(,)?) => {
        mod in_a_directory {
            $(#[tokio::test]
            async fn $law() {
                let directory = tempfile::tempdir().expect("a temporary directory");
                let storage = super::LocalCheckpointStorage::open(&directory.path().join("checkpoints")).expect("writable");
                super::$law(&storage, directory.path()).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $law() {
                let directory = tempfile::tempdir().expect("a temporary directory");
                super::$law(&super::MemoryCheckpointStorage::new(|| 1_700_000_000_000), directory.path()).await;
            })*
        }
        mod in_an_object_store {
            $(#[tokio::test]
            async fn $law() {
                let directory = tempfile::tempdir().expect("a temporary directory");
                super::$law(&super::ObjectCheckpointStorage::in_memory(), directory.path()).await;
            })*
        }
        /// Each below a prefix of its own.
        async fn keeps_every_law(store: &ObjectStore) {
            $({
                println!("{}", stringify!($law));
                let directory = tempfile::tempdir().expect("a temporary directory");
                let location = format!("{}/some/{}", store.location(), stringify!($law));
                let storage = ObjectCheckpointStorage::open(&location, store.environment()).expect("settings that fit");
                $law(&storage, directory.path()).await;
            })*
        }
    };
}

every_storage! {
    an_object_is_created_once_and_never_overwritten,
    a_file_becomes_an_object_once_and_whole,
    a_large_file_becomes_an_object_once_and_whole,
    an_object_outlives_the_file_it_was_made_of,
    what_is_not_there_is_named,
    a_deletion_can_be_repeated,
    a_list_is_sorted_and_ends_at_parts_of_paths,
    a_path_cannot_leave_the_storage,
    a_read_into_a_file_overwrites_nothing,
}

async fn an_object_is_created_once_and_never_overwritten(storage: &dyn CheckpointStorage, _: &Path) {
    storage.create("job/1/a", Bytes::from_static(b"first")).await.expect("new");
    let again = storage.create("job/1/a", Bytes::from_static(b"second")).await;
    assert!(matches!(&again, Err(Error::Exists(path)) if path == "job/1/a"), "{again:?}");
    assert_eq!(storage.read("job/1/a").await.expect("there"), Bytes::from_static(b"first"));
}

async fn check_file(storage: &dyn CheckpointStorage, directory: &Path, bytes: usize) {
    let (file, back) = (directory.join("file"), directory.join("back"));
    let content: Vec<u8> = (0..bytes).map(|at| (at / 7) as u8).collect();
    durable::write_file(&file, &content).expect("writable");
    storage.create_from_file("job/files/a", &file).await.expect("new");
    assert!(matches!(storage.create_from_file("job/files/a", &file).await, Err(Error::Exists(_))));
    storage.read_to_file("job/files/a", &back).await.expect("there");
    assert!(std::fs::read(&back).expect("written") == content);
    assert_eq!(storage.size("job/files/a").await.expect("there"), bytes as u64);
    let digest = storage.digest("job/files/a").await.expect("there");
    let sha256 = {
        use sha2::Digest;
        hexadecimal(&sha2::Sha256::digest(&content))
    };
    assert_eq!(digest, Digest { sha256, bytes: bytes as u64 });
}

async fn a_file_becomes_an_object_once_and_whole(storage: &dyn CheckpointStorage, directory: &Path) {
    check_file(storage, directory, 1_000).await;
}

async fn a_large_file_becomes_an_object_once_and_whole(storage: &dyn CheckpointStorage, directory: &Path) {
    check_file(storage, directory, (20 << 20) + 13).await;
}

async fn an_object_outlives_the_file_it_was_made_of(storage: &dyn CheckpointStorage, directory: &Path) {
    let file = directory.join("file");
    durable::write_file(&file, b"content").expect("writable");
    storage.create_from_file("job/files/a", &file).await.expect("new");
    std::fs::remove_file(&file).expect("there");
    assert_eq!(storage.read("job/files/a").await.expect("there"), Bytes::from_static(b"content"));
}

async fn what_is_not_there_is_named(storage: &dyn CheckpointStorage, directory: &Path) {
    let named = |error: Error| matches!(error, Error::NotFound(path) if path == "job/gone");
    assert!(named(storage.read("job/gone").await.expect_err("gone")));
    assert!(named(storage.size("job/gone").await.expect_err("gone")));
    assert!(named(storage.digest("job/gone").await.expect_err("gone")));
    let file = directory.join("file");
    assert!(named(storage.read_to_file("job/gone", &file).await.expect_err("gone")));
    assert!(!file.exists());
    assert!(matches!(storage.create_from_file("job/a", &file).await, Err(Error::NotFound(path)) if path.ends_with("file")));
}

async fn a_deletion_can_be_repeated(storage: &dyn CheckpointStorage, _: &Path) {
    storage.create("job/1/a", Bytes::new()).await.expect("new");
    storage.create("job/2/b", Bytes::new()).await.expect("new");
    storage.delete("job/1/a").await.expect("there");
    storage.delete("job/1/a").await.expect("gone is fine");
    assert_eq!(paths(storage, "job").await, ["job/2/b"]);
    assert!(matches!(storage.read("job/1/a").await, Err(Error::NotFound(_))));
    storage.create("job/1/a", Bytes::new()).await.expect("new again");
}

async fn paths(storage: &dyn CheckpointStorage, prefix: &str) -> Vec<String> {
    storage.list(prefix).await.expect("listable").into_iter().map(|object| object.path).collect()
}

async fn a_list_is_sorted_and_ends_at_parts_of_paths(storage: &dyn CheckpointStorage, _: &Path) {
    for path in ["job/2/b", "job/10/a", "job/1/c", "job2/1/d"] {
        storage.create(path, Bytes::from_static(b"12")).await.expect("new");
    }
    assert_eq!(paths(storage, "job").await, ["job/1/c", "job/10/a", "job/2/b"]);
    assert_eq!(paths(storage, "").await.len(), 4);
    assert_eq!(paths(storage, "nobody").await, [""; 0]);
    let objects = storage.list("job2").await.expect("listable");
    assert_eq!(objects[0].bytes, 2);
    assert!(objects[0].modified_ms > 1_600_000_000_000, "ms since epoch: {}", objects[0].modified_ms);
}

async fn a_path_cannot_leave_the_storage(storage: &dyn CheckpointStorage, _: &Path) {
    for path in ["../outside", "/outside", "job/../../outside", "", "job//a", "./a"] {
        assert!(matches!(storage.create(path, Bytes::new()).await, Err(Error::Path(_))), "{path:?}");
    }
}

async fn a_read_into_a_file_overwrites_nothing(storage: &dyn CheckpointStorage, directory: &Path) {
    let file = directory.join("file");
    durable::write_file(&file, b"precious").expect("writable");
    storage.create("job/a", Bytes::from_static(b"other")).await.expect("new");
    storage.read_to_file("job/a", &file).await.expect_err("taken");
    assert_eq!(std::fs::read(&file).expect("there"), b"precious");
}

#[test]
fn a_location_that_is_none_says_what_would_be() {
    for location in ["", "ftp://host/path", "s3://", "s3:///path"] {
        let Err(error) = open(location) else { panic!("{location:?} was taken") };
        assert!(matches!(error, Error::Location { .. }), "{location:?}: {error}");
        assert!(error.to_string().contains("s3://"), "{error}");
    }
}

#[test]
fn a_bucket_is_opened_without_asking_it() {
    let storage = ObjectCheckpointStorage::open("s3://bucket/some/prefix", &[]).expect("plain");
    assert_eq!(storage.location(), "s3://bucket/some/prefix");
}

#[tokio::test]
async fn a_server_of_s3_keeps_every_law() {
    keeps_every_law(&ObjectStore::start(Service::S3)).await;
}

#[tokio::test]
async fn a_server_of_google_cloud_storage_keeps_every_law() {
    keeps_every_law(&ObjectStore::start(Service::Google)).await;
}

#[tokio::test]
async fn a_server_of_azure_blob_storage_keeps_every_law() {
    keeps_every_law(&ObjectStore::start(Service::Azure)).await;
}

/// What the user of a service would set.
fn variable_of(service: Service) -> &'static str {
    match service {
        Service::S3 => "AWS_ACCESS_KEY_ID",
        Service::Google => "GOOGLE_SERVICE_ACCOUNT",
        Service::Azure => "AZURE_STORAGE_ACCOUNT_KEY",
    }
}

#[tokio::test]
async fn a_server_that_knows_nobody_is_told_from_one_that_denies_and_the_variables_are_named() {
    for service in Service::ALL {
        let store = ObjectStore::closed(service);
        let storage = ObjectCheckpointStorage::open(store.location(), store.environment()).expect("settings that fit");
        let errors = [
            storage.create("job/a", Bytes::from_static(b"1")).await.expect_err("nobody is let in"),
            storage.read("job/a").await.expect_err("nobody is let in"),
            storage.list("").await.expect_err("nobody is let in"),
        ];
        for error in errors {
            assert!(matches!(error, Error::Credentials { .. }), "{service:?}: {error:?}");
            assert!(error.to_string().contains(variable_of(service)), "{service:?}: {error}");
        }
    }
}

#[tokio::test]
async fn a_bucket_that_is_not_there_is_not_an_empty_one() {
    for service in Service::ALL {
        let store = ObjectStore::start(service);
        let location = format!("{}-not/some", store.location());
        let storage = ObjectCheckpointStorage::open(&location, store.environment()).expect("settings that fit");
        let errors = [
            storage.create("job/a", Bytes::from_static(b"1")).await.expect_err("no bucket"),
            storage.read("job/a").await.expect_err("no bucket"),
            storage.list("").await.expect_err("no bucket"),
        ];
        for error in errors {
            assert!(matches!(error, Error::NoBucket { .. }), "{service:?}: {error:?}");
            assert!(error.to_string().contains(&location), "{service:?}: {error}");
        }
    }
}

/// A secret that is no key of the service.
const SECRET: &str = "\"hunter2 is no key\"";

#[test]
fn settings_that_cannot_be_used_are_named_and_never_said() {
    let settings = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>();
    let wrong = [
        ("gs://bucket", settings(&[("GOOGLE_SERVICE_ACCOUNT", "/no/such/key.json")]), "/no/such/key.json"),
        ("gs://bucket", settings(&[("GOOGLE_SERVICE_ACCOUNT_KEY", SECRET)]), "GOOGLE_SERVICE_ACCOUNT"),
        ("az://bucket", settings(&[("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")]), "AZURE_STORAGE_ACCOUNT_NAME"),
        (
            "az://bucket",
            settings(&[("AZURE_STORAGE_ACCOUNT_NAME", "somebody"), ("AZURE_STORAGE_ACCOUNT_KEY", SECRET)]),
            "AZURE_STORAGE_ACCOUNT_KEY",
        ),
    ];
    for (location, settings, named) in wrong {
        let error = ObjectCheckpointStorage::open(location, &settings).expect_err("it cannot be used").to_string();
        assert!(error.contains(named), "{location}: {error}");
        assert!(!error.contains("hunter2") && !error.contains("c2VjcmV0"), "{location}: {error}");
    }
    let held = settings(&[("AZURE_STORAGE_ACCOUNT_NAME", "somebody"), ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")]);
    let shown = format!("{:?}", ObjectCheckpointStorage::open("az://bucket", &held).expect("it can be used"));
    assert!(shown.contains("az://bucket"), "{shown}");
    let as_bytes = "115, 101, 99, 114, 101, 116";
    assert!(["c2VjcmV0", "secret", as_bytes].iter().all(|secret| !shown.contains(secret)), "{shown}");
}
