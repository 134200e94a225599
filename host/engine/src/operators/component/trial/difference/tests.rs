//! Which rows differ, as multisets, against a count of equal rows by hand.

use std::{collections::BTreeMap, sync::Arc};

use arrow_array::{ArrayRef, Float64Array, Int64Array, StringArray};
use arrow_buffer::BooleanBuffer;
use millstream_wasm::{ListUpdate, MapUpdate, TimerUpdate, Updates, ValueUpdate};
use proptest::prelude::*;
use serde_json::json;

use super::{SHOWN_BYTES_MAX, after, lists, maps, shortened, timers, unequal};

fn ints(values: &[i64]) -> Vec<ArrayRef> {
    vec![Arc::new(Int64Array::from(values.to_vec()))]
}

fn differing(old: &[i64], new: &[i64]) -> (Vec<i64>, Vec<i64>) {
    let (missing, extra) = unequal(&ints(old), old.len(), &ints(new), new.len());
    let sorted = |rows: Vec<usize>, of: &[i64]| {
        let mut values: Vec<i64> = rows.into_iter().map(|row| of[row]).collect();
        values.sort_unstable();
        values
    };
    (sorted(missing, old), sorted(extra, new))
}

fn by_hand(old: &[i64], new: &[i64]) -> (Vec<i64>, Vec<i64>) {
    let mut left: BTreeMap<i64, i64> = BTreeMap::new();
    old.iter().for_each(|&value| *left.entry(value).or_default() += 1);
    new.iter().for_each(|&value| *left.entry(value).or_default() -= 1);
    let of = |sign: i64| left.iter().flat_map(|(&value, &count)| vec![value; (count * sign).max(0) as usize]).collect();
    (of(1), of(-1))
}

proptest! {
    #[test]
    fn rows_differ_as_multisets(old in prop::collection::vec(0..6_i64, 0..24), new in prop::collection::vec(0..6_i64, 0..24)) {
        prop_assert_eq!(differing(&old, &new), by_hand(&old, &new));
    }
}

#[test]
fn floats_differ_by_their_bits_and_no_value_is_not_an_empty_one() {
    let floats = |values: &[Option<f64>]| -> Vec<ArrayRef> { vec![Arc::new(Float64Array::from(values.to_vec()))] };
    let old = floats(&[Some(f64::NAN), Some(0.0), None]);
    assert_eq!(unequal(&old, 3, &floats(&[Some(f64::NAN), Some(-0.0), None]), 3), (vec![1], vec![1]));
    let texts = |values: &[Option<&str>]| -> Vec<ArrayRef> { vec![Arc::new(StringArray::from(values.to_vec()))] };
    assert_eq!(unequal(&texts(&[None]), 1, &texts(&[Some("")]), 1), (vec![0], vec![0]));
}

#[test]
fn what_is_not_changed_stays_and_null_deletes() {
    let before: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]));
    let update = ValueUpdate {
        state: 0,
        changed: BooleanBuffer::from(vec![false, true, true]),
        values: Arc::new(Int64Array::from(vec![Some(7), None])),
    };
    let expected: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), Some(7), None]));
    assert_eq!(&after(&before, Some(&update)), &expected);
    assert_eq!(&after(&before, None), &before);
}

fn int_array(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// Two versions may write the same by other entries.
#[test]
fn of_several_entries_for_one_map_key_the_last_counts() {
    let map = |map_keys: &[i64], values: &[i64], deleted: Option<Vec<bool>>| {
        let update = MapUpdate {
            state: 1,
            keys: vec![0; map_keys.len()].into(),
            map_keys: int_array(map_keys),
            values: int_array(values),
            deleted: deleted.map(BooleanBuffer::from),
        };
        maps(&Updates { maps: vec![update], ..Updates::default() })
    };
    assert_eq!(map(&[5, 6, 5], &[1, 2, 3], None), map(&[6, 5], &[2, 3], None));
    assert_eq!(
        map(&[5, 5], &[1, 0], Some(vec![false, true])),
        map(&[5], &[7], Some(vec![true])),
        "what stands at a deleted entry is nothing"
    );
    assert_ne!(map(&[5], &[1], None), map(&[5], &[1], Some(vec![true])));
}

#[test]
fn lists_differ_by_their_order_and_by_whether_they_are_emptied_first() {
    let list = |cleared: &[u32], values: &[i64]| {
        let update =
            ListUpdate { state: 2, cleared: cleared.to_vec().into(), keys: vec![3; values.len()].into(), values: int_array(values) };
        lists(&Updates { lists: vec![update], ..Updates::default() })
    };
    assert_eq!(list(&[], &[1, 2]), list(&[], &[1, 2]));
    assert_ne!(list(&[], &[1, 2]), list(&[], &[2, 1]));
    assert_ne!(list(&[3], &[1]), list(&[], &[1]));
}

#[test]
fn a_timer_that_is_set_and_deleted_in_one_call_is_as_one_that_is_deleted() {
    let timer = |at: &[i64], deleted: Option<Vec<bool>>| {
        let keys = vec![0; at.len()].into();
        let update = TimerUpdate { timer: 0, keys, at: at.to_vec().into(), deleted: deleted.map(BooleanBuffer::from) };
        timers(&Updates { timers: vec![update], ..Updates::default() })
    };
    assert_eq!(timer(&[9, 9], Some(vec![false, true])), timer(&[9], Some(vec![true])));
    assert_ne!(timer(&[9], None), timer(&[8], None));
}

#[test]
fn what_is_too_large_to_be_shown_is_shown_in_part() {
    let large = shortened(json!("ä".repeat(SHOWN_BYTES_MAX)));
    let text = large.as_str().expect("text");
    assert!(text.len() <= SHOWN_BYTES_MAX + "…".len() && text.ends_with('…'), "{} bytes", text.len());
    assert_eq!(shortened(json!({ "sum": 1 })), json!({ "sum": 1 }));
}
