//! Write operators for Millstream in Rust: a function per record, with typed rows and state.
//!
//! ```
//! use millstream::{Out, Row};
//!
//! #[derive(Row)]
//! struct Line<'a> {
//!     text: &'a str,
//! }
//!
//! #[derive(Row, Debug, PartialEq)]
//! struct Word<'a> {
//!     word: &'a str,
//! }
//!
//! /// Splits lines into words.
//! #[millstream::flat_map]
//! fn split(line: Line<'_>, out: &mut Out<Word<'_>>) {
//!     for word in line.text.split_whitespace() {
//!         out.push(Word { word });
//!     }
//! }
//!
//! let mut split = millstream::testing::Harness::<split>::new();
//! split.rows([Line { text: "to be" }]);
//! assert_eq!(split.output::<Word<'_>>(), [Word { word: "to" }, Word { word: "be" }]);
//! ```
//!
//! One crate is one operator is one component. `README.md` shows the other forms; the modules, in reading order:
//! [`value`] (types of columns), [`argument`] (what a handler takes by value), [`part`] (what it takes as `&mut`: outputs, state,
//! timers), [`http`] (what it asks others), [`operator`] and [`aggregate`] (what the macros implement), [`testing`] (running all of it natively).
//!
//! The crate itself is the smaller half of a component: it neither depends on Arrow nor copies a batch into anything else than the
//! columns of the answer.

#![cfg_attr(doctest, doc = include_str!("../README.md"))]
// Generated bindings call the component's imports; everything else is safe.
#![deny(unsafe_code)]
#![warn(missing_docs)]

extern crate self as millstream;

pub mod aggregate;
pub mod argument;
pub mod bindings;
pub mod call;
mod export;
mod forms;
mod host;
pub mod http;
pub mod log;
pub mod metrics;
pub mod migration;
pub mod operator;
#[doc(hidden)]
pub mod panics;
pub mod part;
pub mod settings;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
pub mod value;

pub use argument::{Change, EventTime, Now};
pub use call::Reject;
pub use millstream_macros::{Row, State, aggregate, filter, flat_map, map, operator, settings};
pub use part::{Changelog, EventTimer, ListState, MapState, Out, ProcessingTimer, TimedChangelog, TimedOut};
pub use value::{Date, Date64, Decimal, Duration, FixedList, Large, Ms, NoZone, Ns, Sec, Time, Timestamp, Us, Utc};

/// What the macros write, and no one else.
#[doc(hidden)]
pub mod __rt {
    pub use crate::{
        aggregate::Aggregate,
        argument::{Argument, Columns, ReadRow, Reads, Row},
        bindings::{Column, Field, exports::OutputPlan},
        call::{Answer, At, Call, Outcome, Reject},
        export::{Exported, ExportedAggregate, Opened, Slot},
        forms::{Mapped, Verdict, filter, map},
        http::ask,
        migration::Migration,
        operator::{About, Declaration, Instance, Layout, Operator},
        panics,
        part::{Part, PartOptions, State, Ttl},
        settings,
        value::{Buffers, ColumnBuilder, ListItem, Malformed, ReadValue, Value, finish_column, write_field},
    };
    pub use wit_bindgen;
    #[cfg(feature = "settings")]
    pub use {schemars, serde};
}
