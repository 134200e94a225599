//! What a tag points to now, put into every job that names the tag: planned for all of them first, and only then swapped, one job after the other.
//!
//! A job *names* a tag if an operator of its current version says `NAME:TAG` (or `NAME` for `latest`); what that meant when the version was made is pinned
//! there, and moving the tag touches nothing. Here the pin is moved, and the name stays, so that the tag can be moved again. All operators of a job that
//! name the tag are swapped as one version. With a job that refuses nothing is swapped at all, unless who asks says that it may be left out.

use std::sync::Arc;

use millstream_engine::run::SwitchAt;
use millstream_model::ErrorKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Change, Jobs,
    prepare::Asked,
    swap::{SwapReport, Switch, Wanted, component_of, probation_checked},
};
use crate::{
    catalogue::objects::{Job, Origin},
    components::{Reference, Which},
    failure::{Failure, Problem},
};

/// How a tag is swapped.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TagWanted {
    /// What the tag pointed to when the plan was made: if it points elsewhere by now, nothing is done. None: whatever it points to.
    pub digest: Option<String>,
    /// As for the swap of one job.
    #[schemars(with = "Option<String>")]
    pub switch_at: SwitchAt,
    /// As for the swap of one job.
    #[schemars(range(max = 3600))]
    pub probation_s: Option<u64>,
    /// As for the swap of one job.
    pub one_way: bool,
    /// Only say what would change in which job.
    pub dry_run: bool,
    /// Swap the other jobs although some refuse.
    pub skip_refused: bool,
}

/// What a tag's swap does, or did, to every job that names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TagSwap {
    /// `NAME:TAG`.
    pub reference: String,
    /// What the tag points to.
    pub digest: String,
    /// The jobs that name it, in the order of their names.
    pub jobs: Vec<JobSwap>,
}

/// One job that names the tag.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobSwap {
    /// The job.
    pub job: String,
    /// Its operators that name the tag.
    pub operators: Vec<String>,
    /// What they have run so far.
    pub from: String,
    /// What becomes of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What becomes of a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// It runs what the tag points to already.
    Current,
    /// It would be swapped.
    Planned {
        /// What is different.
        report: Box<SwapReport>,
    },
    /// It was swapped.
    Swapped {
        /// How.
        report: Box<SwapReport>,
    },
    /// It runs on as it was.
    Refused {
        /// Why.
        problems: Vec<Problem>,
    },
}

impl Jobs {
    /// Puts what a tag points to into every job that names it.
    ///
    /// # Errors
    /// There is no such tag, it has moved since the plan was made, or a job refuses and may not be left out: then nothing was swapped.
    pub async fn swap_tag(self: &Arc<Self>, change: &Change, name: &str, tag: &str, wanted: TagWanted) -> Result<TagSwap, Failure> {
        probation_checked(wanted.probation_s)?;
        let reference = Reference { name: name.to_owned(), which: Which::Tag(tag.to_owned()) };
        let digest = self.components.resolve(&change.tenant, &reference).await?;
        if let Some(planned) = wanted.digest.as_deref().map(|planned| planned.trim_start_matches("sha256:"))
            && planned != digest
        {
            return Err(Failure::new(
                ErrorKind::Conflict,
                format!("`{reference}` points elsewhere since the plan was made: to sha256:{digest}"),
            )
            .fix("plan again with `dry-run`"));
        }
        let target = Target { reference, digest };
        let planned = self.each(change, &target, &TagWanted { dry_run: true, ..wanted.clone() }).await?;
        if wanted.dry_run {
            return Ok(planned);
        }
        if !wanted.skip_refused {
            none_refused(&planned)?;
        }
        self.each(change, &target, &wanted).await
    }

