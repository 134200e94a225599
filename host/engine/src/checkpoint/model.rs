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

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{BuildHasherDefault, Hash, Hasher},
    num::NonZeroU32,
};

use millstream_model::ids::CheckpointId;

use super::{
    coordinator::{Action, Coordinator, Fact, SavepointNumber, Settings, Start},
    retention,
};

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

/// Which manifest, by order of creation.
type ManifestId = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Manifest {
    incarnation: u8,
    checkpoint: CheckpointId,
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

fn names(files: u8) -> BTreeSet<u8> {
    (0..CONTENTS).map(|content| 1 << content).filter(|file| files & file != 0).collect()
}

/// Committed and kept manifests, oldest first; the last one counts.
type Record = Vec<ManifestId>;

/// What a process is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// The claim is half done: fenced, or (without the rule) read.
    Claiming(Record),
    /// What the restored checkpoint staged is published by subtask after subtask.
    Restoring(u8),
    Running(Work),
}

/// What the driver has under way for the checkpoint under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Work {
    None,
    Snapshots(CheckpointId),
    Uploads(CheckpointId),
    Writing(CheckpointId),
    Committing(CheckpointId, Record),
    Publishing(CheckpointId, u8),
}

/// Removal of what is no longer kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Removal {
    /// The commit that it came with.
    checkpoint: CheckpointId,
    files: u8,
    manifests: Vec<ManifestId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Process {
    incarnation: u8,
    stage: Stage,
    coordinator: Option<Coordinator>,
    /// The record as it knows it.
    record: Record,
    position: u8,
    staged: u8,
    /// The manifest of the checkpoint under way.
    written: Option<ManifestId>,
    /// Files that it created since the last removal.
    created: u8,
    removal: Option<Removal>,
    /// A savepoint is made; the files that are still to be copied.
    savepoint: Option<u8>,
    /// Uploads of a checkpoint that was given up, which go on.
    stale: Option<(CheckpointId, u8)>,
    /// Without [`Without::FilesBeforeCommit`]: files that come later.
    put_off: u8,
    /// Without [`Without::RecoveryInDoubt`]: the coordinator before the commit.
    before_commit: Option<Coordinator>,
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
    published: [[Option<ManifestId>; POSITIONS + 1]; SUBTASKS],
    faults: u8,
    savepoints: u8,
    log_was_lost: bool,
    broken: Option<&'static str>,
}

/// The rules and how far to go.
#[derive(Clone, Copy, Debug)]
struct Setting {
    without: Without,
    bounds: Bounds,
}

impl World {
    fn new(bounds: Bounds) -> Self {
        Self {
            files: 0,
            manifests: Vec::new(),
            record: Record::new(),
            holder: 0,
            incarnations: 0,
            late: Vec::new(),
            processes: Vec::new(),
            published: Default::default(),
            faults: bounds.faults,
            savepoints: bounds.savepoints,
            log_was_lost: false,
            broken: None,
        }
    }

    fn position(&self, committed: Option<ManifestId>) -> u8 {
        committed.map_or(0, |id| self.manifests[usize::from(id)].position)
    }

    fn break_promise(&mut self, promise: &'static str) {
        self.broken.get_or_insert(promise);
    }

    /// What must hold always.
    fn check(&mut self) {
        for id in self.record.clone() {
            let manifest = &self.manifests[usize::from(id)];
            if !manifest.exists {
                self.break_promise("a committed manifest is gone or is another one");
            } else if manifest.files() & !self.files != 0 {
                self.break_promise("a file of a committed checkpoint is missing");
            }
        }
        let is_stuck = |process: &Process| {
            let waits = process.coordinator.as_ref().is_some_and(|coordinator| coordinator.current().is_some());
            waits && process.stage == Stage::Running(Work::None) && process.removal.is_none()
        };
        if self.processes.iter().any(is_stuck) {
            self.break_promise("the coordinator waits for nothing");
        }
    }

