//! What is asked of a workshop, and what it answers. Plain data; a message that is not understood as a whole is refused.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use millstream_engine::run::{SwapId, SwitchAt, TrialId, TrialMode, TrialRule};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    catalogue::objects::Start,
    failure::{Failure, Problem},
    jobs::{observed::Phase, prepare::Asked},
    logs::Line,
};

/// What is asked of a workshop. Behind each: what it answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Plan a version: [`Planned`].
    Prepare {
        /// The version.
        recipe: Box<Recipe>,
        /// The job in whose directory its sources and sinks keep what they have accepted; none: it is only looked at.
        keeps_in: Option<String>,
    },
    /// Forget a prepared version: nothing.
    Forget {
        /// Its number.
        prepared: u64,
    },
    /// What the outside lacks that a prepared version needs: nothing, or an error.
    CheckOutside {
        /// Its number.
        prepared: u64,
    },
    /// How a prepared version is planned: a text.
    Explain {
        /// Its number.
        prepared: u64,
    },
    /// Make the directory of a job: nothing.
    MakePlace {
        /// The job.
        job: String,
        /// The version that is about to run.
        prepared: u64,
    },
    /// Start a run of a job that does not run: nothing.
    Start {
        /// The job.
        job: String,
        /// The number of the run, which news of its end will name.
        run: u64,
        /// The version; it is used up.
        prepared: u64,
        /// The savepoint to start from, as long as there is no checkpoint.
        from: Option<Start>,
    },
    /// Stop a run behind a last checkpoint, and wait for its end: nothing.
    Stop {
        /// The job.
        job: String,
    },
    /// End a run where it is: nothing.
    Cancel {
        /// The job.
        job: String,
    },
    /// What a run does: `JobStatus`, or null if there is none.
    Status {
        /// The job.
        job: String,
    },
    /// Take a checkpoint of a run: nothing.
    Checkpoint {
        /// The job.
        job: String,
    },
    /// Take a savepoint, of the run or of the last checkpoint: `Facts`.
    TakeSavepoint {
        /// The job.
        job: String,
        /// Its name.
        name: String,
    },
    /// The savepoints of a job: names and `Facts`.
    Savepoints {
        /// The job.
        job: String,
    },
    /// One savepoint: `Facts`.
    Savepoint {
        /// The job.
        job: String,
        /// Its name.
        name: String,
    },
    /// Delete a savepoint: nothing.
    DeleteSavepoint {
        /// The job.
        job: String,
        /// Its name.
        name: String,
    },
    /// Whether a job has ever committed anything: a truth value.
    HasBegun {
        /// The job.
        job: String,
    },
    /// Prepare a swap in a run: `Result<SwapStatus, SwapError>`.
    PrepareSwap {
        /// What, in which job.
        swap: Box<WantedSwap>,
    },
    /// Switch to what was prepared: `Result<SwitchReport, SwapError>`.
    Switch {
        /// The job.
        job: String,
        /// The swap.
        swap: SwapId,
    },
    /// Give up what was prepared: `Result<SwapStatus, SwapError>`.
    AbandonSwap {
        /// The job.
        job: String,
        /// The swap.
        swap: SwapId,
    },
    /// End a probation: `Result<SwapStatus, SwapError>`.
    SettleSwap {
        /// The job.
        job: String,
        /// The swap.
        swap: SwapId,
    },
    /// Put back what the last swap has replaced: `Result<SwitchReport, SwapError>`.
    RollBack {
        /// The job.
        job: String,
    },
    /// Put a version on trial beside a run: `Result<TrialStatus, TrialError>`.
    Try {
        /// What, in which job.
        trial: Box<WantedTrial>,
    },
    /// The trial under way of a run, or the last one: `TrialReport`, or null.
    TrialReport {
        /// The job.
        job: String,
    },
    /// End a trial: `Result<TrialStatus, TrialError>`.
    EndTrial {
        /// The job.
        job: String,
        /// The trial.
        trial: TrialId,
    },
    /// A secret has another value by now: nothing.
    Secret {
        /// Its name.
        name: String,
        /// What it stands for.
        value: Confided,
    },
    /// The states of a job as of its last checkpoint: `Listed`, again and again.
    States {
        /// The job.
        job: String,
    },
    /// Entries of a state: `StateEntries`.
    Entries {
        /// The job.
        job: String,
        /// The operator.
        operator: String,
        /// Which of its states; none: its only one.
        state: Option<String>,
        /// One key; none: all.
        key: Option<String>,
        /// Entries at most.
        limit: usize,
        /// Take a checkpoint first.
        fresh: bool,
    },
    /// Rows that a finished job has written: a page, and where the next one begins.
    Results {
        /// The version that wrote them.
        prepared: u64,
        /// The sink; none: the only one that can be read back.
        sink: Option<String>,
        /// Where the page begins.
        cursor: Option<String>,
        /// Rows at most.
        limit: usize,
    },
    /// Look at the rows of an operator from now on: a number.
    Tail {
        /// The job.
        job: String,
        /// The operator.
        operator: String,
        /// End after so many rows.
        rows: Option<u64>,
    },
    /// The next rows; waits for them: [`TailEvents`], or null if there will be no more.
    TailNext {
        /// Which.
        tail: u64,
    },
    /// Do not look any more: nothing.
    TailEnd {
        /// Which.
        tail: u64,
    },
    /// What has happened since; waits until something has: [`News`].
    News {
        /// [`News::ends`] of the news before.
        ends: u64,
        /// [`News::lines_until`] of the news before.
        lines: u64,
    },
    /// What the process has sent to other machines: a number of bytes, which only grows.
    Sent,
    /// A job is deleted: forget what is remembered of it: nothing.
    ForgetJob {
        /// The job.
        job: String,
    },
}

