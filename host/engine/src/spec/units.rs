//! Durations and sizes as people write them: `20h`, `1m 30s`, `500ms`; `64MiB`, `1GiB`, `4096`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest duration a job file may name: 10,000 years. So sums with event times cannot overflow.
const DURATION_MS_MAX: u128 = 315_576_000_000_000;

/// One number with its unit, as a regular expression.
const DURATION_PART: &str = r"[0-9]+\s*(ms|msec|millis|s|sec|secs|second|seconds|m|min|mins|minute|minutes|h|hr|hrs|hour|hours|d|day|days|w|week|weeks|M|month|months|y|yr|year|years)";

/// A duration in whole milliseconds, written with units: `30s`, `20h`, `1m 30s`. At most 10,000 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DurationMs(i64);

impl DurationMs {
    /// This many milliseconds.
    pub const fn from_ms(ms: i64) -> Self {
        Self(ms)
    }

    /// In milliseconds; never negative when it was parsed.
    pub const fn as_ms(self) -> i64 {
        self.0
    }

    /// As a [`Duration`].
    pub fn as_duration(self) -> Duration {
        Duration::from_millis(self.0.unsigned_abs())
    }
}

impl FromStr for DurationMs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim() == "0" {
            return Ok(Self(0));
        }
        let expected = || format!("`{text}` is not a duration; write for example 500ms, 30s, 5m or 20h");
        let duration = humantime::parse_duration(text).map_err(|_| expected())?;
        if duration.subsec_nanos() % 1_000_000 != 0 {
            return Err(format!("`{text}` is finer than a millisecond"));
        }
        let ms = duration.as_millis();
        if ms > DURATION_MS_MAX {
            return Err(format!("`{text}` is longer than 10,000 years"));
        }
        i64::try_from(ms).map(Self).map_err(|_| expected())
    }
}

impl fmt::Display for DurationMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime::format_duration(self.as_duration()).fmt(f)
    }
}

impl Serialize for DurationMs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DurationMs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for DurationMs {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": format!(r"^\s*({DURATION_PART}\s*)+$|^\s*0\s*$"),
            "x-expected": "a duration such as 500ms, 30s, 5m or 20h"
        })
    }
}

/// A duration, or `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationOrOff {
    /// Off.
    Off,
    /// After this long.
    After(DurationMs),
}

impl DurationOrOff {
    /// The duration, unless off.
    pub fn duration(self) -> Option<Duration> {
        match self {
            Self::Off => None,
            Self::After(duration) => Some(duration.as_duration()),
        }
    }
}

impl<'de> Deserialize<'de> for DurationOrOff {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::After).map_err(|error: String| de::Error::custom(format!("{error}, or off")))
    }
}

impl JsonSchema for DurationOrOff {
    fn schema_name() -> Cow<'static, str> {
        "DurationOrOff".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": format!(r"^\s*({DURATION_PART}\s*)+$|^\s*0\s*$|^off$"),
            "x-expected": "a duration such as 30s, or off"
        })
    }
}

/// A number of bytes: `4096`, `64KiB`, `16MiB`, `1GiB`; `kB`, `MB` and `GB` are powers of 1,000.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

impl ByteSize {
    /// This many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    /// In bytes.
    pub fn as_bytes(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("`{text}` is not a size; write for example 256KiB, 64MiB or 1GiB");
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let scale = match unit.trim() {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            "kB" => 1_000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "TB" => 1_000_000_000_000,
            _ => return Err(expected()),
        };
        let number: u64 = number.parse().map_err(|_| expected())?;
        number.checked_mul(scale).map(Self).ok_or_else(expected)
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        match units.iter().find(|(scale, _)| self.0 >= *scale && self.0.is_multiple_of(*scale)) {
            Some((scale, unit)) => write!(f, "{} {unit}", self.0 / scale),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ByteSizeVisitor;
        impl de::Visitor<'_> for ByteSizeVisitor {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as 64MiB")
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(bytes))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }
        deserializer.deserialize_any(ByteSizeVisitor)
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "minimum": 0,
            "pattern": r"^\s*[0-9]+\s*(B|[KMGT]iB|[kMGT]B)?\s*$",
            "x-expected": "a size such as 256KiB, 64MiB or 1GiB"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_in_milliseconds_and_printed_with_units() {
        for (text, ms, shown) in [("20h", 72_000_000, "20h"), ("1m 30s", 90_000, "1m 30s"), ("5ms", 5, "5ms"), ("0", 0, "0s")] {
            let duration: DurationMs = text.parse().expect(text);
            assert_eq!((duration.as_ms(), duration.to_string().as_str()), (ms, shown));
        }
        for text in ["20", "-5s", "1us", "soon", "99999999999h"] {
            assert!(text.parse::<DurationMs>().is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_have_binary_and_decimal_units() {
        for (text, bytes, shown) in [("256KiB", 262_144, "256 KiB"), ("1GB", 1_000_000_000, "1000000000 bytes"), ("7", 7, "7 bytes")] {
            let size: ByteSize = text.parse().expect(text);
            assert_eq!((size.as_bytes(), size.to_string().as_str()), (bytes, shown));
        }
        for text in ["MiB", "1.5GiB", "1 gig", "99999999999TiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }
}
