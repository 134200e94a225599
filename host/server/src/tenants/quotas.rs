//! How much of the service a tenant may have, and what it is told when it wants more.

use millstream_model::ErrorKind;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{failure::Failure, text};

/// The largest share of CPU time.
const CPU_SHARE_MAX: u32 = 10_000;

/// What a tenant may have. `null`: as much as there is. What is left out is as with a new tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Quotas {
    /// Share of CPU time where tenants compete for it: one with 200 gets twice as much as one with 100. Default: 100.
    #[schemars(range(min = 1, max = 10_000))]
    pub cpu_share: u32,
    /// Memory of all its jobs together, in bytes. Default: 4 GiB.
    #[schemars(range(max = 0x0020_0000_0000_0000_u64))]
    pub memory_bytes: Option<u64>,
    /// Checkpoints and savepoints, in bytes. Default: 10 GiB.
    #[schemars(range(max = 0x0020_0000_0000_0000_u64))]
    pub state_bytes: Option<u64>,
    /// Jobs, whether they run or not. Default: 100.
    #[schemars(range(max = 1_000_000))]
    pub jobs: Option<u64>,
    /// Components, in bytes. Default: 1 GiB.
    #[schemars(range(max = 0x0020_0000_0000_0000_u64))]
    pub component_bytes: Option<u64>,
    /// What its jobs send to other machines within a day (UTC), in bytes. Default: 100 GiB.
    #[schemars(range(max = 0x0020_0000_0000_0000_u64))]
    pub egress_bytes_per_day: Option<u64>,
    /// Log lines of all its jobs together, in bytes per second. Default: 256 KiB.
    #[schemars(range(max = 1_000_000_000))]
    pub log_bytes_per_s: Option<u64>,
    /// Requests per second; twice as many come at once. Default: 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_s: Option<u64>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            cpu_share: 100,
            memory_bytes: Some(4 << 30),
            state_bytes: Some(10 << 30),
            jobs: Some(100),
            component_bytes: Some(1 << 30),
            egress_bytes_per_day: Some(100 << 30),
            log_bytes_per_s: Some(256 << 10),
            requests_per_s: Some(100),
        }
    }
}

impl Quotas {
    /// As much as there is: for who runs the service.
    pub fn unlimited() -> Self {
        Self {
            cpu_share: 100,
            memory_bytes: None,
            state_bytes: None,
            jobs: None,
            component_bytes: None,
            egress_bytes_per_day: None,
            log_bytes_per_s: None,
            requests_per_s: None,
        }
    }

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// One is out of its range.
    pub fn check(&self) -> Result<(), Failure> {
        let bytes = |name, value| (name, value, 0, 1_u64 << 53);
        let bounded = [
            ("cpu-share", Some(u64::from(self.cpu_share)), 1, u64::from(CPU_SHARE_MAX)),
            bytes("memory-bytes", self.memory_bytes),
            bytes("state-bytes", self.state_bytes),
            ("jobs", self.jobs, 0, 1_000_000),
            bytes("component-bytes", self.component_bytes),
            bytes("egress-bytes-per-day", self.egress_bytes_per_day),
            ("log-bytes-per-s", self.log_bytes_per_s, 0, 1_000_000_000),
            ("requests-per-s", self.requests_per_s, 1, 1_000_000),
        ];
        for (name, value, least, most) in bounded {
            if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
                return Err(Failure::new(ErrorKind::Invalid, format!("`{name}` is {value}; it must be {least} to {most}")));
            }
        }
        Ok(())
    }
}

/// What there is a limit of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Quota {
    /// Memory of all jobs, in bytes.
    MemoryBytes,
    /// Checkpoints and savepoints, in bytes.
    StateBytes,
    /// Jobs.
    Jobs,
    /// Components, in bytes.
    ComponentBytes,
    /// What jobs send within a day, in bytes.
    EgressBytesPerDay,
    /// Requests per second.
    RequestsPerS,
    /// Uploads at once.
    Uploads,
    /// Streams of events at once.
    Streams,
}

impl Quota {
    /// As [`Quotas`] names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryBytes => "memory-bytes",
            Self::StateBytes => "state-bytes",
            Self::Jobs => "jobs",
            Self::ComponentBytes => "component-bytes",
            Self::EgressBytesPerDay => "egress-bytes-per-day",
            Self::RequestsPerS => "requests-per-s",
            Self::Uploads => "uploads",
            Self::Streams => "streams",
        }
    }

    fn is_bytes(self) -> bool {
        matches!(self, Self::MemoryBytes | Self::StateBytes | Self::ComponentBytes | Self::EgressBytesPerDay)
    }

    /// What its tenant can do about it.
    fn fix(self) -> &'static str {
        match self {
            Self::MemoryBytes => "stop a job, or give its operators less",
            Self::StateBytes => "delete savepoints and jobs that are not needed, or let state expire (`ttl`)",
            Self::Jobs => "delete a job that is not needed",
            Self::ComponentBytes => "delete components that no job uses",
            Self::EgressBytesPerDay => "wait for the next day (UTC), or send less",
            Self::RequestsPerS => "ask again after the time that `Retry-After` says, and less often; events and pages save requests",
            Self::Uploads => "wait until one has ended",
            Self::Streams => "close one",
        }
    }
}

/// A quota that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Exceeded {
    /// Which.
    pub quota: Quota,
    /// What the tenant may have.
    pub limit: u64,
    /// What it has.
    pub used: u64,
}

impl Exceeded {
    /// Whether `more` fits.
    ///
    /// # Errors
    /// It does not.
    pub fn check(quota: Quota, limit: u64, used: u64, more: u64) -> Result<(), Failure> {
        if used.saturating_add(more) <= limit {
            return Ok(());
        }
        Err(Self { quota, limit, used }.failure())
    }

    /// As it is told: quota, limit, use, fix.
    pub fn failure(self) -> Failure {
        let Self { quota, limit, used } = self;
        let shown = |amount| if quota.is_bytes() { text::size(amount) } else { amount.to_string() };
        let message = format!("the quota `{}` of this tenant is used up: {} of {}", quota.name(), shown(used), shown(limit));
        let raise = match quota {
            Quota::Uploads | Quota::Streams => String::new(),
            _ => format!("; or have the operator of the service raise it: millstream tenant set NAME --{} N", quota.name()),
        };
        let mut failure = Failure::new(ErrorKind::Conflict, message).fix(format!("{}{raise}", quota.fix()));
        failure.problems[0].quota = Some(self);
        failure
    }
}
