use super::*;

const INTERVAL_MS: i64 = 10_000;
const TIMEOUT_MS: i64 = 60_000;
const C1: CheckpointId = CheckpointId(1);
const C2: CheckpointId = CheckpointId(2);
const C3: CheckpointId = CheckpointId(3);
const S1: SavepointNumber = SavepointNumber(1);

/// A coordinator with a clock.
struct Bench {
    coordinator: Coordinator,
    now_ms: i64,
}

fn settings() -> Settings {
    Settings {
        interval_ms: INTERVAL_MS,
        timeout_ms: TIMEOUT_MS,
        min_pause_ms: 0,
        retained: NonZeroU32::new(2).expect("two is not zero"),
        tolerated_failures: 2,
    }
}

/// Two subtasks, nothing committed before, at time 0.
fn bench() -> Bench {
    bench_with(settings())
}

fn bench_with(settings: Settings) -> Bench {
    Bench { coordinator: Coordinator::new(settings, Start { subtasks: 2, ..Start::default() }, 0), now_ms: 0 }
}

impl Bench {
    fn step(&mut self, fact: Fact) -> Vec<Action> {
        self.coordinator.step(self.now_ms, fact)
    }

    fn at(&mut self, now_ms: i64) -> Vec<Action> {
        self.now_ms = now_ms;
        self.step(Fact::Time)
    }

    fn request(&mut self) -> Vec<Action> {
        self.step(Fact::CheckpointRequested { stops: false })
    }

    fn snapshotted(&mut self, checkpoint: CheckpointId, subtask: SubtaskNumber) -> Vec<Action> {
        self.step(Fact::Snapshotted { checkpoint, subtask })
    }

    fn uploaded(&mut self, checkpoint: CheckpointId, subtask: SubtaskNumber) -> Vec<Action> {
        self.step(Fact::Uploaded { checkpoint, subtask })
    }

    fn published(&mut self, checkpoint: CheckpointId, subtask: SubtaskNumber) -> Vec<Action> {
        self.step(Fact::Published { checkpoint, subtask })
    }

    fn collected(&mut self, checkpoint: CheckpointId) -> Vec<Action> {
        self.step(Fact::Collected { checkpoint, removed_all: true })
    }

    fn failed(&mut self, checkpoint: CheckpointId) -> Vec<Action> {
        self.step(Fact::Failed { checkpoint, reason: "the disk is full".into() })
    }

    /// Takes the checkpoint under way up to its manifest; what follows is the commit.
    fn prepare(&mut self, checkpoint: CheckpointId) -> Vec<Action> {
        for subtask in [0, 1] {
            self.snapshotted(checkpoint, subtask);
            self.uploaded(checkpoint, subtask);
        }
        self.step(Fact::ManifestWritten { checkpoint })
    }

    /// Takes the checkpoint under way through its commit.
    fn commit(&mut self, checkpoint: CheckpointId) -> Vec<Action> {
        self.prepare(checkpoint);
        self.step(Fact::Committed { checkpoint })
    }

    /// Takes the checkpoint under way to its end.
    fn complete(&mut self, checkpoint: CheckpointId) -> Vec<Action> {
        self.commit(checkpoint);
        self.published(checkpoint, 0);
        self.published(checkpoint, 1);
        self.collected(checkpoint)
    }

    fn end_inputs(&mut self) -> Vec<Action> {
        self.step(Fact::InputEnded { subtask: 0 });
        self.step(Fact::InputEnded { subtask: 1 })
    }
}

fn barrier(checkpoint: CheckpointId) -> Action {
    Action::InjectBarrier { checkpoint }
}

fn given_up(checkpoint: CheckpointId, reason: &str) -> Action {
    Action::GiveUp { checkpoint, reason: reason.into() }
}

