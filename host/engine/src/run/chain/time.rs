//! What time does to a chain: a merged watermark releases held rows, then fires timers, then goes on; the clock wakes who asked for it; and the end is the
//! last that happens to a link.

use millstream_model::{Watermark, time::Progress};

use super::{Chain, Link, Role, Step, Stop};
use crate::{
    element::Element,
    operator::{Moment, Output},
    run::wake::WakeTimes,
};

impl Chain {
    /// The earliest times at which a link wants to be called.
    pub(in crate::run) fn wake_times(&self) -> WakeTimes {
        let next_of = |link: &Link| match &link.role {
            Role::Source => WakeTimes::default(),
            Role::Operator(operator) => WakeTimes { processing_ms: operator.next_processing_time(), monotonic_ms: None },
            Role::Sink(sink) => WakeTimes { processing_ms: None, monotonic_ms: sink.next_flush_ms() },
        };
        self.links.iter().map(next_of).fold(WakeTimes::default(), WakeTimes::or)
    }

    /// Calls the links whose time has come.
    pub(in crate::run) async fn on_time_passed(&mut self) -> Result<(), Stop> {
        let next = self.wake_times();
        if next == WakeTimes::default() {
            return Ok(());
        }
        self.look_at_clocks();
        if !next.has_come(self.now_ms, self.monotonic_ms) {
            return Ok(());
        }
        for link in 0..self.links.len() {
            self.steps.push(Step::TimePassed { link });
            self.run().await?;
        }
        Ok(())
    }

    pub(super) fn look_at_clocks(&mut self) {
        (self.now_ms, self.monotonic_ms) = (self.clock.now_ms(), self.clock.monotonic_ms());
    }

    pub(super) async fn on_progress(&mut self, link: usize, progress: Option<Progress>) -> Result<(), Stop> {
        match progress {
            Some(Progress::Advanced(watermark)) => {
                self.links[link].metrics.watermark.set(watermark.0, self.monotonic_ms);
                if let Some(order) = &mut self.links[link].order {
                    order.begin_release(watermark);
                    self.asked.push(Step::Release { link });
                }
                self.asked.push(Step::Watermark { link });
                Ok(())
            }
            Some(Progress::Idle) => self.broadcast(link, &Element::Idle).await,
            None => Ok(()),
        }
    }

    /// One round of held rows: first the timers that come before them.
    pub(super) async fn on_release(&mut self, link: usize) -> Result<(), Stop> {
        let now_ms = self.now_ms;
        let released = &mut self.links[link];
        let (Some(order), Role::Operator(operator)) = (&mut released.order, &mut released.role) else { return Ok(()) };
        let Some(round) = order.next_round() else { return Ok(()) };
        if operator.fires_event_timers() {
            let now = Moment { watermark: Some(round.up_to), processing_time: now_ms };
            let mut out = Output::default();
            let fired = operator.on_timers_between_rows(order.next_rows(), now, &mut out).await;
            fired.map_err(|error| Stop::Failed { operator: released.id.clone(), error })?;
            self.settle(link, out).await?;
        }
        for (port, batch) in round.batches {
            self.deliver(link, port, batch, Some(round.watermark)).await?;
        }
        self.asked.push(Step::Release { link });
        Ok(())
    }

    pub(super) async fn on_watermark(&mut self, link: usize) -> Result<(), Stop> {
        let now = self.links[link].moment(self.now_ms);
        let Link { role, id, .. } = &mut self.links[link];
        let Role::Operator(operator) = role else { return Ok(()) };
        let mut out = Output::default();
        operator.on_watermark(now, &mut out).await.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        let has_more = operator.has_more();
        let promised = now.watermark.and_then(|merged| operator.output_watermark(merged));
        self.settle(link, out).await?;
        if has_more {
            self.asked.push(Step::Watermark { link });
            return Ok(());
        }
        self.pass_watermark(link, promised).await
    }

    pub(super) async fn on_time(&mut self, link: usize) -> Result<(), Stop> {
        let now = self.links[link].moment(self.now_ms);
        let Link { role, id, .. } = &mut self.links[link];
        let failed = |error| Stop::Failed { operator: id.clone(), error };
        let is_due = |time: Option<i64>| time.is_some_and(|time| time <= now.processing_time);
        let is_past = |time: Option<i64>| time.is_some_and(|time| time <= self.monotonic_ms);
        match role {
            Role::Operator(operator) if is_due(operator.next_processing_time()) => {
                let mut out = Output::default();
                operator.on_processing_time(now, &mut out).await.map_err(failed)?;
                let has_more = operator.has_more();
                self.settle(link, out).await?;
                if has_more {
                    self.asked.push(Step::TimePassed { link });
                }
                Ok(())
            }
            Role::Sink(sink) if is_past(sink.next_flush_ms()) => sink.flush().await.map_err(failed),
            _ => Ok(()),
        }
    }

    pub(super) async fn on_end(&mut self, link: usize) -> Result<(), Stop> {
        let now = self.links[link].moment(self.now_ms);
        let Link { role, id, .. } = &mut self.links[link];
        let Role::Operator(operator) = role else { return Ok(()) };
        let mut out = Output::default();
        operator.on_end(now, &mut out).await.map_err(|error| Stop::Failed { operator: id.clone(), error })?;
        let has_more = operator.has_more();
        self.settle(link, out).await?;
        if has_more {
            self.asked.push(Step::End { link });
            return Ok(());
        }
        self.broadcast(link, &Element::End).await
    }

    pub(super) async fn pass_watermark(&mut self, link: usize, watermark: Option<Watermark>) -> Result<(), Stop> {
        let passing = &mut self.links[link];
        match watermark {
            Some(watermark) if Some(watermark) > passing.sent => {
                passing.sent = Some(watermark);
                if matches!(passing.role, Role::Source) {
                    passing.metrics.watermark.set(watermark.0, self.monotonic_ms);
                }
                self.broadcast(link, &Element::Watermark(watermark)).await
            }
            _ => Ok(()),
        }
    }
}
