//! Writing files: one subtask writes the parts whose names carry its number.
//!
//! A run with checkpoints ends all its parts at every barrier and leaves them staged ([`super::target`]) until the checkpoint is committed. A run
//! without publishes a part when it rolls, and the others when all input has been written.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, Guarantee, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter, Source, SourceConnector as _},
    operator::OperatorError,
};
use millstream_model::{Batch, ids::CheckpointId};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use xxhash_rust::xxh3::xxh3_64;

use super::{
    FileFormat, FilesSource, SinkSettings,
    names::{Hiding, PartName, escaped},
    part::{Part, PartFormat},
    settings::check_value_schema,
    target::{Remembered, Staged, Target, sync_directories},
};
use crate::{
    compression::Compression,
    formats::{
        avro, csv, delimited,
        encode::{written_columns, written_schema},
        lines, ndjson, protobuf,
        text::RECORD_BYTES_LIMIT,
    },
    settings::{problem, read},
    value_schema::protobuf_schema,
};

/// Directories that one subtask writes at a time; the one that has been written longest is completed when another is needed.
const OPEN_PARTS_MAX: usize = 256;
/// What the rows of Avro files are called in their schema.
const RECORD_NAME: &str = "Row";
/// What stands in the name of a directory for a null, as Hive writes it.
const NULL_DIRECTORY: &str = "__HIVE_DEFAULT_PARTITION__";

/// The sink connector `files`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilesSink;

impl SinkConnector for FilesSink {
    fn name(&self) -> &'static str {
        "files"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(SinkSettings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        let settings: SinkSettings = read(request.settings)?;
        let Some(input) = request.input else {
            return Err(vec![problem("", "a sink needs a stream to write")]);
        };
        let schema = written_schema(&input);
        let mut problems = Vec::new();
        check(&settings, &schema, &mut problems);
        let by: Vec<usize> = settings.by.iter().filter_map(|name| schema.index_of(name).ok()).collect();
        let kept: Vec<usize> = (0..schema.fields().len()).filter(|column| !by.contains(column)).collect();
        let part_schema = Arc::new(schema.project(&kept).expect("kept columns exist"));
        let format = match part_format(&settings, &part_schema, &request.base_directory) {
            Ok(format) if problems.is_empty() => format,
            Ok(_) => return Err(problems),
            Err(message) => {
                // A schema that is missing is named already.
                if !problems.iter().any(|named| named.path == "value-schema") {
                    problems.push(problem("format", message));
                }
                return Err(problems);
            }
        };
        let directory = request.base_directory.join(&settings.path);
        let clock = request.clock.clone();
        let read_back = settings.by.is_empty().then(|| ReadBack {
            directory: directory.clone(),
            settings: read_back(&settings, &request.base_directory),
            clock,
        });
        let target = Target::new(directory, settings.overwrite, tag(request.state_directory));
        let rolling =
            Rolling { rows: settings.roll_rows, bytes: settings.roll_bytes, after_ms: settings.roll_after.map(|after| after.as_ms()) };
        let layout = Layout { target, format, schema, part_schema, by, kept, rolling, clock: request.clock };
        Ok(Arc::new(Files { layout: Arc::new(layout), prepared: OnceCell::new(), read_back }))
    }
}

/// Tells the hidden files of this sink from those of others: a hash of where the job keeps what is this sink's alone.
fn tag(state_directory: Option<PathBuf>) -> String {
    let place = state_directory.map(|directory| std::path::absolute(&directory).unwrap_or(directory)).unwrap_or_default();
    format!("{:016x}", xxh3_64(place.as_os_str().as_encoded_bytes()))
}

