//! `millstream doctor`: is everything here that writing, building and running operators needs?

use std::{fs, thread};

use millstream_sandbox::{Standing, groups};
use serde::Serialize;

use crate::{
    build::{Needed, Requirement},
    machine,
    report::{Exit, Failure},
    terminal::{self, ERROR, FAINT, GOOD, WARNING},
};

/// Checks this machine and says how to put right what is missing.
///
/// Exits with 1 if something is missing that running jobs or building Rust operators needs; what only other languages need is a warning.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream doctor
  millstream doctor --json | jq '.[] | select(.status != \"good\")'")]
pub struct Arguments {
    /// Print one JSON array.
    #[arg(long)]
    pub json: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Status {
    /// As it should be.
    Good,
    /// Something works less well, or only one language does not.
    Warning,
    /// Jobs cannot run, or operators cannot be built.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    status: Status,
    /// What was found.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

pub fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let mut checks = vec![cores(), memory(), open_files(), guests(), walls(), control_groups()];
    checks.extend(crate::build::requirements().into_iter().map(Check::from));
    let text = if arguments.json {
        serde_json::to_string_pretty(&checks).expect("checks have string keys only")
    } else {
        checks.iter().map(Check::to_text).collect()
    };
    terminal::print(&text);
    Ok(if checks.iter().any(|check| check.status == Status::Missing) { Exit::Failed } else { Exit::Done })
}

impl Check {
    fn good(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Good, found: found.into(), fix: None }
    }

    fn unless_enough(self, enough: bool, fix: impl Into<String>) -> Self {
        if enough { self } else { Self { status: Status::Warning, fix: Some(fix.into()), ..self } }
    }

    fn to_text(&self) -> String {
        let (style, word) = match self.status {
            Status::Good => (GOOD, "good   "),
            Status::Warning => (WARNING, "warning"),
            Status::Missing => (ERROR, "missing"),
        };
        let fix = self.fix.as_ref().map(|fix| format!("           {FAINT}fix:{FAINT:#} {fix}\n")).unwrap_or_default();
        format!("{style}{word}{style:#}  {:<24} {}\n{fix}", self.name, self.found)
    }
}

impl From<Requirement> for Check {
    fn from(requirement: Requirement) -> Self {
        let Requirement { name, needed, found, fix } = requirement;
        match (found, needed) {
            (Some(found), _) => Self::good(name, found),
            (None, Needed::ByRust) => Self { name, status: Status::Missing, found: "not found".into(), fix: Some(fix) },
            (None, Needed::ByOthers(language)) => {
                Self { name, status: Status::Warning, found: format!("not found; {language} operators cannot be built"), fix: Some(fix) }
            }
        }
    }
}

fn cores() -> Check {
    let count = thread::available_parallelism().map_or(1, usize::from);
    Check::good("cores", count.to_string()).unless_enough(count > 1, "one core runs everything, but nothing runs beside it")
}

/// What the kernel thinks can be used without swapping.
fn memory() -> Check {
    const ENOUGH_BYTES: u64 = 512 << 20;
    let Some(available_bytes) = fs::read_to_string("/proc/meminfo").ok().and_then(|text| available_bytes(&text)) else {
        return Check::good("memory", "unknown on this system");
    };
    Check::good("memory", format!("{} available", terminal::size(available_bytes))).unless_enough(
        available_bytes >= ENOUGH_BYTES,
        "jobs with large state need 512 MiB or more; stop something or set a smaller state memory",
    )
}

/// `MemAvailable:   20212128 kB` as bytes.
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| kilobytes << 10)
}

/// RocksDB keeps its files open, one database per subtask of a keyed operator.
fn open_files() -> Check {
    const ENOUGH: u64 = 1_024;
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let Some(limit) = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()) else {
        return Check::good("open files", "no limit known");
    };
    Check::good("open files", format!("at most {limit}")).unless_enough(limit >= ENOUGH, "raise it: ulimit -n 4096")
}

/// Guests need address space, which containers and `ulimit -v` may limit: it is reserved, not used.
fn guests() -> Check {
    match machine::component_runtime(machine::INSTANCES_TO_RUN) {
        Ok(_) => Check::good("WebAssembly engine", "starts, with room for its guests"),
        Err(failure) => {
            let causes: Vec<_> = failure.told.problems.iter().flat_map(|problem| problem.causes.clone()).collect();
            let fix = "guests need address space (not memory): lift `ulimit -v` or the limit of the container".to_owned();
            Check { name: "WebAssembly engine", status: Status::Missing, found: causes.join("; "), fix: Some(fix) }
        }
    }
}

/// Runners of the service wall themselves in, as far as the kernel can.
fn walls() -> Check {
    let refused = millstream_sandbox::offered().refused();
    if refused.is_empty() {
        return Check::good("walls of runners", "Landlock, seccomp, limits");
    }
    Check::good("walls of runners", refused.join("; ")).unless_enough(
        false,
        "a newer kernel, or a container that allows it; until then let no tenant in whom you would not let into the machine",
    )
}

/// The service gives each tenant its share of CPU time and its memory by a control group.
fn control_groups() -> Check {
    let missing = match groups::offered() {
        Standing::Up => return Check::good("control groups", "share of CPU time, memory"),
        Standing::Partly { missing } => missing,
        Standing::Missing { reason } => reason,
    };
    Check::good("control groups", missing).unless_enough(
        false,
        "start the service as a systemd unit with Delegate=yes, or in a container that may write its groups; without them tenants share CPU time by threads, and memory is looked at every few seconds",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_from_the_kernel() {
        assert_eq!(available_bytes("MemTotal: 9 kB\nMemAvailable:   2048 kB\nBuffers: 1 kB\n"), Some(2 << 20));
        assert_eq!(available_bytes("MemTotal: 9 kB\n"), None);
    }

    #[test]
    fn what_only_another_language_needs_is_a_warning() {
        let missing = |needed| Check::from(Requirement { name: "x", needed, found: None, fix: "install x".into() });
        assert_eq!(missing(Needed::ByRust).status, Status::Missing);
        assert_eq!(missing(Needed::ByOthers("Python")).status, Status::Warning);
    }
}
