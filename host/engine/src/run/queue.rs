//! The bounded queues between subtasks: one per edge, all edges of a subtask behind one [`Inbox`].
//!
//! A queue is bounded in bytes: a sender waits until its batch fits, so back-pressure reaches the source, and a slow reader never grows
//! memory. A batch larger than the bound passes alone. [`super::exchange`] opens the ends; nothing else knows how elements cross between
//! subtasks.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard},
};

use arrow_array::Array;
use millstream_model::Batch;
use tokio::sync::Notify;

use crate::element::Element;

/// What a watermark or another element without rows counts, so that their number is bounded too.
const MARK_BYTES: usize = 64;

/// The other side is gone: the job is being stopped, and whoever stopped it says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnected;

/// The receiving end of all edges into one subtask.
pub struct Inbox {
    shared: Arc<Shared>,
    /// Which port each edge feeds.
    ports: Vec<usize>,
    /// Where the search for the next element begins, so that no edge starves.
    cursor: usize,
}

/// The sending end of one edge.
pub struct Sender {
    shared: Arc<Shared>,
    edge: usize,
}

struct Shared {
    queues: Mutex<Queues>,
    readable: Notify,
    writable: Vec<Notify>,
    bound_bytes: usize,
}

struct Queues {
    edges: Vec<EdgeQueue>,
    receiver_gone: bool,
}

#[derive(Default)]
struct EdgeQueue {
    elements: VecDeque<(Element, usize)>,
    bytes: usize,
    ended: bool,
    sender_gone: bool,
}

impl Shared {
    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().expect("no holder of this lock panics")
    }
}

/// The queues of one subtask: an edge feeds the port that `ports` names for it.
pub fn queues(ports: Vec<usize>, bound_bytes: usize) -> (Vec<Sender>, Inbox) {
    let edges = ports.iter().map(|_| EdgeQueue::default()).collect();
    let shared = Arc::new(Shared {
        queues: Mutex::new(Queues { edges, receiver_gone: false }),
        readable: Notify::new(),
        writable: ports.iter().map(|_| Notify::new()).collect(),
        bound_bytes,
    });
    let senders = (0..ports.len()).map(|edge| Sender { shared: shared.clone(), edge }).collect();
    (senders, Inbox { shared, ports, cursor: 0 })
}

impl Sender {
    /// Puts the element into the queue if it fits; gives it back if it does not.
    ///
    /// # Errors
    /// The receiver is gone.
    pub fn try_send(&self, element: Element) -> Result<Option<Element>, Disconnected> {
        let bytes = element_bytes(&element);
        let mut queues = self.shared.queues();
        if queues.receiver_gone {
            return Err(Disconnected);
        }
        let queue = &mut queues.edges[self.edge];
        if queue.bytes != 0 && queue.bytes + bytes > self.shared.bound_bytes {
            return Ok(Some(element));
        }
        queue.ended |= matches!(element, Element::End);
        queue.bytes += bytes;
        queue.elements.push_back((element, bytes));
        drop(queues);
        self.shared.readable.notify_one();
        Ok(None)
    }

    /// Returns when there may be room again.
    pub async fn writable(&self) {
        self.shared.writable[self.edge].notified().await;
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.queues().edges[self.edge].sender_gone = true;
        self.shared.readable.notify_one();
    }
}

impl Inbox {
    /// Number of edges.
    pub fn edges(&self) -> usize {
        self.ports.len()
    }

    /// The port that `edge` feeds.
    pub fn port(&self, edge: usize) -> usize {
        self.ports[edge]
    }

    /// The next element of an edge that is not `blocked`, and its edge. Cancel-safe.
    ///
    /// # Errors
    /// A sender went away before the end of its edge.
    pub async fn next(&mut self, blocked: impl Fn(usize) -> bool) -> Result<(usize, Element), Disconnected> {
        loop {
            if let Some(found) = self.pop(|edge, _| !blocked(edge))? {
                return Ok(found);
            }
            self.shared.readable.notified().await;
        }
    }

    /// A batch that waits at the front of an edge of `port` that is not `blocked`.
    pub(super) fn next_waiting_batch(&mut self, port: usize, blocked: impl Fn(usize) -> bool) -> Option<(usize, Batch)> {
        let ports = std::mem::take(&mut self.ports);
        let found = self.pop(|edge, element| ports[edge] == port && !blocked(edge) && matches!(element, Element::Batch(_)));
        self.ports = ports;
        match found {
            Ok(Some((edge, Element::Batch(batch)))) => Some((edge, batch)),
            _ => None,
        }
    }

