//! The 90th percentile by nearest rank, as an aggregate for windows.

use millstream::State;

/// All values of a window so far.
#[derive(State, Default)]
pub struct P90 {
    values: Vec<i64>,
}

#[millstream::aggregate]
impl P90 {
    fn accumulate(&mut self, value: i64) {
        self.values.push(value);
    }

    fn merge(&mut self, other: Self) {
        self.values.extend(other.values);
    }

    /// The smallest value that at least 90 % of the values do not exceed.
    fn finish(&self) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * 9).div_ceil(10);
        rank.checked_sub(1).map(|index| sorted[index] as f64)
    }
}
