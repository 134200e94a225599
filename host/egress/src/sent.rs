//! What this process has sent: the bytes that its programs gave to TCP connections which this process has opened, as the kernel counts them.
//!
//! The gate notes each socket that connects ([`note`]); the kernel is asked about it when somebody asks for the sum ([`bytes`]), and for the last time
//! when it is closed: the program has a `close` of its own, as it has a `connect` (see [`super::gate`]). Nothing is locked, so whoever closes may be in a
//! signal handler or in the child of a fork. Sockets that somebody else has connected, unix sockets and datagrams do not count.

use std::{
    ffi::{CStr, c_char, c_int, c_void},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Descriptors that are noted; those above do not count. A process has a limit far below.
const DESCRIPTORS: usize = 1 << 20;

static NOTED: [AtomicU64; DESCRIPTORS / 64] = [const { AtomicU64::new(0) }; DESCRIPTORS / 64];
/// Bytes of sockets that were closed.
static CLOSED: AtomicU64 = AtomicU64::new(0);
/// The word behind the last that was ever used.
static END: AtomicU64 = AtomicU64::new(0);

const IPPROTO_TCP: c_int = 6;
const TCP_INFO: c_int = 11;
/// `struct tcp_info` up to `tcpi_bytes_retrans` (Linux 4.19), and where its parts are: a structure of the kernel's, which only grows at its end.
const INFO_BYTES: usize = RESENT_AT + 8;
const NOT_SENT_AT: usize = 144;
const SENT_AT: usize = 200;
const RESENT_AT: usize = 208;

const NEXT: *mut c_void = -1_isize as *mut c_void;
const CLOSE: &CStr = c"close";

unsafe extern "C" {
    fn getsockopt(socket: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut u32) -> c_int;
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
}

/// What the connections of this process were given to send, in bytes, since it began.
pub fn bytes() -> u64 {
    let end = END.load(Ordering::Acquire) as usize;
    let open = NOTED[..end].iter().enumerate().flat_map(|(word, noted)| {
        let noted = noted.load(Ordering::Relaxed);
        (0..64).filter(move |bit| noted & (1 << bit) != 0).map(move |bit| (word * 64 + bit) as c_int)
    });
    open.filter_map(given).sum::<u64>() + CLOSED.load(Ordering::Relaxed)
}

/// This socket connects.
pub(crate) fn note(socket: c_int) {
    let Some((word, bit)) = place(socket) else { return };
    NOTED[word].fetch_or(bit, Ordering::Relaxed);
    END.fetch_max(word as u64 + 1, Ordering::Release);
}

fn place(socket: c_int) -> Option<(usize, u64)> {
    let number = usize::try_from(socket).ok().filter(|&number| number < DESCRIPTORS)?;
    Some((number / 64, 1 << (number % 64)))
}

/// What was given to a TCP socket: what was sent, once, and what waits to be. None: it is no such socket.
fn given(socket: c_int) -> Option<u64> {
    let mut info = [0_u8; INFO_BYTES];
    let mut length = info.len() as u32;
    // SAFETY: `info` has so many bytes, and the kernel writes no more.
    let asked = unsafe { getsockopt(socket, IPPROTO_TCP, TCP_INFO, info.as_mut_ptr().cast(), &raw mut length) };
    if asked != 0 || (length as usize) < INFO_BYTES {
        return None;
    }
    let word = |at: usize| Some(u64::from_ne_bytes(info.get(at..at + 8)?.try_into().ok()?));
    let waits = u32::from_ne_bytes(info.get(NOT_SENT_AT..NOT_SENT_AT + 4)?.try_into().ok()?);
    Some(word(SENT_AT)?.saturating_sub(word(RESENT_AT)?) + u64::from(waits))
}

type Close = unsafe extern "C" fn(c_int) -> c_int;

/// The `close` of the C library.
fn of_the_library() -> Option<Close> {
    static FOUND: OnceLock<Option<Close>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: the symbol is a string of C, and dlsym may be called at any time.
        let found = unsafe { dlsym(NEXT, CLOSE.as_ptr()) };
        // SAFETY: POSIX gives `close` this type; a null pointer was taken out.
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Close>(found) })
    })
}

/// `close(2)`, for every library in this process.
///
/// # Safety
/// As of that one: nobody uses the descriptor any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(descriptor: c_int) -> c_int {
    if let Some((word, bit)) = place(descriptor)
        && NOTED[word].load(Ordering::Relaxed) & bit != 0
        && NOTED[word].fetch_and(!bit, Ordering::Relaxed) & bit != 0
    {
        CLOSED.fetch_add(given(descriptor).unwrap_or(0), Ordering::Relaxed);
    }
    let Some(library) = of_the_library() else { return -1 };
    // SAFETY: the descriptor is our caller's, who vouches for it.
    unsafe { library(descriptor) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// One process for each test (cargo-nextest), so nobody else sends.
    #[test]
    fn what_connections_were_given_counts_once_open_or_closed_and_what_was_accepted_does_not() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let to = listener.local_addr().expect("bound");
        let before = bytes();
        let mut sent = 0;
        for round in 1..=5_u64 {
            let mut stream = TcpStream::connect(to).expect("it listens");
            let (mut accepted, _) = listener.accept().expect("somebody connects");
            let message = vec![7; round as usize * 1_000];
            stream.write_all(&message).expect("room");
            accepted.read_exact(&mut vec![0; message.len()]).expect("it comes");
            accepted.write_all(&[1; 5_000]).expect("room");
            sent += message.len() as u64;
            assert_eq!(bytes() - before, sent, "while it is open");
            drop(stream);
            assert_eq!(bytes() - before, sent, "when it is closed");
        }
        // Nobody reads it: it waits, and counts, since the kernel will send it.
        let mut stream = TcpStream::connect(to).expect("it listens");
        stream.set_nonblocking(true).expect("a socket");
        let mut waiting = 0;
        while let Ok(more) = stream.write(&[0; 64 << 10]) {
            waiting += more as u64;
        }
        drop(stream);
        assert_eq!(bytes() - before, sent + waiting);
    }
}
