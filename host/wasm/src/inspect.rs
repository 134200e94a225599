//! What a component is, read from its bytes without running or compiling it, and whether its imports are granted.

use std::{fmt, sync::Arc};

use wasmparser::{Chunk, ComponentExternalKind, Encoding, KnownCustom, Parser, Payload};

use crate::{
    error::Error,
    log::{is_deceptive, printable},
    wasi,
};

/// The contract that this host speaks: `millstream:operator@0.1`.
const PACKAGE: &str = "millstream:operator/";
const VERSION: (u64, u64) = (0, 1);
/// The interfaces of the contract that a guest may import.
const GRANTED: [&str; 5] = ["collections", "columns", HTTP, "log", "metrics"];
/// The one that an operator is granted by its job, and not by being one.
const HTTP: &str = "http";
/// Longest name of an import or export that is shown, in bytes.
const SHOWN_BYTES_MAX: usize = 200;

/// The facts of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// Which worlds of the contract it implements; none: it is some other component.
    pub worlds: Vec<World>,
    /// The interfaces and functions it imports, with versions, in its order.
    pub imports: Vec<String>,
    /// The interfaces and functions it exports, with versions, in its order.
    pub exports: Vec<String>,
    /// Size of the whole, in bytes.
    pub size_bytes: u64,
    /// Size of each core module in it, in bytes, in order.
    pub module_bytes: Vec<u64>,
    /// Its name, if its toolchain wrote one.
    pub name: Option<String>,
    /// Its version, if its toolchain wrote one.
    pub version: Option<String>,
    /// The languages and tools that made it, as `language: Rust` or `processed-by: rustc 1.95.0`.
    pub producers: Vec<String>,
}

impl Inspection {
    /// Whether it imports `http`: an operator that does must be granted it.
    pub fn sends_requests(&self) -> bool {
        names(&self.imports, HTTP)
    }
}

/// A world of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum World {
    /// `stream-operator`.
    StreamOperator,
    /// `migrating-operator`.
    MigratingOperator,
    /// `requesting-operator`.
    RequestingOperator,
    /// `migrating-requesting-operator`.
    MigratingRequestingOperator,
    /// `window-aggregate`.
    WindowAggregate,
    /// `migrating-window-aggregate`.
    MigratingWindowAggregate,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StreamOperator => "stream-operator",
            Self::MigratingOperator => "migrating-operator",
            Self::RequestingOperator => "requesting-operator",
            Self::MigratingRequestingOperator => "migrating-requesting-operator",
            Self::WindowAggregate => "window-aggregate",
            Self::MigratingWindowAggregate => "migrating-window-aggregate",
        })
    }
}

/// Reads the facts of a component. `name` is how the user names it.
///
/// # Errors
/// The bytes are no component.
pub fn inspect(bytes: &[u8], name: &str) -> Result<Inspection, Error> {
    // What a parser says of names has the names in it.
    let not_a_component = |reason: String| Error::NotAComponent { component: name.into(), reason: printable(&reason) };
    if !bytes.starts_with(b"\0asm") {
        return Err(not_a_component(beginning(bytes)));
    }
    let mut inspection = read(bytes).map_err(not_a_component)?;
    inspection.size_bytes = bytes.len() as u64;
    inspection.worlds = worlds(&inspection);
    Ok(inspection)
}

fn beginning(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "it is empty".into();
    }
    let text = bytes.trim_ascii_start();
    if text.starts_with(b"(module") || text.starts_with(b"(component") || text.starts_with(b";;") {
        return "it is WebAssembly text; encode it first".into();
    }
    "it does not begin as WebAssembly does".into()
}

