//! Keeps records by their first byte: bytes as they are, and nothing to decode.

/// Keeps what does not begin with `#`.
#[millstream::filter]
fn kept(value: &[u8]) -> bool {
    value.first() != Some(&b'#')
}
