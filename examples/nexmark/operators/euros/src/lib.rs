//! Nexmark query 1: the price in euros, in place of the price in dollars.

use millstream::Row;

#[derive(Row)]
pub struct Euros {
    pub price: f64,
}

#[millstream::map]
pub fn euros(price: i64) -> Euros {
    Euros { price: price as f64 * 0.908 }
}
