//! What happens to a component before it runs: inspection, refused imports, the compile cache.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_wasm::{Descriptor, Error, Limits, Runtime, RuntimeSettings, World, encode, inspect};

use crate::{
    context, contract, load, process,
    puppet::{self, AggregatePuppet, Puppet},
    rows, runtime_with,
};

async fn refusal(bytes: &[u8]) -> Error {
    load(bytes.into()).await.err().expect("is refused")
}

#[tokio::test]
async fn what_is_no_component_is_refused() {
    for (bytes, reason) in
        [(&b""[..], "empty"), (b"#!/bin/sh", "does not begin"), (b"\0asm\x01\0\0\0", "core module"), (b"\0asm\x0d\0\x01\0\x07", "damaged")]
    {
        let error = refusal(bytes).await;
        assert!(matches!(error, Error::NotAComponent { .. }) && error.to_string().contains(reason), "{error}");
    }
}

#[tokio::test]
async fn damaged_components_are_refused_wherever_the_damage_is() {
    let good = Puppet::silent().component();
    for cut in (8..good.len()).step_by(97) {
        let error = refusal(&good[..cut]).await;
        assert_eq!(error.kind(), millstream_model::ErrorKind::Invalid, "cut at {cut}: {error}");
    }
}

#[tokio::test]
async fn imports_that_are_not_granted_are_refused_by_name() {
    for import in ["wasi:sockets/tcp@0.2.0", "wasi:http/outgoing-handler@0.2.3", "acme:secrets/read@1.0.0", "wasi:nn/tensor@0.2.0"] {
        let error = refusal(&puppet::importer(import)).await;
        assert!(matches!(&error, Error::ImportRefused { import: refused, .. } if refused == import), "{error}");
    }
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused_before_it_is_read() {
    let limits = Limits { component_bytes: 100, ..crate::limits() };
    let error = runtime_with(limits).load(Puppet::silent().component(), "big.wasm").await.err().expect("over 100 bytes");
    assert!(error.to_string().contains("limit of 100 for component size"), "{error}");
}

#[tokio::test]
async fn an_aggregate_is_no_operator() {
    let signature = contract::Signature {
        reads: vec![],
        accumulator_type: "Int64".into(),
        version: 1,
        output: contract::field("n", "Int64"),
        merges: false,
        hints: vec![],
    };
    let component = load(AggregatePuppet::new(signature).component()).await.expect("loads");
    assert_eq!(component.inspection().worlds, [World::WindowAggregate]);
    let error = component.operator(context()).await.err().expect("no operator");
    assert!(error.to_string().contains("window-aggregate"), "{error}");
}

#[test]
fn inspection_reads_the_facts_without_running() {
    let bytes = Puppet { describe: puppet::trap(), ..Puppet::silent() }.component();
    let inspection = inspect(&bytes, "puppet.wasm").expect("a component");
    assert_eq!(inspection.worlds, [World::StreamOperator]);
    assert_eq!(inspection.exports, ["millstream:operator/operator@0.1.0"]);
    assert!(inspection.imports.iter().all(|import| import.starts_with("millstream:operator/")), "{:?}", inspection.imports);
    assert_eq!(inspection.size_bytes, bytes.len() as u64);
    assert!(inspection.module_bytes[0] > 0);
}

#[test]
fn encoding_refuses_what_the_contract_does_not_have() {
    let error = encode::component(&puppet::core_importer("env", "print"), &[], "x.wasm").expect_err("`env` is not granted");
    assert!(error.to_string().contains("env"), "{error}");
    let error = encode::component(&puppet::importer("wasi:sockets/tcp@0.2.0"), &[], "x.wasm").expect_err("sockets are not granted");
    assert!(error.to_string().contains("sockets"), "{error}");
}

/// What a runtime with a cache there makes of a component.
async fn described(cache: &Path, bytes: &Arc<[u8]>) -> Descriptor {
    let settings = RuntimeSettings { limits: crate::limits(), cache_dir: Some(cache.to_owned()), pooled_instances: 2, random_seed: 0 };
    let component = Runtime::new(settings).expect("a runtime").load(bytes.clone(), "puppet.wasm").await.expect("loads");
    component.operator(context()).await.expect("starts").describe().await.expect("describes")
}

/// The only file of a cache.
fn cached(cache: &Path) -> PathBuf {
    let files: Vec<PathBuf> = std::fs::read_dir(cache).expect("made").map(|entry| entry.expect("readable").path()).collect();
    let [path] = &files[..] else { panic!("one file: {files:?}") };
    path.clone()
}

#[tokio::test]
async fn compiled_code_is_cached_and_damaged_code_is_never_run() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let cache = directory.path().join("cache");
    let bytes = Puppet::silent().component();
    let first = described(&cache, &bytes).await;
    let path = cached(&cache);
    let whole = std::fs::read(&path).expect("there");
    let written = std::fs::metadata(&path).expect("there").modified().expect("a time");
    assert_eq!(described(&cache, &bytes).await, first);
    assert_eq!(std::fs::metadata(&path).expect("there").modified().expect("a time"), written, "taken, not written again");

    for at in [0, 31, 32, whole.len() / 2, whole.len() - 1] {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x80;
        std::fs::write(&path, &damaged).expect("writable");
        assert_eq!(described(&cache, &bytes).await, first);
        assert_ne!(std::fs::read(&path).expect("there"), damaged, "compiled again: byte {at}");
    }
    for length in [0, 31, 32, whole.len() - 1] {
        std::fs::write(&path, &whole[..length]).expect("writable");
        assert_eq!(described(&cache, &bytes).await, first);
        assert!(std::fs::read(&path).expect("there").len() > length, "compiled again: {length} bytes");
    }
}

