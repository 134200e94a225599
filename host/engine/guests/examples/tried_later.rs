//! Says a while after each row of a key that it was there: timers on trial.

use millstream::{EventTime, EventTimer, Out, Row};

#[millstream::settings]
#[derive(Default)]
struct Settings {
    /// What it says in `by`.
    #[serde(default)]
    by: i64,
    /// How much later, in ms.
    #[serde(default)]
    later: i64,
}

#[derive(Row)]
struct There {
    key: i64,
    at: i64,
    by: i64,
}

#[derive(Default)]
struct TriedLater {
    settings: Settings,
}

#[millstream::operator(keyed)]
impl TriedLater {
    fn open(settings: Settings) -> Result<Self, String> {
        Ok(Self { settings })
    }

    fn process(&self, time: EventTime, there: &mut EventTimer) {
        there.set(time.0 + self.settings.later);
    }

    #[on_timer(there)]
    fn on_there(&self, key: i64, at: EventTime, out: &mut Out<There>) {
        out.push(There { key, at: at.0, by: self.settings.by });
    }
}
