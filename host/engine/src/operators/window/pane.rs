//! Time windows made of panes: tumbling, sliding, cumulative, global.
//!
//! Rows are accumulated per (key, pane) in keyed state; each has a timer at the time when its last window can no longer change. Two ways to
//! fire:
//! - *by timer*, when a window is one pane and fires once: a due timer is a result. Nothing is held outside the store.
//! - *by index*, when windows share panes or fire more than once: [`PaneIndex`] says which keys have rows in the panes of a window; their
//!   accumulators are merged pane after pane. Due timers then only forget.
//!
//! A changelog (early or late results) also remembers per (key, window) what was last emitted, and emits only what differs.

use std::{collections::BTreeSet, sync::Arc};

use arrow_array::{ArrayRef, cast::AsArray};
use arrow_buffer::BooleanBuffer;
use arrow_select::{concat::concat, filter::filter};
use async_trait::async_trait;
use millstream_model::{Batch, key::EncodedKeys, state::Clock};
use millstream_state::{KeyedStore, TimerUpdate, Updates, ValueUpdate};
use serde_json::Value;

use super::{
    aggregate::{Grouping, component::RefusedRow, set::value_state},
    assign::Windows,
    core::{Core, CorePlan, TIMER, accumulator_updates},
    early::Early,
    gather::{Gathered, Gathering},
    group::{Grouper, Groups, runs},
    pane_index::PaneIndex,
    results::Spans,
    state_key::{self, Part},
};
use crate::{
    element::Barrier,
    operator::{Moment, Operator, OperatorContext, OperatorError, Output, Restored},
    operators::{
        keyed::{state_error, state_moment, without_late},
        upgrade::Declared,
    },
};

/// Most timers handled in one call.
const PORTION: usize = 8_192;

/// What the operator is made from.
#[derive(Clone)]
pub struct PanePlan {
    /// Keys, aggregates, results.
    pub core: CorePlan,
    /// How windows lie.
    pub windows: Windows,
    /// How far behind the watermark rows may be.
    pub lateness_ms: i64,
    /// When results are emitted early.
    pub early: Option<Early>,
}

impl PanePlan {
    /// Whether results can change after they were emitted.
    pub fn changes(&self) -> bool {
        self.early.is_some() || self.lateness_ms > 0
    }

    fn fires_by_timer(&self) -> bool {
        self.windows.is_one_pane() && !self.changes()
    }

    /// When the pane that starts at `pane` can no longer change: the time of its timer.
    fn expiry_of_pane(&self, pane: i64) -> i64 {
        self.expiry_of_window(*self.windows.ends_of_pane(pane).end())
    }

    /// When the window that ends at `end` can no longer change.
    fn expiry_of_window(&self, end: i64) -> i64 {
        end - 1 + self.lateness_ms
    }
}

/// Time windows of one subtask.
pub struct PaneWindows {
    plan: PanePlan,
    core: Core,
    grouper: Grouper,
    /// None: windows fire by their timers.
    index: Option<PaneIndex>,
    /// Every window that ends at or before it has fired.
    fired_up_to: i64,
    /// The window that is being fired in portions: its end, and the next portion.
    firing: Option<(i64, usize)>,
    has_more: bool,
}

impl PaneWindows {
    /// What is kept.
    pub fn declared(plan: &PanePlan) -> Declared {
        let emitted = plan.changes().then(|| value_state("emitted".into(), plan.core.shape.emitted_type(), 1));
        plan.core.declared(emitted, "forget")
    }

    /// Opens state and aggregates.
    ///
    /// # Errors
    /// They cannot be opened.
    pub async fn open(plan: PanePlan, context: &OperatorContext) -> Result<Self, OperatorError> {
        let core = Core::open(&plan.core, Self::declared(&plan), context).await?;
        let index = (!plan.fires_by_timer()).then(PaneIndex::default);
        let mut operator = Self { plan, core, grouper: Grouper::default(), index, fired_up_to: i64::MIN, firing: None, has_more: false };
        operator.rebuild_index()?;
        if let Some(restored) = &context.restored {
            operator.restore(restored);
        }
        Ok(operator)
    }

