//! Brokers go and come back, hosts are killed, and hosts that were thought dead go on: two readers of what is committed, one that is there all the
//! time and one that comes at the end, see every row once, each key in order.
//!
//! The one that is there all the time is Kafka's own.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Child, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use millstream_broker::{Broker, reader};
use serde_json::Value;

use super::{PATIENCE, Seen, Topics, compare, copied, doubled, now, until_all};
use crate::{
    binary::{Place, Random, is_soak},
    running::Silent,
};

/// The timeout of transactions.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Rows a second when all faults were suffered.
const FAST: u64 = 1_000_000;
/// Rows a second that are written then, whatever else the machine does.
const SLOWEST: u64 = 5_000;

/// Of the log of a process, when the test fails.
const LINES_SHOWN: usize = 200;

/// What is done to the process or its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The process is killed after a while, and started again.
    Kill,
    /// The broker is stopped as an operator does, and started again.
    BrokerStops,
    /// The broker is killed, and started again.
    BrokerDies,
    /// The broker is killed; before it is back, the process is killed as well.
    BothDie,
    /// The process stands still for twice the timeout of its transactions, then goes on.
    Pause,
    /// The process stands still, another one takes over, then it goes on.
    Zombie,
}

/// Of twenty faults.
const OF_TWENTY: [(Fault, usize); 6] =
    [(Fault::Kill, 12), (Fault::BrokerStops, 2), (Fault::BrokerDies, 2), (Fault::BothDie, 1), (Fault::Pause, 1), (Fault::Zombie, 2)];

/// The faults of a round, in an order of the seed's.
fn round(random: &mut Random) -> Vec<Fault> {
    let mut faults: Vec<Fault> = OF_TWENTY.iter().flat_map(|(fault, count)| vec![*fault; *count]).collect();
    for last in (1..faults.len()).rev() {
        let other = random.below(last as u64 + 1);
        faults.swap(last, usize::try_from(other).unwrap());
    }
    faults
}

/// Kafka's own reader, which listens from the beginning to the end.
struct Live {
    child: Child,
    heard: Arc<Heard>,
    listening: Option<JoinHandle<()>>,
}

/// The numbers by partition and offset, and word of more of them.
#[derive(Default)]
struct Heard {
    records: Mutex<BTreeMap<(i64, i64), u64>>,
    more: Condvar,
}

impl Heard {
    fn records(&self) -> MutexGuard<'_, BTreeMap<(i64, i64), u64>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Live {
    fn start(topics: &Topics) -> Self {
        let mut child = reader(&topics.address, &topics.output).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let heard = Arc::<Heard>::default();
        let noted = heard.clone();
        let listening = thread::spawn(move || {
            for (place, value) in lines.map_while(Result::ok).filter_map(|line| record(&line)) {
                // A reader that comes back reads some records again: at their places.
                let before = noted.records().insert(place, value);
                noted.more.notify_one();
                assert!(before.is_none_or(|before| before == value), "{place:?} was {before:?} and is {value}");
            }
        });
        Self { child, heard, listening: Some(listening) }
    }

    /// What it has heard, when there is more, or after a while.
    fn seen(&self) -> Seen {
        let mut seen = Seen::new();
        let waited = self.heard.more.wait_timeout(self.heard.records(), Duration::from_secs(1));
        let (records, _) = waited.unwrap_or_else(PoisonError::into_inner);
        records.iter().for_each(|((partition, _), value)| seen.entry(*partition).or_default().push(*value));
        seen
    }

    /// Ends it; a record that changed fails the test.
    fn end(mut self) {
        self.child.kill().unwrap();
        self.listening.take().unwrap().join().unwrap();
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        // Usually it has ended.
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// `Partition:P Offset:O {"value":…}`, by partition and offset; none: another line.
fn record(line: &str) -> Option<((i64, i64), u64)> {
    let (partition, rest) = line.strip_prefix("Partition:")?.split_once(char::is_whitespace)?;
    let (offset, value) = rest.strip_prefix("Offset:")?.split_once(char::is_whitespace)?;
    let value: Value = serde_json::from_str(value).unwrap();
    Some(((partition.parse().unwrap(), offset.parse().unwrap()), value["value"].as_u64().unwrap()))
}

/// A process, and the file that holds what it says: it may say much while its broker is gone.
struct Host {
    process: Silent,
    log: PathBuf,
}

impl Host {
    fn start(place: &Place, state: &str, log: &str) -> Self {
        let log = place.join(log);
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let process = Silent::start(place.run(&["--state", state, "--log", "info"]).stderr(file));
        Self { process, log }
    }

    /// What it has said so far.
    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits until it commits: from then on it is one that another may take over from.
    #[track_caller]
    fn has_begun(&mut self, place: &Place, state: &str) {
        let since = now();
        while place.says(&["checkpoint", "create", state]).code != Some(0) {
            self.goes_on_for(Duration::from_millis(50));
            assert!(since.elapsed() < PATIENCE, "it commits nothing: {}", self.said());
        }
    }

    /// Time goes by: this is what is tried, or something is waited for that no process says.
    #[track_caller]
    fn goes_on_for(&mut self, time: Duration) {
        let ended = self.process.ends_within(time);
        assert!(ended.is_none(), "it ended by itself: {ended:?}\n{}", self.said());
    }
}

/// The process that copies, its job directory, and its broker.
struct Battery<'a> {
    broker: &'a Broker,
    copy: Place,
    host: Host,
    state: String,
    random: Random,
    runs: u32,
}

/// What the last process said, when the test fails.
impl Drop for Battery<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let said = self.host.said();
            let lines: Vec<&str> = said.lines().collect();
            println!("the last lines of {}:\n{}", self.host.log.display(), lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n"));
        }
    }
}

