//! Planning a component: what it says of itself, checked against the job, before anything runs.

use std::{any::Any, sync::Arc};

use arrow_schema::{DataType, FieldRef};
use async_trait::async_trait;
use bytes::Bytes;
use millstream_model::{
    StreamType,
    ids::OperatorId,
    state::{Clock, StateScope, TimerDescriptor},
    types::{check_crossing_type, type_text},
};
use millstream_wasm::{
    Component, Descriptor, Error, InputSchema, InstanceContext, OperatorInstance, OperatorPlan as GuestPlan, http::Sender,
};
use serde_json::Value;

use super::{
    compare::compare,
    layout::OutputLayout,
    run::ComponentOperator,
    settings::{Settings, SettingsSource},
    trial, with_causes,
};
use crate::{
    operator::{Operator, OperatorContext, OperatorError, OperatorPlan, Version},
    operators::upgrade::{Declared, Migrator},
    requests::{Grant, Granted},
    run::{Comparison, OperatorVersion, TrialMode},
};

/// What a component is planned with.
pub struct ComponentRequest<'a> {
    /// The operator's id in the job file.
    pub operator: OperatorId,
    /// The settings of the component, as they are written.
    pub settings: Value,
    /// What references in them stand for.
    pub source: Arc<dyn SettingsSource>,
    /// The streams of its input ports.
    pub inputs: &'a [StreamType],
    /// The key columns of each port; none: not keyed, so a keyed component has one key for all rows.
    pub keys: Option<&'a [Vec<usize>]>,
    /// What it may do over HTTP; none: nothing.
    pub grant: Option<Arc<Grant>>,
}

/// Why a component cannot be planned.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Its settings do not fit the schema that it publishes.
    #[error("the settings do not fit: {}", .0.iter().map(|mistake| mistake.message.as_str()).collect::<Vec<_>>().join("; "))]
    Settings(Vec<SettingsMistake>),
    /// It could not be run, or said no.
    #[error(transparent)]
    Component(#[from] Error),
    /// It sends requests, and the operator is not granted any.
    #[error("component `{component}` imports `millstream:operator/http`, and operator `{operator}` is granted no requests over HTTP")]
    NotGranted {
        /// The component.
        component: Arc<str>,
        /// The operator's id.
        operator: OperatorId,
    },
    /// Its settings refer to what is not there; one clause.
    #[error("{0}")]
    Unresolved(String),
    /// It asks for what this host or this job cannot give; one clause.
    #[error("{0}")]
    Unsupported(String),
}

/// One mistake in the settings of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingsMistake {
    /// Where, as a path of keys that begins with `settings`.
    pub path: String,
    /// One clause.
    pub message: String,
}

/// A planned component: creates one instance per subtask.
#[derive(Clone)]
pub struct ComponentOperatorPlan {
    pub(super) component: Component,
    pub(super) descriptor: Descriptor,
    pub(super) settings: Settings,
    /// What it may do over HTTP, shared with the versions before and after it; none: nothing. One that sends no requests may have it: the next may.
    grant: Option<Arc<Grant>>,
    pub(super) guest: Arc<GuestPlan>,
    /// The inputs as the guest was offered them: the columns that cross.
    pub(super) offered: Vec<InputSchema>,
    pub(super) inputs: Vec<PlannedInput>,
    pub(super) layouts: Vec<OutputLayout>,
    /// The types of the key columns, the same on every keyed port.
    pub(super) key_fields: Vec<FieldRef>,
    streams: Vec<StreamType>,
    outputs: Vec<(String, StreamType)>,
}

/// One input port.
#[derive(Clone, Debug)]
pub(super) struct PlannedInput {
    /// The columns that the guest reads, by number in the stream, in its order.
    pub(super) reads: Vec<usize>,
    /// The types in which it reads them, where they differ from the stream's.
    pub(super) casts: Vec<Option<DataType>>,
    /// The key columns, by number in the stream; none: rows come without keys.
    pub(super) keys: Option<Vec<usize>>,
}

