//! Conformance case `keyed-count`. A count per key that expires by an event-time timer.

use millstream::{EventTime, EventTimer, Out, Row, State};

/// What is known of a word.
#[derive(State, Default)]
pub struct Seen {
    count: u64,
    /// When the count expires; none: no timer is set.
    expires: Option<i64>,
}

/// How often a word was seen.
#[derive(Row)]
pub struct Count<'a> {
    word: &'a str,
    count: u64,
}

/// Counts words; a word that is not seen for 100 ms of event time starts anew.
#[derive(Default)]
pub struct KeyedCount;

#[millstream::operator(keyed)]
impl KeyedCount {
    fn process(&self, word: &str, time: EventTime, seen: &mut Seen, expiry: &mut EventTimer, counts: &mut Out<Count<'_>>) {
        let expires = seen.expires.map_or(time.0, |at| at - 100).max(time.0) + 100;
        if let Some(at) = seen.expires.replace(expires) {
            expiry.delete(at);
        }
        expiry.set(expires);
        seen.count += 1;
        counts.push(Count { word, count: seen.count });
    }

    #[on_timer(expiry)]
    fn expire(&self, word: &str, at: EventTime, seen: &mut Seen, expired: &mut Out<Count<'_>>) {
        if seen.expires == Some(at.0) {
            expired.push(Count { word, count: seen.count });
            *seen = Seen::default();
        }
    }
}
