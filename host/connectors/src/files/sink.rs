//! Writing files: one subtask writes the parts whose names carry its number.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::RecordBatch;
use arrow_cast::display::{ArrayFormatter, FormatOptions};
use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter},
    operator::OperatorError,
};
use millstream_model::Batch;
use tokio::sync::OnceCell;

use super::{
    FileFormat, SinkSettings,
    part::{Part, PartFormat},
};
use crate::{
    compression::Compression,
    formats::{
        csv,
        encode::{written_columns, written_schema},
        ndjson,
    },
    settings::{problem, read},
};

/// Directories that one subtask writes at a time; the one that has been written longest is completed when another is needed.
const OPEN_PARTS_MAX: usize = 256;
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
        let format = match part_format(&settings, &part_schema) {
            Ok(format) if problems.is_empty() => format,
            Ok(_) => return Err(problems),
            Err(message) => {
                problems.push(problem("format", message));
                return Err(problems);
            }
        };
        let directory = request.base_directory.join(&settings.path);
        let rolling =
            Rolling { rows: settings.roll_rows, bytes: settings.roll_bytes, after_ms: settings.roll_after.map(|after| after.as_ms()) };
        let layout = Layout { directory, format, schema, part_schema, by, kept, rolling, clock: request.clock };
        Ok(Arc::new(Files { layout: Arc::new(layout), overwrite: settings.overwrite, prepared: OnceCell::new() }))
    }
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
    ];
    for (name, given, format) in only {
        if given && settings.format != format {
            problems.push(problem(name, format!("is a setting of {} only", format.extension())));
        }
    }
    if settings.compression.is_some() && settings.format == FileFormat::Parquet {
        problems.push(problem("compression", "Parquet files are compressed inside: leave this out"));
    }
    let limits = [
        ("roll-rows", settings.roll_rows == Some(0)),
        ("roll-bytes", settings.roll_bytes == Some(0)),
        ("roll-after", settings.roll_after.is_some_and(|after| after.0.is_zero())),
    ];
    problems.extend(limits.iter().filter(|(_, zero)| *zero).map(|(name, _)| problem(name, "is more than 0")));
}

fn part_format(settings: &SinkSettings, schema: &Schema) -> Result<PartFormat, String> {
    let compression = settings.compression.unwrap_or(Compression::None);
    Ok(match settings.format {
        FileFormat::Csv => {
            let delimiter = settings.delimiter.map_or(b',', |delimiter| delimiter.0);
            PartFormat::Csv { writer: csv::Writer::new(schema, delimiter)?, header: settings.header.unwrap_or(true), compression }
        }
        FileFormat::Ndjson => PartFormat::Ndjson { writer: ndjson::Writer::new(schema, settings.nulls.unwrap_or_default())?, compression },
        FileFormat::Parquet => PartFormat::Parquet,
    })
}

/// What all subtasks share.
struct Layout {
    directory: PathBuf,
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
    overwrite: bool,
    /// The directory is looked at once, before any subtask writes.
    prepared: OnceCell<()>,
}

impl Files {
    fn prepare(&self) -> Result<(), OperatorError> {
        let directory = &self.layout.directory;
        let shown = directory.display();
        let outside = |error: io::Error| OperatorError::outside(format!("cannot prepare {shown}: {error}")).because(error);
        fs::create_dir_all(directory).map_err(outside)?;
        let old = old_parts(directory).map_err(outside)?;
        if let Some(part) = old.iter().find(|part| !part.hidden)
            && !self.overwrite
        {
            let message =
                format!("{} is output of another run: choose another `path`, remove it, or set `overwrite: true`", part.path.display());
            return Err(OperatorError::user(message));
        }
        old.iter().try_for_each(|part| fs::remove_file(&part.path)).map_err(outside)
    }
}

struct OldPart {
    path: PathBuf,
    hidden: bool,
}

/// The parts in a directory and in the directories named by columns below it.
fn old_parts(directory: &Path) -> io::Result<Vec<OldPart>> {
    let mut parts = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() {
            if name.contains('=') {
                parts.extend(old_parts(&entry.path())?);
            }
        } else if is_part(&name) {
            parts.push(OldPart { path: entry.path(), hidden: name.starts_with('.') });
        }
    }
    Ok(parts)
}

