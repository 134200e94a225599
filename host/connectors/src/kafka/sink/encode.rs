//! From rows to records: value, key, headers, timestamp, partition and topic of each.

use std::{borrow::Cow, sync::Arc};

use arrow_array::{Array as _, ArrayRef, BinaryArray, Int32Array, RecordBatch, TimestampMillisecondArray, cast::AsArray as _};
use arrow_schema::{DataType, Schema, TimeUnit};
use millstream_engine::connector::SettingsProblem;
use millstream_model::Batch;
use rdkafka::message::{Header, OwnedHeaders};

use crate::{
    formats::{avro, csv, debezium, ndjson, protobuf},
    kafka::{
        producer::{Outgoing, OutgoingRecords},
        registry::{self, ValueSchema},
        settings::{Changes, SinkSettings, ValueFormat},
        sink::{
            changes::{Upserts, upserts},
            keys::Key,
        },
    },
    settings::problem,
};

/// How values are written.
enum Values {
    Json(ndjson::Writer),
    Csv(csv::Writer),
    Avro(avro::Writer),
    Protobuf(protobuf::Writer),
    /// The only column as it is.
    Whole,
}

/// How the rows of a stream become records.
pub(super) struct Layout {
    values: Values,
    value_columns: Vec<usize>,
    key: Option<Key>,
    timestamp: Option<usize>,
    partition: Option<usize>,
    topic: Option<usize>,
    headers: Vec<(Arc<str>, usize)>,
    topics: Arc<[String]>,
    changes: Changes,
}

impl Layout {
    /// # Errors
    /// A column does not exist, or has no type for what it is to be.
    pub(super) fn new(settings: &SinkSettings, given: Option<&ValueSchema>, schema: &Schema) -> Result<Self, Vec<SettingsProblem>> {
        let mut problems = Vec::new();
        let mut found = |column: Result<usize, SettingsProblem>| column.map_err(|wrong| problems.push(wrong)).ok();
        let mut optional = |place: &str, name: &Option<String>, fits: fn(&DataType) -> bool, wanted: &str| {
            name.as_ref().and_then(|name| found(column(schema, place, name, fits, wanted)))
        };
        let timestamp = optional("timestamp", &settings.timestamp, is_timestamp, "a timestamp");
        let partition = optional("partition", &settings.partition, DataType::is_integer, "an integer");
        let topic = optional("topic-column", &settings.topic_column, is_text, "text");
        let headers: Vec<(Arc<str>, usize)> = settings
            .headers
            .iter()
            .filter_map(|(header, name)| {
                Some((header.as_str().into(), found(column(schema, &format!("headers.{header}"), name, is_bytes, "text or bytes"))?))
            })
            .collect();
        let key = settings.key.as_ref().and_then(|key| Key::new(key, schema).map_err(|wrong| problems.push(wrong)).ok());
        let beside: Vec<usize> = partition.into_iter().chain(topic).chain(headers.iter().map(|(_, column)| *column)).collect();
        let value_columns: Vec<usize> = (0..schema.fields().len()).filter(|column| !beside.contains(column)).collect();
        let value_columns = whole_columns(settings, schema, key.as_ref(), timestamp, value_columns);
        let columns = schema.project(&value_columns).expect("value columns exist");
        let values = match settings.changes {
            Changes::Debezium => values(settings, given, &debezium::written(&columns)),
            Changes::Append | Changes::Upsert => values(settings, given, &columns),
        };
        match values {
            Ok(values) if problems.is_empty() => {
                let (topics, changes) = (settings.topic.as_slice().into(), settings.changes);
                Ok(Self { values, value_columns, key, timestamp, partition, topic, headers, topics, changes })
            }
            Ok(_) => Err(problems),
            Err(found) => {
                problems.push(found);
                Err(problems)
            }
        }
    }

    /// The schema that values are written in; none: they need none.
    pub(super) fn value_schema(&self) -> Option<(registry::Kind, &str)> {
        match &self.values {
            Values::Avro(writer) => Some((registry::Kind::Avro, writer.schema().text())),
            Values::Protobuf(writer) => Some((registry::Kind::Protobuf, writer.schema().text())),
            Values::Json(_) | Values::Csv(_) | Values::Whole => None,
        }
    }

