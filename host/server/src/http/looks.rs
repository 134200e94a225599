//! Routes that look into a job while it runs: its rows, log lines, events and state.

use std::sync::Arc;

use axum::http::Method;
use futures::{FutureExt as _, future::BoxFuture};
use millstream_engine::run;
use serde_json::Value;
use tokio::runtime::Handle;

use super::{
    call::{Answer, Call, Reply, limited},
    route::{Gives, Route},
    sse,
    system::Happening,
};
use crate::{
    api::{Desired, EventsQuery, Line, Listed, LogQuery, Page, Phase, ResultsQuery, StateEntries, StateQuery, TailQuery, Why},
    catalogue::objects::Scope,
    failure::Failure,
    logs::Logs,
    results::Cursor,
    workshop::{Request, TailEvents, Workshop},
};

/// The routes.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/jobs/{job}/logs", "get-logs", "The last log lines of its components; with `follow` those to come, too.", logs)
            .needs(Scope::View)
            .query::<LogQuery>()
            .gives_or_events::<Page<Line>>(),
        Route::new(Method::GET, "/v1/jobs/{job}/events", "follow-job", "What happens to it, from now on.", events)
            .needs(Scope::View)
            .query::<EventsQuery>()
            .gives_body(Gives::Events),
        Route::new(
            Method::GET,
            "/v1/jobs/{job}/operators/{operator}/tail",
            "tail-operator",
            "The rows that an operator or source emits, or a sink is given, from now on. The job does not wait: what is not kept up with is counted as missed.",
            tail,
        )
        .needs(Scope::View)
        .query::<TailQuery>()
        .gives_body(Gives::Events),
        Route::new(Method::GET, "/v1/jobs/{job}/why", "explain-silence", "What a silent job waits for, as one sentence.", why)
            .needs(Scope::View)
            .gives::<Why>(),
        Route::new(
            Method::GET,
            "/v1/jobs/{job}/results",
            "get-results",
            "The rows that a finished job has written to a sink, page by page.",
            get_results,
        )
        .needs(Scope::View)
        .query::<ResultsQuery>()
        .gives::<Page<Value>>(),
        Route::new(Method::GET, "/v1/jobs/{job}/state", "list-state", "The states of its operators, as of its last checkpoint.", list_state)
            .needs(Scope::View)
            .gives::<Page<Listed>>(),
        Route::new(Method::GET, "/v1/jobs/{job}/state/{operator}", "read-state", "Entries of a state: of one key, or of all.", read_state)
            .needs(Scope::View)
            .query::<StateQuery>()
            .gives::<StateEntries>(),
    ]
}

/// The lines of one job, as a source of events.
struct Lines {
    logs: Logs,
    tenant: String,
    job: String,
    after: u64,
    first: Vec<Line>,
}

impl sse::Source for Lines {
    async fn next(&mut self) -> Option<sse::Events> {
        let lines = match std::mem::take(&mut self.first) {
            first if first.is_empty() => self.logs.after(&self.tenant, &self.job, &mut self.after).await,
            first => first,
        };
        let mut events = sse::Events::default();
        lines.iter().for_each(|line| events.push(Some(line.number), "line", line));
        Some(events)
    }
}

async fn logs(call: Call) -> Answer {
    let LogQuery { limit, after, follow, seconds } = call.query()?;
    let end = sse::end(seconds)?;
    let limit = limited(limit, 100, 1_000)?;
    let name = call.parameter("job");
    call.service.jobs.job(call.tenant(), name).await?;
    let (tenant, logs) = (call.tenant().to_string(), call.service.logs.clone());
    let found = logs.of(&tenant, name, after.unwrap_or(0), limit);
    if !follow {
        return Ok(Reply::json(&Page { items: found, next: None }));
    }
    let after = found.last().map_or(after.unwrap_or(0), |line| line.number);
    let lines = Lines { logs, tenant, job: name.to_owned(), after, first: found };
    Ok(Reply::events(sse::body(&call, lines, end)?))
}

async fn events(call: Call) -> Answer {
    let EventsQuery { seconds } = call.query()?;
    let (end, name) = (sse::end(seconds)?, call.parameter("job").to_owned());
    call.service.jobs.job(call.tenant(), &name).await?;
    Ok(Reply::events(sse::body(&call, Happening::of(&call, Some(name)), end)?))
}

/// The rows that pass an operator, as a source of events.
struct Rows {
    workshop: Arc<dyn Workshop>,
    tail: u64,
    /// What was asked for and has not come: it is asked for once, however often who asks is interrupted.
    next: Option<BoxFuture<'static, Result<Option<TailEvents>, Failure>>>,
}