    /// The log takes a record.
    fn apply(&mut self, incarnation: u8, record: Record, without: Without) -> bool {
        if incarnation < self.holder && without != Without::Fence {
            return false;
        }
        let Some(&id) = record.last() else { return true };
        let (before, manifest) = (self.record.last().copied(), self.manifests[usize::from(id)].clone());
        if before != Some(id) {
            let from = self.position(manifest.parent);
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
        self.manifests[usize::from(id)].was_committed = true;
        true
    }

    /// One subtask publishes what a checkpoint staged; the same again changes nothing.
    fn publish(&mut self, subtask: usize, id: ManifestId) {
        let manifest = self.manifests[usize::from(id)].clone();
        if !manifest.was_committed {
            self.break_promise("output is visible that was never committed");
        }
        for position in (1..=POSITIONS).filter(|position| manifest.staged & (1 << position) != 0) {
            match &mut self.published[subtask][position] {
                Some(by) if *by != id => self.break_promise("output is visible twice"),
                by => *by = Some(id),
            }
        }
    }

    fn remove_manifest(&mut self, id: ManifestId) {
        self.manifests[usize::from(id)].exists = false;
    }

    fn write_manifest(&mut self, index: usize, checkpoint: CheckpointId, without: Without) -> ManifestId {
        let process = &self.processes[index];
        if without == Without::UniquePaths {
            // The same number is the same path, and the content that was there is gone.
            self.manifests.iter_mut().filter(|manifest| manifest.checkpoint == checkpoint).for_each(|manifest| manifest.exists = false);
        }
        self.manifests.push(Manifest {
            incarnation: process.incarnation,
            checkpoint,
            position: process.position,
            staged: process.staged,
            parent: process.record.last().copied(),
            exists: true,
            was_committed: false,
        });
        u8::try_from(self.manifests.len() - 1).expect("a walk makes few manifests")
    }

    /// The files of checkpoints that a process knows, by number.
    fn files_of(&self, process: &Process, checkpoints: &[CheckpointId]) -> u8 {
        self.ids(process, checkpoints).fold(0, |files, id| files | self.manifests[usize::from(id)].files())
    }

    /// Committed manifests that this process restored from, or wrote.
    fn ids<'a>(&'a self, process: &'a Process, checkpoints: &'a [CheckpointId]) -> impl Iterator<Item = ManifestId> + 'a {
        checkpoints.iter().filter_map(|checkpoint| {
            let is_it = |manifest: &Manifest| {
                manifest.was_committed && manifest.checkpoint == *checkpoint && manifest.incarnation <= process.incarnation
            };
            self.manifests.iter().rposition(is_it).and_then(|id| u8::try_from(id).ok())
        })
    }

    /// Tells a coordinator, and does at once what needs no step of its own.
    fn tell(&mut self, index: usize, fact: Fact, setting: Setting) {
        let Some(coordinator) = &mut self.processes[index].coordinator else { return };
        for action in coordinator.step(0, fact) {
            self.carry_out(index, action, setting);
        }
    }

    fn carry_out(&mut self, index: usize, action: Action, setting: Setting) {
        let without = setting.without;
        if self.processes.get(index).is_none() {
            return;
        }
        match action {
            Action::InjectBarrier { checkpoint } => {
                let process = &mut self.processes[index];
                process.position += 1;
                process.staged |= 1 << process.position;
                process.stage = Stage::Running(Work::Snapshots(checkpoint));
            }
            Action::Upload { checkpoint, .. } => self.processes[index].stage = Stage::Running(Work::Uploads(checkpoint)),
            Action::WriteManifest { checkpoint, .. } => self.processes[index].stage = Stage::Running(Work::Writing(checkpoint)),
            Action::Commit { checkpoint, retained } => {
                let process = &self.processes[index];
                let record = self.ids(process, &retained).chain(process.written).collect();
                self.processes[index].stage = Stage::Running(Work::Committing(checkpoint, record));
            }
            Action::Publish { checkpoint } => self.processes[index].stage = Stage::Running(Work::Publishing(checkpoint, 0)),
            Action::Collect { checkpoint, garbage, kept, sweeps } => {
                self.begin_removal(index, checkpoint, &garbage, &kept, sweeps, without);
                let is_empty = self.processes[index].removal.is_none();
                if is_empty || without == Without::QuietRemoval {
                    self.tell(index, Fact::Collected { checkpoint, removed_all: true }, setting);
                }
            }
            Action::CopySavepoint { savepoint, checkpoint } => {
                let files = self.files_of(&self.processes[index], &[checkpoint]);
                self.processes[index].savepoint = Some(files);
                if without == Without::SavepointFiles {
                    self.tell(index, Fact::SavepointCopied { savepoint }, setting);
                }
            }
            Action::GiveUp { .. } => {
                let process = &mut self.processes[index];
                process.written = None;
                process.stage = Stage::Running(Work::None);
            }
            Action::Recover { .. } => drop(self.processes.remove(index)),
            Action::Complete { .. } => {}
            Action::InjectBarrierInto { .. } | Action::Stop { .. } | Action::Finish { .. } => {
                self.break_promise("the coordinator wants what nobody asked for");
            }
        }
    }

    fn begin_removal(
        &mut self,
        index: usize,
        checkpoint: CheckpointId,
        garbage: &[CheckpointId],
        kept: &[CheckpointId],
        sweeps: bool,
        without: Without,
    ) {
        let process = &self.processes[index];
        let kept_files = if without == Without::KeptFiles { BTreeSet::new() } else { names(self.files_of(process, kept)) };
        let mut manifests: Vec<ManifestId> = self.ids(process, garbage).collect();
        let mut candidates = names(self.files_of(process, garbage) | process.created);
        if sweeps {
            let kept: Vec<ManifestId> = self.ids(process, kept).collect();
            let all = self.manifests.iter().enumerate().filter_map(|(id, manifest)| Some((u8::try_from(id).ok()?, manifest)));
            let (orphans, left): (Vec<_>, Vec<_>) = all
                .filter(|(_, manifest)| manifest.exists)
                .partition(|(id, manifest)| manifest.incarnation < process.incarnation && !kept.contains(id) && !manifests.contains(id));
            let named = left.iter().fold(0, |files, (_, manifest)| files | manifest.files());
            candidates.extend(names(self.files & !named));
            manifests.extend(orphans.iter().map(|(id, _)| *id));
        }
        let files = retention::removable(&candidates, &kept_files).into_iter().fold(0, |files, file| files | file) & self.files;
        let process = &mut self.processes[index];
        process.created = 0;
        process.removal = (files != 0 || !manifests.is_empty()).then_some(Removal { checkpoint, files, manifests });
    }
}

