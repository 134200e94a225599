//! R4 against a bad network: a proxy between the job and the broker delays, doubles and drops what transactions are made of.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use millstream_broker::{
    Broker,
    proxy::{Fate, Kind, Proxy},
};
use millstream_engine::connector::SinkWriter;
use millstream_model::ids::CheckpointId;
use millstream_storage::Error;
use rand_chacha::ChaCha8Rng;
use rand_core::{Rng as _, SeedableRng as _};
use rdkafka::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    Cluster,
    sink::{Job, checkpoint, context, request, rows},
};
use crate::kafka::{settings::SinkSettings, transaction};

/// Longer than a clean commit takes, and shorter than any timeout.
const LATE: Duration = Duration::from_millis(700);
/// Longer than a commit takes on a busy machine.
const FENCED: Duration = Duration::from_secs(8);
/// Rows of one checkpoint.
const ROWS: i64 = 10;
/// Jobs that write at the same time.
const JOBS: usize = 8;
/// A job that cannot come to terms with its cluster in so many attempts never will.
const CLAIMS_MAX: u32 = 1_000;

/// A broker that is reached through a proxy alone.
struct Behind {
    proxy: Proxy,
    cluster: Cluster,
    _broker: Broker,
    _directory: TempDir,
}

impl Behind {
    fn start() -> Self {
        let proxy = Proxy::start();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let advertised = format!("advertised.listeners=PLAINTEXT://{}", proxy.address());
        let broker = Broker::start(directory.path(), &[&advertised]);
        proxy.set_broker(broker.address().parse().expect("an address"));
        let cluster = Cluster { address: proxy.address().to_string(), unique: "r4".into(), shared: None };
        Self { proxy, cluster, _broker: broker, _directory: directory }
    }

    /// A job that writes to a topic of its own and has a commit topic of its own. `believes`: without R4.
    fn job(&self, name: &str, topic: &str, believes: bool) -> Job<'_> {
        let more = json!({ "commit-topic": format!("commits-{name}") });
        let mut job = Job::unclaimed(&self.cluster, topic, name, more.clone());
        if believes {
            let settings: SinkSettings = serde_json::from_value(self.cluster.sink_settings(&json!(topic), more)).expect("settings");
            job.transaction =
                Arc::new(transaction::Transaction::new(&settings, Path::new("."), request()).expect("no secrets").believing());
        }
        job
    }
}

/// The next request of this kind has this fate, and all others pass; tells when it comes.
fn delayed(proxy: &Proxy, kind: Kind, fate: Fate) -> tokio::sync::oneshot::Receiver<()> {
    let (tell, told) = tokio::sync::oneshot::channel();
    let mut tell = Some(tell);
    proxy.decide(move |asked| match tell.take_if(|_| asked == kind) {
        Some(tell) => {
            tell.send(()).expect("the test waits for it");
            fate
        }
        None => Fate::Passes,
    });
    told
}

/// The library asks without a pause whether more of a partition may be sent while a request is under way (see `producer.rs`), so it must have no more.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_wait_for_a_slow_broker_take_no_cpu_time() {
    let behind = Behind::start();
    let topic = behind.cluster.create("out", 1, &[]).await;
    let sink = behind.cluster.sink(&json!(topic), json!({ "delivery": "at-least-once" })).expect("settings");
    let mut writer = sink.writer(context(0, None)).await.expect("a writer");
    let told = delayed(&behind.proxy, Kind::Produce, Fate::AnsweredLate(FENCED));
    // More records than the library takes for requests that may be under way.
    writer.write(&rows(0..10, &topic)).await.expect("written");
    told.await.expect("it is sent");
    let before = cpu_time::ProcessTime::now();
    for id in 10..100 {
        writer.write(&rows(id..id + 1, &topic)).await.expect("written");
    }
    writer.on_barrier(CheckpointId(1)).await.expect("acknowledged");
    let took = before.elapsed();
    assert!(took < FENCED / 4, "{took:?} of CPU time while {FENCED:?} passed");
    assert_eq!(behind.cluster.ids(&topic), (0..100).collect::<Vec<_>>());
}

