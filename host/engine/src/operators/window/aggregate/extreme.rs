//! `min` and `max` of a column of any type that has an order.
//!
//! The order is that of keys: numbers by value (NaN above all, −0.0 below 0.0), text by its bytes, false before true.

use std::{cmp::Ordering, sync::Arc};

use arrow_array::{Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, PrimitiveArray, cast::AsArray, downcast_primitive_array};
use arrow_buffer::NullBuffer;
use arrow_ord::ord::{DynComparator, make_comparator};
use arrow_schema::{DataType, SortOptions};
use arrow_select::interleave::interleave;
use millstream_model::Batch;

use super::{
    BuiltIn, Grouping, NoResult,
    sum::{nulls_of, seen_of, values_or_default},
};

/// Which end of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The least value.
    Least,
    /// The greatest value.
    Greatest,
}

impl Side {
    /// Whether a value that compares as `ordering` to the best so far takes its place; an equal one does not.
    #[inline]
    pub fn wins(self, ordering: Ordering) -> bool {
        match self {
            Self::Least => ordering == Ordering::Less,
            Self::Greatest => ordering == Ordering::Greater,
        }
    }
}

/// The least or greatest value of a column; null if no row has a value. The accumulator is the value.
#[derive(Debug)]
pub struct Extreme {
    column: usize,
    side: Side,
    data_type: DataType,
    nullable: bool,
}

impl Extreme {
    /// The extreme of column `column`; none if its type has no order.
    pub fn new(side: Side, column: usize, data_type: &DataType, nullable: bool) -> Option<Self> {
        has_order(data_type).then(|| Self { column, side, data_type: data_type.clone(), nullable })
    }

    fn fold(&self, values: &ArrayRef, grouping: Grouping<'_>, into: &ArrayRef) -> ArrayRef {
        let offered: &dyn Array = values.as_ref();
        downcast_primitive_array! {
            offered => self.fold_primitive(offered, grouping, into.as_primitive()),
            _ => {
                let winners = winners_by_comparison(into, values, grouping, |ordering| self.side.wins(ordering));
                pick(into, values, &winners)
            }
        }
    }

    fn fold_primitive<T: ArrowPrimitiveType>(
        &self,
        values: &PrimitiveArray<T>,
        grouping: Grouping<'_>,
        into: &PrimitiveArray<T>,
    ) -> ArrayRef {
        let (mut best, mut seen) = (values_or_default::<T>(into), seen_of(into));
        if let (Grouping::Runs(runs), None) = (grouping, values.nulls().filter(|nulls| nulls.null_count() > 0)) {
            for run in runs {
                let Some(value) = extreme_of::<T::Native>(self.side, &values.values()[run.rows.clone()]) else { continue };
                if !seen[run.group] || self.side.wins(value.compare(best[run.group])) {
                    (best[run.group], seen[run.group]) = (value, true);
                }
            }
        } else {
            let side = self.side;
            let values_of = values.values();
            grouping.for_each_valid(values.nulls(), |row, group| {
                if !seen[group] || side.wins(values_of[row].compare(best[group])) {
                    (best[group], seen[group]) = (values_of[row], true);
                }
            });
        }
        Arc::new(PrimitiveArray::<T>::new(best.into(), nulls_of(&seen)).with_data_type(self.data_type.clone()))
    }
}

impl BuiltIn for Extreme {
    fn accumulator_type(&self) -> DataType {
        self.data_type.clone()
    }

    fn output(&self) -> (DataType, bool) {
        (self.data_type.clone(), self.nullable)
    }

    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef {
        self.fold(batch.column(self.column), grouping, accumulators)
    }

    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef {
        self.fold(other, Grouping::Rows(into_of_other), into)
    }

    fn finish(&self, accumulators: &ArrayRef, _without: &mut Vec<NoResult>) -> ArrayRef {
        Arc::clone(accumulators)
    }
}

/// Whether values of this type can be compared.
pub fn has_order(data_type: &DataType) -> bool {
    use DataType as D;
    data_type.is_primitive()
        || matches!(data_type, D::Boolean | D::Utf8 | D::LargeUtf8 | D::Binary | D::LargeBinary | D::FixedSizeBinary(_))
}

/// The extreme of a slice without nulls; none if it is empty.
pub(super) fn extreme_of<N: ArrowNativeTypeOp>(side: Side, values: &[N]) -> Option<N> {
    let (&first, rest) = values.split_first()?;
    // Two loops that differ in one operator, so that each is a plain reduction that the compiler makes into vector code.
    Some(match side {
        Side::Least => rest.iter().fold(first, |best, &value| if value.is_lt(best) { value } else { best }),
        Side::Greatest => rest.iter().fold(first, |best, &value| if value.is_gt(best) { value } else { best }),
    })
}

/// Who holds each group: a row, or [`KEPT`].
pub(super) type Winners = Vec<u32>;

/// The accumulator of the group stays as it is.
pub(super) const KEPT: u32 = u32::MAX;

/// The row that takes each group, if `wins` says that a later value which compares like this to the best so far does. A null never wins,
/// anything wins over a null accumulator.
pub(super) fn winners_by_comparison(
    into: &ArrayRef,
    values: &ArrayRef,
    grouping: Grouping<'_>,
    wins: impl Fn(Ordering) -> bool,
) -> Winners {
    let compare = |left: &ArrayRef, right: &ArrayRef| -> DynComparator {
        make_comparator(left, right, SortOptions::default()).expect("the type was found to have an order when the job was planned")
    };
    let (with_into, with_row) = (compare(values, into), compare(values, values));
    let mut winners = vec![KEPT; into.len()];
    let empty = |group: usize| into.is_null(group);
    let nulls: Option<NullBuffer> = values.logical_nulls();
    grouping.for_each_valid(nulls.as_ref(), |row, group| {
        let better = match winners[group] {
            KEPT => empty(group) || wins(with_into(row, group)),
            best => wins(with_row(row, best as usize)),
        };
        if better {
            winners[group] = row as u32;
        }
    });
    winners
}

/// The accumulators after their winners took their places.
pub(super) fn pick(into: &ArrayRef, values: &ArrayRef, winners: &[u32]) -> ArrayRef {
    let place = |(group, &winner): (usize, &u32)| if winner == KEPT { (0, group) } else { (1, winner as usize) };
    let places: Vec<(usize, usize)> = winners.iter().enumerate().map(place).collect();
    interleave(&[into.as_ref(), values.as_ref()], &places).expect("both have the accumulator's type")
}
