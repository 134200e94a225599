//! Every built-in aggregate against one that keeps all rows, and the two laws: cutting batches and merging change nothing.

use std::sync::Arc;

use arrow_array::{
    Array, Decimal128Array, Float64Array, Int32Array, Int64Array, StringArray, UInt64Array, cast::AsArray, new_null_array, types::*,
};
use arrow_schema::{Field, Schema};
use proptest::prelude::*;

use super::*;

/// One row: group, number, text, event time.
type Row = (u32, Option<i32>, Option<String>, i64);

const NUMBER: usize = 0;
const TEXT: usize = 1;

fn schema() -> Schema {
    Schema::new(vec![Field::new("number", DataType::Int32, true), Field::new("text", DataType::Utf8, true)])
}

fn batch(rows: &[Row]) -> Batch {
    let numbers: Int32Array = rows.iter().map(|row| row.1).collect();
    let texts: StringArray = rows.iter().map(|row| row.2.as_deref()).collect();
    let times: Vec<i64> = rows.iter().map(|row| row.3).collect();
    Batch::try_new(Arc::new(schema()), vec![Arc::new(numbers), Arc::new(texts)], rows.len())
        .expect("the columns fit the schema")
        .with_event_times(Some(times.into()))
}

fn empty(aggregate: &dyn BuiltIn, groups: usize) -> ArrayRef {
    new_null_array(&aggregate.accumulator_type(), groups)
}

fn accumulate(aggregate: &dyn BuiltIn, rows: &[Row], into: &ArrayRef) -> ArrayRef {
    let groups: Vec<u32> = rows.iter().map(|row| row.0).collect();
    let by_row = aggregate.accumulate(&batch(rows), Grouping::Rows(&groups), into);
    let runs: Vec<Run> = rows.iter().enumerate().map(|(row, (group, ..))| Run { rows: row..row + 1, group: *group as usize }).collect();
    let by_run = aggregate.accumulate(&batch(rows), Grouping::Runs(&runs), into);
    assert_eq!(&by_row, &by_run, "runs and rows are two ways to say the same");
    assert_eq!(by_row.data_type(), &aggregate.accumulator_type());
    by_row
}

fn finish(aggregate: &dyn BuiltIn, accumulators: &ArrayRef) -> ArrayRef {
    let mut without = Vec::new();
    let results = aggregate.finish(accumulators, &mut without);
    assert_eq!((results.data_type(), &without[..]), (&aggregate.output().0, &[][..]));
    results
}

/// The result for rows that are all in one group.
fn result_of(aggregate: &dyn BuiltIn, rows: &[Row]) -> ArrayRef {
    finish(aggregate, &accumulate(aggregate, rows, &empty(aggregate, 1)))
}

fn all() -> Vec<Box<dyn BuiltIn>> {
    let number = || DataType::Int32;
    let text = || DataType::Utf8;
    let pick = |by, columns| Box::new(Pick::new(by, columns, false, &schema()).expect("it has an order")) as Box<dyn BuiltIn>;
    vec![
        Box::new(Count { column: None }),
        Box::new(Count { column: Some(NUMBER) }),
        Box::new(Sum::new(NUMBER, &number(), true).expect("a number")),
        Box::new(Average::new(NUMBER, &number(), true).expect("a number")),
        Box::new(Extreme::new(Side::Least, NUMBER, &number(), true).expect("it has an order")),
        Box::new(Extreme::new(Side::Greatest, NUMBER, &number(), true).expect("it has an order")),
        Box::new(Extreme::new(Side::Least, TEXT, &text(), true).expect("it has an order")),
        Box::new(Extreme::new(Side::Greatest, TEXT, &text(), true).expect("it has an order")),
        pick(By::First, vec![NUMBER]),
        pick(By::Last, vec![TEXT]),
        pick(By::Column(Side::Greatest, NUMBER), vec![TEXT]),
        pick(By::Column(Side::Least, TEXT), vec![NUMBER]),
        Box::new(Collect::new(NUMBER, &number(), true)),
        Box::new(CountDistinct::new(TEXT, &text()).expect("it has equality")),
    ]
}

