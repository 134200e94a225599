//! What a user may write under `http-push:`.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::settings::Period;

/// A source that requests are posted to.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Address and port. Port 0: any that is free, named in the log. Default: 127.0.0.1:8780.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// A larger body is refused. In bytes. Default: 8 MiB.
    pub max_body_bytes: usize,
    /// A longer line is bad. In bytes. Default: 1 MiB.
    pub max_record_bytes: usize,
    /// Request lines and headers are refused beyond this. In bytes, at least 8192. Default: 16 KiB.
    pub max_header_bytes: usize,
    /// Bodies that are being read or wait to be taken. In bytes. Default: 32 MiB.
    pub queue_bytes: usize,
    /// How long a request waits for room before it is sent away. Default: 1s.
    pub patience: Period,
    /// How long a body, or the headers of a request, may take to arrive. Default: 30s.
    pub timeout: Period,
    /// Connections at a time; more wait. Default: 256.
    pub max_connections: usize,
    /// How timestamps are written, by column; as for `files`.
    pub timestamp_formats: BTreeMap<String, String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8_780)),
            max_body_bytes: 8 << 20,
            max_record_bytes: 1 << 20,
            max_header_bytes: 16 << 10,
            queue_bytes: 32 << 20,
            patience: Period::ms(1_000),
            timeout: Period::ms(30_000),
            max_connections: 256,
            timestamp_formats: BTreeMap::new(),
        }
    }
}
