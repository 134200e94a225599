//! Ctrl-C and SIGTERM, as the exit codes that they lead to.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::report::{Exit, Failure};

/// Hears signals from its making on.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Takes the place of the default, which ends the process.
    pub fn listen() -> Result<Self, Failure> {
        let hear = |kind| signal(kind).map_err(|error| Failure::new(Exit::Failed, "signals cannot be heard").because(&error));
        Ok(Self { interrupt: hear(SignalKind::interrupt())?, terminate: hear(SignalKind::terminate())? })
    }

    /// The next signal.
    pub async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Terminated,
        }
    }
}
