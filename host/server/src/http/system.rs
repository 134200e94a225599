//! Routes about the service itself: health, metrics, its own description, who asks, tokens, secrets, the audit, events.

use std::sync::atomic::Ordering;

use axum::http::{Method, StatusCode};
use millstream_model::ids::TenantId;

use super::{
    call::{Answer, Call, Reply, limited},
    metrics, openapi,
    problem::Refusal,
    route::{Gives, Route},
    sse,
};
use crate::{
    api::{AuditQuery, Event, EventsQuery, Health, Identity, MadeToken, NewToken, Page, Paging, SecretValue, SecretView, TokenView},
    catalogue::{
        AuditRecord, Expected, Found,
        objects::{Scope, Secret, Token},
    },
    components,
    token::{self, Wanted},
};

/// Longest label of a token, in characters.
const LABEL_MAX: usize = 200;
/// What is longer than the longest time that a token may hold, in seconds.
const EXPIRES_S_MAX_AND_MORE: u64 = 3_153_600_001;
/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 << 10;

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/healthz", "health", "Whether the process answers.", health).gives::<Health>(),
        Route::new(Method::GET, "/readyz", "readiness", "Whether every job that should run was started.", readiness).gives::<Health>(),
        Route::new(Method::GET, "/metrics", "metrics", "Metrics of all jobs, as Prometheus reads them.", scrape)
            .needs(Scope::View)
            .gives_body(Gives::Text(metrics::CONTENT_TYPE)),
        Route::new(Method::GET, "/v1/openapi.json", "describe", "This document.", describe).gives::<serde_json::Value>(),
        Route::new(Method::GET, "/v1/whoami", "whoami", "Who asks, and what they may.", whoami).needs(Scope::View).gives::<Identity>(),
        Route::new(Method::GET, "/v1/tokens", "list-tokens", "The tokens, without their secrets.", list_tokens)
            .needs(Scope::Admin)
            .query::<Paging>()
            .gives::<Page<TokenView>>(),
        Route::new(Method::POST, "/v1/tokens", "make-token", "Makes a token; its secret is shown this once.", make_token)
            .needs(Scope::Admin)
            .takes::<NewToken>()
            .gives::<MadeToken>()
            .creates(),
        Route::new(Method::GET, "/v1/tokens/{token}", "get-token", "One token.", get_token).needs(Scope::Admin).gives::<TokenView>(),
        Route::new(Method::DELETE, "/v1/tokens/{token}", "revoke-token", "Revokes a token: it is worth nothing from now on.", revoke_token)
            .needs(Scope::Admin)
            .gives::<TokenView>(),
        Route::new(Method::GET, "/v1/secrets", "list-secrets", "The names of the secrets.", list_secrets)
            .needs(Scope::Deploy)
            .query::<Paging>()
            .gives::<Page<SecretView>>(),
        Route::new(Method::PUT, "/v1/secrets/{secret}", "set-secret", "Sets a secret; jobs see it when they start next.", set_secret)
            .needs(Scope::Deploy)
            .takes::<SecretValue>()
            .gives::<SecretView>(),
        Route::new(Method::DELETE, "/v1/secrets/{secret}", "delete-secret", "Deletes a secret that no job names.", delete_secret)
            .needs(Scope::Deploy),
        Route::new(Method::GET, "/v1/audit", "list-audit", "What was asked for, newest first.", list_audit)
            .needs(Scope::Admin)
            .query::<AuditQuery>()
            .gives::<Page<AuditRecord>>(),
        Route::new(Method::GET, "/v1/events", "follow-events", "What happens to all jobs, from now on.", follow_events)
            .needs(Scope::View)
            .query::<EventsQuery>()
            .gives_body(Gives::Events),
    ]
}

fn health_of(call: &Call) -> Health {
    let status = if call.service.is_ready.load(Ordering::Relaxed) { "ok" } else { "starting" };
    Health { status: status.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() }
}

