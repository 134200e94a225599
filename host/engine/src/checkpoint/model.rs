//! An exhaustive walk through the checkpoint protocol: every order of steps of up to three incarnations of a job, of which an old one may go on (a
//! zombie), with crashes, storage that fails or answers an error although it did what was asked, commits that are late, doubled or in doubt,
//! and removal of old checkpoints at any time. Every state is visited once; in each of them the promises of the protocol must hold.
//!
//! It is the real [`Coordinator`] that decides, as a part of every state, and [`retention::removable`] that says what may go. The rest is the world:
//! the storage, the log, and what the driver (`run/checkpointing.rs`) and the claim (`run/durable.rs`) do.
//!
//! Each rule of design §7 has a switch that takes it away ([`Without`]), and the walk must then find a broken promise: what no walk misses is no
//! rule. Two more rules are of this implementation: nothing is uploaded while files are removed, and an attempt begins only when the removals of the
//! one before it have ended.
//!
//! # What stands for what
//! A checkpoint moves the job one position on; each position has one row per subtask. The files of a checkpoint are named by content: that of its
//! position, and at odd positions above 1 also that of the position before (incremental). Contents come again after two positions, so that a file
//! that is about to be removed can be wanted once more. The log is Kafka's, the weaker one: it checks nothing but the fence, and the last writer
//! wins.
//!
//! # Bounds
//! [`Bounds`] says how far a walk goes. Subtasks are snapshotted and uploaded in one step: the coordinator does not look at their order (its tests
//! do), and the world sees files one by one only when they are removed or copied. Time stands still: timeouts are failures here, and orphans are
//! removed without waiting for a day, which is more than the real sweep dares.
//!
//! In reading order: [`world`] (what there is, and what must hold), [`steps`] (what may happen next), [`walk`] (every order of it), and here the
//! bounds, the rules and the tests.

mod steps;
mod walk;
mod world;

use walk::{assert_unbroken, broken_without};

const SUBTASKS: usize = 2;
const POSITIONS: usize = 4;
const CONTENTS: u8 = 2;
const MANIFESTS: usize = 7;

/// How far a walk goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    positions: u8,
    incarnations: u8,
    /// Crashes, errors, doubts and losses on one way.
    faults: u8,
    retained: u32,
    savepoints: u8,
}

/// Many things go wrong, and little is kept.
const TROUBLE: Bounds = Bounds { positions: 3, incarnations: 3, faults: 2, retained: 1, savepoints: 0 };
/// Much is kept and removed, and one thing goes wrong.
const REMOVAL: Bounds = Bounds { positions: 4, incarnations: 2, faults: 1, retained: 2, savepoints: 1 };
/// Nothing goes wrong, but removals and savepoints overlap with everything.
const OVERLAP: Bounds = Bounds { positions: 4, incarnations: 3, faults: 0, retained: 1, savepoints: 1 };

/// The rule that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// R1: every manifest has a path of its own.
    UniquePaths,
    /// R1: only what the last committed manifest names is not uploaded again.
    CommittedReuse,
    /// R2: the files come before the commit.
    FilesBeforeCommit,
    /// R2: publishing comes after the commit.
    PublishAfterCommit,
    /// R3: a claim fences older incarnations.
    Fence,
    /// R3: first the fence, then the reading.
    FenceBeforeRead,
    /// R4: a commit that was not clean ends the attempt.
    CleanCommit,
    /// R5: a commit in doubt ends the attempt.
    RecoveryInDoubt,
    /// R6: what a kept manifest names is not removed.
    KeptFiles,
    /// R6: what a savepoint is being made of is not removed.
    SavepointFiles,
    /// R6: orphans are of older incarnations, and removed when nothing is uploaded.
    OldOrphans,
    /// R7: a lost record is an error.
    LostRecord,
    /// Nothing is uploaded while files are removed.
    QuietRemoval,
    /// An attempt begins when the removals of the one before have ended.
    QuietClaim,
}

#[test]
fn no_order_of_steps_breaks_a_promise_when_much_goes_wrong() {
    assert_unbroken(TROUBLE, 100_000);
}

#[test]
fn no_order_of_steps_breaks_a_promise_when_much_is_kept_and_removed() {
    assert_unbroken(REMOVAL, 50_000);
}

#[test]
fn no_order_of_steps_breaks_a_promise_when_removals_and_savepoints_overlap_with_everything() {
    assert_unbroken(OVERLAP, 5_000);
}

#[test]
fn without_unique_paths_a_zombie_overwrites_a_committed_manifest() {
    assert_eq!(broken_without(Without::UniquePaths, TROUBLE), "a committed manifest is gone or is another one");
}

#[test]
fn without_an_upload_of_what_no_committed_manifest_names_files_are_missing() {
    assert_eq!(broken_without(Without::CommittedReuse, TROUBLE), "a file of a committed checkpoint is missing");
}

#[test]
fn without_files_before_the_commit_a_committed_checkpoint_lacks_files() {
    assert_eq!(broken_without(Without::FilesBeforeCommit, TROUBLE), "a file of a committed checkpoint is missing");
}

#[test]
fn without_publishing_after_the_commit_uncommitted_output_is_visible() {
    assert_eq!(broken_without(Without::PublishAfterCommit, TROUBLE), "output is visible that was never committed");
}

#[test]
fn without_a_fence_a_zombie_commits() {
    broken_without(Without::Fence, TROUBLE);
}

#[test]
fn without_fencing_before_reading_a_commit_in_between_is_lost() {
    broken_without(Without::FenceBeforeRead, TROUBLE);
}

#[test]
fn without_the_rule_of_clean_commits_a_second_arrival_takes_the_job_back() {
    assert_eq!(broken_without(Without::CleanCommit, REMOVAL), "the record goes backwards");
}

#[test]
fn without_recovery_in_doubt_output_is_lost_or_a_commit_is_passed_over() {
    broken_without(Without::RecoveryInDoubt, TROUBLE);
}

#[test]
fn without_looking_at_kept_manifests_removal_takes_their_files() {
    assert_eq!(broken_without(Without::KeptFiles, OVERLAP), "a file of a committed checkpoint is missing");
}

#[test]
fn without_holding_what_a_savepoint_is_made_of_it_lacks_files() {
    assert_eq!(broken_without(Without::SavepointFiles, OVERLAP), "a file of a savepoint is missing");
}

#[test]
fn without_an_older_incarnation_and_quiet_removal_of_orphans_takes_what_others_need() {
    broken_without(Without::OldOrphans, TROUBLE);
}

#[test]
fn without_an_error_for_a_lost_record_a_job_starts_fresh_after_a_commit() {
    assert_eq!(broken_without(Without::LostRecord, TROUBLE), "a fresh start after a commit");
}

#[test]
fn without_quiet_during_removal_a_file_is_removed_that_was_stored_again() {
    assert_eq!(broken_without(Without::QuietRemoval, OVERLAP), "a file of a committed checkpoint is missing");
}

#[test]
fn without_quiet_before_a_claim_an_old_removal_takes_what_was_stored_again() {
    assert_eq!(broken_without(Without::QuietClaim, OVERLAP), "a file of a committed checkpoint is missing");
}
