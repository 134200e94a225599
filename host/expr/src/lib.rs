//! Expressions of the job file: text in SQL's scalar syntax, typed against a schema once and evaluated on batches.
//!
//! Flow: text → parsed → names resolved and types coerced → simplified → a physical expression whose arithmetic is checked. The only
//! crate that names DataFusion.
//!
//! What it promises: an expression is deterministic (functions that ask for the time or for randomness are unknown here), identifiers are
//! case-sensitive, results have types that cross to guests (no views, no dictionaries), and a failure on one row (division by zero,
//! overflow, a cast) is a failure of that row only: [`Expression::evaluate_rows`] says which rows failed and why.

#![forbid(unsafe_code)]

mod checked;
mod error;
mod functions;
mod parse;

use std::{fmt, sync::Arc};

use arrow_array::{Array, ArrayRef, BooleanArray, RecordBatch, cast::AsArray, new_null_array};
use arrow_schema::{DataType, SchemaRef};
use datafusion_physical_expr::{PhysicalExpr, utils::collect_columns};

pub use error::{EvaluationError, ExprError};

/// Longest text of an expression, in bytes.
pub const TEXT_BYTES_MAX: usize = 4 * 1024;
/// How deep an expression may nest.
pub const DEPTH_MAX: usize = 200;

/// A typed expression over the columns of one schema. Cheap to clone.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    physical: Arc<dyn PhysicalExpr>,
    data_type: DataType,
    nullable: bool,
    columns: Vec<usize>,
}

/// The values of an expression for every row of a batch, but for rows on which it failed.
#[derive(Debug)]
pub struct Evaluated {
    /// One value per row; null where the row failed.
    pub values: ArrayRef,
    /// The rows that failed, in row order; nearly always none.
    pub failed: Vec<FailedRow>,
}

/// The rows of a batch for which a condition holds.
#[derive(Debug)]
pub struct Selection {
    /// One entry per row, none of them null: null conditions and failed rows count as false.
    pub mask: BooleanArray,
    /// The rows on which the condition failed, in row order; nearly always none.
    pub failed: Vec<FailedRow>,
}

/// A row on which an expression failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedRow {
    /// Its number in the batch.
    pub row: usize,
    /// Why, as one clause.
    pub reason: String,
}

impl Expression {
    /// The expression that `text` means over the columns of `schema`.
    ///
    /// # Errors
    /// The text is no expression, names an unknown column or function, or its types do not fit.
    pub fn parse(text: &str, schema: &SchemaRef) -> Result<Self, ExprError> {
        let (physical, data_type, nullable) = parse::parse(text, schema)?;
        let mut columns: Vec<usize> = collect_columns(&physical).iter().map(|column| column.index()).collect();
        columns.sort_unstable();
        columns.dedup();
        Ok(Self { text: text.into(), physical, data_type, nullable, columns })
    }

    /// As [`Self::parse`], for an expression that is true or false.
    ///
    /// # Errors
    /// As [`Self::parse`], or the expression is not a Boolean.
    pub fn parse_condition(text: &str, schema: &SchemaRef) -> Result<Self, ExprError> {
        let condition = Self::parse(text, schema)?;
        if condition.data_type != DataType::Boolean {
            let found = millstream_model::types::type_text(&condition.data_type);
            return Err(ExprError::new(format!("a condition is true or false, but this has the type {found}")));
        }
        Ok(condition)
    }

    /// The text it was parsed from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The type of its values; one that crosses to guests.
    pub fn data_type(&self) -> &DataType {
        &self.data_type
    }

    /// Whether a value may be null.
    pub fn nullable(&self) -> bool {
        self.nullable
    }

    /// The columns it reads, by number, ascending.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// Its value for every row of a batch of the schema it was parsed for.
    ///
    /// # Errors
    /// It fails on at least one row.
    pub fn evaluate(&self, batch: &RecordBatch) -> Result<ArrayRef, EvaluationError> {
        let value = self.physical.evaluate(batch).map_err(EvaluationError::from_datafusion)?;
        value.into_array(batch.num_rows()).map_err(EvaluationError::from_datafusion)
    }

    /// Its value for every row of a batch of the schema it was parsed for. When it fails on the whole batch, the batch is halved until the
    /// failing rows are known.
    pub fn evaluate_rows(&self, batch: &RecordBatch) -> Evaluated {
        let mut failed = Vec::new();
        let mut parts = Vec::new();
        self.evaluate_part(batch, 0, &mut parts, &mut failed);
        let values = match parts.as_slice() {
            [] => new_null_array(&self.data_type, 0),
            [whole] => whole.clone(),
            parts => {
                let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                arrow_select::concat::concat(&parts).expect("all parts have the type of the expression")
            }
        };
        Evaluated { values, failed }
    }

    /// The rows of a batch for which it is true. Only for an expression of [`Self::parse_condition`].
    pub fn select(&self, batch: &RecordBatch) -> Selection {
        let Evaluated { values, failed } = self.evaluate_rows(batch);
        let mask = values.as_boolean();
        let mask = if mask.null_count() == 0 { mask.clone() } else { arrow_select::filter::prep_null_mask_filter(mask) };
        Selection { mask, failed }
    }

    fn evaluate_part(&self, batch: &RecordBatch, first_row: usize, parts: &mut Vec<ArrayRef>, failed: &mut Vec<FailedRow>) {
        let rows = batch.num_rows();
        match self.evaluate(batch) {
            Ok(values) => parts.push(values),
            Err(error) if rows <= 1 => {
                parts.push(new_null_array(&self.data_type, rows));
                failed.push(FailedRow { row: first_row, reason: error.to_string() });
            }
            Err(_) => {
                let half = rows / 2;
                self.evaluate_part(&batch.slice(0, half), first_row, parts, failed);
                self.evaluate_part(&batch.slice(half, rows - half), first_row + half, parts, failed);
            }
        }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
