//! Tells when a sensor is hotter than ever before, and when it has been silent for an hour.

use millstream::{EventTime, EventTimer, Out, Row, State};

const AN_HOUR_MS: i64 = 60 * 60 * 1000;

/// The columns that the operator reads. The job says `key-by: [sensor]`, so the rows of one sensor come to one place, in order.
#[derive(Row)]
pub struct Reading {
    pub sensor: String,
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
pub struct Event {
    pub sensor: String,
    pub event: String,
    pub celsius: Option<f64>,
}

/// Tells when a sensor is hotter than ever before, and when it has been silent for an hour.
#[derive(Default)]
pub struct {{type}};

#[millstream::operator(keyed)]
impl {{type}} {
    fn process(&mut self, reading: Reading, at: EventTime, memory: &mut Memory, silent: &mut EventTimer, out: &mut Out<Event>) {
        if let Some(alarm_at) = memory.alarm_at {
            silent.delete(alarm_at);
        }
        let alarm_at = at.plus_ms(AN_HOUR_MS);
        silent.set(alarm_at);
        memory.alarm_at = Some(alarm_at.0);
        if reading.celsius > memory.hottest {
            memory.hottest = reading.celsius;
            out.push(Event { sensor: reading.sensor, event: "hottest".into(), celsius: reading.celsius });
        }
    }

    #[on_timer(silent)]
    fn on_silent(&mut self, sensor: String, memory: &mut Memory, out: &mut Out<Event>) {
        memory.alarm_at = None;
        out.push(Event { sensor, event: "silent".into(), celsius: None });
    }
}

#[cfg(test)]
mod tests {
    use millstream::testing::Harness;

    use super::*;

    #[test]
    fn silence_is_told_an_hour_after_the_last_reading() {
        let mut operator = Harness::<{{type}}>::new().key_by(["sensor"]);
        let reading = |celsius| Reading { sensor: "attic".into(), celsius: Some(celsius) };
        operator.rows_at([(0, reading(31.0)), (1000, reading(30.0))]);
        operator.watermark(1000 + AN_HOUR_MS - 1);
        let events: Vec<Event> = operator.output();
        assert_eq!(events, [Event { sensor: "attic".into(), event: "hottest".into(), celsius: Some(31.0) }]);
        operator.watermark(1000 + AN_HOUR_MS);
        let events: Vec<Event> = operator.output();
        assert_eq!(events, [Event { sensor: "attic".into(), event: "silent".into(), celsius: None }]);
    }
}
