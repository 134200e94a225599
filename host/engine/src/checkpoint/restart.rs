//! Whether and when a job that failed is tried again. Pure: the random number and how long it ran come from outside.
//!
//! Waits double from failure to failure up to a longest one, and are spread over their upper half, so that many jobs that failed together do not
//! come back together (Marc Brooker, "Exponential Backoff And Jitter", 2015: "equal jitter"). An attempt that ran for long enough and committed a
//! checkpoint was healthy: the failure that ends it is a first one again. One that ran for hours and committed nothing has come no further than the
//! one before, and the next one will not either: without this, a job whose checkpoints cannot be done would begin again for ever.

use std::time::Duration;

use crate::graph::Restart;

/// What is done about a failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The next attempt begins after this wait.
    Again {
        /// How many failures in a row there are.
        failures: u32,
        /// The wait.
        wait: Duration,
    },
    /// It makes no sense any more.
    GiveUp {
        /// Why, for people.
        reason: String,
    },
}

/// What an attempt did before it failed.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// For how long it ran.
    pub ran: Duration,
    /// Whether it committed a checkpoint.
    pub has_committed: bool,
}

/// The failures of one job.
#[derive(Clone, Debug)]
pub struct Restarts {
    settings: Restart,
    failures: u32,
}

impl Restarts {
    /// None yet.
    pub fn new(settings: Restart) -> Self {
        Self { settings, failures: 0 }
    }

    /// An attempt failed; `random`: any number, evenly distributed.
    pub fn on_failure(&mut self, attempt: Attempt, random: u64) -> Decision {
        let was_healthy = attempt.ran >= self.settings.healthy_after && attempt.has_committed;
        self.failures = if was_healthy { 1 } else { self.failures.saturating_add(1) };
        if self.failures > self.settings.attempts {
            return Decision::GiveUp { reason: self.reason(attempt) };
        }
        Decision::Again { failures: self.failures, wait: self.wait(random) }
    }

    fn wait(&self, random: u64) -> Duration {
        let doublings = 1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX);
        let longest = self.settings.first.saturating_mul(doublings).min(self.settings.most);
        let half = longest / 2;
        half + half.mul_f64(random as f64 / u64::MAX as f64)
    }

    fn reason(&self, attempt: Attempt) -> String {
        let restarts = match self.settings.attempts {
            0 => return "it failed, and `restart.attempts` is 0".into(),
            1 => "it failed again after 1 restart".into(),
            attempts => format!("it failed again after {attempts} restarts"),
        };
        let ran_in_vain = attempt.ran >= self.settings.healthy_after && !attempt.has_committed;
        if ran_in_vain {
            format!("{restarts}, the last time without a checkpoint committed in {}", whole_seconds(attempt.ran))
        } else {
            restarts
        }
    }
}

fn whole_seconds(duration: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(duration.as_secs().max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG_TIME: Duration = Duration::from_secs(600);
    const SHORT: Attempt = Attempt { ran: Duration::from_secs(5), has_committed: true };
    const LONG: Attempt = Attempt { ran: LONG_TIME, has_committed: true };

    fn restarts(attempts: u32) -> Restarts {
        let (first, most) = (Duration::from_secs(1), Duration::from_secs(60));
        Restarts::new(Restart { attempts, first, most, healthy_after: LONG_TIME })
    }

    fn wait_s(decision: Decision) -> f64 {
        match decision {
            Decision::Again { wait, .. } => wait.as_secs_f64(),
            Decision::GiveUp { reason } => panic!("{reason}"),
        }
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let mut restarts = restarts(10);
        let waits: Vec<f64> = (0..9).map(|_| wait_s(restarts.on_failure(SHORT, u64::MAX))).collect();
        assert_eq!(waits, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]);
    }

    #[test]
    fn a_wait_lies_in_its_upper_half_as_the_random_number_says() {
        let wait_after_3 = |random| {
            let mut restarts = restarts(10);
            restarts.on_failure(SHORT, random);
            restarts.on_failure(SHORT, random);
            wait_s(restarts.on_failure(SHORT, random))
        };
        assert_eq!(wait_after_3(0), 2.0);
        assert_eq!(wait_after_3(u64::MAX), 4.0);
        let middle = wait_after_3(u64::MAX / 2);
        assert!((2.999..3.001).contains(&middle), "{middle}");
    }

    #[test]
    fn it_gives_up_when_all_tries_have_failed_and_says_how_many_they_were() {
        let mut restarts = restarts(2);
        assert!(matches!(restarts.on_failure(SHORT, 0), Decision::Again { failures: 1, .. }));
        assert!(matches!(restarts.on_failure(SHORT, 0), Decision::Again { failures: 2, .. }));
        assert_eq!(restarts.on_failure(SHORT, 0), Decision::GiveUp { reason: "it failed again after 2 restarts".into() });
    }

    #[test]
    fn after_a_healthy_time_tries_are_counted_from_the_beginning() {
        let mut restarts = restarts(2);
        restarts.on_failure(SHORT, 0);
        restarts.on_failure(SHORT, 0);
        assert!(matches!(restarts.on_failure(LONG, 0), Decision::Again { failures: 1, .. }));
    }

    #[test]
    fn a_time_that_is_just_not_healthy_counts_on() {
        let mut restarts = restarts(1);
        restarts.on_failure(SHORT, 0);
        let almost = Attempt { ran: LONG_TIME - Duration::from_millis(1), ..LONG };
        restarts.on_failure(almost, 0);
        assert!(matches!(restarts.on_failure(almost, 0), Decision::GiveUp { .. }));
    }

    #[test]
    fn a_long_time_in_which_nothing_was_committed_counts_on_and_is_said() {
        let mut restarts = restarts(1);
        let in_vain = Attempt { has_committed: false, ..LONG };
        restarts.on_failure(in_vain, 0);
        let reason = "it failed again after 1 restart, the last time without a checkpoint committed in 10m".into();
        assert_eq!(restarts.on_failure(in_vain, 0), Decision::GiveUp { reason });
    }

    #[test]
    fn without_tries_the_first_failure_is_the_last() {
        assert_eq!(restarts(0).on_failure(LONG, 0), Decision::GiveUp { reason: "it failed, and `restart.attempts` is 0".into() });
    }

    #[test]
    fn a_thousand_tries_overflow_nothing() {
        let mut restarts = restarts(2_000);
        let waits: Vec<f64> = (0..1_000).map(|_| wait_s(restarts.on_failure(SHORT, u64::MAX))).collect();
        assert_eq!(waits.last(), Some(&60.0));
    }
}
