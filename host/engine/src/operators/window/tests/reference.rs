//! All kinds of windows against a reference that keeps every row and computes windows by their definition.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::harness::{Row, Run, row, run};

#[derive(Clone, Debug)]
enum Step {
    Rows(Vec<Row>),
    Watermark(i64),
    Tick,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tumbling(i64),
    Sliding { size: i64, slide: i64 },
    Cumulative { step: i64, size: i64 },
    Session(i64),
}

impl Kind {
    fn settings(self) -> (&'static str, Value) {
        let ms = |ms: i64| json!(format!("{ms}ms"));
        match self {
            Self::Tumbling(size) => ("tumbling", ms(size)),
            Self::Sliding { size, slide } => ("sliding", json!({ "size": ms(size), "slide": ms(slide) })),
            Self::Cumulative { step, size } => ("cumulative", json!({ "step": ms(step), "size": ms(size) })),
            Self::Session(gap) => ("session", ms(gap)),
        }
    }

    /// The windows of one key's rows, by definition: (start, end) → rows in order of arrival.
    fn windows(self, rows: &[Row]) -> BTreeMap<(i64, i64), Vec<Row>> {
        if let Self::Session(gap) = self {
            return sessions(rows, gap);
        }
        let mut windows: BTreeMap<(i64, i64), Vec<Row>> = BTreeMap::new();
        for row in rows {
            for window in self.windows_of(row.time) {
                windows.entry(window).or_default().push(row.clone());
            }
        }
        windows
    }

    fn windows_of(self, time: i64) -> Vec<(i64, i64)> {
        let holds = |(start, end): &(i64, i64)| (*start..*end).contains(&time);
        match self {
            Self::Tumbling(size) => Self::Sliding { size, slide: size }.windows_of(time),
            Self::Sliding { size, slide } => {
                let near = time / slide;
                (near - size / slide - 2..=near + 1).map(|n| (n * slide, n * slide + size)).filter(holds).collect()
            }
            Self::Cumulative { step, size } => {
                let start = time.div_euclid(size) * size;
                (1..=size / step).map(|n| (start, start + n * step)).filter(holds).collect()
            }
            Self::Session(_) => unreachable!("sessions depend on other rows"),
        }
    }
}

fn sessions(rows: &[Row], gap: i64) -> BTreeMap<(i64, i64), Vec<Row>> {
    let mut times: Vec<i64> = rows.iter().map(|row| row.time).collect();
    times.sort_unstable();
    let sessions = times.chunk_by(|left, right| right - left < gap).map(|times| (times[0], times[times.len() - 1] + gap));
    let rows_of = |(start, end): (i64, i64)| rows.iter().filter(|row| (start..end).contains(&row.time)).cloned().collect();
    sessions.map(|session| (session, rows_of(session))).collect()
}

const AGGREGATES: [&str; 5] = ["n", "sum", "top", "first", "texts"];

fn aggregates() -> Value {
    json!({ "n": { "count": "*" }, "sum": { "sum": "value" }, "top": { "max-by": "value", "value": "text" },
            "first": { "first": "value" }, "texts": { "collect": "text" } })
}

fn results_of(rows: &[Row]) -> [String; AGGREGATES.len()] {
    let top = rows.iter().rev().max_by_key(|row| row.value).expect("a window has rows");
    let first = rows.iter().min_by_key(|row| row.time).expect("a window has rows");
    // Panes are merged in order of time, so texts are compared as a set.
    let mut texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    texts.sort_unstable();
    let sum: i64 = rows.iter().map(|row| row.value).sum();
    [rows.len().to_string(), sum.to_string(), top.text.clone(), first.value.to_string(), texts.join(",")]
}

/// What remains after every result was applied to a table: its rows as text. Panics if a change does not fit the table.
fn table(results: &[String]) -> Vec<String> {
    let mut table: HashMap<String, i64> = HashMap::new();
    for result in results {
        let (change, row) = result.split_once(' ').expect("a result begins with its change");
        let count = table.entry(row.to_owned()).or_default();
        *count += if matches!(change, "+" | ">") { 1 } else { -1 };
        assert!((0..=1).contains(count), "{result} does not fit what was emitted before: {results:?}");
    }
    let mut rows: Vec<String> = table.into_iter().filter(|(_, count)| *count == 1).map(|(row, _)| with_sorted_texts(&row)).collect();
    rows.sort();
    rows
}

fn with_sorted_texts(row: &str) -> String {
    let (before, list) = row.split_once('[').expect("the last aggregate is a list");
    let (list, after) = list.split_once(']').expect("a list ends");
    let mut texts: Vec<&str> = list.split(", ").collect();
    texts.sort_unstable();
    format!("{before}{}{after}", texts.join(","))
}

/// Rows that are not late, by key, and those that are, by definition.
fn accepted(steps: &[Step], lateness: i64) -> (BTreeMap<i64, Vec<Row>>, usize) {
    let (mut by_key, mut late, mut watermark): (BTreeMap<i64, Vec<Row>>, usize, Option<i64>) = (BTreeMap::new(), 0, None);
    for step in steps {
        match step {
            Step::Watermark(to) => watermark = watermark.max(Some(*to)),
            Step::Tick => {}
            Step::Rows(rows) => {
                for row in rows {
                    if watermark.is_some_and(|watermark| row.time <= watermark - lateness) {
                        late += 1;
                    } else {
                        by_key.entry(row.key.unwrap_or_default()).or_default().push(row.clone());
                    }
                }
            }
        }
    }
    (by_key, late)
}

