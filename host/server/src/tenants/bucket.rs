//! So much per second, and as much at once as has been saved up: a token bucket (ATM Forum's GCRA says the same). It has no clock of its own.

/// What one tenant may take of something.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Thousandths that are there; none: as much as fits.
    saved_milli: Option<u64>,
    /// When that was, elapsed ms.
    at_ms: i64,
}

impl Bucket {
    /// As full as can be.
    pub fn full(now_ms: i64) -> Self {
        Self { saved_milli: None, at_ms: now_ms }
    }

    /// Takes `amount` of what flows in with `per_s` and is saved up to `most`. Of more than `most` only `most` is taken.
    ///
    /// # Errors
    /// It is not there yet: in so many ms it will be.
    pub fn take(&mut self, now_ms: i64, per_s: u64, most: u64, amount: u64) -> Result<(), i64> {
        let (most_milli, wanted_milli) = (most.saturating_mul(1_000), amount.min(most).saturating_mul(1_000));
        let elapsed_ms = u64::try_from(now_ms - self.at_ms).unwrap_or_default();
        let saved_milli =
            self.saved_milli.map_or(most_milli, |saved| saved.saturating_add(elapsed_ms.saturating_mul(per_s)).min(most_milli));
        self.at_ms = self.at_ms.max(now_ms);
        self.saved_milli = Some(saved_milli.saturating_sub(if saved_milli >= wanted_milli { wanted_milli } else { 0 }));
        if saved_milli >= wanted_milli {
            return Ok(());
        }
        let missing_milli = wanted_milli - saved_milli;
        Err(missing_milli.checked_div(per_s).map_or(i64::MAX, |ms| i64::try_from(ms + 1).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_at_once_and_then_only_what_flows_in() {
        let mut bucket = Bucket::full(0);
        assert!((0..20).all(|_| bucket.take(0, 10, 20, 1).is_ok()));
        assert_eq!(bucket.take(0, 10, 20, 1), Err(101));
        assert!(bucket.take(100, 10, 20, 1).is_ok());
        assert!(bucket.take(100, 10, 20, 1).is_err());
        // What is saved up has its end.
        assert!((0..20).all(|_| bucket.take(1_000_000, 10, 20, 1).is_ok()));
        assert!(bucket.take(1_000_000, 10, 20, 1).is_err());
    }

    #[test]
    fn more_than_fits_takes_all_that_fits() {
        let mut bucket = Bucket::full(0);
        assert!(bucket.take(0, 10, 20, 1_000).is_ok());
        assert_eq!(bucket.take(0, 10, 20, 1_000), Err(2_001));
        assert_eq!(Bucket::full(0).take(0, 0, 0, 1), Ok(()));
    }
}
