//! What a commit log must do, and what the local one must survive.

use std::{fs, path::PathBuf};

use millstream_model::ids::CheckpointId;

use super::*;

struct Bench {
    directory: tempfile::TempDir,
    log: LocalCommitLog,
    job: JobId,
}

fn bench() -> Bench {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = LocalCommitLog::open(&directory.path().join("commit.log")).expect("writable");
    Bench { directory, log, job: JobId::from("flights") }
}

impl Bench {
    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    async fn claim(&self) -> CommitRecord {
        self.log.claim(&self.job, Claim::default()).await.expect("claimable")
    }

    async fn commit(&self, held: &CommitRecord, checkpoint: u64) -> Result<CommitRecord, Error> {
        let record = record(held, checkpoint);
        self.log.commit(&self.job, &record).await.map(|()| record)
    }

    async fn read(&self) -> Result<Option<CommitRecord>, Error> {
        self.log.read(&self.job).await
    }
}

fn record(held: &CommitRecord, checkpoint: u64) -> CommitRecord {
    CommitRecord {
        incarnation: held.incarnation,
        checkpoint: Some(CheckpointId(checkpoint)),
        manifest: Some(format!("flights/{}/{checkpoint}-00.manifest", held.incarnation)),
        manifest_sha256: Some("ab".repeat(32)),
        retained: held.committed().into_iter().collect(),
        last_number: checkpoint,
        elsewhere: None,
    }
}

#[tokio::test]
async fn a_claim_brings_back_what_was_committed_under_the_next_incarnation() {
    let bench = bench();
    let first = bench.claim().await;
    assert_eq!((first.incarnation, first.checkpoint), (1, None));
    let committed = bench.commit(&first, 1).await.expect("held");
    assert_eq!(bench.claim().await, CommitRecord { incarnation: 2, ..committed });
}

#[tokio::test]
async fn a_commit_of_an_older_incarnation_is_refused() {
    let bench = bench();
    let zombie = bench.claim().await;
    bench.claim().await;
    let refused = bench.commit(&zombie, 1).await.expect_err("fenced");
    assert!(matches!(refused, Error::Fenced { incarnation: 1, holder: 2, .. }), "{refused}");
    assert_eq!(bench.read().await.expect("readable").expect("claimed").checkpoint, None);
}

#[tokio::test]
async fn a_record_never_goes_backwards_and_the_same_one_again_changes_nothing() {
    let bench = bench();
    let held = bench.claim().await;
    bench.commit(&held, 1).await.expect("held");
    let second = bench.commit(&held, 2).await.expect("held");
    let late = bench.commit(&held, 1).await.expect_err("late");
    assert!(matches!(late, Error::Backwards { .. }), "{late}");
    let size = fs::metadata(bench.file("commit.log")).expect("there").len();
    bench.commit(&held, 2).await.expect("the same again");
    assert_eq!(fs::metadata(bench.file("commit.log")).expect("there").len(), size);
    assert_eq!(bench.read().await.expect("readable"), Some(second));
}

#[tokio::test]
async fn a_lost_log_of_a_job_that_has_run_is_an_error_and_stays_one() {
    let bench = bench();
    let claim = Claim { seen_incarnation: 3, is_fresh: false };
    for _ in 0..2 {
        let lost = bench.log.claim(&bench.job, claim).await.expect_err("lost");
        assert!(matches!(lost, Error::RecordMissing { incarnation: 3, .. }), "{lost}");
    }
    let fresh = bench.log.claim(&bench.job, Claim { is_fresh: true, ..claim }).await.expect("asked for");
    assert_eq!(fresh.incarnation, 4);
}

#[tokio::test]
async fn a_fresh_start_forgets_what_was_committed_and_keeps_the_numbers_growing() {
    let bench = bench();
    let held = bench.claim().await;
    bench.commit(&held, 5).await.expect("held");
    let fresh = bench.log.claim(&bench.job, Claim { is_fresh: true, ..Claim::default() }).await.expect("claimable");
    assert_eq!((fresh.incarnation, fresh.checkpoint, fresh.last_number), (2, None, 5));
    assert_eq!(bench.claim().await.checkpoint, None, "also when the fresh run dies at once");
}

