//! Aggregates: what windows compute over their rows.
//!
//! An aggregate never holds anything: its *accumulators* are a column of values, one per group, which the window operator loads from and
//! writes to keyed state (null: nothing accumulated yet). [`BuiltIn`] is one function over Arrow arrays; [`set::Aggregates`] runs all those
//! of one operator, built-in or Wasm.
//!
//! Laws: results do not depend on how rows are cut into batches (floats are added in order of arrival), and merging two accumulators
//! equals accumulating the rows of the first, then those of the second.

mod average;
pub mod component;
mod count;
mod extreme;
mod list;
mod pick;
pub mod set;
mod sum;

use std::{fmt, ops::Range};

use arrow_array::ArrayRef;
use arrow_buffer::NullBuffer;
use arrow_schema::DataType;
use millstream_model::Batch;

pub use average::Average;
pub use count::Count;
pub use extreme::{Extreme, Side};
pub use list::{Collect, CountDistinct};
pub use pick::{By, Pick};
pub use sum::Sum;

/// A run of neighbouring rows of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The rows.
    pub rows: Range<usize>,
    /// Their group.
    pub group: usize,
}

impl Run {
    /// The runs of rows whose groups these are.
    pub fn all(group_of_row: &[u32]) -> Vec<Self> {
        let mut start = 0;
        let runs = group_of_row.chunk_by(|left, right| left == right).map(|chunk| {
            let rows = start..start + chunk.len();
            start = rows.end;
            Self { rows, group: chunk[0] as usize }
        });
        runs.collect()
    }
}

/// Which group each row belongs to.
#[derive(Clone, Copy, Debug)]
pub enum Grouping<'a> {
    /// Long runs of one group, in row order, covering every row: streams without a key.
    Runs(&'a [Run]),
    /// The group of each row.
    Rows(&'a [u32]),
}

impl Grouping<'_> {
    /// Calls `each(row, group)` for every row that is not null, in row order.
    #[inline]
    pub fn for_each_valid(self, nulls: Option<&NullBuffer>, mut each: impl FnMut(usize, usize)) {
        match nulls.filter(|nulls| nulls.null_count() > 0) {
            None => self.for_each(each),
            Some(nulls) => self.for_each(|row, group| {
                if nulls.is_valid(row) {
                    each(row, group);
                }
            }),
        }
    }

    /// Calls `each(row, group)` for every row, in row order.
    #[inline]
    pub fn for_each(self, mut each: impl FnMut(usize, usize)) {
        match self {
            Self::Rows(groups) => groups.iter().enumerate().for_each(|(row, &group)| each(row, group as usize)),
            Self::Runs(runs) => {
                for run in runs {
                    run.rows.clone().for_each(|row| each(row, run.group));
                }
            }
        }
    }
}

/// A result that cannot be given: the number of its accumulator, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoResult {
    /// The number of the accumulator.
    pub group: usize,
    /// One clause.
    pub reason: String,
}

/// One aggregate function over columns of known types.
pub trait BuiltIn: fmt::Debug + Send + Sync {
    /// The type of an accumulator.
    fn accumulator_type(&self) -> DataType;

    /// The type of a result, and whether it can be null.
    fn output(&self) -> (DataType, bool);

    /// The accumulators (one per group, null = new) after these rows.
    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef;

    /// The accumulators `into` after `other[i]` was merged into `into[into_of_other[i]]`, in order of i.
    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef;

    /// The result of each accumulator. Those that have none are added to `without` and may hold anything.
    fn finish(&self, accumulators: &ArrayRef, without: &mut Vec<NoResult>) -> ArrayRef;
}

#[cfg(test)]
mod tests;
