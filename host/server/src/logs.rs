//! The log lines of jobs, for whoever asks: the last ones of every job, kept in memory. Lines come from `tracing` events that carry a tenant and a job:
//! those of guests do. Numbers are those of the tenant, and tell nobody how much others say.
//!
//! Where a tenant has a limit, lines of its components beyond it are left out everywhere, the log of the service included, and counted: the next line
//! that is let in says how many.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_engine::clock::Clock;
use millstream_model::ids::TenantId;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

use crate::{references::Hidden, tenants::Bucket};

/// Lines that are kept of each job.
const KEPT: usize = 1_000;
/// Jobs of one tenant whose lines are kept.
const JOBS_MAX: usize = 10_000;
/// What components say: their `tracing` events have this target.
const GUESTS: &str = "guest";
/// What a line costs beside its text, in bytes.
const LINE_BYTES: u64 = 64;
/// As much may be said at once as within so many seconds.
const BURST_S: u64 = 4;

/// The longest message that is taken from a runner, in bytes: guests may say less.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// The longest id of an operator, and the longest version, that is taken from a runner, in bytes.
const OPERATOR_BYTES_MAX: usize = 1_000;
/// Bytes of the name of a split: a path, or a topic and its partition.
const SOURCE_BYTES_MAX: usize = 5_000;
/// What a line may be.
const LEVELS: [&str; 5] = ["trace", "debug", "info", "warn", "error"];

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
    /// The version of its component, as its author writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The hash of the key of the row that it was said of: 16 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_hash: Option<String>,
    /// The event time of that row, ms since epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_time_ms: Option<i64>,
    /// The split of a source that the row comes from, as far as it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its position there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// What was said.
    pub message: String,
}

impl Line {
    /// What the host says, not numbered yet.
    fn of_host(at_ms: i64, level: &str, message: String) -> Self {
        Self {
            number: 0,
            at_ms,
            level: level.to_owned(),
            operator: None,
            subtask: None,
            version: None,
            key_hash: None,
            event_time_ms: None,
            source: None,
            position: None,
            message,
        }
    }
}

/// The lines of all jobs, without what is hidden. Cheap to clone.
#[derive(Clone)]
pub struct Logs {
    clock: Arc<dyn Clock>,
    hidden: Hidden,
    kept: Arc<Mutex<Kept>>,
    limits: Arc<Mutex<BTreeMap<String, Limit>>>,
    /// Lines of all tenants so far: whoever waits looks again.
    all: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    tenants: BTreeMap<String, KeptOfTenant>,
}

#[derive(Default)]
struct KeptOfTenant {
    newest: u64,
    jobs: BTreeMap<String, VecDeque<Line>>,
}

/// How much the components of a tenant may say.
struct Limit {
    bytes_per_s: u64,
    bucket: Bucket,
    /// Job → lines that were left out since its last one.
    left_out: BTreeMap<String, u64>,
}

impl Logs {
    /// No line yet.
    pub fn new(clock: Arc<dyn Clock>, hidden: Hidden) -> Self {
        Self { clock, hidden, kept: Arc::default(), limits: Arc::default(), all: watch::Sender::new(0) }
    }

