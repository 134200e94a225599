//! What the languages need on this machine, for `millstream doctor`.

use super::{javascript, python, rust};

/// Who needs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needed {
    /// Rust operators, the first language.
    ByRust,
    /// Operators in this other language.
    ByOthers(&'static str),
}

/// A tool, and whether it is here.
#[derive(Debug)]
pub struct Requirement {
    /// What it is.
    pub name: &'static str,
    /// Who needs it.
    pub needed: Needed,
    /// Its version; none: it is not here.
    pub found: Option<String>,
    /// How to install it.
    pub fix: String,
}

/// What all languages need.
pub fn all() -> Vec<Requirement> {
    let target = Requirement {
        name: rust::TARGET,
        needed: Needed::ByRust,
        found: rust::has_target().then(|| "installed".to_owned()),
        fix: format!("rustup target add {}", rust::TARGET),
    };
    let rust = [&rust::CARGO, &rust::RUSTC].map(|tool| tool.requirement(Needed::ByRust));
    let python = python::COMPONENTIZE.requirement(Needed::ByOthers("Python"));
    let javascript = javascript::COMPONENTIZE.requirement(Needed::ByOthers("JavaScript"));
    rust.into_iter().chain([target, python, javascript]).collect()
}
