//! Counts words further than 32 bits: it reads what `tally` keeps, but not the other way round.

use millstream::{Out, Row, State};

/// What is known of a word.
#[derive(State, Default)]
#[state(version = 2)]
pub struct Seen {
    count: u64,
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
    out.push(Count { word, count: seen.count });
}
