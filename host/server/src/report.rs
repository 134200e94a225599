//! What a component is and says of itself. The facts come from its bytes, without running it; name, ports and settings from its `describe`, which
//! runs under all limits.

use millstream_wasm::{AggregateDescriptor, Component, Descriptor, Error, Inspection, InstanceContext, World};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a component is and says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// What it says of itself.
    #[serde(flatten)]
    pub said: Said,
    /// The worlds that it implements.
    pub worlds: Vec<String>,
    /// Size of the component.
    pub size_bytes: u64,
    /// SHA-256 of its bytes, in hexadecimal.
    pub digest: String,
    /// Its imports.
    pub imports: Vec<String>,
    /// Its exports.
    pub exports: Vec<String>,
    /// Tools that made it.
    pub made_by: Vec<String>,
}

/// What a component says of itself. An aggregate has no ports.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Said {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it does.
    pub summary: String,
    /// Its input ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// Its output ports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outputs: Vec<String>,
    /// JSON Schema of its settings; null: it has none.
    pub settings_schema: serde_json::Value,
    /// Hints for the host, name and value.
    pub hints: Vec<(String, String)>,
}

impl Report {
    /// Asks a component.
    ///
    /// # Errors
    /// It fails while it is asked.
    pub async fn of(component: &Component) -> Result<Self, Error> {
        let inspection = component.inspection().clone();
        let is_aggregate = inspection.worlds.iter().any(|world| matches!(world, World::WindowAggregate | World::MigratingWindowAggregate));
        let said = if is_aggregate { describe_aggregate(component).await? } else { describe_operator(component).await? };
        let Inspection { worlds, imports, exports, size_bytes, producers, .. } = inspection;
        let worlds = worlds.into_iter().map(|world| world_name(world).to_owned()).collect();
        Ok(Self { said, worlds, size_bytes, digest: component.digest().to_string(), imports, exports, made_by: producers })
    }
}

async fn describe_operator(component: &Component) -> Result<Said, Error> {
    let Descriptor { name, version, summary, settings_schema, inputs, outputs, hints } =
        component.operator(InstanceContext::unheard(None)).await?.describe().await?;
    Ok(Said { name, version, summary, inputs, outputs, settings_schema, hints })
}

async fn describe_aggregate(component: &Component) -> Result<Said, Error> {
    let AggregateDescriptor { name, version, summary, settings_schema, hints } =
        component.aggregate(InstanceContext::unheard(None)).await?.describe().await?;
    Ok(Said { name, version, summary, inputs: Vec::new(), outputs: Vec::new(), settings_schema, hints })
}

fn world_name(world: World) -> &'static str {
    match world {
        World::StreamOperator => "stream-operator",
        World::MigratingOperator => "migrating-operator",
        World::RequestingOperator => "requesting-operator",
        World::MigratingRequestingOperator => "migrating-requesting-operator",
        World::WindowAggregate => "window-aggregate",
        World::MigratingWindowAggregate => "migrating-window-aggregate",
    }
}
