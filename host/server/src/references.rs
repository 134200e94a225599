//! References in the values of a job file: `${secret:NAME}` in a job of the service, `${env:NAME}` and `${file:PATH}` in a local run. They are resolved
//! when the job is planned, and taken out again of whatever is said about it.
//!
//! The flow: [`References::resolve`] asks for every reference of a document → [`References::replacements`] is put over the job file → [`References::tell`]
//! tells what could not be resolved, each with its place → everything that leaves the process as words goes through [`Hidden`]. What stands in their place
//! is text, whatever it looks like. Who looks references up decides which kinds there are; nothing here reads anything.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_engine::spec::JobSpec;
use serde_json::Value;

use crate::failure::{Failure, Problem};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scheme {
    /// A secret of the service.
    Secret,
    /// A variable of the environment.
    Env,
    /// The content of a file.
    File,
}

/// One reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference {
    /// Where the value comes from.
    pub scheme: Scheme,
    /// What it is called there.
    pub name: String,
}

/// Why a reference has no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// One clause.
    pub message: String,
    /// How to put it right.
    pub fix: String,
}

/// The references of a job file, with what they stand for.
#[derive(Clone, Default)]
pub struct References {
    values: BTreeMap<Reference, String>,
    /// What could not be resolved, and the keys that lead there.
    mistakes: Vec<(String, Reference, Unresolved)>,
    /// Longest first: the forms in which a value may stand in a text, and the reference.
    needles: Vec<(String, Reference)>,
}

impl Scheme {
    const ALL: [Self; 3] = [Self::Secret, Self::Env, Self::File];

    /// How it begins.
    fn opening(self) -> &'static str {
        match self {
            Self::Secret => "${secret:",
            Self::Env => "${env:",
            Self::File => "${file:",
        }
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}}}", self.scheme.opening(), self.name)
    }
}

impl Reference {
    /// The reference that a text begins with, and what follows it.
    fn at_start(text: &str) -> Option<(Self, &str)> {
        let (scheme, rest) = Scheme::ALL.into_iter().find_map(|scheme| Some((scheme, text.strip_prefix(scheme.opening())?)))?;
        let (name, rest) = rest.split_once('}')?;
        Some((Self { scheme, name: name.to_owned() }, rest))
    }
}

/// The references in a value, in their order; one that is there twice comes twice.
pub fn named(value: &Value) -> Vec<Reference> {
    let mut found = Vec::new();
    walk(value, &mut String::new(), &mut |_, text| parts(text, |_| {}, |reference| found.push(reference)));
    found
}

impl References {
    /// Asks `look_up` for everything that a document refers to.
    pub fn resolve(document: &Value, mut look_up: impl FnMut(&Reference) -> Result<String, Unresolved>) -> Self {
        let mut found = Self::default();
        walk(document, &mut String::new(), &mut |path, text| {
            parts(text, |_| {}, |reference| found.add(path, reference, &mut look_up));
        });
        let forms = |(reference, value): (&Reference, &String)| {
            // As it is, and as it stands between the quotes of JSON or of Rust.
            let json = Value::from(value.as_str()).to_string();
            let forms = [value.clone(), json[1..json.len() - 1].to_owned(), value.escape_debug().to_string()];
            forms.into_iter().filter(|form| !form.is_empty()).map(|form| (form, reference.clone())).collect::<Vec<_>>()
        };
        found.needles = found.values.iter().flat_map(forms).collect();
        found.sort_needles();
        found
    }

    /// Whether the same references stand for the same.
    pub fn stand_for_the_same(&self, other: &Self) -> bool {
        self.values == other.values
    }

    fn sort_needles(&mut self) {
        self.needles.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        self.needles.dedup_by(|a, b| a.0 == b.0);
    }

    /// Takes those of `other` out of what is said, too: other values of the same references, or others.
    fn redact_also(&mut self, other: &Self) {
        self.needles.extend(other.needles.iter().cloned());
        self.sort_needles();
    }

    /// What could not be resolved, but for these.
    pub fn mistakes_but(&self, known: impl Fn(&Reference) -> bool) -> impl Iterator<Item = &Unresolved> {
        self.mistakes.iter().filter(move |(_, reference, _)| !known(reference)).map(|(_, _, mistake)| mistake)
    }

