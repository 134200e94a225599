//! From records to columns: those of the value, decoded, and beside them what Kafka says of each record.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, RecordBatch, RecordBatchOptions, UInt32Array,
    builder::{
        ArrayBuilder, BinaryBuilder, Int32Builder, Int64Builder, ListBuilder, StringBuilder, StructBuilder, TimestampMillisecondBuilder,
    },
};
use arrow_buffer::ScalarBuffer;
use arrow_schema::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use millstream_engine::{connector::SettingsProblem, rejected::Rejection};
use millstream_model::{Batch, ChangeKind, Origin, Positions};
use rdkafka::{
    Message as _,
    message::{BorrowedMessage, Headers as _},
};

use crate::{
    formats::records::{BadValue, ValueDecoder, ValueLayout, Values},
    kafka::settings::{Changes, KeyFormat, SourceSettings, Tombstones},
    settings::problem,
};

/// What a column beside the value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Key(KeyFormat),
    Headers,
    Timestamp,
    Topic,
    Partition,
    Offset,
}

impl Kind {
    fn data_type(self) -> DataType {
        match self {
            Self::Key(KeyFormat::String) | Self::Topic => DataType::Utf8,
            Self::Key(KeyFormat::Raw) => DataType::Binary,
            Self::Headers => DataType::List(Arc::new(Field::new("item", DataType::Struct(header_fields()), false))),
            Self::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::Partition => DataType::Int32,
            Self::Offset => DataType::Int64,
        }
    }

    fn is_nullable(self) -> bool {
        matches!(self, Self::Key(_) | Self::Timestamp)
    }
}

fn header_fields() -> Fields {
    vec![Field::new("name", DataType::Utf8, false), Field::new("value", DataType::Binary, true)].into()
}

/// The columns of a source: those of the value, then those beside it.
pub(super) struct Layout {
    values: ValueLayout,
    kinds: Vec<Kind>,
    schema: SchemaRef,
    tombstones: OnTombstone,
}

impl Layout {
    /// # Errors
    /// Two columns have the same name.
    pub(super) fn new(settings: &SourceSettings, values: ValueLayout) -> Result<Self, Vec<SettingsProblem>> {
        let metadata = &settings.metadata;
        let asked = [
            ("key", Kind::Key(settings.key_format), &metadata.key),
            ("headers", Kind::Headers, &metadata.headers),
            ("timestamp", Kind::Timestamp, &metadata.timestamp),
            ("topic", Kind::Topic, &metadata.topic),
            ("partition", Kind::Partition, &metadata.partition),
            ("offset", Kind::Offset, &metadata.offset),
        ];
        let mut fields: Vec<Arc<Field>> = values.schema().fields().iter().cloned().collect();
        let (mut kinds, mut problems) = (Vec::new(), Vec::new());
        for (place, kind, name) in asked.into_iter().filter_map(|(place, kind, name)| Some((place, kind, name.as_ref()?))) {
            if fields.iter().any(|field| field.name() == name) {
                problems.push(problem(&format!("metadata.{place}"), format!("there is a column {name} already")));
            }
            fields.push(Arc::new(Field::new(name, kind.data_type(), kind.is_nullable())));
            kinds.push(kind);
        }
        let tombstones = match (settings.changes, settings.tombstones()) {
            (Changes::Upsert, _) => OnTombstone::Delete,
            (_, Tombstones::Skip) => OnTombstone::Skip,
            (_, Tombstones::Reject) => OnTombstone::Reject,
        };
        let never_null = values.schema().fields().iter().filter(|field| tombstones == OnTombstone::Delete && !field.is_nullable());
        problems.extend(never_null.map(|field| {
            let text = format!("a record without value deletes a row, and column {} is null then: declare it with `?`", field.name());
            problem("changes", text)
        }));
        let schema = Arc::new(Schema::new(fields));
        if problems.is_empty() { Ok(Self { values, kinds, schema, tombstones }) } else { Err(problems) }
    }

    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// A decoder for these columns.
    ///
    /// # Errors
    /// The format cannot hold them; a clause.
    pub(super) fn decoder(&self, columns: &[usize]) -> Result<Decoder, String> {
        let of_value = self.values.schema().fields().len();
        let wanted: Vec<usize> = columns.iter().copied().filter(|&column| column < of_value).collect();
        let mut beside = Vec::new();
        let mut from_value = 0..;
        let places = columns.iter().map(|&column| {
            if column < of_value {
                return Place::Value(from_value.next().expect("there is always a next number"));
            }
            let kind = self.kinds[column - of_value];
            beside.push(Beside::new(kind));
            Place::Beside(beside.len() - 1)
        });
        let places = places.collect();
        let schema = Arc::new(self.schema.project(columns).expect("projected columns exist"));
        let values = self.values.decoder(&wanted)?;
        Ok(Decoder {
            values,
            beside,
            places,
            schema,
            tombstones: self.tombstones,
            offsets: Vec::new(),
            deletions: Vec::new(),
            bad: Vec::new(),
            of_values: Vec::new(),
        })
    }
}