#[test]
fn a_checkpoint_goes_from_barrier_to_completion_in_the_order_of_the_protocol() {
    let mut bench = bench();
    assert_eq!(bench.request(), [barrier(C1)]);
    assert_eq!(bench.snapshotted(C1, 1), [Action::Upload { checkpoint: C1, subtask: 1 }]);
    assert_eq!(bench.uploaded(C1, 1), []);
    assert_eq!(bench.snapshotted(C1, 0), [Action::Upload { checkpoint: C1, subtask: 0 }]);
    assert_eq!(bench.uploaded(C1, 0), [Action::WriteManifest { checkpoint: C1, is_final: false }]);
    assert_eq!(bench.step(Fact::ManifestWritten { checkpoint: C1 }), [Action::Commit { checkpoint: C1, retained: vec![] }]);
    let collect = Action::Collect { checkpoint: C1, garbage: vec![], kept: vec![C1], sweeps: true };
    assert_eq!(bench.step(Fact::Committed { checkpoint: C1 }), [Action::Publish { checkpoint: C1 }, collect]);
    assert_eq!(bench.published(C1, 0), []);
    assert_eq!(bench.published(C1, 1), []);
    assert_eq!(bench.collected(C1), [Action::Complete { checkpoint: C1 }]);
}

#[test]
fn the_first_checkpoint_begins_after_one_interval() {
    let mut bench = bench();
    assert_eq!(bench.coordinator.wake_ms(), Some(INTERVAL_MS));
    assert_eq!(bench.at(INTERVAL_MS - 1), []);
    assert_eq!(bench.at(INTERVAL_MS), [barrier(C1)]);
}

#[test]
fn checkpoints_begin_one_interval_after_the_one_before_began() {
    let mut bench = bench();
    bench.at(INTERVAL_MS);
    bench.now_ms += 3_000;
    bench.complete(C1);
    assert_eq!(bench.coordinator.wake_ms(), Some(2 * INTERVAL_MS));
}

#[test]
fn between_two_checkpoints_there_is_the_pause_even_if_they_take_longer_than_the_interval() {
    let mut bench = bench_with(Settings { min_pause_ms: 4_000, ..settings() });
    bench.at(INTERVAL_MS);
    bench.now_ms += 15_000;
    bench.complete(C1);
    assert_eq!(bench.coordinator.wake_ms(), Some(INTERVAL_MS + 15_000 + 4_000));
}

#[test]
fn the_pause_is_kept_after_a_checkpoint_that_was_given_up_too() {
    let mut bench = bench_with(Settings { min_pause_ms: 9_000, ..settings() });
    bench.request();
    bench.failed(C1);
    assert_eq!(bench.coordinator.wake_ms(), Some(9_000));
}

#[test]
fn who_asks_need_not_wait_for_the_pause() {
    let mut bench = bench_with(Settings { min_pause_ms: 9_000, ..settings() });
    bench.request();
    bench.complete(C1);
    assert_eq!(bench.request(), [barrier(C2)]);
}

#[test]
fn who_asks_while_a_checkpoint_is_under_way_gets_the_next_one() {
    let mut bench = bench();
    bench.at(INTERVAL_MS);
    assert_eq!(bench.request(), []);
    assert_eq!(bench.complete(C1), [Action::Complete { checkpoint: C1 }, barrier(C2)]);
}

#[test]
fn numbers_go_on_behind_the_highest_that_was_ever_committed() {
    let start = Start { subtasks: 1, last_number: 9, kept: vec![CheckpointId(4)] };
    let mut coordinator = Coordinator::new(settings(), start, 0);
    assert_eq!(coordinator.step(0, Fact::CheckpointRequested { stops: false }), [barrier(CheckpointId(10))]);
}

#[test]
fn the_number_of_a_checkpoint_that_was_given_up_is_not_used_again() {
    let mut bench = bench();
    bench.request();
    bench.failed(C1);
    assert_eq!(bench.request(), [barrier(C2)]);
}