    /// Whether a reference has no value, which is told where it stands.
    pub fn is_mistake(&self, reference: &Reference) -> bool {
        self.mistakes.iter().any(|(_, mistaken, _)| mistaken == reference)
    }

    fn add(&mut self, path: &str, reference: Reference, look_up: &mut impl FnMut(&Reference) -> Result<String, Unresolved>) {
        if self.values.contains_key(&reference) {
            return;
        }
        let is_name = !reference.name.is_empty() && !reference.name.contains(|c: char| c.is_control() || matches!(c, '"' | '\\'));
        let is_kept = path == "job" || path.starts_with("checkpoints.");
        let looked_up = match (is_name, is_kept) {
            (false, _) => Err(no_name(&reference)),
            (true, true) => Err(written_down(&reference, path)),
            (true, false) => look_up(&reference),
        };
        match looked_up {
            Ok(value) => drop(self.values.insert(reference, value)),
            Err(mistake) => self.mistakes.push((path.to_owned(), reference, mistake)),
        }
    }

    /// Every value of the job file that has a reference in it, by the keys that lead there, with what the references stand for.
    pub fn replacements(&self, document: &Value) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        walk(document, &mut String::new(), &mut |path, text| {
            let filled = self.filled(text);
            if filled != text {
                found.push((path.to_owned(), Value::String(filled)));
            }
        });
        found
    }

    /// Adds what could not be resolved to the mistakes of the job file.
    pub fn tell(&self, spec: &mut JobSpec) {
        for (path, _, Unresolved { message, fix }) in &self.mistakes {
            spec.note(path, message, Some(fix.clone()));
        }
    }

    /// What could not be resolved, each with the keys that lead to it.
    pub fn mistakes(&self) -> impl Iterator<Item = (&str, &Unresolved)> {
        self.mistakes.iter().map(|(path, _, mistake)| (path.as_str(), mistake))
    }

    /// A value with what its references stand for in their place.
    pub fn fill(&self, value: Value) -> Value {
        with_texts(value, &|text| self.filled(text))
    }

    /// A failure in which nothing stands any more that a reference stands for.
    pub fn redacted(&self, mut failure: Failure) -> Failure {
        failure.problems = failure.problems.into_iter().map(|problem| self.redacted_problem(problem)).collect();
        failure
    }

    /// A problem in which nothing stands any more that a reference stands for.
    pub fn redacted_problem(&self, mut problem: Problem) -> Problem {
        let Problem { message, causes, fix, .. } = &mut problem;
        for text in std::iter::once(message).chain(causes.iter_mut()).chain(fix.as_mut()) {
            *text = self.redact(text);
        }
        problem
    }

    /// A text in which nothing stands any more that a reference stands for.
    pub fn redact(&self, text: &str) -> String {
        replaced(text, &self.needles.iter().collect::<Vec<_>>())
    }

    /// A value in whose texts nothing stands any more that a reference stands for; keys and numbers stay.
    pub fn redact_value(&self, value: Value) -> Value {
        with_texts(value, &|text| self.redact(text))
    }

    fn filled(&self, text: &str) -> String {
        let filled = std::cell::RefCell::new(String::with_capacity(text.len()));
        parts(
            text,
            |plain| filled.borrow_mut().push_str(plain),
            |reference| match self.values.get(&reference) {
                Some(value) => filled.borrow_mut().push_str(value),
                None => filled.borrow_mut().push_str(&reference.to_string()),
            },
        );
        filled.into_inner()
    }
}

/// What references of the jobs of this process stand for, so that no word of it leaves the process. Cheap to clone.
#[derive(Clone, Default)]
pub struct Hidden(Arc<Mutex<BTreeMap<String, References>>>);

