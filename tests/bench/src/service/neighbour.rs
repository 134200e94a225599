//! What a quiet tenant notices of a hostile one: how many of its rows still come, and how late, while each hostile case that takes CPU time or memory
//! runs beside it; and how long after its deadline a guest is stopped.
//!
//! The neighbour is a keyed component at a fixed rate; its rows are seen over HTTP as they are emitted. Each case is measured against the neighbour alone just
//! before it, so that a clock that changes changes both; the worst case counts. How late a guest is stopped is measured in process: the time for which its
//! call ran, less the limit.

use std::{io::BufReader, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use arrow_schema::Fields;
use millstream_hostile::{
    guests::{self, Bytes},
    players::{Guest, Job},
    quiet::{self, Noticed, Watch},
};
use millstream_wasm::{InputSchema, InstanceContext, Limits, Moment, Rows, Runtime, RuntimeSettings};

use super::process::Service;
use crate::{
    figures::{Figure, now},
    guests::Guests,
};

/// Rows of the neighbour per second.
const RATE: u32 = 2_000;
/// How long is looked.
const LOOK: Duration = Duration::from_secs(6);
/// What passes before: the hostile job is at it, or gone.
const SETTLE: Duration = Duration::from_secs(2);

/// A hostile job that goes on for ever: what it fails at is dropped, so that it is called again.
struct Case {
    name: &'static str,
    guest: fn() -> Bytes,
}

/// The cases of the list that take CPU time or memory.
const CASES: [Case; 9] = [
    Case { name: "loops in process", guest: guests::loops_in_process },
    Case { name: "fills memory", guest: guests::fills_memory },
    Case { name: "just under the deadline", guest: just_under },
    Case { name: "recurses", guest: guests::recurses },
    Case { name: "grows to the limit", guest: guests::grows_to_the_limit },
    Case { name: "grows by pages", guest: guests::grows_by_pages },
    Case { name: "grows a table", guest: guests::grows_a_table },
    Case { name: "leaks", guest: guests::leaks },
    Case { name: "floods handles", guest: guests::floods_handles },
];

fn just_under() -> Bytes {
    guests::counts_for_long(200_000_000)
}

/// All figures of this group.
///
/// # Errors
/// The service does not do what it should.
pub async fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let mut figures = beside(guests)?;
    figures.push(stopped_late().await?);
    Ok(figures)
}

