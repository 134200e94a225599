//! What the tests of several connectors need: a request, and all rows of a source.

use std::{path::Path, sync::Arc};

use arrow_array::RecordBatch;
use arrow_schema::{Field, Schema, SchemaRef};
use millstream_engine::{
    clock::{Clock, ManualClock},
    connector::{
        ConnectorRequest, Read, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter, Source, SourceConnector, SplitReader,
    },
    operator::OperatorError,
    rejected::Rejection,
};
use millstream_model::{
    Batch, StreamType,
    ids::{JobId, SubtaskIndex},
    types::parse_type,
};
use serde_json::Value;

use crate::formats::ndjson::{self, Nulls};

/// A schema from names and types; `?` behind a type: nullable.
pub fn schema(columns: &[(&str, &str)]) -> SchemaRef {
    let field = |(name, text): &(&str, &str)| {
        let nullable = text.ends_with('?');
        Field::new(*name, parse_type(text.trim_end_matches('?')).expect("a type"), nullable)
    };
    Arc::new(Schema::new(columns.iter().map(field).collect::<Vec<_>>()))
}

/// Bytes that are written in hexadecimal.
pub fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal")).collect()
}

/// Rows, as JSON.
pub fn shown(rows: &RecordBatch) -> Vec<Value> {
    let mut lines = Vec::new();
    ndjson::Writer::new(&rows.schema(), Nulls::Write).expect("columns of JSON").rows(rows, &mut lines).expect("written");
    serde_json::Deserializer::from_slice(&lines).into_iter().map(|line| line.expect("a line of JSON")).collect()
}

/// Plans a source.
pub fn plan_source(
    connector: &dyn SourceConnector,
    settings: &Value,
    base: &Path,
    declared: Option<SchemaRef>,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
    connector.plan(ConnectorRequest {
        id: "in",
        settings,
        base_directory: base.to_owned(),
        declared_schema: declared,
        input: None,
        clock,
        state_directory: None,
    })
}

/// Plans a sink of a stream with these columns.
pub fn plan_sink(
    connector: &dyn SinkConnector,
    settings: &Value,
    base: &Path,
    schema: SchemaRef,
    changes: bool,
) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
    let input = Some(StreamType { schema, event_times: false, changes });
    connector.plan(ConnectorRequest {
        id: "out",
        settings,
        base_directory: base.to_owned(),
        declared_schema: None,
        input,
        clock: clock(),
        state_directory: None,
    })
}

/// A clock that stands still.
pub fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(1_000_000))
}

/// The writer of a subtask.
pub async fn writer(sink: &dyn Sink, subtask: u32) -> Result<Box<dyn SinkWriter>, OperatorError> {
    sink.writer(SinkContext {
        job: JobId::from("test"),
        subtask: SubtaskIndex(subtask),
        parallelism: 2,
        is_durable: false,
        restored: Arc::default(),
        transaction: None,
    })
    .await
}

/// What a source or reader gave.
#[derive(Debug, Default)]
pub struct Everything {
    /// The batches, none of them empty.
    pub batches: Vec<Batch>,
    /// What was rejected.
    pub rejected: Vec<Rejection>,
}

impl Everything {
    /// All rows in one batch.
    pub fn rows(&self, schema: &SchemaRef) -> RecordBatch {
        arrow_select::concat::concat_batches(schema, self.batches.iter().map(Batch::columns)).expect("one schema")
    }

    /// The position of each row.
    pub fn positions(&self) -> Vec<u64> {
        let of =
            |batch: &Batch| (0..batch.num_rows()).map(|row| batch.origin().expect("sources give it").positions.of(row)).collect::<Vec<_>>();
        self.batches.iter().flat_map(of).collect()
    }

    /// Takes what a reader gives until its end.
    pub async fn drain(&mut self, reader: &mut dyn SplitReader, rows_max: usize) -> Result<(), OperatorError> {
        while let Read::Rows { batch, rejected } = reader.read(rows_max).await? {
            assert!(batch.num_rows() <= rows_max, "a reader keeps to the number of rows");
            self.add(batch, rejected);
        }
        Ok(())
    }

    /// Takes one answer.
    pub fn add(&mut self, batch: Batch, rejected: Vec<Rejection>) {
        self.batches.extend((batch.num_rows() > 0).then_some(batch));
        self.rejected.extend(rejected);
    }
}

/// All rows of all splits.
pub async fn read_all(source: &dyn Source, rows_max: usize) -> Result<Everything, OperatorError> {
    let mut everything = Everything::default();
    for split in source.splits(2).await? {
        let mut reader = source.open(&split, None).await?;
        everything.drain(&mut *reader, rows_max).await?;
    }
    Ok(everything)
}

/// Opens every split anew at every position that a reader of it stood at, and compares the rest with what came straight through.
pub async fn check_resuming(source: &dyn Source, rows_max: usize) {
    for split in source.splits(2).await.expect("splits") {
        let mut reader = source.open(&split, None).await.expect("opens");
        let mut stops = vec![(reader.position(), 0, 0)];
        let mut straight = Everything::default();
        while let Read::Rows { batch, rejected } = reader.read(rows_max).await.expect("reads") {
            straight.add(batch, rejected);
            stops.push((reader.position(), straight.positions().len(), straight.rejected.len()));
        }
        // A split has one reader at a time.
        drop(reader);
        let rows = straight.rows(&source.schema());
        for (position, rows_before, rejected_before) in stops {
            let mut reader = source.open(&split, Some(&position)).await.expect("opens at a position");
            assert_eq!(reader.position(), position, "a reader that was just opened stands where it was told to");
            let mut rest = Everything::default();
            rest.drain(&mut *reader, rows_max).await.expect("reads");
            assert_eq!(rest.rows(&source.schema()), rows.slice(rows_before, rows.num_rows() - rows_before), "rows after {position}");
            assert_eq!(rest.positions(), straight.positions()[rows_before..], "positions after {position}");
            assert_eq!(rest.rejected, straight.rejected[rejected_before..], "rejections after {position}");
        }
    }
}
