//! The values of each column, given the numbers of the events.

use std::sync::{Arc, LazyLock};

use arrow_array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::{
    random::{Random, below, next},
    settings::{Settings, Stream},
    words::{CHANNELS, CITIES, FIRST_NAMES, HOT_CHANNELS, LAST_NAMES, OTHER_CHANNELS, STATES, TextColumn, words},
};

/// Events of a turn: one person, three auctions, 46 bids.
pub const TURN: u64 = 50;
const PERSONS: u64 = 1;
const AUCTIONS: u64 = 3;

const FIRST_PERSON: u64 = 1_000;
const FIRST_AUCTION: u64 = 1_000;
const FIRST_CATEGORY: u64 = 10;
const CATEGORIES: u64 = 5;
/// How far ids may lie in the future.
const ID_LEAD: u64 = 10;
/// Persons who still sell and bid.
const ACTIVE_PERSONS: u64 = 1_000;
/// Auctions that still get bids.
const OPEN_AUCTIONS: u64 = 100;
/// The hot id is the last one that this divides.
const HOT_EVERY: u64 = 100;

/// Bytes of `extra`: so many at least, and fewer than so many more. From Beam's average sizes, less what the other columns have on average.
const EXTRA_OF_PERSON: (u64, u64) = (100, 50);
const EXTRA_OF_AUCTION: (u64, u64) = (310, 155);
const EXTRA_OF_BID: (u64, u64) = (54, 28);

impl Stream {
    /// Number of events of this kind in a turn.
    pub fn per_turn(self) -> u64 {
        match self {
            Self::Person => PERSONS,
            Self::Auction => AUCTIONS,
            Self::Bid => TURN - PERSONS - AUCTIONS,
        }
    }

    /// Place in a turn of the first event of this kind.
    pub fn first_in_turn(self) -> u64 {
        match self {
            Self::Person => 0,
            Self::Auction => PERSONS,
            Self::Bid => PERSONS + AUCTIONS,
        }
    }

    /// The columns.
    pub fn schema(self) -> SchemaRef {
        let fields = self.columns().iter().map(|(name, column)| Field::new(*name, column.data_type(), false));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// Names and contents of the columns.
    pub fn columns(self) -> &'static [(&'static str, Column)] {
        use Column as C;
        match self {
            Self::Person => &[
                ("id", C::PersonId),
                ("name", C::Name),
                ("email_address", C::Email),
                ("credit_card", C::CreditCard),
                ("city", C::City),
                ("state", C::State),
                ("date_time", C::DateTime),
                ("extra", C::Extra(EXTRA_OF_PERSON)),
            ],
            Self::Auction => &[
                ("id", C::AuctionId),
                ("item_name", C::ItemName),
                ("description", C::Description),
                ("initial_bid", C::InitialBid),
                ("reserve", C::Reserve),
                ("date_time", C::DateTime),
                ("expires", C::Expires),
                ("seller", C::Seller),
                ("category", C::Category),
                ("extra", C::Extra(EXTRA_OF_AUCTION)),
            ],
            Self::Bid => &[
                ("auction", C::BidAuction),
                ("bidder", C::Bidder),
                ("price", C::Price),
                ("channel", C::Channel),
                ("url", C::Url),
                ("date_time", C::DateTime),
                ("extra", C::Extra(EXTRA_OF_BID)),
            ],
        }
    }
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The person of the event.
    PersonId,
    /// First and last name.
    Name,
    /// An address.
    Email,
    /// Sixteen digits.
    CreditCard,
    /// A city.
    City,
    /// A state.
    State,
    /// The time of the event.
    DateTime,
    /// Letters, so many at least and fewer than so many more.
    Extra((u64, u64)),
    /// The auction of the event.
    AuctionId,
    /// 3 to 19 letters and spaces.
    ItemName,
    /// 3 to 99 letters and spaces.
    Description,
    /// A price.
    InitialBid,
    /// The initial bid and a price.
    Reserve,
    /// The end of the auction.
    Expires,
    /// A person.
    Seller,
    /// One of five.
    Category,
    /// An auction.
    BidAuction,
    /// A person.
    Bidder,
    /// A price.
    Price,
    /// The name of a channel.
    Channel,
    /// The address of the same channel.
    Url,
}

