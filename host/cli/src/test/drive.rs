//! Drives one operator through the steps of a case, as one subtask of a job would.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use millstream_engine::{
    clock::ManualClock,
    graph::RowOrder,
    metrics::OperatorMetrics,
    operator::{Moment, Operator, OperatorContext, OperatorError, OperatorPlan, Output, OutputPort, StateContext},
    operators::{self, Environment, PlanRequest, Ports, Problem},
    rejected::Rejection,
};
use millstream_model::{
    Batch, StreamType, Watermark,
    ids::{JobId, OperatorId, SubtaskIndex, TenantId},
    key::KEY_GROUPS,
};
use serde_json::{Value, json};

use super::{
    case::{Case, Row, RowsStep, Step},
    rows,
};

/// What left the operator.
pub struct Seen {
    /// The declared outputs, and `late`, with their types and rows in order.
    pub outputs: BTreeMap<String, (StreamType, Vec<Row>)>,
    /// The rows that it rejected.
    pub rejected: Vec<Row>,
}

/// Runs a case. An error is what the person who wrote case or operator should read.
pub async fn drive(case: &Case, component: &Path, components: &millstream_wasm::Runtime) -> Result<Seen, String> {
    let id = OperatorId::from("operator");
    let clock = Arc::new(ManualClock::at(0));
    let environment = Environment { base_directory: Path::new("."), components, clock };
    let inputs = Inputs::of(case, component, &environment).await?;
    let request = PlanRequest { id: &id, inputs: &inputs.types, keys: inputs.keys.as_deref(), order: inputs.order, environment: &environment };
    let planned = inputs.spec.plan(request).await.map_err(|problems| all(&problems))?;
    let operator = planned.plan.create(context(id)).await.map_err(|error| chain(&error))?;
    let outputs = planned.plan.outputs().iter().map(|(name, _)| name.clone()).collect();
    let seen = Seen::of(&*planned.plan, &inputs.types);
    let mut driver = Driver { operator, outputs, seen, out: Output::default(), now: Moment { watermark: None, processing_time: 0 } };
    for (number, step) in case.steps.iter().enumerate() {
        driver.step(step, &inputs).await.map_err(|reason| format!("step {}: {reason}", number + 1))?;
    }
    if case.ends {
        driver.end().await.map_err(|reason| format!("end of input: {reason}"))?;
    }
    Ok(driver.seen)
}

/// What stands in front of the operator.
struct Inputs {
    spec: Box<dyn operators::AnyOperatorSpec>,
    ports: Vec<String>,
    types: Vec<StreamType>,
    keys: Option<Vec<Vec<usize>>>,
    order: RowOrder,
}

impl Inputs {
    async fn of(case: &Case, component: &Path, environment: &Environment<'_>) -> Result<Self, String> {
        let mut entry = case.operator.clone();
        let key_by = entry.remove("key-by");
        let (kind, mut settings) = match entry.into_iter().collect::<Vec<_>>().as_slice() {
            [] => ("component".to_owned(), json!({})),
            [(kind, settings)] => (kind.clone(), settings.clone()),
            _ => return Err("`operator` takes `key-by` and one kind of operator, nothing else".into()),
        };
        let mut whole = json!({ &kind: settings });
        name_component(&mut whole, &component.display().to_string());
        settings = whole[&kind].take();
        let known = operators::registry().iter().find(|known| known.key == kind);
        let known = known.ok_or_else(|| format!("`{kind}` is no kind of operator"))?;
        let spec = (known.parse)(settings).map_err(|problem| all(&[problem]))?;
        let ports = match spec.ports(environment).await.map_err(|problems| all(&problems))? {
            Ports::Named(ports) => ports,
            Ports::Union => vec!["input".to_owned()],
        };
        let types = ports.iter().map(|port| stream(case, port, ports.len())).collect::<Result<Vec<_>, _>>()?;
        if let Some(unknown) = case.inputs.keys().find(|name| !ports.contains(name)) {
            return Err(format!("there is no input `{unknown}`; the inputs are {}", ports.join(", ")));
        }
        let keys = key_by.map(|key_by| keys(&key_by, &ports, &types)).transpose()?;
        Ok(Self { spec, ports, types, keys, order: RowOrder::Arrival })
    }