impl Battery<'_> {
    fn next_host(&mut self) -> Host {
        self.runs += 1;
        Host::start(&self.copy, &self.state, &format!("log-{}", self.runs))
    }

    fn kill_and_start(&mut self) {
        // The directory is locked until the process is gone.
        self.host.process.kill();
        self.host = self.next_host();
    }

    fn suffer(&mut self, fault: Fault) {
        let before = self.random.time_up_to(Duration::from_secs(5));
        self.host.goes_on_for(before);
        match fault {
            Fault::Kill => self.kill_and_start(),
            Fault::BrokerStops => {
                self.broker.stop();
                self.broker.start_again();
            }
            Fault::BrokerDies => {
                self.broker.kill();
                self.broker.start_again();
            }
            Fault::BothDie => {
                self.broker.kill();
                self.kill_and_start();
                self.broker.start_again();
            }
            Fault::Pause => {
                self.host.process.signal("STOP");
                self.host.goes_on_for(2 * TIMEOUT);
                self.host.process.signal("CONT");
            }
            Fault::Zombie => self.is_replaced(),
        }
    }

    /// Another process takes over from a copy of the job directory, which is locked; the old one goes on and finds out.
    fn is_replaced(&mut self) {
        self.host.has_begun(&self.copy, &self.state);
        self.host.process.signal("STOP");
        let heir = format!("heir-{}", self.runs);
        copied(&self.copy.join(&self.state), &self.copy.join(&heir));
        self.state = heir;
        let mut heir = self.next_host();
        heir.has_begun(&self.copy, &self.state);
        let mut zombie = std::mem::replace(&mut self.host, heir);
        zombie.process.signal("CONT");
        let ended = zombie.process.ends_within(PATIENCE);
        assert!(ended.is_some_and(|code| code != Some(0)), "the zombie goes on: {ended:?}\n{}", zombie.said());
        assert!(zombie.said().contains("has taken over"), "{}", zombie.said());
    }
}

#[test]
fn brokers_that_go_hosts_that_die_and_zombies_lose_and_repeat_nothing() {
    let (rounds, rate, rows) = if is_soak() { (25, 2_500, 10_000_000) } else { (1, 500, 40_000) };
    // For one who looks for something in less time.
    let asked = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let (rounds, rows) = (asked("MILLSTREAM_ROUNDS").unwrap_or(rounds), asked("MILLSTREAM_ROWS").unwrap_or(rows));
    let mut random = Random::seeded("kafka brokers", 11);
    let directory = tempfile::tempdir().unwrap();
    let broker = Broker::start(directory.path(), &[]);
    let topics = Topics::at(broker.address(), "brokers");
    let live = Live::start(&topics);
    let fill = topics.fill_exactly(rows, rate);
    let mut filling = Host::start(&fill, "state", "log");
    let faults: Vec<Fault> = (0..rounds).flat_map(|_| round(&mut random)).collect();
    let copy = topics.copy_through(&topics.address, TIMEOUT);
    let host = Host::start(&copy, "state", "log-0");
    let mut battery = Battery { broker: &broker, copy, host, state: "state".into(), random, runs: 0 };
    for fault in &faults {
        battery.suffer(*fault);
    }
    // The pace was for the time of the faults.
    filling.process.kill();
    let fill = fill.set(format!("sources.numbers.sequence.rate={FAST}"));
    let mut filling = Host::start(&fill, "state", "log");
    let filled = filling.process.ends_within(Duration::from_secs(rows / SLOWEST) + PATIENCE);
    assert_eq!(filled, Some(Some(0)), "{}", filling.said());
    assert_eq!(doubled(&topics.seen_in(&topics.input)), [0; 0], "the job that fills has doubled rows");
    compare(&until_all(rows, || topics.seen()), rows, "a reader from the start");
    compare(&until_all(rows, || live.seen()), rows, "a reader that was there all the time");
    live.end();
    println!("kafka brokers: {} faults, {rows} ids: nothing lost, doubled or out of order, for either reader", faults.len());
}
