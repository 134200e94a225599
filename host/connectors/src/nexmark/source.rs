//! The source: which event each row of a split is, and when it may leave.

use std::sync::Arc;

use arrow_array::ArrayRef;
use arrow_schema::SchemaRef;
use async_trait::async_trait;
use millstream_engine::{
    clock::Clock,
    connector::{ConnectorRequest, Read, SettingsProblem, Source, SourceConnector, Split, SplitReader},
    operator::OperatorError,
};
use millstream_model::{Batch, EventTime, Origin, Positions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    generate::{Column, Generator, TURN},
    settings::{Settings, Stream},
};
use crate::{
    pace::Pace,
    settings::{problem, read},
};

/// The factor that shuffles a group, from Beam's generator; a prime.
const SHUFFLE: u64 = 953;
/// More events than anyone waits for; keeps all arithmetic inside 64 bits.
const EVENTS_MAX: u64 = 1 << 50;

/// The source connector `nexmark`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nexmark;

impl SourceConnector for Nexmark {
    fn name(&self) -> &'static str {
        "nexmark"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(Settings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let settings: Settings = read(request.settings)?;
        let mut problems = Vec::new();
        if request.declared_schema.is_some() {
            problems.push(problem("", "the columns of nexmark are given: remove `schema:` of the source"));
        }
        if settings.events.is_some_and(|events| events > EVENTS_MAX) {
            problems.push(problem("events", format!("is at most {EVENTS_MAX}")));
        }
        if settings.out_of_order.get().is_multiple_of(SHUFFLE) || settings.out_of_order.get() > 1 << 40 {
            problems.push(problem("out-of-order", format!("is at most 2^40 and not a multiple of {SHUFFLE}")));
        }
        let last = settings.events.map_or(0, |events| events.min(EVENTS_MAX));
        if !EventTime(settings.start_ms).is_supported() || !EventTime(Generator::new(&settings).time_ms(last)).is_supported() {
            problems.push(problem("start-ms", "events are within the years 1 to 9999"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let columns = settings.stream.columns().iter().map(|(_, column)| *column).collect();
        let shared = Arc::new(Shared { generator: Generator::new(&settings), settings, clock: request.clock });
        Ok(Arc::new(Events { schema: shared.settings.stream.schema(), shared, columns }))
    }
}

struct Shared {
    settings: Settings,
    generator: Generator,
    clock: Arc<dyn Clock>,
}

struct Events {
    shared: Arc<Shared>,
    columns: Arc<[Column]>,
    schema: SchemaRef,
}

/// [`Split::detail`]: the turns number `index`, `index` + `count`, … belong to the split.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Share {
    index: u64,
    count: u64,
}

/// What a checkpoint stores.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Position {
    /// Number of the next row of the split.
    row: u64,
}

#[async_trait]
impl Source for Events {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn has_event_times(&self) -> bool {
        true
    }

    fn is_bounded(&self) -> bool {
        self.shared.settings.events.is_some()
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        let schema = Arc::new(self.schema.project(columns).expect("projected columns exist"));
        let columns = columns.iter().map(|&column| self.columns[column]).collect();
        Arc::new(Self { shared: self.shared.clone(), columns, schema })
    }

    async fn splits(&self, parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        let count = u64::from(self.shared.settings.splits.map_or(parallelism.max(1), std::num::NonZeroU32::get));
        let split = |index| Split {
            id: format!("{index} of {count}").into(),
            detail: serde_json::to_value(Share { index, count }).expect("numbers are JSON"),
        };
        Ok((0..count).map(split).collect())
    }

    fn size_hint(&self) -> Option<u64> {
        let events = self.shared.settings.events?;
        Some(Rows { stream: self.shared.settings.stream, share: Share { index: 0, count: 1 }, shuffled_by: 1 }.before(events))
    }

