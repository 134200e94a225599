//! Messages of one type, one by one.

use std::sync::Arc;

use arrow_schema::SchemaRef;

use super::{Plan, Schema, columns};
use crate::formats::records::{EachValue, ValueDecoder, ValueFormat};

/// Messages of one type, which both sides know.
#[derive(Debug)]
pub struct OneSchema {
    schema: Schema,
    columns: SchemaRef,
}

impl OneSchema {
    /// Messages of `schema` as these columns; none: as those that it has.
    ///
    /// # Errors
    /// The columns cannot be read from it; a clause.
    pub fn new(schema: Schema, declared: Option<SchemaRef>) -> Result<Self, String> {
        let columns = declared.map_or_else(|| columns(&schema), Ok)?;
        let made = Self { schema, columns };
        made.decoder(&(0..made.columns.fields().len()).collect::<Vec<_>>())?;
        Ok(made)
    }
}

impl ValueFormat for OneSchema {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn ValueDecoder>, String> {
        let wanted: SchemaRef = Arc::new(self.columns.project(columns).expect("projected columns exist"));
        let plan = Plan::new(&self.schema, &wanted)?;
        Ok(Box::new(EachValue::new(wanted, move |rows, value| plan.push(rows, value))?))
    }
}
