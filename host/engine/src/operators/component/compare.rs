//! Two versions of a component in one place: what is different, what stands against one taking the place of the other while the job runs, and
//! whether there is a way back.

use arrow_schema::FieldRef;
use millstream_model::{StreamType, types::type_text};

use super::plan::ComponentOperatorPlan;
use crate::{
    operator::OperatorPlan as _,
    operators::upgrade,
    run::{Comparison, SwapChange, SwapPart},
};

/// What takes the place of `old`.
pub(super) fn compare(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan) -> Comparison {
    let mut found = Comparison::default();
    compare_facts(old, new, &mut found);
    compare_inputs(old, new, &mut found);
    compare_outputs(old, new, &mut found);
    compare_states(old, new, &mut found);
    compare_timers(old, new, &mut found);
    found
}

impl Comparison {
    fn change(&mut self, part: SwapPart, what: impl Into<String>) {
        self.changes.push(SwapChange { part, what: what.into() });
    }
}

fn compare_facts(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan, found: &mut Comparison) {
    let name = |plan: &ComponentOperatorPlan| format!("{} {}", plan.descriptor.name, plan.descriptor.version);
    if old.component.digest() != new.component.digest() {
        let (old_name, new_name) = (name(old), name(new));
        let what = if old_name == new_name { format!("another build of {new_name}") } else { format!("{old_name} becomes {new_name}") };
        found.change(SwapPart::Component, what);
    }
    let (before, now) = (&old.settings, &new.settings);
    if before.said != now.said {
        found.change(SwapPart::Settings, format!("settings {} become {}", before.said, now.said));
    } else if before.given != now.given {
        found.change(SwapPart::Settings, "what its settings refer to has another value");
    }
}

fn compare_inputs(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan, found: &mut Comparison) {
    if old.descriptor.inputs != new.descriptor.inputs {
        found.refusals.push(format!("its inputs are {}, not {}", list(&new.descriptor.inputs), list(&old.descriptor.inputs)));
        return;
    }
    if old.keys() != new.keys() {
        found.refusals.push("it keys its inputs differently".into());
    }
    for (port, name) in new.descriptor.inputs.iter().enumerate() {
        let names = |plan: &ComponentOperatorPlan| -> Vec<String> {
            plan.guest.inputs[port].reads.iter().map(|field| field.name().clone()).collect()
        };
        let (before, now) = (names(old), names(new));
        let more: Vec<String> = now.iter().filter(|column| !before.contains(column)).cloned().collect();
        let less: Vec<String> = before.iter().filter(|column| !now.contains(column)).cloned().collect();
        if !more.is_empty() {
            found.change(SwapPart::Input, format!("input `{name}`: it reads {} too", list(&more)));
        }
        if !less.is_empty() {
            found.change(SwapPart::Input, format!("input `{name}`: it no longer reads {}", list(&less)));
        }
    }
}

fn compare_outputs(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan, found: &mut Comparison) {
    if old.descriptor.outputs != new.descriptor.outputs {
        found.refusals.push(format!("its outputs are {}, not {}", list(&new.descriptor.outputs), list(&old.descriptor.outputs)));
        return;
    }
    for ((name, before), (_, now)) in old.outputs().iter().zip(new.outputs()) {
        found.refusals.extend(stream_differences(name, before, now));
    }
}

fn compare_states(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan, found: &mut Comparison) {
    for before in &old.guest.states {
        let name = &before.name;
        let Some(now) = new.guest.states.iter().find(|state| state.name == *name) else {
            found.refusals.push(format!("state `{name}` is missing"));
            continue;
        };
        if now.kind != before.kind || now.map_key_type != before.map_key_type {
            found.refusals.push(format!("state `{name}` is of another kind"));
            continue;
        }
        let types = (type_text(&before.value_type), type_text(&now.value_type));
        if let Err(reason) = upgrade::evolves(before, now) {
            let migrates = if new.component.migrates() { "; its migration works from a savepoint, not in a running job" } else { "" };
            found.refusals.push(format!("state `{name}` cannot change from {} to {}: {reason}{migrates}", types.0, types.1));
            continue;
        }
        if types.0 != types.1 || before.version != now.version {
            let versions = (before.version, now.version);
            found.change(
                SwapPart::State,
                format!("state `{name}`: {} (version {}) becomes {} (version {})", types.0, versions.0, types.1, versions.1),
            );
        }
        if let Err(reason) = upgrade::evolves(now, before) {
            found.one_way.push(format!("state `{name}` as the new version writes it cannot be read by the old one: {reason}"));
        }
    }
    for now in new.guest.states.iter().filter(|now| old.guest.states.iter().all(|before| before.name != now.name)) {
        found.change(SwapPart::State, format!("state `{}` is new", now.name));
    }
}

fn compare_timers(old: &ComponentOperatorPlan, new: &ComponentOperatorPlan, found: &mut Comparison) {
    for timer in &old.guest.timers {
        match new.guest.timers.iter().find(|other| other.name == timer.name) {
            None => found.refusals.push(format!("timer `{}` is missing", timer.name)),
            Some(other) if other.clock != timer.clock => found.refusals.push(format!("timer `{}` is of another clock", timer.name)),
            Some(_) => {}
        }
    }
    for now in new.guest.timers.iter().filter(|now| old.guest.timers.iter().all(|before| before.name != now.name)) {
        found.change(SwapPart::State, format!("timer `{}` is new", now.name));
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

fn stream_differences(name: &str, old: &StreamType, new: &StreamType) -> Vec<String> {
    let mut differences = Vec::new();
    let text = |field: &FieldRef| format!("{}{}", type_text(field.data_type()), if field.is_nullable() { "?" } else { "" });
    for field in old.schema.fields() {
        match new.schema.fields().iter().find(|other| other.name() == field.name()) {
            None => differences.push(format!("output `{name}` has no column `{}`", field.name())),
            Some(other) if text(other) != text(field) => {
                differences.push(format!("column `{}` of output `{name}` is {}, not {}", field.name(), text(other), text(field)));
            }
            Some(_) => {}
        }
    }
    for field in new.schema.fields().iter().filter(|field| old.schema.column_with_name(field.name()).is_none()) {
        differences.push(format!("output `{name}` has a new column `{}`", field.name()));
    }
    if differences.is_empty() && old.schema.fields() != new.schema.fields() {
        differences.push(format!("output `{name}` has its columns in another order"));
    }
    if (old.event_times, old.changes) != (new.event_times, new.changes) {
        differences.push(format!("output `{name}` differs in whether it has event times or changes"));
    }
    differences
}