/// The log in memory is the same code on a disk that fails when told to.
#[tokio::test]
async fn a_write_that_fails_anywhere_leaves_the_old_record_or_the_new_one() {
    let faults = [
        LogFault::Refused,
        LogFault::TornLog(0),
        LogFault::TornLog(40),
        LogFault::TornCopy(0),
        LogFault::TornCopy(40),
        LogFault::AnswerLost,
    ];
    for (fault, may_be_there) in faults.into_iter().zip([false, false, false, true, true, true]) {
        let (log, job) = (MemoryCommitLog::default(), JobId::from("flights"));
        let held = log.claim(&job, Claim::default()).await.expect("claimable");
        let (old, new) = (record(&held, 1), record(&held, 2));
        log.commit(&job, &old).await.expect("held");
        log.fail_next(fault);
        log.commit(&job, &new).await.expect_err("injected");
        let read = log.read(&job).await.expect("a failed write is no damage");
        assert_eq!(read.as_ref(), Some(if may_be_there { &new } else { &old }), "{fault:?}");
        log.fail_next(fault);
        log.claim(&job, Claim::default()).await.expect_err("injected");
        let mended = log.claim(&job, Claim::default()).await.expect("repaired");
        assert_eq!(mended.checkpoint, read.expect("a record").checkpoint, "{fault:?}");
        let late = log.commit(&job, &record(&held, 3)).await.expect_err("an older incarnation");
        assert!(matches!(late, Error::Fenced { .. }), "{late}");
    }
}

/// The disk stays full while the job is started again and again.
#[tokio::test]
async fn writes_that_fail_in_a_row_never_look_like_damage() {
    let (log, job) = (MemoryCommitLog::default(), JobId::from("flights"));
    for _ in 0..3 {
        log.fail_next(LogFault::TornCopy(0));
        let refused = log.claim(&job, Claim::default()).await.expect_err("injected");
        assert!(matches!(refused, Error::Io { .. }), "{refused}");
    }
    let held = log.claim(&job, Claim::default()).await.expect("there is room again");
    log.commit(&job, &record(&held, 1)).await.expect("held");
    assert_eq!(log.read(&job).await.expect("readable"), Some(record(&held, 1)));
}

/// A crash may leave any beginning of the line in the log, or all of it there and any beginning in the copy. The record was not acknowledged
/// then, so either answer is right; the next claim mends both files.
#[tokio::test]
async fn a_crash_at_any_byte_of_a_commit_leaves_the_old_record_or_the_new_one() {
    let bench = bench();
    let held = bench.claim().await;
    let old = bench.commit(&held, 1).await.expect("held");
    let before = fs::read(bench.file("commit.log")).expect("there");
    let new = bench.commit(&held, 2).await.expect("held");
    let after = fs::read(bench.file("commit.log")).expect("there");
    for end in before.len()..=after.len() {
        for (log, copy, may_be) in [(&after[..end], &before[..], vec![&old, &new]), (&after[..], &after[..end], vec![&new])] {
            fs::write(bench.file("commit.log"), log).expect("writable");
            fs::write(bench.file("commit.log.copy"), copy).expect("writable");
            let read = bench.read().await.expect("a crash is no damage").expect("committed");
            assert!(may_be.contains(&&read), "{end}: {read:?}");
            let is_whole = end == after.len() || log.len() == after.len();
            assert_eq!(read == new, is_whole, "a whole record counts");
            assert_eq!(bench.claim().await.checkpoint, read.checkpoint);
            assert_eq!(fs::read(bench.file("commit.log")).expect("there"), fs::read(bench.file("commit.log.copy")).expect("there"));
        }
    }
}

/// Any one bit of any one of the files, and any truncation of it: found, or the answer is right all the same.
#[tokio::test]
async fn damage_never_gives_a_wrong_record() {
    let bench = bench();
    let held = bench.claim().await;
    for checkpoint in 1..4 {
        bench.commit(&held, checkpoint).await.expect("held");
    }
    let right = bench.read().await.expect("readable");
    for (name, is_log) in [("commit.log", true), ("commit.log.copy", false)] {
        let whole = fs::read(bench.file(name)).expect("there");
        let flips = (0..whole.len() * 8).step_by(3).map(|bit| {
            let mut content = whole.clone();
            content[bit / 8] ^= 1 << (bit % 8);
            content
        });
        let cuts = (0..whole.len()).map(|end| whole[..end].to_vec());
        for (number, content) in flips.chain(cuts).enumerate() {
            fs::write(bench.file(name), content).expect("writable");
            match bench.read().await {
                Err(error) => assert!(matches!(error, Error::Damaged { .. } | Error::NewerFormat { .. }), "{name} {number}: {error}"),
                Ok(read) => assert!(!is_log && read == right, "{name} {number}: {read:?}"),
            }
        }
        fs::write(bench.file(name), whole).expect("writable");
    }
}

