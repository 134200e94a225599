//! Privileges, resource limits, the share of CPU time, and that a process does not outlive the one that started it. Memory is not among them: RLIMIT_DATA
//! counts what the pool of instances only reserves, so who runs the process has to measure it.

use std::io;

use serde::{Deserialize, Serialize};

use crate::{Error, Standing};

/// What a process may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Limits {
    /// How far it stands back where CPU time is short, as `nice(2)` counts it: each step is a quarter less. Below zero: before others.
    pub nice: i32,
    /// Files and sockets that it may have open.
    pub open_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { nice: 0, open_files: 65_536 }
    }
}

/// Nothing that this process starts gains privileges.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library has no safe form of it")]
pub(crate) fn give_up_privileges() -> Result<Standing, Error> {
    // SAFETY: this option takes numbers only, and changes nothing in the memory of the process.
    let done = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    done_or("giving up privileges", done).map(|()| Standing::Up)
}

/// Sets the limits, for good: the hard ones too. A limit that is lower already stays.
pub(crate) fn set(limits: &Limits) -> Result<Standing, Error> {
    lower(libc::RLIMIT_CORE, 0)?;
    lower(libc::RLIMIT_NOFILE, limits.open_files)?;
    Ok(stand_back(limits.nice))
}

/// The process and every thread that it starts from now on. Not everybody may stand before others.
#[expect(unsafe_code, reason = "the C library has no safe form of it")]
fn stand_back(by: i32) -> Standing {
    if by == 0 {
        return Standing::Up;
    }
    // SAFETY: both calls take numbers only; of oneself the first cannot fail.
    let done = unsafe { libc::setpriority(libc::PRIO_PROCESS as _, 0, libc::getpriority(libc::PRIO_PROCESS as _, 0) + by) };
    match done {
        0 => Standing::Up,
        _ => Standing::Partly { missing: format!("its share of CPU time stays what it is: {}", io::Error::last_os_error()) },
    }
}

/// How long a thread of a service runs before another one that waits is asked for.
#[cfg(target_os = "linux")]
const TURN: std::time::Duration = std::time::Duration::from_micros(500);

/// This thread, and every thread and process that it starts from now on, takes turns of half a millisecond with those that want the same core. The
/// kernel's own measure is some milliseconds, and a thread that wakes up beside busy ones of another tenant waits for the rest of a turn: with short ones
/// the latest rows of a quiet tenant came 1.7 times as late as alone beside hostile ones, instead of 2.5 (`make bench ONLY=neighbour`). A kernel before
/// 6.12 takes no notice.
///
/// # Errors
/// The system refuses.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library has no form of it at all")]
pub fn take_short_turns() -> Result<(), Error> {
    // SAFETY: of all that is zero, a value of this type, which has numbers only.
    let mut turns: libc::sched_attr = unsafe { std::mem::zeroed() };
    turns.size = size_of::<libc::sched_attr>() as u32;
    turns.sched_policy = libc::SCHED_OTHER as u32;
    turns.sched_runtime = TURN.as_nanos() as u64;
    // SAFETY: it takes a number only, and of oneself it cannot fail.
    turns.sched_nice = unsafe { libc::getpriority(libc::PRIO_PROCESS as _, 0) };
    // SAFETY: the pointer leads to a value of the type that the call reads, of the size that it says.
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const turns, 0) };
    done_or("asking for short turns", done as libc::c_int)
}

/// This system does not have it.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn take_short_turns() -> Result<(), Error> {
    Ok(())
}

#[cfg(target_os = "linux")]
type Resource = libc::__rlimit_resource_t;
#[cfg(not(target_os = "linux"))]
type Resource = libc::c_int;

#[expect(unsafe_code, reason = "the C library has no safe form of it")]
fn lower(resource: Resource, to: u64) -> Result<(), Error> {
    let mut now = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer leads to a value of the type that the call writes.
    done_or("reading a resource limit", unsafe { libc::getrlimit(resource, &raw mut now) })?;
    let most = to.min(now.rlim_max);
    let wanted = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the pointer leads to a value of the type that the call reads.
    done_or("setting a resource limit", unsafe { libc::setrlimit(resource, &raw const wanted) })
}

/// This process is killed when the thread that started it ends. If that happened before this was called, the caller has to find out by itself.
///
/// # Errors
/// The system refuses.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the C library has no safe form of it")]
pub fn die_with_parent() -> Result<(), Error> {
    // SAFETY: this option takes numbers only, and changes nothing in the memory of the process.
    done_or("asking to be killed with the parent", unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) })
}

/// This process is killed when the one that started it ends: this system does not do that.
///
/// # Errors
/// None.
#[cfg(not(target_os = "linux"))]
pub fn die_with_parent() -> Result<(), Error> {
    Ok(())
}

fn done_or(what: &'static str, result: libc::c_int) -> Result<(), Error> {
    if result == 0 { Ok(()) } else { Err(Error::System { what, source: io::Error::last_os_error() }) }
}
