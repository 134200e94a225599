//! The source: a thread reads the input, in pieces, and waits while nobody takes them.

use std::{
    io::{self, Read as _},
    sync::Arc,
};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, Guarantee, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::settings::{LineFormat, Settings};
use crate::{
    formats::{
        csv::{self, Dialect},
        layout::{TextKind, TextLayout, timestamp_formats},
        text::{BLOCK_BYTES, Buffer, RECORD_BYTES_LIMIT, Records, Rows},
    },
    settings::{problem, read},
};

const PIECE_BYTES: usize = 64 << 10;
/// Pieces that wait to be taken.
const PIECES_MAX: usize = 8;
const NAME: &str = "stdin";

/// Opens the input.
type Open = Arc<dyn Fn() -> Box<dyn io::Read + Send> + Send + Sync>;

/// The source connector `stdin`.
#[derive(Clone)]
pub struct Stdin {
    open: Open,
}

impl Default for Stdin {
    fn default() -> Self {
        Self { open: Arc::new(|| Box::new(io::stdin())) }
    }
}

impl Stdin {
    /// The same source, reading something else.
    pub fn reading(open: impl Fn() -> Box<dyn io::Read + Send> + Send + Sync + 'static) -> Self {
        Self { open: Arc::new(open) }
    }
}

impl SourceConnector for Stdin {
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
            problems.push(problem("", "the columns of standard input are not known: declare them under `schema:` of the source"));
            return Err(problems);
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        let timestamps = timestamp_formats(&settings.timestamp_formats, &schema)?;
        let kind = match settings.format {
            LineFormat::Csv => TextKind::Csv(dialect(&settings), settings.header.unwrap_or(true)),
            LineFormat::Ndjson => TextKind::Json,
        };
        let layout = TextLayout::new(schema.clone(), timestamps, kind)?;
        let columns = (0..schema.fields().len()).collect();
        let shared =
            Arc::new(Shared { layout, record_bytes_max: settings.max_record_bytes, bounded: settings.bounded, open: self.open.clone() });
        Ok(Arc::new(Input { shared, columns, schema }))
    }
}

fn check(settings: &Settings, problems: &mut Vec<SettingsProblem>) {
    let csv_only = [
        ("header", settings.header.is_some()),
        ("delimiter", settings.delimiter.is_some()),
        ("quote", settings.quote.is_some()),
        ("null-values", !settings.null_values.is_empty()),
    ];
    let misplaced = csv_only.iter().filter(|(_, given)| *given && settings.format != LineFormat::Csv);
    problems.extend(misplaced.map(|(name, _)| problem(name, "is a setting of CSV only")));
    if !(1..=RECORD_BYTES_LIMIT).contains(&settings.max_record_bytes) {
        problems.push(problem("max-record-bytes", format!("is 1 to {RECORD_BYTES_LIMIT}")));
    }
}

fn dialect(settings: &Settings) -> Dialect {
    Dialect {
        delimiter: settings.delimiter.map_or(b',', |delimiter| delimiter.0),
        quote: Some(settings.quote.map_or(b'"', |quote| quote.0)),
        null_values: settings.null_values.clone(),
    }
}

struct Shared {
    layout: TextLayout,
    record_bytes_max: usize,
    bounded: bool,
    open: Open,
}

struct Input {
    shared: Arc<Shared>,
    columns: Vec<usize>,
    schema: SchemaRef,
}

#[async_trait]
impl Source for Input {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        self.shared.bounded
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        let schema = Arc::new(self.schema.project(columns).expect("projected columns exist"));
        let columns = columns.iter().map(|&column| self.columns[column]).collect();
        Arc::new(Self { shared: self.shared.clone(), columns, schema })
    }

    /// What was read is gone.
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtMostOnce
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(vec![Split { id: NAME.into(), detail: Value::Null }])
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        if position.is_some() {
            return Err(OperatorError::user(
                "standard input cannot be read again from a position: use a file for input that must survive a failure",
            ));
        }
        let pieces = start((self.shared.open)())?;
        let stage = Stage::Start(Buffer::default());
        Ok(Box::new(Reader {
            shared: self.shared.clone(),
            columns: self.columns.clone(),
            split: split.id.clone(),
            pieces,
            stage,
            ended: false,
            bytes: 0,
        }))
    }
}

