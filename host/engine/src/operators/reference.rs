//! How a job file names a component: by its file (`path`), or, in a job of the service, by the name under which it was pushed (`name`, as `enrich:v2` or
//! `enrich@sha256:…`; alone it may stand for the whole: `component: enrich:v2`). A file is looked up from the job file, a name by the loader.

use std::path::{Path, PathBuf};

use millstream_wasm::{Component, Error};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::{Environment, Problem};

/// A component and its settings.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ComponentReference {
    /// The name under which it was pushed, as `enrich:v2`; it has no settings.
    Name(#[schemars(extend("x-expected" = "the name of a component"))] String),
    /// A file or a name, and settings.
    Whole(Whole),
}

/// The long form.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Whole {
    /// The component, relative to the job file. Not in a job of the service.
    path: Option<PathBuf>,
    /// In a job of the service: the name under which it was pushed, as `enrich:v2` or `enrich@sha256:…`.
    name: Option<String>,
    /// Its settings, as the component describes them. Default: none.
    #[serde(default)]
    settings: Value,
}

/// Which component is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which<'a> {
    Path(&'a Path),
    Name(&'a str),
}

impl ComponentReference {
    /// Its settings.
    pub(super) fn settings(&self) -> &Value {
        match self {
            Self::Name(_) => &Value::Null,
            Self::Whole(whole) => &whole.settings,
        }
    }

    /// Which component is meant.
    pub(super) fn which(&self) -> Result<Which<'_>, Problem> {
        let said = match self {
            Self::Name(name) => (None, Some(name)),
            Self::Whole(whole) => (whole.path.as_ref(), whole.name.as_ref()),
        };
        match said {
            (Some(path), None) => Ok(Which::Path(path)),
            (None, Some(name)) => Ok(Which::Name(name)),
            (Some(_), Some(_)) => Err(Problem::at("name", "`path` and `name` both say which component it is").help("leave one out")),
            (None, None) => Err(Problem::at("", "which component is not said")
                .help("add `path`, the file of the component, or, in a job of the service, `name`, under which it was pushed")),
        }
    }
}

impl Which<'_> {
    pub(super) async fn load(self, environment: &Environment<'_>) -> Result<Component, Error> {
        match self {
            Self::Path(path) => environment.components.load(&environment.base_directory.join(path)).await,
            Self::Name(name) => environment.components.load_named(name).await,
        }
    }

    /// The key of the job file that says it.
    pub(super) fn key(self) -> &'static str {
        match self {
            Self::Path(_) => "path",
            Self::Name(_) => "name",
        }
    }

    /// As it stands in the job file.
    pub(super) fn text(self) -> String {
        match self {
            Self::Path(path) => path.display().to_string(),
            Self::Name(name) => name.to_owned(),
        }
    }
}
