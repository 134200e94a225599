//! Adds a column: the number and a summand of the settings.

use millstream::Row;

/// What is added.
#[millstream::settings]
#[derive(Default)]
struct Settings {
    #[serde(default)]
    summand: i64,
}

#[derive(Row)]
struct More {
    more: i64,
}

#[millstream::map]
fn add(number: i64, settings: &Settings) -> More {
    More { more: number + settings.summand }
}
