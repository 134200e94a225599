//! Other components in a running job: planned as a whole version first, prepared beside what runs, written down, and only then switched.
//!
//! A swap that is refused leaves the job as it is. The version is in the catalogue before the first subtask switches, so that a process that is killed
//! in between comes back with it; if nothing could be switched, the version before is written down again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millstream_engine::{
    graph::NodeKind,
    operators::component::{ComponentOperatorPlan, ComponentRequest, PlanError},
    run::SwapId,
};
use millstream_model::{
    ErrorKind,
    ids::{OperatorId, TenantId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Change, Jobs, prepare::Asked, runner::Running};
use crate::{
    catalogue::{
        Expected, Found, Revision,
        objects::{Job, JobVersion, Origin},
    },
    components::Reference,
    events::What,
    failure::Failure,
};

/// What an operator is to run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Replacement {
    /// The component, as `enrich:v2` or `enrich@sha256:…`; none: the one that runs.
    #[serde(default)]
    pub component: Option<String>,
    /// Its settings; none: those that it has.
    #[serde(default)]
    pub settings: Option<Value>,
}

/// How a swap went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SwapReport {
    /// The version that runs.
    pub version: u64,
    /// Operator → how it went; of a job that does not run: empty.
    pub operators: BTreeMap<String, OperatorSwap>,
}

/// How the swap of one operator went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct OperatorSwap {
    /// For how long each of its subtasks was held up, in microseconds.
    pub pauses_us: Vec<u64>,
    /// Subtasks that had ended already.
    pub ended: usize,
}

impl Jobs {
    /// Puts other components, or other settings, into operators of a job.
    ///
    /// # Errors
    /// They do not fit, or another change is under way. The job runs on as it was.
    pub async fn swap(
        self: &Arc<Self>,
        change: &Change,
        name: &str,
        wanted: BTreeMap<String, Replacement>,
    ) -> Result<(SwapReport, Revision), Failure> {
        if wanted.is_empty() {
            return Err(Failure::new(ErrorKind::Invalid, "no operator is named")
                .fix("say which: {\"operators\": {\"<id>\": {\"component\": \"name:tag\"}}}"));
        }
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        let found = self.expected(change, name).await?;
        let asked = self.swapped(&change.tenant, found.object.current(), &wanted).await?;
        let operators: Vec<String> = wanted.keys().cloned().collect();
        self.switch(change, name, found, asked, &operators, Origin::Swapped { operators: operators.clone() }).await
    }

    /// Puts the components of an earlier version back.
    ///
    /// # Errors
    /// There is no such version, it differs in more than its components, or it does not fit. The job runs on as it was.
    pub async fn roll_back(self: &Arc<Self>, change: &Change, name: &str, to: Option<u64>) -> Result<(SwapReport, Revision), Failure> {
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        let found = self.expected(change, name).await?;
        let (earlier, operators) = {
            let current = found.object.current();
            let earlier = match to {
                Some(number) => found.object.version(number),
                None => before(&found.object),
            };
            let earlier = earlier.filter(|earlier| earlier.number != current.number).ok_or_else(|| no_version(&found, to))?;
            (earlier.clone(), self.differing_operators(current, earlier)?)
        };
        let origin = Origin::RolledBack { to: earlier.number };
        self.switch(change, name, found, Asked::of(&earlier), &operators, origin).await
    }

    /// A version with other components; every name is resolved, so that it means the same for ever.
    async fn swapped(&self, tenant: &TenantId, current: &JobVersion, wanted: &BTreeMap<String, Replacement>) -> Result<Asked, Failure> {
        let mut asked = Asked::of(current);
        let document = self.preparing.document(&asked)?;
        for (operator, replacement) in wanted {
            let (before, settings) = component_of(&document, operator)?;
            let component = match &replacement.component {
                None => before,
                Some(component) => {
                    let reference = Reference::parse(component)?;
                    let digest = self.preparing.components.resolve(tenant, &reference).await?;
                    let exact = format!("{}@sha256:{digest}", reference.name);
                    asked.components.insert(exact.clone(), digest);
                    exact
                }
            };
            let settings = replacement.settings.clone().unwrap_or(settings);
            asked.replaced.insert(format!("operators.{operator}.component"), json!({ "name": component, "settings": settings }));
        }
        Ok(asked)
    }

    /// Which operators two versions of one job file run with other components or settings.
    fn differing_operators(&self, one: &JobVersion, other: &JobVersion) -> Result<Vec<String>, Failure> {
        let (mut one_document, mut other_document) =
            (self.preparing.document(&Asked::of(one))?, self.preparing.document(&Asked::of(other))?);
        let ids: Vec<String> = one_document["operators"].as_object().into_iter().flat_map(|operators| operators.keys().cloned()).collect();
        let mut differing = Vec::new();
        for id in ids {
            let taken = |document: &mut Value| document["operators"][&id].as_object_mut().and_then(|operator| operator.remove("component"));
            if taken(&mut one_document) != taken(&mut other_document) {
                differing.push(id);
            }
        }
        if one_document != other_document {
            return Err(Failure::new(
                ErrorKind::Conflict,
                format!("version {} differs from version {} in more than its components", other.number, one.number),
            )
            .fix(format!("replace the job by that version's job file: GET …/versions/{}, then PUT it", other.number)));
        }
        Ok(differing)
    }