async fn health(call: Call) -> Answer {
    Ok(Reply::json(&Health { status: "ok".to_owned(), ..health_of(&call) }))
}

async fn readiness(call: Call) -> Answer {
    if call.service.is_ready.load(Ordering::Relaxed) {
        return Ok(Reply::json(&health_of(&call)));
    }
    Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "jobs are still being started"))
}

async fn scrape(call: Call) -> Answer {
    Ok(Reply::text(metrics::CONTENT_TYPE, metrics::text(&call.service, call.tenant()).await?))
}

async fn describe(_call: Call) -> Answer {
    Ok(Reply::json(&openapi::document(&super::routes())))
}

async fn whoami(call: Call) -> Answer {
    let actor = call.actor();
    Ok(Reply::json(&Identity {
        tenant: actor.tenant.to_string(),
        token: actor.token.clone(),
        scopes: actor.scopes.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    }))
}

/// A token, as it is shown.
pub fn token_view(id: &str, token: Token) -> TokenView {
    let Token { label, scopes, created_ms, expires_ms, revoked_ms, .. } = token;
    TokenView { id: id.to_owned(), label, scopes, created_ms, expires_ms, revoked_ms }
}

/// A page, and where the next one begins.
pub fn page<T, V>(found: Vec<Found<T>>, limit: usize, view: impl Fn(Found<T>) -> V) -> Page<V> {
    let next = (found.len() == limit).then(|| found.last().map(|last| last.name.clone())).flatten();
    Page { items: found.into_iter().map(view).collect(), next }
}

async fn list_tokens(call: Call) -> Answer {
    let (cursor, limit) = call.paging()?;
    let found = call.service.store.list::<Token>(call.tenant(), cursor.as_deref(), limit).await?;
    Ok(Reply::json(&page(found, limit, |found| token_view(&found.name, found.object))))
}

async fn make_token(call: Call) -> Answer {
    let new: NewToken = call.json()?;
    if let Some(scope) = new.scopes.iter().find(|scope| !call.actor().may(**scope)) {
        let message = format!("a token cannot give what it has not: `{scope}`");
        return Err(Refusal::new(StatusCode::FORBIDDEN, message).fix("leave it out, or ask somebody who has it"));
    }
    let made = made_token(&call, call.tenant(), new).await?;
    let location = format!("/v1/tokens/{}", made.token.id);
    Ok(Reply::json(&made).created(location))
}

/// Makes a token of a tenant.
pub async fn made_token(call: &Call, tenant: &TenantId, new: NewToken) -> Result<MadeToken, Refusal> {
    let NewToken { label, scopes, expires_in_s } = new;
    if scopes.is_empty() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "`scopes` is empty").fix("name at least one of view, operate, deploy, admin"));
    }
    if label.chars().count() > LABEL_MAX || label.chars().any(char::is_control) {
        return Err(Refusal::new(
            StatusCode::BAD_REQUEST,
            format!("`label` is longer than {LABEL_MAX} characters, or has control characters"),
        ));
    }
    let now_ms = call.service.clock.now_ms();
    let expires_ms = match expires_in_s {
        Some(0) => return Err(Refusal::new(StatusCode::BAD_REQUEST, "`expires-in-s` is 0: the token would hold for no time")),
        Some(EXPIRES_S_MAX_AND_MORE..) => {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "`expires-in-s` is more than 100 years")
                .fix("leave it out: the token holds until it is revoked"));
        }
        Some(seconds) => Some(i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1_000).saturating_add(now_ms)),
        None => None,
    };
    let made = token::make(&call.service.store, tenant, Wanted { label, scopes, expires_ms }, now_ms).await?;
    Ok(MadeToken { secret: made.text, token: token_view(&made.id, made.token) })
}

