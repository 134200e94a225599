//! Looking into jobs of a workshop: the rows that pass an operator, the state as of the last checkpoint, the rows that a finished job has written.

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt as _;
use millstream_engine::run::{Tapped, Taps};
use millstream_model::{Batch, ErrorKind, ids::OperatorId, key::EncodedKeys};
use serde_json::{Value, json};

use super::{inside::Floor, message::TailEvents};
use crate::{
    api::StateEntries,
    failure::Failure,
    kept::Kept,
    place::Place,
    results::{self, Cursor},
    rows::rows,
    state::{self, Entries, Listed, key},
};

/// Batches that wait for who looks at the rows of an operator.
const BATCHES_WAITING: usize = 256;
/// Rows of one event; the others of a batch are counted as missed.
const ROWS_SHOWN_MAX: usize = 200;
/// Rows of one answer: when it has so many, the others wait for the next.
const ROWS_AT_ONCE: usize = 2_000;
/// Who may look at once.
const TAILS_MAX: usize = 1_000;

/// Who looks at rows, and where.
#[derive(Default)]
pub(super) struct Tails(Mutex<Looking>);

#[derive(Default)]
struct Looking {
    last: u64,
    tails: BTreeMap<u64, Arc<tokio::sync::Mutex<Tail>>>,
    /// By job: they outlive its runs, so that who looks sees the next one too.
    taps: BTreeMap<String, Arc<Taps>>,
}

/// The rows that pass an operator.
struct Tail {
    tapped: Tapped,
    left: Option<u64>,
}

impl Tails {
    /// Where others look at the rows of a job.
    pub(super) fn taps(&self, job: &str) -> Arc<Taps> {
        self.looking().taps.entry(job.to_owned()).or_default().clone()
    }

    pub(super) fn forget(&self, job: &str) {
        self.looking().taps.remove(job);
    }

    pub(super) fn end(&self, tail: u64) {
        self.looking().tails.remove(&tail);
    }

    fn begin(&self, tail: Tail) -> Result<u64, Failure> {
        let mut looking = self.looking();
        if looking.tails.len() >= TAILS_MAX {
            return Err(Failure::new(ErrorKind::Unavailable, format!("{TAILS_MAX} look at rows already")).fix("end one of them"));
        }
        looking.last += 1;
        let number = looking.last;
        looking.tails.insert(number, Arc::new(tokio::sync::Mutex::new(tail)));
        Ok(number)
    }

    /// The next rows of a tail; none: there will be no more.
    pub(super) async fn next(&self, tail: u64) -> Option<TailEvents> {
        let found = self.looking().tails.get(&tail).cloned()?;
        let events = found.lock().await.next().await;
        if events.is_none() {
            self.end(tail);
        }
        events
    }

    fn looking(&self) -> std::sync::MutexGuard<'_, Looking> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    async fn next(&mut self) -> Option<TailEvents> {
        if self.left == Some(0) {
            return None;
        }
        let first = self.tapped.next().await?;
        let mut events = TailEvents::new();
        let mut shown = self.show(first, &mut events);
        // What has come meanwhile goes with it: whoever fetches rows one batch at a time falls behind.
        while shown < ROWS_AT_ONCE && self.left != Some(0) {
            let Some(Some(batch)) = self.tapped.next().now_or_never() else { break };
            shown += self.show(batch, &mut events).max(1);
        }
        Some(events)
    }

    /// Adds what is shown of a batch; how many rows that are.
    fn show(&mut self, batch: Batch, events: &mut TailEvents) -> usize {
        let most = self.left.map_or(ROWS_SHOWN_MAX, |left| usize::try_from(left).unwrap_or(usize::MAX).min(ROWS_SHOWN_MAX));
        let shown = batch.num_rows().min(most);
        let mut push = |name: &str, data: Value| events.push((name.to_owned(), data));
        match rows(batch.slice(0..shown).columns()) {
            Ok(rows) => {
                let times: Option<Vec<i64>> = batch.event_times().map(|times| times[..shown].to_vec());
                let changes: Option<Vec<u8>> = batch.changes().map(|changes| changes[..shown].to_vec());
                push("rows", json!({ "rows": rows, "event-times": times, "changes": changes }));
            }
            Err(failure) => push("unshowable", json!({ "rows": shown, "reason": failure.to_string() })),
        }
        self.left = self.left.map(|left| left.saturating_sub(shown as u64));
        let missed = self.tapped.take_missed() + (batch.num_rows() - shown) as u64;
        if missed > 0 && self.left != Some(0) {
            push("missed", json!({ "rows": missed }));
        }
        shown
    }
}

impl Floor {
    pub(super) fn tail(&self, job: &str, operator: &str, rows: Option<u64>) -> Result<u64, Failure> {
        let (run, operator) = (self.must_run(job)?, OperatorId::from(operator));
        if !run.plan.nodes.iter().any(|node| node.id == operator) {
            let known: Vec<String> = run.plan.nodes.iter().map(|node| format!("`{}`", node.id)).collect();
            return Err(Failure::new(ErrorKind::NotFound, format!("job `{job}` has no operator `{operator}`"))
                .fix(format!("it has {}", known.join(", "))));
        }
        self.tails.begin(Tail { tapped: self.tails.taps(job).watch(&operator, BATCHES_WAITING), left: rows })
    }

    async fn last_checkpoint(&self, job: &str) -> Result<Kept, Failure> {
        let none = || {
            Failure::new(ErrorKind::Conflict, format!("job `{job}` has committed no checkpoint yet"))
                .fix("while it runs: ask again with `fresh=true`")
        };
        let directory = self.directory.join(job);
        if !directory.join("job.json").exists() {
            return Err(none());
        }
        let (place, owner) = Place::existing(&directory)?;
        Kept::last(&place, &owner).await?.ok_or_else(none)
    }

    pub(super) async fn states(&self, job: &str) -> Result<Vec<Listed>, Failure> {
        state::list(&self.last_checkpoint(job).await?, None)
    }

    pub(super) async fn entries(
        &self,
        job: &str,
        operator: &str,
        state: Option<&str>,
        key: Option<&str>,
        limit: usize,
    ) -> Result<StateEntries, Failure> {
        let kept = self.last_checkpoint(job).await?;
        let entries = Entries::open(&kept, operator, state).await?;
        let only = key.map(|key| wanted_key(&entries, key)).transpose()?;
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
        Ok(StateEntries { checkpoint: facts.number, at_ms: facts.created_ms, entries })
    }

    pub(super) async fn results(
        &self,
        prepared: u64,
        sink: Option<&str>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Value>, Option<String>), Failure> {
        let prepared = self.prepared(prepared)?;
        let source = results::published(&prepared.plan, sink).map_err(|failure| prepared.references.redacted(failure))?;
        let cursor = cursor.map(Cursor::parse).transpose()?;
        let (rows, next) = results::page(source, cursor, limit).await?;
        Ok((rows, next.map(|next| next.to_string())))
    }
}

/// `COLUMN=VALUE,COLUMN=VALUE`; of a key of one column the rest may hold commas.
fn wanted_key(entries: &Entries, text: &str) -> Result<EncodedKeys, Failure> {
    let bad = |message: String| Failure::new(ErrorKind::Invalid, message).fix("write key=COLUMN=VALUE,COLUMN=VALUE");
    let whole = key::said(text).map_err(bad)?;
    if let Ok(key) = entries.key(&[whole]) {
        return Ok(key);
    }
    let parts = text.split(',').map(key::said).collect::<Result<Vec<_>, _>>().map_err(bad)?;
    entries.key(&parts)
}
