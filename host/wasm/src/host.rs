//! The content of an instance's store: what the host knows while guest code runs, and the imports it answers.
//!
//! [`Host`] is a resource limiter (memory, tables), the receiver of log and metrics, and the door to collection state. What a guest
//! does wrong here is answered with an error it can handle; what the host does wrong ends the call with [`HostFault`].

use std::{sync::Arc, time::Duration};

use arrow_schema::DataType;
use millstream_model::{
    EventTime,
    state::{StateDescriptor, StateKind},
};
use wasmtime::ResourceLimiter;

use crate::{
    bindings::millstream::operator::{collections, columns, http as http_import, log as log_import, metrics},
    guest::{GuestMetric, InstanceContext, MetricKind},
    http, lift,
    limits::{Call, Limit, Limits},
    log::{LogLevel, SaidBy, printable},
    lower,
    meter::CpuMeter,
    plan::OperatorPlan,
    turn::{Collections, RowNotes, Span},
    wasi::VirtualWorld,
};

/// Most metrics that a guest may define.
const METRICS_MAX: usize = 256;
/// Most observations of one call that are kept.
const OBSERVATIONS_MAX: usize = 65_536;
/// Most spans in one scan: as many as a call may have rows. A guest is not interrupted while the host looks for them.
const SPANS_MAX: usize = 1 << 16;

/// The host failed while it answered an import; in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct HostFault(pub(crate) String);

/// What the store of an instance holds.
pub(crate) struct Host {
    pub(crate) context: InstanceContext,
    pub(crate) limits: Arc<Limits>,
    pub(crate) world: VirtualWorld,
    pub(crate) cpu: Arc<CpuMeter>,
    /// CPU time that a call may use.
    pub(crate) cpu_per_call: Duration,
    /// Linear memory of all memories, in bytes.
    pub(crate) memory_bytes: u64,
    /// The call that is being made.
    pub(crate) call: Call,
    /// What it has left of HTTP.
    pub(crate) requests: http::Call,
    /// The limit that stopped memory or a table from growing during this call.
    pub(crate) refused_growth: Option<(Limit, u64)>,
    /// Lent for one call.
    pub(crate) collections: Option<Box<dyn Collections>>,
    /// Number of keys in this call.
    pub(crate) call_keys: u32,
    /// What is known of its rows.
    pub(crate) rows: RowNotes,
    /// Set by `open`.
    pub(crate) plan: Option<Arc<OperatorPlan>>,
    metrics: Vec<GuestMetric>,
    observations: Vec<(u32, f64)>,
}

impl Host {
    pub(crate) fn new(context: InstanceContext, limits: Arc<Limits>, seed: u64, cpu: Arc<CpuMeter>) -> Self {
        Self {
            context,
            call: Call::Instantiate,
            requests: http::Call::new(&limits),
            cpu_per_call: limits.cpu_per_call,
            limits,
            world: VirtualWorld::new(seed),
            cpu,
            memory_bytes: 0,
            refused_growth: None,
            collections: None,
            call_keys: 0,
            rows: RowNotes::default(),
            plan: None,
            metrics: Vec::new(),
            observations: Vec::new(),
        }
    }

    /// One line of the guest, if its rate allows it. `row`: of this row of the call.
    pub(crate) fn log(&mut self, level: LogLevel, message: &str, row: Option<u32>) {
        let row = row.map(|row| row as usize);
        let by = SaidBy {
            version: self.context.version.as_deref(),
            key_hash: row.and_then(|row| self.rows.keys.as_ref()?.hash_of_row(row)),
            event_time: row.and_then(|row| self.rows.event_times.as_ref()?.get(row).copied()),
            source: row.and_then(|row| {
                // A guest may name a row that there is not.
                let origin = self.rows.origin.as_ref()?;
                Some((&*origin.split, origin.positions.get(row)?))
            }),
        };
        self.context.log.emit(level, message, by, self.limits.log_bytes_per_second);
    }

    fn observe(&mut self, metric: u32, value: f64) {
        if self.observations.len() < OBSERVATIONS_MAX {
            self.observations.push((metric, value));
        }
    }

