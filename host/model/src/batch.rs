//! The batch: the unit of everything that crosses a boundary.

use std::{ops::Range, sync::Arc};

use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{ArrowError, SchemaRef};

use crate::time::EventTime;

/// What a row does to the table that a changelog stream describes; the numbers are Flink's RowKind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChangeKind {
    /// The row is new.
    Insert = 0,
    /// The old content of a row that the next row updates. Upsert streams leave these out.
    UpdateBefore = 1,
    /// The new content of a row.
    UpdateAfter = 2,
    /// The row is gone.
    Delete = 3,
}

impl ChangeKind {
    /// The kind with number `byte`; none above 3.
    pub fn from_byte(byte: u8) -> Option<Self> {
        [Self::Insert, Self::UpdateBefore, Self::UpdateAfter, Self::Delete].get(usize::from(byte)).copied()
    }
}

/// Where the rows of a batch come from: a split of a source and a position in it for each row.
/// Known as far as each row comes from one row of one split: where batches of several splits were put into one, it is not known any more.
#[derive(Clone, Debug, PartialEq)]
pub struct Origin {
    /// The split, as the source names it (a path, a topic and partition).
    pub split: Arc<str>,
    /// The position of each row.
    pub positions: Positions,
}

/// Positions in a split, one per row: a line, row or record number starting at 0, as the source documents it.
#[derive(Clone, Debug, PartialEq)]
pub enum Positions {
    /// Row i is at this + i.
    From(u64),
    /// Row i is at the i-th.
    Each(ScalarBuffer<u64>),
}

impl Positions {
    /// The position of row `row`.
    pub fn of(&self, row: usize) -> u64 {
        match self {
            Self::From(first) => first + row as u64,
            Self::Each(positions) => positions[row],
        }
    }

    /// The position of row `row`, which may be beyond the last.
    pub fn get(&self, row: usize) -> Option<u64> {
        match self {
            Self::From(first) => first.checked_add(row as u64),
            Self::Each(positions) => positions.get(row).copied(),
        }
    }

    fn slice(&self, rows: Range<usize>) -> Self {
        match self {
            Self::From(first) => Self::From(first + rows.start as u64),
            Self::Each(positions) => Self::Each(positions.slice(rows.start, rows.len())),
        }
    }

    fn take(&self, rows: &[u32]) -> Self {
        Self::Each(rows.iter().map(|&row| self.of(row as usize)).collect())
    }
}

/// Rows in columns, with their event times and changes. Cheap to clone: all parts are shared.
///
/// Invariant: `event_times`, `changes` and `origin` have one entry per row.
#[derive(Clone, Debug)]
pub struct Batch {
    columns: RecordBatch,
    event_times: Option<ScalarBuffer<i64>>,
    changes: Option<ScalarBuffer<u8>>,
    origin: Option<Origin>,
}

impl Batch {
    /// Rows without event times; all are inserts.
    pub fn new(columns: RecordBatch) -> Self {
        Self { columns, event_times: None, changes: None, origin: None }
    }

    /// A batch of `rows` rows of `schema`; `columns` may be empty when the schema is.
    ///
    /// # Errors
    /// The columns do not fit the schema or the row count.
    pub fn try_new(schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<Self, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(schema, columns, &options).map(Self::new)
    }

    /// The same rows with these event times (ms since epoch), one per row.
    ///
    /// # Panics
    /// The count differs from the row count.
    pub fn with_event_times(mut self, event_times: Option<ScalarBuffer<i64>>) -> Self {
        assert!(event_times.as_ref().is_none_or(|times| times.len() == self.num_rows()), "one event time per row");
        self.event_times = event_times;
        self
    }

    /// The same rows with these [`ChangeKind`] bytes, one per row; none: all inserts.
    ///
    /// # Panics
    /// The count differs from the row count.
    pub fn with_changes(mut self, changes: Option<ScalarBuffer<u8>>) -> Self {
        assert!(changes.as_ref().is_none_or(|changes| changes.len() == self.num_rows()), "one change per row");
        self.changes = changes;
        self
    }

    /// The same rows, known to come from `origin`.
    pub fn with_origin(mut self, origin: Option<Origin>) -> Self {
        self.origin = origin;
        self
    }

