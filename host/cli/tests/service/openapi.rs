//! The OpenAPI document and the service agree: schemathesis makes requests of it, good and bad ones, from a fixed seed, and looks at every answer.

use std::process::Command;

use crate::harness::{Service, directory};

/// What every answer is looked at for: no fault of the service, a status and a content type that the document knows, a body of its schema, and nothing
/// taken that the document forbids.
const CHECKS: &str =
    "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,negative_data_rejection";

#[test]
fn every_answer_is_one_that_the_document_knows() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.submit("counts");
    let output = Command::new("schemathesis")
        .args(["--config-file", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/schemathesis.toml")])
        .args(["run", &format!("http://{}/v1/openapi.json", service.address())])
        .args(["--header", &format!("Authorization: Bearer {}", service.token)])
        .args([
            "--seed",
            "5",
            "--max-examples",
            "3",
            "--request-timeout",
            "60",
            "--phases",
            "examples,coverage,fuzzing",
            "--checks",
            CHECKS,
        ])
        // Streams have no end; and it knows no way to write a component.
        .args(["--exclude-path-regex", "/(events|tail|logs)$", "--exclude-operation-id", "push-component", "--no-color", "--workers", "1"])
        .current_dir(directory.path())
        .output()
        .expect("scripts/setup has installed schemathesis");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    service.get("/healthz").expect(200);
}
