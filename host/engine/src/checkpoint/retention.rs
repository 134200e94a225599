//! Which committed checkpoints stay, and which objects may go (R6). Pure: `collect.rs` carries it out.
//!
//! Three things may be removed, all of them only while nothing is uploaded ([`super::coordinator`]):
//! - a checkpoint that is no longer kept: its manifest, and those of its files that no kept one names ([`removable`]);
//! - what a checkpoint that was given up had uploaded: by the same rule;
//! - *orphans*, which a crash left: manifests that are not kept, of an older incarnation, a day old ([`orphan_manifests`]); and then files that no
//!   manifest names any more, a day old ([`orphan_files`]). A day is a second line of defence: should two runs share one storage although they
//!   must not, what the other one has under way is younger.
//!
//! A savepoint is whole in itself and lies elsewhere: nothing here is ever needed by one, but for the time in which it is copied (a pin).

use std::{collections::BTreeSet, num::NonZeroU32};

use millstream_model::ids::{CheckpointId, JobId};
use millstream_storage::Object;

/// An orphan that is younger may be in use.
pub const ORPHAN_AGE_MS: i64 = 24 * 60 * 60 * 1_000;

/// What becomes of the checkpoints that were kept when one more is committed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Kept besides the new one, oldest first.
    pub retained: Vec<CheckpointId>,
    /// No longer kept.
    pub dropped: Vec<CheckpointId>,
}

/// `kept`: oldest first, without the new one; `keeps`: how many are kept with it.
pub fn retain(kept: &[CheckpointId], keeps: NonZeroU32) -> Retention {
    let besides = usize::try_from(keeps.get() - 1).unwrap_or(usize::MAX);
    let (dropped, retained) = kept.split_at(kept.len().saturating_sub(besides));
    Retention { retained: retained.to_vec(), dropped: dropped.to_vec() }
}

/// Those of `candidates` that no kept checkpoint names.
pub fn removable<'a, F: Ord>(candidates: impl IntoIterator<Item = &'a F>, kept: &BTreeSet<F>) -> Vec<&'a F> {
    candidates.into_iter().filter(|candidate| !kept.contains(*candidate)).collect()
}

/// Whose storage it is, and when.
#[derive(Clone, Copy, Debug)]
pub struct Sweep<'a> {
    /// The job.
    pub job: &'a JobId,
    /// The incarnation that looks.
    pub incarnation: u64,
    /// By the clock of the machine.
    pub now_ms: i64,
}

/// Manifests of older incarnations that are not kept; `kept`: paths.
pub fn orphan_manifests<'a>(sweep: Sweep<'_>, objects: &'a [Object], kept: &BTreeSet<String>) -> Vec<&'a str> {
    let is_orphan = |object: &&Object| {
        let incarnation = manifest_incarnation(sweep.job, &object.path);
        incarnation.is_some_and(|incarnation| incarnation < sweep.incarnation) && !kept.contains(&object.path) && sweep.is_old(object)
    };
    objects.iter().filter(is_orphan).map(|object| object.path.as_str()).collect()
}

/// Files that no manifest names; `named`: paths of the files of every manifest that is left.
pub fn orphan_files<'a>(sweep: Sweep<'_>, objects: &'a [Object], named: &BTreeSet<String>) -> Vec<&'a str> {
    let is_orphan = |object: &&Object| is_file(sweep.job, &object.path) && !named.contains(&object.path) && sweep.is_old(object);
    objects.iter().filter(is_orphan).map(|object| object.path.as_str()).collect()
}

/// The incarnation that wrote the manifest at `path`; none: it is no manifest of this job.
pub fn manifest_incarnation(job: &JobId, path: &str) -> Option<u64> {
    path.strip_prefix(job.as_str())?.strip_prefix('/')?.split_once('/')?.0.parse().ok()
}

fn is_file(job: &JobId, path: &str) -> bool {
    path.strip_prefix(job.as_str()).is_some_and(|path| path.starts_with("/files/"))
}

