//! From settings to a planned window operator: columns found, aggregates typed, components asked.

use std::{any::Any, collections::BTreeSet, num::NonZeroU64, sync::Arc};

use arrow_schema::{Field, FieldRef, Schema};
use async_trait::async_trait;
use millstream_model::{StreamType, types::type_text};
use millstream_wasm::InstanceContext;

use super::{
    aggregate::{
        Average, BuiltIn, By, Collect, Count, CountDistinct, Extreme, Pick, Side, Sum,
        component::ComponentAggregate,
        set::{AggregatePlan, Function},
    },
    assign::Windows,
    core::CorePlan,
    count::CountWindows,
    early::Early,
    pane::{PanePlan, PaneWindows},
    results::{ResultShape, WINDOW_END, WINDOW_START, window_column},
    session::{SessionPlan, SessionWindows},
    settings::{Aggregate, Columns, Input, Window},
};
use crate::{
    graph::RowOrder,
    operator::{Operator, OperatorContext, OperatorError, OperatorPlan},
    operators::{ComponentReference, Environment, OUTPUT, OperatorSpec, Place, PlanRequest, Planned, Problem, upgrade::Declared},
    spec::{
        DurationMs,
        suggest::{help, unknown_column},
    },
};

/// How windows lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// On the time line.
    Time(Windows),
    /// As rows follow each other.
    Session {
        /// The time between two rows from which on they are in two sessions.
        gap_ms: i64,
    },
    /// By the number of rows.
    Count {
        /// Rows of a window.
        rows: NonZeroU64,
    },
}

impl Kind {
    fn needs_event_time(self) -> bool {
        !matches!(self, Self::Count { .. } | Self::Time(Windows::Global))
    }

    fn needs_merge(self) -> bool {
        match self {
            Self::Time(windows) => !windows.is_one_pane(),
            Self::Session { .. } => true,
            Self::Count { .. } => false,
        }
    }

    fn explain(self) -> String {
        let ms = |ms: i64| DurationMs::from_ms(ms).to_string();
        match self {
            Self::Time(Windows::Global) => "one window for everything".into(),
            Self::Time(Windows::Sliding { size_ms, slide_ms, .. }) if size_ms == slide_ms => format!("tumbling windows of {}", ms(size_ms)),
            Self::Time(windows @ Windows::Sliding { size_ms, slide_ms, .. }) => {
                format!("sliding windows of {} every {}, in panes of {}", ms(size_ms), ms(slide_ms), ms(windows.pane_ms()))
            }
            Self::Time(Windows::Cumulative { size_ms, step_ms, .. }) => {
                format!("cumulative windows of {} growing by {}", ms(size_ms), ms(step_ms))
            }
            Self::Session { gap_ms } => format!("sessions that end after a gap of {}", ms(gap_ms)),
            Self::Count { rows } => format!("windows of {rows} rows"),
        }
    }
}

