//! Early and late results: what downstream sees change.

use serde_json::json;

use super::harness::{row, run};

#[test]
fn early_results_are_updated_and_completed() {
    let mut run = run(json!({ "tumbling": "10ms", "early": "5s", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 1, 0)]);
    run.processing_time(4_999);
    assert_eq!(run.take_results(), [""; 0]);
    run.processing_time(5_000);
    assert_eq!(run.take_results(), ["+ 1 0 10 1 @9"]);
    run.rows(&[row(1, 2, 0), row(1, 3, 0)]);
    run.processing_time(10_000);
    assert_eq!(run.take_results(), ["< 1 0 10 1 @9", "> 1 0 10 3 @9"]);
    run.rows(&[row(1, 4, 0)]);
    run.watermark(9);
    assert_eq!(run.take_results(), ["< 1 0 10 3 @9", "> 1 0 10 4 @9"]);
}

#[test]
fn a_complete_window_that_did_not_change_since_its_early_result_is_silent() {
    let mut run = run(json!({ "tumbling": "10ms", "early": "5s", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 1, 0)]);
    run.processing_time(5_000);
    run.take_results();
    run.end();
    assert_eq!(run.take_results(), [""; 0]);
}

#[test]
fn early_results_by_event_time_come_with_the_watermark() {
    let early = json!({ "every": "10ms", "clock": "event-time" });
    let mut run = run(json!({ "tumbling": "100ms", "early": early, "aggregates": { "n": { "count": "*" } } }), true);
    run.watermark(3);
    run.rows(&[row(1, 15, 0)]);
    run.watermark(9);
    assert_eq!(run.take_results(), [""; 0]);
    run.watermark(10);
    assert_eq!(run.take_results(), ["+ 1 0 100 1 @99"]);
}

#[test]
fn a_late_row_makes_a_result_for_a_key_that_had_none() {
    let mut run = run(json!({ "tumbling": "10ms", "allowed-lateness": "10ms", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 1, 0)]);
    run.watermark(12);
    run.take_results();
    run.rows(&[row(2, 5, 0)]);
    assert_eq!(run.take_results(), ["+ 2 0 10 1 @9"]);
}

#[test]
fn a_late_row_changes_every_window_that_has_fired_and_holds_it() {
    let sliding = json!({ "size": "10ms", "slide": "5ms" });
    let mut run = run(json!({ "sliding": sliding, "allowed-lateness": "20ms", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 6, 0)]);
    run.watermark(10);
    assert_eq!(run.take_results(), ["+ 1 0 10 1 @9"]);
    run.rows(&[row(1, 4, 0)]);
    assert_eq!(run.take_results(), ["+ 1 -5 5 1 @4", "< 1 0 10 1 @9", "> 1 0 10 2 @9"]);
    run.end();
    assert_eq!(run.take_results(), ["+ 1 5 15 1 @14"]);
}

#[test]
fn a_session_that_grows_after_it_fired_is_deleted_and_comes_again() {
    let mut run = run(json!({ "session": "10ms", "allowed-lateness": "20ms", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 0, 0), row(1, 15, 0)]);
    run.watermark(12);
    assert_eq!(run.take_results(), ["+ 1 0 10 1 @9"]);
    run.rows(&[row(1, 8, 0)]);
    assert_eq!(run.take_results(), ["- 1 0 10 1 @9"]);
    run.watermark(24);
    assert_eq!(run.take_results(), ["+ 1 0 25 3 @24"]);
}

#[test]
fn a_late_row_inside_a_session_that_fired_updates_it() {
    let mut run = run(json!({ "session": "10ms", "allowed-lateness": "20ms", "aggregates": { "n": { "count": "*" } } }), true);
    run.rows(&[row(1, 0, 0), row(1, 6, 0)]);
    run.watermark(15);
    run.take_results();
    run.rows(&[row(1, 3, 0)]);
    assert_eq!(run.take_results(), ["< 1 0 16 2 @15", "> 1 0 16 3 @15"]);
}
