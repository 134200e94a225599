//! Follows each aircraft through its day: delays that are handed on, and flights that are not seen again.
//!
//! Rows of an aircraft come in the order of their event times (`order: event-time` in the job file).

use millstream::{EventTime, EventTimer, Ms, Out, Row, State, Timestamp, Utc};

const LATE_MINUTES: i64 = 15;
const HOUR_MS: i64 = 3_600_000;
/// An earlier arrival explains a late departure only for so long.
const KNOCK_ON_MS: i64 = 8 * HOUR_MS;
/// An alert is due when a flight has not arrived so long after its schedule.
const NOT_SEEN_MS: i64 = 3 * HOUR_MS;

#[derive(Row)]
pub struct Event<'a> {
    pub kind: &'a str,
    pub tailnum: Option<&'a str>,
    pub flight: &'a str,
    pub dest: &'a str,
    pub delay_minutes: i64,
    pub scheduled_arrival: Timestamp<Ms, Utc>,
}

/// A late departure that follows a late arrival of the same aircraft.
#[derive(Row, Debug, PartialEq)]
pub struct KnockOn {
    pub tailnum: Option<String>,
    pub arrived_flight: String,
    pub departed_flight: String,
    /// The smaller of the two delays.
    pub inherited_minutes: i64,
    pub hours_between: f64,
    pub departed: Timestamp<Ms, Utc>,
}

/// A flight that departed and was not seen to arrive.
#[derive(Row, Debug, PartialEq)]
pub struct Alert {
    pub tailnum: Option<String>,
    pub flight: String,
    pub dest: String,
    pub scheduled_arrival: Timestamp<Ms, Utc>,
}

/// What is remembered of an aircraft.
#[derive(State, Default)]
pub struct Aircraft {
    last_arrival: Option<Arrival>,
    /// Flights that departed and have not arrived.
    in_the_air: Vec<InTheAir>,
}

#[derive(Row)]
struct Arrival {
    flight: String,
    at: i64,
    delay_minutes: i64,
}

#[derive(Row)]
struct InTheAir {
    flight: String,
    dest: String,
    scheduled_arrival: i64,
}

#[derive(Default)]
pub struct Follow;

#[millstream::operator(keyed)]
impl Follow {
    fn process(
        &mut self,
        event: Event<'_>,
        time: EventTime,
        aircraft: &mut Aircraft,
        not_seen: &mut EventTimer,
        knock_ons: &mut Out<KnockOn>,
    ) {
        if event.kind == "departure" {
            if let Some(knock_on) = knock_on(&event, time, aircraft.last_arrival.as_ref()) {
                knock_ons.push(knock_on);
            }
            aircraft.in_the_air.push(InTheAir {
                flight: event.flight.to_owned(),
                dest: event.dest.to_owned(),
                scheduled_arrival: event.scheduled_arrival.value,
            });
            not_seen.set(EventTime(event.scheduled_arrival.value + NOT_SEEN_MS));
        } else {
            let scheduled_arrival = event.scheduled_arrival.value;
            aircraft.in_the_air.retain(|flight| flight.flight != event.flight || flight.scheduled_arrival != scheduled_arrival);
            if aircraft.in_the_air.iter().all(|flight| flight.scheduled_arrival != scheduled_arrival) {
                not_seen.delete(EventTime(scheduled_arrival + NOT_SEEN_MS));
            }
            aircraft.last_arrival = Some(Arrival { flight: event.flight.to_owned(), at: time.0, delay_minutes: event.delay_minutes });
        }
    }

    #[on_timer(not_seen)]
    fn on_not_seen(&mut self, tailnum: Option<&str>, at: EventTime, aircraft: &mut Aircraft, alerts: &mut Out<Alert>) {
        let due = at.0 - NOT_SEEN_MS;
        for flight in aircraft.in_the_air.extract_if(.., |flight| flight.scheduled_arrival == due) {
            alerts.push(Alert {
                tailnum: tailnum.map(str::to_owned),
                flight: flight.flight,
                dest: flight.dest,
                scheduled_arrival: Timestamp::new(due),
            });
        }
    }
}

fn knock_on(departure: &Event<'_>, time: EventTime, last: Option<&Arrival>) -> Option<KnockOn> {
    let last = last.filter(|last| last.delay_minutes >= LATE_MINUTES && time.0 - last.at <= KNOCK_ON_MS)?;
    (departure.delay_minutes >= LATE_MINUTES).then(|| KnockOn {
        tailnum: departure.tailnum.map(str::to_owned),
        arrived_flight: last.flight.clone(),
        departed_flight: departure.flight.to_owned(),
        inherited_minutes: last.delay_minutes.min(departure.delay_minutes),
        hours_between: (time.0 - last.at) as f64 / HOUR_MS as f64,
        departed: Timestamp::new(time.0),
    })
}
