//! What happens when a guest fails: one rule.
//!
//! `retry`: the same call again after 100 ms … 10 s, five times, then as any other failure. Trap, limit, refused answer or `fatal`: a new
//! instance and the whole call once more, then in halves, in row order; a single row that fails twice is rejected. A repeated call gets the
//! same clocks. Since a failed call applied nothing, nothing is lost or done twice.
//!
//! A version on probation gets no second try: the version before is put back, and does the call. A version on trial ([`super::trial`]) only answers what the
//! running one has answered already, so nothing here is about its failures.

use super::{
    call::{Failed, Work},
    plan::opening_failed,
    run::{Called, ComponentOperator},
    trial::Answerer,
};
use crate::{
    metrics::Waiting,
    operator::{Moment, OperatorError, Output},
};

/// Waits before the tries that a guest asks for, in ms.
const RETRY_WAITS_MS: [i64; 5] = [100, 320, 1_000, 3_200, 10_000];

/// A part of a call that is still to be done.
struct Piece {
    start: usize,
    end: usize,
    /// It failed once already and is repeated with a new instance.
    is_repeated: bool,
}

impl ComponentOperator {
    /// Calls the guest, and deals with its failures; while a version is on trial, in parts by who answers.
    pub(super) async fn call(&mut self, work: Work, now: Moment, out: &mut Output) -> Result<Called, OperatorError> {
        for (part, by) in self.parts(work)? {
            if self.call_part(part, by, now, out).await? == Called::RolledBack {
                return Ok(Called::RolledBack);
            }
        }
        Ok(Called::Done)
    }

    async fn call_part(&mut self, work: Work, by: Answerer, now: Moment, out: &mut Output) -> Result<Called, OperatorError> {
        let mut retries = RETRY_WAITS_MS.iter();
        let whole = work.len();
        let mut pieces = vec![Piece { start: 0, end: whole, is_repeated: false }];
        while let Some(piece) = pieces.pop() {
            let part;
            let current = if piece.end - piece.start == whole {
                &work
            } else {
                part = work.part(piece.start..piece.end);
                &part
            };
            let reason = match self.attempt_until_done(current, by, now, out, &mut retries).await {
                Ok(()) => continue,
                Err(Failed::Host(error)) => return Err(error),
                Err(Failed::Guest { reason } | Failed::Retry { reason }) => reason,
            };
            if self.roll_back_because(reason.clone())? {
                self.context.metrics.traps.add(1);
                match &work {
                    Work::Rows { .. } => {
                        pieces.push(Piece { is_repeated: false, ..piece });
                        continue;
                    }
                    Work::Timers(_) => return Ok(Called::RolledBack),
                }
            }
            self.renew().await?;
            let count = piece.end - piece.start;
            if !piece.is_repeated && (count == whole || count == 1) {
                pieces.push(Piece { is_repeated: true, ..piece });
            } else if count == 1 {
                out.reject(self.rejection_of(current, 0, reason));
                self.drop_timers(current);
            } else {
                let middle = piece.start + count / 2;
                pieces.push(Piece { start: middle, end: piece.end, is_repeated: false });
                pieces.push(Piece { start: piece.start, end: middle, is_repeated: false });
            }
        }
        Ok(Called::Done)
    }

    /// Repeats a call as often as the guest asks for it, within what is left of the retries of the batch.
    async fn attempt_until_done(
        &mut self,
        work: &Work,
        by: Answerer,
        now: Moment,
        out: &mut Output,
        retries: &mut std::slice::Iter<'_, i64>,
    ) -> Result<(), Failed> {
        loop {
            match self.attempt(work, by, now, out).await {
                Err(Failed::Retry { reason }) => match retries.next() {
                    Some(wait_ms) => self.wait_for_retry(reason, *wait_ms).await,
                    None => return Err(Failed::Retry { reason }),
                },
                done => return done,
            }
        }
    }

    async fn wait_for_retry(&mut self, reason: String, wait_ms: i64) {
        let (clock, waits) = (&self.context.clock, &self.context.metrics.waits);
        let now_ms = clock.monotonic_ms();
        waits.begin(now_ms, Waiting::Retry { reason, until_ms: now_ms.saturating_add(wait_ms) });
        clock.sleep(wait_ms).await;
        waits.end();
        let waited_ms = clock.monotonic_ms().saturating_sub(now_ms);
        self.context.metrics.retrying_ns.add(u64::try_from(waited_ms).unwrap_or(0).saturating_mul(1_000_000));
    }

    async fn renew(&mut self) -> Result<(), OperatorError> {
        self.context.metrics.traps.add(1);
        self.instance = self.plan.instantiate(&self.guest).await.map_err(opening_failed)?;
        Ok(())
    }
}
