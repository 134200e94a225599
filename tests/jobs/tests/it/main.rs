//! Jobs as directories: the job file, its input, and the rows that an independent reference says it writes.
//!
//! Each job runs as a user runs it, but for where it writes: from its file, with real components built by the real toolchain. It runs
//! straight, at other parallelisms, with every component swapped for another version in the middle, and with each on trial beside itself; the rows must be the same each time,
//! compared as multisets.

#![expect(clippy::print_stdout, reason = "figures are read by people")]

mod gate;
mod run;
mod swaps;
mod trials;
mod widening;

use std::path::Path;

use millstream_job_tests::{components, rows::Expected};
use run::{Job, Run};

/// Runs a job in every way and compares each sink with the rows of the reference.
async fn same_rows_however_it_runs(job: Job, expected: &[Expected<'_>]) {
    components::build();
    let straight = Run { parallelism: 1, swaps: false, tries: false };
    let ways =
        [straight, Run { parallelism: 2, ..straight }, Run { parallelism: 3, ..straight }, Run { parallelism: 2, swaps: true, ..straight }];
    let mut runs = 0;
    let mut check = |written: &Path, context: &str| {
        runs += 1;
        expected.iter().map(|sink| sink.check(written, context)).sum::<usize>()
    };
    for way in ways {
        let (written, components) = job.run_with(way, 0).await;
        let rows = check(written.path(), &format!("{job:?}, {way:?}"));
        let swapped = if way.swaps { format!(", {components} components swapped for another version") } else { String::new() };
        println!("{job}: {rows} rows as the reference has them, parallelism {}{swapped}", way.parallelism);
    }
    // Each component once on trial beside itself: nothing differs, and nothing is lost or doubled.
    let way = Run { parallelism: 2, tries: true, ..straight };
    for tried in 0.. {
        let (written, components) = job.run_with(way, tried).await;
        check(written.path(), &format!("{job:?}, {way:?}, component {tried}"));
        if tried + 1 >= components {
            break;
        }
    }
    println!("{job}: {runs} runs, each equal to the reference");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flights_give_the_rows_of_the_reference() {
    let expected = [
        Expected::new("examples/flights/expected/knock-ons.ndjson", "knock-ons"),
        Expected::new("examples/flights/expected/alerts.ndjson", "alerts"),
        Expected::new("examples/flights/expected/hours.ndjson", "hours"),
        Expected::nothing("rejected"),
        Expected::nothing("late"),
    ];
    same_rows_however_it_runs(Job::at("examples/flights", "job.yaml", 2_000), &expected).await;
}

/// Which rows are late follows from the rule alone: a watermark after every 1,024th row of the split.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_flights_are_those_that_the_watermark_rule_predicts() {
    let expected = [
        Expected::new("examples/flights/expected-late/hours.ndjson", "late-job/hours"),
        Expected::new("examples/flights/expected-late/late.ndjson", "late-job/late"),
        Expected::nothing("late-job/rejected"),
    ];
    same_rows_however_it_runs(Job::at("examples/flights", "late.yaml", 2_000), &expected).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_word_count_counts_words() {
    let expected = [Expected::new("examples/wordcount/expected/counts.ndjson", "counts")];
    same_rows_however_it_runs(Job::at("examples/wordcount", "job.yaml", 7), &expected).await;
}

/// One test per query, so that a failure names it.
macro_rules! nexmark {
    ($($name:ident $query:literal,)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let expected = [Expected::new(concat!("examples/nexmark/expected/", $query, ".ndjson"), $query)];
                same_rows_however_it_runs(Job::at("examples/nexmark", concat!($query, ".yaml"), 60), &expected).await;
            }
        )*
    };
}

nexmark! {
    nexmark_q0_passes_every_bid "q0",
    nexmark_q1_converts_prices "q1",
    nexmark_q2_selects_auctions "q2",
    nexmark_q5_finds_the_hottest_auctions "q5",
    nexmark_q7_finds_the_highest_bid "q7",
    nexmark_q8_finds_new_sellers "q8",
    nexmark_q11_counts_bids_per_session "q11",
    nexmark_q12_counts_bids_per_window "q12",
    nexmark_q14_calculates "q14",
}
