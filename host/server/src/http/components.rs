//! Routes about components.

use axum::http::{Method, StatusCode};
use http_body_util::BodyExt as _;

use super::{
    call::{Answer, Call, Reply},
    dispatch::BODY_WAIT_MAX,
    problem::Refusal,
    route::{Route, Takes},
    system::page,
};
use crate::{
    api::{ComponentPhase, ComponentVersion, ComponentView, Page, Paging, PushQuery, TagTarget},
    catalogue::{
        Found,
        objects::{Scope, Tags},
    },
    components::{Reference, check_name, check_tag},
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
    let wait_s = wait.unwrap_or(WAIT_S);
    if wait_s > WAIT_S_MAX {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, format!("`wait` is {wait_s}; it must be at most {WAIT_S_MAX}")));
    }
    let too_large = || {
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the component is larger than {}", crate::text::size(components.bytes_max())))
            .fix("strip debug information, or have the operator of the service allow larger ones")
    };
    if call.headers.contains_key(axum::http::header::CONTENT_ENCODING) {
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "compressed bodies are not taken"));
    }
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
    let digest = components.push(call.tenant(), &name, tag.as_deref(), upload).await?;
    let wait_ms = i64::try_from(wait_s * 1_000).unwrap_or(i64::MAX);
    let component = components.settled(call.tenant(), &digest, call.service.clock.now_ms() + wait_ms).await?;
    let is_compiling = matches!(component.phase, ComponentPhase::Compiling { .. });
    if let ComponentPhase::Refused { problems } = component.phase {
        return Err(crate::failure::Failure { kind: millstream_model::ErrorKind::Invalid, problems }.into());
    }
    let location = format!("/v1/components/{name}/versions/sha256:{digest}");
    let reply = Reply::json(&version(&call, &name, digest).await?).created(location);
    Ok(if is_compiling { reply.status(StatusCode::ACCEPTED) } else { reply })
}

async fn version(call: &Call, name: &str, digest: String) -> Result<ComponentVersion, Refusal> {
    let tags = call.service.components.tags(call.tenant(), name).await?.object.tags;
    let component = call.service.components.component(call.tenant(), &digest).await?;
    let tags = tags.into_iter().filter(|(_, pointed)| *pointed == digest).map(|(tag, _)| tag).collect();
    Ok(ComponentVersion {
        name: name.to_owned(),
        digest,
        tags,
        bytes: component.bytes,
        pushed_ms: component.pushed_ms,
        phase: component.phase,
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
    let digest = call.service.components.resolve(call.tenant(), &Reference::parse(&text)?).await?;
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
