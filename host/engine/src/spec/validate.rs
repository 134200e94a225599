//! One part of a job file against its JSON Schema: every violation in words a person can act on.
//!
//! Schemas come from the types that hold the settings (schemars). `x-expected` beside a `pattern` says in words what is expected.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use jsonschema::{ValidationError, Validator, error::ValidationErrorKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{document::child, problem::Report, suggest};

/// Schema, as text → its validator. To make one costs a millisecond, as its patterns become automata, and a service reads each job file several times.
/// Schemas come from types, so there are only so many.
static VALIDATORS: Mutex<BTreeMap<String, Arc<Validator>>> = Mutex::new(BTreeMap::new());

/// The validator of a schema.
///
/// # Errors
/// The schema is broken.
fn validator(schema: &Value) -> Result<Arc<Validator>, ValidationError<'static>> {
    let text = schema.to_string();
    let known = VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner).get(&text).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let made = Arc::new(jsonschema::validator_for(schema)?);
    VALIDATORS.lock().unwrap_or_else(PoisonError::into_inner).insert(text, made.clone());
    Ok(made)
}

/// Checks `value`, which stands at `pointer`, against `schema`. Reports every violation; true if there is none.
pub(crate) fn check(report: &mut Report<'_>, pointer: &str, value: &Value, schema: &Value) -> bool {
    let validator = match validator(schema) {
        Ok(validator) => validator,
        Err(error) => {
            report.value(pointer, format!("the schema of these settings is broken: {error}"), None);
            return false;
        }
    };
    let before = report.problems.problems.len();
    for error in validator.iter_errors(value) {
        Translator { report, base: pointer, schema }.report(&error);
    }
    report.problems.problems.len() == before
}

/// Checks a part against its schema, then reads it.
pub(crate) fn read<T: DeserializeOwned>(report: &mut Report<'_>, pointer: &str, value: Value, schema: &Value) -> Option<T> {
    if !check(report, pointer, &value, schema) {
        return None;
    }
    match serde_path_to_error::deserialize(value) {
        Ok(read) => Some(read),
        Err(error) => {
            let path = error.path().to_string();
            let at = if path == "." { pointer.to_owned() } else { report.document.resolve(pointer, &path) };
            report.value(&at, error.into_inner().to_string(), None);
            None
        }
    }
}

struct Translator<'r, 'd> {
    report: &'r mut Report<'d>,
    base: &'r str,
    schema: &'r Value,
}

