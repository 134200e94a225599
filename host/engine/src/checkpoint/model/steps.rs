//! Everything that may happen next in a state of the world.

use std::num::NonZeroU32;

use millstream_model::ids::CheckpointId;

use super::{
    MANIFESTS, SUBTASKS, Without,
    world::{Process, Record, Setting, Stage, Work, World, files_at},
};
use crate::checkpoint::coordinator::{Coordinator, Fact, SavepointNumber, Settings, Start};

/// The states that follow one, each with the name of the step.
pub(super) struct Steps<'a> {
    pub(super) from: &'a World,
    pub(super) setting: Setting,
    pub(super) next: Vec<(&'static str, World)>,
}

impl Steps<'_> {
    pub(super) fn of(from: &World, setting: Setting) -> Vec<(&'static str, World)> {
        let mut steps = Steps { from, setting, next: Vec::new() };
        steps.of_the_world();
        for index in 0..from.processes.len() {
            steps.of_process(index);
        }
        steps.next
    }

    pub(super) fn step(&mut self, name: &'static str, change: impl FnOnce(&mut World, Setting)) {
        let mut world = self.from.clone();
        change(&mut world, self.setting);
        world.check();
        self.next.push((name, world));
    }

    pub(super) fn fault(&mut self, name: &'static str, change: impl FnOnce(&mut World, Setting)) {
        if self.from.faults > 0 {
            self.step(name, |world, setting| {
                world.faults -= 1;
                change(world, setting);
            });
        }
    }

    pub(super) fn is_without(&self, rule: Without) -> bool {
        self.setting.without == rule
    }

    pub(super) fn of_the_world(&mut self) {
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

    pub(super) fn of_process(&mut self, index: usize) {
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

    pub(super) fn of_running(&mut self, index: usize, work: Work) {
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

    pub(super) fn of_idle(&mut self, index: usize) {
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

    pub(super) fn of_uploads(&mut self, index: usize, checkpoint: CheckpointId) {
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

    pub(super) fn of_writing(&mut self, index: usize, checkpoint: CheckpointId) {
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

    pub(super) fn of_committing(&mut self, index: usize, checkpoint: CheckpointId, record: Record) {
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

pub(super) fn failed(checkpoint: CheckpointId) -> Fact {
    Fact::Failed { checkpoint, reason: String::new() }
}

pub(super) fn tell_uploaded(world: &mut World, index: usize, checkpoint: CheckpointId, setting: Setting) {
    (0..SUBTASKS).for_each(|subtask| world.tell(index, Fact::Uploaded { checkpoint, subtask }, setting));
}

pub(super) fn begin_claim(world: &mut World, setting: Setting) {
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

pub(super) fn finish_claim(world: &mut World, index: usize, read_before: Record, setting: Setting) {
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

pub(super) fn restore_one(world: &mut World, index: usize, subtask: u8, _: Setting) {
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

pub(super) fn on_committed(world: &mut World, index: usize, checkpoint: CheckpointId, record: &Record, setting: Setting) {
    let process = &mut world.processes[index];
    process.record.clone_from(record);
    process.staged = 0;
    world.tell(index, Fact::Committed { checkpoint }, setting);
}

pub(super) fn publish_one(world: &mut World, index: usize, checkpoint: CheckpointId, subtask: u8, setting: Setting) {
    let Some(id) = world.processes[index].written else { return };
    world.publish(usize::from(subtask), id);
    let is_last = usize::from(subtask) + 1 == SUBTASKS;
    let next = if is_last { Work::None } else { Work::Publishing(checkpoint, subtask + 1) };
    world.processes[index].stage = Stage::Running(next);
    world.tell(index, Fact::Published { checkpoint, subtask: usize::from(subtask) }, setting);
}

pub(super) fn doubt(world: &mut World, index: usize, checkpoint: CheckpointId, setting: Setting) {
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

pub(super) fn remove_one(world: &mut World, index: usize, setting: Setting) {
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

pub(super) fn remove_all_orphans(world: &mut World, index: usize) {
    let kept = world.processes[index].record.clone();
    world.files &= kept.iter().fold(0, |files, id| files | world.manifests[usize::from(*id)].files());
    for (id, manifest) in world.manifests.iter_mut().enumerate() {
        manifest.exists &= kept.iter().any(|kept| usize::from(*kept) == id);
    }
}

pub(super) fn copy_one(world: &mut World, index: usize, setting: Setting) {
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
pub(super) fn end_stale(world: &mut World, index: usize, setting: Setting) {
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
