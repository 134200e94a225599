//! Result rows: key columns, the window, one column per aggregate; plain or as a changelog.

use std::{cmp::Ordering, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, StructArray, TimestampMillisecondArray, cast::AsArray};
use arrow_buffer::{BooleanBuffer, BooleanBufferBuilder};
use arrow_ord::ord::{DynComparator, make_comparator};
use arrow_schema::{DataType, Field, Fields, SchemaRef, SortOptions, TimeUnit};
use millstream_model::{Batch, ChangeKind, key::decode_keys};

use super::aggregate::{NoResult, set::Finished};
use crate::{
    operator::{OperatorError, Output},
    operators::arrays::take_rows,
    rejected::Rejection,
};

/// The column with the start of the window.
pub const WINDOW_START: &str = "window_start";
/// The column with the end of the window, the first ms after it.
pub const WINDOW_END: &str = "window_end";

/// Rows of an emitted batch, at most.
const ROWS_MAX: usize = 8_192;

/// The type of the window columns.
pub fn window_column(name: &str) -> Field {
    Field::new(name, DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), false)
}

/// Which columns result rows have.
#[derive(Debug)]
pub struct ResultShape {
    /// All columns: keys, window, aggregates.
    pub schema: SchemaRef,
    /// The types of the key columns, which come first.
    pub key_types: Vec<DataType>,
    /// Whether the window columns follow.
    pub has_window: bool,
    /// Whether result rows have event times.
    pub event_times: bool,
}

/// Where result rows lie in time, one entry per row.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// Starts of the windows.
    pub starts: Vec<i64>,
    /// Ends of the windows.
    pub ends: Vec<i64>,
    /// Event times of the results.
    pub event_times: Vec<i64>,
}

impl Spans {
    /// Adds a window of time: its result has event time end − 1.
    pub fn push(&mut self, start: i64, end: i64) {
        self.starts.push(start);
        self.ends.push(end);
        self.event_times.push(end - 1);
    }

    /// The same window `count` times.
    pub fn repeat(start: i64, end: i64, count: usize) -> Self {
        Self { starts: vec![start; count], ends: vec![end; count], event_times: vec![end - 1; count] }
    }
}

impl ResultShape {
    /// The aggregate columns as one struct: what is remembered of an emitted result.
    pub fn emitted_type(&self) -> DataType {
        DataType::Struct(self.aggregate_fields())
    }

    fn first_aggregate(&self) -> usize {
        self.key_types.len() + if self.has_window { 2 } else { 0 }
    }

    fn aggregate_fields(&self) -> Fields {
        self.schema.fields().iter().skip(self.first_aggregate()).cloned().collect()
    }

