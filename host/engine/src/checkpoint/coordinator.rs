//! The protocol of checkpoints, as one pure function: facts come in, actions go out ([`Coordinator::step`]). No I/O, no clock, no randomness: who
//! carries out the actions ([`crate::run`]) says what time it is, and tells what became of them. `model.rs` walks every order of steps of it.
//!
//! # Flow
//! One checkpoint at a time, and in this order (R2): barrier → every subtask's snapshot → uploads → manifest → commit, the only decision → sinks
//! publish, and what is no longer kept is removed → the next one. What fails clearly before the commit was tried is given up, and the job goes on;
//! too many of those in a row, and any error of the commit itself, mean recovery (R5): the attempt ends, and the next one reads what was decided.
//!
//! # Laws
//! - Nothing is uploaded for a checkpoint while something is removed: a file could be found to be there, and be removed a moment later. So the next
//!   barrier waits until the removal has ended.
//! - What a savepoint is being copied from is *pinned*: it stays, whatever is committed meanwhile (R6).
//! - A number is used once in an attempt, and what is told about another checkpoint than the one under way changes nothing.
//! - After [`Action::Recover`], [`Action::Stop`] and [`Action::Finish`] nothing follows.
//!
//! It must not know what a snapshot, a manifest or a record holds.

use std::{collections::BTreeSet, num::NonZeroU32, time::Duration};

use millstream_model::ids::CheckpointId;

use super::retention::{self, Retention};
use crate::graph::Checkpoints;

#[cfg(test)]
mod tests;

/// Number of a subtask in its job, over all operators.
pub type SubtaskNumber = usize;

/// Orphans are looked for once in this time.
const BETWEEN_SWEEPS_MS: i64 = retention::ORPHAN_AGE_MS;

/// A savepoint that was asked for, as the driver numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SavepointNumber(pub u64);

/// When checkpoints are taken, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Between the starts of two.
    pub interval_ms: i64,
    /// After which one is given up.
    pub timeout_ms: i64,
    /// Between the end of one and the start of the next, at least, unless somebody asks for one.
    pub min_pause_ms: i64,
    /// How many are kept.
    pub retained: NonZeroU32,
    /// How many may be given up in a row.
    pub tolerated_failures: u32,
}

impl From<&Checkpoints> for Settings {
    fn from(checkpoints: &Checkpoints) -> Self {
        Self {
            interval_ms: ms(checkpoints.interval),
            timeout_ms: ms(checkpoints.timeout),
            min_pause_ms: ms(checkpoints.min_pause),
            retained: checkpoints.retained,
            tolerated_failures: checkpoints.tolerated_failures,
        }
    }
}

/// What an attempt finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// Subtasks of the job; at least one.
    pub subtasks: usize,
    /// The highest number that was ever committed.
    pub last_number: u64,
    /// Committed checkpoints that are kept, oldest first; the last one counts.
    pub kept: Vec<CheckpointId>,
}

/// What the coordinator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact {
    /// Time has passed.
    Time,
    /// Somebody wants a checkpoint that begins from now on; `stops`: and that the job stops behind it.
    CheckpointRequested {
        /// Whether the job stops.
        stops: bool,
    },
    /// Somebody wants a savepoint, made of a checkpoint that begins from now on.
    SavepointRequested {
        /// Which.
        savepoint: SavepointNumber,
        /// Whether the job stops behind it.
        stops: bool,
    },
    /// A savepoint is whole, and needs nothing any more.
    SavepointCopied {
        /// Which.
        savepoint: SavepointNumber,
    },
    /// A savepoint could not be made. If the job was to stop behind it, it goes on.
    SavepointFailed {
        /// Which.
        savepoint: SavepointNumber,
    },
    /// All input of a subtask is processed: no barrier reaches it any more.
    InputEnded {
        /// Which.
        subtask: SubtaskNumber,
    },
    /// The snapshot of a subtask is complete in local files.
    Snapshotted {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Whose.
        subtask: SubtaskNumber,
    },
    /// Everything that a subtask holds is in the checkpoint storage.
    Uploaded {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Whose.
        subtask: SubtaskNumber,
    },
    /// The manifest is written, and was read back.
    ManifestWritten {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
    },
    /// A snapshot, an upload or the manifest failed.
    Failed {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why, for people.
        reason: String,
    },
    /// The commit log has the record, and said so in time and without an error (R4).
    Committed {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
    },
    /// The commit was tried, and anything else came of it.
    CommitInDoubt {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Why, for people.
        reason: String,
    },
    /// A subtask has published what it had staged.
    Published {
        /// For which checkpoint.
        checkpoint: CheckpointId,
        /// Which subtask.
        subtask: SubtaskNumber,
    },
    /// The removal that came with the commit has ended: nothing of it is under way any more.
    Collected {
        /// With which commit.
        checkpoint: CheckpointId,
        /// Whether everything was removed; what was not is tried again with the next one.
        removed_all: bool,
    },
}