impl Sweep<'_> {
    fn is_old(&self, object: &Object) -> bool {
        self.now_ms.saturating_sub(object.modified_ms) >= ORPHAN_AGE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[u64]) -> Vec<CheckpointId> {
        numbers.iter().copied().map(CheckpointId).collect()
    }

    fn retained_of(kept: &[u64], keeps: u32) -> Retention {
        retain(&ids(kept), NonZeroU32::new(keeps).expect("tests keep one at least"))
    }

    fn job() -> JobId {
        "flights".into()
    }

    const NOW_MS: i64 = 1_000 * ORPHAN_AGE_MS;

    fn object(path: &str, age_ms: i64) -> Object {
        Object { path: path.into(), bytes: 1, modified_ms: NOW_MS - age_ms }
    }

    fn manifests(objects: &[Object], kept: &[&str]) -> Vec<String> {
        let job = job();
        let kept = kept.iter().map(|path| (*path).to_owned()).collect();
        orphan_manifests(Sweep { job: &job, incarnation: 5, now_ms: NOW_MS }, objects, &kept).into_iter().map(str::to_owned).collect()
    }

    fn files(objects: &[Object], named: &[&str]) -> Vec<String> {
        let job = job();
        let named = named.iter().map(|path| (*path).to_owned()).collect();
        orphan_files(Sweep { job: &job, incarnation: 5, now_ms: NOW_MS }, objects, &named).into_iter().map(str::to_owned).collect()
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_with_the_new_one() {
        assert_eq!(retained_of(&[1, 2, 3], 3), Retention { retained: ids(&[2, 3]), dropped: ids(&[1]) });
        assert_eq!(retained_of(&[1, 2], 3), Retention { retained: ids(&[1, 2]), dropped: vec![] });
    }

    #[test]
    fn when_one_is_kept_all_others_go() {
        assert_eq!(retained_of(&[1, 2], 1), Retention { retained: vec![], dropped: ids(&[1, 2]) });
    }

    #[test]
    fn when_fewer_are_kept_than_before_several_go_at_once() {
        assert_eq!(retained_of(&[1, 2, 3, 4], 2), Retention { retained: ids(&[4]), dropped: ids(&[1, 2, 3]) });
    }

    #[test]
    fn a_file_that_a_kept_checkpoint_names_is_not_removable() {
        assert_eq!(removable(&["a", "b", "c"], &BTreeSet::from(["b"])), [&"a", &"c"]);
    }

    #[test]
    fn a_manifest_of_an_older_incarnation_that_is_a_day_old_is_an_orphan() {
        assert_eq!(manifests(&[object("flights/4/7-ab.manifest", ORPHAN_AGE_MS)], &[]), ["flights/4/7-ab.manifest"]);
    }

    #[test]
    fn an_orphan_stays_until_it_is_a_day_old() {
        assert!(manifests(&[object("flights/4/7-ab.manifest", ORPHAN_AGE_MS - 1)], &[]).is_empty());
        assert!(files(&[object("flights/files/ab", ORPHAN_AGE_MS - 1)], &[]).is_empty());
    }

    #[test]
    fn a_manifest_of_this_or_a_later_incarnation_is_no_orphan() {
        let later = [object("flights/5/7-ab.manifest", ORPHAN_AGE_MS), object("flights/6/7-ab.manifest", ORPHAN_AGE_MS)];
        assert!(manifests(&later, &[]).is_empty());
    }

    #[test]
    fn a_kept_manifest_is_no_orphan_however_old_it_is() {
        assert!(manifests(&[object("flights/4/7-ab.manifest", 9 * ORPHAN_AGE_MS)], &["flights/4/7-ab.manifest"]).is_empty());
    }

    #[test]
    fn a_file_that_no_manifest_names_is_an_orphan_when_it_is_a_day_old() {
        let objects = [object("flights/files/ab", ORPHAN_AGE_MS), object("flights/files/cd", ORPHAN_AGE_MS)];
        assert_eq!(files(&objects, &["flights/files/cd"]), ["flights/files/ab"]);
    }

    #[test]
    fn what_belongs_to_another_job_is_never_an_orphan() {
        let others = [
            object("flights2/4/7-ab.manifest", ORPHAN_AGE_MS),
            object("other/files/ab", ORPHAN_AGE_MS),
            object("flights2/files/ab", ORPHAN_AGE_MS),
            object("flights/notes.txt", ORPHAN_AGE_MS),
        ];
        assert!(manifests(&others, &[]).is_empty() && files(&others, &[]).is_empty());
    }
}
