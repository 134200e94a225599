//! Keeps the readings of 30 °C and more.

use millstream::Row;

/// The columns that the operator reads; the others pass by without crossing into it.
#[derive(Row)]
pub struct Reading {
    pub celsius: Option<f64>,
}

/// Keeps the readings of 30 °C and more.
#[millstream::filter]
pub fn {{function}}(reading: Reading) -> bool {
    reading.celsius.is_some_and(|celsius| celsius >= 30.0)
}
