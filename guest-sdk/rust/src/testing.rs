//! Running operators natively, in `cargo test`: rows, watermarks, timers and state in; outputs out.
//!
//! ```
//! use millstream::{Out, Row, State, testing::Harness};
//!
//! #[derive(Row)]
//! struct Word {
//!     word: String,
//! }
//!
//! #[derive(Row, Debug, PartialEq)]
//! struct Count {
//!     word: String,
//!     count: u64,
//! }
//!
//! #[millstream::operator(keyed)]
//! fn count(word: Word, seen: &mut u64, out: &mut Out<Count>) {
//!     *seen += 1;
//!     out.push(Count { word: word.word, count: *seen });
//! }
//!
//! let mut counter = Harness::<count>::new().key_by(["word"]);
//! counter.rows([Word { word: "be".into() }, Word { word: "or".into() }, Word { word: "be".into() }]);
//! let last = counter.output::<Count>().pop();
//! assert_eq!(last, Some(Count { word: "be".into(), count: 2 }));
//! ```
//!
//! The code that runs is the code of the component, down to the columns; only the host is another one: [`Harness`] keeps state in memory,
//! fires timers by the rules of `wit/README.md`, and panics with a clear message when the contract is broken. [`json`] is the form in which
//! rows are written in files. `millstream test` runs the same component in the real host.

#![expect(clippy::panic, reason = "a test harness fails tests")]

mod harness;
mod host;
pub mod json;
mod kinds;
mod window;

pub use harness::{Emitted, Harness, Rejection, TestRow};
pub(crate) use host::imports;
pub use kinds::DataType;
pub use window::AggregateHarness;
