//! Keys under which windows lie in state: the user's key, then which of its panes or results.
//!
//! ```text
//! user's key, encoded | start of the pane or end of the window: i64, big-endian, sign bit flipped | kind: 00 pane, 01 emitted result
//! ```
//! Version 1; never changed, state lies on disk under them. They live in the key group of the user's key.

/// Bytes after the user's key.
const SUFFIX_BYTES: usize = 9;

/// What lies under a state key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Accumulators of the pane that starts then.
    Pane(i64),
    /// What was last emitted for the window that ends then.
    Emitted(i64),
}

/// The state key of a pane of a key.
pub fn of_pane(key: &[u8], start: i64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + SUFFIX_BYTES);
    append(&mut bytes, key, Part::Pane(start));
    bytes
}

/// Appends the state key of a part of a key.
pub fn append(bytes: &mut Vec<u8>, key: &[u8], part: Part) {
    let (time, kind) = match part {
        Part::Pane(start) => (start, 0),
        Part::Emitted(end) => (end, 1),
    };
    bytes.extend_from_slice(key);
    bytes.extend_from_slice(&((time as u64) ^ (1 << 63)).to_be_bytes());
    bytes.push(kind);
}

/// The user's key in a state key.
pub fn user_key(state_key: &[u8]) -> &[u8] {
    &state_key[..state_key.len() - SUFFIX_BYTES]
}

/// What lies under a state key that [`append`] made; none if it did not.
pub fn part(state_key: &[u8]) -> Option<Part> {
    let (&kind, rest) = state_key.split_last()?;
    let time = (u64::from_be_bytes(*rest.last_chunk()?) ^ (1 << 63)) as i64;
    match kind {
        0 => Some(Part::Pane(time)),
        1 => Some(Part::Emitted(time)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_key_is_the_key_then_its_part() {
        let mut bytes = Vec::new();
        append(&mut bytes, b"k", Part::Emitted(-1));
        assert_eq!(bytes, [b'k', 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]);
        assert_eq!(user_key(&bytes), b"k");
        assert_eq!(part(&bytes), Some(Part::Emitted(-1)));
        assert_eq!(part(&of_pane(b"", 1_000)), Some(Part::Pane(1_000)));
    }
}
