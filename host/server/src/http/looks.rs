//! Routes that look into a job while it runs: its rows, log lines, events and state.

use std::{ops::ControlFlow, path::PathBuf};

use axum::http::{Method, StatusCode};
use millstream_engine::run::{self, Tapped};
use millstream_model::{ErrorKind, ids::OperatorId};
use serde_json::{Value, json};

use super::{
    call::{Answer, Call, Reply, limited},
    problem::Refusal,
    route::{Gives, Route},
    sse,
    system::Happening,
};
use crate::{
    api::{Desired, EventsQuery, Line, Listed, LogQuery, Page, Phase, ResultsQuery, StateEntries, StateQuery, TailQuery, Why},
    catalogue::objects::Scope,
    failure::Failure,
    kept::Kept,
    logs::Logs,
    place::Place,
    results::{self, Cursor},
    rows::rows,
    state::{self, Entries, key},
};

/// Batches that wait for who looks at the rows of an operator.
const BATCHES_WAITING: usize = 8;
/// Rows of one event; the others of a batch are counted as missed.
const ROWS_SHOWN_MAX: usize = 200;

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
    Ok(Reply::events(sse::body(&call, lines, end)))
}

async fn events(call: Call) -> Answer {
    let EventsQuery { seconds } = call.query()?;
    let (end, name) = (sse::end(seconds)?, call.parameter("job").to_owned());
    call.service.jobs.job(call.tenant(), &name).await?;
    Ok(Reply::events(sse::body(&call, Happening::of(&call, Some(name)), end)))
}

/// The rows that pass an operator, as a source of events.
struct Rows {
    tapped: Tapped,
    left: Option<u64>,
}

impl sse::Source for Rows {
    async fn next(&mut self) -> Option<sse::Events> {
        if self.left == Some(0) {
            return None;
        }
        let batch = self.tapped.next().await?;
        let most = self.left.map_or(ROWS_SHOWN_MAX, |left| usize::try_from(left).unwrap_or(usize::MAX).min(ROWS_SHOWN_MAX));
        let shown = batch.num_rows().min(most);
        let mut events = sse::Events::default();
        match rows(batch.slice(0..shown).columns()) {
            Ok(rows) => {
                let times: Option<Vec<i64>> = batch.event_times().map(|times| times[..shown].to_vec());
                let changes: Option<Vec<u8>> = batch.changes().map(|changes| changes[..shown].to_vec());
                events.push(None, "rows", &json!({ "rows": rows, "event-times": times, "changes": changes }));
            }
            Err(failure) => events.push(None, "unshowable", &json!({ "rows": shown, "reason": failure.to_string() })),
        }
        self.left = self.left.map(|left| left.saturating_sub(shown as u64));
        let missed = self.tapped.take_missed() + (batch.num_rows() - shown) as u64;
        if missed > 0 && self.left != Some(0) {
            events.push(None, "missed", &json!({ "rows": missed }));
        }
        Some(events)
    }
}

async fn tail(call: Call) -> Answer {
    let TailQuery { rows, seconds } = call.query()?;
    let end = sse::end(seconds)?;
    let (name, operator) = (call.parameter("job"), OperatorId::from(call.parameter("operator")));
    call.service.jobs.job(call.tenant(), name).await?;
    let runner = call.service.jobs.runner(call.tenant(), name);
    let running = runner.must_run()?;
    if !running.plan.nodes.iter().any(|node| node.id == operator) {
        let known: Vec<String> = running.plan.nodes.iter().map(|node| format!("`{}`", node.id)).collect();
        return Err(Refusal::new(StatusCode::NOT_FOUND, format!("job `{name}` has no operator `{operator}`"))
            .fix(format!("it has {}", known.join(", "))));
    }
    let source = Rows { tapped: runner.taps.watch(&operator, BATCHES_WAITING), left: rows };
    Ok(Reply::events(sse::body(&call, source, end)))
}

async fn why(call: Call) -> Answer {
    let name = call.parameter("job");
    let wanted = call.service.jobs.job(call.tenant(), name).await?.object.desired;
    let runner = call.service.jobs.runner(call.tenant(), name);
    let status = match runner.running() {
        Some(running) => running.handle.status().await,
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

fn directory(call: &Call, job: &str) -> PathBuf {
    call.service.jobs.directory_of(call.tenant(), job)
}

async fn last_checkpoint(call: &Call, job: &str) -> Result<Kept, Refusal> {
    call.service.jobs.job(call.tenant(), job).await?;
    let none = || {
        Failure::new(ErrorKind::Conflict, format!("job `{job}` has committed no checkpoint yet"))
            .fix("while it runs: ask again with `fresh=true`")
    };
    let directory = directory(call, job);
    if !directory.join("job.json").exists() {
        return Err(none().into());
    }
    let (place, owner) = Place::existing(&directory)?;
    Ok(Kept::last(&place, &owner).await?.ok_or_else(none)?)
}

async fn get_results(call: Call) -> Answer {
    let ResultsQuery { sink, limit, cursor } = call.query()?;
    let limit = limited(limit, 100, 10_000)?;
    let cursor = cursor.as_deref().map(Cursor::parse).transpose()?;
    let source = call.service.jobs.results(call.tenant(), call.parameter("job"), sink.as_deref()).await?;
    let (items, next) = results::page(source, cursor, limit).await?;
    Ok(Reply::json(&Page { items, next: next.map(|next| next.to_string()) }))
}

async fn list_state(call: Call) -> Answer {
    let kept = last_checkpoint(&call, call.parameter("job")).await?;
    Ok(Reply::json(&Page { items: state::list(&kept, None)?, next: None }))
}

async fn read_state(call: Call) -> Answer {
    let StateQuery { state, key, limit, fresh } = call.query()?;
    let limit = limited(limit, 100, 10_000)?;
    let (name, operator) = (call.parameter("job"), call.parameter("operator"));
    call.service.jobs.job(call.tenant(), name).await?;
    if fresh {
        let running = call.service.jobs.runner(call.tenant(), name).must_run()?;
        running.must_take_checkpoints().await?;
        running.handle.checkpoint().await.map_err(|error| Failure::from_error(error.kind(), &error))?;
    }
    let kept = last_checkpoint(&call, name).await?;
    let entries = Entries::open(&kept, operator, state.as_deref()).await?;
    let only = key.as_deref().map(|key| wanted_key(&entries, key)).transpose()?;
    // Files are read: not on a thread that answers.
    let read = tokio::task::spawn_blocking(move || {
        let (mut found, mut left) = (Vec::new(), limit);
        entries.read(only.as_ref(), |page| {
            let taken = page.slice(0, page.num_rows().min(left));
            left -= taken.num_rows();
            found.extend(rows(&taken)?);
            Ok::<_, Failure>(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok::<_, Failure>(found)
    });
    let entries = read.await.expect("reading state does not panic")?;
    let facts = kept.facts();
    Ok(Reply::json(&StateEntries { checkpoint: facts.number, at_ms: facts.created_ms, entries }))
}

/// `COLUMN=VALUE,COLUMN=VALUE`; of a key of one column the rest may hold commas.
fn wanted_key(entries: &Entries, text: &str) -> Result<millstream_model::key::EncodedKeys, Refusal> {
    let bad = |message: String| Refusal::new(StatusCode::BAD_REQUEST, message).fix("write key=COLUMN=VALUE,COLUMN=VALUE");
    let whole = key::said(text).map_err(bad)?;
    if let Ok(key) = entries.key(&[whole]) {
        return Ok(key);
    }
    let parts = text.split(',').map(key::said).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    Ok(entries.key(&parts)?)
}
