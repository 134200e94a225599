//! What is agreed with a guest before rows flow: its `describe` and `plan` answers, parsed and checked against what it was offered.
//!
//! Every name, number and type of an answer is checked here, once, so that the calls that follow can rely on the plan.

use std::sync::Arc;

use arrow_schema::{DataType, Field, FieldRef, Fields};
use millstream_model::{
    state::{Clock, StateDescriptor, StateKind, StateScope, TimerDescriptor, Ttl, TtlRefresh},
    types,
};

use crate::{
    bindings::exports::millstream::operator::{aggregate as raw_aggregate, operator as raw},
    bindings::millstream::operator::columns,
    error::Error,
    log::is_deceptive,
    plan::{AggregateDescriptor, AggregatePlan, Descriptor, InputPlan, InputSchema, OperatorPlan, OutputPlan},
};

/// Most inputs, outputs, states and timers of an operator, each.
const PORTS_MAX: usize = 64;
/// Most columns of an input or output.
const FIELDS_MAX: usize = 4096;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 256;
/// Longest text of other kinds, in bytes.
const TEXT_BYTES_MAX: usize = 1 << 20;
/// Hints of this version of the contract that this host acts upon (`wit/README.md`). Others must begin with `x-`.
const HINTS: [&str; 2] = ["sdk", crate::plan::ROWS_MAX];

/// Why an answer is refused; a clause.
type Reason = String;

// ---- to the guest ----

/// A field as text; both parts are lent to the parameter.
pub(crate) struct TextField {
    name: String,
    data_type: String,
    nullable: bool,
}

impl TextField {
    /// # Errors
    /// Its type does not cross.
    pub(crate) fn of(field: &Field) -> Result<Self, types::TypeError> {
        types::check_crossing_type(&types::without_metadata(field.data_type()))?;
        Ok(Self { name: field.name().clone(), data_type: types::type_text(field.data_type()), nullable: field.is_nullable() })
    }

    pub(crate) fn param(&self) -> columns::FieldParam<'_> {
        columns::FieldParam { name: &self.name, data_type: &self.data_type, nullable: self.nullable }
    }
}

/// The fields of one input as text.
///
/// # Errors
/// A type does not cross; `port` is named.
pub(crate) fn text_fields<'a>(fields: impl IntoIterator<Item = &'a FieldRef>, port: usize) -> Result<Vec<TextField>, Error> {
    let text = |field: &'a FieldRef| TextField::of(field).map_err(|source| Error::InputType { port, field: field.name().clone(), source });
    fields.into_iter().map(text).collect()
}

/// What `open` is told of an input: the columns read, followed by key columns that are not read; and the key as indexes into them.
pub(crate) fn opened_input(input: &InputSchema, plan: &InputPlan) -> InputSchema {
    let mut fields: Vec<FieldRef> = plan.reads.clone();
    let mut places = plan.columns.clone();
    let keys = input.keys.iter().map(|key| {
        let key = *key as usize;
        let place = places.iter().position(|place| *place == key).unwrap_or_else(|| {
            fields.push(input.fields[key].clone());
            places.push(key);
            places.len() - 1
        });
        u32::try_from(place).expect("few columns")
    });
    let keys = keys.collect();
    InputSchema { fields: fields.into(), keys, event_times: input.event_times && plan.event_times, changes: input.changes }
}

// ---- from the guest ----

pub(crate) fn descriptor(answer: raw::Descriptor) -> Result<Descriptor, Reason> {
    check_text("name", &answer.name, NAME_BYTES_MAX)?;
    check_text("version", &answer.version, NAME_BYTES_MAX)?;
    check_text("summary", &answer.summary, TEXT_BYTES_MAX)?;
    if answer.inputs.is_empty() || answer.inputs.len() > PORTS_MAX || answer.outputs.len() > PORTS_MAX {
        return Err(format!(
            "{} inputs and {} outputs; an operator has 1 to {PORTS_MAX} inputs and at most {PORTS_MAX} outputs",
            answer.inputs.len(),
            answer.outputs.len()
        ));
    }
    check_port_names(&answer.inputs)?;
    check_port_names(&answer.outputs)?;
    check_hints(&answer.hints)?;
    Ok(Descriptor {
        settings_schema: settings_schema(&answer.settings_schema)?,
        name: answer.name,
        version: answer.version,
        summary: answer.summary,
        inputs: answer.inputs,
        outputs: answer.outputs,
        hints: answer.hints,
    })
}

