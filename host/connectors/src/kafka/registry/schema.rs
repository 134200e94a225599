//! What a registry says → a schema that values are read in.

use std::sync::Arc;

use arrow_schema::SchemaRef;

use super::{Client, Kind, Registered};
use crate::formats::{avro, one_schema::OneSchema, protobuf, records::ValueFormat};

/// A schema of values.
#[derive(Clone, Debug)]
pub enum ValueSchema {
    /// Of Avro.
    Avro(avro::Schema),
    /// Of Protocol Buffers.
    Protobuf(protobuf::Schema),
}

impl ValueSchema {
    /// The columns that it has by itself.
    ///
    /// # Errors
    /// It has none; a clause.
    pub fn columns(&self) -> Result<SchemaRef, String> {
        match self {
            Self::Avro(schema) => avro::columns(schema),
            Self::Protobuf(schema) => protobuf::columns(schema),
        }
    }

    /// Values of this schema alone, which do not say it.
    ///
    /// # Errors
    /// The columns cannot be read from it; a clause.
    pub fn alone(self, declared: Option<SchemaRef>) -> Result<Arc<dyn ValueFormat>, String> {
        Ok(match self {
            Self::Avro(schema) => Arc::new(OneSchema::new(schema, declared)?),
            Self::Protobuf(schema) => Arc::new(OneSchema::new(schema, declared)?),
        })
    }
}

impl Registered {
    /// The schema, with what it stands on.
    ///
    /// # Errors
    /// It is none of this kind; a clause.
    pub fn parse(&self, kind: Kind, message: Option<&str>) -> Result<ValueSchema, String> {
        match (self.kind, kind) {
            (Kind::Avro, Kind::Avro) => {
                let references: Vec<&str> = self.references.iter().map(|(_, text)| text.as_str()).collect();
                avro::Schema::parse_with(&references, &self.text).map(ValueSchema::Avro)
            }
            (Kind::Protobuf, Kind::Protobuf) => protobuf::Schema::parse(&self.text, &self.references, message).map(ValueSchema::Protobuf),
            (found, kind) => Err(format!("it is one of {found:?} and not of {kind:?}")),
        }
    }
}

/// The latest schema of a subject, asked for while a job is planned.
///
/// # Errors
/// There is none; a clause.
pub fn latest(client: &Client, subject: &str) -> Result<Registered, String> {
    // Plans are made by threads that may belong to a runtime, where nothing else could be waited for.
    let asked = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
            runtime.block_on(client.latest(subject)).map_err(|failed| failed.to_string())
        });
        asking.join().expect("asking does not panic")
    });
    asked.map_err(|reason| {
        format!(
            "the columns are those of subject {subject}, whose latest schema is not known ({reason}): declare them under `schema:`, or name the subject"
        )
    })
}
