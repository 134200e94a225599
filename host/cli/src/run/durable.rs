//! A durable run: the job directory is locked and found to be this job's, the job goes on from where it says, and the control socket answers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_engine::{
    clock::{Clock, SystemClock},
    graph::JobPlan,
    run::{self, Durable, FileWork, Misfit, RunSettings, StartFrom},
};
use millstream_server::{
    backups,
    kept::{self, Kept},
    place::{Owner, Place},
    random::Seeded,
};
use millstream_storage::{DirectoryLock, LocalCommitLog};
use tokio::sync::{mpsc, watch};

use super::{Arguments, crash::crash_points, state, stop::Stops, watch::Watch};
use crate::{
    control::{responder::Responder, server::Server},
    progress::Progress,
    report::{Exit, Failure},
    signals::Signals,
    terminal::{self, STRONG},
};

/// What to do about a version of an operator that cannot go on from its state.
pub const UNREADABLE_FIX: &str = "put the version back that left the state, which goes on as if nothing had happened; or give the new one a migration from it (in Rust: \
     #[state(version = …, migrates(OldType))] and #[millstream::operator(keyed, migrates)])";

/// Where sources and sinks of a job keep what they have accepted.
pub fn sources(directory: &Path) -> PathBuf {
    directory.join("sources")
}

/// Runs the job from where its directory says, until it has ended or is stopped.
pub async fn run(
    directory: &Path,
    arguments: &Arguments,
    plan: Arc<JobPlan>,
    data: &tokio::runtime::Handle,
    progress: Progress,
    signals: &mut Signals,
) -> Result<Exit, Failure> {
    let place = Place::made(directory)?;
    let lock = DirectoryLock::acquire(place.path()).map_err(|error| Failure::from_error(Exit::of(error.kind()), &error))?;
    // Held until the process ends: what was given up may still be writing.
    Box::leak(Box::new(lock));
    let owner = owner(&place, arguments, &plan)?;
    let (start, from) = start(&place, &owner, arguments).await?;
    if let Some(from) = &from {
        let swapped = start == StartFrom::Latest && run::has_swapped(place.storage(&owner)?.as_ref(), &plan.job).await.unwrap_or(false);
        check_places(&plan, from, &start, swapped)?;
    }
    place.set_owner(&owner)?;
    let settings = RunSettings {
        runtime: data.clone(),
        state: Some(state(&place.work())),
        durable: Some(durable(&place, &owner, start)?),
        ..RunSettings::new()
    };
    let server = Server::open(&place)?;
    let handle = run::start(plan.clone(), settings);
    let (stop, stops) = mpsc::channel(1);
    let (close, closing) = watch::channel(());
    say(arguments, &plan, from.as_ref());
    let serving = tokio::spawn(server.serve(Responder::new(place.clone(), owner.clone(), handle.clone(), stop), closing));
    let mut watch = Watch::new(handle.clone(), super::is_bounded(&plan), progress, Some(Stops::new(handle.clone(), stops)));
    let backing_up = plan.durability.backups.map(|backups| tokio::spawn(backups::keep(place, owner, handle.clone(), backups)));
    let outcome = watch.until_ended(signals).await;
    if let Some(backing_up) = backing_up {
        backing_up.abort();
    }
    // Who asked the job to stop gets its answer.
    drop(close);
    serving.await.expect("serving does not panic and is not cancelled");
    watch.report(&*outcome?, arguments)
}

/// The directory is this job's, with this storage, or nobody's.
fn owner(place: &Place, arguments: &Arguments, plan: &JobPlan) -> Result<Owner, Failure> {
    let storage = plan.durability.checkpoints.storage.clone();
    let file = arguments.job.file.canonicalize().unwrap_or_else(|_| arguments.job.file.clone());
    let now = Owner::new(plan.job.clone(), file, storage);
    let Some(before) = place.owner()? else { return Ok(now) };
    let directory = place.path().display();
    if before.job != now.job {
        return Err(Failure::new(Exit::Invalid, format!("`{directory}` belongs to job `{}`; this is job `{}`", before.job, now.job))
            .fix("give each job a directory of its own with --state"));
    }
    if before.storage != now.storage && !arguments.fresh {
        let place_of = |owner: &Owner| owner.storage.clone().unwrap_or_else(|| "its job directory".to_owned());
        return Err(Failure::new(
            Exit::Invalid,
            format!("the checkpoints of job `{}` lie in {}, and the job file says {} now", now.job, place_of(&before), place_of(&now)),
        )
        .fix("take a savepoint with the old job file, then start from it: millstream run … --fresh --restore SAVEPOINT"));
    }
    Ok(now)
}