impl Column {
    fn data_type(self) -> DataType {
        match self {
            Self::DateTime | Self::Expires => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Name | Self::Email | Self::CreditCard | Self::City | Self::State | Self::Extra(_) => DataType::Utf8,
            Self::ItemName | Self::Description | Self::Channel | Self::Url => DataType::Utf8,
            Self::PersonId | Self::AuctionId | Self::InitialBid | Self::Reserve | Self::Seller | Self::Category => DataType::Int64,
            Self::BidAuction | Self::Bidder | Self::Price => DataType::Int64,
        }
    }

    /// The number of its random numbers. Never reuse one, and never change one: all data would change.
    fn random_number(self) -> u64 {
        match self {
            Self::Name => 1,
            Self::Email => 2,
            Self::CreditCard => 3,
            Self::City => 4,
            Self::State => 5,
            Self::Extra(_) => 6,
            Self::ItemName => 7,
            Self::Description => 8,
            Self::InitialBid | Self::Reserve => 9,
            Self::Expires => 10,
            Self::Seller => 11,
            Self::Category => 12,
            Self::BidAuction => 13,
            Self::Bidder => 14,
            Self::Price => 15,
            // The channel decides the address.
            Self::Channel | Self::Url => 16,
            Self::PersonId | Self::AuctionId | Self::DateTime => 0,
        }
    }
}

/// Makes the columns of events.
#[derive(Clone, Debug)]
pub struct Generator {
    seed: u64,
    start_ms: i64,
    event_rate: u64,
}

impl Generator {
    /// A generator with these settings.
    pub fn new(settings: &Settings) -> Self {
        Self { seed: settings.seed, start_ms: settings.start_ms, event_rate: settings.event_rate.get() }
    }

    /// When an event happens, ms since epoch.
    #[inline]
    pub fn time_ms(&self, event: u64) -> i64 {
        let (seconds, rest) = (event / self.event_rate, event % self.event_rate);
        let elapsed_ms = seconds.saturating_mul(1_000).saturating_add(rest * 1_000 / self.event_rate);
        self.start_ms.saturating_add(i64::try_from(elapsed_ms).unwrap_or(i64::MAX))
    }

    /// The values of a column for these events; `times_ms` are theirs.
    pub fn column(&self, column: Column, events: &[u64], times_ms: &[i64]) -> ArrayRef {
        let random = Random::new(self.seed, column.random_number());
        match column {
            Column::PersonId => numbers(events, |event| FIRST_PERSON + last_person(event)),
            Column::AuctionId => numbers(events, |event| FIRST_AUCTION + last_auction(event)),
            Column::InitialBid | Column::Price => numbers(events, |event| price(random.at(event))),
            Column::Reserve => numbers(events, |event| price(random.at(event)) + price(next(random.at(event)))),
            Column::Seller => numbers(events, |event| person(event, random.at(event), 0)),
            Column::Bidder => numbers(events, |event| person(event, random.at(event), 1)),
            Column::Category => numbers(events, |event| FIRST_CATEGORY + below(random.at(event), CATEGORIES)),
            Column::BidAuction => numbers(events, |event| auction(event, random.at(event))),
            Column::DateTime => times(times_ms.to_vec()),
            Column::Expires => times(events.iter().zip(times_ms).map(|(&event, &time_ms)| self.expires(event, time_ms, random)).collect()),
            Column::Channel => channel_column(events, random, &CHANNELS.names, 12),
            Column::Url => channel_column(events, random, &CHANNELS.urls, 76),
            _ => text_column(column, events, random),
        }
    }

    /// An auction lasts as long as about 100 new ones take to open, on average.
    fn expires(&self, event: u64, time_ms: i64, random: Random) -> i64 {
        let horizon_ms = self.time_ms(event + OPEN_AUCTIONS * TURN / AUCTIONS).saturating_sub(time_ms);
        let length_ms = 1 + below(random.at(event), (horizon_ms.unsigned_abs() * 2).max(1));
        time_ms.saturating_add(length_ms.cast_signed())
    }
}

fn numbers(events: &[u64], value: impl Fn(u64) -> u64) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(events.iter().map(|&event| value(event).cast_signed())))
}

fn times(times_ms: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(times_ms).with_timezone("UTC"))
}

/// The last person registered at an event, counted from 0.
#[inline]
fn last_person(event: u64) -> u64 {
    event / TURN
}

