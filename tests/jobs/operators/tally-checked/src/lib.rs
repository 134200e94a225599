//! Counts words as `tally` does, with the same state, but reads a column more, and traps unless it holds what it shall: the word once more.

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
pub fn tally(word: &str, shadow: &str, seen: &mut Seen, out: &mut Out<Count<'_>>) {
    assert_eq!(word, shadow);
    seen.count += 1;
    out.push(Count { word, count: u64::from(seen.count) });
}
