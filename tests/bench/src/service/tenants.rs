//! Many tenants in one service, each with a runner: what a thousand idle jobs of twenty of them hold, and how soon the jobs of all run again after the
//! service was killed.
//!
//! That every row counts once is seen by the components, whose state numbers the rows of each key; their files are compared by [`super::kill`].

use super::{
    jobs::Numbered,
    percentile,
    process::{Service, Talk, pss_mib},
    since_ms,
};
use crate::{
    figures::{Figure, median, now},
    guests::Guests,
};

const TENANTS: usize = 20;
const IDLE_JOBS: usize = 1_000;
const RUNNING_JOBS: usize = 100;
const REQUESTS: usize = 2_000;
const KEYS: u64 = 7;
const RATE: u64 = 100;

/// All figures of this group.
///
/// # Errors
/// The service does not do what it should.
pub fn measure(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let mut figures = vec![runners(guests)?];
    figures.extend(idle(guests)?);
    figures.extend(killed(guests)?);
    Ok(figures)
}

/// A service with so many jobs of [`TENANTS`], dealt out in turn, each with checkpoints behind it: who speaks for each, and their names.
fn with_jobs(guests: &Guests, count: usize, rate: u64, settings: &str) -> anyhow::Result<(Service, Vec<(Talk, String)>)> {
    let service = Service::start(guests)?;
    let tenants = (0..TENANTS).map(|number| service.tenant(&format!("tenant{number}"), guests)).collect::<anyhow::Result<Vec<_>>>()?;
    let mut jobs = Vec::new();
    for number in 0..count {
        let (tenant, name) = (tenants[number % TENANTS].clone(), format!("job{number}"));
        tenant.submit(&Numbered { settings, ..Numbered::new(&name, rate, KEYS) }.file())?;
        jobs.push((tenant, name));
    }
    for (tenant, name) in &jobs {
        while tenant.run(name)?.last_checkpoint() < 2 {
            std::thread::yield_now();
        }
    }
    Ok((service, jobs))
}

/// The runners of as many tenants, none with a job.
fn runners(guests: &Guests) -> anyhow::Result<Figure> {
    let service = Service::start(guests)?;
    for number in 0..TENANTS {
        let tenant = service.tenant(&format!("tenant{number}"), guests)?;
        // Whatever is asked of a tenant's jobs starts its runner.
        tenant.json("POST", "/v1/validate", Numbered::new("idle", 1, KEYS).file().as_bytes())?;
    }
    let runners = service.runners()?;
    anyhow::ensure!(runners.len() == TENANTS, "each tenant has one runner: {runners:?}");
    let each = runners.iter().map(|runner| pss_mib(runner)).collect::<anyhow::Result<Vec<f64>>>()?;
    let how = format!("proportional set size, each of {TENANTS} beside each other, after a job file was planned in it; median");
    Ok(Figure::at_most("memory of one of 20 runners without jobs", median(each), "MiB", 25.0, how))
}

fn idle(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let (service, jobs) = with_jobs(guests, IDLE_JOBS, 1, "")?;
    let memory = service.pss_mib()?;
    let mut milliseconds = Vec::new();
    for number in 0..REQUESTS {
        let (tenant, name) = &jobs[number % IDLE_JOBS];
        let began = now();
        tenant.json("GET", &format!("/v1/jobs/{name}"), b"")?;
        milliseconds.push(since_ms(began));
    }
    let how = format!(
        "{IDLE_JOBS} jobs of {TENANTS} tenants, each of one row a second with a keyed component and a checkpoint every 10 s; proportional set size of the \
         service and all runners"
    );
    Ok(vec![
        Figure::at_most("memory of 1,000 idle jobs of 20 tenants", memory, "MiB", 2_048.0, &how),
        Figure::at_most("API beside 1,000 idle jobs of 20 tenants, p99", percentile(&milliseconds, 0.99), "ms", 50.0, &how),
    ])
}

fn killed(guests: &Guests) -> anyhow::Result<Vec<Figure>> {
    let (mut service, jobs) = with_jobs(guests, RUNNING_JOBS, RATE, "checkpoints: { interval: 1s }")?;
    service.kill()?;
    let killed = now();
    service.restart()?;
    let jobs: Vec<(Talk, String)> = jobs.iter().map(|(tenant, name)| (service.again(tenant), name.clone())).collect();
    for (tenant, name) in &jobs {
        // Until it is started there is no run to look at.
        while !tenant.run(name).is_ok_and(|run| run.of("tally", "rows-out") > 0) {}
    }
    let all = killed.elapsed().as_secs_f64();
    let mut wrong = 0;
    for (tenant, name) in &jobs {
        wrong += tenant.run(name)?.of("wrong", "rows-out");
    }
    let how = format!(
        "kill -9 of the service, started again at once, until each of {RUNNING_JOBS} jobs of {TENANTS} tenants has taken a row through its keyed component"
    );
    Ok(vec![
        Figure::at_most("kill -9 with 100 jobs of 20 tenants, all running again", all, "s", 5.0, &how),
        Figure::at_most("kill -9 with 100 jobs of 20 tenants, rows lost, twice or out of order", wrong as f64, "rows", 0.0, &how),
    ])
}
