use arrow_array::{Float64Array, Int64Array, StringArray, UInt64Array};
use proptest::prelude::*;

use super::*;

fn strings(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn hex(keys: &EncodedKeys, row: usize) -> String {
    keys.key(row).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn keys_of(columns: &[ArrayRef]) -> EncodedKeys {
    encode_keys(columns, columns[0].len()).expect("key types")
}

/// Golden bytes: state lies on disk under them.
#[test]
fn the_bytes_of_a_key_never_change() {
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(-1), Some(0), Some(1), None]));
    let keys = keys_of(&[ints]);
    assert_eq!(hex(&keys, 0), "017fffffffffffffff");
    assert_eq!(hex(&keys, 1), "018000000000000000");
    assert_eq!(hex(&keys, 2), "018000000000000001");
    assert_eq!(hex(&keys, 3), "00");
    let keys = keys_of(&[strings(&[Some("a\0b"), Some(""), None])]);
    assert_eq!(hex(&keys, 0), "016100ff6200");
    assert_eq!(hex(&keys, 1), "0100");
    assert_eq!(hex(&keys, 2), "00");
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![-1.0, 0.0, 1.5]));
    let keys = keys_of(&[floats]);
    assert_eq!(hex(&keys, 0), "01400fffffffffffff");
    assert_eq!(hex(&keys, 1), "018000000000000000");
    assert_eq!(hex(&keys, 2), "01bff8000000000000");
}

#[test]
fn the_hash_and_the_group_of_a_key_never_change() {
    let keys = keys_of(&[strings(&[Some("N14228")])]);
    assert_eq!(keys.hashes()[0], xxh3_64(b"\x01N14228\x00"));
    assert_eq!(keys.group(0), KeyGroup((keys.hashes()[0] % 4096) as u16));
}

#[test]
fn negative_zero_is_zero_and_there_is_one_nan() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY]));
    let keys = keys_of(&[floats]);
    assert_eq!(keys.key(0), keys.key(1));
    assert_eq!(keys.key(2), keys.key(3));
    assert!(keys.key(4) < keys.key(2));
}

#[test]
fn the_fast_path_writes_the_same_bytes() {
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![i64::MIN, -5, 0, 7, i64::MAX]));
    let fast = keys_of(std::slice::from_ref(&ints)).clone();
    let nullable: ArrayRef = Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(-5), Some(0), Some(7), Some(i64::MAX), None]));
    let slow = keys_of(&[nullable]);
    for row in 0..5 {
        assert_eq!(fast.key(row), slow.key(row));
        assert_eq!(fast.hashes()[row], slow.hashes()[row]);
    }
    let sliced = keys_of(&[ints.slice(2, 2)]);
    assert_eq!(sliced.key(0), fast.key(2));
}

/// Few keys, met once each, are those that all rows have, in the order of their first rows.
#[test]
fn few_keys_are_those_of_the_rows() {
    let values: Vec<i64> = (0..1_000_i64).map(|row| row * row % 37 - 18).collect();
    let column: ArrayRef = Arc::new(Int64Array::from(values.clone()));
    let all = keys_of(std::slice::from_ref(&column));
    let few = encode_few_keys(std::slice::from_ref(&column), 37).expect("it is one integer column of few values");
    let mut first_seen: Vec<i64> = Vec::new();
    assert_eq!(hash_keys(std::slice::from_ref(&column), 1_000).expect("an integer can be a key"), all.hashes());
    for (row, value) in values.iter().enumerate() {
        let number = first_seen.iter().position(|seen| seen == value).unwrap_or_else(|| {
            first_seen.push(*value);
            first_seen.len() - 1
        });
        assert_eq!(few.of_row[row] as usize, number);
        assert_eq!((few.keys.key(number), few.keys.hashes()[number]), (all.key(row), all.hashes()[row]));
    }
    assert_eq!(few.keys.len(), first_seen.len());
    assert!(encode_few_keys(&[column], first_seen.len() - 1).is_none(), "more keys than were asked for");
}

/// Values made to fall on one place cost a bounded number of steps.
#[test]
fn keys_that_collide_on_purpose_are_left_to_the_other_way() {
    // Multiples of the inverse of the multiplier by small numbers: their products are small, so all of them begin at place 0.
    let inverse = 0xf1de_83e1_9937_733d_u64;
    assert_eq!(inverse.wrapping_mul(0x9e37_79b9_7f4a_7c15), 1);
    let values: ArrayRef = Arc::new(UInt64Array::from_iter_values((0..4_096_u64).map(|row| inverse.wrapping_mul(row % 512))));
    assert!(encode_few_keys(&[values], 512).is_none());
}

#[test]
fn without_key_columns_every_row_has_the_empty_key() {
    let keys = encode_keys(&[], 3).expect("no column, no type to refuse");
    assert_eq!(keys.len(), 3);
    assert_eq!(keys.key(2), b"");
}

#[test]
fn a_list_cannot_be_a_key() {
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    assert_eq!(check_key_type(&list), Err(NotAKey(list.clone())));
}

