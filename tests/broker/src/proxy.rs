//! Stands between clients and a broker, reads the head of every request, and does with it what a bad network may do: it comes late, or twice, or not
//! at all, and so does its answer.
//!
//! A [`Fate`] is one that really happens to requests on TCP: bytes are never doubled on a connection. A request comes twice because the client lost
//! the connection, sent it again on a new one, and the first one was still under way.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What a request asks for, as far as transactions go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Records are to be appended.
    Produce,
    /// A producer initialises: it gets its number, and older ones are fenced.
    InitProducer,
    /// Partitions become part of a transaction.
    AddPartitions,
    /// Offsets of a group become part of a transaction.
    AddOffsets,
    /// A transaction is to be committed or aborted.
    EndTransaction,
    /// Anything else.
    Other,
}

impl Kind {
    /// By its number in Kafka's protocol.
    fn of(number: i16) -> Self {
        match number {
            0 => Self::Produce,
            22 => Self::InitProducer,
            24 => Self::AddPartitions,
            25 => Self::AddOffsets,
            26 => Self::EndTransaction,
            _ => Self::Other,
        }
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nothing special.
    Passes,
    /// It waits, and so does what the client sends behind it.
    Late(Duration),
    /// Its answer waits, and so do those behind it.
    AnsweredLate(Duration),
    /// The connection breaks before the broker has it.
    Lost,
    /// The connection breaks when the broker has answered, before the client hears of it.
    AnswerLost,
    /// The connection breaks, and it reaches the broker later: when the client has sent it once more.
    Strays(Duration),
    /// Its answer waits, and is then lost with the connection; it reaches the broker once more, so much later.
    Doubled {
        /// How long the answer waits.
        answer: Duration,
        /// How long after it came the first time it comes again.
        again: Duration,
    },
    /// It is kept, and its answer waits: [`Proxy::send_again`] sends it once more.
    Kept(Duration),
    /// It never reaches the broker, and the client waits.
    Stuck,
    /// The broker gets it, and the client never hears of it.
    AnswerStuck,
}

/// What becomes of an answer.
#[derive(Clone, Copy)]
enum AnswerFate {
    Late(Duration),
    LateAndLost(Duration),
    Stuck,
}

type Fates = Box<dyn FnMut(Kind) -> Fate + Send>;

/// A proxy; it listens as long as the process lives.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    broker: Mutex<Option<SocketAddr>>,
    fates: Mutex<Option<Fates>>,
    kept: Mutex<Option<Vec<u8>>>,
    /// Nobody tells anybody anything by it: it is waited for.
    never: (Mutex<()>, Condvar),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens; connections wait until the broker is known.
    ///
    /// # Panics
    /// There is no free port.
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

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on connections go there.
    pub fn set_broker(&self, broker: SocketAddr) {
        *lock(&self.shared.broker) = Some(broker);
    }

    /// From now on every request is asked about; before, all pass.
    pub fn decide(&self, fates: impl FnMut(Kind) -> Fate + Send + 'static) {
        *lock(&self.shared.fates) = Some(Box::new(fates));
    }

    /// The next request of this kind has this fate, all others pass.
    pub fn next(&self, kind: Kind, fate: Fate) {
        let mut next = Some(fate);
        self.decide(move |asked| if asked == kind { next.take().unwrap_or(Fate::Passes) } else { Fate::Passes });
    }

    /// What was kept reaches the broker once more; returns its answer: 0, or the number of an error.
    ///
    /// # Panics
    /// Nothing was kept, or the broker does not answer.
    pub fn send_again(&self) -> i16 {
        let request = lock(&self.shared.kept).take().expect("a request was kept");
        self.shared.sent_again(&request).expect("the broker answers")
    }
}

impl Shared {
    fn connect(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let broker = TcpStream::connect(self.broker()?)?;
        // Small requests are not to wait for each other.
        client.set_nodelay(true)?;
        broker.set_nodelay(true)?;
        let connection = Connection { shared: self.clone(), answers: Arc::default() };
        let answering = connection.clone();
        let (from_client, to_broker) = (client.try_clone()?, broker.try_clone()?);
        thread::spawn(move || connection.requests(from_client, to_broker));
        thread::spawn(move || answering.answers(broker, client));
        Ok(())
    }

