//! `avg`: the mean of a column.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, Decimal128Array, Float64Array, Int64Array, StructArray,
    cast::AsArray,
    types::{Decimal128Type, Float64Type},
};
use arrow_schema::{DataType, Field, Fields};
use millstream_model::Batch;

use super::{
    BuiltIn, Grouping, NoResult, Sum,
    count::{count_rows, counts_of, merge_counts},
};

/// The most digits of a decimal.
const DIGITS_MAX: u8 = 38;
/// Digits after the point that the mean of decimals has more than its values.
const MORE_SCALE: i8 = 4;

/// The mean of a column; null if no row has a value. Of integers and floats a float; of decimals a decimal with four more digits after the
/// point, rounded half away from zero. The accumulator is a struct of sum and count.
#[derive(Debug)]
pub struct Average {
    column: usize,
    sum: Sum,
    nullable: bool,
}

impl Average {
    /// The mean of column `column`; none if its type has no mean.
    pub fn new(column: usize, data_type: &DataType, nullable: bool) -> Option<Self> {
        Some(Self { column, sum: Sum::new(column, data_type, true)?, nullable })
    }

    fn fields(&self) -> Fields {
        Fields::from(vec![Field::new("sum", self.sum.accumulator_type(), true), Field::new("count", DataType::Int64, false)])
    }

    /// The scale of the result; none: it is a float.
    fn output_scale(&self) -> Option<i8> {
        match self.sum.output().0 {
            DataType::Decimal128(_, scale) => Some(scale.saturating_add(MORE_SCALE).min(DIGITS_MAX as i8)),
            _ => None,
        }
    }

    fn accumulator(&self, sums: ArrayRef, counts: Vec<i64>) -> ArrayRef {
        Arc::new(StructArray::new(self.fields(), vec![sums, Arc::new(Int64Array::from(counts))], None))
    }

    /// One mean of decimals: `sum` has `shift` digits less after the point than the result.
    fn decimal_mean(sum: i128, count: i64, shift: u32) -> Option<i128> {
        let (sum, count) = (sum.checked_mul(10_i128.checked_pow(shift)?)?, i128::from(count));
        let (quotient, rest) = (sum / count, sum % count);
        let rounds_away = rest.abs() * 2 >= count;
        Some(quotient + if rounds_away { sum.signum() } else { 0 })
    }
}

impl BuiltIn for Average {
    fn accumulator_type(&self) -> DataType {
        DataType::Struct(self.fields())
    }

    fn output(&self) -> (DataType, bool) {
        let data_type = self.output_scale().map_or(DataType::Float64, |scale| DataType::Decimal128(DIGITS_MAX, scale));
        (data_type, self.nullable)
    }

    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef {
        let parts = parts_of(accumulators);
        let sums = self.sum.accumulate(batch, grouping, &parts.0);
        let nulls = batch.column(self.column).logical_nulls();
        self.accumulator(sums, count_rows(counts_of(&parts.1), grouping, nulls.as_ref()))
    }

    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef {
        let (into, other) = (parts_of(into), parts_of(other));
        let sums = self.sum.merge(&into.0, &other.0, into_of_other);
        self.accumulator(sums, merge_counts(counts_of(&into.1), &other.1, into_of_other))
    }

    fn finish(&self, accumulators: &ArrayRef, without: &mut Vec<NoResult>) -> ArrayRef {
        let (sums, counts) = parts_of(accumulators);
        let counts = counts_of(&counts);
        let Some(scale) = self.output_scale() else {
            return float_means(&sums, &counts);
        };
        let sums = sums.as_primitive::<Decimal128Type>();
        let shift = u32::try_from(scale - sums.scale()).unwrap_or(0);
        let mut mean = |(group, sum): (usize, Option<i128>)| {
            let mean =
                Self::decimal_mean(sum?, counts[group], shift).filter(|mean| mean.unsigned_abs() < 10_u128.pow(u32::from(DIGITS_MAX)));
            if mean.is_none() {
                without.push(NoResult { group, reason: format!("a mean has more than {DIGITS_MAX} digits") });
            }
            Some(mean.unwrap_or_default())
        };
        let means: Decimal128Array = sums.iter().enumerate().map(&mut mean).collect();
        Arc::new(means.with_data_type(self.output().0))
    }
}

/// Sums and counts with the nulls of the struct pushed down.
fn parts_of(accumulators: &ArrayRef) -> (ArrayRef, ArrayRef) {
    let accumulators = accumulators.as_struct();
    let part = |index: usize| -> ArrayRef {
        let column = accumulators.column(index);
        let nulls = arrow_buffer::NullBuffer::union(accumulators.nulls(), column.nulls());
        if nulls.is_none() {
            return Arc::clone(column);
        }
        let data = column.to_data().into_builder().nulls(nulls).build().expect("only the nulls are other, and there is one per value");
        arrow_array::make_array(data)
    };
    (part(0), part(1))
}

fn float_means(sums: &ArrayRef, counts: &[i64]) -> ArrayRef {
    let means: Float64Array = match sums.as_primitive_opt::<Float64Type>() {
        Some(sums) => sums.iter().zip(counts).map(|(sum, &count)| Some(sum? / count as f64)).collect(),
        None => sums.as_primitive::<Decimal128Type>().iter().zip(counts).map(|(sum, &count)| Some(sum? as f64 / count as f64)).collect(),
    };
    Arc::new(means)
}
