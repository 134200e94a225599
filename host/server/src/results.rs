//! Results of finished jobs: the rows that a sink has published, read back page by page through the connector that wrote them.
//!
//! A page ends after so many rows or bytes. Its cursor is where the reader stood: the number of the split and the position in it, as the connector says it.
//! What a finished job has published does not change, so pages neither overlap nor leave rows out.

use std::{fmt, sync::Arc};

use millstream_engine::{
    connector::{Read, Sink, Source, SplitReader},
    graph::{JobPlan, NodeKind},
    operator::OperatorError,
};
use millstream_model::ErrorKind;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{failure::Failure, rows::rows, text};

/// Rows that are read at a time: a page is longer than [`PAGE_BYTES`] by those at most.
const ROWS_AT_ONCE: usize = 32;
/// A page that has so many bytes ends, however few rows it has.
const PAGE_BYTES: usize = 4 << 20;
/// Longest cursor, in bytes of its text.
const CURSOR_BYTES_MAX: usize = 1_000;

/// Where a page begins. Its text is the hexadecimal of its JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    split: usize,
    /// None: its start.
    position: Option<Value>,
}

impl Cursor {
    /// Reads one.
    ///
    /// # Errors
    /// It is none of ours.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        if text.len() > CURSOR_BYTES_MAX {
            return Err(foreign());
        }
        let bytes = text::from_hexadecimal(text).ok_or_else(foreign)?;
        serde_json::from_slice(&bytes).map_err(|_| foreign())
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text::hexadecimal(&serde_json::to_vec(self).expect("a cursor has string keys only")))
    }
}

/// What a finished job has published to a sink; `wanted` may be left out if only one can be read.
///
/// # Errors
/// It has no such sink, or the sink cannot be read back.
pub fn published(plan: &JobPlan, wanted: Option<&str>) -> Result<Arc<dyn Source>, Failure> {
    let sinks = || {
        plan.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Sink(sink) => Some((node.id.as_str(), sink)),
            NodeKind::Source(_) | NodeKind::Operator(_) => None,
        })
    };
    if let Some(wanted) = wanted {
        let Some((_, sink)) = sinks().find(|(id, _)| *id == wanted) else {
            let known: Vec<String> = sinks().map(|(id, _)| format!("`{id}`")).collect();
            return Err(
                Failure::new(ErrorKind::NotFound, format!("the job has no sink `{wanted}`")).fix(format!("it has {}", known.join(", ")))
            );
        };
        return read_back(sink)?.ok_or_else(|| unreadable(format!("the rows of sink `{wanted}` cannot be read back")));
    }
    let mut readable = Vec::new();
    for (id, sink) in sinks() {
        readable.extend(read_back(sink)?.map(|source| (id, source)));
    }
    match readable.len() {
        1 => Ok(readable.swap_remove(0).1),
        0 => Err(unreadable("the job has no sink whose rows can be read back".to_owned())),
        _ => {
            let known: Vec<String> = readable.iter().map(|(id, _)| format!("`{id}`")).collect();
            Err(Failure::new(ErrorKind::Invalid, "the job has several sinks that can be read back")
                .fix(format!("say which: {}", known.join(", "))))
        }
    }
}

fn read_back(sink: &Arc<dyn Sink>) -> Result<Option<Arc<dyn Source>>, Failure> {
    sink.published().map_err(|error| Failure::from_error(ErrorKind::Unavailable, &error))
}

fn unreadable(message: String) -> Failure {
    Failure::new(ErrorKind::Invalid, message).fix("have the job write to a `files` sink without `by`")
}

/// The rows from `cursor` on, at most `limit`, and where the next page begins; none: this is the last one.
///
/// # Errors
/// What was published is not there any more, or was changed.
pub async fn page(source: Arc<dyn Source>, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<Value>, Option<Cursor>), Failure> {
    let runtime = tokio::runtime::Handle::current();
    // Files are read: not on a thread that answers.
    let reading = tokio::task::spawn_blocking(move || runtime.block_on(read(&*source, cursor, limit)));
    reading.await.expect("reading results does not panic")
}

async fn read(source: &dyn Source, cursor: Option<Cursor>, limit: usize) -> Result<(Vec<Value>, Option<Cursor>), Failure> {
    let splits = source.splits(1).await.map_err(|error| gone(&error))?;
    let Cursor { split: first, mut position } = cursor.unwrap_or(Cursor { split: 0, position: None });
    let mut page = Filling { rows: Vec::new(), bytes: 0, limit };
    for (number, split) in splits.iter().enumerate().skip(first) {
        let position = position.take();
        let goes_on = match source.open(split, position.as_ref()).await {
            Ok(mut reader) => page.fill(&mut *reader).await.map(|has_ended| (!has_ended).then(|| reader.position())),
            Err(error) => Err(gone(&error)),
        };
        // A position that we have not given leads anywhere.
        let goes_on = goes_on.map_err(|failure| if position.is_some() { foreign().because(&failure) } else { failure })?;
        if let Some(position) = goes_on {
            return Ok((page.rows, Some(Cursor { split: number, position: Some(position) })));
        }
    }
    Ok((page.rows, None))
}

fn gone(error: &OperatorError) -> Failure {
    Failure::new(ErrorKind::Unavailable, "what the job has published cannot be read").because(error)
}

fn foreign() -> Failure {
    Failure::new(ErrorKind::Invalid, "`cursor` is not one of this list").fix("send `next` of the page before as it was")
}

/// A page that is being filled.
struct Filling {
    rows: Vec<Value>,
    bytes: usize,
    limit: usize,
}

impl Filling {
    /// Takes rows until the page is full; whether the split ended before.
    async fn fill(&mut self, reader: &mut dyn SplitReader) -> Result<bool, Failure> {
        loop {
            let left = self.limit - self.rows.len();
            if left == 0 || self.bytes >= PAGE_BYTES {
                return Ok(false);
            }
            let read = reader.read(left.min(ROWS_AT_ONCE)).await.map_err(|error| gone(&error))?;
            let Read::Rows { batch, rejected } = read else { return Ok(true) };
            if let Some(rejection) = rejected.first() {
                return Err(Failure::new(ErrorKind::Corrupt, format!("what the job has published was changed: {}", rejection.reason)));
            }
            let rows = rows(batch.columns())?;
            self.bytes += rows.iter().map(|row| row.to_string().len()).sum::<usize>();
            self.rows.extend(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cursors_are_read_and_written_and_others_are_refused() {
        let cursor = Cursor { split: 3, position: Some(json!({ "offset": 7 })) };
        assert_eq!(Cursor::parse(&cursor.to_string()).expect("ours"), cursor);
        for foreign in ["", "x", "7b7", "7b7d", "é", &"7b".repeat(CURSOR_BYTES_MAX)] {
            assert!(Cursor::parse(foreign).is_err(), "{foreign}");
        }
    }
}
