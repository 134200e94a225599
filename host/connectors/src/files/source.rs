//! Reading files: the plan of a source, its splits, and the choice of the reader of each.

mod avro_reader;
mod delimited_reader;
mod parquet_reader;
mod plan;
mod text_reader;

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::{avro_reader::AvroReader, delimited_reader::DelimitedReader, parquet_reader::ParquetReader, text_reader::TextReader};
use super::{
    SourceSettings,
    listing::{Listed, Pattern},
};
use crate::{
    compression::Compression,
    formats::{layout::TextLayout, records::ValueLayout},
};

/// The source connector `files`.
#[derive(Clone, Copy, Debug, Default)]
pub struct FilesSource;

impl SourceConnector for FilesSource {
    fn name(&self) -> &'static str {
        "files"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(SourceSettings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let shared = Arc::new(plan::plan(request)?);
        let columns = (0..shared.schema.fields().len()).collect();
        Ok(Arc::new(Files { schema: shared.schema.clone(), shared, columns }))
    }
}

/// What all readers of one source share.
pub(super) struct Shared {
    patterns: Vec<Pattern>,
    layout: Layout,
    compression: Option<Compression>,
    /// All columns of the source.
    schema: SchemaRef,
    max_record_bytes: usize,
    split_bytes: Option<u64>,
    follow: Option<Follow>,
}

/// What stands in the files.
pub(super) enum Layout {
    Text(TextLayout),
    Parquet,
    Avro,
    /// Values behind their lengths.
    Delimited(ValueLayout),
}

/// How new lines and files are waited for.
pub(super) struct Follow {
    clock: Arc<dyn Clock>,
    interval: Duration,
}

impl Follow {
    async fn wait(&self) {
        let interval = i64::try_from(self.interval.as_millis()).unwrap_or(i64::MAX);
        self.clock.sleep(interval).await;
    }
}

impl Shared {
    fn compression(&self, file: &Listed) -> Compression {
        self.compression.unwrap_or_else(|| Compression::of_name(&file.path))
    }

    fn list(&self) -> Result<Vec<(Listed, &Pattern)>, OperatorError> {
        let mut files: Vec<(Listed, &Pattern)> = Vec::new();
        for pattern in &self.patterns {
            let listed = match pattern.list() {
                Err(error) if self.follow.is_some() && error.kind() == io::ErrorKind::NotFound => Vec::new(),
                listed => listed.map_err(|error| OperatorError::outside(format!("cannot list {pattern}")).because(error))?,
            };
            let new = listed.into_iter().filter(|file| files.iter().all(|(known, _)| known.path != file.path)).collect::<Vec<_>>();
            files.extend(new.into_iter().map(|file| (file, pattern)));
        }
        Ok(files)
    }
}

/// The source, with the columns it is to produce.
struct Files {
    shared: Arc<Shared>,
    /// The columns to produce, as numbers in `shared.schema`.
    columns: Vec<usize>,
    schema: SchemaRef,
}

/// [`Split::detail`].
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SplitDetail {
    path: PathBuf,
    /// A range of bytes of the file: the records that start in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    range: Option<(u64, u64)>,
    /// The entry of `path` that it belongs to.
    pattern: usize,
}

impl Files {
    fn splits_of(&self, file: &Listed, pattern: usize) -> Vec<Split> {
        let split = |id: String, range| {
            let detail = SplitDetail { path: file.path.clone(), range, pattern };
            Split { id: id.into(), detail: serde_json::to_value(detail).expect("paths are text") }
        };
        let size = fs::metadata(&file.path).map_or(0, |metadata| metadata.len());
        match self.shared.split_bytes {
            Some(bytes) if self.shared.compression(file) == Compression::None && size > bytes => {
                let starts = (0..size).step_by(usize::try_from(bytes).unwrap_or(usize::MAX));
                starts
                    .map(|start| (start, (start + bytes).min(size)))
                    .map(|range| split(format!("{}@{}", file.name, range.0), Some(range)))
                    .collect()
            }
            _ => vec![split(file.name.clone(), None)],
        }
    }
}

#[async_trait]
impl Source for Files {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        self.shared.follow.is_none()
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        let schema = Arc::new(self.schema.project(columns).expect("projected columns exist"));
        let columns = columns.iter().map(|&column| self.columns[column]).collect();
        Arc::new(Self { shared: self.shared.clone(), columns, schema })
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        let files = self.shared.list()?;
        let number = |pattern: &Pattern| self.shared.patterns.iter().position(|known| std::ptr::eq(known, pattern)).unwrap_or(0);
        Ok(files.iter().flat_map(|(file, pattern)| self.splits_of(file, number(pattern))).collect())
    }

    fn discovery_interval(&self) -> Option<Duration> {
        let follow = self.shared.follow.as_ref()?;
        self.shared.patterns.iter().any(Pattern::may_grow).then_some(follow.interval)
    }

    fn size_hint(&self) -> Option<u64> {
        if self.shared.follow.is_some() {
            return None;
        }
        let files = self.shared.list().ok()?;
        Some(files.iter().map(|(file, _)| fs::metadata(&file.path).map_or(0, |metadata| metadata.len())).sum())
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let detail: SplitDetail = serde_json::from_value(split.detail.clone())
            .map_err(|error| OperatorError::internal(format!("split {} is not one of a files source", split.id)).because(error))?;
        let file = OpenFile {
            split: split.id.clone(),
            detail,
            shared: self.shared.clone(),
            columns: self.columns.clone(),
            schema: self.schema.clone(),
        };
        match self.shared.layout {
            Layout::Parquet => Ok(Box::new(ParquetReader::open(file, position)?)),
            Layout::Delimited(_) => Ok(Box::new(DelimitedReader::open(file, position)?)),
            Layout::Avro => Ok(Box::new(AvroReader::open(file, position)?)),
            Layout::Text(_) => Ok(Box::new(TextReader::open(file, position)?)),
        }
    }
}

/// What the reader of one split is made of.
struct OpenFile {
    split: Arc<str>,
    detail: SplitDetail,
    shared: Arc<Shared>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

impl OpenFile {
    fn listed(&self) -> Listed {
        Listed { name: self.split.to_string(), path: self.detail.path.clone() }
    }

    fn position<T: serde::de::DeserializeOwned>(&self, position: Option<&Value>) -> Result<Option<T>, OperatorError> {
        let read = |position: &Value| serde_json::from_value(position.clone());
        position
            .map(read)
            .transpose()
            .map_err(|error| OperatorError::user(format!("the position of {} is not one of a file", self.split)).because(error))
    }

    fn cannot_open(&self, error: io::Error) -> OperatorError {
        OperatorError::outside(format!("cannot open {}", self.split)).because(error)
    }
}

/// A file whose content could not be read at a byte of the file.
fn cannot_read(split: &str, compression: Compression, at: u64, error: io::Error) -> OperatorError {
    match (compression, error.kind()) {
        (Compression::None, _) => OperatorError::outside(format!("cannot read {split} at byte {at}")).because(error),
        (_, io::ErrorKind::UnexpectedEof) => {
            OperatorError::user(format!("{split} is cut off: its compressed content is not complete at byte {at}, where the file ends"))
        }
        _ => OperatorError::user(format!("{split} is damaged: its content cannot be decompressed near byte {at}")).because(error),
    }
}