#[test]
fn a_checkpoint_that_takes_too_long_is_given_up() {
    let mut bench = bench();
    bench.request();
    bench.snapshotted(C1, 0);
    assert_eq!(bench.coordinator.wake_ms(), Some(TIMEOUT_MS));
    assert_eq!(bench.at(TIMEOUT_MS - 1), []);
    assert_eq!(bench.at(TIMEOUT_MS), [given_up(C1, "it took longer than 1m")]);
}

#[test]
fn a_commit_under_way_is_never_given_up_however_long_it_takes() {
    let mut bench = bench();
    bench.request();
    bench.prepare(C1);
    assert_eq!(bench.coordinator.wake_ms(), None);
    assert_eq!(bench.at(100 * TIMEOUT_MS), []);
    assert_eq!(bench.failed(C1), []);
}

/// A subtask that snapshots slowly may answer for a checkpoint that was already given up.
#[test]
fn answers_for_a_checkpoint_that_was_given_up_are_ignored() {
    let mut bench = bench();
    bench.request();
    bench.snapshotted(C1, 0);
    bench.failed(C1);
    bench.request();
    assert_eq!(bench.snapshotted(C1, 1), []);
    assert_eq!(bench.uploaded(C1, 0), []);
    assert_eq!(bench.failed(C1), []);
    bench.snapshotted(C2, 0);
    bench.snapshotted(C2, 1);
    assert_eq!(bench.uploaded(C2, 1), []);
    assert_eq!(bench.uploaded(C2, 0), [Action::WriteManifest { checkpoint: C2, is_final: false }]);
}

#[test]
fn a_snapshot_is_uploaded_once() {
    let mut bench = bench();
    bench.request();
    bench.snapshotted(C1, 0);
    assert_eq!(bench.snapshotted(C1, 0), []);
}

#[test]
fn after_a_failure_the_next_try_comes_sooner_than_after_an_interval_and_slower_every_time() {
    let mut bench = bench();
    bench.request();
    bench.failed(C1);
    assert_eq!(bench.coordinator.wake_ms(), Some(2_000));
    bench.at(2_000);
    bench.failed(C2);
    assert_eq!(bench.coordinator.wake_ms(), Some(2_000 + 4_000));
}

#[test]
fn more_failures_in_a_row_than_are_tolerated_mean_recovery() {
    let mut bench = bench();
    for checkpoint in [C1, C2] {
        bench.request();
        assert_eq!(bench.failed(checkpoint), [given_up(checkpoint, "the disk is full")]);
    }
    bench.request();
    let reason = "3 checkpoints in a row were given up: the disk is full".into();
    assert_eq!(bench.failed(C3), [given_up(C3, "the disk is full"), Action::Recover { reason }]);
    assert_eq!(bench.request(), []);
}

#[test]
fn a_commit_begins_the_count_of_failures_anew() {
    let mut bench = bench();
    for checkpoint in [C1, C2] {
        bench.request();
        bench.failed(checkpoint);
    }
    bench.request();
    bench.complete(C3);
    bench.request();
    assert_eq!(bench.failed(CheckpointId(4)), [given_up(CheckpointId(4), "the disk is full")]);
}

#[test]
fn when_none_is_tolerated_the_first_failure_means_recovery() {
    let mut bench = bench_with(Settings { tolerated_failures: 0, ..settings() });
    bench.request();
    assert!(matches!(bench.failed(C1).as_slice(), [Action::GiveUp { .. }, Action::Recover { .. }]));
}

#[test]
fn a_commit_in_doubt_means_recovery_and_nothing_after_it() {
    let mut bench = bench();
    bench.request();
    bench.prepare(C1);
    let doubt = Fact::CommitInDoubt { checkpoint: C1, reason: "no answer".into() };
    assert_eq!(bench.step(doubt), [Action::Recover { reason: "the commit is in doubt: no answer".into() }]);
    assert_eq!(bench.step(Fact::Committed { checkpoint: C1 }), []);
    assert_eq!(bench.at(100 * INTERVAL_MS), []);
    assert_eq!(bench.coordinator.wake_ms(), None);
}