pub(crate) fn aggregate_descriptor(answer: raw_aggregate::Descriptor) -> Result<AggregateDescriptor, Reason> {
    check_text("name", &answer.name, NAME_BYTES_MAX)?;
    check_text("version", &answer.version, NAME_BYTES_MAX)?;
    check_text("summary", &answer.summary, TEXT_BYTES_MAX)?;
    check_hints(&answer.hints)?;
    Ok(AggregateDescriptor {
        settings_schema: settings_schema(&answer.settings_schema)?,
        name: answer.name,
        version: answer.version,
        summary: answer.summary,
        hints: answer.hints,
    })
}

fn settings_schema(text: &str) -> Result<serde_json::Value, Reason> {
    if text.trim().is_empty() {
        return Ok(serde_json::Value::Null);
    }
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("a settings schema longer than {TEXT_BYTES_MAX} bytes"));
    }
    serde_json::from_str(text).map_err(|error| format!("a settings schema that is not JSON: {error}"))
}

fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<(), Reason> {
    if text.len() > bytes_max || text.chars().any(|character| is_deceptive(character) && character != '\n') {
        return Err(format!("a {what} that is longer than {bytes_max} bytes or has characters that control how text is shown"));
    }
    Ok(())
}

/// Port names become parts of stream names: `operator.port`.
fn check_port_names(names: &[String]) -> Result<(), Reason> {
    for (index, name) in names.iter().enumerate() {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if !(1..=64).contains(&name.len()) || !name.bytes().all(plain) {
            return Err(format!("port name {name:?}; one is 1 to 64 letters, digits, `-` and `_`"));
        }
        if names[..index].contains(name) {
            return Err(format!("two ports of the name `{name}`"));
        }
    }
    Ok(())
}

fn check_hints(hints: &[(String, String)]) -> Result<(), Reason> {
    if hints.len() > PORTS_MAX {
        return Err(format!("{} hints; {PORTS_MAX} is the most", hints.len()));
    }
    if let Some((_, value)) =
        hints.iter().find(|(name, value)| name == crate::plan::ROWS_MAX && value.parse::<std::num::NonZeroU32>().is_err())
    {
        return Err(format!("the hint `rows-max` with {value:?}, which is no positive number"));
    }
    if hints.iter().any(|(name, _)| name == "kept") {
        return Err("values kept in the guest (the hint `kept`), which this host does not offer yet".into());
    }
    match hints.iter().find(|(name, _)| !name.starts_with("x-") && !HINTS.contains(&name.as_str())) {
        Some((name, _)) => Err(format!("the hint {name:?}, which this host does not know; it may be newer than the host")),
        None => Ok(()),
    }
}

/// The plan, checked against the description and the inputs offered.
pub(crate) fn plan(answer: raw::Planned, descriptor: &Descriptor, inputs: &[InputSchema]) -> Result<OperatorPlan, Reason> {
    if answer.inputs.len() != inputs.len() {
        return Err(format!("{} planned inputs; there are {}", answer.inputs.len(), inputs.len()));
    }
    if answer.outputs.len() != descriptor.outputs.len() {
        return Err(format!("{} planned outputs; it describes {}", answer.outputs.len(), descriptor.outputs.len()));
    }
    check_hints(&answer.hints)?;
    let numbered = |index: usize| move |reason: Reason| format!("input port {index}: {reason}");
    let planned_inputs: Vec<InputPlan> = answer
        .inputs
        .into_iter()
        .zip(inputs)
        .enumerate()
        .map(|(index, (plan, input))| input_plan(plan, input).map_err(numbered(index)))
        .collect::<Result<_, _>>()?;
    let outputs = answer
        .outputs
        .into_iter()
        .zip(&descriptor.outputs)
        .map(|(plan, name)| output_plan(plan, inputs).map_err(|reason| format!("output `{name}`: {reason}")));
    let outputs = outputs.collect::<Result<_, _>>()?;
    let states = states(answer.states)?;
    let timers = timers(answer.timers)?;
    let remembers = !states.is_empty() || !timers.is_empty();
    if remembers && !planned_inputs.iter().any(|input| input.keyed) {
        return Err("states or timers, but no keyed input".into());
    }
    Ok(OperatorPlan { inputs: planned_inputs, outputs, states, timers, hints: answer.hints })
}