/// The last auction opened at an event, counted from 0 (before the first one: that one).
#[inline]
fn last_auction(event: u64) -> u64 {
    let (turn, place) = (event / TURN, event % TURN);
    if place < PERSONS { (turn * AUCTIONS).saturating_sub(1) } else { turn * AUCTIONS + (place - PERSONS).min(AUCTIONS - 1) }
}

/// A seller or bidder: three of four are the hot one, which `hot_offset` keeps apart.
#[inline]
fn person(event: u64, random: u64, hot_offset: u64) -> u64 {
    let last = last_person(event);
    if random & 3 != 0 {
        return FIRST_PERSON + last / HOT_EVERY * HOT_EVERY + hot_offset;
    }
    let active = (last + 1).min(ACTIVE_PERSONS);
    FIRST_PERSON + last + 1 - active + below(next(random), active + ID_LEAD)
}

/// The auction of a bid: half of them are the hot one.
#[inline]
fn auction(event: u64, random: u64) -> u64 {
    let last = last_auction(event);
    if random & 1 != 0 {
        return FIRST_AUCTION + last / HOT_EVERY * HOT_EVERY;
    }
    let first = last.saturating_sub(OPEN_AUCTIONS);
    FIRST_AUCTION + first + below(next(random), last - first + 1 + ID_LEAD)
}

const PRICE_STEPS: usize = 1 << 12;

/// 100 · 10^(6 · i / 4096), by multiplication: the same on every machine.
static PRICES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    // 10^(6 / 4096)
    const STEP: f64 = 1.003_378_622_102_704_8;
    let mut price: f64 = 100.0;
    let steps = std::iter::repeat_n(STEP, PRICE_STEPS).map(|step| {
        price *= step;
        price
    });
    std::iter::once(100.0).chain(steps).collect()
});

/// A price in cents, log-uniform from 1.00 to 1,000,000.00; linear between the steps of the table.
#[inline]
fn price(random: u64) -> u64 {
    let step = (random >> 52) as usize;
    let part = ((random >> 20) & 0xFFFF_FFFF) as f64 / 4_294_967_296.0;
    let prices = &PRICES[..];
    (prices[step] + (prices[step + 1] - prices[step]) * part).round() as u64
}

fn channel_column(events: &[u64], random: Random, texts: &[String], bytes_each: usize) -> ArrayRef {
    let mut column = TextColumn::with_capacity(events.len(), bytes_each);
    for &event in events {
        let random = random.at(event);
        let number = if random & 1 != 0 { below(random, HOT_CHANNELS) } else { HOT_CHANNELS + below(random, OTHER_CHANNELS) };
        column.push(&texts[number as usize]);
    }
    column.finish()
}

fn text_column(column: Column, events: &[u64], random: Random) -> ArrayRef {
    let mut texts = TextColumn::with_capacity(events.len(), 24);
    for &event in events {
        let random = random.at(event);
        match column {
            Column::City => texts.bytes(one_of(&CITIES, random)),
            Column::State => texts.bytes(one_of(&STATES, random)),
            Column::Name => {
                texts.bytes(one_of(&FIRST_NAMES, random));
                texts.bytes(b" ");
                texts.bytes(one_of(&LAST_NAMES, next(random)));
            }
            Column::Email => {
                texts.letters(random, 7);
                texts.bytes(b"@");
                texts.letters(next(random), 5);
                texts.bytes(b".com");
            }
            Column::CreditCard => credit_card(&mut texts, random),
            Column::ItemName => words(&mut texts, next(random), 3 + below(random, 17) as usize),
            Column::Description => words(&mut texts, next(random), 3 + below(random, 97) as usize),
            Column::Extra((least, more)) => texts.letters(next(random), (least + below(random, more)) as usize),
            _ => {}
        }
        texts.end();
    }
    texts.finish()
}

fn one_of(texts: &'static [&'static str], random: u64) -> &'static [u8] {
    texts[below(random, texts.len() as u64) as usize].as_bytes()
}

fn credit_card(texts: &mut TextColumn, random: u64) {
    let mut rest = below(random, 10_000_000_000_000_000);
    let mut digits = *b"0000 0000 0000 0000";
    for digit in digits.iter_mut().rev().filter(|digit| **digit == b'0') {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    texts.bytes(&digits);
}
