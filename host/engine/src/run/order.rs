//! Rows in event-time order (`order: event-time`): held until the watermark passes them, then delivered sorted by (event time, port,
//! arrival).
//!
//! Rows lie in *runs*, each sorted by event time; sixteen runs of one level are merged into one of the next, so a row is copied a few times
//! however many are held. A release takes the prefix of each run that the watermark has passed, in chunks of bounded size.
//!
//! An operator with event-time timers gets its rows in *rounds*: the n-th round holds the n-th row of each key, and before it the timers of
//! those keys that come before that row fire. Then results do not depend on how far a watermark jumps. An operator with several inputs
//! gets rounds too: a key's rows never overtake each other from one port to another.

use std::collections::VecDeque;

use arrow_array::Array;
use arrow_select::interleave::interleave;
use millstream_model::{Batch, EventTime, Watermark};

use super::outlet::keys_of;
use crate::operator::NextRows;

/// Rows that are sorted and delivered at once.
const CHUNK_ROWS: usize = 1 << 16;
/// Runs of one level that are merged into one of the next.
const RUNS_PER_LEVEL: usize = 16;

/// The held rows of one operator in one subtask.
pub(super) struct EventTimeOrder {
    ports: Vec<Vec<Run>>,
    settings: OrderSettings,
    /// All rows up to here were delivered.
    delivered: Option<Watermark>,
    /// Rows up to here are to be delivered now.
    releasing: Option<Watermark>,
    rounds: VecDeque<PlannedRound>,
    /// Everything of the chunk that `rounds` point into, per port.
    chunk: Vec<Option<Batch>>,
    chunk_up_to: Watermark,
    next_rows: NextRows,
    last_keys: Vec<u32>,
}

/// What the order must respect.
#[derive(Clone, Debug)]
pub(super) struct OrderSettings {
    /// The key columns of each port; empty: one key for all.
    pub(super) keys: Vec<Vec<usize>>,
    /// Rows alternate with timers.
    pub(super) with_timers: bool,
    /// Most rows of a batch.
    pub(super) batch_rows: usize,
}

/// Rows to deliver, then ask for more.
pub(super) struct Round {
    /// Rows by port, ports ascending.
    pub(super) batches: Vec<(usize, Batch)>,
    /// The watermark that the rows are delivered under: one ms before the earliest row that is not delivered yet, these included. So none of
    /// them is late, and it never goes backwards from one round to the next.
    pub(super) watermark: Watermark,
    /// Timers up to here may fire before these rows, but for those that [`EventTimeOrder::next_rows`] holds back.
    pub(super) up_to: Watermark,
}

/// Row numbers of the chunk, per port, and for each key among them its number and the time of its row.
struct PlannedRound {
    rows: Vec<Vec<u32>>,
    keys: Vec<(u32, i64)>,
    /// The earliest event time of its rows and those of all later rounds.
    earliest: i64,
}

struct Run {
    /// Sorted by event time, equal times in order of arrival.
    rows: Batch,
    level: u32,
}

impl EventTimeOrder {
    pub(super) fn new(settings: OrderSettings) -> Self {
        let ports = settings.keys.len();
        Self {
            ports: std::iter::repeat_with(Vec::new).take(ports).collect(),
            settings,
            delivered: None,
            releasing: None,
            rounds: VecDeque::new(),
            chunk: vec![None; ports],
            chunk_up_to: Watermark(i64::MIN),
            next_rows: NextRows::default(),
            last_keys: Vec::new(),
        }
    }

    /// Holds rows that are after `watermark`; gives back those that are late.
    pub(super) fn hold(&mut self, port: usize, batch: Batch, watermark: Option<Watermark>) -> Option<Batch> {
        let Some(times) = batch.event_times() else { return Some(batch) };
        let is_late = |time: i64| watermark.is_some_and(|watermark| watermark.is_late(EventTime(time)));
        if !times.iter().any(|&time| is_late(time)) {
            self.push(port, batch);
            return None;
        }
        let (late, in_time): (Vec<u32>, Vec<u32>) = (0..batch.num_rows() as u32).partition(|&row| is_late(times[row as usize]));
        if !in_time.is_empty() {
            self.push(port, batch.take(&in_time));
        }
        Some(batch.take(&late))
    }

    /// The held rows of each port, in runs: of equal times those of an earlier run came first. Shared, not copied; complete between two
    /// releases.
    pub(super) fn held(&self) -> Vec<Vec<Batch>> {
        debug_assert!(self.releasing.is_none(), "a release is complete before a barrier passes");
        self.ports.iter().map(|runs| runs.iter().map(|run| run.rows.clone()).collect()).collect()
    }

    /// Goes on where another instance was: it had delivered everything up to `delivered`.
    pub(super) fn restore(&mut self, delivered: Option<Watermark>, held: Vec<(usize, Batch)>) {
        self.delivered = delivered;
        held.into_iter().for_each(|(port, rows)| self.push(port, rows));
    }

