//! Routes about jobs. What they decide is in [`crate::jobs`].

use std::{collections::BTreeMap, num::NonZeroU32};

use axum::http::{Method, StatusCode};
use millstream_model::ids::JobId;
use serde_json::Value;

use super::{
    call::{Answer, Call, Reply},
    problem::Refusal,
    route::{Route, Takes},
    system::page,
};
use crate::{
    api::{
        DeleteQuery, DeleteSavepoints, Desired, JobView, NewSavepoint, Page, Paging, Plan, PromoteRequest, RollbackRequest, RunView,
        SavepointView, ScaleRequest, StopRequest, SubmitQuery, SwapReport, SwapRequest, TrialRequest, TrialView, VersionView,
    },
    catalogue::{
        Found,
        objects::{Job, JobVersion, Scope, Start},
    },
    jobs::{Submission, prepare::Asked},
};

/// The routes.
pub fn routes() -> Vec<Route> {
    let mut routes = looking();
    routes.extend(changing());
    routes.extend(trying());
    routes
}

/// What changes nothing, and submitting.
fn looking() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/v1/validate", "validate-job", "Checks a job file without running it.", validate)
            .needs(Scope::View)
            .takes_body(Takes::JobFile)
            .gives::<Plan>(),
        Route::new(Method::GET, "/v1/jobs", "list-jobs", "The jobs.", list).needs(Scope::View).query::<Paging>().gives::<Page<JobView>>(),
        Route::new(Method::POST, "/v1/jobs", "submit-job", "Submits a job and starts it.", submit)
            .needs(Scope::Deploy)
            .takes_body(Takes::JobFile)
            .query::<SubmitQuery>()
            .gives::<JobView>()
            .creates(),
        Route::new(Method::GET, "/v1/jobs/{job}", "get-job", "One job.", get).needs(Scope::View).gives::<JobView>(),
        Route::new(
            Method::PUT,
            "/v1/jobs/{job}",
            "replace-job",
            "Puts another job file in its place; it goes on from its last checkpoint.",
            replace,
        )
        .needs(Scope::Deploy)
        .takes_body(Takes::JobFile)
        .gives::<JobView>(),
        Route::new(Method::DELETE, "/v1/jobs/{job}", "delete-job", "Deletes a job that does not run, with its checkpoints.", delete)
            .needs(Scope::Deploy)
            .query::<DeleteQuery>(),
        Route::new(Method::GET, "/v1/jobs/{job}/spec", "get-spec", "The job file of the version that runs, as it was submitted.", spec)
            .needs(Scope::View)
            .gives_body(super::route::Gives::Text("application/yaml")),
        Route::new(Method::GET, "/v1/jobs/{job}/plan", "get-plan", "How the version that runs is planned.", get_plan)
            .needs(Scope::View)
            .gives::<Plan>(),
        Route::new(Method::GET, "/v1/jobs/{job}/run", "get-run", "What it does now, operator by operator.", run)
            .needs(Scope::View)
            .gives::<RunView>(),
        Route::new(Method::GET, "/v1/jobs/{job}/versions", "list-versions", "Every version that is kept, oldest first.", versions)
            .needs(Scope::View)
            .gives::<Page<VersionView>>(),
        Route::new(Method::GET, "/v1/jobs/{job}/versions/{version}", "get-version", "One version, with its job file.", version)
            .needs(Scope::View)
            .gives::<VersionView>(),
    ]
}

