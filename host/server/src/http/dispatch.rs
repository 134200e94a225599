//! The way of a request: who asks → may they → do they ask too often → the body, within its limits → was it asked before → carry it out, to its end even if who asked has left →
//! write it down → answer. Every route goes this way; a handler sees only what has passed.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, Request, rejection::RawPathParamsRejection},
    http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header},
    routing::{MethodFilter, on},
};
use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use sha2::{Digest as _, Sha256};

use super::{
    call::{Call, Reply},
    problem::Refusal,
    route::{Gives, Route, Takes},
    service::Service,
};
use crate::{
    catalogue::{
        AuditRecord, Expected,
        objects::{self, Scope},
    },
    text::hexadecimal,
    token::{self, Actor},
};

/// Longest body that is taken whole, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// How long a body may take that is taken whole, and the next part of one that is streamed.
pub const BODY_WAIT_MAX: Duration = Duration::from_secs(30);
/// How long an answer is remembered under its idempotency key.
const REMEMBERED_MS: i64 = 24 * 3_600_000;
/// Longest answer that is remembered, in bytes.
const REMEMBERED_BYTES_MAX: usize = 256 << 10;
/// Longest idempotency key.
const KEY_BYTES_MAX: usize = 200;

/// The router of these routes.
pub fn router(service: &Arc<Service>, routes: &[Route]) -> Router {
    let mut router = Router::new();
    for route in routes {
        let filter = MethodFilter::try_from(route.method.clone()).expect("the methods of the table are those of HTTP");
        let (service, route) = (service.clone(), route.clone());
        let path = route.path;
        let handle = move |parameters: Result<RawPathParams, RawPathParamsRejection>, request: Request| {
            let (service, route) = (service.clone(), route.clone());
            async move {
                match parameters {
                    Ok(parameters) => {
                        let parameters = parameters.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                        answer(service, route, parameters, request).await
                    }
                    Err(error) => {
                        Refusal::new(StatusCode::BAD_REQUEST, format!("the path is not understood: {}", error.body_text())).into_response()
                    }
                }
            }
        };
        router = router.route(path, on(filter, handle));
    }
    router
        .fallback(async || {
            Refusal::new(StatusCode::NOT_FOUND, "there is nothing here").fix("GET /v1/openapi.json lists everything").into_response()
        })
        .method_not_allowed_fallback(async || {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "this cannot be done here")
                .fix("GET /v1/openapi.json says what can")
                .into_response()
        })
}

async fn answer(service: Arc<Service>, route: Route, parameters: BTreeMap<String, String>, request: Request) -> Response<Body> {
    let actor = match authorised(&service, &route, request.headers()).await {
        Ok(actor) => actor,
        Err(refusal) => return refusal.into_response(),
    };
    if let Some(actor) = &actor
        && let Err(refused) = service.tenants.admit_request(&actor.tenant).await
    {
        return Refusal::from(refused).into_response();
    }
    let (operation, gives) = (route.operation, route.gives);
    let finishing = finished(service, route, parameters, request, actor);
    if matches!(gives, Gives::Events) {
        return finishing.await;
    }
    // What was begun is finished, remembered and written down, whether who asked waits for it or not.
    tokio::spawn(finishing).await.unwrap_or_else(|panicked| {
        tracing::error!(%panicked, operation, "a request failed");
        fault_of_the_service().into_response()
    })
}

/// Carries a request out and writes it down.
async fn finished(
    service: Arc<Service>,
    route: Route,
    parameters: BTreeMap<String, String>,
    request: Request,
    actor: Option<Actor>,
) -> Response<Body> {
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let path = request.uri().path().to_owned();
    let asked_by = actor.clone();
    let job = parameters.get("job").cloned();
    let result = carried_out(&service, &route, parameters, request, actor).await;
    let result = match (&job, &asked_by) {
        (Some(job), Some(actor)) => result.map_err(|refusal| refusal.redacted(&service.jobs.hidden_of(&actor.tenant, job))),
        _ => result,
    };
    if let (true, Some(actor)) = (route.changes(), asked_by) {
        let (status, problem) = outcome(&route, &result);
        write_down(&service, &route, path, actor, status, problem).await;
    }
    match result {
        Ok(Done::Reply(reply)) => reply.into_response(known.as_ref()),
        Ok(Done::Again(response)) => response,
        Err(refusal) => refusal.into_response(),
    }
}

