//! `sequence`: the numbers `from`, `from` + `step`, … up to `to`, in a column `value` Int64.
//!
//! One split, whose positions count the rows from 0. With `rate` the numbers leave at that pace, counted from the start by the clock of the
//! job; without `to` they never end.

mod settings;
mod source;

pub use settings::Settings;
pub use source::Sequence;

#[cfg(test)]
mod tests;