/// Whether a name is one that this sink gives: `part-00000-00001.ndjson.gz`, or `.part-00000-00001.ndjson.gz.tmp` while it is written.
fn is_part(name: &str) -> bool {
    let visible = name.strip_prefix('.').and_then(|rest| rest.strip_suffix(".tmp")).unwrap_or(name);
    let Some((numbers, suffix)) = visible.strip_prefix("part-").and_then(|rest| rest.split_once('.')) else { return false };
    let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    let formats = ["csv", "ndjson", "parquet"];
    numbers.split_once('-').is_some_and(|(subtask, part)| is_number(subtask) && is_number(part))
        && formats.iter().any(|format| suffix.starts_with(format))
}

#[async_trait]
impl Sink for Files {
    fn accepts_changes(&self) -> bool {
        true
    }

    async fn writer(&self, context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        self.prepared.get_or_try_init(|| async { self.prepare() }).await?;
        Ok(Box::new(Writer { layout: self.layout.clone(), subtask: context.subtask.0, parts_started: 0, open: BTreeMap::new() }))
    }
}

struct Writer {
    layout: Arc<Layout>,
    subtask: u32,
    parts_started: u32,
    /// The part being written in each directory, by its path below the sink's.
    open: BTreeMap<String, Part>,
}

impl Writer {
    fn append(&mut self, directory: &str, columns: &RecordBatch) -> Result<(), OperatorError> {
        let now_ms = self.layout.clock.now_ms();
        if !self.open.contains_key(directory) {
            self.make_room()?;
            let part = self.start_part(directory, now_ms)?;
            self.open.insert(directory.to_owned(), part);
        }
        let part = self.open.get_mut(directory).expect("it was just opened");
        part.rows(columns)?;
        if self.layout.rolling.is_due(part, now_ms) {
            self.open.remove(directory).expect("it is open").publish()?;
        }
        Ok(())
    }

    fn start_part(&mut self, directory: &str, now_ms: i64) -> Result<Part, OperatorError> {
        let name = format!("part-{:05}-{:05}.{}", self.subtask, self.parts_started, self.layout.format.suffix());
        self.parts_started += 1;
        Part::create(&self.layout.directory.join(directory), &name, &self.layout.format, &self.layout.part_schema, now_ms)
    }

    fn make_room(&mut self) -> Result<(), OperatorError> {
        if self.open.len() < OPEN_PARTS_MAX {
            return Ok(());
        }
        let oldest = self.open.iter().min_by_key(|(_, part)| part.since_ms).map(|(directory, _)| directory.clone());
        oldest.and_then(|directory| self.open.remove(&directory)).map_or(Ok(()), Part::publish)
    }

    fn publish_due(&mut self) -> Result<(), OperatorError> {
        let now_ms = self.layout.clock.now_ms();
        let due: Vec<String> =
            self.open.iter().filter(|(_, part)| self.layout.rolling.is_due(part, now_ms)).map(|(directory, _)| directory.clone()).collect();
        due.iter().try_for_each(|directory| self.open.remove(directory).map_or(Ok(()), Part::publish))
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

/// A text as part of a file name: everything but letters, digits and `-_.` as `%XX`, so that no value can leave its directory.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        let layout = self.layout.clone();
        let internal = |reason: String| OperatorError::internal(format!("cannot write to {}: {reason}", layout.directory.display()));
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
        self.publish_due()
    }

    async fn finish(mut self: Box<Self>) -> Result<(), OperatorError> {
        // An output without rows is an empty part, not a missing one: whoever reads it finds its columns.
        if self.subtask == 0 && self.parts_started == 0 && self.layout.by.is_empty() {
            let part = self.start_part("", self.layout.clock.now_ms())?;
            self.open.insert(String::new(), part);
        }
        std::mem::take(&mut self.open).into_values().try_for_each(Part::publish)
    }

    async fn abort(self: Box<Self>) {}
}