fn fault_of_the_service() -> Refusal {
    Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "the request failed by a fault of the service")
}

/// What was done.
enum Done {
    Reply(Reply),
    /// It had been done before: the same answer again.
    Again(Response<Body>),
}

async fn authorised(service: &Service, route: &Route, headers: &HeaderMap) -> Result<Option<Actor>, Refusal> {
    let Some(needed) = route.scope else { return Ok(None) };
    let actor = holder(service, headers).await?;
    if actor.may(needed) {
        return Ok(Some(actor));
    }
    let has: Vec<String> = actor.scopes.iter().map(Scope::to_string).collect();
    Err(Refusal::new(StatusCode::FORBIDDEN, format!("this needs the scope `{needed}`, and the token has `{}`", has.join("`, `"))).fix(
        match needed {
            Scope::Host => "this is for who runs the service: a token of the tenant `local` with the scope `host`",
            _ => "ask somebody with the scope `admin` for another token",
        },
    ))
}

/// Who sent these headers.
///
/// # Errors
/// 401: nobody we know.
pub async fn holder(service: &Service, headers: &HeaderMap) -> Result<Actor, Refusal> {
    let sent = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token = sent
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token.trim());
    let unknown = |message: &str| {
        Refusal::new(StatusCode::UNAUTHORIZED, message)
            .fix("send a token: `Authorization: Bearer ms_…`; `millstream login` keeps one")
            .with(header::WWW_AUTHENTICATE, "Bearer")
    };
    let Some(token) = token else { return Err(unknown("a token is missing")) };
    let actor = token::holder(&service.store, token, service.clock.now_ms()).await?;
    actor.ok_or_else(|| unknown("the token is not known, or no longer good"))
}

async fn carried_out(
    service: &Arc<Service>,
    route: &Route,
    parameters: BTreeMap<String, String>,
    request: Request,
    actor: Option<Actor>,
) -> Result<Done, Refusal> {
    if let Some((name, _)) =
        parameters.iter().find(|(_, value)| value.is_empty() || value.len() > 300 || value.chars().any(char::is_control))
    {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("`{name}` in the path is no name")));
    }
    let (parts, body) = request.into_parts();
    let (body, stream) = match route.takes {
        Takes::Component => (Bytes::new(), body),
        Takes::Nothing | Takes::Json(_) | Takes::JobFile => (whole(&parts.headers, body).await?, Body::empty()),
    };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    let key = match (idempotency_key(&parts.headers)?, &actor) {
        (Some(key), Some(actor)) if route.changes() && !matches!(route.takes, Takes::Component) => {
            Some(Remembered::of(key, actor, &parts.method, parts.uri.path(), &query, &body))
        }
        _ => None,
    };
    if let Some(key) = &key
        && let Some(response) = key.answered(service).await?
    {
        return Ok(Done::Again(response));
    }
    let call = Call { service: service.clone(), actor, parameters, query, headers: parts.headers, body, stream: Mutex::new(stream) };
    // A key is given back whatever happens.
    let result = AssertUnwindSafe((route.handler)(call)).catch_unwind().await.unwrap_or_else(|_| {
        tracing::error!(operation = route.operation, "a request failed");
        Err(fault_of_the_service())
    });
    match key {
        Some(key) => key.remember(service, result).await.map(Done::Again),
        None => result.map(Done::Reply),
    }
}

/// The whole body, within its limits.
async fn whole(headers: &HeaderMap, mut body: Body) -> Result<Bytes, Refusal> {
    let too_large =
        || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {}", crate::text::size(BODY_BYTES_MAX as u64)));
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    if said.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken"));
    }
    let reading = async {
        let mut taken = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))?;
            taken.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data));
            if taken.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
        }
        Ok(taken.freeze())
    };
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("the body did not arrive within {} s", BODY_WAIT_MAX.as_secs()));
    tokio::time::timeout(BODY_WAIT_MAX, reading).await.unwrap_or_else(|_| Err(late()))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let is_printable = |key: &&str| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let key = value.to_str().ok().filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len())).filter(is_printable);
    let refused = || Refusal::new(StatusCode::BAD_REQUEST, format!("`Idempotency-Key` is not 1 to {KEY_BYTES_MAX} printable characters"));
    key.map(|key| Some(key.to_owned())).ok_or_else(refused)
}