proptest! {
    #[test]
    fn the_hash_of_an_integer_is_the_librarys(value: i64) {
        let keys = keys_of(&[Arc::new(Int64Array::from(vec![value])) as ArrayRef]);
        prop_assert_eq!(keys.hashes()[0], xxh3_64(keys.key(0)));
    }

    #[test]
    fn encoded_keys_sort_as_their_values(mut rows: Vec<(Option<String>, Option<i64>)>) {
        rows.sort();
        let names: ArrayRef = Arc::new(StringArray::from_iter(rows.iter().map(|(name, _)| name.as_deref())));
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter(rows.iter().map(|(_, number)| *number)));
        let keys = encode_keys(&[names, numbers], rows.len()).expect("key types");
        for row in 1..rows.len() {
            prop_assert_eq!(keys.key(row - 1).cmp(keys.key(row)), rows[row - 1].cmp(&rows[row]));
        }
    }

    #[test]
    fn unsigned_keys_sort_as_their_values(mut values: Vec<u64>) {
        values.sort_unstable();
        let keys = keys_of(&[Arc::new(UInt64Array::from(values.clone())) as ArrayRef]);
        for row in 1..values.len() {
            prop_assert_eq!(keys.key(row - 1).cmp(keys.key(row)), values[row - 1].cmp(&values[row]));
        }
    }

    #[test]
    fn a_subtask_owns_exactly_the_groups_that_name_it(parallelism in 1_u32..300) {
        for subtask in 0..parallelism {
            for group in KeyGroup::owned_by(SubtaskIndex(subtask), parallelism) {
                prop_assert_eq!(KeyGroup(group).owner(parallelism), SubtaskIndex(subtask));
            }
        }
        let owned: usize = (0..parallelism).map(|subtask| KeyGroup::owned_by(SubtaskIndex(subtask), parallelism).len()).sum();
        prop_assert_eq!(owned, usize::from(KEY_GROUPS));
    }
}

fn decoded(columns: &[ArrayRef]) -> Vec<ArrayRef> {
    let types: Vec<DataType> = columns.iter().map(|column| column.data_type().clone()).collect();
    let keys = encode_keys(columns, columns[0].len()).expect("key types");
    decode_keys(&types, (0..keys.len()).map(|row| keys.key(row))).expect("encoded above")
}

#[test]
fn keys_of_every_type_come_back() {
    use arrow_array::*;
    let inner = Field::new("x", DataType::Utf8, true);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(BooleanArray::from(vec![Some(true), None])),
        Arc::new(Int8Array::from(vec![Some(-1), None])),
        Arc::new(Int16Array::from(vec![Some(-300), None])),
        Arc::new(Int32Array::from(vec![Some(i32::MIN), None])),
        Arc::new(UInt8Array::from(vec![Some(255), None])),
        Arc::new(UInt32Array::from(vec![Some(u32::MAX), None])),
        Arc::new(Float32Array::from(vec![Some(-1.5), None])),
        Arc::new(Float64Array::from(vec![Some(f64::NEG_INFINITY), None])),
        Arc::new(Decimal128Array::from(vec![Some(-7), None]).with_precision_and_scale(10, 2).expect("it fits")),
        Arc::new(Date32Array::from(vec![Some(-1), None])),
        Arc::new(Time32MillisecondArray::from(vec![Some(5), None])),
        Arc::new(Time64NanosecondArray::from(vec![Some(5), None])),
        Arc::new(TimestampMicrosecondArray::from(vec![Some(-5), None]).with_timezone("UTC")),
        Arc::new(DurationSecondArray::from(vec![Some(-5), None])),
        Arc::new(LargeStringArray::from(vec![Some("a\0b"), None])),
        Arc::new(BinaryArray::from(vec![Some(&[0_u8, 255, 0][..]), None])),
        Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size([Some([0_u8, 255]), None].into_iter(), 2).expect("one width")),
        Arc::new(NullArray::new(2)),
        Arc::new(StructArray::new(vec![inner].into(), vec![strings(&[Some("x"), None])], None)),
    ];
    assert_eq!(decoded(&columns), columns);
}

#[test]
fn floats_come_back_as_they_compare() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![-0.0, -f64::NAN]));
    let values = decoded(&[floats]).remove(0);
    let values: &Float64Array = values.as_primitive();
    assert_eq!((values.value(0).to_bits(), values.value(1).to_bits()), (0.0_f64.to_bits(), 0x7ff8_0000_0000_0000));
}

#[test]
fn bytes_that_are_no_key_are_an_error() {
    let decode = |bytes: &[u8]| decode_keys(&[DataType::Utf8, DataType::Int64], [bytes]);
    assert_eq!(decode(b"\x01a"), Err(DecodeError::Damaged(0)));
    assert_eq!(decode(b"\x01a\0\x02"), Err(DecodeError::Damaged(0)));
    assert_eq!(decode(b"\0\0\0"), Err(DecodeError::Damaged(0)));
    assert!(matches!(decode(b"\x01\xf0\0\0"), Err(DecodeError::Invalid(_))));
}

proptest! {
    #[test]
    fn keys_come_back(rows: Vec<(Option<String>, Option<Vec<u8>>, Option<i64>, Option<u64>, bool)>) {
        prop_assume!(!rows.is_empty());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0.as_deref()))),
            Arc::new(arrow_array::BinaryArray::from_iter(rows.iter().map(|row| row.1.as_deref()))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.2))),
            Arc::new(UInt64Array::from_iter(rows.iter().map(|row| row.3))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.4)))),
        ];
        prop_assert_eq!(decoded(&columns), columns);
    }
}