/// What a record without value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnTombstone {
    Reject,
    Skip,
    /// The row with its key is gone; other records are the present content of theirs.
    Delete,
}

enum Place {
    Value(usize),
    Beside(usize),
}

/// Makes batches of records.
pub(super) struct Decoder {
    values: Box<dyn ValueDecoder>,
    beside: Vec<Beside>,
    places: Vec<Place>,
    schema: SchemaRef,
    tombstones: OnTombstone,
    /// Of each record that was taken.
    offsets: Vec<u64>,
    /// The record (its number since the last batch) of each value that was handed to the decoder.
    of_values: Vec<u32>,
    /// Records without value that delete a row.
    deletions: Vec<u32>,
    /// Records that can be no row, whatever their value.
    bad: Vec<BadValue>,
}

impl Decoder {
    /// Records that wait to become a batch.
    pub(super) fn records(&self) -> usize {
        self.offsets.len()
    }

    /// The most rows that one record makes.
    pub(super) fn rows_per_record(&self) -> usize {
        self.values.rows_per_value()
    }

    /// Takes a record.
    pub(super) fn push(&mut self, record: &BorrowedMessage<'_>) {
        let number = self.offsets.len() as u32;
        self.offsets.push(record.offset().unsigned_abs());
        let mut reason = self.beside.iter_mut().filter_map(|column| column.push(record).err()).next();
        match record.payload() {
            None if self.tombstones == OnTombstone::Skip => {}
            None if self.tombstones == OnTombstone::Delete => {
                if record.key().is_none() {
                    reason = Some(reason.unwrap_or_else(|| "it deletes a row, and has no key that says which".into()));
                } else if reason.is_none() {
                    self.deletions.push(number);
                }
            }
            None => reason = Some(reason.unwrap_or_else(|| "it has no value (a tombstone)".into())),
            Some(value) if reason.is_none() => {
                self.values.push(value);
                self.of_values.push(number);
            }
            Some(_) => {}
        }
        if let Some(reason) = reason {
            self.bad.push(BadValue { value: number, reason, raw: shown(record.payload()) });
        }
    }

    /// Asks the outside for what is needed to read the values; before each [`Self::finish`]. Cancel-safe.
    ///
    /// # Errors
    /// The outside does not answer: the offset of the first value that cannot be read without it, and why.
    pub(super) async fn prepare(&mut self) -> Result<(), (u64, String)> {
        let prepared = self.values.prepare().await;
        prepared.map_err(|missing| (self.offsets[self.of_values[missing.value as usize] as usize], missing.reason))
    }

    /// The rows of all records since the last call, and those that can be none.
    pub(super) fn finish(&mut self, split: &Arc<str>) -> (Batch, Vec<Rejection>) {
        let Values { columns, row_values, changes, bad } = self.values.finish();
        let record_of = |value: u32| self.of_values[value as usize];
        let rows: Vec<u32> = match row_values {
            Some(values) => values.into_iter().map(record_of).collect(),
            None => self.of_values.clone(),
        };
        let (columns, rows, changes) = match self.tombstones {
            OnTombstone::Delete => with_deletions(&columns, rows, std::mem::take(&mut self.deletions)),
            OnTombstone::Reject | OnTombstone::Skip => (columns, rows, changes),
        };
        let mut rejected = std::mem::take(&mut self.bad);
        rejected.extend(bad.into_iter().map(|bad| BadValue { value: record_of(bad.value), ..bad }));
        rejected.sort_by_key(|bad| bad.value);
        let rejection = |bad: BadValue| Rejection {
            reason: bad.reason,
            source: Some(split.clone()),
            position: Some(self.offsets[bad.value as usize]),
            row: bad.raw,
            ..Rejection::default()
        };
        let rejected = rejected.into_iter().map(rejection).collect();
        let positions = rows.iter().map(|&row| self.offsets[row as usize]).collect();
        let columns = self.columns(&columns, &rows);
        self.offsets.clear();
        self.of_values.clear();
        let origin = Origin { split: split.clone(), positions: Positions::Each(positions) };
        let changes = changes.map(ScalarBuffer::from);
        (Batch::new(columns).with_changes(changes).with_origin(Some(origin)), rejected)
    }

    fn columns(&mut self, values: &RecordBatch, rows: &[u32]) -> RecordBatch {
        let all = rows.len() == self.offsets.len() && rows.iter().zip(0..).all(|(&row, record)| row == record);
        let rows_taken = UInt32Array::from(rows.to_vec());
        let beside: Vec<ArrayRef> = self.beside.iter_mut().map(Beside::finish).collect();
        let column = |place: &Place| match place {
            Place::Value(column) => values.column(*column).clone(),
            Place::Beside(column) if all => beside[*column].clone(),
            Place::Beside(column) => arrow_select::take::take(&beside[*column], &rows_taken, None).expect("rows are records"),
        };
        let columns = self.places.iter().map(column).collect();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options).expect("columns of this schema")
    }
}

