//! Every row counts once: numbered rows through a keyed count that lives in a component, killed many times.
//!
//! The reference is arithmetic. Row `n` has the key `n mod KEYS`, and the component emits how often it has seen the key. So for every key the counts
//! 1, 2, 3, … must each be there once: a row that was lost leaves a gap at the end, one that counted twice repeats a count or adds one, state that was
//! lost starts again at 1.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use millstream_job_tests::components;
use serde_json::Value;

use crate::binary::{Place, Random, is_soak, killed_after};

const KEYS: u64 = 997;

/// What was found wrong, and how much was right.
#[derive(Debug, Default)]
struct Account {
    rows: u64,
    lost: u64,
    duplicated: u64,
}

fn job(rows: u64, rate: u64) -> String {
    let last = rows - 1;
    let count = components::repository().join("examples/wordcount/rust/count/example-wordcount-count.wasm");
    format!(
        "job: accounting
checkpoints: {{ interval: 50ms }}
sources:
  numbers: {{ sequence: {{ to: {last}, rate: {rate} }} }}
operators:
  words: {{ input: numbers, compute: {{ word: \"cast(value % {KEYS} as varchar)\" }} }}
  counting: {{ input: words, key-by: [word], component: {{ path: {} }} }}
sinks:
  counts: {{ input: counting, files: {{ path: out/counts, format: ndjson }} }}
  kept: {{ input: numbers, files: {{ path: out/numbers, format: csv }} }}
",
        count.display()
    )
}

#[test]
fn no_row_is_lost_and_none_counts_twice_however_often_the_process_is_killed() {
    components::build();
    // So slow that it is not done before it was killed so often.
    let (kills, rows, rate) = if is_soak() { (1_000, 100_000_000, 60_000) } else { (30, 400_000, 20_000) };
    let place = Place::with(&job(rows, rate));
    let (survived, took) = killed(&place, kills);
    let (counts, numbers) = (counts(&place.join("out/counts"), rows), numbers(&place.join("out/numbers"), rows));
    println!(
        "accounting: {kills} kills, {survived} runs that had committed before they died, {} s; counts {counts:?}, numbers {numbers:?}",
        took.as_secs()
    );
    for account in [&counts, &numbers] {
        assert_eq!((account.rows, account.lost, account.duplicated), (rows, 0, 0));
    }
    assert!(survived > 0, "every process died before its first checkpoint: the test shows nothing");
}

/// Kills the job so often, then lets it end. How many runs had committed before they died, and how long it took.
fn killed(place: &Place, kills: u32) -> (u32, Duration) {
    let mut random = Random::seeded("accounting", 7);
    let longest = if is_soak() { Duration::from_secs(3) } else { Duration::from_millis(1_000) };
    #[expect(clippy::disallowed_methods, reason = "the duration is only shown")]
    let started = Instant::now();
    let (mut survived, mut log) = (0, String::new());
    for kill in 0..kills {
        let parallelism = (1 + kill % 3).to_string();
        let mut command = place.run(&["--state", "state", "--parallelism", &parallelism]);
        if let Some(ended) = killed_after(&mut command, random.time_up_to(longest)) {
            panic!("it ended by itself after {kill} kills: {:?}\n{}", ended.code, ended.stderr);
        }
        let now = fs::read_to_string(place.join("state/commit.log")).unwrap_or_default();
        // A claim leaves the first line and one of its own; every commit adds another.
        survived += u32::from(now != log && now.lines().count() > 2);
        log = now;
    }
    let fast = ["--state", "state", "--set", "sources.numbers.sequence.rate=100000000"];
    let ended = killed_after(&mut place.run(&fast), Duration::from_secs(3_600));
    ended.expect("an hour is enough").with_code(0);
    (survived, started.elapsed())
}

/// Every key's counts are 1, 2, 3, … up to the number of its rows.
fn counts(directory: &Path, rows: u64) -> Account {
    let mut seen: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    let mut account = Account::default();
    for line in lines(directory) {
        let row: Value = serde_json::from_str(&line).unwrap();
        let word: u64 = row["word"].as_str().unwrap().parse().unwrap();
        let count = usize::try_from(row["count"].as_u64().unwrap()).unwrap();
        let times = seen.entry(word).or_default();
        times.resize(times.len().max(count + 1), 0);
        times[count] += 1;
        account.rows += 1;
    }
    for key in 0..KEYS {
        // Rows with this key among 0..rows.
        let expected = usize::try_from((rows + KEYS - 1 - key) / KEYS).unwrap();
        let times = seen.remove(&key).unwrap_or_default();
        compare(&times, 1..=expected, &mut account);
    }
    assert!(seen.is_empty(), "keys that no row has: {seen:?}");
    account
}

/// Every number once.
fn numbers(directory: &Path, rows: u64) -> Account {
    let mut times = vec![0_u32; usize::try_from(rows).unwrap()];
    let mut account = Account::default();
    for line in lines(directory).filter(|line| line != "value") {
        times[line.parse::<usize>().unwrap()] += 1;
        account.rows += 1;
    }
    compare(&times, 0..=times.len() - 1, &mut account);
    account
}

fn compare(times: &[u32], expected: std::ops::RangeInclusive<usize>, account: &mut Account) {
    let beyond = times.iter().enumerate().filter(|(number, _)| !expected.contains(number)).map(|(_, times)| u64::from(*times)).sum::<u64>();
    account.duplicated += beyond;
    for number in expected {
        match times.get(number).copied().unwrap_or_default() {
            0 => account.lost += 1,
            times => account.duplicated += u64::from(times - 1),
        }
    }
}

/// The lines of all finished parts.
fn lines(directory: &Path) -> impl Iterator<Item = String> {
    let parts: Vec<_> = fs::read_dir(directory).unwrap().map(|part| part.unwrap()).collect();
    let visible = parts.into_iter().filter(|part| !part.file_name().to_string_lossy().starts_with('.'));
    visible.flat_map(|part| {
        use std::io::BufRead;
        std::io::BufReader::new(fs::File::open(part.path()).unwrap()).lines().map(Result::unwrap)
    })
}