async fn get_token(call: Call) -> Answer {
    let id = call.parameter("token");
    let found = call.service.store.get::<Token>(call.tenant(), id).await?;
    let found = found.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("there is no token `{id}`")))?;
    let revision = found.revision;
    Ok(Reply::json(&token_view(id, found.object)).etag(revision))
}

async fn revoke_token(call: Call) -> Answer {
    let id = call.parameter("token");
    let token = token::revoke(&call.service.store, call.tenant(), id, call.service.clock.now_ms()).await?;
    Ok(Reply::json(&token_view(id, token)))
}

fn secret_view(name: String, secret: &Secret) -> SecretView {
    SecretView { name, created_ms: secret.created_ms, updated_ms: secret.updated_ms }
}

async fn list_secrets(call: Call) -> Answer {
    let (cursor, limit) = call.paging()?;
    let found = call.service.store.list::<Secret>(call.tenant(), cursor.as_deref(), limit).await?;
    Ok(Reply::json(&page(found, limit, |found| secret_view(found.name, &found.object))))
}

async fn set_secret(call: Call) -> Answer {
    let name = call.parameter("secret");
    components::check(name, "secret")?;
    let SecretValue { value } = call.json()?;
    if value.len() > SECRET_BYTES_MAX {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the value is longer than 64 KiB"));
    }
    let now_ms = call.service.clock.now_ms();
    let before = call.service.store.get::<Secret>(call.tenant(), name).await?;
    let secret = Secret { value, created_ms: before.map_or(now_ms, |before| before.object.created_ms), updated_ms: now_ms };
    let revision = call.service.store.put(call.tenant(), name, &secret, Expected::Any).await?;
    call.service.jobs.secret_changed(call.tenant(), name).await?;
    Ok(Reply::json(&secret_view(name.to_owned(), &secret)).etag(revision))
}

async fn delete_secret(call: Call) -> Answer {
    call.service.jobs.delete_secret(call.tenant(), call.parameter("secret")).await?;
    Ok(Reply::nothing())
}

async fn list_audit(call: Call) -> Answer {
    let AuditQuery { limit, cursor } = call.query()?;
    let limit = limited(limit, 100, 1_000)?;
    let before = cursor.map(|cursor| cursor.parse::<u64>()).transpose();
    let before = before.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "`cursor` is not `next` of a page"))?;
    // What an earlier tenant of this name asked for is not its business.
    let since_ms = call.service.tenants.get(call.tenant()).await?.object.created_ms;
    let mut found = call.service.store.audited(call.tenant(), before, limit).await?;
    found.retain(|(_, record)| record.at_ms >= since_ms);
    let next = (found.len() == limit).then(|| found.last().map(|(number, _)| number.to_string())).flatten();
    Ok(Reply::json(&Page { items: found.into_iter().map(|(_, record)| record).collect(), next }))
}

/// What happens, as a source of events.
pub struct Happening {
    events: crate::events::Events,
    tenant: TenantId,
    job: Option<String>,
    after: u64,
}

impl Happening {
    /// From now on, or from where `Last-Event-ID` says.
    pub fn of(call: &Call, job: Option<String>) -> Self {
        let seen = call.headers.get("last-event-id").and_then(|value| value.to_str().ok()?.parse().ok());
        let events = call.service.events.clone();
        Self { after: seen.unwrap_or_else(|| events.newest(call.tenant())), events, tenant: call.tenant().clone(), job }
    }
}

impl sse::Source for Happening {
    async fn next(&mut self) -> Option<sse::Events> {
        let found: Vec<Event> = self.events.after(&self.tenant, self.job.as_deref(), &mut self.after).await;
        let mut events = sse::Events::default();
        found.iter().for_each(|event| events.push(Some(event.number), "event", event));
        Some(events)
    }
}

async fn follow_events(call: Call) -> Answer {
    let EventsQuery { seconds } = call.query()?;
    Ok(Reply::events(sse::body(&call, Happening::of(&call, None), sse::end(seconds)?)?))
}
