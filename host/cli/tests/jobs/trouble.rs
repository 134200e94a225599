//! Damage and hostility: each is a clear error that says what to do, and nothing is destroyed.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    binary::{Place, ended},
    counting,
    running::Running,
};

const ROWS: u64 = 20_000;
const RATE: u64 = 20_000;

/// A job that was killed after a checkpoint.
fn killed() -> Place {
    let place = counting::place(Some(ROWS), RATE);
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    running.until("counting: exactly once");
    counting::until_it_has_state(&place, "state");
    // An older one is kept too.
    place.says(&["checkpoint", "create", "state"]).with_code(0);
    running.kill();
    place
}

/// All files below a directory with this ending, sorted.
fn files(directory: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            found.extend(files(&entry, ending));
        } else if entry.display().to_string().ends_with(ending) {
            found.push(entry);
        }
    }
    found.sort_by_key(|file| fs::metadata(file).unwrap().modified().unwrap());
    found
}

/// Breaks each file, sees that the job refuses to go on, mends it, and sees that nothing was lost.
fn refuses_while(place: &Place, broken: &[PathBuf], break_it: impl Fn(&Path), says: &[&str]) {
    let before: Vec<Vec<u8>> = broken.iter().map(|file| fs::read(file).unwrap()).collect();
    broken.iter().for_each(|file| break_it(file));
    ended(&mut place.run(&["--state", "state"])).with_code(1).saying(says);
    let verified = place.says(&["checkpoint", "verify", "state"]);
    assert_eq!(verified.code, Some(1), "{}{}", verified.stdout, verified.stderr);
    broken.iter().zip(before).for_each(|(file, bytes)| fs::write(file, bytes).unwrap());
    place.says(&["checkpoint", "verify", "state"]).with_code(0);
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_flipped_bit_in_a_manifest_is_found() {
    let place = killed();
    let manifests = files(&place.join("state/checkpoints"), ".manifest");
    refuses_while(&place, &manifests, flip, &["manifest", "damaged"]);
}

/// It looks as after a crash, and is mended by the next start: so it is told, and no failure.
#[test]
fn a_damaged_end_of_the_copy_of_the_commit_log_is_told_and_mended() {
    let place = killed();
    let copy = place.join("state/commit.log.copy");
    let whole = fs::read(place.join("state/commit.log")).unwrap();
    let cut = |last: usize| fs::write(&copy, &whole[..whole.len() - last]).unwrap();
    let verified = || place.says(&["checkpoint", "verify", "state"]).with_code(0);
    cut(0);
    assert_eq!(verified().stderr, "");
    for last in [1, 20] {
        cut(last);
        let told = verified();
        assert!(told.stderr.contains("commit.log.copy` is missing or damaged"), "{}", told.stderr);
        assert!(told.stdout.contains("good"), "{}", told.stdout);
        let told = place.says(&["checkpoint", "verify", "state", "--json"]).with_code(0).stdout;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        assert!(told["cut-short"].as_str().unwrap().ends_with("commit.log.copy"), "{told}");
    }
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&["commit.log.copy"]);
    assert_eq!(verified().stderr, "");
}

#[test]
fn an_older_checkpoint_helps_when_the_last_one_is_damaged() {
    let place = killed();
    let kept = place.says(&["checkpoint", "list", "state", "--json"]).with_code(0).stdout;
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    let numbers: Vec<u64> = kept.as_array().unwrap().iter().map(|one| one["number"].as_u64().unwrap()).collect();
    let [.., older, last] = numbers.as_slice() else { panic!("two are kept: {numbers:?}") };
    let manifest = files(&place.join("state/checkpoints"), ".manifest").pop().unwrap();
    flip(&manifest);
    ended(&mut place.run(&["--state", "state"])).with_code(1).saying(&["damaged", "--checkpoint NUMBER"]);
    let listed = place.says(&["checkpoint", "list", "state"]).with_code(0).stdout;
    assert!(listed.contains("damaged") && listed.contains(&older.to_string()) && listed.contains(&last.to_string()), "{listed}");
    let older = older.to_string();
    place.says(&["savepoint", "create", "rescue", "--checkpoint", "99999", "--state", "state"]).with_code(2).saying(&["99999"]);
    place.says(&["savepoint", "create", "rescue", "--checkpoint", &older, "--state", "state"]).with_code(0);
    let again = place.set("sinks.out.files.path=again");
    ended(&mut again.run(&["--state", "state", "--restore", "rescue", "--fresh"])).with_code(0).saying(&["from savepoint `rescue`"]);
    // What was written before the checkpoint stays where it was.
    let counts = counting::written(&again.join("again"));
    assert!(counts.iter().all(|(key, counts)| counts.last() == Some(&counting::times(*key, ROWS))), "{counts:?}");
}

#[test]
fn a_flipped_bit_in_a_file_of_state_is_found() {
    let place = killed();
    let state = files(&place.join("state/checkpoints/counting/files"), "");
    refuses_while(&place, &state, flip, &["damaged"]);
}

