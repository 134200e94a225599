//! Runners: the processes in which the jobs of tenants run. Each wall refuses what it is for; whoever is killed, nothing is lost and nothing is left.

use std::{fs, path::Path, process::Command};

use millstream_hostile::{
    guests,
    players::{Guest, Job},
};
use millstream_sandbox::{Standing, Wall, groups};
use serde_json::Value;

use crate::{
    harness::{DEADLINE, Service, directory, now},
    swaps::{assert_exactly_once, submit_bounded},
};

/// The processes that a process has started and that still run, by their command lines.
fn children(of: u32) -> Vec<(u32, String)> {
    let processes = fs::read_dir("/proc").expect("Linux").filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let child = |process: u32| {
        // `number (name) state parent …`; the name may hold anything.
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
        let mut behind = stat.rsplit_once(") ")?.1.split(' ');
        let (state, parent) = (behind.next()?, behind.next()?);
        let line = fs::read_to_string(format!("/proc/{process}/cmdline")).ok()?.replace('\0', " ");
        (state != "Z" && parent == of.to_string()).then_some((process, line))
    };
    processes.filter_map(child).collect()
}

/// The runners of a service.
fn runners(service: &Service) -> Vec<u32> {
    children(service.id()).into_iter().filter(|(_, line)| line.trim_end().ends_with(" runner")).map(|(process, _)| process).collect()
}

/// The runner of a tenant: the one that holds its room.
fn runner_of(service: &Service, tenant: &str) -> u32 {
    runner_if_any(service, tenant).expect("it has one")
}

fn runner_if_any(service: &Service, tenant: &str) -> Option<u32> {
    let room = format!("runners/{tenant}/lock");
    let holds = |process: &u32| opened(*process).iter().any(|path| path.ends_with(&room));
    runners(service).into_iter().find(holds)
}

/// The files that a process has open.
fn opened(process: u32) -> Vec<String> {
    let opened = fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten();
    opened.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).map(|path| path.display().to_string()).collect()
}

/// The one runner of a service.
pub fn runner(service: &Service) -> u32 {
    let runners = runners(service);
    assert_eq!(runners.len(), 1, "one tenant has one runner: {runners:?}");
    runners[0]
}

fn kill(process: u32) {
    assert!(Command::new("kill").args(["-9", &process.to_string()]).status().expect("kill runs").success());
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let began = now();
    while !is_so() {
        assert!(began.elapsed() < DEADLINE, "{what}");
        std::thread::yield_now();
    }
}

/// What a process behind the walls of a runner was refused, and what not: the attempts that came out otherwise than they must.
fn probed(without: Option<&str>) -> Vec<String> {
    let (own, foreign) = (directory(), directory());
    let foreign_file = foreign.path().join("of-others");
    fs::write(&foreign_file, "secret").expect("writable");
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.args(["runner", "--probe"]).arg(own.path()).arg("--foreign").arg(&foreign_file);
    command.args(without.map(|wall| ["--without", wall]).into_iter().flatten());
    let output = command.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let said: Value =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr)));
    let attempts = said["attempts"].as_array().expect("attempts");
    assert!(attempts.len() > 15, "{said}");
    let wrong = attempts.iter().filter(|attempt| attempt["must-be-refused"] != attempt["was-refused"]);
    wrong.map(|attempt| attempt["what"].as_str().expect("text").to_owned()).collect()
}

/// Whether this machine has a wall as a whole. Where it has not, `doctor` says so, and there is nothing to see here.
fn has(wall: Wall) -> bool {
    let doctor = Command::new(env!("CARGO_BIN_EXE_millstream")).args(["doctor", "--json"]).output().expect("it runs");
    let checks: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
    let check = checks.as_array().expect("checks").iter().find(|check| check["name"] == "walls of runners").expect("it is checked");
    let is_up = millstream_sandbox::offered().0.contains(&(wall, Standing::Up));
    assert_eq!(check["status"] == "good", millstream_sandbox::offered().refused().is_empty(), "{check}");
    is_up
}

