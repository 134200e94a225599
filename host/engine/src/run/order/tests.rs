use std::sync::Arc;

use arrow_array::{Int64Array, cast::AsArray, types::Int64Type};
use arrow_schema::{DataType, Field, Schema};

use super::*;

/// Rows of (key, event time).
fn batch(rows: &[(i64, i64)]) -> Batch {
    let schema = Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false)]));
    let keys = Int64Array::from_iter_values(rows.iter().map(|&(key, _)| key));
    let times = rows.iter().map(|&(_, time)| time).collect();
    Batch::try_new(schema, vec![Arc::new(keys)], rows.len()).expect("one column fits").with_event_times(Some(times))
}

fn rows(batch: &Batch) -> Vec<(i64, i64)> {
    let keys = batch.column(0).as_primitive::<Int64Type>().values();
    keys.iter().copied().zip(batch.event_times().expect("timed").iter().copied()).collect()
}

fn order(ports: usize, with_timers: bool) -> EventTimeOrder {
    EventTimeOrder::new(OrderSettings { keys: vec![vec![0]; ports], with_timers, batch_rows: 1_000 })
}

/// Of one round: port and rows of each batch.
type Released = Vec<(usize, Vec<(i64, i64)>)>;

/// Every round up to `watermark`.
fn release(order: &mut EventTimeOrder, watermark: i64) -> Vec<Released> {
    order.begin_release(Watermark(watermark));
    let round = |round: Round| round.batches.iter().map(|(port, batch)| (*port, rows(batch))).collect();
    std::iter::from_fn(|| order.next_round()).map(round).collect()
}

#[test]
fn rows_come_sorted_by_time_and_equal_times_by_arrival() {
    let mut order = order(1, false);
    order.hold(0, batch(&[(1, 30), (2, 10), (3, 20)]), None);
    order.hold(0, batch(&[(4, 20), (5, 99)]), None);
    assert_eq!(release(&mut order, 30), [[(0, vec![(2, 10), (3, 20), (4, 20), (1, 30)])]]);
    assert_eq!(release(&mut order, 100), [[(0, vec![(5, 99)])]]);
}

#[test]
fn a_row_at_the_watermark_is_late_and_not_held() {
    let mut order = order(1, false);
    let late = order.hold(0, batch(&[(1, 10), (2, 11)]), Some(Watermark(10))).expect("one row is late");
    assert_eq!(rows(&late), [(1, 10)]);
    assert_eq!(release(&mut order, 11), [[(0, vec![(2, 11)])]]);
}

#[test]
fn with_timers_a_round_has_one_row_per_key() {
    let mut order = order(1, true);
    order.hold(0, batch(&[(1, 10), (1, 20), (2, 15), (1, 30)]), None);
    let rounds = release(&mut order, 100);
    assert_eq!(rounds, [[(0, vec![(1, 10), (2, 15)])], [(0, vec![(1, 20)])], [(0, vec![(1, 30)])]]);
}

#[test]
fn timers_are_held_back_by_the_next_row_of_their_key_only() {
    let mut order = order(1, true);
    let rows = batch(&[(1, 10), (1, 20), (2, 15)]);
    let keys = keys_of(&rows, &[0]);
    order.hold(0, rows, None);
    order.begin_release(Watermark(100));
    order.next_round().expect("the first rows");
    assert_eq!((order.next_rows().of(keys.key(0)), order.next_rows().of(keys.key(2))), (Some(10), Some(15)));
    order.next_round().expect("the second row of key 1");
    assert_eq!((order.next_rows().of(keys.key(0)), order.next_rows().of(keys.key(2))), (Some(20), None));
}

#[test]
fn rows_of_a_key_keep_their_order_across_ports() {
    let mut order = order(2, false);
    order.hold(0, batch(&[(1, 10), (2, 10), (1, 30)]), None);
    order.hold(1, batch(&[(1, 20), (2, 5)]), None);
    let rounds = release(&mut order, 100);
    // Key 1: port 0, 1, 0. Key 2: port 1, 0.
    assert_eq!(rounds, [vec![(0, vec![(1, 10)])], vec![(1, vec![(2, 5), (1, 20)])], vec![(0, vec![(2, 10), (1, 30)])]]);
}

#[test]
fn a_large_release_comes_in_chunks_and_stays_in_order() {
    let mut order = order(1, false);
    let count = 300_000_i64;
    for start in (0..count).step_by(5_000) {
        let shuffled: Vec<(i64, i64)> = (start..start + 5_000).map(|n| (n, (n * 7_919) % count)).collect();
        order.hold(0, batch(&shuffled), None);
    }
    let rounds = release(&mut order, i64::MAX);
    assert!(rounds.iter().flatten().all(|(_, rows)| rows.len() <= 1_000));
    let times: Vec<i64> = rounds.iter().flatten().flat_map(|(_, rows)| rows.iter().map(|&(_, time)| time)).collect();
    assert_eq!(times, (0..count).collect::<Vec<_>>());
}

/// Every round up to `watermark`: the watermark it comes under, and the times of its rows.
fn under(order: &mut EventTimeOrder, watermark: i64) -> Vec<(i64, Vec<i64>)> {
    order.begin_release(Watermark(watermark));
    let times = |round: &Round| round.batches.iter().flat_map(|(_, batch)| rows(batch)).map(|(_, time)| time).collect();
    std::iter::from_fn(|| order.next_round()).map(|round| (round.watermark.0, times(&round))).collect()
}

#[test]
fn rows_come_under_one_ms_before_the_earliest_that_is_still_to_be_delivered() {
    let mut one_key = order(1, true);
    one_key.hold(0, batch(&[(1, 10), (1, 20), (1, 30)]), None);
    assert_eq!(under(&mut one_key, 100), [(9, vec![10]), (19, vec![20]), (29, vec![30])]);
    let mut two_keys = order(1, true);
    two_keys.hold(0, batch(&[(1, 10), (2, 500), (1, 20)]), None);
    assert_eq!(under(&mut two_keys, 1_000), [(9, vec![10, 500]), (19, vec![20])]);
    two_keys.hold(0, batch(&[(1, 1_001)]), None);
    assert_eq!(under(&mut two_keys, 2_000), [(1_000, vec![1_001])], "what was released before counts too");
}

/// A key's rows take turns between ports, so a round may hold later rows than the one behind it.
#[test]
fn no_row_is_late_and_the_watermark_never_goes_backwards_between_rounds() {
    for with_timers in [false, true] {
        let mut order = order(2, with_timers);
        order.hold(0, batch(&[(1, 10), (2, 40), (3, 7), (1, 60)]), None);
        order.hold(1, batch(&[(2, 5), (1, 20), (3, 50), (2, 90)]), None);
        let rounds = under(&mut order, 100);
        assert!(rounds.iter().all(|(watermark, times)| times.iter().all(|time| time > watermark)), "{rounds:?}");
        assert!(rounds.is_sorted_by_key(|(watermark, _)| *watermark), "{rounds:?}");
        assert_eq!(rounds.iter().map(|(_, times)| times.len()).sum::<usize>(), 8);
    }
}
