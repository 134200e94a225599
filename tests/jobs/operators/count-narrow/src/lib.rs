//! Counts the rows of each bucket as `example-service-count` does, but in fewer bits: what that one keeps does not fit.

use millstream::{Out, Row, State};

/// What is known of a bucket.
#[derive(State, Default)]
pub struct Seen {
    count: u32,
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
    seen.count += 1;
    out.push(Count { bucket, count: u64::from(seen.count), by: "narrow" });
}
