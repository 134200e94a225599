//! Checkpoints: the protocol, and what is written.
//!
//! Flow: `coordinator` (pure: facts in, actions out) decides; [`crate::run`] carries out what concerns subtasks; files and the [`manifest`] go to
//! the checkpoint storage; the commit log decides.

pub mod files;
pub mod manifest;
