//! A runner from inside: the process that is started for one tenant, walls itself in, and carries out what its socket brings.
//!
//! The order at the start is the point of it: it asks to be killed with the service → it reads its [`Setup`] → it locks the room of the tenant, so that
//! there is one runner at a time → the gate closes and the walls go up → only then threads, the engine, and whatever the tenant has uploaded. When the socket closes, it
//! ends at once: everything that it must not lose is in checkpoints.

use std::{
    io::{self, Read as _, Write as _},
    num::NonZeroU32,
    os::{fd::AsFd as _, unix::net::UnixStream as StdStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use millstream_egress::{self as egress, Policy, gate};
use millstream_engine::{clock::SystemClock, connector::Connectors, run::CrashPoints};
use millstream_model::{ErrorKind, ids::TenantId};
use millstream_sandbox::{self as sandbox, Walls};
use millstream_state::{RocksShared, RocksSharedSettings};
use millstream_storage::DirectoryLock;
use millstream_wasm::{Runtime, RuntimeSettings};
use serde::{Deserialize, Serialize};
use tokio::{io::BufReader, net::UnixStream, runtime::Handle, sync::mpsc};

use super::{
    Inside, Means, Workshop as _,
    wire::{self, ANSWER_BYTES_MAX, Answered, Asked, PROTOCOL, REQUEST_BYTES_MAX},
};
use crate::{failure::Failure, logs::Logs, random::Seeded, references::Hidden};

/// Answers that wait to be sent.
const WAITING_MAX: usize = 256;

/// What every program reads of the system: names of hosts, certificates, libraries, time zones, and what of it is its own.
const OF_THE_SYSTEM: [&str; 12] = [
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ld.so.cache",
    "/usr",
    "/lib",
    "/lib64",
    "/dev/urandom",
];

/// What a runner is told first.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Setup {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its jobs name nothing of this machine, so it has neither files of it nor credentials for its storage.
    pub is_stranger: bool,
    /// The directories of the tenant's jobs: it may do everything below.
    pub jobs: PathBuf,
    /// What the service puts there for the tenant: it may read it.
    ///
    /// ```text
    /// ROOM/lock                       held by the runner
    /// ROOM/components/<sha-256>.wasm  components of the tenant, and of nobody else
    /// ROOM/compiled/                  their native code
    /// ROOM/compiled.key               the key of its signatures
    /// ROOM/tmp/                       what it needs for a moment; emptied before each start, and the only part that it may write
    /// ```
    pub room: PathBuf,
    /// Where relative paths of files start.
    pub files: PathBuf,
    /// Instances of components at once.
    pub instances: u32,
    /// Parallelism of jobs that do not say theirs.
    pub parallelism: NonZeroU32,
    /// What it keeps.
    pub sandbox: sandbox::Settings,
    /// Where it may connect to.
    pub egress: egress::Settings,
}

impl Setup {
    /// The version of the protocol that this program speaks.
    pub const PROTOCOL: u32 = PROTOCOL;

    /// Where files go that are needed for a moment.
    pub fn temporary(room: &Path) -> PathBuf {
        room.join("tmp")
    }

    /// What the child that compiles keeps: the component to read, and where native code goes to write. It runs code of the component, too: what it says of
    /// itself.
    pub fn walls_of_compiler(component: &Path, compiled: &Path) -> sandbox::Settings {
        let own = [component.to_owned(), compiled.with_added_extension("key"), PathBuf::from("/proc/self")];
        sandbox::Settings {
            writable: vec![compiled.to_owned(), PathBuf::from("/dev/null")],
            readable: OF_THE_SYSTEM.iter().map(PathBuf::from).chain(own).collect(),
            limits: sandbox::Limits::default(),
            without: Vec::new(),
        }
    }

    /// What a runner keeps: the directories of its jobs, and the files of job files if they may name some, to write; its room and what every program needs
    /// of the system to read.
    pub fn walls(jobs: &Path, room: &Path, files: Option<&Path>, limits: sandbox::Limits) -> sandbox::Settings {
        let own = [room.join("components"), room.join("compiled"), room.join("compiled.key"), PathBuf::from("/proc/self")];
        sandbox::Settings {
            writable: [jobs.to_owned(), Self::temporary(room), PathBuf::from("/dev/null")]
                .into_iter()
                .chain(files.map(Path::to_owned))
                .collect(),
            readable: OF_THE_SYSTEM.iter().map(PathBuf::from).chain(own).collect(),
            limits,
            without: Vec::new(),
        }
    }
}

/// What a runner says first: its walls, or why it cannot be one.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting(pub(super) Result<Walls, Failure>);

/// A runner that is walled in and has not begun.
pub struct Walled {
    socket: StdStream,
    setup: Setup,
    _lock: DirectoryLock,
}

/// What a runner needs of its program.
pub struct Program {
    /// What job files may name.
    pub connectors: Connectors,
    /// Log lines of jobs.
    pub logs: Logs,
    /// What is kept out of everything that is said.
    pub hidden: Hidden,
    /// For tests: where to die.
    pub crash: Option<Arc<dyn CrashPoints>>,
}

/// Becomes a runner: reads what it is told from standard input, and walls itself in. Call it before a second thread is started.
///
/// # Errors
/// Standard input is no socket of a service, or the walls cannot be put up; the service has been told.
pub fn enter() -> Result<Walled, Failure> {
    let mut socket = socket()?;
    sandbox::die_with_parent().map_err(|error| Failure::from_error(error.kind(), &error))?;
    let setup: Setup = read(&mut socket).map_err(|error| unheard(&error))?;
    let entered = walled_in(&setup);
    let greeting = Greeting(entered.as_ref().map(|(_, walls)| walls.clone()).map_err(Clone::clone));
    let greeting = wire::frame(&greeting, ANSWER_BYTES_MAX).map_err(|error| unheard(&error))?;
    socket.write_all(&greeting).map_err(|error| unheard(&error))?;
    let (lock, _) = entered?;
    Ok(Walled { socket, setup, _lock: lock })
}

fn socket() -> Result<StdStream, Failure> {
    let socket = io::stdin().as_fd().try_clone_to_owned().map(StdStream::from);
    let socket = socket.and_then(|socket| socket.peer_addr().map(|_| socket));
    socket.map_err(|error| {
        Failure::new(ErrorKind::Invalid, "standard input is no socket")
            .because(&error)
            .fix("`millstream serve` starts runners; people do not")
    })
}

fn read(socket: &mut StdStream) -> io::Result<Setup> {
    let mut head = [0; 4];
    socket.read_exact(&mut head)?;
    let mut body = vec![0; wire::length(head, REQUEST_BYTES_MAX)?];
    socket.read_exact(&mut body)?;
    wire::message(&body)
}

fn unheard(error: &io::Error) -> Failure {
    Failure::new(ErrorKind::Unavailable, "the service cannot be talked to").because(error)
}

fn walled_in(setup: &Setup) -> Result<(DirectoryLock, Walls), Failure> {
    if setup.protocol != PROTOCOL {
        return Err(Failure::new(ErrorKind::Invalid, format!("the service speaks version {}, this program {PROTOCOL}", setup.protocol)));
    }
    // One that was killed holds its locks until the kernel has cleared it away; the service does not wait for ever.
    let lock = DirectoryLock::wait(&setup.room)?;
    let policy = Policy::read(&setup.egress).map_err(|error| Failure::from_error(error.kind(), &error))?;
    gate::close(policy).map_err(|error| Failure::from_error(ErrorKind::Conflict, &error))?;
    let walls = sandbox::enter(&setup.sandbox).map_err(|error| Failure::from_error(error.kind(), &error))?;
    Ok((lock, walls))
}

impl Walled {
    /// Carries out what is asked until the service closes the socket. `data`: the data runtime.
    ///
    /// # Errors
    /// The engine of guests does not start, or the service says what is not understood.
    pub async fn work(self, program: Program, data: Handle) -> Result<(), Failure> {
        let Self { socket, setup, _lock } = self;
        let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket)).map_err(|error| unheard(&error))?;
        let inside = inside(program, setup, data)?;
        let (from, to) = socket.into_split();
        let (answers, waiting) = mpsc::channel::<Vec<u8>>(WAITING_MAX);
        tokio::spawn(send(to, waiting));
        let mut from = BufReader::new(from);
        while let Some(Asked { id, request }) = wire::read(&mut from, REQUEST_BYTES_MAX).await.map_err(|error| unheard(&error))? {
            let (inside, answers) = (inside.clone(), answers.clone());
            tokio::spawn(async move {
                let answer = inside.ask(request).await;
                // The service may have closed.
                drop(answers.send(answered(id, answer)).await);
            });
        }
        Ok(())
    }
}