#[test]
fn a_runner_is_refused_everything_that_a_job_has_no_use_for() {
    if has(Wall::Files) && has(Wall::Calls) {
        assert_eq!(probed(None), Vec::<String>::new());
    }
}

#[test]
fn without_landlock_a_runner_reads_and_writes_files_of_others() {
    if has(Wall::Files) {
        let open = probed(Some("files"));
        for what in ["read a file of others", "write a file of others", "list a directory of others", "make a file beside a file of others"]
        {
            assert!(open.iter().any(|open| open == what), "{what}: {open:?}");
        }
    }
}

#[test]
fn without_seccomp_a_runner_starts_programs_and_opens_sockets_that_it_must_not() {
    if has(Wall::Calls) {
        let open = probed(Some("calls"));
        for what in [
            "start another program in its place",
            "trace a process",
            "read the memory of a process",
            "open a local socket",
            "make a namespace",
        ] {
            assert!(open.iter().any(|open| open == what), "{what}: {open:?}");
        }
    }
}

#[test]
fn a_runner_that_is_killed_comes_back_and_its_jobs_go_on_exactly_once() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    submit_bounded(&service, "one", 6_000, 2_000);
    submit_bounded(&service, "two", 6_000, 2_000);
    let mut before = 0;
    for _ in 0..2 {
        service.wait_for("a checkpoint of a run that goes on", "/v1/jobs/one/run", |run| {
            run["durable"]["last-checkpoint"].is_object() || run["observed"]["phase"] == "finished"
        });
        let now = runner(&service);
        assert_ne!(now, before, "it is another process");
        kill(now);
        before = now;
        wait_until("another runner", || {
            children(service.id()).iter().any(|(process, line)| line.contains(" runner") && *process != before)
        });
    }
    for job in ["one", "two"] {
        service.wait_for_phase(job, "finished");
        assert_exactly_once(&service, job, 6_000);
    }
}

/// The jobs of one tenant go back to their checkpoints; those of the other do not even notice.
#[test]
fn a_runner_that_is_killed_takes_no_other_tenant_with_it() {
    let directory = directory();
    let mut service = Service::start(directory.path());
    let (own, other) = (service.token.clone(), service.tenant("other"));
    service.push("v1", "count");
    submit_bounded(&service, "ours", 8_000, 1_500);
    service.token.clone_from(&other);
    service.push("v1", "count");
    service.submit("theirs");
    for (token, job) in [(&other, "theirs"), (&own, "ours")] {
        service.token.clone_from(token);
        service.wait_for("a checkpoint", &format!("/v1/jobs/{job}/run"), |run| run["durable"]["last-checkpoint"].is_object());
    }
    let theirs = |service: &Service| service.ask("GET", "/v1/jobs/theirs/run", &other, &[], b"").expect(200);
    let before = (theirs(&service)["observed"].clone(), runner_of(&service, "other"));
    let killed = runner_of(&service, "local");
    assert_ne!(killed, before.1, "each has its own");
    kill(killed);
    service.wait_for("a run that goes on", "/v1/jobs/ours/run", |run| {
        run["observed"]["phase"] == "running" && run["durable"]["last-checkpoint"].is_object() && runner_of_other_process(&service, killed)
    });
    let run = theirs(&service);
    assert_eq!(runner_of(&service, "other"), before.1, "it is the same process");
    assert_eq!(run["observed"], before.0, "it has not been touched");
    assert_eq!(run["durable"]["restarts"], 0, "{run}");
    service.wait_for_phase("ours", "finished");
    assert_exactly_once(&service, "ours", 8_000);
}

/// The runner of our tenant is another one by now.
fn runner_of_other_process(service: &Service, killed: u32) -> bool {
    runners(service).len() == 2 && runner_if_any(service, "local").is_some_and(|runner| runner != killed)
}

