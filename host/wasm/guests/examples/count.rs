//! Counts and sums per key: values travel with the batch.

use millstream::State;

#[derive(State, Default)]
struct Total {
    count: u64,
    sum: i64,
}

/// Counts the rows of a key and adds up their numbers. The number 13 traps, as a guest with a bug does.
#[millstream::operator(keyed)]
fn count(number: i64, total: &mut Total) {
    assert_ne!(number, 13, "unlucky");
    total.count += 1;
    total.sum = total.sum.wrapping_add(number);
}