    /// The records of a batch; `ids` are those of the schema for each topic that may be written, where values begin with them.
    ///
    /// # Errors
    /// A row cannot be written, or names a topic that is not allowed; a clause.
    pub(super) fn encode(&self, batch: &Batch, ids: Option<&[u32]>) -> Result<Encoded, String> {
        let Changed { batch, gone, envelopes } = self.changed(batch)?;
        let batch = &batch;
        let rows = batch.columns();
        let cast = |column: Option<usize>, to: &DataType| column.map(|column| cast(rows.column(column), to)).transpose();
        let bytes_of =
            |column: Option<usize>| Ok::<_, String>(cast(column, &DataType::Binary)?.map(|array| array.as_binary::<i32>().clone()));
        let whole = match self.values {
            Values::Whole => bytes_of(Some(self.value_columns[0]))?,
            Values::Json(_) | Values::Csv(_) | Values::Avro(_) | Values::Protobuf(_) => None,
        };
        let headers = self.headers.iter().map(|(name, column)| Ok((name.clone(), bytes_of(Some(*column))?.expect("it was asked for"))));
        let timestamps = cast(self.timestamp, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
        let mut encoded = Encoded {
            rows: rows.num_rows(),
            bytes: Vec::new(),
            spans: Vec::new(),
            has_lines: matches!(self.values, Values::Json(_) | Values::Csv(_)),
            whole,
            keys: self.keys(rows)?,
            timestamps: timestamps.map(|array| array.as_primitive().clone()),
            event_times: batch.event_times().map(|times| times.to_vec()),
            partitions: cast(self.partition, &DataType::Int32)?.map(|array| array.as_primitive().clone()),
            topics: bytes_of(self.topic)?,
            headers: headers.collect::<Result<_, String>>()?,
            allowed: self.topics.clone(),
            gone,
        };
        let topics = (0..encoded.rows).map(|row| encoded.topic(row)).collect::<Result<Vec<_>, _>>()?;
        let indexes = match &self.values {
            Values::Protobuf(writer) => Some(writer.schema().indexes()),
            _ => None,
        };
        let head = |row: usize, out: &mut Vec<u8>| {
            let Some(ids) = ids else { return };
            registry::frame(ids[topics[row]], out);
            indexes.iter().for_each(|indexes| registry::index(indexes, out));
        };
        let values = match envelopes {
            Some(envelopes) => envelopes,
            None => rows.project(&self.value_columns).map_err(|error| error.to_string())?,
        };
        (encoded.bytes, encoded.spans) = self.values(&values, &head)?;
        Ok(encoded)
    }

    /// What the changes of a batch are as records.
    fn changed(&self, batch: &Batch) -> Result<Changed, String> {
        let keys = self.keys(batch.columns())?;
        match self.changes {
            Changes::Append => Ok(Changed { batch: batch.clone(), gone: None, envelopes: None }),
            Changes::Upsert => {
                let Upserts { batch, gone } = upserts(batch, &keys.expect("`upsert` needs `key`"))?;
                Ok(Changed { batch, gone: Some(gone), envelopes: None })
            }
            Changes::Debezium => {
                let is_same = |one: usize, other: usize| keys.as_ref().is_none_or(|keys| keys.value(one) == keys.value(other));
                let changes = debezium::changes(batch, is_same);
                let columns = batch.columns().project(&self.value_columns).map_err(|error| error.to_string())?;
                let rows: Vec<u32> = changes.iter().map(debezium::Change::row).collect();
                Ok(Changed { batch: batch.take(&rows), gone: None, envelopes: Some(debezium::envelopes(&columns, &changes)) })
            }
        }
    }

    fn keys(&self, rows: &RecordBatch) -> Result<Option<BinaryArray>, String> {
        self.key.as_ref().map(|key| key.of(rows)).transpose()
    }

    /// The bytes of all values, and where each ends. `head` writes what stands in front of a value.
    fn values(&self, columns: &RecordBatch, head: &dyn Fn(usize, &mut Vec<u8>)) -> Result<(Vec<u8>, Vec<usize>), String> {
        if matches!(self.values, Values::Whole) {
            return Ok((Vec::new(), Vec::new()));
        }
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        match &self.values {
            Values::Avro(writer) => writer.rows(columns, head, &mut bytes, &mut ends)?,
            Values::Protobuf(writer) => writer.rows(columns, head, &mut bytes, &mut ends)?,
            Values::Json(_) | Values::Csv(_) | Values::Whole => return self.lines(columns),
        }
        Ok((bytes, ends))
    }

    fn lines(&self, columns: &RecordBatch) -> Result<(Vec<u8>, Vec<usize>), String> {
        let mut bytes = Vec::new();
        self.write(columns, &mut bytes)?;
        let ends: Vec<usize> = memchr::memchr_iter(b'\n', &bytes).map(|end| end + 1).collect();
        if ends.len() == columns.num_rows() {
            return Ok((bytes, ends));
        }
        // Some text has a line end in it, as CSV may.
        bytes.clear();
        let mut ends = Vec::with_capacity(columns.num_rows());
        for row in 0..columns.num_rows() {
            self.write(&columns.slice(row, 1), &mut bytes)?;
            ends.push(bytes.len());
        }
        Ok((bytes, ends))
    }

    fn write(&self, columns: &RecordBatch, bytes: &mut Vec<u8>) -> Result<(), String> {
        match &self.values {
            Values::Json(writer) => writer.rows(columns, bytes),
            Values::Csv(writer) => writer.rows(columns, bytes),
            Values::Avro(_) | Values::Protobuf(_) | Values::Whole => unreachable!("these have no lines"),
        }
    }
}

/// A batch as records.
struct Changed {
    /// A row for each record.
    batch: Batch,
    /// Whether each is gone; none: none is.
    gone: Option<Vec<bool>>,
    /// The values, where they are not those of the rows.
    envelopes: Option<RecordBatch>,
}

/// The column of this name, which has such a type.
///
/// # Errors
/// It has not, or there is none.
pub(super) fn column(
    schema: &Schema,
    place: &str,
    name: &str,
    fits: fn(&DataType) -> bool,
    wanted: &str,
) -> Result<usize, SettingsProblem> {
    let index = schema.index_of(name).map_err(|_| problem(place, format!("there is no column {name}")))?;
    let data_type = schema.field(index).data_type();
    if fits(data_type) {
        return Ok(index);
    }
    Err(problem(place, format!("column {name} has the type {data_type}, not {wanted}: convert it with `select` before")))
}

/// For text and bytes, what is already key or timestamp need not be the value as well.
fn whole_columns(settings: &SinkSettings, schema: &Schema, key: Option<&Key>, timestamp: Option<usize>, columns: Vec<usize>) -> Vec<usize> {
    let is_whole = matches!(settings.format, ValueFormat::String | ValueFormat::Raw);
    if !is_whole || columns.len() == 1 || schema.fields().is_empty() {
        return columns;
    }
    let is_key = |column: usize| key.is_some_and(|key| key.columns().contains(&column));
    columns.into_iter().filter(|&column| !is_key(column) && Some(column) != timestamp).collect()
}

fn values(settings: &SinkSettings, given: Option<&ValueSchema>, schema: &Schema) -> Result<Values, SettingsProblem> {
    let wrong = |message: String| problem("format", message);
    match settings.format {
        ValueFormat::Avro | ValueFormat::Protobuf => match given {
            Some(ValueSchema::Avro(given)) => {
                avro::Writer::new(given, schema).map(Values::Avro).map_err(|message| problem("value-schema", message))
            }
            Some(ValueSchema::Protobuf(given)) => {
                protobuf::Writer::new(given, schema).map(Values::Protobuf).map_err(|message| problem("value-schema", message))
            }
            None if settings.format == ValueFormat::Protobuf => {
                Err(problem("value-schema", "say which message is written: the text of a `.proto` file, or its path"))
            }
            None => {
                let made = avro::derived(schema, &record_name(settings)).and_then(|made| avro::Writer::new(&made, schema));
                made.map(Values::Avro).map_err(wrong)
            }
        },
        ValueFormat::Json => ndjson::Writer::new(schema, settings.nulls.unwrap_or_default()).map(Values::Json).map_err(wrong),
        ValueFormat::Csv => {
            let delimiter = settings.delimiter.map_or(b',', |delimiter| delimiter.0);
            csv::Writer::new(schema, delimiter).map(Values::Csv).map_err(wrong)
        }
        ValueFormat::String | ValueFormat::Raw => {
            let fits = if settings.format == ValueFormat::String { is_text } else { is_bytes };
            match schema.fields().as_ref() {
                [field] if fits(field.data_type()) => Ok(Values::Whole),
                fields => {
                    let found: Vec<String> = fields.iter().map(|field| format!("{}: {}", field.name(), field.data_type())).collect();
                    Err(wrong(format!("writes one column as it is, and the stream has {}: keep one with `select`", found.join(", "))))
                }
            }
        }
    }
}

/// The name of the record in a schema that is made of the columns: that of the topic, as far as Avro knows it.
fn record_name(settings: &SinkSettings) -> String {
    let topic = settings.topic.as_slice().first().map_or("", String::as_str);
    let known = |character: char| if character.is_ascii_alphanumeric() { character } else { '_' };
    let name: String = topic.chars().map(known).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("millstream._{name}") } else { format!("millstream.{name}") }
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

pub(super) fn is_bytes(data_type: &DataType) -> bool {
    is_text(data_type) || matches!(data_type, DataType::Binary | DataType::LargeBinary | DataType::BinaryView)
}

fn is_timestamp(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Timestamp(..))
}

