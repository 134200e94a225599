//! One instance of a component in one subtask: which calls a batch, a watermark and the end of input become.

use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use hashbrown::HashMap;
use millstream_model::{Batch, Watermark, state::Clock};
use millstream_state::{DueTimers, KeyedStore};
use millstream_wasm::{InstanceContext, OperatorInstance};

use super::{
    call::{Timers, Work},
    collections::SharedStore,
    plan::{ComponentOperatorPlan, Replacement, opening_failed},
    size::CallSize,
    trial::Trying,
};
use crate::{
    operator::{Control, Moment, NextRows, Operator, OperatorContext, OperatorError, Output},
    operators::keyed,
    run::row_bytes,
};

/// Calls for due timers after which what they emitted flows on before the next ones.
const TIMER_CALLS_AT_ONCE: usize = 16;
/// Most due timers of one call.
const TIMERS_PER_CALL_MAX: usize = 8_192;
/// Most rows of one call, whatever the guest's speed.
const ROWS_PER_CALL_MAX: usize = 65_536;
/// So often may a key set a timer from a timer for no later time, before time goes on for it; after the end of input, for any time. Then its chain is cut.
const REARMED_MAX: u32 = 1_000;

/// A running component.
pub(super) struct ComponentOperator {
    pub(super) plan: Arc<ComponentOperatorPlan>,
    pub(super) context: OperatorContext,
    /// For whom its instances run, one after the other.
    pub(super) guest: InstanceContext,
    pub(super) instance: OperatorInstance,
    /// None if it declares neither state nor timers.
    pub(super) store: Option<SharedStore>,
    /// Per input port, then one for timers.
    pub(super) sizes: Vec<CallSize>,
    /// By the hash of a key: how far its timers had come, and how many it has set there for no later time.
    pub(super) rearmed: HashMap<u64, (i64, u32), std::hash::BuildHasherDefault<std::hash::DefaultHasher>>,
    has_more: bool,
    /// The version that is put back when this one fails.
    previous: Option<Previous>,
    /// Why that happened, until somebody asks.
    rolled_back: Option<String>,
    /// The version on trial beside this one.
    pub(super) trying: Option<Trying>,
}

/// The version that a new one on probation has replaced.
struct Previous {
    plan: Arc<ComponentOperatorPlan>,
    instance: OperatorInstance,
    sizes: Vec<CallSize>,
}

/// How a call of guests ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Called {
    /// Everything is done.
    Done,
    /// The version on probation failed at timers, and the one before is back: they are to be asked for again, since numbers of timers are a version's own.
    RolledBack,
}

impl ComponentOperator {
    pub(super) async fn create(plan: Arc<ComponentOperatorPlan>, context: OperatorContext) -> Result<Self, OperatorError> {
        let guest = plan.guest_of(&context);
        let instance = plan.instantiate(&guest).await.map_err(opening_failed)?;
        let store = if plan.is_stateful() { Some(open_store(&plan, &context).await?) } else { None };
        let sizes = call_sizes(&plan);
        // A store that a later version opens anew is empty.
        let context = OperatorContext { restored: None, ..context };
        Ok(Self {
            plan,
            context,
            guest,
            instance,
            store,
            sizes,
            rearmed: HashMap::default(),
            has_more: false,
            previous: None,
            rolled_back: None,
            trying: None,
        })
    }

    /// Fires timers of `clock` up to `up_to` until none is due or enough was emitted. True: more are due.
    async fn fire(&mut self, clock: Clock, up_to: i64, now: Moment, out: &mut Output) -> Result<bool, OperatorError> {
        for _ in 0..TIMER_CALLS_AT_ONCE {
            let Some(due) = self.due(clock, up_to)? else {
                self.end_chains(now);
                return Ok(false);
            };
            self.call(Work::Timers(Timers::new(&self.plan, due)?), now, out).await?;
        }
        Ok(true)
    }

    fn due(&self, clock: Clock, up_to: i64) -> Result<Option<DueTimers>, OperatorError> {
        let Some(store) = &self.store else { return Ok(None) };
        let mut store = store.lock();
        if store.next_timer(clock).is_none_or(|next| next > up_to) {
            return Ok(None);
        }
        let limit = self.rows_at_once(self.plan.inputs.len());
        store.due(clock, up_to, limit).map_err(state_failed)
    }

