//! The sections of a job file and their entries: which keys are where, and which one says what an entry is.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{
    BrokenEntry, Entry, JobSettings, JobSpec, OperatorEntry, SinkEntry, SourceEntry,
    document::{Document, child},
    problem::Report,
    schema::{self, part},
    suggest, validate,
};
use crate::{connector::Connectors, operators::registry};

/// Reads all sections, as far as that is possible.
pub(super) fn read(document: Document, connectors: &Connectors) -> JobSpec {
    let mut report = Report::new(&document);
    let mut broken = Vec::new();
    let sections = sections(&mut report);
    let job = job_name(&mut report);
    let settings = validate::read::<JobSettings>(&mut report, "", Value::Object(sections.settings), &part::<JobSettings>());

    let source_schemas: Kinds = connectors.sources.values().map(|source| (source.name(), source.settings_schema().to_value())).collect();
    let operator_schemas: Kinds = registry().iter().map(|kind| (kind.key, schema::operator_settings(kind))).collect();
    let sink_schemas: Kinds = connectors.sinks.values().map(|sink| (sink.name(), sink.settings_schema().to_value())).collect();
    let sources = section::<SourceEntry>(&mut report, &mut broken, &SOURCES, sections.sources, &source_schemas);
    let operators = section::<OperatorEntry>(&mut report, &mut broken, &OPERATORS, sections.operators, &operator_schemas);
    let sinks = section::<SinkEntry>(&mut report, &mut broken, &SINKS, sections.sinks, &sink_schemas);
    check_ids(&mut report);

    let problems = report.problems;
    JobSpec { job: job.as_str().into(), settings: settings.unwrap_or_default(), sources, operators, sinks, broken, document, problems }
}

