//! Where the jobs of a process may connect to. Whoever names an address (a tenant, in a job file; a broker, in what it advertises; a server, in a
//! redirect; a name server, in its answer) must not reach what only the operator of the machine should: its own services, its network, the metadata of
//! its cloud.
//!
//! The flow: [`host`] reads what was named, in every way that a resolver would understand it → a [`Resolver`], which is passed in, says once what a name
//! means → [`address`] says what kind of place that is → [`Policy`] decides. [`gate`] asks the policy again at the only moment that counts, when a socket
//! of this process connects: what is checked there is the very address that is connected to, whatever was resolved, advertised or redirected before.
//!
//! [`sent`] counts what they send.
//!
//! Nothing here opens a socket or asks a name server; the gate stands in front of the one that the C library has.

pub mod address;
pub mod gate;
pub mod host;
mod policy;
pub mod sent;

pub use policy::{Denied, Error, Mode, Policy, Resolver, Rule, Settings};
