//! What all instances share: the store, the guard around each call, and the meaning of an error.
//!
//! A call begins with [`Instance::begin`] and ends with [`Instance::end`]. In between the instance counts as spent, so that a call
//! whose future is dropped, or that fails, leaves an instance that refuses every further call.

use std::{sync::Arc, time::Duration};

use wasmtime::{PoolConcurrencyLimitError, Store, Trap, UpdateDeadline, WasmBacktrace};

use crate::{
    component::Shared,
    error::Failure,
    guest::InstanceContext,
    host::{Host, HostFault},
    http,
    limits::{Call, Limit, LimitExceeded, Site},
    log::printable,
    meter::{CpuMeter, Running, metered},
    turn::CallStats,
    verify::Refusal,
};

/// The guest used up its CPU time.
#[derive(Debug, thiserror::Error)]
#[error("the CPU time of the call is used up")]
struct CpuTimeUsedUp;

/// A store with a component's instance in it.
pub(crate) struct Instance {
    pub(crate) store: Store<Host>,
    shared: Arc<Shared>,
    cpu: Arc<CpuMeter>,
    spent: bool,
    stats: CallStats,
}

impl Instance {
    /// An instance of `shared`; its start functions have run.
    pub(crate) async fn new(shared: Arc<Shared>, context: InstanceContext) -> Result<(Self, wasmtime::component::Instance), Failure> {
        let cpu = Arc::new(CpuMeter::new());
        let seed = shared.runtime.seed(&context);
        let host = Host::new(context, shared.runtime.limits.clone(), seed, cpu.clone());
        let mut store = Store::new(&shared.runtime.engine, host);
        store.limiter(|host| host);
        store.set_hostcall_fuel(usize::try_from(shared.runtime.limits.bytes_out_of_call).unwrap_or(usize::MAX));
        store.epoch_deadline_callback(|store| on_tick(store.data()));
        let mut instance = Self { store, shared: shared.clone(), cpu, spent: false, stats: CallStats::default() };
        let running = instance.begin(Call::Instantiate)?;
        let (made, busy) = metered(&instance.cpu.clone(), shared.pre.instantiate_async(&mut instance.store)).await;
        drop(running);
        let made = instance.end(Call::Instantiate, made, busy)?;
        Ok((instance, made))
    }

    /// Where an error of `call` happened.
    pub(crate) fn site(&self, call: Call) -> Site {
        Site { component: self.shared.name.clone(), operator: self.store.data().context.operator.clone(), call }
    }

    /// The meter of the call, for [`metered`].
    pub(crate) fn meter(&self) -> Arc<CpuMeter> {
        self.cpu.clone()
    }

    pub(crate) fn stats(&self) -> CallStats {
        self.stats
    }

    /// The next calls may use so much CPU time each, and never more than the limit of the runtime.
    pub(crate) fn limit_cpu(&mut self, per_call: Duration) {
        let most = self.shared.runtime.limits.cpu_per_call;
        self.store.data_mut().cpu_per_call = per_call.min(most);
    }

    /// The component that this is an instance of.
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// A call is about to be made. Drop the guard after it.
    pub(crate) fn begin(&mut self, call: Call) -> Result<Running, Failure> {
        if self.spent {
            return Err(Failure::Host {
                site: self.site(call),
                reason: "the instance is spent by an earlier failure; make a new one".into(),
            });
        }
        self.spent = true;
        self.stats = CallStats::default();
        let host = self.store.data_mut();
        host.refused_growth = None;
        host.discard_metrics();
        (host.call, host.requests) = (call, http::Call::new(&host.limits));
        self.store.set_epoch_deadline(1);
        Ok(self.shared.runtime.ticker.running())
    }

    /// The bytes about to be sent, against the limit.
    pub(crate) fn lowering(&mut self, call: Call, bytes: u64) -> Result<(), Failure> {
        self.stats.lowered_bytes = bytes;
        let max = self.shared.runtime.limits.bytes_into_call;
        if bytes > max {
            return Err(LimitExceeded { site: self.site(call), limit: Limit::BytesIntoCall, max }.into());
        }
        Ok(())
    }

