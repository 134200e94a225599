//! Generates `guest-sdk/rust/src/bindings/*.rs` from `wit/operator.wit`.
//!
//! The crate `millstream` carries the generated text, so that a user's first build compiles no generator. The test of this crate fails
//! when the text and the contract differ; `UPDATE_BINDINGS=1 cargo test --manifest-path guest-sdk/rust/bindings/Cargo.toml` writes it anew.

#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
use wit_bindgen_rust::{Opts, WithOption};

/// One generated module of `millstream::bindings`.
pub struct Module {
    /// File name without `.rs`.
    pub name: &'static str,
    /// Its whole text.
    pub text: String,
}

/// Interfaces that the worlds share, and the module that has them.
const SHARED: [&str; 3] = ["columns", "log", "metrics"];

/// Worlds of one interface each; a component that migrates state, or sends requests, carries the type of one beside that of its own world.
const OWN_WORLDS: &str = "package millstream:sdk;
    world migration { export millstream:operator/migration@0.1.0; }
    world http { import millstream:operator/http@0.1.0; }";

/// Generates every module from the text of the contract.
///
/// # Errors
/// The contract does not parse.
pub fn generate(contract: &str) -> Result<Vec<Module>> {
    Ok(vec![
        module(contract, "operator", "stream-operator", None)?,
        module(contract, "aggregate", "window-aggregate", Some(&SHARED))?,
        module(contract, "migration", "migration", Some(&SHARED[..1]))?,
        module(contract, "http", "http", None)?,
    ])
}

fn module(contract: &str, name: &'static str, world: &str, shared: Option<&[&str]>) -> Result<Module> {
    let mut resolve = Resolve::default();
    let mut package = resolve.push_str("operator.wit", contract).context("the contract does not parse")?;
    if matches!(world, "migration" | "http") {
        package = resolve.push_str("own.wit", OWN_WORLDS)?;
    }
    let world = resolve.select_world(&[package], Some(world))?;
    let mut files = Files::default();
    options(name, shared.unwrap_or_default()).build().generate(&mut resolve, world, &mut files)?;
    let (_, bytes) = files.iter().next().context("nothing was generated")?;
    Ok(Module { name, text: String::from_utf8(bytes.to_vec())? })
}

fn options(name: &str, shared: &[&str]) -> Opts {
    let path = |interface: &&str| WithOption::Path(format!("crate::bindings::operator::millstream::operator::{interface}"));
    let shared = shared.iter().map(|interface| (format!("millstream:operator/{interface}@0.1.0"), path(interface)));
    // An interface of another package than the world's is generated where that is said.
    let own = ("millstream:operator/http@0.1.0".to_owned(), WithOption::Generate);
    Opts {
        format: true,
        runtime_path: Some("::millstream::__rt::wit_bindgen::rt".into()),
        default_bindings_module: Some(format!("::millstream::bindings::{name}")),
        export_macro_name: Some(format!("__export_{name}")),
        pub_export_macro: true,
        type_section_suffix: Some(format!("millstream-{name}")),
        with: shared.chain((name == "http").then_some(own)).collect(),
        ..Opts::default()
    }
}
