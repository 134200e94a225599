//! Snapshots: what they hold, and what becomes of them.

use millstream_model::state::{Ttl, TtlRefresh};

use super::*;
use crate::{FilesForm, Snapshot, SnapshotPart, SnapshotStep};

/// More than what is written as one small file.
const MANY: i64 = 8_000;

pub(super) fn begin(fixture: &mut Fixture) {
    fixture.snapshots += 1;
    let directory = fixture.directory.path().join(format!("snapshots/{}", fixture.snapshots));
    fixture.store.begin_snapshot(directory).expect("no other is under way");
}

/// Takes the slices of a snapshot that has begun and writes it.
pub(super) fn write(fixture: &mut Fixture, limit: usize, mut between: impl FnMut(&mut Fixture)) -> Snapshot {
    loop {
        match fixture.store.continue_snapshot(limit).expect("a good disk") {
            SnapshotStep::More => between(fixture),
            SnapshotStep::Cut(cut) => {
                // The stream goes on while the files are written.
                between(fixture);
                let writer = std::thread::spawn(move || cut.write().expect("a good disk"));
                let snapshot = writer.join().expect("writing does not panic");
                fixture.store.finish_snapshot().expect("a good disk");
                return snapshot;
            }
        }
    }
}

pub(super) fn take(fixture: &mut Fixture, limit: usize, between: impl FnMut(&mut Fixture)) -> SnapshotPart {
    begin(fixture);
    let snapshot = write(fixture, limit, between);
    part_of(fixture, snapshot)
}

pub(super) fn part_of(fixture: &Fixture, snapshot: Snapshot) -> SnapshotPart {
    SnapshotPart { directory: snapshot.directory, key_groups: fixture.store.groups(), description: snapshot.description }
}

/// A store with the declarations of the snapshot.
pub(super) fn restore(kind: Kind, groups: Range<u16>, parts: &[SnapshotPart]) -> Fixture {
    let states = parts[0].description.state_descriptors().expect("a good description");
    restore_as(kind, groups, parts, states, parts[0].description.timer_descriptors()).expect("a good snapshot")
}

pub(super) fn restore_as(
    kind: Kind,
    groups: Range<u16>,
    parts: &[SnapshotPart],
    states: Vec<StateDescriptor>,
    timers: Vec<TimerDescriptor>,
) -> Result<Fixture, Error> {
    let directory = TempDir::new().expect("a directory");
    let store = KeyedStore::restore(&settings(kind, &directory), groups, parts, states, timers)?;
    Ok(Fixture { store, directory, snapshots: 0 })
}

fn numbers(kind: Kind) -> Fixture {
    open(kind, vec![value_state("n", DataType::Int64)], vec![])
}

fn fill(fixture: &mut Fixture, range: Range<i64>) {
    let entries: Vec<_> = range.map(|key| (key, Some(key))).collect();
    entries.chunks(4096).for_each(|chunk| fixture.put_ints(0, chunk));
}

#[test]
fn a_snapshot_holds_the_values_of_the_barrier_whatever_happens_after_it() {
    for (kind, keys) in KINDS.into_iter().flat_map(|kind| [(kind, 50), (kind, MANY)]) {
        let mut fixture = numbers(kind);
        fill(&mut fixture, 0..keys);
        let mut next = 0;
        let part = take(&mut fixture, keys as usize / 8, |fixture| {
            fixture.put_ints(0, &[(next, Some(-1)), (keys - 1 - next, None), (keys + next, Some(-1))]);
            next += 1;
        });
        for target in KINDS {
            let mut restored = restore(target, 0..KEY_GROUPS, std::slice::from_ref(&part));
            let all: Vec<i64> = (0..keys + next).collect();
            let expected: Vec<_> = all.iter().map(|&key| (key < keys).then_some(key)).collect();
            assert_eq!(restored.load_ints(0, &all), expected, "{kind:?} to {target:?}");
        }
    }
}

