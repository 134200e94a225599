//! What goes over the API: the bodies of requests and answers. The client uses the same types, and the OpenAPI document is made from them.

use std::collections::{BTreeMap, BTreeSet};

use millstream_engine::run::OperatorStatus;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use crate::{
    catalogue::objects::{AuditRecord, ComponentPhase, Desired, Origin, Scope, Start, TenantSettings},
    components::{Progress, Stage},
    events::Event,
    failure::Problem,
    jobs::{
        observed::{Observed, Phase},
        savepoints::SavepointView,
        swap::{Replacement, SwapReport, Wanted as SwapRequest},
        tag_swap::{JobSwap, Outcome as TagSwapOutcome, TagSwap, TagWanted as TagSwapRequest},
        trials::{PromoteRequest, TrialView, TrialWanted as TrialRequest},
    },
    logs::Line,
    report::Report,
    state::Listed,
    tenants::{Exceeded, InUse, Quota, Quotas, usage::Amounts},
};

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Page<T> {
    /// What is on it, in the order of names.
    pub items: Vec<T>,
    /// Where the next page begins: `cursor` of the next request. None: this is the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Which page of a list.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Paging {
    /// Items on a page: 1 to 1,000. Default: 100.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

/// A problem document (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ProblemDocument {
    /// What kind of problem it is.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The same, for people.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong here: the first of `problems`.
    pub detail: String,
    /// Everything that is wrong, with places, causes and fixes.
    #[serde(default)]
    pub problems: Vec<Problem>,
}

/// Who asks.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Identity {
    /// Whose objects are seen.
    pub tenant: String,
    /// The id of the token.
    pub token: String,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// The version of the service.
    pub version: String,
}

/// A tenant.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TenantView {
    /// Its name.
    pub name: String,
    /// When it was made, ms since epoch.
    pub created_ms: i64,
    /// What it may.
    #[serde(flatten)]
    pub settings: TenantSettings,
    /// What it has.
    pub in_use: InUse,
}

/// A tenant to be made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NewTenant {
    /// Its name.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"))]
    pub name: String,
    /// What it may.
    #[serde(default)]
    pub settings: TenantSettings,
}

/// How a tenant is deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeleteTenantQuery {
    /// `delete`: its jobs with their savepoints and its components go with it.
    pub contents: Option<DeleteContents>,
}

/// What becomes of what a deleted tenant has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeleteContents {
    /// It goes with it.
    Delete,
}

/// What a tenant has used.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct UsageView {
    /// Which.
    pub tenant: String,
    /// Since it was made.
    pub total: AmountsView,
    /// By day, oldest first; at most 400 days.
    pub days: Vec<DayView>,
}

/// What was used on one day.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct DayView {
    /// The day (UTC), as 2026-11-22.
    pub day: String,
    /// What was used on it.
    #[serde(flatten)]
    pub used: AmountsView,
}

/// What was used.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AmountsView {
    /// CPU time of components, in seconds.
    pub cpu_seconds: f64,
    /// Bytes of memory × hours.
    pub memory_byte_hours: f64,
    /// Bytes of checkpoints and savepoints × hours.
    pub state_byte_hours: f64,
    /// Rows that sources have read.
    pub rows_in: u64,
    /// Rows that sinks were given.
    pub rows_out: u64,
    /// Bytes that were sent to other machines.
    pub egress_bytes: u64,
}

impl AmountsView {
    /// The same, in the units of people.
    pub fn of(amounts: Amounts) -> Self {
        let Amounts { cpu_us, memory_byte_s, state_byte_s, rows_in, rows_out, egress_bytes } = amounts;
        Self {
            cpu_seconds: cpu_us as f64 / 1e6,
            memory_byte_hours: memory_byte_s as f64 / 3_600.0,
            state_byte_hours: state_byte_s as f64 / 3_600.0,
            rows_in,
            rows_out,
            egress_bytes,
        }
    }
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// What it is for.
    pub label: String,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// When it was made, ms since epoch.
    pub created_ms: i64,
    /// From when on it is worth nothing, ms since epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_ms: Option<i64>,
    /// When it was revoked, ms since epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_ms: Option<i64>,
}