/// R3: the record is read when nobody else can write it any more, and not before: what an older process commits until then counts.
#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_process_commits_until_it_is_fenced_is_found() {
    let behind = Behind::start();
    let topic = behind.cluster.create("out", 1, &[]).await;
    let mut zombie = Job::unclaimed(&behind.cluster, &topic, "r3", json!({}));
    zombie.claim().await.expect("claimable");
    let mut writer = zombie.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    let mut heir = zombie.another();
    // Whoever claims is about to fence the other, and is slow.
    let told = delayed(&behind.proxy, Kind::InitProducer, Fate::Late(FENCED));
    let committed = async {
        told.await.expect("it is fenced");
        zombie.commit(1).await
    };
    let (claimed, committed) = tokio::join!(heir.claim(), committed);
    committed.expect("nobody has fenced it yet");
    claimed.expect("claimable");
    assert_eq!((heir.held.incarnation, heir.held.checkpoint), (2, Some(CheckpointId(1))));
    assert_eq!(behind.cluster.ids(&topic), (0..10).collect::<Vec<_>>());
}

/// R4: who has to find out what became of a commit does not fence whoever has taken over meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_in_doubt_does_not_fence_who_has_taken_over() {
    let behind = Behind::start();
    let topic = behind.cluster.create("out", 1, &[]).await;
    let mut zombie = Job::unclaimed(&behind.cluster, &topic, "r4", json!({}));
    zombie.claim().await.expect("claimable");
    let mut writer = zombie.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    let mut heir = zombie.another();
    // The broker commits, and the zombie hears of it when somebody else has taken over.
    let told = delayed(&behind.proxy, Kind::EndTransaction, Fate::AnsweredLate(FENCED));
    let claimed = async {
        told.await.expect("it commits");
        heir.claim().await
    };
    let (committed, claimed) = tokio::join!(zombie.commit(1), claimed);
    claimed.expect("claimable");
    let refused = committed.expect_err("another process has taken over");
    assert!(matches!(refused, Error::Fenced { incarnation: 1, holder: 2, .. }), "{refused:?}");
    let mut writer = heir.writer(0).await;
    for number in [2, 3] {
        let first = (number as i64 - 1) * 10;
        writer.write(&rows(first..first + 10, &topic)).await.expect("written");
        checkpoint(&mut *writer, number).await.expect("sealed");
        heir.commit(number).await.expect("it is not fenced");
    }
    assert_eq!(behind.cluster.ids(&topic), (0..30).collect::<Vec<_>>());
}

/// A claim whose answer never came is found in the topic by the next one of the same process, which is not taken for somebody who has taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_claim_in_doubt_is_ones_own() {
    let behind = Behind::start();
    let topic = behind.cluster.create("out", 1, &[]).await;
    let mut job = Job::unclaimed(&behind.cluster, &topic, "r3", json!({}));
    job.claim().await.expect("claimable");
    let told = delayed(&behind.proxy, Kind::EndTransaction, Fate::AnsweredLate(FENCED));
    tokio::select! {
        claimed = job.claim() => panic!("the answer is late: {claimed:?}"),
        told = told => told.expect("it commits"),
    }
    job.claim().await.expect("nobody else has claimed");
    let mut writer = job.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    job.commit(1).await.expect("committed");
    assert_eq!(behind.cluster.ids(&topic), (0..10).collect::<Vec<_>>());
}

/// R4: the request that ends a transaction reaches the broker once more, while the next transaction of the same id is open.
async fn after_a_second_end(believes: bool) -> Seen {
    let behind = Behind::start();
    let topic = behind.cluster.create("out", 1, &[]).await;
    let mut job = behind.job("r4", &topic, believes);
    job.claim().await.expect("claimable");
    let mut writer = job.writer(0).await;
    writer.write(&rows(0..10, &topic)).await.expect("written");
    checkpoint(&mut *writer, 1).await.expect("sealed");
    behind.proxy.next(Kind::EndTransaction, Fate::Kept(LATE));
    job.commit(1).await.expect("committed");
    writer.write(&rows(10..20, &topic)).await.expect("written");
    checkpoint(&mut *writer, 2).await.expect("sealed");
    job.commit(2).await.expect("committed");
    // On the same side as 1, acknowledged, and not committed.
    writer.write(&rows(20..25, &topic)).await.expect("written");
    checkpoint(&mut *writer, 3).await.expect("sealed");
    let mut seen = Seen { error: behind.proxy.send_again(), ids: behind.cluster.ids(&topic) };
    // What the broker was told to end, it ends after its answer; if it does not, the test runs into its time.
    while seen.error == 0 && seen.ids.len() <= 20 {
        seen.ids = behind.cluster.ids(&topic);
    }
    seen
}

