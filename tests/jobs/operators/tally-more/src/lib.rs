//! Counts words. A later version of `tally`: it counts further than 32 bits, and remembers which row was the first that it saw itself.

use millstream::{Out, Row, State};

/// What is known of a word.
#[derive(State, Default)]
#[state(version = 2)]
pub struct Seen {
    count: u64,
    /// Absent in what the first version wrote.
    first: Option<i64>,
}

/// How often a word was seen.
#[derive(Row)]
pub struct Count<'a> {
    word: &'a str,
    count: u64,
    first: i64,
}

/// Counts each word.
#[millstream::operator(keyed)]
pub fn tally(word: &str, value: i64, seen: &mut Seen, out: &mut Out<Count<'_>>) {
    seen.count += 1;
    let first = *seen.first.get_or_insert(value);
    out.push(Count { word, count: seen.count, first });
}
