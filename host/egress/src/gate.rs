//! The gate of a process: every `connect` of every library in it (this program's, librdkafka's, OpenSSL's) is asked about before the system is.
//!
//! The program has a `connect` of its own, which the linker finds before that of the C library, as any program may have (ELF symbol interposition). It
//! looks at the address, asks the [`Policy`], and calls the one of the C library, or answers `EACCES`. So what is checked is what is connected to: a name
//! that resolves to something else the second time, a broker that advertises an address, a redirect, an octal number: all of them end here. Sockets of
//! other families than IPv4 and IPv6 reach nobody outside this machine and are let through, as are the queries of the C library's own resolver, which do
//! not come this way.
//!
//! What it cannot do: stop who executes machine code of their own in this process. Guests cannot; for that wall there is seccomp.

use std::{
    collections::BTreeSet,
    ffi::{CStr, c_char, c_int, c_void},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _},
    sync::{Mutex, OnceLock, PoisonError},
};

use crate::{
    policy::{Denied, Policy, Resolver},
    sent,
};

/// Addresses whose refusal was said.
const SAID_MAX: usize = 256;

static POLICY: OnceLock<Policy> = OnceLock::new();
static SAID: Mutex<BTreeSet<IpAddr>> = Mutex::new(BTreeSet::new());

/// From now on, and for as long as this process lives, its sockets connect only where `policy` allows. What was connected before stays so. Names among
/// the rules mean what they resolve to when somebody connects.
///
/// # Errors
/// It was closed before: the policy of a process is decided once.
pub fn close(policy: Policy) -> Result<(), AlreadyClosed> {
    POLICY.set(policy).map_err(|_| AlreadyClosed)
}

/// The gate of this process was closed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("where this process may connect to was decided before")]
pub struct AlreadyClosed;

/// What a connection of this process to this address meets, in words that its refusal would not have.
///
/// # Errors
/// It is refused.
pub fn check(to: SocketAddr) -> Result<(), Denied> {
    POLICY.get().map_or(Ok(()), |policy| asked(policy, &SystemResolver, to))
}

/// Asks the system's resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemResolver;

impl Resolver for SystemResolver {
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok((name, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
    }
}

/// Whether a socket may connect there.
fn asked(policy: &Policy, resolver: &impl Resolver, to: SocketAddr) -> Result<(), Denied> {
    let Err(denied) = policy.check(None, to) else { return Ok(()) };
    // Only now, and only for the names that the operator has listed: they are asked for by nobody else's wish.
    let mut listed = policy.names().filter(|(_, port)| port.is_none_or(|port| port == to.port()));
    let is_listed = listed.any(|(name, _)| resolver.resolve(name).is_ok_and(|found| found.contains(&to.ip())));
    if is_listed { Ok(()) } else { Err(denied) }
}

/// Says once for each address what was refused: libraries tell no more than `permission denied`.
fn say(denied: &Denied, port: u16) {
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() < SAID_MAX && said.insert(denied.address) {
        drop(said);
        tracing::warn!(port, "a connection was refused: {denied}; the operator of the service allows it with --egress-allow");
    }
}

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const EACCES: c_int = 13;
/// `RTLD_NEXT`: the one that would have been found without ours.
const NEXT: *mut c_void = -1_isize as *mut c_void;
const CONNECT: &CStr = c"connect";

type Connect = unsafe extern "C" fn(c_int, *const c_void, u32) -> c_int;

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

/// The `connect` of the C library.
fn of_the_library() -> Option<Connect> {
    static FOUND: OnceLock<Option<Connect>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        // SAFETY: the symbol is a string of C, and dlsym may be called at any time.
        let found = unsafe { dlsym(NEXT, CONNECT.as_ptr()) };
        // SAFETY: POSIX gives `connect` this type; a null pointer was taken out.
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<*mut c_void, Connect>(found) })
    })
}