#[test]
fn a_subtask_that_ends_during_a_checkpoint_gets_the_barrier_itself() {
    let mut bench = bench();
    bench.request();
    let into = Action::InjectBarrierInto { subtask: 1, checkpoint: C1 };
    assert_eq!(bench.step(Fact::InputEnded { subtask: 1 }), [into]);
}

#[test]
fn a_subtask_that_ends_behind_its_snapshot_gets_no_barrier() {
    let mut bench = bench();
    bench.request();
    bench.snapshotted(C1, 1);
    assert_eq!(bench.step(Fact::InputEnded { subtask: 1 }), []);
}

#[test]
fn when_all_input_has_ended_the_last_checkpoint_begins_at_once_and_finishes_the_job() {
    let mut bench = bench();
    assert_eq!(bench.end_inputs(), [barrier(C1)]);
    bench.snapshotted(C1, 0);
    bench.uploaded(C1, 0);
    bench.snapshotted(C1, 1);
    assert_eq!(bench.uploaded(C1, 1), [Action::WriteManifest { checkpoint: C1, is_final: true }]);
    bench.step(Fact::ManifestWritten { checkpoint: C1 });
    bench.step(Fact::Committed { checkpoint: C1 });
    bench.published(C1, 0);
    bench.published(C1, 1);
    assert_eq!(bench.collected(C1), [Action::Complete { checkpoint: C1 }, Action::Finish { checkpoint: C1 }]);
    assert_eq!(bench.request(), []);
}

/// Rows between its barrier and the end are in no snapshot of it.
#[test]
fn a_checkpoint_whose_barrier_came_before_the_end_of_input_is_not_the_last() {
    let mut bench = bench();
    bench.request();
    bench.end_inputs();
    assert_eq!(bench.complete(C1), [Action::Complete { checkpoint: C1 }, barrier(C2)]);
    assert!(bench.complete(C2).contains(&Action::Finish { checkpoint: C2 }));
}

#[test]
fn a_last_checkpoint_that_was_given_up_is_tried_again() {
    let mut bench = bench();
    bench.end_inputs();
    bench.failed(C1);
    let wake_ms = bench.coordinator.wake_ms().expect("it is tried again");
    assert_eq!(bench.at(wake_ms), [barrier(C2)]);
    assert!(bench.complete(C2).contains(&Action::Finish { checkpoint: C2 }));
}

#[test]
fn the_job_stops_behind_the_checkpoint_that_was_asked_for() {
    let mut bench = bench();
    assert_eq!(bench.step(Fact::CheckpointRequested { stops: true }), [barrier(C1)]);
    assert_eq!(bench.complete(C1), [Action::Complete { checkpoint: C1 }, Action::Stop { checkpoint: C1 }]);
}

#[test]
fn a_stop_that_is_asked_for_during_a_checkpoint_comes_behind_the_next_one() {
    let mut bench = bench();
    bench.at(INTERVAL_MS);
    assert_eq!(bench.step(Fact::CheckpointRequested { stops: true }), []);
    assert_eq!(bench.complete(C1), [Action::Complete { checkpoint: C1 }, barrier(C2)]);
    assert_eq!(bench.complete(C2), [Action::Complete { checkpoint: C2 }, Action::Stop { checkpoint: C2 }]);
}

#[test]
fn a_stop_whose_checkpoint_was_given_up_does_not_stop_a_later_one() {
    let mut bench = bench();
    bench.step(Fact::CheckpointRequested { stops: true });
    bench.failed(C1);
    bench.request();
    assert_eq!(bench.complete(C2), [Action::Complete { checkpoint: C2 }]);
}