/// Settings keys with the schemas of what stands under them, in the order of the documentation.
type Kinds = Vec<(&'static str, Value)>;

/// What is said about one section in messages.
struct Section {
    key: &'static str,
    /// One entry.
    noun: &'static str,
    /// What the kind key says.
    says: &'static str,
}

const SOURCES: Section = Section { key: "sources", noun: "a source", says: "where rows come from" };
const OPERATORS: Section = Section { key: "operators", noun: "an operator", says: "what the operator does" };
const SINKS: Section = Section { key: "sinks", noun: "a sink", says: "where rows go" };

#[derive(Default)]
struct Sections {
    settings: Map<String, Value>,
    sources: Map<String, Value>,
    operators: Map<String, Value>,
    sinks: Map<String, Value>,
}

fn sections(report: &mut Report<'_>) -> Sections {
    let mut sections = Sections::default();
    let Value::Object(root) = &report.document.value else {
        let message = if report.document.value.is_null() { "the job file is empty" } else { "a job file is a map of keys" };
        report.value("", message, Some("start with `job: <name>`, then `sources:`, `operators:` and `sinks:`".into()));
        return sections;
    };
    let schema = part::<JobSettings>();
    let settings = schema["properties"].as_object();
    let known = || {
        ["job", "sources", "operators", "sinks"].into_iter().chain(settings.into_iter().flat_map(|keys| keys.keys().map(String::as_str)))
    };
    for (key, value) in root {
        match key.as_str() {
            "job" => {}
            "sources" => sections.sources = entries(report, key, value),
            "operators" => sections.operators = entries(report, key, value),
            "sinks" => sections.sinks = entries(report, key, value),
            key if known().any(|known| known == key) => drop(sections.settings.insert(key.into(), value.clone())),
            key => report.key(&child("", key), format!("unknown key `{key}`"), Some(suggest::help("keys", key, known()))),
        }
    }
    for (key, entries, help) in [
        ("sources", &sections.sources, "a job has at least one source under `sources:`"),
        ("sinks", &sections.sinks, "a job has at least one sink under `sinks:`; `stdout: {}` prints rows"),
    ] {
        if entries.is_empty() && root.get(key).is_none_or(|value| value.is_null() || value.as_object().is_some_and(Map::is_empty)) {
            report.value(&child("", key), format!("the job has no {key}"), Some(help.into()));
        }
    }
    sections
}

fn entries(report: &mut Report<'_>, key: &str, value: &Value) -> Map<String, Value> {
    match value {
        Value::Object(entries) => entries.clone(),
        Value::Null => Map::new(),
        _ => {
            report.value(&child("", key), format!("`{key}` is a map of id to entry"), None);
            Map::new()
        }
    }
}

fn job_name(report: &mut Report<'_>) -> String {
    let Value::Object(root) = &report.document.value else { return String::new() };
    match root.get("job") {
        Some(Value::String(name)) if is_name(name, "._-") => name.clone(),
        Some(_) => {
            report.value("/job", "the name of a job is made of letters, digits, `.`, `_` and `-`", None);
            String::new()
        }
        None => {
            report.value("", "the key `job` is missing", Some("`job`: name of the job".into()));
            String::new()
        }
    }
}

fn is_name(name: &str, others: &str) -> bool {
    !name.is_empty() && !name.starts_with(['.', '-']) && name.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn section<T: DeserializeOwned + JsonSchema>(
    report: &mut Report<'_>,
    broken: &mut Vec<BrokenEntry>,
    section: &Section,
    entries: Keys,
    kinds: &Kinds,
) -> Vec<Entry<T>> {
    let common_schema = part::<T>();
    let mut read = Vec::new();
    for (id, value) in entries {
        let pointer = child(&child("", section.key), &id);
        let before = report.problems.problems.len();
        match entry(report, section, &common_schema, &id, &pointer, value, kinds) {
            Some(entry) if report.problems.problems.len() == before => read.push(entry),
            _ => broken.push(BrokenEntry { id, pointer, is_sink: section.key == SINKS.key }),
        }
    }
    read
}

fn entry<T: DeserializeOwned>(
    report: &mut Report<'_>,
    section: &Section,
    common_schema: &Value,
    id: &str,
    pointer: &str,
    value: Value,
    kinds: &Kinds,
) -> Option<Entry<T>> {
    if !is_name(id, "_-") || id.starts_with(|c: char| c.is_ascii_digit()) {
        report.key(pointer, format!("`{id}` is not an id: letters, digits, `_` and `-`, beginning with a letter"), None);
    }
    let Value::Object(value) = value else {
        report.value(pointer, format!("{} is a map of keys", section.noun), Some(kinds_help(section, kinds)));
        return None;
    };
    let keys = value.len();
    let (common, own) = split(report, section, common_schema, pointer, value, kinds);
    // An unknown key may have been meant to say what the entry is; then that is the mistake.
    let all_known = common.len() + own.len() == keys;
    let common: Option<T> = validate::read(report, pointer, Value::Object(common), common_schema);
    if own.is_empty() && !all_known {
        return None;
    }
    let (kind, settings) = one_kind(report, section, pointer, own, kinds)?;
    let schema = kinds.iter().find(|(key, _)| *key == kind).map(|(_, schema)| schema)?;
    if !validate::check(report, &child(pointer, &kind), &settings, schema) {
        return None;
    }
    Some(Entry { id: id.to_owned(), pointer: pointer.to_owned(), kind, settings, common: common? })
}

type Keys = Map<String, Value>;

/// The common keys and the keys that say what the entry is; reports all others.
fn split(report: &mut Report<'_>, section: &Section, common_schema: &Value, pointer: &str, entry: Keys, kinds: &Kinds) -> (Keys, Keys) {
    let common_keys: Vec<&str> =
        common_schema["properties"].as_object().into_iter().flat_map(|keys| keys.keys().map(String::as_str)).collect();
    let kind_keys: Vec<&str> = kinds.iter().map(|(key, _)| *key).collect();
    let mut common = Keys::new();
    let mut own = Keys::new();
    for (key, value) in entry {
        if common_keys.contains(&key.as_str()) {
            common.insert(key, value);
        } else if kind_keys.contains(&key.as_str()) {
            own.insert(key, value);
        } else {
            let known = common_keys.iter().chain(&kind_keys).copied();
            let help = match suggest::closest(&key, known) {
                Some(closest) => format!("did you mean `{closest}`?"),
                None => format!("{}; beside it may stand {}", kinds_help(section, kinds), suggest::list(&common_keys)),
            };
            report.key(&child(pointer, &key), format!("unknown key `{key}`"), Some(help));
        }
    }
    (common, own)
}

/// The one key that says what the entry is, with its settings; an empty value means no settings.
fn one_kind(report: &mut Report<'_>, section: &Section, pointer: &str, own: Keys, kinds: &Kinds) -> Option<(String, Value)> {
    let keys: Vec<&str> = own.keys().map(String::as_str).collect();
    match keys.as_slice() {
        [] => {
            report.key(pointer, format!("nothing says {}", section.says), Some(kinds_help(section, kinds)));
            return None;
        }
        [_] => {}
        [_, second, ..] => {
            report.key(
                &child(pointer, second),
                format!("{} is one thing: {} stand side by side", section.noun, suggest::list(&keys)),
                None,
            );
            return None;
        }
    }
    let (kind, settings) = own.into_iter().next()?;
    Some((kind, if settings.is_null() { Value::Object(Map::new()) } else { settings }))
}

fn kinds_help(section: &Section, kinds: &Kinds) -> String {
    let keys: Vec<&str> = kinds.iter().map(|(key, _)| *key).collect();
    format!("one key says {}: {}", section.says, suggest::list(&keys))
}

/// Ids are unique over all sections: streams and state are named by them.
fn check_ids(report: &mut Report<'_>) {
    let document = report.document;
    let mut seen: HashMap<&str, String> = HashMap::new();
    for section in [&SOURCES, &OPERATORS, &SINKS] {
        let entries = document.value.get(section.key).and_then(Value::as_object);
        for id in entries.into_iter().flat_map(Map::keys) {
            let pointer = child(&child("", section.key), id);
            if let Some(first) = seen.get(id.as_str()) {
                let (line, _) = document.position(first, super::document::Side::Key);
                report.key(
                    &pointer,
                    format!("`{id}` is here twice, first on line {line}"),
                    Some("ids are unique over sources, operators and sinks".into()),
                );
            } else {
                seen.insert(id, pointer);
            }
        }
    }
}
