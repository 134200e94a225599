//! The built-in operators, one file each, and the registry by which a job file names them.
//!
//! Each file holds the whole ladder: its settings (what stands under its key in the job file), its plan, its instance. To add one: write the
//! file, implement [`OperatorSpec`] for its settings, add a line to [`registry`].

mod arrays;
mod assign_watermarks;
pub mod component;
mod compute;
mod filter;
mod keyed;
mod lookup_join;
mod project;
mod reference;
mod temporal_join;
mod union;
pub mod upgrade;
mod window;

use std::{path::Path, sync::Arc};

use async_trait::async_trait;
use millstream_model::{StreamType, ids::OperatorId};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{clock::Clock, connector::TableLoader, graph::RowOrder, operator::OperatorPlan, requests::Grant};

pub use reference::ComponentReference;

pub(crate) use filter::keep;
pub(crate) use keyed::state_error;

/// The name of the output of an operator that has a single one.
const OUTPUT: &str = "output";

/// The settings of one kind of operator: what stands under its key in the job file.
#[async_trait]
pub trait OperatorSpec: DeserializeOwned + JsonSchema + Send + Sync + 'static {
    /// The key in the job file.
    const KEY: &'static str;

    /// The input ports. Components say them in `describe`; the default is a single one.
    ///
    /// # Errors
    /// They cannot be found out.
    async fn ports(&self, _environment: &Environment<'_>) -> Result<Ports, Vec<Problem>> {
        Ok(Ports::one())
    }

    /// Checks the settings against the inputs and decides the outputs. Called again with fewer columns once it is known which ones the job
    /// reads, so it finds columns by name.
    ///
    /// # Errors
    /// All mistakes at once.
    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>>;
}

/// The input ports of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    /// These, each fed by one stream.
    Named(Vec<String>),
    /// A single one fed by any number of streams of one type.
    Union,
}

impl Ports {
    /// A single port, fed by one stream.
    pub fn one() -> Self {
        Self::Named(vec!["input".into()])
    }

    /// These ports, each fed by one stream.
    pub fn named(names: &[&str]) -> Self {
        Self::Named(names.iter().map(|&name| name.into()).collect())
    }
}

/// What planning may use besides the job file.
#[derive(Clone)]
pub struct Environment<'a> {
    /// The directory that relative paths start from: the job file's.
    pub base_directory: &'a Path,
    /// Where components come from.
    pub components: &'a dyn ComponentLoader,
    /// The clock of the job.
    pub clock: Arc<dyn Clock>,
}

/// Where components come from: files, or the catalogue of the service.
#[async_trait]
pub trait ComponentLoader: Send + Sync {
    /// Loads and inspects the component that the job file names by `path` (already joined to the base directory).
    ///
    /// # Errors
    /// It does not exist, is not a component, or imports what it is not granted.
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error>;

    /// Loads and inspects the component that the job file names by `name`, as `enrich:v2` or `enrich@sha256:…`.
    ///
    /// # Errors
    /// As [`Self::load`]; or nothing has names here.
    async fn load_named(&self, name: &str) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        let reason = "only the service knows components by name; outside of it, say `path`";
        Err(millstream_wasm::Error::Unreadable { component: name.into(), source: std::io::Error::other(reason) })
    }

    /// What references in the settings of operators that are components stand for. Default: there are none.
    fn settings(&self) -> Arc<dyn component::SettingsSource> {
        Arc::new(component::AsSaid)
    }
}

#[async_trait]
impl ComponentLoader for millstream_wasm::Runtime {
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        self.load_file(path).await
    }
}

/// What an operator is planned with.
pub struct PlanRequest<'a> {
    /// Its id in the job file.
    pub id: &'a OperatorId,
    /// The stream of each input port, in port order.
    pub inputs: &'a [StreamType],
    /// The key columns of each input port, by number; none: no `key-by`.
    pub keys: Option<&'a [Vec<usize>]>,
    /// In which order rows of a key reach it.
    pub order: RowOrder,
    /// What else it may use.
    pub environment: &'a Environment<'a>,
    /// What reads small tables; none: nothing does.
    pub tables: Option<&'a dyn TableLoader>,
    /// What its component may do over HTTP; none: nothing.
    pub grant: Option<Arc<Grant>>,
}

