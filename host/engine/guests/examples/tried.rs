//! A running sum per key whose settings say what is wrong with it: what is tried beside itself.

use millstream::{Out, Reject, Row, State};

/// 0 is never.
#[millstream::settings]
#[derive(Default)]
struct Settings {
    /// What it says in `by`.
    #[serde(default)]
    by: i64,
    /// Numbers that it divides get a wrong sum, and the state stays right.
    #[serde(default)]
    wrong_every: i64,
    /// Numbers that it divides are added twice.
    #[serde(default)]
    twice_every: i64,
    /// The number that traps.
    #[serde(default)]
    trap_at: i64,
    /// The number at which it never comes back.
    #[serde(default)]
    loop_at: i64,
    /// The number that is rejected.
    #[serde(default)]
    reject_at: i64,
    /// The number at which the state becomes larger than a value may be.
    #[serde(default)]
    large_at: i64,
    /// Rounds of doing nothing, per row.
    #[serde(default)]
    rounds: u64,
}

#[derive(State, Default)]
struct Total {
    sum: i64,
    note: String,
}

#[derive(Row)]
struct Sum {
    key: i64,
    sum: i64,
    by: i64,
}

#[millstream::operator(keyed)]
fn tried(key: i64, number: i64, total: &mut Total, settings: &Settings, out: &mut Out<Sum>) -> Result<(), Reject> {
    let divides = |every: i64| every != 0 && number % every == 0;
    (0..settings.rounds).for_each(|round| {
        std::hint::black_box(round);
    });
    assert!(number == 0 || number != settings.trap_at, "a mistake");
    if number != 0 && number == settings.loop_at {
        loop {
            std::hint::black_box(number);
        }
    }
    if number != 0 && number == settings.reject_at {
        return Err(Reject::new("not this one"));
    }
    if number != 0 && number == settings.large_at {
        total.note = "x".repeat(2 << 20);
    }
    total.sum += if divides(settings.twice_every) { 2 * number } else { number };
    let sum = if divides(settings.wrong_every) { -1 } else { total.sum };
    out.push(Sum { key, sum, by: settings.by });
    Ok(())
}
