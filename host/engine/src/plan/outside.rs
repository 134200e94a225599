//! Whether the outside has what a planned job asks of it: topics that exist, limits that are wide enough. Asked when a job is submitted or started, so that
//! what cannot work is refused at once and not found by the run. Who does not answer is no mistake of the job: the run tries again.

use std::time::Duration;

use futures::future::join_all;
use millstream_model::ids::OperatorId;

use crate::{
    graph::{JobPlan, Node, NodeKind},
    operator::{Fault, OperatorError},
};

/// How long is waited for an answer.
const ANSWER: Duration = Duration::from_secs(5);

/// What the outside does not have, by source and sink, of the user's fault; and who could not be asked, of the outside's. `is_durable`: checkpoints
/// will be taken.
pub async fn check_outside(plan: &JobPlan, is_durable: bool) -> Vec<(OperatorId, OperatorError)> {
    let interval = is_durable.then_some(plan.durability.checkpoints.interval);
    let looks = plan.nodes.iter().map(async |node| Some((node.id.clone(), look(node, interval).await?)));
    join_all(looks).await.into_iter().flatten().collect()
}

async fn look(node: &Node, interval: Option<Duration>) -> Option<OperatorError> {
    let looked = match &node.kind {
        NodeKind::Source(source) => tokio::time::timeout(ANSWER, source.source.check_outside()).await,
        NodeKind::Sink(sink) => tokio::time::timeout(ANSWER, sink.check_outside(interval)).await,
        NodeKind::Operator(_) => return None,
    };
    let late = |_| Err(OperatorError::outside(format!("nobody answered within {} s whether it has what the job needs", ANSWER.as_secs())));
    let error = looked.unwrap_or_else(late).err()?;
    if error.fault != Fault::User {
        tracing::info!(%error, of = %node.id, "the outside could not be asked whether it has what the job needs");
    }
    Some(error)
}