    fn pop(&mut self, wanted: impl Fn(usize, &Element) -> bool) -> Result<Option<(usize, Element)>, Disconnected> {
        let mut queues = self.shared.queues();
        let count = queues.edges.len();
        for step in 0..count {
            let edge = (self.cursor + step) % count;
            let queue = &mut queues.edges[edge];
            match queue.elements.front() {
                Some((element, _)) if wanted(edge, element) => {}
                None if queue.sender_gone && !queue.ended => return Err(Disconnected),
                _ => continue,
            }
            let (element, bytes) = queue.elements.pop_front().expect("the front was just seen");
            queue.bytes -= bytes;
            drop(queues);
            self.shared.writable[edge].notify_one();
            self.cursor = edge + 1;
            return Ok(Some((edge, element)));
        }
        Ok(None)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.shared.queues().receiver_gone = true;
        self.shared.writable.iter().for_each(Notify::notify_one);
    }
}

fn element_bytes(element: &Element) -> usize {
    match element {
        Element::Batch(batch) => MARK_BYTES + row_bytes(batch),
        Element::Watermark(_) | Element::Idle | Element::Barrier(_) | Element::End => MARK_BYTES,
    }
}

/// Bytes of the rows themselves: of a slice only its part.
pub(crate) fn row_bytes(batch: &Batch) -> usize {
    let columns: usize = batch.columns().columns().iter().map(column_bytes).sum();
    columns + batch.num_rows() * (batch.event_times().map_or(0, |_| 8) + batch.changes().map_or(0, |_| 1))
}

fn column_bytes(column: &arrow_array::ArrayRef) -> usize {
    match column.data_type().primitive_width() {
        Some(width) => column.len() * width,
        None => column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::Int64Array;
    use arrow_schema::{DataType, Field, Schema};
    use millstream_model::Watermark;

    use super::*;

    fn batch(rows: usize) -> Element {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        Element::Batch(Batch::try_new(schema, vec![Arc::new(Int64Array::from(vec![0; rows]))], rows).expect("one column fits"))
    }

    fn rows(element: &Element) -> Option<usize> {
        match element {
            Element::Batch(batch) => Some(batch.num_rows()),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_full_queue_takes_no_more_until_it_is_read() {
        let (senders, mut inbox) = queues(vec![0], 1_000);
        assert!(senders[0].try_send(batch(100)).expect("connected").is_none());
        assert!(senders[0].try_send(batch(100)).expect("connected").is_some());
        inbox.next(|_| false).await.expect("connected");
        senders[0].writable().await;
        assert!(senders[0].try_send(batch(100)).expect("connected").is_none());
    }

    #[tokio::test]
    async fn a_batch_larger_than_the_bound_passes_alone() {
        let (senders, mut inbox) = queues(vec![0], 1_000);
        assert!(senders[0].try_send(batch(10_000)).expect("connected").is_none());
        assert!(senders[0].try_send(batch(1)).expect("connected").is_some());
        let (_, element) = inbox.next(|_| false).await.expect("connected");
        assert_eq!(rows(&element), Some(10_000));
    }

    #[tokio::test]
    async fn marks_are_bounded_too() {
        let (senders, _inbox) = queues(vec![0], 1_000);
        let taken = (0..100).take_while(|&at| senders[0].try_send(Element::Watermark(Watermark(at))).expect("connected").is_none());
        assert_eq!(taken.count(), 15);
    }

    #[tokio::test]
    async fn edges_take_turns() {
        let (senders, mut inbox) = queues(vec![0, 1], 1_000_000);
        for rows in [1, 2] {
            for sender in &senders {
                sender.try_send(batch(rows)).expect("connected");
            }
        }
        let mut order = Vec::new();
        for _ in 0..4 {
            order.push(inbox.next(|_| false).await.expect("connected").0);
        }
        assert_eq!(order, [0, 1, 0, 1]);
    }

    #[tokio::test]
    async fn a_sender_that_leaves_before_the_end_disconnects() {
        let (senders, mut inbox) = queues(vec![0], 1_000);
        drop(senders);
        assert_eq!(inbox.next(|_| false).await.err(), Some(Disconnected));
    }

    #[tokio::test]
    async fn a_sender_may_leave_after_the_end() {
        let (mut senders, mut inbox) = queues(vec![0, 0], 1_000);
        senders[0].try_send(Element::End).expect("connected");
        senders.remove(0);
        inbox.next(|_| false).await.expect("connected");
        senders[0].try_send(batch(3)).expect("connected");
        assert_eq!(rows(&inbox.next(|_| false).await.expect("connected").1), Some(3));
    }
}
