//! The OpenAPI document and the service agree: schemathesis makes requests of it, good and bad ones, from a fixed seed, and looks at every answer. No route is
//! left out: streams are listened to for a second each, and how a component is written it is told in `schemathesis_hooks.py`.

use std::process::Command;

use serde_json::Value;

use crate::harness::{Service, component, directory};

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
    // It would else find the id of its own, and have nobody's right from there on.
    let (spare, _) = service.make_token(&["view"]);
    let file = directory.path().join("count.wasm");
    std::fs::write(&file, component("count")).expect("writable");
    service.tenant("acme");
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
        .args(["--no-color", "--workers", "1"])
        .env("SCHEMATHESIS_HOOKS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/service/schemathesis_hooks.py"))
        .env("MILLSTREAM_COMPONENT", &file)
        .env("MILLSTREAM_SPARE_TOKEN", &spare)
        .current_dir(directory.path())
        .output()
        .expect("scripts/setup has installed schemathesis");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "schemathesis has found something");
    let routes: Vec<Value> = service.get("/v1/openapi.json").expect(200)["paths"]
        .as_object()
        .expect("paths")
        .values()
        .flat_map(|path| path.as_object().expect("operations").values().cloned().collect::<Vec<_>>())
        .collect();
    // The document itself is what it has read before.
    let tested = format!("Tested: {}", routes.len() - 1);
    assert!(said.contains(&tested), "not {tested}");
    service.get("/v1/whoami").expect(200);
}