pub(super) fn cast(column: &ArrayRef, to: &DataType) -> Result<ArrayRef, String> {
    if column.data_type() == to { Ok(column.clone()) } else { arrow_cast::cast(column, to).map_err(|error| error.to_string()) }
}

/// Records, row by row.
pub(super) struct Encoded {
    rows: usize,
    bytes: Vec<u8>,
    /// Where each value ends, behind its line end if it has one.
    spans: Vec<usize>,
    has_lines: bool,
    whole: Option<BinaryArray>,
    keys: Option<BinaryArray>,
    timestamps: Option<TimestampMillisecondArray>,
    event_times: Option<Vec<i64>>,
    partitions: Option<Int32Array>,
    topics: Option<BinaryArray>,
    headers: Vec<(Arc<str>, BinaryArray)>,
    allowed: Arc<[String]>,
    /// Whether each row is gone; none: none is.
    gone: Option<Vec<bool>>,
}

impl OutgoingRecords for Encoded {
    fn len(&self) -> usize {
        self.rows
    }

    fn bytes(&self) -> usize {
        let arrays = [&self.whole, &self.keys, &self.topics].into_iter().flatten().chain(self.headers.iter().map(|(_, column)| column));
        self.bytes.len() + arrays.map(bytes_in).sum::<usize>()
    }

