//! The log lines of jobs, for whoever asks: the last ones of every job, kept in memory. Lines come from `tracing` events that carry a tenant and a job:
//! those of guests do.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_engine::clock::Clock;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::references::Hidden;

/// Lines that are kept of each job.
const KEPT: usize = 1_000;
/// Jobs whose lines are kept.
const JOBS_MAX: usize = 10_000;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// Its number; grows.
    pub number: u64,
    /// When, ms since epoch.
    pub at_ms: i64,
    /// `trace`, `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// The operator that said it; none: the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Its subtask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subtask: Option<u64>,
    /// What was said.
    pub message: String,
}

/// The lines of all jobs, without what is hidden. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    clock: Arc<dyn Clock>,
    hidden: Hidden,
    kept: Arc<Mutex<Kept>>,
    newest: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    newest: u64,
    jobs: BTreeMap<(String, String), VecDeque<Line>>,
}

impl Logs {
    /// No line yet.
    pub fn new(clock: Arc<dyn Clock>, hidden: Hidden) -> Self {
        Self { clock, hidden, kept: Arc::default(), newest: watch::Sender::new(0) }
    }

    /// The lines of a job behind number `after`, the last `limit` of them.
    pub fn of(&self, tenant: &str, job: &str, after: u64, limit: usize) -> Vec<Line> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = kept.jobs.get(&(tenant.to_owned(), job.to_owned())) else { return Vec::new() };
        let mut found: Vec<Line> = lines.iter().rev().take_while(|line| line.number > after).take(limit).cloned().collect();
        found.reverse();
        found
    }

    /// The lines of a job behind number `after`; waits until there is one. Cancel-safe.
    pub async fn after(&self, tenant: &str, job: &str, after: &mut u64) -> Vec<Line> {
        let mut newest = self.newest.subscribe();
        loop {
            let found = self.of(tenant, job, *after, KEPT);
            if let Some(last) = found.last() {
                *after = last.number;
                return found;
            }
            if newest.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Forgets the lines of a job.
    pub fn forget(&self, tenant: &str, job: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.jobs.remove(&(tenant.to_owned(), job.to_owned()));
    }

    fn add(&self, said: Said, level: &str) {
        let (Some(tenant), Some(job)) = (said.tenant, said.job) else { return };
        // Its own alone: what others hide must not be found out by guessing.
        let message = self.hidden.of(&format!("{tenant}/{job}")).redact(&said.message);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.newest += 1;
        let number = kept.newest;
        if kept.jobs.len() >= JOBS_MAX && !kept.jobs.contains_key(&(tenant.clone(), job.clone())) {
            return;
        }
        let Said { operator, subtask, .. } = said;
        let lines = kept.jobs.entry((tenant, job)).or_default();
        lines.push_back(Line { number, at_ms: self.clock.now_ms(), level: level.to_owned(), operator, subtask, message });
        if lines.len() > KEPT {
            lines.pop_front();
        }
        drop(kept);
        self.newest.send_replace(number);
    }
}

/// The fields of an event.
#[derive(Default)]
struct Said {
    tenant: Option<String>,
    job: Option<String>,
    operator: Option<String>,
    subtask: Option<u64>,
    message: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        let mut text = String::new();
        // Writing to a text does not fail.
        let _ = write!(text, "{value:?}");
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "tenant" => self.tenant = Some(value.to_owned()),
            "job" => self.job = Some(value.to_owned()),
            "operator" => self.operator = Some(value.to_owned()),
            "message" => self.message = value.to_owned(),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "subtask" {
            self.subtask = Some(value);
        }
    }
}

impl<S: Subscriber> Layer<S> for Logs {
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        // Only those that carry a job are looked at further.
        if event.metadata().fields().field("job").is_none() {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        self.add(said, &event.metadata().level().as_str().to_ascii_lowercase());
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::clock::ManualClock;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;
    use crate::references::References;

    #[test]
    fn lines_of_a_job_are_found_under_its_tenant_alone() {
        let logs = Logs::new(Arc::new(ManualClock::at(5)), Hidden::default());
        let subscriber = tracing_subscriber::registry().with(logs.clone());
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: "guest", tenant = %"t", job = %"a", operator = %"o", subtask = 3_u32, "{}", "seen");
            tracing::info!("of no job");
        });
        let lines = logs.of("t", "a", 0, 10);
        assert_eq!(lines.len(), 1);
        assert_eq!((lines[0].message.as_str(), lines[0].subtask, lines[0].operator.as_deref()), ("seen", Some(3), Some("o")));
        assert!(logs.of("u", "a", 0, 10).is_empty());
        assert!(logs.of("t", "a", lines[0].number, 10).is_empty());
    }

    #[test]
    fn a_line_does_not_say_what_is_hidden() {
        let hidden = Hidden::default();
        hidden.hide("t/a", &References::resolve(&serde_json::json!("${secret:key}"), |_| Ok("hunter2".to_owned())));
        let logs = Logs::new(Arc::new(ManualClock::at(5)), hidden);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logs.clone()), || {
            tracing::info!(target: "guest", tenant = %"t", job = %"a", operator = %"o", subtask = 3_u32, "{}", "it is hunter2");
        });
        assert_eq!(logs.of("t", "a", 0, 10)[0].message, "it is ${secret:key}");
    }
}