/// A version with everything that its plan is made of.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// The version.
    pub asked: Asked,
    /// The secrets that it names, of this tenant, with their values. Never written down.
    pub secrets: BTreeMap<String, String>,
    /// What names of components mean: a digest, or why they mean nothing.
    pub components: BTreeMap<String, Result<String, Failure>>,
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { asked, secrets, components } = self;
        let names = secrets.keys().collect::<Vec<_>>();
        f.debug_struct("Recipe").field("asked", asked).field("secrets", &names).field("components", components).finish()
    }
}

/// What came of planning.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "planned", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Planned {
    /// It names components that the recipe does not: try again with these.
    Lacks {
        /// Their names.
        names: BTreeSet<String>,
    },
    /// It can run.
    Ready {
        /// What it is called.
        prepared: Prepared,
    },
}

/// A version that can run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Prepared {
    /// Its number in the workshop.
    pub number: u64,
    /// What names of components mean to it.
    pub components: BTreeMap<String, String>,
}

/// A swap in a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WantedSwap {
    /// The job.
    pub job: String,
    /// The new version as a whole.
    pub prepared: u64,
    /// The version that runs: it is planned again if rows have to carry more columns.
    pub runs: Recipe,
    /// The operators that are different.
    pub operators: Vec<String>,
    /// When subtasks switch.
    pub switch_at: SwitchAt,
    /// How long the old instances are kept, in seconds.
    pub probation_s: u64,
    /// Swap although there is no way back.
    pub one_way: bool,
    /// The trial that has shown the new version.
    pub promotes: Option<TrialId>,
}

/// A version on trial beside a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct WantedTrial {
    /// The job.
    pub job: String,
    /// The new version as a whole.
    pub prepared: u64,
    /// The operator that is different.
    pub operator: String,
    /// What becomes of its answers.
    pub mode: TrialMode,
    /// What ends the trial.
    pub rule: TrialRule,
}

/// The value of a secret, which is never shown.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Confided(pub String);

impl fmt::Debug for Confided {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The end of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Ended {
    /// The job.
    pub job: String,
    /// The run.
    pub run: u64,
    /// What the job is now.
    pub phase: Phase,
    /// Why it failed; empty: it did not.
    pub problems: Vec<Problem>,
}

/// What has happened in a workshop.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct News {
    /// Runs that have ended.
    pub ended: Vec<Ended>,
    /// So many have, since the beginning.
    pub ends: u64,
    /// Log lines: job and line.
    pub lines: Vec<(String, Line)>,
    /// The number of the last line.
    pub lines_until: u64,
}

/// Events of a tail: names and data.
pub type TailEvents = Vec<(String, Value)>;
