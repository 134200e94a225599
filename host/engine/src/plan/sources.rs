//! Sources: columns, event times, and what is left of them once it is known what the job reads.

use std::sync::Arc;

use arrow_schema::{Field, Schema, SchemaRef};
use millstream_expr::Expression;
use millstream_model::{StreamType, types::parse_type};
use serde_json::{Map, Value};

use super::typed::Planner;
use crate::{
    connector::{ConnectorRequest, Source},
    event_time,
    graph::{EventTimeFrom, EventTimePlan, SourceNode},
    spec::{DurationOrOff, Entry, EventTimeSettings, SourceEntry, child, suggest},
};

/// How long a split may have nothing before it no longer holds the watermark, unless the job says otherwise (design §4).
const IDLE_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// A source with all its columns.
#[derive(Clone)]
pub(super) struct PlannedSource {
    source: Arc<dyn Source>,
    schema: SchemaRef,
    event_time: Option<PlannedEventTime>,
}

#[derive(Clone)]
struct PlannedEventTime {
    from: From,
    settings: EventTimeSettings,
}

#[derive(Clone)]
enum From {
    Source,
    Column(String),
    Expression { text: String, columns: Vec<String> },
}

/// Checks the settings of a source.
pub(super) fn plan(planner: &mut Planner<'_, '_>, entry: &Entry<SourceEntry>) -> Option<PlannedSource> {
    let connector = planner.connectors.sources.get(entry.kind.as_str())?;
    let declared_schema = match &entry.common.schema {
        Some(columns) => Some(declared(planner, &child(&entry.pointer, "schema"), columns)?),
        None => None,
    };
    let request = ConnectorRequest {
        id: &entry.id,
        settings: &entry.settings,
        base_directory: planner.environment.base_directory.to_owned(),
        declared_schema,
        input: None,
        clock: planner.environment.clock.clone(),
        state_directory: planner.state_directory.map(|directory| directory.join(&entry.id)),
    };
    let source = match connector.plan(request) {
        Ok(source) => source,
        Err(problems) => {
            planner.report_connector(&entry.pointer, &entry.kind, &problems);
            return None;
        }
    };
    let schema = source.schema();
    let event_time = match &entry.common.event_time {
        Some(settings) => Some(event_time(planner, &child(&entry.pointer, "event-time"), settings, &source)?),
        None => source.has_event_times().then(|| PlannedEventTime { from: From::Source, settings: EventTimeSettings::default() }),
    };
    Some(PlannedSource { source, schema, event_time })
}

/// The columns that stand under `schema:`.
fn declared(planner: &mut Planner<'_, '_>, pointer: &str, columns: &Map<String, Value>) -> Option<SchemaRef> {
    let mut fields = Vec::new();
    for (name, text) in columns {
        let at = child(pointer, name);
        let Some(text) = text.as_str() else {
            planner.report.value(&at, "the type of a column is a text such as Int64 or Utf8?", None);
            continue;
        };
        let text = text.trim();
        let (plain, nullable) = text.strip_suffix('?').map_or((text, false), |plain| (plain.trim_end(), true));
        match parse_type(plain) {
            Ok(data_type) => fields.push(Field::new(name, data_type, nullable)),
            Err(error) => {
                let types = [
                    "Boolean",
                    "Int32",
                    "Int64",
                    "UInt64",
                    "Float64",
                    "Utf8",
                    "Binary",
                    "Date32",
                    "Timestamp(ms)",
                    "Timestamp(ms, \"UTC\")",
                ];
                let help = suggest::closest(plain, types).map(|closest| format!("did you mean `{closest}`?"));
                planner.report.value(&at, error.to_string(), help);
            }
        }
    }
    (fields.len() == columns.len()).then(|| Arc::new(Schema::new(fields)))
}

