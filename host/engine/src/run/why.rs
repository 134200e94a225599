//! Why nothing comes out: one sentence that names what a job waits for. A pure function of its status.
//!
//! The causes in the order in which they explain others: the job does not run; its versions change; a subtask holds up those before it (a retry, answers over HTTP, a
//! full queue, a barrier); sources wait for rows, and by that for event time. Of several subtasks the one that has waited longest is named.

use millstream_model::ids::OperatorId;

use super::{
    handle::{JobStatus, OperatorKind, OperatorStatus, Phase, Recovery, SubtaskWait, WaitOn},
    swap::SwapPhase,
};

/// Work on one element, a silent source and event time that stands still are worth a word after so long.
const LONG_MS: i64 = 1_000;

/// What a job waits for, as one sentence without its last point.
pub fn why(status: &JobStatus) -> String {
    let causes: [fn(&Looked<'_>) -> Option<String>; 10] =
        [of_phase, of_swap, of_retry, of_answers, of_room, of_barrier, of_work, of_drift, of_time, of_sources];
    let looked = Looked { status };
    let draining = if status.phase == Phase::Draining { "it is draining, and " } else { "" };
    let cause = causes.iter().find_map(|cause| cause(&looked));
    let cause = cause.unwrap_or_else(|| "it waits for nothing: rows flow".into());
    format!("{draining}{cause}{}", looked.behind())
}

struct Looked<'s> {
    status: &'s JobStatus,
}

impl<'s> Looked<'s> {
    fn operator(&self, id: &OperatorId) -> Option<&'s OperatorStatus> {
        self.status.operators.iter().find(|operator| operator.id == *id)
    }

    /// Everything that is waited for, the longest wait first.
    fn waits(&self) -> Vec<(&'s OperatorStatus, &'s SubtaskWait)> {
        let all = self.status.operators.iter().flat_map(|operator| operator.waits.iter().map(move |wait| (operator, wait)));
        let mut all: Vec<_> = all.collect();
        all.sort_by_key(|(_, wait)| wait.since_ms);
        all
    }

    fn sources(&self) -> impl Iterator<Item = &'s OperatorStatus> {
        self.status.operators.iter().filter(|operator| operator.kind == OperatorKind::Source)
    }

    /// How much there is still to be read: the source that is farthest behind, and its split.
    fn behind(&self) -> String {
        let farthest = self.sources().filter_map(|source| Some((source, source.rows_behind()?))).max_by_key(|(_, rows)| *rows);
        let Some((source, rows @ 1..)) = farthest.filter(|_| self.status.phase != Phase::Ended) else { return String::new() };
        let most = source.lags.iter().max_by_key(|lag| lag.rows).filter(|_| source.lags.len() > 1);
        let most = most.map(|lag| format!(", {} of them of `{}`", lag.rows, lag.split)).unwrap_or_default();
        format!("; source `{}` has {rows} rows still to read{most}", source.id)
    }

    fn is_long_ago(&self, since_ms: i64) -> bool {
        self.status.at_ms.saturating_sub(since_ms) >= LONG_MS
    }

    fn since(&self, since_ms: i64) -> String {
        duration(self.status.at_ms.saturating_sub(since_ms))
    }

    fn until(&self, until_ms: i64) -> String {
        duration(until_ms.saturating_sub(self.status.at_ms))
    }

    /// What a subtask of a source waits for.
    fn splits(&self, source: &OperatorStatus, wait: &SubtaskWait) -> Option<String> {
        let WaitOn::Splits { split, left } = &wait.on else { return None };
        let (id, since) = (&source.id, self.since(wait.since_ms));
        Some(match (split, left) {
            (Some(split), _) => format!("source `{id}` has had no rows of `{split}` for {since}"),
            (None, 0) => format!("source `{id}` has found nothing to read for {since}"),
            (None, left) => format!("source `{id}` has had no rows of any of its {left} splits for {since}"),
        })
    }

    /// The longest wait of a source for its splits.
    fn of_source(&self, source: &OperatorStatus) -> Option<String> {
        let waits = source.waits.iter().filter(|wait| matches!(wait.on, WaitOn::Splits { left: 1.., .. }));
        let longest = waits.min_by_key(|wait| wait.since_ms).or_else(|| source.waits.first())?;
        self.splits(source, longest)
    }
}

