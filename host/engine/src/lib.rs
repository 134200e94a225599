//! The engine: from a job file to running subtasks.
//!
//! In reading order: [`spec`] (the job file) → [`plan`] (checked and typed) → [`graph`] (the planned job) → [`run`] (subtasks, exchange,
//! alignment, the job handle). What the parts agree on: [`operator`], [`connector`], [`element`], [`rejected`], [`requests`],
//! [`clock`], [`metrics`].
//! The built-in operators are one file each under [`operators`]. [`testing`] is a source and a sink in memory.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod clock;
pub mod connector;
pub mod element;
pub mod event_time;
pub mod graph;
pub mod metrics;
pub mod operator;
pub mod operators;
pub mod plan;
pub mod rejected;
pub mod requests;
pub mod run;
pub mod spec;
pub mod testing;
