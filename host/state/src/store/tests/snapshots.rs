//! Generations: what a snapshot sees.

use std::collections::BTreeMap;

use super::*;

/// Everything a snapshot is: the disk when it is cut (after the last slice was written) and the entries handed out.
pub(super) fn finish(fixture: &mut Fixture, limit: usize, mut between: impl FnMut(&mut Fixture)) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut handed_out = BTreeMap::new();
    loop {
        let slice = fixture.store.old_generation_entries(limit).expect("a snapshot is under way");
        fixture.store.write_old_entries(&slice).expect("a good disk");
        for entry in slice.states.iter().chain(&slice.timers) {
            handed_out.insert(entry.key.to_vec(), entry.value.as_ref().map(|value| value.to_vec()));
        }
        if slice.is_last {
            break;
        }
        between(fixture);
    }
    let mut snapshot = disk_entries(fixture);
    for (key, value) in handed_out {
        match value {
            Some(value) => snapshot.insert(key, value),
            None => snapshot.remove(&key),
        };
    }
    fixture.store.finish_generation().expect("a good disk");
    snapshot
}

pub(super) fn disk_entries(fixture: &Fixture) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut entries = BTreeMap::new();
    if let Some(disk) = &fixture.store.disk {
        let visit = |key: &[u8], value: &[u8]| {
            entries.insert(key.to_vec(), value.to_vec());
            std::ops::ControlFlow::Continue(())
        };
        disk.scan(&[0, 0], &[0xff, 0xff], false, visit).expect("a good disk");
    }
    entries
}

#[test]
fn a_snapshot_holds_the_values_of_the_barrier_whatever_happens_after_it() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        fixture.put_ints(0, &(0..50).map(|key| (key, Some(key))).collect::<Vec<_>>());
        fixture.store.advance_generation();
        let mut next = 0;
        let snapshot = finish(&mut fixture, 7, |fixture| {
            fixture.put_ints(0, &[(next, Some(-1)), (49 - next, None), (100 + next, Some(-1))]);
            next += 1;
        });
        assert!(next > 5 || kind == Kind::TinyRocksDb, "there were slices in between");
        let values: Vec<i64> =
            snapshot.values().map(|stored| i64::from_le_bytes(stored[stored.len() - 8..].try_into().expect("8 bytes"))).collect();
        let mut sorted = values.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>(), "{kind:?}");
    }
}

#[test]
fn a_snapshot_with_a_disk_hands_out_only_what_changed_since_the_last() {
    let mut fixture = open(Kind::RocksDb, vec![value_state("n", DataType::Int64)], vec![]);
    fixture.put_ints(0, &[(1, Some(1)), (2, Some(2))]);
    fixture.store.advance_generation();
    assert_eq!(finish(&mut fixture, 100, |_| {}).len(), 2);
    fixture.put_ints(0, &[(2, Some(3))]);
    fixture.store.advance_generation();
    let slice = fixture.store.old_generation_entries(100).expect("a snapshot is under way");
    assert_eq!((slice.states.len(), slice.is_last), (1, true));
    assert_eq!(finish(&mut fixture, 100, |_| {}).len(), 2);
}

#[test]
fn a_snapshot_in_memory_hands_out_everything() {
    let mut fixture = open(Kind::Memory, vec![value_state("n", DataType::Int64)], vec![]);
    fixture.put_ints(0, &[(1, Some(1)), (2, Some(2))]);
    for _ in 0..2 {
        fixture.store.advance_generation();
        assert_eq!(finish(&mut fixture, 100, |_| {}).len(), 2);
    }
}

#[test]
fn values_of_the_new_generation_stay_in_memory_until_the_snapshot_is_taken() {
    let mut fixture = open(Kind::TinyRocksDb, vec![value_state("n", DataType::Int64)], vec![]);
    fixture.store.advance_generation();
    for key in 0..200 {
        fixture.put_ints(0, &[(key, Some(key))]);
    }
    assert!(disk_entries(&fixture).is_empty());
    finish(&mut fixture, 1_000, |_| {});
    fixture.forget_keys();
    assert!(disk_entries(&fixture).len() > 150);
}

#[test]
fn a_value_deleted_after_the_barrier_does_not_come_back_from_the_disk() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        fixture.put_ints(0, &[(1, Some(1))]);
        fixture.store.advance_generation();
        let slice = fixture.store.old_generation_entries(1_000).expect("a snapshot is under way");
        assert!(slice.is_last);
        fixture.put_ints(0, &[(1, None)]);
        fixture.store.write_old_entries(&slice).expect("a good disk");
        fixture.store.finish_generation().expect("a good disk");
        fixture.forget_keys();
        fixture.forget_keys();
        assert_eq!(fixture.load_ints(0, &[1]), [None], "{kind:?}");
    }
}
