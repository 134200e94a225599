//! Reads one Avro file.

use std::fs::File;

use async_trait::async_trait;
use millstream_engine::{
    connector::{Read, SplitReader},
    operator::OperatorError,
};
use millstream_model::{Batch, Origin, Positions};
use serde_json::Value;

use super::OpenFile;
use crate::formats::avro::container::{Error, Position, Reader, Rows};

pub struct AvroReader {
    file: OpenFile,
    rows: Reader,
}

impl AvroReader {
    pub fn open(file: OpenFile, position: Option<&Value>) -> Result<Self, OperatorError> {
        let resume: Option<Position> = file.position(position)?;
        let opened = File::open(&file.detail.path).map_err(|error| file.cannot_open(error))?;
        let rows = Reader::open(opened, &file.schema, resume).map_err(|error| failed(&file, error))?;
        Ok(Self { file, rows })
    }

    fn found(&self, Rows { columns, numbers, mut rejected }: Rows) -> Read {
        let positions = if rejected.is_empty() {
            Positions::From(numbers.start)
        } else {
            let mut bad = rejected.iter().filter_map(|rejection| rejection.position).peekable();
            Positions::Each(numbers.filter(|number| bad.next_if_eq(number).is_none()).collect())
        };
        for rejection in &mut rejected {
            rejection.source = Some(self.file.split.clone());
        }
        let origin = Origin { split: self.file.split.clone(), positions };
        Read::Rows { batch: Batch::new(columns).with_origin(Some(origin)), rejected }
    }
}

fn failed(file: &OpenFile, error: Error) -> OperatorError {
    match error {
        Error::Unreadable { at, source } => OperatorError::outside(format!("cannot read {} at byte {at}", file.split)).because(source),
        error => OperatorError::user(format!("{} {error}", file.split)),
    }
}

#[async_trait]
impl SplitReader for AvroReader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        let rows = self.rows.read(rows_max).map_err(|error| failed(&self.file, error))?;
        Ok(rows.map_or(Read::End, |rows| self.found(rows)))
    }

    fn position(&self) -> Value {
        serde_json::to_value(self.rows.position()).expect("numbers are JSON")
    }

    fn progress(&self) -> u64 {
        self.rows.bytes_read()
    }
}