impl sse::Source for Rows {
    async fn next(&mut self) -> Option<sse::Events> {
        let (workshop, tail) = (&self.workshop, self.tail);
        let next = self.next.get_or_insert_with(|| {
            let workshop = workshop.clone();
            async move { workshop.answer(Request::TailNext { tail }).await }.boxed()
        });
        let rows = next.await;
        self.next = None;
        // A runner that has ended shows no more rows.
        let mut events = sse::Events::default();
        for (name, data) in rows.ok()?? {
            // The names that there are: others would be lines of their own.
            if let Some(name) = ["rows", "missed", "unshowable"].into_iter().find(|known| *known == name) {
                events.push(None, name, &data);
            }
        }
        Some(events)
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        let (workshop, tail) = (self.workshop.clone(), self.tail);
        if let Ok(runtime) = Handle::try_current() {
            // It may have ended by itself.
            runtime.spawn(async move { drop(workshop.ask(Request::TailEnd { tail }).await) });
        }
    }
}

async fn tail(call: Call) -> Answer {
    let TailQuery { rows, seconds } = call.query()?;
    let end = sse::end(seconds)?;
    let (name, operator) = (call.parameter("job"), call.parameter("operator"));
    call.service.jobs.job(call.tenant(), name).await?;
    let running = call.service.jobs.runner(call.tenant(), name).must_run()?;
    let tail = running.answer(Request::Tail { job: name.to_owned(), operator: operator.to_owned(), rows }).await?;
    let source = Rows { workshop: running.workshop, tail, next: None };
    Ok(Reply::events(sse::body(&call, source, end)?))
}

async fn why(call: Call) -> Answer {
    let name = call.parameter("job");
    let wanted = call.service.jobs.job(call.tenant(), name).await?.object.desired;
    let runner = call.service.jobs.runner(call.tenant(), name);
    let status = match runner.running() {
        Some(running) => running.status().await,
        None => None,
    };
    let observed = runner.observed();
    let sentence = match status {
        Some(status) => run::why(&status),
        None => at_rest(wanted, &observed),
    };
    let sentence = call.service.jobs.hidden_of(call.tenant(), name).redact(&sentence);
    Ok(Reply::json(&Why { phase: observed.phase, sentence }))
}

/// What a job waits for that has no run.
fn at_rest(wanted: Desired, observed: &crate::api::Observed) -> String {
    match (observed.phase, wanted) {
        (Phase::Failed, _) => {
            let problem = observed.problems.first();
            let cause = problem.and_then(|problem| problem.causes.first()).or(problem.map(|problem| &problem.message));
            format!("it has failed: {}", cause.map_or("for an unknown cause", String::as_str))
        }
        (Phase::Finished, _) => "it has finished: all its input was read, and everything is written".to_owned(),
        (Phase::Starting, _) => "it is being started".to_owned(),
        (Phase::Stopping, _) => "it takes its last checkpoint".to_owned(),
        (Phase::Running | Phase::Stopped, Desired::Paused) => "it is paused, and waits to be resumed".to_owned(),
        (Phase::Running | Phase::Stopped, Desired::Stopped) => "it was stopped, and waits to be resumed".to_owned(),
        (Phase::Running | Phase::Stopped, Desired::Running) => "it should run and does not: it is about to start".to_owned(),
    }
}

async fn get_results(call: Call) -> Answer {
    let ResultsQuery { sink, limit, cursor } = call.query()?;
    let limit = limited(limit, 100, 10_000)?;
    cursor.as_deref().map(Cursor::parse).transpose()?;
    let (items, next) = call.service.jobs.results(call.tenant(), call.parameter("job"), sink, cursor, limit).await?;
    Ok(Reply::json(&Page { items, next }))
}

async fn list_state(call: Call) -> Answer {
    let (name, jobs) = (call.parameter("job"), &call.service.jobs);
    jobs.job(call.tenant(), name).await?;
    let items: Vec<Listed> = jobs.workshop(call.tenant()).await?.answer(Request::States { job: name.to_owned() }).await?;
    Ok(Reply::json(&Page { items, next: None }))
}

async fn read_state(call: Call) -> Answer {
    let StateQuery { state, key, limit, fresh } = call.query()?;
    let limit = limited(limit, 100, 10_000)?;
    let (name, jobs) = (call.parameter("job"), &call.service.jobs);
    jobs.job(call.tenant(), name).await?;
    if fresh {
        jobs.runner(call.tenant(), name).must_run()?.must_take_checkpoints().await?;
    }
    let (job, operator) = (name.to_owned(), call.parameter("operator").to_owned());
    let request = Request::Entries { job, operator, state, key, limit, fresh };
    let entries: StateEntries = jobs.workshop(call.tenant()).await?.answer(request).await?;
    Ok(Reply::json(&entries))
}