    /// The same event times, changes and origin with other columns.
    ///
    /// # Errors
    /// The columns do not fit the schema or the row count.
    pub fn with_columns(&self, schema: SchemaRef, columns: Vec<ArrayRef>) -> Result<Self, ArrowError> {
        let options = RecordBatchOptions::new().with_row_count(Some(self.num_rows()));
        let columns = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(Self { columns, ..self.clone() })
    }

    /// The columns.
    pub fn columns(&self) -> &RecordBatch {
        &self.columns
    }

    /// One column.
    pub fn column(&self, index: usize) -> &ArrayRef {
        self.columns.column(index)
    }

    /// The schema of the columns.
    pub fn schema(&self) -> SchemaRef {
        self.columns.schema()
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.columns.num_rows()
    }

    /// Event times in ms since epoch, one per row; none on a stream without event time.
    pub fn event_times(&self) -> Option<&ScalarBuffer<i64>> {
        self.event_times.as_ref()
    }

    /// The event time of row `row`, if the stream has event times.
    pub fn event_time(&self, row: usize) -> Option<EventTime> {
        self.event_times.as_ref().map(|times| EventTime(times[row]))
    }

    /// [`ChangeKind`] bytes, one per row; none: all inserts.
    pub fn changes(&self) -> Option<&ScalarBuffer<u8>> {
        self.changes.as_ref()
    }

    /// Where the rows come from, if known.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Memory held, in bytes; shared buffers are counted in full.
    pub fn memory_bytes(&self) -> usize {
        self.columns.get_array_memory_size()
            + self.event_times.as_ref().map_or(0, |times| times.len() * 8)
            + self.changes.as_ref().map_or(0, |changes| changes.len())
    }

    /// Rows `rows`, without copying.
    pub fn slice(&self, rows: Range<usize>) -> Self {
        let (start, count) = (rows.start, rows.len());
        Self {
            columns: self.columns.slice(start, count),
            event_times: self.event_times.as_ref().map(|times| times.slice(start, count)),
            changes: self.changes.as_ref().map(|changes| changes.slice(start, count)),
            origin: self.origin.as_ref().map(|origin| Origin { split: origin.split.clone(), positions: origin.positions.slice(rows) }),
        }
    }

    /// The rows with these numbers, in this order; a row may be taken more than once.
    ///
    /// # Panics
    /// A number is out of range.
    pub fn take(&self, rows: &[u32]) -> Self {
        let indices = UInt32Array::from(rows.to_vec());
        let columns = self.columns.columns().iter().map(|column| take_column(column, &indices)).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let columns =
            RecordBatch::try_new_with_options(self.schema(), columns, &options).expect("gathered columns keep their types and lengths");
        Self {
            columns,
            event_times: self.event_times.as_ref().map(|times| rows.iter().map(|&row| times[row as usize]).collect()),
            changes: self.changes.as_ref().map(|changes| rows.iter().map(|&row| changes[row as usize]).collect()),
            origin: self.origin.as_ref().map(|origin| Origin { split: origin.split.clone(), positions: origin.positions.take(rows) }),
        }
    }

    /// Only these columns, in this order.
    ///
    /// # Panics
    /// A number is out of range.
    pub fn project(&self, columns: &[usize]) -> Self {
        Self { columns: self.columns.project(columns).expect("projected columns exist"), ..self.clone() }
    }

    /// All rows of `batches`, in order. They have one schema; event times and changes are kept if any batch has them
    /// (missing changes are inserts), the origin only if it is one split.
    ///
    /// # Errors
    /// The schemas differ, or only some batches have event times.
    pub fn concat(batches: &[Self]) -> Result<Self, ArrowError> {
        let [first, rest @ ..] = batches else {
            return Err(ArrowError::InvalidArgumentError("no batch to concatenate".into()));
        };
        if rest.is_empty() {
            return Ok(first.clone());
        }
        let columns = arrow_select::concat::concat_batches(&first.schema(), batches.iter().map(|batch| &batch.columns))?;
        let rows = columns.num_rows();
        let timed = batches.iter().filter(|batch| batch.event_times.is_some()).count();
        if timed != 0 && timed != batches.len() {
            return Err(ArrowError::InvalidArgumentError("only some batches have event times".into()));
        }
        let event_times =
            (timed != 0).then(|| batches.iter().flat_map(|batch| batch.event_times.iter().flat_map(|t| t.iter().copied())).collect());
        let changes = batches.iter().any(|batch| batch.changes.is_some()).then(|| concat_changes(batches, rows));
        Ok(Self { columns, event_times, changes, origin: concat_origins(batches, rows) })
    }
}