/// What is to be done next, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sources send the barrier; subtasks whose input has ended get it themselves. Whoever asked before belongs to this checkpoint.
    InjectBarrier {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
    },
    /// A subtask whose input has just ended gets the barrier itself, unless it has passed it.
    InjectBarrierInto {
        /// Which subtask.
        subtask: SubtaskNumber,
        /// Of which checkpoint.
        checkpoint: CheckpointId,
    },
    /// Upload the snapshot of a subtask.
    Upload {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Whose.
        subtask: SubtaskNumber,
    },
    /// Write the manifest and read it back.
    WriteManifest {
        /// Of which checkpoint.
        checkpoint: CheckpointId,
        /// Whether all input had ended before its barrier.
        is_final: bool,
    },
    /// Commit the record, which decides.
    Commit {
        /// What counts from then on.
        checkpoint: CheckpointId,
        /// What is kept besides it, oldest first.
        retained: Vec<CheckpointId>,
    },
    /// The checkpoint is committed: sinks publish, sources forget.
    Publish {
        /// Which checkpoint.
        checkpoint: CheckpointId,
    },
    /// Remove what is no longer kept.
    Collect {
        /// The commit that it comes with.
        checkpoint: CheckpointId,
        /// Checkpoints that are to be removed.
        garbage: Vec<CheckpointId>,
        /// Checkpoints of which no file may be removed.
        kept: Vec<CheckpointId>,
        /// Whether orphans are to be looked for as well.
        sweeps: bool,
    },
    /// The checkpoint is committed and published: whoever waits for it is told.
    Complete {
        /// Which checkpoint.
        checkpoint: CheckpointId,
    },
    /// Make a savepoint of a committed checkpoint, which stays until that is done.
    CopySavepoint {
        /// Which savepoint.
        savepoint: SavepointNumber,
        /// Of which checkpoint.
        checkpoint: CheckpointId,
    },
    /// All forget the checkpoint; whoever waits for it, or for a savepoint made of it, is told.
    GiveUp {
        /// Which checkpoint.
        checkpoint: CheckpointId,
        /// Why, for people.
        reason: String,
    },
    /// There is doubt, or too much has failed: the attempt ends, and the next one reads what was decided.
    Recover {
        /// Why, for people.
        reason: String,
    },
    /// The job stops behind this checkpoint.
    Stop {
        /// Which checkpoint.
        checkpoint: CheckpointId,
    },
    /// All input has ended and everything is published.
    Finish {
        /// The last checkpoint.
        checkpoint: CheckpointId,
    },
}

/// How far the checkpoint under way is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Stage {
    /// Snapshots are taken and uploaded.
    Snapshots,
    Manifest,
    Commit,
    Publish,
}

/// The checkpoint under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Current {
    checkpoint: CheckpointId,
    stage: Stage,
    began_ms: i64,
    deadline_ms: i64,
    is_final: bool,
    asked: Asked,
    unsnapshotted: BTreeSet<SubtaskNumber>,
    unstored: BTreeSet<SubtaskNumber>,
    unpublished: BTreeSet<SubtaskNumber>,
    is_collected: bool,
}

/// What was asked of one checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Asked {
    is_asked: bool,
    stops: bool,
    savepoints: Vec<SavepointNumber>,
}

/// What comes when the savepoints that are being copied are whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Ending {
    Stop(CheckpointId),
    Finish(CheckpointId),
}

/// The checkpoints of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    settings: Settings,
    subtasks: usize,
    ended: BTreeSet<SubtaskNumber>,
    /// Committed and kept, oldest first; the last one counts.
    kept: Vec<CheckpointId>,
    /// No longer kept, and not removed.
    garbage: Vec<CheckpointId>,
    /// What savepoints are being made of.
    pins: Vec<(SavepointNumber, CheckpointId)>,
    last_number: u64,
    current: Option<Current>,
    asked: Asked,
    next_ms: i64,
    next_sweep_ms: i64,
    failures_in_row: u32,
    ending: Option<Ending>,
    is_over: bool,
}