fn check(settings: &SinkSettings, schema: &Schema, problems: &mut Vec<SettingsProblem>) {
    if settings.path.is_empty() {
        problems.push(problem("path", "the path is empty"));
    }
    for (place, name) in settings.by.iter().enumerate() {
        match schema.field_with_name(name) {
            Err(_) => problems.push(problem(&format!("by.{place}"), format!("there is no column {name}"))),
            Ok(field) if field.data_type().is_nested() => {
                problems.push(problem(&format!("by.{place}"), format!("column {name} is nested and cannot name a directory")));
            }
            Ok(_) if settings.by[..place].contains(name) => {
                problems.push(problem(&format!("by.{place}"), format!("column {name} stands twice")));
            }
            Ok(_) => {}
        }
    }
    let only = [
        ("delimiter", settings.delimiter.is_some(), FileFormat::Csv),
        ("header", settings.header.is_some(), FileFormat::Csv),
        ("nulls", settings.nulls.is_some(), FileFormat::Ndjson),
        ("codec", settings.codec.is_some(), FileFormat::Avro),
    ];
    for (name, given, format) in only {
        if given && settings.format != format {
            problems.push(problem(name, format!("is a setting of {} only", format.name())));
        }
    }
    check_value_schema(settings.format, settings.value_schema.as_deref(), settings.message.as_deref(), problems);
    if settings.compression.is_some()
        && let Some(message) = settings.format.compressed_inside()
    {
        problems.push(problem("compression", message));
    }
    let limits = [
        ("roll-rows", settings.roll_rows == Some(0)),
        ("roll-bytes", settings.roll_bytes == Some(0)),
        ("roll-after", settings.roll_after.is_some_and(|after| after.0.is_zero())),
    ];
    problems.extend(limits.iter().filter(|(_, zero)| *zero).map(|(name, _)| problem(name, "is more than 0")));
}

fn part_format(settings: &SinkSettings, schema: &Schema, base: &Path) -> Result<PartFormat, String> {
    let compression = settings.compression.unwrap_or(Compression::None);
    Ok(match settings.format {
        FileFormat::Csv => {
            let delimiter = settings.delimiter.map_or(b',', |delimiter| delimiter.0);
            PartFormat::Csv { writer: csv::Writer::new(schema, delimiter)?, header: settings.header.unwrap_or(true), compression }
        }
        FileFormat::Ndjson => PartFormat::Ndjson { writer: ndjson::Writer::new(schema, settings.nulls.unwrap_or_default())?, compression },
        FileFormat::Raw => delimited::check(schema).map(|()| PartFormat::Raw { compression })?,
        FileFormat::Protobuf => {
            let message = settings.message.as_deref();
            let schema_of = settings.value_schema.as_deref().unwrap_or_default();
            let descriptor = protobuf_schema(schema_of, message, Some(base)).map_err(|problem| problem.message)?;
            PartFormat::Protobuf { writer: protobuf::Writer::new(&descriptor, schema)?, compression }
        }
        FileFormat::String => lines::check(schema).map(|()| PartFormat::Lines { compression })?,
        FileFormat::Parquet => PartFormat::Parquet,
        FileFormat::Avro => {
            let writer = avro::derived(schema, RECORD_NAME).and_then(|made| avro::Writer::new(&made, schema))?;
            PartFormat::Avro { writer, codec: settings.codec.unwrap_or_default() }
        }
    })
}

/// What all subtasks share.
struct Layout {
    target: Target,
    format: PartFormat,
    /// The stream as written, with the columns that name directories.
    schema: SchemaRef,
    part_schema: SchemaRef,
    by: Vec<usize>,
    kept: Vec<usize>,
    rolling: Rolling,
    clock: Arc<dyn Clock>,
}

/// When a part is complete before the end of the input.
struct Rolling {
    rows: Option<u64>,
    bytes: Option<u64>,
    after_ms: Option<i64>,
}

impl Rolling {
    fn is_due(&self, part: &Part, now_ms: i64) -> bool {
        self.rows.is_some_and(|rows| part.rows >= rows)
            || self.bytes.is_some_and(|bytes| part.bytes >= bytes)
            || self.after_ms.is_some_and(|after_ms| now_ms.saturating_sub(part.since_ms) >= after_ms)
    }
}

struct Files {
    layout: Arc<Layout>,
    /// The directory is looked at once, before any subtask writes.
    prepared: OnceCell<()>,
    /// How its parts are read; none: directories hold some of the columns.
    read_back: Option<ReadBack>,
}

/// How the parts are read.
struct ReadBack {
    directory: PathBuf,
    /// Of the source.
    settings: Value,
    clock: Arc<dyn Clock>,
}

/// The settings of a source that reads what a sink with these settings writes.
fn read_back(settings: &SinkSettings, base: &Path) -> Value {
    let mut source = json!({ "path": "part-*", "format": settings.format.name(), "max-record-bytes": RECORD_BYTES_LIMIT });
    if let Some(schema) = &settings.value_schema {
        // A path is relative to the job file, not to the parts.
        source["value-schema"] = if schema.contains('{') { schema.as_str().into() } else { base.join(schema).to_string_lossy().into() };
        source["message"] = settings.message.clone().into();
    }
    if settings.format == FileFormat::Csv {
        source["header"] = settings.header.unwrap_or(true).into();
        source["delimiter"] = char::from(settings.delimiter.map_or(b',', |delimiter| delimiter.0)).to_string().into();
    }
    source
}

