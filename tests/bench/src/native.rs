//! The Nexmark queries in plain Rust on Arrow arrays: what a good programmer would write for one core, without a stream processor.
//!
//! They see the same batches as the engine and do the same query; no watermark logic beyond "time is ordered enough": a window closes when a
//! row comes that is later than its end. The yardstick against which the engine's ratios are printed.

use std::collections::HashMap;

use arrow_array::{Array, ArrayRef, Float64Array, Int64Array, StringArray, UInt32Array, cast::AsArray, types::Int64Type};
use hashbrown::{DefaultHashBuilder, HashMap as FastMap};
use millstream_model::Batch;

/// One query over batches of one or two streams.
pub trait Query {
    /// Handles one batch of input `input`; returns the number of rows emitted.
    fn on_batch(&mut self, input: usize, batch: &Batch) -> usize;
    /// Emits what is left.
    fn finish(&mut self) -> usize;
}

/// The native form of query `name`; none if there is none.
pub fn query(name: &str) -> Option<Box<dyn Query>> {
    Some(match name {
        "q0" => Box::new(Q0),
        "q1" => Box::new(Q1),
        "q2" => Box::new(Q2),
        "q5" => Box::<Q5>::default(),
        "q7" => Box::<Q7>::default(),
        "q8" => Box::<Q8>::default(),
        "q11" => Box::<Q11>::default(),
        "q12" => Box::<Q12>::default(),
        "q14" => Box::new(Q14),
        _ => return None,
    })
}

const WINDOW_MS: i64 = 10_000;
const SLIDE_MS: i64 = 2_000;

fn ints<'a>(batch: &'a Batch, name: &str) -> &'a [i64] {
    let column = batch.columns().column_by_name(name).expect("the query's columns are generated");
    column.as_primitive::<Int64Type>().values()
}

fn times(batch: &Batch) -> &[i64] {
    batch.event_times().expect("Nexmark events have event times")
}

fn strings<'a>(batch: &'a Batch, name: &str) -> &'a StringArray {
    batch.columns().column_by_name(name).expect("the query's columns are generated").as_string()
}

struct Q0;

impl Query for Q0 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        std::hint::black_box(batch.clone()).num_rows()
    }

    fn finish(&mut self) -> usize {
        0
    }
}

struct Q1;

impl Query for Q1 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        let prices: Float64Array = ints(batch, "price").iter().map(|&price| price as f64 * 0.908).collect::<Vec<_>>().into();
        std::hint::black_box(prices).len()
    }

    fn finish(&mut self) -> usize {
        0
    }
}

fn take(batch: &Batch, names: &[&str], rows: Vec<u32>) -> Vec<ArrayRef> {
    let rows = UInt32Array::from(rows);
    let column = |name: &&str| batch.columns().column_by_name(name).expect("the query's columns are generated");
    names.iter().map(|name| arrow_select::take::take(column(name), &rows, None).expect("row numbers are in range")).collect()
}

struct Q2;

impl Query for Q2 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        let auctions = ints(batch, "auction");
        let rows: Vec<u32> = (0..auctions.len() as u32).filter(|&row| auctions[row as usize] % 123 == 0).collect();
        std::hint::black_box(take(batch, &["auction", "price"], rows))[0].len()
    }

    fn finish(&mut self) -> usize {
        0
    }
}

/// Sliding count per auction by panes; the auctions with the highest count of each window.
#[derive(Default)]
struct Q5 {
    panes: HashMap<i64, FastMap<i64, u64, DefaultHashBuilder>>,
    fired: i64,
}

impl Q5 {
    fn fire_until(&mut self, time: i64) -> usize {
        let mut emitted = 0;
        let first = self.panes.keys().min().copied().unwrap_or(time);
        let mut end = self.fired.max(first) + SLIDE_MS;
        while end <= time && !self.panes.is_empty() {
            emitted += self.fire(end);
            self.panes.remove(&(end - WINDOW_MS));
            self.fired = end;
            end += SLIDE_MS;
        }
        emitted
    }

    fn fire(&self, end: i64) -> usize {
        let mut counts: FastMap<i64, u64, DefaultHashBuilder> = FastMap::default();
        for pane in (end - WINDOW_MS..end).step_by(SLIDE_MS as usize) {
            for (auction, count) in self.panes.get(&pane).into_iter().flatten() {
                *counts.entry(*auction).or_default() += count;
            }
        }
        let best = counts.values().max().copied().unwrap_or(0);
        std::hint::black_box(counts.iter().filter(|(_, count)| **count == best).count())
    }
}

impl Query for Q5 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        let (auctions, times) = (ints(batch, "auction"), times(batch));
        let mut emitted = 0;
        let mut row = 0;
        while row < times.len() {
            let pane = times[row] - times[row].rem_euclid(SLIDE_MS);
            emitted += self.fire_until(pane);
            let counts = self.panes.entry(pane).or_default();
            while row < times.len() && (pane..pane + SLIDE_MS).contains(&times[row]) {
                *counts.entry(auctions[row]).or_default() += 1;
                row += 1;
            }
        }
        emitted
    }

    fn finish(&mut self) -> usize {
        self.fire_until(i64::MAX - WINDOW_MS)
    }
}

/// The highest price of each tumbling window.
#[derive(Default)]
struct Q7 {
    window: i64,
    best: Option<i64>,
}

