//! Numbers the rows of each key and keeps two kilobytes that look random beside the number: state that is larger than memory with few keys, and that
//! no compression makes smaller.

use millstream::{Out, Row, State};

#[derive(Row)]
struct Numbered {
    value: i64,
    number: u64,
}

#[derive(State, Default)]
struct Kept {
    number: u64,
    bytes: Vec<u8>,
}

const WORDS: u64 = 256;

/// How often each value was seen so far.
#[millstream::operator(keyed)]
fn hoard(value: i64, kept: &mut Kept, out: &mut Out<Numbered>) {
    kept.number += 1;
    let mut random = (value as u64) << 20 | kept.number;
    kept.bytes.clear();
    for _ in 0..WORDS {
        // Xorshift64 (Marsaglia 2003).
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        kept.bytes.extend_from_slice(&random.to_le_bytes());
    }
    out.push(Numbered { value, number: kept.number });
}
