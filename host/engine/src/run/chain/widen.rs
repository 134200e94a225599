//! Wider rows in a chain: at a barrier its links pass on more columns, and what takes them is made anew or replaced, all at once.

use std::{any::Any, sync::Arc, time::Instant};

use super::{Chain, Control, NodeIndex, Operator, OperatorError, Role, Stop, Target};
use crate::{
    element::Barrier,
    graph::{Edge, Exchange, JobPlan},
    operator::{OperatorContext, OperatorPlan, Restored},
    run::{
        entry::Entry,
        outlet::Router,
        subtask::{Widen, WiderOperator},
    },
};

impl Chain {
    /// From here on rows are as wide as the plan says. After an error the chain is in no state to go on.
    #[expect(clippy::disallowed_methods, reason = "the time is only shown")]
    pub(super) async fn widen(&mut self, widen: Widen, barrier: Barrier) -> Result<(), Stop> {
        let Widen { plan, operators, answer } = widen;
        let began = Instant::now();
        for (node, wider) in operators {
            if let Err((link, error)) = self.widen_operator(node, wider, barrier).await {
                // Whoever asked may have gone.
                let _ = answer.send(Err(OperatorError::internal("a subtask could not take wider rows")));
                return Err(self.links[link].failed(error));
            }
        }
        for link in &mut self.links {
            for entry in &mut link.entries {
                *entry = Entry::of(entry.input, &plan.nodes[link.node].inputs[entry.input]);
            }
            for (outlet, edge) in link.outlets.iter_mut().zip(edges_from(&plan, link.node)) {
                outlet.columns.clone_from(&edge.columns);
                if let (Target::Remote(Router::Hash { keys, .. }), Exchange::Hash { keys: wider, .. }) =
                    (&mut outlet.target, &edge.exchange)
                {
                    keys.clone_from(wider);
                }
            }
        }
        self.widened = Some(plan);
        let _ = answer.send(Ok(began.elapsed()));
        Ok(())
    }

    /// Takes the plan by which rows have become wider since this was asked before.
    pub(in crate::run) fn take_widened(&mut self) -> Option<Arc<JobPlan>> {
        self.widened.take()
    }

    async fn widen_operator(&mut self, node: NodeIndex, wider: WiderOperator, barrier: Barrier) -> Result<(), (usize, OperatorError)> {
        let Some(link) = self.links.iter().position(|link| link.node == node) else {
            return Err((0, OperatorError::internal("a wider operator for a node that runs elsewhere")));
        };
        let Role::Operator(operator) = &mut self.links[link].role else {
            return Err((link, OperatorError::internal("a wider operator for what is none")));
        };
        let done = match wider {
            WiderOperator::Replacement(replacement) => replaced(operator.as_mut(), replacement).await,
            WiderOperator::Anew(plan, context) => match made_anew(operator.as_mut(), plan.as_ref(), *context, barrier).await {
                Ok(anew) => {
                    *operator = anew;
                    Ok(())
                }
                Err(error) => Err(error),
            },
        };
        done.map_err(|error| (link, error))
    }
}

async fn replaced(operator: &mut dyn Operator, replacement: Box<dyn Any + Send>) -> Result<(), OperatorError> {
    operator.on_control(Control::Switch { replacement, on_probation: false }).await
}

/// An instance that goes on where `old` is: from what it would have a checkpoint remember.
async fn made_anew(
    old: &mut dyn Operator,
    plan: &dyn OperatorPlan,
    context: OperatorContext,
    barrier: Barrier,
) -> Result<Box<dyn Operator>, OperatorError> {
    let value = old.on_barrier(barrier).await?;
    // As from a checkpoint with this parallelism, of which this instance takes its own.
    let values = if value.is_null() { Vec::new() } else { vec![value; context.parallelism as usize] };
    let restored = Restored { watermark: None, state: Vec::new(), values, may_drop: Arc::default() };
    plan.create(OperatorContext { restored: Some(Arc::new(restored)), ..context }).await
}

/// The edges that lead away from `node`, as its outlets stand.
pub(in crate::run) fn edges_from(plan: &JobPlan, node: NodeIndex) -> impl Iterator<Item = &Edge> {
    plan.nodes.iter().flat_map(|consumer| &consumer.inputs).filter(move |edge| edge.from == node)
}
