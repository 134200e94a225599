//! The sink.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Mutex},
};

use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    connector::{ConnectorRequest, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter},
    operator::OperatorError,
};
use millstream_model::Batch;

use super::{
    settings::{Settings, Shape},
    table::Table,
};
use crate::{
    formats::{
        encode::{written_columns, written_schema},
        ndjson,
    },
    settings::{problem, read},
};

/// Where the rows go; shared by all sinks of the process.
type Output = Arc<Mutex<dyn Write + Send>>;

/// The sink connector `stdout`.
#[derive(Clone)]
pub struct Stdout {
    output: Output,
    terminal: bool,
}

impl Default for Stdout {
    fn default() -> Self {
        Self { output: Arc::new(Mutex::new(io::stdout())), terminal: io::stdout().is_terminal() }
    }
}

impl Stdout {
    /// The same sink, writing to something else.
    pub fn writing(output: Output, terminal: bool) -> Self {
        Self { output, terminal }
    }
}

impl SinkConnector for Stdout {
    fn name(&self) -> &'static str {
        "stdout"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        let settings: Settings = read(request.settings)?;
        let Some(input) = request.input else {
            return Err(vec![problem("", "a sink needs a stream to write")]);
        };
        let schema = written_schema(&input);
        let as_table = settings.format == Shape::Table || settings.format == Shape::Auto && self.terminal;
        let lines = if as_table {
            None
        } else {
            Some(ndjson::Writer::new(&schema, ndjson::Nulls::Write).map_err(|message| vec![problem("", message)])?)
        };
        Ok(Arc::new(Printer { output: self.output.clone(), schema, lines }))
    }
}

struct Printer {
    output: Output,
    schema: SchemaRef,
    /// None: a table.
    lines: Option<ndjson::Writer>,
}

#[async_trait]
impl Sink for Printer {
    fn accepts_changes(&self) -> bool {
        true
    }

    fn parallelism_max(&self) -> Option<u32> {
        Some(1)
    }

    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        let rows = self.lines.clone().map_or_else(|| Rows::Table(Table::default()), Rows::Lines);
        Ok(Box::new(Writer { output: self.output.clone(), schema: self.schema.clone(), rows, closed: false }))
    }
}

enum Rows {
    Table(Table),
    Lines(ndjson::Writer),
}

struct Writer {
    output: Output,
    schema: SchemaRef,
    rows: Rows,
    /// Nobody reads any more.
    closed: bool,
}

impl Writer {
    fn encode(&mut self, batch: &Batch) -> Result<Vec<u8>, String> {
        let columns = written_columns(&self.schema, batch)?;
        match &mut self.rows {
            Rows::Table(table) => {
                let mut text = String::new();
                table.rows(&columns, &mut text)?;
                Ok(text.into_bytes())
            }
            Rows::Lines(writer) => {
                let mut lines = Vec::new();
                writer.rows(&columns, &mut lines)?;
                Ok(lines)
            }
        }
    }
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: &Batch) -> Result<(), OperatorError> {
        if self.closed {
            return Ok(());
        }
        let text = self.encode(batch).map_err(|reason| OperatorError::user(format!("cannot print a row: {reason}")))?;
        let mut output = self.output.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match output.write_all(&text).and_then(|()| output.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            written => written.map_err(|error| OperatorError::outside("cannot write to standard output").because(error)),
        }
    }

    async fn finish(self: Box<Self>) -> Result<(), OperatorError> {
        Ok(())
    }
}