    /// What is not in the store follows from the watermark at the barrier, which no window was behind: every due one had fired.
    fn restore(&mut self, restored: &Restored) {
        self.fired_up_to = restored.watermark.map_or(i64::MIN, |watermark| watermark.0.saturating_add(1));
        if let (Some(early), Some(index)) = (&mut self.plan.early, &self.index) {
            early.restore(&restored.values, |changed| changed.insert_all(index));
        }
    }

    /// Makes the index from the timers of a store that holds state already.
    fn rebuild_index(&mut self) -> Result<(), OperatorError> {
        let Some(index) = &mut self.index else { return Ok(()) };
        let Some(all) = self.core.store.due(Clock::EventTime, i64::MAX, usize::MAX).map_err(state_error)? else { return Ok(()) };
        let mut user_keys = EncodedKeys::default();
        (0..all.len()).for_each(|number| user_keys.push(state_key::user_key(all.keys.key_bytes(number))));
        for number in 0..all.len() {
            if let Some(Part::Pane(pane)) = state_key::part(all.keys.key_bytes(number)) {
                index.insert(user_keys.key(number), user_keys.hashes()[number], all.keys.group(number), pane);
            }
        }
        Ok(())
    }

    /// Takes rows into their panes; `Err` in the inner result: nothing was applied since aggregates refuse some rows.
    async fn accumulate(&mut self, batch: &Batch, now: Moment) -> Result<Result<Touched, Vec<RefusedRow>>, OperatorError> {
        let keys = self.core.encode_keys(batch)?;
        let times = batch.event_times().map(|times| &times[..]);
        let (groups, runs_of_key);
        let grouping = if self.core.is_keyed() {
            let (found, of_row) = self.grouper.group(&keys, times, self.plan.windows);
            groups = found;
            Grouping::Rows(of_row)
        } else {
            let (found, found_runs) = runs(times, batch.num_rows(), self.plan.windows);
            (groups, runs_of_key) = (found, found_runs);
            Grouping::Runs(&runs_of_key)
        };
        let touched = Touched { keys, groups, keyed: self.core.is_keyed() };
        let set = self.core.store.resolve(touched.state_keys()).map_err(state_error)?;
        let accumulators = self.core.load_accumulators(&set, now)?;
        let done = self.core.aggregates.accumulate(batch, grouping, &accumulators).await?;
        if !done.refused.is_empty() {
            return Ok(Err(done.refused));
        }
        let timers = self.timers_of_new_panes(&touched, &accumulators);
        let updates = Updates { values: accumulator_updates(done.accumulators, set.len()), timers, ..Updates::default() };
        self.core.store.apply(&set, &updates, None, state_moment(now)).map_err(state_error)?;
        Ok(Ok(touched))
    }

    fn timers_of_new_panes(&mut self, touched: &Touched, accumulators: &[ArrayRef]) -> Vec<TimerUpdate> {
        let mut update = TimerUpdate { timer: TIMER, keys: Vec::new(), at: Vec::new(), deleted: BooleanBuffer::new_unset(0) };
        for group in 0..touched.groups.len() {
            let is_new = match &mut self.index {
                Some(index) => touched.insert_into(index, group),
                // Setting a timer that is set changes nothing, so it is enough never to miss a new pane.
                None => accumulators.iter().all(|accumulators| accumulators.is_null(group)),
            };
            if is_new {
                update.keys.push(group as u32);
                update.at.push(self.plan.expiry_of_pane(touched.groups.pane[group]));
            }
        }
        if update.keys.is_empty() {
            return Vec::new();
        }
        update.deleted = BooleanBuffer::new_unset(update.keys.len());
        vec![update]
    }

    /// Emits the windows whose timers are due, and forgets them: a portion.
    async fn fire_by_timer(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let Some(due) = due_portion(&mut self.core, now)? else { return Ok(()) };
        self.has_more = due.len() == PORTION;
        let mut spans = Spans::default();
        for number in 0..due.len() {
            let pane = pane_of(due.keys.key_bytes(number))?;
            let end = *self.plan.windows.ends_of_pane(pane).end();
            spans.push(pane, end);
        }
        let accumulators = self.core.load_accumulators(&due.keys, now)?;
        let finished = self.core.aggregates.finish(&accumulators).await?;
        let keys = (0..due.len()).map(|number| state_key::user_key(due.keys.key_bytes(number)));
        let results = self.core.shape.results(keys, spans, finished)?;
        self.core.shape.emit(&results.rows, &results.without, out);
        let updates = Updates { values: self.core.deletions(due.len()), ..Updates::default() };
        self.core.store.apply(&due.keys, &updates, Some(&due), state_moment(now)).map_err(state_error)
    }

