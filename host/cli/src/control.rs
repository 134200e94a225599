//! The control socket of a durable run: how other processes on this machine watch and steer it.
//!
//! [`protocol`] says what goes over it (lines of JSON), [`server`] answers for a running job, [`client`] asks. What is asked is what a
//! [`JobHandle`](millstream_engine::run::JobHandle) can do; nothing is decided here.

mod address;
pub mod client;
pub mod protocol;
pub mod responder;
pub mod server;
