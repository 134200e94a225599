//! Rows that came through an exchange and wait for more, since a call costs the same for few rows as for many.
//!
//! Rows of one input are gathered, whatever edge they come by, until they are enough, or until the first of them has waited for
//! `batching.wait`. They overtake nothing: a mark (watermark, idle, barrier, end) lets everything go first, so a stream that says its watermark
//! after every batch never waits. No queue, no clock.

use millstream_model::Batch;

use super::queue::row_bytes;
use crate::graph::Batching;

/// Rows that do not wait. The fixed cost of a call is that of some 64 rows, so what more rows could save here is not worth a wait.
const ENOUGH_ROWS: usize = 1_024;

/// The gathered rows of one subtask.
pub(super) struct Gathering {
    batching: Batching,
    /// In the order in which they began; one per input.
    gathered: Vec<Gathered>,
}

/// Batches of one input, to be joined.
pub(super) struct Gathered {
    pub(super) input: usize,
    /// The edge of the first.
    pub(super) edge: usize,
    pub(super) batches: Vec<Batch>,
    rows: usize,
    bytes: usize,
    /// Until when they may wait, in elapsed time.
    due_ms: i64,
}

impl Gathering {
    pub(super) fn new(batching: Batching) -> Self {
        Self { batching, gathered: Vec::new() }
    }

    /// Takes a batch that came at the elapsed time `now_ms`.
    pub(super) fn add(&mut self, input: usize, edge: usize, batch: Batch, now_ms: i64) {
        let (rows, bytes) = (batch.num_rows(), row_bytes(&batch));
        if let Some(gathered) = self.gathered.iter_mut().find(|gathered| gathered.input == input) {
            gathered.rows += rows;
            gathered.bytes += bytes;
            gathered.batches.push(batch);
            return;
        }
        let wait_ms = i64::try_from(self.batching.wait.as_micros().div_ceil(1_000)).unwrap_or(i64::MAX);
        self.gathered.push(Gathered { input, edge, batches: vec![batch], rows, bytes, due_ms: now_ms.saturating_add(wait_ms) });
    }

    /// Whether rows of `input` that have come already are still to be joined with those gathered.
    pub(super) fn has_room(&self, input: usize) -> bool {
        let gathered = self.gathered.iter().find(|gathered| gathered.input == input);
        gathered.is_none_or(|gathered| gathered.rows < self.batching.rows && gathered.bytes < self.batching.bytes)
    }

    /// When rows will have waited long enough, in elapsed time; none: none wait.
    pub(super) fn next_due_ms(&self) -> Option<i64> {
        self.gathered.iter().map(|gathered| gathered.due_ms).min()
    }

    /// What is enough, and what has waited long enough at the elapsed time `now_ms`.
    pub(super) fn take_ready(&mut self, now_ms: i64) -> Vec<Gathered> {
        let enough_rows = self.batching.rows.min(ENOUGH_ROWS);
        let is_ready =
            |gathered: &Gathered| gathered.rows >= enough_rows || gathered.bytes >= self.batching.bytes || gathered.due_ms <= now_ms;
        let (ready, waiting) = std::mem::take(&mut self.gathered).into_iter().partition(is_ready);
        self.gathered = waiting;
        ready
    }

    /// Everything.
    pub(super) fn take_all(&mut self) -> Vec<Gathered> {
        std::mem::take(&mut self.gathered)
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    fn batch(rows: usize) -> Batch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        Batch::try_new(schema, vec![Arc::new(Int64Array::from(vec![0; rows]))], rows).expect("one column fits")
    }

    fn gathering(wait: Duration) -> Gathering {
        Gathering::new(Batching { rows: 2_000, bytes: 100_000, wait, ..Batching::default() })
    }

    /// Input, number of batches and rows.
    fn taken(gathered: Vec<Gathered>) -> Vec<(usize, usize, usize)> {
        let rows = |gathered: &Gathered| gathered.batches.iter().map(Batch::num_rows).sum();
        gathered.iter().map(|gathered| (gathered.input, gathered.batches.len(), rows(gathered))).collect()
    }

    #[test]
    fn few_rows_wait_for_more_from_when_the_first_came() {
        let mut gathering = gathering(Duration::from_millis(5));
        gathering.add(0, 0, batch(1), 100);
        gathering.add(0, 1, batch(2), 104);
        assert_eq!((taken(gathering.take_ready(104)), gathering.next_due_ms()), (vec![], Some(105)));
        assert_eq!((taken(gathering.take_ready(105)), gathering.next_due_ms()), (vec![(0, 2, 3)], None));
    }

    #[test]
    fn enough_rows_or_bytes_do_not_wait() {
        let mut gathering = gathering(Duration::from_secs(1));
        gathering.add(0, 0, batch(ENOUGH_ROWS - 1), 0);
        gathering.add(1, 1, batch(ENOUGH_ROWS), 0);
        assert_eq!(taken(gathering.take_ready(0)), [(1, 1, ENOUGH_ROWS)]);
        gathering.add(0, 0, batch(1), 0);
        assert_eq!(taken(gathering.take_ready(0)), [(0, 2, ENOUGH_ROWS)]);
        let mut narrow = Gathering::new(Batching { bytes: 80, ..gathering.batching });
        narrow.add(0, 0, batch(10), 0);
        assert_eq!(taken(narrow.take_ready(0)), [(0, 1, 10)]);
    }

    #[test]
    fn without_a_wait_rows_go_on_at_once() {
        let mut gathering = gathering(Duration::ZERO);
        gathering.add(0, 0, batch(1), 100);
        assert_eq!(taken(gathering.take_ready(100)), [(0, 1, 1)]);
    }

    #[test]
    fn what_has_come_already_is_joined_up_to_the_size_of_a_batch() {
        let mut gathering = gathering(Duration::ZERO);
        assert!(gathering.has_room(0));
        gathering.add(0, 0, batch(1_999), 0);
        assert!(gathering.has_room(0));
        gathering.add(0, 0, batch(1), 0);
        assert!(!gathering.has_room(0) && gathering.has_room(1));
    }

    #[test]
    fn a_mark_lets_everything_go_in_the_order_in_which_it_came() {
        let mut gathering = gathering(Duration::from_secs(1));
        gathering.add(1, 3, batch(1), 0);
        gathering.add(0, 0, batch(1), 0);
        assert_eq!(taken(gathering.take_all()), [(1, 1, 1), (0, 1, 1)]);
    }
}
