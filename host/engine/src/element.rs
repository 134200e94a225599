//! What travels in a channel between subtasks. Rows, watermarks and barriers share one bounded queue per edge, so their order needs
//! no argument.

use millstream_model::{Batch, Watermark, ids::CheckpointId};

/// One element of a stream.
#[derive(Clone, Debug)]
pub enum Element {
    /// Rows.
    Batch(Batch),
    /// No row with an event time at or before it follows on this edge.
    Watermark(Watermark),
    /// This edge has nothing for now; it shall not hold the watermark of others. Ends with the next batch or watermark.
    Idle,
    /// Everything before it belongs to the checkpoint, everything after does not.
    Barrier(Barrier),
    /// Nothing follows.
    End,
}

/// A mark in the stream that every subtask aligns on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Barrier {
    /// The checkpoint it cuts.
    pub checkpoint: CheckpointId,
}
