//! Reading topics: what a source decides once, its partitions as splits, and the one consumer that all its readers share.
//!
//! Every partition is a split. Where it begins and ends is decided when it is found, and stands in the split from then on, so that a run that is
//! restored reads the same. The consumer is assigned partition by partition and belongs to no group's rebalancing: the engine says who reads what.

mod columns;
mod offsets;
mod reader;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arrow_schema::{DataType, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{columns::Layout, offsets::Begin, reader::Reader};
use super::{
    Machine,
    client::{Context, blocking, failed},
    registry,
    settings::{Changes, Isolation, SourceSettings, ValueFormat},
    topics::{self, Admin, TopicNames, Unknown},
};
use crate::{
    formats::{
        csv::Dialect,
        debezium,
        layout::{TextKind, TextLayout, timestamp_formats},
        records::{self, ValueLayout},
    },
    settings::{problem, read},
    value_schema::{avro_schema, protobuf_schema},
};

/// How often the consumer's own events are looked at.
const EVENTS: Duration = Duration::from_millis(100);

/// The source connector `kafka`.
#[derive(Clone, Copy, Debug)]
pub struct KafkaSource(pub Machine);

impl SourceConnector for KafkaSource {
    fn name(&self) -> &'static str {
        super::NAME
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(SourceSettings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let settings: SourceSettings = read(request.settings)?;
        let mut problems = Vec::new();
        settings.connection().check(self.0, &mut problems);
        settings.check(&mut problems);
        let names = TopicNames::new(settings.topics.as_slice(), &mut problems);
        if let Some(registry) = &settings.schema_registry {
            registry.check(self.0, &mut problems);
        }
        // A registry is asked only for what is right otherwise.
        if settings.schema_registry.is_some() && !problems.is_empty() {
            return Err(problems);
        }
        let place = Surroundings { machine: self.0, base: &request.base_directory, clock: &request.clock };
        let values = match changed_values(&settings, request.declared_schema, &place) {
            Ok(values) => values,
            Err(more) => {
                problems.extend(more);
                return Err(problems);
            }
        };
        let layout = Layout::new(&settings, values);
        problems.extend(layout.as_ref().err().into_iter().flatten().cloned());
        let (Ok(layout), Some(names), true) = (layout, names, problems.is_empty()) else { return Err(problems) };
        let columns = (0..layout.schema().fields().len()).collect();
        let shared = Shared {
            settings,
            names,
            layout,
            base: request.base_directory,
            consumer: Mutex::default(),
            found: Mutex::default(),
            opening: Arc::default(),
        };
        Ok(Arc::new(Topics { shared: Arc::new(shared), columns }))
    }
}

/// Where a source is planned.
struct Surroundings<'a> {
    machine: Machine,
    base: &'a Path,
    clock: &'a Arc<dyn Clock>,
}

/// How values are read, and changes out of them.
fn changed_values(
    settings: &SourceSettings,
    declared: Option<SchemaRef>,
    place: &Surroundings<'_>,
) -> Result<ValueLayout, Vec<SettingsProblem>> {
    if settings.changes != Changes::Debezium {
        return values(settings, declared, place);
    }
    let Some(columns) = declared else {
        return Err(vec![problem("", "the columns of the table are not known: declare them under `schema:` of the source")]);
    };
    let envelope = debezium::envelope(&columns, settings.format == ValueFormat::Json);
    let envelopes = values(settings, Some(envelope), place)?;
    Ok(ValueLayout::Made(Arc::new(debezium::Debezium::new(columns, envelopes))))
}

/// How values are read.
fn values(settings: &SourceSettings, declared: Option<SchemaRef>, place: &Surroundings<'_>) -> Result<ValueLayout, Vec<SettingsProblem>> {
    let kind = match settings.format {
        ValueFormat::Avro | ValueFormat::Protobuf => {
            return schema_values(settings, declared, place).map(ValueLayout::Made).map_err(|problem| vec![problem]);
        }
        ValueFormat::String => return ValueLayout::whole(declared, DataType::Utf8),
        ValueFormat::Raw => return ValueLayout::whole(declared, DataType::Binary),
        ValueFormat::Json => TextKind::Json,
        ValueFormat::Csv => TextKind::Csv(dialect(settings), false),
    };
    let Some(schema) = declared else {
        return Err(vec![problem("", "the columns of the values are not known: declare them under `schema:` of the source")]);
    };
    let timestamps = timestamp_formats(&settings.timestamp_formats, &schema)?;
    Ok(ValueLayout::Text(TextLayout::new(schema, timestamps, kind)?))
}