fn of_phase(looked: &Looked<'_>) -> Option<String> {
    let recovering = looked.status.durable.as_ref().and_then(|durable| durable.recovering.as_ref());
    match (looked.status.phase, recovering) {
        (Phase::Ended, _) => Some("the job has ended".into()),
        (Phase::Recovering, Some(Recovery { operator, causes, failures, next_ms })) => {
            let place = operator.as_ref().map_or_else(|| "the job".into(), |operator| format!("`{operator}`"));
            let next = if *next_ms > looked.status.at_ms {
                format!("attempt {} begins in {}", failures + 1, looked.until(*next_ms))
            } else {
                format!("attempt {} is being prepared", failures + 1)
            };
            Some(format!("{place} failed ({}); {next}, from the last checkpoint", causes.join(": ")))
        }
        (Phase::Recovering, None) => Some("it reads what it goes on from".into()),
        (Phase::Running | Phase::Draining, _) => None,
    }
}

fn of_swap(looked: &Looked<'_>) -> Option<String> {
    let swap = looked.status.swap.as_ref()?;
    let operators: Vec<String> = swap.operators.iter().map(|swap| format!("`{}`", swap.operator)).collect();
    let (number, operators, since) = (swap.swap.0, operators.join(", "), looked.since(swap.prepared_ms));
    match &swap.phase {
        SwapPhase::Switching => {
            Some(format!("swap {number}, asked for {since} ago, waits until every subtask of {operators} has switched"))
        }
        SwapPhase::RollingBack { reason } => {
            Some(format!("swap {number} is being undone ({reason}), and waits until every subtask of {operators} has switched back"))
        }
        _ => None,
    }
}

fn of_retry(looked: &Looked<'_>) -> Option<String> {
    looked.waits().into_iter().find_map(|(operator, wait)| match &wait.on {
        WaitOn::Retry { reason, until_ms } => {
            let (id, until) = (&operator.id, looked.until(*until_ms));
            Some(format!("the component of `{id}` asked to be called again ({reason}), which happens in {until}"))
        }
        _ => None,
    })
}

fn of_answers(looked: &Looked<'_>) -> Option<String> {
    looked.waits().into_iter().find_map(|(operator, wait)| match &wait.on {
        WaitOn::Answers { requests } if looked.is_long_ago(wait.since_ms) => {
            let (id, since) = (&operator.id, looked.since(wait.since_ms));
            Some(format!("the component of `{id}` has waited for the answers to {requests} requests over HTTP for {since}"))
        }
        _ => None,
    })
}

/// Who waits for room waits for whoever does not take; that one may wait for room itself.
fn of_room(looked: &Looked<'_>) -> Option<String> {
    let (first, wait, to) = looked.waits().into_iter().find_map(|(operator, wait)| match &wait.on {
        WaitOn::Room { to } => Some((operator, wait, to)),
        _ => None,
    })?;
    let mut culprit = to;
    for _ in 0..looked.status.operators.len() {
        let waits = looked.operator(culprit).into_iter().flat_map(|operator| &operator.waits);
        let next = waits.min_by_key(|wait| wait.since_ms).and_then(|wait| match &wait.on {
            WaitOn::Room { to } => Some(to),
            WaitOn::Work { by } if by != culprit => Some(by),
            _ => None,
        });
        match next {
            Some(next) => culprit = next,
            None => break,
        }
    }
    let (id, since) = (&first.id, looked.since(wait.since_ms));
    Some(match looked.operator(culprit).map(|operator| operator.kind) {
        Some(OperatorKind::Sink) => {
            format!("sink `{culprit}` does not take rows as fast as they come: `{id}` has waited for room for {since}")
        }
        _ => format!("`{culprit}` does not take rows as fast as they come: `{id}` has waited for room for {since}"),
    })
}

fn of_barrier(looked: &Looked<'_>) -> Option<String> {
    looked.waits().into_iter().find_map(|(operator, wait)| match &wait.on {
        WaitOn::Barrier { checkpoint, missing } => {
            let missing: Vec<String> = missing.iter().map(|id| format!("`{id}`")).collect();
            let (id, since) = (&operator.id, looked.since(wait.since_ms));
            Some(format!("`{id}` has waited {since} for the barrier of checkpoint {} from {}", checkpoint.0, missing.join(", ")))
        }
        _ => None,
    })
}

fn of_drift(looked: &Looked<'_>) -> Option<String> {
    let (ahead, wait) = looked.waits().into_iter().find(|(_, wait)| wait.on == WaitOn::Others)?;
    let behind = looked.sources().filter(|source| source.id != ahead.id).min_by_key(|source| source.watermark);
    let held = format!(
        "source `{}` has waited {} for sources that are behind by more than its `max-drift`",
        ahead.id,
        looked.since(wait.since_ms)
    );
    Some(match behind.and_then(|behind| looked.of_source(behind)) {
        Some(cause) => format!("{held}: {cause}"),
        None => held,
    })
}

