//! Commands of a job's handles on their way to whoever answers them just now: the supervisor of an attempt, or, between two attempts, who prepares
//! the next one. What only a running job can do waits until it runs.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::handle::Command;

/// Commands that wait for the job to run; whoever sends more is told that the job has ended.
const DEFERRED_MAX: usize = 64;

/// The commands of one job.
pub(super) struct Commands {
    received: mpsc::Receiver<Command>,
    deferred: VecDeque<Command>,
}

impl Commands {
    pub(super) fn new(received: mpsc::Receiver<Command>) -> Self {
        Self { received, deferred: VecDeque::new() }
    }

    /// The next command, those that waited first; none: all handles are gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Command> {
        match self.deferred.pop_front() {
            Some(command) => Some(command),
            None => self.received.recv().await,
        }
    }

    /// The next command that has not waited; none: all handles are gone. Cancel-safe.
    pub(super) async fn next_new(&mut self) -> Option<Command> {
        self.received.recv().await
    }

    /// Keeps a command until the job runs.
    pub(super) fn defer(&mut self, command: Command) {
        if self.deferred.len() < DEFERRED_MAX {
            self.deferred.push_back(command);
        }
    }
}
