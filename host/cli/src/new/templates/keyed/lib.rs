//! Tells when a sensor is hotter than ever before, and when it has been silent for an hour.

use millstream::{EventTime, EventTimer, Out, Row, State};

const AN_HOUR_MS: i64 = 60 * 60 * 1000;

/// The columns that the operator reads; the rows of one sensor come here in order, since the job says `key-by: [sensor]`.
#[derive(Row)]
pub struct Reading<'a> {
    pub sensor: &'a str,
    pub celsius: Option<f64>,
}

/// What is remembered of each sensor. The host keeps it, so it outlives this component.
#[derive(State, Default)]
pub struct Memory {
    hottest: Option<f64>,
    alarm_at: Option<i64>,
}

/// The rows that it emits.
#[derive(Row, Debug, PartialEq)]
pub struct Event<'a> {
    pub sensor: &'a str,
    pub event: &'a str,
    pub celsius: Option<f64>,
}

/// Tells when a sensor is hotter than ever before, and when it has been silent for an hour.
#[derive(Default)]
pub struct {{type}};

#[millstream::operator(keyed)]
impl {{type}} {
    fn process(&mut self, reading: Reading<'_>, at: EventTime, memory: &mut Memory, silent: &mut EventTimer, out: &mut Out<Event<'_>>) {
        if let Some(alarm_at) = memory.alarm_at {
            silent.delete(EventTime(alarm_at));
        }
        let alarm_at = at.plus_ms(AN_HOUR_MS);
        silent.set(alarm_at);
        memory.alarm_at = Some(alarm_at.0);
        if reading.celsius > memory.hottest {
            memory.hottest = reading.celsius;
            out.push(Event { sensor: reading.sensor, event: "hottest", celsius: reading.celsius });
        }
    }

    #[on_timer(silent)]
    fn on_silent(&mut self, sensor: &str, memory: &mut Memory, out: &mut Out<Event<'_>>) {
        memory.alarm_at = None;
        out.push(Event { sensor, event: "silent", celsius: None });
    }
}
