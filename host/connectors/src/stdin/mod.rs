//! `stdin`: NDJSON or CSV from the standard input of the process.
//!
//! The columns are declared in the job file, since looking at the input would use it up; CSV finds them by the names in its header, or by place
//! with `header: false`. One split, whose positions count records from 0 (lines in NDJSON, records after the header in CSV). Bad records are rejected as
//! those of files are. What was read cannot be read again: a job that needs its input after a failure reads a file.

mod settings;
mod source;

pub use settings::Settings;
pub use source::Stdin;

#[cfg(test)]
mod tests;
