//! The storage, the log, the sinks and the processes of a job as one value, what the driver does with it, and the promises that hold in every state.

use std::collections::BTreeSet;

use millstream_model::ids::CheckpointId;

use super::{Bounds, CONTENTS, POSITIONS, SUBTASKS, Without};
use crate::checkpoint::{
    coordinator::{Action, Coordinator, Fact},
    retention,
};

/// Which manifest, by order of creation.
pub(super) type ManifestId = u8;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Manifest {
    pub(super) incarnation: u8,
    pub(super) checkpoint: CheckpointId,
    pub(super) position: u8,
    /// Positions whose output it stages, as bits.
    pub(super) staged: u8,
    /// What its run restored from or committed before.
    pub(super) parent: Option<ManifestId>,
    pub(super) exists: bool,
    pub(super) was_committed: bool,
}

impl Manifest {
    pub(super) fn files(&self) -> u8 {
        files_at(self.position)
    }
}

pub(super) fn content(position: u8) -> u8 {
    1 << (position % CONTENTS)
}

/// The files of a checkpoint at `position`, as bits.
pub(super) fn files_at(position: u8) -> u8 {
    let is_incremental = position > 1 && position % 2 == 1;
    content(position) | if is_incremental { content(position - 1) } else { 0 }
}

pub(super) fn names(files: u8) -> BTreeSet<u8> {
    (0..CONTENTS).map(|content| 1 << content).filter(|file| files & file != 0).collect()
}

/// Committed and kept manifests, oldest first; the last one counts.
pub(super) type Record = Vec<ManifestId>;

/// What a process is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// The claim is half done: fenced, or (without the rule) read.
    Claiming(Record),
    /// What the restored checkpoint staged is published by subtask after subtask.
    Restoring(u8),
    Running(Work),
}

/// What the driver has under way for the checkpoint under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Work {
    None,
    Snapshots(CheckpointId),
    Uploads(CheckpointId),
    Writing(CheckpointId),
    Committing(CheckpointId, Record),
    Publishing(CheckpointId, u8),
}

/// Removal of what is no longer kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Removal {
    /// The commit that it came with.
    pub(super) checkpoint: CheckpointId,
    pub(super) files: u8,
    pub(super) manifests: Vec<ManifestId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Process {
    pub(super) incarnation: u8,
    pub(super) stage: Stage,
    pub(super) coordinator: Option<Coordinator>,
    /// The record as it knows it.
    pub(super) record: Record,
    pub(super) position: u8,
    pub(super) staged: u8,
    /// The manifest of the checkpoint under way.
    pub(super) written: Option<ManifestId>,
    /// Files that it created since the last removal.
    pub(super) created: u8,
    pub(super) removal: Option<Removal>,
    /// A savepoint is made; the files that are still to be copied.
    pub(super) savepoint: Option<u8>,
    /// Uploads of a checkpoint that was given up, which go on.
    pub(super) stale: Option<(CheckpointId, u8)>,
    /// Without [`Without::FilesBeforeCommit`]: files that come later.
    pub(super) put_off: u8,
    /// Without [`Without::RecoveryInDoubt`]: the coordinator before the commit.
    pub(super) before_commit: Option<Coordinator>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) files: u8,
    pub(super) manifests: Vec<Manifest>,
    pub(super) record: Record,
    /// The incarnation that may commit.
    pub(super) holder: u8,
    pub(super) incarnations: u8,
    /// Commits that may yet arrive.
    pub(super) late: Vec<(u8, Record)>,
    pub(super) processes: Vec<Process>,
    /// Which checkpoint published a position of a subtask.
    pub(super) published: [[Option<ManifestId>; POSITIONS + 1]; SUBTASKS],
    pub(super) faults: u8,
    pub(super) savepoints: u8,
    pub(super) log_was_lost: bool,
    pub(super) broken: Option<&'static str>,
}

/// The rules and how far to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) without: Without,
    pub(super) bounds: Bounds,
}

impl World {
    pub(super) fn new(bounds: Bounds) -> Self {
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

    pub(super) fn position(&self, committed: Option<ManifestId>) -> u8 {
        committed.map_or(0, |id| self.manifests[usize::from(id)].position)
    }

    pub(super) fn break_promise(&mut self, promise: &'static str) {
        self.broken.get_or_insert(promise);
    }

    /// What must hold always.
    pub(super) fn check(&mut self) {
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
    pub(super) fn apply(&mut self, incarnation: u8, record: Record, without: Without) -> bool {
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
    pub(super) fn publish(&mut self, subtask: usize, id: ManifestId) {
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

    pub(super) fn remove_manifest(&mut self, id: ManifestId) {
        self.manifests[usize::from(id)].exists = false;
    }

    pub(super) fn write_manifest(&mut self, index: usize, checkpoint: CheckpointId, without: Without) -> ManifestId {
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
    pub(super) fn files_of(&self, process: &Process, checkpoints: &[CheckpointId]) -> u8 {
        self.ids(process, checkpoints).fold(0, |files, id| files | self.manifests[usize::from(id)].files())
    }

    /// Committed manifests that this process restored from, or wrote.
    pub(super) fn ids<'a>(&'a self, process: &'a Process, checkpoints: &'a [CheckpointId]) -> impl Iterator<Item = ManifestId> + 'a {
        checkpoints.iter().filter_map(|checkpoint| {
            let is_it = |manifest: &Manifest| {
                manifest.was_committed && manifest.checkpoint == *checkpoint && manifest.incarnation <= process.incarnation
            };
            self.manifests.iter().rposition(is_it).and_then(|id| u8::try_from(id).ok())
        })
    }

    /// Tells a coordinator, and does at once what needs no step of its own.
    pub(super) fn tell(&mut self, index: usize, fact: Fact, setting: Setting) {
        let Some(coordinator) = &mut self.processes[index].coordinator else { return };
        for action in coordinator.step(0, fact) {
            self.carry_out(index, action, setting);
        }
    }

    pub(super) fn carry_out(&mut self, index: usize, action: Action, setting: Setting) {
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

    pub(super) fn begin_removal(
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
