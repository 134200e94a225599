//! Nexmark query 8: persons who opened an auction in the 10 seconds in which they registered. A keyed co-process: whichever comes first waits
//! for the other until the window ends.

use millstream::{EventTime, EventTimer, Ms, Out, Row, State, Timestamp, Utc};

const WINDOW_MS: i64 = 10_000;

#[derive(Row)]
pub struct Person<'a> {
    pub id: i64,
    pub name: &'a str,
}

#[derive(Row, Debug, PartialEq)]
pub struct NewSeller<'a> {
    pub id: i64,
    pub name: &'a str,
    pub window_start: Timestamp<Ms, Utc>,
}

/// What is known of one id in its present window.
#[derive(State, Default)]
pub struct Seen {
    window_start: i64,
    name: Option<String>,
    has_auction: bool,
    is_reported: bool,
}

impl Seen {
    /// What was seen in the window of `time`; starts anew in another window.
    fn at(seen: &mut Option<Self>, time: EventTime) -> (&mut Self, bool) {
        let window_start = time.0 - time.0.rem_euclid(WINDOW_MS);
        let is_new = seen.as_ref().is_none_or(|seen| seen.window_start < window_start);
        if is_new {
            *seen = Some(Self { window_start, ..Self::default() });
        }
        (seen.as_mut().expect("just made if it was missing"), is_new)
    }
}

#[derive(Default)]
pub struct Sellers;

#[millstream::operator(keyed)]
impl Sellers {
    #[input]
    fn persons(
        &mut self,
        person: Person<'_>,
        time: EventTime,
        seen: &mut Option<Seen>,
        window_end: &mut EventTimer,
        output: &mut Out<NewSeller<'_>>,
    ) {
        let (seen, is_new) = Seen::at(seen, time);
        if is_new {
            window_end.set(EventTime(seen.window_start + WINDOW_MS - 1));
        }
        seen.name = Some(person.name.to_owned());
        if seen.has_auction && !seen.is_reported {
            seen.is_reported = true;
            output.push(NewSeller { id: person.id, name: person.name, window_start: Timestamp::new(seen.window_start) });
        }
    }

    #[input]
    fn auctions(
        &mut self,
        seller: i64,
        time: EventTime,
        seen: &mut Option<Seen>,
        window_end: &mut EventTimer,
        output: &mut Out<NewSeller<'_>>,
    ) {
        let (seen, is_new) = Seen::at(seen, time);
        if is_new {
            window_end.set(EventTime(seen.window_start + WINDOW_MS - 1));
        }
        seen.has_auction = true;
        if let (Some(name), false) = (&seen.name, seen.is_reported) {
            output.push(NewSeller { id: seller, name, window_start: Timestamp::new(seen.window_start) });
            seen.is_reported = true;
        }
    }

    #[on_timer(window_end)]
    fn on_window_end(&mut self, at: EventTime, seen: &mut Option<Seen>) {
        if seen.as_ref().is_some_and(|seen| seen.window_start + WINDOW_MS - 1 <= at.0) {
            *seen = None;
        }
    }
}
