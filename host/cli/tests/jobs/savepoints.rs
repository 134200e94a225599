//! Savepoints: rescaling, upgrading, forking, moving.

use std::fs;

use crate::{
    binary::{Place, ended},
    counting,
    running::Running,
};

const ROWS: u64 = 20_000;
const RATE: u64 = 20_000;

/// Runs the job until it has taken a checkpoint with rows in it.
fn running(place: &Place, arguments: &[&str]) -> Running {
    let mut running = Running::start(&mut place.run(arguments));
    running.until("counting: exactly once");
    counting::until_it_has_state(place, arguments[1]);
    running
}

/// Stops a running job with a savepoint.
fn stopped_with(place: &Place, running: Running, savepoint: &str) {
    place.says(&["stop", "state", "--savepoint", savepoint]).with_code(0);
    running.ended().with_code(130).saying(&["stopped at checkpoint "]);
}

/// Changes the job file as a person would.
fn edited(place: &Place, from: &str, to: &str) {
    let job = fs::read_to_string(place.join("job.yaml")).unwrap();
    assert!(job.contains(from));
    place.write("job.yaml", job.replace(from, to));
}

#[test]
fn one_edit_of_the_job_file_rescales_it_from_one_to_four_to_two() {
    let place = counting::place(Some(ROWS), RATE);
    edited(&place, "parallelism: 2", "parallelism: 1");
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "one");
    edited(&place, "parallelism: 1", "parallelism: 4");
    let second = running(&place, &["--state", "state"]);
    stopped_with(&place, second, "four");
    edited(&place, "parallelism: 4", "parallelism: 2");
    // From the savepoint, in another directory; the first could as well go on.
    ended(&mut place.run(&["--state", "elsewhere", "--restore", "state/savepoints/four"])).with_code(0).saying(&["from savepoint `four`"]);
    counting::check(&place.join("out"), ROWS);
}

/// A running job removes what it no longer keeps with every checkpoint; a savepoint is copied in peace all the same.
#[test]
fn savepoints_of_a_running_job_are_whole_however_fast_checkpoints_follow() {
    let place = counting::place(None, RATE).set("checkpoints={\"interval\":\"1ms\",\"retained\":1}");
    let job = running(&place, &["--state", "state"]);
    for number in 0..25 {
        let name = format!("number-{number}");
        place.says(&["savepoint", "create", &name, "--state", "state"]).with_code(0);
        // Reads and compares every file.
        place.says(&["savepoint", "export", &name, &name, "--state", "state"]).with_code(0);
    }
    place.says(&["savepoint", "create", "number-1", "--state", "state"]).with_code(1).saying(&["exists already"]);
    place.says(&["stop", "state"]).with_code(0);
    job.ended().with_code(0);
}

#[test]
fn a_fork_goes_its_own_way_and_needs_nothing_of_the_original() {
    let place = counting::place(Some(ROWS), RATE);
    let original = running(&place, &["--state", "state"]);
    let created = place.says(&["savepoint", "create", "middle", "--state", "state"]).with_code(0).stdout;
    assert!(created.contains("middle"), "{created}");
    original.ended().with_code(0);
    counting::check(&place.join("out"), ROWS);
    place.says(&["savepoint", "export", "middle", "kept", "--state", "state"]).with_code(0);
    fs::remove_dir_all(place.join("state")).unwrap();
    let original = counting::written(&place.join("out"));

    let fork = place.set("sinks.out.files.path=fork");
    ended(&mut fork.run(&["--state", "fork-state", "--restore", "kept"])).with_code(0);
    for (key, counts) in counting::written(&fork.join("fork")) {
        let expected = &original[&key][original[&key].len() - counts.len()..];
        assert_eq!(counts, expected, "key {key}: the fork goes on counting where the savepoint was taken");
    }
    assert_eq!(counting::written(&fork.join("out")), original, "the original's output is as it was");
}

