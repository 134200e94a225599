//! A timer that sets itself again for the time at which it fired, for ever.

use millstream::{EventTime, EventTimer, Out, Row};

#[derive(Row)]
struct Seen {
    number: i64,
}

/// The first eight rows set the timer for their own time; every row is emitted.
#[derive(Default)]
struct Stuck;

#[millstream::operator(keyed)]
impl Stuck {
    fn process(&self, number: i64, time: EventTime, tick: &mut EventTimer, out: &mut Out<Seen>) {
        if number < 8 {
            tick.set(time);
        }
        out.push(Seen { number });
    }

    #[on_timer(tick)]
    fn on_tick(&self, at: EventTime, tick: &mut EventTimer) {
        tick.set(at);
    }
}
