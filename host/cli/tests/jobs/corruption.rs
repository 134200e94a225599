//! One flipped bit, or a file cut short, anywhere in what a durable run keeps: it is found and named. A wrong answer is never given. The run ends with
//! an error; only the end of the copy of the commit log, which the log makes up for, is mended with a warning.
//!
//! A job dies between the commit of a checkpoint and its publication. Each try copies the directory as it lies there, damages one file of it, and lets
//! the job go on to its end. What it writes is compared with arithmetic.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::{
    binary::{Ended, Place, Random, ended, is_soak},
    counting::{self, KEYS, TALLY, component},
};

const ROWS: u64 = 30_000;
/// What a file is of.
const KINDS: [&str; 8] =
    ["commit log", "copy of it", "manifest", "state and held rows", "staged output", "savepoint", "file of it", "owner"];

/// Rows wait for the watermark in front of the count, so that checkpoints hold them too.
fn job() -> String {
    format!(
        "job: counting
parallelism: 2
checkpoints: {{ interval: 60ms, retained: 2 }}
sources:
  numbers: {{ sequence: {{ to: {last}, rate: 20000 }}, event-time: {{ column: value, max-out-of-orderness: 500ms }} }}
operators:
  words: {{ input: numbers, compute: {{ word: \"cast(value % {KEYS} as varchar)\" }} }}
  counts: {{ input: words, key-by: [word], order: event-time, component: {{ path: {component} }} }}
sinks:
  out: {{ input: counts, files: {{ path: out, format: ndjson }} }}
",
        last = ROWS - 1,
        component = component(TALLY)
    )
}

/// A directory in which the job died with a checkpoint committed, its output staged and a savepoint of it made.
fn dead() -> Place {
    let place = Place::with(&job());
    let died = ended(place.run(&["--state", "state"]).env("MILLSTREAM_CRASH_AT", "record:6"));
    assert_eq!(died.code, None, "it dies: {}", died.stderr);
    place.says(&["savepoint", "create", "kept", "--state", "state"]).with_code(0);
    place
}

/// Everything below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() { found.extend(files(&entry)) } else { found.push(entry) }
    }
    found.sort();
    found
}

/// The files of each kind that the next run needs, relative to the place.
fn by_kind(place: &Place) -> BTreeMap<&'static str, Vec<PathBuf>> {
    let mut kinds: BTreeMap<&str, Vec<PathBuf>> = BTreeMap::new();
    let savepoint = fs::read_to_string(place.join("state/savepoints/kept/manifest")).unwrap();
    let is_named = |file: &Path| savepoint.contains(&file.file_name().unwrap().display().to_string());
    let is_last = |file: &Path| {
        let text = fs::read_to_string(file).unwrap();
        // The savepoint is a copy of the last checkpoint.
        let number = |text: &str| text.split("\"checkpoint\":").nth(1).and_then(|rest| rest.split(',').next()).map(str::to_owned);
        number(&text) == number(&savepoint)
    };
    for file in files(place.path()) {
        let path = file.strip_prefix(place.path()).unwrap().to_owned();
        let text = path.display().to_string();
        let kind = match text.as_str() {
            "state/commit.log" => "commit log",
            "state/commit.log.copy" => "copy of it",
            "state/job.json" => "owner",
            "state/savepoints/kept/manifest" => "savepoint",
            _ if text.starts_with("state/savepoints/kept/files/") => "file of it",
            _ if text.ends_with(".manifest") && is_last(&file) => "manifest",
            _ if text.starts_with("state/checkpoints/counting/files/") && is_named(&file) => "state and held rows",
            _ if text.starts_with("out/.") => "staged output",
            _ => continue,
        };
        // An empty file has no bit to flip.
        if fs::metadata(&file).unwrap().len() > 0 {
            kinds.entry(kind).or_default().push(path);
        }
    }
    kinds
}

fn copy(from: &Place) -> Place {
    let to = Place::with(&job());
    for file in files(from.path()) {
        let path = to.join(file.strip_prefix(from.path()).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        // A socket is left by a process that died.
        if file.extension().is_none_or(|ending| ending != "sock") {
            fs::copy(&file, path).unwrap();
        }
    }
    to
}

/// Flips a bit of a file, or cuts it short; what was done.
fn damage(file: &Path, random: &mut Random) -> String {
    let mut bytes = fs::read(file).unwrap();
    let length = bytes.len() as u64;
    let done = if random.below(3) == 0 {
        bytes.truncate(random.below(length) as usize);
        format!("{length} bytes cut to {}", bytes.len())
    } else {
        let bit = random.below(8 * length);
        bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        format!("bit {bit} of {length} bytes flipped")
    };
    // Not in place: a file of the copy may be linked.
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
    done
}

/// Lets the job go on as fast as it can: from its directory, or from the savepoint in another.
fn goes_on(place: &Place, from_savepoint: bool) -> Ended {
    let from: &[&str] = if from_savepoint { &["--state", "other", "--restore", "state/savepoints/kept"] } else { &["--state", "state"] };
    let fast = ["--set", "sources.numbers.sequence.rate=100000000", "--set", "restart={\"attempts\":1,\"first\":\"1ms\"}"];
    ended(&mut place.run(&[from, &fast].concat()))
}

/// What became of some damage.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    /// The run ended with an error that names it.
    Refused,
    /// The run named it, mended it and came to the right end.
    Mended,
}

/// Damages a file, and lets the job go on.
#[track_caller]
fn found(dead: &Place, kind: &str, file: &Path, random: &mut Random) -> Found {
    let place = copy(dead);
    let damaged = place.join(file);
    let done = damage(&damaged, random);
    let from_savepoint = ["savepoint", "file of it"].contains(&kind);
    let ended = goes_on(&place, from_savepoint);
    if ended.code == Some(0) {
        let is_named = ended.stderr.contains("is missing or damaged") && ended.stderr.contains("commit.log.copy");
        assert!(is_named, "{kind}: {}: {done}: nothing is said of it\n{}", file.display(), ended.stderr);
        counting::check(&place.join("out"), ROWS);
        return Found::Mended;
    }
    // What is wrong, or what it looks like: a flipped digit of a version is another version.
    let names = ["damaged", "commit log", "job.json", "has layout", "has format", "belongs to job"];
    let is_named = ended.code.is_some() && names.iter().any(|name| ended.stderr.contains(name));
    assert!(is_named, "{kind}: {}: {done}: {:?}\n{}", file.display(), ended.code, ended.stderr);
    // Nothing was destroyed: with the file as it was the job comes to its end.
    fs::copy(dead.join(file), &damaged).unwrap();
    goes_on(&place, from_savepoint).with_code(0);
    counting::check(&place.join("out"), ROWS);
    Found::Refused
}

#[test]
fn damage_anywhere_in_a_job_directory_is_found() {
    let dead = dead();
    let files = by_kind(&dead);
    assert_eq!(files.len(), KINDS.len(), "a file of each kind: {files:?}");
    let mut random = Random::seeded("corruption", 12);
    let tries = if is_soak() { 1_000 } else { 80 };
    let mut counts: BTreeMap<&str, BTreeMap<Found, u32>> = BTreeMap::new();
    for number in 0..tries {
        let kind = KINDS[number % KINDS.len()];
        let file = &files[kind][random.below(files[kind].len() as u64) as usize];
        let found = found(&dead, kind, file, &mut random);
        *counts.entry(kind).or_default().entry(found).or_default() += 1;
    }
    for (kind, counts) in &counts {
        let count = |found| counts.get(&found).copied().unwrap_or(0);
        let (refused, mended) = (count(Found::Refused), count(Found::Mended));
        println!("corruption: {kind}: {} tries, {refused} refused, {mended} named and mended, 0 unseen, 0 wrong", refused + mended);
        assert!(mended == 0 || *kind == "copy of it", "{kind}: a run that goes on");
    }
}
