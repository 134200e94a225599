//! Timers.

use millstream_model::key::decode_keys;

use super::*;

fn fixture(kind: Kind) -> Fixture {
    open(kind, vec![], vec![event_timer("a"), event_timer("b"), TimerDescriptor { name: "p".into(), clock: Clock::ProcessingTime }])
}

fn update(fixture: &mut Fixture, timer: usize, entries: &[(i64, i64)], deleted: bool) {
    let keys = fixture.resolve(entries.iter().map(|(key, _)| *key));
    let numbers = match keys.of_row() {
        Some(of_row) => of_row.to_vec(),
        None => (0..keys.len() as u32).collect(),
    };
    let deleted = if deleted { BooleanBuffer::new_set(numbers.len()) } else { BooleanBuffer::new_unset(numbers.len()) };
    let update = TimerUpdate { timer, keys: numbers, at: entries.iter().map(|(_, at)| *at).collect(), deleted };
    fixture.store.update_timers(&keys, &update).expect("a good update");
}

fn set(fixture: &mut Fixture, timer: usize, entries: &[(i64, i64)]) {
    update(fixture, timer, entries, false);
}

/// One call's timers as (key, timer, time), removed.
fn fire(fixture: &mut Fixture, up_to: i64, limit: usize) -> Vec<(i64, u32, i64)> {
    let Some(due) = fixture.store.due(Clock::EventTime, up_to, limit).expect("a good disk") else { return Vec::new() };
    let keys = decode_keys(&[DataType::Int64], (0..due.len()).map(|number| due.keys.key_bytes(number))).expect("encoded above");
    fixture.store.remove_due(&due);
    let key = |number: usize| keys[0].as_primitive::<Int64Type>().value(number);
    (0..due.len()).map(|number| (key(number), due.timer[number], due.at[number])).collect()
}

#[test]
fn a_key_fires_its_earliest_timer_first_and_one_per_call() {
    for kind in KINDS {
        let mut fixture = fixture(kind);
        set(&mut fixture, 0, &[(1, 30), (1, 10), (2, 20)]);
        set(&mut fixture, 1, &[(1, 20)]);
        fixture.forget_keys();
        assert_eq!(fixture.store.next_timer(Clock::EventTime), Some(10));
        assert_eq!(fire(&mut fixture, 9, 10), []);
        assert_eq!(fire(&mut fixture, 30, 10), [(1, 0, 10), (2, 0, 20)], "{kind:?}");
        assert_eq!(fire(&mut fixture, 30, 10), [(1, 1, 20)]);
        assert_eq!(fire(&mut fixture, 29, 10), []);
        assert_eq!(fire(&mut fixture, 30, 10), [(1, 0, 30)]);
        assert_eq!(fire(&mut fixture, 30, 10), []);
        assert_eq!(fixture.store.next_timer(Clock::EventTime), None);
    }
}

#[test]
fn setting_a_timer_twice_fires_it_once() {
    for kind in KINDS {
        let mut fixture = fixture(kind);
        set(&mut fixture, 0, &[(1, 10)]);
        fixture.forget_keys();
        set(&mut fixture, 0, &[(1, 10), (1, 10)]);
        assert_eq!(fire(&mut fixture, 10, 10), [(1, 0, 10)], "{kind:?}");
        assert_eq!(fire(&mut fixture, 10, 10), []);
    }
}

#[test]
fn a_deleted_timer_does_not_fire() {
    for kind in KINDS {
        let mut fixture = fixture(kind);
        set(&mut fixture, 0, &[(1, 10), (2, 10)]);
        fixture.forget_keys();
        update(&mut fixture, 0, &[(1, 10), (3, 10), (2, 11)], true);
        assert_eq!(fire(&mut fixture, 10, 10), [(2, 0, 10)], "{kind:?}");
        set(&mut fixture, 0, &[(4, 50)]);
        fixture.forget_keys();
        update(&mut fixture, 0, &[(4, 50)], true);
        assert_eq!(fire(&mut fixture, 100, 10), [], "{kind:?}");
        assert_eq!(fixture.store.next_timer(Clock::EventTime), None, "{kind:?}");
    }
}

