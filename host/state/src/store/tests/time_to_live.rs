//! Times to live.

use millstream_model::state::{Ttl, TtlRefresh};

use super::*;

fn fixture(kind: Kind, refresh: TtlRefresh) -> Fixture {
    let ttl = Some(Ttl { duration_ms: 100, clock: Clock::EventTime, refresh });
    let states =
        vec![StateDescriptor { ttl, ..value_state("n", DataType::Int64) }, StateDescriptor { ttl, ..list_state("l", DataType::Int64) }];
    open(kind, states, vec![])
}

fn put(fixture: &mut Fixture, key: i64, value: i64, now: Moment) {
    let keys = fixture.resolve([key]);
    fixture.store.update_values(0, &keys, &all(&keys), &ints([value]), now).expect("a good disk");
    let update = ListUpdate { state: 1, cleared: BooleanBuffer::new_unset(0), keys: vec![0], values: ints([value]) };
    fixture.store.update_list(&keys, &update, now).expect("a good disk");
    fixture.forget_keys();
}

fn get(fixture: &mut Fixture, key: i64, now: Moment) -> (Option<i64>, usize) {
    let keys = fixture.resolve([key]);
    let value = fixture.store.load(0, &keys, now).expect("a good disk").as_primitive::<Int64Type>().iter().next().flatten();
    let span = Span { key: 0, after: None, before: None, newest_first: false, limit: 100 };
    let elements = fixture.store.scan(1, &keys, &[span], 1 << 20, now).expect("a good disk").values.len();
    fixture.forget_keys();
    (value, elements)
}

#[test]
fn a_value_is_over_when_its_time_is_over() {
    for kind in KINDS {
        let mut fixture = fixture(kind, TtlRefresh::OnWrite);
        put(&mut fixture, 1, 10, at(1_000));
        assert_eq!(get(&mut fixture, 1, at(1_099)), (Some(10), 1), "{kind:?}");
        assert_eq!(get(&mut fixture, 1, at(1_100)), (None, 0), "{kind:?}");
    }
}

#[test]
fn reading_refreshes_where_it_was_declared_so() {
    for kind in KINDS {
        let mut fixture = fixture(kind, TtlRefresh::OnRead);
        put(&mut fixture, 1, 10, at(1_000));
        assert_eq!(get(&mut fixture, 1, at(1_099)), (Some(10), 1));
        assert_eq!(get(&mut fixture, 1, at(1_198)), (Some(10), 1), "{kind:?}");
        assert_eq!(get(&mut fixture, 1, at(1_298)), (None, 0), "{kind:?}");
    }
}

#[test]
fn the_end_of_all_input_is_no_time() {
    for kind in KINDS {
        let mut fixture = fixture(kind, TtlRefresh::OnWrite);
        put(&mut fixture, 1, 10, at(1_000));
        assert_eq!(get(&mut fixture, 1, at(Watermark::MAX.0)), (Some(10), 1), "{kind:?}");
    }
}

#[test]
fn a_value_written_before_the_first_watermark_lives_from_the_first_reading() {
    for kind in KINDS {
        let mut fixture = fixture(kind, TtlRefresh::OnWrite);
        put(&mut fixture, 1, 10, NOW);
        assert_eq!(get(&mut fixture, 1, at(5_000)), (Some(10), 1), "{kind:?}");
        assert_eq!(get(&mut fixture, 1, at(5_100)), (None, 0), "{kind:?}");
    }
}

#[test]
fn values_that_nobody_reads_leave_memory_when_they_are_over() {
    let mut memory = fixture(Kind::Memory, TtlRefresh::OnWrite);
    for key in 0..200 {
        put(&mut memory, key, key, at(1_000));
    }
    let full = memory.store.stats();
    get(&mut memory, 999, at(2_000));
    for _ in 0..4 {
        memory.forget_keys();
    }
    let swept = memory.store.stats();
    assert!(swept.keys_in_table < 20, "{} of {} keys are left", swept.keys_in_table, full.keys_in_table);
    assert!(swept.memory_bytes < full.memory_bytes / 2);
}