/// What the neighbour notices.
fn beside(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let service = Service::start(guests)?;
    let (quiet, stranger) = (service.tenant("quiet", guests)?, service.tenant("stranger", guests)?);
    quiet.ask("POST", "/v1/jobs", quiet::job(RATE, "tally:v1").as_bytes())?;
    let watch = Arc::new(Watch::new(RATE));
    let stream = quiet.send("GET", "/v1/jobs/quiet/operators/quiet/tail", b"")?;
    let reading = watch.clone();
    // It ends with the service.
    std::thread::spawn(move || reading.read(BufReader::new(stream)));
    let look = || -> Noticed {
        wait(SETTLE);
        watch.begin();
        wait(LOOK);
        watch.noticed()
    };
    let cores = std::thread::available_parallelism()?.get();
    let (mut share, mut times) = ((f64::INFINITY, ""), (0.0_f64, ""));
    for case in &CASES {
        let alone = look();
        ensure!(alone.share > 0.5, "the neighbour alone does not keep up: {alone:?}");
        stranger.push("bad:v1", &(case.guest)())?;
        // As many at once as there are cores: each has one to itself.
        for number in 0..cores {
            let job = Job { guest: Guest::Puppet(case.guest), numbers: "rate: 1000", operator: "rejected: drop" };
            stranger.ask("POST", "/v1/jobs", job.file(&format!("bad-{number}")).as_bytes())?;
        }
        let noticed = look();
        for number in 0..cores {
            stranger.ask("POST", &format!("/v1/jobs/bad-{number}/stop"), br#"{"at-once":true}"#)?;
            stranger.ask("DELETE", &format!("/v1/jobs/bad-{number}"), b"")?;
        }
        let (of_rows, of_p99) = (noticed.share / alone.share * 100.0, noticed.p99.as_secs_f64() / alone.p99.as_secs_f64());
        say(&format!("{}: {of_rows:.1} % of the rows, p99 {:?} instead of {:?}", case.name, noticed.p99, alone.p99));
        if of_rows < share.0 {
            share = (of_rows, case.name);
        }
        if of_p99 > times.0 {
            times = (of_p99, case.name);
        }
    }
    let run = quiet.ask("GET", "/v1/jobs/quiet/run", b"")?;
    let run: serde_json::Value = serde_json::from_str(&run)?;
    ensure!(run["durable"]["restarts"] == 0, "the neighbour was interrupted: {run}");
    let how = |worst: &str| {
        format!(
            "a keyed component at {RATE} rows/s beside {cores} hostile jobs of another tenant, of what it has alone just before; the worst of {} cases: {worst}",
            CASES.len()
        )
    };
    Ok(vec![
        Figure::at_least("rows of a quiet tenant beside a hostile one", share.0, "%", 90.0, how(share.1)),
        Figure::at_most("p99 of a quiet tenant beside a hostile one", times.0, "times", 2.0, how(times.1)),
    ])
}

/// A guest that does not end by itself, and what it does.
type Endless = (&'static str, fn() -> Bytes);

/// How long after its deadline a guest still ran, at worst.
async fn stopped_late() -> anyhow::Result<Figure> {
    const TRIES: usize = 5;
    let limits = Limits { cpu_per_call: Duration::from_millis(200), ..Limits::default() };
    let (deadline, runtime) =
        (limits.cpu_per_call, Runtime::new(RuntimeSettings { limits, pooled_instances: 8, ..RuntimeSettings::default() })?);
    let cases: [Endless; 4] = [
        ("loops", guests::loops_in_process),
        ("fills memory", guests::fills_memory),
        ("logs", guests::logs_for_ever),
        ("loops in post-return", guests::loops_in_post_return),
    ];
    let mut worst = (Duration::ZERO, "");
    for (name, guest) in cases {
        let component = runtime.load(guest(), name).await?;
        for _ in 0..TRIES {
            let input = InputSchema { fields: Fields::empty(), keys: Vec::new(), event_times: false, changes: false };
            let mut instance = component.operator(InstanceContext::unheard(None)).await?;
            let settings = serde_json::Value::Null;
            let plan = match instance.plan(&settings, std::slice::from_ref(&input)).await {
                Ok(plan) => Arc::new(plan),
                // Post-return is already that of `describe`.
                Err(_stopped) => {
                    worst = worst.max((instance.last_call().busy.saturating_sub(deadline), name));
                    continue;
                }
            };
            instance.open(&settings, &[input], plan).await?;
            let rows = Rows { length: 1, columns: Vec::new(), event_times: None, changes: None, keys: None };
            let moment = Moment { watermark: None, processing_time_ms: 0 };
            let (answer, _) = instance.process(moment, 0, rows, None).await;
            let failure = answer.err().context("it does not come to an end by itself")?;
            ensure!(failure.to_string().contains("CPU time"), "{name}: {failure}");
            worst = worst.max((instance.last_call().busy.saturating_sub(deadline), name));
        }
    }
    Ok(Figure::at_most(
        "a guest is stopped after its deadline",
        worst.0.as_secs_f64() * 1e3,
        "ms",
        100.0,
        format!(
            "wall clock of the call less the limit of {} ms of CPU time; the worst of {} cases, {TRIES} tries each: {}",
            deadline.as_millis(),
            cases.len(),
            worst.1
        ),
    ))
}

/// Measuring takes its time.
fn wait(how_long: Duration) {
    let began = now();
    while began.elapsed() < how_long {
        std::thread::park_timeout(how_long.saturating_sub(began.elapsed()));
    }
}

#[expect(clippy::print_stderr, reason = "each case by itself; the figures are the worst of them")]
fn say(line: &str) {
    eprintln!("bench: {line}");
}
