//! Reads one Parquet file.

use std::fs::File;

use async_trait::async_trait;
use millstream_engine::{
    connector::{Read, SplitReader},
    operator::OperatorError,
};
use millstream_model::{Batch, Origin, Positions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::OpenFile;
use crate::formats::parquet::{Reader, Rows};

/// What a checkpoint stores.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Position {
    /// Number of the next row in the file.
    row: u64,
}

pub struct ParquetReader {
    file: OpenFile,
    rows: Reader,
    bytes: u64,
}

impl ParquetReader {
    pub fn open(file: OpenFile, position: Option<&Value>) -> Result<Self, OperatorError> {
        let resume: Option<Position> = file.position(position)?;
        let opened = File::open(&file.detail.path).map_err(|error| file.cannot_open(error))?;
        let bytes = opened.metadata().map_err(|error| file.cannot_open(error))?.len();
        let rows = Reader::open(opened, file.schema.clone(), resume.map_or(0, |position| position.row))
            .map_err(|reason| OperatorError::user(format!("cannot read {}: {reason}", file.split)))?;
        Ok(Self { file, rows, bytes })
    }

    fn found(&self, rows: Rows) -> Read {
        let origin = Origin { split: self.file.split.clone(), positions: Positions::Each(rows.numbers.into()) };
        let mut rejected = rows.rejected;
        for rejection in &mut rejected {
            rejection.source = Some(self.file.split.clone());
        }
        Read::Rows { batch: Batch::new(rows.columns).with_origin(Some(origin)), rejected }
    }
}

#[async_trait]
impl SplitReader for ParquetReader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        let row = self.rows.next_row();
        let rows = self.rows.read(rows_max);
        let rows = rows.map_err(|reason| OperatorError::user(format!("{} is damaged at row {row}: {reason}", self.file.split)))?;
        Ok(rows.map_or(Read::End, |rows| self.found(rows)))
    }

    fn position(&self) -> Value {
        serde_json::to_value(Position { row: self.rows.next_row() }).expect("numbers are JSON")
    }

    fn progress(&self) -> u64 {
        let (row, total) = (self.rows.next_row(), self.rows.rows_total().max(1));
        // Bytes are not known per row: the share of the rows stands for the share of the bytes.
        u64::try_from(u128::from(self.bytes) * u128::from(row) / u128::from(total)).unwrap_or(self.bytes)
    }
}
