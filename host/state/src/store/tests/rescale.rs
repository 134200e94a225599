//! Other parallelisms: parts of a snapshot become the stores of other key groups.

use super::{
    snapshots::{begin, restore, restore_as, take},
    *,
};
use crate::{SnapshotPart, SnapshotStep};

const KEYS: i64 = 6_000;

/// Values, lists and timers of many keys, the last of them far away.
pub(super) fn filled(kind: Kind) -> Fixture {
    let states = vec![value_state("n", DataType::Int64), list_state("l", DataType::Int64)];
    let mut fixture = open(kind, states, vec![event_timer("t")]);
    for start in (0..KEYS).step_by(1_000) {
        let batch: Vec<i64> = (start..start + 1_000).collect();
        fixture.put_ints(0, &batch.iter().map(|&key| (key, Some(key))).collect::<Vec<_>>());
        let keys = fixture.resolve(batch.iter().copied());
        for round in 0..2 {
            let values = ints(batch.iter().map(|key| key * 10 + round));
            let update = ListUpdate { state: 1, cleared: BooleanBuffer::new_unset(0), keys: (0..1_000).collect(), values };
            fixture.store.update_list(&keys, &update, NOW).expect("a good disk");
        }
        let at = batch.clone();
        let timers = TimerUpdate { timer: 0, keys: (0..1_000).collect(), at, deleted: BooleanBuffer::new_unset(1_000) };
        fixture.store.update_timers(&keys, &timers).expect("a good update");
    }
    fixture
}

/// The keys whose values, lists and timers a store has; all three agree.
fn content(fixture: &mut Fixture) -> Vec<i64> {
    let mut found = Vec::new();
    let group_of = |key: i64| keys([key]).group(0).0;
    let mine: Vec<i64> = (0..KEYS).filter(|&key| fixture.store.groups().contains(&group_of(key))).collect();
    for chunk in mine.chunks(512) {
        let values = fixture.load_ints(0, chunk);
        let keys = fixture.resolve(chunk.iter().copied());
        let span = |key| Span { key, after: None, before: None, newest_first: false, limit: 100 };
        let spans: Vec<Span> = (0..chunk.len() as u32).map(span).collect();
        let lists = fixture.store.scan(1, &keys, &spans, usize::MAX, NOW).expect("a good disk");
        let lists: Vec<i64> = lists.values.as_primitive::<Int64Type>().values().to_vec();
        let present: Vec<i64> = chunk.iter().zip(values).filter_map(|(&key, value)| (value? == key).then_some(key)).collect();
        assert_eq!(lists, present.iter().flat_map(|key| [key * 10, key * 10 + 1]).collect::<Vec<_>>());
        found.extend(present);
    }
    let mut fired: Vec<i64> = Vec::new();
    while let Some(due) = fixture.store.due(Clock::EventTime, i64::MAX, 1_000).expect("a good disk") {
        fired.extend(&due.at);
        fixture.store.remove_due(&due);
    }
    assert_eq!(fired, found);
    found
}

fn rescale(kinds: &[Kind], parts: &[SnapshotPart], limit: usize) -> (Vec<SnapshotPart>, Vec<Fixture>) {
    let count = kinds.len() as u32;
    let groups = |subtask| KeyGroup::owned_by(millstream_model::ids::SubtaskIndex(subtask), count);
    let mut fixtures: Vec<Fixture> = kinds.iter().zip(0..).map(|(&kind, subtask)| restore(kind, groups(subtask), parts)).collect();
    (fixtures.iter_mut().map(|fixture| take(fixture, limit, |_| {})).collect(), fixtures)
}

#[test]
fn one_becomes_two_becomes_one_and_three_become_two() {
    for (first, second) in KINDS.into_iter().flat_map(|first| KINDS.map(|second| (first, second))) {
        let mut one = filled(first);
        let part = take(&mut one, 1_000, |_| {});
        let (two, mut stores) = rescale(&[second, first], std::slice::from_ref(&part), 1_000);
        let mut found: Vec<i64> = stores.iter_mut().flat_map(content).collect();
        found.sort_unstable();
        assert_eq!(found, (0..KEYS).collect::<Vec<_>>(), "{first:?} to {second:?}: one to two");
        let (three, _three_stores) = rescale(&[first, second, first], &two, 1_000);
        let (two_again, _two_stores) = rescale(&[second, second], &three, 1_000);
        let (one_again, mut last) = rescale(&[first], &two_again, 1_000);
        assert_eq!(content(&mut last[0]), (0..KEYS).collect::<Vec<_>>(), "{first:?} to {second:?}: three to two to one");
        assert_eq!(one_again.len(), 1);
    }
}