/// Where CPU time is short, the kernel gives a tenant with half the share half of it, however many threads want it: by the weight of its control group, which
/// follows the quota, or, on a machine that lets us have none, by the step of `nice` whose weight that is.
#[test]
fn a_tenant_with_a_smaller_share_of_cpu_time_stands_back() {
    let directory = directory();
    let service = Service::start(directory.path());
    let other = service.tenant("other");
    let share = |share: u32| {
        service.put("/v1/tenants/other", &serde_json::json!({ "quotas": { "cpu-share": share, "requests-per-s": null } })).expect(200);
    };
    share(50);
    let file = "job: x\nsources: { a: { sequence: { to: 1 } } }\nsinks: { out: { input: a, blackhole: {} } }\n";
    for token in [&service.token, &other] {
        // Whatever is planned is planned in the runner.
        service.ask("POST", "/v1/validate", token, &[], file.as_bytes()).expect(200);
    }
    let (local, other) = (runner_of(&service, "local"), runner_of(&service, "other"));
    if groups::offered() != Standing::Up {
        assert_eq!(nice_of(other), (nice_of(local) + 3).min(19));
        return;
    }
    assert_eq!((weight_of(local), weight_of(other)), (1.0, 0.5));
    assert_eq!(nice_of(other), nice_of(local), "it has its share once");
    share(300);
    wait_until("the group follows the quota", || weight_of(other) == 3.0);
}

fn nice_of(process: u32) -> i64 {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).expect("it is ours");
    // The 19th field; the third is the first behind the name.
    stat.rsplit_once(") ").and_then(|(_, behind)| behind.split(' ').nth(16)?.parse().ok()).expect("a number")
}

/// The weight of the control group of a process, of what a group has that nobody has given one.
fn weight_of(process: u32) -> f64 {
    let own = fs::read_to_string(format!("/proc/{process}/cgroup")).expect("it is ours");
    let (controllers, path) = own
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .find(|(controllers, path)| {
            path.contains("/millstream-") && (controllers.is_empty() || controllers.split(',').any(|name| name == "cpu"))
        })
        .unwrap_or_else(|| panic!("it is in no group of ours: {own}"));
    let (mount, file, whole) =
        if controllers.is_empty() { ("/sys/fs/cgroup", "cpu.weight", 100.0) } else { ("/sys/fs/cgroup/cpu", "cpu.shares", 1_024.0) };
    let weight = fs::read_to_string(format!("{mount}{path}/{file}")).expect("the group is there");
    weight.trim().parse::<f64>().expect("a number") / whole
}

/// What takes more memory than its tenant has at once, before anybody has looked, is ended by the kernel: the youngest job of the tenant stays stopped and
/// says why, the others go on, and nobody else notices.
#[test]
fn a_runner_that_takes_memory_at_once_is_ended_by_the_kernel_and_says_why() {
    if groups::offered() != Standing::Up {
        // Said by the service at its start; the quota holds as it does there.
        return;
    }
    let (directory, log) = (directory(), tempfile::NamedTempFile::new().expect("a file"));
    let service = Service::start_logged(directory.path(), log.path());
    let token = service.tenant("acme");
    let set = |memory: Value| {
        let quotas = serde_json::json!({ "quotas": { "memory-bytes": memory, "requests-per-s": null } });
        service.put("/v1/tenants/acme", &quotas).expect(200);
    };
    // Room for the runner itself and for the modest job, not for 120 MiB of a guest.
    set((32 << 20).into());
    service.push("v1", "count");
    service.submit("quiet");
    let of = |name: &str, from: &str| format!("job: {name}\nsources: {{ a: {{ sequence: {{ rate: 100 }} }} }}\n{from}");
    let modest = of("modest", "sinks: { out: { input: a, blackhole: {} } }\n");
    service.ask("POST", "/v1/jobs", &token, &[], modest.as_bytes()).expect(201);
    service.wait_for_phase_as(&token, "modest", "running");
    service.ask("POST", "/v1/components/bad?tag=v1&wait=100", &token, &[], &guests::grows_to_the_limit()).expect(201);
    let greedy = Job { guest: Guest::Puppet(guests::grows_to_the_limit), numbers: "rate: 1000", operator: "rejected: drop" };
    service.ask("POST", "/v1/jobs", &token, &[], greedy.file("greedy").as_bytes()).expect(201);
    let stopped = service.wait_for_phase_as(&token, "greedy", "failed");
    assert_eq!(stopped["observed"]["problems"][0]["quota"]["quota"], "memory-bytes", "{stopped}");
    service.wait_for_phase_as(&token, "modest", "running");
    service.wait_for_phase("quiet", "running");
    assert_eq!(service.get("/v1/jobs/quiet/run").expect(200)["durable"]["restarts"], 0);
    let log = fs::read_to_string(log.path()).expect("it is ours");
    assert!(log.contains("the kernel has ended its runner"), "{log}");
}

