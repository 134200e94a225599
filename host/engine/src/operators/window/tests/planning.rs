//! What is refused, and how it is said.

use serde_json::{Value, json};

use super::harness::plan_on;
use crate::{
    graph::RowOrder,
    operators::{Place, Problem},
};

fn problems(settings: Value) -> Vec<(String, String, Option<String>)> {
    let planned = plan_on(settings, Some(&[0]), true, RowOrder::Arrival);
    texts(planned.err().unwrap_or_default())
}

fn texts(problems: Vec<Problem>) -> Vec<(String, String, Option<String>)> {
    let place = |place| match place {
        Place::Settings(path) | Place::Entry(path) => path,
    };
    problems.into_iter().map(|problem| (place(problem.place), problem.message, problem.help)).collect()
}

fn counted(kind: &str, value: Value) -> Value {
    json!({ kind: value, "aggregates": { "n": { "count": "*" } } })
}

#[test]
fn all_mistakes_are_told_at_once() {
    let found = problems(json!({
        "tumbling": "0s",
        "aggregates": { "a": { "cuont": "*" }, "b": { "sum": "valeu" }, "c": { "sum": "text" }, "d": { "max-by": "value" }, "window_end": { "count": "*" } }
    }));
    let told: Vec<(&str, &str)> = found.iter().map(|(path, message, _)| (path.as_str(), message.as_str())).collect();
    assert_eq!(
        told,
        [
            ("tumbling", "it is longer than nothing"),
            ("aggregates.a.cuont", "unknown aggregate `cuont`"),
            ("aggregates.b.sum", "unknown column `valeu`"),
            ("aggregates.c.sum", "`sum` cannot be computed of `text`, which is Utf8"),
            ("aggregates.d.value", "`max-by` finds a row; `value` says which of its columns"),
        ]
    );
    assert_eq!(found[1].2.as_deref(), Some("did you mean `count`?"));
    assert_eq!(found[2].2.as_deref(), Some("did you mean `value`?"));
}

#[test]
fn a_window_on_a_stream_without_event_time_is_refused() {
    let planned = plan_on(counted("tumbling", json!("10s")), Some(&[0]), false, RowOrder::Arrival);
    assert_eq!(texts(planned.err().unwrap_or_default())[0].1, "these windows lie in event time, but the input has none");
    assert!(plan_on(counted("count", json!(10)), Some(&[0]), false, RowOrder::Arrival).is_ok());
    assert!(plan_on(counted("global", json!({})), None, false, RowOrder::Arrival).is_ok());
}

#[test]
fn exactly_one_kind_of_window_is_asked_for() {
    assert_eq!(problems(json!({ "aggregates": { "n": { "count": "*" } } }))[0].1, "which windows is not said");
    let two = json!({ "tumbling": "1s", "session": "1s", "aggregates": { "n": { "count": "*" } } });
    assert_eq!(problems(two)[0].1, "windows are either `tumbling` or `session`");
}

#[test]
fn impossible_lengths_are_refused() {
    assert_eq!(problems(counted("sliding", json!({ "size": "1s", "slide": "2s" })))[0].0, "sliding.slide");
    assert_eq!(problems(counted("cumulative", json!({ "size": "3s", "step": "2s" })))[0].1, "the size is no multiple of the step");
}

#[test]
fn names_that_would_clash_in_the_output_are_refused() {
    let clash = |name: &str| problems(json!({ "tumbling": "1s", "aggregates": { name: { "count": "*" } } }))[0].1.clone();
    assert_eq!(clash("window_start"), "the window itself adds a column `window_start`");
    assert_eq!(clash("key"), "the key has a column `key`, which is in the output already");
}

#[test]
fn only_columns_that_are_used_are_read() {
    let settings = json!({ "tumbling": "1s", "aggregates": { "n": { "count": "*" }, "text": { "max-by": "value", "value": ["text"] } } });
    let planned = plan_on(settings, Some(&[0]), true, RowOrder::Arrival).expect("it is planned");
    assert_eq!(planned.plan.reads(0), Some(vec![0, 1, 2]));
    let planned = plan_on(counted("tumbling", json!("1s")), None, true, RowOrder::Arrival).expect("it is planned");
    assert_eq!(planned.plan.reads(0), Some(vec![]));
}

#[test]
fn columns_come_out_in_the_order_of_the_job_file() {
    let settings = json!({ "tumbling": "1s", "aggregates": { "z": { "avg": "value" }, "a": { "first": "text" } } });
    let planned = plan_on(settings, Some(&[0]), true, RowOrder::Arrival).expect("it is planned");
    let schema = &planned.plan.outputs()[0].1.schema;
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["key", "window_start", "window_end", "z", "a"]);
}

#[test]
fn the_order_of_event_time_is_refused_since_windows_do_not_need_it() {
    let planned = plan_on(counted("tumbling", json!("1s")), Some(&[0]), true, RowOrder::EventTime);
    assert_eq!(texts(planned.err().unwrap_or_default())[0].0, "order");
}
