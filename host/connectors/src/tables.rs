//! Small tables that are read whole: the files of lookup joins.
//!
//! They are read as the source `files` reads them, with its defaults. A table has no `rejected` stream, so a bad record is a mistake.

use std::path::Path;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    clock::SystemClock,
    connector::{ConnectorRequest, Read, SettingsProblem, Source, SourceConnector, TableLoader, TableRequest},
};
use serde_json::json;

use crate::{files::FilesSource, settings::problem};

/// Rows that are read together.
const ROWS_PER_READ: usize = 8_192;
/// Bad records that are named one by one.
const PROBLEMS_MAX: usize = 10;

/// Reads the tables of lookup joins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tables;

#[async_trait]
impl TableLoader for Tables {
    async fn load(&self, request: TableRequest) -> Result<RecordBatch, Vec<SettingsProblem>> {
        load_table(&request.path, request.format.as_deref(), request.schema).await
    }
}

/// All rows of a file (or of the files of a directory) as one batch. `format` as in the settings of `files`; none: by the name. `schema`: the columns
/// to read; none: the file's own, or guessed.
///
/// # Errors
/// The file cannot be read or has bad records; all mistakes at once, at `file`, `format` or `schema`.
pub async fn load_table(path: &Path, format: Option<&str>, schema: Option<SchemaRef>) -> Result<RecordBatch, Vec<SettingsProblem>> {
    let settings = match format {
        Some(format) => json!({ "path": path, "format": format }),
        None => json!({ "path": path }),
    };
    let request = ConnectorRequest {
        id: "table",
        settings: &settings,
        base_directory: Default::default(),
        declared_schema: schema,
        input: None,
        clock: std::sync::Arc::new(SystemClock),
        state_directory: None,
    };
    let source = FilesSource.plan(request).map_err(|problems| problems.into_iter().map(at_file).collect::<Vec<_>>())?;
    read_whole(&*source).await
}

/// A place in the settings of `files` as a place in the request.
fn at_file(found: SettingsProblem) -> SettingsProblem {
    match &*found.path {
        "format" => found,
        _ => problem("file", found.message),
    }
}

async fn read_whole(source: &dyn Source) -> Result<RecordBatch, Vec<SettingsProblem>> {
    let failed = |error: millstream_engine::operator::OperatorError| vec![problem("file", error.to_string())];
    let (mut batches, mut problems) = (Vec::new(), Vec::new());
    for split in source.splits(1).await.map_err(failed)? {
        let mut reader = source.open(&split, None).await.map_err(failed)?;
        while let Read::Rows { batch, rejected } = reader.read(ROWS_PER_READ).await.map_err(failed)? {
            batches.push(batch.columns().clone());
            let message = |rejection: millstream_engine::rejected::Rejection| {
                problem("file", format!("record {} of {}: {}", rejection.position.unwrap_or_default(), split.id, rejection.reason))
            };
            problems.extend(rejected.into_iter().take(PROBLEMS_MAX).map(message));
        }
        if problems.len() >= PROBLEMS_MAX {
            break;
        }
    }
    if !problems.is_empty() {
        problems.truncate(PROBLEMS_MAX);
        return Err(problems);
    }
    arrow_select::concat::concat_batches(&source.schema(), &batches).map_err(|error| vec![problem("file", error.to_string())])
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::schema;

    #[tokio::test]
    async fn a_table_is_read_whole_or_every_mistake_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("airports.csv");
        fs::write(&path, "faa,alt\nJFK,13\nLGA,NA\n").expect("written");
        let table = load_table(&path, None, None).await.expect("reads");
        assert_eq!((table.num_rows(), table.schema().field(1).data_type().to_string()), (2, "Utf8".into()));
        let declared = Some(schema(&[("alt", "Int64")]));
        let problems = load_table(&path, Some("csv"), declared).await.expect_err("NA is no number");
        let expected = format!("record 1 of {}: column alt: \"NA\" is not of type Int64", path.display());
        assert_eq!(problems, [problem("file", expected)]);
        let problems = load_table(&directory.path().join("none.csv"), None, None).await.expect_err("there is none");
        assert_eq!(problems[0].path, "file");
        let problems = load_table(&path, Some("xml"), None).await.expect_err("no format");
        assert_eq!(problems[0].path, "format");
    }
}
