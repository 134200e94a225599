//! The published JSON Schema of the job file.

use millstream_engine::spec::schema;

use crate::plan_table::connectors;

fn violations(job: &serde_json::Value) -> Vec<String> {
    let validator = jsonschema::validator_for(schema(&connectors()).as_value()).expect("the schema is a schema");
    validator.iter_errors(job).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn it_accepts_a_job_and_refuses_unknown_keys() {
    let mut job = serde_json::json!({
        "job": "j", "parallelism": 2, "state-memory": "1GiB",
        "sources": { "t": { "table": null, "schema": { "n": "Int64" }, "event-time": { "column": "n", "max-out-of-orderness": "20h" }, "rejected": "bad" } },
        "operators": { "f": { "input": "t", "filter": "n > 1", "key-by": ["n"], "rejected": "drop" }, "p": { "inputs": ["f"], "project": ["n"] } },
        "sinks": { "out": { "input": "p", "shelf": {} }, "bad": { "shelf": { "room": "attic" } } }
    });
    assert_eq!(violations(&job), Vec::<String>::new());
    job["operators"]["f"]["flter"] = "n > 1".into();
    job["sinks"]["bad"]["shelf"]["room"] = "garden".into();
    assert_eq!(violations(&job).len(), 2);
}

#[test]
fn an_entry_with_two_kinds_is_refused() {
    let job = serde_json::json!({
        "job": "j", "sources": { "t": { "table": {} } },
        "operators": { "f": { "input": "t", "filter": "n > 1", "union": {} } }, "sinks": { "out": { "input": "f", "shelf": {} } }
    });
    assert_eq!(violations(&job).len(), 1);
}
