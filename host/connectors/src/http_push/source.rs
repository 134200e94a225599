//! The source: starts the server when its split is opened, and hands on what the server accepted.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, OnceLock},
};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, Guarantee, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use millstream_model::{Batch, Origin, Positions};
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings,
    queue::{Accepted, queue},
    server::Server,
};
use crate::{
    formats::{
        layout::{TextLayout, timestamp_formats},
        text::RECORD_BYTES_LIMIT,
    },
    settings::{problem, read},
};

const NAME: &str = "http-push";
/// hyper refuses a smaller buffer.
const HEADER_BYTES_MIN: usize = 8_192;

/// The source connector `http-push`.
#[derive(Clone, Debug, Default)]
pub struct HttpPush {
    /// Where the server listens, once it does.
    address: Arc<OnceLock<SocketAddr>>,
}

impl HttpPush {
    /// Where the first source that was opened listens; none yet: none.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address.get().copied()
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
        let layout = TextLayout::new(schema.clone(), timestamps, None)?;
        let columns = (0..schema.fields().len()).collect();
        Ok(Arc::new(Posted { settings, layout, columns, schema, clock: request.clock, address: self.address.clone() }))
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
}

#[async_trait]
impl Source for Posted {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// What it has handed on cannot be read again.
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
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
        })
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(vec![Split { id: NAME.into(), detail: Value::Null }])
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let listen = self.settings.listen;
        let listener = TcpListener::bind(listen)
            .await
            .map_err(|error| OperatorError::outside(format!("cannot listen on {listen}: {error}")).because(error))?;
        let address = listener.local_addr().unwrap_or(listen);
        let _ = self.address.set(address);
        tracing::info!(%address, "waiting for POST requests with NDJSON");
        let (entrance, accepted) = queue(self.settings.queue_bytes);
        let closing = CancellationToken::new();
        let server = Server {
            settings: self.settings.clone(),
            layout: self.layout.clone(),
            columns: self.columns.clone(),
            entrance,
            clock: self.clock.clone(),
            closing: closing.clone(),
        };
        tokio::spawn(Arc::new(server).run(listener));
        let next = position.and_then(|position| position["row"].as_u64()).unwrap_or(0);
        Ok(Box::new(Reader { split: split.id.clone(), accepted, current: VecDeque::new(), room: None, next, closing }))
    }
}

struct Reader {
    split: Arc<str>,
    accepted: mpsc::Receiver<Accepted>,
    /// What is left of the request being read, and the room that it takes.
    current: VecDeque<Batch>,
    room: Option<OwnedSemaphorePermit>,
    /// Number of the next row.
    next: u64,
    closing: CancellationToken,
}

impl Reader {
    fn take(&mut self, rows_max: usize) -> Option<Batch> {
        let batch = self.current.pop_front()?;
        let count = batch.num_rows().min(rows_max.max(1));
        if count < batch.num_rows() {
            self.current.push_front(batch.slice(count..batch.num_rows()));
        }
        if self.current.is_empty() {
            self.room = None;
        }
        let origin = Origin { split: self.split.clone(), positions: Positions::From(self.next) };
        self.next += count as u64;
        Some(batch.slice(0..count).with_origin(Some(origin)))
    }

    fn begin(&mut self, accepted: Accepted) {
        self.current = accepted.batches.into();
        self.room = Some(accepted.room);
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        loop {
            if let Some(batch) = self.take(rows_max) {
                return Ok(Read::Rows { batch, rejected: Vec::new() });
            }
            match self.accepted.recv().await {
                Some(accepted) => self.begin(accepted),
                None => return Ok(Read::End),
            }
        }
    }

    fn stop(&mut self) -> Vec<Batch> {
        self.closing.cancel();
        // What is put in from now on is refused, so what is there is all that was answered with 202.
        self.accepted.close();
        let mut rest = Vec::new();
        loop {
            while let Some(batch) = self.take(usize::MAX) {
                rest.push(batch);
            }
            match self.accepted.try_recv() {
                Ok(accepted) => self.begin(accepted),
                Err(_) => return rest,
            }
        }
    }

    fn position(&self) -> Value {
        json!({ "row": self.next })
    }

    fn progress(&self) -> u64 {
        self.next
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}
