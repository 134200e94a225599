//! Job files that are wrong before any stream is known: text, keys, values.

use insta::assert_snapshot;

use crate::plan_table::mistakes;

const SOURCE: &str = "sources: { t: { table: {}, schema: { n: Int64 } } }";
const SINK: &str = "sinks: { out: { input: t, shelf: {} } }";

#[test]
fn all_mistakes_are_reported_at_once_with_line_column_and_fix() {
    assert_snapshot!(mistakes(
        r#"
job: flights
paralelism: 2
sources:
  flights:
    tabel: { bounded: maybe }
    schema: { tailnum: Utf8, dep_delay: Flaot64 }
  weather:
    table: { bounded: maybe, tims: true }
    schema: { origin: Utf8 }
    rejected: 7
operators:
  late:
    input: flights
    filter: 17
    null-keys: sometimes
    parallelism: 0
sinks:
  out: { input: late, shelf: { room: atic, writers: many } }
"#
    ));
}

#[test]
fn a_key_that_is_there_twice_names_both_lines() {
    assert_snapshot!(mistakes(&format!(
        "job: j\n{SOURCE}\noperators:\n  late: {{ input: t, filter: n > 1 }}\n  late: {{ input: t, filter: n > 2 }}\n{SINK}\n"
    )));
}

#[test]
fn an_id_is_unique_over_the_sections() {
    assert_snapshot!(mistakes("job: j\nsources: { t: { table: {}, schema: { n: Int64 } } }\nsinks:\n  t: { input: t, shelf: {} }\n"));
}

#[test]
fn text_that_is_no_yaml_says_where() {
    assert_snapshot!(mistakes("job: j\nsources: { t: [ }\n"));
}

#[test]
fn an_empty_file_says_how_to_start() {
    assert_snapshot!(mistakes("# nothing yet\n"));
}

#[test]
fn a_file_without_sections_says_what_is_missing() {
    assert_snapshot!(mistakes("job: my job\n"));
}

#[test]
fn anchors_aliases_and_tags_are_refused() {
    assert_snapshot!(mistakes("job: j\nsources: &s { t: { table: {}, schema: { n: !int Int64 } } }\nsinks: *s\n"));
}

#[test]
fn an_entry_is_one_thing() {
    assert_snapshot!(mistakes(&format!(
        "job: j\n{SOURCE}\noperators:\n  a: {{ input: t, filter: n > 1, union: {{}} }}\n  b: {{ input: t }}\n  3c: {{ input: t, filter: n > 1 }}\n{SINK}\n"
    )));
}

#[test]
fn durations_and_sizes_say_how_they_are_written() {
    assert_snapshot!(mistakes(
        "job: j\nstate-memory: lots\nbatching: { wait: 5, bytes: -1 }\nsources:\n  t:\n    table: {}\n    schema: { n: Int64 }\n    event-time: { column: n, max-out-of-orderness: 20 hurs, idle-timeout: never }\nsinks: { out: { input: t, shelf: {} } }\n"
    ));
}

#[test]
fn connectors_point_at_their_own_settings() {
    assert_snapshot!(mistakes(&format!(
        "job: j\n{SOURCE}\nsinks:\n  out:\n    input: t\n    shelf:\n      room: cellar\n      changes: true\n"
    )));
}

#[test]
fn json_is_read_too_and_keeps_its_lines() {
    assert_snapshot!(mistakes(
        "{\n\t\"job\": \"j\",\n\t\"sources\": { \"t\": { \"table\": {}, \"schema\": { \"n\": \"Int6\" } } },\n\t\"sinks\": { \"out\": { \"input\": \"t\", \"shelf\": {} } }\n}\n"
    ));
}