impl ReadBack {
    fn source(&self, id: &str, schema: SchemaRef) -> Result<Arc<dyn Source>, OperatorError> {
        let planned = FilesSource.plan(ConnectorRequest {
            id,
            settings: &self.settings,
            base_directory: self.directory.clone(),
            declared_schema: Some(schema),
            input: None,
            clock: self.clock.clone(),
            state_directory: None,
        });
        planned.map_err(|problems| {
            let what: Vec<String> = problems.into_iter().map(|problem| problem.message).collect();
            OperatorError::outside(format!("the parts in `{}` cannot be read: {}", self.directory.display(), what.join("; ")))
        })
    }
}

impl Files {
    fn prepare(&self, restored: &[Value]) -> Result<(), OperatorError> {
        let remembered = Remembered::read(restored)?;
        if remembered.is_empty() { self.layout.target.start() } else { self.layout.target.resume(&remembered) }
    }
}

#[async_trait]
impl Sink for Files {
    fn accepts_changes(&self) -> bool {
        true
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn published(&self) -> Result<Option<Arc<dyn Source>>, OperatorError> {
        let Some(read_back) = &self.read_back else { return Ok(None) };
        let columns = self.layout.format.columns_read(&self.layout.part_schema);
        let columns = columns.map_err(|reason| OperatorError::internal(format!("the parts have no columns: {reason}")))?;
        read_back.source("results", columns).map(Some)
    }

    async fn recover(&self, staged: &[Value]) -> Result<(), OperatorError> {
        self.prepare(staged)?;
        // Set already where the same sink recovers again.
        drop(self.prepared.set(()));
        Ok(())
    }

    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        self.prepared.get_or_try_init(|| async { self.prepare(&context.restored) }).await?;
        let next = Remembered::next_of(&Remembered::read(&context.restored)?);
        let layout = self.layout.clone();
        let hiding = if context.is_durable { layout.target.staging() } else { Hiding::Unfinished };
        let (subtask, is_durable) = (context.subtask.0, context.is_durable);
        Ok(Box::new(Writer { layout, hiding, is_durable, subtask, next, open: BTreeMap::new(), complete: Vec::new() }))
    }
}

struct Writer {
    layout: Arc<Layout>,
    hiding: Hiding,
    /// Parts become visible by the commit of a checkpoint only.
    is_durable: bool,
    subtask: u32,
    /// Number of the next part.
    next: u64,
    /// The part being written in each directory, by its path below the sink's.
    open: BTreeMap<String, Part>,
    /// What is complete and not published, in order.
    complete: Vec<Complete>,
}

struct Complete {
    part: Staged,
    /// The first checkpoint that promises it; none: the barrier is still to come.
    checkpoint: Option<CheckpointId>,
}

impl Writer {
    fn append(&mut self, directory: &str, columns: &RecordBatch) -> Result<(), OperatorError> {
        let now_ms = self.layout.clock.monotonic_ms();
        if !self.open.contains_key(directory) {
            self.make_room()?;
            let part = self.start_part(directory, now_ms)?;
            self.open.insert(directory.to_owned(), part);
        }
        let part = self.open.get_mut(directory).expect("it was just opened");
        part.rows(columns)?;
        if self.layout.rolling.is_due(part, now_ms) {
            self.end_part(directory)?;
        }
        Ok(())
    }

    fn start_part(&mut self, directory: &str, now_ms: i64) -> Result<Part, OperatorError> {
        let layout = &self.layout;
        let path = format!("{directory}{}", PartName::visible(self.subtask, self.next, &layout.format.suffix()));
        self.next += 1;
        Part::create(&layout.target, &self.hiding, path, &layout.format, &layout.part_schema, now_ms)
    }

    /// Completes the part in a directory, which is then staged or, without checkpoints, published.
    fn end_part(&mut self, directory: &str) -> Result<(), OperatorError> {
        let Some(part) = self.open.remove(directory) else { return Ok(()) };
        let part = part.complete()?;
        if !self.is_durable {
            return self.layout.target.publish(&self.hiding, &[part]);
        }
        self.complete.push(Complete { part, checkpoint: None });
        Ok(())
    }

    fn end_parts(&mut self) -> Result<(), OperatorError> {
        let directories: Vec<String> = self.open.keys().cloned().collect();
        directories.iter().try_for_each(|directory| self.end_part(directory))
    }

