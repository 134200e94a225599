//! Which sessions the rows of a batch belong to: pure.
//!
//! A row at t claims `[t, t + gap)`; claims of one key that overlap are one session. Rows exactly one gap apart do not overlap, so a row at
//! the end of a session begins a new one: the session may have fired already.

/// A session of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The number of its key.
    pub key: u32,
    /// The time of its first row.
    pub start: i64,
    /// The time of its last row + the gap.
    pub end: i64,
}

/// Sessions after a batch.
#[derive(Debug, PartialEq, Eq)]
pub struct Assigned {
    /// All sessions of the keys, by key, then by start.
    pub sessions: Vec<Session>,
    /// The session that each session from before is now in or part of.
    pub of_existing: Vec<u32>,
    /// The session of each row.
    pub of_row: Vec<u32>,
}

/// Rows of a batch: the number of their key, and their time.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// None: every row has key 0.
    pub keys: Option<&'a [u32]>,
    /// Event times.
    pub times: &'a [i64],
}

impl Rows<'_> {
    #[inline]
    fn key(&self, row: usize) -> u32 {
        self.keys.map_or(0, |keys| keys[row])
    }
}

/// Assigns rows to sessions; `existing` are those from before, by key, then by start.
pub fn assign(existing: &[Session], rows: Rows<'_>, keys: usize, gap_ms: i64) -> Assigned {
    match in_order(existing, rows, keys, gap_ms) {
        Some(assigned) => assigned,
        None => by_sorting(existing, rows, gap_ms),
    }
}

const NONE: u32 = u32::MAX;

/// The usual case, in one pass: every row continues the latest session of its key or begins a later one. None: it is another case.
fn in_order(existing: &[Session], rows: Rows<'_>, keys: usize, gap_ms: i64) -> Option<Assigned> {
    let mut sessions = existing.to_vec();
    // The session before each one, and the latest of each key.
    let mut before = Vec::with_capacity(existing.len());
    let mut latest = vec![NONE; keys];
    for (number, session) in existing.iter().enumerate() {
        before.push(std::mem::replace(&mut latest[session.key as usize], number as u32));
    }
    let mut of_row = Vec::with_capacity(rows.times.len());
    for (row, &time) in rows.times.iter().enumerate() {
        let key = rows.key(row);
        let last = latest[key as usize];
        let continues = match sessions.get_mut(last as usize) {
            None => false,
            Some(session) if time >= session.end => false,
            Some(session) if time + gap_ms <= session.start => return None,
            Some(session) => {
                session.end = session.end.max(time + gap_ms);
                session.start = session.start.min(time);
                let start = session.start;
                if sessions.get(before[last as usize] as usize).is_some_and(|before| before.end > start) {
                    return None;
                }
                true
            }
        };
        if !continues {
            latest[key as usize] = sessions.len() as u32;
            before.push(last);
            sessions.push(Session { key, start: time, end: time + gap_ms });
        }
        of_row.push(latest[key as usize]);
    }
    Some(by_key(sessions, existing.len(), of_row, keys))
}

/// Puts sessions in order of their keys; those of a key are in order of their starts already.
fn by_key(sessions: Vec<Session>, existing: usize, mut of_row: Vec<u32>, keys: usize) -> Assigned {
    let mut next = vec![0_u32; keys + 1];
    sessions.iter().for_each(|session| next[session.key as usize + 1] += 1);
    (0..keys).for_each(|key| next[key + 1] += next[key]);
    let mut place = Vec::with_capacity(sessions.len());
    for session in &sessions {
        place.push(next[session.key as usize]);
        next[session.key as usize] += 1;
    }
    let mut sorted = sessions.clone();
    sessions.into_iter().zip(&place).for_each(|(session, &place)| sorted[place as usize] = session);
    of_row.iter_mut().for_each(|session| *session = place[*session as usize]);
    place.truncate(existing);
    Assigned { sessions: sorted, of_existing: place, of_row }
}

