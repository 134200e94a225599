//! The groups of a batch: its distinct (key, pane) pairs, found in one pass before anything touches state.

use std::ops::Range;

use millstream_model::key::EncodedKeys;

use super::{
    aggregate::Run,
    assign::{PaneCursor, Windows},
};

/// Rows looked at together when runs are searched: long enough for vector code, short enough to hit a pane's end rarely.
const STRIDE: usize = 1_024;

/// The groups of a batch, numbered in the order of their first rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// The first row of each group.
    pub first_row: Vec<u32>,
    /// The start of the pane of each group.
    pub pane: Vec<i64>,
}

impl Groups {
    /// Number of groups.
    pub fn len(&self) -> usize {
        self.pane.len()
    }

    fn push(&mut self, first_row: usize, pane: i64) -> u32 {
        self.first_row.push(first_row as u32);
        self.pane.push(pane);
        self.pane.len() as u32 - 1
    }
}

/// Finds the groups of keyed batches; keeps its table from batch to batch.
///
/// The table is open addressing on (hash, group), at most half full. It grows with the groups found, not with the rows, since most batches
/// have far fewer groups than rows and a small table stays in the nearest cache.
#[derive(Debug, Default)]
pub struct Grouper {
    slots: Vec<Slot>,
    of_row: Vec<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: u64,
    group: u32,
}

const EMPTY: Slot = Slot { hash: 0, group: u32::MAX };

impl Grouper {
    /// The groups of rows with these keys and times, and the group of each row.
    pub fn group(&mut self, keys: &EncodedKeys, times: Option<&[i64]>, windows: Windows) -> (Groups, &[u32]) {
        let mut groups = Groups::default();
        let mut cursor = PaneCursor::new(windows);
        self.of_row.clear();
        self.of_row.reserve(keys.len());
        if self.slots.is_empty() {
            self.slots.resize(1_024, EMPTY);
        }
        self.slots.fill(EMPTY);
        for row in 0..keys.len() {
            let pane = cursor.pane_of(times.map_or(0, |times| times[row]));
            let hash = mix(keys.hashes()[row], pane);
            let group = self.find_or_insert(keys, row, hash, pane, &mut groups);
            self.of_row.push(group);
        }
        self.shrink_to(groups.len());
        (groups, &self.of_row)
    }

    fn find_or_insert(&mut self, keys: &EncodedKeys, row: usize, hash: u64, pane: i64, groups: &mut Groups) -> u32 {
        let mask = self.slots.len() - 1;
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot.group == EMPTY.group {
                break;
            }
            if slot.hash == hash && is_same(keys, row, pane, groups, slot.group as usize) {
                return slot.group;
            }
            at = (at + 1) & mask;
        }
        let group = groups.push(row, pane);
        self.slots[at] = Slot { hash, group };
        if groups.len() * 2 > self.slots.len() {
            self.grow();
        }
        group
    }

    fn grow(&mut self) {
        let doubled = vec![EMPTY; self.slots.len() * 2];
        let old = std::mem::replace(&mut self.slots, doubled);
        let mask = self.slots.len() - 1;
        for slot in old.into_iter().filter(|slot| slot.group != EMPTY.group) {
            let mut at = slot.hash as usize & mask;
            while self.slots[at].group != EMPTY.group {
                at = (at + 1) & mask;
            }
            self.slots[at] = slot;
        }
    }

    /// After a batch with unusually many groups the next ones need not clear its large table.
    fn shrink_to(&mut self, groups: usize) {
        let wanted = (groups * 4).next_power_of_two().max(1_024);
        if wanted * 4 < self.slots.len() {
            self.slots.truncate(wanted);
        }
    }
}

#[inline]
fn is_same(keys: &EncodedKeys, row: usize, pane: i64, groups: &Groups, group: usize) -> bool {
    groups.pane[group] == pane && keys.key(groups.first_row[group] as usize) == keys.key(row)
}

/// Hash of a key in a pane; the low bits choose the slot.
#[inline]
fn mix(key_hash: u64, pane: i64) -> u64 {
    key_hash ^ (pane as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32)
}