#[async_trait]
impl OperatorSpec for Window {
    const KEY: &'static str = "window";

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let input = &request.inputs[0];
        let keys = request.keys.map(|keys| keys[0].clone()).unwrap_or_default();
        let mut problems = Vec::new();
        let kind = self.kind().map_err(|problem| problems.push(problem)).ok();
        let early = self.early().map_err(|problem| problems.push(problem)).unwrap_or_default();
        if let Some(kind) = kind {
            self.check_kind(kind, input, request.order, &mut problems);
        }
        let mut aggregates = Vec::new();
        if self.aggregates.is_empty() {
            problems.push(Problem::at("aggregates", "a window computes something").help("add for example flights: { count: \"*\" }"));
        }
        for (name, settings) in &self.aggregates {
            match plan_aggregate(name, settings, input, &request).await {
                Ok(aggregate) => aggregates.push(aggregate),
                Err(found) => problems.extend(found),
            }
        }
        let has_window = kind.is_some_and(Kind::needs_event_time);
        self.check_names(&keys, has_window, input, &mut problems);
        if kind.is_some_and(Kind::needs_merge) {
            problems.extend(aggregates.iter().filter(|(aggregate, _)| !aggregate.merges()).map(|(aggregate, _)| {
                let message = "this component cannot merge accumulators, which sliding, cumulative and session windows need";
                Problem::at(format!("aggregates.{}", aggregate.name), message)
            }));
        }
        let (Some(kind), true) = (kind, problems.is_empty()) else { return Err(problems) };
        let (aggregates, columns): (Vec<AggregatePlan>, Vec<Vec<usize>>) = aggregates.into_iter().unzip();
        let reads: BTreeSet<usize> = columns.into_iter().flatten().chain(keys.iter().copied()).collect();
        let core = core_plan(keys, aggregates, reads.into_iter().collect(), kind, input);
        let lateness_ms = self.allowed_lateness.as_ms();
        let early = early.map(|(every_ms, clock)| Early::new(every_ms, clock));
        let output = StreamType {
            schema: Arc::clone(&core.shape.schema),
            event_times: core.shape.event_times,
            changes: early.is_some() || lateness_ms > 0,
        };
        let plan = WindowPlan { outputs: [(OUTPUT.into(), output)], kind, core, lateness_ms, early };
        let late = kind.needs_event_time().then(|| self.late.clone());
        Ok(Planned { plan: Arc::new(plan), late })
    }
}

impl Window {
    fn check_kind(&self, kind: Kind, input: &StreamType, order: RowOrder, problems: &mut Vec<Problem>) {
        if kind.needs_event_time() && !input.event_times {
            let problem = Problem::at("", "these windows lie in event time, but the input has none");
            problems
                .push(problem.help("give the source an `event-time`, put `assign-watermarks` before, or use `count` or `global` windows"));
        }
        if order == RowOrder::EventTime {
            let problem = Problem::in_entry("order", "a window takes rows as they arrive");
            problems.push(problem.help("leave `order` out: `first`, `last` and windows themselves go by event time anyway"));
        }
        let is_count = matches!(kind, Kind::Count { .. });
        if is_count && self.early.is_some() {
            problems.push(Problem::at("early", "windows by count have no early results"));
        }
        if !kind.needs_event_time() && self.allowed_lateness.as_ms() > 0 {
            problems.push(Problem::at("allowed-lateness", "these windows do not depend on time, so no row is late for them"));
        }
        if self.offset.as_ms() > 0 && (self.session.is_some() || !kind.needs_event_time()) {
            problems.push(Problem::at("offset", "these windows do not start at fixed times"));
        }
    }

    fn check_names(&self, keys: &[usize], has_window: bool, input: &StreamType, problems: &mut Vec<Problem>) {
        let key_names: Vec<&str> = keys.iter().map(|&key| input.schema.field(key).name().as_str()).collect();
        let is_window = |name: &str| has_window && (name == WINDOW_START || name == WINDOW_END);
        for name in key_names.iter().filter(|name| is_window(name)) {
            let problem = Problem::in_entry("key-by", format!("the key column `{name}` has the name of a column that the window adds"));
            problems.push(problem.help("rename it before the window, with `compute` and `project`"));
        }
        for name in self.aggregates.keys() {
            let path = format!("aggregates.{name}");
            if is_window(name) {
                problems.push(Problem::at(path, format!("the window itself adds a column `{name}`")));
            } else if key_names.contains(&name.as_str()) {
                problems.push(Problem::at(path, format!("the key has a column `{name}`, which is in the output already")));
            }
        }
    }
}

