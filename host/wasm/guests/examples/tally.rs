//! Numbers the rows of each key: the smallest keyed operator that answers.

use millstream::{Out, Row};

#[derive(Row)]
struct Numbered {
    value: i64,
    number: u64,
}

/// How often each value was seen so far.
#[millstream::operator(keyed)]
fn tally(value: i64, seen: &mut u64, out: &mut Out<Numbered>) {
    *seen += 1;
    out.push(Numbered { value, number: *seen });
}
