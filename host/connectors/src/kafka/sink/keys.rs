//! The key of a record: a column as it is, or a JSON object of several.

use arrow_array::{BinaryArray, RecordBatch, cast::AsArray as _};
use arrow_schema::{DataType, Schema};
use millstream_engine::connector::SettingsProblem;

use super::encode::{cast, column, is_bytes};
use crate::{
    formats::ndjson::{Nulls, Writer},
    settings::{OneOrMany, problem},
};

const PLACE: &str = "key";

/// How keys are made of rows.
pub(super) enum Key {
    /// Of one column, as it is.
    Column([usize; 1]),
    /// Of these columns, as an object of JSON with its members in this order.
    Object(Vec<usize>, Writer),
}

impl Key {
    /// # Errors
    /// A column does not exist, or has no type for a key.
    pub(super) fn new(names: &OneOrMany, schema: &Schema) -> Result<Self, SettingsProblem> {
        let names = match names {
            OneOrMany::One(name) => return column(schema, PLACE, name, is_bytes, "text or bytes").map(|column| Self::Column([column])),
            OneOrMany::Many(names) => names,
        };
        let columns = names.iter().map(|name| column(schema, PLACE, name, |_| true, "")).collect::<Result<Vec<_>, _>>()?;
        if let Some(twice) = columns.iter().enumerate().find_map(|(at, column)| columns[..at].contains(column).then(|| &names[at])) {
            return Err(problem(PLACE, format!("column {twice} stands twice")));
        }
        let members = schema.project(&columns).expect("the columns exist");
        Ok(Self::Object(columns, Writer::new(&members, Nulls::Write).map_err(|message| problem(PLACE, message))?))
    }

    /// The columns that it is made of.
    pub(super) fn columns(&self) -> &[usize] {
        match self {
            Self::Column(column) => column,
            Self::Object(columns, _) => columns,
        }
    }

    /// The keys of rows.
    ///
    /// # Errors
    /// A value cannot be written; a clause.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<BinaryArray, String> {
        match self {
            Self::Column([column]) => Ok(cast(rows.column(*column), &DataType::Binary)?.as_binary().clone()),
            Self::Object(columns, writer) => {
                let mut lines = Vec::new();
                writer.rows(&rows.project(columns).map_err(|error| error.to_string())?, &mut lines)?;
                // Each object ends with a line end, and has none within.
                Ok(BinaryArray::from_iter_values(lines.split(|byte| *byte == b'\n').take(rows.num_rows())))
            }
        }
    }
}
