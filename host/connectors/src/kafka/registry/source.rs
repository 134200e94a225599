//! Values that name their schema → columns. Ids that were not met before are asked for between two batches, so no row waits for the registry twice.

use std::{collections::HashMap, sync::Arc};

use arrow_schema::SchemaRef;
use async_trait::async_trait;

use super::{Client, Failed, Kind, Registered, unframed};
use crate::formats::{
    avro,
    columns::Rows,
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
    pub reader: Option<avro::Schema>,
    /// What the settings promise.
    pub kind: Kind,
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
            plans: HashMap::new(),
            bytes: Vec::new(),
            ends: Vec::new(),
        }))
    }
}

/// How values of one schema are read.
enum Plan {
    Avro(avro::Plan),
}

impl Plan {
    fn push(&self, rows: &mut Rows, value: &[u8]) -> Result<(), String> {
        match self {
            Self::Avro(plan) => plan.push(rows, value),
        }
    }
}

struct Decoder {
    client: Arc<Client>,
    columns: SchemaRef,
    reader: Option<avro::Schema>,
    kind: Kind,
    rows: Rows,
    /// By id; a schema that cannot be read says why.
    plans: HashMap<u32, Result<Plan, String>>,
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Decoder {
    fn plan(&self, id: u32, schema: &Registered) -> Result<Plan, String> {
        let within = |reason: String| format!("it was written in schema {id}: {reason}");
        if schema.kind != self.kind {
            return Err(within(format!("that is {:?} and not {:?}", schema.kind, self.kind)));
        }
        match self.kind {
            Kind::Avro => {
                let writer = avro_schema(schema).map_err(within)?;
                avro::Plan::new(&writer, &self.columns, self.reader.as_ref()).map(Plan::Avro).map_err(within)
            }
            Kind::Protobuf | Kind::Json => Err(within("it is not read here".into())),
        }
    }

    /// The values that were taken.
    fn values(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, &end)| &self.bytes[start..end])
    }
}

/// # Errors
/// It is no schema of Avro; a clause.
pub fn avro_schema(schema: &Registered) -> Result<avro::Schema, String> {
    let references: Vec<&str> = schema.references.iter().map(|(_, text)| text.as_str()).collect();
    avro::Schema::parse_with(&references, &schema.text)
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
            let pushed = unframed(value).and_then(|(id, value)| match self.plans.get(&id) {
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
        Values { columns: self.rows.finish(), row_values: (!bad.is_empty()).then_some(row_values), bad }
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
    asked.map_err(|reason| format!("the columns are those of subject {subject}, whose latest schema is not known ({reason}): declare them under `schema:`, or name the subject"))
}
