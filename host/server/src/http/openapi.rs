//! The OpenAPI 3.1 document, made from the table of routes and the types of [`crate::api`].

use axum::http::Method;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::route::{Gives, Route, Takes};
use crate::api::ProblemDocument;

/// The document.
pub fn document(routes: &[Route]) -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    settings.meta_schema = None;
    let mut generator = SchemaGenerator::new(settings);
    let problem = generator.subschema_for::<ProblemDocument>();
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let operation = operation(route, &mut generator);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation;
    }
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Millstream",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "Stream processing whose operators are WebAssembly components.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" }
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "responses": { "problem": {
                "description": "What is wrong, where, because of what, and how to put it right.",
                "content": { "application/problem+json": { "schema": problem } }
            } }
        }
    })
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.summary,
        "tags": [tag(route.path)],
        "parameters": parameters(route, generator),
        "responses": responses(route, generator),
    });
    if let Some(scope) = route.scope {
        operation["security"] = json!([{ "token": [] }]);
        operation["description"] = json!(format!("Needs the scope `{scope}`."));
    }
    if let Some(body) = body(route, generator) {
        operation["requestBody"] = body;
    }
    operation
}

/// `jobs` of `/v1/jobs/{job}`.
fn tag(path: &str) -> &str {
    path.trim_start_matches("/v1/").trim_start_matches('/').split('/').next().unwrap_or_default()
}

fn parameters(route: &Route, generator: &mut SchemaGenerator) -> Vec<Value> {
    let in_path = route
        .parameters()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "pattern": pattern(name) } }));
    let mut parameters: Vec<Value> = in_path.collect();
    if let Some(query) = route.query {
        let schema = query(generator);
        let resolved = resolved(schema.as_value(), generator);
        for (name, schema) in resolved.get("properties").and_then(Value::as_object).into_iter().flatten() {
            let description = schema.get("description").cloned().unwrap_or_default();
            parameters.push(json!({ "name": name, "in": "query", "required": false, "description": description, "schema": schema }));
        }
    }
    let header = |name: &str, pattern: &str, description: &str| {
        let schema = json!({ "type": "string", "pattern": pattern });
        json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
    };
    if route.changes() && route.scope.is_some() && !matches!(route.takes, Takes::Component) {
        parameters.push(header(
            "Idempotency-Key",
            "^[!-~]([ -~]{0,198}[!-~])?$",
            "The same request with the same key is carried out once, and answered the same for a day.",
        ));
    }
    if route.changes() && route.path.starts_with("/v1/jobs/{job}") && !route.path.contains("savepoints") {
        parameters.push(header(
            "If-Match",
            "^(\\*|\"[0-9]+\")$",
            "The ETag of the job as it was read: if it has changed since, nothing is done.",
        ));
    }
    parameters
}

/// What a name in a path looks like.
fn pattern(name: &str) -> &'static str {
    match name {
        "token" => "^[0-9a-f]{1,64}$",
        "version" => "^[0-9]{1,18}$",
        "reference" => "^(sha256:[0-9a-f]{64}|[A-Za-z0-9][A-Za-z0-9._-]{0,99})$",
        "operator" => "^[A-Za-z0-9_-]{1,100}$",
        _ => "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$",
    }
}

/// The schema that a reference means.
fn resolved(schema: &Value, generator: &SchemaGenerator) -> Value {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|reference| reference.rsplit('/').next());
    name.and_then(|name| generator.definitions().get(name).cloned()).unwrap_or_else(|| schema.clone())
}

fn body(route: &Route, generator: &mut SchemaGenerator) -> Option<Value> {
    let content = match route.takes {
        Takes::Nothing => return None,
        Takes::Json(schema) => json!({ "application/json": { "schema": schema(generator) } }),
        Takes::JobFile => {
            json!({ "application/yaml": { "schema": { "type": "string" } }, "application/json": { "schema": { "type": "object" } } })
        }
        Takes::Component => json!({ "application/wasm": { "schema": { "type": "string", "format": "binary" } } }),
    };
    Some(json!({ "required": !matches!(route.takes, Takes::Json(_) | Takes::JobFile), "content": content }))
}

fn responses(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let good = |content: Option<Value>| match content {
        Some(content) => json!({ "description": "Done.", "content": content }),
        None => json!({ "description": "Done." }),
    };
    let events = || json!({ "text/event-stream": { "schema": { "type": "string" } } });
    let content = match route.gives {
        Gives::Nothing => None,
        Gives::Json(schema) => Some(json!({ "application/json": { "schema": schema(generator) } })),
        // Whoever reads YAML finds an object, and not the text.
        Gives::Text(content_type @ "application/yaml") => Some(json!({ content_type: { "schema": {} } })),
        Gives::Text(content_type) => Some(json!({ content_type: { "schema": { "type": "string" } } })),
        Gives::Events => Some(events()),
        Gives::JsonOrEvents(schema) => {
            let mut content = events();
            content["application/json"] = json!({ "schema": schema(generator) });
            Some(content)
        }
    };
    let mut responses = Map::new();
    responses.insert(route.status.as_str().to_owned(), good(content.clone()));
    if matches!(route.takes, Takes::Component) {
        responses.insert("202".to_owned(), good(content));
    }
    if route.method == Method::GET && route.scope.is_some() {
        responses.insert("304".to_owned(), json!({ "description": "It is as it was." }));
    }
    for status in problems(route) {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/problem" }));
    }
    Value::Object(responses)
}

/// The statuses of the problems that a route may answer with.
fn problems(route: &Route) -> Vec<u16> {
    let mut statuses = vec![431, 500, 503];
    if route.scope.is_some() {
        statuses.extend([400, 401, 403, 429]);
    }
    if route.parameters().next().is_some() || !matches!(route.takes, Takes::Nothing) {
        statuses.push(404);
    }
    if route.changes() {
        statuses.extend([404, 408, 409, 412, 413, 415, 422]);
    } else if route.path.contains("{job}") {
        statuses.push(409);
    }
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}
