//! Nexmark query 14: a filter, the price in euros, a word for the time of day, and the number of letters `c` in a text.

use millstream::{Ms, Row, Timestamp, Utc};

#[derive(Row)]
pub struct Bid<'a> {
    pub auction: i64,
    pub bidder: i64,
    pub price: i64,
    pub date_time: Timestamp<Ms, Utc>,
    pub extra: &'a str,
}

#[derive(Row, Debug, PartialEq)]
pub struct Calculated<'a> {
    pub auction: i64,
    pub bidder: i64,
    pub price: f64,
    pub bid_time_type: &'a str,
    pub date_time: Timestamp<Ms, Utc>,
    pub extra: &'a str,
    pub c_counts: i64,
}

#[millstream::map(keep = false)]
pub fn calculation<'a>(bid: Bid<'a>) -> Option<Calculated<'a>> {
    let price = bid.price as f64 * 0.908;
    if price <= 1_000_000.0 || price >= 50_000_000.0 {
        return None;
    }
    let hour = bid.date_time.value.div_euclid(3_600_000).rem_euclid(24);
    Some(Calculated {
        auction: bid.auction,
        bidder: bid.bidder,
        price,
        bid_time_type: match hour {
            8..=18 => "dayTime",
            ..=6 | 20.. => "nightTime",
            _ => "otherTime",
        },
        date_time: bid.date_time,
        extra: bid.extra,
        c_counts: bid.extra.bytes().filter(|byte| *byte == b'c').count() as i64,
    })
}
