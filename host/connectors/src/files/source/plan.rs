//! From settings to a source: finds the files, the format and the columns.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use arrow_schema::{DataType, Field, Schema, SchemaRef};
use millstream_engine::connector::{ConnectorRequest, SettingsProblem};

use super::{Follow, Layout, Shared};
use crate::{
    compression::Compression,
    files::{
        FileFormat, SourceSettings,
        listing::{Listed, Pattern},
        settings::check_value_schema,
    },
    formats::{
        avro::{self, container},
        csv::{self, Dialect, Sample},
        layout::{TextKind, TextLayout, timestamp_formats},
        lines, ndjson,
        one_schema::OneSchema,
        parquet,
        records::ValueLayout,
        text::RECORD_BYTES_LIMIT,
    },
    settings::{problem, read},
    value_schema::protobuf_schema,
};

/// Bytes of the first file that inference looks at.
const SAMPLE_BYTES: u64 = 1 << 20;

type Problems = Vec<SettingsProblem>;

pub(super) fn plan(request: ConnectorRequest<'_>) -> Result<Shared, Problems> {
    let settings: SourceSettings = read(request.settings)?;
    let mut problems = Vec::new();
    let patterns = patterns(&settings, &request.base_directory, &mut problems);
    let first = if problems.is_empty() { first_file(&patterns, settings.follow, &mut problems) } else { None };
    let format = settings.format.or_else(|| {
        FileFormat::of_name(Path::new(settings.path.as_slice().first()?)).or_else(|| FileFormat::of_name(&first.as_ref()?.path))
    });
    let Some(format) = format else {
        if problems.is_empty() {
            problems.push(problem(
                "format",
                "the name of the first file does not say its format; expected csv, ndjson, parquet, avro, string, protobuf or raw",
            ));
        }
        return Err(problems);
    };
    check(&settings, format, &mut problems);
    if !problems.is_empty() {
        return Err(problems);
    }
    let (first, declared, base) = (first.as_ref(), request.declared_schema.as_ref(), request.base_directory.as_path());
    let columns = Columns { settings: &settings, format, first, declared, base };
    let schema = columns.schema()?;
    let layout = columns.layout(&schema)?;
    let follow = settings.follow.then(|| Follow { clock: request.clock.clone(), interval: settings.poll_interval.0 });
    Ok(Shared {
        patterns,
        layout,
        compression: settings.compression,
        schema,
        max_record_bytes: settings.max_record_bytes,
        split_bytes: settings.split_bytes,
        follow,
    })
}

fn patterns(settings: &SourceSettings, base: &Path, problems: &mut Problems) -> Vec<Pattern> {
    let mut patterns = Vec::new();
    for text in settings.path.as_slice() {
        match Pattern::new(text, base) {
            Ok(pattern) => patterns.push(pattern),
            Err(message) => problems.push(problem("path", message)),
        }
    }
    if patterns.is_empty() && problems.is_empty() {
        problems.push(problem("path", "the list is empty"));
    }
    patterns
}

/// The first file; each pattern must mean one at least, unless files may come later.
fn first_file(patterns: &[Pattern], follow: bool, problems: &mut Problems) -> Option<Listed> {
    let mut first = None;
    for pattern in patterns {
        match pattern.list() {
            Ok(files) if files.is_empty() && !follow => problems.push(problem("path", format!("no file matches `{pattern}`"))),
            Ok(files) => first = first.or_else(|| files.into_iter().next()),
            Err(error) if follow && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => problems.push(problem("path", format!("cannot read `{pattern}`: {error}"))),
        }
    }
    first
}