#[test]
fn a_small_state_that_never_left_memory_is_one_file() {
    for kind in [Kind::Memory, Kind::RocksDb] {
        let mut fixture = numbers(kind);
        fill(&mut fixture, 0..50);
        begin(&mut fixture);
        let snapshot = write(&mut fixture, 100, |_| {});
        assert_eq!(snapshot.files.iter().map(|file| &file.name[..]).collect::<Vec<_>>(), ["entries"], "{kind:?}");
        assert_eq!((snapshot.description.files, snapshot.description.entries), (FilesForm::Entries, 50));
    }
}

#[test]
fn only_tables_that_the_snapshot_before_lacks_are_new() {
    let mut fixture = numbers(Kind::RocksDb);
    fill(&mut fixture, 0..MANY);
    begin(&mut fixture);
    let first = write(&mut fixture, 1_000, |_| {});
    let tables = |snapshot: &Snapshot, is_new: bool| {
        let names = snapshot.files.iter().filter(|file| file.name.ends_with(".sst") && file.is_new == is_new);
        names.map(|file| file.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!((tables(&first, true).len(), tables(&first, false).len()), (1, 0));
    fill(&mut fixture, 0..10);
    begin(&mut fixture);
    let second = write(&mut fixture, 1_000, |_| {});
    assert_eq!((tables(&second, false), tables(&second, true).len()), (tables(&first, true), 1));
    let part = part_of(&fixture, second.clone());
    let mut restored = restore(Kind::RocksDb, 0..KEY_GROUPS, &[part]);
    begin(&mut restored);
    let third = write(&mut restored, 1_000, |_| {});
    let all = |snapshot: &Snapshot| [tables(snapshot, false), tables(snapshot, true)].concat();
    assert_eq!(
        (tables(&third, false).len(), all(&third).len()),
        (all(&second).len(), all(&second).len()),
        "what it was restored from is known"
    );
}

#[test]
fn a_second_snapshot_does_not_begin_while_one_is_under_way() {
    for kind in KINDS {
        let mut fixture = numbers(kind);
        fill(&mut fixture, 0..50);
        begin(&mut fixture);
        let error = fixture.store.begin_snapshot(fixture.directory.path().join("other")).expect_err("one is under way");
        assert!(matches!(error, Error::SnapshotUnderWay));
        assert!(fixture.store.finish_snapshot().is_err(), "it was not written");
        write(&mut fixture, 100, |_| {});
        assert!(fixture.store.continue_snapshot(1).is_err(), "none is under way");
    }
}

#[test]
fn an_abandoned_snapshot_takes_nothing_from_the_next() {
    for (kind, slices) in KINDS.into_iter().flat_map(|kind| [(kind, 0), (kind, 3), (kind, 100)]) {
        let mut fixture = numbers(kind);
        fill(&mut fixture, 0..MANY);
        begin(&mut fixture);
        for _ in 0..slices {
            if let SnapshotStep::Cut(_) = fixture.store.continue_snapshot(1_000).expect("a good disk") {
                break;
            }
        }
        fixture.store.abandon_snapshot();
        // Values that the abandoned snapshot may have brought to disk, deleted: they must not come back.
        fixture.put_ints(0, &[(1, None), (2, Some(-2))]);
        fixture.forget_keys();
        fixture.forget_keys();
        assert_eq!(fixture.load_ints(0, &[1, 2, 3]), [None, Some(-2), Some(3)], "{kind:?} {slices}");
        let part = take(&mut fixture, 1_000, |_| {});
        let mut restored = restore(kind, 0..KEY_GROUPS, &[part]);
        assert_eq!(restored.load_ints(0, &[1, 2, 3, MANY - 1]), [None, Some(-2), Some(3), Some(MANY - 1)], "{kind:?} {slices}");
    }
}

/// Whoever writes a cut may learn late that it was given up.
#[test]
fn a_cut_that_was_given_up_changes_nothing_any_more() {
    for (kind, keys) in [Kind::RocksDb, Kind::TinyRocksDb].into_iter().flat_map(|kind| [(kind, 200), (kind, 2 * MANY)]) {
        let mut fixture = numbers(kind);
        fill(&mut fixture, 0..1);
        fixture.store.flush().expect("a good disk");
        fill(&mut fixture, 0..keys);
        begin(&mut fixture);
        let cut = loop {
            if let SnapshotStep::Cut(cut) = fixture.store.continue_snapshot(100_000).expect("a good disk") {
                break cut;
            }
        };
        fixture.store.abandon_snapshot();
        fixture.put_ints(0, &[(1, Some(-1)), (2, None)]);
        fixture.store.flush().expect("a good disk");
        assert!(cut.write().is_err(), "{kind:?}");
        let part = take(&mut fixture, 1_000, |_| {});
        assert_eq!(restore(Kind::RocksDb, 0..KEY_GROUPS, &[part]).load_ints(0, &[0, 1, 2]), [Some(0), Some(-1), None], "{kind:?}");
        fixture.forget_keys();
        assert_eq!(fixture.load_ints(0, &[0, 1, 2]), [Some(0), Some(-1), None], "{kind:?}");
    }
}

#[test]
fn values_of_the_new_generation_stay_in_memory_until_the_snapshot_is_taken() {
    let mut fixture = numbers(Kind::TinyRocksDb);
    fill(&mut fixture, 0..MANY);
    fixture.forget_keys();
    begin(&mut fixture);
    let evicted = fixture.store.stats().keys_evicted;
    for key in MANY..MANY + 200 {
        fixture.put_ints(0, &[(key, Some(key))]);
    }
    assert!(fixture.store.stats().keys_in_table >= 200, "{} keys evicted", fixture.store.stats().keys_evicted - evicted);
    let snapshot = write(&mut fixture, 1_000, |_| {});
    let part = part_of(&fixture, snapshot);
    assert_eq!(restore(Kind::RocksDb, 0..KEY_GROUPS, &[part]).load_ints(0, &[MANY - 1, MANY, MANY + 199]), [Some(MANY - 1), None, None]);
}

#[test]
fn a_value_deleted_after_the_barrier_does_not_come_back_from_the_disk() {
    for kind in KINDS {
        let mut fixture = numbers(kind);
        fill(&mut fixture, 0..MANY);
        begin(&mut fixture);
        write(&mut fixture, 100_000, |fixture| fixture.put_ints(0, &[(1, None)]));
        fixture.forget_keys();
        fixture.forget_keys();
        assert_eq!(fixture.load_ints(0, &[1]), [None], "{kind:?}");
    }
}

/// A swap to a version that keeps the same must not walk over the keys: a million of them would hold the job up for a tenth of a second. While a snapshot
/// is under way whatever walks over them is refused, so this is seen there.
#[test]
fn declaring_the_same_again_touches_nothing_not_even_a_snapshot() {
    for kind in KINDS {
        let (states, timers) = (vec![value_state("n", DataType::Int64)], vec![event_timer("t")]);
        let mut fixture = open(kind, states.clone(), timers.clone());
        fixture.put_ints(0, &[(1, Some(10)), (2, Some(20))]);
        fixture.forget_keys();
        let part = take(&mut fixture, 100, |fixture| {
            fixture.store.redeclare(states.clone(), timers.clone()).expect("it is declared already");
            assert!(fixture.store.redeclare(states.clone(), vec![]).is_err(), "a change is refused");
        });
        assert_eq!(fixture.load_ints(0, &[1, 2]), [Some(10), Some(20)], "{kind:?}");
        assert_eq!(restore(kind, 0..KEY_GROUPS, &[part]).load_ints(0, &[1, 2]), [Some(10), Some(20)], "{kind:?}");
    }
}

#[test]
fn what_the_new_declaration_lacks_is_named_and_forgotten() {
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64), value_state("m", DataType::Int64)], vec![event_timer("t")]);
        fixture.put_ints(0, &[(1, Some(10))]);
        fixture.put_ints(1, &[(1, Some(20))]);
        fixture.forget_keys();
        let part = take(&mut fixture, 100, |_| {});
        let declared = vec![value_state("m", DataType::Int64)];
        assert_eq!(part.description.states_missing_in(&declared), ["n"]);
        assert_eq!(part.description.timers_missing_in(&[]), ["t"]);
        let mut restored = restore_as(target, 0..KEY_GROUPS, std::slice::from_ref(&part), declared, vec![]).expect("a good snapshot");
        assert_eq!(restored.load_ints(0, &[1]), [Some(20)]);
        let again = vec![value_state("n", DataType::Int64), value_state("m", DataType::Int64)];
        restored.store.redeclare(again, vec![]).expect("good declarations");
        assert_eq!((restored.load_ints(0, &[1]), restored.load_ints(1, &[1])), (vec![None], vec![Some(20)]));
    }
}

