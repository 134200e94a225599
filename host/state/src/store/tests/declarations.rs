//! What may be declared, and declaring anew.

use arrow_array::{Float64Array, Int32Array, StructArray};
use millstream_model::ErrorKind;

use super::*;

fn refused(state: StateDescriptor) -> String {
    let settings = StoreSettings { backend: Backend::Memory, memory_budget_bytes: 1 << 20 };
    let Err(error) = KeyedStore::open(&settings, 0..KEY_GROUPS, vec![state], vec![]) else { panic!("accepted") };
    assert_eq!(error.kind(), ErrorKind::Invalid);
    error.to_string()
}

#[test]
fn declarations_that_cannot_be_kept_are_refused() {
    let broadcast = StateDescriptor { scope: StateScope::Broadcast, ..value_state("b", DataType::Int64) };
    assert!(refused(broadcast).contains("broadcast state is not supported yet"));
    assert!(refused(value_state("u", DataType::Utf8View)).contains("no row encoding"));
    let no_map_key = StateDescriptor { map_key_type: None, ..map_state("m", DataType::Int64, DataType::Int64) };
    assert!(refused(no_map_key).contains("has a map key type"));
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    assert!(refused(map_state("m", list, DataType::Int64)).contains("cannot be part of a key"));
}

fn counted(version: u32, fields: Vec<Field>) -> StateDescriptor {
    StateDescriptor { version, ..value_state("counted", struct_type(fields)) }
}

#[test]
fn a_newer_version_reads_what_an_older_one_wrote() {
    for kind in KINDS {
        let count = Field::new("count", DataType::Int32, false);
        let old = vec![counted(1, vec![count.clone()]), value_state("other", DataType::Utf8)];
        let mut fixture = open(kind, old, vec![event_timer("t")]);
        let keys = fixture.resolve([1, 2]);
        let counts: ArrayRef = Arc::new(Int32Array::from(vec![5, -6]));
        let values: ArrayRef = Arc::new(StructArray::new(vec![count].into(), vec![counts], None));
        fixture.store.update_values(0, &keys, &all(&keys), &values, NOW).expect("a good disk");
        fixture.store.update_values(1, &keys, &all(&keys), &strings(&["x", "y"]), NOW).expect("a good disk");
        let timer = TimerUpdate { timer: 0, keys: vec![0], at: vec![9], deleted: BooleanBuffer::new_unset(1) };
        fixture.store.update_timers(&keys, &timer).expect("a good update");
        fixture.forget_keys();

        let fields = vec![Field::new("mean", DataType::Float64, true), Field::new("count", DataType::Int64, false)];
        let new = vec![value_state("other", DataType::Utf8), value_state("fresh", DataType::Int64), counted(2, fields.clone())];
        fixture.store.redeclare(new, vec![event_timer("another"), event_timer("t")]).expect("compatible");
        let keys = fixture.resolve([2, 1, 3]);
        let mean: ArrayRef = Arc::new(Float64Array::from(vec![None; 2]));
        let expected: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![mean, ints([-6, 5])], None));
        assert_eq!(&fixture.load(2, &keys).slice(0, 2), &expected, "{kind:?}");
        assert_eq!(&fixture.load(0, &keys).slice(0, 2), &strings(&["y", "x"]), "{kind:?}");
        assert_eq!(fixture.load_ints(1, &[1, 2]), [None, None]);
        let due = fixture.store.due(Clock::EventTime, 9, 10).expect("a good disk").expect("the timer is still set");
        assert_eq!((due.timer, due.at), (vec![1], vec![9]));
    }
}

#[test]
fn an_incompatible_version_is_refused_and_nothing_changes() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        fixture.put_ints(0, &[(1, Some(1))]);
        let text = StateDescriptor { version: 2, ..value_state("n", DataType::Utf8) };
        let error = fixture.store.redeclare(vec![text], vec![]).expect_err("incompatible");
        assert_eq!(error.kind(), ErrorKind::Conflict);
        assert_eq!(fixture.load_ints(0, &[1]), [Some(1)]);
        let same_version = value_state("n", DataType::Float64);
        assert!(fixture.store.redeclare(vec![same_version], vec![]).is_err());
    }
}

#[test]
fn a_state_that_is_declared_again_later_begins_empty() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        fixture.put_ints(0, &[(1, Some(1))]);
        fixture.forget_keys();
        fixture.store.redeclare(vec![], vec![]).expect("no state");
        fixture.store.redeclare(vec![value_state("n", DataType::Int64)], vec![]).expect("good declarations");
        assert_eq!(fixture.load_ints(0, &[1]), [None], "{kind:?}");
    }
}
