//! The log of posted requests.

use std::{
    fs::{self, File},
    io,
    path::PathBuf,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
};

use millstream_engine::connector::{ConnectorRequest, Guarantee, Source, SourceConnector};
use tempfile::TempDir;

use super::{
    super::log::{Log, Place, Replay, Sync},
    *,
};

fn synced() -> Sync {
    Arc::new(File::sync_data)
}

fn place(directory: &TempDir) -> Place {
    Place { segment_bytes: 200, ..Place::new(directory.path().join("log"), synced()) }
}

fn files(directory: &TempDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory.path().join("log")).expect("lists");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("lists").path()).collect();
    files.sort();
    files
}

fn open(directory: &TempDir, position: Option<u64>) -> (Log, Replay) {
    Log::open(place(directory), position).expect("opens")
}

fn refused(directory: &TempDir, position: Option<u64>) -> String {
    Log::open(place(directory), position).and_then(|(_, mut replay)| bodies(&mut replay)).expect_err("refused").to_string()
}

fn bodies(replay: &mut Replay) -> Result<Vec<String>, millstream_engine::operator::OperatorError> {
    let mut bodies = Vec::new();
    while let Some(logged) = replay.next()? {
        bodies.push(String::from_utf8(logged.body).expect("text"));
    }
    Ok(bodies)
}

/// Logs `count` bodies, in groups of up to three, over several segments; returns where each ends.
fn logged(directory: &TempDir, count: usize) -> Vec<u64> {
    let (mut log, _) = open(directory, None);
    let texts: Vec<String> = (0..count).map(|number| format!("{{\"n\":{number}}}")).collect();
    let mut ends = Vec::new();
    for group in texts.chunks(3) {
        log.roll().expect("rolls");
        let group: Vec<&[u8]> = group.iter().map(|text| text.as_bytes()).collect();
        ends.extend(log.append(&group).expect("appends").into_iter().map(|place| place.end));
    }
    ends
}

fn expected(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("{{\"n\":{number}}}")).collect()
}

#[test]
fn a_log_is_read_again_from_every_position() {
    let directory = tempfile::tempdir().expect("a directory");
    let ends = logged(&directory, 20);
    assert!(files(&directory).len() > 3, "it has several segments");
    assert_eq!(bodies(&mut open(&directory, None).1).expect("reads"), expected(0..20));
    for (number, &end) in ends.iter().enumerate() {
        assert_eq!(bodies(&mut open(&directory, Some(end)).1).expect("reads"), expected(number + 1..20), "after {number}");
    }
}

#[test]
fn a_commit_removes_the_segments_before_it_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let ends = logged(&directory, 20);
    for (number, &end) in ends.iter().enumerate() {
        place(&directory).cut(end).expect("cuts");
        assert_eq!(bodies(&mut open(&directory, Some(end)).1).expect("reads"), expected(number + 1..20), "after {number}");
    }
    assert_eq!(files(&directory).len(), 1);
    let error = refused(&directory, Some(ends[0]));
    assert!(error.contains(&format!("the requests at offsets {} to ", ends[0])) && error.contains("are not in the log"), "{error}");
    let error = refused(&directory, Some(1_000_000));
    assert!(error.contains(" to 1000000 are not in the log"), "{error}");
}

#[test]
fn a_log_that_is_not_there_starts_at_the_position() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, mut replay) = open(&directory, Some(5_000));
    assert_eq!(bodies(&mut replay).expect("reads"), [] as [String; 0]);
    assert_eq!(log.append(&[b"x"]).expect("appends")[0].start, 5_000);
}

