//! The vocabulary of Millstream: what every room agrees on. Pure, no I/O, no clock.
//!
//! In reading order: [`Batch`] (rows in columns with their event times), [`time`] (event time, watermarks and how they merge),
//! [`key`] (the bytes, hash and group of a key), [`types`] (the types that cross to guests and their text), [`state`] (what operators
//! declare about state and timers), [`ids`] and [`ErrorKind`].

#![forbid(unsafe_code)]

mod batch;
mod error;
pub mod ids;
pub mod key;
pub mod state;
mod stream;
pub mod time;
pub mod types;

pub use batch::{Batch, ChangeKind, Origin, Positions};
pub use error::ErrorKind;
pub use stream::StreamType;
pub use time::{EventTime, Watermark};
