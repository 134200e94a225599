//! Where the commit of a durable run is decided: in its own log, or, where sinks are transactional, in the transaction that holds their rows.
//!
//! In the second case the run's own log repeats what was decided ([`Elsewhere`]), so that tools find it. It also remembers that there must be a
//! record over there, and by what name: the lineage, which is made once per job directory, so that a fork meets nothing of the original.

use std::{any::Any, collections::BTreeSet, sync::Arc};

use async_trait::async_trait;
use millstream_model::ids::{JobId, OperatorId};
use millstream_storage::{Claim, CommitLog, CommitRecord, Elsewhere, Error};

use super::{CrashPoint, CrashPoints, RunSettings, durable::Durable};
use crate::{
    clock::Random,
    connector::{Transaction, TransactionRequest},
    graph::{JobPlan, NodeKind},
    operator::OperatorError,
};

/// What writers take part in a transaction by.
pub(super) type Part = Arc<dyn Any + Send + Sync>;

/// The commit log of a run.
pub(super) struct Decision {
    own: Arc<dyn CommitLog>,
    transaction: Option<Arc<dyn Transaction>>,
    random: Arc<dyn Random>,
    crash: Option<Arc<dyn CrashPoints>>,
}

impl Decision {
    /// Opens the transaction that the sinks of `plan` take part in, if they do.
    pub(super) fn of(plan: &JobPlan, settings: &RunSettings, durable: &Durable) -> Result<Self, (OperatorId, OperatorError)> {
        let mut sinks = plan.nodes.iter().filter_map(|node| match &node.kind {
            NodeKind::Sink(sink) => Some((&node.id, sink.transactional()?)),
            NodeKind::Source(_) | NodeKind::Operator(_) => None,
        });
        let writes: BTreeSet<String> = sinks.clone().flat_map(|(_, sink)| sink.writes()).collect();
        let open = |(id, sink): (&OperatorId, &dyn crate::connector::Transactional)| {
            let checkpoint_interval = plan.durability.checkpoints.interval;
            let (job, clock, writes) = (plan.job.clone(), settings.clock.clone(), writes.iter().cloned().collect());
            let request = TransactionRequest { job, checkpoint_interval, clock, writes };
            sink.open(request).map_err(|error| (id.clone(), error))
        };
        let transaction = sinks.next().map(open).transpose()?;
        Ok(Self { own: durable.log.clone(), transaction, random: durable.random.clone(), crash: durable.crash.clone() })
    }

    /// What writers take part in the transaction by; none: there is no transaction. Asked for after the claim.
    pub(super) fn part(&self) -> Option<Part> {
        self.transaction.as_ref().map(|transaction| transaction.part())
    }

    /// The run is over: nothing of it stays open.
    pub(super) async fn end(&self) {
        if let Some(transaction) = &self.transaction {
            transaction.end().await;
        }
    }

    /// Where the records are that decide, as the run's own log knows it; written down when it does not.
    async fn elsewhere(&self, job: &JobId, known: &CommitRecord, log: String) -> Result<Elsewhere, Error> {
        match &known.elsewhere {
            Some(elsewhere) if elsewhere.log == log => Ok(elsewhere.clone()),
            Some(elsewhere) => Err(Error::Refused {
                what: "claiming",
                path: log,
                problem: format!(
                    "so far the job was decided in {}; take a savepoint with the old job file and start from it (--fresh --restore)",
                    elsewhere.log
                ),
            }),
            None => {
                let elsewhere = Elsewhere { log, lineage: format!("{:016x}", self.random.next_u64()), since: known.incarnation };
                // Before anything is written there: a name that is lost with the process would leave a record that nobody finds.
                self.own.note(job, &CommitRecord { elsewhere: Some(elsewhere.clone()), ..known.clone() }).await?;
                Ok(elsewhere)
            }
        }
    }

    async fn claim_in(&self, transaction: &dyn Transaction, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
        let known = self.own.read(job).await?.unwrap_or_default();
        let elsewhere = match self.elsewhere(job, &known, transaction.log_name()).await {
            // What was committed before is forgotten, and so it matters no more where.
            Err(Error::Refused { .. }) if claim.is_fresh => {
                self.elsewhere(job, &CommitRecord { elsewhere: None, ..known.clone() }, transaction.log_name()).await?
            }
            found => found?,
        };
        let seen_incarnation = claim.seen_incarnation.max(known.incarnation);
        // Until something was decided there, what the run's own log decided counts.
        let before = (known.incarnation == elsewhere.since).then_some(CommitRecord { elsewhere: None, ..known });
        let record = transaction.claim(&elsewhere.lineage, before, Claim { seen_incarnation, ..claim }).await?;
        self.own.note(job, &CommitRecord { elsewhere: Some(elsewhere), ..record.clone() }).await?;
        Ok(record)
    }
}

#[async_trait]
impl CommitLog for Decision {
    async fn claim(&self, job: &JobId, claim: Claim) -> Result<CommitRecord, Error> {
        if let Some(transaction) = &self.transaction {
            return self.claim_in(transaction.as_ref(), job, claim).await;
        }
        match self.own.read(job).await?.and_then(|known| known.elsewhere) {
            Some(elsewhere) if !claim.is_fresh => Err(Error::Refused {
                what: "claiming",
                path: "the commit log".into(),
                problem: format!(
                    "so far the job was decided in {}, and it has no sink there any more; take a savepoint with the old job file and start from it \
                     (--fresh --restore)",
                    elsewhere.log
                ),
            }),
            Some(_) => {
                let claimed = self.own.claim(job, claim).await?;
                let here = CommitRecord { elsewhere: None, ..claimed };
                self.own.note(job, &here).await?;
                Ok(here)
            }
            None => self.own.claim(job, claim).await,
        }
    }

    async fn commit(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        let Some(transaction) = &self.transaction else { return self.own.commit(job, record).await };
        transaction.commit(record).await?;
        if self.crash.as_ref().is_some_and(|crash| crash.reached(CrashPoint::Decided)) {
            return Err(Error::Io { what: "committing", path: transaction.log_name(), source: "the run dies here".into() });
        }
        if let Err(error) = self.note(job, record).await {
            // It is decided; the next claim says it here as well.
            tracing::warn!(%error, "the commit could not be noted in the job directory");
        }
        Ok(())
    }

    async fn note(&self, job: &JobId, record: &CommitRecord) -> Result<(), Error> {
        let elsewhere = self.own.read(job).await?.and_then(|known| known.elsewhere);
        self.own.note(job, &CommitRecord { elsewhere, ..record.clone() }).await
    }

    async fn read(&self, job: &JobId) -> Result<Option<CommitRecord>, Error> {
        self.own.read(job).await
    }
}

#[cfg(test)]
mod tests;
