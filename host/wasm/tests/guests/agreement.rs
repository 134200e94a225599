//! Plans: what an operator asks for is checked against what it was offered, by name.

use std::sync::Arc;

use arrow_schema::{DataType, Field, TimeUnit};
use millstream_model::state::{Clock, StateKind, Ttl, TtlRefresh};
use millstream_wasm::{Error, InputSchema, OperatorPlan};

use crate::{
    contract::{self, Planned, State, Timer, field},
    input, instance,
    puppet::{Puppet, planned},
};

async fn plan_of(plan: Planned, inputs: &[InputSchema]) -> Result<OperatorPlan, Error> {
    instance(Puppet::new(plan, contract::Turn::default()).component()).await.plan(&serde_json::json!({ "a": 1 }), inputs).await
}

fn flights() -> InputSchema {
    let list = DataType::List(Arc::new(Field::new("element", DataType::Int64, false)));
    input(&[("origin", DataType::Utf8), ("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))), ("codes", list)])
}

/// Reads these columns.
fn reading(reads: &[(&str, &str)]) -> Planned {
    let mut plan = planned();
    plan.inputs[0].reads = reads.iter().map(|(name, data_type)| field(name, data_type)).collect();
    plan
}

macro_rules! assert_refused {
    ($plan:expr, $inputs:expr, $($part:literal),+) => {{
        let said = plan_of($plan, $inputs).await.expect_err("is refused").to_string();
        $(assert!(said.contains($part), "{said:?} lacks {:?}", $part);)+
    }};
}

#[tokio::test]
async fn columns_are_found_by_name_and_read_in_the_order_asked_for() {
    let plan = plan_of(reading(&[("at", "Timestamp(ms, \"UTC\")"), ("origin", "Utf8")]), &[flights()]).await.expect("fits");
    assert_eq!(plan.inputs[0].columns, [1, 0]);
    assert_eq!(plan.outputs[0].keeps, Some(0));
}

#[tokio::test]
async fn the_item_of_a_list_may_be_named_differently_and_allow_nulls() {
    plan_of(reading(&[("codes", "List(Int64)")]), &[flights()]).await.expect("the layout is the same");
}

#[tokio::test]
async fn a_column_that_is_not_there_is_refused_with_those_that_are() {
    assert_refused!(reading(&[("origins", "Utf8")]), &[flights()], "`origins`", "origin, at, codes", "input port 0");
}

#[tokio::test]
async fn a_column_of_another_type_is_refused_with_both_types() {
    assert_refused!(reading(&[("at", "Int64")]), &[flights()], "`at` as Int64", "Timestamp(ms, \"UTC\")");
}

#[tokio::test]
async fn reading_without_nulls_what_may_be_null_is_refused() {
    let mut plan = reading(&[("origin", "Utf8")]);
    plan.inputs[0].reads[0].nullable = false;
    assert_refused!(plan, &[flights()], "`origin` without nulls");
}

#[tokio::test]
async fn a_text_that_is_no_type_is_refused() {
    assert_refused!(reading(&[("origin", "String")]), &[flights()], "`String` is not a type");
    assert_refused!(reading(&[("origin", &"List(".repeat(10_000))]), &[flights()], "is not a type");
}

#[tokio::test]
async fn event_times_of_a_stream_without_them_are_refused() {
    let mut plan = planned();
    plan.inputs[0].event_times = true;
    assert_refused!(plan, &[InputSchema { event_times: false, ..flights() }], "event times, but the stream has none");
}

#[tokio::test]
async fn a_changelog_into_an_operator_that_does_not_take_it_is_refused() {
    let mut plan = planned();
    plan.inputs[0].changes = false;
    assert_refused!(plan, &[InputSchema { changes: true, ..flights() }], "updates and deletions");
}

#[tokio::test]
async fn inputs_and_outputs_are_counted() {
    assert_refused!(planned(), &[flights(), flights()], "1 inputs (in), but 2 are given");
    assert_refused!(Planned { inputs: vec![], ..planned() }, &[flights()], "0 planned inputs");
    assert_refused!(Planned { outputs: vec![], ..planned() }, &[flights()], "0 planned outputs");
}

#[tokio::test]
async fn keeping_an_input_that_does_not_exist_is_refused() {
    let mut plan = planned();
    plan.outputs[0].keeps = Some(1);
    assert_refused!(plan, &[flights()], "input port 1 of 1");
}

#[tokio::test]
async fn unknown_hints_are_refused_and_private_ones_ignored() {
    let hint = |name: &str, value: &str| contract::Hint { name: name.into(), value: value.into() };
    assert_refused!(Planned { hints: vec![hint("turbo", "true")], ..planned() }, &[flights()], "\"turbo\"");
    assert_refused!(Planned { hints: vec![hint("kept", "true")], ..planned() }, &[flights()], "`kept`", "not offer yet");
    assert_refused!(Planned { hints: vec![hint("rows-max", "0")], ..planned() }, &[flights()], "`rows-max`");
    let plan = plan_of(Planned { hints: vec![hint("x-mine", ""), hint("rows-max", "64")], ..planned() }, &[flights()]).await.expect("fits");
    assert_eq!(plan.rows_max().map(u32::from), Some(64));
}

fn state(kind: u8, map_key_type: Option<&str>) -> State {
    let ttl = Some(contract::Ttl { ms: 1000, clock: 1, refresh: 1 });
    State { name: "s".into(), kind, scope: 0, map_key_type: map_key_type.map(Into::into), value_type: "Utf8".into(), version: 3, ttl }
}

fn remembering(states: Vec<State>) -> Planned {
    let mut plan = planned();
    plan.inputs[0].keyed = true;
    Planned { states, ..plan }
}

#[tokio::test]
async fn states_are_read_with_their_types_and_times_to_live() {
    let plan = plan_of(remembering(vec![state(1, Some("Int64"))]), &[flights()]).await.expect("fits");
    assert_eq!(plan.states[0].kind, StateKind::OrderedMap);
    assert_eq!(plan.states[0].map_key_type, Some(DataType::Int64));
    assert_eq!(plan.states[0].ttl, Some(Ttl { duration_ms: 1000, clock: Clock::ProcessingTime, refresh: TtlRefresh::OnRead }));
}

#[tokio::test]
async fn states_that_make_no_sense_are_refused() {
    assert_refused!(remembering(vec![state(1, None)]), &[flights()], "an ordered map has a key type");
    assert_refused!(remembering(vec![state(0, Some("Utf8"))]), &[flights()], "an ordered map has a key type");
    assert_refused!(remembering(vec![state(0, None), state(0, None)]), &[flights()], "name of its own");
    assert_refused!(remembering(vec![State { scope: 1, ..state(0, None) }]), &[flights()], "broadcast");
    assert_refused!(
        remembering(vec![State { ttl: Some(contract::Ttl { ms: 0, clock: 0, refresh: 0 }), ..state(0, None) }]),
        &[flights()],
        "0 ms"
    );
    assert_refused!(Planned { states: vec![state(0, None)], ..planned() }, &[flights()], "no keyed input");
    let timer = Timer { name: "t".into(), clock: 0 };
    assert_refused!(Planned { timers: vec![timer], ..planned() }, &[flights()], "no keyed input");
}

#[tokio::test]
async fn columns_that_do_not_cross_are_refused_before_the_guest_is_asked() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let error = plan_of(planned(), &[input(&[("d", dictionary)])]).await.expect_err("stays in the host");
    assert!(matches!(&error, Error::InputType { field, .. } if field == "d"), "{error}");
}

#[tokio::test]
async fn a_guest_that_declines_is_quoted() {
    let mut puppet = Puppet::silent();
    puppet.plan = puppet.answer::<Result<Planned, String>>(&Err("`zones` is missing".into()));
    let error = instance(puppet.component()).await.plan(&serde_json::json!({}), &[flights()]).await.expect_err("declines");
    assert!(matches!(&error, Error::Declined { message, .. } if message == "`zones` is missing"), "{error}");
    assert_eq!(error.kind(), millstream_model::ErrorKind::Invalid);
}
