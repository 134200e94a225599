//! Nexmark query 5, second half: of the counts of one window, the highest ones.

use millstream::{EventTime, EventTimer, Ms, Out, Row, State, Timestamp, Utc};

#[derive(Row)]
pub struct Count {
    pub auction: i64,
    pub bids: i64,
}

#[derive(Row, Debug, PartialEq)]
pub struct Hot {
    pub window_end: Timestamp<Ms, Utc>,
    pub auction: i64,
    pub bids: i64,
}

/// The highest count of a window so far, and who has it.
#[derive(State, Default)]
pub struct Highest {
    bids: i64,
    auctions: Vec<i64>,
}

#[derive(Default)]
pub struct Hottest;

#[millstream::operator(keyed)]
impl Hottest {
    fn process(&mut self, count: Count, time: EventTime, highest: &mut Option<Highest>, complete: &mut EventTimer) {
        let highest = highest.get_or_insert_with(|| {
            complete.set(time);
            Highest::default()
        });
        if count.bids > highest.bids {
            highest.bids = count.bids;
            highest.auctions.clear();
        }
        if count.bids == highest.bids {
            highest.auctions.push(count.auction);
        }
    }

    #[on_timer(complete)]
    fn on_complete(&mut self, window_end: Timestamp<Ms, Utc>, highest: &mut Option<Highest>, output: &mut Out<Hot>) {
        let Some(Highest { bids, auctions }) = highest.take() else { return };
        for auction in auctions {
            output.push(Hot { window_end, auction, bids });
        }
    }
}