#[tokio::test]
async fn a_file_that_is_gone_is_damage() {
    for name in ["commit.log", "commit.log.copy"] {
        let bench = bench();
        let held = bench.claim().await;
        bench.commit(&held, 1).await.expect("held");
        fs::remove_file(bench.file(name)).expect("there");
        let gone = bench.read().await.expect_err("gone");
        assert!(matches!(&gone, Error::Damaged { path, .. } if path.ends_with(name)), "{gone}");
    }
}

#[tokio::test]
async fn an_end_that_is_missing_or_damaged_is_told_until_the_next_claim() {
    let bench = bench();
    let held = bench.claim().await;
    bench.commit(&held, 1).await.expect("held");
    assert_eq!(bench.log.cut_short().await.expect("readable"), None);
    for (name, whole) in ["commit.log", "commit.log.copy"].map(|name| (name, fs::read(bench.file(name)).expect("there"))) {
        // Of the log a whole line that is gone is damage, since the copy has it.
        let ends = if name == "commit.log" {
            vec![[&whole[..], b"ab"].concat()]
        } else {
            vec![whole[..whole.len() - 1].to_vec(), [&whole[..whole.len() - 9], b"12345678\n"].concat()]
        };
        for end in ends {
            fs::write(bench.file(name), end).expect("writable");
            assert!(bench.log.cut_short().await.expect("readable").expect("told").ends_with(name));
        }
        fs::write(bench.file(name), whole).expect("writable");
    }
    let copy = fs::read(bench.file("commit.log.copy")).expect("there");
    fs::write(bench.file("commit.log.copy"), &copy[..copy.len() - 1]).expect("writable");
    bench.claim().await;
    assert_eq!(bench.log.cut_short().await.expect("readable"), None);
}

/// Tools that look at a directory wait for who writes, and not for each other.
#[tokio::test]
async fn those_who_read_do_not_wait_for_each_other() {
    let bench = bench();
    let held = bench.claim().await;
    let reading = fs::File::open(bench.file("commit.log.lock")).expect("there");
    reading.lock_shared().expect("nobody writes");
    assert_eq!(bench.read().await.expect("readable").expect("claimed").incarnation, held.incarnation);
    assert_eq!(bench.log.cut_short().await.expect("readable"), None);
}

#[tokio::test]
async fn a_newer_format_is_refused_by_name() {
    let bench = bench();
    fs::write(bench.file("commit.log"), "millstream-commit-log 7\n{}\n").expect("writable");
    let newer = bench.read().await.expect_err("newer");
    assert!(matches!(newer, Error::NewerFormat { format: 7, known: 1, .. }), "{newer}");
}

#[tokio::test]
async fn the_files_do_not_grow_without_bound() {
    let bench = bench();
    let held = bench.claim().await;
    // A line of some 100 KiB, so that a few of them pass the bound.
    let long = |checkpoint| CommitRecord { manifest: Some("m".repeat(100_000)), ..record(&held, checkpoint) };
    for checkpoint in 1..=30 {
        bench.log.commit(&bench.job, &long(checkpoint)).await.expect("held");
        assert!(fs::metadata(bench.file("commit.log")).expect("there").len() < 1_300_000);
    }
    assert_eq!(bench.read().await.expect("readable"), Some(long(30)));
}

#[tokio::test]
async fn the_log_of_several_jobs_keeps_each() {
    let bench = bench();
    let held = bench.claim().await;
    bench.commit(&held, 1).await.expect("held");
    let other = JobId::from("other");
    bench.log.claim(&other, Claim::default()).await.expect("claimable");
    assert_eq!(bench.read().await.expect("readable").expect("claimed").checkpoint, Some(CheckpointId(1)));
    assert_eq!(bench.log.read(&other).await.expect("readable").expect("claimed").incarnation, 1);
}

/// What another log decided is found by tools, and an older run cannot take it back.
#[tokio::test]
async fn what_was_decided_elsewhere_is_noted_and_never_goes_back() {
    let bench = bench();
    let elsewhere = Some(Elsewhere { log: "topic".into(), lineage: "a".into(), since: 0 });
    let newer = CommitRecord { elsewhere: elsewhere.clone(), ..record(&CommitRecord { incarnation: 3, ..CommitRecord::default() }, 7) };
    let older = CommitRecord { elsewhere, ..record(&CommitRecord { incarnation: 2, ..CommitRecord::default() }, 9) };
    bench.log.note(&bench.job, &newer).await.expect("writable");
    bench.log.note(&bench.job, &older).await.expect("nothing to do");
    assert_eq!(bench.read().await.expect("readable"), Some(newer));
}