/// The states that follow one, each with the name of the step.
struct Steps<'a> {
    from: &'a World,
    setting: Setting,
    next: Vec<(&'static str, World)>,
}

impl Steps<'_> {
    fn of(from: &World, setting: Setting) -> Vec<(&'static str, World)> {
        let mut steps = Steps { from, setting, next: Vec::new() };
        steps.of_the_world();
        for index in 0..from.processes.len() {
            steps.of_process(index);
        }
        steps.next
    }

    fn step(&mut self, name: &'static str, change: impl FnOnce(&mut World, Setting)) {
        let mut world = self.from.clone();
        change(&mut world, self.setting);
        world.check();
        self.next.push((name, world));
    }

    fn fault(&mut self, name: &'static str, change: impl FnOnce(&mut World, Setting)) {
        if self.from.faults > 0 {
            self.step(name, |world, setting| {
                world.faults -= 1;
                change(world, setting);
            });
        }
    }

    fn is_without(&self, rule: Without) -> bool {
        self.setting.without == rule
    }

    fn of_the_world(&mut self) {
        let from = self.from;
        let removes = from.processes.iter().any(|process| process.removal.is_some());
        let may_begin = !removes || self.is_without(Without::QuietClaim);
        if from.incarnations < self.setting.bounds.incarnations && from.processes.len() < 2 && may_begin {
            self.step("a process begins to claim", begin_claim);
        }
        for (at, (incarnation, record)) in from.late.iter().enumerate() {
            self.step("a late commit arrives", |world, setting| {
                world.late.remove(at);
                world.apply(*incarnation, record.clone(), setting.without);
            });
        }
        if !from.record.is_empty() && !from.log_was_lost && from.processes.is_empty() {
            self.fault("the log is lost", |world, _| {
                world.record.clear();
                world.late.clear();
                world.log_was_lost = true;
            });
        }
    }

    fn of_process(&mut self, index: usize) {
        let process = &self.from.processes[index];
        self.fault("a process crashes", |world, _| {
            let gone = world.processes.remove(index);
            if let Stage::Running(Work::Committing(_, record)) = gone.stage {
                world.late.push((gone.incarnation, record));
            }
        });
        if process.removal.is_some() {
            self.step("something is removed", |world, setting| remove_one(world, index, setting));
        }
        if process.savepoint.is_some() {
            self.step("a file is copied into a savepoint", |world, setting| copy_one(world, index, setting));
        }
        if process.stale.is_some() {
            self.step("an upload of a checkpoint that was given up ends", |world, setting| end_stale(world, index, setting));
        }
        if process.put_off != 0 {
            self.step("files are uploaded that were put off", |world, _| {
                world.files |= std::mem::take(&mut world.processes[index].put_off);
            });
        }
        match process.stage.clone() {
            Stage::Claiming(read) => {
                self.step("the claim is finished", |world, setting| finish_claim(world, index, read, setting));
            }
            Stage::Restoring(subtask) => {
                self.step("a restored sink publishes", |world, setting| restore_one(world, index, subtask, setting));
            }
            Stage::Running(work) => self.of_running(index, work),
        }
    }

    fn of_running(&mut self, index: usize, work: Work) {
        if self.is_without(Without::OldOrphans) {
            self.step("all orphans are removed", |world, _| remove_all_orphans(world, index));
        }
        match work {
            Work::None => self.of_idle(index),
            Work::Snapshots(checkpoint) => {
                self.step("all subtasks are snapshotted", |world, setting| {
                    (0..SUBTASKS).for_each(|subtask| world.tell(index, Fact::Snapshotted { checkpoint, subtask }, setting));
                });
                self.fault("a snapshot fails", |world, setting| world.tell(index, failed(checkpoint), setting));
            }
            Work::Uploads(checkpoint) => self.of_uploads(index, checkpoint),
            Work::Writing(checkpoint) => self.of_writing(index, checkpoint),
            Work::Committing(checkpoint, record) => self.of_committing(index, checkpoint, record),
            Work::Publishing(checkpoint, subtask) => {
                self.step("a sink publishes", |world, setting| publish_one(world, index, checkpoint, subtask, setting));
            }
        }
    }

    fn of_idle(&mut self, index: usize) {
        let process = &self.from.processes[index];
        let is_idle = process.coordinator.as_ref().is_some_and(|coordinator| coordinator.current().is_none());
        if !is_idle || process.position >= self.setting.bounds.positions || self.from.manifests.len() >= MANIFESTS {
            return;
        }
        self.step("a checkpoint begins", |world, setting| world.tell(index, Fact::CheckpointRequested { stops: false }, setting));
        if self.from.savepoints > 0 {
            self.step("a checkpoint for a savepoint begins", |world, setting| {
                world.savepoints -= 1;
                world.tell(index, Fact::SavepointRequested { savepoint: SavepointNumber(0), stops: false }, setting);
            });
        }
    }

    fn of_uploads(&mut self, index: usize, checkpoint: CheckpointId) {
        let process = &self.from.processes[index];
        let known = match process.record.last() {
            // What any manifest names that was ever seen.
            _ if self.is_without(Without::CommittedReuse) => self.from.manifests.iter().fold(0, |files, manifest| files | manifest.files()),
            Some(&id) => self.from.manifests[usize::from(id)].files(),
            None => 0,
        };
        let uploaded = files_at(process.position) & !known;
        if self.is_without(Without::FilesBeforeCommit) {
            self.step("the upload is put off", |world, setting| {
                world.processes[index].put_off |= uploaded;
                tell_uploaded(world, index, checkpoint, setting);
            });
            return;
        }
        let upload = |world: &mut World| {
            world.processes[index].created |= uploaded & !world.files;
            world.files |= uploaded;
        };
        self.step("files are uploaded", |world, setting| {
            upload(world);
            tell_uploaded(world, index, checkpoint, setting);
        });
        self.fault("an upload fails", |world, setting| world.tell(index, failed(checkpoint), setting));
        self.fault("an upload fails although it was done", |world, setting| {
            upload(world);
            world.tell(index, failed(checkpoint), setting);
        });
        self.fault("an upload fails while another one goes on", |world, setting| {
            world.processes[index].stale = Some((checkpoint, uploaded));
            world.tell(index, failed(checkpoint), setting);
        });
    }

    fn of_writing(&mut self, index: usize, checkpoint: CheckpointId) {
        self.step("the manifest is written", |world, setting| {
            let id = world.write_manifest(index, checkpoint, setting.without);
            if setting.without == Without::PublishAfterCommit {
                world.publish(0, id);
            }
            let process = &mut world.processes[index];
            process.written = Some(id);
            if setting.without == Without::RecoveryInDoubt {
                process.before_commit = process.coordinator.clone();
            }
            world.tell(index, Fact::ManifestWritten { checkpoint }, setting);
        });
        self.fault("writing the manifest fails although it was done", |world, setting| {
            world.write_manifest(index, checkpoint, setting.without);
            world.tell(index, failed(checkpoint), setting);
        });
    }

    fn of_committing(&mut self, index: usize, checkpoint: CheckpointId, record: Record) {
        let incarnation = self.from.processes[index].incarnation;
        self.step("the commit is clean", |world, setting| {
            if world.apply(incarnation, record.clone(), setting.without) {
                on_committed(world, index, checkpoint, &record, setting);
            } else {
                doubt(world, index, checkpoint, Setting { without: Without::Nothing, ..setting });
            }
        });
        self.fault("the commit is not clean, and may come again", |world, setting| {
            world.late.push((incarnation, record.clone()));
            if world.apply(incarnation, record.clone(), setting.without) && setting.without == Without::CleanCommit {
                on_committed(world, index, checkpoint, &record, setting);
            } else {
                doubt(world, index, checkpoint, setting);
            }
        });
        self.fault("the commit is in doubt, and was done", |world, setting| {
            world.apply(incarnation, record.clone(), setting.without);
            doubt(world, index, checkpoint, setting);
        });
        self.fault("the commit is in doubt, and is late or lost", |world, setting| {
            world.late.push((incarnation, record.clone()));
            doubt(world, index, checkpoint, setting);
        });
    }
}

