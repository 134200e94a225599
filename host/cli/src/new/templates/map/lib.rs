//! Adds the temperature in Fahrenheit to every reading.

use millstream::Row;

/// The columns that the operator reads.
#[derive(Row)]
pub struct Reading {
    pub celsius: Option<f64>,
}

/// The columns that it adds.
#[derive(Row)]
pub struct Added {
    pub fahrenheit: Option<f64>,
}

/// Adds the temperature in Fahrenheit to every reading.
#[millstream::map]
pub fn {{function}}(reading: Reading) -> Added {
    Added { fahrenheit: reading.celsius.map(|celsius| celsius * 9.0 / 5.0 + 32.0) }
}