    fn make_room(&mut self) -> Result<(), OperatorError> {
        if self.open.len() < OPEN_PARTS_MAX {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, part)| part.since_ms).map(|(directory, _)| directory.clone());
        oldest.map_or(Ok(()), |directory| self.end_part(&directory))
    }

    fn end_due_parts(&mut self) -> Result<(), OperatorError> {
        let now_ms = self.layout.clock.monotonic_ms();
        let due: Vec<String> =
            self.open.iter().filter(|(_, part)| self.layout.rolling.is_due(part, now_ms)).map(|(directory, _)| directory.clone()).collect();
        due.iter().try_for_each(|directory| self.end_part(directory))
    }

    /// An output without rows is an empty part, not a missing one: whoever reads it finds its columns.
    fn publish_empty_part(&mut self) -> Result<(), OperatorError> {
        let part = self.start_part("", self.layout.clock.monotonic_ms())?.complete()?;
        self.layout.target.publish(&self.hiding, &[part])
    }
}

/// The rows of each directory.
fn rows_by_directory(columns: &RecordBatch, by: &[usize]) -> Result<BTreeMap<String, Vec<u32>>, String> {
    let options = FormatOptions::default().with_display_error(false);
    let formatters =
        by.iter().map(|&column| ArrayFormatter::try_new(columns.column(column).as_ref(), &options)).collect::<Result<Vec<_>, _>>();
    let formatters = formatters.map_err(|error| error.to_string())?;
    let mut directories: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let (mut directory, schema) = (String::new(), columns.schema());
    for row in 0..columns.num_rows() {
        directory.clear();
        for (&column, formatter) in by.iter().zip(&formatters) {
            let value = if columns.column(column).is_null(row) {
                NULL_DIRECTORY.into()
            } else {
                escaped(&formatter.value(row).try_to_string().map_err(|error| error.to_string())?)
            };
            directory.push_str(&format!("{}={value}/", escaped(schema.field(column).name())));
        }
        let row = row as u32;
        match directories.get_mut(&directory) {
            Some(rows) => rows.push(row),
            None => {
                directories.insert(directory.clone(), vec![row]);
            }
        }
    }
    Ok(directories)
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        let layout = self.layout.clone();
        let internal =
            |reason: String| OperatorError::internal(format!("cannot write to {}: {reason}", layout.target.directory().display()));
        let columns = written_columns(&layout.schema, batch).map_err(internal)?;
        if layout.by.is_empty() {
            return self.append("", &columns);
        }
        let kept = columns.project(&layout.kept).expect("kept columns exist");
        for (directory, rows) in rows_by_directory(&columns, &layout.by).map_err(internal)? {
            let rows = Batch::new(kept.clone()).take(&rows);
            self.append(&directory, rows.columns())?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), OperatorError> {
        self.end_due_parts()
    }

    async fn on_barrier(&mut self, checkpoint: CheckpointId) -> Result<Value, OperatorError> {
        if !self.is_durable {
            return Ok(Value::Null);
        }
        self.end_parts()?;
        let target = &self.layout.target;
        let new: Vec<PathBuf> = self
            .complete
            .iter()
            .filter(|complete| complete.checkpoint.is_none())
            .map(|new| target.hidden(&self.hiding, &new.part.path))
            .collect();
        // The contents are synced, but a crash could still take the names.
        sync_directories(new.iter())?;
        for complete in &mut self.complete {
            complete.checkpoint.get_or_insert(checkpoint);
        }
        let staged = self.complete.iter().map(|complete| complete.part.clone()).collect();
        serde_json::to_value(target.remember(self.next, staged))
            .map_err(|error| OperatorError::internal("names are no JSON").because(error))
    }

    async fn on_committed(&mut self, checkpoint: CheckpointId) -> Result<(), OperatorError> {
        let is_promised = |complete: &Complete| complete.checkpoint.is_some_and(|promised_by| promised_by <= checkpoint);
        let promised: Vec<Staged> =
            self.complete.iter().filter(|complete| is_promised(complete)).map(|complete| complete.part.clone()).collect();
        self.layout.target.publish(&self.hiding, &promised)?;
        self.complete.retain(|complete| !is_promised(complete));
        Ok(())
    }

    async fn finish(mut self: Box<Self>) -> Result<(), OperatorError> {
        if self.is_durable && !(self.open.is_empty() && self.complete.is_empty()) {
            return Err(OperatorError::internal("a files sink was told to finish while rows of it are not committed"));
        }
        if self.subtask == 0 && self.next == 0 && self.layout.by.is_empty() {
            self.publish_empty_part()?;
        }
        self.end_parts()?;
        self.layout.target.replace()
    }

    async fn abort(self: Box<Self>) {}
}