#[test]
fn a_wider_type_reads_what_a_snapshot_has_and_another_kind_is_refused() {
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int32)], vec![]);
        let keys = fixture.resolve([1, 2]);
        let values: ArrayRef = Arc::new(arrow_array::Int32Array::from(vec![5, -6]));
        fixture.store.update_values(0, &keys, &all(&keys), &values, NOW).expect("a good disk");
        fixture.forget_keys();
        let part = [take(&mut fixture, 100, |_| {})];
        let wider = StateDescriptor { version: 2, ..value_state("n", DataType::Int64) };
        let mut restored = restore_as(target, 0..KEY_GROUPS, &part, vec![wider], vec![]).expect("compatible");
        assert_eq!(restored.load_ints(0, &[1, 2]), [Some(5), Some(-6)]);
        // Both versions go into the next snapshot.
        restored.put_ints(0, &[(2, Some(7))]);
        let again = take(&mut restored, 100, |_| {});
        assert_eq!(restore(kind, 0..KEY_GROUPS, &[again]).load_ints(0, &[1, 2]), [Some(5), Some(7)]);
        let list = list_state("n", DataType::Int32);
        assert!(matches!(restore_as(target, 0..KEY_GROUPS, &part, vec![list], vec![]), Err(Error::Incompatible { .. })));
        let text = StateDescriptor { version: 2, ..value_state("n", DataType::Utf8) };
        assert!(matches!(restore_as(target, 0..KEY_GROUPS, &part, vec![text], vec![]), Err(Error::Incompatible { .. })));
    }
}

#[test]
fn times_to_live_go_on_where_they_stood_at_the_barrier() {
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let ttl = Some(Ttl { duration_ms: 100, clock: Clock::EventTime, refresh: TtlRefresh::OnWrite });
        let mut fixture = open(kind, vec![StateDescriptor { ttl, ..value_state("n", DataType::Int64) }], vec![]);
        let keys = fixture.resolve([1]);
        fixture.store.update_values(0, &keys, &all(&keys), &ints([7]), at(1_000)).expect("a good disk");
        fixture.forget_keys();
        let part = take(&mut fixture, 100, |fixture| {
            let keys = fixture.resolve([2]);
            fixture.store.load(0, &keys, at(9_000)).expect("a good disk");
        });
        assert_eq!(part.description.event_time, Some(1_000));
        let mut restored = restore(target, 0..KEY_GROUPS, &[part]);
        let load = |restored: &mut Fixture, now| {
            let keys = restored.resolve([1]);
            restored.store.load(0, &keys, now).expect("a good disk").as_primitive::<Int64Type>().iter().next().flatten()
        };
        assert_eq!(load(&mut restored, at(1_099)), Some(7), "{kind:?} to {target:?}");
        assert_eq!(load(&mut restored, at(1_100)), None);
    }
}
