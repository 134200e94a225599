use std::any::Any;

use async_trait::async_trait;
use millstream_model::{
    ids::SubtaskIndex,
    state::{StateDescriptor, StateKind, StateScope},
};
use millstream_state::{Backend, KeyedStore, StoreSettings};
use tempfile::TempDir;

use super::*;
use crate::{checkpoint::manifest::SplitManifest, clock::ManualClock, operators::state_error, run::FileWork};

/// Keeps keyed state; another version of it, which is what it declares, declares its states anew.
struct Keeper(KeyedStore);

fn states(replacement: &(dyn Any + Send)) -> Vec<StateDescriptor> {
    replacement.downcast_ref::<Vec<StateDescriptor>>().expect("a version").clone()
}

fn counted() -> StateDescriptor {
    StateDescriptor {
        name: "count".into(),
        kind: StateKind::Value,
        scope: StateScope::Keyed,
        value_type: arrow_schema::DataType::Int64,
        map_key_type: None,
        version: 1,
        ttl: None,
    }
}

#[async_trait]
impl Operator for Keeper {
    async fn on_batch(&mut self, _input: usize, _batch: Batch, _now: Moment, _out: &mut Output) -> Result<(), OperatorError> {
        Ok(())
    }

    fn with_store(&mut self, work: &mut dyn FnMut(&mut KeyedStore)) {
        work(&mut self.0);
    }

    async fn on_control(&mut self, control: Control) -> Result<(), OperatorError> {
        let Control::Switch { replacement, .. } = control else { return Ok(()) };
        self.0.redeclare(states(replacement.as_ref()), Vec::new()).map_err(state_error)
    }

    fn keeps_declarations(&self, replacement: Option<&(dyn Any + Send)>) -> bool {
        replacement.is_some_and(|replacement| states(replacement) == self.0.states())
    }
}

fn split(id: &str) -> SplitManifest {
    SplitManifest {
        id: id.into(),
        detail: serde_json::Value::Null,
        position: None,
        rows: 0,
        newest: None,
        watermark: None,
        progress: 0,
        ended: false,
    }
}

/// A source alone, which takes snapshots below a directory.
fn source_chain() -> (Chain, TempDir) {
    chain_of(Role::Source)
}

fn chain_of(role: Role) -> (Chain, TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let link = Link {
        node: 0,
        id: OperatorId::from("numbers"),
        role,
        aligner: Aligner::new(1),
        entries: Vec::new(),
        outlets: Vec::new(),
        rejected: RejectedPolicy::Fail,
        metrics: Arc::default(),
        tap: Arc::default(),
        sent: None,
        order: None,
        cuts_at_watermarks: false,
    };
    let snapshots = SnapshotSettings { directory: directory.path().to_owned(), subtask: SubtaskIndex(0), file_work: FileWork::Inline };
    (Chain::new(vec![link], Arc::new(ManualClock::at(0)), Some(snapshots)), directory)
}

/// Ids of the splits that the snapshot under way holds.
fn snapshotted_splits(chain: &mut Chain) -> Vec<String> {
    let (_, snapshot) = chain.advance_snapshot().expect("a snapshot that is complete");
    let snapshot = snapshot.unwrap_or_else(|failed| panic!("`{}`: {}", failed.operator, failed.error));
    snapshot.links[0].splits.iter().map(|split| split.id.clone()).collect()
}

/// The supervisor hears of the end before it hears of the snapshot, and sends the barrier again.
#[tokio::test]
async fn a_barrier_that_passed_before_the_end_is_not_taken_again_at_the_end() {
    let (mut chain, _directory) = source_chain();
    let barrier = Barrier { checkpoint: CheckpointId(7) };
    chain.accept(0, Element::Barrier(barrier)).await.unwrap_or_else(|_| panic!("a barrier passes"));
    chain.set_splits(vec![split("at the barrier")], None);
    chain.note_ended();
    assert!(matches!(chain.accept_at_end(barrier).await, Ok(false)));
    assert_eq!(snapshotted_splits(&mut chain), ["at the barrier"]);
}

#[tokio::test]
async fn a_barrier_that_never_came_is_taken_at_the_end() {
    let (mut chain, _directory) = source_chain();
    chain.note_ended();
    assert!(matches!(chain.accept_at_end(Barrier { checkpoint: CheckpointId(7) }).await, Ok(true)));
    chain.set_splits(vec![split("at the end")], None);
    assert_eq!(snapshotted_splits(&mut chain), ["at the end"]);
}

/// A chain of one operator that is being snapshotted.
async fn cut_chain() -> (Chain, TempDir) {
    let settings = StoreSettings { backend: Backend::Memory, memory_budget_bytes: 1 << 20 };
    let store = KeyedStore::open(&settings, 0..4096, Vec::new(), Vec::new()).expect("an empty store");
    let (mut chain, directory) = chain_of(Role::Operator(Box::new(Keeper(store))));
    let barrier = Barrier { checkpoint: CheckpointId(7) };
    chain.accept(0, Element::Barrier(barrier)).await.unwrap_or_else(|_| panic!("a barrier passes"));
    (chain, directory)
}

fn switch(states: &[StateDescriptor]) -> Control {
    Control::Switch { replacement: Box::new(states.to_vec()), on_probation: false }
}

/// In some subtasks the snapshot is complete when the swap comes, in others it is not: all of them switch.
#[tokio::test]
async fn a_swap_to_other_state_in_the_middle_of_a_snapshot_gives_the_snapshot_up() {
    let (mut chain, _directory) = cut_chain().await;
    let other = vec![counted()];
    assert!(chain.on_control(0, switch(&other)).await.is_err(), "a store that is being cut keeps its declarations");
    let (checkpoint, failed) = chain.give_up_for(&[(0, Some(&other))]).expect("a snapshot is under way");
    assert_eq!((checkpoint, failed.operator.as_str()), (CheckpointId(7), "numbers"));
    assert!(chain.on_control(0, switch(&other)).await.is_ok());
    assert!(chain.advance_snapshot().is_none());
}

/// A job that is swapped again and again has checkpoints all the same: with none it would go back to the last one as if something had failed.
#[tokio::test]
async fn a_swap_to_the_same_state_in_the_middle_of_a_snapshot_lets_it_go_on() {
    let (mut chain, _directory) = cut_chain().await;
    let same: Vec<StateDescriptor> = Vec::new();
    assert!(chain.give_up_for(&[(0, Some(&same))]).is_none());
    assert!(chain.on_control(0, switch(&same)).await.is_ok());
    let (checkpoint, snapshot) = chain.advance_snapshot().expect("it is complete");
    assert!(checkpoint == CheckpointId(7) && snapshot.is_ok());
}
