//! What kind of place an address is, by the registries of special-purpose addresses (IANA, RFC 6890 and its successors). Addresses that carry an IPv4
//! address inside are what that one is: whatever translates them on the way would connect there.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// A place that is not simply on the internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// 0.0.0.0/8, ::: connects to this machine.
    Unspecified,
    /// 127.0.0.0/8, ::1: this machine.
    Loopback,
    /// Networks of their own: RFC 1918, unique local addresses, and site-local ones of old.
    Private,
    /// Behind the translator of a provider (100.64.0.0/10).
    Shared,
    /// This link alone, which is where clouds have their metadata.
    LinkLocal,
    /// Where a cloud tells its machines about themselves, at an address that looks like any other.
    Metadata,
    /// Many at once.
    Multicast,
    /// Everybody on a link.
    Broadcast,
    /// For documentation and benchmarks.
    Documentation,
    /// Tunnels and translations whose other end cannot be told from the address.
    Translated,
    /// Not given to anybody.
    Reserved,
}

impl fmt::Display for Special {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unspecified => "unspecified",
            Self::Loopback => "loopback",
            Self::Private => "private",
            Self::Shared => "shared address space",
            Self::LinkLocal => "link-local",
            Self::Metadata => "metadata of a cloud",
            Self::Multicast => "multicast",
            Self::Broadcast => "broadcast",
            Self::Documentation => "documentation",
            Self::Translated => "translated",
            Self::Reserved => "reserved",
        })
    }
}

/// What kind of place it is; none: an ordinary one on the internet.
pub fn special(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => special_v6(address),
    }
}

/// The address that is meant: an IPv4 address inside an IPv6 one, where there is one.
pub fn meant(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(outer) => inner(outer).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    Some(match address.octets() {
        [0, ..] => Special::Unspecified,
        [127, ..] => Special::Loopback,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Special::Private,
        [100, 100, 100, 200] | [168, 63, 129, 16] => Special::Metadata,
        [169, 254, 169, 254] => Special::Metadata,
        [100, 64..=127, ..] => Special::Shared,
        [169, 254, ..] => Special::LinkLocal,
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] | [198, 18..=19, ..] => Special::Documentation,
        [192, 88, 99, _] => Special::Translated,
        [192, 0, 0, _] => Special::Reserved,
        [224..=239, ..] => Special::Multicast,
        [255, 255, 255, 255] => Special::Broadcast,
        [240..=255, ..] => Special::Reserved,
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    if address.is_unspecified() {
        return Some(Special::Unspecified);
    }
    if address.is_loopback() {
        return Some(Special::Loopback);
    }
    if let Some(inner) = inner(address) {
        return special_v4(inner);
    }
    Some(match address.segments() {
        [0xff00..=0xffff, ..] => Special::Multicast,
        [0xfe80..=0xfebf, ..] => Special::LinkLocal,
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => Special::Metadata,
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => Special::Private,
        // A translator of somebody's own, and Teredo, which hides its other end.
        [0x64, 0xff9b, 1, ..] | [0x2001, 0, ..] => Special::Translated,
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Special::Documentation,
        [0x2001, 0..=0x1ff, ..] => Special::Reserved,
        [0x2000..=0x3fff, ..] => return None,
        _ => Special::Reserved,
    })
}

/// The IPv4 address inside: mapped (RFC 4291), compatible (of old), SIIT (RFC 7915), NAT64 (RFC 6052), 6to4 (RFC 3056), ISATAP (RFC 5214).
fn inner(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..]
        | [_, _, _, _, 0 | 0x200, 0x5efe, high, low] => Some(v4(high, low)),
        _ => None,
    }
}
