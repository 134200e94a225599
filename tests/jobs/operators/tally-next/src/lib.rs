//! Counts words as `tally` does, with the same state: it can be swapped in and out of a running job.

use millstream::{Out, Row, State};

/// What is known of a word.
#[derive(State, Default)]
pub struct Seen {
    count: u32,
}

/// How often a word was seen.
#[derive(Row)]
pub struct Count<'a> {
    word: &'a str,
    count: u64,
}

/// Counts each word.
#[millstream::operator(keyed)]
pub fn tally(word: &str, seen: &mut Seen, out: &mut Out<Count<'_>>) {
    seen.count += 1;
    out.push(Count { word, count: u64::from(seen.count) });
}
