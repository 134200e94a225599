//! `count`: rows, or rows with a value.

use std::sync::Arc;

use arrow_array::{Array, ArrayRef, Int64Array, cast::AsArray, types::Int64Type};
use arrow_schema::DataType;
use millstream_model::Batch;

use super::{BuiltIn, Grouping, NoResult};

/// Counts rows; with a column, those that are not null in it. The accumulator is the count.
#[derive(Debug)]
pub struct Count {
    /// The column, by number; none: every row counts.
    pub column: Option<usize>,
}

impl BuiltIn for Count {
    fn accumulator_type(&self) -> DataType {
        DataType::Int64
    }

    fn output(&self) -> (DataType, bool) {
        (DataType::Int64, false)
    }

    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef {
        let nulls = self.column.and_then(|column| batch.column(column).logical_nulls());
        counts_to_array(count_rows(counts_of(accumulators), grouping, nulls.as_ref()))
    }

    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef {
        counts_to_array(merge_counts(counts_of(into), other, into_of_other))
    }

    fn finish(&self, accumulators: &ArrayRef, _without: &mut Vec<NoResult>) -> ArrayRef {
        counts_to_array(counts_of(accumulators))
    }
}

/// The counts of accumulators; null is 0.
pub fn counts_of(accumulators: &ArrayRef) -> Vec<i64> {
    let counts = accumulators.as_primitive::<Int64Type>();
    match counts.nulls() {
        None => counts.values().to_vec(),
        Some(nulls) => counts.values().iter().zip(nulls).map(|(&count, valid)| if valid { count } else { 0 }).collect(),
    }
}

/// Adds the number of rows that are not null to each group.
pub fn count_rows(mut counts: Vec<i64>, grouping: Grouping<'_>, nulls: Option<&arrow_buffer::NullBuffer>) -> Vec<i64> {
    match (grouping, nulls) {
        (Grouping::Runs(runs), None) => runs.iter().for_each(|run| counts[run.group] += run.rows.len() as i64),
        (grouping, nulls) => grouping.for_each_valid(nulls, |_, group| counts[group] += 1),
    }
    counts
}

/// Adds `other[i]` to `counts[into_of_other[i]]`.
pub fn merge_counts(mut counts: Vec<i64>, other: &ArrayRef, into_of_other: &[u32]) -> Vec<i64> {
    for (count, &group) in counts_of(other).into_iter().zip(into_of_other) {
        counts[group as usize] += count;
    }
    counts
}

fn counts_to_array(counts: Vec<i64>) -> ArrayRef {
    Arc::new(Int64Array::from(counts))
}
