//! An exhaustive model of the checkpoint protocol: every order of steps of up to three incarnations of a job, of which an old one may go on (a
//! zombie), with crashes, storage that fails or answers an error although it did what was asked, commits that are late, doubled or in doubt,
//! and removal of old checkpoints at any time. Every state is visited once; in each of them the promises of the protocol must hold.
//!
//! Each rule of design §7 has a switch that takes it away ([`Without`]), and the walk must then find a broken promise: what no walk misses is no
//! rule. Two more rules are of this implementation: nothing is uploaded while files are removed, and an attempt begins only when the removals
//! of the one before it have ended.
//!
//! # What stands for what
//! A checkpoint moves the job one position on; each position has one row per subtask. The files of a checkpoint are named by content: that of its
//! position, and at odd positions also that of the position before (incremental). Contents come again after [`CONTENTS`] positions, so that a file that is about to
//! be removed can be wanted once more. The log is Kafka's, the weaker one: it checks nothing but the fence, and the last writer wins.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasherDefault, DefaultHasher, Hash, Hasher},
};

const SUBTASKS: usize = 2;
const POSITIONS: u8 = 4;
const CONTENTS: u8 = 3;
const INCARNATIONS: u8 = 3;
/// Crashes, errors, doubts and losses on one way. Ways on which a rule is missed that needs none are long enough without.
const FAULTS: u8 = 2;

/// The rule that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    Nothing,
    /// R1: every manifest has a path of its own.
    UniquePaths,
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
    /// R6: orphans are removed only when they are old and of an older incarnation.
    OldOrphans,
    /// R7: a lost record is an error.
    LostRecord,
    /// Nothing is uploaded while files are removed.
    QuietRemoval,
    /// An attempt begins when the removals of the one before have ended.
    QuietClaim,
}

/// Which manifest, by order of creation.
type ManifestId = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Manifest {
    incarnation: u8,
    number: u8,
    position: u8,
    /// Positions whose output it stages, as bits.
    staged: u8,
    /// What its run restored from or committed before.
    parent: Option<ManifestId>,
    exists: bool,
    was_committed: bool,
}

impl Manifest {
    fn files(&self) -> u8 {
        files_at(self.position)
    }
}

fn content(position: u8) -> u8 {
    1 << (position % CONTENTS)
}

/// The files of a checkpoint at `position`, as bits.
fn files_at(position: u8) -> u8 {
    let is_incremental = position > 1 && position % 2 == 1;
    content(position) | if is_incremental { content(position - 1) } else { 0 }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Record {
    committed: Option<ManifestId>,
    retained: Option<ManifestId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The claim is half done: fenced, or (without the rule) read.
    Claiming(Record),
    /// What the restored checkpoint staged is published by subtask after subtask.
    Restoring(u8),
    Running,
    Snapshots,
    Uploading,
    Writing,
    Committing(ManifestId),
    Publishing(ManifestId, u8),
    /// Without R2 the commit comes first.
    LateUpload(ManifestId),
}

/// Removal of a checkpoint that is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Removal {
    files: u8,
    manifest: ManifestId,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    incarnation: u8,
    stage: Stage,
    /// The record as it knows it.
    record: Record,
    position: u8,
    number: u8,
    staged: u8,
    removal: Option<Removal>,
    /// A savepoint is made of this one; the files that are still to be copied.
    savepoint: Option<(ManifestId, u8)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    files: u8,
    manifests: Vec<Manifest>,
    record: Record,
    /// The incarnation that may commit.
    holder: u8,
    incarnations: u8,
    /// Commits that may yet arrive.
    late: Vec<(u8, Record)>,
    processes: Vec<Process>,
    /// Which checkpoint published a position of a subtask.
    published: [[Option<ManifestId>; POSITIONS as usize + 1]; SUBTASKS],
    faults: u8,
    savepoints: u8,
    log_was_lost: bool,
    broken: Option<&'static str>,
}