    /// Fires the next portion of the next complete window; after the last one forgets what can no longer change.
    async fn fire_by_index(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let complete_up_to = now.watermark.map_or(i64::MIN, |watermark| watermark.0.saturating_add(1));
        let Some((end, portion)) = self.firing.take().or_else(|| self.next_window(complete_up_to).map(|end| (end, 0))) else {
            self.fired_up_to = self.fired_up_to.max(complete_up_to);
            self.fire_early_by_event_time(now, out).await?;
            return self.forget(now);
        };
        let start = self.plan.windows.start_of_window(end);
        let index = self.index.as_ref().expect("windows that fire by index have one");
        let gathering = Gathering::of_window(index, start..end);
        let gathered = gathering.portion(portion);
        if portion + 1 < gathering.portions() {
            self.firing = Some((end, portion + 1));
        } else {
            self.fired_up_to = end;
        }
        self.has_more = true;
        self.emit_window(start, end, gathered, now, out).await
    }

    /// The end of the first window that has rows, is complete and has not fired.
    fn next_window(&self, complete_up_to: i64) -> Option<i64> {
        let windows = self.plan.windows;
        let mut panes = self.index.as_ref()?.panes(i64::MIN..i64::MAX);
        let ends = panes.find_map(|(pane, _)| Some(windows.ends_of_pane(pane)).filter(|ends| *ends.end() > self.fired_up_to))?;
        // Both ends grow with the pane, so no later pane has an earlier unfired window.
        let behind = self.fired_up_to.saturating_sub(*ends.start());
        let first = ends.start() + if behind < 0 { 0 } else { (behind / windows.step_ms() + 1) * windows.step_ms() };
        (first <= complete_up_to).then_some(first)
    }

    /// Emits one window of the gathered keys.
    async fn emit_window(&mut self, start: i64, end: i64, gathered: Gathered, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        if gathered.rows() == 0 {
            return Ok(());
        }
        let accumulators = self.merge(&gathered, now).await?;
        let finished = self.core.aggregates.finish(&accumulators).await?;
        let spans = Spans::repeat(start, end, gathered.rows());
        let results = self.core.shape.results(gathered.user_keys(), spans, finished)?;
        if !self.plan.changes() {
            self.core.shape.emit(&results.rows, &results.without, out);
            return Ok(());
        }
        let emitted_state = self.core.aggregates.len();
        let set = self.core.store.resolve(gathered.keys_of_emitted(end)).map_err(state_error)?;
        let before = self.core.store.load(emitted_state, &set, state_moment(now)).map_err(state_error)?;
        let emitted = self.core.shape.emit_changes(&results.rows, &results.without, before.as_struct(), out);
        let expiry = self.plan.expiry_of_window(end);
        if now.watermark.is_some_and(|watermark| watermark.0 >= expiry) {
            // It fires for the last time; what was remembered has a timer that is due too.
            return Ok(());
        }
        let keys: Vec<u32> = emitted.changed.set_indices_u32().collect();
        let (at, deleted) = (vec![expiry; keys.len()], BooleanBuffer::new_unset(keys.len()));
        let changed_values = filter(&emitted.values, &emitted.changed.clone().into()).expect("there is one bit per value");
        let updates = Updates {
            values: vec![ValueUpdate { state: emitted_state, changed: emitted.changed, values: changed_values }],
            timers: vec![TimerUpdate { timer: TIMER, keys, at, deleted }],
            ..Updates::default()
        };
        self.core.store.apply(&set, &updates, None, state_moment(now)).map_err(state_error)
    }

