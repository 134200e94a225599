use millstream_model::types::parse_type;
use proptest::prelude::*;

use super::*;

const TYPES: &[&str] = &[
    "Boolean",
    "Int8",
    "Int64",
    "Decimal128(10, 2)",
    "Timestamp(ms, \"UTC\")",
    "Utf8",
    "LargeUtf8",
    "Binary",
    "FixedSizeBinary(3)",
    "List(Utf8)",
    "List(non-null Int8)",
    "FixedSizeList(2 x Int16)",
    "Struct()",
    "Struct(\"a\": Int8, \"b\": non-null Utf8)",
    "Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": Int8), unsorted)",
    "List(Struct(\"a\": List(Int8)))",
];

/// Buffers of a column as a guest may send them: noise, and numbers that are nearly offsets.
fn buffers() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..40);
    let text = "[a-zäß🦀]{0,12}".prop_map(String::into_bytes);
    let offsets = proptest::collection::vec(0_i32..6, 0..8).prop_map(|mut offsets| {
        offsets.sort_unstable();
        offsets.insert(0, 0);
        offsets.iter().flat_map(|offset| offset.to_le_bytes()).collect()
    });
    let empty = Just(Vec::new());
    proptest::collection::vec(prop_oneof![3 => empty, 2 => noise, 3 => offsets, 2 => text], 0..9)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]
    #[test]
    fn whatever_a_guest_sends_is_refused_or_sound(buffers in buffers(), length in 0_u32..8, which in 0..TYPES.len()) {
        let data_type = parse_type(TYPES[which]).expect("a type that crosses");
        if let Ok(array) = column_of(ColumnResult { length, buffers }, &data_type, true, "c") {
            prop_assert_eq!(array.len(), length as usize);
            prop_assert_eq!(array.data_type(), &data_type);
            array.to_data().validate_full().expect("what was accepted is sound");
        }
    }
}

#[test]
fn bytes_beyond_what_is_needed_are_ignored() {
    let column = ColumnResult { length: 2, buffers: vec![vec![0xff; 9], vec![1; 100]] };
    assert_eq!(column_of(column, &DataType::Int8, true, "c").expect("long enough").len(), 2);
}

#[test]
fn numbers_must_be_below_their_bound() {
    assert_eq!(&numbers(vec![1, 0, 0, 0, 3, 0, 0, 0], 4, "row").expect("in range")[..], [1, 3]);
    assert_eq!(numbers(vec![4, 0, 0, 0], 4, "row").expect_err("out of range"), "row 4 of 4");
    assert!(numbers(vec![], 0, "row").expect("none is out of range").is_empty());
}