/// Settings that do not fit the format or each other.
fn check(settings: &SourceSettings, format: FileFormat, problems: &mut Problems) {
    let csv_only = [
        ("header", settings.header.is_some()),
        ("delimiter", settings.delimiter.is_some()),
        ("quote", settings.quote.is_some()),
        ("null-values", !settings.null_values.is_empty()),
    ];
    for (name, given) in csv_only {
        if given && format != FileFormat::Csv {
            problems.push(problem(name, "is a setting of CSV only"));
        }
    }
    if let Some(message) = format.compressed_inside() {
        if settings.compression.is_some() {
            problems.push(problem("compression", message));
        }
        if !settings.timestamp_formats.is_empty() {
            problems.push(problem("timestamp-formats", "is a setting of text formats only"));
        }
    }
    if matches!(format, FileFormat::Protobuf | FileFormat::Raw) && !settings.timestamp_formats.is_empty() {
        problems.push(problem("timestamp-formats", "is a setting of text formats only"));
    }
    check_value_schema(format, settings.value_schema.as_deref(), settings.message.as_deref(), problems);
    if settings.split_bytes.is_some() && (!matches!(format, FileFormat::Ndjson | FileFormat::String) || settings.follow) {
        problems.push(problem("split-bytes", "only files of NDJSON or string that are not followed can be cut into ranges"));
    }
    if settings.split_bytes.is_some_and(|bytes| bytes < 64 << 10) {
        problems.push(problem("split-bytes", "is at least 65536"));
    }
    if !(1..=RECORD_BYTES_LIMIT).contains(&settings.max_record_bytes) {
        problems.push(problem("max-record-bytes", format!("is 1 to {RECORD_BYTES_LIMIT}")));
    }
    if settings.poll_interval.0.is_zero() {
        problems.push(problem("poll-interval", "is more than 0"));
    }
}

/// What decides the columns.
struct Columns<'a> {
    settings: &'a SourceSettings,
    format: FileFormat,
    first: Option<&'a Listed>,
    declared: Option<&'a SchemaRef>,
    base: &'a Path,
}