impl World {
    fn new(faults: u8) -> Self {
        Self {
            files: 0,
            manifests: Vec::new(),
            record: Record::default(),
            holder: 0,
            incarnations: 0,
            late: Vec::new(),
            processes: Vec::new(),
            published: Default::default(),
            faults,
            savepoints: 1,
            log_was_lost: false,
            broken: None,
        }
    }

    fn position(&self, committed: Option<ManifestId>) -> u8 {
        committed.map_or(0, |id| self.manifests[id as usize].position)
    }

    fn break_promise(&mut self, promise: &'static str) {
        self.broken.get_or_insert(promise);
    }

    /// What must hold always.
    fn check(&mut self) {
        for id in [self.record.committed, self.record.retained].into_iter().flatten() {
            let manifest = &self.manifests[id as usize];
            if !manifest.exists {
                self.break_promise("a committed manifest is gone or is another one");
            } else if manifest.files() & !self.files != 0 {
                self.break_promise("a file of a committed checkpoint is missing");
            }
        }
    }

    /// The log takes a record.
    fn apply(&mut self, incarnation: u8, record: Record, without: Without) -> bool {
        if incarnation < self.holder && without != Without::Fence {
            return false;
        }
        let Some(id) = record.committed else { return true };
        let (before, manifest) = (self.record.committed, self.manifests[id as usize].clone());
        let from = self.position(manifest.parent);
        if before != Some(id) {
            if manifest.position <= self.position(before) {
                self.break_promise("the record goes backwards");
            }
            if manifest.parent != before {
                self.break_promise("a committed checkpoint is passed over");
            }
            if (from + 1..=manifest.position).any(|position| manifest.staged & (1 << position) == 0) {
                self.break_promise("output of a committed checkpoint was discarded");
            }
        }
        self.record = record;
        self.manifests[id as usize].was_committed = true;
        true
    }

    /// One subtask publishes what a checkpoint staged; the same again changes nothing.
    fn publish(&mut self, subtask: usize, id: ManifestId) {
        let manifest = self.manifests[id as usize].clone();
        if !manifest.was_committed {
            self.break_promise("output is visible that was never committed");
        }
        for position in (1..=POSITIONS).filter(|position| manifest.staged & (1 << position) != 0) {
            match &mut self.published[subtask][position as usize] {
                Some(by) if *by != id => self.break_promise("output is visible twice"),
                by => *by = Some(id),
            }
        }
    }

    fn remove_manifest(&mut self, id: ManifestId) {
        self.manifests[id as usize].exists = false;
    }

    fn write_manifest(&mut self, process: &Process, without: Without) -> ManifestId {
        if without == Without::UniquePaths {
            // The same number is the same path, and the content that was there is gone.
            self.manifests.iter_mut().filter(|manifest| manifest.number == process.number).for_each(|manifest| manifest.exists = false);
        }
        self.manifests.push(Manifest {
            incarnation: process.incarnation,
            number: process.number,
            position: process.position,
            staged: process.staged,
            parent: process.record.committed,
            exists: true,
            was_committed: false,
        });
        u8::try_from(self.manifests.len() - 1).expect("a walk makes few manifests")
    }
}

/// The states that follow one, each with the name of the step.
struct Steps<'a> {
    from: &'a World,
    without: Without,
    next: Vec<(&'static str, World)>,
}