    fn broker(&self) -> io::Result<SocketAddr> {
        lock(&self.broker).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn fate(&self, frame: &[u8]) -> Fate {
        let kind = Kind::of(i16::from_be_bytes([frame[4], frame[5]]));
        lock(&self.fates).as_mut().map_or(Fate::Passes, |fates| fates(kind))
    }

    fn wait(&self, time: Duration) {
        let guard = lock(&self.never.0);
        drop(self.never.1.wait_timeout_while(guard, time, |()| true));
    }

    /// On a connection of its own, as one that was broken for the client alone.
    fn sent_again(&self, request: &[u8]) -> io::Result<i16> {
        let mut connection = TcpStream::connect(self.broker()?)?;
        connection.write_all(request)?;
        let answer = frame(&mut connection)?;
        // Length, number of the request, throttle time, error.
        Ok(answer.get(12..14).map_or(0, |error| i16::from_be_bytes([error[0], error[1]])))
    }

    fn send_later(self: &Arc<Self>, request: Vec<u8>, wait: Duration) {
        let shared = self.clone();
        thread::spawn(move || {
            shared.wait(wait);
            // The broker may have gone meanwhile, and the request with it.
            let _ = shared.sent_again(&request);
        });
    }
}

/// One connection of a client, and what is to become of answers on it, by the number of their request.
#[derive(Clone)]
struct Connection {
    shared: Arc<Shared>,
    answers: Arc<Mutex<HashMap<i32, AnswerFate>>>,
}

impl Connection {
    fn requests(&self, mut client: TcpStream, mut broker: TcpStream) {
        while let Ok(request) = frame(&mut client) {
            if !self.passes(&request, &mut client) || broker.write_all(&request).is_err() {
                break;
            }
        }
        // One end is gone, so the other goes too.
        let _ = (client.shutdown(Shutdown::Both), broker.shutdown(Shutdown::Both));
    }

    /// Whether the request goes on to the broker now; otherwise the connection ends.
    fn passes(&self, request: &[u8], client: &mut TcpStream) -> bool {
        // Behind the length: the kind of the request (i16), its version (i16), its number (i32).
        if request.len() < 12 {
            return false;
        }
        let number = i32::from_be_bytes([request[8], request[9], request[10], request[11]]);
        let answer = match self.shared.fate(request) {
            Fate::Passes => return true,
            Fate::Lost => return false,
            Fate::Late(wait) => {
                self.shared.wait(wait);
                return true;
            }
            Fate::Strays(wait) => {
                self.shared.send_later(request.to_vec(), wait);
                return false;
            }
            Fate::Stuck => {
                // Until the client goes.
                let _ = io::copy(client, &mut io::sink());
                return false;
            }
            Fate::Doubled { answer, again } => {
                self.shared.send_later(request.to_vec(), again);
                AnswerFate::LateAndLost(answer)
            }
            Fate::Kept(wait) => {
                *lock(&self.shared.kept) = Some(request.to_vec());
                AnswerFate::Late(wait)
            }
            Fate::AnsweredLate(wait) => AnswerFate::Late(wait),
            Fate::AnswerLost => AnswerFate::LateAndLost(Duration::ZERO),
            Fate::AnswerStuck => AnswerFate::Stuck,
        };
        lock(&self.answers).insert(number, answer);
        true
    }

    fn answers(&self, mut broker: TcpStream, mut client: TcpStream) {
        while let Ok(answer) = frame(&mut broker) {
            // Behind the length: the number of the request.
            let Some(number) = answer.get(4..8) else { break };
            let number = i32::from_be_bytes([number[0], number[1], number[2], number[3]]);
            let fate = lock(&self.answers).remove(&number);
            match fate {
                None => {}
                Some(AnswerFate::Late(wait)) => self.shared.wait(wait),
                Some(AnswerFate::LateAndLost(wait)) => {
                    self.shared.wait(wait);
                    break;
                }
                Some(AnswerFate::Stuck) => drop(io::copy(&mut broker, &mut io::sink())),
            }
            if client.write_all(&answer).is_err() {
                break;
            }
        }
        let _ = (client.shutdown(Shutdown::Both), broker.shutdown(Shutdown::Both));
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