impl Translator<'_, '_> {
    fn report(&mut self, error: &ValidationError<'_>) {
        let at = format!("{}{}", self.base, error.instance_path());
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
                let known = self.known_keys(error);
                for key in unexpected {
                    let help = suggest::help("keys", key, known.iter().map(String::as_str));
                    self.report.key(&child(&at, key), format!("unknown key `{key}`"), Some(help));
                }
            }
            ValidationErrorKind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                self.report.key(&at, format!("the key `{key}` is missing"), self.meaning_of(error, key));
            }
            ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
                self.report_alternatives(error, context, &at);
            }
            // Several alternatives fit: which one is meant is decided where the value is read.
            ValidationErrorKind::OneOfMultipleValid { .. } => {}
            ValidationErrorKind::Enum { options } => {
                let options: Vec<&str> = options.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let found = shown(error.instance());
                let help = error.instance().as_str().map_or_else(
                    || format!("write one of {}", suggest::list(&options)),
                    |found| suggest::help("choices", found, options.iter().copied()),
                );
                self.report.value(&at, format!("{found} is none of the choices"), Some(help));
            }
            ValidationErrorKind::Constant { expected_value } => {
                self.report.value(&at, format!("expected {}, found {}", shown(expected_value), shown(error.instance())), None);
            }
            _ => {
                let message = self.message(error);
                self.report.value(&at, message, None);
            }
        }
    }

    fn message(&self, error: &ValidationError<'_>) -> String {
        let found = shown(error.instance());
        if let Some(expected) = self.keyword(error, "x-expected").and_then(Value::as_str) {
            return format!("expected {expected}, found {found}");
        }
        match error.kind() {
            ValidationErrorKind::Type { .. } => format!("expected {}, found {found}", self.expected_type(error)),
            ValidationErrorKind::Minimum { limit } => format!("must be at least {limit}, found {found}"),
            ValidationErrorKind::Maximum { limit } => format!("must be at most {limit}, found {found}"),
            ValidationErrorKind::ExclusiveMinimum { limit } => format!("must be more than {limit}, found {found}"),
            ValidationErrorKind::ExclusiveMaximum { limit } => format!("must be less than {limit}, found {found}"),
            ValidationErrorKind::MinItems { limit: 1 } | ValidationErrorKind::MinProperties { limit: 1 } => "must not be empty".into(),
            ValidationErrorKind::MinLength { limit: 1 } => "must not be an empty text".into(),
            ValidationErrorKind::MinItems { limit } => format!("needs at least {limit} items"),
            ValidationErrorKind::MaxItems { limit } => format!("has at most {limit} items"),
            ValidationErrorKind::Pattern { pattern } => format!("{found} does not match the pattern {pattern}"),
            ValidationErrorKind::UniqueItems => "has an item twice".into(),
            _ => error.to_string(),
        }
    }

    /// The alternative that was probably meant is the one that fits as a whole and whose mistakes lie deeper; if none fits, it is a matter of
    /// type or of choice.
    fn report_alternatives(&mut self, error: &ValidationError<'_>, context: &[Vec<ValidationError<'static>>], at: &str) {
        let here = error.instance_path().as_str().len();
        let is_about_the_whole = |inner: &&ValidationError<'_>| inner.instance_path().as_str().len() == here && is_about_kind(inner.kind());
        let fitting = context.iter().filter(|errors| !errors.iter().any(|inner| is_about_the_whole(&inner)));
        if let Some(meant) = fitting.min_by_key(|errors| errors.len()) {
            for inner in meant {
                self.report(inner);
            }
            return;
        }
        let mut expected: Vec<String> = Vec::new();
        let mut choices: Vec<&str> = Vec::new();
        for errors in context {
            // Where both the type and the very value are wrong, the value says it all.
            let shallow = errors.iter().filter(is_about_the_whole);
            let Some(worst) = shallow.min_by_key(|inner| matches!(inner.kind(), ValidationErrorKind::Type { .. })) else { continue };
            choices.extend(choices_of(worst.kind()));
            let words = self.expected(worst);
            if !words.is_empty() && !expected.contains(&words) {
                expected.push(words);
            }
        }
        let found = error.instance();
        let help = found.as_str().and_then(|found| suggest::closest(found, choices)).map(|closest| format!("did you mean `{closest}`?"));
        self.report.value(at, format!("expected {}, found {}", expected.join(" or "), shown(found)), help);
    }

    fn expected(&self, error: &ValidationError<'_>) -> String {
        if let Some(expected) = self.keyword(error, "x-expected").and_then(Value::as_str) {
            return expected.to_owned();
        }
        match error.kind() {
            ValidationErrorKind::Enum { options } => options.as_array().into_iter().flatten().map(shown).collect::<Vec<_>>().join(" or "),
            ValidationErrorKind::Constant { expected_value } => shown(expected_value),
            _ => self.expected_type(error),
        }
    }

    fn expected_type(&self, error: &ValidationError<'_>) -> String {
        let types = match self.keyword(error, "type") {
            Some(Value::String(one)) => vec![one.as_str()],
            Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        // That a value may be left out needs no saying.
        let words = types.into_iter().filter(|name| *name != "null").map(|name| match name {
            "string" => "a text",
            "integer" => "a whole number",
            "number" => "a number",
            "boolean" => "true or false",
            "array" => "a list",
            "object" => "a map",
            other => other,
        });
        words.collect::<Vec<_>>().join(" or ")
    }

    /// A keyword beside the one that was violated.
    fn keyword(&self, error: &ValidationError<'_>, keyword: &str) -> Option<&Value> {
        let (parent, _) = error.schema_path().as_str().rsplit_once('/')?;
        self.schema.pointer(parent)?.get(keyword)
    }

    fn known_keys(&self, error: &ValidationError<'_>) -> Vec<String> {
        let properties = self.keyword(error, "properties").and_then(Value::as_object);
        properties.into_iter().flat_map(|properties| properties.keys().cloned()).collect()
    }

    /// What the schema says about a key.
    fn meaning_of(&self, error: &ValidationError<'_>, key: &str) -> Option<String> {
        let description = self.keyword(error, "properties")?.get(key)?.get("description")?.as_str()?;
        Some(format!("`{key}`: {}", description.split_whitespace().collect::<Vec<_>>().join(" ")))
    }
}

fn choices_of(kind: &ValidationErrorKind) -> Vec<&str> {
    match kind {
        ValidationErrorKind::Enum { options } => options.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        ValidationErrorKind::Constant { expected_value } => expected_value.as_str().into_iter().collect(),
        _ => Vec::new(),
    }
}

/// Whether a violation says that the value is another kind of thing altogether.
fn is_about_kind(kind: &ValidationErrorKind) -> bool {
    matches!(
        kind,
        ValidationErrorKind::Type { .. }
            | ValidationErrorKind::Enum { .. }
            | ValidationErrorKind::Constant { .. }
            | ValidationErrorKind::Pattern { .. }
    )
}

/// A value as a person would name it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".into(),
        Value::Object(_) => "a map".into(),
        Value::Array(_) => "a list".into(),
        Value::String(text) if text.chars().count() > 60 => format!("`{}…`", text.chars().take(60).collect::<String>()),
        Value::String(text) => format!("`{text}`"),
        other => other.to_string(),
    }
}