    /// The watermark has reached `up_to`; [`Self::next_round`] gives what it has passed.
    pub(super) fn begin_release(&mut self, up_to: Watermark) {
        self.releasing = Some(up_to);
    }

    /// The next rows that the watermark has passed; none: all are delivered.
    pub(super) fn next_round(&mut self) -> Option<Round> {
        if self.rounds.is_empty() && !self.plan_chunk() {
            return None;
        }
        let planned = self.rounds.pop_front()?;
        for key in self.last_keys.drain(..) {
            self.next_rows.set(key, None);
        }
        for &(key, time) in &planned.keys {
            self.next_rows.set(key, Some(time));
            self.last_keys.push(key);
        }
        let rows_of = |(port, rows): (usize, Vec<u32>)| {
            let all = self.chunk[port].as_ref().filter(|_| !rows.is_empty())?;
            Some((port, if rows.len() == all.num_rows() { all.clone() } else { take_run(all, &rows) }))
        };
        let batches = planned.rows.into_iter().enumerate().filter_map(rows_of).collect();
        // Event times are far from the least number, so there is a ms before each.
        let before_earliest = Watermark(planned.earliest.saturating_sub(1));
        Some(Round {
            batches,
            watermark: self.delivered.map_or(before_earliest, |delivered| delivered.max(before_earliest)),
            up_to: self.chunk_up_to,
        })
    }

    /// The event times of the rows that wait in this chunk, those of the last round included.
    pub(super) fn next_rows(&self) -> &NextRows {
        &self.next_rows
    }

    fn push(&mut self, port: usize, batch: Batch) {
        let runs = &mut self.ports[port];
        runs.push(Run { rows: sorted_by_time(batch), level: 0 });
        while let Some(level) = runs.last().map(|run| run.level)
            && runs.iter().rev().take_while(|run| run.level == level).count() >= RUNS_PER_LEVEL
        {
            let merged = merge(runs.drain(runs.len() - RUNS_PER_LEVEL..).map(|run| run.rows).collect());
            runs.push(Run { rows: merged, level: level + 1 });
        }
    }

    /// Sorts the next chunk and plans its rounds; false: nothing is left to release.
    fn plan_chunk(&mut self) -> bool {
        if let Some(up_to) = self.releasing
            && self.chunk.iter().any(Option::is_some)
        {
            self.delivered = Some(self.chunk_up_to.min(up_to));
            self.chunk.fill(None);
        }
        let Some(up_to) = self.releasing else { return false };
        self.next_rows = NextRows::default();
        self.last_keys.clear();
        self.chunk_up_to = self.chunk_bound(up_to);
        for port in 0..self.ports.len() {
            self.chunk[port] = self.take_prefixes(port);
        }
        if self.chunk.iter().all(Option::is_none) {
            self.delivered = self.delivered.max(Some(up_to));
            self.releasing = None;
            return false;
        }
        self.rounds = if self.settings.with_timers || self.ports.len() > 1 { self.plan_rounds() } else { self.plan_slices() };
        true
    }

    /// How far to go at once, so that about [`CHUNK_ROWS`] rows are sorted; at least one row if any is ready.
    fn chunk_bound(&self, up_to: Watermark) -> Watermark {
        let runs = || self.ports.iter().flatten();
        let ready: usize = runs().map(|run| run.rows_until(up_to)).sum();
        if ready <= CHUNK_ROWS {
            return up_to;
        }
        let quota = (CHUNK_ROWS / runs().count()).max(1);
        let bounds = runs().filter(|run| run.rows_until(up_to) > quota).map(|run| run.times()[quota - 1]);
        bounds.min().map_or(up_to, Watermark)
    }

    fn take_prefixes(&mut self, port: usize) -> Option<Batch> {
        let mut prefixes = Vec::new();
        self.ports[port].retain_mut(|run| {
            let count = run.rows_until(self.chunk_up_to);
            let rows = run.rows.num_rows();
            if count > 0 {
                prefixes.push(run.rows.slice(0..count));
                run.rows = run.rows.slice(count..rows);
            }
            count < rows
        });
        (!prefixes.is_empty()).then(|| merge(prefixes))
    }

    /// One port, no timers: whole batches.
    fn plan_slices(&self) -> VecDeque<PlannedRound> {
        let times = self.chunk[0].as_ref().and_then(Batch::event_times).map_or(&[][..], |times| times);
        let starts = (0..times.len()).step_by(self.settings.batch_rows.max(1));
        let slice = |start: usize| (start as u32..times.len().min(start + self.settings.batch_rows.max(1)) as u32).collect();
        starts.map(|start| PlannedRound { rows: vec![slice(start)], keys: Vec::new(), earliest: times[start] }).collect()
    }

