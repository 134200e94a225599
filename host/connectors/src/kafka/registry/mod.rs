//! Confluent Schema Registry: values that say by a number which schema they were written in.
//!
//! *Wire format*: a byte 0, the id of the schema in 4 bytes (most significant first), then the value; between id and a message of Protocol Buffers
//! stands which message of the file it is. [`Client`] asks a registry (or another one that
//! speaks its protocol) and remembers what it said; [`RegisteredSchemas`] reads values, each in the schema that it names; a sink registers what it
//! writes, before its first row. The registry is asked once per id and never per row.

mod client;
mod schema;
mod source;
#[cfg(test)]
mod tests;

pub use client::{Client, Failed, Kind, Registered};
pub use schema::{ValueSchema, latest};
pub use source::RegisteredSchemas;

use millstream_engine::connector::SettingsProblem;
use schemars::JsonSchema;
use serde::Deserialize;

use super::connection::{Machine, Pem, Secret};
use crate::settings::{Period, problem};

/// How a registry is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Registry {
    /// Where it is, such as `https://registry.example.org:8081`.
    pub url: String,
    /// Who we are, where it asks. Default: nobody.
    pub username: Option<String>,
    /// The password: `${env:NAME}`, `${file:PATH}`, or in the service `${secret:NAME}`.
    pub password: Option<Secret>,
    /// PEM certificates of the authorities to trust, besides those of the system.
    pub ca: Option<Pem>,
    /// How long an answer may take, 100ms to 5m. Default: 10s.
    #[serde(default = "default_timeout")]
    pub timeout: Period,
    /// The subject. Default: the name of the topic and `-value`.
    pub subject: Option<String>,
    /// Sinks: whether a schema that the subject does not have is registered; otherwise it must be there. Default: true.
    pub register: Option<bool>,
}

fn default_timeout() -> Period {
    Period::ms(10_000)
}

impl Registry {
    /// Reports what is wrong, and what may not be named on this machine.
    pub fn check(&self, machine: Machine, problems: &mut Vec<SettingsProblem>) {
        let url = self.url.parse::<reqwest::Url>();
        if !url.is_ok_and(|url| {
            matches!(url.scheme(), "http" | "https") && url.has_host() && url.username().is_empty() && url.query().is_none()
        }) {
            let text = "is no address such as https://registry.example.org:8081 (name and password stand in `username` and `password`)";
            problems.push(problem("schema-registry.url", text));
        }
        if !(100..=300_000).contains(&self.timeout.as_ms()) {
            problems.push(problem("schema-registry.timeout", "is 100ms to 5m"));
        }
        if self.username.is_some() != self.password.is_some() {
            problems.push(problem("schema-registry", "`username` and `password` belong together"));
        }
        if machine == Machine::Shared {
            if self.ca.as_ref().is_some_and(|ca| !ca.is_text()) {
                problems
                    .push(problem("schema-registry.ca", "is PEM text here, such as `${secret:NAME}`: a job of the service reads no files"));
            }
            if self.password.as_ref().is_some_and(Secret::names_machine) {
                problems.push(problem("schema-registry.password", "is a secret of the service here: write `${secret:NAME}`"));
            }
        }
    }

    /// The subject of the values of a topic.
    pub fn subject_of(&self, topic: &str) -> String {
        self.subject.clone().unwrap_or_else(|| format!("{topic}-value"))
    }
}

/// Bytes in front of a value.
pub const FRAME_BYTES: usize = 5;

/// The id of the schema that a value names, and the value behind it.
///
/// # Errors
/// The value was not written so; a clause.
pub fn unframed(value: &[u8]) -> Result<(u32, &[u8]), String> {
    match value {
        [0, a, b, c, d, rest @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), rest)),
        [0, ..] | [] => Err(format!("the value has {} bytes, and the id of its schema alone takes {FRAME_BYTES}", value.len())),
        [first, ..] => Err(format!(
            "the value begins with {first:#04x} and not with 0 and the id of a schema: it was written without registry, read it without `schema-registry`"
        )),
    }
}

/// Appends what stands in front of a value.
pub fn frame(id: u32, out: &mut Vec<u8>) {
    out.push(0);
    out.extend_from_slice(&id.to_be_bytes());
}

/// Numbers of messages within messages.
const INDEXES_MAX: usize = 16;

/// Which message of the file a value is, and the value behind that.
///
/// # Errors
/// The value was not written so; a clause.
pub fn unindexed(value: &[u8]) -> Result<(Vec<usize>, &[u8]), String> {
    let (mut left, mut indexes) = (value, Vec::new());
    let mut next = || {
        let mut number = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let (&byte, rest) = left.split_first().ok_or("the value ends before it says which message it is")?;
            left = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // Zigzag, though none is negative.
                return Ok((number >> 1) as usize);
            }
        }
        Err("the value says no sensible number of a message".to_owned())
    };
    let count = next()?;
    if count > INDEXES_MAX {
        return Err(format!("the value is a message {count} deep, more than {INDEXES_MAX}"));
    }
    for _ in 0..count {
        indexes.push(next()?);
    }
    // The first message of the file is the usual one.
    Ok((if indexes.is_empty() { vec![0] } else { indexes }, left))
}

/// Appends which message of the file a value is.
pub fn index(indexes: &[usize], out: &mut Vec<u8>) {
    let mut number = |number: usize| {
        let mut left = (number as u64) << 1;
        while left >= 0x80 {
            out.push(left as u8 | 0x80);
            left >>= 7;
        }
        out.push(left as u8);
    };
    match indexes {
        [0] => number(0),
        indexes => {
            number(indexes.len());
            indexes.iter().for_each(|&index| number(index));
        }
    }
}