#[test]
fn the_next_barrier_waits_until_the_removal_has_ended() {
    let mut bench = bench();
    bench.request();
    bench.commit(C1);
    bench.request();
    bench.published(C1, 0);
    assert_eq!(bench.published(C1, 1), []);
    assert_eq!(bench.collected(C1), [Action::Complete { checkpoint: C1 }, barrier(C2)]);
}

#[test]
fn the_next_barrier_waits_until_everything_is_published() {
    let mut bench = bench();
    bench.request();
    bench.commit(C1);
    bench.request();
    bench.collected(C1);
    assert_eq!(bench.published(C1, 0), []);
    assert_eq!(bench.published(C1, 1), [Action::Complete { checkpoint: C1 }, barrier(C2)]);
}

#[test]
fn the_oldest_checkpoint_is_removed_when_there_are_too_many() {
    let mut bench = bench();
    for checkpoint in [C1, C2] {
        bench.request();
        bench.complete(checkpoint);
    }
    bench.request();
    assert_eq!(bench.prepare(C3), [Action::Commit { checkpoint: C3, retained: vec![C2] }]);
    let collect = Action::Collect { checkpoint: C3, garbage: vec![C1], kept: vec![C2, C3], sweeps: false };
    assert_eq!(bench.step(Fact::Committed { checkpoint: C3 })[1], collect);
}

#[test]
fn what_was_removed_is_not_removed_again() {
    let mut bench = bench_with(Settings { retained: NonZeroU32::MIN, ..settings() });
    for checkpoint in [C1, C2] {
        bench.request();
        bench.complete(checkpoint);
    }
    bench.request();
    let collect = Action::Collect { checkpoint: C3, garbage: vec![C2], kept: vec![C3], sweeps: false };
    assert_eq!(bench.commit(C3)[1], collect);
}

#[test]
fn facts_that_come_before_their_time_change_nothing() {
    let mut bench = bench();
    bench.request();
    let before = bench.coordinator.clone();
    for fact in [
        Fact::ManifestWritten { checkpoint: C1 },
        Fact::Committed { checkpoint: C1 },
        Fact::CommitInDoubt { checkpoint: C1, reason: String::new() },
        Fact::Published { checkpoint: C1, subtask: 0 },
        Fact::Collected { checkpoint: C1, removed_all: true },
    ] {
        assert_eq!(bench.step(fact), []);
        assert_eq!(bench.coordinator, before);
    }
}

#[test]
fn what_could_not_be_removed_is_tried_again_with_the_next_commit() {
    let mut bench = bench_with(Settings { retained: NonZeroU32::MIN, ..settings() });
    bench.request();
    bench.complete(C1);
    bench.request();
    bench.commit(C2);
    bench.published(C2, 0);
    bench.published(C2, 1);
    bench.step(Fact::Collected { checkpoint: C2, removed_all: false });
    bench.request();
    let collect = Action::Collect { checkpoint: C3, garbage: vec![C1, C2], kept: vec![C3], sweeps: false };
    assert_eq!(bench.commit(C3)[1], collect);
}

#[test]
fn orphans_are_looked_for_with_the_first_commit_and_then_once_a_day() {
    let mut bench = bench();
    let sweeps = |actions: &[Action]| matches!(actions, [_, Action::Collect { sweeps: true, .. }]);
    let mut swept = Vec::new();
    for (number, hour) in [(1, 0), (2, 23), (3, 24), (4, 25)] {
        bench.now_ms = hour * 3_600_000;
        bench.request();
        let checkpoint = CheckpointId(number);
        swept.push(sweeps(&bench.commit(checkpoint)));
        bench.published(checkpoint, 0);
        bench.published(checkpoint, 1);
        bench.collected(checkpoint);
    }
    assert_eq!(swept, [true, false, true, false]);
}

