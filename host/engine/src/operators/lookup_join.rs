//! `lookup-join: { file: airports.csv, on: { dest: faa }, add: { dest_name: name } }`: adds columns of a small table to the rows whose key is
//! in it.
//!
//! The table is read whole when the job is planned and shared by all subtasks; it does not change while the job runs. Its keys are unique.
//! A null never matches. Rows keep their order, event times and changes.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, UInt32Array};
use arrow_buffer::NullBuffer;
use arrow_schema::{Field, FieldRef, Schema, SchemaRef};
use async_trait::async_trait;
use hashbrown::HashTable;
use millstream_model::{
    Batch, StreamType,
    key::{EncodedKeys, check_key_type, encode_keys},
    types::{parse_type, type_text},
};
use schemars::JsonSchema;
use serde::Deserialize;

use super::{OUTPUT, OperatorSpec, PlanRequest, Planned, Problem, arrays::take_or_null, keep};
use crate::{
    connector::TableRequest,
    operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output},
    spec::suggest::{help, unknown_column},
};

/// Adds columns of a small file to the rows whose key is in it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LookupJoin {
    /// The file: CSV, NDJSON, Parquet or Avro, read once when the job is planned.
    file: String,
    /// The format of the file. Default: by the ending of its name.
    format: Option<String>,
    /// Column → type of the file, with `?` for nullable ones. Default: what the format says.
    schema: Option<BTreeMap<String, String>>,
    /// Column of the stream → column of the file: rows match when all are equal.
    on: BTreeMap<String, String>,
    /// The columns of the file to add: a list, or a map from the new name to the column. Default: all but those in `on`.
    add: Option<Added>,
    /// What becomes of a row without a match. Default: left.
    #[serde(default)]
    kind: JoinKind,
}

/// Columns that a join adds.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Added {
    /// Under their own names.
    Listed(Vec<String>),
    /// New name → column.
    Renamed(serde_json::Map<String, serde_json::Value>),
}

/// What becomes of a row without a match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum JoinKind {
    /// It is kept, with nulls in the added columns.
    #[default]
    Left,
    /// It is dropped.
    Inner,
}

impl Added {
    /// The columns of `from` to add, under their new names; those of `default` if nothing is said.
    pub(super) fn columns(
        this: Option<&Self>,
        from: &Schema,
        default: impl Fn(&str) -> bool,
    ) -> Result<Vec<(usize, FieldRef)>, Vec<Problem>> {
        let pairs: Vec<(String, &str, String)> = match this {
            None => from
                .fields()
                .iter()
                .filter(|field| default(field.name()))
                .map(|field| (field.name().clone(), field.name().as_str(), "add".into()))
                .collect(),
            Some(Self::Listed(names)) => {
                names.iter().enumerate().map(|(index, name)| (name.clone(), name.as_str(), format!("add.{index}"))).collect()
            }
            Some(Self::Renamed(names)) => {
                names.iter().map(|(new, name)| (new.clone(), name.as_str().unwrap_or_default(), format!("add.{new}"))).collect()
            }
        };
        let mut columns = Vec::new();
        let mut problems = Vec::new();
        for (new, name, path) in pairs {
            match from.index_of(name) {
                Ok(column) => columns.push((column, Arc::new(from.field(column).clone().with_name(new)))),
                Err(_) => problems.push(unknown_column(&path, name, from)),
            }
        }
        if problems.is_empty() { Ok(columns) } else { Err(problems) }
    }

    /// The columns of `input` followed by the added ones.
    pub(super) fn joined(input: &Schema, added: &[(usize, FieldRef)], kind: JoinKind) -> Result<SchemaRef, Vec<Problem>> {
        let clash = |field: &FieldRef| {
            let message = format!("the stream has a column `{}` already", field.name());
            input
                .index_of(field.name())
                .is_ok()
                .then(|| Problem::at("add", message).help("give it another name: add: { new_name: column }"))
        };
        let problems: Vec<Problem> = added.iter().filter_map(|(_, field)| clash(field)).collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        let added = added.iter().map(|(_, field)| {
            let nullable = field.is_nullable() || kind == JoinKind::Left;
            Arc::new(field.as_ref().clone().with_nullable(nullable))
        });
        Ok(Arc::new(Schema::new(input.fields().iter().cloned().chain(added).collect::<Vec<_>>())))
    }
}

