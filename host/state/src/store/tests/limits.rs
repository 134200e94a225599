//! Limits and misuse.

use millstream_model::ErrorKind;

use super::*;

#[test]
fn a_key_above_its_limit_is_refused_by_its_hash() {
    let mut memory = open(Kind::Memory, vec![], vec![]);
    let column: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(5_000)]));
    let encoded = encode_keys(&[column], 1).expect("a key type");
    let hash = encoded.hashes()[0];
    let error = memory.store.resolve(encoded).expect_err("too large");
    assert!(error.to_string().contains(&format!("{hash:016x}")), "{error}");
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

#[test]
fn a_value_above_its_limit_is_refused_and_nothing_of_the_call_is_applied() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64), value_state("text", DataType::Utf8)], vec![event_timer("t")]);
        let keys = fixture.resolve([1, 2]);
        let long = "x".repeat(crate::VALUE_BYTES_MAX + 1);
        let updates = Updates {
            values: vec![
                ValueUpdate { state: 0, changed: all(&keys), values: ints([1, 2]) },
                ValueUpdate { state: 1, changed: all(&keys), values: strings(&["short", &long]) },
            ],
            timers: vec![TimerUpdate { timer: 0, keys: vec![0], at: vec![5], deleted: BooleanBuffer::new_unset(1) }],
            ..Updates::default()
        };
        let error = fixture.store.apply(&keys, &updates, None, NOW).expect_err("too large");
        assert!(matches!(&error, Error::ValueTooLarge { state, hash, .. } if state == "text" && *hash == keys.hash(1)), "{error}");
        assert_eq!(fixture.load_ints(0, &[1, 2]), [None, None]);
        assert_eq!(fixture.store.next_timer(Clock::EventTime), None);
    }
}

#[test]
fn values_of_another_type_are_refused() {
    let mut memory = open(Kind::Memory, vec![value_state("n", DataType::Int64)], vec![]);
    let keys = memory.resolve([1]);
    let error = memory.store.update_values(0, &keys, &all(&keys), &strings(&["x"]), NOW).expect_err("another type");
    assert_eq!(error.to_string(), "state \"n\" holds Int64, but was given Utf8");
}

#[test]
fn a_key_set_that_is_too_old_is_refused() {
    let mut memory = open(Kind::Memory, vec![value_state("n", DataType::Int64)], vec![]);
    let old = memory.resolve([1]);
    for key in 2..=i64::from(crate::KEY_SETS_LIVE) {
        memory.resolve([key]);
        assert!(memory.store.load(0, &old, NOW).is_ok());
    }
    memory.resolve([99]);
    assert!(matches!(memory.store.load(0, &old, NOW), Err(Error::InvalidUse(_))));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let mut memory = open(
        Kind::Memory,
        vec![value_state("n", DataType::Int64), map_state("m", DataType::Int64, DataType::Int64)],
        vec![event_timer("t")],
    );
    let keys = memory.resolve([1]);
    assert!(matches!(memory.store.load(2, &keys, NOW), Err(Error::InvalidUse(_))));
    assert!(matches!(memory.store.load(1, &keys, NOW), Err(Error::InvalidUse(_))));
    assert!(matches!(memory.store.map_get(1, &keys, &[1], &ints([1]), NOW), Err(Error::InvalidUse(_))));
    assert!(matches!(memory.store.map_get(1, &keys, &[0, 0], &ints([1]), NOW), Err(Error::InvalidUse(_))));
    let update = TimerUpdate { timer: 0, keys: vec![1], at: vec![1], deleted: BooleanBuffer::new_unset(1) };
    assert!(matches!(memory.store.update_timers(&keys, &update), Err(Error::InvalidUse(_))));
    assert!(matches!(memory.store.update_timers(&keys, &TimerUpdate { timer: 1, ..update }), Err(Error::InvalidUse(_))));
}

#[test]
fn the_memory_backend_refuses_more_than_its_budget() {
    let settings = StoreSettings { backend: Backend::Memory, memory_budget_bytes: 64 << 10 };
    let mut store = KeyedStore::open(&settings, 0..KEY_GROUPS, vec![value_state("n", DataType::Int64)], vec![]).expect("good declarations");
    let mut refused = None;
    for start in (0..100_000).step_by(1_000) {
        let keys = match store.resolve(keys(start..start + 1_000)) {
            Ok(keys) => keys,
            Err(error) => {
                refused = Some(error);
                break;
            }
        };
        store.update_values(0, &keys, &all(&keys), &ints(0..1_000), NOW).expect("memory");
    }
    assert!(matches!(refused, Some(Error::OutOfBudget { .. })));
}

#[test]
fn a_key_of_another_subtask_is_refused() {
    let settings = StoreSettings { backend: Backend::Memory, memory_budget_bytes: 1 << 20 };
    let mut store = KeyedStore::open(&settings, 0..1, vec![], vec![]).expect("good declarations");
    assert!(matches!(store.resolve(keys(0..100)), Err(Error::InvalidUse(_))));
}