fn failed(checkpoint: CheckpointId) -> Fact {
    Fact::Failed { checkpoint, reason: String::new() }
}

fn tell_uploaded(world: &mut World, index: usize, checkpoint: CheckpointId, setting: Setting) {
    (0..SUBTASKS).for_each(|subtask| world.tell(index, Fact::Uploaded { checkpoint, subtask }, setting));
}

fn begin_claim(world: &mut World, setting: Setting) {
    world.incarnations += 1;
    let incarnation = world.incarnations;
    if !matches!(setting.without, Without::Fence | Without::FenceBeforeRead) {
        world.holder = incarnation;
    }
    world.processes.push(Process {
        incarnation,
        stage: Stage::Claiming(world.record.clone()),
        coordinator: None,
        record: Record::new(),
        position: 0,
        staged: 0,
        written: None,
        created: 0,
        removal: None,
        savepoint: None,
        stale: None,
        put_off: 0,
        before_commit: None,
    });
}

fn finish_claim(world: &mut World, index: usize, read_before: Record, setting: Setting) {
    let incarnation = world.processes[index].incarnation;
    // The claim itself is a write to the log: a newer one is not undone.
    if incarnation < world.holder {
        world.processes.remove(index);
        return;
    }
    let record = if setting.without == Without::FenceBeforeRead { read_before } else { world.record.clone() };
    if setting.without != Without::Fence {
        world.holder = incarnation;
    }
    let has_run = world.manifests.iter().any(|manifest| manifest.exists);
    if record.is_empty() && has_run && world.log_was_lost && setting.without != Without::LostRecord {
        world.processes.remove(index);
        return;
    }
    if record.is_empty() && world.manifests.iter().any(|manifest| manifest.was_committed) {
        world.break_promise("a fresh start after a commit");
    }
    let kept: Vec<CheckpointId> = record.iter().map(|id| world.manifests[usize::from(*id)].checkpoint).collect();
    let settings = Settings {
        interval_ms: 0,
        timeout_ms: i64::MAX,
        min_pause_ms: 0,
        retained: NonZeroU32::new(setting.bounds.retained).expect("one is kept at least"),
        tolerated_failures: 1,
    };
    let start = Start { subtasks: SUBTASKS, last_number: kept.last().map_or(0, |last| last.0), kept };
    let position = world.position(record.last().copied());
    let process = &mut world.processes[index];
    (process.record, process.position) = (record, position);
    process.coordinator = Some(Coordinator::new(settings, start, 0));
    process.stage = Stage::Restoring(0);
}

