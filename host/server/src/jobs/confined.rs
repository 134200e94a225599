//! What the job file of a stranger may not name: files of the machine, ports of it, and storage that belongs to who runs the service. A stranger is a tenant
//! other than `local`; where the service is hosted, everybody is. Looked at in the job file itself, before anything of it is planned.

use millstream_model::{ErrorKind, ids::TenantId};
use serde_json::{Map, Value};

use crate::failure::{Failure, Problem};

const HTTP_PUSH: &str = "http-push";
/// Connectors of the machine.
const OF_THE_MACHINE: [(&str, &str); 2] = [
    ("files", "files of the machine of the service are not its tenants': use Kafka, or an address over HTTP"),
    (HTTP_PUSH, "ports of the machine of the service are not its tenants': use Kafka"),
];

/// Who may name what is the machine's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strangers {
    /// Every tenant but `local` is one.
    Others,
    /// The service is hosted: all are.
    All,
}

impl Strangers {
    /// Whether a tenant may not name what is the machine's.
    pub fn is(self, tenant: &TenantId) -> bool {
        self == Self::All || *tenant != TenantId::local()
    }

    /// Whether a job file of this tenant names only what it may.
    ///
    /// # Errors
    /// Everything that it may not.
    pub fn check(self, tenant: &TenantId, document: &Value) -> Result<(), Failure> {
        let problems = if self.is(tenant) { of_the_machine(document) } else { Vec::new() };
        if problems.is_empty() { Ok(()) } else { Err(Failure { kind: ErrorKind::Invalid, problems }) }
    }
}

/// Whether the job listens nowhere: a runner opens no port.
///
/// # Errors
/// Every source that does.
pub fn opens_no_port(document: &Value) -> Result<(), Failure> {
    let listens = entries(&document["sources"]).filter(|(_, settings)| settings.get(HTTP_PUSH).is_some());
    let refused = listens.map(|(id, _)| {
        let fix = "read from Kafka; or, if all tenants are trusted, start the service with `--isolation none`";
        problem(&format!("sources.{id}.{HTTP_PUSH}"), "`http-push` listens, and the walls of a runner let nothing listen", fix)
    });
    let problems: Vec<Problem> = refused.collect();
    if problems.is_empty() { Ok(()) } else { Err(Failure { kind: ErrorKind::Invalid, problems }) }
}

fn of_the_machine(document: &Value) -> Vec<Problem> {
    let mut problems = Vec::new();
    for group in ["sources", "sinks"] {
        for (id, settings) in entries(&document[group]) {
            for (connector, fix) in OF_THE_MACHINE.into_iter().filter(|(connector, _)| settings.get(connector).is_some()) {
                problems.push(problem(&format!("{group}.{id}.{connector}"), &format!("`{connector}` is not for this tenant"), fix));
            }
        }
    }
    for (id, settings) in entries(&document["operators"]) {
        if settings.get("lookup-join").is_some_and(|join| join.get("file").is_some()) {
            let fix = "join a stream instead: `temporal-join`";
            problems.push(problem(&format!("operators.{id}.lookup-join.file"), "tables in files are not for this tenant", fix));
        }
    }
    if document["checkpoints"].get("storage").is_some_and(|storage| !storage.is_null()) {
        let fix = "leave it out: the service keeps checkpoints where its operator says";
        problems.push(problem("checkpoints.storage", "the storage of checkpoints is not this tenant's to choose", fix));
    }
    problems
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn problem(path: &str, message: &str, fix: &str) -> Problem {
    Problem { message: message.to_owned(), path: Some(path.to_owned()), fix: Some(fix.to_owned()), ..Problem::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_job_that_listens_is_found_before_it_runs_behind_walls() {
        let refused = opens_no_port(&json!({ "sources": { "a": { "kafka": {} }, "b": { "http-push": {} } } })).unwrap_err();
        assert_eq!(refused.problems.iter().map(|problem| problem.path.as_deref()).collect::<Vec<_>>(), [Some("sources.b.http-push")]);
        opens_no_port(&json!({ "sources": { "a": { "kafka": {} } } })).expect("it listens nowhere");
    }

    #[test]
    fn a_stranger_names_neither_files_nor_ports_nor_storage_of_the_machine() {
        let document = json!({
            "sources": { "a": { "files": { "path": "/etc/shadow" } }, "b": { "http-push": {} }, "c": { "kafka": {} } },
            "operators": { "j": { "input": "c", "lookup-join": { "file": "x.csv" } } },
            "sinks": { "s": { "files": { "path": "../x" } }, "t": { "blackhole": {} } },
            "checkpoints": { "storage": "/var/lib" },
        });
        let (local, other) = (TenantId::local(), TenantId::from("acme"));
        Strangers::Others.check(&local, &document).expect("whoever runs the service may");
        for failure in [Strangers::Others.check(&other, &document), Strangers::All.check(&local, &document)].map(Result::unwrap_err) {
            let places: Vec<&str> = failure.problems.iter().filter_map(|problem| problem.path.as_deref()).collect();
            let expected =
                ["sources.a.files", "sources.b.http-push", "sinks.s.files", "operators.j.lookup-join.file", "checkpoints.storage"];
            assert_eq!(places, expected);
        }
        Strangers::All.check(&other, &json!({ "sources": { "c": { "kafka": {} } } })).expect("nothing of the machine");
    }
}
