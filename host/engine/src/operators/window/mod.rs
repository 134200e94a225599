//! `window: { tumbling: 1h, aggregates: { flights: { count: "*" } } }`: groups rows into windows and aggregates each.
//!
//! The flow: [`settings`] (what a user wrote) → [`plan`] (checked and typed) → one of three operators: [`pane`] (windows that lie on the time
//! line: tumbling, sliding, cumulative, global), [`session`], [`count`]. What they share is [`core`]; what is computed is [`aggregate`];
//! what comes out is [`results`].
//!
//! Time, exactly: with watermark W and allowed lateness L, a row at t is late when t ≤ W − L and goes to the `late` output. A window [s, e)
//! fires when W ≥ e − 1 and its result has event time e − 1; it is forgotten when W ≥ e − 1 + L, and a row that changes it in between emits
//! it again. The global window ends with the last time a row may have, 9999-12-31T23:59:59.999Z. Windows by count and the global one do not
//! depend on time, so no row is late for them.
//!
//! Words: a *pane* is a stretch of time that windows share ([`assign`]); a *group* is a (key, pane) of a batch ([`group`]); an *accumulator*
//! is what an aggregate has of the rows of a group. A stream without key has one key, the empty one.

mod aggregate;
mod assign;
mod core;
mod count;
mod early;
mod gather;
mod group;
mod pane;
mod pane_index;
mod plan;
mod results;
mod session;
mod session_assign;
mod settings;
mod state_key;
#[cfg(test)]
mod tests;
#[cfg(test)]
pub(super) use tests::harness as tests_support;

pub(super) use aggregate::Collect;
pub use settings::Window;