/// Rows of values and deletions, in the order of their records (`rows`, `deletions`), and what each does.
fn with_deletions(columns: &RecordBatch, rows: Vec<u32>, deletions: Vec<u32>) -> (RecordBatch, Vec<u32>, Option<Vec<u8>>) {
    let values = rows.iter().zip(0..).map(|(&record, row)| (record, Some(row)));
    let mut all: Vec<(u32, Option<u32>)> = values.chain(deletions.into_iter().map(|record| (record, None))).collect();
    all.sort_unstable_by_key(|(record, _)| *record);
    let taken: UInt32Array = all.iter().map(|(_, row)| *row).collect();
    let take = |column: &ArrayRef| arrow_select::take::take(column, &taken, None).expect("rows are in range");
    let options = RecordBatchOptions::new().with_row_count(Some(all.len()));
    let taken = RecordBatch::try_new_with_options(columns.schema(), columns.columns().iter().map(take).collect(), &options);
    let change = |row: &Option<u32>| if row.is_some() { ChangeKind::UpdateAfter } else { ChangeKind::Delete } as u8;
    let changes = all.iter().map(|(_, row)| change(row)).collect();
    (taken.expect("every column may be null"), all.into_iter().map(|(record, _)| record).collect(), Some(changes))
}

fn shown(value: Option<&[u8]>) -> String {
    const BYTES_MAX: usize = 1_024;
    let value = value.unwrap_or_default();
    String::from_utf8_lossy(&value[..value.len().min(BYTES_MAX)]).into_owned()
}

/// A column beside the value.
enum Beside {
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Headers(ListBuilder<StructBuilder>),
    Timestamp(TimestampMillisecondBuilder),
    Topic(StringBuilder),
    Partition(Int32Builder),
    Offset(Int64Builder),
}

impl Beside {
    fn new(kind: Kind) -> Self {
        match kind {
            Kind::Key(KeyFormat::String) => Self::Text(StringBuilder::new()),
            Kind::Key(KeyFormat::Raw) => Self::Bytes(BinaryBuilder::new()),
            Kind::Headers => {
                let item = Field::new("item", DataType::Struct(header_fields()), false);
                let columns: Vec<Box<dyn ArrayBuilder>> = vec![Box::new(StringBuilder::new()), Box::new(BinaryBuilder::new())];
                Self::Headers(ListBuilder::new(StructBuilder::new(header_fields(), columns)).with_field(item))
            }
            Kind::Timestamp => Self::Timestamp(TimestampMillisecondBuilder::new().with_timezone("UTC")),
            Kind::Topic => Self::Topic(StringBuilder::new()),
            Kind::Partition => Self::Partition(Int32Builder::new()),
            Kind::Offset => Self::Offset(Int64Builder::new()),
        }
    }

    /// Takes what the record has; a record that cannot be a row gets something in its place.
    fn push(&mut self, record: &BorrowedMessage<'_>) -> Result<(), String> {
        match self {
            Self::Text(column) => match record.key().map(std::str::from_utf8).transpose() {
                Ok(key) => column.append_option(key),
                Err(error) => {
                    column.append_null();
                    return Err(format!("its key is not text in UTF-8 ({error}): use `key-format: raw`"));
                }
            },
            Self::Bytes(column) => column.append_option(record.key()),
            Self::Headers(column) => push_headers(column, record),
            Self::Timestamp(column) => column.append_option(record.timestamp().to_millis()),
            Self::Topic(column) => column.append_value(record.topic()),
            Self::Partition(column) => column.append_value(record.partition()),
            Self::Offset(column) => column.append_value(record.offset()),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(column) | Self::Topic(column) => Arc::new(column.finish()),
            Self::Bytes(column) => Arc::new(column.finish()),
            Self::Headers(column) => Arc::new(column.finish()),
            Self::Timestamp(column) => Arc::new(column.finish()),
            Self::Partition(column) => Arc::new(column.finish()),
            Self::Offset(column) => Arc::new(column.finish()),
        }
    }
}

fn push_headers(column: &mut ListBuilder<StructBuilder>, record: &BorrowedMessage<'_>) {
    let headers = column.values();
    for header in record.headers().iter().flat_map(|headers| headers.iter()) {
        headers.field_builder::<StringBuilder>(0).expect("the first column is text").append_value(header.key);
        headers.field_builder::<BinaryBuilder>(1).expect("the second column is bytes").append_option(header.value);
        headers.append(true);
    }
    column.append(true);
}
