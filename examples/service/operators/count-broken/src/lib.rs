//! Counts the rows of each bucket. A version that traps on its first row.

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
pub fn count(bucket: i64, seen: &mut Seen, out: &mut Out<Count<'_>>) {
    assert!(seen.count == u64::MAX, "this version does not count");
    seen.count += 1;
    out.push(Count { bucket, count: seen.count, by: "broken" });
}
