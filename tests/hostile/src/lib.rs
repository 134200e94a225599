//! What strangers may try: the list ([`lines`]), who plays each line ([`players`]), and the components that do.
//!
//! No compiler would make them: [`puppet`] encodes them from instructions and from answers that lie ready in their memory ([`abi`], [`contract`]).
//! `host/wasm` tries them in process; `host/cli/tests/hostile` has a stranger play the whole list against a service beside a quiet neighbour;
//! `make bench ONLY=neighbour` measures what the neighbour notices.

#![allow(missing_docs, clippy::missing_panics_doc, reason = "its users are tests: names and the contract say what things are")]

#[macro_use]
pub mod abi;
pub mod contract;
pub mod guests;
pub mod lines;
pub mod players;
pub mod puppet;
pub mod quiet;
pub mod uploads;
