//! Numbers the rows of each key, and says of each when it was made: a keyed count whose delay can be measured.

use millstream::{Out, Row};

#[derive(Row)]
struct Made {
    key: i64,
    at: i64,
}

#[derive(Row)]
struct Stamped {
    key: i64,
    at: i64,
    number: u64,
}

/// How often each key was seen so far.
#[millstream::operator(keyed)]
fn stamped(made: Made, seen: &mut u64, out: &mut Out<Stamped>) {
    *seen += 1;
    out.push(Stamped { key: made.key, at: made.at, number: *seen });
}
