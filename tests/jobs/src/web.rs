//! A server on this machine that answers requests over HTTP as a test says, and remembers what it was asked.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
};

/// What a server says.
pub enum Said {
    /// A status and reason (`200 OK`), lines of headers, a body.
    Answer(&'static str, String, String),
    /// Nothing, for as long as the client is there.
    Nothing,
}

/// A running server; it ends with the test.
pub struct Web {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

/// Says what there is at a path, when it is asked for so often (from 1).
type Answering = dyn Fn(&str, usize) -> Said + Send + Sync;

impl Web {
    /// A server that answers.
    pub fn start(answer: impl Fn(&str, usize) -> Said + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let (asked, answer): (Arc<Mutex<Vec<String>>>, Arc<Answering>) = (Arc::default(), Arc::new(answer));
        let noted = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (noted, answer) = (noted.clone(), answer.clone());
                // Who is killed hangs up in the middle.
                thread::spawn(move || drop(converse(&stream, &noted, &*answer)));
            }
        });
        Self { address, asked }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The paths that were asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        locked(&self.asked).clone()
    }
}

fn locked(asked: &Mutex<Vec<String>>) -> MutexGuard<'_, Vec<String>> {
    asked.lock().unwrap_or_else(PoisonError::into_inner)
}

fn converse(mut stream: &TcpStream, asked: &Mutex<Vec<String>>, answer: &Answering) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
        let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
        lines.read_exact(&mut body)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let times = {
            let mut asked = locked(asked);
            asked.push(path.clone());
            asked.iter().filter(|before| **before == path).count()
        };
        match answer(&path, times) {
            Said::Answer(status, headers, body) => {
                let length = body.len();
                stream.write_all(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}").as_bytes())?;
            }
            // Whoever gives up hangs up.
            Said::Nothing => drop(lines.read(&mut [0])?),
        }
    }
}
