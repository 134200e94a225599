//! Rust: `cargo build --release --target wasm32-unknown-unknown`; every `cdylib` of the package or workspace is a component.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Compiled, tool::Tool};
use crate::report::{Exit, Failure};

/// The target without an operating system: what is built for it has no import but ours.
pub const TARGET: &str = "wasm32-unknown-unknown";
/// Where cargo looks for the flags of that target. The host runs Wasm's vectors, and text is 1.3 times as fast with them.
const RUSTFLAGS: &str = "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS";
/// Cargo.
pub const CARGO: Tool = Tool { program: "cargo", install: "install Rust with rustup, then run `rustup target add wasm32-unknown-unknown`" };
/// The compiler.
pub const RUSTC: Tool = Tool { program: "rustc", install: "install Rust with rustup" };
/// Installs targets.
pub const RUSTUP: Tool = Tool { program: "rustup", install: "install Rust with rustup" };

/// Compiles the project in `directory`.
pub fn compile(directory: &Path, offline: bool) -> Result<Vec<Compiled>, Failure> {
    check_target()?;
    let output = CARGO.run(|cargo| {
        cargo.current_dir(directory).args(["build", "--release", "--target", TARGET, "--message-format", "json-render-diagnostics"]);
        if std::env::var_os(RUSTFLAGS).is_none() {
            cargo.env(RUSTFLAGS, "-C target-feature=+simd128");
        }
        if offline { cargo.arg("--offline") } else { cargo }
    })?;
    if !output.status.success() {
        return Err(Failure::new(Exit::Failed, format!("cargo could not build `{}`", directory.display())));
    }
    let compiled = components(&output.stdout)?;
    if compiled.is_empty() {
        return Err(Failure::new(Exit::Invalid, format!("`{}` builds no component", directory.display()))
            .fix("add to Cargo.toml:\n[lib]\ncrate-type = [\"cdylib\", \"rlib\"]"));
    }
    Ok(compiled)
}

/// Whether the standard library of the target is installed.
pub fn has_target() -> bool {
    RUSTC.ask(["--print", "target-libdir", "--target", TARGET]).is_some_and(|directory| Path::new(&directory).is_dir())
}

fn check_target() -> Result<(), Failure> {
    if RUSTC.ask(["--version"]).is_none() || has_target() {
        return Ok(()); // without a compiler, cargo says what is wrong
    }
    let fix = match RUSTUP.ask(["--version"]) {
        Some(_) => format!("rustup target add {TARGET}"),
        None => format!("install the standard library of {TARGET} with the tool that installed Rust here"),
    };
    Err(Failure::new(Exit::Failed, format!("the Rust target {TARGET} is not installed")).fix(fix))
}

/// A line of `cargo build --message-format json`; other reasons than artifacts are skipped.
#[derive(Deserialize)]
struct Message {
    reason: String,
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    #[serde(default)]
    filenames: Vec<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

/// The modules that cargo reports.
fn components(messages: &[u8]) -> Result<Vec<Compiled>, Failure> {
    let artifacts = messages.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Message>(line).ok());
    let libraries = artifacts.filter(|message| message.reason == "compiler-artifact");
    libraries.filter_map(|message| component(message).transpose()).collect()
}

/// The module of an artifact; none if it is no component.
fn component(message: Message) -> Result<Option<Compiled>, Failure> {
    let (Some(target), Some(manifest)) = (message.target, message.manifest_path) else { return Ok(None) };
    let is_wasm = |path: &&PathBuf| path.extension().is_some_and(|extension| extension == "wasm");
    let Some(module) = message.filenames.iter().find(is_wasm) else { return Ok(None) };
    if !target.kind.iter().any(|kind| kind == "cdylib") {
        return Ok(None);
    }
    let bytes =
        fs::read(module).map_err(|error| Failure::new(Exit::Failed, format!("`{}` cannot be read", module.display())).because(&error))?;
    // Cargo names a file, so it lies in a directory; a bare name lies here.
    let project = manifest.parent().map(Path::to_owned).unwrap_or_default();
    Ok(Some(Compiled { name: target.name.replace('_', "-"), project, bytes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_modules_of_cdylibs_are_components() {
        let directory = tempfile::tempdir().unwrap();
        let module = directory.path().join("worst_delay.wasm");
        fs::write(&module, b"\0asm").unwrap();
        let artifact = |kind: &str, file: &str| {
            serde_json::json!({ "reason": "compiler-artifact", "manifest_path": "/p/Cargo.toml", "filenames": [file],
                "target": { "name": "worst_delay", "kind": [kind] } })
            .to_string()
        };
        let module = module.to_str().unwrap();
        let lines = [artifact("cdylib", module), artifact("rlib", "/p/libserde.rlib"), "{\"reason\":\"build-finished\"}".into()].join("\n");
        let found = components(lines.as_bytes()).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].project.as_path()), ("worst-delay", Path::new("/p")));
    }
}
