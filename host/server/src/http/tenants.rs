//! Routes about tenants: those of who runs the service (scope `host`), and what a tenant may know of itself.

use axum::http::{Method, StatusCode};
use millstream_model::ids::TenantId;

use super::{
    call::{Answer, Call, Reply},
    problem::Refusal,
    route::Route,
    system::{made_token, page, token_view},
};
use crate::{
    api::{
        AmountsView, DayView, DeleteContents, DeleteTenantQuery, MadeToken, NewTenant, NewToken, Page, Paging, TenantSettings, TenantView,
        TokenView, UsageView,
    },
    catalogue::{
        Found,
        objects::{Scope, Tenant, Token},
    },
    tenants::usage::Usage,
    token,
};

/// The routes.
pub fn routes() -> Vec<Route> {
    let mut routes = own();
    routes.extend(of_the_host());
    routes
}

/// What a tenant may know of itself.
fn own() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/tenant", "get-own-tenant", "Whose objects are seen: limits, and what is in use.", own_tenant)
            .needs(Scope::View)
            .gives::<TenantView>(),
        Route::new(Method::GET, "/v1/usage", "get-own-usage", "What was used until now, by day.", own_usage)
            .needs(Scope::View)
            .gives::<UsageView>(),
    ]
}

fn of_the_host() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/tenants", "list-tenants", "The tenants.", list)
            .needs(Scope::Host)
            .query::<Paging>()
            .gives::<Page<TenantView>>(),
        Route::new(Method::POST, "/v1/tenants", "create-tenant", "Makes a tenant. It has no token yet.", create)
            .needs(Scope::Host)
            .takes::<NewTenant>()
            .gives::<TenantView>()
            .creates(),
        Route::new(Method::GET, "/v1/tenants/{tenant}", "get-tenant", "One tenant.", get).needs(Scope::Host).gives::<TenantView>(),
        Route::new(Method::PUT, "/v1/tenants/{tenant}", "set-tenant", "Gives a tenant other limits; they hold from now on.", set)
            .needs(Scope::Host)
            .takes::<TenantSettings>()
            .gives::<TenantView>(),
        Route::new(Method::DELETE, "/v1/tenants/{tenant}", "delete-tenant", "Deletes a tenant with its tokens and secrets.", delete)
            .needs(Scope::Host)
            .query::<DeleteTenantQuery>(),
        Route::new(Method::GET, "/v1/tenants/{tenant}/usage", "get-tenant-usage", "What a tenant has used until now, by day.", usage)
            .needs(Scope::Host)
            .gives::<UsageView>(),
        Route::new(Method::GET, "/v1/tenants/{tenant}/tokens", "list-tenant-tokens", "Its tokens, without their secrets.", tokens)
            .needs(Scope::Host)
            .query::<Paging>()
            .gives::<Page<TokenView>>(),
        Route::new(
            Method::POST,
            "/v1/tenants/{tenant}/tokens",
            "make-tenant-token",
            "Makes a token of a tenant; its secret is shown this once.",
            make_token,
        )
        .needs(Scope::Host)
        .takes::<NewToken>()
        .gives::<MadeToken>()
        .creates(),
        Route::new(
            Method::DELETE,
            "/v1/tenants/{tenant}/tokens/{token}",
            "revoke-tenant-token",
            "Revokes a token of a tenant: it is worth nothing from now on.",
            revoke_token,
        )
        .needs(Scope::Host)
        .gives::<TokenView>(),
    ]
}

async fn view(call: &Call, found: Found<Tenant>) -> Result<TenantView, Refusal> {
    let in_use = call.service.tenants.in_use(&TenantId::from(found.name.as_str())).await?;
    let Tenant { created_ms, settings, .. } = found.object;
    Ok(TenantView { name: found.name, created_ms, settings, in_use })
}

/// The tenant that the path names.
async fn named(call: &Call) -> Result<(TenantId, Found<Tenant>), Refusal> {
    let tenant = TenantId::from(call.parameter("tenant"));
    let found = call.service.tenants.get(&tenant).await?;
    Ok((tenant, found))
}

async fn shown(call: &Call, found: Found<Tenant>) -> Answer {
    let revision = found.revision;
    Ok(Reply::json(&view(call, found).await?).etag(revision))
}

async fn own_tenant(call: Call) -> Answer {
    let found = call.service.tenants.get(call.tenant()).await?;
    shown(&call, found).await
}

async fn own_usage(call: Call) -> Answer {
    Ok(Reply::json(&usage_view(call.tenant(), &call.service.meter.usage(call.tenant()).await?)))
}

async fn list(call: Call) -> Answer {
    let (cursor, limit) = call.paging()?;
    let found = call.service.tenants.list(cursor.as_deref(), limit).await?;
    let Page { items, next } = page(found, limit, |found| found);
    let mut views = Vec::with_capacity(items.len());
    for found in items {
        views.push(view(&call, found).await?);
    }
    Ok(Reply::json(&Page { items: views, next }))
}

async fn create(call: Call) -> Answer {
    let NewTenant { name, settings } = call.json()?;
    let found = call.service.tenants.create(&name, settings).await?;
    Ok(shown(&call, found).await?.created(format!("/v1/tenants/{name}")))
}

async fn get(call: Call) -> Answer {
    let (_, found) = named(&call).await?;
    shown(&call, found).await
}

async fn set(call: Call) -> Answer {
    let settings: TenantSettings = call.json()?;
    let (tenant, _) = named(&call).await?;
    let found = call.service.tenants.change(&tenant, settings).await?;
    shown(&call, found).await
}

async fn delete(call: Call) -> Answer {
    let DeleteTenantQuery { contents } = call.query()?;
    let (tenant, _) = named(&call).await?;
    let service = &call.service;
    service.jobs.delete_tenant(&service.tenants, &tenant, contents == Some(DeleteContents::Delete)).await?;
    service.logs.forget_tenant(tenant.as_str());
    service.meter.forget(&tenant);
    Ok(Reply::nothing())
}

async fn usage(call: Call) -> Answer {
    let (tenant, _) = named(&call).await?;
    Ok(Reply::json(&usage_view(&tenant, &call.service.meter.usage(&tenant).await?)))
}

async fn tokens(call: Call) -> Answer {
    let (tenant, _) = named(&call).await?;
    let (cursor, limit) = call.paging()?;
    let found = call.service.store.list::<Token>(&tenant, cursor.as_deref(), limit).await?;
    Ok(Reply::json(&page(found, limit, |found| token_view(&found.name, found.object))))
}

async fn make_token(call: Call) -> Answer {
    let new: NewToken = call.json()?;
    let (tenant, _) = named(&call).await?;
    if new.scopes.contains(&Scope::Host) && tenant != TenantId::local() {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "the scope `host` is for tokens of the tenant `local` alone")
            .fix("leave it out: `admin` may do everything within its tenant"));
    }
    let made = made_token(&call, &tenant, new).await?;
    let location = format!("/v1/tenants/{tenant}/tokens");
    Ok(Reply::json(&made).created(location))
}

async fn revoke_token(call: Call) -> Answer {
    let (tenant, _) = named(&call).await?;
    let id = call.parameter("token");
    let token = token::revoke(&call.service.store, &tenant, id, call.service.clock.now_ms()).await?;
    Ok(Reply::json(&token_view(id, token)))
}

fn usage_view(tenant: &TenantId, usage: &Usage) -> UsageView {
    let days = usage.days.iter().map(|(day, amounts)| DayView { day: day.clone(), used: AmountsView::of(*amounts) });
    UsageView { tenant: tenant.to_string(), total: AmountsView::of(usage.total()), days: days.collect() }
}
