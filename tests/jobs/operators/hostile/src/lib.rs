//! An operator that does what its settings say, all of it hostile: what no plain compiler would make is in `tests/hostile`, this is what any can.

use std::{cell::Cell, collections::BTreeMap};

use millstream::{EventTime, EventTimer, ListState, MapState, Out, ProcessingTimer, Row, State, metrics::Counter};

/// What it does.
#[millstream::settings]
pub struct Settings {
    /// One of the names in `process`.
    what: String,
    /// How often, where that means something.
    #[serde(default)]
    times: u64,
}

/// What it keeps of a key.
#[derive(State, Default)]
pub struct Kept {
    count: u64,
    text: String,
}

/// What it emits.
#[derive(Row)]
pub struct Seen {
    value: i64,
    count: u64,
}

/// Panics when it is dropped.
struct Fragile;

impl Drop for Fragile {
    fn drop(&mut self) {
        panic!("dropped");
    }
}

static CALLS: Counter = Counter::new("hostile_calls", "1");

thread_local! {
    /// What the instance remembers, though it may be gone at any batch.
    static REMEMBERED: Cell<u64> = const { Cell::new(0) };
}

/// The operator.
pub struct Hostile {
    what: String,
    times: u64,
    hoard: BTreeMap<u64, Vec<u8>>,
}

#[millstream::operator(keyed)]
impl Hostile {
    fn open(settings: Settings) -> Result<Self, String> {
        match settings.what.as_str() {
            "panic in open" => panic!("it was told not to open"),
            "refuse to open" => Err("no\n2026-01-01T00:00:00Z ERROR forged by the guest\u{7}".to_owned()),
            _ => Ok(Self { what: settings.what, times: settings.times, hoard: BTreeMap::new() }),
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything that an operator can have")]
    fn process(
        &mut self,
        value: i64,
        time: EventTime,
        kept: &mut Kept,
        map: &mut MapState<i64, String>,
        list: &mut ListState<i64>,
        alarm: &mut EventTimer,
        wake: &mut ProcessingTimer,
        out: &mut Out<Seen>,
    ) {
        kept.count += 1;
        match self.what.as_str() {
            "answer" => {}
            "call the host" => (0..self.times).for_each(|_| CALLS.add(1.0)),
            "say much" => {
                let line = "\u{1b}[2J\n2026-01-01T00:00:00Z ERROR forged by the guest \u{202e}\0".repeat(1 << 14);
                (0..self.times).for_each(|_| millstream::error!("{line}"));
            }
            "hoard" => {
                let number = self.hoard.len() as u64;
                self.hoard.insert(number, vec![7; 1 << 20]);
            }
            "large value" => kept.text = "x".repeat(2 << 20),
            "large map" => (0..self.times).for_each(|number| map.insert(number as i64, "x".repeat(1 << 10))),
            "long list" => (0..self.times).for_each(|number| list.push(number as i64)),
            "set timers at one instant" => alarm.set(EventTime(1 << 40)),
            "set many timers" => (0..self.times).for_each(|number| alarm.set(EventTime(time.0 + 1 + number as i64))),
            "set timer again and again" => alarm.set(time),
            "wake at once and again" => wake.set(0),
            "emit much" => (0..self.times).for_each(|count| out.push(Seen { value, count })),
            "be slow" => (0..self.times).for_each(|spin| {
                std::hint::black_box(spin);
            }),
            "trap at 7" => assert_ne!(value % 100, 7, "a number that it does not like"),
            "panic in a destructor" => drop(Fragile),
            "answer differently" => {
                let remembered = REMEMBERED.get() + 1;
                REMEMBERED.set(remembered);
                kept.count = remembered;
                // Whoever is asked again remembers nothing.
                assert!(!remembered.is_multiple_of(3), "the third time");
            }
            other => panic!("`{other}` is nothing that it does"),
        }
        out.push(Seen { value, count: kept.count });
    }

    #[on_timer(alarm)]
    fn on_alarm(&mut self, at: EventTime, kept: &mut Kept, alarm: &mut EventTimer, out: &mut Out<Seen>) {
        if self.what == "set timer again and again" {
            alarm.set(at);
        }
        out.push(Seen { value: at.0, count: kept.count });
    }

    #[on_timer(wake)]
    fn on_wake(&mut self, at: EventTime, kept: &mut Kept, wake: &mut ProcessingTimer, out: &mut Out<Seen>) {
        wake.set(at);
        out.push(Seen { value: at.0, count: kept.count });
    }
}
