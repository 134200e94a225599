//! Drives one operator through the steps of a case, as one subtask of a job would, and compares what leaves it.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use millstream_engine::{
    clock::ManualClock,
    graph::RowOrder,
    metrics::OperatorMetrics,
    operator::{Moment, Operator, OperatorContext, OperatorError, Output, OutputPort, StateContext},
    operators::{self, AnyOperatorSpec, Environment, PlanRequest, Ports, Problem},
    rejected::Rejection,
};
use millstream_model::{
    Batch, StreamType, Watermark,
    ids::{JobId, OperatorId, SubtaskIndex, TenantId},
    key::KEY_GROUPS,
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    case::{Input, OperatorCase, Order, Row, Step},
    chain, compare, http, rows,
};

/// Runs a case with at most so many rows per call. What is not as expected, in words; an error is a mistake in the case, or a failure.
pub async fn run(
    case: &OperatorCase,
    component: &Path,
    components: &millstream_wasm::Runtime,
    rows_per_call: usize,
) -> Result<Vec<String>, String> {
    let id = OperatorId::from("operator");
    let clock = Arc::new(ManualClock::at(0));
    let environment = Environment { base_directory: Path::new("."), components, clock: clock.clone() };
    let spec = spec(component, &case.settings)?;
    let inputs = Inputs::of(case, &*spec, &environment).await?;
    let request = PlanRequest {
        id: &id,
        inputs: &inputs.types,
        keys: inputs.keys.as_deref(),
        order: RowOrder::Arrival,
        environment: &environment,
        tables: None,
        grant: case.http.clone().map(http::grant),
    };
    let planned = spec.plan(request).await.map_err(|problems| all(&problems))?;
    let operator = planned.plan.create(context(id, clock.clone())).await.map_err(|error| chain(&error))?;
    let mut driver = Driver::new(operator, clock, planned.plan.outputs(), rows_per_call);
    for (number, step) in case.steps.iter().enumerate() {
        driver.step(step, &inputs).await.map_err(|reason| format!("step {}: {reason}", number + 1))?;
    }
    driver.differences(case)
}

/// The component as an entry of a job file.
fn spec(component: &Path, settings: &Value) -> Result<Box<dyn AnyOperatorSpec>, String> {
    let kind = operators::registry().iter().find(|kind| kind.key == "component").expect("components are operators");
    (kind.parse)(json!({ "path": component, "settings": settings })).map_err(|problem| all(&[problem]))
}

/// What stands in front of the operator.
struct Inputs {
    ports: Vec<String>,
    types: Vec<StreamType>,
    keys: Option<Vec<Vec<usize>>>,
}

impl Inputs {
    async fn of(case: &OperatorCase, spec: &dyn AnyOperatorSpec, environment: &Environment<'_>) -> Result<Self, String> {
        let ports = match spec.ports(environment).await.map_err(|problems| all(&problems))? {
            Ports::Named(ports) => ports,
            Ports::Union => vec!["input".to_owned()],
        };
        if let Some(unknown) = case.inputs.keys().find(|name| !ports.contains(name)) {
            return Err(format!("there is no input `{unknown}`; the inputs are {}", ports.join(", ")));
        }
        let described = ports.iter().map(|port| input(case, port)).collect::<Result<Vec<_>, _>>()?;
        let types = ports.iter().zip(&described).map(|(port, input)| stream(case, port, input)).collect::<Result<Vec<_>, _>>()?;
        let keyed = described.iter().any(|input| input.key_by.is_some());
        let keys = keyed.then(|| types.iter().zip(&described).map(|(stream, input)| key(stream, input)).collect()).transpose()?;
        Ok(Self { ports, types, keys })
    }

    fn port(&self, name: &str) -> Result<usize, String> {
        let port = self.ports.iter().position(|port| port == name);
        port.ok_or_else(|| format!("there is no input `{name}`; the inputs are {}", self.ports.join(", ")))
    }
}

fn input(case: &OperatorCase, port: &str) -> Result<Input, String> {
    let described = case.inputs.get(port).ok_or_else(|| format!("`inputs` does not describe the input `{port}`"))?;
    Input::deserialize(described).map_err(|error| format!("input `{port}`: {error}"))
}

/// The type of an input; it has event times if its rows have.
fn stream(case: &OperatorCase, port: &str, input: &Input) -> Result<StreamType, String> {
    let mut own = Vec::new();
    for step in &case.steps {
        if let Step::Rows(by_input) = step {
            own.extend(by_input.get(port).map(parsed).transpose()?.unwrap_or_default());
        }
    }
    let schema = rows::schema(&input.schema).map_err(|reason| format!("input `{port}`: {reason}"))?;
    let has_watermarks = case.steps.iter().any(|step| matches!(step, Step::Watermark(_)));
    let event_times = own.iter().any(|row| row.time.is_some()) || (own.is_empty() && has_watermarks);
    Ok(StreamType { schema, event_times, changes: input.changes })
}