impl Hidden {
    /// From now on nothing is said that these stand for; `whose` they are: they take the place of those that were there before.
    pub fn hide(&self, whose: &str, references: &References) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(whose.to_owned(), references.clone());
    }

    /// Nor what these stand for, until [`Self::hide`] says anew what is hidden; of whom nothing is hidden, nothing is said either.
    pub fn hide_also(&self, whose: &str, references: &References) {
        if let Some(hidden) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get_mut(whose) {
            hidden.redact_also(references);
        }
    }

    /// They say nothing any more.
    pub fn forget(&self, whose: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(whose);
    }

    /// Those of one job.
    pub fn of(&self, whose: &str) -> References {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(whose).cloned().unwrap_or_default()
    }

    /// Whether nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().all(|references| references.needles.is_empty())
    }

    /// A value as it may be said; keys and numbers stay.
    pub fn redact_value(&self, value: Value) -> Value {
        with_texts(value, &|text| self.redact(text))
    }

    /// A text as it may be said.
    pub fn redact(&self, text: &str) -> String {
        let hidden = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut needles: Vec<_> = hidden.values().flat_map(|references| &references.needles).collect();
        needles.sort_by_key(|(needle, _)| std::cmp::Reverse(needle.len()));
        replaced(text, &needles)
    }
}

