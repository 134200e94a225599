//! Values of one schema that both sides know, one by one.

use std::{fmt, sync::Arc};

use arrow_schema::SchemaRef;

use super::records::{ValueDecoder, ValueFormat};

/// A schema of values.
pub trait KnownSchema: fmt::Debug + Send + Sync + 'static {
    /// The columns that it has.
    ///
    /// # Errors
    /// Some part of it has none; a clause.
    fn columns(&self) -> Result<SchemaRef, String>;

    /// Reads values of it as these columns.
    ///
    /// # Errors
    /// They cannot be read from it; a clause.
    fn decoder(&self, columns: SchemaRef) -> Result<Box<dyn ValueDecoder>, String>;
}

/// Values of one schema.
#[derive(Debug)]
pub struct OneSchema<S> {
    schema: S,
    columns: SchemaRef,
}

impl<S: KnownSchema> OneSchema<S> {
    /// Values of `schema` as these columns; none: as those that it has.
    ///
    /// # Errors
    /// The columns cannot be read from it; a clause.
    pub fn new(schema: S, declared: Option<SchemaRef>) -> Result<Self, String> {
        let columns = declared.map_or_else(|| schema.columns(), Ok)?;
        schema.decoder(columns.clone())?;
        Ok(Self { schema, columns })
    }
}

impl<S: KnownSchema> ValueFormat for OneSchema<S> {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn ValueDecoder>, String> {
        self.schema.decoder(Arc::new(self.columns.project(columns).expect("projected columns exist")))
    }
}