async fn send(mut to: tokio::net::unix::OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = waiting.recv().await {
        if wire::write(&mut to, &frame).await.is_err() {
            return;
        }
    }
}

/// The frame of an answer; of one that is too long, that it is.
fn answered(id: u64, answer: Result<serde_json::Value, Failure>) -> Vec<u8> {
    wire::frame(&Answered { id, answer }, ANSWER_BYTES_MAX).unwrap_or_else(|error| {
        let failure = Failure::new(ErrorKind::Invalid, "the answer is too long").because(&error).fix("ask for less of it at once");
        wire::frame(&Answered { id, answer: Err(failure) }, ANSWER_BYTES_MAX).expect("a failure of two lines is short")
    })
}

fn inside(program: Program, setup: Setup, data: Handle) -> Result<Inside, Failure> {
    let Program { connectors, logs, hidden, crash } = program;
    let runtime =
        RuntimeSettings { cache_dir: Some(setup.room.join("compiled")), pooled_instances: setup.instances, ..RuntimeSettings::default() };
    let runtime = Runtime::new(runtime).map_err(|error| Failure::from_error(error.kind(), &error))?;
    let means = Means {
        runtime,
        connectors: Arc::new(connectors),
        files: setup.files,
        clock: Arc::new(SystemClock),
        random: Arc::new(Seeded::from_system()?),
        data,
        rocks: Arc::new(RocksShared::new(RocksSharedSettings::default())),
        crash,
        parallelism: setup.parallelism,
        hidden,
    };
    Ok(Inside::new(Arc::new(means), setup.tenant, setup.jobs, setup.room.join("components"), Some(logs)))
}
