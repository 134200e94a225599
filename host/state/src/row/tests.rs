use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray, Float32Array, Float64Array, Int8Array, Int16Array,
    Int32Array, Int64Array, LargeStringArray, ListArray, StringArray, StructArray, TimestampMillisecondArray, UInt8Array, UInt32Array,
    UInt64Array, builder::*, cast::AsArray, types::Int32Type,
};
use arrow_schema::{Field, TimeUnit};
use proptest::prelude::*;

use super::*;

fn encode(array: &ArrayRef) -> Vec<Vec<u8>> {
    let encoder = RowEncoder::new(array).expect("a type with an encoding");
    let encode = |row: usize| {
        let mut body = Vec::new();
        encoder.write(row, &mut body);
        body
    };
    (0..array.len()).map(encode).collect()
}

fn read_as(array: &ArrayRef, reader: &DataType) -> ArrayRef {
    let mut decoder = RowDecoder::new([(1, array.data_type())], reader).expect("compatible types");
    for body in encode(array) {
        decoder.read(1, &body).expect("written above");
    }
    decoder.finish().expect("written above")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn item(data_type: DataType, nullable: bool) -> Arc<Field> {
    Arc::new(Field::new("item", data_type, nullable))
}

fn structure(columns: Vec<(&str, bool, ArrayRef)>) -> ArrayRef {
    let fields: Vec<Field> =
        columns.iter().map(|(name, nullable, column)| Field::new(*name, column.data_type().clone(), *nullable)).collect();
    Arc::new(StructArray::new(fields.into(), columns.into_iter().map(|(_, _, column)| column).collect(), None))
}

fn map_of(entries: &[&[(&str, Option<i32>)]]) -> ArrayRef {
    let names = MapFieldNames { entry: "entries".into(), key: "keys".into(), value: "values".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), Int32Builder::new());
    for map in entries {
        for (key, value) in *map {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        builder.append(true).expect("keys and values are pairs");
    }
    Arc::new(builder.finish())
}

/// One row of every kind of type.
fn every_type() -> ArrayRef {
    let list: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]));
    let mut pair = FixedSizeListBuilder::new(Int8Builder::new(), 2).with_field(item(DataType::Int8, false));
    pair.values().append_slice(&[1, 2]);
    pair.append(true);
    structure(vec![
        ("boolean", false, Arc::new(BooleanArray::from(vec![true]))),
        ("null", true, Arc::new(Int64Array::from(vec![None]))),
        ("int16", true, Arc::new(Int16Array::from(vec![-2]))),
        ("uint32", false, Arc::new(UInt32Array::from(vec![0x01020304]))),
        ("float64", false, Arc::new(Float64Array::from(vec![1.5]))),
        ("decimal", false, Arc::new(Decimal128Array::from(vec![-1]).with_precision_and_scale(10, 2).expect("it fits"))),
        ("time", false, Arc::new(TimestampMillisecondArray::from(vec![1]).with_timezone("UTC"))),
        ("utf8", false, Arc::new(StringArray::from(vec!["hi"]))),
        ("binary", false, Arc::new(BinaryArray::from(vec![&[0_u8, 255][..]]))),
        ("fixed", false, Arc::new(FixedSizeBinaryArray::try_from_iter([[7_u8, 8, 9]].into_iter()).expect("one width"))),
        ("list", false, list),
        ("pair", false, Arc::new(pair.finish())),
        ("map", false, map_of(&[&[("k", Some(5))]])),
        ("inner", true, structure(vec![("x", false, Arc::new(Int8Array::from(vec![3])))])),
    ])
}

/// Golden bytes: state lies on disk under them.
#[test]
fn the_bytes_of_a_row_never_change() {
    let parts = [
        "01",
        "00",
        "01feff",
        "04030201",
        "000000000000f83f",
        "ffffffffffffffffffffffffffffffff",
        "0100000000000000",
        "026869",
        "0200ff",
        "070809",
        "02010100000000",
        "0102",
        "01016b0105000000",
        "0103",
    ];
    assert_eq!(hex(&encode(&every_type())[0]), parts.concat());
}

#[test]
fn the_bytes_around_a_row_never_change() {
    let mut stored = Vec::new();
    start_stored(None, 1, &mut stored);
    assert_eq!(hex(&stored), "0101");
    stored.clear();
    start_stored(Some(-2), 300, &mut stored);
    assert_eq!(hex(&stored), "02feffffffffffffffac02");
    stored.push(9);
    let parts = split_stored(&stored).expect("written above");
    assert_eq!((parts.refreshed, parts.version, parts.body), (Some(-2), 300, &[9][..]));
    assert_eq!(split_stored(&[]), None);
    assert_eq!(split_stored(&[3, 1]), None);
    assert_eq!(split_stored(&[2, 1, 1]), None);
}

#[test]
fn every_type_comes_back() {
    let column = every_type();
    assert_eq!(&read_as(&column, column.data_type()), &column);
}

#[test]
fn rows_of_a_slice_are_those_of_the_whole() {
    let column: ArrayRef = structure(vec![
        ("n", true, Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
        ("t", true, Arc::new(StringArray::from(vec![Some("a"), Some("bb"), None]))),
        ("l", true, Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1)]), None, Some(vec![None, Some(2)])]))),
        ("m", false, map_of(&[&[("a", None)], &[], &[("b", Some(1)), ("c", Some(2))]])),
    ]);
    assert_eq!(encode(&column.slice(1, 2)), encode(&column)[1..]);
}

