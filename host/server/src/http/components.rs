//! Routes about components.

use axum::http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use millstream_model::ErrorKind;

use super::{
    call::{Answer, Call, Reply},
    dispatch::BODY_WAIT_MAX,
    problem::Refusal,
    route::{Route, Takes},
    system::page,
};
use crate::{
    api::{
        ComponentPhase, ComponentVersion, ComponentView, Page, Paging, PullRequest, PushQuery, TagSwap, TagSwapRequest, TagTarget,
        VersionQuery,
    },
    catalogue::{
        Found,
        objects::{Scope, Secret, Tags},
    },
    components::{Reference, Upload, check, check_name, check_tag, pull::Image},
    failure::Failure,
    jobs::Change,
};

/// How long a push waits for the compiler if it is not told, in seconds.
const WAIT_S: u64 = 30;
/// How long it may be told to wait.
const WAIT_S_MAX: u64 = 120;

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/components", "list-components", "The names under which components were pushed.", list)
            .needs(Scope::View)
            .query::<Paging>()
            .gives::<Page<ComponentView>>(),
        Route::new(
            Method::POST,
            "/v1/components/{component}",
            "push-component",
            "Pushes a component; 202: it is still being compiled.",
            push,
        )
        .needs(Scope::Deploy)
        .takes_body(Takes::Component)
        .query::<PushQuery>()
        .gives::<ComponentVersion>()
        .creates(),
        Route::new(
            Method::POST,
            "/v1/components/{component}/pull",
            "pull-component",
            "Pulls a component from an OCI registry, by digest; 202: it is still being compiled.",
            pull,
        )
        .needs(Scope::Deploy)
        .takes::<PullRequest>()
        .query::<PushQuery>()
        .gives::<ComponentVersion>()
        .creates(),
        Route::new(Method::GET, "/v1/components/{component}", "get-component", "A name, its tags and digests.", get)
            .needs(Scope::View)
            .gives::<ComponentView>(),
        Route::new(Method::DELETE, "/v1/components/{component}", "delete-component", "Deletes a name that no job uses.", delete)
            .needs(Scope::Deploy),
        Route::new(
            Method::GET,
            "/v1/components/{component}/versions/{reference}",
            "get-component-version",
            "One component, by tag or as `sha256:DIGEST`: how far it is, its ports, settings, imports and exports.",
            get_version,
        )
        .needs(Scope::View)
        .query::<VersionQuery>()
        .gives::<ComponentVersion>(),
        Route::new(
            Method::PUT,
            "/v1/components/{component}/tags/{tag}",
            "set-tag",
            "Points a tag to a digest. What runs stays as it is.",
            set_tag,
        )
        .needs(Scope::Deploy)
        .takes::<TagTarget>()
        .gives::<ComponentView>(),
        Route::new(Method::DELETE, "/v1/components/{component}/tags/{tag}", "delete-tag", "Removes a tag.", delete_tag)
            .needs(Scope::Deploy),
        Route::new(
            Method::POST,
            "/v1/components/{component}/tags/{tag}/swap",
            "swap-tag",
            "Puts what the tag points to into every job that names it: planned for all of them first, then swapped.",
            swap_tag,
        )
        .needs(Scope::Deploy)
        .takes::<TagSwapRequest>()
        .gives::<TagSwap>(),
    ]
}

fn view(found: Found<Tags>) -> ComponentView {
    ComponentView { name: found.name, tags: found.object.tags, digests: found.object.digests }
}

async fn list(call: Call) -> Answer {
    let (cursor, limit) = call.paging()?;
    let found = call.service.components.names(call.tenant(), cursor.as_deref(), limit).await?;
    Ok(Reply::json(&page(found, limit, view)))
}

async fn push(call: Call) -> Answer {
    let PushQuery { tag, wait } = call.query()?;
    let name = call.parameter("component").to_owned();
    check_name(&name)?;
    tag.as_deref().map_or(Ok(()), check_tag)?;
    let components = call.service.components.clone();
    let wait_ms = wait_ms(wait.unwrap_or(WAIT_S))?;
    let too_large = || {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the component is larger than {}", crate::text::size(components.bytes_max())))
            .fix("strip debug information, or have the operator of the service allow larger ones")
    };
    if call.headers.contains_key(axum::http::header::CONTENT_ENCODING) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken"));
    }
    let _permit = call.service.tenants.admit_upload(call.tenant())?;
    let mut stream = call.take_stream();
    let mut upload = components.upload().await?;
    let mut bytes = 0_u64;
    let late = || Refusal::new(StatusCode::REQUEST_TIMEOUT, format!("nothing arrived for {} s", BODY_WAIT_MAX.as_secs()));
    while let Some(frame) = tokio::time::timeout(BODY_WAIT_MAX, stream.frame()).await.map_err(|_| late())? {
        let frame = frame.map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, format!("the body broke off: {error}")))?;
        let data = frame.data_ref().map_or(&[][..], |data| data);
        bytes += data.len() as u64;
        if bytes > components.bytes_max() {
            return Err(too_large());
        }
        upload.add(data).await?;
    }
    pushed(&call, &name, tag.as_deref(), upload, wait_ms).await
}