fn core_plan(keys: Vec<usize>, aggregates: Vec<AggregatePlan>, reads: Vec<usize>, kind: Kind, input: &StreamType) -> CorePlan {
    let has_window = kind.needs_event_time();
    let key_fields: Vec<FieldRef> = keys.iter().map(|&key| Arc::clone(&input.schema.fields()[key])).collect();
    let key_types = key_fields.iter().map(|field| field.data_type().clone()).collect();
    let mut fields = key_fields;
    if has_window {
        fields.extend([WINDOW_START, WINDOW_END].map(|name| Arc::new(window_column(name))));
    }
    fields.extend(aggregates.iter().map(|aggregate| Arc::new(aggregate.output())));
    let shape = ResultShape { schema: Arc::new(Schema::new(fields)), key_types, has_window, event_times: input.event_times };
    CorePlan { keys, aggregates: aggregates.into(), shape: Arc::new(shape), reads }
}

/// An aggregate, and the columns it reads.
type PlannedAggregate = (AggregatePlan, Vec<usize>);

async fn plan_aggregate(
    name: &str,
    settings: &serde_json::Value,
    input: &StreamType,
    request: &PlanRequest<'_>,
) -> Result<PlannedAggregate, Vec<Problem>> {
    let one = |problem| vec![problem];
    let settings = Window::aggregate(name, settings).map_err(one)?;
    let path = format!("aggregates.{name}");
    let found = ColumnFinder { schema: &input.schema, path: &path };
    if let Some(component) = &settings.component {
        let (function, columns) = plan_component(component, settings.input.as_ref(), &found, request).await?;
        return Ok((AggregatePlan { name: name.into(), function }, columns));
    }
    let (function, columns) = built_in(&settings, &found).map_err(one)?;
    Ok((AggregatePlan { name: name.into(), function: Function::BuiltIn(function) }, columns))
}

/// Finds columns of the input by name.
struct ColumnFinder<'a> {
    schema: &'a Schema,
    path: &'a str,
}

impl ColumnFinder<'_> {
    fn column(&self, key: &str, name: &str) -> Result<(usize, &Field), Problem> {
        let path = format!("{}.{key}", self.path);
        let column = self.schema.index_of(name).map_err(|_| unknown_column(&path, name, self.schema))?;
        Ok((column, self.schema.field(column)))
    }

    fn columns<'n>(&self, key: &str, names: impl IntoIterator<Item = &'n String>) -> Result<Vec<usize>, Problem> {
        names.into_iter().map(|name| self.column(key, name).map(|(column, _)| column)).collect()
    }
}

/// The function that settings name, and the columns it reads.
fn built_in(settings: &Aggregate, found: &ColumnFinder<'_>) -> Result<(Arc<dyn BuiltIn>, Vec<usize>), Problem> {
    let functions = [
        ("count", &settings.count),
        ("count-distinct", &settings.count_distinct),
        ("sum", &settings.sum),
        ("avg", &settings.avg),
        ("min", &settings.min),
        ("max", &settings.max),
        ("first", &settings.first),
        ("last", &settings.last),
        ("collect", &settings.collect),
        ("max-by", &settings.max_by),
        ("min-by", &settings.min_by),
    ];
    let mut given = functions.iter().filter_map(|(key, column)| column.as_ref().map(|column| (*key, column)));
    let Some((key, column)) = given.next() else {
        let keys: Vec<&str> = functions.iter().map(|(key, _)| *key).collect();
        return Err(Problem::at(found.path, "which aggregate is not said").help(help("aggregates", "", keys)));
    };
    if let Some((second, _)) = given.next() {
        return Err(Problem::at(format!("{}.{second}", found.path), format!("an aggregate is either `{key}` or `{second}`")));
    }
    let picks = matches!(key, "max-by" | "min-by");
    if settings.value.is_some() && !picks {
        return Err(Problem::at(format!("{}.value", found.path), "`value` belongs to `max-by` and `min-by`"));
    }
    if settings.input.is_some() {
        return Err(Problem::at(format!("{}.input", found.path), "`input` belongs to `component`"));
    }
    if key == "count" && column == "*" {
        return Ok((Arc::new(Count { column: None }), Vec::new()));
    }
    let (number, field) = found.column(key, column)?;
    if picks {
        let side = if key == "max-by" { Side::Greatest } else { Side::Least };
        return pick_by(settings, side, number, key, found);
    }
    let function = of_column(key, number, field, found.schema).ok_or_else(|| {
        let message = format!("`{key}` cannot be computed of `{column}`, which is {}", type_text(field.data_type()));
        Problem::at(format!("{}.{key}", found.path), message)
    })?;
    Ok((function, vec![number]))
}