fn restore_one(world: &mut World, index: usize, subtask: u8, _: Setting) {
    let committed = world.processes[index].record.last().copied();
    if let Some(id) = committed {
        world.publish(usize::from(subtask), id);
    }
    if usize::from(subtask) + 1 < SUBTASKS {
        world.processes[index].stage = Stage::Restoring(subtask + 1);
        return;
    }
    world.processes[index].stage = Stage::Running(Work::None);
    let restored = usize::from(world.position(committed));
    if world.published.iter().any(|positions| positions[1..=restored].iter().any(Option::is_none)) {
        world.break_promise("committed output is not visible after recovery");
    }
}

fn on_committed(world: &mut World, index: usize, checkpoint: CheckpointId, record: &Record, setting: Setting) {
    let process = &mut world.processes[index];
    process.record.clone_from(record);
    process.staged = 0;
    world.tell(index, Fact::Committed { checkpoint }, setting);
}

fn publish_one(world: &mut World, index: usize, checkpoint: CheckpointId, subtask: u8, setting: Setting) {
    let Some(id) = world.processes[index].written else { return };
    world.publish(usize::from(subtask), id);
    let is_last = usize::from(subtask) + 1 == SUBTASKS;
    let next = if is_last { Work::None } else { Work::Publishing(checkpoint, subtask + 1) };
    world.processes[index].stage = Stage::Running(next);
    world.tell(index, Fact::Published { checkpoint, subtask: usize::from(subtask) }, setting);
}