impl Coordinator {
    /// Nothing is under way; the first checkpoint comes after one interval.
    pub fn new(settings: Settings, start: Start, now_ms: i64) -> Self {
        let newest = start.kept.last().map_or(0, |newest| newest.0);
        Self {
            settings,
            subtasks: start.subtasks,
            ended: BTreeSet::new(),
            kept: start.kept,
            garbage: Vec::new(),
            pins: Vec::new(),
            last_number: start.last_number.max(newest),
            current: None,
            asked: Asked::default(),
            next_ms: now_ms.saturating_add(settings.interval_ms),
            next_sweep_ms: now_ms,
            failures_in_row: 0,
            ending: None,
            is_over: false,
        }
    }

    /// When [`Fact::Time`] is wanted next; none: nothing waits for a time.
    pub fn wake_ms(&self) -> Option<i64> {
        match &self.current {
            _ if self.is_over => None,
            Some(current) => (current.stage < Stage::Commit).then_some(current.deadline_ms),
            None => self.ending.is_none().then_some(self.next_ms),
        }
    }

    /// The checkpoint under way.
    pub fn current(&self) -> Option<CheckpointId> {
        self.current.as_ref().map(|current| current.checkpoint)
    }

    /// Takes note of a fact; what is to be done.
    pub fn step(&mut self, now_ms: i64, fact: Fact) -> Vec<Action> {
        if self.is_over {
            return Vec::new();
        }
        match fact {
            Fact::Time => self.on_time(now_ms),
            Fact::CheckpointRequested { stops } => self.on_requested(now_ms, stops, None),
            Fact::SavepointRequested { savepoint, stops } => self.on_requested(now_ms, stops, Some(savepoint)),
            Fact::SavepointCopied { savepoint } => self.on_copied(savepoint),
            Fact::SavepointFailed { savepoint } => self.on_copy_failed(now_ms, savepoint),
            Fact::InputEnded { subtask } => self.on_input_ended(now_ms, subtask),
            Fact::Snapshotted { checkpoint, subtask } => self.on_snapshotted(checkpoint, subtask),
            Fact::Uploaded { checkpoint, subtask } => self.on_uploaded(checkpoint, subtask),
            Fact::ManifestWritten { checkpoint } => self.on_manifest_written(checkpoint),
            Fact::Failed { checkpoint, reason } => self.on_failed(now_ms, checkpoint, reason),
            Fact::Committed { checkpoint } => self.on_committed(now_ms, checkpoint),
            Fact::CommitInDoubt { checkpoint, reason } => self.on_commit_in_doubt(checkpoint, reason),
            Fact::Published { checkpoint, subtask } => self.on_published(now_ms, checkpoint, subtask),
            Fact::Collected { checkpoint, removed_all } => self.on_collected(now_ms, checkpoint, removed_all),
        }
    }

    fn on_time(&mut self, now_ms: i64) -> Vec<Action> {
        match &self.current {
            None if now_ms >= self.next_ms => self.begin(now_ms),
            Some(current) if current.stage < Stage::Commit && now_ms >= current.deadline_ms => {
                let timeout = Duration::from_millis(u64::try_from(self.settings.timeout_ms).unwrap_or(0));
                self.give_up(now_ms, format!("it took longer than {}", humantime::format_duration(timeout)))
            }
            _ => Vec::new(),
        }
    }

    fn on_requested(&mut self, now_ms: i64, stops: bool, savepoint: Option<SavepointNumber>) -> Vec<Action> {
        self.asked.is_asked = true;
        self.asked.stops |= stops;
        self.asked.savepoints.extend(savepoint);
        if self.current.is_none() { self.begin(now_ms) } else { Vec::new() }
    }

    fn on_input_ended(&mut self, now_ms: i64, subtask: SubtaskNumber) -> Vec<Action> {
        self.ended.insert(subtask);
        match &self.current {
            // The barrier on its way may never have reached it.
            Some(current) if current.unsnapshotted.contains(&subtask) => {
                vec![Action::InjectBarrierInto { subtask, checkpoint: current.checkpoint }]
            }
            None if self.all_ended() => self.begin(now_ms),
            _ => Vec::new(),
        }
    }

