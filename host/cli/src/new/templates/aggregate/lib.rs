//! Gives the spread between the hottest and the coldest reading of every sensor and hour.

use millstream::State;

/// What is known of the readings of one window so far. The host keeps it between calls.
#[derive(State, Default)]
pub struct {{type}} {
    coldest: Option<f64>,
    hottest: Option<f64>,
}

/// The spread between the hottest and the coldest reading.
#[millstream::aggregate]
impl {{type}} {
    fn accumulate(&mut self, celsius: Option<f64>) {
        let Some(celsius) = celsius else { return };
        self.coldest = Some(self.coldest.map_or(celsius, |coldest| coldest.min(celsius)));
        self.hottest = Some(self.hottest.map_or(celsius, |hottest| hottest.max(celsius)));
    }

    /// Windows that share panes, and sessions that grow together, need this.
    fn merge(&mut self, other: Self) {
        self.accumulate(other.coldest);
        self.accumulate(other.hottest);
    }

    fn finish(&self) -> Option<f64> {
        Some(self.hottest? - self.coldest?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spread_is_that_of_the_readings_with_a_temperature() {
        let mut spread = {{type}}::default();
        [Some(31.0), None, Some(34.0)].into_iter().for_each(|celsius| spread.accumulate(celsius));
        assert_eq!(spread.finish(), Some(3.0));
    }
}
