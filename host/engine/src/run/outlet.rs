//! Where elements leave a link of a chain: to another link of the same subtask, or through queues to other subtasks.

use arrow_array::ArrayRef;
use millstream_model::{
    Batch,
    key::{EncodedKeys, KeyGroup, encode_keys, hash_keys},
};

use super::queue::{Disconnected, Sender};
use crate::{
    clock::Clock,
    element::Element,
    graph::NodeIndex,
    metrics::{OperatorMetrics, Waiting},
    operator::OutputPort,
};

/// One consumer of one output.
pub(super) struct Outlet {
    /// The output.
    pub(super) port: OutputPort,
    /// The columns that cross; none: all.
    pub(super) columns: Option<Vec<usize>>,
    /// Where they go.
    pub(super) target: Target,
    /// The consumer.
    pub(super) to: NodeIndex,
}

/// Who sends, and when: a wait for room is counted and shown.
#[derive(Clone, Copy)]
pub(super) struct Sending<'a> {
    pub(super) metrics: &'a OperatorMetrics,
    pub(super) to: NodeIndex,
    pub(super) clock: &'a dyn Clock,
}

/// Where an outlet leads.
pub(super) enum Target {
    /// Input `slot` of another link of this subtask: no queue, no copy.
    Local { link: usize, slot: usize },
    /// Subtasks of another chain.
    Remote(Router),
}

/// Chooses the subtask of each row. Elements other than batches go to all.
pub(super) enum Router {
    /// Every row to the one subtask.
    One(Sender),
    /// By the hash of these columns to the owner of the key group.
    Hash { keys: Vec<usize>, senders: Vec<Sender> },
    /// Every row to every subtask.
    Broadcast(Vec<Sender>),
    /// Batches in turn.
    Rebalance { senders: Vec<Sender>, next: usize },
}

impl Router {
    /// Sends an element to the subtasks that need it; waits for room, and counts the wait.
    pub(super) async fn send(&mut self, element: Element, sending: Sending<'_>) -> Result<(), Disconnected> {
        match (self, element) {
            (Self::Hash { keys, senders }, Element::Batch(batch)) => send_by_key(keys, senders, batch, sending).await,
            (Self::Rebalance { senders, next }, Element::Batch(batch)) => {
                *next = (*next + 1) % senders.len();
                send(&senders[*next], Element::Batch(batch), sending).await
            }
            (Self::One(sender), element) => send(sender, element, sending).await,
            (Self::Hash { senders, .. } | Self::Broadcast(senders) | Self::Rebalance { senders, .. }, element) => {
                for sender in senders {
                    send(sender, element.clone(), sending).await?;
                }
                Ok(())
            }
        }
    }
}

async fn send_by_key(keys: &[usize], senders: &[Sender], batch: Batch, sending: Sending<'_>) -> Result<(), Disconnected> {
    let columns = key_columns(&batch, keys);
    let hashes = hash_keys(&columns, batch.num_rows()).expect("the planner checks that key columns can be keys");
    let owned = Owned::new(&hashes, senders.len());
    for (number, sender) in senders.iter().enumerate() {
        match owned.rows(number) {
            [] => {}
            rows if rows.len() == batch.num_rows() => return send(sender, Element::Batch(batch), sending).await,
            rows => send(sender, Element::Batch(batch.take(rows)), sending).await?,
        }
    }
    Ok(())
}

fn key_columns(batch: &Batch, columns: &[usize]) -> Vec<ArrayRef> {
    columns.iter().map(|&column| batch.column(column).clone()).collect()
}

/// The encoded key of each row.
pub(super) fn keys_of(batch: &Batch, columns: &[usize]) -> EncodedKeys {
    encode_keys(&key_columns(batch, columns), batch.num_rows()).expect("the planner checks that key columns can be keys")
}

/// The rows of a batch by the subtask that owns their keys, in the order of the batch: a counting sort.
struct Owned {
    rows: Vec<u32>,
    /// Where the rows of each subtask end.
    ends: Vec<usize>,
}

impl Owned {
    fn new(hashes: &[u64], parallelism: usize) -> Self {
        let owner = |hash: u64| KeyGroup::of_hash(hash).owner(parallelism as u32).0 as usize;
        let mut ends = vec![0_usize; parallelism];
        hashes.iter().for_each(|&hash| ends[owner(hash)] += 1);
        let mut before = 0;
        for end in &mut ends {
            // For now where the next row of the subtask goes; at last its end.
            before += std::mem::replace(end, before);
        }
        let mut rows = vec![0_u32; hashes.len()];
        for (row, &hash) in (0_u32..).zip(hashes) {
            let next = &mut ends[owner(hash)];
            rows[*next] = row;
            *next += 1;
        }
        Self { rows, ends }
    }

    fn rows(&self, subtask: usize) -> &[u32] {
        let start = subtask.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.rows[start..self.ends[subtask]]
    }
}

async fn send(sender: &Sender, element: Element, sending: Sending<'_>) -> Result<(), Disconnected> {
    match sender.try_send(element)? {
        None => Ok(()),
        Some(element) => send_when_writable(sender, element, sending).await,
    }
}

#[expect(clippy::disallowed_methods, reason = "the time is only shown")]
async fn send_when_writable(sender: &Sender, mut element: Element, sending: Sending<'_>) -> Result<(), Disconnected> {
    let Sending { metrics, to, clock } = sending;
    let began = std::time::Instant::now();
    metrics.waits.begin(clock.monotonic_ms(), Waiting::Room { to });
    loop {
        sender.writable().await;
        match sender.try_send(element)? {
            None => break,
            Some(returned) => element = returned,
        }
    }
    metrics.waits.end();
    metrics.backpressured_ns.add(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
    Ok(())
}