    /// The answer was applied: its metrics count.
    pub(crate) fn apply_metrics(&mut self) {
        for (metric, value) in self.observations.drain(..) {
            self.context.metrics.add(&self.metrics[metric as usize], value);
        }
    }

    /// The call failed, or its answer was not applied: its metrics never happened.
    pub(crate) fn discard_metrics(&mut self) {
        self.observations.clear();
    }

    /// The collection state `number` and the state it names, if this call may read it.
    fn collection(&mut self, number: u32) -> Result<(&StateDescriptor, &mut dyn Collections), String> {
        let plan = self.plan.as_deref().ok_or("collections can be read from `open` on")?;
        let state = plan.states.get(number as usize).ok_or_else(|| format!("there is no state {number}"))?;
        if state.kind == StateKind::Value {
            return Err(format!("state `{}` is a value; it travels with the batch", state.name));
        }
        let collections = self.collections.as_deref_mut().ok_or("this call has no keys, so there are no collections to read")?;
        Ok((state, collections))
    }
}

impl ResourceLimiter for Host {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let wanted = self.memory_bytes - current as u64 + desired as u64;
        if wanted > self.limits.memory_bytes {
            self.refused_growth = Some((Limit::MemoryBytes, self.limits.memory_bytes));
            return Ok(false);
        }
        self.memory_bytes = wanted;
        Ok(true)
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        let most = self.limits.table_entries;
        if desired > most as usize {
            self.refused_growth = Some((Limit::TableEntries, u64::from(most)));
            return Ok(false);
        }
        Ok(true)
    }
}

impl columns::Host for Host {}

impl log_import::Host for Host {
    fn emit(&mut self, level: log_import::Level, message: String) -> wasmtime::Result<()> {
        self.log(log_level(level), &message, None);
        Ok(())
    }

    fn emit_of(&mut self, level: log_import::Level, message: String, row: u32) -> wasmtime::Result<()> {
        self.log(log_level(level), &message, Some(row));
        Ok(())
    }
}

fn log_level(level: log_import::Level) -> LogLevel {
    match level {
        log_import::Level::Trace => LogLevel::Trace,
        log_import::Level::Debug => LogLevel::Debug,
        log_import::Level::Info => LogLevel::Info,
        log_import::Level::Warn => LogLevel::Warn,
        log_import::Level::Error => LogLevel::Error,
    }
}