impl Steps<'_> {
    fn of(from: &World, without: Without) -> Vec<(&'static str, World)> {
        let mut steps = Steps { from, without, next: Vec::new() };
        steps.of_the_world();
        for index in 0..from.processes.len() {
            steps.of_process(index);
        }
        steps.next
    }

    fn step(&mut self, name: &'static str, change: impl FnOnce(&mut World, Without)) {
        let mut world = self.from.clone();
        change(&mut world, self.without);
        world.check();
        self.next.push((name, world));
    }

    fn fault(&mut self, name: &'static str, change: impl FnOnce(&mut World, Without)) {
        if self.from.faults > 0 {
            self.step(name, |world, without| {
                world.faults -= 1;
                change(world, without);
            });
        }
    }

    fn of_the_world(&mut self) {
        let from = self.from;
        let removes = from.processes.iter().any(|process| process.removal.is_some());
        let may_begin = !removes || self.without == Without::QuietClaim;
        if from.incarnations < INCARNATIONS && from.processes.len() < 2 && may_begin {
            self.step("a process begins to claim", begin_claim);
        }
        for (at, &(incarnation, record)) in from.late.iter().enumerate() {
            self.step("a late commit arrives", |world, without| {
                world.late.remove(at);
                world.apply(incarnation, record, without);
            });
        }
        if from.record.committed.is_some() && !from.log_was_lost && from.processes.is_empty() {
            self.fault("the log is lost", |world, _| {
                world.record = Record::default();
                world.late.clear();
                world.log_was_lost = true;
            });
        }
    }

    fn of_process(&mut self, index: usize) {
        let process = &self.from.processes[index];
        self.fault("a process crashes", |world, _| {
            let gone = world.processes.remove(index);
            if let Stage::Committing(id) = gone.stage {
                world.late.push((gone.incarnation, committed(&gone, id)));
            }
        });
        if process.removal.is_some() {
            self.step("a file is removed", |world, _| remove_one(world, index));
            if self.without != Without::QuietRemoval && !matches!(process.stage, Stage::Publishing(..)) {
                return;
            }
        }
        if process.savepoint.is_some() {
            self.step("a file is copied into a savepoint", |world, _| copy_one(world, index));
        }
        match process.stage {
            Stage::Claiming(read) => self.step("the claim is finished", |world, without| finish_claim(world, index, read, without)),
            Stage::Restoring(subtask) => self.step("a restored sink publishes", |world, _| restore_one(world, index, subtask)),
            Stage::Running => self.of_running(index),
            Stage::Snapshots => {
                self.step("all subtasks are snapshotted", |world, _| world.processes[index].stage = Stage::Uploading);
                self.fault("a snapshot is given up", |world, _| world.processes[index].stage = Stage::Running);
            }
            Stage::Uploading => self.of_uploading(index),
            Stage::Writing => self.of_writing(index),
            Stage::Committing(id) => self.of_committing(index, id),
            Stage::Publishing(id, subtask) => {
                self.step("a sink publishes", |world, without| publish_one(world, index, id, subtask, without))
            }
            Stage::LateUpload(id) => self.step("a file is uploaded after the commit", |world, _| {
                world.files |= world.manifests[id as usize].files();
                world.processes[index].stage = Stage::Publishing(id, 0);
            }),
        }
    }

    fn of_running(&mut self, index: usize) {
        let process = &self.from.processes[index];
        if process.position < POSITIONS && self.from.manifests.len() < 7 {
            self.step("a checkpoint begins", |world, _| {
                let process = &mut world.processes[index];
                process.position += 1;
                process.number += 1;
                process.staged |= 1 << process.position;
                process.stage = Stage::Snapshots;
            });
        }
        if let (Some(id), true, None) = (process.record.committed, self.from.savepoints > 0, process.savepoint) {
            self.step("a savepoint begins", |world, _| {
                world.savepoints -= 1;
                let files = world.manifests[id as usize].files();
                world.processes[index].savepoint = Some((id, files));
            });
        }
        if self.without == Without::OldOrphans {
            self.step("all orphans are removed", |world, _| {
                let mine = world.processes[index].record;
                let kept: Vec<ManifestId> = [mine.committed, mine.retained].into_iter().flatten().collect();
                for id in 0..world.manifests.len() as u8 {
                    if !kept.contains(&id) {
                        world.remove_manifest(id);
                    }
                }
                world.files &= kept.iter().fold(0, |files, id| files | world.manifests[*id as usize].files());
            });
        }
    }

    fn of_uploading(&mut self, index: usize) {
        let process = &self.from.processes[index];
        // What the last committed manifest names is not uploaded again.
        let known = process.record.committed.map_or(0, |id| self.from.manifests[id as usize].files());
        let uploaded = files_at(process.position) & !known;
        if self.without == Without::FilesBeforeCommit {
            self.step("the upload is put off", |world, _| world.processes[index].stage = Stage::Writing);
            return;
        }
        self.step("files are uploaded", |world, _| {
            world.files |= uploaded;
            world.processes[index].stage = Stage::Writing;
        });
        self.fault("an upload fails", |world, _| world.processes[index].stage = Stage::Running);
        self.fault("an upload fails although it was done", |world, _| {
            world.files |= uploaded;
            world.processes[index].stage = Stage::Running;
        });
    }

    fn of_writing(&mut self, index: usize) {
        self.step("the manifest is written", |world, without| {
            let process = world.processes[index].clone();
            let id = world.write_manifest(&process, without);
            world.processes[index].stage = Stage::Committing(id);
            if without == Without::PublishAfterCommit {
                world.publish(0, id);
            }
        });
        self.fault("writing the manifest fails although it was done", |world, without| {
            let process = world.processes[index].clone();
            world.write_manifest(&process, without);
            world.processes[index].stage = Stage::Running;
        });
    }

    fn of_committing(&mut self, index: usize, id: ManifestId) {
        let process = &self.from.processes[index];
        let (incarnation, record) = (process.incarnation, committed(process, id));
        self.step("the commit is clean", |world, without| {
            if world.apply(incarnation, record, without) {
                on_committed(world, index, id, without);
            } else {
                world.processes.remove(index);
            }
        });
        self.fault("the commit is not clean, and may come again", |world, without| {
            world.late.push((incarnation, record));
            if world.apply(incarnation, record, without) && without == Without::CleanCommit {
                on_committed(world, index, id, without);
            } else {
                world.processes.remove(index);
            }
        });
        self.fault("the commit is in doubt, and was done", |world, without| {
            world.apply(incarnation, record, without);
            doubt(world, index, without);
        });
        self.fault("the commit is in doubt, and is late or lost", |world, without| {
            world.late.push((incarnation, record));
            doubt(world, index, without);
        });
    }
}

