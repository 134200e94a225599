//! The limits of a guest, and the error that names the one that was exceeded.

use std::{fmt, num::NonZeroU32, sync::Arc, time::Duration};

use millstream_model::ids::OperatorId;

/// What one guest may use. The defaults are meant for strangers; all of them are on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of a component, in bytes. Default: 32 MiB.
    pub component_bytes: u64,
    /// Linear memory of one instance, all its memories together, in bytes. Default: 128 MiB.
    pub memory_bytes: u64,
    /// Entries of each table of an instance. Default: 65,536.
    pub table_entries: u32,
    /// CPU time of one call. Default: 1 s.
    pub cpu_per_call: Duration,
    /// CPU time after which a call lets other tasks run, and the length that batches should aim at. Default: 5 ms.
    pub yield_interval: Duration,
    /// Columns and state values sent into one call, in bytes. Callers split batches, in row order, to stay below it. Default: 8 MiB.
    pub bytes_into_call: u64,
    /// Everything taken out of one call, in bytes. Default: 64 MiB.
    pub bytes_out_of_call: u64,
    /// Requests over HTTP that one call sends, all together. Default: 10,000.
    pub requests_per_call: u32,
    /// Answers over HTTP that one call takes, all together, in bytes. Default: 64 MiB.
    pub answer_bytes_per_call: u64,
    /// Output rows of a call per input row (or due timer). Default: 1,000.
    pub output_rows_per_row: NonZeroU32,
    /// Log text of one subtask per second, in bytes; more is dropped and counted. Default: 64 KiB.
    pub log_bytes_per_second: u32,
    /// Stack of guest code, in bytes; deeper recursion traps. Applies to the whole runtime. Default: 512 KiB.
    pub stack_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            component_bytes: 32 << 20,
            memory_bytes: 128 << 20,
            table_entries: 65_536,
            cpu_per_call: Duration::from_secs(1),
            yield_interval: Duration::from_millis(5),
            bytes_into_call: 8 << 20,
            bytes_out_of_call: 64 << 20,
            requests_per_call: 10_000,
            answer_bytes_per_call: 64 << 20,
            output_rows_per_row: NonZeroU32::new(1_000).expect("not zero"),
            log_bytes_per_second: 64 << 10,
            stack_bytes: 512 << 10,
        }
    }
}

/// One of the [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// [`Limits::component_bytes`].
    ComponentBytes,
    /// [`Limits::memory_bytes`].
    MemoryBytes,
    /// [`Limits::table_entries`].
    TableEntries,
    /// [`Limits::cpu_per_call`], in ms.
    CpuPerCallMs,
    /// [`Limits::bytes_into_call`].
    BytesIntoCall,
    /// [`Limits::bytes_out_of_call`].
    BytesOutOfCall,
    /// [`Limits::requests_per_call`].
    RequestsPerCall,
    /// [`Limits::answer_bytes_per_call`].
    AnswerBytesPerCall,
    /// [`Limits::output_rows_per_row`].
    OutputRowsPerRow,
    /// [`Limits::stack_bytes`].
    StackBytes,
    /// Instances that the runtime may hold at once, see `RuntimeSettings::pooled_instances`.
    Instances,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ComponentBytes => "component size in bytes",
            Self::MemoryBytes => "memory in bytes",
            Self::TableEntries => "table entries",
            Self::CpuPerCallMs => "CPU time per call in ms",
            Self::BytesIntoCall => "bytes into a call",
            Self::BytesOutOfCall => "bytes out of a call",
            Self::RequestsPerCall => "requests over HTTP per call",
            Self::AnswerBytesPerCall => "bytes of answers over HTTP per call",
            Self::OutputRowsPerRow => "output rows per input row",
            Self::StackBytes => "stack in bytes (recursion is too deep)",
            Self::Instances => "instances at once",
        })
    }
}

/// Which guest, and what it was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The component, as the user names it (a path or name).
    pub component: Arc<str>,
    /// The operator of the job that runs it; none while it is loaded or inspected.
    pub operator: Option<OperatorId>,
    /// The call that it was in.
    pub call: Call,
}

impl fmt::Display for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operator {
            Some(operator) => write!(f, "operator `{operator}` (component `{}`) in `{}`", self.component, self.call),
            None => write!(f, "component `{}` in `{}`", self.component, self.call),
        }
    }
}

/// A call of the host into a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Compiling and linking; no guest code runs.
    Load,
    /// Making an instance: its start functions.
    Instantiate,
    /// `describe`.
    Describe,
    /// `plan`.
    Plan,
    /// `open`.
    Open,
    /// `process`.
    Process,
    /// `on-timers`.
    OnTimers,
    /// `accumulate` of an aggregate.
    Accumulate,
    /// `merge` of an aggregate.
    Merge,
    /// `finish` of an aggregate.
    Finish,
    /// `migrate`.
    Migrate,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Load => "load",
            Self::Instantiate => "instantiate",
            Self::Describe => "describe",
            Self::Plan => "plan",
            Self::Open => "open",
            Self::Process => "process",
            Self::OnTimers => "on-timers",
            Self::Accumulate => "accumulate",
            Self::Merge => "merge",
            Self::Finish => "finish",
            Self::Migrate => "migrate",
        })
    }
}

/// A guest wanted more than it may have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{site} exceeded the limit of {max} for {limit}")]
pub struct LimitExceeded {
    /// Who.
    pub site: Site,
    /// Which limit.
    pub limit: Limit,
    /// Its value.
    pub max: u64,
}