    /// Rows whose columns fit into one call. State values come on top, so half of the limit is left to them; a call that is too large all the
    /// same is bisected.
    fn rows_by_bytes(&self, input: usize, batch: &Batch) -> usize {
        let most = usize::try_from(self.plan.component.limits().bytes_into_call / 2).unwrap_or(usize::MAX);
        if batch.memory_bytes() <= most {
            return usize::MAX;
        }
        let bytes = row_bytes(&batch.project(&self.plan.inputs[input].reads));
        if bytes <= most { usize::MAX } else { (batch.num_rows().saturating_mul(most) / bytes).max(1) }
    }

    /// Rows or timers of the next call, so that it takes about as long as it should.
    fn rows_at_once(&self, size: usize) -> usize {
        let rows = self.sizes[size].rows();
        self.trying.as_ref().map_or(rows, |trying| rows.min(trying.rows(size)))
    }

    fn next_timer(&self, clock: Clock) -> Option<i64> {
        self.store.as_ref().and_then(|store| store.lock().next_timer(clock))
    }

    async fn switch(&mut self, replacement: Replacement, on_probation: bool) -> Result<(), OperatorError> {
        let Replacement { plan, instance } = replacement;
        if self.store.is_none() && plan.is_stateful() {
            self.store = Some(open_store(&plan, &self.context).await?);
        }
        let sizes = call_sizes(&plan);
        // Whatever was on trial was tried beside another version.
        self.trying = None;
        let old = self.take_over(Previous { plan, instance, sizes })?;
        self.previous = on_probation.then_some(old);
        Ok(())
    }

    /// Runs another version from here on; gives back the one that ran. After an error nothing has changed.
    fn take_over(&mut self, version: Previous) -> Result<Previous, OperatorError> {
        if let Some(store) = &self.store {
            let declared = store.lock().redeclare(version.plan.guest.states.clone(), version.plan.guest.timers.clone());
            declared.map_err(state_failed)?;
        }
        Ok(Previous {
            plan: std::mem::replace(&mut self.plan, version.plan),
            instance: std::mem::replace(&mut self.instance, version.instance),
            sizes: std::mem::replace(&mut self.sizes, version.sizes),
        })
    }

    /// Puts the version before back; whether there is one.
    pub(super) fn roll_back(&mut self) -> Result<bool, OperatorError> {
        match self.previous.take() {
            Some(previous) => self.take_over(previous).map(|_failed| true),
            None => Ok(false),
        }
    }

    /// The version on probation has failed.
    pub(super) fn roll_back_because(&mut self, reason: String) -> Result<bool, OperatorError> {
        let is_back = self.roll_back()?;
        if is_back {
            self.rolled_back = Some(reason);
        }
        Ok(is_back)
    }

    /// Nothing is due any more: whatever is set next begins a chain. After the end of input there is one for all that is left.
    fn end_chains(&mut self, now: Moment) {
        if now.watermark != Some(Watermark::MAX) {
            self.rearmed.clear();
        }
    }

    /// Whether the timer that this key sets is one too many. `at`: what it was set from.
    pub(super) fn is_cut(&mut self, hash: u64, at: i64) -> bool {
        let (furthest, count) = self.rearmed.entry(hash).or_insert((at, 0));
        if at > *furthest {
            (*furthest, *count) = (at, 0);
        }
        *count += 1;
        *count > REARMED_MAX
    }
}

async fn open_store(plan: &ComponentOperatorPlan, context: &OperatorContext) -> Result<SharedStore, OperatorError> {
    keyed::open_store(context, plan.declared()).await.map(SharedStore::new)
}

pub(super) fn call_sizes(plan: &ComponentOperatorPlan) -> Vec<CallSize> {
    let aim = plan.component.limits().yield_interval;
    let hinted = plan.guest.rows_max().map_or(ROWS_PER_CALL_MAX, |rows| (rows.get() as usize).min(ROWS_PER_CALL_MAX));
    let mut sizes = vec![CallSize::new(aim, hinted); plan.inputs.len()];
    sizes.push(CallSize::new(aim, hinted.min(TIMERS_PER_CALL_MAX)));
    sizes
}

pub(super) fn state_failed(error: millstream_state::Error) -> OperatorError {
    use millstream_model::ErrorKind;
    let failed = match error.kind() {
        ErrorKind::Invalid | ErrorKind::Conflict | ErrorKind::Guest => OperatorError::user("state cannot be kept"),
        ErrorKind::Unavailable | ErrorKind::Corrupt => OperatorError::outside("the state backend failed"),
        ErrorKind::NotFound | ErrorKind::Internal => OperatorError::internal("state was used wrongly"),
    };
    failed.because(error)
}

