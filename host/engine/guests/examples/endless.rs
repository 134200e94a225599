//! A timer that sets itself again, one millisecond later, for ever.

use millstream::{EventTime, EventTimer, Out, Row};

#[derive(Row)]
struct Tick {
    key: i64,
}

/// Ticks from the first row of a key on.
#[derive(Default)]
struct Endless;

#[millstream::operator(keyed)]
impl Endless {
    fn process(&self, time: EventTime, tick: &mut EventTimer) {
        tick.set(time.0 + 1);
    }

    #[on_timer(tick)]
    fn on_tick(&self, key: i64, at: EventTime, tick: &mut EventTimer, out: &mut Out<Tick>) {
        out.push(Tick { key });
        tick.set(at.0 + 1);
    }
}
