//! What stands before an operator on each of its inputs: which port it feeds, and what becomes of rows without a key.

use arrow_array::Array;
use millstream_model::Batch;

use crate::{
    graph::{Edge, Exchange, NullKeys},
    metrics::OperatorMetrics,
    rejected::Rejection,
};

/// One input slot of a link.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The input of the node, of which a port may have several.
    pub(super) input: usize,
    /// The port of the operator that it feeds.
    pub(super) port: usize,
    /// Key columns of rows that may not be null in all of them; none: rows without a key are kept.
    pub(super) keyed: Option<KeyedEntry>,
}

/// An input whose rows need a key.
#[derive(Clone, Debug)]
pub(super) struct KeyedEntry {
    pub(super) columns: Vec<usize>,
    pub(super) rejects: bool,
}

impl Entry {
    /// Before input `input` of a node, which `edge` feeds.
    pub(super) fn of(input: usize, edge: &Edge) -> Self {
        let keyed = match &edge.exchange {
            Exchange::Hash { keys, null_keys } if *null_keys != NullKeys::Keep && !keys.is_empty() => {
                Some(KeyedEntry { columns: keys.clone(), rejects: *null_keys == NullKeys::Reject })
            }
            Exchange::Hash { .. } | Exchange::Forward | Exchange::Broadcast | Exchange::Rebalance => None,
        };
        Self { input, port: edge.port, keyed }
    }

    /// The port and the rows that go on, and those that are rejected.
    pub(super) fn admit(&self, batch: Batch, metrics: &OperatorMetrics) -> (usize, Batch, Vec<Rejection>) {
        let without_key = self.keyed.as_ref().map_or_else(Vec::new, |keyed| keyed.rows_without_key(&batch));
        if without_key.is_empty() {
            return (self.port, batch, Vec::new());
        }
        let mut rejections = Vec::new();
        if self.keyed.as_ref().is_some_and(|keyed| keyed.rejects) {
            let shown: Vec<usize> = (0..batch.columns().num_columns()).collect();
            rejections.extend(without_key.iter().map(|&row| Rejection::of_row(&batch, row as usize, &shown, "the key is null")));
        } else {
            metrics.rows_null_key.add(without_key.len() as u64);
        }
        let mut dropped = without_key.into_iter().peekable();
        let rest: Vec<u32> = (0..batch.num_rows() as u32).filter(|row| dropped.next_if_eq(row).is_none()).collect();
        (self.port, batch.take(&rest), rejections)
    }
}

impl KeyedEntry {
    /// The rows whose key is null in every column, ascending.
    fn rows_without_key(&self, batch: &Batch) -> Vec<u32> {
        let columns: Vec<_> = self.columns.iter().map(|&column| batch.column(column)).collect();
        if columns.iter().any(|column| column.null_count() == 0) {
            return Vec::new();
        }
        (0..batch.num_rows()).filter(|&row| columns.iter().all(|column| column.is_null(row))).map(|row| row as u32).collect()
    }
}
