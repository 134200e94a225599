//! What leaves a link: rows to the consumers of their port, rejections to where the operator's setting says, marks to everybody.

use millstream_model::Batch;

use super::{Chain, Link, Step, Stop};
use crate::{
    element::Element,
    operator::{Emitted, Mark, OperatorError, Output, OutputPort},
    rejected::{self, RejectedPolicy, Rejection},
    run::outlet::{Sending, Target},
};

impl Chain {
    /// Passes on what an operator emitted during one call. Rejections first: under `fail` nothing of the call goes on.
    pub(super) async fn settle(&mut self, link: usize, mut out: Output) -> Result<(), Stop> {
        let rejections = out.take_rejections();
        if !rejections.is_empty() {
            self.on_rejections(link, rejections).await?;
        }
        for Emitted { port, batch, marks } in out.take_marked() {
            let rows = batch.num_rows() as u64;
            match port {
                OutputPort::Late => self.links[link].metrics.rows_late.add(rows),
                OutputPort::Port(_) | OutputPort::Rejected => self.links[link].metrics.rows_out.add(rows),
            }
            self.emit_marked(link, port, batch, &marks).await?;
        }
        Ok(())
    }

    /// Rows with watermarks between them: cut there only if something downstream depends on where watermarks stand.
    pub(super) async fn emit_marked(&mut self, link: usize, port: OutputPort, batch: Batch, marks: &[Mark]) -> Result<(), Stop> {
        let Some(last) = marks.last() else { return self.emit(link, port, batch).await };
        if !self.links[link].cuts_at_watermarks {
            self.emit(link, port, batch).await?;
            return self.pass_watermark(link, Some(last.watermark)).await;
        }
        let mut start = 0;
        for mark in marks {
            self.emit(link, port, batch.slice(start..mark.rows)).await?;
            self.pass_watermark(link, Some(mark.watermark)).await?;
            start = mark.rows;
        }
        if start < batch.num_rows() {
            self.emit(link, port, batch.slice(start..batch.num_rows())).await?;
        }
        Ok(())
    }

    pub(super) async fn on_rejections(&mut self, link: usize, rejections: Vec<Rejection>) -> Result<(), Stop> {
        let Some(first) = rejections.first() else { return Ok(()) };
        let rejecting = &self.links[link];
        if rejecting.rejected == RejectedPolicy::Fail {
            return Err(rejecting.failed(OperatorError::user(first.describe())));
        }
        rejecting.metrics.rows_rejected.add(rejections.len() as u64);
        if matches!(rejecting.rejected, RejectedPolicy::Drop) {
            return Ok(());
        }
        let batch = rejected::to_batch(&rejecting.id, &rejections);
        self.emit(link, OutputPort::Rejected, batch).await
    }

    pub(super) async fn emit(&mut self, link: usize, port: OutputPort, batch: Batch) -> Result<(), Stop> {
        let clock = self.clock.as_ref();
        let Link { outlets, metrics, tap, .. } = &mut self.links[link];
        if matches!(port, OutputPort::Port(_)) {
            tap.offer(&batch);
        }
        for outlet in outlets.iter_mut().filter(|outlet| outlet.port == port) {
            let sending = Sending { metrics, to: outlet.to, clock };
            let crossing = match &outlet.columns {
                Some(columns) => batch.project(columns),
                None => batch.clone(),
            };
            match &mut outlet.target {
                Target::Local { link, slot } => {
                    self.asked.push(Step::Element { link: *link, slot: *slot, element: Element::Batch(crossing) });
                }
                Target::Remote(router) => router.send(Element::Batch(crossing), sending).await?,
            }
        }
        Ok(())
    }

    /// Sends a mark to every consumer of every output.
    pub(super) async fn broadcast(&mut self, link: usize, element: &Element) -> Result<(), Stop> {
        if self.ended {
            // Nobody reads an edge behind its end.
            return Ok(());
        }
        let clock = self.clock.as_ref();
        let Link { outlets, metrics, .. } = &mut self.links[link];
        for outlet in outlets {
            let sending = Sending { metrics, to: outlet.to, clock };
            match &mut outlet.target {
                Target::Local { link, slot } => self.asked.push(Step::Element { link: *link, slot: *slot, element: element.clone() }),
                Target::Remote(router) => router.send(element.clone(), sending).await?,
            }
        }
        Ok(())
    }
}
