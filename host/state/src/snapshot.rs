//! What a snapshot of a store is outside of the store: files in a directory, and a description of what they hold.

use std::{ops::Range, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Names, types and versions of what the files of a snapshot hold: everything that is needed to read them again, also by another version of the
/// operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StoreDescription {
    /// Version of the layout of the files; readers refuse a newer one by name.
    pub format: u32,
}

/// A snapshot to restore from, in a local directory.
#[derive(Clone, Debug, PartialEq)]
pub struct SnapshotPart {
    /// Where its files are; the store may link to them, and leaves them as they are.
    pub directory: PathBuf,
    /// The key groups that it covers.
    pub key_groups: Range<u16>,
    /// What the files hold.
    pub description: StoreDescription,
}