/// What the broker answers to the second end, and what a reader sees then.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    error: i16,
    ids: Vec<i64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_arrives_twice_tears_no_transaction() {
    let seen = after_a_second_end(false).await;
    assert_ne!(seen.error, 0, "the producer that sent it was replaced");
    assert_eq!(seen.ids, (0..20).collect::<Vec<_>>());
}

/// What the test above would see without R4: rows of checkpoint 3 are visible, and its record is not there.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_rule_of_clean_commits_an_end_that_arrives_twice_tears_a_transaction() {
    assert_eq!(after_a_second_end(true).await, Seen { error: 0, ids: (0..25).collect() });
}

/// Which faults there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// All.
    Any,
    /// Ends of transactions that reach the broker later, or once more.
    Ends,
}

/// What is to become of requests: faults until there were enough of them.
struct Faults {
    of: Choice,
    left: Arc<AtomicU64>,
    random: ChaCha8Rng,
    counts: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl Faults {
    fn below(&mut self, limit: u64) -> u64 {
        self.random.next_u64() % limit
    }

    fn time_up_to(&mut self, limit_ms: u64) -> Duration {
        Duration::from_millis(self.below(limit_ms))
    }

    fn fate(&mut self, kind: Kind) -> Fate {
        // Of a hundred requests.
        let faulty = match kind {
            Kind::EndTransaction => 40,
            _ if self.of == Choice::Ends => 0,
            Kind::AddPartitions => 20,
            Kind::Produce => 10,
            Kind::InitProducer | Kind::AddOffsets => 10,
            Kind::Other => 0,
        };
        if self.left.load(Ordering::Relaxed) == 0 || self.below(100) >= faulty {
            return Fate::Passes;
        }
        self.left.fetch_sub(1, Ordering::Relaxed);
        let which = if self.of == Choice::Ends { 4 + self.below(2) } else { self.below(6) };
        let (name, fate) = match which {
            0 => ("late", Fate::Late(self.time_up_to(900))),
            1 => ("answered late", Fate::AnsweredLate(self.time_up_to(900))),
            2 => ("lost", Fate::Lost),
            3 => ("answer lost", Fate::AnswerLost),
            4 => ("stray", Fate::Strays(self.time_up_to(3_000))),
            _ => ("doubled", Fate::Doubled { answer: LATE, again: LATE + self.time_up_to(3_000) }),
        };
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(format!("{kind:?} {name}")).or_default() += 1;
        fate
    }
}

/// What the topics hold that should not be there, and what they lack.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    checkpoints: i64,
    lost: usize,
    doubled: usize,
    /// Checkpoints of which a part is seen.
    torn: usize,
    out_of_order: usize,
    /// A job that could not go on, and why.
    stuck: Vec<String>,
}

/// One job writes and commits, and goes back to what was decided after every doubt, until there are no faults left. The number of its last checkpoint.
async fn write_until_calm(job: &mut Job<'_>, topic: &str, left: &AtomicU64) -> Result<i64, String> {
    let mut claims = 0;
    loop {
        match job.claim().await {
            Ok(()) => {}
            // R5: in doubt it is tried again.
            Err(Error::Unreachable { .. } | Error::Io { .. }) if claims < CLAIMS_MAX => {
                claims += 1;
                continue;
            }
            Err(error) => return Err(format!("{error:?}")),
        }
        let mut writer = job.writer(0).await;
        if write(job, &mut *writer, topic, left).await.is_ok() {
            return Ok(number(job));
        }
    }
}

/// The last checkpoint that was decided.
fn number(job: &Job<'_>) -> i64 {
    job.held.checkpoint.map_or(0, |checkpoint| checkpoint.0 as i64)
}

