//! `${secret:NAME}` in the values of a job file: put in place when the job is planned, and taken out again of whatever is said about it.

use std::collections::BTreeMap;

use millstream_model::{ErrorKind, ids::TenantId};
use serde_json::Value;

use crate::{
    catalogue::{Store, objects::Secret},
    failure::{Failure, Problem},
};

const OPENING: &str = "${secret:";

/// Whether a value names a secret somewhere.
pub fn names_one(value: &Value) -> bool {
    !names(value).is_empty()
}

/// The secrets that a job file refers to.
#[derive(Default)]
pub struct Secrets {
    values: BTreeMap<String, String>,
}

impl Secrets {
    /// Looks up every secret that `document` names.
    ///
    /// # Errors
    /// One of them does not exist.
    pub async fn of(document: &Value, store: &Store, tenant: &TenantId) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for name in names(document) {
            let found = store.get::<Secret>(tenant, &name).await?;
            let found = found.ok_or_else(|| {
                Failure::new(ErrorKind::Invalid, format!("there is no secret `{name}`, which the job file names"))
                    .fix(format!("millstream secret set {name}"))
            })?;
            values.insert(name, found.object.value);
        }
        Ok(Self { values })
    }

    /// Every value of the job file that names a secret, by the keys that lead there, with the secrets in place.
    pub fn replacements(&self, document: &Value) -> Vec<(String, Value)> {
        let mut found = Vec::new();
        walk(document, &mut String::new(), &mut |path, text| {
            if text.contains(OPENING) {
                found.push((path.to_owned(), Value::String(self.filled(text))));
            }
        });
        found
    }

    /// A failure in which no secret stands any more.
    pub fn redacted(&self, mut failure: Failure) -> Failure {
        for problem in &mut failure.problems {
            let Problem { message, causes, fix, .. } = problem;
            for text in std::iter::once(message).chain(causes.iter_mut()).chain(fix.as_mut()) {
                *text = self.redact(text);
            }
        }
        failure
    }

    /// A text in which no secret stands any more.
    pub fn redact(&self, text: &str) -> String {
        let secrets = self.values.iter().filter(|(_, value)| !value.is_empty());
        secrets.fold(text.to_owned(), |text, (name, value)| text.replace(value.as_str(), &format!("{OPENING}{name}}}")))
    }

    fn filled(&self, text: &str) -> String {
        self.values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{OPENING}{name}}}"), value))
    }
}

fn names(document: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(document, &mut String::new(), &mut |_, text| {
        let named = text.split(OPENING).skip(1).filter_map(|rest| rest.split_once('}'));
        found.extend(named.map(|(name, _)| name.to_owned()));
    });
    found
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
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_put_in_place_and_taken_out_again() {
        let secrets = Secrets { values: BTreeMap::from([("key".into(), "hunter2".into())]) };
        let document = json!({ "sinks": { "out": { "http": { "headers": ["Bearer ${secret:key}", "x"] } } } });
        assert_eq!(names(&document), ["key"]);
        assert_eq!(secrets.replacements(&document), [("sinks.out.http.headers[0]".into(), json!("Bearer hunter2"))]);
        let failure = Failure::new(ErrorKind::Invalid, "`hunter2` is no header").fix("not hunter2");
        let redacted = secrets.redacted(failure);
        assert_eq!(redacted.message(), "`${secret:key}` is no header");
        assert_eq!(redacted.problems[0].fix.as_deref(), Some("not ${secret:key}"));
    }
}
