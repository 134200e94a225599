//! Says when a key has been silent for 100 ms of event time, and how many rows it had before.

use millstream::{EventTime, EventTimer, Out, Row, State};

#[derive(State, Default)]
struct Heard {
    rows: i64,
    alarm: Option<i64>,
}

#[derive(Row)]
struct Silence {
    key: i64,
    rows: i64,
}

/// Each row moves the alarm; when it goes off, counting starts anew.
#[derive(Default)]
struct Silences;

#[millstream::operator(keyed)]
impl Silences {
    fn process(&self, time: EventTime, heard: &mut Heard, alarm: &mut EventTimer) {
        let at = time.0 + 100;
        if let Some(old) = heard.alarm.replace(at) {
            alarm.delete(old);
        }
        alarm.set(at);
        heard.rows += 1;
    }

    #[on_timer(alarm)]
    fn on_alarm(&self, key: i64, heard: &mut Heard, out: &mut Out<Silence>) {
        out.push(Silence { key, rows: heard.rows });
        *heard = Heard::default();
    }
}
