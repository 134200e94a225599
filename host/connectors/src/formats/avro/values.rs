//! Values of one schema, one by one.

use arrow_schema::SchemaRef;

use super::{Plan, Schema};
use crate::formats::{
    one_schema::KnownSchema,
    records::{EachValue, ValueDecoder},
};

impl KnownSchema for Schema {
    fn columns(&self) -> Result<SchemaRef, String> {
        super::columns(self)
    }

    fn decoder(&self, columns: SchemaRef) -> Result<Box<dyn ValueDecoder>, String> {
        let plan = Plan::new(self, &columns, None)?;
        Ok(Box::new(EachValue::new(columns, move |rows, value| plan.push(rows, value))?))
    }
}
