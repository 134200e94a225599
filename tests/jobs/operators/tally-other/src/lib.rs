//! Counts words in another form: as text. No rule reads the numbers of `tally` as that, and it brings no `migrate`.

use millstream::{Out, Row, State};

/// What is known of a word.
#[derive(State, Default)]
#[state(version = 3)]
pub struct Seen {
    count: String,
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
    let count = seen.count.parse().unwrap_or(0_u64) + 1;
    seen.count = count.to_string();
    out.push(Count { word, count });
}