/// A token to be made.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct NewToken {
    /// What it is for; at most 200 characters.
    #[schemars(length(max = 200))]
    pub label: String,
    /// What it allows; one that is there twice counts once.
    #[schemars(with = "Vec<Scope>", length(min = 1))]
    pub scopes: BTreeSet<Scope>,
    /// For how many seconds it holds; none: until it is revoked.
    #[serde(default)]
    #[schemars(range(min = 1, max = 3_153_600_000_u64))]
    pub expires_in_s: Option<u64>,
}

/// A token that was made, with its secret, which is shown this once.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct MadeToken {
    /// What is sent with requests.
    pub secret: String,
    /// What it is.
    #[serde(flatten)]
    pub token: TokenView,
}

/// A secret, without its value.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct SecretView {
    /// Its name.
    pub name: String,
    /// When it was made, ms since epoch.
    pub created_ms: i64,
    /// When it got its value, ms since epoch.
    pub updated_ms: i64,
}

/// The value of a secret.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct SecretValue {
    /// At most 64 KiB.
    #[schemars(length(max = 65536))]
    pub value: String,
}

/// A name under which components were pushed.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ComponentView {
    /// The name.
    pub name: String,
    /// Tag → digest.
    pub tags: BTreeMap<String, String>,
    /// Every digest that was pushed under it.
    pub digests: BTreeSet<String>,
}

/// One component.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ComponentVersion {
    /// The name that it was asked for by.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub digest: String,
    /// Tags of the name that point to it.
    pub tags: Vec<String>,
    /// Its size.
    pub bytes: u64,
    /// When it was pushed, ms since epoch.
    pub pushed_ms: i64,
    /// How far it is, and what it is.
    #[serde(flatten)]
    pub phase: ComponentPhase,
    /// How far the compiler is; only while it is being compiled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// A component of an OCI registry.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PullRequest {
    /// HOST/REPOSITORY@sha256:DIGEST, of a registry that the service may ask.
    pub reference: String,
    /// A secret that is USER:PASSWORD; none: the registry lets everybody in.
    #[serde(default)]
    pub secret: Option<String>,
}

/// How a component is looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct VersionQuery {
    /// For how long the answer may wait until it is compiled, in seconds. Default: 0.
    #[schemars(range(max = 120))]
    pub wait: Option<u64>,
}

/// How a component is pushed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct PushQuery {
    /// A tag that points to it from now on.
    pub tag: Option<String>,
    /// For how long the answer may wait until it is compiled, in seconds. Default: 30.
    #[schemars(range(max = 120))]
    pub wait: Option<u64>,
}

/// Where a tag is to point.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TagTarget {
    /// SHA-256 of a component that was pushed under the name.
    pub digest: String,
}

/// A job.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct JobView {
    /// Its name.
    pub name: String,
    /// What is wanted of it.
    pub desired: Desired,
    /// What it does.
    pub observed: Observed,
    /// The number of the version that runs.
    pub version: u64,
    /// Its components: as the job file names them → digest.
    pub components: BTreeMap<String, String>,
    /// When it was submitted, ms since epoch.
    pub created_ms: i64,
}

/// How a job is submitted; the body is its job file, YAML or JSON.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct SubmitQuery {
    /// The name of the job, in place of the one in the job file.
    pub name: Option<String>,
    /// A savepoint to start from, as JOB/SAVEPOINT: the job is a fork. Without a body the job file is that of the savepoint.
    #[schemars(regex(pattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,99}/[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"))]
    pub from: Option<String>,
    /// What may be forgotten of the savepoint: OPERATOR or OPERATOR.STATE, separated by commas.
    pub allow_dropped: Option<String>,
    /// Operators that have another id in the job file: OLD=NEW, separated by commas.
    pub renames: Option<String>,
    /// Do not start it yet.
    pub paused: bool,
}

/// How a job is deleted.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct DeleteQuery {
    /// `delete`: its savepoints go with it.
    pub savepoints: Option<DeleteSavepoints>,
}

/// What becomes of the savepoints of a deleted job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DeleteSavepoints {
    /// They go with it.
    Delete,
}

/// What would run.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Plan {
    /// The name of the job.
    pub job: String,
    /// What `millstream explain` prints.
    pub explanation: String,
    /// Components as the job file names them → digest.
    pub components: BTreeMap<String, String>,
}

/// How a job runs.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct RunView {
    /// What it does.
    pub observed: Observed,
    /// Its sources, operators and sinks, in topological order.
    #[schemars(with = "Vec<Value>")]
    pub operators: Vec<OperatorStatus>,
    /// How its durable run stands: guarantee, attempt, restarts, last checkpoint.
    pub durable: Option<Value>,
    /// The whole status of the engine.
    pub status: Option<Value>,
}