    /// The call was made: its result, or what its error means.
    pub(crate) fn end<R>(&mut self, call: Call, result: wasmtime::Result<R>, busy: Duration) -> Result<R, Failure> {
        self.stats.busy = busy;
        self.stats.memory_bytes = self.store.data().memory_bytes;
        match result {
            Ok(result) => {
                self.spent = false;
                Ok(result)
            }
            Err(error) => Err(self.failure(call, &error)),
        }
    }

    /// The answer of a good call was taken over.
    pub(crate) fn accepted(&mut self, lifted_bytes: u64) {
        self.stats.lifted_bytes = lifted_bytes;
    }

    /// What the last call answered was applied.
    pub(crate) fn applied(&mut self) {
        self.store.data_mut().apply_metrics();
    }

    /// The guest answered that it failed. Its words are shown to people, in one line each.
    pub(crate) fn gave_up(&mut self, call: Call, failure: Failure) -> Failure {
        self.spent = !failure.leaves_instance_usable();
        let failure = match failure {
            Failure::Retry(words) => Failure::Retry(printable(&words)),
            Failure::Fatal(words) => Failure::Fatal(printable(&words)),
            other => other,
        };
        match self.store.data().refused_growth {
            Some((limit, max)) if self.spent => LimitExceeded { site: self.site(call), limit, max }.into(),
            _ => failure,
        }
    }

    /// The answer breaks the contract or a limit.
    pub(crate) fn refused(&mut self, call: Call, refusal: Refusal) -> Failure {
        self.spent = true;
        match refusal {
            Refusal::Contract(reason) => Failure::Refused { site: self.site(call), reason },
            Refusal::Limit(limit, max) => LimitExceeded { site: self.site(call), limit, max }.into(),
        }
    }

    fn failure(&self, call: Call, error: &wasmtime::Error) -> Failure {
        let site = self.site(call);
        if let Some(HostFault(reason)) = error.downcast_ref() {
            return Failure::Host { site, reason: reason.clone() };
        }
        if let Some((limit, max)) = self.exceeded_limit(error) {
            return LimitExceeded { site, limit, max }.into();
        }
        let backtrace = error.downcast_ref::<WasmBacktrace>();
        let reason = error.root_cause().to_string();
        match backtrace {
            Some(backtrace) => {
                Failure::Trap { site, reason: reason.trim_start_matches("wasm trap: ").to_owned(), backtrace: frames(backtrace) }
            }
            None if error.is::<Trap>() => {
                Failure::Trap { site, reason: reason.trim_start_matches("wasm trap: ").to_owned(), backtrace: Vec::new() }
            }
            None => Failure::Refused { site, reason },
        }
    }

    fn exceeded_limit(&self, error: &wasmtime::Error) -> Option<(Limit, u64)> {
        let limits = &self.shared.runtime.limits;
        if error.is::<CpuTimeUsedUp>() {
            let ms = u64::try_from(self.store.data().cpu_per_call.as_millis()).unwrap_or(u64::MAX);
            return Some((Limit::CpuPerCallMs, ms));
        }
        if error.is::<http::UsedUp>() {
            return Some((Limit::AnswerBytesPerCall, limits.answer_bytes_per_call));
        }
        if error.is::<http::TooMany>() {
            return Some((Limit::RequestsPerCall, u64::from(limits.requests_per_call)));
        }
        if error.is::<PoolConcurrencyLimitError>() {
            return Some((Limit::Instances, u64::from(self.shared.runtime.pooled_instances)));
        }
        if error.downcast_ref::<Trap>() == Some(&Trap::StackOverflow) {
            return Some((Limit::StackBytes, u64::from(limits.stack_bytes)));
        }
        // wasmtime keeps this error's type to itself.
        if error.root_cause().to_string().contains("fuel allocated for hostcalls") {
            return Some((Limit::BytesOutOfCall, limits.bytes_out_of_call));
        }
        self.store.data().refused_growth
    }
}

fn on_tick(host: &Host) -> wasmtime::Result<UpdateDeadline> {
    if host.cpu.used_at_tick() > host.cpu_per_call {
        return Err(CpuTimeUsedUp.into());
    }
    Ok(UpdateDeadline::Yield(1))
}

fn frames(backtrace: &WasmBacktrace) -> Vec<String> {
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => name.to_owned(),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().map(name).collect()
}