/// The function `key` of one column; none if the column's type does not suit it.
fn of_column(key: &str, column: usize, field: &Field, schema: &Schema) -> Option<Arc<dyn BuiltIn>> {
    let (data_type, nullable) = (field.data_type(), field.is_nullable());
    Some(match key {
        "count" => Arc::new(Count { column: Some(column) }),
        "count-distinct" => Arc::new(CountDistinct::new(column, data_type)?),
        "sum" => Arc::new(Sum::new(column, data_type, nullable)?),
        "avg" => Arc::new(Average::new(column, data_type, nullable)?),
        "min" => Arc::new(Extreme::new(Side::Least, column, data_type, nullable)?),
        "max" => Arc::new(Extreme::new(Side::Greatest, column, data_type, nullable)?),
        "first" => Arc::new(Pick::new(By::First, vec![column], false, schema)?),
        "last" => Arc::new(Pick::new(By::Last, vec![column], false, schema)?),
        "collect" => Arc::new(Collect::new(column, data_type, nullable)),
        other => unreachable!("`{other}` is not in the list of functions of one column"),
    })
}

fn pick_by(
    settings: &Aggregate,
    side: Side,
    by: usize,
    key: &str,
    found: &ColumnFinder<'_>,
) -> Result<(Arc<dyn BuiltIn>, Vec<usize>), Problem> {
    let (columns, as_struct) = match &settings.value {
        None => {
            return Err(Problem::at(format!("{}.value", found.path), format!("`{key}` finds a row; `value` says which of its columns")));
        }
        Some(Columns::One(name)) => (found.columns("value", [name])?, false),
        Some(Columns::Many(names)) if names.is_empty() => {
            return Err(Problem::at(format!("{}.value", found.path), "name at least one column"));
        }
        Some(Columns::Many(names)) => (found.columns("value", names)?, true),
    };
    let field = found.schema.field(by);
    let pick = Pick::new(By::Column(side, by), columns.clone(), as_struct, found.schema).ok_or_else(|| {
        let message = format!("values of `{}`, which is {}, have no order", field.name(), type_text(field.data_type()));
        Problem::at(format!("{}.{key}", found.path), message)
    })?;
    let reads = columns.into_iter().chain([by]).collect();
    Ok((Arc::new(pick), reads))
}

async fn plan_component(
    settings: &ComponentReference,
    input: Option<&Input>,
    found: &ColumnFinder<'_>,
    request: &PlanRequest<'_>,
) -> Result<(Function, Vec<usize>), Vec<Problem>> {
    let (fields, offered) = offered_fields(input, found).map_err(|problem| vec![problem])?;
    let environment: &Environment<'_> = request.environment;
    let context = InstanceContext::unheard(Some(request.id.clone()));
    let which =
        settings.which().map_err(|problem| vec![Problem { place: Place::Settings(format!("{}.component", found.path)), ..problem }])?;
    let planned = async {
        let component = which.load(environment).await?;
        let mut instance = component.aggregate(context).await?;
        instance.describe().await?;
        let plan = instance.plan(settings.settings(), &fields.clone().into()).await?;
        Ok::<_, millstream_wasm::Error>((component, plan))
    };
    let (component, plan) = planned.await.map_err(|error| vec![Problem::at(format!("{}.component", found.path), with_causes(&error))])?;
    if component.inspection().sends_requests() {
        let message = format!("component `{}` sends requests over HTTP, which aggregates do not", component.name());
        return Err(vec![
            Problem::at(format!("{}.component", found.path), message).help("send them in an operator before or behind the window"),
        ]);
    }
    let columns: Vec<usize> = plan.columns.iter().map(|&column| offered[column]).collect();
    let aggregate = ComponentAggregate {
        component,
        path: which.text(),
        settings: settings.settings().clone(),
        plan: Arc::new(plan),
        columns: columns.clone(),
    };
    Ok((Function::Component(Arc::new(aggregate)), columns))
}

