//! One request, as a handler sees it: who asks, which object, which query, which body. And what a handler answers.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use bytes::Bytes;
use millstream_model::ids::TenantId;
use serde::{Serialize, de::DeserializeOwned};

use super::{problem::Refusal, service::Service};
use crate::{api::Paging, catalogue::Revision, jobs::Change, token::Actor};

/// Items on a page, at most.
const PAGE_MAX: usize = 1_000;
/// Items on a page of who does not say.
const PAGE: usize = 100;

/// What a handler answers.
pub type Answer = Result<Reply, Refusal>;

/// One request.
pub struct Call {
    /// The service.
    pub service: Arc<Service>,
    /// Who asks; of an open route: nobody.
    pub actor: Option<Actor>,
    /// What the braces of the path stand for.
    pub parameters: BTreeMap<String, String>,
    /// Behind the question mark.
    pub query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, of a route that takes one whole.
    pub body: Bytes,
    /// The body, of a route that streams it. (A body is not `Sync`, and a call is.)
    pub stream: Mutex<Body>,
}

impl Call {
    /// Who asks.
    pub fn actor(&self) -> &Actor {
        self.actor.as_ref().expect("a route without a scope asks for no actor")
    }

    /// Whose objects are meant.
    pub fn tenant(&self) -> &TenantId {
        &self.actor().tenant
    }

    /// The body, of a route that streams it; afterwards it is empty.
    pub fn take_stream(&self) -> Body {
        std::mem::take(&mut *self.stream.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What `{name}` of the path stands for.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters.get(name).map_or("", String::as_str)
    }

    /// The query, typed.
    ///
    /// # Errors
    /// It has unknown or ill-formed parameters.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let uri = format!("/?{}", self.query).parse().map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the query is not understood"))?;
        let parsed = axum::extract::Query::<T>::try_from_uri(&uri);
        parsed
            .map(|query| query.0)
            .map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the query is not understood: {}", error.body_text())))
    }

    /// The body, typed; an empty one is `{}` if that is enough.
    ///
    /// # Errors
    /// It is no JSON, nested too deeply, or says something else than is expected.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let body = if self.body.trim_ascii().is_empty() { b"{}" } else { &self.body[..] };
        serde_json::from_slice(body).map_err(|error| {
            Refusal::new(StatusCode::BAD_REQUEST, format!("the body is not understood: {error}"))
                .fix("GET /v1/openapi.json says what is expected")
        })
    }

    /// The body as text.
    ///
    /// # Errors
    /// It is no UTF-8.
    pub fn text(&self) -> Result<String, Refusal> {
        let text = std::str::from_utf8(&self.body).map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "the body is not UTF-8"))?;
        Ok(text.to_owned())
    }

    /// Which page of a list is asked for: where it begins, and its length.
    ///
    /// # Errors
    /// The query is not understood.
    pub fn paging(&self) -> Result<(Option<String>, usize), Refusal> {
        let Paging { limit, cursor } = self.query()?;
        Ok((cursor, limited(limit, PAGE, PAGE_MAX)?))
    }

    /// What a change of a job is made with.
    ///
    /// # Errors
    /// `If-Match` is none of our ETags.
    pub fn change(&self) -> Result<Change, Refusal> {
        Ok(Change { tenant: self.tenant().clone(), by: self.actor().token.clone(), expected: self.if_match()? })
    }

    /// The same, for a change of a job: what `If-Match` says is what the job is.
    ///
    /// # Errors
    /// There is no such job, or it has changed: 412.
    pub async fn change_of(&self, job: &str) -> Result<Change, Refusal> {
        let change = self.change()?;
        let found = self.service.jobs.job(&change.tenant, job).await?;
        match change.expected {
            Some(expected) if expected != found.revision => Err(changed_since(job)),
            _ => Ok(change),
        }
    }

    fn if_match(&self) -> Result<Option<Revision>, Refusal> {
        let Some(value) = self.headers.get(header::IF_MATCH) else { return Ok(None) };
        let text = value.to_str().unwrap_or_default();
        if text == "*" {
            return Ok(None);
        }
        // An ETag that is none of ours matches nothing.
        let revision = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).and_then(|text| text.parse().ok());
        revision.map(|revision| Some(Revision(revision))).ok_or_else(|| {
            Refusal::new(StatusCode::PRECONDITION_FAILED, "`If-Match` is no ETag of this service")
                .fix("send the ETag as it was received, with its quotes")
        })
    }
}

/// A number within its bounds.
///
/// # Errors
/// It is outside.
pub fn limited(limit: Option<usize>, usual: usize, most: usize) -> Result<usize, Refusal> {
    match limit.unwrap_or(usual) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        limit => Err(Refusal::new(StatusCode::BAD_REQUEST, format!("`limit` is {limit}; it must be 1 to {most}"))),
    }
}

fn changed_since(job: &str) -> Refusal {
    Refusal::new(StatusCode::PRECONDITION_FAILED, format!("job `{job}` has changed since it was read"))
        .fix("read it again, and send its new ETag")
}

/// What is answered.
pub struct Reply {
    status: StatusCode,
    content_type: &'static str,
    body: Body,
    etag: Option<Revision>,
    location: Option<String>,
}

impl Reply {
    /// 200 with JSON.
    pub fn json(value: &impl Serialize) -> Self {
        let body = serde_json::to_vec(value).expect("answers have string keys only");
        Self { status: StatusCode::OK, content_type: "application/json", body: Body::from(body), etag: None, location: None }
    }

    /// 204.
    pub fn nothing() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: "", body: Body::empty(), etag: None, location: None }
    }

    /// 200 with text.
    pub fn text(content_type: &'static str, text: String) -> Self {
        Self { status: StatusCode::OK, content_type, body: Body::from(text), etag: None, location: None }
    }

    /// 200 with events.
    pub fn events(body: Body) -> Self {
        Self { status: StatusCode::OK, content_type: "text/event-stream", body, etag: None, location: None }
    }

    /// With another status.
    pub fn status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// With an ETag.
    pub fn etag(self, revision: Revision) -> Self {
        Self { etag: Some(revision), ..self }
    }

    /// 201, and where it is.
    pub fn created(self, location: String) -> Self {
        Self { status: StatusCode::CREATED, location: Some(location), ..self }
    }

    /// The answer. `known`: the ETag that who asks has already.
    pub fn into_response(self, known: Option<&HeaderValue>) -> Response<Body> {
        let etag = self.etag.and_then(|revision| HeaderValue::from_str(&format!("\"{}\"", revision.0)).ok());
        let mut response = if etag.is_some() && etag.as_ref() == known && self.status == StatusCode::OK {
            let mut unchanged = Response::new(Body::empty());
            *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
            unchanged
        } else {
            let mut response = Response::new(self.body);
            *response.status_mut() = self.status;
            response
        };
        let headers = response.headers_mut();
        if !self.content_type.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(etag) = etag {
            headers.insert(header::ETAG, etag);
        }
        if let Some(location) = self.location.and_then(|location| HeaderValue::from_str(&location).ok()) {
            headers.insert(header::LOCATION, location);
        }
        response
    }
}
