//! `make bench`: every figure, measured on this machine, in one run.
//!
//! One module per group of figures; each says what it measures and how. `jobs`, `guests`, `replay`, `uniform` and `paced` are what they share:
//! planning and running a job, the components, sources of rows. After each group its figures are in `docs/bench/latest.json`; at the end
//! all are printed as a table. `--only NAME…` measures some groups, or some queries of Nexmark; `MILLSTREAM_BENCH_EVENTS` changes the number of
//! distinct events of Nexmark (default: 50 million).

mod boundary;
mod checkpoints;
mod child;
mod decode;
mod disk;
mod figures;
mod guests;
mod jobs;
mod kafka;
mod keyed;
mod native;
mod nexmark;
mod paced;
mod parallel;
mod pause;
mod process;
mod recovery;
mod replay;
mod service;
mod size;
mod switch;
mod uniform;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use child::CHILD;
use figures::{Figure, Report};
use guests::Guests;

/// The groups of figures, in the order in which they are measured.
const GROUPS: [&str; 17] = [
    "boundary",
    "decode",
    "keyed",
    "process",
    "disk",
    "parallel",
    "checkpoints",
    "pause",
    "switch",
    "size",
    "recovery",
    "service",
    "wall",
    "tenants",
    "neighbour",
    "kafka",
    "nexmark",
];

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match arguments.as_slice() {
        [CHILD, what, directory] => runtime.block_on(child::answer(what, Path::new(directory))),
        [] => runtime.block_on(measure(&GROUPS)),
        ["--only", names @ ..] if !names.is_empty() => runtime.block_on(measure(names)),
        _ => bail!("the arguments are none, or `--only NAME…`; {}", known()),
    }
}

/// The root of the repository.
fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn known() -> String {
    let queries: Vec<&str> = nexmark::QUERIES.iter().map(|(query, _)| *query).collect();
    let (parts, topics) = (service::PARTS.join(", "), kafka::PARTS.join(", "));
    format!(
        "names are {}, of parts of service {parts}, of parts of kafka {topics}, and of queries {}",
        GROUPS.join(", "),
        queries.join(", ")
    )
}

async fn measure(names: &[&str]) -> anyhow::Result<()> {
    let events = match std::env::var("MILLSTREAM_BENCH_EVENTS") {
        Ok(text) => text.parse().context("MILLSTREAM_BENCH_EVENTS is a number of events")?,
        Err(_) => 50_000_000,
    };
    let steps = steps(names)?;
    let guests = Guests::build()?;
    let mut report = Report::new(repository().join("docs/bench/latest.json"));
    for step in steps {
        say(&format!("measuring {}", step.name()));
        report.add(step.measure(&guests, events).await.with_context(|| format!("measuring {}", step.name()))?)?;
    }
    report.print();
    Ok(())
}

#[expect(clippy::print_stderr, reason = "what this program is doing")]
fn say(line: &str) {
    eprintln!("bench: {line}");
}

/// What is measured and saved as one.
#[derive(Clone, Copy)]
enum Step {
    Group(&'static str),
    Query(&'static str, f64),
}

/// The steps that have these names.
fn steps(names: &[&str]) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    for name in names {
        let queries = nexmark::QUERIES.iter().filter(|(query, _)| name == query || *name == "nexmark");
        let parts = service::PARTS.iter().filter(|part| name == *part || *name == "service");
        let parts = parts.chain(kafka::PARTS.iter().filter(|part| name == *part || *name == "kafka"));
        let found: Vec<Step> = match GROUPS.iter().find(|group| *group == name && !matches!(**group, "nexmark" | "service" | "kafka")) {
            Some(group) => vec![Step::Group(group)],
            None => parts.map(|part| Step::Group(part)).chain(queries.map(|&(query, bound)| Step::Query(query, bound))).collect(),
        };
        if found.is_empty() {
            bail!("there is no `{name}`; {}", known());
        }
        steps.extend(found);
    }
    Ok(steps)
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Group(name) | Self::Query(name, _) => name,
        }
    }

    async fn measure(self, guests: &Guests, events: u64) -> anyhow::Result<Vec<Figure>> {
        match self {
            Self::Group("boundary") => boundary::measure(guests).await,
            Self::Group("decode") => decode::measure(),
            Self::Group("keyed") => keyed::measure(guests).await,
            Self::Group("process") => process::measure(guests).await,
            Self::Group("wall") => service::wall::measure(guests),
            Self::Group("tenants") => service::tenants::measure(guests),
            Self::Group("neighbour") => service::neighbour::measure(guests).await,
            Self::Group("disk") => disk::measure(guests),
            Self::Group("parallel") => parallel::measure(guests).await,
            Self::Group("checkpoints") => checkpoints::measure(guests).await,
            Self::Group("pause") => pause::measure(guests).await,
            Self::Group("size") => size::measure(guests),
            Self::Group("recovery") => recovery::measure(guests),
            Self::Group("switch") => switch::measure(guests).await,
            Self::Group(part) if kafka::PARTS.contains(&part) => kafka::measure(part, guests).await,
            Self::Group(part) => service::measure(part, guests),
            Self::Query(query, bound) => nexmark::measure(guests, query, bound, events).await,
        }
    }
}
