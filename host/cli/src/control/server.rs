//! The answering side: accepts connections on the control socket of a running job.
//!
//! Every connection is a task that reads a line, has it answered, writes a line, again and again. Limits: [`CONNECTIONS_MAX`] connections, a bounded
//! line, [`IDLE_MAX`] of silence. The socket is for the owner of the directory alone (mode 0600), and it appears whole: it is made in a private
//! directory and renamed, which also replaces a socket left behind by a process that was killed. So only the holder of the lock may make one.

use std::{fs, future::Future, io, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

use millstream_model::ErrorKind;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};

use super::protocol::{Answer, LINE_BYTES_MAX, LineError, Refusal, Request, read_line};
use millstream_server::place::Place;

use crate::{
    control::address,
    report::{Exit, Failure},
    terminal,
};

/// Connections at a time.
const CONNECTIONS_MAX: usize = 16;
/// A connection that asks nothing for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(300);

/// How long the last answers may take once the job has ended.
const LAST_ANSWERS_MAX: Duration = Duration::from_secs(1);

/// What answers requests.
pub trait Respond: Send + Sync + 'static {
    /// Carries out one request.
    fn respond(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

/// The socket; removed when this is dropped.
pub struct Server {
    place: Place,
    listener: UnixListener,
}

impl Server {
    /// Opens the socket. The caller holds the lock of the directory.
    pub fn open(place: &Place) -> Result<Self, Failure> {
        let listener = listen(place).map_err(|error| {
            Failure::new(Exit::Failed, format!("the control socket `{}` cannot be opened", place.socket().display()))
                .because(&error)
                .fix("the job directory must lie on a file system that has sockets")
        })?;
        Ok(Self { place: place.clone(), listener })
    }

    /// Answers until `closing` says so (or its sender is gone), then lets answers that are under way be written.
    pub async fn serve(self, responder: impl Respond, mut closing: watch::Receiver<()>) {
        let (responder, free) = (Arc::new(responder), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = closing.changed() => break,
            };
            match (accepted, free.clone().try_acquire_owned()) {
                (Ok((stream, _)), Ok(permit)) => drop(tokio::spawn(converse(stream, responder.clone(), permit, closing.clone()))),
                (Ok((stream, _)), Err(_)) => drop(tokio::spawn(turn_away(stream))),
                // Out of file descriptors, or a connection that was gone before it was accepted: others may still come.
                (Err(error), _) => {
                    tracing::warn!("a connection to the control socket was not accepted: {error}");
                    tokio::task::yield_now().await;
                }
            }
        }
        let all = u32::try_from(CONNECTIONS_MAX).expect("a small number");
        // Who does not read its answer does not keep the process.
        let _all_written = timeout(LAST_ANSWERS_MAX, free.acquire_many(all)).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A socket that stays is replaced by the next run.
        drop(fs::remove_file(self.place.socket()));
    }
}

fn listen(place: &Place) -> io::Result<UnixListener> {
    let private = tempfile::Builder::new().prefix(".control-").tempdir_in(place.path())?;
    let made = private.path().join("s");
    let listener = address::with(&made, |address| UnixListener::bind(address))?;
    fs::set_permissions(&made, fs::Permissions::from_mode(0o600))?;
    fs::rename(&made, place.socket())?;
    Ok(listener)
}

/// Answers one connection until it closes, falls silent, or sends what is no line.
async fn converse(stream: UnixStream, responder: Arc<impl Respond>, _permit: OwnedSemaphorePermit, mut closing: watch::Receiver<()>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let read = tokio::select! {
            read = timeout(IDLE_MAX, read_line(&mut reader, LINE_BYTES_MAX)) => read,
            _ = closing.changed() => return,
        };
        let (answer, goes_on) = match read {
            Ok(Ok(Some(line))) => match Request::parse(&line) {
                Ok(request) => (responder.respond(request).await, true),
                Err(refusal) => (Answer::Error(refusal), true),
            },
            Ok(Err(LineError::TooLong)) => (Answer::Error(too_long()), false),
            Ok(Ok(None) | Err(LineError::Io(_))) | Err(_) => return,
        };
        // Who asked may have left: then there is nobody to tell.
        let line = answer.to_line();
        let line = terminal::sayable(&String::from_utf8_lossy(&line)).trim_end().to_owned() + "\n";
        if writer.write_all(line.as_bytes()).await.is_err() || !goes_on {
            return;
        }
    }
}