/// What a component says of itself.
pub(super) async fn describe(component: &Component) -> Result<Descriptor, Error> {
    component.operator(InstanceContext::unheard(None)).await?.describe().await
}

impl ComponentOperatorPlan {
    /// Asks the component what it does with these settings and inputs, and checks that it can be done.
    ///
    /// # Errors
    /// The settings do not fit its schema, it says no, or it asks for what cannot be given.
    pub async fn plan(component: Component, request: ComponentRequest<'_>) -> Result<Self, PlanError> {
        if component.inspection().sends_requests() && request.grant.is_none() {
            return Err(PlanError::NotGranted { component: component.name().clone(), operator: request.operator });
        }
        let mut instance = component.operator(InstanceContext::unheard(Some(request.operator.clone()))).await?;
        let descriptor = instance.describe().await?;
        let settings = Settings::new(request.settings.clone(), request.source.clone()).await.map_err(PlanError::Unresolved)?;
        check_settings(&descriptor.settings_schema, &settings.given)?;
        let columns: Vec<Vec<usize>> = request.inputs.iter().map(crossing_columns).collect();
        let offered = offer(&request, &columns)?;
        let guest = instance.plan(&settings.given, &offered).await?;
        refuse_unsupported(&guest, request.inputs)?;
        let inputs = plan_inputs(&guest, &request, &columns);
        let key_fields = key_fields(&inputs, request.inputs)?;
        let schemas: Vec<_> = request.inputs.iter().map(|stream| stream.schema.clone()).collect();
        let layout = |output| OutputLayout::new(output, &schemas, has_event_times(output, request.inputs));
        let layouts: Vec<OutputLayout> = guest.outputs.iter().map(layout).collect();
        let stream =
            |layout: &OutputLayout| StreamType { schema: layout.schema.clone(), event_times: layout.event_times, changes: layout.changes };
        let outputs = descriptor.outputs.iter().cloned().zip(layouts.iter().map(stream)).collect();
        Ok(Self {
            component,
            descriptor,
            settings,
            grant: request.grant,
            guest: Arc::new(guest),
            offered,
            inputs,
            layouts,
            key_fields,
            streams: request.inputs.to_vec(),
            outputs,
        })
    }

    /// The streams that it was planned for: what a new version must be planned with to take its place.
    pub fn inputs(&self) -> &[StreamType] {
        &self.streams
    }

    /// The key columns of each port, as the guest sees them.
    pub fn keys(&self) -> Option<Vec<Vec<usize>>> {
        self.inputs.iter().map(|input| input.keys.clone()).collect()
    }

    /// The component.
    pub fn component(&self) -> &Component {
        &self.component
    }

    /// Its settings, as they are written.
    pub fn settings(&self) -> &Value {
        &self.settings.said
    }

    /// What the component says of itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Whether it sends requests.
    pub(super) fn sends_requests(&self) -> bool {
        self.component.inspection().sends_requests()
    }

    /// For whom its instances in a subtask run: they may send requests if they are granted that.
    ///
    /// Whether this version sends requests or not: the instances of those that follow it run for the same guest.
    pub(super) fn guest_of(&self, context: &OperatorContext) -> InstanceContext {
        let granted = self.grant.clone().map(|grant| Arc::new(Granted::new(grant, context)) as Arc<dyn Sender>);
        InstanceContext { http: granted, ..context.guest() }
    }

    /// A new instance, opened.
    pub(super) async fn instantiate(&self, context: &InstanceContext) -> Result<OperatorInstance, Error> {
        let version = Some(self.descriptor.version.as_str().into());
        let mut instance = self.component.operator(InstanceContext { version, ..context.clone() }).await?;
        instance.open(&self.settings.given, &self.offered, self.guest.clone()).await?;
        Ok(instance)
    }

    /// Whether a timer of this clock is declared.
    pub(super) fn has_timers(&self, clock: Clock) -> bool {
        self.guest.timers.iter().any(|timer: &TimerDescriptor| timer.clock == clock)
    }

