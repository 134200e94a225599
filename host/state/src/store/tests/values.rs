//! Value states.

use arrow_array::{BooleanArray, Decimal128Array, Float64Array, Int8Array, StructArray};
use arrow_buffer::NullBuffer;

use super::*;

#[test]
fn equal_keys_of_a_batch_are_one_key() {
    let mut memory = open(Kind::Memory, vec![value_state("n", DataType::Int64)], vec![]);
    let keys = memory.resolve([7, 8, 7, 7, 9, 8]);
    assert_eq!(keys.len(), 3);
    assert_eq!(keys.of_row().expect("rows share keys").to_vec(), [0, 1, 0, 0, 2, 1]);
}

/// Batches of few keys go another way from the second on; the keys, their order and what is stored under them are the same.
#[test]
fn a_batch_of_few_keys_finds_the_keys_of_any_other() {
    let few: ArrayRef = Arc::new(Int64Array::from_iter_values((0..64).map(|row| [7, 8, 9, 7][row % 4])));
    let mut fixture = open(Kind::Memory, vec![value_state("n", DataType::Int64)], vec![]);
    fixture.put_ints(0, &[(9, Some(90)), (7, Some(70))]);
    for _ in 0..3 {
        let keys = fixture.store.resolve_columns(std::slice::from_ref(&few), 64).expect("these are keys");
        assert_eq!(keys.of_row().expect("rows share keys")[..6], [0, 1, 2, 0, 0, 1]);
        let bytes = |number: usize| *keys.key_bytes(number).last().expect("a key has bytes");
        assert_eq!([bytes(0), bytes(1), bytes(2)], [7, 8, 9]);
        let values = fixture.store.load(0, &keys, Moment { watermark: None, processing_time: 0 }).expect("it is a value state");
        assert_eq!(values.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(), [Some(70), None, Some(90)]);
    }
    let many: ArrayRef = Arc::new(Int64Array::from_iter_values(0..64));
    assert_eq!(fixture.store.resolve_columns(&[many], 64).expect("these are keys").len(), 64);
}

#[test]
fn a_batch_of_distinct_keys_needs_no_numbers() {
    let mut memory = open(Kind::Memory, vec![], vec![]);
    assert!(memory.resolve([3, 1, 2]).of_row().is_none());
    assert!(memory.resolve([2, 3, 1]).of_row().is_none());
}

#[test]
fn a_value_is_absent_until_written_and_after_it_was_deleted() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        assert_eq!(fixture.load_ints(0, &[1, 2]), [None, None]);
        fixture.put_ints(0, &[(1, Some(10)), (2, Some(20))]);
        fixture.forget_keys();
        assert_eq!(fixture.load_ints(0, &[2, 1, 3]), [Some(20), Some(10), None], "{kind:?}");
        fixture.put_ints(0, &[(1, None)]);
        fixture.forget_keys();
        assert_eq!(fixture.load_ints(0, &[2, 1]), [Some(20), None], "{kind:?}");
    }
}

#[test]
fn only_the_keys_that_changed_are_written() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        fixture.put_ints(0, &[(1, Some(10)), (2, Some(20)), (3, Some(30))]);
        let keys = fixture.resolve([1, 2, 3]);
        let changed = BooleanBuffer::from(vec![false, true, true]);
        fixture.store.update_values(0, &keys, &changed, &some_ints(&[None, Some(31)]), NOW).expect("a good disk");
        assert_eq!(fixture.load_ints(0, &[1, 2, 3]), [Some(10), None, Some(31)]);
    }
}

