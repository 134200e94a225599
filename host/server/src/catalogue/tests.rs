//! The suite that every backend of the catalogue passes, and what is the embedded one's alone.

use std::{fs, sync::Arc};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn key(tenant: &str, name: &str) -> Key {
    Key { tenant: tenant.into(), kind: Kind::Job, name: name.to_owned() }
}

fn put(name: &str, value: i32, expected: Expected) -> Change {
    Change { key: key("t", name), expected, value: Some(json!(value)) }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn opened(directory: &std::path::Path) -> Arc<dyn Catalogue> {
    Arc::new(LocalCatalogue::open(directory).expect("a catalogue"))
}

#[tokio::test]
async fn a_writer_that_has_read_an_older_entry_is_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let catalogue = opened(directory.path());
    let first = catalogue.change(vec![put("a", 1, Expected::Absent)]).await.expect("new");
    catalogue.change(vec![put("a", 2, Expected::At(first))]).await.expect("as read");
    let error = catalogue.change(vec![put("a", 3, Expected::At(first))]).await.expect_err("changed since");
    assert!(matches!(error, Error::Changed { .. }), "{error}");
    let error = catalogue.change(vec![put("a", 3, Expected::Absent)]).await.expect_err("exists");
    assert!(matches!(error, Error::Exists { .. }), "{error}");
    assert_eq!(catalogue.get(&key("t", "a")).await.expect("readable").expect("there").value, json!(2));
}

#[tokio::test]
async fn changes_are_made_together_or_not_at_all() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let catalogue = opened(directory.path());
    catalogue.change(vec![put("taken", 1, Expected::Absent)]).await.expect("new");
    let both = vec![put("other", 1, Expected::Absent), put("taken", 2, Expected::Absent)];
    catalogue.change(both).await.expect_err("one exists");
    assert_eq!(catalogue.get(&key("t", "other")).await.expect("readable"), None);
}

#[tokio::test]
async fn a_tenant_lists_its_own_entries_page_by_page() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let catalogue = opened(directory.path());
    for name in ["a", "b", "c"] {
        catalogue.change(vec![put(name, 1, Expected::Absent)]).await.expect("new");
    }
    catalogue.change(vec![Change { key: key("u", "x"), expected: Expected::Any, value: Some(json!(1)) }]).await.expect("new");
    let names = async |after: Option<&str>| {
        let page = catalogue.list(&"t".into(), Kind::Job, after, 2).await.expect("readable");
        page.into_iter().map(|(key, _)| key.name).collect::<Vec<_>>()
    };
    assert_eq!(names(None).await, ["a", "b"]);
    assert_eq!(names(Some("b")).await, ["c"]);
    assert_eq!(catalogue.tenants(Kind::Job).await.expect("readable"), ["t".into(), "u".into()]);
}

#[tokio::test]
async fn the_audit_is_read_newest_first_and_goes_on_after_a_restart() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let record = |operation: &str| AuditRecord {
        number: 0,
        at_ms: 1,
        tenant: "t".into(),
        token: "k".into(),
        operation: operation.into(),
        path: "/".into(),
        status: 200,
        problem: None,
    };
    opened(directory.path()).audit(record("one")).await.expect("written");
    let catalogue = opened(directory.path());
    catalogue.audit(record("two")).await.expect("written");
    let found = catalogue.audited(&"t".into(), None, 9).await.expect("readable");
    assert_eq!(found.iter().map(|(number, record)| (*number, record.operation.as_str())).collect::<Vec<_>>(), [(2, "two"), (1, "one")]);
    assert_eq!(catalogue.audited(&"t".into(), Some(2), 9).await.expect("readable").len(), 1);
    assert!(catalogue.audited(&"u".into(), None, 9).await.expect("readable").is_empty());
}

