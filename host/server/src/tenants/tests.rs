//! Quotas against a catalogue of its own.

use std::time::Duration;

use millstream_engine::clock::ManualClock;

use super::*;
use crate::catalogue::{LocalCatalogue, objects::ComponentPhase};

struct House {
    _directory: tempfile::TempDir,
    store: Store,
    clock: Arc<ManualClock>,
    tenants: Tenants,
}

async fn house(quotas: Quotas) -> (House, TenantId) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = Store::new(Arc::new(LocalCatalogue::open(directory.path()).expect("a catalogue")));
    let clock = Arc::new(ManualClock::at(1_000));
    let tenants = Tenants::new(store.clone(), clock.clone());
    tenants.make_local().await.expect("made");
    tenants.create("acme", TenantSettings { quotas, ..TenantSettings::default() }).await.expect("new");
    (House { _directory: directory, store, clock, tenants }, TenantId::from("acme"))
}

fn component(bytes: u64) -> Component {
    Component { bytes, pushed_ms: 0, phase: ComponentPhase::Compiling { since_ms: 0 } }
}

/// Quota, limit, use and fix: what whoever runs into a quota needs to know.
fn assert_told(failure: &Failure, exceeded: Exceeded) {
    assert_eq!(failure.problems[0].quota, Some(exceeded));
    let fix = failure.problems[0].fix.as_deref().unwrap_or_default();
    assert!(failure.message().contains(exceeded.quota.name()) && fix.contains("millstream tenant set"), "{failure} {fix}");
}

#[tokio::test]
async fn requests_beyond_the_rate_wait_and_those_of_others_do_not() {
    let (house, acme) = house(Quotas { requests_per_s: Some(10), ..Quotas::default() }).await;
    for _ in 0..20 {
        house.tenants.admit_request(&acme).await.expect("within the burst");
    }
    let refused = house.tenants.admit_request(&acme).await.expect_err("too many");
    assert_eq!(refused.wait_ms, Some(101));
    assert_told(&refused.failure, Exceeded { quota: Quota::RequestsPerS, limit: 10, used: 10 });
    house.tenants.admit_request(&TenantId::local()).await.expect("another tenant");
    house.clock.advance(Duration::from_millis(100));
    house.tenants.admit_request(&acme).await.expect("time has passed");
    // A limit that is raised holds at once.
    house
        .tenants
        .change(&acme, TenantSettings { quotas: Quotas { requests_per_s: None, ..Quotas::default() }, ..TenantSettings::default() })
        .await
        .expect("changed");
    house.tenants.admit_request(&acme).await.expect("no limit any more");
}

#[tokio::test]
async fn components_are_counted_until_they_are_written_down() {
    let (house, acme) = house(Quotas { component_bytes: Some(100), ..Quotas::default() }).await;
    let admitted = house.tenants.admit_component(&acme, 60).await.expect("fits");
    // Another one of the tenant waits until this one is written down, and then does not fit.
    let mut other = std::pin::pin!(house.tenants.admit_component(&acme, 60));
    assert!(futures::poll!(other.as_mut()).is_pending());
    house.store.put(&acme, "a", &component(60), Expected::Absent).await.expect("written");
    drop(admitted);
    let failure = other.await.err().expect("too much");
    assert_told(&failure, Exceeded { quota: Quota::ComponentBytes, limit: 100, used: 60 });
    drop(house.tenants.admit_component(&acme, 40).await.expect("fits exactly"));
    drop(house.tenants.admit_component(&TenantId::local(), 1 << 40).await.expect("another tenant"));
}

#[tokio::test]
async fn a_tenant_with_too_much_state_gets_no_more_of_it() {
    let (house, acme) = house(Quotas { state_bytes: Some(100), ..Quotas::default() }).await;
    house.tenants.check_state(&acme).await.expect("none yet");
    house.tenants.measured(&acme, 100, 0);
    let failure = house.tenants.check_state(&acme).await.expect_err("full");
    assert_told(&failure, Exceeded { quota: Quota::StateBytes, limit: 100, used: 100 });
    assert!(house.tenants.admit_job(&acme).await.is_err());
}

#[tokio::test]
async fn streams_and_uploads_of_a_tenant_are_few_and_their_end_makes_room() {
    let (house, acme) = house(Quotas::default()).await;
    let uploads: Vec<_> = (0..UPLOADS_MAX).map(|_| house.tenants.admit_upload(&acme).expect("few")).collect();
    assert_eq!(house.tenants.admit_upload(&acme).expect_err("many").wait_ms, Some(1_000));
    drop(house.tenants.admit_upload(&TenantId::local()).expect("another tenant"));
    drop(uploads);
    drop(house.tenants.admit_upload(&acme).expect("there is room again"));
}

/// What a tenant leaves behind is not found by another one of its name.
#[tokio::test]
async fn a_new_tenant_of_an_old_name_begins_with_nothing() {
    let (house, acme) = house(Quotas::default()).await;
    house.store.put(&acme, "a", &component(1), Expected::Absent).await.expect("written");
    house.tenants.leave(&acme).await.expect("begun");
    assert_eq!(house.tenants.get(&acme).await.expect_err("gone").kind, ErrorKind::NotFound);
    assert!(house.tenants.admit_component(&acme, 1).await.is_err(), "nothing is added to it any more");
    assert_eq!(house.tenants.leaving().await.expect("readable"), std::slice::from_ref(&acme));
    house.tenants.forget(&acme).await.expect("forgotten");
    // A request that was under way all the same:
    house.store.put(&acme, "b", &component(1), Expected::Absent).await.expect("written");
    house.tenants.create("acme", TenantSettings::default()).await.expect("new");
    assert_eq!(house.tenants.in_use(&acme).await.expect("readable"), InUse::default());
}

#[tokio::test]
async fn the_tenant_of_who_runs_the_service_stays() {
    let (house, _) = house(Quotas::default()).await;
    assert_eq!(house.tenants.leave(&TenantId::local()).await.expect_err("refused").kind, ErrorKind::Conflict);
    house.tenants.make_local().await.expect("there already");
    let names: Vec<_> = house.tenants.list(None, 9).await.expect("readable").into_iter().map(|found| found.name).collect();
    assert_eq!(names, ["acme", "local"]);
    assert_eq!(house.tenants.list(Some("acme"), 9).await.expect("readable")[0].name, "local");
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let (house, acme) = house(Quotas::default()).await;
    for quotas in [Quotas { cpu_share: 0, ..Quotas::default() }, Quotas { requests_per_s: Some(0), ..Quotas::default() }] {
        assert!(house.tenants.change(&acme, TenantSettings { quotas, ..TenantSettings::default() }).await.is_err());
    }
    assert!(house.tenants.create("../x", TenantSettings::default()).await.is_err());
    assert!(house.tenants.create("acme", TenantSettings::default()).await.is_err());
}