fn input_plan(answer: raw::InputPlan, input: &InputSchema) -> Result<InputPlan, Reason> {
    let (reads, columns) = reads(answer.reads, &input.fields)?;
    if answer.event_times && !input.event_times {
        return Err("it reads event times, but the stream has none".into());
    }
    if input.changes && !answer.changes {
        return Err("the stream carries updates and deletions, which the operator does not say it understands".into());
    }
    Ok(InputPlan { reads, columns, keyed: answer.keyed, event_times: answer.event_times, changes: answer.changes })
}

/// The fields read and where they are among those offered.
fn reads(wanted: Vec<columns::FieldResult>, offered: &Fields) -> Result<(Vec<FieldRef>, Vec<usize>), Reason> {
    let wanted = fields(wanted)?;
    let mut places = Vec::with_capacity(wanted.len());
    for field in &wanted {
        let Some((place, found)) = offered.find(field.name()) else {
            let names: Vec<&str> = offered.iter().take(50).map(|field| field.name().as_str()).collect();
            return Err(format!("it reads column `{}`, but the stream has only {}", field.name(), names.join(", ")));
        };
        if !readable(found.data_type(), field.data_type()) {
            let (found, wanted) = (types::type_text(found.data_type()), types::type_text(field.data_type()));
            return Err(format!("it reads column `{}` as {wanted}, but the column is {found}", field.name()));
        }
        if found.is_nullable() && !field.is_nullable() {
            return Err(format!("it reads column `{}` without nulls, but the column may have them", field.name()));
        }
        places.push(place);
    }
    Ok((wanted, places))
}

/// Whether a column of type `found` has the layout and meaning of `wanted`: equal, except that items of lists may be named differently
/// and that nested values may be allowed to be null.
fn readable(found: &DataType, wanted: &DataType) -> bool {
    let field = |found: &FieldRef, wanted: &FieldRef| {
        (wanted.is_nullable() || !found.is_nullable()) && readable(found.data_type(), wanted.data_type())
    };
    match (found, wanted) {
        (DataType::List(found), DataType::List(wanted)) => field(found, wanted),
        (DataType::FixedSizeList(found, size), DataType::FixedSizeList(wanted, wanted_size)) => size == wanted_size && field(found, wanted),
        (DataType::Map(found, sorted), DataType::Map(wanted, wanted_sorted)) => match (found.data_type(), wanted.data_type()) {
            (DataType::Struct(found), DataType::Struct(wanted)) => {
                sorted == wanted_sorted
                    && found.len() == wanted.len()
                    && found.iter().zip(wanted).all(|(found, wanted)| field(found, wanted))
            }
            _ => false,
        },
        (DataType::Struct(found), DataType::Struct(wanted)) => {
            found.len() == wanted.len()
                && found.iter().zip(wanted).all(|(found, wanted)| found.name() == wanted.name() && field(found, wanted))
        }
        (found, wanted) => found == wanted,
    }
}

fn fields(answer: Vec<columns::FieldResult>) -> Result<Vec<FieldRef>, Reason> {
    if answer.len() > FIELDS_MAX {
        return Err(format!("{} columns; {FIELDS_MAX} is the most", answer.len()));
    }
    let mut names = std::collections::HashSet::new();
    if let Some(twice) = answer.iter().find(|field| !names.insert(field.name.as_str())) {
        return Err(format!("two columns of the name `{}`", twice.name));
    }
    answer.into_iter().map(field).collect()
}

fn field(answer: columns::FieldResult) -> Result<FieldRef, Reason> {
    check_text("column name", &answer.name, NAME_BYTES_MAX)?;
    let data_type = types::parse_type(&answer.data_type).map_err(|error| format!("column `{}`: {error}", answer.name))?;
    Ok(Arc::new(Field::new(answer.name, data_type, answer.nullable)))
}