    fn on_snapshotted(&mut self, checkpoint: CheckpointId, subtask: SubtaskNumber) -> Vec<Action> {
        let Some(current) = self.current_at(checkpoint, Stage::Snapshots) else { return Vec::new() };
        if current.unsnapshotted.remove(&subtask) { vec![Action::Upload { checkpoint, subtask }] } else { Vec::new() }
    }

    fn on_uploaded(&mut self, checkpoint: CheckpointId, subtask: SubtaskNumber) -> Vec<Action> {
        let Some(current) = self.current_at(checkpoint, Stage::Snapshots) else { return Vec::new() };
        current.unstored.remove(&subtask);
        if !current.unstored.is_empty() {
            return Vec::new();
        }
        current.stage = Stage::Manifest;
        vec![Action::WriteManifest { checkpoint, is_final: current.is_final }]
    }

    fn on_manifest_written(&mut self, checkpoint: CheckpointId) -> Vec<Action> {
        let Some(current) = self.current_at(checkpoint, Stage::Manifest) else { return Vec::new() };
        current.stage = Stage::Commit;
        vec![Action::Commit { checkpoint, retained: retention::retain(&self.kept, self.settings.retained).retained }]
    }

    fn on_failed(&mut self, now_ms: i64, checkpoint: CheckpointId, reason: String) -> Vec<Action> {
        let may_be_given_up = |current: &Current| current.checkpoint == checkpoint && current.stage < Stage::Commit;
        if self.current.as_ref().is_some_and(may_be_given_up) { self.give_up(now_ms, reason) } else { Vec::new() }
    }

    fn on_committed(&mut self, now_ms: i64, checkpoint: CheckpointId) -> Vec<Action> {
        let Some(current) = self.current_at(checkpoint, Stage::Commit) else { return Vec::new() };
        current.stage = Stage::Publish;
        let Retention { retained, dropped } = retention::retain(&self.kept, self.settings.retained);
        self.kept = retained;
        self.kept.push(checkpoint);
        self.garbage.extend(dropped);
        self.failures_in_row = 0;
        let sweeps = now_ms >= self.next_sweep_ms;
        if sweeps {
            self.next_sweep_ms = now_ms.saturating_add(BETWEEN_SWEEPS_MS);
        }
        let (pinned, garbage): (Vec<CheckpointId>, Vec<CheckpointId>) = self.garbage.iter().partition(|garbage| self.is_pinned(**garbage));
        let kept = pinned.into_iter().chain(self.kept.iter().copied()).collect();
        vec![Action::Publish { checkpoint }, Action::Collect { checkpoint, garbage, kept, sweeps }]
    }

    fn on_commit_in_doubt(&mut self, checkpoint: CheckpointId, reason: String) -> Vec<Action> {
        match self.current_at(checkpoint, Stage::Commit) {
            Some(_) => self.recover(format!("the commit is in doubt: {reason}")),
            None => Vec::new(),
        }
    }

    fn on_published(&mut self, now_ms: i64, checkpoint: CheckpointId, subtask: SubtaskNumber) -> Vec<Action> {
        let Some(current) = self.current_at(checkpoint, Stage::Publish) else { return Vec::new() };
        current.unpublished.remove(&subtask);
        self.complete(now_ms)
    }

    fn on_collected(&mut self, now_ms: i64, checkpoint: CheckpointId, removed_all: bool) -> Vec<Action> {
        let Some(current) = self.current_at(checkpoint, Stage::Publish) else { return Vec::new() };
        current.is_collected = true;
        if removed_all {
            let pins = &self.pins;
            self.garbage.retain(|garbage| pins.iter().any(|(_, pinned)| pinned == garbage));
        }
        self.complete(now_ms)
    }

    fn on_copied(&mut self, savepoint: SavepointNumber) -> Vec<Action> {
        self.pins.retain(|(pinning, _)| *pinning != savepoint);
        self.end_if_due()
    }

    fn on_copy_failed(&mut self, now_ms: i64, savepoint: SavepointNumber) -> Vec<Action> {
        let failed = self.pins.iter().find(|(pinning, _)| *pinning == savepoint).map(|(_, checkpoint)| *checkpoint);
        self.pins.retain(|(pinning, _)| *pinning != savepoint);
        if self.ending.is_some_and(|ending| Some(ending) == failed.map(Ending::Stop)) {
            self.ending = None;
            return self.plan_next(now_ms, now_ms);
        }
        self.end_if_due()
    }