#[test]
fn a_missing_file_of_state_is_named() {
    let place = killed();
    let state = files(&place.join("state/checkpoints/counting/files"), "");
    refuses_while(&place, &state, |file| fs::remove_file(file).unwrap(), &["nothing is stored at"]);
}

#[test]
fn a_missing_commit_log_is_no_fresh_start() {
    let place = killed();
    let log = place.join("state/commit.log");
    let bytes = fs::read(&log).unwrap();
    fs::remove_file(&log).unwrap();
    ended(&mut place.run(&["--state", "state"])).with_code(1).saying(&["commit log"]);
    fs::write(&log, bytes).unwrap();
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn a_damaged_line_in_the_commit_log_is_found() {
    let place = killed();
    let log = place.join("state/commit.log");
    let bytes = fs::read(&log).unwrap();
    let mut broken = bytes.clone();
    broken[10] ^= 1;
    fs::write(&log, broken).unwrap();
    ended(&mut place.run(&["--state", "state"])).with_code(1).saying(&["commit.log", "damaged"]);
    fs::write(&log, bytes).unwrap();
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn the_savepoint_of_another_job_is_refused() {
    let place = killed();
    place.says(&["savepoint", "create", "a", "--state", "state"]).with_code(0);
    let other = Place::with(
        "job: letters\nsources:\n  lines: { sequence: { to: 9 } }\nsinks:\n  out: { input: lines, files: { path: out, format: ndjson } }\n",
    );
    let savepoint = place.join("state/savepoints/a").display().to_string();
    ended(&mut other.run(&["--state", "state", "--restore", &savepoint])).with_code(2).saying(&["counts"]);
}

#[test]
fn a_savepoint_of_a_newer_format_is_refused_by_its_number() {
    let place = killed();
    place.says(&["savepoint", "create", "a", "--state", "state"]).with_code(0);
    let manifest = place.join("state/savepoints/a/manifest");
    let bytes = fs::read(&manifest).unwrap();
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    let header = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let newer = header.replacen(" 1 ", " 99 ", 1);
    assert_ne!(newer, header);
    fs::write(&manifest, [newer.as_bytes(), &bytes[end..]].concat()).unwrap();
    let restored = ended(&mut place.run(&["--state", "other", "--restore", "state/savepoints/a"])).with_code(1);
    assert!(restored.stderr.contains("format 99"), "{}", restored.stderr);
}

#[test]
fn a_savepoint_that_is_not_there_is_named() {
    let place = counting::place(Some(10), 10);
    ended(&mut place.run(&["--state", "state", "--restore", "nowhere"])).with_code(2).saying(&["nowhere"]);
}

/// As on a full disk: no file may grow beyond a few blocks.
fn on_a_full_disk(place: &Place) -> Command {
    let run = place.run(&["--state", "state"]);
    let mut shell = Command::new("bash");
    shell
        .current_dir(place.path())
        .args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" \"$@\""])
        .arg(run.get_program())
        .args(run.get_args());
    shell
}

#[test]
fn a_full_disk_is_named_and_the_job_goes_on_when_there_is_room_again() {
    let place = counting::place(Some(ROWS), RATE).set("restart={\"attempts\":2,\"first\":\"10ms\"}");
    ended(&mut on_a_full_disk(&place)).with_code(1).saying(&["File too large"]);
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn a_place_that_cannot_be_written_is_named_before_anything_runs() {
    let place = counting::place(Some(10), 10);
    place.write("file", "");
    ended(&mut place.run(&["--state", "file/state"])).with_code(1).saying(&["file/state"]);
    ended(&mut place.run(&["--state", "state", "--set", "checkpoints.storage=/dev/null/checkpoints"])).with_code(1).saying(&["/dev/null"]);
    assert!(!place.join("out").exists());
}

#[test]
fn hostile_requests_on_the_control_socket_are_answered_with_errors_and_harm_nothing() {
    let place = counting::place(None, RATE);
    let mut running = Running::start(&mut place.run(&["--state", "state"]));
    running.until("counting: exactly once");
    let socket = place.join("state/control.sock");
    let requests: [&[u8]; 6] = [
        b"\n",
        b"\xff\xfe\x00\n",
        b"{\"command\":\"savepoint\",\"name\":\"../../../../outside\"}\n",
        b"{\"command\":\"savepoint\",\"name\":\"\"}\n",
        b"{\"command\":\"stop\",\"savepoint\":\"a/b\"}\n",
        b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\n",
    ];
    for request in requests {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        BufReader::new(&stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"error\":"), "{answer}");
    }
    let mut flood = UnixStream::connect(&socket).unwrap();
    // The server hangs up in the middle.
    let _written = flood.write_all(&vec![b'a'; 1 << 20]);
    let mut answer = Vec::new();
    let _read = flood.read_to_end(&mut answer);
    let status = place.says(&["status", "state"]).with_code(0).stdout;
    assert!(status.contains("running"), "{status}");
    place.says(&["stop", "state"]).with_code(0);
    running.ended().with_code(0);
}