/// A planned operator, and what the planner must wire around it.
pub struct Planned {
    /// The operator.
    pub plan: Arc<dyn OperatorPlan>,
    /// What becomes of its late rows; none: it has no late rows, and no stream `<id>.late`.
    pub late: Option<LatePolicy>,
}

impl Planned {
    /// An operator without late rows.
    pub fn new(plan: impl OperatorPlan + 'static) -> Self {
        Self { plan: Arc::new(plan), late: None }
    }
}

/// What happens to rows that come too late for an operator.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LatePolicy {
    /// They are dropped and counted. The default.
    #[default]
    Drop,
    /// They go to the stream `<id>.late`, which this sink reads.
    #[serde(untagged)]
    Sink(String),
}

/// A mistake in the entry of one operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// One clause that says what is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// Where a mistake is in the entry of an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A path below the operator's own key, joined by dots (`aggregates.mean.avg`); empty: the whole.
    Settings(String),
    /// A path in the entry beside the operator's own key, such as `key-by` or `input`.
    Entry(String),
}

impl Problem {
    /// A mistake in the operator's own settings.
    pub fn at(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: Place::Settings(path.into()), message: message.into(), help: None }
    }

    /// A mistake beside the operator's own settings, such as in `key-by`.
    pub fn in_entry(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: Place::Entry(path.into()), message: message.into(), help: None }
    }

    /// What is wrong with the expression at `path` in the operator's own settings.
    pub fn in_expression(path: impl Into<String>, error: millstream_expr::ExprError) -> Self {
        Self { help: error.help, ..Self::at(path, error.message) }
    }

    /// The same, with what to do about it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

/// One kind of operator, as the registry holds it.
pub struct OperatorKind {
    /// The key in the job file.
    pub key: &'static str,
    /// JSON Schema of its settings.
    pub settings_schema: fn(&mut SchemaGenerator) -> Schema,
    /// Reads its settings.
    pub parse: fn(Value) -> Result<Box<dyn AnyOperatorSpec>, Problem>,
}

/// An [`OperatorSpec`] of any kind.
#[async_trait]
pub trait AnyOperatorSpec: Send + Sync {
    /// As [`OperatorSpec::ports`].
    ///
    /// # Errors
    /// As there.
    async fn ports(&self, environment: &Environment<'_>) -> Result<Ports, Vec<Problem>>;

    /// As [`OperatorSpec::plan`].
    ///
    /// # Errors
    /// As there.
    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>>;
}

#[async_trait]
impl<S: OperatorSpec> AnyOperatorSpec for S {
    async fn ports(&self, environment: &Environment<'_>) -> Result<Ports, Vec<Problem>> {
        OperatorSpec::ports(self, environment).await
    }

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        OperatorSpec::plan(self, request).await
    }
}

/// Every kind of operator that a job file may name, in the order of the documentation.
pub fn registry() -> &'static [OperatorKind] {
    const REGISTRY: &[OperatorKind] = &[
        kind::<component::Component>(),
        kind::<filter::Filter>(),
        kind::<compute::Compute>(),
        kind::<project::Project>(),
        kind::<union::Union>(),
        kind::<assign_watermarks::AssignWatermarks>(),
        kind::<window::Window>(),
        kind::<temporal_join::TemporalJoin>(),
        kind::<lookup_join::LookupJoin>(),
    ];
    REGISTRY
}

const fn kind<S: OperatorSpec>() -> OperatorKind {
    OperatorKind { key: S::KEY, settings_schema: settings_schema::<S>, parse: parse::<S> }
}

fn settings_schema<S: OperatorSpec>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<S>()
}

fn parse<S: OperatorSpec>(settings: Value) -> Result<Box<dyn AnyOperatorSpec>, Problem> {
    let spec: S = serde_path_to_error::deserialize(settings).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { String::new() } else { path };
        Problem::at(path, error.into_inner().to_string())
    })?;
    Ok(Box::new(spec))
}

#[cfg(test)]
mod tests;
