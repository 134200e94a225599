//! What the planner decides, as `millstream explain` prints it: columns that are read, chains, exchanges, where rows go.

use insta::assert_snapshot;
use millstream_engine::graph::{NodeKind, chains};

use crate::plan_table::{explained, planned};

const FLIGHTS: &str = r#"
job: flights
sources:
  flights:
    table: {}
    schema: { year: Int32, tailnum: "Utf8?", origin: Utf8, dest: Utf8, dep_delay: "Float64?", scheduled: Timestamp(ms) }
    event-time: { column: scheduled, max-out-of-orderness: 20h }
    rejected: bad
"#;

fn job(rest: &str) -> String {
    format!("{FLIGHTS}{rest}")
}

#[test]
fn a_linear_job_is_one_chain_that_reads_only_what_it_needs() {
    assert_snapshot!(explained(&job(r#"
operators:
  late: { input: flights, filter: dep_delay > 15 }
  hours: { input: late, compute: { hours: dep_delay / 60.0 } }
  shown: { input: hours, project: { airport: origin, hours: hours } }
sinks:
  out: { input: shown, shelf: {} }
  bad: { shelf: {} }
"#)));
}

#[test]
fn keyed_operators_get_a_hash_exchange_and_several_readers_their_own_columns() {
    assert_snapshot!(explained(&job(r#"
operators:
  aircraft: { input: flights, key-by: [tailnum], null-keys: drop, order: event-time, filter: dep_delay > 15, rejected: drop }
  airports: { input: flights, project: [origin] }
  narrow: { input: aircraft, project: [tailnum] }
sinks:
  out: { input: narrow, parallelism: 3, shelf: {} }
  one: { input: airports, shelf: { writers: 1 } }
  bad: { shelf: {} }
"#)));
}

#[test]
fn streams_meet_in_a_union_and_times_are_assigned_anew() {
    assert_snapshot!(explained(&job(r#"
operators:
  east: { input: flights, filter: origin = 'JFK' }
  west: { input: flights, filter: origin = 'SFO' }
  all: { inputs: [east, west], union: {} }
  again: { input: all, assign-watermarks: { expression: "scheduled + INTERVAL '1 hour'", max-out-of-orderness: 5m } }
  shown: { input: again, project: [origin] }
sinks:
  out: { input: shown, shelf: {} }
  bad: { input: again.rejected, shelf: {} }
"#)));
}

#[test]
fn windows_say_what_they_remember_and_where_late_rows_go() {
    assert_snapshot!(explained(&job(r#"
operators:
  hourly:
    input: flights
    key-by: [origin]
    window: { tumbling: 1h, late: late, aggregates: { flights: { count: "*" }, mean_delay: { avg: dep_delay } } }
  total: { input: hourly, window: { tumbling: 1d, aggregates: { flights: { sum: flights } } } }
sinks:
  out: { input: total, shelf: {} }
  late: { shelf: {} }
  bad: { shelf: {} }
"#)));
}

#[test]
fn one_subtask_needs_no_exchange() {
    let plan = planned(&format!(
        "parallelism: 1{}",
        job("
operators: { keyed: { input: flights, key-by: [origin], filter: dep_delay > 1 } }
sinks: { out: { input: keyed, shelf: {} }, bad: { shelf: {} } }
")
    ))
    .expect("a job");
    let chains: Vec<Vec<usize>> = chains(&plan).into_iter().map(|chain| chain.nodes).collect();
    assert_eq!(chains, [vec![0, 1, 2, 3]]);
}

#[test]
fn a_source_produces_only_what_is_read_and_what_event_time_needs() {
    let plan = planned(&job("
operators: { names: { input: flights, project: [dest] } }
sinks: { out: { input: names, shelf: {} }, bad: { shelf: {} } }
"))
    .expect("a job");
    let NodeKind::Source(source) = &plan.nodes[0].kind else { panic!("the first node is the source") };
    let names: Vec<String> = source.source.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!((names, source.columns_out), (vec!["dest".into(), "scheduled".into()], 1));
}