    /// Result rows of these encoded keys.
    ///
    /// # Errors
    /// The key bytes or the columns are not of the planned types.
    pub fn rows<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        spans: Spans,
        aggregates: Vec<ArrayRef>,
    ) -> Result<Batch, OperatorError> {
        let damaged = |error| OperatorError::internal("the keys of window results cannot be read").because(error);
        let mut columns = if self.key_types.is_empty() { Vec::new() } else { decode_keys(&self.key_types, keys).map_err(damaged)? };
        let rows = spans.event_times.len();
        if self.has_window {
            let column = |times: Vec<i64>| -> ArrayRef { Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC")) };
            columns.extend([column(spans.starts), column(spans.ends)]);
        }
        columns.extend(aggregates);
        let batch = Batch::try_new(Arc::clone(&self.schema), columns, rows);
        let batch = batch.map_err(|error| OperatorError::internal("window results are not of the planned types").because(error))?;
        Ok(batch.with_event_times(self.event_times.then(|| spans.event_times.into())))
    }

    /// Emits complete results; those without a result are rejected.
    pub fn emit(&self, results: &Batch, without: &[NoResult], out: &mut Output) {
        self.reject(results, without, out);
        if without.is_empty() {
            return emit_in_slices(results, out);
        }
        let mut missing = without.iter().map(|missing| missing.group).peekable();
        let rows: Vec<u32> =
            (0..results.num_rows() as u32).filter(|&row| missing.next_if(|&missing| missing == row as usize).is_none()).collect();
        emit_in_slices(&results.take(&rows), out);
    }

    /// Emits what differs from what was emitted before (`before`: one struct of aggregate columns per result, null = nothing): an insertion,
    /// or an update in two rows, or a deletion where there no longer is a result. Returns what is now emitted, and where that is new.
    pub fn emit_changes(&self, results: &Batch, without: &[NoResult], before: &StructArray, out: &mut Output) -> NowEmitted {
        self.reject(results, without, out);
        let count = results.num_rows();
        let now = self.aggregates_of(results, without);
        let old_rows: Vec<u32> = (0..count as u32).filter(|&row| before.is_valid(row as usize)).collect();
        let old = self.with_aggregates(&results.take(&old_rows), &take_rows(&(Arc::new(before.clone()) as ArrayRef), &old_rows));
        let same = comparators(&now, before);
        let mut old_number = 0;
        let (mut rows, mut kinds) = (Vec::new(), Vec::new());
        let mut changed = BooleanBufferBuilder::new(count);
        for row in 0..count {
            let (is_new, was_old) = (now.is_valid(row), before.is_valid(row));
            let differs = match (is_new, was_old) {
                (true, true) => !same.iter().all(|same| same(row, row) == Ordering::Equal),
                (is_new, was_old) => is_new || was_old,
            };
            changed.append(differs);
            if differs && was_old {
                rows.push((count + old_number) as u32);
                kinds.push(if is_new { ChangeKind::UpdateBefore } else { ChangeKind::Delete } as u8);
            }
            if differs && is_new {
                rows.push(row as u32);
                kinds.push(if was_old { ChangeKind::UpdateAfter } else { ChangeKind::Insert } as u8);
            }
            old_number += usize::from(was_old);
        }
        let both = Batch::concat(&[results.clone(), old]).expect("both are of the result schema and have event times or both have none");
        emit_in_slices(&both.take(&rows).with_changes(Some(kinds.into())), out);
        NowEmitted { changed: changed.finish(), values: now }
    }

    /// Takes back emitted results; `results` has their keys and windows.
    pub fn emit_deletions(&self, results: &Batch, emitted: &ArrayRef, out: &mut Output) {
        let deletions = self.with_aggregates(results, emitted);
        let kinds = vec![ChangeKind::Delete as u8; deletions.num_rows()];
        emit_in_slices(&deletions.with_changes(Some(kinds.into())), out);
    }

    /// The aggregate columns of results as structs, null where there is no result.
    pub fn aggregates_of(&self, results: &Batch, without: &[NoResult]) -> StructArray {
        let columns = results.columns().columns()[self.first_aggregate()..].to_vec();
        let nulls = (!without.is_empty()).then(|| {
            let mut valid = vec![true; results.num_rows()];
            without.iter().for_each(|missing| valid[missing.group] = false);
            valid.into()
        });
        StructArray::new(self.aggregate_fields(), columns, nulls)
    }

    fn with_aggregates(&self, results: &Batch, aggregates: &ArrayRef) -> Batch {
        let mut columns = results.columns().columns()[..self.first_aggregate()].to_vec();
        columns.extend(aggregates.as_struct().columns().iter().cloned());
        results.with_columns(Arc::clone(&self.schema), columns).expect("emitted results were of the result schema")
    }

    fn reject(&self, results: &Batch, without: &[NoResult], out: &mut Output) {
        let named: Vec<usize> = (0..self.first_aggregate()).collect();
        for missing in without {
            out.reject(Rejection::of_row(results, missing.group, &named, missing.reason.clone()));
        }
    }
}

/// What is emitted after [`ResultShape::emit_changes`].
pub struct NowEmitted {
    /// Where it differs from before.
    pub changed: BooleanBuffer,
    /// One struct of aggregate columns per result; null: nothing.
    pub values: StructArray,
}

/// Results as a batch with what is missing in it.
pub struct Results {
    /// The rows, with anything where there is no result.
    pub rows: Batch,
    /// Which rows have no result.
    pub without: Vec<NoResult>,
}

impl ResultShape {
    /// As [`Self::rows`], of finished aggregates.
    ///
    /// # Errors
    /// As [`Self::rows`].
    pub fn results<'k>(
        &self,
        keys: impl IntoIterator<Item = &'k [u8]>,
        spans: Spans,
        finished: Finished,
    ) -> Result<Results, OperatorError> {
        Ok(Results { rows: self.rows(keys, spans, finished.columns)?, without: finished.without })
    }
}

fn emit_in_slices(results: &Batch, out: &mut Output) {
    let mut start = 0;
    while start < results.num_rows() {
        let mut end = results.num_rows().min(start + ROWS_MAX);
        // The two rows of an update stay in one batch.
        if end < results.num_rows() && results.changes().is_some_and(|changes| changes[end] == ChangeKind::UpdateAfter as u8) {
            end -= 1;
        }
        out.emit(0, results.slice(start..end));
        start = end;
    }
}

/// Comparators of the fields of two structs. Types that cannot be compared have a comparator that finds no two values equal, so that their
/// results are emitted again.
fn comparators(left: &StructArray, right: &StructArray) -> Vec<DynComparator> {
    let columns = left.columns().iter().zip(right.columns());
    let comparator = |(left, right): (&ArrayRef, &ArrayRef)| {
        make_comparator(left, right, SortOptions::default()).unwrap_or_else(|_| Box::new(|_, _| Ordering::Less))
    };
    columns.map(comparator).collect()
}

/// The columns of a batch that make its key.
pub fn key_columns(batch: &RecordBatch, keys: &[usize]) -> Vec<ArrayRef> {
    keys.iter().map(|&column| Arc::clone(batch.column(column))).collect()
}