/// What changes a job that is there.
fn changing() -> Vec<Route> {
    vec![
        Route::new(Method::POST, "/v1/jobs/{job}/pause", "pause-job", "Stops it behind a checkpoint, to go on later.", pause)
            .needs(Scope::Operate)
            .gives::<JobView>(),
        Route::new(Method::POST, "/v1/jobs/{job}/resume", "resume-job", "Has it run again, from its last checkpoint.", resume)
            .needs(Scope::Operate)
            .gives::<JobView>(),
        Route::new(
            Method::POST,
            "/v1/jobs/{job}/stop",
            "stop-job",
            "Stops it behind a checkpoint, or at once, and may make a savepoint of it.",
            stop,
        )
        .needs(Scope::Operate)
        .takes::<StopRequest>()
        .gives::<JobView>(),
        Route::new(Method::POST, "/v1/jobs/{job}/scale", "scale-job", "Gives it another parallelism.", scale)
            .needs(Scope::Operate)
            .takes::<ScaleRequest>()
            .gives::<JobView>(),
        Route::new(Method::POST, "/v1/jobs/{job}/swap", "swap-components", "Puts other components or settings into the running job.", swap)
            .needs(Scope::Deploy)
            .takes::<SwapRequest>()
            .gives::<SwapReport>(),
        Route::new(Method::POST, "/v1/jobs/{job}/rollback", "roll-back", "Puts the components of an earlier version back.", rollback)
            .needs(Scope::Operate)
            .takes::<RollbackRequest>()
            .gives::<SwapReport>(),
        Route::new(Method::GET, "/v1/jobs/{job}/savepoints", "list-savepoints", "Its savepoints.", savepoints)
            .needs(Scope::View)
            .gives::<Page<SavepointView>>(),
        Route::new(Method::POST, "/v1/jobs/{job}/savepoints", "take-savepoint", "Takes a savepoint.", take_savepoint)
            .needs(Scope::Operate)
            .takes::<NewSavepoint>()
            .gives::<SavepointView>()
            .creates(),
        Route::new(Method::GET, "/v1/jobs/{job}/savepoints/{savepoint}", "get-savepoint", "One savepoint.", savepoint)
            .needs(Scope::View)
            .gives::<SavepointView>(),
        Route::new(Method::DELETE, "/v1/jobs/{job}/savepoints/{savepoint}", "delete-savepoint", "Deletes a savepoint.", delete_savepoint)
            .needs(Scope::Operate),
    ]
}

/// Versions on trial.
fn trying() -> Vec<Route> {
    vec![
        Route::new(
            Method::GET,
            "/v1/jobs/{job}/trial",
            "get-trial",
            "The trial under way, or the last one, with samples of what differs.",
            trial,
        )
        .needs(Scope::View)
        .gives::<TrialView>(),
        Route::new(
            Method::POST,
            "/v1/jobs/{job}/trial",
            "try-component",
            "Runs a new version of an operator beside the old one: as a shadow, or for a share of the keys.",
            try_version,
        )
        .needs(Scope::Deploy)
        .takes::<TrialRequest>()
        .gives::<TrialView>(),
        Route::new(Method::DELETE, "/v1/jobs/{job}/trial", "end-trial", "Ends the trial: the old version answers alone.", end_trial)
            .needs(Scope::Operate)
            .gives::<TrialView>(),
        Route::new(
            Method::POST,
            "/v1/jobs/{job}/trial/promote",
            "promote-trial",
            "Swaps the version on trial into the place of the one that runs.",
            promote_trial,
        )
        .needs(Scope::Deploy)
        .takes::<PromoteRequest>()
        .gives::<SwapReport>(),
    ]
}

fn view(call: &Call, found: Found<Job>) -> JobView {
    let observed = call.service.jobs.runner(call.tenant(), &found.name).observed();
    let current = found.object.current();
    let (version, components) = (current.number, current.components.clone());
    JobView { observed, version, components, name: found.name, desired: found.object.desired, created_ms: found.object.created_ms }
}

async fn shown(call: &Call, name: &str) -> Result<Reply, Refusal> {
    let found = call.service.jobs.job(call.tenant(), name).await?;
    let revision = found.revision;
    Ok(Reply::json(&view(call, found)).etag(revision))
}

async fn planned(call: &Call, asked: &Asked) -> Result<Plan, Refusal> {
    let prepared = call.service.jobs.prepare(call.tenant(), asked, None).await?;
    prepared.check_outside().await?;
    let (job, explanation) = (call.service.jobs.name_in(asked)?, prepared.explain().await?);
    Ok(Plan { job, explanation, components: prepared.components.clone() })
}

async fn validate(call: Call) -> Answer {
    let asked = Asked { spec: call.text()?, ..Asked::default() };
    Ok(Reply::json(&planned(&call, &asked).await?))
}

async fn list(call: Call) -> Answer {
    let (cursor, limit) = call.paging()?;
    let found = call.service.store.list::<Job>(call.tenant(), cursor.as_deref(), limit).await?;
    Ok(Reply::json(&page(found, limit, |found| view(&call, found))))
}

