//! What goes through the socket between the service and a runner: frames, each a length and so many bytes of JSON.
//!
//! ```text
//! frame   = length (u32, little endian) body
//! body    = from the service, first:  Setup                 never changed, so that versions that do not fit can tell
//!           from the runner, first:   Greeting
//!           from the service:         Asked    { id, request }
//!           from the runner:          Answered { id, done | failed }
//! ```
//! Answers come in any order. A frame that is longer than its direction allows, or is not understood, ends the conversation: what else the other side
//! says is not worth reading.

use std::io;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::message::Request;
use crate::failure::Failure;

/// The version of what is said here. A runner is the program of its service, so there is only one at a time; another one is refused.
pub(super) const PROTOCOL: u32 = 1;
/// Longest frame of the service: a job file and its secrets are small beside it.
pub(super) const REQUEST_BYTES_MAX: usize = 64 << 20;
/// Longest frame of a runner. An answer that would be longer is answered by a failure.
pub(super) const ANSWER_BYTES_MAX: usize = 32 << 20;

/// A request on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Asked {
    /// Names it until it is answered.
    pub(super) id: u64,
    /// What is asked.
    pub(super) request: Request,
}

/// An answer on its way.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Answered {
    /// Of which request.
    pub(super) id: u64,
    /// What came of it.
    pub(super) answer: Result<Value, Failure>,
}

/// A message as a frame.
pub(super) fn frame(message: &impl Serialize, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = bytes.len() - 4;
    let written = u32::try_from(length).ok().filter(|_| length <= bytes_max);
    let written =
        written.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, format!("{length} bytes are more than {bytes_max}")))?;
    bytes[..4].copy_from_slice(&written.to_le_bytes());
    Ok(bytes)
}

/// The length that the head of a frame says.
pub(super) fn length(head: [u8; 4], bytes_max: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_le_bytes(head)).ok().filter(|length| *length <= bytes_max);
    length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("a message is longer than {bytes_max} bytes")))
}

/// The message in a body.
pub(super) fn message<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(io::Error::from)
}

/// Reads a message; none: the other side has closed. Not cancel-safe.
pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    };
    // Not reserved before it is there: a length costs nothing to say.
    let (mut body, length) = (Vec::new(), length(head, bytes_max)?);
    let read = from.take(length as u64).read_to_end(&mut body).await?;
    if read < length { Ok(None) } else { message(&body).map(Some) }
}

/// Writes a frame.
pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    to.write_all(frame).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_from(bytes: &[u8], bytes_max: usize) -> io::Result<Option<Value>> {
        futures::executor::block_on(read(&mut &*bytes, bytes_max))
    }

    #[test]
    fn a_message_comes_as_it_was_sent() {
        let sent = json!({ "id": 7, "text": "ä\n" });
        let frame = frame(&sent, 100).expect("short");
        assert_eq!(read_from(&frame, 100).expect("whole"), Some(sent));
    }

    #[test]
    fn a_message_that_is_too_long_is_neither_sent_nor_read() {
        let long = frame(&json!("x".repeat(100)), 200).expect("short");
        assert_eq!(frame(&json!("x".repeat(100)), 99).expect_err("long").kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read_from(&long, 99).expect_err("long").kind(), io::ErrorKind::InvalidData);
        assert_eq!(read_from(&u32::MAX.to_le_bytes(), ANSWER_BYTES_MAX).expect_err("long").kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn what_is_cut_off_is_an_end_and_what_is_no_message_an_error() {
        let whole = frame(&json!([1, 2]), 100).expect("short");
        for length in 0..whole.len() {
            assert_eq!(read_from(&whole[..length], 100).expect("an end"), None, "{length}");
        }
        assert!(read_from(&[1, 0, 0, 0, b'{'], 100).is_err());
        // Deeper than anything that we say.
        assert!(read_from(&frame_of(&"[".repeat(100_000)), 1 << 20).is_err());
    }

    fn frame_of(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("short");
        [&length.to_le_bytes(), text.as_bytes()].concat()
    }

    /// A field more is a version more: it is refused, not passed over.
    #[test]
    fn an_answer_with_something_else_in_it_is_none() {
        assert!(message::<Answered>(br#"{"id":1,"answer":{"Ok":null}}"#).is_ok());
        assert!(message::<Answered>(br#"{"id":1,"answer":{"Ok":null},"more":1}"#).is_err());
        assert!(message::<Asked>(br#"{"id":1,"request":{"ask":"status","job":"a","more":1}}"#).is_err());
    }
}
