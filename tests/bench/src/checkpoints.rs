//! What checkpoints cost: the same query on the same events with a checkpoint every second and without any, both with their state on disk, by the
//! clock on the wall. Of several tries the best counts, since others can only take time away.

use std::{
    num::NonZeroU32,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use millstream_engine::{
    clock::Random,
    run::{Durable, FileWork, RunSettings, StartFrom, StateDirectory},
};
use millstream_state::{RocksShared, RocksSharedSettings};
use millstream_storage::{LocalCheckpointStorage, LocalCommitLog};

use crate::{
    figures::Figure,
    guests::Guests,
    nexmark::{Replayed, Took, replayed},
};

const TRIES: usize = 3;
/// Some seconds, so that several checkpoints are taken.
const EVENTS: u64 = 50_000_000;
const QUERIES: [&str; 2] = ["q5", "q11"];

/// All figures of this group.
///
/// # Errors
/// A query does not run.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for query in QUERIES {
        figures.push(measure_query(guests, query).await?);
    }
    Ok(figures)
}

async fn measure_query(guests: &Guests, query: &str) -> anyhow::Result<Figure> {
    let replayed = replayed(guests, query, EVENTS, NonZeroU32::MIN).await?;
    let (mut without, mut with) = (Took::LONGEST, Took::LONGEST);
    for _ in 0..TRIES {
        without = without.min(time(&replayed, false).await?);
        with = with.min(time(&replayed, true).await?);
    }
    let how = format!(
        "{EVENTS} events replayed from memory, state on RocksDB, {without} without and {with} with a checkpoint every second and at the end, best of {TRIES} in turn"
    );
    Ok(Figure::at_least(format!("throughput with checkpoints against none, {query}"), without.seconds / with.seconds, "times", 0.9, how))
}

async fn time(replayed: &Replayed, is_durable: bool) -> anyhow::Result<Took> {
    let directory = tempfile::tempdir()?;
    replayed.time(settings(directory.path(), is_durable)?).await
}

/// A run with its state on RocksDB below `place`; durable there, too, if asked.
///
/// # Errors
/// The place cannot be used.
pub fn settings(place: &Path, is_durable: bool) -> anyhow::Result<RunSettings> {
    let state = StateDirectory { path: place.join("state"), shared: Arc::new(RocksShared::new(RocksSharedSettings::default())) };
    let durable = is_durable.then(|| -> anyhow::Result<Durable> {
        Ok(Durable {
            storage: Arc::new(LocalCheckpointStorage::open(&place.join("checkpoints"))?),
            log: Arc::new(LocalCommitLog::open(&place.join("commit.log"))?),
            work: place.join("work"),
            random: Arc::new(Counted::default()),
            start: StartFrom::Latest,
            file_work: FileWork::OnThreads,
            crash: None,
        })
    });
    Ok(RunSettings { state: Some(state), durable: durable.transpose()?, ..RunSettings::new() })
}

/// Names need to differ, and nobody waits.
#[derive(Default)]
struct Counted(AtomicU64);

impl Random for Counted {
    fn next_u64(&self) -> u64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }
}
