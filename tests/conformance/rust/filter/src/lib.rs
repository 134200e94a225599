//! Conformance case `filter`. A filter with settings, borrowed text and nulls.

use millstream::Row;

/// What to keep.
#[millstream::settings]
pub struct Settings {
    /// Lowest price that stays.
    min_price: i64,
}

/// A bid.
#[derive(Row)]
pub struct Bid<'a> {
    price: Option<i64>,
    url: &'a str,
}

/// Keeps expensive bids from `example.com`.
#[millstream::filter]
pub fn keep(bid: Bid<'_>, settings: &Settings) -> bool {
    bid.price.is_some_and(|price| price >= settings.min_price) && bid.url.starts_with("https://example.com/")
}