    /// The port that a step names.
    fn port(&self, step: &RowsStep) -> Result<usize, String> {
        port_of(step, &self.ports.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

/// The port of a step, which may be left out if there is only one.
fn port_of(step: &RowsStep, ports: &[&str]) -> Result<usize, String> {
    match (&step.input, ports) {
        (None, [_only]) => Ok(0),
        (None, _) => Err(format!("say with `input` which one the rows come to: {}", ports.join(", "))),
        (Some(name), _) => ports.iter().position(|port| port == name).ok_or_else(|| format!("there is no input `{name}`; the inputs are {}", ports.join(", "))),
    }
}

/// Every `component` without a path, at any depth, is the one under test.
fn name_component(entry: &mut Value, path: &str) {
    match entry {
        Value::Object(map) => {
            if let Some(Value::Object(component)) = map.get_mut("component") {
                component.entry("path").or_insert_with(|| path.into());
            }
            map.values_mut().for_each(|value| name_component(value, path));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| name_component(value, path)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// The type of an input: its columns as declared; times and changes if any of its rows has them.
fn stream(case: &Case, port: &str, ports: usize) -> Result<StreamType, String> {
    let columns = case.inputs.get(port).ok_or_else(|| format!("`inputs` says nothing about the input `{port}`"))?;
    let own = case.steps.iter().filter_map(|step| match step {
        Step::Rows(step) if step.input.as_deref().map_or(ports == 1, |input| input == port) => Some(&step.rows),
        Step::Rows(_) | Step::Watermark(_) | Step::ProcessingTime(_) => None,
    });
    let own: Vec<&Row> = own.flatten().collect();
    let any = |name: &str| own.iter().any(|row| row.contains_key(name));
    let schema = rows::schema(columns).map_err(|reason| format!("input `{port}`: {reason}"))?;
    Ok(StreamType { schema, event_times: any(rows::TIME), changes: any(rows::CHANGE) })
}

/// The key columns of each port by number: `[a, b]` for all, or port → list.
fn keys(key_by: &Value, ports: &[String], types: &[StreamType]) -> Result<Vec<Vec<usize>>, String> {
    let of_port = |(port, stream): (&String, &StreamType)| {
        let names = key_by.get(port).unwrap_or(key_by).as_array().ok_or_else(|| format!("`key-by` has no list of columns for the input `{port}`"))?;
        let number = |name: &Value| {
            let index = name.as_str().and_then(|name| stream.schema.index_of(name).ok());
            index.ok_or_else(|| format!("`key-by` names {name}, which is no column of the input `{port}`"))
        };
        names.iter().map(number).collect()
    };
    ports.iter().zip(types).map(of_port).collect()
}

impl Seen {
    fn of(plan: &dyn OperatorPlan, inputs: &[StreamType]) -> Self {
        let declared = plan.outputs().iter().map(|(name, stream)| (name.clone(), (stream.clone(), Vec::new())));
        let late = inputs.first().map(|stream| ("late".to_owned(), (stream.clone(), Vec::new())));
        Self { outputs: declared.chain(late).collect(), rejected: Vec::new() }
    }
}

/// An operator between two steps.
struct Driver {
    operator: Box<dyn Operator>,
    outputs: Vec<String>,
    seen: Seen,
    out: Output,
    now: Moment,
}

impl Driver {
    async fn step(&mut self, step: &Step, inputs: &Inputs) -> Result<(), String> {
        match step {
            Step::Rows(step) => {
                let port = inputs.port(step)?;
                let stream = &inputs.types[port];
                let batch = rows::batch(&stream.schema, &step.rows, stream.event_times, stream.changes)?;
                let called = self.operator.on_batch(port, batch, self.now, &mut self.out).await;
                self.take(called)
            }
            Step::Watermark(step) => self.advance(Watermark(rows::time(&step.watermark)?)).await,
            Step::ProcessingTime(step) => self.advance_clock(rows::time(&step.processing_time)?).await,
        }
    }

    async fn advance(&mut self, watermark: Watermark) -> Result<(), String> {
        if self.now.watermark.is_some_and(|now| now > watermark) {
            return Err("a watermark never goes backwards".into());
        }
        self.now.watermark = Some(watermark);
        loop {
            let called = self.operator.on_watermark(self.now, &mut self.out).await;
            self.take(called)?;
            if !self.operator.has_more() {
                return Ok(());
            }
        }
    }

    async fn advance_clock(&mut self, to_ms: i64) -> Result<(), String> {
        self.now.processing_time = to_ms;
        while self.operator.has_more() || self.operator.next_processing_time().is_some_and(|at_ms| at_ms <= to_ms) {
            let called = self.operator.on_processing_time(self.now, &mut self.out).await;
            self.take(called)?;
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), String> {
        self.advance(Watermark::MAX).await?;
        loop {
            let called = self.operator.on_end(self.now, &mut self.out).await;
            self.take(called)?;
            if !self.operator.has_more() {
                return Ok(());
            }
        }
    }

    /// Notes what the last call has emitted.
    fn take(&mut self, called: Result<(), OperatorError>) -> Result<(), String> {
        called.map_err(|error| chain(&error))?;
        for (port, batch) in self.out.take_emitted() {
            self.note(port, &batch)?;
        }
        self.seen.rejected.extend(self.out.take_rejections().iter().map(rejected_row));
        Ok(())
    }

    fn note(&mut self, port: OutputPort, batch: &Batch) -> Result<(), String> {
        let name = match port {
            OutputPort::Port(number) => self.outputs.get(number).map_or("", String::as_str),
            OutputPort::Late => "late",
            OutputPort::Rejected => "rejected",
        };
        let (_, seen) = self.seen.outputs.get_mut(name).ok_or_else(|| format!("rows left by `{name}`, which the operator has not declared"))?;
        seen.extend(rows::rows(batch)?);
        Ok(())
    }
}

fn rejected_row(rejection: &Rejection) -> Row {
    let row = json!({ "reason": rejection.reason, "row": rejection.row, "@time": rejection.event_time });
    row.as_object().expect("it was made as an object").clone()
}

/// One subtask that owns all keys, with its state in memory.
fn context(operator: OperatorId) -> OperatorContext {
    const MEMORY_BYTES: usize = 256 << 20;
    OperatorContext {
        tenant: TenantId::local(),
        job: JobId::from("test"),
        operator,
        subtask: SubtaskIndex(0),
        parallelism: 1,
        key_groups: 0..KEY_GROUPS,
        state: StateContext { directory: None, shared: None, memory_budget_bytes: MEMORY_BYTES },
        metrics: Arc::new(OperatorMetrics::default()),
    }
}

fn all(problems: &[Problem]) -> String {
    let shown = |problem: &Problem| match &problem.help {
        Some(help) => format!("{} ({help})", problem.message),
        None => problem.message.clone(),
    };
    problems.iter().map(shown).collect::<Vec<_>>().join("; ")
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
