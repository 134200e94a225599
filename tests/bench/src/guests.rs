//! The components that are measured: compiled from this repository with the toolchain that users have, once per run, and loaded by name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use async_trait::async_trait;
use millstream_engine::operators::ComponentLoader;
use millstream_wasm::{Component, Runtime, RuntimeSettings, encode};

use crate::repository;

/// Components by name: those of `examples/nexmark/operators` and of `host/wasm/guests/examples`.
pub struct Guests {
    runtime: Runtime,
    components: BTreeMap<String, Arc<[u8]>>,
}

impl Guests {
    /// Compiles them.
    ///
    /// # Errors
    /// One of them does not compile.
    pub fn build() -> anyhow::Result<Self> {
        let modules = compile()?;
        let encoded = |(name, module): (String, PathBuf)| -> anyhow::Result<(String, Arc<[u8]>)> {
            let module = fs::read(&module).with_context(|| format!("reading {}", module.display()))?;
            let component = encode::component(&module, &[], &name).with_context(|| format!("encoding {name}"))?;
            Ok((name, component.bytes.into()))
        };
        let components = modules.into_iter().map(encoded).collect::<anyhow::Result<_>>()?;
        Ok(Self { runtime: Runtime::new(RuntimeSettings::default())?, components })
    }

    /// The bytes of component `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn bytes(&self, name: &str) -> anyhow::Result<Arc<[u8]>> {
        self.components.get(name).cloned().with_context(|| format!("there is no component {name}"))
    }

    /// The component `name`, compiled.
    ///
    /// # Errors
    /// There is none, or it does not load.
    pub async fn component(&self, name: &str) -> anyhow::Result<Component> {
        self.load(self.bytes(name)?, name).await
    }

    /// Any component, compiled.
    ///
    /// # Errors
    /// It does not load.
    pub async fn load(&self, bytes: Arc<[u8]>, name: &str) -> anyhow::Result<Component> {
        Ok(self.runtime.load(bytes, name).await?)
    }
}

/// The same component with a custom section `name` more: another digest, so another version.
pub fn another_version(component: &[u8], name: &str) -> Vec<u8> {
    let length = u8::try_from(name.len()).expect("it is short");
    // Section 0: its size, then its name with its length (WebAssembly core specification, 5.5.3; components have it as well).
    [component, &[0, length + 1, length], name.as_bytes()].concat()
}

/// Jobs name components by path; here the name of the file decides, so that nothing has to be written beside the examples.
#[async_trait]
impl ComponentLoader for Guests {
    async fn load(&self, path: &Path) -> Result<Component, millstream_wasm::Error> {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match self.components.get(&name) {
            Some(bytes) => self.runtime.load(bytes.clone(), &name).await,
            None => Err(millstream_wasm::Error::Unreadable { component: name.into(), source: std::io::ErrorKind::NotFound.into() }),
        }
    }
}

/// Module files by the names of their components.
fn compile() -> anyhow::Result<BTreeMap<String, PathBuf>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(repository()).stdin(Stdio::null()).stderr(Stdio::inherit());
    cargo.args(["build", "--release", "--target", "wasm32-unknown-unknown", "--message-format", "json-render-diagnostics"]);
    cargo.args(["--lib", "--examples", "--package", "millstream-wasm-guests"]);
    for project in fs::read_dir(repository().join("examples/nexmark/operators"))? {
        cargo.arg("--package").arg(package(&project?.path())?);
    }
    let output = cargo.output().context("running cargo")?;
    ensure!(output.status.success(), "the operators do not compile");
    let messages = String::from_utf8(output.stdout).context("the messages of cargo")?;
    Ok(messages.lines().filter_map(module).collect())
}

fn package(project: &Path) -> anyhow::Result<String> {
    let manifest = project.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).with_context(|| format!("reading {}", manifest.display()))?;
    let name = text.lines().find_map(|line| line.strip_prefix("name = \"")).context("a package has a name")?;
    Ok(name.trim_end_matches('"').to_owned())
}

/// The module that a message of cargo tells of, if it does.
fn module(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let name = message["target"]["name"].as_str()?.replace('_', "-");
    let files = message["filenames"].as_array()?;
    let module = files.iter().filter_map(|file| file.as_str()).find(|file| file.ends_with(".wasm"))?;
    Some((name, module.into()))
}
