//! Stands between clients and a broker, reads the head of every request, and does with the end of a transaction what a bad network may do: its
//! answer comes late, and the request comes once more when nobody thinks of it.

use std::{
    collections::HashSet,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// The number of EndTxn in Kafka's protocol.
const END_TRANSACTION: i16 = 26;
/// Longer than a clean commit takes, and shorter than any timeout.
const LATE: Duration = Duration::from_millis(700);

pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    broker: Mutex<Option<SocketAddr>>,
    /// What is to become of the next end of a transaction, and what was kept of it.
    ends: Mutex<Ends>,
    never: Condvar,
}

#[derive(Default)]
struct Ends {
    is_armed: bool,
    kept: Option<Vec<u8>>,
    /// Answers that come late, by the number of their request.
    late: HashSet<i32>,
}

impl Proxy {
    /// Listens; connections wait until the broker is known.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let shared = Arc::new(Shared::default());
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client whose broker is not there tries again.
                let _ = accepting.connect(client);
            }
        });
        Self { address, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn set_broker(&self, broker: SocketAddr) {
        *self.shared.broker.lock().unwrap_or_else(PoisonError::into_inner) = Some(broker);
    }

    /// The answer to the next end of a transaction comes late, and the request is kept.
    pub fn keep_next_end(&self) {
        self.shared.ends().is_armed = true;
    }

    /// What was kept reaches the broker once more; returns its answer: 0, or the number of an error.
    pub fn send_again(&self) -> i16 {
        let request = self.shared.ends().kept.take().expect("an end was kept");
        let broker = self.shared.broker.lock().unwrap_or_else(PoisonError::into_inner).expect("the broker is known");
        let mut connection = TcpStream::connect(broker).expect("the broker runs");
        connection.write_all(&request).expect("the broker reads");
        let answer = frame(&mut connection).expect("the broker answers");
        // Length, number of the request, throttle time, error.
        i16::from_be_bytes(answer[12..14].try_into().expect("two bytes"))
    }
}

impl Shared {
    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let broker = self.broker.lock().unwrap_or_else(PoisonError::into_inner).ok_or(io::ErrorKind::NotConnected)?;
        let broker = TcpStream::connect(broker)?;
        let (requests, answers) = (self.clone(), self.clone());
        let (from_client, to_broker) = (client.try_clone()?, broker.try_clone()?);
        thread::spawn(move || requests.pump(from_client, to_broker, Self::on_request));
        thread::spawn(move || answers.pump(broker, client, Self::on_answer));
        Ok(())
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, seen: fn(&Self, &[u8])) {
        while let Ok(frame) = frame(&mut from) {
            seen(self, &frame);
            if to.write_all(&frame).is_err() {
                break;
            }
        }
        // One end is gone, so the other goes too.
        let _ = (from.shutdown(std::net::Shutdown::Both), to.shutdown(std::net::Shutdown::Both));
    }

    /// Behind the length: the kind of the request (i16), its version (i16), its number (i32).
    fn on_request(&self, frame: &[u8]) {
        let kind = i16::from_be_bytes([frame[4], frame[5]]);
        let mut ends = self.ends();
        if kind == END_TRANSACTION && std::mem::take(&mut ends.is_armed) {
            ends.late.insert(i32::from_be_bytes(frame[8..12].try_into().expect("four bytes")));
            ends.kept = Some(frame.to_vec());
        }
    }

    /// Behind the length: the number of the request.
    fn on_answer(&self, frame: &[u8]) {
        let number = i32::from_be_bytes(frame[4..8].try_into().expect("four bytes"));
        let mut ends = self.ends();
        // Numbers are those of a connection, and this one comes soon: another answer with the same number would only be late as well.
        if ends.late.remove(&number) {
            let ends = self.never.wait_timeout_while(ends, LATE, |_| true);
            drop(ends);
        }
    }
}

/// The next message, with its length in front.
fn frame(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let count = usize::try_from(i32::from_be_bytes(length)).map_err(io::Error::other)?;
    let mut frame = vec![0; 4 + count];
    frame[..4].copy_from_slice(&length);
    from.read_exact(&mut frame[4..])?;
    Ok(frame)
}