/// A request with an idempotency key.
struct Remembered {
    tenant: millstream_model::ids::TenantId,
    name: String,
    request: String,
}

impl Remembered {
    fn of(key: String, actor: &Actor, method: &Method, path: &str, query: &str, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [method.as_str().as_bytes(), path.as_bytes(), query.as_bytes(), body] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self { tenant: actor.tenant.clone(), name: format!("{}/{key}", actor.token), request: hexadecimal(&hash.finalize()) }
    }

    /// What was answered to the same request; none: it is new, and is being carried out from now on.
    async fn answered(&self, service: &Service) -> Result<Option<Response<Body>>, Refusal> {
        let found = service.store.get::<objects::Answer>(&self.tenant, &self.name).await?.map(|found| found.object);
        if let Some(answer) = found.filter(|answer| service.clock.now_ms() - answer.at_ms < REMEMBERED_MS) {
            if answer.request != self.request {
                return Err(Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "the idempotency key was used for another request")
                    .fix("use a new key for every new request"));
            }
            return Ok(Some(response_of(answer, true)));
        }
        let is_new = service.answering.lock().unwrap_or_else(PoisonError::into_inner).insert(format!("{}/{}", self.tenant, self.name));
        if !is_new {
            return Err(
                Refusal::new(StatusCode::CONFLICT, "a request with this idempotency key is being carried out").fix("ask again in a moment")
            );
        }
        Ok(None)
    }

    /// Remembers what was answered. What can be tried again is not: the next try may succeed.
    async fn remember(self, service: &Service, result: Result<Reply, Refusal>) -> Result<Response<Body>, Refusal> {
        let outcome = self.written_down(service, result).await;
        service.answering.lock().unwrap_or_else(PoisonError::into_inner).remove(&format!("{}/{}", self.tenant, self.name));
        outcome
    }

    async fn written_down(&self, service: &Service, result: Result<Reply, Refusal>) -> Result<Response<Body>, Refusal> {
        let (mut parts, body) = result?.into_response(None).into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        if body.len() <= REMEMBERED_BYTES_MAX {
            let kept = [header::CONTENT_TYPE, header::ETAG, header::LOCATION];
            let text = |value: &HeaderValue| value.to_str().unwrap_or_default().to_owned();
            let headers = kept.iter().filter_map(|name| Some((name.to_string(), text(parts.headers.get(name)?))));
            let answer = objects::Answer {
                request: self.request.clone(),
                at_ms: service.clock.now_ms(),
                status: parts.status.as_u16(),
                headers: headers.collect(),
                body: String::from_utf8_lossy(&body).into_owned(),
            };
            service.store.put(&self.tenant, &self.name, &answer, Expected::Any).await?;
        }
        parts.headers.remove(header::CONTENT_LENGTH);
        Ok(Response::from_parts(parts, Body::from(body)))
    }
}

fn response_of(answer: objects::Answer, replayed: bool) -> Response<Body> {
    let mut response = Response::new(Body::from(answer.body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK);
    for (name, value) in answer.headers {
        if let (Ok(name), Ok(value)) = (name.parse::<header::HeaderName>(), HeaderValue::from_str(&value)) {
            response.headers_mut().insert(name, value);
        }
    }
    if replayed {
        response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
    }
    response
}

/// The status of an answer, and what went wrong.
fn outcome(route: &Route, result: &Result<Done, Refusal>) -> (u16, Option<String>) {
    match result {
        Ok(Done::Reply(_)) => (route.status.as_u16(), None),
        Ok(Done::Again(response)) => (response.status().as_u16(), None),
        Err(refusal) => (refusal.status().as_u16(), Some(refusal.message().to_owned())),
    }
}

async fn write_down(service: &Service, route: &Route, path: String, actor: Actor, status: u16, problem: Option<String>) {
    let record = AuditRecord {
        number: 0,
        at_ms: service.clock.now_ms(),
        tenant: actor.tenant,
        token: actor.token,
        operation: route.operation.to_owned(),
        path,
        status,
        problem,
    };
    if let Err(error) = service.store.audit(record).await {
        tracing::error!(%error, operation = route.operation, "the audit could not be written");
    }
}