/// An operator that waits for event time waits for the source that holds the watermark.
fn of_time(looked: &Looked<'_>) -> Option<String> {
    let waiting = looked.status.operators.iter().filter(|operator| operator.waits_for_time && operator.rows_in > 0);
    waiting.filter_map(|operator| of_watermark(looked, operator)).next()
}

fn of_watermark(looked: &Looked<'_>, operator: &OperatorStatus) -> Option<String> {
    let holder = holding(looked, operator)?;
    let source = source_of(looked, holder)?;
    let since_ms = operator.watermark_since_ms;
    let stands = match (operator.watermark, since_ms.filter(|&since_ms| looked.is_long_ago(since_ms))) {
        (Some(at_ms), Some(since_ms)) => format!("has stood at {} for {}", time(at_ms), looked.since(since_ms)),
        (Some(at_ms), None) => format!("stands at {}", time(at_ms)),
        (None, _) => "has not begun".into(),
    };
    let is_silent = source.waits.iter().any(|wait| matches!(wait.on, WaitOn::Splits { .. }) && looked.is_long_ago(wait.since_ms));
    let stands_still = since_ms.is_none_or(|since_ms| looked.is_long_ago(since_ms));
    let cause = if is_silent || !stands_still || source.rows_out == 0 {
        looked.of_source(source)?
    } else if holder.makes_time {
        format!("`{}`, which makes it from its rows, holds it", holder.id)
    } else {
        format!("source `{}` reads rows, but none brings it further", source.id)
    };
    Some(format!("`{}` waits for event time, which {stands}: {cause}", operator.id))
}

/// What holds the event time of an operator: a source, or who makes event times of its own and has come no further.
fn holding<'s>(looked: &Looked<'s>, operator: &'s OperatorStatus) -> Option<&'s OperatorStatus> {
    let mut holder = operator;
    for _ in 0..looked.status.operators.len() {
        if holder.kind == OperatorKind::Source {
            break;
        }
        let input = slowest_input(looked, holder)?;
        holder = input;
        if holder.makes_time {
            break;
        }
    }
    Some(holder)
}

/// The source that feeds who holds event time.
fn source_of<'s>(looked: &Looked<'s>, holder: &'s OperatorStatus) -> Option<&'s OperatorStatus> {
    let mut source = holder;
    for _ in 0..looked.status.operators.len() {
        if source.kind == OperatorKind::Source {
            break;
        }
        source = slowest_input(looked, source)?;
    }
    Some(source)
}

/// The input whose watermark holds that of `operator`.
fn slowest_input<'s>(looked: &Looked<'s>, operator: &'s OperatorStatus) -> Option<&'s OperatorStatus> {
    let named = operator.waits.iter().filter_map(|wait| match &wait.on {
        WaitOn::Input { held_by } => held_by.as_ref(),
        _ => None,
    });
    let inputs = operator.inputs.iter().filter_map(|id| looked.operator(id));
    named.filter_map(|id| looked.operator(id)).min_by_key(|input| input.watermark).or_else(|| inputs.min_by_key(|input| input.watermark))
}

/// All sources that are left wait.
fn of_sources(looked: &Looked<'_>) -> Option<String> {
    let left: Vec<&OperatorStatus> = looked.sources().filter(|source| !source.waits.is_empty()).collect();
    let is_waiting = |source: &&OperatorStatus| source.waits.iter().all(|wait| matches!(wait.on, WaitOn::Splits { .. }));
    if !left.iter().all(is_waiting) {
        return None;
    }
    let longest = left.into_iter().min_by_key(|source| source.waits.iter().map(|wait| wait.since_ms).min())?;
    let cause = looked.of_source(longest)?;
    let no_input = looked.sources().all(|source| source.rows_out == 0);
    Some(if no_input { format!("there was no input yet: {cause}") } else { cause })
}

/// Something that takes long, which nobody waits for in another subtask.
fn of_work(looked: &Looked<'_>) -> Option<String> {
    looked.waits().into_iter().find_map(|(_, wait)| match &wait.on {
        WaitOn::Work { by } if looked.is_long_ago(wait.since_ms) => {
            Some(format!("`{by}` has worked on what came last for {}", looked.since(wait.since_ms)))
        }
        _ => None,
    })
}

