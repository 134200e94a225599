//! Checkpoints: the protocol, and what is written.
//!
//! Flow: [`coordinator`] (pure: facts in, actions out) decides; [`crate::run`] carries out what concerns subtasks; files and the [`manifest`] go to
//! the checkpoint storage; the commit log decides. [`retention`] says what may be removed, [`collect`] removes it, [`restart`] says whether a job
//! that failed is tried again.

pub mod collect;
pub mod coordinator;
pub mod files;
pub mod manifest;
#[cfg(test)]
mod model;
pub mod restart;
pub mod retention;