    /// The checkpoint under way, if it is this one and that far.
    fn current_at(&mut self, checkpoint: CheckpointId, stage: Stage) -> Option<&mut Current> {
        self.current.as_mut().filter(|current| current.checkpoint == checkpoint && current.stage == stage)
    }

    fn all_ended(&self) -> bool {
        self.ended.len() == self.subtasks
    }

    fn is_pinned(&self, checkpoint: CheckpointId) -> bool {
        self.pins.iter().any(|(_, pinned)| *pinned == checkpoint)
    }

    fn begin(&mut self, now_ms: i64) -> Vec<Action> {
        if self.ending.is_some() {
            return Vec::new();
        }
        self.last_number += 1;
        let checkpoint = CheckpointId(self.last_number);
        let all: BTreeSet<SubtaskNumber> = (0..self.subtasks).collect();
        self.current = Some(Current {
            checkpoint,
            stage: Stage::Snapshots,
            began_ms: now_ms,
            deadline_ms: now_ms.saturating_add(self.settings.timeout_ms),
            is_final: self.all_ended(),
            asked: std::mem::take(&mut self.asked),
            unsnapshotted: all.clone(),
            unstored: all.clone(),
            unpublished: all,
            is_collected: false,
        });
        vec![Action::InjectBarrier { checkpoint }]
    }

    fn complete(&mut self, now_ms: i64) -> Vec<Action> {
        let is_complete = |current: &mut Current| current.unpublished.is_empty() && current.is_collected;
        let Some(Current { checkpoint, asked, began_ms, is_final, .. }) = self.current.take_if(is_complete) else { return Vec::new() };
        let mut actions = vec![Action::Complete { checkpoint }];
        for savepoint in asked.savepoints {
            self.pins.push((savepoint, checkpoint));
            actions.push(Action::CopySavepoint { savepoint, checkpoint });
        }
        if asked.stops {
            self.ending = Some(Ending::Stop(checkpoint));
        } else if is_final {
            self.ending = Some(Ending::Finish(checkpoint));
        }
        actions.extend(if self.ending.is_some() { self.end_if_due() } else { self.plan_next(began_ms, now_ms) });
        actions
    }

    fn end_if_due(&mut self) -> Vec<Action> {
        if !self.pins.is_empty() {
            return Vec::new();
        }
        let Some(ending) = self.ending else { return Vec::new() };
        self.is_over = true;
        vec![match ending {
            Ending::Stop(checkpoint) => Action::Stop { checkpoint },
            Ending::Finish(checkpoint) => Action::Finish { checkpoint },
        }]
    }

    /// When the next one begins; at once if somebody waits for it or nothing is left to do.
    fn plan_next(&mut self, began_ms: i64, now_ms: i64) -> Vec<Action> {
        let by_interval = began_ms.saturating_add(self.settings.interval_ms);
        self.next_ms = by_interval.max(now_ms.saturating_add(self.settings.min_pause_ms));
        if self.asked.is_asked || self.all_ended() { self.begin(now_ms) } else { Vec::new() }
    }

    fn give_up(&mut self, now_ms: i64, reason: String) -> Vec<Action> {
        let Some(current) = self.current.take() else { return Vec::new() };
        let mut actions = vec![Action::GiveUp { checkpoint: current.checkpoint, reason: reason.clone() }];
        self.failures_in_row += 1;
        if self.failures_in_row > self.settings.tolerated_failures {
            actions.extend(self.recover(format!("{} checkpoints in a row were given up: {reason}", self.failures_in_row)));
            return actions;
        }
        // Sooner than after a whole interval, but slower and slower.
        let wait_ms = self.settings.interval_ms.min(1_000 << self.failures_in_row.min(6)).max(self.settings.min_pause_ms);
        self.next_ms = now_ms.saturating_add(wait_ms);
        if self.asked.is_asked {
            actions.extend(self.begin(now_ms));
        }
        actions
    }

    fn recover(&mut self, reason: String) -> Vec<Action> {
        self.is_over = true;
        vec![Action::Recover { reason }]
    }
}

fn ms(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