    /// What it keeps; its own component migrates all of it, if it migrates anything.
    pub(super) fn declared(&self) -> Declared {
        let migrates = self.component.migrates();
        let migrations = self
            .guest
            .states
            .iter()
            .filter(|_| migrates)
            .map(|state| (state.name.clone(), Migrator { component: self.component.clone(), of_items: false }));
        Declared { states: self.guest.states.clone(), timers: self.guest.timers.clone(), migrations: migrations.collect() }
    }

    pub(super) fn is_stateful(&self) -> bool {
        !self.guest.states.is_empty() || !self.guest.timers.is_empty()
    }
}

/// The columns of a stream that may be offered to a guest.
fn crossing_columns(stream: &StreamType) -> Vec<usize> {
    let crosses = |(_, field): &(usize, &FieldRef)| check_crossing_type(field.data_type()).is_ok();
    stream.schema.fields().iter().enumerate().filter(crosses).map(|(number, _)| number).collect()
}

fn offer(request: &ComponentRequest<'_>, columns: &[Vec<usize>]) -> Result<Vec<InputSchema>, PlanError> {
    let offer_one = |(port, (stream, columns)): (usize, (&StreamType, &Vec<usize>))| {
        let offered_key = |key: &usize| {
            let at = columns.iter().position(|column| column == key).map(|at| at as u32);
            at.ok_or_else(|| {
                PlanError::Unsupported(format!(
                    "key column `{}` has a type that does not cross to operators",
                    stream.schema.field(*key).name()
                ))
            })
        };
        let keys = request.keys.map_or(&[][..], |keys| &keys[port]);
        Ok(InputSchema {
            fields: columns.iter().map(|&column| stream.schema.fields()[column].clone()).collect(),
            keys: keys.iter().map(offered_key).collect::<Result<_, _>>()?,
            event_times: stream.event_times,
            changes: stream.changes,
        })
    };
    request.inputs.iter().zip(columns).enumerate().map(offer_one).collect()
}

fn refuse_unsupported(guest: &GuestPlan, inputs: &[StreamType]) -> Result<(), PlanError> {
    if let Some(state) = guest.states.iter().find(|state| state.scope == StateScope::Broadcast) {
        return Err(PlanError::Unsupported(format!(
            "state `{}` is broadcast, which this version of the host does not offer: declare it keyed",
            state.name
        )));
    }
    if (!guest.states.is_empty() || !guest.timers.is_empty()) && !guest.inputs.iter().any(|input| input.keyed) {
        return Err(PlanError::Unsupported("it declares state or timers, but none of its inputs is keyed".into()));
    }
    let refuses_changes = |(input, stream): (&millstream_wasm::InputPlan, &StreamType)| stream.changes && !input.changes;
    if let Some(port) = guest.inputs.iter().zip(inputs).position(refuses_changes) {
        return Err(PlanError::Unsupported(format!("input {port} carries updates and deletions, which the component does not understand")));
    }
    let asks_for_times = |(input, stream): (&millstream_wasm::InputPlan, &StreamType)| input.event_times && !stream.event_times;
    if let Some(port) = guest.inputs.iter().zip(inputs).position(asks_for_times) {
        return Err(PlanError::Unsupported(format!(
            "the component wants event times, but input {port} has none: give its source an `event-time`"
        )));
    }
    Ok(())
}

fn plan_inputs(guest: &GuestPlan, request: &ComponentRequest<'_>, columns: &[Vec<usize>]) -> Vec<PlannedInput> {
    let plan_one = |(port, input): (usize, &millstream_wasm::InputPlan)| {
        let reads: Vec<usize> = input.columns.iter().map(|&offered| columns[port][offered]).collect();
        let schema = &request.inputs[port].schema;
        let cast =
            |(&column, read): (&usize, &FieldRef)| (schema.field(column).data_type() != read.data_type()).then(|| read.data_type().clone());
        PlannedInput {
            casts: reads.iter().zip(&input.reads).map(cast).collect(),
            keys: input.keyed.then(|| request.keys.map_or_else(Vec::new, |keys| keys[port].clone())),
            reads,
        }
    };
    guest.inputs.iter().enumerate().map(plan_one).collect()
}

