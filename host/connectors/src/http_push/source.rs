//! The source: starts the server when its split is opened, and hands on what the server accepted.

use std::{
    collections::VecDeque,
    fs::File,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, Guarantee, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
    rejected::Rejection,
};
use millstream_model::{Batch, Origin, Positions};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    decode::Decoder,
    journal::Journal,
    log::{Log, Place, Replay, Sync},
    queue::{Accepted, Taken, queue},
    server::Server,
};
use crate::{
    formats::{
        layout::{TextKind, TextLayout, timestamp_formats},
        text::RECORD_BYTES_LIMIT,
    },
    settings::{problem, read},
};

const NAME: &str = "http-push";
/// hyper refuses a smaller buffer.
const HEADER_BYTES_MIN: usize = 8_192;

/// The source connector `http-push`.
#[derive(Clone)]
pub struct HttpPush {
    /// Where the server listens, once it does.
    address: Arc<OnceLock<SocketAddr>>,
    sync: Sync,
}

impl Default for HttpPush {
    fn default() -> Self {
        Self { address: Arc::default(), sync: Arc::new(File::sync_data) }
    }
}

impl HttpPush {
    /// Where the first source that was opened listens; none yet: none.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
    }

    /// The same source, making its log durable in another way.
    #[cfg(test)]
    pub fn syncing(sync: Sync) -> Self {
        Self { sync, ..Self::default() }
    }
}

impl SourceConnector for HttpPush {
    fn name(&self) -> &'static str {
        NAME
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let settings: Settings = read(request.settings)?;
        let mut problems = Vec::new();
        check(&settings, &mut problems);
        let Some(schema) = request.declared_schema else {
            problems.push(problem("", "the columns of posted lines are not known: declare them under `schema:` of the source"));
            return Err(problems);
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let timestamps = timestamp_formats(&settings.timestamp_formats, &schema)?;
        let layout = TextLayout::new(schema.clone(), timestamps, TextKind::Json)?;
        let columns = (0..schema.fields().len()).collect();
        Ok(Arc::new(Posted {
            settings,
            layout,
            columns,
            schema,
            clock: request.clock,
            address: self.address.clone(),
            sync: self.sync.clone(),
            log_directory: request.state_directory,
        }))
    }
}

fn check(settings: &Settings, problems: &mut Vec<SettingsProblem>) {
    let limits = [
        ("max-body-bytes", settings.max_body_bytes, 1, settings.queue_bytes),
        ("queue-bytes", settings.queue_bytes, 1, 1 << 31),
        ("max-record-bytes", settings.max_record_bytes, 1, RECORD_BYTES_LIMIT),
        ("max-header-bytes", settings.max_header_bytes, HEADER_BYTES_MIN, 1 << 20),
        ("max-connections", settings.max_connections, 1, 100_000),
    ];
    for (name, value, least, most) in limits {
        if !(least..=most).contains(&value) {
            problems.push(problem(name, format!("is {least} to {most}")));
        }
    }
}

struct Posted {
    settings: Settings,
    layout: TextLayout,
    columns: Vec<usize>,
    schema: SchemaRef,
    clock: Arc<dyn Clock>,
    address: Arc<OnceLock<SocketAddr>>,
    sync: Sync,
    /// Where posted requests are kept; none: in memory.
    log_directory: Option<PathBuf>,
}

