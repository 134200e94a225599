//! One row per flight becomes up to two events: it departed, it arrived.
//!
//! The file gives the scheduled departure as an instant and everything else as clock times and delays, so the arrival needs the destination's
//! time zone. A cancelled flight has no event, one whose arrival is unknown has one.

use chrono::{DateTime, Duration, NaiveTime, TimeZone, Utc as ChronoUtc};
use chrono_tz::Tz;
use millstream::{EventTime, Ms, Reject, Row, TimedOut, Timestamp, Utc};

/// A row of the flights file, with the time zone of its destination.
#[derive(Row)]
pub struct Flight<'a> {
    pub carrier: &'a str,
    pub flight: i64,
    pub tailnum: Option<&'a str>,
    pub origin: &'a str,
    pub dest: &'a str,
    /// Local clock time as HHMM; none: cancelled.
    pub dep_time: Option<i64>,
    pub dep_delay: Option<i64>,
    /// Local clock time at the destination as HHMM.
    pub sched_arr_time: Option<i64>,
    pub arr_delay: Option<i64>,
    /// IANA name, such as `America/Chicago`.
    pub tzone: Option<&'a str>,
}

/// What happened to an aircraft.
#[derive(Row, Debug, PartialEq)]
pub struct Event<'a> {
    /// `departure` or `arrival`.
    pub kind: &'a str,
    pub tailnum: Option<&'a str>,
    /// Carrier and number.
    pub flight: String,
    pub origin: &'a str,
    pub dest: &'a str,
    pub delay_minutes: i64,
    pub scheduled_arrival: Timestamp<Ms, Utc>,
}

/// Emits departure and arrival with their own event times. The row's event time is its scheduled departure.
#[millstream::flat_map]
pub fn events(row: Flight<'_>, scheduled: EventTime, output: &mut TimedOut<Event<'_>>) -> Result<(), Reject> {
    if row.dep_time.is_none() {
        return Ok(());
    }
    let dep_delay = row.dep_delay.ok_or("the flight departed, but its delay is missing")?;
    let scheduled_arrival = scheduled_arrival(&row, scheduled)?;
    let event = |kind, delay_minutes| Event {
        kind,
        tailnum: row.tailnum,
        flight: format!("{}{}", row.carrier, row.flight),
        origin: row.origin,
        dest: row.dest,
        delay_minutes,
        scheduled_arrival: Timestamp::new(scheduled_arrival.0),
    };
    output.push(minutes_after(scheduled, dep_delay), event("departure", dep_delay));
    if let Some(arr_delay) = row.arr_delay {
        output.push(minutes_after(scheduled_arrival, arr_delay), event("arrival", arr_delay));
    }
    Ok(())
}

fn minutes_after(time: EventTime, minutes: i64) -> EventTime {
    time.plus_ms(minutes * 60_000)
}

/// The first instant after the scheduled departure at which the clock at the destination shows `sched_arr_time`.
fn scheduled_arrival(row: &Flight<'_>, departure: EventTime) -> Result<EventTime, Reject> {
    let clock = row.sched_arr_time.ok_or("the scheduled arrival is missing")?;
    let zone = zone(row.dest, row.tzone)?;
    let shown = clock_time(clock).ok_or_else(|| format!("{clock} is not a clock time"))?;
    let departure = DateTime::from_timestamp_millis(departure.0).ok_or("the scheduled departure is out of range")?;
    let arrival =
        first_instant_showing(shown, zone, departure).ok_or_else(|| format!("the clock never shows {clock} after the departure"))?;
    Ok(EventTime(arrival.timestamp_millis()))
}

/// Airports in Puerto Rico and the Virgin Islands are not in the airports file; their clocks are four hours behind UTC all year.
fn zone(dest: &str, tzone: Option<&str>) -> Result<Tz, Reject> {
    match (tzone, dest) {
        (Some(name), _) => name.parse().map_err(|_| Reject::new(format!("{name} is not a time zone"))),
        (None, "SJU" | "BQN" | "STT" | "PSE") => Ok(Tz::America__Puerto_Rico),
        (None, _) => Err(Reject::new(format!("the time zone of {dest} is not known"))),
    }
}

fn clock_time(hhmm: i64) -> Option<NaiveTime> {
    let hhmm = u32::try_from(hhmm).ok()? % 2400;
    NaiveTime::from_hms_opt(hhmm / 100, hhmm % 100, 0)
}

fn first_instant_showing(clock: NaiveTime, zone: Tz, after: DateTime<ChronoUtc>) -> Option<DateTime<ChronoUtc>> {
    let today = after.with_timezone(&zone).date_naive();
    // Today, tomorrow, or the day after where a clock change skips the time.
    let days = (0..3).map(|days| today + Duration::days(days));
    let instants = days.flat_map(|day| {
        let shown = zone.from_local_datetime(&day.and_time(clock));
        [shown.earliest(), shown.latest()].into_iter().flatten()
    });
    instants.map(|instant| instant.with_timezone(&ChronoUtc)).find(|instant| *instant > after)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> DateTime<ChronoUtc> {
        text.parse().expect("a time in a test")
    }

    fn arrival(clock: i64, zone: Tz, after: &str) -> String {
        let shown = clock_time(clock).expect("a clock time in a test");
        first_instant_showing(shown, zone, utc(after)).expect("there is one").to_rfc3339()
    }

    #[test]
    fn a_flight_across_midnight_arrives_the_next_day() {
        assert_eq!(arrival(13, Tz::America__Chicago, "2013-01-02T03:59:00Z"), "2013-01-02T06:13:00+00:00");
    }

    #[test]
    fn a_clock_time_that_a_clock_change_skips_is_that_of_the_next_day() {
        assert_eq!(arrival(230, Tz::America__New_York, "2013-03-10T04:00:00Z"), "2013-03-11T06:30:00+00:00");
    }

    #[test]
    fn a_clock_time_that_is_shown_twice_is_the_first() {
        assert_eq!(arrival(130, Tz::America__New_York, "2013-11-03T03:00:00Z"), "2013-11-03T05:30:00+00:00");
    }

    #[test]
    fn an_unknown_airport_is_rejected() {
        assert_eq!(zone("XYZ", None), Err(Reject::new("the time zone of XYZ is not known")));
        assert_eq!(zone("SJU", None), Ok(Tz::America__Puerto_Rico));
    }
}