/// `3.2 s`, `5 min`.
fn duration(ms: i64) -> String {
    match ms.max(0) {
        ms @ ..1_000 => format!("{ms} ms"),
        ms @ 1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        ms @ 60_000..3_600_000 => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
        ms => format!("{} h {} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// ms since epoch as people write it.
fn time(at_ms: i64) -> String {
    match arrow_array::temporal_conversions::timestamp_ms_to_datetime(at_ms) {
        Some(at) => at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => format!("{at_ms} ms"),
    }
}

#[cfg(test)]
mod tests {
    use millstream_model::ids::SubtaskIndex;

    use super::*;
    use crate::{connector::Guarantee, metrics::SplitLag, run::DurableStatus};

    fn operator(id: &str, waits: Vec<SubtaskWait>) -> OperatorStatus {
        let counters = serde_json::json!({
            "id": id, "kind": "operator", "parallelism": 1, "rows-in": 0, "rows-out": 0, "rows-late": 0, "rows-rejected": 0, "rows-null-key": 0,
            "timers-cut": 0, "traps": 0, "guest-time": { "secs": 0, "nanos": 0 }, "backpressured-time": { "secs": 0, "nanos": 0 }, "progress": 0,
            "progress-total": null, "watermark": null
        });
        OperatorStatus { waits, ..serde_json::from_value(counters).expect("what a status of before had") }
    }

    fn status(operators: Vec<OperatorStatus>) -> JobStatus {
        JobStatus { phase: Phase::Running, operators, durable: None, at_ms: 10_000, swap: None, trial: None }
    }

    fn wait(since_ms: i64, on: WaitOn) -> SubtaskWait {
        SubtaskWait { subtask: SubtaskIndex(0), since_ms, on }
    }

    #[test]
    fn a_guest_that_asked_to_be_called_again_is_named_with_what_it_said() {
        let retry = WaitOn::Retry { reason: "the model is loading".into(), until_ms: 13_200 };
        let why = why(&status(vec![operator("score", vec![wait(10_000, retry)])]));
        assert_eq!(why, "the component of `score` asked to be called again (the model is loading), which happens in 3.2 s");
    }

    #[test]
    fn a_guest_that_has_waited_long_for_answers_is_named() {
        let waiting = |since_ms| why(&status(vec![operator("named", vec![wait(since_ms, WaitOn::Answers { requests: 7 })])]));
        assert_eq!(waiting(6_000), "the component of `named` has waited for the answers to 7 requests over HTTP for 4.0 s");
        assert_eq!(waiting(9_900), "it waits for nothing: rows flow");
    }

    #[test]
    fn a_failed_connector_is_named_with_its_cause_and_the_next_attempt() {
        let causes = vec!["cannot write rows".to_owned(), "connection refused".to_owned()];
        let recovering = Some(Recovery { operator: Some("out".into()), causes, failures: 2, next_ms: 12_500 });
        let durable = DurableStatus { guarantee: Guarantee::ExactlyOnce, attempt: 3, restarts: 2, last_checkpoint: None, recovering };
        let recovering = JobStatus { phase: Phase::Recovering, durable: Some(durable), ..status(Vec::new()) };
        let wanted = "`out` failed (cannot write rows: connection refused); attempt 3 begins in 2.5 s, from the last checkpoint";
        assert_eq!(why(&recovering), wanted);
        let later = JobStatus { at_ms: 12_500, ..recovering };
        assert_eq!(
            why(&later),
            "`out` failed (cannot write rows: connection refused); attempt 3 is being prepared, from the last checkpoint"
        );
    }

    #[test]
    fn who_is_far_behind_is_told_so() {
        let lag = |split: &str, rows| SplitLag { split: split.to_owned(), rows };
        let behind = |lags| OperatorStatus { kind: OperatorKind::Source, lags, ..operator("in", Vec::new()) };
        let of = |lags| why(&status(vec![behind(lags)]));
        assert_eq!(
            of(vec![lag("t/0", 5), lag("t/1", 70)]),
            "it waits for nothing: rows flow; source `in` has 75 rows still to read, 70 of them of `t/1`"
        );
        assert_eq!(of(vec![lag("t/0", 5)]), "it waits for nothing: rows flow; source `in` has 5 rows still to read");
        assert_eq!(of(vec![lag("t/0", 0)]), "it waits for nothing: rows flow");
    }

    #[test]
    fn a_full_queue_is_followed_to_the_one_that_does_not_take() {
        let room = |to: &str| WaitOn::Room { to: to.into() };
        let chain = vec![
            operator("first", vec![wait(9_000, room("second"))]),
            operator("second", vec![wait(9_500, room("third"))]),
            operator("third", vec![wait(9_900, WaitOn::Work { by: "third".into() })]),
        ];
        assert_eq!(why(&status(chain)), "`third` does not take rows as fast as they come: `first` has waited for room for 1.0 s");
        // However they hang together.
        let circle = vec![operator("one", vec![wait(9_000, room("two"))]), operator("two", vec![wait(9_000, room("one"))])];
        assert!(why(&status(circle)).contains("does not take rows"));
    }

    #[test]
    fn who_runs_ahead_waits_for_who_is_behind() {
        let source = |id: &str, on| OperatorStatus { kind: OperatorKind::Source, ..operator(id, vec![wait(4_000, on)]) };
        let splits = WaitOn::Splits { split: Some("part-7".into()), left: 3 };
        let why = why(&status(vec![source("ahead", WaitOn::Others), source("behind", splits)]));
        assert_eq!(
            why,
            "source `ahead` has waited 6.0 s for sources that are behind by more than its `max-drift`: \
             source `behind` has had no rows of `part-7` for 6.0 s"
        );
    }

    /// The same job: whose rows are not there, whose are no later, and whose own event times they are.
    #[test]
    fn event_time_that_stands_still_though_rows_come_is_held_by_somebody() {
        let source = |waited_ms: i64| OperatorStatus {
            kind: OperatorKind::Source,
            rows_out: 90,
            watermark: Some(5_000),
            ..operator("rows", vec![wait(10_000 - waited_ms, WaitOn::Splits { split: Some("a".into()), left: 1 })])
        };
        let timed = |makes_time| OperatorStatus { makes_time, inputs: vec!["rows".into()], ..operator("timed", Vec::new()) };
        let of = |waited_ms, makes_time, watermark: Option<i64>, stood_ms: i64| {
            let since = watermark.map(|_| 10_000 - stood_ms);
            let sums = OperatorStatus {
                rows_in: 90,
                watermark,
                watermark_since_ms: since,
                waits_for_time: true,
                inputs: vec!["timed".into()],
                ..operator("sums", Vec::new())
            };
            why(&status(vec![source(waited_ms), timed(makes_time), sums]))
        };
        let stood = "`sums` waits for event time, which has stood at 1970-01-01T00:00:05.000Z for 3.0 s: ";
        assert_eq!(of(200, true, Some(5_000), 3_000), format!("{stood}`timed`, which makes it from its rows, holds it"));
        assert_eq!(of(200, false, Some(5_000), 3_000), format!("{stood}source `rows` reads rows, but none brings it further"));
        assert_eq!(of(3_000, true, Some(5_000), 3_000), format!("{stood}source `rows` has had no rows of `a` for 3.0 s"));
        let begins = "`sums` waits for event time, which has not begun: `timed`, which makes it from its rows, holds it";
        assert_eq!(of(200, true, None, 0), begins);
        let moves =
            "`sums` waits for event time, which stands at 1970-01-01T00:00:05.000Z: source `rows` has had no rows of `a` for 200 ms";
        assert_eq!(of(200, true, Some(5_000), 300), moves);
    }

    #[test]
    fn a_source_that_found_nothing_and_one_with_many_splits_say_so() {
        let source = |on| OperatorStatus { kind: OperatorKind::Source, ..operator("files", vec![wait(0, on)]) };
        let found = |left| why(&status(vec![source(WaitOn::Splits { split: None, left })]));
        assert_eq!(found(0), "there was no input yet: source `files` has found nothing to read for 10.0 s");
        assert_eq!(found(4), "there was no input yet: source `files` has had no rows of any of its 4 splits for 10.0 s");
    }

    #[test]
    fn where_rows_flow_nothing_is_waited_for() {
        assert_eq!(
            why(&status(vec![operator("busy", vec![wait(9_999, WaitOn::Work { by: "busy".into() })])])),
            "it waits for nothing: rows flow"
        );
        let draining = JobStatus { phase: Phase::Draining, ..status(Vec::new()) };
        assert_eq!(why(&draining), "it is draining, and it waits for nothing: rows flow");
    }

    #[test]
    fn durations_are_written_as_people_say_them() {
        let written = [0, 999, 1_000, 59_999, 60_000, 3_599_999, 3_600_000, -5].map(duration);
        assert_eq!(written, ["0 ms", "999 ms", "1.0 s", "59.9 s", "1 min 0 s", "59 min 59 s", "1 h 0 min", "0 ms"]);
    }
}