async fn turn_away(mut stream: UnixStream) {
    let refusal = Refusal::new(ErrorKind::Unavailable, format!("{CONNECTIONS_MAX} connections are open already"));
    // Who asked may have left.
    let _told = stream.write_all(&Answer::Error(refusal).to_line()).await;
}

fn too_long() -> Refusal {
    Refusal::new(ErrorKind::Invalid, format!("a request is at most {LINE_BYTES_MAX} bytes long"))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read, Write},
        os::unix::net::UnixStream,
    };

    use super::*;

    /// Says what it was asked.
    struct Echo;

    impl Respond for Echo {
        async fn respond(&self, request: Request) -> Answer {
            Answer::done(&request)
        }
    }

    /// A server on a thread of its own; it ends with the test.
    fn served() -> (tempfile::TempDir, Place) {
        let directory = tempfile::tempdir().unwrap();
        // Longer than the address of a socket may be.
        let place = Place::made(&directory.path().join("d".repeat(120))).unwrap();
        let (opened, wait) = std::sync::mpsc::sync_channel(1);
        let at = place.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let server = Server::open(&at).unwrap();
                opened.send(()).unwrap();
                let (_open, closing) = watch::channel(());
                server.serve(Echo, closing).await;
            });
        });
        wait.recv().unwrap();
        (directory, place)
    }

    fn connected(place: &Place) -> UnixStream {
        address::with(&place.socket(), |address| UnixStream::connect(address)).unwrap()
    }

    fn line(stream: &UnixStream) -> String {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        line
    }

    #[test]
    fn requests_are_answered_in_order_on_one_connection() {
        let (_directory, place) = served();
        let mut stream = connected(&place);
        stream.write_all(b"{\"command\":\"checkpoint\"}\nwhat?\n{\"command\":\"status\"}\n").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).unwrap();
        let answers: Vec<Answer> = answers.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(matches!(&answers[..], [Answer::Result(_), Answer::Error(_), Answer::Result(_)]), "{answers:?}");
    }

    #[test]
    fn a_line_without_end_is_cut_and_others_are_answered() {
        let (_directory, place) = served();
        let mut flood = connected(&place);
        flood.write_all(&vec![b'x'; LINE_BYTES_MAX]).unwrap();
        assert!(line(&flood).contains("at most 65536 bytes"));
        let mut other = connected(&place);
        other.write_all(b"{\"command\":\"status\"}\n").unwrap();
        assert!(line(&other).starts_with("{\"result\""));
    }

    #[test]
    fn connections_beyond_the_limit_are_turned_away() {
        let (_directory, place) = served();
        let open: Vec<UnixStream> = (0..CONNECTIONS_MAX)
            .map(|_| {
                let mut stream = connected(&place);
                stream.write_all(b"{\"command\":\"status\"}\n").unwrap();
                assert!(line(&stream).starts_with("{\"result\""));
                stream
            })
            .collect();
        assert!(line(&connected(&place)).contains("connections are open already"));
        drop(open);
    }

    #[test]
    fn the_socket_is_for_its_owner_alone_and_replaces_one_that_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let place = Place::made(directory.path()).unwrap();
        drop(std::os::unix::net::UnixListener::bind(place.socket()).unwrap());
        assert!(place.socket().exists(), "a killed process leaves its socket");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let _entered = runtime.enter();
        let server = Server::open(&place).unwrap();
        assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 1, "the private directory is gone");
        drop(server);
        assert!(!place.socket().exists());
    }
}
