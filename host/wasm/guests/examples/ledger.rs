//! Numbers the rows of each key and keeps what of a dozen of them looks random: a state of 96 bytes that no compression makes smaller.

use millstream::{Out, Row, State};

#[derive(Row)]
struct Numbered {
    value: i64,
    number: u64,
}

#[derive(State, Default)]
struct Account {
    number: u64,
    a: u64,
    b: u64,
    c: u64,
    d: u64,
    e: u64,
    f: u64,
    g: u64,
    h: u64,
    i: u64,
    j: u64,
    k: u64,
}

/// How often each value was seen so far.
#[millstream::operator(keyed)]
fn ledger(value: i64, account: &mut Account, out: &mut Out<Numbered>) {
    account.number += 1;
    let Account { number, a, b, c, d, e, f, g, h, i, j, k } = account;
    let mut random = (value as u64) << 20 | *number;
    for word in [a, b, c, d, e, f, g, h, i, j, k] {
        // SplitMix64 (Steele, Lea, Flood 2014).
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        *word = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    }
    out.push(Numbered { value, number: *number });
}
