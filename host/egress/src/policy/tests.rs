//! The table of what is named to reach what should not be reached.

use std::{cell::RefCell, collections::BTreeMap, net::Ipv4Addr};

use super::*;

/// A resolver that answers what a test says, one answer after the other for each name.
#[derive(Default)]
struct Names(RefCell<BTreeMap<String, Vec<Vec<IpAddr>>>>);

impl Names {
    /// The first answer comes first; the last one stays.
    fn with(self, name: &str, answers: &[&[&str]]) -> Self {
        let parsed = |addresses: &&[&str]| addresses.iter().map(|address| address.parse().expect("an address")).collect();
        let answers = answers.iter().rev().map(parsed).collect();
        self.0.borrow_mut().insert(name.to_owned(), answers);
        self
    }
}

impl Resolver for Names {
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let mut names = self.0.borrow_mut();
        let answers = names.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(if answers.len() > 1 { answers.pop().unwrap_or_default() } else { answers.last().cloned().unwrap_or_default() })
    }
}

fn policy(mode: Mode, allow: &[&str]) -> Policy {
    Policy::read(&Settings { mode, allow: allow.iter().map(|rule| (*rule).to_owned()).collect() }).expect("good rules")
}

fn names() -> Names {
    Names::default()
        .with("public.example", &[&["93.184.215.14"]])
        .with("localhost", &[&["127.0.0.1", "::1"]])
        .with("metadata.google.internal", &[&["169.254.169.254"]])
        .with("inside.example", &[&["10.0.0.7"]])
        .with("mapped.example", &[&["::ffff:10.0.0.7"]])
        .with("mixed.example", &[&["93.184.215.14", "192.168.0.1"]])
        .with("nothing.example", &[&[]])
        .with("127.0.0.1.nip.example", &[&["127.0.0.1"]])
        .with("rebinding.example", &[&["93.184.215.14"], &["127.0.0.1"]])
}

/// Hosts that mean something inside, in every way to write it.
const INSIDE: &[&str] = &[
    // This machine.
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0X7F000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.0.0.1",
    "017700000001",
    "0177.0x0.0.01",
    "127.0x1",
    "127.0.0.0x",
    "0",
    "0.0.0.0",
    "0x0",
    "0.0.0.1",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "127.0.0.1.nip.example",
    "[::1]",
    "::1",
    "[0:0:0:0:0:0:0:1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::7f00:1]",
    "[2002:7f00:1::]",
    "[2002:7f00:1::1]",
    "[2001:db8::5efe:7f00:1]",
    "[2620:1::200:5efe:127.0.0.1]",
    // Its networks.
    "10.0.0.1",
    "10.1",
    "012.0.0.1",
    "167772161",
    "0xa.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "0xc0a80101",
    "192.168.257",
    "100.64.0.1",
    "100.127.255.254",
    "198.18.0.1",
    "192.0.0.8",
    "192.88.99.1",
    "[fc00::1]",
    "[fd12:3456:789a::1]",
    "[fec0::1]",
    "[fe80::1]",
    "[2002:c0a8:101::]",
    "[64:ff9b::10.0.0.1]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "inside.example",
    "mapped.example",
    "mixed.example",
    // The metadata of clouds.
    "169.254.169.254",
    "169.254.170.2",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[fd00:ec2::254]",
    "100.100.100.200",
    "168.63.129.16",
    "metadata.google.internal",
    // Many, everybody, nobody.
    "224.0.0.1",
    "239.255.255.250",
    "255.255.255.255",
    "0xffffffff",
    "240.0.0.1",
    "192.0.2.1",
    "203.0.113.9",
    "[ff02::1]",
    "[100::1]",
    "[2001:db8::1]",
    "[2001:10::1]",
    "[3fff::1]",
    "[5f00::1]",
    "[4000::1]",
];

/// What is no host at all, whatever some resolver would make of it.
const NONE: &[&str] = &[
    "",
    ".",
    "..",
    "[",
    "[]",
    "[127.0.0.1]",
    "[fe80::1%eth0]",
    "[fe80::1%25eth0]",
    "fe80::1%1",
    "[::1",
    "::1]",
    "1.2.3.4.5",
    "256.256.256.256",
    "4294967296",
    "0x100000000",
    "09.0.0.1",
    "127..0.1",
    "a b",
    "a/b",
    "a@127.0.0.1",
    "127.0.0.1#x",
    "127.0.0.1?x",
    "127.0.0.1:80",
    "a\0b",
    "a\r\nb",
    "%31%32%37.0.0.1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "a\u{202e}b",
];

