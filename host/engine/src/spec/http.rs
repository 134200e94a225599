//! `http:` of an operator: that its component may send requests, and within which bounds.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{ByteSize, DurationMs};

/// What an operator's component may do over HTTP. Where to is decided by the egress rules of who runs the job.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct HttpSettings {
    /// Most requests on their way at once, those of all subtasks of the operator together. Default: 16; at most 256.
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: NonZeroU32,
    /// How long one try of a request may take. Default: 10s; at most 5m.
    pub timeout: DurationMs,
    /// How long one call of the component may wait for answers, with all its requests and tries; what is not answered by then has timed out.
    /// Checkpoints and swaps wait for it. Default: 1m; at most 10m.
    pub call_timeout: DurationMs,
    /// How often a request is tried, the first time included, that may be repeated. Default: 3; at most 10.
    #[schemars(range(min = 1, max = 10))]
    pub tries: NonZeroU32,
    /// Most bytes of one answer, its headers included. Default: 1 MiB; at most 16 MiB.
    pub response_bytes_max: ByteSize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            concurrency: NonZeroU32::new(16).expect("it is not zero"),
            timeout: DurationMs::from_ms(10_000),
            call_timeout: DurationMs::from_ms(60_000),
            tries: NonZeroU32::new(3).expect("it is not zero"),
            response_bytes_max: ByteSize::from_bytes(1 << 20),
        }
    }
}

impl HttpSettings {
    /// What is out of its range and no schema can say: key and one clause each.
    pub fn mistakes(&self) -> Vec<(&'static str, String)> {
        let duration = |key, value: DurationMs, most: DurationMs| {
            let is_within = (1..=most.as_ms()).contains(&value.as_ms());
            (!is_within).then(|| (key, format!("must be at least 1ms and at most {most}, found {value}")))
        };
        let bytes = self.response_bytes_max;
        let most = ByteSize::from_bytes(16 << 20);
        let size =
            (bytes > most || bytes < ByteSize::from_bytes(1)).then(|| format!("must be at least 1 byte and at most {most}, found {bytes}"));
        [
            duration("timeout", self.timeout, DurationMs::from_ms(300_000)),
            duration("call-timeout", self.call_timeout, DurationMs::from_ms(600_000)),
            size.map(|message| ("response-bytes-max", message)),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_that_bound_nothing_are_mistakes() {
        assert_eq!(HttpSettings::default().mistakes(), []);
        let settings = HttpSettings {
            timeout: DurationMs::from_ms(0),
            call_timeout: DurationMs::from_ms(600_001),
            response_bytes_max: ByteSize::from_bytes((16 << 20) + 1),
            ..HttpSettings::default()
        };
        let mistakes: Vec<&str> = settings.mistakes().into_iter().map(|(key, _)| key).collect();
        assert_eq!(mistakes, ["timeout", "call-timeout", "response-bytes-max"]);
    }
}