fn any_rows() -> impl Strategy<Value = Vec<Row>> {
    let row = (0_u32..4, prop::option::of(-5_i32..5), prop::option::of("[a-c]{0,2}"), 0_i64..6);
    prop::collection::vec(row, 0..60)
}

proptest! {
    #[test]
    fn cutting_a_batch_changes_nothing(rows in any_rows(), cut in 0_usize..60) {
        let (head, tail) = rows.split_at(cut.min(rows.len()));
        for aggregate in all() {
            let at_once = accumulate(&*aggregate, &rows, &empty(&*aggregate, 4));
            let in_two = accumulate(&*aggregate, tail, &accumulate(&*aggregate, head, &empty(&*aggregate, 4)));
            prop_assert_eq!(&finish(&*aggregate, &at_once), &finish(&*aggregate, &in_two), "{:?}", aggregate);
        }
    }

    /// Groups 0 and 1 are merged into group 0, 2 and 3 into group 1.
    #[test]
    fn merging_equals_accumulating_the_rows_of_one_then_of_the_other(rows in any_rows()) {
        for aggregate in all() {
            let apart = accumulate(&*aggregate, &rows, &empty(&*aggregate, 4));
            let merged = aggregate.merge(&empty(&*aggregate, 2), &apart, &[0, 0, 1, 1]);
            let mut in_order = rows.clone();
            in_order.sort_by_key(|row| row.0);
            in_order.iter_mut().for_each(|row| row.0 /= 2);
            let together = accumulate(&*aggregate, &in_order, &empty(&*aggregate, 2));
            prop_assert_eq!(&finish(&*aggregate, &merged), &finish(&*aggregate, &together), "{:?}", aggregate);
        }
    }

    #[test]
    fn results_are_those_of_keeping_all_rows(rows in prop::collection::vec((0_u32..1, prop::option::of(-5_i32..5), prop::option::of("[a-c]{0,2}"), 0_i64..6), 1..40)) {
        let numbers: Vec<i64> = rows.iter().filter_map(|row| row.1).map(i64::from).collect();
        let mut texts: Vec<&str> = rows.iter().filter_map(|row| row.2.as_deref()).collect();
        texts.sort_unstable();
        let results: Vec<ArrayRef> = all().iter().map(|aggregate| result_of(&**aggregate, &rows)).collect();
        let int64 = |index: usize| results[index].as_primitive::<Int64Type>().iter().next().flatten();
        let int32 = |index: usize| results[index].as_primitive::<Int32Type>().iter().next().flatten();
        let text = |index: usize| results[index].as_string::<i32>().iter().next().flatten().map(str::to_owned);
        prop_assert_eq!(int64(0), Some(rows.len() as i64));
        prop_assert_eq!(int64(1), Some(numbers.len() as i64));
        let sum = (!numbers.is_empty()).then(|| numbers.iter().sum::<i64>());
        prop_assert_eq!(int64(2), sum);
        let mean = results[3].as_primitive::<Float64Type>().iter().next().flatten();
        prop_assert_eq!(mean, sum.map(|sum| sum as f64 / numbers.len() as f64));
        prop_assert_eq!(int32(4).map(i64::from), numbers.iter().min().copied());
        prop_assert_eq!(int32(5).map(i64::from), numbers.iter().max().copied());
        prop_assert_eq!(text(6), texts.first().map(|&text| text.to_owned()));
        prop_assert_eq!(text(7), texts.last().map(|&text| text.to_owned()));
        let first = rows.iter().min_by_key(|row| row.3).expect("there is a row");
        prop_assert_eq!(int32(8), first.1);
        let last = rows.iter().max_by_key(|row| row.3).expect("there is a row");
        prop_assert_eq!(text(9), last.2.clone());
        let greatest = numbers.iter().max().and_then(|max| rows.iter().find(|row| row.1.map(i64::from) == Some(*max)));
        prop_assert_eq!(text(10), greatest.and_then(|row| row.2.clone()));
        let least = texts.first().and_then(|min| rows.iter().find(|row| row.2.as_deref() == Some(min)));
        prop_assert_eq!(int32(11), least.and_then(|row| row.1));
        let collected: Vec<Option<i32>> = results[12].as_list::<i32>().value(0).as_primitive::<Int32Type>().iter().collect();
        prop_assert_eq!(collected, rows.iter().map(|row| row.1).collect::<Vec<_>>());
        let distinct = { let mut distinct = texts.clone(); distinct.dedup(); distinct.len() };
        prop_assert_eq!(int64(13), Some(distinct as i64));
    }
}

