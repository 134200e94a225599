//! Other components in a running job: planned as a whole version first, prepared beside what runs, written down, and only then switched.
//!
//! A swap that is refused leaves the job as it is. The version is in the catalogue before the first subtask switches, on probation: a process that dies
//! before the probation is over comes back with the version before. The engine puts the old version back by itself when the new one fails; this writes
//! that down as a version of its own. Whoever stops or changes the job ends the probation.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millstream_engine::run::{SwapError, SwapId, SwapPhase, SwapStatus, SwitchAt, SwitchReport, TrialId};
use millstream_model::{
    ErrorKind,
    ids::{OperatorId, TenantId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{
    Change, Jobs,
    prepare::{Asked, hidden_key},
    runner::Running,
};
use crate::{
    catalogue::{
        Expected, Found, Revision,
        objects::{Job, JobVersion, Origin},
    },
    components::Reference,
    events::What,
    failure::{Failure, Problem},
    workshop::{Request, WantedSwap},
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

/// What is swapped, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Wanted {
    /// Operator → what it is to run.
    pub operators: BTreeMap<String, Replacement>,
    /// `batch` (default): each subtask between two batches, as soon as it can; `barrier`: all at one barrier, so that what comes behind has all output
    /// of the old version before any of the new one.
    #[serde(default)]
    #[schemars(with = "Option<String>")]
    pub switch_at: SwitchAt,
    /// For how many seconds the old instances are kept: the first failure of the new version puts them back. Default: 30.
    #[serde(default)]
    #[schemars(range(max = 3600))]
    pub probation_s: Option<u64>,
    /// Swap although the old version cannot read what the new one writes, so that only a savepoint leads back.
    #[serde(default)]
    pub one_way: bool,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
}

/// How a swap went.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SwapReport {
    /// The version of the job that it made; of a trial: the one that it would make.
    pub version: u64,
    /// How the engine's swap stands: its phase, and for every operator from what to what and what is different. None: the job does not run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Value>")]
    pub swap: Option<SwapStatus>,
    /// For how long each subtask was held up, in microseconds.
    pub pauses_us: Vec<u64>,
    /// For how long each subtask was held up before that, at the barrier from which rows carry more columns, in microseconds; empty: they carry what they
    /// did.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub widening_pauses_us: Vec<u64>,
    /// Subtasks that had ended already.
    pub ended: usize,
}

/// How often it is looked at whether a probation is over.
const LOOK_MS: i64 = 250;
/// The longest probation, in seconds.
const PROBATION_S_MAX: u64 = 3_600;
/// The probation of who does not say, in seconds.
const PROBATION_S: u64 = 30;

impl Jobs {
    /// Puts other components, or other settings, into operators of a job.
    ///
    /// # Errors
    /// They do not fit, or another change is under way. The job runs on as it was.
    pub async fn swap(self: &Arc<Self>, change: &Change, name: &str, wanted: Wanted) -> Result<(SwapReport, Revision), Failure> {
        if wanted.operators.is_empty() {
            return Err(Failure::new(ErrorKind::Invalid, "no operator is named")
                .fix("say which: {\"operators\": {\"<id>\": {\"component\": \"name:tag\"}}}"));
        }
        probation_checked(wanted.probation_s)?;
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        let found = self.expected(change, name).await?;
        let asked = self.swapped(&change.tenant, found.object.current(), &wanted.operators).await?;
        let operators: Vec<String> = wanted.operators.keys().cloned().collect();
        let origin = Origin::Swapped { operators: operators.clone() };
        self.switch(change, found, Switch { asked, operators, origin, wanted, promotes: None }).await
    }

    /// Puts the components of an earlier version back: the instances that are kept, while the swap is on probation.
    ///
    /// # Errors
    /// There is no such version, it differs in more than its components, or it does not fit. The job runs on as it was.
    pub async fn roll_back(self: &Arc<Self>, change: &Change, name: &str, to: Option<u64>) -> Result<(SwapReport, Revision), Failure> {
        let runner = self.runner(&change.tenant, name);
        let _turn = self.turn(&runner)?;
        let found = self.expected(change, name).await?;
        let earlier = match to {
            Some(number) => found.object.version(number),
            None => before(&found.object),
        };
        let current = found.object.current();
        let earlier = earlier.filter(|earlier| earlier.number != current.number).ok_or_else(|| no_version(&found, to))?.clone();
        let operators = self.differing_operators(current, &earlier)?;
        let origin = Origin::RolledBack { to: earlier.number };
        let is_kept = current.on_probation && before(&found.object).is_some_and(|before| before.number == earlier.number);
        if let (true, Some(running)) = (is_kept, runner.running()) {
            match running.roll_back().await? {
                Ok(switched) => return self.rolled_back(change, found, &earlier, &running, Some(&switched)).await,
                // It is settled or undone by now: then as any other swap.
                Err(SwapError::UnknownSwap { .. }) => {}
                Err(error) => return Err(Failure::from_error(error.kind(), &error)),
            }
        }
        let wanted = Wanted { operators: BTreeMap::new(), switch_at: SwitchAt::Batch, probation_s: Some(0), one_way: true, dry_run: false };
        self.switch(change, found, Switch { asked: Asked::of(&earlier), operators, origin, wanted, promotes: None }).await
    }

    /// The engine has put an earlier version back: writes that down.
    async fn rolled_back(
        self: &Arc<Self>,
        change: &Change,
        found: Found<Job>,
        earlier: &JobVersion,
        running: &Running,
        switched: Option<&SwitchReport>,
    ) -> Result<(SwapReport, Revision), Failure> {
        let job = self.with_version(found.object, change, Asked::of(earlier), Origin::RolledBack { to: earlier.number });
        let version = job.current().number;
        let revision = self.store.put(&change.tenant, &found.name, &job, Expected::At(found.revision)).await?;
        self.events.emit(&change.tenant, Some(&found.name), What::Version { version });
        let swap = running.status().await.and_then(|status| status.swap);
        Ok((report(version, swap, switched), revision))
    }

    /// What a version is on probation for ends: as the version that runs, if the engine kept it, else as the one before.
    async fn watch_probation(self: Arc<Self>, change: Change, name: String, version: u64, swap: SwapId) {
        let runner = self.runner(&change.tenant, &name);
        loop {
            self.clock.sleep(LOOK_MS).await;
            // Who changes the job meanwhile ends the probation.
            let _turn = runner.turn.lock().await;
            let Ok(found) = self.job(&change.tenant, &name).await else { return };
            if found.object.current().number != version || !found.object.current().on_probation {
                return;
            }
            // A job that has ended on probation is asked when it starts again.
            let Some(running) = runner.running() else { return };
            let Some(status) = running.status().await.and_then(|status| status.swap).filter(|status| status.swap == swap) else {
                return;
            };
            let done = match &status.phase {
                SwapPhase::Settled | SwapPhase::Abandoned => self.settled(&change.tenant, found).await.map(drop),
                SwapPhase::RolledBack { reason } => {
                    let Some(earlier) = before(&found.object).cloned() else { return };
                    tracing::warn!(tenant = %change.tenant, job = %name, "version {version} was put back: {reason}");
                    self.rolled_back(&change, found, &earlier, &running, None).await.map(drop)
                }
                SwapPhase::Preparing
                | SwapPhase::Prepared
                | SwapPhase::Switching
                | SwapPhase::Probation
                | SwapPhase::RollingBack { .. } => continue,
            };
            if let Err(failure) = done {
                tracing::warn!(job = %name, "how a swap ended could not be written down: {failure}");
            }
            return;
        }
    }

    /// The probation of the version that runs is over: it stays.
    async fn settled(&self, tenant: &TenantId, found: Found<Job>) -> Result<Found<Job>, Failure> {
        let mut job = found.object;
        if let Some(current) = job.versions.last_mut() {
            current.on_probation = false;
        }
        let revision = self.store.put(tenant, &found.name, &job, Expected::At(found.revision)).await?;
        Ok(Found { name: found.name, revision, object: job })
    }

    /// Ends a probation, before the job is stopped or changed: who does that has seen enough. The caller has the turn.
    pub(super) async fn end_probation(&self, tenant: &TenantId, found: Found<Job>) -> Result<Found<Job>, Failure> {
        if !found.object.current().on_probation {
            return Ok(found);
        }
        if let Some(running) = self.runner(tenant, &found.name).running()
            && let Some(status) = running.status().await.and_then(|status| status.swap)
            && status.phase == SwapPhase::Probation
        {
            // It may have been settled or undone a moment ago; what is written down is what it is then.
            drop(running.settle_swap(status.swap).await);
        }
        self.settled(tenant, found).await
    }

    /// A process that died while a version was on probation comes back with the version before.
    pub(super) async fn undo_probation(&self, tenant: &TenantId, found: Found<Job>) -> Result<Job, Failure> {
        let current = found.object.current();
        let Some(earlier) = before(&found.object).filter(|_| current.on_probation).cloned() else { return Ok(found.object) };
        tracing::warn!(%tenant, job = %found.name, "version {} was on probation when the process ended: version {} is back", current.number, earlier.number);
        let change = Change { tenant: tenant.clone(), by: current.by.clone(), expected: None };
        let job = self.with_version(found.object, &change, Asked::of(&earlier), Origin::RolledBack { to: earlier.number });
        self.store.put(tenant, &found.name, &job, Expected::At(found.revision)).await?;
        Ok(job)
    }

    /// A version with other components; every name is resolved, so that it means the same for ever.
    pub(super) async fn swapped(
        &self,
        tenant: &TenantId,
        current: &JobVersion,
        wanted: &BTreeMap<String, Replacement>,
    ) -> Result<Asked, Failure> {
        let mut asked = Asked::of(current);
        let document = self.document(&asked)?;
        for (operator, replacement) in wanted {
            let (before, settings) = component_of(&document, operator)?;
            let component = match &replacement.component {
                None => before,
                Some(component) => {
                    let reference = Reference::parse(component)?;
                    let digest = self.components.resolve(tenant, &reference).await?;
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
        let (mut one_document, mut other_document) = (self.document(&Asked::of(one))?, self.document(&Asked::of(other))?);
        let ids: Vec<String> = one_document["operators"].as_object().into_iter().flat_map(|operators| operators.keys().cloned()).collect();
        let mut differing = Vec::new();
        // A name may have meant something else.
        let meant = |version: &JobVersion, document: &Value, id: &str| {
            let (name, _) = component_of(document, id).ok()?;
            version.components.get(&name).cloned()
        };
        for id in ids {
            let taken = |document: &mut Value| document["operators"][&id].as_object_mut().and_then(|operator| operator.remove("component"));
            let is_other = meant(one, &one_document, &id) != meant(other, &other_document, &id);
            if taken(&mut one_document) != taken(&mut other_document) || is_other {
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
    pub(super) async fn switch(
        self: &Arc<Self>,
        change: &Change,
        found: Found<Job>,
        switch: Switch,
    ) -> Result<(SwapReport, Revision), Failure> {
        let Switch { asked, operators, origin, wanted, promotes } = switch;
        let name = found.name.clone();
        // The whole job with the new components: what stands downstream must take what they emit, and a restart must find a job.
        let prepared = self.prepare(&change.tenant, &asked, None).await?;
        self.hidden.hide_also(&hidden_key(&change.tenant, &name), &prepared.references);
        let found = if wanted.dry_run { found } else { self.end_probation(&change.tenant, found).await? };
        let asked = Asked { components: prepared.components.clone(), ..asked };
        let running = self.runner(&change.tenant, &name).running();
        let Some(running) = running else {
            let version = found.object.current().number + 1;
            if wanted.dry_run {
                return Ok((report(version, None, None), found.revision));
            }
            let job = self.with_version(found.object, change, asked, origin);
            let revision = self.store.put(&change.tenant, &name, &job, Expected::At(found.revision)).await?;
            self.events.emit(&change.tenant, Some(&name), What::Version { version });
            return Ok((report(version, None, None), revision));
        };
        let swap = WantedSwap {
            job: name.clone(),
            prepared: prepared.number,
            runs: self.recipe(&change.tenant, &Asked::of(found.object.current())).await?,
            operators,
            switch_at: wanted.switch_at,
            probation_s: wanted.probation_s.unwrap_or(PROBATION_S),
            one_way: wanted.one_way,
            promotes,
        };
        let status: Result<SwapStatus, SwapError> = running.answer(Request::PrepareSwap { swap: Box::new(swap) }).await?;
        let status = status.map_err(|error| refused(&error))?;
        if wanted.dry_run {
            let abandoned = running.abandon_swap(status.swap).await?.map_err(|error| refused(&error))?;
            let status = SwapStatus { phase: abandoned.phase, ..status };
            return Ok((report(found.object.current().number + 1, Some(status), None), found.revision));
        }
        let mut job = self.with_version(found.object.clone(), change, asked, origin);
        let version = job.current().number;
        // With no way back there is nothing to come back to.
        let is_one_way = status.operators.iter().any(|operator| !operator.one_way.is_empty());
        let on_probation = !is_one_way && wanted.probation_s != Some(0);
        if let Some(current) = job.versions.last_mut() {
            current.on_probation = on_probation;
        }
        let revision = self.store.put(&change.tenant, &name, &job, Expected::At(found.revision)).await?;
        match running.switch(status.swap).await {
            Ok(Ok(switched)) => {
                self.events.emit(&change.tenant, Some(&name), What::Version { version });
                if on_probation {
                    tokio::spawn(self.clone().watch_probation(change.clone(), name, version, status.swap));
                }
                let now = running.status().await.and_then(|status| status.swap);
                Ok((report(version, now.or(Some(status)), Some(&switched)), revision))
            }
            Ok(Err(error)) => {
                // The old versions run: the version before is the one that is written down again.
                self.store.put(&change.tenant, &name, &found.object, Expected::At(revision)).await?;
                Err(refused(&error))
            }
            // Nobody knows how far it came. It is on probation as far as is written down, so the version before is what goes on.
            Err(failure) => Err(failure),
        }
    }
}

/// Another version of a job, and how to come to it.
pub(super) struct Switch {
    /// The version.
    pub asked: Asked,
    /// The operators that are different in it.
    pub operators: Vec<String>,
    /// How it came about.
    pub origin: Origin,
    /// How it is swapped in; which operators is said above.
    pub wanted: Wanted,
    /// The trial that it ends well.
    pub promotes: Option<TrialId>,
}

/// A probation is not too long.
pub(super) fn probation_checked(probation_s: Option<u64>) -> Result<(), Failure> {
    if probation_s.is_none_or(|seconds| seconds <= PROBATION_S_MAX) {
        return Ok(());
    }
    Err(Failure::new(ErrorKind::Invalid, format!("`probation-s` must be at most {PROBATION_S_MAX}")))
}

fn report(version: u64, swap: Option<SwapStatus>, switched: Option<&SwitchReport>) -> SwapReport {
    let us = |pauses: &[Duration]| pauses.iter().map(|pause| u64::try_from(pause.as_micros()).unwrap_or(u64::MAX)).collect();
    SwapReport {
        version,
        swap,
        pauses_us: switched.map_or_else(Vec::new, |switched| us(&switched.pauses)),
        widening_pauses_us: switched.map_or_else(Vec::new, |switched| us(&switched.widening_pauses)),
        ended: switched.map_or(0, |switched| switched.ended),
    }
}

/// Every difference as a problem of its own.
fn refused(error: &SwapError) -> Failure {
    let (SwapError::Incompatible { refusals } | SwapError::OneWay { refusals }) = error else {
        return Failure::from_error(error.kind(), error).fix("the job runs on as it was");
    };
    let fix = match error {
        SwapError::OneWay { .. } => "take a savepoint and swap with `one-way`, or keep the state readable; the job runs on as it was",
        _ => "the job runs on as it was",
    };
    let problem = |operator: &OperatorId, difference: &String| Problem {
        message: difference.clone(),
        path: Some(format!("operators.{operator}")),
        fix: Some(fix.to_owned()),
        ..Problem::default()
    };
    let problems = refusals.iter().flat_map(|refusal| refusal.differences.iter().map(|difference| problem(&refusal.operator, difference)));
    Failure { kind: error.kind(), problems: problems.collect() }
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
pub(crate) fn component_of(document: &Value, operator: &str) -> Result<(String, Value), Failure> {
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