/// A crash may leave any part of what was written last and not synced.
#[test]
fn a_torn_end_is_cut_off_and_the_log_goes_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let (mut log, _) = open(&directory, None);
    let first = log.append(&[b"{\"n\":0}"]).expect("appends");
    drop(log);
    let whole = fs::read(&files(&directory)[0]).expect("reads");
    let (mut log, _) = open(&directory, None);
    log.append(&[b"{\"n\":1}"]).expect("appends");
    drop(log);
    let path = files(&directory).remove(0);
    // Without the mark behind it, which is written after the sync.
    let long = fs::read(&path).expect("reads");
    let torn = &long[..long.len() - 24];
    for length in whole.len()..torn.len() {
        for last_byte in [torn[length - 1], !torn[length - 1]] {
            let mut content = torn[..length].to_vec();
            if length > whole.len() {
                content[length - 1] = last_byte;
            }
            fs::write(&path, content).expect("written");
            let (mut log, mut replay) = open(&directory, None);
            assert_eq!(bodies(&mut replay).expect("reads"), expected(0..1), "{length} bytes");
            log.append(&[b"{\"n\":2}"]).expect("appends");
            drop(log);
            assert_eq!(bodies(&mut open(&directory, Some(first[0].end)).1).expect("reads"), ["{\"n\":2}"]);
        }
    }
}

#[test]
fn a_bit_that_changed_in_what_was_answered_is_found() {
    let directory = tempfile::tempdir().expect("a directory");
    logged(&directory, 10);
    for path in files(&directory) {
        let content = fs::read(&path).expect("reads");
        let is_last = Some(&path) == files(&directory).last();
        // The last mark is not what was answered: behind it, nothing is.
        let answered = if is_last { content.len() - 24 } else { content.len() };
        for at in 0..answered {
            let mut changed = content.clone();
            changed[at] ^= 1 << (at % 8);
            fs::write(&path, changed).expect("written");
            refused(&directory, None);
        }
        fs::write(&path, &content).expect("written");
        if !is_last {
            fs::write(&path, &content[..content.len() - 1]).expect("written");
            refused(&directory, None);
            fs::write(&path, &content).expect("written");
        }
    }
    assert_eq!(bodies(&mut open(&directory, None).1).expect("reads"), expected(0..10), "nothing was destroyed by looking");
}

#[test]
fn a_log_of_a_newer_format_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    logged(&directory, 1);
    let path = files(&directory).remove(0);
    let mut content = fs::read(&path).expect("reads");
    content[8] = 2;
    fs::write(&path, content).expect("written");
    assert!(refused(&directory, None).ends_with("has format 2; this program reads format 1"));
}

/// A durable source, opened.
struct Job {
    directory: TempDir,
    sync: Sync,
}

impl Job {
    fn new(sync: Sync) -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), sync }
    }

    fn source(&self, connector: &HttpPush) -> Arc<dyn Source> {
        let request = ConnectorRequest {
            id: "in",
            settings: &json!({ "listen": "127.0.0.1:0" }),
            base_directory: ".".into(),
            declared_schema: Some(schema(&[("n", "Int64"), ("s", "Utf8?")])),
            input: None,
            clock: clock(),
            state_directory: Some(self.directory.path().join("log")),
        };
        connector.plan(request).expect("the settings are right")
    }

    /// A run that goes on from a position.
    async fn run(&self, position: Option<&Value>) -> Pushed {
        let connector = HttpPush::syncing(self.sync.clone());
        let source = self.source(&connector);
        let split = source.splits(1).await.expect("splits").remove(0);
        let reader = source.open(&split, position).await.expect("listens");
        Pushed { reader, address: connector.address().expect("it listens"), clock: clock() }
    }
}

async fn next(reader: &mut dyn SplitReader, rows_max: usize) -> Vec<i64> {
    let Read::Rows { batch, rejected } = reader.read(rows_max).await.expect("reads") else { unreachable!("rows") };
    assert_eq!(rejected, []);
    numbers(&batch)
}

