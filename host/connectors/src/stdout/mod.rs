//! `stdout`: rows to the standard output of the process: a table where a person looks at a terminal, NDJSON everywhere else.
//!
//! The table prints its header again whenever a column has become wider than it was; NDJSON is that of [`crate::formats::ndjson`]. A changelog gets
//! the column `op` in front, as in files. There is one writer, so lines do not mix. When nobody reads any more (`… | head`), the sink goes on
//! without writing: the job ends quietly, as if its output had been taken. Every batch is written through at once, so a checkpoint never
//! covers a row that was not printed: rows are printed at least once, those since the last checkpoint again after a failure.

mod settings;
mod sink;
mod table;

pub use settings::Settings;
pub use sink::Stdout;

#[cfg(test)]
mod tests;