/// Checkpoint after checkpoint; what stands behind a barrier is sent before the commit, as a stream does.
async fn write(job: &mut Job<'_>, writer: &mut dyn SinkWriter, topic: &str, left: &AtomicU64) -> Result<(), ()> {
    let half = ROWS / 2;
    let first = number(job) * ROWS;
    writer.write(&rows(first..first + half, topic)).await.map_err(drop)?;
    loop {
        let number = number(job) + 1;
        let end = number * ROWS;
        writer.write(&rows(end - half..end, topic)).await.map_err(drop)?;
        checkpoint(writer, number as u64).await.map_err(drop)?;
        let is_last = left.load(Ordering::Relaxed) == 0;
        if !is_last {
            writer.write(&rows(end..end + half, topic)).await.map_err(drop)?;
        }
        job.commit(number as u64).await.map_err(drop)?;
        if is_last {
            return Ok(());
        }
    }
}

/// Compares what readers see with the ids that arithmetic says.
fn count(behind: &Behind, topic: &str, checkpoints: i64, account: &mut Account) {
    let mut times = vec![0_usize; (checkpoints * ROWS) as usize];
    let mut last = BTreeMap::new();
    for record in behind.cluster.read_topic(topic, "read_committed") {
        let value: Value = serde_json::from_slice(record.payload().expect("a value")).expect("JSON");
        let id = value["id"].as_i64().expect("an id");
        account.out_of_order += usize::from(last.insert(record.partition(), id).is_some_and(|before| before > id));
        match times.get_mut(id as usize) {
            Some(times) => *times += 1,
            // Of a checkpoint that was never decided.
            None => account.doubled += 1,
        }
    }
    account.checkpoints += checkpoints;
    account.lost += times.iter().filter(|times| **times == 0).count();
    account.doubled += times.iter().filter(|times| **times > 1).count();
    account.torn += times.chunks(ROWS as usize).filter(|of_one| of_one.iter().any(|times| *times != of_one[0])).count();
}

/// So many faults, from a seed.
async fn under_faults(name: &str, faults: u64, of: Choice, believes: bool) -> Account {
    let seed = std::env::var("MILLSTREAM_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(4);
    println!("{name}: MILLSTREAM_SEED={seed}");
    let behind = Behind::start();
    let mut topics = Vec::new();
    for number in 0..JOBS {
        topics.push(behind.cluster.create(&format!("out-{number}"), 2, &[]).await);
    }
    let (left, counts) = (Arc::new(AtomicU64::new(faults)), Arc::<Mutex<BTreeMap<String, u64>>>::default());
    let mut decided = Faults { of, left: left.clone(), random: ChaCha8Rng::seed_from_u64(seed), counts: Arc::clone(&counts) };
    behind.proxy.decide(move |kind| decided.fate(kind));
    let jobs = topics.iter().enumerate().map(async |(number, topic)| {
        let mut job = behind.job(&format!("job-{number}"), topic, believes);
        write_until_calm(&mut job, topic, &left).await
    });
    let ended = futures::future::join_all(jobs).await;
    let mut account = Account::default();
    for (topic, ended) in topics.iter().zip(ended) {
        match ended {
            Ok(checkpoints) => count(&behind, topic, checkpoints, &mut account),
            Err(error) => account.stuck.push(error),
        }
    }
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    println!("{name}: {faults} faults: {counts:?}: {account:?}");
    account
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_on_the_way_of_requests_tear_no_transaction() {
    let faults = if std::env::var_os("MILLSTREAM_SOAK").is_some() { 10_000 } else { 200 };
    let account = under_faults("faults", faults, Choice::Any, false).await;
    assert!(account.checkpoints > 0, "{account:?}");
    assert_eq!(account, Account { checkpoints: account.checkpoints, ..Account::default() });
}

/// What the test above would find without R4; half of its kinds of faults are enough.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_rule_of_clean_commits_such_faults_tear_transactions() {
    let account = under_faults("faults without R4", 100, Choice::Ends, true).await;
    assert!(account.torn + account.doubled > 0, "{account:?}");
}