    /// The lines of a job behind number `after`, the last `limit` of them.
    pub fn of(&self, tenant: &str, job: &str, after: u64, limit: usize) -> Vec<Line> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(lines) = kept.tenants.get(tenant).and_then(|tenant| tenant.jobs.get(job)) else { return Vec::new() };
        let mut found: Vec<Line> = lines.iter().rev().take_while(|line| line.number > after).take(limit).cloned().collect();
        found.reverse();
        found
    }

    /// The lines of a job behind number `after`; waits until there is one. Cancel-safe.
    pub async fn after(&self, tenant: &str, job: &str, after: &mut u64) -> Vec<Line> {
        let mut all = self.all.subscribe();
        loop {
            let found = self.of(tenant, job, *after, KEPT);
            if let Some(last) = found.last() {
                *after = last.number;
                return found;
            }
            if all.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The lines of all jobs of a tenant behind number `after`, at most `limit` of them, each with its job; and the number of the last one.
    pub fn behind(&self, tenant: &str, after: u64, limit: usize) -> (Vec<(String, Line)>, u64) {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of_tenant) = kept.tenants.get(tenant).filter(|of_tenant| of_tenant.newest > after) else { return (Vec::new(), after) };
        let of_job = |(job, lines): (&String, &VecDeque<Line>)| -> Vec<(String, Line)> {
            let new = lines.iter().rev().take_while(|line| line.number > after);
            new.map(|line| (job.clone(), line.clone())).collect()
        };
        let mut found: Vec<_> = of_tenant.jobs.iter().flat_map(of_job).collect();
        found.sort_by_key(|(_, line)| line.number);
        found.truncate(limit);
        let until = if found.len() == limit { found.last().map_or(after, |(_, line)| line.number) } else { of_tenant.newest };
        (found, until)
    }

    /// Waits until a tenant has a line behind number `after`. Cancel-safe.
    pub async fn said(&self, tenant: &str, after: u64) {
        let mut all = self.all.subscribe();
        let newest = || {
            let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.tenants.get(tenant).map_or(0, |of_tenant| of_tenant.newest)
        };
        while newest() <= after {
            if all.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// A line that was said in a runner of the tenant: it gets a number of its own, and is cut where it is longer than a line may be.
    pub fn heard(&self, tenant: &TenantId, job: &str, line: Line) {
        let Line { at_ms, level, operator, subtask, version, key_hash, event_time_ms, source, position, message, number: _ } = line;
        let level = LEVELS.into_iter().find(|known| *known == level).unwrap_or("error");
        let message = cut(message, MESSAGE_BYTES_MAX);
        let [operator, version, key_hash] = [operator, version, key_hash].map(|text| Some(cut(text?, OPERATOR_BYTES_MAX)));
        let source = source.map(|source| cut(source, SOURCE_BYTES_MAX));
        let (tenant, job) = (Some(tenant.to_string()), Some(job.to_owned()));
        let said = Said { tenant, job, operator, subtask, version, key_hash, event_time_ms, source, position, message };
        if self.admits(&said) {
            self.add(said, level, at_ms);
        }
    }

    /// Forgets the lines of a job.
    pub fn forget(&self, tenant: &str, job: &str) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tenant) = kept.tenants.get_mut(tenant) {
            tenant.jobs.remove(job);
        }
    }

    /// Forgets the lines of a tenant, and what it may say.
    pub fn forget_tenant(&self, tenant: &str) {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).tenants.remove(tenant);
        self.limits.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }

    /// From now on the components of a tenant say at most so much; none: as much as they like.
    pub fn limit(&self, tenant: &str, bytes_per_s: Option<u64>) {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bytes_per_s) = bytes_per_s else { return drop(limits.remove(tenant)) };
        let now_ms = self.clock.monotonic_ms();
        let new = || Limit { bytes_per_s, bucket: Bucket::full(now_ms), left_out: BTreeMap::new() };
        limits.entry(tenant.to_owned()).or_insert_with(new).bytes_per_s = bytes_per_s;
    }

    /// Whether a line of a component is let in; if not, it is counted.
    fn admits(&self, said: &Said) -> bool {
        let (Some(tenant), Some(job)) = (&said.tenant, &said.job) else { return true };
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(limit) = limits.get_mut(tenant) else { return true };
        let bytes = said.message.len() as u64 + LINE_BYTES;
        let is_in = limit.bucket.take(self.clock.monotonic_ms(), limit.bytes_per_s, limit.bytes_per_s * BURST_S, bytes).is_ok();
        if !is_in {
            *limit.left_out.entry(job.clone()).or_default() += 1;
        }
        is_in
    }

    /// How many lines of a job were left out since its last one.
    fn left_out(&self, tenant: &str, job: &str) -> u64 {
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.get_mut(tenant).and_then(|limit| limit.left_out.remove(job)).unwrap_or_default()
    }

    fn add(&self, said: Said, level: &str, at_ms: i64) {
        let Said { tenant: Some(tenant), job: Some(job), operator, subtask, version, key_hash, event_time_ms, source, position, message } =
            said
        else {
            return;
        };
        // Its own alone: what others hide must not be found out by guessing.
        let hidden = self.hidden.of(&format!("{tenant}/{job}"));
        let (message, source) = (hidden.redact(&message), source.map(|source| hidden.redact(&source)));
        let left_out = self.left_out(&tenant, &job);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let of_tenant = kept.tenants.entry(tenant).or_default();
        if of_tenant.jobs.len() >= JOBS_MAX && !of_tenant.jobs.contains_key(&job) {
            return;
        }
        let lines = of_tenant.jobs.entry(job).or_default();
        let mut push = |line: Line| {
            of_tenant.newest += 1;
            lines.push_back(Line { number: of_tenant.newest, ..line });
            if lines.len() > KEPT {
                lines.pop_front();
            }
        };
        if left_out > 0 {
            let message = format!("{left_out} lines were left out: the quota `log-bytes-per-s` of this tenant was used up");
            push(Line::of_host(at_ms, "warn", message));
        }
        push(Line { operator, subtask, version, key_hash, event_time_ms, source, position, ..Line::of_host(at_ms, level, message) });
        drop(kept);
        self.all.send_modify(|all| *all += 1);
    }
}

/// The text, but no more than its first `bytes_max` bytes.
fn cut(mut text: String, bytes_max: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes_max));
    text
}