#[async_trait]
impl Source for Posted {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        false
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        Arc::new(Self {
            settings: self.settings.clone(),
            layout: self.layout.clone(),
            columns: columns.iter().map(|&column| self.columns[column]).collect(),
            schema: Arc::new(self.schema.project(columns).expect("projected columns exist")),
            clock: self.clock.clone(),
            address: self.address.clone(),
            sync: self.sync.clone(),
            log_directory: self.log_directory.clone(),
        })
    }

    fn guarantee(&self) -> Guarantee {
        if self.log_directory.is_some() { Guarantee::ExactlyOnce } else { Guarantee::AtMostOnce }
    }

    fn reopens(&self) -> bool {
        // Who posts in between would be turned away, and the port may be another one afterwards.
        false
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(vec![Split { id: NAME.into(), detail: Value::Null }])
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let listen = self.settings.listen;
        let listener =
            TcpListener::bind(listen).await.map_err(|error| OperatorError::outside(format!("cannot listen on {listen}")).because(error))?;
        let address = listener.local_addr().unwrap_or(listen);
        let _ = self.address.set(address);
        tracing::info!(%address, "waiting for POST requests with NDJSON");
        let decoder =
            Decoder { layout: self.layout.clone(), columns: self.columns.clone(), record_bytes_max: self.settings.max_record_bytes };
        let resume: Position = position
            .map(|position| serde_json::from_value(position.clone()))
            .transpose()
            .map_err(|error| OperatorError::user("the position of http-push is not one of it").because(error))?
            .unwrap_or_default();
        let place = self.log_directory.clone().map(|directory| Place::new(directory, self.sync.clone()));
        let log = place.clone().map(|place| Log::open(place, resume.offset)).transpose()?;
        let (log, replay) = log.map_or((None, None), |(log, replay)| (Some(log), Some(replay)));
        let journal = log.map(Journal::start).transpose()?.map(Arc::new);
        let (entrance, accepted) = queue(self.settings.queue_bytes);
        let closing = CancellationToken::new();
        let server = Server {
            settings: self.settings.clone(),
            decoder: decoder.clone(),
            entrance,
            journal: journal.clone(),
            clock: self.clock.clone(),
            closing: closing.clone(),
        };
        tokio::spawn(Arc::new(server).run(listener));
        let from = replay.as_ref().map(Replay::offset);
        let log = place.zip(journal).map(|(place, journal)| Logging { place, journal });
        let next = Position { offset: from, ..resume };
        let current = VecDeque::new();
        Ok(Box::new(Reader {
            split: split.id.clone(),
            accepted,
            log,
            replay,
            decoder,
            schema: self.schema.clone(),
            current,
            request: None,
            next,
            closing,
        }))
    }
}

/// What a checkpoint stores.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Position {
    /// Number of the next row, over all requests.
    row: u64,
    /// Where the next request stands in the log, or the one that is being read; none: there is no log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    /// The first line of it (from 0) that was not read yet.
    #[serde(default, skip_serializing_if = "is_zero")]
    line: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_zero(line: &u64) -> bool {
    *line == 0
}

/// The log of a durable run.
struct Logging {
    place: Place,
    journal: Arc<Journal>,
}

struct Reader {
    split: Arc<str>,
    accepted: mpsc::Receiver<Taken>,
    log: Option<Logging>,
    /// What was logged before this reader was opened, and is read first.
    replay: Option<Replay>,
    decoder: Decoder,
    schema: SchemaRef,
    /// What is left of the request being read.
    current: VecDeque<Batch>,
    /// Its room and where it ends in the log.
    request: Option<(Option<OwnedSemaphorePermit>, Option<u64>)>,
    next: Position,
    closing: CancellationToken,
}

impl Reader {
    fn take(&mut self, rows_max: usize) -> Option<Batch> {
        let batch = self.current.pop_front()?;
        let count = batch.num_rows().min(rows_max.max(1));
        if count < batch.num_rows() {
            self.current.push_front(batch.slice(count..batch.num_rows()));
        }
        let row = self.next.row;
        self.next.row += count as u64;
        self.next.line = line_of(&batch, count - 1) + 1;
        self.end_if_read();
        let origin = Origin { split: self.split.clone(), positions: Positions::From(row) };
        Some(batch.slice(0..count).with_origin(Some(origin)))
    }

    /// Gives the room of the current request back, and goes to the next one, once all its rows are read.
    fn end_if_read(&mut self) {
        if self.current.is_empty()
            && let Some((_, end)) = self.request.take()
        {
            self.next.line = 0;
            self.next.offset = end.or(self.next.offset);
        }
    }

