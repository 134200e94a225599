//! Job files whose parts do not fit together: streams, columns, types, keys, times.

use insta::assert_snapshot;

use crate::plan_table::mistakes;

/// A job over two tables.
fn job(rest: &str) -> String {
    format!(
        r#"job: j
sources:
  flights:
    table: {{}}
    schema: {{ tailnum: "Utf8?", origin: Utf8, dep_delay: "Float64?", scheduled: Timestamp(ms) }}
    event-time: {{ column: scheduled, max-out-of-orderness: 20h }}
  airports: {{ table: {{}}, schema: {{ code: Utf8, flights: Int64 }} }}
{rest}"#
    )
}

#[test]
fn unknown_streams_columns_outputs_and_sinks() {
    assert_snapshot!(mistakes(&job(r#"operators:
  late: { input: flihgts, filter: dep_delay > 15 }
  very_late: { input: flights, filter: dep_dely > 60, rejected: trash }
  shown: { input: flights, project: [origin, dest] }
  renamed: { input: flights, project: { from: orign } }
  keyed: { input: flights, key-by: [tail], filter: dep_delay > 1 }
  port: { input: flights.departures, filter: dep_delay > 1 }
  sunk: { input: out, filter: dep_delay > 1 }
sinks:
  out: { inputs: [late, very_late, shown, renamed, keyed, port, sunk, airports], shelf: {} }
  bin: { shelf: {} }
"#)));
}

#[test]
fn nobody_is_meant_to_read_from_themselves() {
    let found = mistakes(&job(
        "operators:\n  d: { input: m, filter: dep_delay > 1 }\nsinks: { out: { inputs: [d, flights, airports], shelf: {} } }\n",
    ));
    assert!(found.contains("unknown stream `m`") && found.contains("help: the streams are `flights`, `airports`"), "{found}");
}

#[test]
fn mistakes_in_one_entry_hide_none_in_others() {
    assert_snapshot!(mistakes(&job(r#"operators:
  broken: { input: flights, filtre: dep_delay > 15 }
  after: { input: broken, filter: dep_dely > 60 }
  wrong: { input: flights, filter: dep_dely > 60 }
sinks:
  out: { inputs: [after, wrong], shelf: { room: garden } }
  more: { input: airport, shelf: {} }
"#)));
}

#[test]
fn a_cycle_is_shown_whole() {
    assert_snapshot!(mistakes(&job(r#"operators:
  a: { inputs: [flights, c], union: {} }
  b: { input: a, filter: dep_delay > 1 }
  c: { input: b, filter: dep_delay > 2 }
sinks:
  out: { inputs: [c, airports], shelf: {} }
"#)));
}

#[test]
fn ports_are_checked() {
    assert_snapshot!(mistakes(&job(r#"operators:
  none: { filter: dep_delay > 1 }
  two: { inputs: [flights, flights], filter: dep_delay > 1 }
  named: { inputs: { left: flights }, filter: dep_delay > 1 }
  both: { input: flights, inputs: [flights], filter: dep_delay > 1 }
sinks:
  out: { inputs: [none, two, named, both, airports], shelf: {} }
"#)));
}

#[test]
fn types_are_checked_through_the_graph() {
    assert_snapshot!(mistakes(&job(r#"operators:
  hours: { input: flights, compute: { hours: dep_delay / 60.0, who: "upper(tailnum)" } }
  wrong: { input: hours, filter: hours }
  text: { input: hours, compute: { sum: who + scheduled } }
  one: { inputs: [flights, hours], union: {} }
  same: { input: flights, compute: { dep_delay: "origin" } }
  other: { inputs: [flights, same], union: {} }
  untimed: { inputs: [airports, flights], union: {} }
sinks:
  out: { inputs: [wrong, text, one, other, untimed], shelf: {} }
"#)));
}

#[test]
fn event_time_must_be_a_time() {
    assert_snapshot!(mistakes(
        r#"job: j
sources:
  a: { table: {}, schema: { at: Utf8 }, event-time: { column: at } }
  b: { table: {}, schema: { at: Utf8 }, event-time: { column: att } }
  c: { table: {}, schema: { at: Utf8 }, event-time: { expression: upper(at) } }
  d: { table: {}, schema: { at: Utf8 }, event-time: { max-out-of-orderness: 1h } }
  e: { table: {}, schema: { at: Int64 }, event-time: { column: at, expression: at } }
operators:
  again: { input: f, assign-watermarks: { max-out-of-orderness: 1h } }
sinks:
  out: { inputs: [a, b, c, d, e, again], shelf: {} }
"#
    ));
}

#[test]
fn keys_and_order_are_checked() {
    assert_snapshot!(mistakes(&job(r#"operators:
  nulls: { input: flights, null-keys: drop, filter: dep_delay > 1 }
  unkeyed: { input: flights, order: event-time, filter: dep_delay > 1 }
  untimed: { input: airports, key-by: [code], order: event-time, filter: flights > 1 }
  ports: { input: flights, key-by: { left: [origin] }, filter: dep_delay > 1 }
  floats: { input: flights, key-by: [dep_delay, origin], filter: dep_delay > 1 }
sinks:
  out: { inputs: [nulls, unkeyed, untimed, ports, floats], shelf: {} }
"#)));
}

#[test]
fn what_nobody_reads_is_a_mistake() {
    assert_snapshot!(mistakes(&job(r#"operators:
  idle: { input: flights, filter: dep_delay > 1 }
sinks:
  out: { input: flights, shelf: {} }
  nothing: { shelf: {} }
"#)));
}

#[test]
fn rejected_rows_go_one_way() {
    assert_snapshot!(mistakes(&job(r#"operators:
  a: { input: flights, filter: dep_delay > 1, rejected: drop }
  b: { input: airports, filter: flights > 1, rejected: a }
sinks:
  out: { inputs: [a, b], shelf: {} }
  bin: { inputs: [a.rejected, b.late], shelf: {} }
"#)));
}

#[test]
fn a_sink_has_no_more_writers_than_it_can() {
    assert_snapshot!(mistakes(&job(
        "sinks:\n  out: { input: flights, parallelism: 4, shelf: { writers: 1 } }\n  b: { input: airports, shelf: {}, parallelism: 5000 }\n"
    )));
}

#[test]
fn a_component_that_is_not_there_is_named_with_the_way_to_build_it() {
    assert_snapshot!(mistakes(&job(
        "operators:\n  a: { inputs: [flights, airports], component: { path: nowhere.wasm } }\nsinks: { out: { input: a, shelf: {} } }\n"
    )));
}

#[test]
fn a_component_that_is_not_built_hides_no_other_mistake() {
    assert_snapshot!(mistakes(&job(r#"operators:
  unbuilt: { input: flihgts, component: { path: nowhere.wasm } }
  keyed: { input: flights, key-by: [tail], order: event-time, component: { path: nowhere.wasm } }
  unkeyed: { input: airports, null-keys: drop, component: { path: nowhere.wasm } }
  ports: { inputs: { left: flights.departures, right: airports }, key-by: { left: [origin], right: [cod] }, component: { path: nowhere.wasm } }
  both: { input: flights, inputs: [airports], component: { path: nowhere.wasm } }
  none: { component: { path: nowhere.wasm } }
  after: { input: keyed, key-by: [anything], component: { path: elsewhere.wasm } }
  wrong: { input: flights, filter: dep_dely > 60 }
sinks:
  out: { inputs: [unbuilt, keyed, unkeyed, ports, both, none, after, wrong], shelf: {} }
  more: { input: airport, shelf: {} }
"#)));
}

#[test]
fn a_window_needs_event_time() {
    assert_snapshot!(mistakes(&job(r#"operators:
  hourly: { input: airports, key-by: [code], window: { tumbling: 1h, aggregates: { rows: { count: "*" } } } }
sinks:
  out: { input: hourly, shelf: {} }
  more: { input: flights, shelf: {} }
"#)));
}

#[test]
fn a_changelog_goes_only_where_it_is_taken() {
    assert_snapshot!(mistakes(&job(r#"operators:
  hourly: { input: flights, key-by: [origin], window: { tumbling: 1h, early: 10m, aggregates: { rows: { count: "*" } } } }
  big: { input: hourly, filter: rows > 100 }
  daily: { input: big, key-by: [origin], window: { tumbling: 1d, aggregates: { hours: { count: "*" } } } }
sinks:
  taken: { input: big, shelf: { changes: true } }
  refused: { input: hourly, shelf: {} }
  days: { input: daily, shelf: {} }
  more: { input: airports, shelf: {} }
"#)));
}

#[test]
fn late_rows_go_to_a_sink_that_is_there() {
    assert_snapshot!(mistakes(&job(r#"operators:
  hourly: { input: flights, key-by: [origin], window: { tumbling: 1h, late: bin, aggregates: { rows: { count: "*" }, mean: { avg: dep_dely } } } }
  daily: { input: flights, key-by: [origin], parallelism: 2, window: { tumbling: 1d, late: trash, aggregates: { rows: { count: "*" } } } }
  all: { input: flights, parallelism: 2, window: { tumbling: 1d, aggregates: { rows: { count: "*" } } } }
sinks:
  out: { inputs: [hourly, daily], shelf: {} }
  whole: { input: all, shelf: {} }
  bin: { shelf: {} }
  more: { input: airports, shelf: {} }
"#)));
}
