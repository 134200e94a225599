//! `first`, `last`, `max-by`, `min-by`: columns of one row of the window, picked by an order.

use std::{cmp::Ordering, sync::Arc};

use arrow_array::{
    Array, ArrayRef, ArrowNativeTypeOp, ArrowPrimitiveType, Int64Array, PrimitiveArray, StructArray, cast::AsArray,
    downcast_primitive_array,
};
use arrow_schema::{DataType, Field, FieldRef, Fields};
use millstream_model::Batch;

use super::{
    BuiltIn, Grouping, NoResult,
    extreme::{KEPT, Side, Winners, extreme_of, has_order, pick, winners_by_comparison},
    sum::{seen_of, values_or_default},
};

/// Which row is picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The earliest; of several at one time the one that arrived first.
    First,
    /// The latest; of several at one time the one that arrived last.
    Last,
    /// The one with the extreme value of a column; of several the one that arrived first.
    Column(Side, usize),
}

impl By {
    #[inline]
    fn wins(self, ordering: Ordering) -> bool {
        match self {
            Self::First => ordering == Ordering::Less,
            Self::Last => ordering != Ordering::Less,
            Self::Column(side, _) => side.wins(ordering),
        }
    }
}

/// Columns of the picked row; null if no row can be picked (all are null in the column that orders them). The accumulator is a struct of
/// the value that orders and the columns.
#[derive(Debug)]
pub struct Pick {
    by: By,
    by_field: FieldRef,
    columns: Vec<usize>,
    fields: Fields,
    /// Several columns come out as a struct, a single one as it is.
    as_struct: bool,
}

impl Pick {
    /// Picks `columns` of the row that `by` says; none if the column that orders has no order.
    pub fn new(by: By, columns: Vec<usize>, as_struct: bool, schema: &arrow_schema::Schema) -> Option<Self> {
        let by_field = match by {
            By::First | By::Last => Field::new("by", DataType::Int64, false),
            By::Column(_, column) => Field::new("by", schema.field(column).data_type().clone(), schema.field(column).is_nullable()),
        };
        let fields = columns.iter().map(|&column| Arc::clone(&schema.fields()[column])).collect();
        has_order(by_field.data_type()).then(|| Self { by, by_field: by_field.into(), columns, fields, as_struct })
    }

    /// Accumulator fields: the value that orders, then the columns under names that cannot clash with it.
    fn accumulator_fields(&self) -> Fields {
        let plain =
            |(index, field): (usize, &FieldRef)| Field::new(format!("value{index}"), field.data_type().clone(), field.is_nullable());
        let by = Field::new("by", self.by_field.data_type().clone(), false);
        std::iter::once(by).chain(self.fields.iter().enumerate().map(plain)).collect()
    }

    /// The rows of a batch as accumulators of one row each; nothing is copied. Rows that cannot be picked are null.
    fn rows_as_accumulators(&self, batch: &Batch) -> ArrayRef {
        let by: ArrayRef = match self.by {
            By::Column(_, column) => Arc::clone(batch.column(column)),
            By::First | By::Last => match batch.event_times() {
                Some(times) => Arc::new(Int64Array::new(times.clone(), None)),
                // Without event times arrival alone decides.
                None => Arc::new(Int64Array::from(vec![0; batch.num_rows()])),
            },
        };
        let nulls = by.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        let columns = std::iter::once(by).chain(self.columns.iter().map(|&column| Arc::clone(batch.column(column)))).collect();
        Arc::new(StructArray::new(self.accumulator_fields(), columns, nulls))
    }

    fn fold(&self, rows: &ArrayRef, grouping: Grouping<'_>, into: &ArrayRef) -> ArrayRef {
        let (into_by, rows_by) = (by_of(into), by_of(rows));
        let offered: &dyn Array = rows_by.as_ref();
        let winners = downcast_primitive_array! {
            offered => primitive_winners(self.by, offered, grouping, into_by.as_primitive()),
            _ => winners_by_comparison(&into_by, &rows_by, grouping, |ordering| self.by.wins(ordering)),
        };
        pick(into, rows, &winners)
    }
}

impl BuiltIn for Pick {
    fn accumulator_type(&self) -> DataType {
        DataType::Struct(self.accumulator_fields())
    }

    fn output(&self) -> (DataType, bool) {
        let without_row = self.by_field.is_nullable();
        if self.as_struct {
            return (DataType::Struct(self.fields.clone()), without_row);
        }
        (self.fields[0].data_type().clone(), without_row || self.fields[0].is_nullable())
    }

    fn accumulate(&self, batch: &Batch, grouping: Grouping<'_>, accumulators: &ArrayRef) -> ArrayRef {
        self.fold(&self.rows_as_accumulators(batch), grouping, accumulators)
    }

    fn merge(&self, into: &ArrayRef, other: &ArrayRef, into_of_other: &[u32]) -> ArrayRef {
        self.fold(other, Grouping::Rows(into_of_other), into)
    }

    fn finish(&self, accumulators: &ArrayRef, _without: &mut Vec<NoResult>) -> ArrayRef {
        let picked = accumulators.as_struct();
        if self.as_struct {
            return Arc::new(StructArray::new(self.fields.clone(), picked.columns()[1..].to_vec(), picked.nulls().cloned()));
        }
        with_nulls_of(picked, 1)
    }
}

/// The values that order, null where the whole accumulator is.
fn by_of(accumulators: &ArrayRef) -> ArrayRef {
    with_nulls_of(accumulators.as_struct(), 0)
}

/// A field of a struct, null also where the struct is.
fn with_nulls_of(structs: &StructArray, index: usize) -> ArrayRef {
    let column = structs.column(index);
    if structs.nulls().is_none() {
        return Arc::clone(column);
    }
    let nulls = arrow_buffer::NullBuffer::union(structs.nulls(), column.nulls());
    let data = column.to_data().into_builder().nulls(nulls).build().expect("only the nulls are other, and there is one per value");
    arrow_array::make_array(data)
}

fn primitive_winners<T: ArrowPrimitiveType>(by: By, rows: &PrimitiveArray<T>, grouping: Grouping<'_>, into: &PrimitiveArray<T>) -> Winners {
    let (mut best, mut seen) = (values_or_default::<T>(into), seen_of(into));
    let mut winners = vec![KEPT; into.len()];
    let values = rows.values();
    let mut offer = |row: usize, value: T::Native, group: usize| {
        if !seen[group] || by.wins(value.compare(best[group])) {
            (best[group], seen[group], winners[group]) = (value, true, row as u32);
        }
    };
    match (grouping, by) {
        (Grouping::Runs(runs), By::Column(side, _)) if rows.null_count() == 0 => {
            for run in runs {
                let slice = &values[run.rows.clone()];
                if let Some(value) = extreme_of(side, slice) {
                    let first = slice.iter().position(|other| other.is_eq(value)).expect("the extreme is one of the values");
                    offer(run.rows.start + first, value, run.group);
                }
            }
        }
        _ => grouping.for_each_valid(rows.nulls(), |row, group| offer(row, values[row], group)),
    }
    winners
}