#[async_trait]
impl OperatorSpec for LookupJoin {
    const KEY: &'static str = "lookup-join";

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let input = &request.inputs[0];
        let table = self.load(&request).await?;
        let (stream_keys, table_keys) = self.keys(&input.schema, &table)?;
        let in_on = |name: &str| self.on.values().any(|column| column == name);
        let added = Added::columns(self.add.as_ref(), table.schema_ref(), |name| !in_on(name))?;
        let schema = Added::joined(&input.schema, &added, self.kind)?;
        let lookup = Lookup::new(&self.file, &table, table_keys, &added)?;
        let stream = StreamType { schema, ..input.clone() };
        let plan = LookupJoinPlan {
            outputs: [(OUTPUT.into(), stream)],
            file: self.file.clone(),
            on: self.on.clone(),
            keys: stream_keys,
            kind: self.kind,
            lookup: Arc::new(lookup),
        };
        Ok(Planned::new(plan))
    }
}

impl LookupJoin {
    async fn load(&self, request: &PlanRequest<'_>) -> Result<RecordBatch, Vec<Problem>> {
        let tables = request.tables.ok_or_else(|| vec![Problem::at("file", "this host cannot read tables")])?;
        let schema = self.declared_schema()?;
        let path = request.environment.base_directory.join(&self.file);
        let loaded = tables.load(TableRequest { path, format: self.format.clone(), schema }).await;
        loaded.map_err(|problems| problems.into_iter().map(|problem| Problem::at(problem.path, problem.message)).collect())
    }

    fn declared_schema(&self) -> Result<Option<SchemaRef>, Vec<Problem>> {
        let Some(columns) = &self.schema else { return Ok(None) };
        let mut fields = Vec::new();
        let mut problems = Vec::new();
        for (name, text) in columns {
            let (plain, nullable) = text.trim().strip_suffix('?').map_or((text.trim(), false), |plain| (plain.trim_end(), true));
            match parse_type(plain) {
                Ok(data_type) => fields.push(Field::new(name, data_type, nullable)),
                Err(error) => problems.push(Problem::at(format!("schema.{name}"), error.to_string())),
            }
        }
        if problems.is_empty() { Ok(Some(Arc::new(Schema::new(fields)))) } else { Err(problems) }
    }

    /// The key columns: numbers in the stream, and arrays of the table in the stream's types.
    fn keys(&self, stream: &Schema, table: &RecordBatch) -> Result<(Vec<usize>, Vec<ArrayRef>), Vec<Problem>> {
        let (mut numbers, mut arrays, mut problems) = (Vec::new(), Vec::new(), Vec::new());
        if self.on.is_empty() {
            problems.push(Problem::at("on", "by which columns rows match is not said").help("write for example on: { dest: faa }"));
        }
        for (ours, theirs) in &self.on {
            let path = format!("on.{ours}");
            let Ok(number) = stream.index_of(ours) else {
                problems.push(unknown_column(&path, ours, stream));
                continue;
            };
            let Some(array) = table.column_by_name(theirs) else {
                let schema = table.schema();
                let known = help("columns of the file", theirs, schema.fields().iter().map(|field| field.name().as_str()));
                problems.push(Problem::at(path, format!("the file has no column `{theirs}`")).help(known));
                continue;
            };
            let data_type = stream.field(number).data_type();
            if let Err(error) = check_key_type(data_type) {
                problems.push(Problem::at(path, error.to_string()));
            } else if let Ok(array) = arrow_cast::cast_with_options(array, data_type, &STRICT) {
                numbers.push(number);
                arrays.push(array);
            } else {
                let message =
                    format!("`{ours}` is {}, but `{theirs}` of the file is {}", type_text(data_type), type_text(array.data_type()));
                problems.push(Problem::at(path, message).help("say its type under `schema`"));
            }
        }
        if problems.is_empty() { Ok((numbers, arrays)) } else { Err(problems) }
    }
}

/// A value that does not fit is an error, not a null.
const STRICT: arrow_cast::CastOptions<'static> =
    arrow_cast::CastOptions { safe: false, format_options: arrow_cast::display::FormatOptions::new() };

/// The table, found by key.
struct Lookup {
    keys: EncodedKeys,
    rows: HashTable<u32>,
    added: Vec<ArrayRef>,
}