fn committed(process: &Process, id: ManifestId) -> Record {
    Record { committed: Some(id), retained: process.record.committed }
}

fn begin_claim(world: &mut World, without: Without) {
    world.incarnations += 1;
    let incarnation = world.incarnations;
    if !matches!(without, Without::Fence | Without::FenceBeforeRead) {
        world.holder = incarnation;
    }
    let stage = Stage::Claiming(world.record);
    let record = Record::default();
    world.processes.push(Process { incarnation, stage, record, position: 0, number: 0, staged: 0, removal: None, savepoint: None });
}

fn finish_claim(world: &mut World, index: usize, read_before: Record, without: Without) {
    let incarnation = world.processes[index].incarnation;
    // The claim itself is a write to the log: a newer one is not undone.
    if incarnation < world.holder {
        world.processes.remove(index);
        return;
    }
    let record = if without == Without::FenceBeforeRead { read_before } else { world.record };
    if without != Without::Fence {
        world.holder = incarnation;
    }
    let has_run = world.manifests.iter().any(|manifest| manifest.exists);
    if record.committed.is_none() && has_run && world.log_was_lost && without != Without::LostRecord {
        world.processes.remove(index);
        return;
    }
    if record.committed.is_none() && world.manifests.iter().any(|manifest| manifest.was_committed) {
        world.break_promise("a fresh start after a commit");
    }
    let position = world.position(record.committed);
    let number = record.committed.map_or(0, |id| world.manifests[id as usize].number);
    let process = &mut world.processes[index];
    (process.record, process.position, process.number) = (record, position, number);
    process.stage = Stage::Restoring(0);
}