fn doubt(world: &mut World, index: usize, checkpoint: CheckpointId, setting: Setting) {
    if setting.without == Without::RecoveryInDoubt {
        // The transaction is aborted, its output with it, and the advanced state goes on.
        let process = &mut world.processes[index];
        process.staged = 0;
        process.coordinator = process.before_commit.take();
        world.tell(index, failed(checkpoint), setting);
    } else {
        world.tell(index, Fact::CommitInDoubt { checkpoint, reason: String::new() }, setting);
    }
}

fn remove_one(world: &mut World, index: usize, setting: Setting) {
    let Some(removal) = &mut world.processes[index].removal else { return };
    if removal.files != 0 {
        let file = 1 << removal.files.trailing_zeros();
        removal.files &= !file;
        world.files &= !file;
    } else if let Some(manifest) = removal.manifests.pop() {
        world.remove_manifest(manifest);
    }
    let Some(removal) = world.processes[index].removal.take_if(|removal| removal.files == 0 && removal.manifests.is_empty()) else {
        return;
    };
    if setting.without != Without::QuietRemoval {
        world.tell(index, Fact::Collected { checkpoint: removal.checkpoint, removed_all: true }, setting);
    }
}

fn remove_all_orphans(world: &mut World, index: usize) {
    let kept = world.processes[index].record.clone();
    world.files &= kept.iter().fold(0, |files, id| files | world.manifests[usize::from(*id)].files());
    for (id, manifest) in world.manifests.iter_mut().enumerate() {
        manifest.exists &= kept.iter().any(|kept| usize::from(*kept) == id);
    }
}

