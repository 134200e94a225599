use std::sync::Arc;

use arrow_array::{Array, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::*;

fn schema() -> SchemaRef {
    let inner = DataType::Struct(vec![Field::new("price", DataType::Int64, true)].into());
    Arc::new(Schema::new(vec![
        Field::new("origin", DataType::Utf8, true),
        Field::new("dep_delay", DataType::Float64, true),
        Field::new("flights", DataType::Int64, false),
        Field::new("seats", DataType::Int32, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false),
        Field::new("Carrier", DataType::Utf8, false),
        Field::new("bid", inner, true),
    ]))
}

fn batch() -> RecordBatch {
    let bids = arrow_array::StructArray::from(vec![(
        Arc::new(Field::new("price", DataType::Int64, true)),
        Arc::new(Int64Array::from(vec![Some(7), None, Some(9)])) as ArrayRef,
    )]);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("JFK"), Some("LGA"), None])),
        Arc::new(Float64Array::from(vec![Some(30.0), None, Some(-5.0)])),
        Arc::new(Int64Array::from(vec![1, 0, 4])),
        Arc::new(Int32Array::from(vec![180, i32::MAX, 20])),
        Arc::new(TimestampMillisecondArray::from(vec![1_700_000_000_000, 0, 3_600_000]).with_timezone("UTC")),
        Arc::new(StringArray::from(vec!["AA", "12", "x"])),
        Arc::new(bids),
    ];
    RecordBatch::try_new(schema(), columns).expect("columns of the schema")
}