impl Columns<'_> {
    fn schema(&self) -> Result<SchemaRef, Problems> {
        match (self.declared, self.first, self.format) {
            (.., FileFormat::Protobuf | FileFormat::Raw) => self.values().map(|values| values.schema().clone()),
            (Some(declared), None, _) => Ok(declared.clone()),
            (None, _, FileFormat::String) => Ok(lines::schema()),
            (None, None, _) => {
                Err(vec![problem("path", "there is no file yet to guess the columns from: declare them under `schema:` of the source")])
            }
            (_, Some(first), FileFormat::Parquet) => parquet::plan_schema(&first.path, self.declared)
                .map_err(|message| vec![problem("path", format!("{}: {message}", first.name))]),
            (_, Some(first), FileFormat::Avro) => self.avro_schema(first).map_err(|message| vec![problem("path", message)]),
            (Some(declared), Some(first), FileFormat::Csv) if self.has_header() => {
                self.check_header(declared, first).map(|()| declared.clone())
            }
            (Some(declared), ..) => Ok(declared.clone()),
            (None, Some(first), FileFormat::Ndjson) => {
                self.inferred(first, |bytes| Ok(ndjson::infer_schema(bytes, self.settings.infer_records)))
            }
            (None, Some(first), FileFormat::Csv) => self.inferred(first, |bytes| self.infer_csv(bytes)),
        }
    }

    /// The declared columns if the first file gives them, else its own.
    fn avro_schema(&self, first: &Listed) -> Result<SchemaRef, String> {
        let written = container::schema_of(&first.path).map_err(|error| format!("{} {}", first.name, with_cause(&error)))?;
        let schema = match self.declared {
            Some(declared) => avro::Plan::new(&written, declared, None).map(|_| declared.clone()),
            None => avro::columns(&written),
        };
        schema.map_err(|message| format!("{}: {message}", first.name))
    }

    /// How values behind their lengths are read.
    fn values(&self) -> Result<ValueLayout, Problems> {
        let Some(text) = self.settings.value_schema.as_deref().filter(|_| self.format == FileFormat::Protobuf) else {
            return ValueLayout::whole(self.declared.cloned(), DataType::Binary);
        };
        let schema = protobuf_schema(text, self.settings.message.as_deref(), Some(self.base)).map_err(|problem| vec![problem])?;
        let values = OneSchema::new(schema, self.declared.cloned()).map_err(|message| vec![problem("value-schema", message)])?;
        Ok(ValueLayout::Made(Arc::new(values)))
    }

    fn inferred(&self, first: &Listed, infer: impl Fn(&[u8]) -> Result<SchemaRef, String>) -> Result<SchemaRef, Problems> {
        let schema = self.sample(first).and_then(|bytes| infer(&bytes));
        let schema = schema.map_err(|message| vec![problem("path", format!("cannot guess the columns of {}: {message}", first.name))])?;
        if schema.fields().is_empty() {
            let message =
                format!("cannot guess the columns of {}: it has no record; declare them under `schema:` of the source", first.name);
            return Err(vec![problem("path", message)]);
        }
        Ok(schema)
    }

    fn infer_csv(&self, bytes: &[u8]) -> Result<SchemaRef, String> {
        let dialect = self.dialect();
        // The sample may be cut anywhere, but a file of one line may have no line end.
        let first = csv::first_record(&dialect, bytes, true)?;
        let Some((fields, used)) = first.filter(|_| !bytes.is_empty()) else { return Ok(Arc::new(Schema::empty())) };
        let (names, used) = match self.has_header() {
            true => (fields, used),
            false => ((1..=fields.len()).map(|number| format!("column_{number}")).collect(), 0),
        };
        if let Some(name) = names.iter().enumerate().find_map(|(place, name)| names[..place].contains(name).then_some(name)) {
            return Err(format!("its header names column {name} twice"));
        }
        Ok(csv::infer_schema(&dialect, &names, &Sample { bytes: &bytes[used..], records_max: self.settings.infer_records }))
    }

    /// A declared column that the first file does not have is a mistake that is better found now.
    fn check_header(&self, declared: &Schema, first: &Listed) -> Result<(), Problems> {
        let bytes = self.sample(first).map_err(|message| vec![problem("path", format!("cannot read {}: {message}", first.name))])?;
        let header = csv::first_record(&self.dialect(), &bytes, true)
            .map_err(|message| vec![problem("path", format!("cannot read the header of {}: {message}", first.name))])?;
        let Some((names, _)) = header.filter(|_| !bytes.is_empty()) else { return Ok(()) };
        let missing = declared.fields().iter().filter(|field| !names.contains(field.name()));
        let message = |field: &Arc<Field>| {
            let nearest = names.iter().find(|name| name.eq_ignore_ascii_case(field.name()));
            let hint = nearest.map_or_else(|| format!("it has {}", names.join(", ")), |name| format!("did you mean {name}?"));
            problem("path", format!("{} has no column {}: {hint}", first.name, field.name()))
        };
        let problems: Problems = missing.map(message).collect();
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The first bytes of the content of a file. Damage behind them is found when they are read.
    fn sample(&self, file: &Listed) -> Result<Vec<u8>, String> {
        let compression = self.settings.compression.unwrap_or_else(|| Compression::of_name(&file.path));
        let opened = File::open(&file.path).and_then(|opened| compression.reader(opened)).map_err(|error| error.to_string())?;
        let mut bytes = Vec::new();
        let read = opened.reader.take(SAMPLE_BYTES).read_to_end(&mut bytes);
        match read {
            Err(error) if bytes.is_empty() => Err(error.to_string()),
            _ => Ok(bytes.strip_prefix(b"\xEF\xBB\xBF").map(<[u8]>::to_vec).unwrap_or(bytes)),
        }
    }

    fn has_header(&self) -> bool {
        self.settings.header.unwrap_or(true)
    }

    fn dialect(&self) -> Dialect {
        let is_tsv = |path: &str| path.trim_end_matches(".gz").trim_end_matches(".zst").ends_with(".tsv");
        let by_name = if self.first.is_some_and(|first| is_tsv(&first.name)) { b'\t' } else { b',' };
        Dialect {
            delimiter: self.settings.delimiter.map_or(by_name, |delimiter| delimiter.0),
            quote: Some(self.settings.quote.map_or(b'"', |quote| quote.0)),
            null_values: self.settings.null_values.clone(),
        }
    }

    fn layout(&self, schema: &SchemaRef) -> Result<Layout, Problems> {
        let kind = match self.format {
            FileFormat::Parquet => return Ok(Layout::Parquet),
            FileFormat::Avro => return Ok(Layout::Avro),
            FileFormat::Protobuf | FileFormat::Raw => return self.values().map(Layout::Delimited),
            FileFormat::Csv => TextKind::Csv(self.dialect(), self.has_header()),
            FileFormat::Ndjson => TextKind::Json,
            FileFormat::String => TextKind::Lines,
        };
        let timestamps = timestamp_formats(&self.settings.timestamp_formats, schema)?;
        let layout = TextLayout::new(schema.clone(), timestamps, kind)?;
        Ok(Layout::Text(layout.guessed(self.declared.is_none())))
    }
}

/// An error and why, in one clause.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}
