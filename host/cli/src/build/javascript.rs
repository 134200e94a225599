//! JavaScript: componentize-qjs makes the component, with QuickJS in it, from the module that `package.json` names.
//!
//! ```json
//! { "name": "hot-readings", "main": "app.js", "millstream": { "world": "stream-operator" } }
//! ```

use std::{fs, path::Path};

use serde::Deserialize;

use super::{Compiled, contract, tool::Tool};
use crate::report::{Exit, Failure};

/// The maker of components.
pub const COMPONENTIZE: Tool = Tool { program: "componentize-qjs", install: "npm install --global componentize-qjs@0.4.5" };

#[derive(Deserialize)]
struct Package {
    name: String,
    #[serde(default = "index")]
    main: String,
    #[serde(default)]
    millstream: Settings,
}

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    world: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { world: "stream-operator".into() }
    }
}

fn index() -> String {
    "index.js".into()
}

/// Compiles the project in `directory`.
pub fn compile(directory: &Path) -> Result<Vec<Compiled>, Failure> {
    let package = read_package(directory)?;
    let wit = contract()?;
    let made = wit.path().join("component.wasm");
    let output = COMPONENTIZE.run(|tool| {
        tool.current_dir(directory).args(["--sync", "--stub-wasi", "--world", &package.millstream.world, "--js", &package.main]);
        tool.args(["--module-root", "."]).arg("--wit").arg(wit.path().join("operator.wit")).arg("--output").arg(&made)
    })?;
    if !output.status.success() {
        return Err(Failure::new(Exit::Failed, format!("componentize-qjs could not build `{}`", directory.join(package.main).display())));
    }
    let bytes = fs::read(&made).map_err(|error| Failure::new(Exit::Failed, "componentize-qjs left no component").because(&error))?;
    Ok(vec![Compiled { name: package.name, project: directory.to_owned(), bytes }])
}

fn read_package(directory: &Path) -> Result<Package, Failure> {
    let file = directory.join("package.json");
    let text = fs::read(&file).map_err(|error| Failure::new(Exit::Invalid, "cannot be read").in_file(&file).because(&error))?;
    serde_json::from_slice(&text)
        .map_err(|error| Failure::new(Exit::Invalid, "does not describe an operator").in_file(file).because(&error))
}