#[test]
fn a_savepoint_moves_to_another_directory() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "moving");
    place.says(&["savepoint", "export", "moving", "parcel", "--state", "state"]).with_code(0);
    fs::remove_dir_all(place.join("state")).unwrap();
    place.says(&["savepoint", "import", "parcel", "--state", "new", "--name", "arrived"]).with_code(0);
    fs::remove_dir_all(place.join("parcel")).unwrap();
    ended(&mut place.run(&["--state", "new", "--restore", "arrived"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn savepoints_are_listed_inspected_and_deleted() {
    let place = counting::place(None, RATE);
    let running = running(&place, &["--state", "state"]);
    for name in ["monday", "tuesday"] {
        place.says(&["savepoint", "create", name, "--state", "state"]).with_code(0);
    }
    place.says(&["savepoint", "create", "monday", "--state", "state"]).with_code(1).saying(&["monday"]);
    place.says(&["savepoint", "create", "../monday", "--state", "state"]).with_code(2).saying(&["../monday"]);
    running.kill();
    let listed = place.says(&["savepoint", "list", "--state", "state"]).with_code(0).stdout;
    assert!(listed.contains("monday") && listed.contains("tuesday") && listed.contains("counting"), "{listed}");
    let inspected = place.says(&["savepoint", "inspect", "monday", "--state", "state"]).with_code(0).stdout;
    for part in ["counting", "counts", "numbers", "word", "exactly once"] {
        assert!(inspected.contains(part), "`{part}` is not in\n{inspected}");
    }
    place.says(&["savepoint", "inspect", "state/savepoints/monday", "--json"]).with_code(0);
    place.says(&["savepoint", "delete", "monday", "--state", "state"]).with_code(0);
    place.says(&["savepoint", "delete", "monday", "--state", "state"]).with_code(2).saying(&["monday"]);
    let listed = place.says(&["savepoint", "list", "--state", "state", "--json"]).with_code(0).stdout;
    let listed: serde_json::Value = serde_json::from_str(&listed).unwrap();
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
}

#[test]
fn backups_are_taken_by_themselves_and_the_oldest_go() {
    const LONG: u64 = 6 * RATE;
    let place = counting::place(Some(LONG), RATE).set("savepoints={\"every\":\"1s\",\"retained\":2}");
    let mut running = Running::start(place.run(&["--state", "state"]).env("MILLSTREAM_LOG", "info"));
    running.until("counting: exactly once");
    place.says(&["savepoint", "create", "mine", "--state", "state"]).with_code(0);
    for _ in 0..3 {
        running.until("backup taken");
    }
    running.kill();
    // The process may have died between the newest and the removal of the oldest.
    let listed = place.says(&["savepoint", "list", "--state", "state", "--json"]).with_code(0).stdout;
    let names = |beginning: &str| listed.matches(&format!("\"name\":\"{beginning}")).count();
    assert!(names("mine") == 1 && (2..=3).contains(&names("backup-")), "{listed}");
    let mut backups: Vec<_> = fs::read_dir(place.join("state/savepoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    backups.sort();
    let newest = backups.iter().rfind(|path| path.file_name().unwrap().to_string_lossy().starts_with("backup-")).unwrap();
    let fork = place.set("sinks.out.files.path=fork");
    ended(&mut fork.run(&["--state", "other", "--restore", newest.to_str().unwrap()])).with_code(0);
    let counts = counting::written(&fork.join("fork"));
    assert!(counts.iter().all(|(key, counts)| counts.last() == Some(&counting::times(*key, LONG))), "{counts:?}");
}

#[test]
fn a_job_that_does_not_run_has_a_savepoint_of_its_last_checkpoint() {
    let place = counting::place(Some(ROWS), RATE);
    running(&place, &["--state", "state"]).kill();
    place.says(&["savepoint", "create", "late", "--state", "state"]).with_code(0);
    fs::rename(place.join("state/savepoints/late"), place.join("late")).unwrap();
    let fork = place.set("sinks.out.files.path=fork");
    ended(&mut fork.run(&["--state", "other", "--restore", "late"])).with_code(0);
    let counts = counting::written(&fork.join("fork"));
    assert!(counts.iter().all(|(key, counts)| counts.last() == Some(&counting::times(*key, ROWS))), "{counts:?}");
}

#[test]
fn restoring_into_a_directory_that_has_run_must_be_asked_for() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "back");
    ended(&mut place.run(&["--state", "state", "--restore", "back"])).with_code(2).saying(&["--fresh"]);
    ended(&mut place.run(&["--state", "state", "--restore", "back", "--fresh"])).with_code(0).saying(&["from savepoint `back`"]);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn a_renamed_operator_finds_its_state_when_told() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "named");
    edited(&place, "  counts: { input: words", "  tallies: { input: words");
    edited(&place, "out: { input: counts", "out: { input: tallies");
    // Neither going on nor restoring loses state in silence.
    ended(&mut place.run(&["--state", "state"])).with_code(2).saying(&["counts"]);
    ended(&mut place.run(&["--state", "other", "--restore", "state/savepoints/named"])).with_code(2).saying(&["counts", "--rename"]);
    ended(&mut place.run(&["--state", "wrong", "--restore", "state/savepoints/named", "--rename", "counts=talies"]))
        .with_code(2)
        .saying(&["talies"]);
    ended(&mut place.run(&["--state", "new", "--restore", "state/savepoints/named", "--rename", "counts=tallies"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn state_is_dropped_only_by_name() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "full");
    let job = fs::read_to_string(place.join("job.yaml")).unwrap();
    let without: Vec<&str> = job.lines().filter(|line| !line.contains("  counts:")).collect();
    place.write("job.yaml", without.join("\n").replace("input: counts", "input: words") + "\n");
    let restore = ["--state", "less", "--restore", "state/savepoints/full"];
    ended(&mut place.run(&restore)).with_code(2).saying(&["counts", "--allow-dropped-state"]);
    let arguments: Vec<&str> = restore.into_iter().chain(["--allow-dropped-state", "counts"]).collect();
    ended(&mut place.run(&arguments)).with_code(0);
}

#[test]
fn a_later_version_of_a_component_goes_on_with_the_state_of_the_one_before() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "old");
    edited(&place, &counting::component("tally"), &counting::component("tally-more"));
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn a_version_that_cannot_read_the_state_is_refused_and_nothing_is_lost() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "old");
    edited(&place, &counting::component("tally"), &counting::component("tally-other"));
    let reason =
        ["`counts` cannot go on", "state `seen` is Struct(\"count\": non-null UInt32) in version 1", "Utf8", "version 3", "migrate"];
    ended(&mut place.run(&["--state", "state"])).with_code(2).saying(&reason);
    // From a savepoint too.
    ended(&mut place.run(&["--state", "other", "--restore", "state/savepoints/old"])).with_code(2).saying(&reason);
    edited(&place, &counting::component("tally-other"), &counting::component("tally"));
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    counting::check(&place.join("out"), ROWS);
}

#[test]
fn a_version_with_another_form_of_state_migrates_it_by_itself() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "old");
    edited(&place, &counting::component("tally"), &counting::component("tally-moved"));
    // The directory goes on, and so does a fork from the savepoint at another parallelism, in a job of its own.
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&["going on from checkpoint"]);
    counting::check(&place.join("out"), ROWS);
    edited(&place, "parallelism: 2", "parallelism: 3");
    let fork = place.set("sinks.out.files.path=fork");
    ended(&mut fork.run(&["--state", "fork-state", "--restore", "state/savepoints/old"])).with_code(0).saying(&["from savepoint `old`"]);
    for (key, counts) in counting::written(&fork.join("fork")) {
        let last = counting::times(key, ROWS);
        let expected: Vec<u64> = (last + 1 - counts.len() as u64..=last).collect();
        assert_eq!(counts, expected, "key {key}");
    }
}

#[test]
fn a_migration_that_traps_or_lies_is_refused_and_the_old_version_goes_on() {
    let place = counting::place(Some(ROWS), RATE);
    let first = running(&place, &["--state", "state"]);
    stopped_with(&place, first, "old");
    let mut now = "tally";
    for (bad, reason) in [("tally-trapping", "in `migrate` trapped"), ("tally-lying", "values for")] {
        edited(&place, &counting::component(now), &counting::component(bad));
        now = bad;
        for arguments in [&["--state", "state"][..], &["--state", bad, "--restore", "state/savepoints/old"]] {
            ended(&mut place.run(arguments)).with_code(2).saying(&[
                "`counts`",
                "state \"seen\" cannot be migrated from version 1 to 3",
                reason,
            ]);
        }
    }
    edited(&place, &counting::component(now), &counting::component("tally"));
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&["going on from checkpoint"]);
    counting::check(&place.join("out"), ROWS);
}