/// Who asks for much has nothing of another tenant forgotten, and numbers tell nobody of others.
#[test]
fn the_audit_of_a_tenant_is_not_pushed_out_by_another() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let record = |tenant: &str, at_ms| AuditRecord {
        number: 0,
        at_ms,
        tenant: tenant.into(),
        token: "k".into(),
        operation: "op".into(),
        path: "/".into(),
        status: 200,
        problem: None,
    };
    runtime().block_on(async {
        let quiet: TenantId = "quiet".into();
        let catalogue = opened(directory.path());
        catalogue.audit(record("quiet", 0)).await.expect("written");
        for at_ms in 0..300 {
            catalogue.audit(record("loud", at_ms)).await.expect("written");
        }
        catalogue.audit(record("quiet", 1)).await.expect("written");
        for catalogue in [catalogue, opened(directory.path())] {
            let found = catalogue.audited(&quiet, None, 9).await.expect("readable");
            assert_eq!(found.iter().map(|(number, record)| (*number, record.at_ms)).collect::<Vec<_>>(), [(2, 1), (1, 0)]);
            let loud = catalogue.audited(&"loud".into(), None, usize::MAX).await.expect("readable");
            assert_eq!((loud.len(), loud[0].0), (100, 300));
        }
    });
}

#[tokio::test]
async fn owners_of_a_name_are_those_that_have_it_now() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let catalogue = opened(directory.path());
    let set = |tenant: &str, value: Option<i32>| {
        vec![Change { key: key(tenant, "a"), expected: Expected::Any, value: value.map(|value| json!(value)) }]
    };
    for tenant in ["u", "t"] {
        catalogue.change(set(tenant, Some(1))).await.expect("written");
    }
    assert_eq!(catalogue.owners(Kind::Job, "a").await.expect("readable"), ["t".into(), "u".into()]);
    catalogue.change(set("t", None)).await.expect("written");
    for catalogue in [catalogue, opened(directory.path())] {
        assert_eq!(catalogue.owners(Kind::Job, "a").await.expect("readable"), ["u".into()]);
        assert!(catalogue.owners(Kind::Token, "a").await.expect("readable").is_empty());
    }
}

/// What a process that is killed at any byte of a write finds again is exactly what it had acknowledged.
#[test]
fn a_catalogue_killed_at_any_byte_of_a_write_holds_what_was_acknowledged() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let file = directory.path().join("catalogue.log");
    let runtime = runtime();
    runtime.block_on(async {
        let catalogue = opened(directory.path());
        catalogue.change(vec![put("a", 1, Expected::Absent), put("b", 1, Expected::Absent)]).await.expect("new");
    });
    let acknowledged = fs::read(&file).expect("readable").len();
    runtime.block_on(async {
        opened(directory.path()).change(vec![put("a", 2, Expected::Any), put("b", 2, Expected::Any)]).await.expect("written")
    });
    let whole = fs::read(&file).expect("readable");
    for length in acknowledged..=whole.len() {
        fs::write(&file, &whole[..length]).expect("writable");
        let (a, b) = runtime.block_on(async {
            let catalogue = opened(directory.path());
            let value = async |name| catalogue.get(&key("t", name)).await.expect("readable").expect("there").value;
            (value("a").await, value("b").await)
        });
        let expected = if length == whole.len() { json!(2) } else { json!(1) };
        assert_eq!((a, b), (expected.clone(), expected), "cut at {length}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// However much is written, removed and compacted, an opened catalogue holds what the last writes said, and revisions only grow.
    #[test]
    fn a_reopened_catalogue_is_what_its_model_is(writes in prop::collection::vec((0_u8..6, prop::option::of(0_usize..40_000)), 1..120)) {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let mut model = std::collections::BTreeMap::new();
        let runtime = runtime();
        let mut last = Revision(0);
        let mut catalogue = opened(directory.path());
        for (number, (name, size)) in writes.into_iter().enumerate() {
            let name = name.to_string();
            let value = size.map(|size| json!("x".repeat(size)));
            let change = Change { key: key("t", &name), expected: Expected::Any, value: value.clone() };
            let revision = runtime.block_on(catalogue.change(vec![change])).expect("written");
            prop_assert!(revision > last);
            last = revision;
            match value {
                Some(value) => drop(model.insert(name, value)),
                None => drop(model.remove(&name)),
            }
            if number % 40 == 39 {
                catalogue = opened(directory.path());
            }
        }
        let catalogue = opened(directory.path());
        let found = runtime.block_on(catalogue.list(&"t".into(), Kind::Job, None, 99)).expect("readable");
        let found: std::collections::BTreeMap<_, _> = found.into_iter().map(|(key, entry)| (key.name, entry.value)).collect();
        prop_assert_eq!(found, model);
    }
}