/// How values are read that need a schema besides the columns.
fn schema_values(
    settings: &SourceSettings,
    declared: Option<SchemaRef>,
    place: &Surroundings<'_>,
) -> Result<Arc<dyn records::ValueFormat>, SettingsProblem> {
    let is_avro = settings.format == ValueFormat::Avro;
    let kind = if is_avro { registry::Kind::Avro } else { registry::Kind::Protobuf };
    let message = settings.message.as_deref();
    let parse = |text: &String| match kind {
        registry::Kind::Avro => avro_schema(text, place.machine.files(place.base)).map(registry::ValueSchema::Avro),
        _ => protobuf_schema(text, message, place.machine.files(place.base)).map(registry::ValueSchema::Protobuf),
    };
    let given = settings.value_schema.as_ref().map(parse).transpose()?;
    let wrong = |message: String| problem("value-schema", message);
    let Some(registry) = &settings.schema_registry else {
        let missing = || wrong("say the schema of the values, or in `schema-registry` where it is known".into());
        return given.ok_or_else(missing)?.alone(declared).map_err(wrong);
    };
    let client = registry::Client::new(registry, place.base, place.clock.clone()).map_err(|message| problem("", message))?;
    let reader = match (&declared, given) {
        (None, None) => Some(latest(settings, registry, &client, kind).map_err(|message| problem("schema-registry", message))?),
        (_, given) => given,
    };
    let columns = match (declared, &reader) {
        (Some(declared), _) => declared,
        (None, Some(reader)) => reader.columns().map_err(wrong)?,
        (None, None) => unreachable!("without declared columns a schema was asked for"),
    };
    let (client, message) = (Arc::new(client), settings.message.clone());
    let format = registry::RegisteredSchemas { client, columns, reader, kind, message };
    records::ValueFormat::decoder(&format, &(0..format.columns.fields().len()).collect::<Vec<_>>()).map_err(wrong)?;
    Ok(Arc::new(format))
}

fn latest(
    settings: &SourceSettings,
    registry: &registry::Registry,
    client: &registry::Client,
    kind: registry::Kind,
) -> Result<registry::ValueSchema, String> {
    let subject = match (settings.topics.as_slice(), &registry.subject) {
        (_, Some(subject)) => subject.clone(),
        ([topic], None) if !topic.contains(['*', '?', '[', '{']) => registry.subject_of(topic),
        _ => return Err("with several topics, declare the columns under `schema:`, or name the `subject` that has them".into()),
    };
    registry::latest(client, &subject)?.parse(kind, settings.message.as_deref())
}

fn dialect(settings: &SourceSettings) -> Dialect {
    Dialect {
        delimiter: settings.delimiter.map_or(b',', |delimiter| delimiter.0),
        quote: Some(settings.quote.map_or(b'"', |quote| quote.0)),
        null_values: settings.null_values.clone(),
    }
}

type Consumer = BaseConsumer<Context>;

/// What all projections of a source share.
struct Shared {
    settings: SourceSettings,
    names: TopicNames,
    layout: Layout,
    base: PathBuf,
    /// Made when it is first needed, and again when no reader of the run before holds it.
    consumer: Mutex<Weak<Consumer>>,
    /// The splits that were found so far, by id.
    found: Mutex<BTreeMap<String, Split>>,
    /// Held while a reader is opened, and until one that nobody waits for any more is gone: it would take the partition away from the next one.
    opening: Arc<tokio::sync::Mutex<()>>,
}

impl Shared {
    /// The consumer, made if there is none.
    fn consumer(&self) -> Result<Arc<Consumer>, OperatorError> {
        let mut held = self.consumer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(consumer) = held.upgrade() {
            return Ok(consumer);
        }
        let consumer = self.connect(self.settings.isolation)?;
        *held = Arc::downgrade(&consumer);
        serve_events(Arc::downgrade(&consumer));
        Ok(consumer)
    }

    /// One that sees the offsets of all that was written, also of transactions that are open.
    fn consumer_of_all(&self) -> Result<Arc<Consumer>, OperatorError> {
        match self.settings.isolation {
            Isolation::ReadUncommitted => self.consumer(),
            Isolation::ReadCommitted => self.connect(Isolation::ReadUncommitted),
        }
    }