    async fn each(self: &Arc<Self>, change: &Change, target: &Target, wanted: &TagWanted) -> Result<TagSwap, Failure> {
        let mut jobs = Vec::new();
        for found in self.store.list::<Job>(&change.tenant, None, usize::MAX).await? {
            let Some((operators, from)) = self.naming(&found.object, target)? else { continue };
            let outcome = if from == target.digest {
                Outcome::Current
            } else {
                match self.swap_pinned(change, &found.name, target, wanted).await {
                    Ok(report) if wanted.dry_run => Outcome::Planned { report: Box::new(report) },
                    Ok(report) => Outcome::Swapped { report: Box::new(report) },
                    Err(failure) => Outcome::Refused { problems: self.hidden_of(&change.tenant, &found.name).redacted(failure).problems },
                }
            };
            jobs.push(JobSwap { job: found.name, operators, from, outcome });
        }
        Ok(TagSwap { reference: target.reference.to_string(), digest: target.digest.clone(), jobs })
    }

    /// The operators of a job that name the tag, and what that means to them.
    fn naming(&self, job: &Job, target: &Target) -> Result<Option<(Vec<String>, String)>, Failure> {
        let current = job.current();
        let names = |text: &str| Reference::parse(text).is_ok_and(|reference| reference == target.reference);
        // `NAME` and `NAME:latest` are one tag that a job may have pinned twice: what is behind is what is told.
        let mut pinned = current.components.iter().filter(|(text, _)| names(text)).map(|(_, digest)| digest);
        let Some(from) = pinned.clone().find(|digest| **digest != target.digest).or_else(|| pinned.next()) else { return Ok(None) };
        let document = self.document(&Asked::of(current))?;
        let ids = document["operators"].as_object().into_iter().flat_map(|operators| operators.keys());
        let operators: Vec<String> =
            ids.filter(|id| component_of(&document, id).is_ok_and(|(component, _)| names(&component))).cloned().collect();
        Ok((!operators.is_empty()).then(|| (operators, from.clone())))
    }

    async fn swap_pinned(self: &Arc<Self>, change: &Change, job: &str, target: &Target, wanted: &TagWanted) -> Result<SwapReport, Failure> {
        let runner = self.runner(&change.tenant, job);
        let _turn = self.turn(&runner)?;
        let found = self.expected(change, job).await?;
        let gone = || Failure::new(ErrorKind::Conflict, format!("job `{job}` no longer names `{}`", target.reference)).fix("plan again");
        let (operators, _) = self.naming(&found.object, target)?.ok_or_else(gone)?;
        let mut asked = Asked::of(found.object.current());
        for (text, digest) in &mut asked.components {
            if Reference::parse(text).is_ok_and(|reference| reference == target.reference) {
                digest.clone_from(&target.digest);
            }
        }
        let &TagWanted { switch_at, probation_s, one_way, dry_run, .. } = wanted;
        let wanted = Wanted { operators: Default::default(), switch_at, probation_s, one_way, dry_run };
        let origin = Origin::Swapped { operators: operators.clone() };
        Ok(self.switch(change, found, Switch { asked, operators, origin, wanted, promotes: None }).await?.0)
    }
}

/// What is put into the jobs.
struct Target {
    reference: Reference,
    digest: String,
}

/// Nothing is swapped if a job refuses.
fn none_refused(planned: &TagSwap) -> Result<(), Failure> {
    let refused = |job: &JobSwap| match &job.outcome {
        Outcome::Refused { problems } => problems.iter().map(|problem| of_job(&job.job, problem)).collect(),
        Outcome::Current | Outcome::Planned { .. } | Outcome::Swapped { .. } => Vec::new(),
    };
    let problems: Vec<Problem> = planned.jobs.iter().flat_map(refused).collect();
    if problems.is_empty() { Ok(()) } else { Err(Failure { kind: ErrorKind::Conflict, problems }) }
}

fn of_job(job: &str, problem: &Problem) -> Problem {
    Problem {
        message: format!("job `{job}`, and with it the tag, is not swapped: {}", problem.message),
        fix: Some("see to that job first, or leave it out: `skip-refused`".to_owned()),
        ..problem.clone()
    }
}