#[test]
fn a_savepoint_is_made_of_a_checkpoint_that_begins_after_it_was_asked_for() {
    let mut bench = bench();
    bench.at(INTERVAL_MS);
    assert_eq!(bench.step(Fact::SavepointRequested { savepoint: S1, stops: false }), []);
    assert_eq!(bench.complete(C1), [Action::Complete { checkpoint: C1 }, barrier(C2)]);
    let copy = Action::CopySavepoint { savepoint: S1, checkpoint: C2 };
    assert_eq!(bench.complete(C2), [Action::Complete { checkpoint: C2 }, copy]);
}

#[test]
fn what_a_savepoint_is_being_copied_from_stays_until_it_is_whole() {
    let mut bench = bench_with(Settings { retained: NonZeroU32::MIN, ..settings() });
    bench.step(Fact::SavepointRequested { savepoint: S1, stops: false });
    bench.complete(C1);
    bench.request();
    let collect = Action::Collect { checkpoint: C2, garbage: vec![], kept: vec![C1, C2], sweeps: false };
    assert_eq!(bench.commit(C2)[1], collect);
    bench.published(C2, 0);
    bench.published(C2, 1);
    bench.collected(C2);
    assert_eq!(bench.step(Fact::SavepointCopied { savepoint: S1 }), []);
    bench.request();
    let collect = Action::Collect { checkpoint: C3, garbage: vec![C1, C2], kept: vec![C3], sweeps: false };
    assert_eq!(bench.commit(C3)[1], collect);
}

#[test]
fn a_savepoint_that_failed_holds_nothing_any_more() {
    let mut bench = bench_with(Settings { retained: NonZeroU32::MIN, ..settings() });
    bench.step(Fact::SavepointRequested { savepoint: S1, stops: false });
    bench.complete(C1);
    bench.step(Fact::SavepointFailed { savepoint: S1 });
    bench.request();
    let collect = Action::Collect { checkpoint: C2, garbage: vec![C1], kept: vec![C2], sweeps: false };
    assert_eq!(bench.commit(C2)[1], collect);
}

#[test]
fn the_job_stops_behind_a_savepoint_only_when_it_is_whole() {
    let mut bench = bench();
    bench.step(Fact::SavepointRequested { savepoint: S1, stops: true });
    let copy = Action::CopySavepoint { savepoint: S1, checkpoint: C1 };
    assert_eq!(bench.complete(C1), [Action::Complete { checkpoint: C1 }, copy]);
    assert_eq!(bench.at(10 * INTERVAL_MS), []);
    assert_eq!(bench.request(), []);
    assert_eq!(bench.step(Fact::SavepointCopied { savepoint: S1 }), [Action::Stop { checkpoint: C1 }]);
}

#[test]
fn the_job_goes_on_if_the_savepoint_behind_which_it_was_to_stop_fails() {
    let mut bench = bench();
    bench.step(Fact::SavepointRequested { savepoint: S1, stops: true });
    bench.complete(C1);
    assert_eq!(bench.step(Fact::SavepointFailed { savepoint: S1 }), []);
    assert_eq!(bench.at(INTERVAL_MS), [barrier(C2)]);
}

#[test]
fn the_job_finishes_only_when_the_savepoints_under_way_are_whole() {
    let mut bench = bench();
    bench.step(Fact::SavepointRequested { savepoint: S1, stops: false });
    bench.complete(C1);
    assert_eq!(bench.end_inputs(), [barrier(C2)]);
    assert_eq!(bench.complete(C2), [Action::Complete { checkpoint: C2 }]);
    assert_eq!(bench.step(Fact::SavepointCopied { savepoint: S1 }), [Action::Finish { checkpoint: C2 }]);
}

#[test]
fn a_savepoint_is_gone_with_the_checkpoint_that_it_was_to_be_made_of() {
    let mut bench = bench();
    bench.step(Fact::SavepointRequested { savepoint: S1, stops: false });
    bench.failed(C1);
    bench.request();
    assert_eq!(bench.complete(C2), [Action::Complete { checkpoint: C2 }]);
}