fn output_plan(answer: raw::OutputPlan, inputs: &[InputSchema]) -> Result<OutputPlan, Reason> {
    if let Some(kept) = answer.keeps.filter(|kept| *kept as usize >= inputs.len()) {
        return Err(format!("it keeps the columns of input port {kept} of {}", inputs.len()));
    }
    Ok(OutputPlan { keeps: answer.keeps, adds: fields(answer.adds)?, sets_event_times: answer.sets_event_times, changes: answer.changes })
}

fn states(answer: Vec<raw::State>) -> Result<Vec<StateDescriptor>, Reason> {
    check_names("state", answer.iter().map(|state| state.name.as_str()))?;
    answer.into_iter().map(state).collect()
}

fn check_names<'a>(what: &str, names: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Reason> {
    if names.len() > PORTS_MAX {
        return Err(format!("{} {what}s; {PORTS_MAX} is the most", names.len()));
    }
    let mut seen = std::collections::HashSet::new();
    for name in names {
        check_text(what, name, NAME_BYTES_MAX)?;
        if name.is_empty() || !seen.insert(name) {
            return Err(format!("a {what} without a name of its own: {name:?}"));
        }
    }
    Ok(())
}

fn state(answer: raw::State) -> Result<StateDescriptor, Reason> {
    let named = |reason: String| format!("state `{}`: {reason}", answer.name);
    let parse = |text: &str| types::parse_type(text).map_err(|error| named(error.to_string()));
    let kind = match answer.kind {
        raw::StateKind::Value => StateKind::Value,
        raw::StateKind::OrderedMap => StateKind::OrderedMap,
        raw::StateKind::AppendedList => StateKind::AppendedList,
    };
    let scope = match answer.scope {
        raw::StateScope::Keyed => StateScope::Keyed,
        raw::StateScope::Broadcast => return Err(named("broadcast states are not supported by this host yet".into())),
    };
    if answer.map_key_type.is_some() != (kind == StateKind::OrderedMap) {
        return Err(named("an ordered map has a key type, and nothing else has".into()));
    }
    let map_key_type = answer.map_key_type.as_deref().map(parse).transpose()?;
    let ttl = answer.ttl.as_ref().map(ttl).transpose().map_err(named)?;
    let value_type = parse(&answer.value_type)?;
    Ok(StateDescriptor { name: answer.name, kind, scope, map_key_type, value_type, version: answer.version, ttl })
}

fn ttl(answer: &raw::Ttl) -> Result<Ttl, Reason> {
    if answer.ms == 0 {
        return Err("a time to live of 0 ms".into());
    }
    let refresh = match answer.refresh {
        raw::TtlRefresh::OnWrite => TtlRefresh::OnWrite,
        raw::TtlRefresh::OnRead => TtlRefresh::OnRead,
    };
    Ok(Ttl { duration_ms: answer.ms, clock: clock(answer.clock), refresh })
}

fn clock(answer: raw::Clock) -> Clock {
    match answer {
        raw::Clock::EventTime => Clock::EventTime,
        raw::Clock::ProcessingTime => Clock::ProcessingTime,
    }
}

fn timers(answer: Vec<raw::Timer>) -> Result<Vec<TimerDescriptor>, Reason> {
    check_names("timer", answer.iter().map(|timer| timer.name.as_str()))?;
    Ok(answer.into_iter().map(|timer| TimerDescriptor { clock: clock(timer.clock), name: timer.name }).collect())
}

/// An aggregate's plan, checked against the fields offered.
pub(crate) fn aggregate_plan(answer: raw_aggregate::Signature, offered: &Fields) -> Result<AggregatePlan, Reason> {
    check_hints(&answer.hints)?;
    let (reads, columns) = reads(answer.reads, offered)?;
    let accumulator_type = types::parse_type(&answer.accumulator_type).map_err(|error| error.to_string())?;
    let output = field(answer.output)?;
    Ok(AggregatePlan { reads, columns, accumulator_type, version: answer.version, output, merges: answer.merges, hints: answer.hints })
}