/// The text with references in the place of what they stand for; the longest stand first in `needles`.
fn replaced(text: &str, needles: &[&(String, Reference)]) -> String {
    let (mut said, mut rest) = (String::with_capacity(text.len()), text);
    while let Some(next) = rest.chars().next() {
        // One pass, so that nothing is replaced in what has been replaced.
        match needles.iter().find_map(|(needle, reference)| Some((reference, rest.strip_prefix(needle.as_str())?))) {
            Some((reference, behind)) => {
                said += &reference.to_string();
                rest = behind;
            }
            None => {
                said.push(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    said
}

/// A value with other texts; keys and numbers stay.
fn with_texts(value: Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(&text)),
        Value::Array(items) => items.into_iter().map(|item| with_texts(item, change)).collect(),
        Value::Object(entries) => entries.into_iter().map(|(key, entry)| (key, with_texts(entry, change))).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// References are put into JSON texts as they are.
fn no_name(reference: &Reference) -> Unresolved {
    Unresolved {
        message: format!("`{}` names nothing", reference.to_string().escape_debug()),
        fix: "a name has no quotes, backslashes and control characters, and is not empty".to_owned(),
    }
}

/// What a job directory says of its job, tools print.
fn written_down(reference: &Reference, path: &str) -> Unresolved {
    Unresolved {
        message: format!("`{reference}` cannot stand in `{path}`, which is written down beside the checkpoints"),
        fix: "write the value itself: it is no place for a secret".to_owned(),
    }
}

/// Takes a text apart: what stands there as it is, and references.
fn parts(text: &str, mut plain: impl FnMut(&str), mut reference: impl FnMut(Reference)) {
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        plain(&rest[..at]);
        match Reference::at_start(&rest[at..]) {
            Some((found, behind)) => {
                reference(found);
                rest = behind;
            }
            None => {
                plain("${");
                rest = &rest[at + 2..];
            }
        }
    }
    plain(rest);
}

/// Every text of a document, with the keys that lead there.
fn walk(value: &Value, path: &mut String, visit: &mut dyn FnMut(&str, &str)) {
    let length = path.len();
    match value {
        Value::String(text) => visit(path, text),
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(item, path, visit);
                path.truncate(length);
            }
        }
        Value::Object(entries) => {
            for (key, entry) in entries {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
                walk(entry, path, visit);
                path.truncate(length);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::ErrorKind;
    use serde_json::json;

    use super::*;

    fn known(reference: &Reference) -> Result<String, Unresolved> {
        match (reference.scheme, reference.name.as_str()) {
            (Scheme::Secret, "key") => Ok("hunter2".to_owned()),
            (Scheme::Env, "LONG") => Ok("hunter2 and \"more\"".to_owned()),
            (Scheme::Env, "SLY") => Ok("${secret:key}".to_owned()),
            (Scheme::File, "word") => Ok("secret".to_owned()),
            (Scheme::Env, "EMPTY") => Ok(String::new()),
            _ => Err(Unresolved { message: format!("there is no `{reference}`"), fix: "make one".to_owned() }),
        }
    }

    #[test]
    fn references_are_put_in_place_and_taken_out_again() {
        let document = json!({ "sinks": { "out": { "http": { "headers": ["Bearer ${secret:key}", "x", "${x:y} ${"] } } } });
        let references = References::resolve(&document, known);
        assert_eq!(named(&document).iter().map(ToString::to_string).collect::<Vec<_>>(), ["${secret:key}"]);
        assert_eq!(references.replacements(&document), [("sinks.out.http.headers[0]".into(), json!("Bearer hunter2"))]);
        let failure = Failure::new(ErrorKind::Invalid, "`hunter2` is no header").fix("not hunter2");
        let redacted = references.redacted(failure);
        assert_eq!(redacted.message(), "`${secret:key}` is no header");
        assert_eq!(redacted.problems[0].fix.as_deref(), Some("not ${secret:key}"));
    }

    #[test]
    fn the_longest_value_is_hidden_first_in_every_way_to_write_it_and_names_stay() {
        let document = json!(["${secret:key}", "${env:LONG}", "${file:word}", "${env:EMPTY}"]);
        let references = References::resolve(&document, known);
        assert_eq!(references.redact("a hunter2 and \"more\"!"), "a ${env:LONG}!");
        assert_eq!(references.redact(r#"{"a":"hunter2 and \"more\""}"#), r#"{"a":"${env:LONG}"}"#);
        assert_eq!(references.redact("hunter2 and less"), "${secret:key} and less");
        assert_eq!(references.redact("hunter2hunter2"), "${secret:key}${secret:key}");
        let value = json!({ "hunter2": ["a hunter2", 7, null] });
        assert_eq!(references.redact_value(value), json!({ "hunter2": ["a ${secret:key}", 7, null] }), "what is read by key is found");
    }

    #[test]
    fn what_stands_in_a_value_is_no_reference() {
        let document = json!({ "a": "${env:SLY}", "b": "${secret:key}" });
        let references = References::resolve(&document, known);
        assert_eq!(references.replacements(&document)[0], ("a".into(), json!("${secret:key}")));
    }

    #[test]
    fn hidden_values_are_those_of_every_job_and_go_with_it() {
        let hidden = Hidden::default();
        hidden.hide("a", &References::resolve(&json!("${secret:key}"), known));
        hidden.hide("b", &References::resolve(&json!("${file:word}"), known));
        assert_eq!(hidden.redact("hunter2 is secret"), "${secret:key} is ${file:word}", "and not what the name of a reference has in it");
        hidden.forget("a");
        assert_eq!(hidden.redact("hunter2"), "hunter2");
    }

    /// A job whose secret has another value since keeps both to itself, and forgets them when it starts anew.
    #[test]
    fn what_is_hidden_besides_goes_with_the_next_start() {
        let hidden = Hidden::default();
        let now = |value: &str| References::resolve(&json!("${secret:key}"), |_| Ok(value.to_owned()));
        hidden.hide_also("a", &now("early"));
        assert!(hidden.is_empty(), "of a job that does not run nothing is kept");
        hidden.hide("a", &now("old"));
        hidden.hide_also("a", &now("new and longer"));
        assert_eq!(hidden.of("a").redact("old, then new and longer"), "${secret:key}, then ${secret:key}");
        hidden.hide("a", &now("new and longer"));
        assert_eq!(hidden.redact("old"), "old");
    }

    #[test]
    fn what_cannot_be_resolved_is_told_with_its_place() {
        let text = "job: x-${env:LONG}\nsources:\n  a:\n    files:\n      path: ${env:NONE}/${file:a\"b}\n";
        let mut spec = JobSpec::parse("job.yaml", text, &millstream_engine::connector::Connectors::default()).expect("YAML");
        let references = References::resolve(spec.value(), known);
        references.tell(&mut spec);
        let told = Failure::of_spec(spec.problems(), None, text).problems;
        let problem = told.iter().find(|problem| problem.message.contains("NONE")).expect("told");
        assert_eq!(
            (problem.line, problem.path.as_deref(), problem.fix.as_deref()),
            (Some(5), Some("sources.a.files.path"), Some("make one"))
        );
        assert!(told.iter().any(|problem| problem.message.contains("names nothing")));
        assert!(told.iter().any(|problem| problem.message.contains("cannot stand in `job`")));
    }
}
