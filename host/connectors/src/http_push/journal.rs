//! The thread that writes the log: requests that come while it syncs are synced together, by the next sync.

use std::{
    sync::{Mutex, PoisonError},
    thread::JoinHandle,
};

use bytes::Bytes;
use millstream_engine::operator::OperatorError;
use millstream_model::Batch;
use tokio::sync::{
    OwnedSemaphorePermit,
    mpsc::{self, OwnedPermit},
    oneshot,
};

use super::{
    log::Log,
    queue::{Accepted, REQUESTS_MAX, Taken},
};

/// Bodies that are written together, about.
const GROUP_BYTES: usize = 8 << 20;

/// A request on its way to the log.
pub struct Entry {
    /// What is logged.
    pub body: Bytes,
    /// What is read.
    pub batches: Vec<Batch>,
    /// The room that it takes until it is read.
    pub room: OwnedSemaphorePermit,
    /// Its place in the queue.
    pub place: OwnedPermit<Taken>,
}

/// An entry, and who waits until it is durable.
type Waiting = (Entry, oneshot::Sender<()>);

/// The handle of the thread. Once it is closed, nothing is added to the log any more.
pub struct Journal {
    entries: Mutex<Option<mpsc::Sender<Waiting>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Journal {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub fn start(log: Log) -> Result<Self, OperatorError> {
        let (sender, receiver) = mpsc::channel(REQUESTS_MAX);
        let started = std::thread::Builder::new().name("millstream-push-log".into()).spawn(move || run(log, receiver));
        let thread = started.map_err(|error| OperatorError::outside("cannot start the thread that writes the log").because(error))?;
        Ok(Self { entries: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Logs a request; returns whether it is durable and will be read.
    pub async fn append(&self, entry: Entry) -> bool {
        let sender = self.entries.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(sender) = sender else { return false };
        let (answer, answered) = oneshot::channel();
        // No more than there are places in the queue can be on their way.
        if sender.try_send((entry, answer)).is_err() {
            return false;
        }
        drop(sender);
        answered.await.is_ok()
    }

    /// Takes nothing more, and returns when what was taken is durable or refused.
    pub fn close(&self) {
        drop(self.entries.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It does not panic; if it did, its log is read anew anyhow.
            drop(thread.join());
        }
    }
}

fn run(mut log: Log, mut entries: mpsc::Receiver<Waiting>) {
    while let Some(first) = entries.blocking_recv() {
        let (mut bytes, mut group) = (first.0.body.len(), vec![first]);
        while bytes < GROUP_BYTES
            && let Ok(next) = entries.try_recv()
        {
            bytes += next.0.body.len();
            group.push(next);
        }
        if let Err(error) = write(&mut log, &mut group) {
            // Those who wait are told by the end of their channel, the reader by the error.
            if let Some((entry, _)) = group.into_iter().next() {
                entry.place.send(Err(error));
            }
            return;
        }
    }
}

fn write(log: &mut Log, group: &mut Vec<Waiting>) -> Result<(), OperatorError> {
    log.roll()?;
    let bodies: Vec<&[u8]> = group.iter().map(|(entry, _)| &*entry.body).collect();
    let logged = log.append(&bodies)?;
    for ((entry, answer), logged) in group.drain(..).zip(logged) {
        let Entry { batches, room, place, .. } = entry;
        place.send(Ok(Accepted { batches, rejected: Vec::new(), room: Some(room), logged: Some(logged) }));
        // Whoever does not wait any more has lost its connection; the request counts all the same.
        let _ = answer.send(());
    }
    Ok(())
}
