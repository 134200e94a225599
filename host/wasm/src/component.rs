//! A loaded component: inspected, compiled, its imports linked. Instances are made from it in microseconds.

use std::{fmt, sync::Arc};

use wasmtime::component::{InstancePre, Linker, types::ComponentItem};

use crate::{
    aggregate::AggregateInstance,
    bindings::{
        exports::millstream::operator::{aggregate, migration, operator},
        millstream::operator::{collections, columns, http, log, metrics},
    },
    error::Error,
    guest::InstanceContext,
    host::Host,
    inspect::{self, Inspection},
    migration::MigrationInstance,
    operator::OperatorInstance,
    runtime::{Inner, Runtime},
    wasi,
};

/// SHA-256 of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A loaded component. Cheap to clone.
#[derive(Clone)]
pub struct Component {
    shared: Arc<Shared>,
}

/// What the instances of a component share.
pub(crate) struct Shared {
    pub(crate) runtime: Arc<Inner>,
    pub(crate) name: Arc<str>,
    pub(crate) pre: InstancePre<Host>,
    digest: Digest,
    inspection: Inspection,
    operator: Option<operator::GuestIndices>,
    aggregate: Option<aggregate::GuestIndices>,
    migration: Option<migration::GuestIndices>,
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component").field("name", &self.shared.name).field("digest", &self.shared.digest).finish_non_exhaustive()
    }
}

impl Component {
    /// Links what was compiled: every import gets its answer, the exports are looked up and their types checked.
    pub(crate) fn link(
        runtime: Arc<Inner>,
        name: Arc<str>,
        digest: Digest,
        inspection: Inspection,
        compiled: &wasmtime::component::Component,
    ) -> Result<Self, Error> {
        let mismatch =
            |error: wasmtime::Error| Error::WorldMismatch { component: name.clone(), reason: crate::log::printable(&format!("{error:#}")) };
        let pre = link(&runtime.engine, compiled).and_then(|linker| linker.instantiate_pre(compiled)).map_err(mismatch)?;
        let exports = |interface: &str| inspect::check_export(&inspection, interface, &name).is_ok();
        let operator = exports("operator").then(|| operator::GuestIndices::new(&pre)).transpose().map_err(mismatch)?;
        let aggregate = exports("aggregate").then(|| aggregate::GuestIndices::new(&pre)).transpose().map_err(mismatch)?;
        let migration = exports("migration").then(|| migration::GuestIndices::new(&pre)).transpose().map_err(mismatch)?;
        Ok(Self { shared: Arc::new(Shared { runtime, name, pre, digest, inspection, operator, aggregate, migration }) })
    }

    /// How the user names it.
    pub fn name(&self) -> &Arc<str> {
        &self.shared.name
    }

    /// What its instances may use.
    pub fn limits(&self) -> &crate::limits::Limits {
        &self.shared.runtime.limits
    }

    /// SHA-256 of its bytes.
    pub fn digest(&self) -> Digest {
        self.shared.digest
    }

    /// What it is, without running it.
    pub fn inspection(&self) -> &Inspection {
        &self.shared.inspection
    }

    /// A new instance of a stream operator.
    ///
    /// # Errors
    /// It is no stream operator, or its start function fails.
    pub async fn operator(&self, context: InstanceContext) -> Result<OperatorInstance, Error> {
        let Some(indices) = &self.shared.operator else {
            return Err(self.misses("operator"));
        };
        OperatorInstance::new(self.shared.clone(), indices, context).await
    }

    /// A new instance of an aggregate.
    ///
    /// # Errors
    /// It is no aggregate, or its start function fails.
    pub async fn aggregate(&self, context: InstanceContext) -> Result<AggregateInstance, Error> {
        let Some(indices) = &self.shared.aggregate else {
            return Err(self.misses("aggregate"));
        };
        AggregateInstance::new(self.shared.clone(), indices, context).await
    }

    /// Another component, with the same runtime.
    ///
    /// # Errors
    /// As [`crate::Runtime::load`].
    pub async fn load_beside(&self, bytes: Arc<[u8]>, name: &str) -> Result<Self, Error> {
        Runtime::of(self.shared.runtime.clone()).load(bytes, name).await
    }

    /// Whether it can migrate state that an older version wrote.
    pub fn migrates(&self) -> bool {
        self.shared.migration.is_some()
    }

    /// A new instance that migrates state.
    ///
    /// # Errors
    /// It exports no `migration`, or its start function fails.
    pub async fn migration(&self, context: InstanceContext) -> Result<MigrationInstance, Error> {
        let Some(indices) = &self.shared.migration else {
            return Err(self.misses("migration"));
        };
        MigrationInstance::new(self.shared.clone(), indices, context).await
    }

    fn misses(&self, interface: &str) -> Error {
        inspect::check_export(&self.shared.inspection, interface, &self.shared.name)
            .expect_err("an export that fits is found when the component is linked")
    }
}

/// A linker that answers every import of `component`; all of them were granted before.
fn link(engine: &wasmtime::Engine, component: &wasmtime::component::Component) -> wasmtime::Result<Linker<Host>> {
    let mut linker: Linker<Host> = Linker::new(engine);
    // What we answer replaces the trap that stands for everything of WASI.
    linker.allow_shadowing(true);
    type Data = wasmtime::component::HasSelf<Host>;
    columns::add_to_linker::<Host, Data>(&mut linker, |host| host)?;
    log::add_to_linker::<Host, Data>(&mut linker, |host| host)?;
    metrics::add_to_linker::<Host, Data>(&mut linker, |host| host)?;
    collections::add_to_linker::<Host, Data>(&mut linker, |host| host)?;
    http::add_to_linker::<Host, Data>(&mut linker, |host| host)?;
    for (name, import) in component.component_type().imports(engine) {
        let (Some(interface), ComponentItem::ComponentInstance(instance)) = (inspect::answered_wasi(name), import.ty) else {
            continue;
        };
        let mut answers = linker.instance(name)?;
        for (function, item) in instance.exports(engine) {
            if matches!(item.ty, ComponentItem::ComponentFunc(_)) {
                wasi::define_as_trap(&mut answers, interface, function)?;
            }
        }
        wasi::define(&mut answers, interface)?;
    }
    Ok(linker)
}