/// Who may write to the cache still cannot have us run what was not compiled here: the key lies elsewhere, and a signature holds for its name only.
#[tokio::test]
async fn compiled_code_that_was_planted_is_never_run() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let (ours, theirs, other) = (directory.path().join("ours"), directory.path().join("theirs"), directory.path().join("other"));
    let good = Puppet::silent().component();
    let evil = Puppet { describe: puppet::trap(), ..Puppet::silent() }.component();
    let first = described(&ours, &good).await;
    let path = cached(&ours);

    // The same component, compiled by the same engine, but signed with another key.
    assert_eq!(described(&theirs, &good).await, first);
    assert_eq!(cached(&theirs).file_name(), path.file_name());
    let foreign = std::fs::read(cached(&theirs)).expect("there");
    std::fs::write(&path, &foreign).expect("writable");
    assert_eq!(described(&ours, &good).await, first);
    assert_ne!(std::fs::read(&path).expect("there"), foreign, "compiled again");

    // Our own signature, but of another component.
    std::fs::copy(directory.path().join("ours.key"), directory.path().join("other.key")).expect("there");
    let settings = RuntimeSettings { limits: crate::limits(), cache_dir: Some(other.clone()), pooled_instances: 2, random_seed: 0 };
    Runtime::new(settings).expect("a runtime").load(evil, "evil.wasm").await.expect("loads");
    std::fs::copy(cached(&other), &path).expect("writable");
    assert_eq!(described(&ours, &good).await, first, "the other component would trap");
}

/// Without a key nothing in the cache can be trusted, and nothing is written there.
#[tokio::test]
async fn without_a_key_components_are_compiled_and_not_cached() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let cache = directory.path().join("cache");
    std::fs::create_dir_all(directory.path().join("cache.key/occupied")).expect("writable");
    described(&cache, &Puppet::silent().component()).await;
    assert!(!cache.exists());
}

#[tokio::test]
async fn instances_beyond_the_pool_are_a_limit() {
    let runtime =
        Runtime::new(RuntimeSettings { limits: crate::limits(), pooled_instances: 1, ..RuntimeSettings::default() }).expect("a runtime");
    let component = runtime.load(Puppet::silent().component(), "puppet.wasm").await.expect("loads");
    let first = component.operator(context()).await.expect("one fits");
    let error = component.operator(context()).await.err().expect("two do not");
    assert!(error.to_string().contains("limit of 1 for instances"), "{error}");
    drop(first);
    component.operator(context()).await.expect("there is room again");
}

#[tokio::test]
async fn an_instance_without_a_pool_works_the_same() {
    let runtime =
        Runtime::new(RuntimeSettings { limits: crate::limits(), pooled_instances: 0, ..RuntimeSettings::default() }).expect("a runtime");
    let component = runtime.load(Puppet::silent().component(), "puppet.wasm").await.expect("loads");
    let mut instance = component.operator(context()).await.expect("starts");
    let schema = [crate::input(&[])];
    let plan = Arc::new(instance.plan(&serde_json::json!({}), &schema).await.expect("plans"));
    instance.open(&serde_json::json!({}), &schema, plan).await.expect("opens");
    process(&mut instance, rows(3)).await.expect("answers");
}