    /// One accumulator per gathered key: its panes merged in order of time.
    async fn merge(&mut self, gathered: &Gathered, now: Moment) -> Result<Vec<ArrayRef>, OperatorError> {
        let mut of_panes = Vec::with_capacity(gathered.panes.len());
        for pane in &gathered.panes {
            let set = self.core.store.resolve(Arc::clone(&pane.state_keys)).map_err(state_error)?;
            of_panes.push(self.core.load_accumulators(&set, now)?);
        }
        if let [_] = gathered.panes[..] {
            return Ok(of_panes.remove(0));
        }
        let all = |aggregate: usize| {
            let parts: Vec<&dyn arrow_array::Array> = of_panes.iter().map(|accumulators| accumulators[aggregate].as_ref()).collect();
            concat(&parts).expect("accumulators of one aggregate are of one type")
        };
        let others: Vec<ArrayRef> = (0..self.core.aggregates.len()).map(all).collect();
        let rows: Vec<u32> = gathered.panes.iter().flat_map(|pane| pane.rows.iter().copied()).collect();
        let into = self.core.aggregates.new_accumulators(gathered.rows());
        self.core.aggregates.merge(&into, &others, &rows).await
    }

    /// Emits again what rows that were late, but not too late, have changed in windows that had fired.
    async fn emit_late(&mut self, touched: &Touched, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        if self.plan.lateness_ms == 0 {
            return Ok(());
        }
        let mut late = PaneIndex::default();
        for group in 0..touched.groups.len() {
            if *self.plan.windows.ends_of_pane(touched.groups.pane[group]).start() <= self.fired_up_to {
                touched.insert_into(&mut late, group);
            }
        }
        let watermark = now.watermark.map_or(i64::MIN, |watermark| watermark.0);
        let (fired_up_to, plan) = (self.fired_up_to, self.plan.clone());
        self.emit_again(&late, |end| end <= fired_up_to && plan.expiry_of_window(end) > watermark, now, out).await
    }

    /// Emits the windows that contain panes of `changed` and satisfy `which`, for the keys of those panes.
    async fn emit_again(
        &mut self,
        changed: &PaneIndex,
        which: impl Fn(i64) -> bool,
        now: Moment,
        out: &mut Output,
    ) -> Result<(), OperatorError> {
        let windows = self.plan.windows;
        let mut ends = BTreeSet::new();
        for (pane, _) in changed.panes(i64::MIN..i64::MAX) {
            let of_pane = windows.ends_of_pane(pane);
            let step = usize::try_from(windows.step_ms()).unwrap_or(usize::MAX);
            ends.extend((*of_pane.start()..=*of_pane.end()).step_by(step).filter(|&end| which(end)));
        }
        for end in ends {
            let start = windows.start_of_window(end);
            let index = self.index.as_ref().expect("a changelog fires by index");
            let gathered = Gathering::of_keys(index, changed, start..end).portion(0);
            self.emit_window(start, end, gathered, now, out).await?;
        }
        Ok(())
    }

    async fn fire_early_by_event_time(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let due = self.plan.early.as_mut().is_some_and(|early| early.is_due_at_watermark(now));
        if due { self.fire_early(now, out).await } else { Ok(()) }
    }

    /// Emits the windows that changed since they were last emitted and are not complete.
    async fn fire_early(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let Some(early) = &mut self.plan.early else { return Ok(()) };
        let changed = early.take_changed();
        let fired_up_to = self.fired_up_to;
        self.emit_again(&changed, |end| end > fired_up_to, now, out).await
    }

    /// Forgets panes and emitted results that can no longer change: a portion.
    fn forget(&mut self, now: Moment) -> Result<(), OperatorError> {
        let Some(due) = due_portion(&mut self.core, now)? else { return Ok(()) };
        self.has_more = due.len() == PORTION;
        let updates = Updates { values: self.core.deletions(due.len()), ..Updates::default() };
        self.core.store.apply(&due.keys, &updates, Some(&due), state_moment(now)).map_err(state_error)?;
        let watermark = now.watermark.map_or(i64::MIN, |watermark| watermark.0);
        let plan = &self.plan;
        if let Some(index) = &mut self.index {
            index.forget_while(|pane| plan.expiry_of_pane(pane) <= watermark);
        }
        Ok(())
    }
}

fn due_portion(core: &mut Core, now: Moment) -> Result<Option<millstream_state::DueTimers>, OperatorError> {
    let Some(watermark) = now.watermark else { return Ok(None) };
    core.store.due(Clock::EventTime, watermark.0, PORTION).map_err(state_error)
}

fn pane_of(state_key: &[u8]) -> Result<i64, OperatorError> {
    match state_key::part(state_key) {
        Some(Part::Pane(pane)) => Ok(pane),
        _ => Err(OperatorError::internal("a key in the state of a window is damaged")),
    }
}

