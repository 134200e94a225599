//! What a caller may act on. Module errors say what failed; their [`ErrorKind`] says what to do about it.

/// The stable classification of every error that leaves a crate; in text `invalid`, `not-found` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The user's input is wrong: change it.
    Invalid,
    /// The named thing does not exist.
    NotFound,
    /// The request does not fit the present status of the thing.
    Conflict,
    /// Something outside did not answer: try again.
    Unavailable,
    /// Bytes at rest are not what was written.
    Corrupt,
    /// User code in a component failed.
    Guest,
    /// A bug of ours.
    Internal,
}