/// One version of a job.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct VersionView {
    /// Its number.
    pub number: u64,
    /// When it was made, ms since epoch.
    pub at_ms: i64,
    /// The id of the token that made it.
    pub by: String,
    /// How it came about.
    #[serde(flatten)]
    pub origin: Origin,
    /// Components as the job file names them → digest.
    pub components: BTreeMap<String, String>,
    /// Values that were replaced in the job file.
    pub replaced: BTreeMap<String, Value>,
    /// It was swapped in, and the version before is kept at hand.
    #[serde(default)]
    pub on_probation: bool,
    /// The job file; of one version alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
}

/// How a job is stopped.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StopRequest {
    /// The name of a savepoint to take of it.
    pub savepoint: Option<String>,
    /// Without a last checkpoint, for a job that takes none any more: the one before holds.
    pub at_once: bool,
}

/// How a job is scaled.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ScaleRequest {
    /// Parallel subtasks of everything that does not say its own.
    #[schemars(range(min = 1, max = 1024))]
    pub parallelism: u32,
}

/// Where to go back to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RollbackRequest {
    /// The number of a version; none: the one before.
    pub to: Option<u64>,
}

/// A savepoint to be taken.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct NewSavepoint {
    /// Its name; none: the time.
    pub name: Option<String>,
}

/// Which entries of a state.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct StateQuery {
    /// Which of the operator's states; none: its only one.
    pub state: Option<String>,
    /// One key: COLUMN=VALUE for each of its columns, separated by commas; a column alone is null. None: all keys.
    pub key: Option<String>,
    /// Entries, at most: 1 to 10,000. Default: 100.
    #[schemars(range(min = 1, max = 10000))]
    pub limit: Option<usize>,
    /// Take a checkpoint first, so that what is read is what the job knows now.
    pub fresh: bool,
}

/// Entries of a state, as of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct StateEntries {
    /// The number of the checkpoint.
    pub checkpoint: u64,
    /// When it was taken, ms since epoch.
    pub at_ms: i64,
    /// `key`, `value`, and `map-key` or `index`.
    pub entries: Vec<Value>,
}

/// Which rows of a finished job.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct ResultsQuery {
    /// The sink; none: the only one that can be read back.
    pub sink: Option<String>,
    /// Rows, at most: 1 to 10,000. A page of large rows has fewer. Default: 100.
    #[schemars(range(min = 1, max = 10000))]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[schemars(regex(pattern = "^[0-9a-f]{2,1000}$"))]
    pub cursor: Option<String>,
}

/// Which log lines.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct LogQuery {
    /// The last so many: 1 to 1,000. Default: 100.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<usize>,
    /// Only those behind this number.
    pub after: Option<u64>,
    /// Go on with those to come, as events.
    pub follow: bool,
    /// With `follow`: end after so many seconds, 1 to 3,600. Default: when who asks has heard enough.
    #[schemars(range(min = 1, max = 3600))]
    pub seconds: Option<u64>,
}

/// For how long events are listened to.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct EventsQuery {
    /// End after so many seconds, 1 to 3,600. Default: when who asks has heard enough.
    #[schemars(range(min = 1, max = 3600))]
    pub seconds: Option<u64>,
}

/// How the rows of an operator are looked at.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TailQuery {
    /// End after so many rows.
    pub rows: Option<u64>,
    /// End after so many seconds, 1 to 3,600. Default: when who asks has heard enough.
    #[schemars(range(min = 1, max = 3600))]
    pub seconds: Option<u64>,
}

/// Which records of the audit.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct AuditQuery {
    /// Records, at most: 1 to 1,000. Default: 100.
    #[schemars(range(min = 1, max = 1000))]
    pub limit: Option<usize>,
    /// `next` of the page before.
    #[schemars(regex(pattern = "^[0-9]{1,18}$"))]
    pub cursor: Option<String>,
}

/// Why a job is silent.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Why {
    /// Where it is.
    pub phase: Phase,
    /// One sentence, without its last point.
    pub sentence: String,
}

/// Whether the service can work.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Health {
    /// `ok`, or `starting` until every job that should run was started.
    pub status: String,
    /// The version of the service.
    pub version: String,
}