#[async_trait]
impl Operator for ComponentOperator {
    async fn on_batch(&mut self, input: usize, batch: Batch, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let rows = batch.num_rows();
        let most_by_bytes = self.rows_by_bytes(input, &batch);
        let mut start = 0;
        while start < rows {
            let end = rows.min(start + self.rows_at_once(input).min(most_by_bytes));
            let part = if end - start == rows { batch.clone() } else { batch.slice(start..end) };
            self.call(Work::Rows { port: input, batch: part }, now, out).await?;
            start = end;
        }
        Ok(())
    }

    async fn on_watermark(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = match now.watermark {
            Some(watermark) => self.fire(Clock::EventTime, watermark.0, now, out).await?,
            None => false,
        };
        Ok(())
    }

    fn has_more(&self) -> bool {
        self.has_more
    }

    fn fires_event_timers(&self) -> bool {
        self.plan.has_timers(Clock::EventTime)
    }

    async fn on_timers_between_rows(&mut self, next_rows: &NextRows, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let up_to = now.watermark.map_or(i64::MIN, |watermark| watermark.0);
        while self.next_timer(Clock::EventTime).is_some_and(|next| next <= up_to) {
            let Some(store) = &self.store else { return Ok(()) };
            // All that are due are looked at: those held back by rows must not hide the others.
            let Some(due) = store.lock().due(Clock::EventTime, up_to, usize::MAX).map_err(state_failed)? else { return Ok(()) };
            let fires = |&number: &u32| next_rows.of(due.keys.key_bytes(number as usize)).is_none_or(|next| due.at[number as usize] < next);
            let firing: Vec<u32> = (0..due.len() as u32).filter(fires).collect();
            if firing.is_empty() {
                return Ok(());
            }
            for firing in firing.chunks(TIMERS_PER_CALL_MAX) {
                let due = due.select(firing);
                let latest = due.at.iter().copied().max().unwrap_or(up_to);
                let now = Moment { watermark: Some(Watermark(latest)), ..now };
                if self.call(Work::Timers(Timers::new(&self.plan, due)?), now, out).await? == Called::RolledBack {
                    break;
                }
            }
        }
        self.end_chains(now);
        Ok(())
    }

    fn with_store(&mut self, work: &mut dyn FnMut(&mut KeyedStore)) {
        if let Some(store) = &self.store {
            work(&mut store.lock());
        }
    }

    fn next_processing_time(&self) -> Option<i64> {
        if self.plan.has_timers(Clock::ProcessingTime) { self.next_timer(Clock::ProcessingTime) } else { None }
    }

    async fn on_processing_time(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        self.has_more = self.fire(Clock::ProcessingTime, now.processing_time, now, out).await?;
        Ok(())
    }

    /// Nobody will wait for the remaining timers, so they fire now, in order.
    async fn on_end(&mut self, now: Moment, out: &mut Output) -> Result<(), OperatorError> {
        let more = self.fire(Clock::ProcessingTime, i64::MAX, now, out).await? || self.fire(Clock::EventTime, i64::MAX, now, out).await?;
        // Timers in event time may have set timers in processing time.
        self.has_more = more || self.due(Clock::ProcessingTime, i64::MAX)?.is_some();
        Ok(())
    }

    async fn on_control(&mut self, control: Control) -> Result<(), OperatorError> {
        match control {
            Control::Switch { replacement, on_probation } => match replacement.downcast::<Replacement>() {
                Ok(replacement) => self.switch(*replacement, on_probation).await,
                Err(_other) => Err(OperatorError::internal("only a component can take the place of a component")),
            },
            Control::Settle => {
                self.previous = None;
                Ok(())
            }
            Control::RollBack => self.roll_back().map(drop),
            Control::Try { candidate, record } => self.begin_trial(candidate, record),
            Control::EndTrial => {
                self.trying = None;
                Ok(())
            }
        }
    }

    fn keeps_declarations(&self, replacement: Option<&(dyn Any + Send)>) -> bool {
        let plan = match replacement {
            Some(replacement) => replacement.downcast_ref::<Replacement>().map(|replacement| &replacement.plan),
            None => self.previous.as_ref().map(|previous| &previous.plan),
        };
        // Without a plan there is nothing to be put in its place.
        let guests = plan.map(|plan| (&plan.guest, &self.plan.guest));
        guests.is_none_or(|(other, own)| other.states == own.states && other.timers == own.timers)
    }

    fn take_rolled_back(&mut self) -> Option<String> {
        self.rolled_back.take()
    }
}