fn parsed(text: &str) -> Expression {
    Expression::parse(text, &schema()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn values(text: &str) -> Vec<String> {
    let values = parsed(text).evaluate(&batch()).unwrap_or_else(|error| panic!("{text}: {error}"));
    (0..values.len())
        .map(|row| if values.is_null(row) { "null".into() } else { array_value_to_string(&values, row).expect("printable") })
        .collect()
}

fn failures(text: &str) -> Vec<String> {
    let evaluated = parsed(text).evaluate_rows(&batch());
    assert_eq!(evaluated.values.len(), 3);
    evaluated.failed.into_iter().map(|FailedRow { row, reason }| format!("{row}: {reason}")).collect()
}

fn mistake(text: &str) -> String {
    match Expression::parse(text, &schema()) {
        Ok(expression) => panic!("{expression:?} is accepted"),
        Err(error) => format!("{error} @{}", error.offset.map_or("-".into(), |offset| offset.to_string())),
    }
}

#[test]
fn arithmetic_and_functions_keep_nulls() {
    assert_eq!(values("dep_delay / 60.0"), ["0.5", "null", "-0.08333333333333333"]);
    assert_eq!(values("upper(coalesce(origin, 'none')) || '-' || Carrier"), ["JFK-AA", "LGA-12", "NONE-x"]);
    assert_eq!(values("CASE WHEN dep_delay > 15 THEN 'late' ELSE 'on time' END"), ["late", "on time", "on time"]);
    assert_eq!(values("bid['price'] + flights"), ["8", "null", "13"]);
    assert_eq!(values("extract(hour from at)"), ["22", "0", "1"]);
    assert_eq!(values("substring(origin from 2) || substr(Carrier, 1, 1)"), ["FKA", "GA1", "null"]);
    assert_eq!(values("LENGTH(Carrier) = 2 AND origin IS NOT NULL"), ["true", "true", "false"]);
}

#[test]
fn results_have_types_that_cross_to_guests() {
    for (text, expected) in [("substr(Carrier, 1, 1)", DataType::Utf8), ("flights + seats", DataType::Int64), ("'a'", DataType::Utf8)] {
        let expression = parsed(text);
        assert_eq!(expression.data_type(), &expected, "{text}");
        assert_eq!(expression.evaluate(&batch()).expect("evaluates").data_type(), &expected, "{text}");
    }
}

#[test]
fn it_knows_which_columns_it_reads_and_whether_it_may_be_null() {
    assert_eq!(parsed("dep_delay > 3 OR origin = Carrier OR dep_delay < 1").columns(), [0, 1, 5]);
    assert!(parsed("dep_delay > 3").nullable());
    assert!(!parsed("flights > 3").nullable());
}

#[test]
fn a_null_condition_does_not_hold() {
    let selection = Expression::parse_condition("dep_delay > 0", &schema()).expect("a condition").select(&batch());
    assert_eq!(selection.mask, BooleanArray::from(vec![true, false, false]));
}

#[test]
fn only_the_failing_rows_fail() {
    assert_eq!(failures("100 / flights"), ["1: division by zero"]);
    assert_eq!(failures("100 % flights"), ["1: division by zero"]);
    assert_eq!(failures("seats * 2 / 2 + CAST(Carrier AS BIGINT)").len(), 2);
    assert_eq!(failures("CAST(flights + 200 AS SMALLINT)"), Vec::<String>::new());
}

#[test]
fn integer_overflow_fails_instead_of_wrapping() {
    assert_eq!(failures("seats + arrow_cast(1, 'Int32')").len(), 1);
    assert_eq!(failures("(0 - 9223372036854775807 - 1 + flights) - 5").len(), 3);
    assert_eq!(failures("-(flights - 9223372036854775807 - 1)").len(), 1);
}

#[test]
fn a_part_that_always_fails_is_refused() {
    assert_eq!(mistake("flights + 1 / 0"), "always fails: division by zero @-");
    assert!(mistake("9223372036854775807 + 1 > flights").starts_with("always fails: "));
    parsed("CASE WHEN flights = 0 THEN 1 / 0 ELSE 1 END");
}

#[test]
fn mistakes_are_named() {
    assert_eq!(mistake("dep_dely > 15"), "unknown column `dep_dely`; did you mean `dep_delay`? @0");
    assert_eq!(mistake("carrier = 'AA'"), "unknown column `carrier`; did you mean `Carrier`? @0");
    assert!(mistake("flights > zzzzzz").starts_with("unknown column `zzzzzz`; the columns are `origin`, `dep_delay`"));
    assert_eq!(mistake("flights >"), "expected: an expression, found: EOF @-");
    assert_eq!(mistake("flights > 1 please"), "expected: end of expression, found: please @12");
    assert_eq!(mistake("uper(origin)"), "invalid function 'uper'; did you mean `upper`? @-");
    assert!(mistake("origin + 1 > bid").contains("coerce"), "{}", mistake("origin + 1 > bid"));
    assert_eq!(mistake("NULL"), "NULL has no type; write for example CAST(NULL AS BIGINT) @-");
    let condition = Expression::parse_condition("flights + 1", &schema()).expect_err("not a condition");
    assert_eq!(condition.message, "a condition is true or false, but this has the type Int64");
}

#[test]
fn what_changes_from_call_to_call_is_refused() {
    for function in ["now()", "random()", "uuid()", "current_date()", "current_timestamp"] {
        assert!(
            mistake(&format!("{function} IS NULL")).contains("gives another answer at every call"),
            "{function}: {}",
            mistake(function)
        );
    }
}

#[test]
fn aggregates_and_subqueries_are_refused() {
    for text in ["sum(flights)", "flights IN (SELECT 1)", "(SELECT 1)", "flights > $1", "count(*)", "row_number() OVER ()"] {
        mistake(text);
    }
}

#[test]
fn hostile_depth_is_refused_and_overflows_no_stack() {
    let deep = format!("{}1{}", "(".repeat(1_500), ")".repeat(1_500));
    mistake(&deep);
    mistake("flights + ".repeat(400).trim_end_matches("+ "));
    mistake(&format!("flights{}", "::bigint::int".repeat(200)));
    mistake(&"x".repeat(TEXT_BYTES_MAX + 1));
}
