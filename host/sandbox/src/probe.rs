//! Tries, from inside, what must be refused, and what must not be.
//!
//! Each [`Attempt`] is made so that it has no effect where nothing refuses it, and that the answer of the wall cannot be taken for another one: what is
//! not there is named, and a wall answers before the kernel looks for it.

use std::{
    fs::{self, File, OpenOptions},
    io,
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::{net::UnixDatagram, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

/// Where a probe may look.
#[derive(Clone, Debug)]
pub struct Targets {
    /// A directory of its own.
    pub own: PathBuf,
    /// A file that is there and is not its own.
    pub foreign: PathBuf,
}

/// One attempt, and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Attempt {
    /// What was tried.
    pub what: String,
    /// Whether it must be refused.
    pub must_be_refused: bool,
    /// Whether it was.
    pub was_refused: bool,
    /// What the system said.
    pub answer: String,
}

impl Attempt {
    /// Whether it is as it must be.
    pub fn holds(&self) -> bool {
        self.must_be_refused == self.was_refused
    }
}

/// Tries everything.
pub fn attempts(targets: &Targets) -> Vec<Attempt> {
    let mut tried = forbidden(targets);
    tried.extend(needed(targets));
    tried
}

fn forbidden(targets: &Targets) -> Vec<Attempt> {
    let parent = std::os::unix::process::parent_id();
    let tried = |what, answer| attempt(what, true, answer);
    vec![
        // Nothing of this name is there: without a wall it is said not to be found.
        tried("start another program in its place", Err(Command::new("/nonexistent/program").exec())),
        tried("start a process", Command::new("/bin/true").status().map(drop)),
        tried("read a file of others", File::open(&targets.foreign).map(drop)),
        tried("write a file of others", OpenOptions::new().append(true).open(&targets.foreign).map(drop)),
        tried("list a directory of others", directory_of(&targets.foreign).and_then(fs::read_dir).map(drop)),
        tried("make a file beside a file of others", beside(&targets.foreign)),
        tried("read the environment of its parent", fs::read(format!("/proc/{parent}/environ")).map(drop)),
        tried("trace a process", system::trace()),
        tried("read the memory of a process", system::read_memory()),
        tried("signal its parent", system::signal(parent)),
        tried("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        tried("wait for datagrams", UdpSocket::bind("127.0.0.1:0").map(drop)),
        tried("open a local socket", UnixDatagram::unbound().map(drop)),
        tried("open a raw socket", system::raw_socket()),
        tried("make a namespace", system::unshare()),
        tried("make an io_uring", system::io_uring()),
        tried("set its own priority", system::priority()),
    ]
}

fn needed(targets: &Targets) -> Vec<Attempt> {
    let tried = |what, answer| attempt(what, false, answer);
    let own = targets.own.join(".probe");
    vec![
        tried("write a file of its own", fs::write(&own, b"probe").and_then(|()| fs::remove_file(&own))),
        tried("start a thread", std::thread::Builder::new().spawn(|| {}).map(|thread| drop(thread.join()))),
        // Nobody listens there: being told so is being let through.
        tried("connect", TcpStream::connect("127.0.0.1:1").map(drop)),
    ]
}

fn directory_of(file: &Path) -> io::Result<&Path> {
    file.parent().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))
}

fn beside(file: &Path) -> io::Result<()> {
    let made = directory_of(file)?.join(".probe-of-a-stranger");
    File::create_new(&made).and_then(|_| fs::remove_file(&made))
}

fn attempt(what: &str, must_be_refused: bool, answer: io::Result<()>) -> Attempt {
    let was_refused = answer.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    let answer = answer.map_or_else(|error| error.to_string(), |()| "done".to_owned());
    Attempt { what: what.to_owned(), must_be_refused, was_refused, answer }
}

/// Calls that have no safe form.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the calls that are tried have no safe form")]
mod system {
    use std::io;

    use libc::c_long;

    fn answered(result: c_long) -> io::Result<()> {
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Of a process that there cannot be: without a wall it is not found.
    pub(super) fn trace() -> io::Result<()> {
        // SAFETY: there is no process with this number, so nothing is read or written.
        answered(unsafe { libc::ptrace(libc::PTRACE_PEEKDATA, -1, 0, 0) })
    }

    /// No bytes of a process that there cannot be.
    pub(super) fn read_memory() -> io::Result<()> {
        // SAFETY: the lists are empty, so no pointer is followed.
        let read = unsafe { libc::process_vm_readv(-1, std::ptr::null(), 0, std::ptr::null(), 0, 0) };
        answered(read as c_long)
    }

    /// What it is already.
    pub(super) fn priority() -> io::Result<()> {
        // SAFETY: both calls take numbers only.
        answered(unsafe { libc::setpriority(libc::PRIO_PROCESS as _, 0, libc::getpriority(libc::PRIO_PROCESS as _, 0)) }.into())
    }

    /// The signal that is none: it only asks whether one could be sent.
    pub(super) fn signal(process: u32) -> io::Result<()> {
        // SAFETY: no signal is sent.
        answered(c_long::from(unsafe { libc::kill(process.cast_signed(), 0) }))
    }

    pub(super) fn raw_socket() -> io::Result<()> {
        // SAFETY: the call takes numbers only.
        let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP) };
        answered(c_long::from(socket))?;
        // SAFETY: the socket is ours, and used nowhere else.
        answered(c_long::from(unsafe { libc::close(socket) }))
    }

    /// A flag that there is not: without a wall it is said to be invalid.
    pub(super) fn unshare() -> io::Result<()> {
        // SAFETY: the call takes numbers only, and this one changes nothing.
        answered(unsafe { libc::syscall(libc::SYS_unshare, 1_i64) })
    }

    /// With no parameters: without a wall they are said to be missing.
    pub(super) fn io_uring() -> io::Result<()> {
        // SAFETY: the kernel checks the pointer, which leads nowhere, before it does anything.
        answered(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1_i64, 0_i64) })
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use std::io;

    fn unknown() -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn trace() -> io::Result<()> {
        unknown()
    }

    pub(super) fn read_memory() -> io::Result<()> {
        unknown()
    }

    pub(super) fn priority() -> io::Result<()> {
        unknown()
    }

    pub(super) fn signal(_process: u32) -> io::Result<()> {
        unknown()
    }

    pub(super) fn raw_socket() -> io::Result<()> {
        unknown()
    }

    pub(super) fn unshare() -> io::Result<()> {
        unknown()
    }

    pub(super) fn io_uring() -> io::Result<()> {
        unknown()
    }
}
