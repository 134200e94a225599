//! A swap before it touches anything: new versions are planned, compared with those that run, and opened beside them; where they read more than is
//! carried, the job is planned with wider streams first. Away from the supervisor: it may take long, and holds nothing up.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use millstream_model::ids::OperatorId;

use super::{Answer, Instances, Plans, causes, widen::PreparedWidening};
use crate::{
    graph::{JobPlan, NodeIndex, NodeKind},
    operator::{OperatorContext, OperatorError, OperatorPlan, Version},
    run::{
        subtask::{SubtaskNumber, WiderOperator},
        swap::{OperatorSwap, SwapError, SwapRefusal, SwapRequest, SwapStatus, SwitchReport},
        widening::{Widened, Widening, missing, widened},
    },
};

/// New versions, compared with those that run, and an instance of each for every subtask.
pub(in crate::run) struct Prepared {
    pub(super) new: Plans,
    /// What they replace, planned for the same streams.
    pub(super) old: Plans,
    pub(super) operators: Vec<OperatorSwap>,
    pub(super) instances: BTreeMap<SubtaskNumber, Instances>,
    pub(super) components: BTreeMap<String, bytes::Bytes>,
    /// What has to carry more columns first.
    pub(super) widening: Option<PreparedWidening>,
}

/// Who waits for a preparation.
pub(in crate::run) enum PreparedAnswer {
    /// It is shown, and waits for the switch.
    Status(Answer<SwapStatus>),
    /// It switches at once: a swap that leads back.
    Switch(Answer<SwitchReport>),
}

impl PreparedAnswer {
    /// Whether it switches at once.
    pub(super) fn switches(&self) -> bool {
        matches!(self, Self::Switch(_))
    }

    pub(super) fn refuse(self, error: SwapError) {
        // Whoever asked may have gone.
        match self {
            Self::Status(answer) => drop(answer.send(Err(error))),
            Self::Switch(answer) => drop(answer.send(Err(error))),
        }
    }
}

/// What is needed to prepare a swap, away from the supervisor.
pub(super) struct Preparation {
    pub(super) request: SwapRequest,
    pub(super) running: Vec<(NodeIndex, Arc<dyn OperatorPlan>)>,
    /// What to put in their place; none: what the request says.
    pub(super) plans: Option<Plans>,
    /// Those were planned when streams were narrower, maybe.
    pub(super) replans: bool,
    /// The job as it runs.
    pub(super) job: JobPlan,
    /// Per node, the contexts of its instances.
    pub(super) contexts: HashMap<NodeIndex, Vec<OperatorContext>>,
    /// By subtask, the nodes that it runs.
    pub(super) members: Vec<Vec<NodeIndex>>,
}

impl Preparation {
    pub(super) async fn run(mut self) -> Result<Prepared, SwapError> {
        let widened = self.widened().await?;
        if let Some(widened) = &widened {
            // What takes their place is planned for wider streams, and so is what would be put back.
            for (node, plan) in &mut self.running {
                if let NodeKind::Operator(wider) = &widened.plan.nodes[*node].kind {
                    *plan = wider.plan.clone();
                }
            }
        }
        let new = self.plan().await?;
        let operators = self.compare(&new)?;
        let mut instances: BTreeMap<SubtaskNumber, Instances> = BTreeMap::new();
        for (node, _) in &self.running {
            for (number, context) in self.places(*node) {
                let made = new[node].clone().create_replacement(context.clone()).await;
                let made = made.map_err(|error| self.failed(*node, &error))?;
                instances.entry(number).or_default().push((*node, made));
            }
        }
        let widening = match widened {
            Some(widened) => Some(self.wider_instances(widened).await?),
            None => None,
        };
        let components = self.request.operators.iter().filter_map(|version| version.component.as_ref());
        let components = components.map(|component| (component.component.digest().to_string(), component.bytes.clone())).collect();
        let old = self.running.into_iter().collect();
        Ok(Prepared { new, old, operators, instances, components, widening })
    }

