//! JSON Schema of the job file: of its parts, for checking, and of the whole, for editors.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{JobSettings, OperatorEntry, SinkEntry, SourceEntry};
use crate::{
    connector::Connectors,
    operators::{OperatorKind, registry},
};

/// What an id of a source, operator or sink looks like.
pub(crate) const ID_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_-]*$";
/// What the name of a job looks like.
pub(crate) const JOB_PATTERN: &str = "^[A-Za-z0-9_][A-Za-z0-9._-]*$";

/// Schemas without references, so that a violation can be explained from where it happened.
pub(crate) fn generator() -> SchemaGenerator {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    settings.into_generator()
}

/// The schema of one part.
pub(crate) fn part<T: JsonSchema>() -> Value {
    T::json_schema(&mut generator()).to_value()
}

/// The schema of an operator's settings.
pub(crate) fn operator_settings(kind: &OperatorKind) -> Value {
    let mut generator = generator();
    (kind.settings_schema)(&mut generator).to_value()
}

/// JSON Schema of the whole job file, with the settings of these connectors and of every operator.
pub fn schema(connectors: &Connectors) -> Schema {
    let mut definitions = Map::new();
    let sources: Vec<_> = connectors.sources.values().map(|source| (source.name(), source.settings_schema().to_value())).collect();
    let sinks: Vec<_> = connectors.sinks.values().map(|sink| (sink.name(), sink.settings_schema().to_value())).collect();
    let operators: Vec<_> = registry().iter().map(|kind| (kind.key, operator_settings(kind))).collect();
    let source = entry(part::<SourceEntry>(), "source", sources, &mut definitions);
    let operator = entry(part::<OperatorEntry>(), "operator", operators, &mut definitions);
    let sink = entry(part::<SinkEntry>(), "sink", sinks, &mut definitions);

    let mut job = part::<JobSettings>();
    let section = |entry: Value| json!({ "type": "object", "propertyNames": { "pattern": ID_PATTERN }, "additionalProperties": entry });
    if let Some(properties) = job.get_mut("properties").and_then(Value::as_object_mut) {
        properties.insert("job".into(), json!({ "type": "string", "description": "Name of the job.", "pattern": JOB_PATTERN }));
        properties.insert("sources".into(), section(source));
        properties.insert("operators".into(), section(operator));
        properties.insert("sinks".into(), section(sink));
    }
    if let Some(job) = job.as_object_mut() {
        job.insert("$schema".into(), json!("https://json-schema.org/draft/2020-12/schema"));
        job.insert("title".into(), json!("Millstream job"));
        job.insert("description".into(), json!("A stream-processing job: sources, operators, sinks."));
        job.insert("required".into(), json!(["job", "sources", "sinks"]));
        job.insert("$defs".into(), Value::Object(definitions));
    }
    Schema::try_from(job).expect("an object is a schema")
}

/// The schema of one entry: the common keys and exactly one of `kinds`.
fn entry(mut common: Value, room: &str, kinds: Vec<(&'static str, Value)>, definitions: &mut Map<String, Value>) -> Value {
    let exactly_one: Vec<Value> = kinds.iter().map(|(key, _)| json!({ "required": [key] })).collect();
    if let Some(properties) = common.get_mut("properties").and_then(Value::as_object_mut) {
        for (key, mut settings) in kinds {
            hoist(&mut settings, &format!("{room}-{key}"), definitions);
            properties.insert(key.into(), or_nothing(settings));
        }
    }
    if let Some(common) = common.as_object_mut() {
        common.insert("oneOf".into(), Value::Array(exactly_one));
    }
    common
}

/// Settings that need nothing may be left empty: `blackhole:`.
fn or_nothing(settings: Value) -> Value {
    let needs_nothing = settings.get("type") == Some(&json!("object")) && settings.get("required").is_none();
    if needs_nothing { json!({ "anyOf": [settings, { "type": "null" }] }) } else { settings }
}

/// Moves the definitions of a part to the whole, under names of their own.
fn hoist(part: &mut Value, prefix: &str, definitions: &mut Map<String, Value>) {
    let own = part.as_object_mut().and_then(|part| {
        part.remove("$schema");
        part.remove("$defs")
    });
    rename_references(part, prefix);
    if let Some(Value::Object(own)) = own {
        for (name, mut definition) in own {
            rename_references(&mut definition, prefix);
            definitions.insert(format!("{prefix}-{name}"), definition);
        }
    }
}

fn rename_references(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(reference)) = map.get_mut("$ref")
                && let Some(name) = reference.strip_prefix("#/$defs/")
            {
                *reference = format!("#/$defs/{prefix}-{name}");
            }
            map.values_mut().for_each(|value| rename_references(value, prefix));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| rename_references(value, prefix)),
        _ => {}
    }
}