/// The groups of rows that all have one key: one per pane, in runs.
pub fn runs(times: Option<&[i64]>, rows: usize, windows: Windows) -> (Groups, Vec<Run>) {
    let mut groups = Groups::default();
    let mut runs: Vec<Run> = Vec::new();
    let mut cursor = PaneCursor::new(windows);
    let mut add = |rows: Range<usize>, pane: i64| match runs.last_mut() {
        Some(run) if groups.pane[run.group] == pane => run.rows.end = rows.end,
        _ => {
            // There are few panes in a batch, and the newest ones are met most.
            let known = groups.pane.iter().rposition(|&known| known == pane);
            let group = known.unwrap_or_else(|| groups.push(rows.start, pane) as usize);
            runs.push(Run { rows, group });
        }
    };
    match times {
        None if rows > 0 => add(0..rows, cursor.pane_of(0)),
        None => {}
        Some(times) => {
            for (stride, times) in times.chunks(STRIDE).enumerate() {
                let start = stride * STRIDE;
                let (least, greatest) =
                    times.iter().fold((i64::MAX, i64::MIN), |(least, greatest), &time| (least.min(time), greatest.max(time)));
                let pane = cursor.pane_of(least);
                if pane == cursor.pane_of(greatest) {
                    add(start..start + times.len(), pane);
                } else {
                    times.iter().enumerate().for_each(|(row, &time)| add(start + row..start + row + 1, cursor.pane_of(time)));
                }
            }
        }
    }
    (groups, runs)
}

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, sync::Arc};

    use arrow_array::{ArrayRef, Int64Array};
    use millstream_model::key::encode_keys;
    use proptest::prelude::*;

    use super::*;

    const WINDOWS: Windows = Windows::Sliding { size_ms: 10, slide_ms: 10, origin_ms: 0 };

    fn keys(values: &[i64]) -> EncodedKeys {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        encode_keys(&[column], values.len()).expect("Int64 is a key type")
    }

    #[test]
    fn rows_of_one_key_in_two_panes_are_two_groups() {
        let mut grouper = Grouper::default();
        let (groups, of_row) = grouper.group(&keys(&[7, 7, 8, 7]), Some(&[1, 12, 3, 9]), WINDOWS);
        assert_eq!(of_row, [0, 1, 2, 0]);
        assert_eq!(groups, Groups { first_row: vec![0, 1, 2], pane: vec![0, 10, 0] });
    }

    #[test]
    fn a_pane_that_comes_back_is_the_same_group() {
        let (groups, runs) = runs(Some(&[1, 2, 11, 12, 3]), 5, WINDOWS);
        assert_eq!(groups.pane, [0, 10]);
        assert_eq!(runs, [Run { rows: 0..2, group: 0 }, Run { rows: 2..4, group: 1 }, Run { rows: 4..5, group: 0 }]);
    }

    proptest! {
        #[test]
        fn groups_are_the_distinct_pairs_of_key_and_pane(batches in prop::collection::vec(prop::collection::vec((0_i64..600, 0_i64..60), 0..3_000), 1..4)) {
            let mut grouper = Grouper::default();
            for batch in batches {
                let (values, times): (Vec<i64>, Vec<i64>) = batch.iter().copied().unzip();
                let (groups, of_row) = grouper.group(&keys(&values), Some(&times), WINDOWS);
                let mut known = HashMap::new();
                for (row, (key, time)) in batch.into_iter().enumerate() {
                    let next = known.len() as u32;
                    let expected = *known.entry((key, time / 10)).or_insert(next);
                    prop_assert_eq!(of_row[row], expected);
                    prop_assert_eq!(groups.pane[expected as usize], time / 10 * 10);
                }
                prop_assert_eq!(groups.len(), known.len());
            }
        }

        #[test]
        fn runs_cover_every_row_with_its_pane(times in prop::collection::vec(0_i64..40, 0..2_500)) {
            let (groups, runs) = runs(Some(&times), times.len(), WINDOWS);
            let mut next = 0;
            for run in runs {
                prop_assert_eq!(run.rows.start, next);
                next = run.rows.end;
                prop_assert!(run.rows.clone().all(|row| times[row] / 10 * 10 == groups.pane[run.group]));
            }
            prop_assert_eq!(next, times.len());
        }
    }
}
