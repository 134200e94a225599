//! Conformance case `map`. A map that adds a column, replaces one, drops rows and rejects others.

use millstream::{Reject, Row};

/// A bid.
#[derive(Row)]
pub struct Bid<'a> {
    price: i64,
    url: &'a str,
}

/// What is added.
#[derive(Row)]
pub struct Converted {
    euro: f64,
    url: String,
}

/// Converts dollars to euros; free bids are dropped, negative ones rejected.
#[millstream::map]
pub fn convert(bid: Bid<'_>) -> Result<Option<Converted>, Reject> {
    match bid.price {
        0 => Ok(None),
        price if price < 0 => Err(Reject::new(format!("negative price {price}"))),
        price => Ok(Some(Converted { euro: price as f64 * 0.5, url: bid.url.to_uppercase() })),
    }
}