#[test]
fn a_runner_does_not_outlive_its_service() {
    let directory = directory();
    let service = Service::start(directory.path());
    service.push("v1", "count");
    service.submit("counts");
    service.wait_for_phase("counts", "running");
    let old = runner(&service);
    // Stopped, so that it cannot see for itself that its socket is closed: the kernel has to end it.
    assert!(Command::new("kill").args(["-STOP", &old.to_string()]).status().expect("kill runs").success());
    let service = service.kill_and_start();
    wait_until("the runner is gone", || !Path::new(&format!("/proc/{old}")).exists());
    service.wait_for("ready", "/readyz", |_| true);
    service.wait_for_phase("counts", "running");
    assert_ne!(runner(&service), old);
}

#[test]
fn a_runner_has_nothing_of_its_service_but_one_socket() {
    let directory = directory();
    let service =
        Service::try_start(directory.path(), &[], &[("MILLSTREAM_TOKEN", "planted".to_owned()), ("PLANTED", "planted".to_owned())]);
    let service = service.expect("it starts");
    service.push("v1", "count");
    service.submit("counts");
    service.wait_for_phase("counts", "running");
    let runner = runner(&service);
    let environment = fs::read(format!("/proc/{runner}/environ")).expect("it is ours");
    assert!(!String::from_utf8_lossy(&environment).contains("planted"), "{}", String::from_utf8_lossy(&environment));
    let opened = opened(runner);
    let catalogue = opened.iter().find(|path| {
        path.contains("catalogue")
            || path.contains("audit")
            || path.contains("lock") && !path.contains("runners/") && !path.contains("jobs/")
    });
    assert_eq!(catalogue, None, "{opened:?}");
    let status = fs::read_to_string(format!("/proc/{runner}/status")).expect("it is ours");
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim).map(str::to_owned);
    assert_eq!((field("NoNewPrivs").as_deref(), field("Seccomp").as_deref()), (Some("1"), Some("2")));
}

/// What the walls refuse is refused when the job is submitted, not when it runs.
#[test]
fn a_job_that_listens_is_refused_behind_walls_and_says_what_else_there_is() {
    let directory = directory();
    let service = Service::start(directory.path());
    let listens = "job: posted\nsources:\n  rows: { http-push: { listen: \"127.0.0.1:0\" }, schema: { n: Int64 } }\nsinks:\n  out: { input: rows, blackhole: {} }\n";
    let refused = service.ask("POST", "/v1/jobs", &service.token, &[], listens.as_bytes());
    let problem = refused.problem(400, "--isolation none");
    assert_eq!(problem["problems"][0]["path"], "sources.rows.http-push");
    service.get("/v1/jobs/posted").expect_status(404);
}

/// The same program without runners: for embedding, and where the kernel has no walls.
#[test]
fn without_isolation_jobs_run_in_the_service_itself() {
    let directory = directory();
    let service = Service::start_with(directory.path(), &["--isolation", "none"]);
    service.push("v1", "count");
    submit_bounded(&service, "one", 3_000, 2_000);
    assert!(!service.tail("one", "counts", 3).is_empty());
    assert!(!children(service.id()).iter().any(|(_, line)| line.contains(" runner")));
    service.post("/v1/jobs/one/savepoints", &serde_json::json!({ "name": "s" })).expect(201);
    service.wait_for_phase("one", "finished");
    assert_exactly_once(&service, "one", 3_000);
}
