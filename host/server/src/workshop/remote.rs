//! A workshop behind a wall: a runner, the process that carries its requests out ([`super::child`]), as the service sees it.
//!
//! A runner is this program again, started with one end of a pair of sockets as its standard input and nothing else of ours. It is started by a thread that
//! lives as long as the service, because the kernel kills it when the *thread* that started it ends; and it ends when its socket does. So it never outlives
//! the service, whichever of them is killed.
//!
//! What comes from a runner is not trusted: frames have a length, requests have an id that we gave, and an answer that cannot be read ends the runner.
//! However a runner ends, everything that was asked of it and not answered fails at once, and [`Workshop::is_gone`] says so from then on.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream as StdStream, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
        mpsc as std_mpsc,
    },
    thread,
    time::Duration,
};

use async_trait::async_trait;
use millstream_model::{ErrorKind, ids::TenantId};
use millstream_sandbox::Walls;
use serde_json::Value;
use tokio::{
    io::BufReader,
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    Workshop,
    child::{Greeting, Setup},
    message::Request,
    wire::{self, ANSWER_BYTES_MAX, Answered, Asked, REQUEST_BYTES_MAX},
};
use crate::failure::Failure;

/// How long a runner may take until it says that it is there.
const START_MAX: Duration = Duration::from_secs(60);
/// How long a runner may take to say what is known at once. One that hangs must not hang the service.
const LOOK_MAX: Duration = Duration::from_secs(10);
/// Requests that wait to be sent.
const WAITING_MAX: usize = 256;
/// What of the service's environment a runner gets: what its libraries read, and nothing that is the service's own.
const ENVIRONMENT: [&str; 7] = ["SSL_CERT_", "LD_", "RUST_", "TZ", "LANG", "FAULTY_DISK_", "MILLSTREAM_CRASH_AT"];
/// What runners get besides whose jobs may choose where their checkpoints go.
const CREDENTIALS: [&str; 3] = ["AWS_", "AZURE_", "GOOGLE_"];

/// What starts runners. Cheap to clone; when the last one is gone, so are the runners.
#[derive(Clone)]
pub struct Starter {
    program: PathBuf,
    arguments: Vec<OsString>,
    orders: std_mpsc::SyncSender<Order>,
}

struct Order {
    command: Command,
    started: oneshot::Sender<io::Result<Child>>,
}

impl Starter {
    /// Starts runners as `<program> <arguments>`.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn new(program: PathBuf, arguments: Vec<OsString>) -> io::Result<Self> {
        let (orders, ordered) = std_mpsc::sync_channel::<Order>(16);
        let start = move || {
            while let Ok(Order { mut command, started }) = ordered.recv() {
                // Who gave the order may have gone: then nobody holds the child, and its socket is closed.
                drop(started.send(command.spawn()));
            }
        };
        thread::Builder::new().name("millstream-start".to_owned()).spawn(start)?;
        Ok(Self { program, arguments, orders })
    }

    async fn start(&self, setup: &Setup) -> io::Result<(Child, UnixStream)> {
        let (ours, theirs) = StdStream::pair()?;
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_clear().envs(std::env::vars_os().filter(|(name, _)| is_passed_on(name, setup.is_stranger)));
        command.env("TMPDIR", Setup::temporary(&setup.room));
        command.stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::inherit());
        let (started, told) = oneshot::channel();
        let (orders, order) = (self.orders.clone(), Order { command, started });
        let gone = || io::Error::other("the thread that starts runners is gone");
        tokio::task::spawn_blocking(move || orders.send(order).map_err(|_| ())).await?.map_err(|()| gone())?;
        let child = told.await.map_err(|_| gone())??;
        ours.set_nonblocking(true)?;
        Ok((child, UnixStream::from_std(ours)?))
    }
}

fn is_passed_on(name: &std::ffi::OsStr, to_stranger: bool) -> bool {
    let credentials = if to_stranger { &[][..] } else { &CREDENTIALS };
    name.to_str().is_some_and(|name| ENVIRONMENT.iter().chain(credentials).any(|passed| name.starts_with(passed)))
}

/// A runner.
pub struct Remote {
    tenant: TenantId,
    pid: u32,
    walls: Walls,
    requests: mpsc::Sender<Vec<u8>>,
    last: AtomicU64,
    talk: Arc<Talk>,
    child: Mutex<Option<Child>>,
}

/// What is asked and not answered yet; none: the runner is gone.
struct Talk(Mutex<Option<Askers>>);

/// Who waits for the answer to which request.
type Askers = BTreeMap<u64, oneshot::Sender<Result<Value, Failure>>>;

impl Talk {
    fn open(&self) -> std::sync::MutexGuard<'_, Option<Askers>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answered(&self, Answered { id, answer }: Answered) {
        // Who asked may not wait any more.
        if let Some(asker) = self.open().as_mut().and_then(|talk| talk.remove(&id)) {
            drop(asker.send(answer));
        }
    }
}

