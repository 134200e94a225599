//! Nexmark query 2: bids on some auctions.

#[millstream::filter]
pub fn selection(auction: i64) -> bool {
    auction % 123 == 0
}
