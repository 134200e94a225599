//! Landlock: which files, and that nothing outside is signalled, looked into or connected to by a name of its own.
//!
//! Everything that any version of Landlock knows is asked for; what this kernel does not know is said in the report. Listening on a port is refused,
//! connecting is not: Landlock knows ports, and a port says nothing about who is there.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};

use crate::{Error, Settings, Standing};

/// The version of Landlock whose rights are asked for.
const WANTED: ABI = ABI::V6;

pub(crate) fn restrict(settings: &Settings) -> Result<Standing, Error> {
    let unbuildable = |error: RulesetError| Error::Unbuildable { what: "the Landlock rules", reason: error.to_string() };
    let all = AccessFs::from_all(WANTED);
    let mut rules = ruleset().and_then(Ruleset::create).map_err(unbuildable)?;
    for path in &settings.writable {
        rules = allow(rules, path, all).map_err(unbuildable)?;
    }
    for path in &settings.readable {
        rules = allow(rules, path, AccessFs::ReadFile | AccessFs::ReadDir).map_err(unbuildable)?;
    }
    rules.restrict_self().map_err(unbuildable).map(|status| standing(&status))
}

fn ruleset() -> Result<Ruleset, RulesetError> {
    Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED))?
        .handle_access(AccessNet::BindTcp)?
        .scope(Scope::from_all(WANTED))
}

fn allow(rules: RulesetCreated, path: &Path, access: BitFlags<AccessFs>) -> Result<RulesetCreated, RulesetError> {
    // What is not there, nobody can open; what is made later at this place stays forbidden.
    let Ok(opened) = PathFd::new(path) else { return Ok(rules) };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(WANTED) };
    rules.add_rule(PathBeneath::new(opened, access))
}

fn standing(status: &RestrictionStatus) -> Standing {
    match status.ruleset {
        RulesetStatus::FullyEnforced => Standing::Up,
        RulesetStatus::PartiallyEnforced => {
            Standing::Partly { missing: "this kernel's version of it is older than what is asked for".to_owned() }
        }
        RulesetStatus::NotEnforced => Standing::Missing { reason: "this kernel does not have it, or it is switched off".to_owned() },
    }
}

/// What this kernel would enforce: a set of rules is made and dropped.
pub(crate) fn offered() -> Standing {
    let made = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(WANTED))
        .and_then(|rules| rules.handle_access(AccessNet::BindTcp))
        .and_then(|rules| rules.scope(Scope::from_all(WANTED)))
        .and_then(Ruleset::create);
    match made {
        Ok(_) => Standing::Up,
        Err(error) => match Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))
            .and_then(Ruleset::create)
        {
            Ok(_) => Standing::Partly { missing: error.to_string() },
            Err(error) => Standing::Missing { reason: error.to_string() },
        },
    }
}