fn copy_one(world: &mut World, index: usize, setting: Setting) {
    let Some(left) = world.processes[index].savepoint else { return };
    if left == 0 {
        world.processes[index].savepoint = None;
        world.tell(index, Fact::SavepointCopied { savepoint: SavepointNumber(0) }, setting);
        return;
    }
    let file = 1 << left.trailing_zeros();
    world.processes[index].savepoint = Some(left & !file);
    if world.files & file == 0 && world.processes[index].incarnation < world.holder {
        // Nobody holds anything for one that was fenced: its copy fails, and says so.
        world.processes[index].savepoint = None;
        world.tell(index, Fact::SavepointFailed { savepoint: SavepointNumber(0) }, setting);
    } else if world.files & file == 0 {
        world.break_promise("a file of a savepoint is missing");
    }
}

/// What nobody waits for any more is done all the same, and must change nothing.
fn end_stale(world: &mut World, index: usize, setting: Setting) {
    let Some((checkpoint, files)) = world.processes[index].stale.take() else { return };
    world.processes[index].created |= files & !world.files;
    world.files |= files;
    let before = world.processes[index].coordinator.clone();
    for subtask in 0..SUBTASKS {
        world.tell(index, Fact::Uploaded { checkpoint, subtask }, setting);
    }
    if world.processes[index].coordinator != before {
        world.break_promise("a checkpoint that was given up goes on");
    }
}

/// What a walk found.
struct Walk {
    states: usize,
    /// The promise that was broken, and the shortest way there.
    broken: Option<(&'static str, Vec<&'static str>)>,
}

/// Multiplies and rotates: a walk spends much of its time on hashing, and nobody chooses its keys.
#[derive(Default)]
struct Mixer(u64);

impl Hasher for Mixer {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, byte: u8) {
        self.write_u64(u64::from(byte));
    }

    fn write_u64(&mut self, word: u64) {
        let product = u128::from(self.0.rotate_left(23) ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xf135_7aea_2e62_a9c5;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_usize(&mut self, word: usize) {
        self.write_u64(word as u64);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Fingerprints = HashMap<u64, (u64, &'static str), BuildHasherDefault<Mixer>>;

fn fingerprint(world: &World) -> u64 {
    let mut hasher = Mixer::default();
    world.hash(&mut hasher);
    hasher.finish()
}

/// Visits every state once, nearest first.
fn walk(without: Without, bounds: Bounds) -> Walk {
    let first = World::new(bounds);
    let root = fingerprint(&first);
    let mut seen = Fingerprints::default();
    seen.insert(root, (root, "the beginning"));
    let mut queue = VecDeque::from([(root, first)]);
    while let Some((from, world)) = queue.pop_front() {
        for (name, next) in Steps::of(&world, Setting { without, bounds }) {
            let at = fingerprint(&next);
            if seen.contains_key(&at) {
                continue;
            }
            seen.insert(at, (from, name));
            if let Some(promise) = next.broken {
                return Walk { states: seen.len(), broken: Some((promise, way(&seen, root, at))) };
            }
            queue.push_back((at, next));
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

fn assert_unbroken(bounds: Bounds, at_least: usize) {
    let walk = walk(Without::Nothing, bounds);
    if let Some((promise, way)) = &walk.broken {
        panic!("{promise}: {way:#?}");
    }
    println!("{} states within {bounds:?}", walk.states);
    assert!(walk.states > at_least, "the walk is too small to mean anything: {} states", walk.states);
}

/// The promise that breaks without a rule.
fn broken_without(rule: Without, bounds: Bounds) -> &'static str {
    let walk = walk(rule, bounds);
    let (promise, way) = walk.broken.unwrap_or_else(|| panic!("{rule:?} can be taken away, {} states", walk.states));
    println!("without {rule:?}: {promise} after {way:?}");
    promise
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
