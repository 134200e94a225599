//! The boundary cases by name.

use millstream_model::EventTime;
use serde_json::json;

use super::harness::{Row, row, run};

fn tumbling() -> super::harness::Run {
    run(json!({ "tumbling": "10ms", "aggregates": { "n": { "count": "*" } } }), true)
}

#[test]
fn a_window_fires_when_the_watermark_reaches_its_last_millisecond_and_not_before() {
    let mut run = tumbling();
    run.rows(&[row(1, 0, 0), row(1, 9, 0)]);
    run.watermark(8);
    assert_eq!(run.take_results(), [""; 0]);
    run.watermark(9);
    assert_eq!(run.take_results(), ["+ 1 0 10 2 @9"]);
}

#[test]
fn the_result_has_the_event_time_of_the_last_millisecond() {
    let mut run = tumbling();
    run.rows(&[row(1, 3, 0)]);
    run.watermark(100);
    assert!(run.take_results()[0].ends_with("@9"));
}

#[test]
fn a_row_at_the_end_of_a_window_belongs_to_the_next() {
    let mut run = tumbling();
    run.rows(&[row(1, 9, 0), row(1, 10, 0)]);
    run.end();
    assert_eq!(run.take_sorted(), ["+ 1 0 10 1 @9", "+ 1 10 20 1 @19"]);
}

#[test]
fn a_row_at_the_watermark_is_late() {
    let mut run = tumbling();
    run.watermark(5);
    run.rows(&[row(1, 5, 0)]);
    run.end();
    assert_eq!((run.take_results(), &run.late[..]), (vec![], &[(Some(1), 5)][..]));
}

#[test]
fn a_row_one_millisecond_after_the_watermark_is_not_late() {
    let mut run = tumbling();
    run.watermark(5);
    run.rows(&[row(1, 6, 0)]);
    run.end();
    assert_eq!((run.take_results(), run.late.len()), (vec!["+ 1 0 10 1 @9".to_owned()], 0));
}

/// The rule is about rows, not about windows: a late row is not used even while its window is open.
#[test]
fn a_late_row_is_not_used_though_its_window_has_not_fired() {
    let mut run = tumbling();
    run.rows(&[row(1, 7, 0)]);
    run.watermark(5);
    run.rows(&[row(1, 4, 0)]);
    run.end();
    assert_eq!((run.take_results(), &run.late[..]), (vec!["+ 1 0 10 1 @9".to_owned()], &[(Some(1), 4)][..]));
}

#[test]
fn with_allowed_lateness_a_row_is_late_when_it_is_that_far_behind_the_watermark() {
    let mut run = run(json!({ "tumbling": "10ms", "allowed-lateness": "3ms", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 9, 0)]);
    run.watermark(11);
    assert_eq!(run.take_results(), ["+ 1 0 10 1 @9"]);
    run.rows(&[row(1, 9, 0)]);
    assert_eq!(run.take_results(), ["< 1 0 10 1 @9", "> 1 0 10 2 @9"], "9 > 11 − 3");
    run.rows(&[row(1, 8, 0)]);
    assert_eq!((run.take_results(), &run.late[..]), (vec![], &[(Some(1), 8)][..]), "8 ≤ 11 − 3");
}

#[test]
fn a_row_exactly_one_gap_after_the_last_begins_a_new_session() {
    let mut run = run(json!({ "session": "10ms", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 0, 0), row(1, 9, 0), row(1, 19, 0)]);
    run.watermark(17);
    assert_eq!(run.take_results(), [""; 0]);
    run.watermark(18);
    assert_eq!(run.take_results(), ["+ 1 0 19 2 @18"]);
    run.end();
    assert_eq!(run.take_results(), ["+ 1 19 29 1 @28"]);
}

/// The row joins two sessions although the first of them would have fired one millisecond later.
#[test]
fn a_row_between_sessions_merges_them_before_they_fire() {
    let mut run = run(json!({ "session": "10ms", "aggregates": { "n": { "count": "*" }, "texts": { "collect": "text" } } }), true);
    run.rows(&[row(1, 0, 1), row(1, 15, 2)]);
    run.watermark(7);
    run.rows(&[row(1, 8, 3)]);
    run.end();
    assert_eq!(run.take_results(), ["+ 1 0 25 3 [t1, t2, t3] @24"]);
}