impl Remote {
    /// Starts a runner and waits until it says that its walls stand. `place` is given its process before it is told what it is for.
    ///
    /// # Errors
    /// It cannot be started, or does not come up.
    pub async fn start(starter: &Starter, setup: &Setup, place: impl FnOnce(u32)) -> Result<Arc<Self>, Failure> {
        let failed = |error: &io::Error| {
            Failure::new(ErrorKind::Unavailable, format!("the runner of tenant `{}` cannot be started", setup.tenant)).because(error)
        };
        let (child, stream) = starter.start(setup).await.map_err(|error| failed(&error))?;
        let pid = child.id();
        place(pid);
        let mut child = Held(Some(child));
        let (mut reader, mut writer) = stream.into_split();
        let said = wire::frame(setup, REQUEST_BYTES_MAX).map_err(|error| failed(&error))?;
        let greeted = async {
            wire::write(&mut writer, &said).await?;
            wire::read::<Greeting>(&mut reader, ANSWER_BYTES_MAX).await
        };
        let greeting = timeout(START_MAX, greeted).await.map_err(|_late| failed(&io::ErrorKind::TimedOut.into()))?;
        let greeting = greeting.map_err(|error| failed(&error))?;
        let Some(greeting) = greeting else {
            return Err(failed(&io::Error::other(format!("it ended before it was there{}", child.ended()))));
        };
        let walls = greeting.0?;
        let (requests, waiting) = mpsc::channel(WAITING_MAX);
        let talk = Arc::new(Talk(Mutex::new(Some(BTreeMap::new()))));
        let remote = Self {
            tenant: setup.tenant.clone(),
            pid,
            walls,
            requests,
            last: AtomicU64::new(0),
            talk: talk.clone(),
            child: Mutex::new(child.0.take()),
        };
        let remote = Arc::new(remote);
        tokio::spawn(send(writer, waiting));
        tokio::spawn(listen(reader, Arc::downgrade(&remote), talk));
        Ok(remote)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its walls, as it says itself.
    pub fn walls(&self) -> &Walls {
        &self.walls
    }

    /// Ends it, whatever it does; how it ended. Only the first who asks is told.
    fn kill(&self) -> Option<ExitStatus> {
        let child = self.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        // A process that was killed is waited for, so that nothing is left of it: neither a zombie, nor a lock.
        child.and_then(|mut child| child.kill().and_then(|()| child.wait()).ok())
    }

    fn gone(&self) -> Failure {
        super::lost(&self.tenant)
    }

    async fn answered(&self, frame: Vec<u8>, answer: oneshot::Receiver<Result<Value, Failure>>) -> Result<Value, Failure> {
        if self.requests.send(frame).await.is_err() {
            return Err(self.gone());
        }
        answer.await.unwrap_or_else(|_gone| Err(self.gone()))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.kill();
    }
}

#[async_trait]
impl Workshop for Remote {
    async fn ask(&self, request: Request) -> Result<Value, Failure> {
        let is_look = matches!(request, Request::Status { .. } | Request::States { .. } | Request::TailEnd { .. } | Request::Sent);
        let id = self.last.fetch_add(1, Ordering::Relaxed);
        let unsaid = |error: io::Error| Failure::new(ErrorKind::Invalid, "the request is too long for a runner").because(&error);
        let frame = wire::frame(&Asked { id, request }, REQUEST_BYTES_MAX).map_err(unsaid)?;
        let (asker, answer) = oneshot::channel();
        match self.talk.open().as_mut() {
            Some(talk) => drop(talk.insert(id, asker)),
            None => return Err(self.gone()),
        }
        let answered = self.answered(frame, answer);
        if !is_look {
            return answered.await;
        }
        timeout(LOOK_MAX, answered).await.unwrap_or_else(|_late| {
            Err(Failure::new(ErrorKind::Unavailable, format!("the runner of tenant `{}` does not answer", self.tenant)))
        })
    }

    fn is_gone(&self) -> bool {
        self.talk.open().is_none()
    }

    fn process(&self) -> Option<u32> {
        (!self.is_gone()).then_some(self.pid)
    }

    fn end(&self) {
        self.kill();
    }
}

/// Sends what waits, until there is nobody to send it to.
async fn send(mut to: OwnedWriteHalf, mut waiting: mpsc::Receiver<Vec<u8>>) {
    while let Some(frame) = waiting.recv().await {
        if wire::write(&mut to, &frame).await.is_err() {
            // Who reads finds out too, and says so.
            return;
        }
    }
}

/// Hands answers to those who asked, until the runner ends or says what is no answer.
async fn listen(from: OwnedReadHalf, remote: std::sync::Weak<Remote>, talk: Arc<Talk>) {
    let mut from = BufReader::new(from);
    let why = loop {
        match wire::read::<Answered>(&mut from, ANSWER_BYTES_MAX).await {
            Ok(Some(answered)) => talk.answered(answered),
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    // The process first: when those who asked hear of it, nothing of it holds a job directory any more.
    if let Some(remote) = remote.upgrade() {
        let tenant = remote.tenant.clone();
        let status = tokio::task::spawn_blocking(move || remote.kill()).await.ok().flatten();
        let how = status.map(|status| ended_how(&status)).unwrap_or_default();
        let why = why.map(|error| format!(" after it said what is no answer ({error})")).unwrap_or_default();
        tracing::warn!(%tenant, "the runner has ended{why}{how}");
    }
    drop(talk.open().take());
}

/// ` by signal 9`; nothing if there is nothing to say.
fn ended_how(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!(" with code {code}"),
        (None, Some(signal)) => format!(" by signal {signal}"),
        (None, None) => String::new(),
    }
}

/// A child that is not let go.
struct Held(Option<Child>);

impl Held {
    fn ended(&mut self) -> String {
        let status = self.0.take().and_then(|mut child| child.wait().ok());
        status.map(|status| ended_how(&status)).unwrap_or_default()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            // As above.
            drop(child.kill().and_then(|()| child.wait()));
        }
    }
}
