//! Timers, set and deleted by name: the name is that of the parameter.

use std::marker::PhantomData;

use super::{Part, PartOptions, pack_u32};
use crate::{
    argument::EventTime,
    bindings::exports::{Clock, TimerUpdate},
    call::{Answer, At, Call},
    operator::Declaration,
    value::{BitBuilder, Malformed},
};

/// Which clock fires a timer.
pub trait TimerClock: 'static {
    /// The clock, as the contract names it.
    const CLOCK: Clock;
}

/// The watermark.
#[derive(Clone, Copy, Debug)]
pub struct EventClock;

/// The host's clock.
#[derive(Clone, Copy, Debug)]
pub struct ProcessingClock;

impl TimerClock for EventClock {
    const CLOCK: Clock = Clock::EventTime;
}

impl TimerClock for ProcessingClock {
    const CLOCK: Clock = Clock::ProcessingTime;
}

/// A timer that fires when the watermark reaches its time.
pub type EventTimer = Timer<EventClock>;
/// A timer that fires when the host's clock reaches its time.
pub type ProcessingTimer = Timer<ProcessingClock>;

/// A timer of the current key. A key may have many of one name, one per time.
pub struct Timer<C> {
    key: u32,
    log: Vec<Entry>,
    mark: usize,
    clock: PhantomData<C>,
}

#[derive(Clone, Copy)]
struct Entry {
    key: u32,
    at: i64,
    deleted: bool,
}

impl<C> Timer<C> {
    /// Sets the timer for `at`; no effect if it is set for that time. A time that has passed fires right after this call.
    #[inline]
    pub fn set(&mut self, at: impl Into<EventTime>) {
        self.log.push(Entry { key: self.key, at: at.into().0, deleted: false });
    }

    /// Deletes the timer for `at`; no effect if there is none.
    #[inline]
    pub fn delete(&mut self, at: impl Into<EventTime>) {
        self.log.push(Entry { key: self.key, at: at.into().0, deleted: true });
    }
}

/// The last entry of each (key, time): the contract wants each named once.
fn last_of_each(mut log: Vec<Entry>) -> Vec<Entry> {
    log.sort_by_key(|entry| (entry.key, entry.at));
    log.reverse();
    log.dedup_by_key(|entry| (entry.key, entry.at));
    log
}

impl<C: TimerClock> Part for Timer<C> {
    type Slots = Self;
    const IS_TIMER: bool = true;

    fn declare(name: &str, options: PartOptions, to: &mut Declaration) -> usize {
        to.timer(options.name.unwrap_or(name), C::CLOCK)
    }

    fn begin(_: &Call<'_>, _: usize) -> Result<Self, Malformed> {
        Ok(Self { key: 0, log: Vec::new(), mark: 0, clock: PhantomData })
    }

    #[inline(always)]
    fn enter(timer: &mut Self, at: At, _: bool) {
        timer.key = at.key as u32;
        timer.mark = timer.log.len();
    }

    #[inline(always)]
    fn handle(timer: &mut Self, _: At) -> &mut Self {
        timer
    }

    fn undo(timer: &mut Self, _: At) {
        timer.log.truncate(timer.mark);
    }

    fn finish(timer: Self, index: usize, _: &Call<'_>, answer: &mut Answer) -> Result<(), Malformed> {
        if timer.log.is_empty() {
            return Ok(());
        }
        let entries = last_of_each(timer.log);
        let mut deleted = BitBuilder::default();
        entries.iter().for_each(|entry| deleted.push(entry.deleted));
        answer.turn.updates.timers.push(TimerUpdate {
            timer: index as u32,
            keys: pack_u32(entries.iter().map(|entry| entry.key)),
            at: entries.iter().map(|entry| entry.at.to_le_bytes()).collect::<Vec<_>>().into_flattened(),
            deleted: if entries.iter().any(|entry| entry.deleted) { deleted.into_bytes() } else { Vec::new() },
        });
        Ok(())
    }
}
