//! What stands under `window:` in the job file.

use std::{collections::BTreeMap, num::NonZeroU64};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    assign::{LENGTH_MS_MAX, Windows},
    plan::Kind,
};
use crate::{
    operators::{ComponentReference, LatePolicy, Problem},
    spec::DurationMs,
};

/// Groups the rows of each key into windows and computes aggregates over each. Exactly one of `tumbling`, `sliding`, `session`,
/// `cumulative`, `count` and `global` says how. The output has the key columns, `window_start` and `window_end` (but for `count` and
/// `global`), and one column per aggregate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Window {
    /// Windows of this length, one after the other.
    pub(super) tumbling: Option<DurationMs>,
    /// Windows of one length that overlap.
    pub(super) sliding: Option<Sliding>,
    /// Windows that last as long as rows follow each other in less than this gap.
    pub(super) session: Option<DurationMs>,
    /// Windows that start together and grow by a step.
    pub(super) cumulative: Option<Cumulative>,
    /// Windows of this many rows of a key; what is left over comes out at the end of the input. They do not depend on time.
    pub(super) count: Option<NonZeroU64>,
    /// One window for everything, which ends with the input.
    pub(super) global: Option<Global>,
    /// Column → what it is computed by.
    #[schemars(with = "BTreeMap<String, Aggregate>")]
    pub(super) aggregates: Map<String, Value>,
    /// How far behind the watermark a row may be and still be used; results that it changes are emitted again, as updates. Default: 0s.
    #[serde(default)]
    pub(super) allowed_lateness: DurationMs,
    /// Emit results before a window is complete, and updates of them. Default: only complete windows.
    pub(super) early: Option<Early>,
    /// Shifts the starts of windows, which otherwise are multiples of their length since 1970-01-01T00:00Z. Default: 0s.
    #[serde(default)]
    pub(super) offset: DurationMs,
    /// What becomes of rows that come too late. Default: drop.
    #[serde(default)]
    pub(super) late: LatePolicy,
}

/// Windows that overlap.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Sliding {
    /// The length of a window.
    size: DurationMs,
    /// The distance between the starts of two windows; at most the size.
    slide: DurationMs,
}

/// Windows that start together and grow.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Cumulative {
    /// By how much each window is longer than the one before.
    step: DurationMs,
    /// The length of the longest window, a multiple of the step; then it begins anew.
    size: DurationMs,
}

/// One window for everything: `global: {}`.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Global {}

/// When results are emitted before their window is complete.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Early {
    /// At most this long, in processing time, after a row changed a result.
    Every(DurationMs),
    /// By the clock that is named.
    By {
        /// Time between two results of a window that changes.
        every: DurationMs,
        /// The clock.
        #[serde(default)]
        clock: EarlyClock,
    },
}

/// The clock of early results.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EarlyClock {
    /// The clock of the machine.
    #[default]
    ProcessingTime,
    /// The watermark.
    EventTime,
}

/// One aggregate: exactly one function, such as `{ count: "*" }`, `{ avg: dep_delay }` or `{ max-by: price, value: [bidder, auction] }`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Aggregate {
    /// The number of rows (`"*"`), or of those with a value in the column.
    pub(super) count: Option<String>,
    /// The number of distinct values, exactly. The values of a window must fit into 1 MiB.
    pub(super) count_distinct: Option<String>,
    /// The sum. Integers give Int64 or UInt64; a sum that does not fit rejects the window's result.
    pub(super) sum: Option<String>,
    /// The mean: Float64, of decimals a decimal.
    pub(super) avg: Option<String>,
    /// The least value.
    pub(super) min: Option<String>,
    /// The greatest value.
    pub(super) max: Option<String>,
    /// The value of the earliest row.
    pub(super) first: Option<String>,
    /// The value of the latest row.
    pub(super) last: Option<String>,
    /// All values, nulls included, in order of arrival. The values of a window must fit into 1 MiB.
    pub(super) collect: Option<String>,
    /// The row with the greatest value in this column (the first of several): its `value`.
    pub(super) max_by: Option<String>,
    /// The row with the least value in this column (the first of several): its `value`.
    pub(super) min_by: Option<String>,
    /// With `max-by` and `min-by`: a column, or a list of columns that come out as a struct.
    pub(super) value: Option<Columns>,
    /// A component of the world `window-aggregate`.
    pub(super) component: Option<ComponentReference>,
    /// With `component`: the columns it is given, as a list, or as a map from the name it knows to the column. Default: all columns.
    pub(super) input: Option<Input>,
}

