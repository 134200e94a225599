use std::fs;

use super::*;

const KIND: Kind = Kind { name: "test-journal", format: 1 };

fn open(path: &Path) -> Result<(Journal<String>, Vec<String>), Error> {
    Journal::open(path, KIND)
}

/// A journal with three records.
fn three(path: &Path) -> Vec<u8> {
    let (mut journal, _) = open(path).expect("made");
    for record in ["one", "two", "three"] {
        journal.append(&record.to_owned()).expect("written");
    }
    fs::read(path).expect("readable")
}

#[test]
fn what_was_acknowledged_is_there_again_and_only_its_owner_may_read_it() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("deep/journal");
    three(&path);
    let (mut journal, records) = open(&path).expect("whole");
    assert_eq!(records, ["one", "two", "three"]);
    journal.append(&"four".to_owned()).expect("written");
    assert_eq!(open(&path).expect("whole").1.len(), 4);
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
}

/// A process may die at any byte of a write. What was acknowledged before is there, what was not is gone, and writing goes on.
#[test]
fn a_write_that_was_cut_at_any_byte_is_taken_back() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal");
    let whole = three(&path);
    let two = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').expect("three lines") + 1;
    for length in two..whole.len() {
        fs::write(&path, &whole[..length]).expect("writable");
        let (mut journal, records) = open(&path).expect("a torn tail is no damage");
        assert_eq!(records, ["one", "two"], "cut at {length}");
        journal.append(&"again".to_owned()).expect("written");
        assert_eq!(open(&path).expect("whole").1, ["one", "two", "again"], "cut at {length}");
    }
}

#[test]
fn every_flipped_byte_of_a_record_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal");
    let whole = three(&path);
    let header = whole.iter().position(|&byte| byte == b'\n').expect("a header") + 1;
    // The end of the last line is what says that it was not cut.
    for at in header..whole.len() - 1 {
        let mut flipped = whole.clone();
        flipped[at] ^= 1;
        fs::write(&path, &flipped).expect("writable");
        assert!(matches!(open(&path), Err(Error::Damaged { .. })), "byte {at}");
    }
}

#[test]
fn a_record_that_is_missing_in_the_middle_is_found() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal");
    let whole = three(&path);
    let lines: Vec<&[u8]> = whole.split_inclusive(|&byte| byte == b'\n').collect();
    fs::write(&path, [lines[0], lines[1], lines[3]].concat()).expect("writable");
    let error = open(&path).expect_err("one is missing");
    assert!(error.to_string().contains("missing before record 2"), "{error}");
}

#[test]
fn a_rewritten_journal_holds_the_new_records_and_goes_on() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal");
    three(&path);
    let (mut journal, _) = open(&path).expect("whole");
    journal.rewrite(&["all".to_owned()]).expect("written");
    journal.append(&"more".to_owned()).expect("written");
    assert_eq!(journal.bytes(), fs::metadata(&path).expect("there").len());
    assert_eq!(open(&path).expect("whole").1, ["all", "more"]);
}

#[test]
fn another_file_and_a_newer_format_are_refused() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("journal");
    fs::write(&path, "something else\n").expect("writable");
    assert!(matches!(open(&path), Err(Error::Damaged { .. })));
    fs::write(&path, "test-journal 2\n").expect("writable");
    assert!(matches!(open(&path), Err(Error::NewerFormat { format: 2, known: 1, .. })));
}
