//! Values that name their schema → columns. Ids that were not met before are asked for between two batches, so no row waits for the registry twice.

use std::{collections::HashMap, sync::Arc};

use arrow_schema::SchemaRef;
use async_trait::async_trait;

use super::{Client, Failed, Kind, Registered, ValueSchema, unframed, unindexed};
use crate::formats::{
    avro,
    columns::Rows,
    protobuf,
    records::{BadValue, Unprepared, ValueDecoder, ValueFormat, Values},
    text::quoted,
};

/// Values that name their schema.
#[derive(Debug)]
pub struct RegisteredSchemas {
    /// Asks the registry.
    pub client: Arc<Client>,
    /// The columns.
    pub columns: SchemaRef,
    /// What says the defaults of fields that a value does not have.
    pub reader: Option<ValueSchema>,
    /// What the settings promise.
    pub kind: Kind,
    /// The message that values must be; none: each is what it says.
    pub message: Option<String>,
}

impl ValueFormat for RegisteredSchemas {
    fn schema(&self) -> &SchemaRef {
        &self.columns
    }

    fn decoder(&self, columns: &[usize]) -> Result<Box<dyn ValueDecoder>, String> {
        let columns: SchemaRef = Arc::new(self.columns.project(columns).expect("projected columns exist"));
        Ok(Box::new(Decoder {
            client: self.client.clone(),
            rows: Rows::new(columns.clone())?,
            columns,
            reader: self.reader.clone(),
            kind: self.kind,
            message: self.message.clone(),
            plans: HashMap::new(),
            bytes: Vec::new(),
            ends: Vec::new(),
        }))
    }
}

/// How values of one schema are read.
enum Plan {
    Avro(avro::Plan),
    Protobuf(Messages),
}

/// The messages of one file; which of them a value is stands in front of it.
struct Messages {
    file: protobuf::Schema,
    columns: SchemaRef,
    wanted: Option<String>,
    plans: HashMap<Vec<usize>, Result<protobuf::Plan, String>>,
}

/// Messages of one file that are remembered: those that cannot be read may be many.
const MESSAGES_MAX: usize = 1_000;

impl Messages {
    fn push(&mut self, rows: &mut Rows, value: &[u8]) -> Result<(), String> {
        let (indexes, value) = unindexed(value)?;
        if !self.plans.contains_key(&indexes) {
            if self.plans.len() >= MESSAGES_MAX {
                self.plans.clear();
            }
            let plan = self.plan(&indexes);
            self.plans.insert(indexes.clone(), plan);
        }
        self.plans[&indexes].as_ref().map_err(Clone::clone)?.push(rows, value)
    }

    fn plan(&self, indexes: &[usize]) -> Result<protobuf::Plan, String> {
        let schema = self.file.at(indexes)?;
        if let Some(wanted) =
            self.wanted.as_ref().filter(|wanted| **wanted != schema.name() && !schema.name().ends_with(&format!(".{wanted}")))
        {
            return Err(format!("it is a message {} and not {wanted}", schema.name()));
        }
        protobuf::Plan::new(&schema, &self.columns)
    }
}

impl Plan {
    fn push(&mut self, rows: &mut Rows, value: &[u8]) -> Result<(), String> {
        match self {
            Self::Avro(plan) => plan.push(rows, value),
            Self::Protobuf(messages) => messages.push(rows, value),
        }
    }
}

struct Decoder {
    client: Arc<Client>,
    columns: SchemaRef,
    reader: Option<ValueSchema>,
    kind: Kind,
    message: Option<String>,
    rows: Rows,
    /// By id; a schema that cannot be read says why.
    plans: HashMap<u32, Result<Plan, String>>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Decoder {
    fn plan(&self, id: u32, schema: &Registered) -> Result<Plan, String> {
        let within = |reason: String| format!("it was written in schema {id}: {reason}");
        match schema.parse(self.kind, None).map_err(within)? {
            ValueSchema::Avro(writer) => {
                let reader = match &self.reader {
                    Some(ValueSchema::Avro(reader)) => Some(reader),
                    _ => None,
                };
                avro::Plan::new(&writer, &self.columns, reader).map(Plan::Avro).map_err(within)
            }
            ValueSchema::Protobuf(file) => {
                let (columns, wanted) = (self.columns.clone(), self.message.clone());
                Ok(Plan::Protobuf(Messages { file, columns, wanted, plans: HashMap::new() }))
            }
        }
    }

    /// The values that were taken.
    fn values(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

#[async_trait]
impl ValueDecoder for Decoder {
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len());
    }

    async fn prepare(&mut self) -> Result<(), Unprepared> {
        let mut missing: Vec<(u32, u32)> = Vec::new();
        for (number, value) in (0..).zip(self.values()) {
            if let Ok((id, _)) = unframed(value)
                && !self.plans.contains_key(&id)
                && missing.iter().all(|(known, _)| *known != id)
            {
                missing.push((id, number));
            }
        }
        for (id, value) in missing {
            let plan = match self.client.schema(id).await {
                Ok(schema) => self.plan(id, &schema),
                Err(Failed::Missing(words)) => {
                    let url = self.client.url();
                    Err(format!(
                        "it was written in schema {id}, which the registry {url} does not have ({words}): check `schema-registry.url`"
                    ))
                }
                Err(failed) => return Err(Unprepared { value, reason: format!("it was written in schema {id}, and {failed}") }),
            };
            self.plans.insert(id, plan);
        }
        Ok(())
    }

    fn finish(&mut self) -> Values {
        let (mut row_values, mut bad) = (Vec::new(), Vec::new());
        let (bytes, ends) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.ends));
        let mut start = 0;
        for (number, &end) in (0..).zip(&ends) {
            let value = &bytes[start..end];
            start = end;
            let pushed = unframed(value).and_then(|(id, value)| match self.plans.get_mut(&id) {
                Some(Ok(plan)) => plan.push(&mut self.rows, value).map_err(|reason| format!("{reason} (schema {id})")),
                Some(Err(reason)) => Err(reason.clone()),
                None => unreachable!("`prepare` asked for every id"),
            });
            match pushed {
                Ok(()) => row_values.push(number),
                Err(reason) => bad.push(BadValue { value: number, reason, raw: quoted(value) }),
            }
        }
        // What the registry did not have may be there by now; it remembers that for a while itself.
        self.plans.retain(|_, plan| plan.is_ok());
        Values { columns: self.rows.finish(), row_values: (!bad.is_empty()).then_some(row_values), changes: None, bad }
    }
}
