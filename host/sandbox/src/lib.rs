//! What a process gives up before it runs the code of others: the walls of a runner. The only crate that names Landlock, seccomp and the calls of the
//! system that stand behind them.
//!
//! [`enter`] puts up every wall that the kernel has, in this order: *privileges* (no program that is started later gains any), *limits* (share of
//! CPU time, open files, no core dump), *files* (Landlock: nothing but the paths that are named), *calls* (seccomp: no program, no other process, no listening, no
//! kernel interface that a job has no use for). It has to be called before there is a second thread: threads inherit the walls of the one that starts
//! them. What the kernel does not have is reported ([`Walls`]), never passed over in silence; who calls decides whether that will do.
//!
//! [`mod@probe`] tries from inside what must be refused. [`mod@groups`] is the wall that stands outside of the process: its share of CPU time and its memory.
//!
//! What the walls cannot do: seccomp does not see the addresses that a pointer leads to, and Landlock knows ports but not addresses, so which *address* a
//! connection goes to is decided where it is opened (the egress rules of the connectors), not here. Reading a file that is allowed, memory, and CPU time that
//! nobody else wants, are not walled in either.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
pub mod groups;
mod limits;
pub mod probe;

use std::path::PathBuf;

use millstream_model::ErrorKind;
use serde::{Deserialize, Serialize};

pub use limits::{Limits, die_with_parent, take_short_turns};

/// What a process keeps when everything else is given up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Settings {
    /// Directories and files below which it may do everything; those that are not there are left out.
    pub writable: Vec<PathBuf>,
    /// Directories and files that it may read; those that are not there are left out.
    pub readable: Vec<PathBuf>,
    /// What it may use.
    pub limits: Limits,
    /// Walls that are left out: for tests that show that each of them is what refuses.
    #[serde(default)]
    pub without: Vec<Wall>,
}

/// One wall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Wall {
    /// No privilege is gained any more, whatever is started.
    Privileges,
    /// Share of CPU time, open files, core dumps.
    Limits,
    /// Only files below named paths; no port to listen on; no signal to, and no look into, a process outside.
    Files,
    /// Only harmless calls of the system.
    Calls,
}

impl Wall {
    /// All of them, in the order in which they are put up.
    pub const ALL: [Self; 4] = [Self::Privileges, Self::Limits, Self::Files, Self::Calls];

    /// As people say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Privileges => "no new privileges",
            Self::Limits => "resource limits",
            Self::Files => "Landlock",
            Self::Calls => "seccomp",
        }
    }
}

/// What became of a wall.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Standing {
    /// It stands.
    Up,
    /// The kernel knows only a part of it.
    Partly {
        /// What is missing.
        missing: String,
    },
    /// It does not stand.
    Missing {
        /// Why.
        reason: String,
    },
}

/// What became of all walls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Walls(pub Vec<(Wall, Standing)>);

impl Walls {
    /// What the kernel refused: one clause for each wall that does not stand as it should.
    pub fn refused(&self) -> Vec<String> {
        let clause = |(wall, standing): &(Wall, Standing)| match standing {
            Standing::Up => None,
            Standing::Partly { missing } => Some(format!("{} is incomplete: {missing}", wall.name())),
            Standing::Missing { reason } => Some(format!("{} is missing: {reason}", wall.name())),
        };
        self.0.iter().filter_map(clause).collect()
    }
}

/// Why a process cannot be walled in.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused a call.
    #[error("{what} failed")]
    System {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A wall cannot be built.
    #[error("{what} cannot be built: {reason}")]
    Unbuildable {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl Error {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::System { .. } => ErrorKind::Unavailable,
            Self::Unbuildable { .. } => ErrorKind::Internal,
        }
    }
}

/// Puts up all walls around this process; there is no way back. Call it before a second thread is started.
///
/// # Errors
/// A wall that the kernel has could not be put up. One that it does not have is in the report.
#[cfg(target_os = "linux")]
pub fn enter(settings: &Settings) -> Result<Walls, Error> {
    let mut walls = Walls::default();
    for wall in Wall::ALL {
        let standing = match wall {
            _ if settings.without.contains(&wall) => Standing::Missing { reason: "it was left out".to_owned() },
            Wall::Privileges => limits::give_up_privileges()?,
            Wall::Limits => limits::set(&settings.limits)?,
            Wall::Files => files::restrict(settings)?,
            Wall::Calls => calls::filter()?,
        };
        walls.0.push((wall, standing));
    }
    Ok(walls)
}

/// Puts up all walls around this process: this system has none that we know.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn enter(_settings: &Settings) -> Result<Walls, Error> {
    let reason = "only Linux has it".to_owned();
    Ok(Walls(Wall::ALL.map(|wall| (wall, Standing::Missing { reason: reason.clone() })).to_vec()))
}

/// What of the walls this kernel has, without putting any of them up.
#[cfg(target_os = "linux")]
pub fn offered() -> Walls {
    let up = |wall| (wall, Standing::Up);
    Walls(vec![up(Wall::Privileges), up(Wall::Limits), (Wall::Files, files::offered()), (Wall::Calls, calls::offered())])
}

/// What of the walls this system has.
#[cfg(not(target_os = "linux"))]
pub fn offered() -> Walls {
    enter(&Settings::default()).unwrap_or_default()
}