fn wide() -> (DataType, ArrayRef) {
    let fields = vec![
        Field::new("flag", DataType::Boolean, true),
        Field::new("small", DataType::Int8, false),
        Field::new("money", DataType::Decimal128(20, 2), true),
        Field::new("inner", struct_type(vec![Field::new("x", DataType::Float64, true)]), true),
    ];
    let inner_fields = match fields[3].data_type() {
        DataType::Struct(fields) => fields.clone(),
        _ => unreachable!("declared above"),
    };
    let x: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-0.0)]));
    let inner = StructArray::new(inner_fields, vec![x], Some(NullBuffer::from(vec![true, true, false])));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        Arc::new(Int8Array::from(vec![-1, 0, 127])),
        Arc::new(
            Decimal128Array::from(vec![None, Some(i128::from(i64::MAX) * 10), Some(-1)]).with_precision_and_scale(20, 2).expect("it fits"),
        ),
        Arc::new(inner),
    ];
    (struct_type(fields.clone()), Arc::new(StructArray::new(fields.into(), columns, None)))
}

#[test]
fn every_field_of_a_fixed_width_value_comes_back() {
    for kind in KINDS {
        let (value_type, values) = wide();
        let mut fixture = open(kind, vec![value_state("wide", value_type)], vec![]);
        let keys = fixture.resolve([1, 2, 3]);
        fixture.store.update_values(0, &keys, &all(&keys), &values, NOW).expect("a good disk");
        fixture.forget_keys();
        let keys = fixture.resolve([1, 2, 3]);
        assert_eq!(&fixture.load(0, &keys), &values, "{kind:?}");
        let keys = fixture.resolve([3, 9]);
        let some = fixture.load(0, &keys);
        assert_eq!(&some.slice(0, 1), &values.slice(2, 1));
        assert!(some.is_null(1));
    }
}

#[test]
fn values_of_variable_width_come_back() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("text", DataType::Utf8)], vec![]);
        let keys = fixture.resolve([1, 2, 3]);
        fixture.store.update_values(0, &keys, &all(&keys), &strings(&["one", "", "drei"]), NOW).expect("a good disk");
        fixture.forget_keys();
        let keys = fixture.resolve([3, 2, 1, 0]);
        let expected: ArrayRef = Arc::new(StringArray::from(vec![Some("drei"), Some(""), Some("one"), None]));
        assert_eq!(&fixture.load(0, &keys), &expected, "{kind:?}");
    }
}

#[test]
fn keys_of_any_length_are_told_apart() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        let texts: Vec<String> = (0..60).map(|length| "k".repeat(length)).collect();
        let column: ArrayRef = Arc::new(StringArray::from(texts));
        let encoded = encode_keys(&[column], 60).expect("a key type");
        let keys = fixture.store.resolve(encoded.clone()).expect("small keys");
        assert_eq!(keys.len(), 60);
        fixture.store.update_values(0, &keys, &all(&keys), &ints(0..60), NOW).expect("a good disk");
        fixture.forget_keys();
        let keys = fixture.store.resolve(encoded).expect("small keys");
        assert_eq!(fixture.load(0, &keys).as_primitive::<Int64Type>().values(), &(0..60).collect::<Vec<i64>>()[..], "{kind:?}");
    }
}

#[test]
fn a_key_without_state_leaves_the_table() {
    let mut memory = open(Kind::Memory, vec![value_state("n", DataType::Int64)], vec![]);
    memory.put_ints(0, &[(1, Some(1)), (2, Some(2))]);
    memory.put_ints(0, &[(1, None)]);
    memory.forget_keys();
    memory.forget_keys();
    assert_eq!(memory.load_ints(0, &[2]), [Some(2)]);
    assert!(memory.store.stats().keys_in_table <= 1 + 2 * crate::KEY_SETS_LIVE as usize);
}

#[test]
fn all_values_can_be_read() {
    for kind in KINDS {
        let mut fixture = open(kind, vec![value_state("n", DataType::Int64)], vec![]);
        for key in 0..500 {
            fixture.put_ints(0, &[(key, Some(key * 2))]);
        }
        let mut sum = 0;
        let mut count = 0;
        let read = fixture.store.read_state(0, None, |page| {
            sum += page.values.as_primitive::<Int64Type>().values().iter().sum::<i64>();
            count += page.keys.len();
            Ok(ControlFlow::Continue(()))
        });
        read.expect("a good disk");
        assert_eq!((count, sum), (500, 499 * 500), "{kind:?}");
    }
}