    /// The job with the columns that new versions read, if more than are carried.
    async fn widened(&self) -> Result<Option<Widened>, SwapError> {
        let Some(Widening { reads, planner }) = &self.request.widening else { return Ok(None) };
        let Some(also_read) = missing(&self.job, reads) else { return Ok(None) };
        let wide = planner.replan(&also_read).await.map_err(|reason| SwapError::NotWidened { reason })?;
        widened(&self.job, wide).map(Some)
    }

    /// What goes on with wider rows in the place of operators that do now.
    async fn wider_instances(&self, widened: Widened) -> Result<PreparedWidening, SwapError> {
        let mut operators: BTreeMap<SubtaskNumber, Vec<(NodeIndex, WiderOperator)>> = BTreeMap::new();
        for &node in &widened.operators {
            let NodeKind::Operator(wider) = &widened.plan.nodes[node].kind else { continue };
            for (number, context) in self.places(node) {
                let made = if wider.plan.version().is_some() {
                    let made = wider.plan.clone().create_replacement(context.clone()).await;
                    WiderOperator::Replacement(made.map_err(|error| self.failed(node, &error))?)
                } else {
                    WiderOperator::Anew(wider.plan.clone(), Box::new(context.clone()))
                };
                operators.entry(number).or_default().push((node, made));
            }
        }
        Ok(PreparedWidening::new(widened, operators))
    }

    /// The subtasks that run a node, with the contexts of their instances.
    fn places(&self, node: NodeIndex) -> impl Iterator<Item = (SubtaskNumber, &OperatorContext)> {
        let subtasks = (0..self.members.len()).filter(move |&number| self.members[number].contains(&node));
        subtasks.zip(self.contexts.get(&node).into_iter().flatten())
    }

    fn id(&self, node: NodeIndex) -> OperatorId {
        self.job.nodes[node].id.clone()
    }

    fn failed(&self, node: NodeIndex, error: &OperatorError) -> SwapError {
        SwapError::Failed { operator: self.id(node), reason: causes(error).join(": ") }
    }

    async fn plan(&self) -> Result<Plans, SwapError> {
        let (mut plans, mut refusals) = (Plans::new(), Vec::new());
        for (number, (node, running)) in self.running.iter().enumerate() {
            let version = match (&self.plans, self.request.operators.get(number)) {
                (Some(back), _) if !self.replans => {
                    plans.insert(*node, back[node].clone());
                    continue;
                }
                (Some(back), _) => back[node].as_version(),
                (None, Some(wanted)) => {
                    let component = wanted.component.as_ref().map(|component| component.component.clone());
                    Version { component, settings: wanted.settings.clone() }
                }
                (None, None) => continue,
            };
            match running.plan_version(&self.id(*node), version).await {
                Ok(plan) => drop(plans.insert(*node, plan)),
                Err(differences) => refusals.push(SwapRefusal { operator: self.id(*node), differences }),
            }
        }
        if refusals.is_empty() { Ok(plans) } else { Err(SwapError::Incompatible { refusals }) }
    }

    fn compare(&self, new: &Plans) -> Result<Vec<OperatorSwap>, SwapError> {
        let (mut swaps, mut refusals, mut one_way) = (Vec::new(), Vec::new(), Vec::new());
        for (node, running) in &self.running {
            let operator = self.id(*node);
            let found = running.compare(new[node].as_ref());
            if !found.refusals.is_empty() {
                refusals.push(SwapRefusal { operator: operator.clone(), differences: found.refusals });
                continue;
            }
            if !found.one_way.is_empty() {
                one_way.push(SwapRefusal { operator: operator.clone(), differences: found.one_way.clone() });
            }
            if let (Some(from), Some(to)) = (running.version(), new[node].version()) {
                swaps.push(OperatorSwap { operator, from, to, changes: found.changes, one_way: found.one_way });
            }
        }
        if !refusals.is_empty() {
            return Err(SwapError::Incompatible { refusals });
        }
        if !one_way.is_empty() && !self.request.one_way {
            return Err(SwapError::OneWay { refusals: one_way });
        }
        Ok(swaps)
    }
}