#[test]
fn sliding_windows_that_overlap_share_their_rows() {
    let mut run = run(json!({ "sliding": { "size": "10ms", "slide": "5ms" }, "aggregates": { "sum": { "sum": "value" } } }), true);
    run.rows(&[row(1, 4, 1), row(1, 5, 10), row(1, 12, 100)]);
    run.end();
    assert_eq!(run.take_results(), ["+ 1 -5 5 1 @4", "+ 1 0 10 11 @9", "+ 1 5 15 110 @14", "+ 1 10 20 100 @19"]);
}

#[test]
fn cumulative_windows_grow_and_begin_anew() {
    let mut run = run(json!({ "cumulative": { "step": "5ms", "size": "10ms" }, "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 1, 0), row(1, 7, 0), row(1, 11, 0)]);
    run.end();
    assert_eq!(run.take_results(), ["+ 1 0 5 1 @4", "+ 1 0 10 2 @9", "+ 1 10 15 1 @14", "+ 1 10 20 1 @19"]);
}

#[test]
fn an_offset_shifts_where_windows_start() {
    let mut run = run(json!({ "tumbling": "10ms", "offset": "3ms", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 2, 0), row(1, 3, 0)]);
    run.end();
    assert_eq!(run.take_sorted(), ["+ 1 -7 3 1 @2", "+ 1 3 13 1 @12"]);
}

#[test]
fn a_window_by_count_comes_out_with_its_last_row_and_the_rest_at_the_end() {
    let mut run = run(json!({ "count": 2, "aggregates": { "sum": { "sum": "value" } } }), true);
    run.rows(&[row(1, 5, 1), row(2, 6, 10), row(1, 3, 2), row(1, 8, 4)]);
    assert_eq!(run.take_results(), ["+ 1 3 @5"]);
    run.rows(&[row(1, 9, 8), row(1, 10, 16), row(1, 11, 32)]);
    assert_eq!(run.take_results(), ["+ 1 12 @9", "+ 1 48 @11"]);
    run.end();
    assert_eq!(run.take_results(), ["+ 2 10 @6"]);
}

#[test]
fn no_row_is_late_for_a_window_by_count() {
    let mut run = run(json!({ "count": 1, "aggregates": { "n": { "count": "*" } } }), true);
    run.watermark(100);
    run.rows(&[row(1, 5, 0)]);
    assert_eq!((run.take_results(), run.late.len()), (vec!["+ 1 1 @5".to_owned()], 0));
}

#[test]
fn the_global_window_fires_at_the_end_of_the_input_with_the_last_time_there_is() {
    let mut run = run(json!({ "global": {}, "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 5, 0)]);
    run.watermark(1_000);
    run.rows(&[row(1, 7, 0)]);
    assert_eq!(run.take_results(), [""; 0]);
    run.end();
    assert_eq!(run.take_results(), [format!("+ 1 2 @{}", EventTime::LATEST.0)]);
}

#[test]
fn a_stream_without_key_has_one_window_at_a_time() {
    let mut run =
        run(json!({ "tumbling": "10ms", "aggregates": { "n": { "count": "*" }, "top": { "max-by": "value", "value": "text" } } }), false);
    run.rows(&[row(1, 1, 5), row(2, 2, 9), row(3, 12, 1)]);
    run.end();
    assert_eq!(run.take_results(), ["+ 0 10 2 t9 @9", "+ 10 20 1 t1 @19"]);
}

#[test]
fn a_null_key_is_a_key() {
    let mut run = tumbling();
    run.rows(&[Row { key: None, ..row(0, 1, 0) }, row(0, 1, 0)]);
    run.end();
    assert_eq!(run.take_sorted(), ["+ 0 0 10 1 @9", "+ null 0 10 1 @9"]);
}

#[test]
fn a_sum_that_does_not_fit_rejects_the_result_and_no_other() {
    let mut run = run(json!({ "tumbling": "10ms", "aggregates": { "sum": { "sum": "value" } } }), true);
    run.rows(&[row(1, 1, i64::MAX), row(1, 1, 1), row(2, 1, 7)]);
    run.end();
    assert_eq!(run.take_results(), ["+ 2 0 10 7 @9"]);
    let (reason, shown) = &run.rejected[0];
    assert_eq!(reason, "the sum 9223372036854775808 does not fit into 64 bits");
    assert!(shown.contains("\"key\":1"), "{shown}");
}

/// More keys than one call handles: the rest follows with `has_more`.
#[test]
fn a_window_of_many_keys_comes_out_in_portions() {
    let mut run = tumbling();
    let rows: Vec<Row> = (0..20_000).map(|key| row(key, 1, 0)).collect();
    rows.chunks(4_096).for_each(|rows| run.rows(rows));
    run.end();
    assert_eq!(run.take_results().len(), 20_000);
}