fn key(stream: &StreamType, input: &Input) -> Result<Vec<usize>, String> {
    let names = input.key_by.iter().flatten();
    names.map(|name| stream.schema.index_of(name).map_err(|_unknown| format!("`key-by` names `{name}`, which is no column"))).collect()
}

/// Rows as they are written.
fn parsed(rows: &Value) -> Result<Vec<Row>, String> {
    Vec::<Row>::deserialize(rows).map_err(|error| format!("{rows}: {error}; a row is [event time, {{column: value}}]"))
}

/// What has left the operator.
struct Seen {
    /// The declared outputs, and `late`: their rows.
    outputs: BTreeMap<String, Vec<Row>>,
    rejected: Vec<Rejection>,
}

/// An operator between two steps.
struct Driver {
    operator: Box<dyn Operator>,
    clock: Arc<ManualClock>,
    outputs: Vec<(String, StreamType)>,
    rows_per_call: usize,
    seen: Seen,
    out: Output,
    now: Moment,
}

impl Driver {
    fn new(operator: Box<dyn Operator>, clock: Arc<ManualClock>, outputs: &[(String, StreamType)], rows_per_call: usize) -> Self {
        let seen = Seen { outputs: outputs.iter().map(|(name, _)| (name.clone(), Vec::new())).collect(), rejected: Vec::new() };
        let now = Moment { watermark: None, processing_time: 0 };
        Self { operator, clock, outputs: outputs.to_vec(), rows_per_call, seen, out: Output::default(), now }
    }

    async fn step(&mut self, step: &Step, inputs: &Inputs) -> Result<(), String> {
        match step {
            Step::Rows(by_input) => {
                for (name, rows) in by_input {
                    self.rows(inputs.port(name)?, &parsed(rows)?, inputs).await?;
                }
                Ok(())
            }
            Step::Watermark(watermark) => self.advance(Watermark(*watermark)).await,
            Step::ProcessingTime(to_ms) => self.advance_clock(*to_ms).await,
            Step::End(false) => Ok(()),
            Step::End(true) => self.end().await,
        }
    }

    async fn rows(&mut self, port: usize, rows: &[Row], inputs: &Inputs) -> Result<(), String> {
        let stream = &inputs.types[port];
        for rows in rows.chunks(self.rows_per_call) {
            let batch = rows::batch(&stream.schema, rows, stream.changes)?;
            let called = self.operator.on_batch(port, batch, self.now, &mut self.out).await;
            self.take(called)?;
        }
        Ok(())
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
        let by_ms = u64::try_from(to_ms - self.now.processing_time).map_err(|_negative| "the clock never goes backwards")?;
        self.clock.advance(Duration::from_millis(by_ms));
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
        self.seen.rejected.extend(self.out.take_rejections());
        Ok(())
    }

    fn note(&mut self, port: OutputPort, batch: &Batch) -> Result<(), String> {
        let name = match port {
            OutputPort::Port(number) => self.outputs.get(number).map_or("", |(name, _)| name.as_str()),
            OutputPort::Late => "late",
            OutputPort::Rejected => "rejected",
        };
        self.seen.outputs.entry(name.to_owned()).or_default().extend(rows::rows(batch)?);
        Ok(())
    }

    fn differences(self, case: &OperatorCase) -> Result<Vec<String>, String> {
        if let Some(unknown) = case.expected.outputs.keys().find(|name| !self.seen.outputs.contains_key(*name)) {
            let known: Vec<_> = self.seen.outputs.into_keys().collect();
            return Err(format!("there is no output `{unknown}`; the outputs are {}", known.join(", ")));
        }
        let mut differences = Vec::new();
        for (name, found) in self.seen.outputs {
            let expected = case.expected.outputs.get(&name).map(parsed).transpose()?.unwrap_or_default();
            let stream = self.outputs.iter().find(|(output, _)| *output == name).map(|(_, stream)| stream);
            let expected = stream.map_or(Ok(expected.clone()), |stream| rows::normalized(&stream.schema, expected));
            let expected = expected.map_err(|reason| format!("expected rows of `{name}`: {reason}"))?;
            differences.extend(compare::rows(&name, expected, found, case.order == Order::Exact));
        }
        differences.extend(compare::rejected(&case.expected.rejected, &self.seen.rejected));
        Ok(differences)
    }
}

/// One subtask that owns all keys, with its state in memory.
fn context(operator: OperatorId, clock: Arc<ManualClock>) -> OperatorContext {
    const MEMORY_BYTES: usize = 256 << 20;
    let (tenant, job) = (TenantId::local(), JobId::from("test"));
    OperatorContext {
        log: OperatorContext::guest_log(&tenant, &job, &operator, SubtaskIndex(0)),
        tenant,
        job,
        operator,
        clock,
        subtask: SubtaskIndex(0),
        parallelism: 1,
        key_groups: 0..KEY_GROUPS,
        state: StateContext { directory: None, shared: None, memory_budget_bytes: MEMORY_BYTES },
        restored: None,
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
