//! A source that reads what is there and then follows: no gap and no duplicate at the seam, wherever the process dies and whatever is written while
//! it is dead. The reference is the list of numbers that the test wrote.

use std::{fs, io::Write, ops::Range, path::Path};

use crate::{
    binary::{Place, ended},
    running::Running,
};

const JOB: &str = "job: following
checkpoints: { interval: 20ms }
sources:
  lines: { files: { path: in, format: ndjson, follow: true }, schema: { number: Int64 } }
sinks:
  out: { input: lines, files: { path: out, format: ndjson } }
";

/// Appends numbers to a file of the followed directory; `goes_on`: and the beginning of a line that comes later.
fn append(place: &Place, file: &str, numbers: Range<u64>, goes_on: bool) {
    let mut file = fs::OpenOptions::new().append(true).open(place.join("in").join(file)).unwrap();
    let last = numbers.end - 1;
    for number in numbers {
        let next = if number < last || goes_on { "{" } else { "" };
        file.write_all(format!("\"number\": {number}}}\n{next}").as_bytes()).unwrap();
    }
}

/// A new file, which begins with half a line; only the last file by name grows.
fn begin(place: &Place, file: &str) {
    fs::create_dir_all(place.join("in")).unwrap();
    fs::write(place.join("in").join(file), "{").unwrap();
}

/// Everything that is visible, sorted.
fn written(directory: &Path) -> Vec<u64> {
    let parts = fs::read_dir(directory).into_iter().flatten().map(|part| part.unwrap());
    let visible = parts.filter(|part| !part.file_name().to_string_lossy().starts_with('.'));
    let texts: Vec<String> = visible.map(|part| fs::read_to_string(part.path()).unwrap()).collect();
    let rows = texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let mut numbers: Vec<u64> = rows.map(|row| row["number"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    numbers
}

/// Takes checkpoints of the running job until so many rows are published.
#[track_caller]
fn until_published(place: &Place, count: usize) {
    for _ in 0..2_000 {
        place.says(&["checkpoint", "create", "state"]).with_code(0);
        if written(&place.join("out")).len() >= count {
            return;
        }
    }
    panic!("two thousand checkpoints, and only {} rows of {count}", written(&place.join("out")).len());
}

#[test]
fn what_lies_there_and_what_comes_later_is_read_once_over_every_kill() {
    let place = Place::with(JOB);
    let mut file = "0.ndjson".to_owned();
    begin(&place, &file);
    append(&place, &file, 0..1_000, true);
    let mut next = 1_000;
    for run in 1..5 {
        let mut running = Running::start(&mut place.run(&["--state", "state", "--parallelism", &(1 + run % 2).to_string()]));
        running.until("following: exactly once");
        until_published(&place, next);
        let from = next as u64;
        append(&place, &file, from..from + 100, true);
        running.kill();
        // While it is dead the file ends, and the next one begins.
        append(&place, &file, from + 100..from + 150, false);
        file = format!("{run}.ndjson");
        begin(&place, &file);
        append(&place, &file, from + 150..from + 200, true);
        next += 200;
    }
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    running.until("going on from checkpoint");
    until_published(&place, next);
    place.says(&["stop", "state"]).with_code(0);
    running.ended().with_code(0);
    assert_eq!(written(&place.join("out")), (0..next as u64).collect::<Vec<_>>());
    ended(&mut place.millstream(&["checkpoint", "verify", "state"])).with_code(0);
}