impl Lookup {
    fn new(file: &str, table: &RecordBatch, keys: Vec<ArrayRef>, added: &[(usize, FieldRef)]) -> Result<Self, Vec<Problem>> {
        let null = nulls_of(&keys);
        let keys = encode_keys(&keys, table.num_rows()).map_err(|error| vec![Problem::at("on", error.to_string())])?;
        let mut rows: HashTable<u32> = HashTable::with_capacity(keys.len());
        for row in (0..keys.len()).filter(|&row| null.as_ref().is_none_or(|null| null.is_valid(row))) {
            let hash = keys.hashes()[row];
            if let Some(other) = rows.find(hash, |&other| keys.key(other as usize) == keys.key(row)) {
                let message = format!("records {} and {} of {file} have the same key", other + 1, row + 1);
                return Err(vec![Problem::at("on", message).help("a lookup needs one record per key")]);
            }
            rows.insert_unique(hash, row as u32, |&row| keys.hashes()[row as usize]);
        }
        Ok(Self { keys, rows, added: added.iter().map(|(column, _)| Arc::clone(table.column(*column))).collect() })
    }

    /// The row of the table that matches each row.
    fn find(&self, keys: &[ArrayRef], rows: usize) -> Result<UInt32Array, OperatorError> {
        let wrong_type = |error| OperatorError::internal("a key column is of another type than planned").because(error);
        let null = nulls_of(keys);
        let encoded = encode_keys(keys, rows).map_err(wrong_type)?;
        let find = |row: usize| {
            let is_there = null.as_ref().is_none_or(|null| null.is_valid(row));
            let found = is_there.then(|| self.rows.find(encoded.hashes()[row], |&other| self.keys.key(other as usize) == encoded.key(row)));
            found.flatten().copied()
        };
        Ok((0..rows).map(find).collect())
    }
}

/// Rows with a null in any key column.
fn nulls_of(keys: &[ArrayRef]) -> Option<NullBuffer> {
    keys.iter().fold(None, |nulls, key| NullBuffer::union(nulls.as_ref(), key.logical_nulls().as_ref()))
}

struct LookupJoinPlan {
    outputs: [(String, StreamType); 1],
    file: String,
    on: BTreeMap<String, String>,
    keys: Vec<usize>,
    kind: JoinKind,
    lookup: Arc<Lookup>,
}

#[async_trait]
impl OperatorPlan for LookupJoinPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn explain(&self) -> Vec<String> {
        let on: Vec<String> = self.on.iter().map(|(ours, theirs)| format!("{ours} = {theirs}")).collect();
        vec![format!("looks up {} in {} ({} records)", on.join(" and "), self.file, self.lookup.keys.len())]
    }

    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        Some(self.keys.clone())
    }

    fn accepts_changes(&self, _input: usize) -> bool {
        true
    }

    fn keeps(&self, _output: usize) -> Option<usize> {
        Some(0)
    }

    fn uses_watermarks(&self) -> bool {
        false
    }

    fn holds_rows(&self) -> bool {
        false
    }

    async fn create(&self, _context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        let schema = Arc::clone(&self.outputs[0].1.schema);
        Ok(Box::new(LookupJoinRun { schema, keys: self.keys.clone(), kind: self.kind, lookup: Arc::clone(&self.lookup) }))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

struct LookupJoinRun {
    schema: SchemaRef,
    keys: Vec<usize>,
    kind: JoinKind,
    lookup: Arc<Lookup>,
}

#[async_trait]
impl Operator for LookupJoinRun {
    async fn on_batch(&mut self, _input: usize, batch: Batch, _now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let keys: Vec<ArrayRef> = self.keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
        let mut found = self.lookup.find(&keys, batch.num_rows())?;
        let mut batch = batch;
        if self.kind == JoinKind::Inner && found.null_count() > 0 {
            let matched: BooleanArray = (0..found.len()).map(|row| Some(found.is_valid(row))).collect();
            found = found.iter().flatten().collect();
            match keep(batch, &matched) {
                Some(kept) => batch = kept,
                None => return Ok(()),
            }
        }
        let mut columns = batch.columns().columns().to_vec();
        columns.extend(self.lookup.added.iter().map(|added| take_or_null(added, &found)));
        let joined = batch.with_columns(Arc::clone(&self.schema), columns);
        out.emit(0, joined.map_err(|error| OperatorError::internal("the batch is not of the planned schema").because(error))?);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