#[test]
fn what_is_inside_is_reached_by_no_way_to_write_it() {
    assert!(INSIDE.len() >= 60, "{}", INSIDE.len());
    for mode in [Mode::Public, Mode::Listed] {
        let policy = policy(mode, &["broker.example", "8.8.8.8"]);
        for host in INSIDE {
            match policy.addresses(&names(), host, 80) {
                Err(Error::Denied { source, .. }) => assert!(source.special.is_some() || mode == Mode::Listed, "{host}: {source}"),
                other => panic!("{host}: {other:?}"),
            }
        }
        for host in NONE {
            let error = policy.addresses(&names(), host, 80).expect_err(host);
            assert!(matches!(error, Error::NoHost(_)) || matches!(error, Error::Unresolved { .. }), "{host:?}: {error}");
            assert!(Host::parse(host).is_none(), "{host:?}");
        }
    }
}

#[test]
fn what_is_on_the_internet_is_reached() {
    let policy = policy(Mode::Public, &[]);
    for (host, address) in [
        ("public.example", "93.184.215.14"),
        ("PUBLIC.example.", "93.184.215.14"),
        ("8.8.8.8", "8.8.8.8"),
        ("134744072", "8.8.8.8"),
        ("[2606:4700::1111]", "2606:4700::1111"),
        ("[64:ff9b::8.8.8.8]", "64:ff9b::808:808"),
        ("172.32.0.1", "172.32.0.1"),
        ("11.0.0.1", "11.0.0.1"),
        ("100.128.0.1", "100.128.0.1"),
        ("223.255.255.254", "223.255.255.254"),
    ] {
        let found = policy.addresses(&names(), host, 443).unwrap_or_else(|error| panic!("{host}: {error}"));
        assert_eq!(found, [SocketAddr::new(address.parse().expect("an address"), 443)], "{host}");
    }
}

/// A name that means something else the next time: what was checked is what is handed out, and what is handed out next is checked again.
#[test]
fn a_name_that_is_bound_again_is_checked_each_time_and_never_between() {
    let (policy, names) = (policy(Mode::Public, &[]), names());
    let first = policy.addresses(&names, "rebinding.example", 80).expect("outside");
    assert_eq!(first, ["93.184.215.14:80".parse().expect("an address")]);
    let second = policy.addresses(&names, "rebinding.example", 80).expect_err("inside by now");
    assert_eq!(second.to_string(), "the service does not connect to `rebinding.example`");
    assert!(matches!(second, Error::Denied { source: Denied { special: Some(Special::Loopback), .. }, .. }));
}

#[test]
fn what_the_operator_lists_is_reached_and_its_neighbour_is_not() {
    let policy = policy(Mode::Public, &["10.1.0.0/16", "127.0.0.1:9092", "inside.example:443", "[fd00::1]:9092", "192.168.7.7"]);
    let reaches = |host: &str, port: u16| policy.addresses(&names(), host, port).is_ok();
    for (host, port) in [
        ("10.1.255.255", 1),
        ("127.0.0.1", 9092),
        ("[::ffff:127.0.0.1]", 9092),
        ("0x7f000001", 9092),
        ("inside.example", 443),
        ("INSIDE.example.", 443),
        ("[fd00::1]", 9092),
        ("192.168.7.7", 1),
    ] {
        assert!(reaches(host, port), "{host}:{port}");
    }
    for (host, port) in [
        ("10.2.0.0", 1),
        ("127.0.0.1", 9093),
        ("127.0.0.2", 9092),
        ("inside.example", 80),
        ("10.0.0.7", 443),
        ("[fd00::2]", 9092),
        ("192.168.7.8", 1),
    ] {
        assert!(!reaches(host, port), "{host}:{port}");
    }
    let nothing_else = self::policy(Mode::Listed, &["8.8.8.8"]);
    assert!(nothing_else.addresses(&names(), "8.8.8.8", 53).is_ok());
    let denied = nothing_else.addresses(&names(), "8.8.4.4", 53).expect_err("not listed");
    assert!(matches!(denied, Error::Denied { source: Denied { special: None, .. }, .. }), "{denied}");
}

#[test]
fn an_open_policy_allows_everything_but_what_is_no_host() {
    let policy = Policy::default();
    assert!(policy.addresses(&names(), "localhost", 9092).is_ok() && policy.addresses(&names(), "169.254.169.254", 80).is_ok());
    assert!(policy.addresses(&names(), "[fe80::1%eth0]", 80).is_err());
    assert!(matches!(policy.addresses(&names(), "nobody.example", 80), Err(Error::Unresolved { .. })));
    assert!(matches!(policy.addresses(&names(), "nothing.example", 80), Err(Error::Unresolved { .. })));
}

#[test]
fn what_is_no_rule_is_refused() {
    for bad in ["", "10.0.0.0/33", "10.0.0.0/", "fd00::/129", "a/8", "a:b", "a:70000", "a b", "*", "http://a", "[::1]:", "::1:80:x"] {
        assert!(bad.parse::<Rule>().is_err(), "{bad}");
    }
    // The whole of a family, and a single address.
    assert_eq!("0.0.0.0/0".parse::<Rule>().expect("good"), Rule { place: Place::Network(Ipv4Addr::UNSPECIFIED.into(), 0), port: None });
    assert!(policy(Mode::Listed, &["0.0.0.0/0", "::/0"]).addresses(&names(), "mixed.example", 1).is_ok());
}
