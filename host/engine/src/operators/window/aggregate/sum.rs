//! `sum` of numbers.
//!
//! Integers and decimals are summed in 128 bits, so that neither the order of rows nor intermediate sums matter; only a *result* outside
//! its type has no result (the window's row is rejected). A sum that leaves 128 bits (decimals only: 2^64 integers would be needed) stays at
//! the bound it crossed, which no decimal of 38 digits reaches.

use std::sync::Arc;

use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, Decimal128Array, Float64Array, Int64Array, UInt64Array,
    cast::AsArray,
    downcast_integer_array,
    types::{Decimal128Type, Float32Type, Float64Type},
};
use arrow_buffer::{BooleanBufferBuilder, NullBuffer};
use arrow_schema::DataType;
use millstream_model::Batch;

use super::{BuiltIn, Grouping, NoResult};

/// Digits of the accumulator of integers and decimals.
const DIGITS: u8 = 38;
/// The first number with more digits.
const TOO_LARGE: i128 = 10_i128.pow(DIGITS as u32);

/// Sums a column; null if no row has a value.
#[derive(Debug)]
pub struct Sum {
    column: usize,
    family: Family,
    nullable: bool,
}

/// How a type is summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Signed,
    Unsigned,
    Float,
    Decimal { scale: i8 },
}

impl Sum {
    /// The sum of column `column`; none if its type cannot be summed.
    pub fn new(column: usize, data_type: &DataType, nullable: bool) -> Option<Self> {
        let family = match data_type {
            DataType::Float32 | DataType::Float64 => Family::Float,
            DataType::Decimal128(_, scale) => Family::Decimal { scale: *scale },
            signed if signed.is_signed_integer() => Family::Signed,
            unsigned if unsigned.is_unsigned_integer() => Family::Unsigned,
            _ => return None,
        };
        Some(Self { column, family, nullable })
    }

    /// The scale of accumulators and results; none for floats.
    pub(super) fn scale(&self) -> Option<i8> {
        match self.family {
            Family::Signed | Family::Unsigned => Some(0),
            Family::Decimal { scale } => Some(scale),
            Family::Float => None,
        }
    }
}

impl BuiltIn for Sum {
    fn accumulator_type(&self) -> DataType {
        self.scale().map_or(DataType::Float64, |scale| DataType::Decimal128(DIGITS, scale))
    }

    fn output(&self) -> (DataType, bool) {
        let data_type = match self.family {
            Family::Signed => DataType::Int64,
            Family::Unsigned => DataType::UInt64,
            Family::Float | Family::Decimal { .. } => self.accumulator_type(),
        };
        (data_type, self.nullable)
    }

    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef {
        let column: &ArrayRef = batch.column(self.column);
        let integers: &dyn Array = column.as_ref();
        match self.family {
            Family::Float => self.add_floats(column, grouping, accumulators),
            Family::Decimal { .. } => {
                let decimals = column.as_primitive::<Decimal128Type>();
                let values = decimals.values();
                self.add_wide(|row| values[row], decimals.nulls(), grouping, accumulators)
            }
            Family::Signed | Family::Unsigned => downcast_integer_array! {
                integers => self.add_integers(integers, grouping, accumulators),
                other => unreachable!("{other} was found to be an integer when the job was planned"),
            },
        }
    }

    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef {
        let grouping = Grouping::Rows(into_of_other);
        if self.family == Family::Float {
            return self.add_floats(other, grouping, into);
        }
        let decimals = other.as_primitive::<Decimal128Type>();
        let values = decimals.values();
        self.add_wide(|row| values[row], decimals.nulls(), grouping, into)
    }

    fn finish(&self, accumulators: &ArrayRef, without: &mut Vec<NoResult>) -> ArrayRef {
        if self.family == Family::Float {
            return Arc::clone(accumulators);
        }
        let sums = accumulators.as_primitive::<Decimal128Type>();
        match self.family {
            Family::Signed => Arc::new(narrow::<i64>(sums, without).into_iter().collect::<Int64Array>()),
            Family::Unsigned => Arc::new(narrow::<u64>(sums, without).into_iter().collect::<UInt64Array>()),
            Family::Decimal { .. } | Family::Float => {
                let too_large = |sum: i128| sum >= TOO_LARGE || sum <= -TOO_LARGE;
                let large = sums.iter().enumerate().filter(|(_, sum)| sum.is_some_and(too_large));
                without.extend(large.map(|(group, _)| NoResult { group, reason: format!("a sum has more than {DIGITS} digits") }));
                Arc::clone(accumulators)
            }
        }
    }
}