fn read(bytes: &[u8]) -> Result<Inspection, String> {
    let mut inspection = Inspection::default();
    let mut parser = Parser::new(0);
    let mut rest = bytes;
    loop {
        let damaged = |error: wasmparser::BinaryReaderError| format!("it is damaged: {error}");
        let (consumed, payload) = match parser.parse(rest, true).map_err(damaged)? {
            Chunk::Parsed { consumed, payload } => (consumed, payload),
            Chunk::NeedMoreData(_) => return Err("it ends too early".into()),
        };
        match payload {
            Payload::Version { encoding: Encoding::Module, .. } => {
                return Err("it is a core module; make it a component with `millstream build`".into());
            }
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    inspection.imports.push(import.map_err(damaged)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(exports) => {
                for export in exports {
                    let export = export.map_err(damaged)?;
                    if matches!(export.kind, ComponentExternalKind::Instance | ComponentExternalKind::Func) {
                        inspection.exports.push(export.name.name.to_owned());
                    }
                }
            }
            Payload::ModuleSection { unchecked_range: range, .. } => {
                inspection.module_bytes.push((range.end - range.start) as u64);
                rest = rest.get(consumed + (range.end - range.start)..).ok_or("it ends too early")?;
                continue;
            }
            Payload::ComponentSection { unchecked_range: range, .. } => {
                rest = rest.get(consumed + (range.end - range.start)..).ok_or("it ends too early")?;
                continue;
            }
            Payload::CustomSection(section) => custom(&section, &mut inspection),
            Payload::End(_) => return Ok(inspection),
            _ => {}
        }
        rest = &rest[consumed..];
    }
}

/// Names and producers are hints of toolchains: what cannot be read is left out.
fn custom(section: &wasmparser::CustomSectionReader<'_>, inspection: &mut Inspection) {
    match section.as_known() {
        KnownCustom::ComponentName(names) => {
            for name in names.into_iter().flatten() {
                if let wasmparser::ComponentName::Component { name, .. } = name {
                    inspection.name = Some(shown(name));
                }
            }
        }
        KnownCustom::Producers(fields) => {
            for field in fields.into_iter().flatten() {
                let values = field.values.clone().into_iter().flatten();
                inspection
                    .producers
                    .extend(values.map(|value| shown(format!("{}: {} {}", field.name, value.name, value.version).trim_end())));
            }
        }
        _ if section.name() == "version" => inspection.version = std::str::from_utf8(section.data()).ok().map(shown),
        _ => {}
    }
}

fn shown(text: &str) -> String {
    let cut = text.floor_char_boundary(SHOWN_BYTES_MAX);
    text[..cut].chars().map(|character| if is_deceptive(character) { ' ' } else { character }).collect()
}

fn worlds(inspection: &Inspection) -> Vec<World> {
    let exported = |interface: &str| names(&inspection.exports, interface);
    let migrates = exported("migration");
    let mut worlds = Vec::new();
    if exported("operator") {
        worlds.push(match (inspection.sends_requests(), migrates) {
            (false, false) => World::StreamOperator,
            (false, true) => World::MigratingOperator,
            (true, false) => World::RequestingOperator,
            (true, true) => World::MigratingRequestingOperator,
        });
    }
    if exported("aggregate") {
        worlds.push(if migrates { World::MigratingWindowAggregate } else { World::WindowAggregate });
    }
    worlds
}

/// Whether an interface of the contract is among these names, in the version that this host speaks.
fn names(all: &[String], interface: &str) -> bool {
    all.iter().any(|one| ours(one) == Some((interface, Some(VERSION))))
}

/// The interface and version track (major, minor) of a name of our package.
fn ours(name: &str) -> Option<(&str, Option<(u64, u64)>)> {
    let (interface, version) = name.strip_prefix(PACKAGE)?.split_once('@')?;
    Some((interface, track(version)))
}

fn track(version: &str) -> Option<(u64, u64)> {
    let version = semver::Version::parse(version).ok()?;
    version.pre.is_empty().then_some((version.major, version.minor))
}

/// The interface of a WASI 0.2 import that is answered, as `io/poll`.
pub(crate) fn answered_wasi(import: &str) -> Option<&str> {
    let (interface, version) = import.strip_prefix("wasi:")?.split_once('@')?;
    let (package, _) = interface.split_once('/')?;
    (track(version) == Some((0, 2)) && wasi::ANSWERED.contains(&package)).then_some(interface)
}

/// # Errors
/// An import is not granted; the first one is named.
pub(crate) fn check_imports(inspection: &Inspection, component: &Arc<str>) -> Result<(), Error> {
    for import in &inspection.imports {
        if let Some(reason) = refusal(import) {
            return Err(Error::ImportRefused { component: component.clone(), import: shown(import), reason });
        }
    }
    Ok(())
}

fn refusal(import: &str) -> Option<String> {
    if let Some((interface, version)) = ours(import) {
        return match version {
            Some(VERSION) if GRANTED.contains(&interface) => None,
            Some(VERSION) => Some(format!("`{PACKAGE}{interface}` is for operators to export")),
            _ => Some("it is made for another version of the contract; this host speaks 0.1".into()),
        };
    }
    if answered_wasi(import).is_some() {
        return None;
    }
    Some(if import.starts_with("wasi:sockets") || import.starts_with("wasi:http") {
        "operators have no network of their own: let a connector bring the data, or import `millstream:operator/http`, which a job grants"
            .into()
    } else if import.starts_with("wasi:") && import.contains("@0.2.") {
        format!("of WASI 0.2, {} are answered", wasi::ANSWERED.join(", "))
    } else if import.starts_with("wasi:") {
        "only WASI 0.2 is answered".into()
    } else if import.starts_with("wasi_snapshot_preview1") {
        "WASI preview 1 needs an adapter; build it with `millstream build`".into()
    } else {
        "it is not part of the contract".into()
    })
}

/// # Errors
/// The component implements no world of the contract.
pub(crate) fn check_world(inspection: &Inspection, component: &Arc<str>) -> Result<(), Error> {
    if inspection.worlds.is_empty() { check_export(inspection, "operator", component) } else { Ok(()) }
}

/// # Errors
/// The component exports no version of `interface` that this host speaks.
pub(crate) fn check_export(inspection: &Inspection, interface: &str, component: &Arc<str>) -> Result<(), Error> {
    let ours: Vec<_> = inspection.exports.iter().filter_map(|export| ours(export)).filter(|(name, _)| *name == interface).collect();
    if ours.iter().any(|(_, version)| *version == Some(VERSION)) {
        return Ok(());
    }
    let reason = if !ours.is_empty() {
        "it is made for another version of the contract; this host speaks 0.1".to_owned()
    } else if inspection.worlds.is_empty() {
        format!("it implements no world of `millstream:operator`; it exports {}", listed(&inspection.exports))
    } else {
        let worlds: Vec<String> = inspection.worlds.iter().map(World::to_string).collect();
        format!("it is a {}, which does not export `{interface}`", worlds.join(" and "))
    };
    Err(Error::WorldMismatch { component: component.clone(), reason })
}

fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(5).map(|name| format!("`{}`", shown(name))).collect();
    if shown.is_empty() { "nothing".into() } else { shown.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wasi_02_is_answered_in_every_patch_version() {
        for import in ["wasi:io/poll@0.2.0", "wasi:io/poll@0.2.12", "wasi:cli/environment@0.2.3", "wasi:filesystem/types@0.2.6"] {
            assert_eq!(refusal(import), None, "{import}");
        }
    }

    #[test]
    fn the_network_is_refused_by_name() {
        for import in ["wasi:sockets/tcp@0.2.0", "wasi:http/outgoing-handler@0.2.0"] {
            assert!(refusal(import).expect("refused").contains("no network"));
        }
    }

    #[test]
    fn other_imports_are_refused_with_a_reason() {
        assert!(refusal("millstream:operator/log@0.2.0").expect("refused").contains("another version"));
        assert!(refusal("millstream:operator/operator@0.1.0").expect("refused").contains("to export"));
        assert!(refusal("wasi:io/poll@0.3.0").expect("refused").contains("0.2"));
        assert!(refusal("wasi:clocks-evil/x@0.2.0").is_some());
        assert!(refusal("env").is_some());
        assert_eq!(refusal("millstream:operator/log@0.1.7"), None);
    }

    #[test]
    fn what_is_no_component_is_refused_with_what_it_is() {
        let reason = |bytes: &[u8]| inspect(bytes, "x").expect_err("no component").to_string();
        assert!(reason(b"").contains("empty"));
        assert!(reason(b"  (module)").contains("text"));
        assert!(reason(b"hello").contains("does not begin"));
        assert!(reason(b"\0asm\x01\0\0\0").contains("core module"));
        assert!(reason(b"\0asm\x0d\0\x01\0\x07\xff").contains("early") || reason(b"\0asm\x0d\0\x01\0\x07\xff").contains("damaged"));
    }
}
