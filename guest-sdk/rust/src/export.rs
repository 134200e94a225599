//! The exports of a component, over the traits that the macros implement. Compiled natively too, so that its types are always checked.

use std::{cell::RefCell, marker::PhantomData, thread::LocalKey};

use crate::{
    aggregate::{self, Aggregate},
    bindings::{
        Column, Field, Input, Moment,
        aggregate::exports::millstream::operator::aggregate as aggregate_exports,
        exports::{Descriptor, DueTimers, Failure, Guest, Planned, Rows, Turn},
        migration::exports::millstream::operator::migration as migration_exports,
    },
    operator::{self, Instance, Operator},
    panics,
};

/// Where the one instance of a component lives.
pub type Slot<T> = RefCell<Option<T>>;

/// Gives the exports the component's slot.
pub trait Opened: Sized + 'static {
    /// What is opened.
    type Instance: 'static;
    /// Its slot.
    fn slot() -> &'static LocalKey<Slot<Self::Instance>>;
}

/// The exports of operator `O`.
pub struct Exported<O>(PhantomData<O>);

fn not_open() -> Failure {
    Failure::Fatal("the operator is not open".into())
}

impl<O: Operator + Opened<Instance = Instance<O>>> Guest for Exported<O> {
    fn describe() -> Descriptor {
        operator::describe::<O>()
    }

    fn plan(settings: String, inputs: Vec<Input>) -> Result<Planned, String> {
        operator::plan::<O>(&settings, &inputs)
    }

    fn open(settings: String, inputs: Vec<Input>) -> Result<(), String> {
        log_panics();
        let instance = Instance::open(&settings, &inputs)?;
        O::slot().set(Some(instance));
        Ok(())
    }

    fn process(now: Moment, port: u32, rows: Rows) -> Result<Turn, Failure> {
        panics::leave();
        O::slot().with_borrow_mut(|instance| instance.as_mut().ok_or_else(not_open)?.process(now, port, &rows))
    }

    fn on_timers(now: Moment, due: DueTimers) -> Result<Turn, Failure> {
        panics::leave();
        O::slot().with_borrow_mut(|instance| instance.as_mut().ok_or_else(not_open)?.on_timers(now, &due))
    }
}

impl<O: Operator> migration_exports::Guest for Exported<O> {
    fn migrate(state: String, from_version: u32, from_type: String, values: Column) -> Result<Column, String> {
        log_panics();
        operator::migrate::<O>(&state, (from_version, &from_type), &values)
    }
}

/// The exports of aggregate `A`.
pub struct ExportedAggregate<A>(PhantomData<A>);

impl<A: Aggregate + Opened<Instance = aggregate::Instance<A>>> ExportedAggregate<A> {
    fn with<T>(call: impl FnOnce(&aggregate::Instance<A>) -> Result<T, String>) -> Result<T, String> {
        A::slot().with_borrow(|instance| call(instance.as_ref().ok_or("the aggregate is not open")?))
    }
}

impl<A: Aggregate + Opened<Instance = aggregate::Instance<A>>> aggregate_exports::Guest for ExportedAggregate<A> {
    fn describe() -> aggregate_exports::Descriptor {
        aggregate::describe::<A>()
    }

    fn plan(settings: String, fields: Vec<Field>) -> Result<aggregate_exports::Signature, String> {
        aggregate::plan::<A>(&settings, &fields)
    }

    fn open(settings: String, fields: Vec<Field>) -> Result<(), String> {
        log_panics();
        let instance = aggregate::Instance::open(&settings, &fields)?;
        A::slot().set(Some(instance));
        Ok(())
    }

    fn accumulate(batch: aggregate_exports::Batch, accumulators: Column) -> Result<Column, String> {
        Self::with(|instance| instance.accumulate(&batch, &accumulators))
    }

    fn merge(into: Column, other: Column, into_of_other: Vec<u8>) -> Result<Column, String> {
        Self::with(|instance| instance.merge(&into, &other, &into_of_other))
    }

    fn finish(accumulators: Column) -> Result<Column, String> {
        Self::with(|instance| instance.finish(&accumulators))
    }
}

impl<A: Aggregate> migration_exports::Guest for ExportedAggregate<A> {
    fn migrate(state: String, from_version: u32, from_type: String, values: Column) -> Result<Column, String> {
        log_panics();
        aggregate::migrate::<A>(&state, (from_version, &from_type), &values)
    }
}

fn log_panics() {
    #[cfg(target_family = "wasm")]
    panics::log_panics();
}
