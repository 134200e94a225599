//! What the entries of the catalogue say. These types are their JSON: a field is added with a default, and none changes its meaning.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use millstream_egress::{self as egress, Policy};
use millstream_model::{
    ErrorKind,
    ids::{JobId, TenantId},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::Kind;
use crate::{
    failure::{Failure, Problem},
    tenants::{Quotas, usage::Usage},
};

/// Rules of one tenant about where its jobs may connect to.
const EGRESS_RULES_MAX: usize = 100;

/// A value of the catalogue.
pub trait Object: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is.
    const KIND: Kind;
}

macro_rules! objects {
    ($($object:ident => $kind:ident),* $(,)?) => {
        $(impl Object for $object {
            const KIND: Kind = Kind::$kind;
        })*
    };
}

objects! {
    Token => Token,
    Secret => Secret,
    Component => Component,
    Tags => Tags,
    Job => Job,
    Savepoint => Savepoint,
    Answer => Answer,
    Tenant => Tenant,
    Usage => Usage,
}

/// What a token allows. `admin` allows everything within its tenant; every scope includes `view`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Look at everything but secrets: jobs, state, logs, output.
    View,
    /// Pause, resume, stop and scale jobs, take savepoints, roll back.
    Operate,
    /// Push components, submit, change and delete jobs, swap, write secrets.
    Deploy,
    /// Make and revoke tokens, read the audit.
    Admin,
    /// Make, limit and delete tenants, and tokens for them: for who runs the service.
    Host,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::View, Self::Operate, Self::Deploy, Self::Admin, Self::Host];

    /// Whether who has this scope may do what needs `needed`.
    pub fn allows(self, needed: Self) -> bool {
        self == needed || needed == Self::View || (self == Self::Admin && needed != Self::Host)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Deploy => "deploy",
            Self::Admin => "admin",
            Self::Host => "host",
        })
    }
}

/// Who shares the service. Its name in the catalogue is always the same: its key says whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tenant {
    /// When it was made, ms since epoch.
    pub created_ms: i64,
    /// What it may.
    pub settings: TenantSettings,
    /// It is being deleted.
    #[serde(default)]
    pub is_leaving: bool,
}

/// What a tenant may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct TenantSettings {
    /// How much of the service it may have.
    pub quotas: Quotas,
    /// Where its jobs may connect to beside what all may: 10.1.2.0/24, 127.0.0.1:9092, broker.internal:9092 … From the next start of its runner on.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub egress_allow: Vec<String>,
}

impl TenantSettings {
    /// Whether they make sense.
    ///
    /// # Errors
    /// They do not.
    pub fn check(&self) -> Result<(), Failure> {
        self.quotas.check()?;
        if self.egress_allow.len() > EGRESS_RULES_MAX {
            let message = format!("`egress-allow` has {} rules", self.egress_allow.len());
            return Err(
                Failure::new(ErrorKind::Invalid, message).fix(format!("at most {EGRESS_RULES_MAX}: name networks instead of addresses"))
            );
        }
        let rules = egress::Settings { allow: self.egress_allow.clone(), ..egress::Settings::default() };
        Policy::read(&rules).map(drop).map_err(|error| Failure::from_error(error.kind(), &error))
    }
}

/// A right to ask. Its name in the catalogue is its id; the secret itself is nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Token {
    /// What it is for, in the words of who made it.
    pub label: String,
    /// SHA-256 of the secret, in hexadecimal.
    pub sha256: String,
    /// What it allows.
    pub scopes: BTreeSet<Scope>,
    /// When it was made, ms since epoch.
    pub created_ms: i64,
    /// From when on it is worth nothing, ms since epoch; none: never.
    #[serde(default)]
    pub expires_ms: Option<i64>,
    /// When it was revoked, ms since epoch; none: it holds.
    #[serde(default)]
    pub revoked_ms: Option<i64>,
}

/// A value that job files refer to by name, as `${secret:NAME}`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Secret {
    /// What nobody is shown again.
    pub value: String,
    /// When it was made, ms since epoch.
    pub created_ms: i64,
    /// When it got this value, ms since epoch.
    pub updated_ms: i64,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("updated_ms", &self.updated_ms).finish_non_exhaustive()
    }
}

/// A component that was pushed. Its name in the catalogue is its digest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Component {
    /// Its size.
    pub bytes: u64,
    /// When it was pushed, ms since epoch.
    pub pushed_ms: i64,
    /// How far it is.
    pub phase: ComponentPhase,
}

