//! What a subtask waits for just now: written by the subtask where it really waits, read by whoever asks why nothing comes out.
//!
//! A subtask that finds what it needs at once writes nothing but two numbers per element (which node works, and since when), so that asking costs the rows
//! nothing.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
};

use millstream_model::ids::CheckpointId;

use super::Gauge;
use crate::graph::NodeIndex;

/// What a subtask waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Rows of its splits.
    Splits {
        /// The one that holds the watermark, or the only one that is left; none: several, or none was found yet.
        split: Option<Arc<str>>,
        /// How many are left.
        left: usize,
    },
    /// Sources that are behind it by more than `max-drift`.
    Others,
    /// Rows of the operators before it.
    Input {
        /// The one whose watermark holds back its own.
        held_by: Option<NodeIndex>,
    },
    /// A barrier that some of its inputs have passed.
    Barrier {
        /// Of this checkpoint.
        checkpoint: CheckpointId,
        /// The inputs that have not.
        missing: Vec<NodeIndex>,
    },
    /// Room in the queue to this node.
    Room {
        /// The node.
        to: NodeIndex,
    },
    /// A guest that asked to be called again later.
    Retry {
        /// What it said.
        reason: String,
        /// When it is called again, as elapsed time.
        until_ms: i64,
    },
    /// Answers over HTTP that a guest has asked for.
    Answers {
        /// How many requests it sent together.
        requests: usize,
    },
}

/// What one subtask waits for, kept with the metrics of its first node (of [`Waiting::Room`], [`Waiting::Retry`] and [`Waiting::Answers`]: of the node that waits).
#[derive(Debug, Default)]
pub struct Waits {
    now: Mutex<Option<(i64, Waiting)>>,
    busy_since: Gauge,
    busy_node: Gauge,
    step_since: Gauge,
}

impl Waits {
    /// It waits for this, since `since_ms`: elapsed time, as everywhere here.
    pub fn begin(&self, since_ms: i64, waiting: Waiting) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some((since_ms, waiting));
    }

    /// It goes on.
    pub fn end(&self) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// What it waits for, and since when.
    pub fn get(&self) -> Option<(i64, Waiting)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// An element came at `now_ms`.
    pub(crate) fn work_begins(&self, now_ms: i64) {
        self.busy_since.set(now_ms);
    }

    /// This node works on it, from `now_ms` on.
    pub(crate) fn works(&self, node: NodeIndex, now_ms: i64) {
        self.busy_node.set(node as i64);
        self.step_since.set(now_ms);
    }

    /// Everything that followed from it has happened.
    pub(crate) fn work_ends(&self) {
        self.busy_since.set(i64::MIN);
        self.step_since.set(i64::MIN);
    }

    /// The node that is at work, and since when on this one step: what is not counted as busy before it is done.
    pub(crate) fn step(&self) -> Option<(i64, NodeIndex)> {
        let (since_ms, node) = (self.step_since.get(), usize::try_from(self.busy_node.get()).ok()?);
        (since_ms != i64::MIN).then_some((since_ms, node))
    }

    /// The node that works on an element, and since when there is one.
    pub fn busy(&self) -> Option<(i64, NodeIndex)> {
        let since_ms = self.busy_since.get();
        let node = usize::try_from(self.busy_node.get()).ok()?;
        (since_ms != i64::MIN).then_some((since_ms, node))
    }
}

/// A wait that is shown from the moment when nothing is ready until the subtask goes on.
pub(crate) struct Shown<'a> {
    waits: &'a Waits,
    /// None: it is shown.
    waiting: Option<(i64, Waiting)>,
}

impl<'a> Shown<'a> {
    /// What is waited for if nothing is ready, and since when.
    pub(crate) fn new(waits: &'a Waits, since_ms: i64, waiting: Waiting) -> Self {
        Self { waits, waiting: Some((since_ms, waiting)) }
    }

    /// Never returns. To be polled after everything that may be ready: then the wait is a real one.
    pub(crate) async fn show(&mut self) -> Infallible {
        if let Some((since_ms, waiting)) = self.waiting.take() {
            self.waits.begin(since_ms, waiting);
        }
        std::future::pending().await
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        if self.waiting.is_none() {
            self.waits.end();
        }
    }
}
