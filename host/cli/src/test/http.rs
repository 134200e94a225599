//! The network of a case: whom the operator asks is in the case, and everybody else refuses.

use std::{num::NonZeroU32, sync::Arc};

use async_trait::async_trait;
use millstream_engine::{
    requests::{Client, Failed, Grant, Room},
    spec::HttpSettings,
};
use millstream_wasm::http::{Request, Response};
use serde_json::Value;

use super::case::{Canned, CannedFailure};

/// What an operator is granted whose case says what comes back. Nothing is tried twice: the clock of a case stands still.
pub fn grant(answers: Vec<Canned>) -> Arc<Grant> {
    Arc::new(Grant::new(HttpSettings { tries: NonZeroU32::MIN, ..HttpSettings::default() }, Arc::new(Network(answers))))
}

struct Network(Vec<Canned>);

#[async_trait]
impl Client for Network {
    async fn send(&self, request: &Request, _room: Room<'_>) -> Result<Response, Failed> {
        let Request { method, url, .. } = request;
        let Some(canned) = self.0.iter().find(|canned| canned.method == *method && canned.url == *url) else {
            return Err(Failed::Refused(format!("the case says nothing about {method} {url}")));
        };
        match canned.failure {
            None => Ok(Response {
                status: canned.status,
                headers: canned.headers.iter().map(|(name, value)| (name.to_lowercase(), value.clone())).collect(),
                body: body(&canned.body),
            }),
            Some(CannedFailure::Refused) => Err(Failed::Refused("the case refuses it".into())),
            Some(CannedFailure::Unreachable) => Err(Failed::Unconnected("in this case nobody is there".into())),
            Some(CannedFailure::Timeout) => Err(Failed::TimedOut),
            Some(CannedFailure::TooLarge) => Err(Failed::TooLarge),
        }
    }
}

fn body(value: &Value) -> Vec<u8> {
    match value {
        Value::Null => Vec::new(),
        Value::String(text) => text.clone().into_bytes(),
        other => other.to_string().into_bytes(),
    }
}