/// The database of one half is that of the whole again, and began as the whole: it must have forgotten the other half.
#[test]
fn what_another_subtask_deleted_does_not_come_back() {
    for kind in KINDS {
        let mut one = filled(kind);
        let part = take(&mut one, 1_000, |_| {});
        for deleting in [0, 1] {
            let groups = |subtask| KeyGroup::owned_by(millstream_model::ids::SubtaskIndex(subtask), 2);
            let mut halves = [0, 1].map(|subtask| restore(kind, groups(subtask), std::slice::from_ref(&part)));
            let gone = &mut halves[deleting];
            let range = gone.store.groups();
            let mine: Vec<i64> = (0..KEYS).filter(|&key| range.contains(&keys([key]).group(0).0)).collect();
            for chunk in mine.chunks(512) {
                gone.put_ints(0, &chunk.iter().map(|&key| (key, None)).collect::<Vec<_>>());
                let keys = gone.resolve(chunk.iter().copied());
                let update = ListUpdate { state: 1, cleared: BooleanBuffer::new_set(chunk.len()), keys: vec![], values: ints([]) };
                gone.store.update_list(&keys, &update, NOW).expect("a good disk");
            }
            while let Some(due) = gone.store.due(Clock::EventTime, i64::MAX, 1_000).expect("a good disk") {
                gone.store.remove_due(&due);
            }
            let parts = halves.each_mut().map(|half| take(half, 1_000, |_| {}));
            let mut whole = restore(kind, 0..KEY_GROUPS, &parts);
            let expected: Vec<i64> = (0..KEYS).filter(|key| !range.contains(&keys([*key]).group(0).0)).collect();
            assert_eq!(content(&mut whole), expected, "{kind:?}");
        }
    }
}

#[test]
fn a_snapshot_that_does_not_cover_the_key_groups_is_refused() {
    let mut fixture = filled(Kind::Memory);
    let part = take(&mut fixture, 1_000, |_| {});
    let half = SnapshotPart { key_groups: 0..2048, ..part.clone() };
    for parts in [vec![half.clone()], vec![half, part]] {
        let states = parts[0].description.state_descriptors().expect("a good description");
        let Err(error) = restore_as(Kind::Memory, 0..KEY_GROUPS, &parts, states, vec![]) else { panic!("accepted") };
        assert!(error.to_string().contains("key groups"), "{error}");
    }
}

#[test]
fn what_is_appended_after_a_restore_comes_last() {
    for (kind, target) in KINDS.into_iter().flat_map(|kind| KINDS.map(|target| (kind, target))) {
        let mut fixture = filled(kind);
        let part = take(&mut fixture, 1_000, |_| {});
        let mut restored = restore(target, 0..KEY_GROUPS, &[part]);
        let keys = restored.resolve([0]);
        let update = ListUpdate { state: 1, cleared: BooleanBuffer::new_unset(0), keys: vec![0], values: ints([99]) };
        restored.store.update_list(&keys, &update, NOW).expect("a good disk");
        let span = Span { key: 0, after: None, before: None, newest_first: false, limit: 9 };
        let found = restored.store.scan(1, &keys, &[span], usize::MAX, NOW).expect("a good disk");
        assert_eq!(&found.values, &ints([0, 1, 99]), "{kind:?} to {target:?}");
    }
}

/// A window's end, shared by all keys: a snapshot cuts its timers in slices, while they fire.
#[test]
fn timers_of_one_time_that_fire_after_the_barrier_are_in_the_snapshot() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![], vec![event_timer("t")]);
        let keys = fixture.resolve(0..5_000);
        let timers = TimerUpdate { timer: 0, keys: (0..5_000).collect(), at: vec![9; 5_000], deleted: BooleanBuffer::new_unset(5_000) };
        fixture.store.update_timers(&keys, &timers).expect("a good update");
        let mut slices = 0;
        let part = take(&mut fixture, 600, |fixture| {
            slices += 1;
            if let Some(due) = fixture.store.due(Clock::EventTime, 10, 700).expect("a good disk") {
                fixture.store.remove_due(&due);
            }
        });
        assert!(slices > 5);
        let mut restored = restore(kind, 0..KEY_GROUPS, &[part]);
        let mut fired = std::collections::BTreeSet::new();
        while let Some(due) = restored.store.due(Clock::EventTime, 10, 1_000).expect("a good disk") {
            (0..due.len()).for_each(|number| assert!(fired.insert(due.keys.key_bytes(number).to_vec()), "each fires once"));
            restored.store.remove_due(&due);
        }
        assert_eq!(fired.len(), 5_000, "{kind:?}");
    }
}

#[test]
fn a_slice_is_bounded_however_many_timers_one_time_has() {
    let mut fixture = open(Kind::Memory, vec![], vec![event_timer("t")]);
    let keys = fixture.resolve(0..5_000);
    let timers = TimerUpdate { timer: 0, keys: (0..5_000).collect(), at: vec![9; 5_000], deleted: BooleanBuffer::new_unset(5_000) };
    fixture.store.update_timers(&keys, &timers).expect("a good update");
    begin(&mut fixture);
    let mut slices = 1;
    while let SnapshotStep::More = fixture.store.continue_snapshot(500).expect("memory") {
        slices += 1;
    }
    assert!((10..=12).contains(&slices), "{slices}");
}