/// Any case: all claims in order of time.
fn by_sorting(existing: &[Session], rows: Rows<'_>, gap_ms: i64) -> Assigned {
    let claims_of_rows = rows.times.iter().enumerate().map(|(row, &time)| Session { key: rows.key(row), start: time, end: time + gap_ms });
    let claims: Vec<Session> = existing.iter().copied().chain(claims_of_rows).collect();
    let mut order: Vec<u32> = (0..claims.len() as u32).collect();
    order.sort_unstable_by_key(|&claim| (claims[claim as usize].key, claims[claim as usize].start));
    let mut sessions: Vec<Session> = Vec::new();
    let mut session_of = vec![0; claims.len()];
    for claim_number in order {
        let claim = claims[claim_number as usize];
        match sessions.last_mut() {
            Some(session) if session.key == claim.key && claim.start < session.end => session.end = session.end.max(claim.end),
            _ => sessions.push(claim),
        }
        session_of[claim_number as usize] = sessions.len() as u32 - 1;
    }
    let of_row = session_of.split_off(existing.len());
    Assigned { sessions, of_existing: session_of, of_row }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GAP: i64 = 10;

    fn assign_all(existing: &[Session], rows: &[(u32, i64)]) -> Assigned {
        let (keys, times): (Vec<u32>, Vec<i64>) = rows.iter().copied().unzip();
        assign(existing, Rows { keys: Some(&keys), times: &times }, 3, GAP)
    }

    fn session(key: u32, start: i64, end: i64) -> Session {
        Session { key, start, end }
    }

    #[test]
    fn rows_nearer_than_the_gap_are_one_session() {
        assert_eq!(assign_all(&[], &[(0, 0), (0, 9)]).sessions, [session(0, 0, 19)]);
    }

    #[test]
    fn a_row_at_the_end_of_a_session_begins_a_new_one() {
        assert_eq!(assign_all(&[session(0, 0, 10)], &[(0, 10)]).sessions, [session(0, 0, 10), session(0, 10, 20)]);
    }

    #[test]
    fn a_row_between_two_sessions_merges_them() {
        let assigned = assign_all(&[session(0, 0, 10), session(0, 18, 28)], &[(0, 9)]);
        assert_eq!(assigned, Assigned { sessions: vec![session(0, 0, 28)], of_existing: vec![0, 0], of_row: vec![0] });
    }

    #[test]
    fn a_row_before_the_latest_session_is_a_session_of_its_own() {
        assert_eq!(assign_all(&[session(0, 50, 60)], &[(0, 20)]).sessions, [session(0, 20, 30), session(0, 50, 60)]);
    }

    proptest! {
        /// The sessions of all rows at once, found by sorting, are those found batch after batch in any order.
        #[test]
        fn the_order_of_rows_and_the_cut_of_batches_do_not_matter(rows in prop::collection::vec((0_u32..3, 0_i64..120), 1..40), cut in 0_usize..40) {
            let (head, tail) = rows.split_at(cut.min(rows.len()));
            let first = assign_all(&[], head);
            let second = assign_all(&first.sessions, tail);
            let mut at_once = rows.clone();
            at_once.sort_unstable();
            prop_assert_eq!(&second.sessions, &assign_all(&[], &at_once).sessions);
            for ((key, time), &session) in tail.iter().zip(&second.of_row) {
                let session = second.sessions[session as usize];
                prop_assert!(session.key == *key && session.start <= *time && *time < session.end);
            }
            for (before, &now) in first.sessions.iter().zip(&second.of_existing) {
                let session = second.sessions[now as usize];
                prop_assert!(session.key == before.key && session.start <= before.start && before.end <= session.end);
            }
        }

        #[test]
        fn both_ways_agree(rows in prop::collection::vec((0_u32..3, 0_i64..120), 1..40)) {
            let (keys, times): (Vec<u32>, Vec<i64>) = rows.iter().copied().unzip();
            let rows = Rows { keys: Some(&keys), times: &times };
            if let Some(assigned) = in_order(&[], rows, 3, GAP) {
                prop_assert_eq!(assigned, by_sorting(&[], rows, GAP));
            }
        }
    }
}