    fn record(&self, row: usize) -> Outgoing<'_> {
        Outgoing {
            topic: &self.allowed[self.topic(row).expect("all were looked at")],
            partition: self.partitions.as_ref().filter(|column| column.is_valid(row)).map(|column| column.value(row)),
            key: bytes_at(self.keys.as_ref(), row),
            value: self.value(row),
            timestamp_ms: self.timestamp_ms(row),
        }
    }

    fn headers(&self, row: usize) -> Option<OwnedHeaders> {
        if self.headers.is_empty() {
            return None;
        }
        let headers = OwnedHeaders::new_with_capacity(self.headers.len());
        let add = |headers: OwnedHeaders, (name, column): &(Arc<str>, BinaryArray)| {
            headers.insert(Header { key: name, value: bytes_at(Some(column), row) })
        };
        Some(self.headers.iter().fold(headers, add))
    }
}

impl Encoded {
    fn value(&self, row: usize) -> Option<&[u8]> {
        if self.gone.as_ref().is_some_and(|gone| gone[row]) {
            return None;
        }
        if let Some(whole) = &self.whole {
            return bytes_at(Some(whole), row);
        }
        let start = if row == 0 { 0 } else { self.spans[row - 1] };
        let value = &self.bytes[start..self.spans[row]];
        Some(if self.has_lines { value.strip_suffix(b"\n").unwrap_or(value) } else { value })
    }

    fn timestamp_ms(&self, row: usize) -> Option<i64> {
        match &self.timestamps {
            Some(column) => column.is_valid(row).then(|| column.value(row)),
            // Kafka knows no time before 1970.
            None => self.event_times.as_ref().map(|times| times[row]).filter(|time| *time >= 0),
        }
    }

    /// The number of the topic of a row.
    fn topic(&self, row: usize) -> Result<usize, String> {
        let Some(column) = &self.topics else { return Ok(0) };
        let named: Cow<'_, str> = bytes_at(Some(column), row).map_or(Cow::Borrowed("null"), String::from_utf8_lossy);
        let found = self.allowed.iter().position(|allowed| **allowed == *named);
        found.ok_or_else(|| format!("row {row} names the topic {named}, which `topic` does not allow"))
    }
}

fn bytes_in(column: &BinaryArray) -> usize {
    let offsets = column.value_offsets();
    (offsets[column.len()] - offsets[0]).unsigned_abs() as usize
}

fn bytes_at(column: Option<&BinaryArray>, row: usize) -> Option<&[u8]> {
    column.filter(|column| column.is_valid(row)).map(|column| column.value(row))
}