/// The groups of a batch with their keys.
struct Touched {
    keys: EncodedKeys,
    groups: Groups,
    keyed: bool,
}

impl Touched {
    /// The row whose key is the group's.
    fn key_row(&self, group: usize) -> usize {
        if self.keyed { self.groups.first_row[group] as usize } else { 0 }
    }

    fn state_keys(&self) -> EncodedKeys {
        let mut state_keys = EncodedKeys::default();
        let mut bytes = Vec::new();
        for (group, &pane) in self.groups.pane.iter().enumerate() {
            let row = self.key_row(group);
            bytes.clear();
            state_key::append(&mut bytes, self.keys.key(row), Part::Pane(pane));
            state_keys.push_in_group(&bytes, self.keys.group(row));
        }
        state_keys
    }

    fn insert_into(&self, index: &mut PaneIndex, group: usize) -> bool {
        let row = self.key_row(group);
        index.insert(self.keys.key(row), self.keys.hashes()[row], self.keys.group(row), self.groups.pane[group])
    }
}

#[async_trait]
impl Operator for PaneWindows {
    async fn on_batch(&mut self, _input: usize, batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let cutoff = if self.plan.windows == Windows::Global { None } else { now.watermark };
        let Some(mut batch) = without_late(batch, cutoff.map(|watermark| watermark.0.saturating_sub(self.plan.lateness_ms)), out) else {
            return Ok(());
        };
        if let Some(watermark) = now.watermark {
            self.fired_up_to = self.fired_up_to.max(watermark.0.saturating_add(1));
        }
        let touched = loop {
            match self.accumulate(&batch, now).await? {
                Ok(touched) => break touched,
                Err(refused) => match self.core.reject(&batch, &refused, out) {
                    Some(rest) => batch = rest,
                    None => return Ok(()),
                },
            }
        };
        if let Some(early) = &mut self.plan.early {
            (0..touched.groups.len()).for_each(|group| early.note_changed(now, |changed| touched.insert_into(changed, group)));
        }
        self.emit_late(&touched, now, out).await
    }

    async fn on_watermark(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = false;
        if self.index.is_none() { self.fire_by_timer(now, out).await } else { self.fire_by_index(now, out).await }
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn next_processing_time(&self) -> Option<i64> {
        self.plan.early.as_ref().and_then(Early::next_processing_time)
    }

    async fn on_processing_time(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = false;
        self.fire_early(now, out).await
    }

    async fn on_barrier(&mut self, _barrier: Barrier) -> Result<Value, OperatorError> {
        Ok(self.plan.early.as_ref().map_or(Value::Null, Early::remembered))
    }

    fn with_store(&mut self, work: &mut dyn FnMut(&mut KeyedStore)) {
        work(&mut self.core.store);
    }

    async fn on_end(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.on_watermark(now, out).await
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{
        super::{
            plan::WindowPlan,
            tests::harness::{batch, block_on, context, plan_on, row},
        },
        *,
    };
    use crate::graph::RowOrder;

    /// After a restore there are only state and timers: the index comes from them.
    #[test]
    fn the_index_is_made_again_from_the_timers() {
        let windows = Windows::Sliding { size_ms: 10, slide_ms: 5, origin_ms: 0 };
        let settings = json!({ "sliding": { "size": "10ms", "slide": "5ms" }, "aggregates": { "n": { "count": "*" } } });
        let planned = plan_on(settings, Some(&[0]), true, RowOrder::Arrival).expect("it is planned");
        let plan = planned.plan.as_any().downcast_ref::<WindowPlan>().expect("it is a window").pane_plan(windows);
        let mut operator = block_on(PaneWindows::open(plan, &context())).expect("it opens");
        let (now, mut out) = (Moment { watermark: None, processing_time: 0 }, Output::default());
        block_on(operator.on_batch(0, batch(&[row(1, 1, 0), row(2, 7, 0)]), now, &mut out)).expect("rows are taken");
        operator.index = Some(PaneIndex::default());
        operator.rebuild_index().expect("timers can be read");
        let panes: Vec<(i64, usize)> =
            operator.index.iter().flat_map(|index| index.panes(i64::MIN..i64::MAX)).map(|(pane, keys)| (pane, keys.len())).collect();
        assert_eq!(panes, [(0, 1), (5, 1)]);
    }
}