#[test]
fn timers_stay_set_until_they_are_removed() {
    for kind in KINDS {
        let mut fixture = fixture(kind);
        set(&mut fixture, 0, &[(1, 10), (2, 10), (3, 10)]);
        let first = fixture.store.due(Clock::EventTime, 10, 10).expect("a good disk").expect("three timers");
        fixture.store.remove_due(&first.select(&[1]));
        let mut left = fire(&mut fixture, 10, 10);
        left.sort_unstable();
        assert_eq!(left, [(1, 0, 10), (3, 0, 10)], "{kind:?}");
    }
}

#[test]
fn a_handler_may_set_the_timer_it_handles_again() {
    for kind in KINDS {
        let mut fixture = fixture(kind);
        set(&mut fixture, 0, &[(1, 10)]);
        let due = fixture.store.due(Clock::EventTime, 10, 10).expect("a good disk").expect("a timer");
        let again = TimerUpdate { timer: 0, keys: vec![0], at: vec![10], deleted: BooleanBuffer::new_unset(1) };
        let updates = Updates { timers: vec![again], ..Updates::default() };
        fixture.store.apply(&due.keys, &updates, Some(&due), NOW).expect("a good update");
        assert_eq!(fire(&mut fixture, 10, 10), [(1, 0, 10)]);
    }
}

#[test]
fn clocks_do_not_fire_each_others_timers() {
    let mut memory = fixture(Kind::Memory);
    set(&mut memory, 2, &[(1, 10)]);
    assert_eq!(memory.store.next_timer(Clock::EventTime), None);
    assert_eq!(fire(&mut memory, 100, 10), []);
    assert_eq!(memory.store.next_timer(Clock::ProcessingTime), Some(10));
    assert!(memory.store.due(Clock::ProcessingTime, 10, 10).expect("memory").is_some());
}

#[test]
fn a_million_timers_of_one_time_fire_in_portions() {
    for kind in [Kind::Memory, Kind::TinyRocksDb] {
        let mut fixture = fixture(kind);
        let total = if kind == Kind::Memory { 1_000_000 } else { 50_000 };
        for start in (0..total).step_by(8192) {
            let entries: Vec<(i64, i64)> = (start..(start + 8192).min(total)).map(|key| (key, 77)).collect();
            set(&mut fixture, 0, &entries);
        }
        let mut fired = vec![false; total as usize];
        loop {
            let portion = fire(&mut fixture, 100, 4096);
            if portion.is_empty() {
                break;
            }
            for (key, _, _) in portion {
                assert!(!std::mem::replace(&mut fired[key as usize], true), "{kind:?}: {key} fires once");
            }
        }
        assert!(fired.iter().all(|&fired| fired), "{kind:?}");
    }
}

#[test]
fn many_timers_of_one_key_fire_one_by_one() {
    for kind in KINDS {
        let mut fixture = fixture(kind);
        let entries: Vec<(i64, i64)> = (0..3_000).map(|at| (1, at)).collect();
        set(&mut fixture, 0, &entries);
        for at in 0..3_000 {
            assert_eq!(fire(&mut fixture, 5_000, 100), [(1, 0, at)]);
        }
    }
}

#[test]
fn timers_beyond_memory_go_to_disk() {
    let mut tiny = fixture(Kind::TinyRocksDb);
    for start in 0..20 {
        let entries: Vec<(i64, i64)> = (0..500).map(|key| (key, start * 1_000 + key)).collect();
        set(&mut tiny, 0, &entries);
    }
    assert!(tiny.store.stats().timers_in_memory < 2_000);
    let mut last = i64::MIN;
    let mut count = 0;
    loop {
        let portion = fire(&mut tiny, i64::MAX, 100);
        if portion.is_empty() {
            break;
        }
        for (_, _, at) in &portion {
            assert!(*at >= last, "earliest first");
            last = *at;
        }
        count += portion.len();
    }
    assert_eq!(count, 10_000);
}
