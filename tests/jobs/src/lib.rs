//! What tests of whole jobs share: the operators of the examples as components, rows compared as multisets, and a server for what they ask over HTTP.
//!
//! The jobs are directories: job file, input, and the rows that an independent reference says they write. Here they run inside the test's
//! process (`tests/it`); `host/cli/tests/jobs` runs the same ones through the real binary, kills it and starts it again.

pub mod components;
pub mod rows;
pub mod web;