    async fn open(&self, split: &Split, position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        let share: Share = serde_json::from_value(split.detail.clone())
            .map_err(|error| OperatorError::internal(format!("split {} is not one of nexmark", split.id)).because(error))?;
        let resume: Option<Position> = position
            .map(|position| serde_json::from_value(position.clone()))
            .transpose()
            .map_err(|error| OperatorError::user(format!("the position of {} is not one of nexmark", split.id)).because(error))?;
        let settings = &self.shared.settings;
        let rows = Rows { stream: settings.stream, share, shuffled_by: settings.out_of_order.get() };
        let next = resume.map_or(0, |position| position.row);
        let end = rows.before(settings.events.unwrap_or(EVENTS_MAX));
        Ok(Box::new(Reader {
            shared: self.shared.clone(),
            columns: self.columns.clone(),
            schema: self.schema.clone(),
            split: split.id.clone(),
            rows,
            next,
            end,
            pace: None,
        }))
    }
}

/// Which event each row of a split is.
#[derive(Clone, Copy, Debug)]
struct Rows {
    stream: Stream,
    share: Share,
    shuffled_by: u64,
}

impl Rows {
    /// The event of a row, in order.
    #[inline]
    fn event(&self, row: u64) -> u64 {
        let per_turn = self.stream.per_turn();
        let (turn, place) = (row / per_turn, row % per_turn);
        (turn * self.share.count + self.share.index) * TURN + self.stream.first_in_turn() + place
    }

    /// Number of rows whose event is one of the first `events`.
    fn before(&self, events: u64) -> u64 {
        let (turns, rest) = (events / TURN, events % TURN);
        let whole = (turns + self.share.count - 1 - self.share.index) / self.share.count;
        let is_mine = turns % self.share.count == self.share.index;
        let part = if is_mine { rest.saturating_sub(self.stream.first_in_turn()).min(self.stream.per_turn()) } else { 0 };
        whole * self.stream.per_turn() + part
    }

    /// The row that stands at a place of the split: within groups, rows leave their order. A last group that is not whole keeps it.
    #[inline]
    fn at(&self, place: u64, end: u64) -> u64 {
        let size = self.shuffled_by;
        let base = place / size * size;
        if size == 1 || base + size > end { place } else { base + (place - base) * SHUFFLE % size }
    }

    fn events(&self, places: std::ops::Range<u64>, end: u64) -> Vec<u64> {
        if self.shuffled_by == 1 {
            return places.map(|row| self.event(row)).collect();
        }
        places.map(|place| self.event(self.at(place, end))).collect()
    }
}

struct Reader {
    shared: Arc<Shared>,
    columns: Arc<[Column]>,
    schema: SchemaRef,
    split: Arc<str>,
    rows: Rows,
    next: u64,
    end: u64,
    pace: Option<Pace>,
}

impl Reader {
    /// The places that may be read now, at least one; waits for the first to be due.
    async fn due(&mut self, rows_max: usize) -> std::ops::Range<u64> {
        let end = self.end.min(self.next.saturating_add(rows_max.max(1) as u64));
        let Some(rate) = self.shared.settings.rate else { return self.next..end };
        let next_event = self.rows.event(self.next);
        let clock = &*self.shared.clock;
        let pace = *self.pace.get_or_insert_with(|| Pace::starting(clock, next_event, rate.get()));
        loop {
            let due = self.rows.before(pace.due(clock).min(EVENTS_MAX));
            if due > self.next {
                return self.next..end.min(due);
            }
            pace.wait_for(clock, next_event).await;
        }
    }

    fn make(&self, places: std::ops::Range<u64>) -> Batch {
        let first = places.start;
        let events = self.rows.events(places, self.end);
        let generator = &self.shared.generator;
        let times_ms: Vec<i64> = events.iter().map(|&event| generator.time_ms(event)).collect();
        let columns: Vec<ArrayRef> = self.columns.iter().map(|&column| generator.column(column, &events, &times_ms)).collect();
        let origin = Origin { split: self.split.clone(), positions: Positions::From(first) };
        Batch::try_new(self.schema.clone(), columns, events.len())
            .expect("the columns are made to the schema")
            .with_event_times(Some(times_ms.into()))
            .with_origin(Some(origin))
    }
}

#[async_trait]
impl SplitReader for Reader {
    async fn read(&mut self, rows_max: usize) -> Result<Read, OperatorError> {
        if self.next >= self.end {
            return Ok(Read::End);
        }
        let places = self.due(rows_max).await;
        self.next = places.end;
        Ok(Read::Rows { batch: self.make(places), rejected: Vec::new() })
    }

    fn position(&self) -> Value {
        serde_json::to_value(Position { row: self.next }).expect("numbers are JSON")
    }

    fn progress(&self) -> u64 {
        self.next
    }
}