/// An error and its causes on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// The fields that a component is offered under the names it knows, and their columns in the input.
fn offered_fields(input: Option<&Input>, found: &ColumnFinder<'_>) -> Result<(Vec<FieldRef>, Vec<usize>), Problem> {
    let all = found.schema.fields();
    let own_names = |columns: Vec<usize>| (columns.iter().map(|&column| Arc::clone(&all[column])).collect(), columns);
    Ok(match input {
        None => own_names((0..all.len()).collect()),
        Some(Input::One(name)) => own_names(found.columns("input", [name])?),
        Some(Input::Listed(names)) => own_names(found.columns("input", names)?),
        Some(Input::Renamed(names)) => {
            let columns = found.columns("input", names.values())?;
            let renamed = names.keys().zip(&columns).map(|(name, &column)| Arc::new(all[column].as_ref().clone().with_name(name)));
            (renamed.collect(), columns)
        }
    })
}

/// A planned window operator.
pub(super) struct WindowPlan {
    outputs: [(String, StreamType); 1],
    kind: Kind,
    core: CorePlan,
    lateness_ms: i64,
    early: Option<Early>,
}

impl WindowPlan {
    /// What time windows are made from.
    pub(super) fn pane_plan(&self, windows: Windows) -> PanePlan {
        PanePlan { core: self.core.clone(), windows, lateness_ms: self.lateness_ms, early: self.early.clone() }
    }

    fn session_plan(&self, gap_ms: i64) -> SessionPlan {
        SessionPlan { core: self.core.clone(), gap_ms, lateness_ms: self.lateness_ms, early: self.early.clone() }
    }
}

#[async_trait]
impl OperatorPlan for WindowPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn explain(&self) -> Vec<String> {
        let mut lines = vec![self.kind.explain()];
        lines.extend(self.core.aggregates.iter().map(|aggregate| {
            let (output, accumulator) = (aggregate.output(), aggregate.accumulator_type());
            format!("{}: {}, accumulated as {}", output.name(), type_text(output.data_type()), type_text(&accumulator))
        }));
        if self.lateness_ms > 0 {
            lines.push(format!("takes rows up to {} behind the watermark", DurationMs::from_ms(self.lateness_ms)));
        }
        lines.extend(self.early.as_ref().map(Early::explain));
        lines
    }

    fn reads(&self, _input: usize) -> Option<Vec<usize>> {
        Some(self.core.reads.clone())
    }

    fn keeps_state(&self) -> bool {
        true
    }

    fn uses_watermarks(&self) -> bool {
        self.kind.needs_event_time()
    }

    fn declared(&self) -> Option<Declared> {
        Some(match self.kind {
            Kind::Time(windows) => PaneWindows::declared(&self.pane_plan(windows)),
            Kind::Session { gap_ms } => SessionWindows::declared(&self.session_plan(gap_ms)),
            Kind::Count { .. } => CountWindows::declared(&self.core),
        })
    }

    async fn create(&self, context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        Ok(match self.kind {
            Kind::Time(windows) => {
                let plan = self.pane_plan(windows);
                Box::new(PaneWindows::open(plan, &context).await?)
            }
            Kind::Session { gap_ms } => Box::new(SessionWindows::open(self.session_plan(gap_ms), &context).await?),
            Kind::Count { rows } => Box::new(CountWindows::open(&self.core, rows, &context).await?),
        })
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
