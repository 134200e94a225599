//! The service, and what it shares with the command line.
//!
//! Shared: [`place`] (a job directory), [`kept`] (its checkpoints), [`savepoint`], [`backups`], [`state`] (typed reads), [`report`] (what a component is),
//! [`references`] (what job files refer to, and keep to themselves), and [`failure`], in which all of them and the service say what went wrong.
//!
//! The service, from the bottom up, each on those before it: [`catalogue`] (what there is, durably) → [`token`] (who may ask), [`tenants`] (whose it is,
//! and how much they may have) → [`components`] (what was pushed) → [`jobs`] (what is asked of jobs: decided and written down) and [`workshop`] (done: where
//! the code of a tenant runs) with [`events`] and [`logs`] for those who watch → [`http`] (the API, whose
//! types are [`api`]) → [`serve`] (the process). Requests go down, nothing below knows what is above; jobs tell what happens through `events` alone.
//!
//! Words: a *version* of a job is what was asked for at one time; *desired* is what is wanted of it, *observed* what it does.

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
pub mod references;
pub mod report;
pub mod results;
mod rows;
pub mod savepoint;
pub mod serve;
pub mod state;
pub mod tenants;
pub mod text;
pub mod token;
pub mod workshop;