fn restore_one(world: &mut World, index: usize, subtask: u8) {
    let committed = world.processes[index].record.committed;
    if let Some(id) = committed {
        world.publish(usize::from(subtask), id);
    }
    if usize::from(subtask) + 1 < SUBTASKS {
        world.processes[index].stage = Stage::Restoring(subtask + 1);
        return;
    }
    world.processes[index].stage = Stage::Running;
    let restored = usize::from(world.position(committed));
    if world.published.iter().any(|positions| positions[1..=restored].iter().any(Option::is_none)) {
        world.break_promise("committed output is not visible after recovery");
    }
}

fn on_committed(world: &mut World, index: usize, id: ManifestId, without: Without) {
    let process = &mut world.processes[index];
    let dropped = process.record.retained;
    process.record = committed(process, id);
    process.staged = 0;
    process.stage = if without == Without::FilesBeforeCommit { Stage::LateUpload(id) } else { Stage::Publishing(id, 0) };
    let Some(dropped) = dropped else { return };
    let held = process.savepoint.map(|(of, _)| of);
    if held == Some(dropped) && without != Without::SavepointFiles {
        return;
    }
    let kept = [process.record.committed, process.record.retained, held.filter(|_| without != Without::SavepointFiles)];
    let kept = kept.into_iter().flatten().fold(0, |files, id| files | world.manifests[id as usize].files());
    let kept = if without == Without::KeptFiles { 0 } else { kept };
    let files = world.manifests[dropped as usize].files() & !kept;
    world.processes[index].removal = Some(Removal { files, manifest: dropped });
}

fn publish_one(world: &mut World, index: usize, id: ManifestId, subtask: u8, _: Without) {
    world.publish(usize::from(subtask), id);
    let is_last = usize::from(subtask) + 1 == SUBTASKS;
    world.processes[index].stage = if is_last { Stage::Running } else { Stage::Publishing(id, subtask + 1) };
}

fn doubt(world: &mut World, index: usize, without: Without) {
    if without == Without::RecoveryInDoubt {
        // The transaction is aborted, its output with it, and the advanced state goes on.
        world.processes[index].staged = 0;
        world.processes[index].stage = Stage::Running;
    } else {
        world.processes.remove(index);
    }
}

fn remove_one(world: &mut World, index: usize) {
    let Some(removal) = &mut world.processes[index].removal else { return };
    if removal.files != 0 {
        let file = 1 << removal.files.trailing_zeros();
        removal.files &= !file;
        world.files &= !file;
        return;
    }
    let manifest = removal.manifest;
    world.processes[index].removal = None;
    world.remove_manifest(manifest);
}

fn copy_one(world: &mut World, index: usize) {
    let Some((of, left)) = world.processes[index].savepoint else { return };
    if left == 0 {
        world.processes[index].savepoint = None;
        return;
    }
    let file = 1 << left.trailing_zeros();
    if world.files & file == 0 {
        world.break_promise("a file of a savepoint is missing");
    }
    world.processes[index].savepoint = Some((of, left & !file));
}

/// What a walk found.
struct Walk {
    states: usize,
    /// The promise that was broken, and the shortest way there.
    broken: Option<(&'static str, Vec<&'static str>)>,
}

