//! Python: componentize-py makes the component, interpreter and all, from the module that `pyproject.toml` names.
//!
//! ```toml
//! [project]
//! name = "hot-readings"
//! [tool.millstream]
//! module = "app"             # default: app
//! world = "stream-operator"  # default: stream-operator
//! ```

use std::{fs, path::Path};

use serde::Deserialize;

use super::{Compiled, contract, tool::Tool};
use crate::report::{Exit, Failure};

/// Python, which also reads `pyproject.toml`.
const PYTHON: Tool = Tool { program: "python3", install: "install Python 3.11 or newer" };
/// The maker of components.
pub const COMPONENTIZE: Tool = Tool { program: "componentize-py", install: "pip install componentize-py==0.25.1" };

#[derive(Deserialize)]
struct Project {
    project: Named,
    #[serde(default)]
    tool: Tools,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
struct Tools {
    #[serde(default)]
    millstream: Settings,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    module: String,
    world: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { module: "app".into(), world: "stream-operator".into() }
    }
}

/// Compiles the project in `directory`.
pub fn compile(directory: &Path) -> Result<Vec<Compiled>, Failure> {
    let project = read_project(directory)?;
    let settings = project.tool.millstream;
    let wit = contract()?;
    let made = wit.path().join("component.wasm");
    let output = COMPONENTIZE.run(|tool| {
        tool.current_dir(directory).arg("--quiet").arg("--wit-path").arg(wit.path().join("operator.wit"));
        tool.args(["--world", &settings.world, "componentize", "--stub-wasi", &settings.module, "--output"]).arg(&made)
    })?;
    if !output.status.success() {
        let message = format!("componentize-py could not build module `{}` of `{}`", settings.module, directory.display());
        return Err(Failure::new(Exit::Failed, message));
    }
    let bytes = fs::read(&made).map_err(|error| Failure::new(Exit::Failed, "componentize-py left no component").because(&error))?;
    Ok(vec![Compiled { name: project.project.name, project: directory.to_owned(), bytes }])
}

fn read_project(directory: &Path) -> Result<Project, Failure> {
    const AS_JSON: &str = "import json, tomllib; print(json.dumps(tomllib.load(open('pyproject.toml', 'rb')), default=str))";
    let file = directory.join("pyproject.toml");
    let output = PYTHON.run(|python| python.current_dir(directory).args(["-c", AS_JSON]))?;
    if !output.status.success() {
        return Err(Failure::new(Exit::Invalid, "is not TOML that Python can read").in_file(file));
    }
    serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(Exit::Invalid, "does not describe an operator").in_file(file).because(&error))
}