/// The fields of the key; state is shared by all keyed ports, so they must agree.
fn key_fields(inputs: &[PlannedInput], streams: &[StreamType]) -> Result<Vec<FieldRef>, PlanError> {
    let fields_of = |(input, stream): (&PlannedInput, &StreamType)| -> Option<Vec<FieldRef>> {
        Some(input.keys.as_ref()?.iter().map(|&column| stream.schema.fields()[column].clone()).collect())
    };
    let mut all = inputs.iter().zip(streams).filter_map(fields_of);
    let first = all.next().unwrap_or_default();
    let types = |fields: &[FieldRef]| fields.iter().map(|field| type_text(field.data_type())).collect::<Vec<_>>();
    for other in all {
        if types(&first) != types(&other) {
            let (first, other) = (types(&first).join(", "), types(&other).join(", "));
            return Err(PlanError::Unsupported(format!("its keyed inputs have keys of different types: ({first}) and ({other})")));
        }
    }
    Ok(first)
}

/// Rows keep the event times of the rows they come from, unless the guest sets them.
fn has_event_times(output: &millstream_wasm::OutputPlan, inputs: &[StreamType]) -> bool {
    output.sets_event_times
        || match output.keeps {
            Some(input) => inputs[input as usize].event_times,
            None => !inputs.is_empty() && inputs.iter().all(|stream| stream.event_times),
        }
}

fn check_settings(schema: &Value, settings: &Value) -> Result<(), PlanError> {
    if schema.is_null() {
        return Ok(());
    }
    let validator = jsonschema::validator_for(schema)
        .map_err(|error| PlanError::Unsupported(format!("the component publishes a broken schema of its settings: {error}")))?;
    let nothing = Value::Object(serde_json::Map::new());
    let settings = if settings.is_null() { &nothing } else { settings };
    let mistakes: Vec<SettingsMistake> = validator
        .iter_errors(settings)
        .map(|error| SettingsMistake { path: path_of(&error.instance_path().to_string()), message: error.to_string() })
        .collect();
    if mistakes.is_empty() { Ok(()) } else { Err(PlanError::Settings(mistakes)) }
}

/// A JSON pointer below `settings` as a path with dots.
fn path_of(pointer: &str) -> String {
    format!("settings{}", pointer.replace('/', "."))
}

#[async_trait]
impl OperatorPlan for ComponentOperatorPlan {
    fn outputs(&self) -> &[(String, StreamType)] {
        &self.outputs
    }

    fn explain(&self) -> Vec<String> {
        let Descriptor { name, version, inputs, .. } = &self.descriptor;
        let mut lines = vec![format!("{name} {version} ({})", self.component.name())];
        for (port, input) in self.guest.inputs.iter().enumerate() {
            let reads: Vec<&str> = input.reads.iter().map(|field| field.name().as_str()).collect();
            let of = if inputs.len() > 1 { format!(" of {}", inputs[port]) } else { String::new() };
            lines.push(format!("reads {}{of}", if reads.is_empty() { "no column".to_owned() } else { reads.join(", ") }));
        }
        lines.extend(
            self.guest.states.iter().map(|state| {
                format!("state {}: {:?} of {}, version {}", state.name, state.kind, type_text(&state.value_type), state.version)
            }),
        );
        lines.extend(self.sends_requests().then(|| "sends requests over HTTP, again after a failure".to_owned()));
        lines.extend(self.guest.timers.iter().map(|timer| {
            format!("timer {} in {}", timer.name, if timer.clock == Clock::EventTime { "event time" } else { "processing time" })
        }));
        lines
    }

    fn reads(&self, input: usize) -> Option<Vec<usize>> {
        Some(self.inputs[input].reads.clone())
    }

    fn accepts_changes(&self, input: usize) -> bool {
        self.guest.inputs[input].changes
    }

    fn keeps_state(&self) -> bool {
        self.inputs.iter().any(|input| input.keys.is_some())
    }

