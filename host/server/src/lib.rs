//! The service, and what it shares with the command line.
//!
//! Shared: [`place`] (a job directory), [`kept`] (its checkpoints), [`savepoint`], [`backups`], [`state`] (typed reads), and [`failure`], in which
//! all of them and the service say what went wrong.

#![forbid(unsafe_code)]

pub mod api;
pub mod backups;
pub mod catalogue;
pub mod components;
pub mod events;
pub mod failure;
pub mod http;
pub mod jobs;
pub mod kept;
pub mod logs;
pub mod place;
pub mod random;
pub mod report;
pub mod savepoint;
pub mod serve;
pub mod state;
pub mod text;
pub mod token;