fn event_time(
    planner: &mut Planner<'_, '_>,
    pointer: &str,
    settings: &EventTimeSettings,
    source: &Arc<dyn Source>,
) -> Option<PlannedEventTime> {
    let schema = source.schema();
    let from = match (&settings.column, &settings.expression) {
        (Some(_), Some(_)) => {
            let message = "event time comes from `column` or from `expression`, not from both";
            planner.report.key(&child(pointer, "expression"), message, None);
            return None;
        }
        (Some(name), None) => {
            let at = child(pointer, "column");
            let Ok(column) = schema.index_of(name) else {
                let help = suggest::help("columns", name, suggest::column_names(&schema));
                planner.report.value(&at, format!("unknown column `{name}`"), Some(help));
                return None;
            };
            if let Err(message) = event_time::check_type(schema.field(column).data_type()) {
                planner.report.value(&at, message, Some("`expression` may make one, such as to_timestamp_millis(column)".into()));
                return None;
            }
            From::Column(name.clone())
        }
        (None, Some(text)) => {
            let parsed = Expression::parse(text, &schema).map_err(|error| (error.message, error.help));
            let checked = parsed.and_then(|expression| match event_time::check_type(expression.data_type()) {
                Ok(()) => Ok(expression),
                Err(message) => Err((message, None)),
            });
            match checked {
                Ok(expression) => From::Expression { text: text.clone(), columns: names(&schema, expression.columns()) },
                Err((message, help)) => {
                    planner.report.value(&child(pointer, "expression"), message, help);
                    return None;
                }
            }
        }
        (None, None) if source.has_event_times() => From::Source,
        (None, None) => {
            planner.report.key(
                pointer,
                "nothing says where event times come from",
                Some("write `column: <name>` or `expression: <SQL>`".into()),
            );
            return None;
        }
    };
    Some(PlannedEventTime { from, settings: settings.clone() })
}

fn names(schema: &SchemaRef, columns: &[usize]) -> Vec<String> {
    columns.iter().map(|&column| schema.field(column).name().clone()).collect()
}

impl PlannedSource {
    /// The node that produces only these columns; none: all.
    pub(super) fn node(&self, needed: Option<&[String]>) -> SourceNode {
        let is_needed = |name: &String| needed.is_none_or(|needed| needed.contains(name));
        let mut columns: Vec<usize> =
            (0..self.schema.fields().len()).filter(|&column| is_needed(self.schema.field(column).name())).collect();
        let columns_out = columns.len();
        for name in self.event_time.iter().flat_map(|event_time| event_time.from.columns()) {
            let column = self.schema.index_of(name).expect("the column was found when the source was planned");
            if !columns.contains(&column) {
                columns.push(column);
            }
        }
        let produced: SchemaRef = Arc::new(self.schema.project(&columns).expect("the columns are in the schema"));
        let out: Vec<usize> = (0..columns_out).collect();
        let schema = Arc::new(produced.project(&out).expect("the leading columns are in the schema"));
        let is_whole = columns.len() == self.schema.fields().len() && columns.is_sorted();
        SourceNode {
            source: if is_whole { self.source.clone() } else { self.source.project(&columns) },
            whole: self.source.clone(),
            event_time: self.event_time.as_ref().map(|event_time| event_time.plan(&produced)),
            output: StreamType { schema, event_times: self.event_time.is_some(), changes: self.source.has_changes() },
            columns_out,
        }
    }
}

impl From {
    fn columns(&self) -> &[String] {
        match self {
            Self::Source => &[],
            Self::Column(name) => std::slice::from_ref(name),
            Self::Expression { columns, .. } => columns,
        }
    }
}

impl PlannedEventTime {
    /// Over the columns that the source still produces.
    fn plan(&self, produced: &SchemaRef) -> EventTimePlan {
        let from = match &self.from {
            From::Source => EventTimeFrom::Source,
            From::Column(name) => EventTimeFrom::Column(produced.index_of(name).expect("the event-time column is produced")),
            From::Expression { text, .. } => {
                EventTimeFrom::Expression(Expression::parse(text, produced).expect("the expression was parsed over these columns before"))
            }
        };
        let EventTimeSettings { max_out_of_orderness, idle_timeout, max_drift, .. } = self.settings;
        EventTimePlan {
            from,
            bound_ms: max_out_of_orderness.as_ms(),
            idle_timeout: idle_timeout.map_or(Some(IDLE_TIMEOUT), DurationOrOff::duration),
            max_drift: max_drift.and_then(DurationOrOff::duration),
        }
    }
}
