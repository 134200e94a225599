//! Conformance case `aggregate`. A user aggregate: a percentile by nearest rank.

use millstream::State;

/// Which percentile.
#[millstream::settings]
pub struct Settings {
    /// Between 1 and 100.
    percentile: u8,
}

/// The values of a group.
#[derive(State, Default)]
pub struct Percentile {
    values: Vec<f64>,
}

/// The percentile of a column by nearest rank; nulls are left out.
#[millstream::aggregate]
impl Percentile {
    fn accumulate(&mut self, value: Option<f64>) {
        self.values.extend(value);
    }

    fn merge(&mut self, other: Self) {
        self.values.extend(other.values);
    }

    fn finish(&self, settings: &Settings) -> Option<f64> {
        let mut sorted = self.values.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * usize::from(settings.percentile)).div_ceil(100);
        sorted.get(rank.saturating_sub(1)).copied()
    }
}
