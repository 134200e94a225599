//! `blackhole`: takes everything and keeps nothing. The metrics of the sink say how much came.

mod settings;
mod sink;

pub use settings::Settings;
pub use sink::Blackhole;
