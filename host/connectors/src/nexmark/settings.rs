//! What a user may write under `nexmark:`.

use std::num::NonZeroU64;

use schemars::JsonSchema;
use serde::Deserialize;

/// A kind of event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// A person who registers.
    Person,
    /// An auction that a person opens.
    Auction,
    /// A bid of a person on an auction.
    Bid,
}

/// A source of generated events.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// The kind of event that this source produces. Required.
    pub stream: Stream,
    /// Number of events of all kinds, of which this source produces its share. Default: without end.
    pub events: Option<u64>,
    /// Events of all kinds per second of real time, counted from the start. Default: as fast as they are taken.
    pub rate: Option<NonZeroU64>,
    /// Events of all kinds per second of event time. Default: 10,000.
    #[serde(default = "default_event_rate")]
    pub event_rate: NonZeroU64,
    /// Event time of the first event, ms since epoch. Default: 1436918400000 (2015-07-15T00:00:00Z).
    #[serde(default = "default_start_ms")]
    pub start_ms: i64,
    /// Rows leave their order within groups of so many: 1 is in order. Not a multiple of 953. Default: 1.
    #[serde(default = "default_out_of_order")]
    pub out_of_order: NonZeroU64,
    /// Everything random depends on it. Default: 0.
    #[serde(default)]
    pub seed: u64,
    /// Number of parts that are generated in parallel. Default: the parallelism of the source.
    pub splits: Option<std::num::NonZeroU32>,
}

fn default_event_rate() -> NonZeroU64 {
    NonZeroU64::new(10_000).expect("it is not zero")
}

fn default_start_ms() -> i64 {
    1_436_918_400_000
}

fn default_out_of_order() -> NonZeroU64 {
    NonZeroU64::MIN
}