/// What a `sockaddr` says, by its bytes (Linux, all architectures): family in the order of the machine, then port and address in that of the network.
fn read(bytes: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?);
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    match family {
        AF_INET => Some(SocketAddr::new(Ipv4Addr::from(<[u8; 4]>::try_from(bytes.get(4..8)?).ok()?).into(), port)),
        AF_INET6 => Some(SocketAddr::new(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.get(8..24)?).ok()?).into(), port)),
        _ => None,
    }
}

fn fail(errno: c_int) -> c_int {
    // SAFETY: the C library gives every thread an errno of its own that may be written at any time.
    unsafe { *__errno_location() = errno };
    -1
}

/// `connect(2)`, for every library in this process.
///
/// # Safety
/// As of that one: `address` points to `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn connect(socket: c_int, address: *const c_void, length: u32) -> c_int {
    if !address.is_null() {
        // SAFETY: the caller vouches for so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(address.cast::<u8>(), length as usize) };
        if let Some(to) = read(bytes) {
            if let Some(policy) = POLICY.get().filter(|policy| !policy.is_open())
                && let Err(denied) = asked(policy, &SystemResolver, to)
            {
                say(&denied, to.port());
                return fail(EACCES);
            }
            sent::note(socket);
        }
    }
    let Some(library) = of_the_library() else { return fail(EACCES) };
    // SAFETY: the arguments are those of our caller, who vouches for them.
    unsafe { library(socket, address, length) }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::policy::{Mode, Settings};

    /// One process for each test (cargo-nextest), and one policy for each process.
    #[test]
    fn a_closed_gate_lets_through_what_the_policy_allows_and_nothing_else() {
        let (open, shut) = (TcpListener::bind("127.0.0.1:0").expect("a port"), TcpListener::bind("127.0.0.1:0").expect("a port"));
        let (open, shut) = (open.local_addr().expect("bound"), shut.local_addr().expect("bound"));
        TcpStream::connect(shut).expect("nobody has closed it yet");
        let settings = Settings { mode: Mode::Public, allow: vec![open.to_string()] };
        close(Policy::read(&settings).expect("good")).expect("the first time");
        assert_eq!(close(Policy::default()), Err(AlreadyClosed));
        TcpStream::connect(open).expect("it is listed");
        assert!(check(open).is_ok() && check(shut).is_err(), "what is said beforehand is what happens");
        let refused = |to: &str| TcpStream::connect(to).expect_err("not allowed").kind();
        for to in [
            shut.to_string(),
            format!("localhost:{}", shut.port()),
            format!("[::ffff:127.0.0.1]:{}", shut.port()),
            format!("0.0.0.0:{}", shut.port()),
        ] {
            assert_eq!(refused(&to), io::ErrorKind::PermissionDenied, "{to}");
        }
        let datagrams = UdpSocket::bind("0.0.0.0:0").expect("a port");
        assert_eq!(datagrams.connect("169.254.169.254:80").expect_err("not allowed").kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn an_open_gate_asks_nobody() {
        close(Policy::default()).expect("the first time");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        TcpStream::connect(listener.local_addr().expect("bound")).expect("everything is allowed");
    }

    #[test]
    fn addresses_are_read_as_the_system_reads_them() {
        let mut v4 = AF_INET.to_ne_bytes().to_vec();
        v4.extend([0x1f, 0x90, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(read(&v4), Some("127.0.0.1:8080".parse().expect("an address")));
        let mut v6 = AF_INET6.to_ne_bytes().to_vec();
        v6.extend([0x1f, 0x90, 0, 0, 0, 0]);
        v6.extend(Ipv6Addr::LOCALHOST.octets());
        assert_eq!(read(&v6), Some("[::1]:8080".parse().expect("an address")));
        for cut in 0..8 {
            assert_eq!(read(&v4[..cut]), None);
        }
        assert_eq!(read(&[1, 0, b'/', b'x', 0, 0, 0, 0]), None, "a path is no address");
    }
}
