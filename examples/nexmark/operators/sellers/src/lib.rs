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

/// What is known of one id, per window: the two streams do not wait for each other, so several windows may be open.
#[derive(State, Default)]
pub struct Seen {
    windows: Vec<Window>,
}

#[derive(Row)]
struct Window {
    start: i64,
    name: Option<String>,
    has_auction: bool,
    is_reported: bool,
}

impl Seen {
    /// The window of `time`; a new one is closed by its timer.
    fn at(&mut self, time: EventTime, window_end: &mut EventTimer) -> &mut Window {
        let start = time.0 - time.0.rem_euclid(WINDOW_MS);
        let index = self.windows.iter().position(|window| window.start == start).unwrap_or_else(|| {
            window_end.set(EventTime(start + WINDOW_MS - 1));
            self.windows.push(Window { start, name: None, has_auction: false, is_reported: false });
            self.windows.len() - 1
        });
        &mut self.windows[index]
    }
}

impl Window {
    /// Reports the person once both are known.
    fn report(&mut self, id: i64, output: &mut Out<NewSeller<'_>>) {
        if let (Some(name), true, false) = (&self.name, self.has_auction, self.is_reported) {
            output.push(NewSeller { id, name, window_start: Timestamp::new(self.start) });
            self.is_reported = true;
        }
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
        let window = seen.get_or_insert_default().at(time, window_end);
        window.name = Some(person.name.to_owned());
        window.report(person.id, output);
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
        let window = seen.get_or_insert_default().at(time, window_end);
        window.has_auction = true;
        window.report(seller, output);
    }

    #[on_timer(window_end)]
    fn on_window_end(&mut self, at: EventTime, seen: &mut Option<Seen>) {
        if let Some(open) = seen {
            open.windows.retain(|window| window.start + WINDOW_MS - 1 > at.0);
        }
        if seen.as_ref().is_some_and(|open| open.windows.is_empty()) {
            *seen = None;
        }
    }
}
