//! Timers.

use crate::KeySet;

/// Timers that are due: at most one per key, its earliest. They stay set until [`crate::KeyedStore::remove_due`] or
/// [`crate::KeyedStore::apply`] is given them, so a call that fails loses none.
#[derive(Clone, Debug)]
pub struct DueTimers {
    /// The number of each timer, as declared.
    pub timer: Vec<u32>,
    /// The time it was set to, ms since epoch.
    pub at: Vec<i64>,
    /// The key of each; timer i is of key i.
    pub keys: KeySet,
}

impl DueTimers {
    /// Number of timers.
    pub fn len(&self) -> usize {
        self.timer.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.timer.is_empty()
    }

    /// These timers alone, in the given order: for a call that repeats a part.
    ///
    /// # Panics
    /// A number is out of range.
    pub fn select(&self, numbers: &[u32]) -> Self {
        Self {
            timer: numbers.iter().map(|&number| self.timer[number as usize]).collect(),
            at: numbers.iter().map(|&number| self.at[number as usize]).collect(),
            keys: self.keys.select(numbers, None),
        }
    }
}