/// Where the run starts, by what was asked for and what is there.
async fn start(place: &Place, owner: &Owner, arguments: &Arguments) -> Result<(StartFrom, Option<Kept>), Failure> {
    if let Some(named) = &arguments.restore {
        let has_run = !arguments.fresh && kept::record(place, owner).await?.is_some_and(|record| record.checkpoint.is_some());
        if has_run {
            return Err(Failure::new(
                Exit::Invalid,
                format!(
                    "job `{}` has checkpoints in `{}` that are newer than the savepoint, or have nothing to do with it",
                    owner.job,
                    place.path().display()
                ),
            )
            .fix("to go on: leave out --restore; to go back to the savepoint, although rows are then written again: add --fresh"));
        }
        let path = kept::savepoint_directory(named, Some(place))?;
        let kept = Kept::savepoint(&path).await?;
        let start = StartFrom::Savepoint {
            location: path.canonicalize().unwrap_or(path).display().to_string(),
            allow_dropped: arguments.allow_dropped_state.clone(),
            renames: arguments.rename.iter().cloned().collect(),
        };
        return Ok((start, Some(kept)));
    }
    if arguments.fresh {
        return Ok((StartFrom::Fresh, None));
    }
    Ok((StartFrom::Latest, Kept::last(place, owner).await?))
}

/// Nothing that is kept would be lost in silence. `swapped`: other versions run than the job file names, and only the run knows which.
fn check_places(plan: &JobPlan, from: &Kept, start: &StartFrom, swapped: bool) -> Result<(), Failure> {
    let (renames, allow_dropped) = match start {
        StartFrom::Savepoint { renames, allow_dropped, .. } => (renames.clone(), &allow_dropped[..]),
        StartFrom::Latest | StartFrom::Fresh => (BTreeMap::new(), &[][..]),
    };
    let fix = if matches!(start, StartFrom::Savepoint { .. }) {
        "say its new name: --rename OLD=NEW, or that it may be forgotten: --allow-dropped-state ID"
    } else {
        "give it its id back; or make a savepoint (millstream savepoint create NAME --state DIR) and start from it with --fresh --restore NAME and --rename OLD=NEW or --allow-dropped-state ID"
    };
    let checked = match run::check_places(plan, &from.manifest, &renames, allow_dropped) {
        Err(Misfit::Unreadable(_)) if swapped => Ok(()),
        checked => checked,
    };
    checked.map_err(|misfit| {
        let fix = if matches!(misfit, Misfit::Unreadable(_)) { UNREADABLE_FIX } else { fix };
        Failure::from_error(Exit::Invalid, misfit.error()).fix(fix)
    })
}

/// What the run promises and where it goes on: `flights: exactly once, going on from checkpoint 18 (3.2 s old, 1.2 MiB)`.
fn say(arguments: &Arguments, plan: &JobPlan, from: Option<&Kept>) {
    if arguments.quiet || arguments.json {
        return;
    }
    let (job, guarantee) = (&plan.job, kept::guarantee_text(plan.durability.guarantee));
    let from = match from.map(Kept::facts) {
        None => "a fresh start".to_owned(),
        // The outcome will say that there is nothing to do.
        Some(facts) if facts.finished && facts.savepoint.is_none() => return,
        Some(facts) => {
            let shown = facts.shown(SystemClock.now_ms());
            facts.savepoint.map_or_else(|| format!("going on from {shown}"), |name| format!("from savepoint `{name}` of {shown}"))
        }
    };
    terminal::note(&format!("{STRONG}{job}{STRONG:#}: {guarantee}, {from}"));
}

/// The parts of a durable run.
fn durable(place: &Place, owner: &Owner, start: StartFrom) -> Result<Durable, Failure> {
    let log = LocalCommitLog::open(&place.commit_log()).map_err(|error| Failure::from_error(Exit::of(error.kind()), &error))?;
    Ok(Durable {
        storage: place.storage(owner)?,
        log: Arc::new(log),
        work: place.work(),
        random: Arc::new(Seeded::from_system()?),
        start,
        file_work: FileWork::OnThreads,
        crash: crash_points()?,
    })
}
