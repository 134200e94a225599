//! What a durable run of the job promises: the strongest that all of its sources and sinks allow, or what the job file asks for, which is refused
//! where it cannot be kept.

use std::{collections::BTreeMap, num::NonZeroU32, time::Duration};

use super::{
    draft::Draft,
    typed::{Planner, Typed, TypedKind},
};
use crate::{
    connector::Guarantee,
    graph::{Backups, Checkpoints, Durability, Restart},
    spec::{DurationMs, JobSettings},
};

/// How many backups are kept of a job that does not say otherwise.
const BACKUPS: NonZeroU32 = NonZeroU32::new(7).expect("seven is not zero");

/// Reports a guarantee that cannot be kept, and times that mean nothing.
pub(super) fn check(planner: &mut Planner<'_, '_>, draft: &Draft<'_>, typed: &[Option<Typed>], settings: &JobSettings) {
    if let Some(wanted) = settings.guarantee {
        let weaker = draft.nodes.iter().zip(typed).filter_map(|(node, typed)| Some((node.id, allowed(typed.as_ref()?)?)));
        let weaker: Vec<(&str, Guarantee)> = weaker.filter(|(_, allowed)| *allowed < wanted.guarantee()).collect();
        if let Some((_, weakest)) = weaker.iter().min_by_key(|(_, allowed)| *allowed) {
            let names: Vec<String> = weaker.iter().map(|(id, allowed)| format!("`{id}` ({})", text(*allowed))).collect();
            let message = format!("{} cannot be kept because of {}", text(wanted.guarantee()), names.join(", "));
            planner.report.value("/guarantee", message, Some(help(*weakest)));
        }
    }
    check_spans(planner, draft, typed);
    let checkpoints = &settings.checkpoints;
    for (at, duration) in [
        ("/checkpoints/interval", checkpoints.interval),
        ("/checkpoints/timeout", checkpoints.timeout),
        ("/savepoints/every", settings.savepoints.as_ref().map(|backups| backups.every)),
    ] {
        if duration.is_some_and(|duration| duration.as_ms() == 0) {
            planner.report.value(at, "this duration is longer than 0", None);
        }
    }
}

/// Sinks that are committed with the checkpoint itself can only be committed as one within one cluster.
fn check_spans(planner: &mut Planner<'_, '_>, draft: &Draft<'_>, typed: &[Option<Typed>]) {
    let mut spans: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (node, typed) in draft.nodes.iter().zip(typed) {
        if let Some(Typed { kind: TypedKind::Sink(sink), .. }) = typed
            && let Some(transactional) = sink.transactional()
        {
            spans.entry(transactional.span()).or_default().push(node.id);
        }
    }
    if spans.len() > 1 {
        let shown: Vec<String> = spans.iter().map(|(span, ids)| format!("`{}` ({span})", ids.join("`, `"))).collect();
        planner.report.value(
            "/sinks",
            format!(
                "sinks that write exactly once are committed as one, and these reach their clusters in different ways: {}",
                shown.join(", ")
            ),
            Some("write them with the same settings of connection, or all but those of one cluster with `delivery: at-least-once`".into()),
        );
    }
}

fn help(weakest: Guarantee) -> String {
    match weakest {
        Guarantee::AtMostOnce => {
            "without `guarantee` the job gets what its sources and sinks allow; a source that cannot be read again may lose rows".into()
        }
        Guarantee::AtLeastOnce | Guarantee::ExactlyOnce => {
            "write `guarantee: at-least-once`, or leave it out to get what its sources and sinks allow".into()
        }
    }
}

/// As people and job files say it.
pub(super) fn text(guarantee: Guarantee) -> &'static str {
    match guarantee {
        Guarantee::AtMostOnce => "at-most-once",
        Guarantee::AtLeastOnce => "at-least-once",
        Guarantee::ExactlyOnce => "exactly-once",
    }
}

fn allowed(typed: &Typed) -> Option<Guarantee> {
    match &typed.kind {
        TypedKind::Source(source) => Some(source.node.source.guarantee()),
        TypedKind::Sink(sink) => Some(sink.guarantee()),
        TypedKind::Operator { .. } => None,
    }
}

/// What a durable run promises, and how.
pub(super) fn durability(typed: &[Typed], settings: &JobSettings) -> Durability {
    let strongest = typed.iter().filter_map(allowed).min().unwrap_or(Guarantee::ExactlyOnce);
    let default = Durability::default();
    let or = |duration: Option<DurationMs>, default: Duration| duration.map_or(default, DurationMs::as_duration);
    let (checkpoints, restart) = (&settings.checkpoints, &settings.restart);
    Durability {
        guarantee: settings.guarantee.map_or(strongest, |wanted| strongest.min(wanted.guarantee())),
        checkpoints: Checkpoints {
            interval: or(checkpoints.interval, default.checkpoints.interval),
            timeout: or(checkpoints.timeout, default.checkpoints.timeout),
            min_pause: or(checkpoints.min_pause, default.checkpoints.min_pause),
            retained: checkpoints.retained.unwrap_or(default.checkpoints.retained),
            tolerated_failures: checkpoints.tolerated_failures.unwrap_or(default.checkpoints.tolerated_failures),
            storage: checkpoints.storage.clone(),
        },
        restart: Restart {
            attempts: restart.attempts.unwrap_or(default.restart.attempts),
            first: or(restart.first, default.restart.first),
            most: or(restart.most, default.restart.most),
            healthy_after: or(restart.healthy_after, default.restart.healthy_after),
        },
        backups: settings
            .savepoints
            .as_ref()
            .map(|backups| Backups { every: backups.every.as_duration(), retained: backups.retained.unwrap_or(BACKUPS) }),
    }
}
