//! `component: { path: events.wasm, settings: {…} }` or, under the service, `component: events:v2`: user logic in a Wasm component.
//!
//! [`Component`] (the settings) → [`ComponentOperatorPlan`] (`plan`: what the guest said it reads, keeps, emits and remembers) →
//! `run` (one instance, its keyed state, and how a batch goes in calls through it) → `call` (one call: what goes in, how the answer is
//! applied; `answer`: how both are put together). What happens when a guest fails is `recovery`, and only there. `compare` says what a new version would
//! change, `trial` tries it beside the running one.
//!
//! The guest's memory is disposable: at every batch boundary the host has the latest state, so a new instance, of the same version or
//! another, may take over.

mod answer;
mod call;
mod collections;
mod compare;
mod layout;
mod plan;
mod recovery;
mod run;
mod settings;
mod size;
mod trial;

use std::{io::ErrorKind, path::Path};

use async_trait::async_trait;
pub use plan::{ComponentOperatorPlan, ComponentRequest, PlanError};
use schemars::JsonSchema;
use serde::Deserialize;
pub use settings::{AsSaid, SettingsSource};

use super::{ComponentReference, Environment, OperatorSpec, PlanRequest, Planned, Ports, Problem, reference::Which};

/// An operator written by a user, as a Wasm component.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Component(ComponentReference);

#[async_trait]
impl OperatorSpec for Component {
    const KEY: &'static str = "component";

    async fn ports(&self, environment: &Environment<'_>) -> Result<Ports, Vec<Problem>> {
        let component = self.load(environment).await?;
        let descriptor = plan::describe(&component).await.map_err(|error| vec![problem(self.key(), &error)])?;
        Ok(Ports::Named(descriptor.inputs))
    }

    async fn plan(&self, request: PlanRequest<'_>) -> Result<Planned, Vec<Problem>> {
        let component = self.load(request.environment).await?;
        let wanted = ComponentRequest {
            operator: request.id.clone(),
            settings: self.0.settings().clone(),
            source: request.environment.components.settings(),
            inputs: request.inputs,
            keys: request.keys,
            grant: request.grant,
        };
        match ComponentOperatorPlan::plan(component, wanted).await {
            Ok(plan) => Ok(Planned::new(plan)),
            Err(PlanError::Settings(mistakes)) => {
                Err(mistakes.into_iter().map(|mistake| Problem::at(mistake.path, mistake.message)).collect())
            }
            Err(PlanError::Component(error)) => Err(vec![problem("", &error)]),
            Err(error @ PlanError::NotGranted { .. }) => Err(vec![
                Problem::at("", error.to_string()).help("grant it with `http: {}` beside `component`, or with bounds of your own"),
            ]),
            Err(PlanError::Unresolved(reason)) => Err(vec![Problem::at("settings", reason)]),
            Err(PlanError::Unsupported(reason)) => Err(vec![Problem::at("", reason)]),
        }
    }
}

impl Component {
    /// The key that says which component it is.
    fn key(&self) -> &'static str {
        self.0.which().map_or("", Which::key)
    }

    async fn load(&self, environment: &Environment<'_>) -> Result<millstream_wasm::Component, Vec<Problem>> {
        let which = self.0.which().map_err(|problem| vec![problem])?;
        which.load(environment).await.map_err(|error| {
            let problem = problem(which.key(), &error);
            vec![match which {
                Which::Path(path) if is_missing(&error) => problem.help(how_to_build(&environment.base_directory.join(path))),
                Which::Path(_) | Which::Name(_) => problem,
            }]
        })
    }
}

fn is_missing(error: &millstream_wasm::Error) -> bool {
    matches!(error, millstream_wasm::Error::Unreadable { source, .. } if source.kind() == ErrorKind::NotFound)
}

/// A component is made beside its source, so where it is missing the source may be.
fn how_to_build(path: &Path) -> String {
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."));
    format!("if its source is there, `millstream build {}` makes it", directory.display())
}

fn problem(path: &str, error: &dyn std::error::Error) -> Problem {
    Problem::at(path, with_causes(error))
}

/// An error and all its causes, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