/// How far a component is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "kebab-case", rename_all_fields = "kebab-case")]
pub enum ComponentPhase {
    /// It is being compiled.
    Compiling {
        /// Since when, ms since epoch.
        since_ms: i64,
    },
    /// Jobs can use it.
    Ready {
        /// What it is and says of itself.
        report: Value,
        /// How long compiling took, ms.
        compile_ms: u64,
    },
    /// It cannot be used.
    Refused {
        /// Why.
        problems: Vec<Problem>,
    },
}

/// The tags of a component's name, each a digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Tags {
    /// Tag → digest, in hexadecimal.
    pub tags: BTreeMap<String, String>,
    /// Every digest that was pushed under this name.
    pub digests: BTreeSet<String>,
}

/// What is wanted of a job. What it does is observed, and never written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Desired {
    /// It runs, and runs again whatever ends its process.
    Running,
    /// It waits behind a checkpoint, and is expected to go on.
    Paused,
    /// It has been stopped behind a checkpoint.
    Stopped,
}

/// A job with its versions. Its name in the catalogue is its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Job {
    /// What is wanted of it.
    pub desired: Desired,
    /// When it was submitted, ms since epoch.
    pub created_ms: i64,
    /// Its versions, oldest first; the last one is the one that runs.
    pub versions: Vec<JobVersion>,
    /// The savepoint that it starts from, as long as it has no checkpoint of its own.
    #[serde(default)]
    pub start: Option<Start>,
}

impl Job {
    /// The version that runs.
    pub fn current(&self) -> &JobVersion {
        self.versions.last().expect("a job is written with its first version and none is the last to go")
    }

    /// The version with this number.
    pub fn version(&self, number: u64) -> Option<&JobVersion> {
        self.versions.iter().find(|version| version.number == number)
    }
}

/// The savepoint that a job starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Start {
    /// The job whose savepoint it is.
    #[schemars(with = "String")]
    pub job: JobId,
    /// Its name.
    pub savepoint: String,
    /// State that the savepoint holds and the job has no place for: an operator's id, or `<id>.<state>`.
    #[serde(default)]
    pub allow_dropped: Vec<String>,
    /// Operators that have another id now: old → new.
    #[serde(default)]
    pub renames: BTreeMap<String, String>,
}

/// One version of a job: what was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct JobVersion {
    /// From 1 on; grows.
    pub number: u64,
    /// When it was made, ms since epoch.
    pub at_ms: i64,
    /// The token that made it.
    pub by: String,
    /// How it came about.
    pub origin: Origin,
    /// The job file, as it was submitted.
    pub spec: String,
    /// Values in it that were replaced since: the keys that lead there, and what stands there instead.
    #[serde(default)]
    pub replaced: BTreeMap<String, Value>,
    /// Components as the job file names them → digest when the version was made.
    pub components: BTreeMap<String, String>,
    /// It was swapped in, and the engine keeps the version before at hand.
    #[serde(default)]
    pub on_probation: bool,
}

/// How a version of a job came about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "origin", rename_all = "kebab-case")]
pub enum Origin {
    /// The job was submitted.
    Submitted,
    /// A whole job file took the place of the one before.
    Replaced,
    /// Operators were swapped while the job ran.
    Swapped {
        /// Which.
        operators: Vec<String>,
    },
    /// It got another parallelism.
    Scaled,
    /// An earlier version came back.
    RolledBack {
        /// Its number.
        to: u64,
    },
}

/// A savepoint of a job. Its name in the catalogue is `<job>/<name>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Savepoint {
    /// The version of the job that took it.
    pub version: u64,
    /// When it was taken, ms since epoch.
    pub created_ms: i64,
    /// The job file of that version, with everything that was replaced in it: to fork the job when it is gone.
    pub spec: String,
    /// As in [`JobVersion`].
    pub replaced: BTreeMap<String, Value>,
    /// As in [`JobVersion`].
    pub components: BTreeMap<String, String>,
}

/// What was answered to a request with an idempotency key. Its name in the catalogue is the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Answer {
    /// SHA-256 of the request: who asked, method, path, body.
    pub request: String,
    /// When, ms since epoch.
    pub at_ms: i64,
    /// The status.
    pub status: u16,
    /// The headers that matter.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct AuditRecord {
    /// Its number; grows.
    #[serde(default)]
    pub number: u64,
    /// When, ms since epoch.
    pub at_ms: i64,
    /// Whose object it was.
    #[serde(skip_serializing_if = "is_local", default = "TenantId::local")]
    #[schemars(with = "String")]
    pub tenant: TenantId,
    /// The id of the token that asked.
    pub token: String,
    /// What was asked for: an operation of the API.
    pub operation: String,
    /// On what: the path of the request.
    pub path: String,
    /// The status that was answered.
    pub status: u16,
    /// What went wrong, as one clause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

fn is_local(tenant: &TenantId) -> bool {
    *tenant == TenantId::local()
}