    fn connect(&self, isolation: Isolation) -> Result<Arc<Consumer>, OperatorError> {
        let mut config = self.settings.connection().client(&self.base).map_err(OperatorError::user)?;
        self.settings.tune(&mut config);
        config.set("isolation.level", isolation.level());
        let created = config.create_with_context(Context::reading(isolation));
        Ok(Arc::new(created.map_err(|error| failed("the consumer cannot be made", &error, None))?))
    }
}

/// Errors that concern no single partition come to the consumer itself, which must be asked for them. They are logged by its [`Context`]; those
/// that readers must fail for come to their partitions as well.
fn serve_events(consumer: Weak<Consumer>) {
    tokio::task::spawn_blocking(move || {
        while let Some(consumer) = consumer.upgrade() {
            if let Some(Err(error)) = consumer.poll(EVENTS) {
                tracing::debug!(%error, "kafka: an event of the consumer");
            }
        }
    });
}

/// [`Split::detail`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Place {
    topic: String,
    partition: i32,
    /// The first record to be read.
    start: i64,
    /// The first record that is not to be read; none: there is no end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    end: Option<i64>,
}

impl Place {
    fn id(topic: &str, partition: i32) -> String {
        format!("{topic}/{partition}")
    }
}

/// What a checkpoint stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    /// The next record.
    offset: i64,
}

struct Topics {
    shared: Arc<Shared>,
    columns: Vec<usize>,
}

impl Topics {
    /// The splits of partitions, all found so far: of those that were not known, begin and end are decided now.
    async fn find(&self, begin: Begin) -> Result<Vec<Split>, OperatorError> {
        let shared = self.shared.clone();
        blocking(move || {
            let consumer = shared.consumer()?;
            let partitions = topics::partitions(consumer.client(), &shared.names, Unknown::ComesBack)?;
            let mut found = shared.found.lock().unwrap_or_else(PoisonError::into_inner);
            let new: Vec<(String, i32)> =
                partitions.into_iter().filter(|(topic, partition)| !found.contains_key(&Place::id(topic, *partition))).collect();
            for place in offsets::decide(&consumer, &|| shared.consumer_of_all(), &shared.settings, new, begin)? {
                let id = Place::id(&place.topic, place.partition);
                let split = Split { id: id.as_str().into(), detail: serde_json::to_value(place).expect("plain data") };
                found.insert(id, split);
            }
            Ok(found.values().cloned().collect())
        })
        .await
    }
}

#[async_trait]
impl Source for Topics {
    fn schema(&self) -> SchemaRef {
        Arc::new(self.shared.layout.schema().project(&self.columns).expect("projected columns exist"))
    }

    fn has_changes(&self) -> bool {
        self.shared.settings.changes != Changes::Append
    }

    fn is_bounded(&self) -> bool {
        self.shared.settings.end.is_some()
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        let columns = columns.iter().map(|&column| self.columns[column]).collect();
        Arc::new(Self { shared: self.shared.clone(), columns })
    }

    async fn check_outside(&self) -> Result<(), OperatorError> {
        let shared = self.shared.clone();
        blocking(move || {
            topics::partitions(Admin::new(&shared.settings.connection(), &shared.base)?.client(), &shared.names, Unknown::IsMistake)
                .map(drop)
        })
        .await
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        // Another attempt may begin elsewhere: nothing of it was committed.
        self.shared.found.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.find(Begin::AsAsked).await
    }

    async fn more_splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        self.find(Begin::FirstRecord).await
    }

    fn discovery_interval(&self) -> Option<Duration> {
        (!self.is_bounded()).then_some(self.shared.settings.discovery_interval.0)
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let place: Place = serde_json::from_value(split.detail.clone())
            .map_err(|error| OperatorError::internal(format!("split {} is not one of kafka", split.id)).because(error))?;
        let resume: Option<Position> = position
            .map(|position| serde_json::from_value(position.clone()))
            .transpose()
            .map_err(|error| OperatorError::user(format!("the position of {} is not one of kafka", split.id)).because(error))?;
        let offset = resume.map_or(place.start, |position| position.offset);
        let decoder = self.shared.layout.decoder(&self.columns).map_err(OperatorError::user)?;
        let (shared, id) = (self.shared.clone(), split.id.clone());
        let turn = self.shared.opening.clone().lock_owned().await;
        // What is dropped together goes in this order.
        let (reader, _turn) = blocking(move || (Reader::open(&shared, id, place, offset, decoder), turn)).await;
        Ok(Box::new(reader?))
    }
}