async fn pull(call: Call) -> Answer {
    let PushQuery { tag, wait } = call.query()?;
    let PullRequest { reference, secret } = call.json()?;
    let name = call.parameter("component");
    check_name(name)?;
    tag.as_deref().map_or(Ok(()), check_tag)?;
    let wait_ms = wait_ms(wait.unwrap_or(WAIT_S))?;
    let image = Image::parse(&reference)?;
    let credentials = match secret {
        Some(secret) => {
            check(&secret, "secret")?;
            let found = call.service.store.get::<Secret>(call.tenant(), &secret).await?;
            Some(found.ok_or_else(|| no_secret(&secret))?.object.value)
        }
        None => None,
    };
    let _permit = call.service.tenants.admit_upload(call.tenant())?;
    let upload = call.service.components.pull(&image, credentials.as_deref()).await?;
    pushed(&call, name, tag.as_deref(), upload, wait_ms).await
}

fn no_secret(name: &str) -> Failure {
    Failure::new(ErrorKind::NotFound, format!("there is no secret `{name}`")).fix(format!("millstream secret set {name}"))
}

/// Makes what has arrived a component, and says how far it is.
async fn pushed(call: &Call, name: &str, tag: Option<&str>, upload: Upload, wait_ms: i64) -> Answer {
    let components = &call.service.components;
    let digest = components.push(call.tenant(), name, tag, upload).await?;
    let component = components.settled(call.tenant(), &digest, wait_ms).await?;
    let is_compiling = matches!(component.phase, ComponentPhase::Compiling { .. });
    if let ComponentPhase::Refused { problems } = component.phase {
        return Err(Failure { kind: ErrorKind::Invalid, problems }.into());
    }
    let location = format!("/v1/components/{name}/versions/sha256:{digest}");
    let reply = Reply::json(&version(call, name, digest).await?).created(location);
    Ok(if is_compiling { reply.status(StatusCode::ACCEPTED) } else { reply })
}

/// How long an answer waits for the compiler.
fn wait_ms(wait_s: u64) -> Result<i64, Refusal> {
    if wait_s > WAIT_S_MAX {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("`wait` is {wait_s}; it must be at most {WAIT_S_MAX}")));
    }
    Ok(i64::try_from(wait_s * 1_000).unwrap_or(i64::MAX))
}

async fn version(call: &Call, name: &str, digest: String) -> Result<ComponentVersion, Refusal> {
    let tags = call.service.components.tags(call.tenant(), name).await?.object.tags;
    let component = call.service.components.component(call.tenant(), &digest).await?;
    let tags = tags.into_iter().filter(|(_, pointed)| *pointed == digest).map(|(tag, _)| tag).collect();
    Ok(ComponentVersion {
        name: name.to_owned(),
        tags,
        bytes: component.bytes,
        pushed_ms: component.pushed_ms,
        progress: matches!(component.phase, ComponentPhase::Compiling { .. }).then(|| call.service.components.progress(&digest)),
        phase: component.phase,
        digest,
    })
}

async fn get(call: Call) -> Answer {
    let found = call.service.components.tags(call.tenant(), call.parameter("component")).await?;
    let revision = found.revision;
    Ok(Reply::json(&view(found)).etag(revision))
}

async fn delete(call: Call) -> Answer {
    call.service.components.delete(call.tenant(), call.parameter("component")).await?;
    Ok(Reply::nothing())
}

async fn get_version(call: Call) -> Answer {
    let (name, which) = (call.parameter("component"), call.parameter("reference"));
    let text = if which.starts_with("sha256:") { format!("{name}@{which}") } else { format!("{name}:{which}") };
    let wait_ms = wait_ms(call.query::<VersionQuery>()?.wait.unwrap_or(0))?;
    let digest = call.service.components.resolve(call.tenant(), &Reference::parse(&text)?).await?;
    call.service.components.settled(call.tenant(), &digest, wait_ms).await?;
    Ok(Reply::json(&version(&call, name, digest).await?))
}

async fn set_tag(call: Call) -> Answer {
    let TagTarget { digest } = call.json()?;
    let (name, tag) = (call.parameter("component"), call.parameter("tag"));
    check_tag(tag)?;
    call.service.components.tag(call.tenant(), name, tag, digest.trim_start_matches("sha256:")).await?;
    get(call).await
}

async fn delete_tag(call: Call) -> Answer {
    call.service.components.untag(call.tenant(), call.parameter("component"), call.parameter("tag")).await?;
    Ok(Reply::nothing())
}

async fn swap_tag(call: Call) -> Answer {
    let wanted: TagSwapRequest = call.json()?;
    // A tag has no ETag: the plan is guarded by its digest.
    let change = Change { expected: None, ..call.change()? };
    Ok(Reply::json(&call.service.jobs.swap_tag(&change, call.parameter("component"), call.parameter("tag"), wanted).await?))
}
