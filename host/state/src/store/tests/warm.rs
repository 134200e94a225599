//! What is in memory after a restore, and when the disk is asked.

use super::{
    snapshots::{restore, take},
    *,
};

const KEYS: i64 = 5_000;

fn numbered(kind: Kind) -> Fixture {
    let mut fixture = open(kind, vec![value_state("n", DataType::Int64), value_state("m", DataType::Int64)], vec![]);
    let all: Vec<(i64, Option<i64>)> = (0..KEYS).map(|key| (key, Some(key * 3))).collect();
    all.chunks(1_000).for_each(|chunk| fixture.put_ints(0, chunk));
    // Some keys have a value of the other state alone.
    fixture.put_ints(1, &(KEYS..KEYS + 10).map(|key| (key, Some(-key))).collect::<Vec<_>>());
    fixture.put_ints(0, &[(17, None)]);
    fixture
}

/// Batches until everything has been read.
fn warm_up(fixture: &mut Fixture) {
    for _ in 0..10 {
        fixture.resolve([KEYS + 1_000]);
    }
    assert!(fixture.store.is_covered && fixture.store.warming.is_none(), "the disk is not asked any more");
}

/// Keys come back before rows ask for them, so that few rows after a restore wait for the disk.
#[test]
fn a_restored_store_that_fits_into_memory_soon_has_its_values_there() {
    let mut before = numbered(Kind::RocksDb);
    let part = take(&mut before, 1_000, |_| {});
    let mut fixture = restore(Kind::RocksDb, 0..KEY_GROUPS, &[part]);
    assert!(fixture.store.warming.is_some(), "the rest is read with the batches");
    // What changes meanwhile is not overwritten by what is read.
    fixture.put_ints(0, &[(4, Some(-4)), (5, None)]);
    warm_up(&mut fixture);
    assert_eq!(fixture.load_ints(0, &[4, 5, 6]), [Some(-4), None, Some(18)]);
    fixture.put_ints(0, &[(4, Some(12)), (5, Some(15))]);
    assert!(fixture.store.stats().keys_in_table as i64 >= KEYS + 10 - 1);
    assert_eq!(fixture.load_ints(0, &[0, 1, 17, KEYS - 1, KEYS, KEYS + 50]), [Some(0), Some(3), None, Some(3 * KEYS - 3), None, None]);
    assert_eq!(fixture.load_ints(1, &[0, KEYS, KEYS + 9]), [None, Some(-KEYS), Some(-KEYS - 9)]);
    // A value that came from the disk is deleted there, too.
    fixture.put_ints(0, &[(1, None), (2, Some(5))]);
    let part = take(&mut fixture, 1_000, |_| {});
    let mut again = restore(Kind::RocksDb, 0..KEY_GROUPS, &[part]);
    assert_eq!(again.load_ints(0, &[1, 2, 3]), [None, Some(5), Some(9)]);
}

/// A new version of the operator may come while values are still being read.
#[test]
fn a_new_declaration_while_values_are_read_keeps_them() {
    let mut before = numbered(Kind::RocksDb);
    let part = take(&mut before, 1_000, |_| {});
    let mut fixture = restore(Kind::RocksDb, 0..KEY_GROUPS, &[part]);
    fixture.resolve([KEYS + 1_000]);
    let states = vec![value_state("m", DataType::Int64), value_state("new", DataType::Int64), value_state("n", DataType::Int64)];
    fixture.store.redeclare(states, vec![]).expect("states may move");
    warm_up(&mut fixture);
    assert_eq!(fixture.load_ints(0, &[0, KEYS]), [None, Some(-KEYS)]);
    assert_eq!(fixture.load_ints(1, &[0, KEYS]), [None, None]);
    assert_eq!(fixture.load_ints(2, &[0, 17, KEYS - 1]), [Some(0), None, Some(3 * KEYS - 3)]);
}

/// Snapshots write every value to the disk; nothing is read back as long as no key had to leave memory.
#[test]
fn the_disk_is_asked_only_after_keys_had_to_leave() {
    let mut roomy = numbered(Kind::RocksDb);
    take(&mut roomy, 1_000, |_| {});
    assert!(roomy.store.is_covered && roomy.store.disk.as_ref().is_some_and(Disk::is_open));
    roomy.put_ints(0, &[(KEYS + 99, Some(1))]);
    assert_eq!(roomy.load_ints(0, &[KEYS + 99, KEYS + 98]), [Some(1), None]);
    // Keys of before a restore that leave memory while others are read from disk are looked up there again.
    let mut tiny = numbered(Kind::TinyRocksDb);
    tiny.forget_keys();
    assert!(!tiny.store.is_covered);
    assert_eq!(tiny.load_ints(0, &[16, 17, 18]), [Some(48), None, Some(54)]);
}

/// A state that memory does not take easily stays on disk until it is asked for.
#[test]
fn a_restored_store_that_does_not_fit_reads_what_it_is_asked_for() {
    let mut before = numbered(Kind::RocksDb);
    let part = take(&mut before, 1_000, |_| {});
    let mut fixture = restore(Kind::TinyRocksDb, 0..KEY_GROUPS, &[part]);
    assert!(!fixture.store.is_covered);
    assert_eq!(fixture.load_ints(0, &[0, 1, 17]), [Some(0), Some(3), None]);
}