fn one(name: &str, nullable: bool, column: ArrayRef) -> ArrayRef {
    structure(vec![(name, nullable, column)])
}

#[test]
fn fields_are_found_by_name() {
    let old = structure(vec![
        ("gone", true, Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None])]))),
        ("a", false, Arc::new(Int64Array::from(vec![1]))),
        ("b", false, Arc::new(StringArray::from(vec!["x"]))),
    ]);
    let new = structure(vec![
        ("b", true, Arc::new(StringArray::from(vec!["x"]))),
        ("fresh", true, Arc::new(Int64Array::from(vec![None]))),
        ("a", false, Arc::new(Int64Array::from(vec![1]))),
    ]);
    assert_eq!(&read_as(&old, new.data_type()), &new);
}

#[test]
fn numbers_may_become_wider() {
    let wider: Vec<(ArrayRef, ArrayRef)> = vec![
        (Arc::new(Int8Array::from(vec![-1])), Arc::new(Int64Array::from(vec![-1]))),
        (Arc::new(UInt8Array::from(vec![255])), Arc::new(Int16Array::from(vec![255]))),
        (Arc::new(UInt32Array::from(vec![u32::MAX])), Arc::new(UInt64Array::from(vec![u64::from(u32::MAX)]))),
        (Arc::new(Int32Array::from(vec![i32::MIN])), Arc::new(Float64Array::from(vec![f64::from(i32::MIN)]))),
        (Arc::new(Int16Array::from(vec![-300])), Arc::new(Float32Array::from(vec![-300.0]))),
        (Arc::new(Float32Array::from(vec![0.1])), Arc::new(Float64Array::from(vec![f64::from(0.1_f32)]))),
        (Arc::new(StringArray::from(vec!["x"])), Arc::new(LargeStringArray::from(vec!["x"]))),
    ];
    for (old, new) in wider {
        let (old, new) = (one("x", false, old), one("x", false, new));
        assert_eq!(&read_as(&old, new.data_type()), &new);
    }
}

#[test]
fn changes_that_could_lose_something_are_refused() {
    let refused = |from: DataType, to: DataType| {
        let field = |data_type| DataType::Struct(vec![Field::new("x", data_type, true)].into());
        resolve_compatible(&field(from), &field(to)).expect_err("refused").to_string()
    };
    assert_eq!(refused(DataType::Int64, DataType::Int32), "x: Int64 cannot become Int32");
    refused(DataType::Int64, DataType::Float64);
    refused(DataType::Int64, DataType::UInt64);
    refused(DataType::UInt32, DataType::Int32);
    refused(DataType::Float64, DataType::Float32);
    refused(DataType::Utf8, DataType::Binary);
    refused(DataType::LargeUtf8, DataType::Utf8);
    refused(DataType::Decimal128(10, 2), DataType::Decimal128(10, 3));
    refused(DataType::Timestamp(TimeUnit::Second, None), DataType::Timestamp(TimeUnit::Millisecond, None));
    refused(DataType::List(item(DataType::Int64, true)), DataType::List(item(DataType::Int64, false)));
    let no_field = DataType::Struct(Vec::<Field>::new().into());
    let needed = DataType::Struct(vec![Field::new("new", DataType::Int64, false)].into());
    assert_eq!(resolve_compatible(&no_field, &needed).expect_err("refused").to_string(), "the new field \"new\" is not nullable");
}

#[test]
fn each_version_is_read_by_its_own_type() {
    let old: ArrayRef = Arc::new(Int32Array::from(vec![7]));
    let new: ArrayRef = Arc::new(Int64Array::from(vec![8]));
    let mut decoder = RowDecoder::new([(1, old.data_type()), (2, new.data_type())], &DataType::Int64).expect("compatible types");
    decoder.read(2, &encode(&new)[0]).expect("written above");
    decoder.read(1, &encode(&old)[0]).expect("written above");
    decoder.read_null();
    let column = decoder.finish().expect("written above");
    assert_eq!(column.as_primitive::<arrow_array::types::Int64Type>().iter().collect::<Vec<_>>(), [Some(8), Some(7), None]);
    assert!(decoder.read(3, &[]).is_err());
}

proptest! {
    #[test]
    fn damaged_rows_are_errors(at in any::<prop::sample::Index>(), byte: u8, length in any::<prop::sample::Index>()) {
        let column = every_type();
        let whole = encode(&column).remove(0);
        let mut decoder = RowDecoder::new([(1, column.data_type())], column.data_type()).expect("the same type");
        let short = &whole[..length.index(whole.len())];
        prop_assert!(decoder.read(1, short).is_err());
        let mut damaged = whole;
        let at = at.index(damaged.len());
        damaged[at] = byte;
        let mut decoder = RowDecoder::new([(1, column.data_type())], column.data_type()).expect("the same type");
        if decoder.read(1, &damaged).is_ok() {
            let _ = decoder.finish();
        }
    }

    #[test]
    fn rows_come_back(rows: Vec<(Option<i64>, Option<String>, Option<Vec<Option<i32>>>, bool)>) {
        let column = structure(vec![
            ("n", true, Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.0)))),
            ("t", true, Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1.as_deref())))),
            ("l", true, Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows.iter().map(|row| row.2.clone())))),
            ("b", false, Arc::new(BooleanArray::from_iter(rows.iter().map(|row| Some(row.3))))),
        ]);
        prop_assert_eq!(&read_as(&column, column.data_type()), &column);
    }
}