impl Sum {
    fn add_integers<T>(&self, column: &arrow_array::PrimitiveArray<T>, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef
    where
        T: ArrowPrimitiveType,
        T::Native: Into<i128>,
    {
        let values = column.values();
        self.add_wide(|row| values[row].into(), column.nulls(), grouping, accumulators)
    }

    /// Adds `value(row)` of the rows that are not null.
    fn add_wide(&self, value: impl Fn(usize) -> i128, nulls: Option<&NullBuffer>, grouping: Grouping<'_>, into: &ArrayRef) -> ArrayRef {
        let into = into.as_primitive::<Decimal128Type>();
        let (mut sums, mut seen) = (values_or_default::<Decimal128Type>(into), seen_of(into));
        if self.family == (Family::Decimal { scale: self.scale().unwrap_or(0) }) {
            grouping.for_each_valid(nulls, |row, group| {
                sums[group] = sticky_add(sums[group], value(row));
                seen[group] = true;
            });
        } else {
            grouping.for_each_valid(nulls, |row, group| {
                sums[group] = sums[group].wrapping_add(value(row));
                seen[group] = true;
            });
        }
        let sums = Decimal128Array::new(sums.into(), nulls_of(&seen)).with_data_type(self.accumulator_type());
        Arc::new(sums)
    }

    fn add_floats(&self, column: &ArrayRef, grouping: Grouping<'_>, into: &ArrayRef) -> ArrayRef {
        let into = into.as_primitive::<Float64Type>();
        let (mut sums, mut seen) = (values_or_default::<Float64Type>(into), seen_of(into));
        let mut add = |value: f64, group: usize| {
            sums[group] += value;
            seen[group] = true;
        };
        if let Some(column) = column.as_primitive_opt::<Float64Type>() {
            let values = column.values();
            grouping.for_each_valid(column.nulls(), |row, group| add(values[row], group));
        } else {
            let column = column.as_primitive::<Float32Type>();
            let values = column.values();
            grouping.for_each_valid(column.nulls(), |row, group| add(f64::from(values[row]), group));
        }
        Arc::new(Float64Array::new(sums.into(), nulls_of(&seen)))
    }
}

/// Adds, but a sum that has left the range stays where it left.
fn sticky_add(sum: i128, value: i128) -> i128 {
    if sum == i128::MAX || sum == i128::MIN { sum } else { sum.saturating_add(value) }
}

/// The values of an array, the default where it is null.
pub(super) fn values_or_default<T: ArrowPrimitiveType>(array: &arrow_array::PrimitiveArray<T>) -> Vec<T::Native> {
    match array.nulls() {
        None => array.values().to_vec(),
        Some(nulls) => array.values().iter().zip(nulls).map(|(&value, valid)| if valid { value } else { T::default_value() }).collect(),
    }
}

/// Which values are there.
pub(super) fn seen_of(array: &dyn Array) -> Vec<bool> {
    array.nulls().map_or_else(|| vec![true; array.len()], |nulls| nulls.iter().collect())
}

/// Null where nothing was seen.
pub(super) fn nulls_of(seen: &[bool]) -> Option<NullBuffer> {
    if seen.iter().all(|&seen| seen) {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(seen.len());
    bits.append_slice(seen);
    Some(NullBuffer::new(bits.finish()))
}

fn narrow<N: TryFrom<i128> + Default>(sums: &Decimal128Array, without: &mut Vec<NoResult>) -> Vec<Option<N>> {
    let mut narrowed = |(group, sum): (usize, Option<i128>)| {
        sum.map(|sum| {
            N::try_from(sum).unwrap_or_else(|_| {
                without.push(NoResult { group, reason: format!("the sum {sum} does not fit into 64 bits") });
                N::default()
            })
        })
    };
    sums.iter().enumerate().map(&mut narrowed).collect()
}
