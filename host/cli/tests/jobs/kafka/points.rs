//! The process dies at each step between the snapshot and the published commit, at the points of the engine and in the middle of each request that
//! a transaction is made of: before the broker has it, and when the broker has it and the process does not know.

use std::{
    sync::mpsc::{Receiver, sync_channel},
    time::Duration,
};

use millstream_broker::{
    Broker,
    proxy::{Fate, Kind, Proxy},
};

use super::{Topics, compare, until_all};
use crate::{
    binary::{Place, ended},
    running::Running,
};

/// Where the engine can be told to die, in the order of one checkpoint.
const POINTS: [&str; 8] = ["barrier", "snapshot", "upload", "manifest", "decided", "record", "collect", "publish"];
/// What a transaction is made of, in its order.
const REQUESTS: [Kind; 4] = [Kind::InitProducer, Kind::AddPartitions, Kind::Produce, Kind::EndTransaction];
/// Longer than anything takes until it comes to a point.
const LONG: Duration = Duration::from_secs(120);

/// Tells when the request number `count` of this kind is stuck; all others pass.
fn stuck_at(proxy: &Proxy, kind: Kind, count: u32, fate: Fate) -> Receiver<()> {
    let (tell, told) = sync_channel(1);
    let mut seen = 0;
    proxy.decide(move |asked| {
        seen += u32::from(asked == kind);
        if asked != kind || seen != count {
            return Fate::Passes;
        }
        // Nobody listens where the test has failed.
        let _told = tell.send(());
        fate
    });
    told
}

/// Dies while a request is stuck.
fn dies_at_request(copy: &Place, proxy: &Proxy, kind: Kind, count: u32, fate: Fate) {
    let stuck = stuck_at(proxy, kind, count, fate);
    let running = Running::start(&mut copy.run(&["--state", "state", "--quiet"]));
    stuck.recv_timeout(LONG).unwrap_or_else(|_| panic!("request {count} of {kind:?} did not come"));
    running.kill();
    proxy.decide(|_| Fate::Passes);
}

/// Dies at a point of the engine.
fn dies_at_point(copy: &Place, death: &str) {
    let died = ended(copy.run(&["--state", "state", "--quiet"]).env("MILLSTREAM_CRASH_AT", death));
    assert_eq!(died.code, None, "it was to die at {death}:\n{}", died.stderr);
}

#[test]
fn a_process_that_dies_at_any_step_of_a_commit_loses_and_repeats_nothing() {
    let rows = 40_000;
    let proxy = Proxy::start();
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::behind(directory.path(), &proxy);
    let topics = Topics::at(broker.address(), "points");
    let fill = topics.fill(rows, 1_000);
    let filling = Running::start(&mut fill.run(&["--quiet"]));
    let copy = topics.copy_through(&proxy.address().to_string(), Duration::from_secs(10));
    let mut deaths = 0;
    for point in POINTS {
        for count in 1..=2 {
            dies_at_point(&copy, &format!("{point}:{count}"));
            deaths += 1;
        }
    }
    for kind in REQUESTS {
        for fate in [Fate::Stuck, Fate::AnswerStuck] {
            // The claim initialises two ids and commits once; what follows belongs to checkpoints.
            let counts: &[u32] = if kind == Kind::InitProducer { &[1, 2] } else { &[1, 3] };
            for &count in counts {
                dies_at_request(&copy, &proxy, kind, count, fate);
                deaths += 1;
            }
        }
    }
    filling.ended().with_code(0);
    let last = Running::start(&mut copy.run(&["--state", "state", "--quiet"]));
    println!("kafka: died at {deaths} points");
    compare(&until_all(rows, || topics.seen()), rows, "a reader from the start");
    last.kill();
}
