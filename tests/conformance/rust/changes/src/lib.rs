//! Conformance case `changes`. Changes in and out: a sum that is updated.

use millstream::{Change, Changelog, Row};

/// The points of a team.
#[derive(Row)]
pub struct Sum<'a> {
    team: &'a str,
    points: i64,
}

/// The sum of points per team, as a changelog.
#[millstream::operator(keyed)]
pub fn sum(team: &str, points: i64, change: Change, total: &mut Option<i64>, out: &mut Changelog<Sum<'_>>) {
    let delta = if change.adds() { points } else { -points };
    match total {
        None => {
            out.push(Change::Insert, Sum { team, points: delta });
            *total = Some(delta);
        }
        Some(before) if *before + delta == 0 => {
            out.push(Change::Delete, Sum { team, points: *before });
            *total = None;
        }
        Some(before) => {
            out.push(Change::UpdateBefore, Sum { team, points: *before });
            *before += delta;
            out.push(Change::UpdateAfter, Sum { team, points: *before });
        }
    }
}
