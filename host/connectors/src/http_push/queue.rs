//! What was accepted and not yet read: bounded by the bytes of the bodies, which are reserved before they are read.

use std::{ops::Range, sync::Arc};

use millstream_engine::{clock::Clock, operator::OperatorError, rejected::Rejection};
use millstream_model::Batch;
use tokio::sync::{
    OwnedSemaphorePermit, Semaphore,
    mpsc::{self, OwnedPermit},
};

/// Requests that wait at most; each holds at least one byte of the room besides.
pub const REQUESTS_MAX: usize = 1_024;

/// The rows of one request.
pub struct Accepted {
    /// Rows with their lines (from 0) as origin, none of the batches empty.
    pub batches: Vec<Batch>,
    /// Lines of a request read again that could be read when it was accepted, and cannot any more: the columns have changed.
    pub rejected: Vec<Rejection>,
    /// The room that its body takes until the rows are read; none: it is read again.
    pub room: Option<OwnedSemaphorePermit>,
    /// Where it stands in the log; none: there is no log.
    pub logged: Option<Range<u64>>,
}

/// What the reader gets: a request, or why there will be no more.
pub type Taken = Result<Accepted, OperatorError>;

/// The end that requests are put into.
#[derive(Clone)]
pub struct Entrance {
    room: Arc<Semaphore>,
    queue: mpsc::Sender<Taken>,
}

/// A queue with room for so many bytes.
pub fn queue(bytes: usize) -> (Entrance, mpsc::Receiver<Taken>) {
    let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
    (Entrance { room: Arc::new(Semaphore::new(bytes)), queue: sender }, receiver)
}

impl Entrance {
    /// Room for so many bytes; none: there was none for `patience_ms`.
    pub async fn reserve(&self, bytes: u32, clock: &dyn Clock, patience_ms: i64) -> Option<OwnedSemaphorePermit> {
        tokio::select! {
            biased;
            room = self.room.clone().acquire_many_owned(bytes.max(1)) => room.ok(),
            () = clock.sleep(patience_ms) => None,
        }
    }

    /// Puts rows in; false: too many requests wait, or nobody reads any more.
    pub fn put(&self, accepted: Accepted) -> bool {
        self.queue.try_send(Ok(accepted)).is_ok()
    }

    /// A place for a request that is not durable yet; none: as [`Self::put`].
    pub fn place(&self) -> Option<OwnedPermit<Taken>> {
        self.queue.clone().try_reserve_owned().ok()
    }
}
