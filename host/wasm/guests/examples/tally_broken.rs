//! A version of `tally` that traps on its first row.

use millstream::{Out, Row};

#[derive(Row)]
struct Numbered {
    value: i64,
    number: u64,
}

/// How often each value was seen so far; this version does not know.
#[millstream::operator(keyed)]
fn tally(value: i64, seen: &mut u64, out: &mut Out<Numbered>) {
    assert!(*seen == u64::MAX, "this version does not count");
    out.push(Numbered { value, number: *seen });
}
