//! `nexmark`: the auction house of the Nexmark benchmark, generated.
//!
//! Of 50 consecutive events the first is a person, the next three are auctions, the other 46 are bids. A source produces one of the three kinds
//! (`stream:`); sources with the same settings but for `stream` and `rate` fit together, since every value is a function of (`seed`, event number,
//! column) alone. Columns that nobody reads are therefore not computed, and a position is just a number.
//!
//! | stream | columns |
//! |---|---|
//! | `person` | `id` Int64, `name`, `email_address`, `credit_card`, `city`, `state` Utf8, `date_time` Timestamp(ms, "UTC"), `extra` Utf8 |
//! | `auction` | `id` Int64, `item_name`, `description` Utf8, `initial_bid`, `reserve` Int64, `date_time`, `expires` Timestamp(ms, "UTC"), `seller`, `category` Int64, `extra` Utf8 |
//! | `bid` | `auction`, `bidder`, `price` Int64, `channel`, `url` Utf8, `date_time` Timestamp(ms, "UTC"), `extra` Utf8 |
//!
//! Proportions, ids and skew are those of Beam's `NexmarkGenerator` with its default configuration: half of the bids go to the hot auction (the
//! last id that 100 divides), the others to one of the last 100 auctions; three quarters of the bids come from the hot bidder and three quarters
//! of the auctions from the hot seller, the others from one of the last 1,000 persons; a tenth of these ids may lie up to 10 in the future. Prices
//! are log-uniform from 1.00 to 1,000,000.00 in cents. Half of the bids come by one of four hot channels, the others by one of 10,000. `extra`
//! fills rows to 100 (bid), 200 (person) and 500 (auction) bytes on average. The numbers themselves are not Beam's: its generator draws them one
//! after the other.
//!
//! Event times are `date_time`, set by the source. The position of a row counts the rows of its split from 0. Splits take turns of 50 events.

mod generate;
mod random;
mod settings;
mod source;
mod words;

pub use settings::{Settings, Stream};
pub use source::Nexmark;

#[cfg(test)]
mod tests;
