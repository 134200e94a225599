//! Who may connect where: a mode, and what the operator allows beside it.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use millstream_model::ErrorKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    address::{self, Special},
    host::{self, Host},
};

/// What is allowed where no rule says more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everything: for who trusts every job.
    #[default]
    Open,
    /// The internet, and nothing of this machine and its networks.
    Public,
    /// Nothing.
    Listed,
}

/// What is allowed beside the mode: a network, an address or a name, perhaps with a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    place: Place,
    port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Network(IpAddr, u8),
    Name(String),
}

/// A policy as the operator writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// What is allowed where no rule says more. Default: open.
    pub mode: Mode,
    /// What is allowed beside it, as 10.1.2.0/24, 127.0.0.1:9092, [fd00::1]:9092, broker.internal or broker.internal:9092.
    pub allow: Vec<String>,
}

/// Where jobs may connect to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    mode: Mode,
    rules: Vec<Rule>,
}

/// Why a connection is not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Denied {
    /// Where it would have gone.
    pub address: IpAddr,
    /// What kind of place that is; none: an ordinary one, which nobody has listed.
    pub special: Option<Special>,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.special {
            Some(special) => write!(f, "{} is not allowed: it is {special}", self.address),
            None => write!(f, "{} is not allowed: it is not listed", self.address),
        }
    }
}

/// Why there is no address to connect to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no host.
    #[error("`{0}` is no host")]
    NoHost(String),
    /// It could not be resolved.
    #[error("`{name}` could not be resolved")]
    Unresolved {
        /// Which name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The policy does not allow it.
    #[error("the service does not connect to `{name}`")]
    Denied {
        /// What was named.
        name: String,
        /// Why.
        #[source]
        source: Denied,
    },
    /// A rule cannot be read.
    #[error("`{0}` is no rule: write a network, an address or a name, perhaps with a port")]
    NoRule(String),
}

impl Error {
    /// What a caller may do about it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoHost(_) | Self::Denied { .. } | Self::NoRule(_) => ErrorKind::Invalid,
            Self::Unresolved { .. } => ErrorKind::Unavailable,
        }
    }
}

/// Says what a name means.
pub trait Resolver {
    /// Its addresses.
    ///
    /// # Errors
    /// There are none, or nobody answers.
    fn resolve(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

impl FromStr for Rule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::NoRule(text.chars().take(200).collect());
        if let Some((address, prefix)) = text.split_once('/') {
            let Some(Host::Address(address)) = Host::parse(address) else { return Err(wrong()) };
            let most = if address.is_ipv4() { 32 } else { 128 };
            let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(wrong)?;
            return Ok(Self { place: Place::Network(address, prefix), port: None });
        }
        let (host, port) = match host::with_port(text) {
            Some((host, port)) => (host, Some(port)),
            None => (Host::parse(text).ok_or_else(wrong)?, None),
        };
        let place = match host {
            Host::Address(address) => Place::Network(address, if address.is_ipv4() { 32 } else { 128 }),
            Host::Name(name) => Place::Name(name),
        };
        Ok(Self { place, port })
    }
}

impl Rule {
    /// Whether it allows this; `name`: by which it was resolved, just now.
    fn allows(&self, name: Option<&str>, to: SocketAddr) -> bool {
        let is_place = match &self.place {
            Place::Network(network, prefix) => is_within(address::meant(to.ip()), *network, *prefix),
            Place::Name(allowed) => name == Some(allowed.as_str()),
        };
        is_place && self.port.is_none_or(|port| port == to.port())
    }
}

fn is_within(address: IpAddr, network: IpAddr, prefix: u8) -> bool {
    let top = |bits: u128, width: u8| bits.checked_shr(u32::from(width - prefix)).unwrap_or(0);
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => top(u128::from(u32::from(address)), 32) == top(u128::from(u32::from(network)), 32),
        (IpAddr::V6(address), IpAddr::V6(network)) => top(u128::from(address), 128) == top(u128::from(network), 128),
        _ => false,
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// A rule is none.
    pub fn read(settings: &Settings) -> Result<Self, Error> {
        Ok(Self { mode: settings.mode, rules: settings.allow.iter().map(|rule| rule.parse()).collect::<Result<_, _>>()? })
    }

    /// Whether everything is allowed.
    pub fn is_open(&self) -> bool {
        self.mode == Mode::Open
    }

    /// The names among its rules, with their ports: what they mean is resolved where they are used.
    pub fn names(&self) -> impl Iterator<Item = (&str, Option<u16>)> {
        self.rules.iter().filter_map(|rule| match &rule.place {
            Place::Name(name) => Some((name.as_str(), rule.port)),
            Place::Network(..) => None,
        })
    }

    /// Whether a connection to this address may be made; `name`: by which it was resolved, just now.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self, name: Option<&str>, to: SocketAddr) -> Result<(), Denied> {
        if self.is_open() || self.rules.iter().any(|rule| rule.allows(name, to)) {
            return Ok(());
        }
        let special = address::special(to.ip());
        if self.mode == Mode::Public && special.is_none() {
            return Ok(());
        }
        Err(Denied { address: to.ip(), special })
    }

    /// The addresses that a host means, each of which may be connected to. They are to be used as they are: whoever asks again may be told something else.
    ///
    /// # Errors
    /// It is no host, cannot be resolved, or one of its addresses is not allowed.
    pub fn addresses(&self, resolver: &impl Resolver, host: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let shown = || host.chars().take(200).collect::<String>();
        let (name, found) = match Host::parse(host).ok_or_else(|| Error::NoHost(shown()))? {
            Host::Address(address) => (None, vec![address]),
            Host::Name(name) => {
                let found = resolver.resolve(&name).map_err(|source| Error::Unresolved { name: shown(), source })?;
                (Some(name), found)
            }
        };
        if found.is_empty() {
            return Err(Error::Unresolved { name: shown(), source: io::Error::from(io::ErrorKind::NotFound) });
        }
        let checked = |address| {
            let to = SocketAddr::new(address, port);
            self.check(name.as_deref(), to).map(|()| to).map_err(|source| Error::Denied { name: shown(), source })
        };
        found.into_iter().map(checked).collect()
    }
}

#[cfg(test)]
mod tests;
