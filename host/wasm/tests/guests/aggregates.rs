//! Aggregates: accumulators travel with the batch, and answers are checked.

use std::sync::Arc;

use arrow_array::{Array as _, ArrayRef, Int64Array, cast::AsArray as _, types::Int64Type};
use arrow_schema::{DataType, Fields};
use millstream_wasm::{AggregateInstance, Failure, GroupedRows};

use crate::{
    context,
    contract::{Column, Signature, field, int64},
    load, nullable,
    puppet::{self, Act, AggregatePuppet},
};

fn signature() -> Signature {
    Signature {
        reads: vec![field("n", "Int64")],
        accumulator_type: "Int64".into(),
        version: 1,
        output: field("sum", "Int64"),
        merges: true,
        hints: vec![],
    }
}

async fn opened(puppet: AggregatePuppet) -> AggregateInstance {
    let mut instance = load(puppet.component()).await.expect("loads").aggregate(context()).await.expect("starts");
    assert_eq!(instance.describe().await.expect("describes").name, "puppet");
    let fields: Fields = vec![nullable("other", DataType::Utf8), nullable("n", DataType::Int64)].into();
    let plan = Arc::new(instance.plan(&serde_json::Value::Null, &fields).await.expect("plans"));
    assert_eq!(plan.columns, [1]);
    instance.open(&serde_json::Value::Null, plan).await.expect("opens");
    instance
}

fn numbers(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn rows(groups: u32) -> GroupedRows {
    GroupedRows { length: 3, columns: vec![numbers(&[Some(1), None, Some(3)])], group_of_row: vec![0, 0, 1].into(), groups }
}

/// Answers with the column that is the function's parameter number `first` and the two behind it: an accumulator comes back.
fn give_back(puppet: &mut AggregatePuppet, first: u32) -> Act {
    let Act::Answer(answer) = puppet.answer::<Result<Column, String>>(&Ok(int64(&[]))) else {
        unreachable!("answers lie at an address");
    };
    puppet::give_back(answer, first)
}

#[tokio::test]
async fn accumulators_travel_with_the_calls() {
    let mut puppet = AggregatePuppet::new(signature());
    puppet.accumulate = give_back(&mut puppet, 6);
    puppet.merge = give_back(&mut puppet, 0);
    puppet.finish = give_back(&mut puppet, 0);
    let mut instance = opened(puppet).await;
    let accumulators = numbers(&[Some(7), None]);
    assert_eq!(&instance.accumulate(rows(2), accumulators.clone()).await.expect("accumulates"), &accumulators);
    let merged = instance.merge(accumulators.clone(), numbers(&[Some(1)]), vec![1].into()).await.expect("merges");
    assert_eq!(&merged, &accumulators);
    let result = instance.finish(accumulators).await.expect("finishes");
    assert_eq!(result.as_primitive::<Int64Type>().value(0), 7);
    assert!(result.is_null(1));
}

#[tokio::test]
async fn an_answer_of_another_length_is_refused() {
    let mut puppet = AggregatePuppet::new(signature());
    puppet.accumulate = puppet.answer::<Result<Column, String>>(&Ok(int64(&[1, 2, 3])));
    let failure = opened(puppet).await.accumulate(rows(2), numbers(&[None, None])).await.expect_err("three for two groups");
    assert!(matches!(&failure, Failure::Refused { reason, .. } if reason.contains("3 accumulators instead of 2")), "{failure}");
}

#[tokio::test]
async fn a_guests_error_ends_the_instance() {
    let mut puppet = AggregatePuppet::new(signature());
    puppet.finish = puppet.answer::<Result<Column, String>>(&Err("too hard".into()));
    let mut instance = opened(puppet).await;
    assert!(matches!(instance.finish(numbers(&[None])).await, Err(Failure::Fatal(message)) if message == "too hard"));
    assert!(matches!(instance.finish(numbers(&[None])).await, Err(Failure::Host { .. })));
}