async fn submit(call: Call) -> Answer {
    let SubmitQuery { name, from, allow_dropped, renames, paused } = call.query()?;
    let start = from.map(|from| start(&from, allow_dropped.as_deref(), renames.as_deref())).transpose()?;
    let replaced = name.map(|name| ("job".to_owned(), Value::String(name)));
    let submission = Submission { spec: call.text()?, replaced: replaced.into_iter().collect(), start, paused };
    let (name, _) = call.service.jobs.submit(&call.change()?, submission).await?;
    Ok(shown(&call, &name).await?.created(format!("/v1/jobs/{name}")))
}

/// `JOB/SAVEPOINT`, and what becomes of state that has no place.
fn start(from: &str, allow_dropped: Option<&str>, renames: Option<&str>) -> Result<Start, Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message);
    let (job, savepoint) = from.split_once('/').ok_or_else(|| bad("`from` is not JOB/SAVEPOINT".to_owned()))?;
    crate::components::check(job, "job")?;
    crate::savepoint::check_name(savepoint)?;
    let listed = |text: Option<&str>| -> Vec<String> {
        text.into_iter().flat_map(|text| text.split(',')).map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let mut renamed = BTreeMap::new();
    for rename in listed(renames) {
        let (old, new) = rename.split_once('=').ok_or_else(|| bad(format!("`{rename}` in `renames` is not OLD=NEW")))?;
        renamed.insert(old.to_owned(), new.to_owned());
    }
    Ok(Start { job: JobId::from(job), savepoint: savepoint.to_owned(), allow_dropped: listed(allow_dropped), renames: renamed })
}

async fn get(call: Call) -> Answer {
    shown(&call, call.parameter("job")).await
}

async fn replace(call: Call) -> Answer {
    let name = call.parameter("job");
    let change = call.change_of(name).await?;
    call.service.jobs.replace(&change, name, call.text()?).await?;
    shown(&call, name).await
}

async fn delete(call: Call) -> Answer {
    let DeleteQuery { savepoints } = call.query()?;
    let name = call.parameter("job");
    let change = call.change_of(name).await?;
    call.service.jobs.delete(&change, name, savepoints == Some(DeleteSavepoints::Delete)).await?;
    call.service.logs.forget(call.tenant().as_str(), name);
    Ok(Reply::nothing())
}

async fn spec(call: Call) -> Answer {
    let found = call.service.jobs.job(call.tenant(), call.parameter("job")).await?;
    Ok(Reply::text("application/yaml", found.object.current().spec.clone()).etag(found.revision))
}

async fn get_plan(call: Call) -> Answer {
    let found = call.service.jobs.job(call.tenant(), call.parameter("job")).await?;
    Ok(Reply::json(&planned(&call, &Asked::of(found.object.current())).await?))
}

async fn run(call: Call) -> Answer {
    let name = call.parameter("job");
    call.service.jobs.job(call.tenant(), name).await?;
    let runner = call.service.jobs.runner(call.tenant(), name);
    let status = match runner.running() {
        Some(running) => running.status().await,
        None => None,
    };
    let references = call.service.jobs.hidden_of(call.tenant(), name);
    let shown = |status| references.redact_value(serde_json::to_value(status).expect("a status has string keys only"));
    let whole = status.as_ref().map(shown);
    let durable = whole.as_ref().and_then(|status| status.get("durable").cloned());
    let operators = status.map(|status| status.operators).unwrap_or_default();
    Ok(Reply::json(&RunView { observed: runner.observed(), operators, durable, status: whole }))
}

fn version_view(version: &JobVersion, with_spec: bool) -> VersionView {
    VersionView {
        number: version.number,
        at_ms: version.at_ms,
        by: version.by.clone(),
        origin: version.origin.clone(),
        components: version.components.clone(),
        replaced: version.replaced.clone(),
        on_probation: version.on_probation,
        spec: with_spec.then(|| version.spec.clone()),
    }
}

async fn versions(call: Call) -> Answer {
    let found = call.service.jobs.job(call.tenant(), call.parameter("job")).await?;
    let items = found.object.versions.iter().map(|version| version_view(version, false)).collect();
    Ok(Reply::json(&Page { items, next: None }).etag(found.revision))
}

