//! Nexmark query 7: the highest price, as an aggregate for windows.

use millstream::State;

#[derive(State, Default)]
pub struct Highest {
    price: i64,
}

#[millstream::aggregate]
impl Highest {
    fn accumulate(&mut self, price: i64) {
        self.price = self.price.max(price);
    }

    fn merge(&mut self, other: Self) {
        self.price = self.price.max(other.price);
    }

    fn finish(&self) -> i64 {
        self.price
    }
}