/// A column or several.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Columns {
    /// One column, as it is.
    One(String),
    /// Columns of a struct.
    Many(Vec<String>),
}

/// The columns that a component is given.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Input {
    /// One column.
    One(String),
    /// Under their own names.
    Listed(Vec<String>),
    /// The component's name → column.
    Renamed(BTreeMap<String, String>),
}

impl Window {
    /// How windows lie, checked.
    pub(super) fn kind(&self) -> Result<Kind, Problem> {
        let kinds = [
            ("tumbling", self.tumbling.is_some()),
            ("sliding", self.sliding.is_some()),
            ("session", self.session.is_some()),
            ("cumulative", self.cumulative.is_some()),
            ("count", self.count.is_some()),
            ("global", self.global.is_some()),
        ];
        let given: Vec<&str> = kinds.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
        match given[..] {
            [] => Err(Problem::at("", "which windows is not said")
                .help("add one of `tumbling`, `sliding`, `session`, `cumulative`, `count`, `global`")),
            [_] => self.only_kind(),
            [first, second, ..] => Err(Problem::at(second, format!("windows are either `{first}` or `{second}`"))),
        }
    }

    fn only_kind(&self) -> Result<Kind, Problem> {
        let origin_ms = self.offset.as_ms();
        if let Some(size) = self.tumbling {
            let size_ms = length("tumbling", size)?;
            return Ok(Kind::Time(Windows::tumbling(size_ms, origin_ms)));
        }
        if let Some(Sliding { size, slide }) = self.sliding {
            let (size_ms, slide_ms) = (length("sliding.size", size)?, length("sliding.slide", slide)?);
            if slide_ms > size_ms {
                let message = "the slide is longer than the size, so rows between two windows would be lost";
                return Err(Problem::at("sliding.slide", message).help("filter the rows before the window if that is meant"));
            }
            return Ok(Kind::Time(Windows::Sliding { size_ms, slide_ms, origin_ms }));
        }
        if let Some(Cumulative { step, size }) = self.cumulative {
            let (step_ms, size_ms) = (length("cumulative.step", step)?, length("cumulative.size", size)?);
            if size_ms % step_ms != 0 {
                return Err(Problem::at("cumulative.size", "the size is no multiple of the step"));
            }
            return Ok(Kind::Time(Windows::Cumulative { size_ms, step_ms, origin_ms }));
        }
        if let Some(gap) = self.session {
            return Ok(Kind::Session { gap_ms: length("session", gap)? });
        }
        Ok(self.count.map_or(Kind::Time(Windows::Global), |rows| Kind::Count { rows }))
    }

    /// The early firing that is asked for: its interval in ms, and its clock.
    pub(super) fn early(&self) -> Result<Option<(i64, EarlyClock)>, Problem> {
        let Some(early) = self.early else { return Ok(None) };
        let (path, every, clock) = match early {
            Early::Every(every) => ("early", every, EarlyClock::default()),
            Early::By { every, clock } => ("early.every", every, clock),
        };
        Ok(Some((length(path, every)?, clock)))
    }

    /// The settings of one aggregate.
    pub(super) fn aggregate(name: &str, settings: &Value) -> Result<Aggregate, Problem> {
        let path = format!("aggregates.{name}");
        if let Value::Object(fields) = settings
            && let Some(unknown) = fields.keys().find(|key| !AGGREGATE_KEYS.contains(&key.as_str()))
        {
            let help = crate::spec::suggest::help("aggregates", unknown, AGGREGATE_KEYS.iter().copied());
            return Err(Problem::at(format!("{path}.{unknown}"), format!("unknown aggregate `{unknown}`")).help(help));
        }
        if !settings.is_object() {
            return Err(Problem::at(path, "an aggregate is a function and its column").help("write for example { avg: dep_delay }"));
        }
        serde_path_to_error::deserialize(settings.clone()).map_err(|error| {
            let inner = error.path().to_string();
            let at = if inner == "." { path } else { format!("{path}.{inner}") };
            Problem::at(at, error.into_inner().to_string())
        })
    }
}

/// Every key of [`Aggregate`].
const AGGREGATE_KEYS: &[&str] =
    &["count", "count-distinct", "sum", "avg", "min", "max", "first", "last", "collect", "max-by", "min-by", "value", "component", "input"];

fn length(path: &str, duration: DurationMs) -> Result<i64, Problem> {
    match duration.as_ms() {
        0 => Err(Problem::at(path, "it is longer than nothing").help("write for example 10s or 1h")),
        ms if ms > LENGTH_MS_MAX => Err(Problem::at(path, "it is longer than 1,000 years")),
        ms => Ok(ms),
    }
}