impl metrics::Host for Host {
    /// Defining a metric again gives its number again.
    fn define(&mut self, name: String, kind: metrics::Kind, unit: String) -> wasmtime::Result<u32> {
        let well_formed =
            (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        if !well_formed || unit.len() > 32 {
            return Err(wasmtime::format_err!(
                "metric `{}`: a name is 1 to 64 of a-z, 0-9 and _, a unit at most 32 bytes",
                printable(&name)
            ));
        }
        let kind = match kind {
            metrics::Kind::Counter => MetricKind::Counter,
            metrics::Kind::Gauge => MetricKind::Gauge,
            metrics::Kind::Histogram => MetricKind::Histogram,
        };
        if let Some(known) = self.metrics.iter().position(|metric| *metric.name == *name) {
            if self.metrics[known].kind != kind {
                return Err(wasmtime::format_err!("metric `{name}` is defined with two kinds"));
            }
            return Ok(u32::try_from(known).expect("few metrics"));
        }
        if self.metrics.len() == METRICS_MAX {
            return Err(wasmtime::format_err!("the component defines more than {METRICS_MAX} metrics"));
        }
        self.metrics.push(GuestMetric { name: name.into(), kind, unit: unit.into() });
        Ok(u32::try_from(self.metrics.len() - 1).expect("few metrics"))
    }

    fn add(&mut self, metric: u32, value: f64) -> wasmtime::Result<()> {
        let Some(defined) = self.metrics.get(metric as usize) else {
            return Err(wasmtime::format_err!("there is no metric {metric}"));
        };
        let kind = defined.kind;
        let same = |(number, _): &&mut (u32, f64)| *number == metric;
        let before = self.observations.iter_mut().find(same).map(|(_, value)| value).filter(|_| kind != MetricKind::Histogram);
        match (before, kind) {
            (Some(total), MetricKind::Counter) => *total += value,
            (Some(last), _) => *last = value,
            (None, _) => self.observe(metric, value),
        }
        Ok(())
    }
}

impl collections::Host for Host {
    fn get(
        &mut self,
        state: u32,
        keys: Vec<u8>,
        map_keys: columns::ColumnResult,
    ) -> wasmtime::Result<Result<columns::ColumnResult, String>> {
        let call_keys = self.call_keys;
        let (descriptor, collections) = match self.collection(state) {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        let Some(map_key_type) = &descriptor.map_key_type else {
            return Ok(Err(format!("state `{}` is a list; read it with a scan", descriptor.name)));
        };
        let asked = lift::numbers(keys, call_keys, "key").and_then(|keys| {
            let map_keys = lift::column_of(map_keys, map_key_type, false, "map keys")?;
            if map_keys.len() != keys.len() {
                return Err(format!("{} map keys for {} keys", map_keys.len(), keys.len()));
            }
            Ok((keys, map_keys))
        });
        let (keys, map_keys) = match asked {
            Ok(asked) => asked,
            Err(reason) => return Ok(Err(reason)),
        };
        let values = collections.get(state, &keys, &map_keys).map_err(HostFault)?;
        if values.data_type() != &descriptor.value_type || values.len() != keys.len() {
            return Err(HostFault(format!("state `{}` was read with another type or length", descriptor.name)).into());
        }
        Ok(Ok(lower::owned(&values)))
    }

    fn scan(&mut self, state: u32, spans: Vec<collections::Span>, bytes_max: u32) -> wasmtime::Result<Result<collections::Found, String>> {
        let call_keys = self.call_keys;
        let (descriptor, collections) = match self.collection(state) {
            Ok(found) => found,
            Err(reason) => return Ok(Err(reason)),
        };
        if spans.len() > SPANS_MAX {
            return Ok(Err(format!("more than {SPANS_MAX} spans in one scan")));
        }
        let spans: Vec<Span> = match spans.into_iter().map(|span| checked_span(span, descriptor, call_keys)).collect() {
            Ok(spans) => spans,
            Err(reason) => return Ok(Err(reason)),
        };
        let found = collections.scan(state, &spans, bytes_max).map_err(HostFault)?;
        Ok(Ok(collections::Found {
            of_request: lower::bytes_of(&found.of_span),
            map_keys: found.map_keys.as_ref().map(lower::owned),
            values: lower::owned(&found.values),
        }))
    }
}

impl http_import::Host for Host {
    /// The guest waits; others run meanwhile, and the wait is none of its CPU time.
    async fn send(
        &mut self,
        requests: Vec<http_import::Request>,
    ) -> wasmtime::Result<Vec<Result<http_import::Response, http_import::Failure>>> {
        if !matches!(self.call, Call::Process | Call::OnTimers) {
            return Err(wasmtime::format_err!("requests over HTTP are sent in `process` and `on-timers` alone"));
        }
        let Some(sender) = self.context.http.clone() else {
            return Err(wasmtime::format_err!("it is not granted HTTP: the job file grants it with `http: {{}}` beside `component`"));
        };
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        self.requests.left = self.requests.left.checked_sub(count).ok_or(http::TooMany)?;
        self.cpu.cut();
        let answers = sender.send(requests.into_iter().map(Into::into).collect(), &mut self.requests).await?;
        Ok(answers.into_iter().map(http::lower).collect())
    }
}

fn checked_span(span: collections::Span, state: &StateDescriptor, call_keys: u32) -> Result<Span, String> {
    if span.key >= call_keys {
        return Err(format!("key {} of a call with {call_keys} keys", span.key));
    }
    let bound = |bound: Option<columns::ColumnResult>| {
        let Some(column) = bound else { return Ok(None) };
        let bound = lift::column_of(column, state.map_key_type.as_ref().unwrap_or(&DataType::UInt64), false, "bound of a span")?;
        if bound.len() == 1 { Ok(Some(bound)) } else { Err(format!("a bound of a span is one value, not {}", bound.len())) }
    };
    Ok(Span { key: span.key, after: bound(span.after)?, before: bound(span.before)?, newest_first: span.newest_first, limit: span.limit })
}

/// Whether a row or timer may carry this time.
pub(crate) fn is_supported_time(ms: i64) -> bool {
    EventTime(ms).is_supported()
}