fn one_column(values: ArrayRef) -> Batch {
    let rows = values.len();
    let schema = Schema::new(vec![Field::new("value", values.data_type().clone(), true)]);
    Batch::try_new(Arc::new(schema), vec![values], rows).expect("one column fits")
}

fn accumulate_column(aggregate: &dyn BuiltIn, values: ArrayRef) -> ArrayRef {
    let groups = vec![0; values.len()];
    aggregate.accumulate(&one_column(values), Grouping::Rows(&groups), &empty(aggregate, 1))
}

#[test]
fn a_sum_that_leaves_64_bits_and_comes_back_is_a_result() {
    let sum = Sum::new(0, &DataType::Int64, false).expect("a number");
    let sums = accumulate_column(&sum, Arc::new(Int64Array::from(vec![i64::MAX, 1, -2])));
    assert_eq!(finish(&sum, &sums).as_primitive::<Int64Type>().value(0), i64::MAX - 1);
}

#[test]
fn a_sum_that_does_not_fit_has_no_result() {
    let sum = Sum::new(0, &DataType::UInt64, false).expect("a number");
    let sums = accumulate_column(&sum, Arc::new(UInt64Array::from(vec![u64::MAX, 1])));
    let mut without = Vec::new();
    sum.finish(&sums, &mut without);
    assert_eq!(without, [NoResult { group: 0, reason: "the sum 18446744073709551616 does not fit into 64 bits".into() }]);
}

#[test]
fn floats_are_added_in_order_of_arrival() {
    let sum = Sum::new(0, &DataType::Float64, false).expect("a number");
    let values = vec![1e16, 1.0, -1e16, 1.0];
    let sums = accumulate_column(&sum, Arc::new(Float64Array::from(values.clone())));
    assert_eq!(finish(&sum, &sums).as_primitive::<Float64Type>().value(0), values.into_iter().sum::<f64>());
}

#[test]
fn the_mean_of_decimals_has_four_more_digits_rounded_half_away_from_zero() {
    let decimals =
        |values: Vec<i128>| Arc::new(Decimal128Array::from(values).with_precision_and_scale(10, 1).expect("it fits")) as ArrayRef;
    let average = Average::new(0, &DataType::Decimal128(10, 1), false).expect("a number");
    let mean = |values| finish(&average, &accumulate_column(&average, decimals(values))).as_primitive::<Decimal128Type>().value(0);
    assert_eq!(average.output().0, DataType::Decimal128(38, 5));
    assert_eq!(mean(vec![1, 2, 2]), 16_667, "0.5 / 3 = 0.16667");
    assert_eq!(mean(vec![-1, -2, -2]), -16_667);
}

#[test]
fn picked_columns_come_out_as_a_struct_when_they_are_a_list() {
    let pick = Pick::new(By::Column(Side::Greatest, NUMBER), vec![TEXT, NUMBER], true, &schema()).expect("it has an order");
    let rows = [(0, Some(1), Some("a".to_owned()), 0), (0, Some(3), Some("b".to_owned()), 0), (0, Some(3), Some("c".to_owned()), 0)];
    let result = result_of(&pick, &rows);
    assert_eq!(result.as_struct().column(0).as_string::<i32>().value(0), "b", "of several the first");
    assert_eq!(result.as_struct().column(1).as_primitive::<Int32Type>().value(0), 3);
}

#[test]
fn numbers_texts_and_times_have_an_order_lists_do_not() {
    assert!(Extreme::new(Side::Least, 0, &DataType::Date32, false).is_some());
    assert!(Extreme::new(Side::Least, 0, &DataType::Boolean, false).is_some());
    let list = DataType::List(Arc::new(Field::new("item", DataType::Int64, true)));
    assert!(Extreme::new(Side::Least, 0, &list, false).is_none());
    assert!(CountDistinct::new(0, &list).is_none());
    assert!(Sum::new(0, &DataType::Utf8, false).is_none());
}
