//! Hosts as people, URLs and brokers write them. What a resolver of C would take for an address (`inet_aton`: octal, hexadecimal, fewer than four parts)
//! is one here, too; what nobody should write is refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// An address.
    Address(IpAddr),
    /// A name to be resolved, in lower case, without a dot at its end.
    Name(String),
}

/// Longest name (RFC 1035).
const NAME_BYTES_MAX: usize = 253;

impl Host {
    /// Reads a host: a name, an IPv4 address in any notation of `inet_aton`, or an IPv6 address, with or without its brackets. None: it is no host.
    pub fn parse(text: &str) -> Option<Self> {
        let bare = text.strip_prefix('[').map_or(Some(text), |rest| rest.strip_suffix(']'))?;
        if bare.contains(':') {
            // A zone (`%eth0`) chooses a link of this machine: nobody from outside has business there.
            return bare.parse::<Ipv6Addr>().ok().map(|address| Self::Address(IpAddr::V6(address)));
        }
        if bare.len() != text.len() {
            return None;
        }
        let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.is_empty() || name.len() > NAME_BYTES_MAX || !name.bytes().all(is_plain) || name.split('.').any(str::is_empty) {
            return None;
        }
        if ends_in_number(&name) {
            return aton(&name).map(|address| Self::Address(IpAddr::V4(address)));
        }
        Some(Self::Name(name))
    }
}

/// `HOST:PORT`, as brokers are written.
pub fn with_port(text: &str) -> Option<(Host, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    // Without brackets the last part of an IPv6 address would be its port.
    if host.contains(':') && !host.starts_with('[') {
        return None;
    }
    let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    Some((Host::parse(host)?, if is_number { port.parse().ok()? } else { return None }))
}

/// WHATWG URL §3.5: then it is an address, or nothing.
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hexadecimal = last.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    is_hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit())
}

fn aton(text: &str) -> Option<Ipv4Addr> {
    let parts: Vec<u64> = text.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = parts.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) || *last >= 1_u64 << (8 * (4 - first.len())) {
        return None;
    }
    let high = first.iter().enumerate().fold(0, |high, (at, part)| high | part << (8 * (3 - at)));
    u32::try_from(high | last).ok().map(Ipv4Addr::from)
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some("") => Some(0),
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u64::from_str_radix(&text[1..], 8).ok(),
        None => text.parse().ok(),
    }
}