impl Query for Q7 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        let (prices, times) = (ints(batch, "price"), times(batch));
        let mut emitted = 0;
        let mut start = 0;
        while start < times.len() {
            let window = times[start] - times[start].rem_euclid(WINDOW_MS);
            if window > self.window {
                emitted += self.finish();
                self.window = window;
            }
            let count = times[start..].partition_point(|&time| time < window + WINDOW_MS).max(1);
            self.best = self.best.max(prices[start..start + count].iter().copied().max());
            start += count;
        }
        emitted
    }

    fn finish(&mut self) -> usize {
        usize::from(std::hint::black_box(self.best.take()).is_some())
    }
}

/// Persons who opened an auction in the window in which they registered. Input 0: persons, input 1: auctions.
#[derive(Default)]
struct Q8 {
    window: i64,
    persons: FastMap<i64, (String, bool), DefaultHashBuilder>,
    sellers: FastMap<i64, (), DefaultHashBuilder>,
}

impl Q8 {
    fn advance(&mut self, time: i64) {
        let window = time - time.rem_euclid(WINDOW_MS);
        if window > self.window {
            self.persons.clear();
            self.sellers.clear();
            self.window = window;
        }
    }

    fn on_person(&mut self, id: i64, name: &str) -> usize {
        let matched = self.sellers.contains_key(&id);
        self.persons.insert(id, (name.to_owned(), matched));
        usize::from(matched)
    }

    fn on_seller(&mut self, seller: i64) -> usize {
        match self.persons.get_mut(&seller) {
            Some((name, matched)) if !*matched => {
                *matched = true;
                std::hint::black_box(name.clone());
                1
            }
            Some(_) => 0,
            None => {
                self.sellers.insert(seller, ());
                0
            }
        }
    }
}

impl Query for Q8 {
    fn on_batch(&mut self, input: usize, batch: &Batch) -> usize {
        let times = times(batch);
        if input == 0 {
            let (ids, names) = (ints(batch, "id"), strings(batch, "name"));
            (0..times.len()).map(|row| (self.advance(times[row]), self.on_person(ids[row], names.value(row))).1).sum()
        } else {
            let sellers = ints(batch, "seller");
            (0..times.len()).map(|row| (self.advance(times[row]), self.on_seller(sellers[row])).1).sum()
        }
    }

    fn finish(&mut self) -> usize {
        0
    }
}

/// Session windows per bidder: gap 10 s.
#[derive(Default)]
struct Q11 {
    sessions: FastMap<i64, (i64, i64, u64), DefaultHashBuilder>,
    swept: i64,
}

impl Q11 {
    fn sweep(&mut self, until: i64) -> usize {
        let before = self.sessions.len();
        self.sessions.retain(|_, (_, last, _)| *last + WINDOW_MS > until);
        before - self.sessions.len()
    }
}

impl Query for Q11 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        let (bidders, times) = (ints(batch, "bidder"), times(batch));
        let mut emitted = 0;
        for (&bidder, &time) in bidders.iter().zip(times) {
            let session = self.sessions.entry(bidder).or_insert((time, time, 0));
            if session.1 + WINDOW_MS <= time {
                emitted += usize::from(std::hint::black_box(*session).2 > 0);
                *session = (time, time, 0);
            }
            session.1 = session.1.max(time);
            session.2 += 1;
        }
        if let Some(&time) = times.last()
            && time - self.swept >= WINDOW_MS
        {
            self.swept = time;
            emitted += self.sweep(time);
        }
        emitted
    }

    fn finish(&mut self) -> usize {
        self.sweep(i64::MAX)
    }
}

/// Count per bidder in tumbling windows.
#[derive(Default)]
struct Q12 {
    window: i64,
    counts: FastMap<i64, u64, DefaultHashBuilder>,
}

impl Query for Q12 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        let (bidders, times) = (ints(batch, "bidder"), times(batch));
        let mut emitted = 0;
        for (&bidder, &time) in bidders.iter().zip(times) {
            if time >= self.window + WINDOW_MS {
                emitted += self.finish();
                self.window = time - time.rem_euclid(WINDOW_MS);
            }
            *self.counts.entry(bidder).or_default() += 1;
        }
        emitted
    }

    fn finish(&mut self) -> usize {
        let bidders: Int64Array = self.counts.keys().copied().collect::<Vec<_>>().into();
        self.counts.clear();
        std::hint::black_box(bidders).len()
    }
}

/// Filter, a time-of-day word, and the number of `c` in `extra`.
struct Q14;

impl Query for Q14 {
    fn on_batch(&mut self, _: usize, batch: &Batch) -> usize {
        let (prices, times, extras) = (ints(batch, "price"), times(batch), strings(batch, "extra"));
        let euros = |row: u32| prices[row as usize] as f64 * 0.908;
        let rows: Vec<u32> =
            (0..prices.len() as u32).filter(|&row| (1_000_000.0..50_000_000.0).contains(&euros(row)) && euros(row) > 1_000_000.0).collect();
        let price: Float64Array = rows.iter().map(|&row| euros(row)).collect::<Vec<_>>().into();
        let word = |&row: &u32| match times[row as usize].div_euclid(3_600_000).rem_euclid(24) {
            8..=18 => "dayTime",
            ..=6 | 20.. => "nightTime",
            _ => "otherTime",
        };
        let kinds = StringArray::from_iter_values(rows.iter().map(word));
        let count = |&row: &u32| extras.value(row as usize).bytes().filter(|&byte| byte == b'c').count() as i64;
        let counts: Int64Array = rows.iter().map(count).collect::<Vec<_>>().into();
        let kept = take(batch, &["auction", "bidder", "date_time", "extra"], rows);
        std::hint::black_box((price, kinds, counts, kept)).0.len()
    }

    fn finish(&mut self) -> usize {
        0
    }
}
