//! smoke
use millstream::{EventTime, EventTimer, ListState, MapState, Out, Reject, Row, State};

#[derive(Row)]
struct Bid<'a> { url: &'a str, price: i64, bidder: Option<i64> }

mod a {
    use super::*;
    #[millstream::filter]
    pub fn keep(row: Bid<'_>) -> bool { row.price > 10 && row.url.len() > 2 && row.bidder.is_some() }
}
mod b {
    use super::*;
    #[derive(Row)]
    pub struct Euro { euro: f64 }
    #[millstream::map]
    pub fn convert(price: i64) -> Euro { Euro { euro: price as f64 * 0.908 } }
}
mod c {
    use super::*;
    #[derive(Row)]
    pub struct Flight { pub tailnum: Option<String>, pub origin: String, pub dep_delay: Option<f64> }
    #[derive(State, Default)]
    pub struct Aircraft { flights: u64, worst_delay: f64 }
    #[derive(Row)]
    pub struct Alert { delay: f64 }
    #[millstream::operator(keyed)]
    pub fn worst_delay(flight: Flight, aircraft: &mut Aircraft, out: &mut Out<Alert>) -> Result<(), Reject> {
        let delay = flight.dep_delay.ok_or("no delay")?;
        aircraft.flights += 1;
        if delay > aircraft.worst_delay { aircraft.worst_delay = delay; out.push(Alert { delay }); }
        let _ = (flight.tailnum, flight.origin);
        Ok(())
    }
}
mod d {
    use super::*;
    #[derive(Default)]
    pub struct Missing;
    #[derive(Row)]
    pub struct Alert<'a> { word: &'a str, at: i64 }
    #[millstream::operator(keyed)]
    impl Missing {
        fn process(&mut self, word: &str, time: EventTime, count: &mut u64, missing: &mut EventTimer, seen: &mut MapState<i64, String>, all: &mut ListState<String>, out: &mut Out<Alert<'_>>) {
            *count += 1;
            missing.set(time.plus_ms(100));
            seen.insert(time.0, word.to_owned());
            all.push(word.to_owned());
            out.push(Alert { word, at: time.0 });
        }
        #[on_timer(missing)]
        fn gone(&mut self, word: &str, at: EventTime, count: &mut u64, out: &mut Out<Alert<'_>>) {
            let _ = count;
            out.push(Alert { word, at: at.0 });
        }
    }
}
#[test]
fn x() {}
