//! Counts the rows of each bucket as `example-service-count` does, with the same state, but reads a column more: the value that the bucket was made of.

use millstream::{Out, Row, State};

/// What is known of a bucket.
#[derive(State, Default)]
pub struct Seen {
    count: u64,
}

/// How many rows a bucket has had.
#[derive(Row)]
pub struct Count<'a> {
    bucket: i64,
    count: u64,
    by: &'a str,
}

/// Counts each bucket.
#[millstream::operator(keyed)]
pub fn count(bucket: i64, value: i64, seen: &mut Seen, out: &mut Out<Count<'_>>) {
    assert_eq!(bucket, value % 7);
    seen.count += 1;
    out.push(Count { bucket, count: seen.count, by: "checked" });
}