/// The fields of an event.
#[derive(Default)]
struct Said {
    tenant: Option<String>,
    job: Option<String>,
    operator: Option<String>,
    subtask: Option<u64>,
    version: Option<String>,
    key_hash: Option<String>,
    event_time_ms: Option<i64>,
    source: Option<String>,
    position: Option<u64>,
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
            "version" => self.version = Some(value.to_owned()),
            "key_hash" => self.key_hash = Some(value.to_owned()),
            "source" => self.source = Some(value.to_owned()),
            "message" => self.message = value.to_owned(),
            _ => {}
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        if field.name() == "event_time" {
            self.event_time_ms = Some(value);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "subtask" => self.subtask = Some(value),
            "position" => self.position = Some(value),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Logs {
    fn event_enabled(&self, event: &Event<'_>, _context: Context<'_, S>) -> bool {
        if event.metadata().target() != GUESTS {
            return true;
        }
        let mut said = Said::default();
        event.record(&mut said);
        self.admits(&said)
    }

    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        // Only those that carry a job are looked at further.
        if event.metadata().fields().field("job").is_none() {
            return;
        }
        let mut said = Said::default();
        event.record(&mut said);
        self.add(said, &event.metadata().level().as_str().to_ascii_lowercase(), self.clock.now_ms());
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

    /// What a tenant says too much is left out of every log and counted; its neighbour says what it likes.
    #[test]
    fn a_tenant_that_talks_too_much_is_cut_and_its_neighbour_is_not() {
        let clock = Arc::new(ManualClock::at(5));
        let logs = Logs::new(clock.clone(), Hidden::default());
        logs.limit("loud", Some(100));
        let elsewhere = Logs::new(clock.clone(), Hidden::default());
        let subscriber = tracing_subscriber::registry().with(elsewhere.clone()).with(logs.clone());
        tracing::subscriber::with_default(subscriber, || {
            let say =
                |tenant: &str| tracing::info!(target: "guest", %tenant, job = %"a", operator = %"o", subtask = 0_u32, "{}", "x".repeat(36));
            (0..10).for_each(|_| say("loud"));
            (0..10).for_each(|_| say("quiet"));
            clock.advance(std::time::Duration::from_secs(1));
            say("loud");
        });
        let said = |tenant: &str| logs.of(tenant, "a", 0, 100);
        // A burst of four seconds, 100 bytes each; then one more second.
        assert_eq!(said("loud").len(), 4 + 2);
        assert!(said("loud")[4].message.starts_with("6 lines were left out"), "{:?}", said("loud"));
        assert_eq!(said("quiet").len(), 10);
        assert_eq!(said("quiet").iter().map(|line| line.number).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        assert_eq!(elsewhere.of("loud", "a", 0, 100).len(), 5, "nor does the log of the service say it");
    }

    #[test]
    fn a_line_that_was_said_in_a_runner_is_cut_numbered_anew_and_without_what_is_hidden() {
        let hidden = Hidden::default();
        hidden.hide("t/a", &References::resolve(&serde_json::json!("${secret:key}"), |_| Ok("hunter2".to_owned())));
        let logs = Logs::new(Arc::new(ManualClock::at(5)), hidden);
        let line = |message: &str, level: &str| Line {
            number: u64::MAX,
            operator: Some("o".repeat(2 * OPERATOR_BYTES_MAX)),
            ..Line::of_host(3, level, message.to_owned())
        };
        logs.heard(&"t".into(), "a", line("it is hunter2", "info"));
        logs.heard(&"t".into(), "a", line(&"ä".repeat(MESSAGE_BYTES_MAX), "info\nevent: forged"));
        let lines = logs.of("t", "a", 0, 10);
        assert_eq!((lines[0].message.as_str(), lines[0].level.as_str(), lines[0].at_ms), ("it is ${secret:key}", "info", 3));
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((lines[1].message.len(), lines[1].level.as_str()), (MESSAGE_BYTES_MAX, "error"));
        assert_eq!(lines[1].operator.as_ref().map(String::len), Some(OPERATOR_BYTES_MAX));
    }

    #[test]
    fn lines_of_all_jobs_come_in_their_order_and_none_twice() {
        let logs = Logs::new(Arc::new(ManualClock::at(5)), Hidden::default());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(logs.clone()), || {
            for job in ["a", "b", "a", "b", "a"] {
                tracing::info!(target: "guest", tenant = %"t", job = %job, "{}", "said");
            }
        });
        let (first, until) = logs.behind("t", 0, 3);
        let (rest, end) = logs.behind("t", until, 3);
        let jobs = |lines: &[(String, Line)]| lines.iter().map(|(job, _)| job.clone()).collect::<String>();
        assert_eq!((jobs(&first), until, jobs(&rest), end), ("aba".to_owned(), 3, "ba".to_owned(), 5));
        assert_eq!(logs.behind("t", end, 3), (Vec::new(), 5));
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
