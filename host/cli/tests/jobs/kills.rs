//! Every job of the examples, killed at random moments and at each named point, going on at another parallelism each time.

use std::time::{Duration, Instant};

use millstream_job_tests::{components, rows::Expected};

use crate::binary::{Ended, History, Place, Random, ended, is_soak, killed_after};

/// Where the engine can be told to die, in the order of one checkpoint.
const POINTS: [&str; 7] = ["barrier", "snapshot", "upload", "manifest", "record", "collect", "publish"];
/// A job that needs more runs than this makes no progress.
const RUNS_MAX: u32 = 400;

/// A job of the examples.
struct Job {
    directory: &'static str,
    file: &'static str,
    expected: Vec<Expected<'static>>,
    settings: Vec<&'static str>,
}

impl Job {
    fn new<const N: usize>(directory: &'static str, file: &'static str, expected: [Expected<'static>; N]) -> Self {
        Self { directory, file, expected: expected.into(), settings: vec!["checkpoints.interval=20ms"] }
    }

    fn place(&self) -> Place {
        components::build();
        let place = Place::like(self.directory, self.file);
        self.settings.iter().fold(place, |place, setting| place.set(*setting))
    }

    fn check(&self, place: &Place, context: &str) {
        for sink in &self.expected {
            sink.check(place.path(), context);
        }
    }
}

/// Parallelism of run `number`: a job goes on at another one.
fn parallelism(number: u32) -> String {
    (1 + number % 3).to_string()
}

/// Kills the job so often at random moments, letting it come to its end whenever it gets there, each time from the beginning.
fn killed_at_random_moments(job: &Job, kills: u32) {
    let mut random = Random::seeded(job.file, 4);
    let longest = undisturbed(job);
    let (mut killed, mut jobs) = (0, 0);
    while killed < kills {
        let place = job.place();
        let mut history = History::default();
        while killed_once(&place, &mut history, random.time_up_to(longest)) && killed + history.kills < kills {}
        history.note("to its end");
        finished(ended(&mut place.run(&["--state", "state", "--parallelism", &parallelism(history.kills)])), &mut history);
        job.check(&place, &history.log);
        already_finished(&place);
        job.check(&place, &history.log);
        (killed, jobs) = (killed + history.kills, jobs + 1);
        assert!(jobs < RUNS_MAX, "{}: {killed} kills in {jobs} jobs", job.file);
    }
    println!("{}: {killed} kills in {jobs} jobs within {longest:?}", job.file);
}

/// How long a run takes.
#[expect(clippy::disallowed_methods, reason = "when a process is killed is no matter of a simulated clock")]
fn undisturbed(job: &Job) -> Duration {
    let place = job.place();
    let began = Instant::now();
    ended(&mut place.run(&["--state", "state"])).with_code(0);
    began.elapsed()
}

/// Whether the run was killed, and had not come to its end before.
fn killed_once(place: &Place, history: &mut History, wait: Duration) -> bool {
    let parallelism = parallelism(history.kills);
    history.note(&format!("parallelism {parallelism}, {wait:?}"));
    let Some(ended) = killed_after(&mut place.run(&["--state", "state", "--parallelism", &parallelism]), wait) else {
        history.kills += 1;
        return true;
    };
    assert_eq!(ended.code, Some(0), "{}\n{}", history.log, ended.stderr);
    false
}

/// Dies at every named point, each time from the beginning: when the first checkpoint of a run comes to it, and then at the second of the next run.
fn killed_at_every_point(job: &Job) {
    let mut deaths = 0;
    for point in POINTS {
        let place = job.place().set("checkpoints.retained=1");
        let mut history = History::default();
        for death in [format!("{point}:1"), format!("{point}:2")] {
            let parallelism = parallelism(history.kills);
            let mut command = place.run(&["--state", "state", "--parallelism", &parallelism]);
            command.env("MILLSTREAM_CRASH_AT", &death);
            history.note(&format!("parallelism {parallelism}, dies at {death}"));
            let ended = ended(&mut command);
            match ended.code {
                None => history.kills += 1,
                // It was at its end before it came to this point.
                Some(_) => drop(ended.with_code(0)),
            }
        }
        finished(ended(&mut place.run(&["--state", "state"])), &mut history);
        job.check(&place, &history.log);
        // A job that has one checkpoint alone, the last, removes none.
        assert!(history.kills > 0 || point == "collect", "{}", history.log);
        deaths += history.kills;
    }
    println!("{}: died {deaths} times at {} points", job.file, POINTS.len());
}

#[track_caller]
fn finished(ended: Ended, history: &mut History) {
    assert!(history.kills < RUNS_MAX, "{}", history.log);
    assert_eq!(ended.code, Some(0), "{}\n{}", history.log, ended.stderr);
}

/// A job that is done says so and changes nothing.
fn already_finished(place: &Place) {
    ended(&mut place.run(&["--state", "state"])).with_code(0).saying(&["already finished"]);
}

fn kills() -> u32 {
    if is_soak() { 60 } else { 3 }
}

fn flights() -> Job {
    Job::new(
        "examples/flights",
        "job.yaml",
        [
            Expected::new("examples/flights/expected/knock-ons.ndjson", "knock-ons"),
            Expected::new("examples/flights/expected/alerts.ndjson", "alerts"),
            Expected::new("examples/flights/expected/hours.ndjson", "hours"),
            Expected::nothing("rejected"),
            Expected::nothing("late"),
        ],
    )
}

fn late_flights() -> Job {
    Job::new(
        "examples/flights",
        "late.yaml",
        [
            Expected::new("examples/flights/expected-late/hours.ndjson", "late-job/hours"),
            Expected::new("examples/flights/expected-late/late.ndjson", "late-job/late"),
            Expected::nothing("late-job/rejected"),
        ],
    )
}

fn word_count() -> Job {
    let mut job = Job::new("examples/wordcount", "job.yaml", [Expected::new("examples/wordcount/expected/counts.ndjson", "counts")]);
    job.settings.push("sinks.results={\"input\":\"counts\",\"files\":{\"path\":\"out/counts\",\"format\":\"ndjson\"}}");
    job
}

/// Two tests per job, so that a failure names both.
macro_rules! jobs {
    ($($random:ident $points:ident $job:expr;)*) => {
        $(
            #[test]
            fn $random() {
                killed_at_random_moments(&$job, kills());
            }

            #[test]
            fn $points() {
                killed_at_every_point(&$job);
            }
        )*
    };
}

macro_rules! nexmark {
    ($query:literal) => {
        Job::new(
            "examples/nexmark",
            concat!($query, ".yaml"),
            [Expected::new(concat!("examples/nexmark/expected/", $query, ".ndjson"), $query)],
        )
    };
}

jobs! {
    flights_killed_at_random_moments flights_killed_at_every_point flights();
    late_flights_killed_at_random_moments late_flights_killed_at_every_point late_flights();
    word_count_killed_at_random_moments word_count_killed_at_every_point word_count();
    nexmark_q0_killed_at_random_moments nexmark_q0_killed_at_every_point nexmark!("q0");
    nexmark_q1_killed_at_random_moments nexmark_q1_killed_at_every_point nexmark!("q1");
    nexmark_q2_killed_at_random_moments nexmark_q2_killed_at_every_point nexmark!("q2");
    nexmark_q5_killed_at_random_moments nexmark_q5_killed_at_every_point nexmark!("q5");
    nexmark_q7_killed_at_random_moments nexmark_q7_killed_at_every_point nexmark!("q7");
    nexmark_q8_killed_at_random_moments nexmark_q8_killed_at_every_point nexmark!("q8");
    nexmark_q11_killed_at_random_moments nexmark_q11_killed_at_every_point nexmark!("q11");
    nexmark_q12_killed_at_random_moments nexmark_q12_killed_at_every_point nexmark!("q12");
    nexmark_q14_killed_at_random_moments nexmark_q14_killed_at_every_point nexmark!("q14");
}