#[tokio::test]
async fn what_was_answered_with_200_is_read_again_from_any_position() {
    let job = Job::new(synced());
    assert_eq!(job.source(&HttpPush::default()).guarantee(), Guarantee::ExactlyOnce);
    let mut first = job.run(None).await;
    assert_eq!(first.post("{\"n\":1}\n\n{\"n\":2}\n{\"n\":3}").await, (200, "{\"accepted\":3}\n".into()));
    assert_eq!(first.post("{\"n\":4}").await.0, 200);
    let mut stops = vec![(first.reader.position(), 0)];
    for number in 1..=4 {
        assert_eq!(next(&mut *first.reader, 1).await, [number]);
        stops.push((first.reader.position(), number));
    }
    drop(first);
    stops.push((Value::Null, 0));
    for (position, read) in stops {
        let mut again = job.run(Some(&position).filter(|position| !position.is_null())).await;
        for number in read + 1..=4 {
            assert_eq!(next(&mut *again.reader, 1).await, [number], "after {position}");
        }
        assert!(again.reader.read(1).now_or_never().is_none());
    }
    let mut last = job.run(None).await;
    assert_eq!(last.post("{\"n\":5}").await.0, 200);
    assert_eq!(last.reader.stop().iter().flat_map(numbers).collect::<Vec<_>>(), [1, 2, 3, 4, 5], "a drain reads the log to its end");
}

/// The answer waits for the sync, and requests that come meanwhile share the next one.
#[tokio::test]
async fn nothing_is_answered_before_it_is_synced() {
    let (release, released) = mpsc::sync_channel::<()>(100);
    let (released, syncs) = (std::sync::Mutex::new(released), Arc::new(AtomicUsize::new(0)));
    let counted = syncs.clone();
    let job = Job::new(Arc::new(move |file: &File| {
        counted.fetch_add(1, Ordering::SeqCst);
        released.lock().expect("no one panics").recv().map_err(io::Error::other)?;
        file.sync_data()
    }));
    let mut pushed = job.run(None).await;
    let first = pushed.connect(&post("{\"n\":0}")).await;
    while syncs.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let mut waiting = Vec::new();
    for number in 1..20 {
        waiting.push(pushed.connect(&post(&format!("{{\"n\":{number}}}"))).await);
    }
    let mut first = Box::pin(answer(first));
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
        assert!((&mut first).now_or_never().is_none(), "it is not durable");
        assert!(pushed.reader.read(10).now_or_never().is_none(), "and nobody may see it");
    }
    (0..100).for_each(|_| release.send(()).expect("the log waits"));
    assert_eq!(first.await.0, 200);
    for waiting in waiting {
        assert_eq!(answer(waiting).await.0, 200);
    }
    assert!(syncs.load(Ordering::SeqCst) < 20, "{} syncs of 20 requests", syncs.load(Ordering::SeqCst));
    assert_eq!(next(&mut *pushed.reader, 10).await, [0]);
}

#[tokio::test]
async fn a_disk_that_fails_is_told_to_both_ends_and_nothing_of_it_is_read() {
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    let job = Job::new(Arc::new(move |file: &File| match failing.load(Ordering::SeqCst) {
        true => Err(io::ErrorKind::StorageFull.into()),
        false => file.sync_data(),
    }));
    let mut pushed = job.run(None).await;
    assert_eq!(pushed.post("{\"n\":1}").await.0, 200);
    fails.store(true, Ordering::SeqCst);
    let (status, body) = pushed.post("{\"n\":2}").await;
    assert_eq!(status, 503, "{body}");
    assert_eq!(pushed.post("{\"n\":3}").await.0, 503);
    assert_eq!(next(&mut *pushed.reader, 10).await, [1]);
    let error = pushed.reader.read(10).await.expect_err("the log cannot be written").to_string();
    assert!(error.starts_with("cannot write ") && error.contains(".log: no storage space"), "{error}");
    drop(pushed);
    fails.store(false, Ordering::SeqCst);
    let mut repaired = job.run(None).await;
    assert_eq!(repaired.post("{\"n\":4}").await.0, 200);
    assert_eq!((next(&mut *repaired.reader, 10).await, next(&mut *repaired.reader, 10).await), (vec![1], vec![4]));
}

#[tokio::test]
async fn a_committed_position_lets_the_log_go() {
    let job = Job::new(synced());
    let mut pushed = job.run(None).await;
    assert_eq!(pushed.post("{\"n\":1}").await.0, 200);
    assert_eq!(next(&mut *pushed.reader, 10).await, [1]);
    let position = pushed.reader.position();
    pushed.reader.on_committed(&position).await.expect("cuts");
    drop(pushed);
    let mut again = job.run(Some(&position)).await;
    assert!(again.reader.read(1).now_or_never().is_none(), "what is committed is not read again");
}