    /// Starts with a request, behind the lines that were read before; returns the lines that cannot be read any more.
    fn begin(&mut self, accepted: Accepted) -> Vec<Rejection> {
        let Accepted { batches, mut rejected, room, logged } = accepted;
        let is_resumed = logged.as_ref().is_some_and(|logged| self.next.offset == Some(logged.start)) && self.next.line > 0;
        let line = if is_resumed { self.next.line } else { 0 };
        if let Some(logged) = &logged {
            self.next.offset = Some(logged.start);
        }
        self.next.line = line;
        let unread = |batch: Batch| {
            let read = (0..batch.num_rows()).take_while(|&row| line_of(&batch, row) < line).count();
            (read < batch.num_rows()).then(|| batch.slice(read..batch.num_rows()))
        };
        self.current = batches.into_iter().filter_map(unread).collect();
        rejected.retain(|rejection| rejection.position.is_none_or(|position| position >= line));
        rejected.iter_mut().for_each(|rejection| rejection.source = Some(self.split.clone()));
        self.request = Some((room, logged.map(|logged| logged.end)));
        self.end_if_read();
        rejected
    }

    /// The next request of the log that was there before.
    fn replayed(&mut self) -> Result<Option<Accepted>, OperatorError> {
        let Some(replay) = &mut self.replay else { return Ok(None) };
        let Some(logged) = replay.next()? else {
            self.replay = None;
            return Ok(None);
        };
        let decoded = self.decoder.decode(&logged.body);
        let (batches, rejected) = decoded.map_err(|reason| OperatorError::internal(format!("cannot read a logged request: {reason}")))?;
        Ok(Some(Accepted { batches, rejected, room: None, logged: Some(logged.offset..logged.end) }))
    }

    /// What was promised and not read: first what is logged, then what waits.
    fn rest(&mut self) -> Result<Vec<Batch>, OperatorError> {
        let mut rest = Vec::new();
        loop {
            while let Some(batch) = self.take(usize::MAX) {
                rest.push(batch);
            }
            let next = match self.replayed()? {
                Some(accepted) => Some(accepted),
                None => self.accepted.try_recv().ok().transpose()?,
            };
            match next {
                Some(accepted) => drop(self.begin(accepted)),
                None => return Ok(rest),
            }
        }
    }
}

/// The line of a row within its request.
fn line_of(batch: &Batch, row: usize) -> u64 {
    batch.origin().map_or(0, |origin| origin.positions.of(row))
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        loop {
            if let Some(batch) = self.take(rows_max) {
                return Ok(Read::Rows { batch, rejected: Vec::new() });
            }
            let accepted = match self.replayed()? {
                Some(accepted) => accepted,
                None => match self.accepted.recv().await {
                    Some(taken) => taken?,
                    None => return Ok(Read::End),
                },
            };
            let rejected = self.begin(accepted);
            if !rejected.is_empty() {
                let batch = self.take(rows_max).unwrap_or_else(|| Batch::new(RecordBatch::new_empty(self.schema.clone())));
                return Ok(Read::Rows { batch, rejected });
            }
        }
    }

    async fn on_committed(&mut self, position: &Value) -> Result<(), OperatorError> {
        match (&self.log, position["offset"].as_u64()) {
            (Some(log), Some(offset)) => log.place.cut(offset),
            _ => Ok(()),
        }
    }

    fn stop(&mut self) -> Vec<Batch> {
        self.closing.cancel();
        // What is on its way into the log is answered, and is in the queue when this returns.
        if let Some(log) = &self.log {
            log.journal.close();
        }
        // What is put in from now on is refused, so what is there is all that was promised.
        self.accepted.close();
        self.rest().unwrap_or_else(|error| {
            // It stays in the log, behind the position, for the next run.
            tracing::error!(%error, "what was posted could not be read to its end");
            Vec::new()
        })
    }

    fn position(&self) -> Value {
        serde_json::to_value(self.next).expect("numbers are JSON")
    }

    fn progress(&self) -> u64 {
        self.next.row
    }
}

impl Drop for Reader {
    /// Nothing is written to the log any more when this returns: another reader may open it.
    fn drop(&mut self) {
        self.closing.cancel();
        if let Some(log) = &self.log {
            log.journal.close();
        }
    }
}
