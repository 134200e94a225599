//! Makes text of text: the call whose cost is in its strings.

use millstream::Row;

#[derive(Row)]
struct Upper {
    upper: String,
}

/// The text in upper case.
#[millstream::map(keep = false)]
fn upper(text: &str) -> Upper {
    Upper { upper: text.to_ascii_uppercase() }
}