    /// Plans, prepares, writes down, switches.
    async fn switch(
        self: &Arc<Self>,
        change: &Change,
        name: &str,
        found: Found<Job>,
        asked: Asked,
        operators: &[String],
        origin: Origin,
    ) -> Result<(SwapReport, Revision), Failure> {
        // The whole job with the new components: what stands downstream must take what they emit, and a restart must find a job.
        let prepared = self.preparing.prepare(&change.tenant, &asked, None).await?;
        let runner = self.runner(&change.tenant, name);
        let running = runner.running();
        let mut swaps = Vec::new();
        if let Some(running) = &running {
            for operator in operators {
                swaps.push((operator.clone(), prepare_swap(running, &prepared.plan, operator).await?));
            }
        }
        let job = self.with_version(found.object.clone(), change, Asked { components: prepared.components, ..asked }, origin);
        let version = job.current().number;
        let revision = self.store.put(&change.tenant, name, &job, Expected::At(found.revision)).await?;
        let mut report = SwapReport { version, operators: BTreeMap::new() };
        for (operator, swap) in swaps {
            let Some(running) = &running else { break };
            match running.handle.switch(swap).await {
                Ok(switched) => {
                    let pauses_us =
                        switched.pauses.iter().map(Duration::as_micros).map(|us| u64::try_from(us).unwrap_or(u64::MAX)).collect();
                    report.operators.insert(operator, OperatorSwap { pauses_us, ended: switched.ended });
                }
                Err(error) => {
                    if report.operators.is_empty() {
                        self.store.put(&change.tenant, name, &found.object, Expected::At(revision)).await?;
                    }
                    return Err(Failure::from_error(error.kind(), &error));
                }
            }
        }
        self.events.emit(&change.tenant, Some(name), What::Version { version });
        Ok((report, revision))
    }
}

/// The version that ran before the current one, which may itself be a way back: then the one before what it went back from.
fn before(job: &Job) -> Option<&JobVersion> {
    let current = job.current();
    let reached = match current.origin {
        Origin::RolledBack { to } => to,
        _ => current.number,
    };
    job.versions.iter().rev().find(|version| version.number < reached)
}

fn no_version(found: &Found<Job>, to: Option<u64>) -> Failure {
    let message = match to {
        Some(number) => format!("job `{}` has no version {number} to go back to", found.name),
        None => format!("job `{}` has no earlier version", found.name),
    };
    Failure::new(ErrorKind::NotFound, message).fix(format!("GET /v1/jobs/{}/versions lists them", found.name))
}

/// The component of an operator and its settings, as the job file says them.
fn component_of(document: &Value, operator: &str) -> Result<(String, Value), Failure> {
    let Some(entry) = document["operators"].get(operator) else {
        let known: Vec<String> =
            document["operators"].as_object().into_iter().flat_map(|all| all.keys().map(|id| format!("`{id}`"))).collect();
        return Err(
            Failure::new(ErrorKind::NotFound, format!("the job has no operator `{operator}`")).fix(format!("it has {}", known.join(", ")))
        );
    };
    match &entry["component"] {
        Value::String(name) => Ok((name.clone(), Value::Null)),
        Value::Object(whole) => {
            let name = whole.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            Ok((name, whole.get("settings").cloned().unwrap_or(Value::Null)))
        }
        _ => Err(Failure::new(ErrorKind::Invalid, format!("operator `{operator}` is no component, and only components are swapped"))
            .fix("replace the job file: PUT /v1/jobs/<job>")),
    }
}

/// Instances of the new component beside those that run.
async fn prepare_swap(running: &Running, new: &millstream_engine::graph::JobPlan, operator: &str) -> Result<SwapId, Failure> {
    let id = OperatorId::from(operator);
    let planned = |plan: &millstream_engine::graph::JobPlan| plan.nodes.iter().position(|node| node.id == id);
    let missing = || Failure::new(ErrorKind::NotFound, format!("the job has no operator `{operator}`"));
    let old_node = &running.plan.nodes[planned(&running.plan).ok_or_else(missing)?];
    let new_node = &new.nodes[planned(new).ok_or_else(missing)?];
    let (NodeKind::Operator(old), NodeKind::Operator(new)) = (&old_node.kind, &new_node.kind) else { return Err(missing()) };
    let Some(new) = new.plan.as_any().downcast_ref::<ComponentOperatorPlan>() else {
        return Err(Failure::new(ErrorKind::Invalid, format!("operator `{operator}` is no component")));
    };
    let wanted =
        ComponentRequest { operator: id.clone(), settings: new.settings().clone(), inputs: &old.inputs, keys: old.keys.as_deref() };
    let plan = ComponentOperatorPlan::plan(new.component().clone(), wanted).await.map_err(|error| refused(operator, &error))?;
    let prepared = running.handle.prepare_swap(id, Arc::new(plan)).await;
    prepared.map_err(|error| Failure::from_error(error.kind(), &error).fix("the job runs on as it was"))
}

fn refused(operator: &str, error: &PlanError) -> Failure {
    Failure::new(ErrorKind::Conflict, format!("the new component does not fit in the place of `{operator}`")).because(error)
}
