//! A route of the API as data: what it is called, who may ask, what it takes and gives. The router, the OpenAPI document and the matrix of the tests of
//! authorisation are made from the same table, so that none of them can forget a route.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::http::{Method, StatusCode};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::call::{Answer, Call};
use crate::catalogue::objects::Scope;

/// Makes a schema in a generator.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Carries out a request.
pub type Handler = Arc<dyn Fn(Call) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// What a route takes as its body.
#[derive(Clone, Copy)]
pub enum Takes {
    /// Nothing.
    Nothing,
    /// JSON.
    Json(SchemaOf),
    /// A job file: YAML or JSON.
    JobFile,
    /// A component, streamed.
    Component,
}

/// What a route answers when all is well.
#[derive(Clone, Copy)]
pub enum Gives {
    /// Nothing.
    Nothing,
    /// JSON.
    Json(SchemaOf),
    /// Text of this type.
    Text(&'static str),
    /// Events, until who asks has heard enough.
    Events,
    /// JSON, or events if that is asked for.
    JsonOrEvents(SchemaOf),
}

/// One route.
#[derive(Clone)]
pub struct Route {
    /// Its method.
    pub method: Method,
    /// Its path, with names in braces.
    pub path: &'static str,
    /// What it is called: in the OpenAPI document, and in the audit.
    pub operation: &'static str,
    /// What who asks must be allowed; none: everybody may.
    pub scope: Option<Scope>,
    /// One sentence.
    pub summary: &'static str,
    /// Its body.
    pub takes: Takes,
    /// Its query.
    pub query: Option<SchemaOf>,
    /// Its answer.
    pub gives: Gives,
    /// The status of its answer.
    pub status: StatusCode,
    /// Who carries it out.
    pub handler: Handler,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    /// A route that takes and gives nothing.
    pub fn new<F>(method: Method, path: &'static str, operation: &'static str, summary: &'static str, handler: fn(Call) -> F) -> Self
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |call| Box::pin(handler(call)));
        let (takes, gives, status) = (Takes::Nothing, Gives::Nothing, StatusCode::NO_CONTENT);
        Self { method, path, operation, scope: None, summary, takes, query: None, gives, status, handler }
    }

    /// Who asks must be allowed this.
    pub fn needs(self, scope: Scope) -> Self {
        Self { scope: Some(scope), ..self }
    }

    /// Takes JSON.
    pub fn takes<T: JsonSchema>(self) -> Self {
        Self { takes: Takes::Json(schema_of::<T>), ..self }
    }

    /// Takes a body of another kind.
    pub fn takes_body(self, takes: Takes) -> Self {
        Self { takes, ..self }
    }

    /// Has a query.
    pub fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }

    /// Gives JSON.
    pub fn gives<T: JsonSchema>(self) -> Self {
        Self { gives: Gives::Json(schema_of::<T>), status: StatusCode::OK, ..self }
    }

    /// Gives JSON, or events if that is asked for.
    pub fn gives_or_events<T: JsonSchema>(self) -> Self {
        Self { gives: Gives::JsonOrEvents(schema_of::<T>), status: StatusCode::OK, ..self }
    }

    /// Gives something else.
    pub fn gives_body(self, gives: Gives) -> Self {
        Self { gives, status: StatusCode::OK, ..self }
    }

    /// Answers 201.
    pub fn creates(self) -> Self {
        Self { status: StatusCode::CREATED, ..self }
    }

    /// Whether it changes anything.
    pub fn changes(&self) -> bool {
        self.method != Method::GET
    }

    /// The names in braces in its path.
    pub fn parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
    }
}
