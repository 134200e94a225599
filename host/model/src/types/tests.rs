use proptest::prelude::*;

use super::*;

/// The conformance cases of `wit/types.md`: every form a type may take. A printer that departs from them breaks the contract.
const CASES: &[&str] = &[
    "Boolean",
    "Int8",
    "Int16",
    "Int32",
    "Int64",
    "UInt8",
    "UInt16",
    "UInt32",
    "UInt64",
    "Float32",
    "Float64",
    "Decimal128(38, 10)",
    "Decimal128(5, -2)",
    "Date32",
    "Date64",
    "Time32(s)",
    "Time32(ms)",
    "Time64(µs)",
    "Time64(ns)",
    "Timestamp(s)",
    "Timestamp(ms)",
    "Timestamp(µs)",
    "Timestamp(ns)",
    "Timestamp(ms, \"UTC\")",
    "Timestamp(ns, \"+01:00\")",
    "Timestamp(ms, \"Europe/Berlin\")",
    "Duration(s)",
    "Duration(ms)",
    "Duration(µs)",
    "Duration(ns)",
    "Utf8",
    "LargeUtf8",
    "Binary",
    "LargeBinary",
    "FixedSizeBinary(16)",
    "List(Int64)",
    "List(non-null Utf8)",
    "List(Int64, field: 'element')",
    "FixedSizeList(3 x Float32)",
    "FixedSizeList(3 x non-null Float32, field: 'axis')",
    "Struct()",
    "Struct(\"a\": Int64, \"b\": non-null Utf8)",
    "Struct(\"größe\": List(Struct(\"x y\": Int8)))",
    "Map(\"entries\": non-null Struct(\"key\": non-null Utf8, \"value\": Int64), unsorted)",
];

#[test]
fn every_type_that_crosses_prints_as_it_is_written() {
    for case in CASES {
        let parsed = parse_type(case).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(type_text(&parsed), *case);
    }
}

#[test]
fn types_that_stay_in_the_host_are_refused_by_name() {
    for text in ["Utf8View", "Dictionary(Int32, Utf8)", "Interval(YearMonth)", "Null", "Float16", "LargeList(Int8)", "List(BinaryView)"] {
        let error = parse_type(text).expect_err("does not cross");
        assert!(error.reason.ends_with("do not cross to operators"), "{error}");
    }
}

#[test]
fn impossible_sizes_are_refused() {
    for text in [
        "FixedSizeBinary(0)",
        "FixedSizeBinary(-1)",
        "FixedSizeBinary(2147483647)",
        "FixedSizeList(0 x Int8)",
        "Decimal128(39, 0)",
        "Decimal128(3, -4)",
        "Time32(ns)",
    ] {
        parse_type(text).expect_err(text);
    }
}

#[test]
fn a_bottomless_type_is_refused_before_it_is_parsed() {
    let deep = format!("{}Int8{}", "List(".repeat(1000), ")".repeat(1000));
    assert!(parse_type(&deep).expect_err("too deep").reason.contains("deeper"));
    parse_type(&"List(".repeat(3000)).expect_err("too deep and unfinished");
    parse_type(&"x".repeat(TEXT_BYTES_MAX + 1)).expect_err("too long");
}

#[test]
fn names_that_need_escapes_are_refused() {
    for name in ["a\"b", "a\\b", "a\nb", "", "a'b"] {
        let data_type = DataType::Struct(vec![Field::new(name, DataType::Int8, true)].into());
        check_crossing_type(&data_type).expect_err(name);
    }
}

#[test]
fn metadata_of_nested_fields_is_left_out() {
    let item = Field::new("item", DataType::Int8, true).with_metadata([("a".to_owned(), "b".to_owned())].into());
    assert_eq!(type_text(&DataType::List(Arc::new(item))), "List(Int8)");
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(text in "[A-Za-z0-9(),:\"' \\-\\\\µ]{0,80}") {
        if let Ok(parsed) = parse_type(&text) {
            prop_assert_eq!(parse_type(&type_text(&parsed)), Ok(parsed));
        }
    }
}