    fn keeps(&self, output: usize) -> Option<usize> {
        self.layouts[output].kept.as_ref().map(|kept| kept.input)
    }

    fn uses_watermarks(&self) -> bool {
        let expires = self.guest.states.iter().any(|state| state.ttl.is_some_and(|ttl| ttl.clock == Clock::EventTime));
        expires || self.has_timers(Clock::EventTime) || self.guest.inputs.iter().any(|input| input.event_times)
    }

    fn holds_rows(&self) -> bool {
        // State is made of a guest's own values.
        false
    }

    fn version(&self) -> Option<OperatorVersion> {
        Some(OperatorVersion {
            name: self.descriptor.name.clone(),
            version: self.descriptor.version.clone(),
            component: self.component.digest().to_string(),
            settings: self.settings.said.clone(),
        })
    }

    fn compare(&self, new: &dyn OperatorPlan) -> Comparison {
        match new.as_any().downcast_ref::<Self>() {
            Some(new) => compare(self, new),
            None => Comparison { refusals: vec!["only a component can take the place of a component".into()], ..Comparison::default() },
        }
    }

    fn trial_refusals(&self, new: &dyn OperatorPlan, mode: TrialMode) -> Vec<String> {
        match new.as_any().downcast_ref::<Self>() {
            Some(new) => trial::refusals(self, new, mode),
            None => vec!["only a component can be tried beside a component".into()],
        }
    }

    fn as_version(&self) -> Version {
        Version { component: Some(self.component.clone()), settings: Some(self.settings.said.clone()) }
    }

    async fn plan_version(&self, operator: &OperatorId, version: Version) -> Result<Arc<dyn OperatorPlan>, Vec<String>> {
        let keys = self.keys();
        let request = ComponentRequest {
            operator: operator.clone(),
            settings: version.settings.unwrap_or_else(|| self.settings.said.clone()),
            source: self.settings.source.clone(),
            inputs: &self.streams,
            keys: keys.as_deref(),
            grant: self.grant.clone(),
        };
        let component = version.component.unwrap_or_else(|| self.component.clone());
        match Self::plan(component, request).await {
            Ok(plan) => Ok(Arc::new(plan)),
            Err(PlanError::Settings(mistakes)) => {
                Err(mistakes.iter().map(|mistake| format!("{}: {}", mistake.path, mistake.message)).collect())
            }
            Err(PlanError::Component(error @ Error::BadPlan { .. })) => Err(vec![format!(
                "{}; a running job brings the columns that it was planned with, and a version that reads others starts from a savepoint",
                with_causes(&error)
            )]),
            Err(error) => Err(vec![with_causes(&error)]),
        }
    }

    async fn load(&self, name: &str, bytes: Bytes) -> Result<Component, OperatorError> {
        let loaded = self.component.load_beside(bytes.to_vec().into(), name).await;
        loaded.map_err(|error| OperatorError::outside("a component that was swapped in cannot be loaded again").because(error))
    }

    fn declared(&self) -> Option<Declared> {
        Some(self.declared())
    }

    fn component(&self) -> Option<String> {
        Some(self.component.digest().to_string())
    }

    async fn create_replacement(self: Arc<Self>, context: OperatorContext) -> Result<Box<dyn Any + Send>, OperatorError> {
        let instance = self.instantiate(&self.guest_of(&context)).await.map_err(opening_failed)?;
        Ok(Box::new(Replacement { plan: self, instance }))
    }

    async fn create(&self, context: OperatorContext) -> Result<Box<dyn Operator>, OperatorError> {
        Ok(Box::new(ComponentOperator::create(Arc::new(self.clone()), context).await?))
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

pub(super) fn opening_failed(error: Error) -> OperatorError {
    OperatorError::user("the component cannot be opened").because(error)
}

/// An opened instance of a new version, on its way to a running operator.
pub(super) struct Replacement {
    pub(super) plan: Arc<ComponentOperatorPlan>,
    pub(super) instance: OperatorInstance,
}