async fn version(call: Call) -> Answer {
    let (name, number) = (call.parameter("job"), call.parameter("version"));
    let found = call.service.jobs.job(call.tenant(), name).await?;
    let version = number.parse().ok().and_then(|number| found.object.version(number));
    let version = version.ok_or_else(|| Refusal::new(StatusCode::NOT_FOUND, format!("job `{name}` has no version `{number}`")))?;
    Ok(Reply::json(&version_view(version, true)))
}

async fn pause(call: Call) -> Answer {
    let name = call.parameter("job");
    call.service.jobs.halt(&call.change_of(name).await?, name, Desired::Paused).await?;
    shown(&call, name).await
}

async fn resume(call: Call) -> Answer {
    let name = call.parameter("job");
    call.service.jobs.resume_one(&call.change_of(name).await?, name).await?;
    shown(&call, name).await
}

async fn stop(call: Call) -> Answer {
    let name = call.parameter("job");
    let StopRequest { savepoint, at_once } = call.json()?;
    savepoint.as_deref().map_or(Ok(()), crate::savepoint::check_name)?;
    let change = call.change_of(name).await?;
    if at_once {
        call.service.jobs.halt_at_once(&change, name).await?;
    } else {
        call.service.jobs.halt(&change, name, Desired::Stopped).await?;
    }
    if savepoint.is_some() {
        call.service.jobs.take_savepoint(&change, name, savepoint).await?;
    }
    shown(&call, name).await
}

async fn scale(call: Call) -> Answer {
    let name = call.parameter("job");
    let ScaleRequest { parallelism } = call.json()?;
    let parallelism = NonZeroU32::new(parallelism).filter(|parallelism| parallelism.get() <= 1_024);
    let parallelism = parallelism.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, "`parallelism` must be 1 to 1024"))?;
    call.service.jobs.scale(&call.change_of(name).await?, name, parallelism).await?;
    shown(&call, name).await
}

async fn swap(call: Call) -> Answer {
    let name = call.parameter("job");
    let wanted: SwapRequest = call.json()?;
    let (report, revision) = call.service.jobs.swap(&call.change_of(name).await?, name, wanted).await?;
    Ok(Reply::json(&report).etag(revision))
}

async fn trial(call: Call) -> Answer {
    Ok(Reply::json(&call.service.jobs.trial(call.tenant(), call.parameter("job")).await?))
}

async fn try_version(call: Call) -> Answer {
    let name = call.parameter("job");
    let wanted: TrialRequest = call.json()?;
    Ok(Reply::json(&call.service.jobs.try_version(&call.change_of(name).await?, name, wanted).await?))
}

async fn end_trial(call: Call) -> Answer {
    let name = call.parameter("job");
    Ok(Reply::json(&call.service.jobs.end_trial(&call.change_of(name).await?, name).await?))
}

async fn promote_trial(call: Call) -> Answer {
    let name = call.parameter("job");
    let request: PromoteRequest = call.json()?;
    let (report, revision) = call.service.jobs.promote_trial(&call.change_of(name).await?, name, request).await?;
    Ok(Reply::json(&report).etag(revision))
}

async fn rollback(call: Call) -> Answer {
    let name = call.parameter("job");
    let RollbackRequest { to } = call.json()?;
    let (report, revision) = call.service.jobs.roll_back(&call.change_of(name).await?, name, to).await?;
    Ok(Reply::json(&report).etag(revision))
}

async fn savepoints(call: Call) -> Answer {
    let items = call.service.jobs.savepoints(call.tenant(), call.parameter("job")).await?;
    Ok(Reply::json(&Page { items, next: None }))
}

async fn take_savepoint(call: Call) -> Answer {
    let job = call.parameter("job");
    let NewSavepoint { name } = call.json()?;
    let taken = call.service.jobs.take_savepoint(&call.change_of(job).await?, job, name).await?;
    let location = format!("/v1/jobs/{job}/savepoints/{}", taken.name);
    Ok(Reply::json(&taken).created(location))
}

async fn savepoint(call: Call) -> Answer {
    let found = call.service.jobs.savepoint(call.tenant(), call.parameter("job"), call.parameter("savepoint")).await?;
    Ok(Reply::json(&found))
}

async fn delete_savepoint(call: Call) -> Answer {
    call.service.jobs.delete_savepoint(call.tenant(), call.parameter("job"), call.parameter("savepoint")).await?;
    Ok(Reply::nothing())
}