fn expected(kind: Kind, by_key: &BTreeMap<i64, Vec<Row>>, keyed: bool) -> Vec<String> {
    let mut rows = Vec::new();
    for (key, of_key) in by_key {
        for ((start, end), of_window) in kind.windows(of_key) {
            let key = if keyed { format!("{key} ") } else { String::new() };
            rows.push(format!("{key}{start} {end} {} @{}", results_of(&of_window).join(" "), end - 1));
        }
    }
    rows.sort();
    rows
}

fn drive(run: &mut Run, steps: &[Step]) {
    let mut processing_time = 0;
    for step in steps {
        match step {
            Step::Rows(rows) => run.rows(rows),
            Step::Watermark(watermark) => run.watermark(*watermark),
            Step::Tick => {
                processing_time += 1_000;
                run.processing_time(processing_time);
            }
        }
    }
    run.end();
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (1_i64..30).prop_map(Kind::Tumbling),
        (1_i64..30, 1_i64..30).prop_map(|(a, b)| Kind::Sliding { size: a.max(b), slide: a.min(b) }),
        (1_i64..10, 1_i64..5).prop_map(|(step, n)| Kind::Cumulative { step, size: step * n }),
        (1_i64..30).prop_map(Kind::Session),
    ]
}

fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let rows = prop::collection::vec((0_i64..4, 0_i64..150, -9_i64..9), 1..12)
        .prop_map(|rows| Step::Rows(rows.into_iter().map(|(key, time, value)| row(key, time, value)).collect()));
    prop::collection::vec(prop_oneof![4 => rows, 2 => (0_i64..150).prop_map(Step::Watermark), 1 => Just(Step::Tick)], 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn complete_results_are_those_of_the_rows_that_were_not_late(kind in any_kind(), steps in any_steps()) {
        let (name, value) = kind.settings();
        let mut run = run(json!({ name: value, "aggregates": aggregates() }), true);
        drive(&mut run, &steps);
        let (by_key, late) = accepted(&steps, 0);
        prop_assert!(run.results.iter().all(|result| result.starts_with("+ ")));
        prop_assert_eq!(table(&run.results), expected(kind, &by_key, true));
        prop_assert_eq!(run.late.len(), late);
    }

    #[test]
    fn early_and_late_results_end_as_the_rows_that_were_not_too_late(
        kind in any_kind(), steps in any_steps(), lateness in 0_i64..60, early in prop::option::of(any::<bool>())
    ) {
        let (name, value) = kind.settings();
        let mut settings = json!({ name: value, "allowed-lateness": format!("{lateness}ms"), "aggregates": aggregates() });
        if let Some(by_event_time) = early {
            settings["early"] = if by_event_time { json!({ "every": "7ms", "clock": "event-time" }) } else { json!("1s") };
        }
        let mut run = run(settings, true);
        drive(&mut run, &steps);
        let (by_key, late) = accepted(&steps, lateness);
        prop_assert_eq!(table(&run.results), expected(kind, &by_key, true));
        prop_assert_eq!(run.late.len(), late);
    }

    #[test]
    fn a_stream_without_key_is_one_key(kind in any_kind(), steps in any_steps(), lateness in 0_i64..20) {
        let (name, value) = kind.settings();
        let mut run = run(json!({ name: value, "allowed-lateness": format!("{lateness}ms"), "aggregates": aggregates() }), false);
        drive(&mut run, &steps);
        let (by_key, _) = accepted(&steps, lateness);
        // In order of arrival, not of keys.
        let all = steps.iter().flat_map(|step| if let Step::Rows(rows) = step { rows.clone() } else { vec![] });
        let mut left: Vec<Row> = by_key.into_values().flatten().collect();
        let mut in_order = Vec::new();
        for row in all {
            if let Some(at) = left.iter().position(|other| *other == row) {
                in_order.push(left.swap_remove(at));
            }
        }
        prop_assert_eq!(table(&run.results), expected(kind, &BTreeMap::from([(0, in_order)]), false));
    }

    #[test]
    fn windows_by_count_are_the_rows_of_a_key_in_order(steps in any_steps(), count in 1_usize..5) {
        let mut run = run(json!({ "count": count, "aggregates": aggregates() }), true);
        drive(&mut run, &steps);
        let (by_key, _) = accepted(&steps, i64::MAX / 2);
        let mut expected: Vec<String> = Vec::new();
        for (key, rows) in by_key {
            for rows in rows.chunks(count) {
                let latest = rows.iter().map(|row| row.time).max().expect("a chunk has rows");
                expected.push(format!("{key} {} @{latest}", results_of(rows).join(" ")));
            }
        }
        expected.sort();
        prop_assert_eq!(table_of_any(&run.results), expected);
    }
}

/// As [`table`], where several results may be equal.
fn table_of_any(results: &[String]) -> Vec<String> {
    let rows = results.iter().map(|result| with_sorted_texts(result.split_once(' ').expect("a result begins with its change").1));
    let mut rows: Vec<String> = rows.collect();
    rows.sort();
    rows
}
