//! Other components in a run, and on trial beside it: the plan of the new version says what it reads, and the version that runs is planned again if rows have to carry more.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use millstream_engine::{
    graph::{JobPlan, Node, NodeKind, OperatorNode},
    plan::AlsoRead,
    run::{
        NewComponent, NewVersion, Promotion, Replan, SwapError, SwapRequest, SwapStatus, TrialError, TrialId, TrialReport, TrialRequest,
        TrialStatus, Widening,
    },
};
use millstream_model::{ErrorKind, StreamType, ids::OperatorId};

use super::{
    inside::{Floor, Plan},
    library::Loader,
    message::{Recipe, WantedSwap, WantedTrial},
    secrets::Secrets,
};
use crate::{
    failure::Failure,
    jobs::{prepare, swap::component_of},
};

impl Floor {
    pub(super) async fn prepare_swap(self: &Arc<Self>, wanted: WantedSwap) -> Result<Result<SwapStatus, SwapError>, Failure> {
        let WantedSwap { job, prepared, runs, operators, switch_at, probation_s, one_way, promotes } = wanted;
        let prepared = self.prepared(prepared)?;
        let Some(run) = self.run(&job) else { return Ok(Err(SwapError::Ended)) };
        // What the new settings refer to is looked up by the version that runs.
        run.secrets.learn(&prepared.recipe.secrets);
        let replanner = Arc::new(AsItRuns { floor: self.clone(), runs, secrets: run.secrets.clone() });
        let widening = Some(Widening { reads: reads(&prepared.plan, &operators), planner: replanner });
        let operators = self.new_versions(&prepared, &operators).await?;
        let request = SwapRequest { operators, switch_at, probation: Duration::from_secs(probation_s), one_way, widening, promotes };
        Ok(run.handle.prepare_swap(request).await)
    }

    pub(super) async fn try_version(&self, wanted: WantedTrial) -> Result<Result<TrialStatus, TrialError>, Failure> {
        let WantedTrial { job, prepared, operator, mode, rule } = wanted;
        let prepared = self.prepared(prepared)?;
        let Some(run) = self.run(&job) else { return Ok(Err(TrialError::Ended)) };
        run.secrets.learn(&prepared.recipe.secrets);
        let version = self.new_versions(&prepared, std::slice::from_ref(&operator)).await?.pop();
        let version = version.ok_or_else(|| Failure::new(ErrorKind::NotFound, format!("the job has no operator `{operator}`")))?;
        let request = TrialRequest { version, mode, rule, promotion: Promotion::Asked };
        Ok(run.handle.try_version(request).await)
    }

    pub(super) async fn trial_report(&self, job: &str) -> Option<TrialReport> {
        self.run(job)?.handle.trial_report().await
    }

    pub(super) async fn end_trial(&self, job: &str, trial: TrialId) -> Result<TrialStatus, TrialError> {
        match self.run(job) {
            Some(run) => run.handle.end_trial(trial).await,
            None => Err(TrialError::Ended),
        }
    }

    /// What the operators are to run: as the new version says it.
    async fn new_versions(&self, prepared: &Plan, operators: &[String]) -> Result<Vec<NewVersion>, Failure> {
        let document = prepare::document(&self.means.connectors, &prepared.recipe.asked)?;
        let mut versions = Vec::new();
        for operator in operators {
            let (name, settings) = component_of(&document, operator)?;
            let digest = prepared.components.get(&name).cloned().unwrap_or_default();
            let component = self.library.load(&digest, &name).await?;
            let bytes: Bytes = self.library.bytes(&digest).await?;
            let component = Some(NewComponent { component, bytes });
            versions.push(NewVersion { operator: OperatorId::from(operator.as_str()), component, settings: Some(settings) });
        }
        Ok(versions)
    }
}

/// Plans a job again as it runs.
struct AsItRuns {
    floor: Arc<Floor>,
    runs: Recipe,
    secrets: Arc<Secrets>,
}

#[async_trait]
impl Replan for AsItRuns {
    async fn replan(&self, also_read: &AlsoRead) -> Result<JobPlan, String> {
        let loader = Loader::new(&self.floor.library, &self.runs.components, self.secrets.clone());
        let draft = self.floor.draft(&self.runs).map_err(|failure| failure.to_string())?;
        let planned = self.floor.plan(&self.runs, &draft, &loader, None, also_read).await;
        planned.map_err(|failure| failure.to_string())
    }
}

/// The columns that operators read, as planned.
fn reads(plan: &JobPlan, operators: &[String]) -> AlsoRead {
    let of_operator = |operator: &OperatorNode| {
        let of_port = |(port, input): (usize, &StreamType)| {
            let all = || (0..input.schema.fields().len()).collect();
            let columns = operator.plan.reads(port).unwrap_or_else(all);
            columns.into_iter().map(|column| input.schema.field(column).name().clone()).collect()
        };
        operator.inputs.iter().enumerate().map(of_port).collect()
    };
    let of = |node: &Node| match &node.kind {
        NodeKind::Operator(operator) if operators.iter().any(|id| id == node.id.as_str()) => Some((node.id.clone(), of_operator(operator))),
        NodeKind::Source(_) | NodeKind::Operator(_) | NodeKind::Sink(_) => None,
    };
    plan.nodes.iter().filter_map(of).collect()
}
