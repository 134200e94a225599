//! Counts words as `tally-other` does, and brings a `migrate`, written by hand, that keeps one value back.

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

#[cfg(target_family = "wasm")]
mod migration {
    use millstream::bindings::{Column, migration::exports::millstream::operator::migration::Guest};

    struct OneTooFew;

    impl Guest for OneTooFew {
        fn migrate(_: String, _: u32, _: String, values: Column) -> Result<Column, String> {
            let length = values.length - 1;
            let offsets = vec![0; 4 * (length as usize + 1)];
            Ok(Column { length, buffers: vec![Vec::new(), Vec::new(), offsets, Vec::new()] })
        }
    }

    millstream::bindings::migration::__export_migration!(OneTooFew with_types_in millstream::bindings::migration);
}
