//! Logging: `millstream::info!("{} flights", n)` and its siblings. A line reaches the job's log at once, with operator,
//! version, and the key and event time of the row that is being handled.

/// Emits a line at the given level; the macros are nicer.
pub use crate::host::{Level, log as emit};

/// Logs at level `trace`.
#[macro_export]
macro_rules! trace {
    ($($arguments:tt)+) => { $crate::log::emit($crate::log::Level::Trace, &::std::format!($($arguments)+)) };
}

/// Logs at level `debug`.
#[macro_export]
macro_rules! debug {
    ($($arguments:tt)+) => { $crate::log::emit($crate::log::Level::Debug, &::std::format!($($arguments)+)) };
}

/// Logs at level `info`.
#[macro_export]
macro_rules! info {
    ($($arguments:tt)+) => { $crate::log::emit($crate::log::Level::Info, &::std::format!($($arguments)+)) };
}

/// Logs at level `warn`.
#[macro_export]
macro_rules! warn {
    ($($arguments:tt)+) => { $crate::log::emit($crate::log::Level::Warn, &::std::format!($($arguments)+)) };
}

/// Logs at level `error`.
#[macro_export]
macro_rules! error {
    ($($arguments:tt)+) => { $crate::log::emit($crate::log::Level::Error, &::std::format!($($arguments)+)) };
}