    fn plan_rounds(&mut self) -> VecDeque<PlannedRound> {
        let ports = self.ports.len();
        let keys: Vec<_> =
            self.chunk.iter().zip(&self.settings.keys).map(|(rows, keys)| rows.as_ref().map(|rows| keys_of(rows, keys))).collect();
        let mut rounds: VecDeque<PlannedRound> = VecDeque::new();
        // The round after the last one of each key.
        let mut next_round: Vec<usize> = Vec::new();
        for (time, port, row) in self.in_order() {
            let key = self.next_rows.number(keys[port].as_ref().expect("a port with rows has keys").key(row));
            next_round.resize(next_round.len().max(key as usize + 1), 0);
            let earliest = next_round[key as usize];
            // Without timers, a key's rows of one port may share a round, and ports take turns.
            let round = if self.settings.with_timers {
                earliest
            } else {
                (earliest..).find(|round| round % ports == port).expect("every port has its turn")
            };
            next_round[key as usize] = if self.settings.with_timers { round + 1 } else { round };
            while rounds.len() <= round {
                rounds.push_back(PlannedRound { rows: vec![Vec::new(); ports], keys: Vec::new(), earliest: i64::MAX });
            }
            rounds[round].rows[port].push(row as u32);
            rounds[round].earliest = rounds[round].earliest.min(time);
            if self.settings.with_timers {
                rounds[round].keys.push((key, time));
            }
        }
        let mut earliest = i64::MAX;
        for round in rounds.iter_mut().rev() {
            earliest = earliest.min(round.earliest);
            round.earliest = earliest;
        }
        rounds
    }

    /// Time, port and row number of every row of the chunk, in order.
    fn in_order(&self) -> Vec<(i64, usize, usize)> {
        let times = |rows: &Option<Batch>| rows.as_ref().and_then(Batch::event_times).cloned();
        let of_port = |(port, rows): (usize, &Option<Batch>)| times(rows).into_iter().flat_map(move |times| entries(port, &times));
        let mut all: Vec<_> = self.chunk.iter().enumerate().flat_map(of_port).collect();
        if self.chunk.len() > 1 {
            all.sort_by_key(|&(time, port, _)| (time, port));
        }
        all
    }
}

fn entries(port: usize, times: &[i64]) -> Vec<(i64, usize, usize)> {
    times.iter().enumerate().map(|(row, &time)| (time, port, row)).collect()
}

impl Run {
    fn times(&self) -> &[i64] {
        self.rows.event_times().expect("only rows with event times are held")
    }

    /// Number of leading rows that `watermark` has passed.
    fn rows_until(&self, watermark: Watermark) -> usize {
        self.times().partition_point(|&time| watermark.reaches(EventTime(time)))
    }
}

/// The rows with these ascending numbers; without a copy if they are contiguous.
fn take_run(batch: &Batch, rows: &[u32]) -> Batch {
    match (rows.first(), rows.last()) {
        (Some(&first), Some(&last)) if (last - first) as usize + 1 == rows.len() => batch.slice(first as usize..last as usize + 1),
        _ => batch.take(rows),
    }
}

fn sorted_by_time(batch: Batch) -> Batch {
    let times = batch.event_times().expect("only rows with event times are held");
    if times.is_sorted() {
        return batch;
    }
    let mut rows: Vec<u32> = (0..times.len() as u32).collect();
    rows.sort_by_key(|&row| times[row as usize]);
    batch.take(&rows)
}

/// All rows of sorted runs of one schema, sorted by event time; of equal times those of the earlier run come first.
fn merge(mut runs: Vec<Batch>) -> Batch {
    if runs.len() == 1 {
        return runs.pop().expect("there is one");
    }
    let mut order: Vec<(i64, usize, usize)> = Vec::with_capacity(runs.iter().map(Batch::num_rows).sum());
    for (run, batch) in runs.iter().enumerate() {
        let times = batch.event_times().expect("only rows with event times are held");
        order.extend(times.iter().enumerate().map(|(row, &time)| (time, run, row)));
    }
    // Stable and adaptive: it finds the sorted runs and merges them.
    order.sort_by_key(|&(time, _, _)| time);
    let places: Vec<(usize, usize)> = order.iter().map(|&(_, run, row)| (run, row)).collect();
    let column = |index: usize| {
        let parts: Vec<&dyn Array> = runs.iter().map(|batch| batch.column(index).as_ref()).collect();
        interleave(&parts, &places).expect("runs of one port have one schema")
    };
    let schema = runs[0].schema();
    let columns = (0..schema.fields().len()).map(column).collect();
    let changes = runs.iter().any(|batch| batch.changes().is_some()).then(|| {
        let change = |&(run, row): &(usize, usize)| runs[run].changes().map_or(0, |changes| changes[row]);
        places.iter().map(change).collect()
    });
    let merged = Batch::try_new(schema, columns, places.len()).expect("interleaved columns keep their types");
    merged.with_event_times(Some(order.iter().map(|&(time, _, _)| time).collect())).with_changes(changes)
}

#[cfg(test)]
mod tests;