type Fingerprints = HashMap<u64, (u64, &'static str), BuildHasherDefault<DefaultHasher>>;

fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Visits every state once, nearest first.
fn walk(without: Without, faults: u8) -> Walk {
    let first = World::new(faults);
    let root = fingerprint(&first);
    let mut seen = Fingerprints::default();
    seen.insert(root, (root, "the beginning"));
    let mut queue = VecDeque::from([first]);
    while let Some(world) = queue.pop_front() {
        let from = fingerprint(&world);
        for (name, next) in Steps::of(&world, without) {
            let at = fingerprint(&next);
            if seen.contains_key(&at) {
                continue;
            }
            seen.insert(at, (from, name));
            if let Some(promise) = next.broken {
                return Walk { states: seen.len(), broken: Some((promise, way(&seen, root, at))) };
            }
            queue.push_back(next);
        }
    }
    Walk { states: seen.len(), broken: None }
}

fn way(seen: &Fingerprints, root: u64, mut at: u64) -> Vec<&'static str> {
    let mut way = Vec::new();
    while at != root {
        let (from, name) = seen[&at];
        way.push(name);
        at = from;
    }
    way.reverse();
    way
}

/// The promise that breaks without a rule.
fn broken_without(rule: Without) -> &'static str {
    let is_far = matches!(rule, Without::KeptFiles | Without::SavepointFiles | Without::QuietRemoval | Without::QuietClaim);
    let walk = walk(rule, if is_far { 0 } else { FAULTS });
    let (promise, way) = walk.broken.unwrap_or_else(|| panic!("{rule:?} can be taken away, {} states", walk.states));
    println!("without {rule:?}: {promise} after {way:?}");
    promise
}

#[test]
fn no_order_of_steps_breaks_a_promise() {
    let walk = walk(Without::Nothing, FAULTS);
    if let Some((promise, way)) = &walk.broken {
        panic!("{promise}: {way:#?}");
    }
    println!("{} states", walk.states);
    assert!(walk.states > 100_000, "the walk is too small to mean anything: {} states", walk.states);
}

#[test]
fn without_unique_paths_a_zombie_overwrites_a_committed_manifest() {
    assert_eq!(broken_without(Without::UniquePaths), "a committed manifest is gone or is another one");
}

#[test]
fn without_files_before_the_commit_a_committed_checkpoint_lacks_files() {
    assert_eq!(broken_without(Without::FilesBeforeCommit), "a file of a committed checkpoint is missing");
}

#[test]
fn without_publishing_after_the_commit_uncommitted_output_is_visible() {
    assert_eq!(broken_without(Without::PublishAfterCommit), "output is visible that was never committed");
}

#[test]
fn without_a_fence_a_zombie_commits() {
    broken_without(Without::Fence);
}

#[test]
fn without_fencing_before_reading_a_commit_in_between_is_lost() {
    broken_without(Without::FenceBeforeRead);
}

#[test]
fn without_the_rule_of_clean_commits_a_second_arrival_takes_the_job_back() {
    assert_eq!(broken_without(Without::CleanCommit), "the record goes backwards");
}

#[test]
fn without_recovery_in_doubt_output_is_lost_or_a_commit_is_passed_over() {
    broken_without(Without::RecoveryInDoubt);
}

#[test]
fn without_looking_at_kept_manifests_removal_takes_their_files() {
    assert_eq!(broken_without(Without::KeptFiles), "a file of a committed checkpoint is missing");
}

#[test]
fn without_holding_what_a_savepoint_is_made_of_it_lacks_files() {
    assert_eq!(broken_without(Without::SavepointFiles), "a file of a savepoint is missing");
}

#[test]
fn without_an_age_and_an_incarnation_removal_of_orphans_takes_what_others_need() {
    broken_without(Without::OldOrphans);
}

#[test]
fn without_an_error_for_a_lost_record_a_job_starts_fresh_after_a_commit() {
    assert_eq!(broken_without(Without::LostRecord), "a fresh start after a commit");
}

#[test]
fn without_quiet_during_removal_a_file_is_removed_that_was_stored_again() {
    assert_eq!(broken_without(Without::QuietRemoval), "a file of a committed checkpoint is missing");
}

#[test]
fn without_quiet_before_a_claim_an_old_removal_takes_what_was_stored_again() {
    assert_eq!(broken_without(Without::QuietClaim), "a file of a committed checkpoint is missing");
}