/// Starts the thread that reads. It ends with the input, or when it finds nobody who takes what it read.
fn start(mut input: Box<dyn io::Read + Send>) -> Result<mpsc::Receiver<io::Result<Vec<u8>>>, OperatorError> {
    let (sender, receiver) = mpsc::channel(PIECES_MAX);
    let read = move || {
        loop {
            let mut piece = vec![0; PIECE_BYTES];
            let result = match input.read(&mut piece) {
                Ok(0) => return,
                Ok(count) => {
                    piece.truncate(count);
                    Ok(piece)
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Err(error),
            };
            let failed = result.is_err();
            if sender.blocking_send(result).is_err() || failed {
                return;
            }
        }
    };
    let started = std::thread::Builder::new().name("millstream-stdin".into()).spawn(read);
    started.map(|_| receiver).map_err(|error| OperatorError::outside("cannot start the thread that reads standard input").because(error))
}

struct Reader {
    shared: Arc<Shared>,
    columns: Vec<usize>,
    split: Arc<str>,
    pieces: mpsc::Receiver<io::Result<Vec<u8>>>,
    stage: Stage,
    ended: bool,
    bytes: u64,
}

enum Stage {
    /// The header is not whole yet.
    Start(Buffer),
    Records(Records),
}

impl Reader {
    /// The next rows out of what was read.
    fn next(&mut self, rows_max: usize) -> Result<Option<Rows>, OperatorError> {
        if let Stage::Start(_) = self.stage
            && !self.begin()?
        {
            return Ok(None);
        }
        match &mut self.stage {
            Stage::Start(_) => Ok(None),
            Stage::Records(records) => Ok(records.next(rows_max, self.ended)),
        }
    }

    /// Reads the header, if there is one; false: it is not whole yet, or there is no input.
    fn begin(&mut self) -> Result<bool, OperatorError> {
        let Stage::Start(buffer) = &mut self.stage else { return Ok(true) };
        let failed = |reason: String| OperatorError::user(format!("cannot read standard input: {reason}"));
        let header = match self.shared.layout.header() {
            None => Vec::new(),
            Some(_) if buffer.unused().is_empty() => return Ok(false),
            Some(dialect) => {
                match csv::first_record(dialect, buffer.unused(), self.ended).map_err(|reason| failed(format!("its header: {reason}")))? {
                    None if buffer.unused().len() > self.shared.record_bytes_max => {
                        return Err(failed("its header is longer than max-record-bytes".into()));
                    }
                    None => return Ok(false),
                    Some((names, bytes)) => {
                        buffer.use_up(bytes);
                        names
                    }
                }
            }
        };
        let format = self.shared.layout.reader(&self.columns, &header).map_err(failed)?;
        let buffer = std::mem::take(buffer);
        self.stage = Stage::Records(Records::new(self.split.clone(), format, buffer, 0, self.shared.record_bytes_max));
        Ok(true)
    }

    fn buffer(&mut self) -> &mut Buffer {
        match &mut self.stage {
            Stage::Start(buffer) => buffer,
            Stage::Records(records) => records.buffer(),
        }
    }

    fn feed(&mut self, piece: io::Result<Vec<u8>>) -> Result<(), OperatorError> {
        let piece =
            piece.map_err(|error| OperatorError::outside(format!("cannot read standard input at byte {}", self.bytes)).because(error))?;
        self.bytes += piece.len() as u64;
        self.buffer().feed(&piece);
        Ok(())
    }

    /// Takes what is there without waiting, so that batches are large when input comes quickly.
    fn feed_ready(&mut self) -> Result<(), OperatorError> {
        while self.buffer().unused().len() < BLOCK_BYTES {
            match self.pieces.try_recv() {
                Ok(piece) => self.feed(piece)?,
                Err(_) => return Ok(()),
            }
        }
        Ok(())
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        loop {
            self.feed_ready()?;
            if let Some(Rows { batch, rejected }) = self.next(rows_max)? {
                return Ok(Read::Rows { batch, rejected });
            }
            if self.ended {
                return Ok(Read::End);
            }
            match self.pieces.recv().await {
                Some(piece) => self.feed(piece)?,
                None => self.ended = true,
            }
        }
    }

    fn position(&self) -> Value {
        match &self.stage {
            Stage::Start(_) => json!({ "record": 0 }),
            Stage::Records(records) => json!({ "record": records.record() }),
        }
    }

    fn progress(&self) -> u64 {
        self.bytes
    }
}
