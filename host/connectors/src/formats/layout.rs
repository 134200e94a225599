//! The text formats by their settings: what a source of lines decides once, and makes a reader of for each stream.

use std::{collections::BTreeMap, str::FromStr, sync::Arc};

use arrow_schema::{DataType, Schema, SchemaRef};
use millstream_engine::connector::SettingsProblem;

use super::{
    csv::{self, Column, Dialect},
    lines, ndjson,
    text::TextFormat,
    values::TimestampFormat,
};
use crate::settings::problem;

/// A text format with the columns of a source.
#[derive(Clone, Debug)]
pub struct TextLayout {
    /// All columns of the source.
    pub schema: SchemaRef,
    /// How the timestamps of each are written.
    pub timestamps: Vec<TimestampFormat>,
    /// How a record is written.
    pub kind: TextKind,
    note: &'static str,
}

/// A text format, and what it has to be told.
#[derive(Clone, Debug)]
pub enum TextKind {
    /// CSV, and whether there is a header.
    Csv(Dialect, bool),
    /// JSON, an object per record.
    Json,
    /// A text per record.
    Lines,
}

/// Said where a value does not fit a type that nobody declared.
const GUESSED: &str = ", which was guessed from the first records: declare the columns under `schema:` of the source";

impl TextLayout {
    /// Checks that the format can hold the columns.
    ///
    /// # Errors
    /// It cannot.
    pub fn new(schema: SchemaRef, timestamps: Vec<TimestampFormat>, kind: TextKind) -> Result<Self, Vec<SettingsProblem>> {
        if matches!(kind, TextKind::Lines) {
            lines::check(&schema).map_err(|message| vec![problem("format", message)])?;
        }
        let layout = Self { schema, timestamps, kind, note: "" };
        let columns: Vec<usize> = (0..layout.schema.fields().len()).collect();
        let names: Vec<String> = layout.schema.fields().iter().map(|field| field.name().clone()).collect();
        match layout.reader(&columns, &names) {
            Ok(_) => Ok(layout),
            Err(message) => Err(vec![problem("", message)]),
        }
    }

    /// The same with types that were guessed: what does not fit them says so.
    pub fn guessed(mut self, guessed: bool) -> Self {
        self.note = if guessed { GUESSED } else { "" };
        self
    }

    /// Whether the first record names the columns, and how it is read.
    pub fn header(&self) -> Option<&Dialect> {
        match &self.kind {
            TextKind::Csv(dialect, true) => Some(dialect),
            _ => None,
        }
    }

    /// A reader of these columns of a stream with this header (none in the stream: it is not looked at).
    ///
    /// # Errors
    /// The header does not name a column, or names it twice; a clause.
    pub fn reader(&self, columns: &[usize], header: &[String]) -> Result<Box<dyn TextFormat>, String> {
        let schema = Arc::new(self.schema.project(columns).expect("projected columns exist"));
        let (dialect, has_header) = match &self.kind {
            TextKind::Csv(dialect, has_header) => (dialect, has_header),
            TextKind::Json => return Ok(Box::new(self.json_reader(columns)?)),
            TextKind::Lines => return Ok(Box::new(lines::Reader::new(schema))),
        };
        let place = |&column: &usize| {
            let field = if *has_header { place_of(header, self.schema.field(column).name())? } else { column };
            Ok(Column { field, timestamps: self.timestamps[column].clone() })
        };
        let places = columns.iter().map(place).collect::<Result<Vec<_>, String>>()?;
        let fields = if *has_header { header.len() } else { self.schema.fields().len() };
        Ok(Box::new(csv::Reader::new(dialect.clone(), schema, &places, fields)?.noting(self.note)))
    }

    /// A reader of these columns of JSON, whatever the format is.
    ///
    /// # Errors
    /// A column has a type that JSON cannot hold; a clause.
    pub fn json_reader(&self, columns: &[usize]) -> Result<ndjson::Reader, String> {
        let schema = Arc::new(self.schema.project(columns).expect("projected columns exist"));
        let timestamps: Vec<_> = columns.iter().map(|&column| self.timestamps[column].clone()).collect();
        Ok(ndjson::Reader::new(schema, &timestamps)?.noting(self.note))
    }
}

/// The place of a column among the fields of a file.
fn place_of(header: &[String], name: &str) -> Result<usize, String> {
    let mut places = header.iter().enumerate().filter(|(_, known)| *known == name).map(|(place, _)| place);
    match (places.next(), places.next()) {
        (Some(place), None) => Ok(place),
        (Some(_), Some(_)) => Err(format!("its header names column {name} twice")),
        (None, _) => Err(format!("its header has no column {name}")),
    }
}

/// How the timestamps of each column are written, from the setting `timestamp-formats`.
///
/// # Errors
/// Formats that are none, and columns that do not exist or are no timestamps.
pub fn timestamp_formats(settings: &BTreeMap<String, String>, schema: &Schema) -> Result<Vec<TimestampFormat>, Vec<SettingsProblem>> {
    let mut formats = vec![TimestampFormat::Standard; schema.fields().len()];
    let mut problems = Vec::new();
    for (name, text) in settings {
        let place = format!("timestamp-formats.{name}");
        match (schema.index_of(name), TimestampFormat::from_str(text)) {
            (Err(_), _) => problems.push(problem(&place, "there is no such column")),
            (Ok(column), _) if !matches!(schema.field(column).data_type(), DataType::Timestamp(..)) => {
                let data_type = schema.field(column).data_type();
                problems.push(problem(&place, format!("the column has the type {data_type}, not a timestamp: declare it under `schema:`")));
            }
            (Ok(_), Err(message)) => problems.push(problem(&place, message)),
            (Ok(column), Ok(format)) => formats[column] = format,
        }
    }
    if problems.is_empty() { Ok(formats) } else { Err(problems) }
}