fn concat_origins(batches: &[Batch], rows: usize) -> Option<Origin> {
    let split = &batches.first()?.origin.as_ref()?.split;
    let mut positions = Vec::with_capacity(rows);
    for batch in batches {
        let origin = batch.origin.as_ref().filter(|origin| origin.split == *split)?;
        match &origin.positions {
            Positions::From(first) => positions.extend((*first..).take(batch.num_rows())),
            Positions::Each(each) => positions.extend_from_slice(each),
        }
    }
    Some(Origin { split: split.clone(), positions: Positions::Each(positions.into()) })
}

fn concat_changes(batches: &[Batch], rows: usize) -> ScalarBuffer<u8> {
    let mut all = Vec::with_capacity(rows);
    for batch in batches {
        match &batch.changes {
            Some(changes) => all.extend_from_slice(changes),
            None => all.resize(all.len() + batch.num_rows(), ChangeKind::Insert as u8),
        }
    }
    all.into()
}

fn take_column(column: &dyn Array, indices: &UInt32Array) -> ArrayRef {
    arrow_select::take::take(column, indices, None).expect("row numbers are in range")
}

#[cfg(test)]
mod tests {
    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};

    use super::*;

    fn batch(values: &[i64]) -> Batch {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        Batch::try_new(schema, vec![Arc::new(Int64Array::from(values.to_vec()))], values.len())
            .expect("one column fits the schema")
            .with_event_times(Some(values.to_vec().into()))
    }

    fn times(batch: &Batch) -> Vec<i64> {
        batch.event_times().expect("timed").to_vec()
    }

    #[test]
    fn taking_rows_gathers_times_changes_and_positions_too() {
        let origin = Origin { split: "file".into(), positions: Positions::From(100) };
        let taken = batch(&[1, 2, 3]).with_changes(Some(vec![0, 2, 3].into())).with_origin(Some(origin)).take(&[2, 0]);
        assert_eq!(times(&taken), [3, 1]);
        assert_eq!(taken.changes().expect("kept")[..], [3, 0]);
        assert_eq!(taken.origin().expect("kept").positions.of(0), 102);
    }

    #[test]
    fn a_slice_keeps_the_positions_of_its_rows() {
        let origin = Origin { split: "file".into(), positions: Positions::From(7) };
        let slice = batch(&[1, 2, 3]).with_origin(Some(origin)).slice(1..3);
        assert_eq!(times(&slice), [2, 3]);
        assert_eq!(slice.origin().expect("kept").positions.of(1), 9);
    }

    #[test]
    fn concatenated_batches_without_changes_are_inserts() {
        let all = Batch::concat(&[batch(&[1]), batch(&[2, 3]).with_changes(Some(vec![3, 2].into()))]).expect("one schema");
        assert_eq!(times(&all), [1, 2, 3]);
        assert_eq!(all.changes().expect("kept")[..], [0, 3, 2]);
    }

    #[test]
    fn concatenated_batches_of_one_split_keep_the_positions_of_their_rows_and_others_have_none() {
        let of = |split: &str, values: &[i64], first| {
            batch(values).with_origin(Some(Origin { split: split.into(), positions: Positions::From(first) }))
        };
        let all = Batch::concat(&[of("a", &[1, 2, 3], 10).take(&[2, 0]), of("a", &[4, 5], 20)]).expect("one schema");
        let origin = all.origin().expect("one split");
        assert_eq!((0..4).map(|row| origin.positions.of(row)).collect::<Vec<_>>(), [12, 10, 20, 21]);
        assert_eq!((origin.positions.get(3), origin.positions.get(4)), (Some(21), None));
        assert_eq!(Batch::concat(&[of("a", &[1], 1), of("b", &[2], 2)]).expect("one schema").origin(), None);
        assert_eq!(Batch::concat(&[of("a", &[1], 1), batch(&[2])]).expect("one schema").origin(), None);
    }

    #[test]
    fn a_batch_without_columns_has_rows() {
        let empty = Batch::try_new(Arc::new(Schema::empty()), vec![], 5).expect("a row count is enough");
        assert_eq!(empty.take(&[0, 4]).num_rows(), 2);
    }
}
