//! Windows as a user sees them: rows and watermarks in, result rows out. The boundary cases by name, and all kinds against a reference that
//! keeps every row.

mod boundaries;
mod changelog;
pub mod harness;
mod planning;
mod reference;
