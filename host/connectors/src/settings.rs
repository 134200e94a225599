//! What all connectors' settings share: reading them, and the shapes that several of them use.

use std::{str::FromStr, time::Duration};

use millstream_engine::connector::SettingsProblem;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de::DeserializeOwned, de::Error as _};
use serde_json::Value;

/// Reads the settings that stand under a connector's key.
///
/// # Errors
/// The first thing that does not fit, with its place.
pub fn read<T: DeserializeOwned>(settings: &Value) -> Result<T, Vec<SettingsProblem>> {
    // `nexmark:` with nothing behind it asks for the defaults.
    let settings = if settings.is_null() { &Value::Object(serde_json::Map::new()) } else { settings };
    serde_path_to_error::deserialize(settings).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        vec![SettingsProblem { path, message: error.inner().to_string() }]
    })
}

/// A mistake at a place below the connector's key.
pub fn problem(path: &str, message: impl Into<String>) -> SettingsProblem {
    SettingsProblem { path: path.to_owned(), message: message.into() }
}

/// A length of time such as `200ms`, `1s` or `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct Period(pub Duration);

impl Period {
    /// So many milliseconds.
    pub const fn ms(ms: u64) -> Self {
        Self(Duration::from_millis(ms))
    }

    /// In milliseconds; a period too long for 64 bits is as long as they hold.
    pub fn as_ms(self) -> i64 {
        i64::try_from(self.0.as_millis()).unwrap_or(i64::MAX)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text)
            .map(Self)
            .map_err(|_| D::Error::custom(format!("`{text}` is no length of time such as 200ms or 1s")))
    }
}

/// One text or several.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several, in order.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them, in order.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// One ASCII character, as CSV's delimiter and quote are; `\t` may be written `tab`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(with = "String")]
pub struct AsciiCharacter(pub u8);

impl FromStr for AsciiCharacter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.as_bytes() {
            b"tab" | b"\\t" => Ok(Self(b'\t')),
            [byte] if byte.is_ascii() && !matches!(byte, b'\n' | b'\r') => Ok(Self(*byte)),
            _ => Err(format!("`{text}` is not one ASCII character (or `tab`)")),
        }
    }
}

impl<'de> Deserialize<'de> for AsciiCharacter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}
