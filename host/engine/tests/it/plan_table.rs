//! A table source and a shelf sink: connectors with typed settings but without rows, for what is decided before rows flow.

use std::{num::NonZeroU32, path::Path, sync::Arc};

use arrow_schema::{Schema, SchemaRef};
use async_trait::async_trait;
use millstream_engine::{
    clock::ManualClock,
    connector::{
        ConnectorRequest, Connectors, SettingsProblem, Sink, SinkConnector, SinkContext, SinkWriter, Source, SourceConnector, Split,
        SplitReader,
    },
    graph::JobPlan,
    operator::OperatorError,
    operators::{ComponentLoader, Environment},
    plan::{PlanOptions, explain, plan},
    spec::JobSpec,
};
use millstream_model::ids::TenantId;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

/// `table: { bounded: true, times: false }`: the declared columns, no rows.
struct TableConnector;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
struct TableSettings {
    /// Whether it ends by itself.
    bounded: bool,
    /// Whether it knows event times itself.
    times: bool,
}

impl Default for TableSettings {
    fn default() -> Self {
        Self { bounded: true, times: false }
    }
}

impl SourceConnector for TableConnector {
    fn name(&self) -> &'static str {
        "table"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(TableSettings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Source>, Vec<SettingsProblem>> {
        let problem = |message: &str| vec![SettingsProblem { path: String::new(), message: message.into() }];
        let settings = TableSettings::deserialize(request.settings).map_err(|error| problem(&error.to_string()))?;
        let schema = request.declared_schema.ok_or_else(|| problem("a table needs a `schema`"))?;
        Ok(Arc::new(Table { schema, settings: Arc::new(settings) }))
    }
}

struct Table {
    schema: SchemaRef,
    settings: Arc<TableSettings>,
}

#[async_trait]
impl Source for Table {
    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn has_event_times(&self) -> bool {
        self.settings.times
    }

    fn is_bounded(&self) -> bool {
        self.settings.bounded
    }

    fn project(&self, columns: &[usize]) -> Arc<dyn Source> {
        let schema: Schema = self.schema.project(columns).expect("columns of the schema");
        Arc::new(Self { schema: Arc::new(schema), settings: self.settings.clone() })
    }

    async fn splits(&self, _parallelism: u32) -> Result<Vec<Split>, OperatorError> {
        Ok(Vec::new())
    }

    async fn open(&self, split: &Split, _position: Option<&Value>) -> Result<Box<dyn SplitReader>, OperatorError> {
        Err(OperatorError::user(format!("no split {}", split.id)))
    }
}

/// `shelf: { writers: 1, changes: false }`.
struct ShelfConnector;

#[derive(Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[derive(Default)]
struct ShelfSettings {
    /// Where it is.
    room: Option<Room>,
    /// The most parallel writers.
    writers: Option<NonZeroU32>,
    /// Whether it takes updates and deletions.
    changes: bool,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Room {
    Attic,
    Cellar,
}

impl SinkConnector for ShelfConnector {
    fn name(&self) -> &'static str {
        "shelf"
    }

    fn settings_schema(&self) -> schemars::Schema {
        schemars::schema_for!(ShelfSettings)
    }

    fn plan(&self, request: ConnectorRequest<'_>) -> Result<Arc<dyn Sink>, Vec<SettingsProblem>> {
        let settings = ShelfSettings::deserialize(request.settings)
            .map_err(|error| vec![SettingsProblem { path: String::new(), message: error.to_string() }])?;
        if matches!(settings.room, Some(Room::Cellar)) && settings.changes {
            return Err(vec![SettingsProblem { path: "room".into(), message: "it is too damp in the cellar for updates".into() }]);
        }
        Ok(Arc::new(Shelf(settings)))
    }
}

struct Shelf(ShelfSettings);

#[async_trait]
impl Sink for Shelf {
    fn accepts_changes(&self) -> bool {
        self.0.changes
    }

    fn parallelism_max(&self) -> Option<u32> {
        self.0.writers.map(NonZeroU32::get)
    }

    async fn writer(&self, _context: SinkContext) -> Result<Box<dyn SinkWriter>, OperatorError> {
        Err(OperatorError::user("a shelf has no writer"))
    }
}

/// No component anywhere.
struct NoComponents;

#[async_trait]
impl ComponentLoader for NoComponents {
    async fn load(&self, path: &Path) -> Result<millstream_wasm::Component, millstream_wasm::Error> {
        let component = path.display().to_string().into();
        Err(millstream_wasm::Error::Unreadable { component, source: std::io::ErrorKind::NotFound.into() })
    }
}

pub fn connectors() -> Connectors {
    Connectors::default().with_source(TableConnector).with_sink(ShelfConnector)
}

/// The plan of a job file, or all its mistakes as a user sees them. Default parallelism: 2.
pub fn planned(job: &str) -> Result<JobPlan, String> {
    let connectors = connectors();
    let spec = JobSpec::parse("job.yaml", job, &connectors).map_err(|problems| problems.to_string())?;
    let environment = Environment { base_directory: Path::new("."), components: &NoComponents, clock: Arc::new(ManualClock::at(0)) };
    let options =
        PlanOptions { tenant: TenantId::local(), parallelism: NonZeroU32::new(2).expect("two is not zero"), state_directory: None };
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(may_move(plan(&spec, &connectors, &environment, &options))).map_err(|problems| problems.to_string())
}

/// A server plans on any of its threads.
fn may_move<F: Future + Send>(future: F) -> F {
    future
}

pub fn explained(job: &str) -> String {
    planned(job).map_or_else(|mistakes| panic!("{mistakes}"), |plan| explain(&plan))
}

pub fn mistakes(job: &str) -> String {
    match planned(job) {
        Ok(plan) => panic!("accepted:\n{}", explain(&plan)),
        Err(mistakes) => mistakes,
    }
}
