//! Core module → component, in process: what `millstream build` does after the language's own compiler.
//!
//! Every language's compiler ends at a core module; from there the way is the same, so that a user needs no other tool: the module says
//! which world it is for (its bindings embed that), imports of WASI preview 1 are met by the adapters given (languages whose runtime
//! cannot do without bring one), the result is encoded, and any import outside of the contract is refused.

use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

use crate::{
    error::Error,
    inspect::{self, Inspection},
};

/// A module that stands in for imports that a toolchain cannot leave out.
#[derive(Clone, Copy, Debug)]
pub struct Adapter<'a> {
    /// The module name of the imports that it meets, for instance `wasi_snapshot_preview1`.
    pub imports: &'a str,
    /// The adapter, a core module.
    pub module: &'a [u8],
}

/// A component and what it is.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The component.
    pub bytes: Vec<u8>,
    /// What it is.
    pub inspection: Inspection,
}

/// Makes a component of a core module whose bindings embed a world of the contract. Bytes that are a component already are only checked.
/// `name` is how the user names it.
///
/// # Errors
/// The module does not fit a world of the contract, or imports what operators are not granted.
pub fn component(module: &[u8], adapters: &[Adapter<'_>], name: &str) -> Result<Encoded, Error> {
    let bytes = if Parser::is_component(module) { module.to_vec() } else { encode(module, adapters, name)? };
    let inspection = inspect::inspect(&bytes, name)?;
    inspect::check_imports(&inspection, &name.into())?;
    inspect::check_world(&inspection, &name.into())?;
    Ok(Encoded { bytes, inspection })
}

fn encode(module: &[u8], adapters: &[Adapter<'_>], name: &str) -> Result<Vec<u8>, Error> {
    let module = without_debug_information(module).map_err(|error| unfit(name, &error))?;
    let mut encoder = ComponentEncoder::default().validate(true).module(&module).map_err(|error| unfit(name, &error))?;
    for adapter in adapters {
        encoder = encoder.adapter(adapter.imports, adapter.module).map_err(|error| unfit(name, &error))?;
    }
    encoder.encode().map_err(|error| unfit(name, &error))
}

/// The module without its debug information, which is several times its code. Names of functions stay, for traps.
fn without_debug_information(module: &[u8]) -> Result<Vec<u8>, wasmparser::BinaryReaderError> {
    let mut slim = wasm_encoder::Module::new();
    for payload in Parser::new(0).parse_all(module) {
        match payload? {
            Payload::CustomSection(section) if section.name().starts_with(".debug_") => {}
            payload => {
                if let Some((id, range)) = payload.as_section() {
                    slim.section(&wasm_encoder::RawSection { id, data: module.get(range).unwrap_or_default() });
                }
            }
        }
    }
    Ok(slim.finish())
}

fn unfit(name: &str, error: &dyn std::fmt::Display) -> Error {
    Error::NotAComponent { component: name.into(), reason: format!("it cannot be made one: {error:#}") }
}
